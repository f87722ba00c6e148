"""Keep freed memory for the next batch: on Linux, where the C library would give large blocks back at once.

A batch needs the same few large blocks as the one before it. By default glibc maps each of them anew, and the system
fills every page with zeros when it is first touched, which takes longer than most of what is computed in it.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
_NEVER = 2**31 - 1
_USUAL = 32 << 20  # bytes, what glibc itself raises the threshold to


@contextmanager
def kept_blocks(device: torch.device) -> Iterator[None]:
    """Reuse freed blocks of less than 1 GiB within the block; afterwards what is free goes back to the system.

    These are settings of the whole process. Afterwards they are what glibc comes to by itself in a process that frees
    large blocks.

    Parameters
    ----------
    device : torch.device
        Where blocks are; nothing is done for a GPU, whose blocks PyTorch keeps, nor without glibc.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    if not libc.mallopt(_MMAP_THRESHOLD, 1 << 30):  # more than an older glibc takes
        libc.mallopt(_MMAP_THRESHOLD, _USUAL)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _USUAL)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
        libc.malloc_trim(0)
