"""Computing on in a process that was forked: gunicorn --preload, multiprocessing with fork.

Only the thread that forks is there in the child. GNU's OpenMP library, with which PyTorch and implicit use several
cores, keeps its threads for the next computation, and in the child it would wait for them for ever. So they are let go
before a fork. The next computation starts new ones, in both processes.
"""

import ctypes
import functools
import os
import re
import sys
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_LIBRARY = re.compile(r"(/.*/libgomp[^/]*)$", re.M)  # other OpenMP libraries take care of forks themselves
_LET_GO = "omp_pause_resource_all"
_SOFT = 1  # keep settings, such as the number of threads


@functools.cache
def compute_on_after_forks() -> None:
    """Let go of threads before each fork of this process; where that cannot be done, the child has only one thread."""
    if hasattr(os, "register_at_fork"):  # Windows has no forks
        os.register_at_fork(before=_let_threads_go, after_in_child=_start_again)


def _libraries() -> list[ctypes.CDLL]:
    """Return the loaded libraries of GNU OpenMP; there may be several, since packages bring their own."""
    try:
        paths = set(_LIBRARY.findall(_MAPS.read_text(encoding="utf-8", errors="surrogateescape")))
    except OSError:  # not Linux; other systems use other libraries
        return []
    return [ctypes.CDLL(path) for path in sorted(paths) if Path(path).exists()]


def _let_threads_go() -> None:
    for library in _libraries():
        if hasattr(library, _LET_GO):
            getattr(library, _LET_GO)(_SOFT)


def _start_again() -> None:
    """Have PyTorch compute on new threads, or on one if a library, before GCC 9, could not let go of its threads."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # gives up a pool of the parent, which two threads could not do at the same time
    if all(hasattr(library, _LET_GO) for library in _libraries()):
        torch.set_num_threads(threads)
