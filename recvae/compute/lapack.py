"""The inverse of a symmetric matrix by one call of LAPACK, in this process or in one of its own.

Native code that fails ends its process, and no `except` sees it. LAPACK is an old and much-used code, but the library
that it comes in differs from machine to machine, and on several threads some of them end the process where a matrix is
large (see `inverse`). A matrix of more than a few thousand rows is therefore inverted in a process of its own, in
memory that both have: if that process dies, this one still has the matrix.
"""

import mmap
import os
import subprocess
import sys
from contextlib import closing

import numpy as np
from scipy.linalg.lapack import spotrf, spotri
from threadpoolctl import threadpool_info

# Letters in shape comments: N rows.

_ROUNDING = 10 * float(np.finfo(np.float32).eps)
_INVERTED, _NO_INVERSE = 0, 3  # exit codes of the process
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
_PROGRAM = "import sys; from recvae.compute import lapack; lapack.serve(*map(int, sys.argv[1:]))"


def invert_here(block: np.ndarray, before: np.ndarray) -> bool:
    """Invert the upper triangle in place.

    Parameters
    ----------
    block : ndarray of shape (n, n), float32
        In C order.
    before : ndarray of shape (n,), float32
        Its diagonal before any elimination.

    Returns
    -------
    bool
        Whether there is an inverse, as far as rounding can tell.
    """
    # LAPACK wants Fortran's order: the transposed view has it, with the upper triangle as the lower one.
    factor, not_definite = spotrf(block.T, lower=True, clean=False, overwrite_a=True)
    # The square of a pivot is what the rows before leave unexplained; below rounding it is nothing.
    if not_definite or not (factor.diagonal() ** 2 > _ROUNDING * before).all():
        return False
    _, not_invertible = spotri(factor, lower=True, overwrite_c=True)
    return not_invertible == 0


def invert_apart(block: np.ndarray) -> bool | None:
    """Invert the upper triangle in place, in a process of its own.

    Parameters
    ----------
    block : ndarray of shape (n, n), float32
        In C order; it is unchanged where there is no answer. A second block is there meanwhile.

    Returns
    -------
    bool or None
        Whether there is an inverse; None if the process did not say so: it died, or could not be started here.
    """
    if not hasattr(os, "memfd_create"):
        return None  # not Linux
    try:
        descriptor = os.memfd_create("recvae-inverse")
    except OSError:
        return None
    with closing(os.fdopen(descriptor, "r+b", buffering=0)) as shared:
        shared.truncate(block.nbytes)
        with mmap.mmap(descriptor, block.nbytes) as memory:
            copy = np.frombuffer(memory, dtype=np.float32).reshape(block.shape)  # (N, N)
            try:
                copy[...] = block
                code = _run(descriptor, len(block))
                if code == _INVERTED:
                    block[...] = copy
            finally:
                del copy  # memory that is looked at cannot be given back
    return None if code not in (_INVERTED, _NO_INVERSE) else code == _INVERTED


def _run(descriptor: int, n: int) -> int | None:
    """Return the exit code of the process that inverts what the descriptor stands for."""
    threads = max((library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"), default=1)
    path = os.pathsep.join(filter(None, sys.path))
    try:
        return subprocess.run(
            [sys.executable, "-P", "-c", _PROGRAM, str(descriptor), str(n)],
            pass_fds=[descriptor],
            env=os.environ | dict.fromkeys(_THREADS, str(threads)) | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
    except OSError:
        return None  # no such program, no more processes


def serve(descriptor: int, n: int) -> None:
    """Invert a matrix of n rows in memory that another process has made, and leave with what became of it."""
    with mmap.mmap(descriptor, 4 * n * n) as memory:
        block = np.frombuffer(memory, dtype=np.float32).reshape(n, n)  # (N, N)
        try:
            found = invert_here(block, block.diagonal().copy())
        finally:
            del block
    sys.exit(_INVERTED if found else _NO_INVERSE)
