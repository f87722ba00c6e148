"""Weights on disk as safetensors, aligned so that large arrays are used from the mapped file without a copy."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recvae.errors import UsageError
from recvae.storage.streams import ALIGNMENT, NAMES, Stream, write_streams


def write_weights(path: Path, weights: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a safetensors file, completely or not at all.

    Parameters
    ----------
    path : Path
        The file.
    weights : mapping of str to ndarray
        Arrays by name, of float16, float32, float64, int16, int32, int64, uint8 or bool.

    Raises
    ------
    UsageError
        If an array is of another type.
    StorageError
        If it cannot be written.
    """
    write_streams(path, streams_of(weights))


def streams_of(weights: Mapping[str, np.ndarray]) -> dict[str, Stream]:
    """Return arrays as streams of one part each.

    Raises
    ------
    UsageError
        If an array is of a type that is not written.
    """
    for name, array in weights.items():
        if str(array.dtype) not in NAMES:
            raise UsageError(
                f"got {name} of type {array.dtype}, expected one of {', '.join(NAMES)}; convert it with astype"
            )
    return {name: Stream(str(array.dtype), array.shape, lambda array=array: [array]) for name, array in weights.items()}


def read_weights(path: Path, mapped: bool = True) -> dict[str, np.ndarray]:
    """Map a safetensors file into memory; arrays that are not aligned are copied.

    Parameters
    ----------
    path : Path
        The file; while it is mapped, it may be replaced by another file, but not overwritten in place.
    mapped : bool
        False copies everything and closes the file.

    Returns
    -------
    dict of str to ndarray
        Arrays by name.

    Raises
    ------
    SafetensorError
        If it is damaged.
    """
    from safetensors.torch import load_file  # imported here: writing, and mapping without torch, do not need it

    found = {}
    for name, tensor in load_file(path).items():
        stays = mapped and tensor.data_ptr() % ALIGNMENT == 0
        found[name] = (tensor if stays else tensor.clone()).numpy()
    return found
