"""Keep freed memory for the next batch: on Linux, the C library would return large blocks to the system at once.

Every batch needs the same few large blocks. By default glibc maps each of them again, and the system fills every page
with zeros when it is first used, which takes longer than most computations on it.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
_NEVER = 2**31 - 1
_USUAL = 32 << 20  # bytes, the highest threshold that glibc chooses itself


def return_free_blocks(device: torch.device) -> None:
    """Return free memory to the system, for work whose blocks have another size each time.

    Blocks that fit none of the next ones would add up: within `kept_blocks`, to several times what is in use.

    Parameters
    ----------
    device : torch.device
        The device in use. Nothing is done for a GPU, or without glibc.
    """
    libc = _glibc(device)
    if libc is not None:
        libc.malloc_trim(0)


@contextmanager
def kept_blocks(device: torch.device) -> Iterator[None]:
    """Reuse freed memory blocks below 1 GiB within the context; afterwards, return free memory to the system.

    These settings apply to the whole process. Afterwards they are those that glibc reaches by itself in a process that
    frees large blocks.

    Parameters
    ----------
    device : torch.device
        The device in use. Nothing is done for a GPU, whose memory PyTorch keeps, or without glibc.
    """
    libc = _glibc(device)
    if libc is None:
        yield
        return
    if not libc.mallopt(_MMAP_THRESHOLD, 1 << 30):  # an older glibc refuses that much
        libc.mallopt(_MMAP_THRESHOLD, _USUAL)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _USUAL)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
        libc.malloc_trim(0)


def _glibc(device: torch.device) -> ctypes.CDLL | None:
    """Return glibc, None where another library or a GPU has the memory."""
    return ctypes.CDLL(None) if device.type == "cpu" and platform.libc_ver()[0] == "glibc" else None
