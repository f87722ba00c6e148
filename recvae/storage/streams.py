"""safetensors files written part by part, in an order that is known beforehand: nobody has all of them in memory.

The safetensors library orders tensors by name. After a bias of odd length, all others are misaligned: BLAS is then
slower and rounds differently than before saving. Here, arrays whose length keeps the next one aligned come first.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recvae.storage.files import write_file

ALIGNMENT = 64  # bytes, of a cache line and the widest vector register
NAMES = {
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "bool": "BOOL",
}
"""What safetensors calls the types of numpy that are written."""


@dataclass(frozen=True)
class Stream:
    """An array that comes in parts.

    Parameters
    ----------
    dtype : str
        One of `NAMES`.
    shape : tuple of int
        Of the whole.
    parts : callable
        () -> its parts, from first to last row; each is written before the next one is asked for.
    """

    dtype: str
    shape: tuple[int, ...]
    parts: Callable[[], Iterable[np.ndarray]]

    @property
    def n_bytes(self) -> int:
        """Of the whole."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def in_order(streams: Mapping[str, Stream]) -> list[str]:
    """Return the names in the order in which the arrays lie in their file."""
    return sorted(sorted(streams), key=lambda name: streams[name].n_bytes % ALIGNMENT != 0)  # stable: by name otherwise


def write_streams(
    path: Path,
    streams: Mapping[str, Stream],
    metadata: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
) -> None:
    """Write arrays as a safetensors file, completely or not at all.

    Parameters
    ----------
    path : Path
        The file.
    streams : mapping of str to Stream
        By name.
    metadata : mapping of str to str, optional
        For the header.
    order : sequence of str, optional
        In which to write them; by default `in_order`.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end, order = 0, in_order(streams) if order is None else order
    for name in order:
        start, end = end, end + streams[name].n_bytes
        shape, kind = list(streams[name].shape), NAMES[streams[name].dtype]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with write_file(path) as aside, aside.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            for part in streams[name].parts():
                file.write(np.ascontiguousarray(part).data)
        if file.tell() != 8 + len(text) + end:
            raise ValueError(f"the parts of {path.name} have {file.tell() - 8 - len(text):,} bytes, expected {end:,}")


def take_part(streams: Mapping[str, Stream]) -> None:
    """Go through the same parts where another process writes them."""
    for name in in_order(streams):
        for _ in streams[name].parts():
            pass
