"""Python processes that start warm: each is forked from one that has imported large libraries, and nothing of recvae.

    python warm.py serve NAME MODULE...    imports the modules and forks for whoever asks, until its standard input ends
    python -IS warm.py NAME WORD...        does what `python WORD...` does; the words are -c CODE, -m MODULE or a file

Whoever asks hands over its folder, its environment and its open files, passes signals on, and ends as the process does
that was forked for it; if it is killed, so is that one. This takes tenths of a second instead of two seconds. A test of
what a start imports, of threads, or of sets in another order needs a real process.
"""

import array
import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

OPEN = Path("/proc/self/fd")
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
MOST_FILES = 64
LENGTH = 8  # bytes of a number that is sent


def ask(name: str, words: list[str]) -> NoReturn:
    """Have the words run in a process that is forked for them, and end as that one does."""
    files = [int(path.name) for path in list(OPEN.iterdir()) if path.exists()]  # one was that of the list
    job = {"words": words, "folder": str(Path.cwd()), "environment": dict(os.environ), "files": files}
    text = json.dumps(job).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(f"\0{name}")
        for number in PASSED_ON:
            signal.signal(number, lambda number, _: server.sendall(bytes([number])))
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))
        server.sendmsg([len(text).to_bytes(LENGTH, "big")], [rights])
        server.sendall(text)
        code = os.waitstatus_to_exitcode(int.from_bytes(_exactly(server, LENGTH), "big"))
    leave(code)


def _exactly(connection: socket.socket, length: int) -> bytes:
    """Return so many bytes that are sent."""
    found = b""
    while len(found) < length:
        found += connection.recv(length - len(found)) or sys.exit("the other side has ended")
    return found


def serve(name: str, modules: list[str]) -> dict[str, Any]:
    """Fork for whoever asks; return in the forked processes alone, with what they are to do."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"\0{name}")
    listening.listen(MOST_FILES)
    os.dup2(2, 1)  # ends what is said there: from now on, one may ask
    with warnings.catch_warnings(action="error"):
        for module in modules:
            importlib.import_module(module)
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # with idle threads
    gc.freeze()  # so that collecting in a forked process leaves memory shared
    signal.signal(signal.SIGCHLD, lambda *_: os.wait())
    while True:
        if 0 in select.select([0, listening], [], [])[0]:
            sys.exit()
        asking, _ = listening.accept()
        if os.fork() == 0:
            break
        asking.close()
    listening.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, told, _, _ = asking.recvmsg(LENGTH, socket.CMSG_SPACE(4 * MOST_FILES))
    job = json.loads(_exactly(asking, int.from_bytes(head, "big")))
    job["files"] = dict(zip(job["files"], array.array("i", told[0][2]), strict=True))
    if (forked := os.fork()) != 0:
        _mind(forked, asking, job)
    asking.close()
    return job


def _mind(forked: int, asking: socket.socket, job: dict[str, Any]) -> NoReturn:
    """Pass on signals to a process until it ends, and then how it ended."""
    for number in (0, 1, 2, *job["files"].values()):  # an open pipe would seem to be one that is still written to
        os.close(number)
    ended = os.pidfd_open(forked)
    while ended not in select.select([ended, asking], [], [])[0]:
        for number in asking.recv(LENGTH) or [signal.SIGKILL]:
            os.kill(forked, number)
    _, status = os.waitpid(forked, 0)
    with contextlib.suppress(OSError):
        asking.sendall(status.to_bytes(LENGTH, "big"))
    os._exit(0)


def take_over(job: dict[str, Any]) -> None:
    """Become what was asked for: with its open files, folder, environment and what it says of warnings."""
    beyond = max(*job["files"], *job["files"].values()) + 1  # so that no file takes the number of one to come
    moved = {number: fcntl.fcntl(file, fcntl.F_DUPFD, beyond) for number, file in job["files"].items()}
    os.closerange(min(job["files"].values()), max(job["files"].values()) + 1)
    for number, file in moved.items():
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.warnoptions[:] = filter(None, os.environ.get("PYTHONWARNINGS", "").split(","))
    warnings._processoptions(sys.warnoptions)  # type: ignore[attr-defined]


def run(*words: str) -> None:
    """Do what `python` does with these words."""
    is_safe = words[0] == "-P"  # no modules from this folder
    first, *rest = words[is_safe:]
    if first == "-c":
        sys.path[:1], sys.argv = [""][is_safe:], ["-c", *rest[1:]]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(main))
    elif first == "-m":
        sys.path[0], sys.argv = str(Path.cwd()), ["-m", *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str(Path(first).resolve().parent), [first, *rest]
        runpy.run_path(first, run_name="__main__")


def end_after(doing: Callable[[], None]) -> NoReturn:
    """Do it and end this process as Python does, but leave modules as they are: clearing them takes half a second."""
    code: object = None
    try:
        doing()
    except SystemExit as error:
        code = error.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]  # which waits for threads
    atexit._run_exitfuncs()
    if not isinstance(code, int | None):
        sys.stderr.write(f"{code}\n")
        code = 1
    with contextlib.suppress(OSError, ValueError):  # closed
        sys.stdout.flush()
        sys.stderr.flush()
    leave(code or 0)


def leave(code: int) -> NoReturn:
    """End at once, with an exit code or, if it is negative, by a signal."""
    if code < 0:
        with contextlib.suppress(OSError):  # nobody handles SIGKILL
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    if sys.argv[1] != "serve":
        ask(sys.argv[1], sys.argv[2:])
    job = serve(sys.argv[2], sys.argv[3:])
    take_over(job)
    end_after(lambda: run(*job["words"]))
