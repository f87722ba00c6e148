"""One side of a comparison: a worker in a process of its own, asked for one job at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from work import Answer

HERE = Path(__file__).parent
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_LAST_WORDS = 4000  # characters of a log, enough for a traceback


class WorkerError(Exception):
    """A worker ended before its answer; the message has its last words."""


class Side:
    """A worker, from its start to the end of a `with` statement.

    Parameters
    ----------
    name : str
        The worker is the script NAME_worker.py.
    python : Path
        What runs it.
    data : Path
        The folder of the data.
    folder : Path
        Where it runs; what it says goes to NAME.log there.
    threads : int
        Of its numerical libraries.
    """

    def __init__(self, name: str, python: Path, data: Path, folder: Path, threads: int) -> None:
        self.name = name
        self._command = [str(python), str(HERE / f"{name}_worker.py"), str(data)]
        self._folder, self._log = folder, folder / f"{name}.log"
        self._environment = {**os.environ, **dict.fromkeys(_THREADS, str(threads))}
        if name != "recvae":
            self._environment.pop("PYTHONPATH", None)  # nothing of this environment in theirs

    def __enter__(self) -> Self:
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._folder,
                env=self._environment,
                text=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()

    def wait_until_ready(self) -> None:
        """Wait until it has read the data.

        Raises
        ------
        WorkerError
            If it ended instead.
        """
        self._line()

    def ask(self, job: str, **settings: Any) -> Answer:
        """Have a job done.

        Parameters
        ----------
        job : str
            One of those that the worker has.
        **settings
            Its arguments, that JSON can hold.

        Raises
        ------
        WorkerError
            If it ended instead.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{job} {json.dumps(settings)}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what there is to say of it, the answer that does not come says
        return Answer(**json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            said = self._log.read_text(encoding="utf-8", errors="replace").strip()
            print(said[-_LAST_WORDS:], file=sys.stderr, flush=True)
            last = said.splitlines()[-1] if said and status > 0 else f"ended with {status}"
            raise WorkerError(f"{self.name}'s worker: {last}")
        return line
