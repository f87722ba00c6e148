"""A virtual environment for each peer, with the versions that its requirements file pins."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


class NotInstalledError(Exception):
    """A peer has no environment; the message says why."""


def requirements(peer: str) -> tuple[str, list[str]]:
    """Return the pin of a peer itself, and those of what it needs here."""
    lines = (HERE / f"{peer}.txt").read_text(encoding="utf-8").splitlines()
    own, *others = [line for line in lines if line and not line.startswith("#")]
    return own, others


def environment(peer: str, folder: Path, install: bool = True) -> Path:
    """Return the Python of a peer's environment, which is made where it is missing or another than asked for.

    Parameters
    ----------
    peer : str
        Its requirements are in the file of its name.
    folder : Path
        Where environments lie, each under its peer's name.
    install : bool
        Whether to make it.

    Raises
    ------
    NotInstalledError
        If there is none, and it cannot or shall not be made.
    """
    home = folder.absolute() / peer
    python, stamp = home / "bin" / "python", home / "installed.txt"
    own, others = requirements(peer)
    content = "\n".join([own, *others])
    if python.exists() and stamp.is_file() and stamp.read_text(encoding="utf-8") == content:
        return python
    if not install:
        raise NotInstalledError(f"no environment of {own} in {home}; leave out --no-install")
    print(f"installing {own} into {home}", file=sys.stderr, flush=True)
    _run(sys.executable, "-m", "venv", "--clear", str(home))
    pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*pip, *others)
    _run(*pip, "--no-deps", own)  # what else it asks for is not needed here, and not to be had for every Python
    stamp.write_text(content, encoding="utf-8")
    return python


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise NotInstalledError(str(error)) from error
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or [f"{command[0]} ended with {done.returncode}"]
        errors = [line for line in lines if line.startswith("ERROR: ")]
        raise NotInstalledError((errors or lines)[-1].removeprefix("ERROR: "))
