"""Weights on disk as safetensors, aligned so that large arrays are used from the mapped file without a copy.

The safetensors library orders tensors by name. After a bias of odd length, all others are misaligned: BLAS is then
slower and rounds differently than before saving. Here, arrays whose length keeps the next one aligned come first.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recvae.errors import UsageError
from recvae.storage.files import write_file

ALIGNMENT = 64  # bytes, of a cache line and the widest vector register
_NAMES = {
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "bool": "BOOL",
}


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
    for name, array in weights.items():
        if str(array.dtype) not in _NAMES:
            raise UsageError(
                f"got {name} of type {array.dtype}, expected one of {', '.join(_NAMES)}; convert it with astype"
            )
    arrays = {name: np.ascontiguousarray(weights[name]) for name in sorted(weights)}
    order = sorted(arrays, key=lambda name: arrays[name].nbytes % ALIGNMENT != 0)  # stable: by name otherwise
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        start, end = end, end + arrays[name].nbytes
        shape = list(weights[name].shape)
        header[name] = {"dtype": _NAMES[str(arrays[name].dtype)], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with write_file(path) as aside, aside.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            file.write(arrays[name].data)


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
