"""Weights in one safetensors file, or in several of a size that can be chosen, with an index of what is in which.

    weights-00001-of-00002.safetensors    some of the arrays, or some rows of a large one
    weights.safetensors.index.json        {"metadata": {"total_size": BYTES}, "weight_map": {NAME: FILE}}

The index is that of Hugging Face. An array that is larger than a file is cut by rows, and each part is named as Python
would have it: `decoder.1.weight[0:5000]` are the first 5,000 rows of `decoder.1.weight`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recvae.errors import StorageError, UsageError
from recvae.storage.arrays import read_weights
from recvae.storage.files import storage_errors, write_json
from recvae.storage.streams import Stream, in_order, write_streams

_INDEX = ".index.json"
_EVEN = 16  # rows of float32: parts of so many keep the next one aligned
_MOST_FILES = 99_999
_PART = re.compile(r"(.+)\[(\d+):(\d+)\]")


def index_of(name: str) -> str:
    """Return the name of the index of a file's parts, such as weights.safetensors.index.json."""
    return f"{name}{_INDEX}"


def names_of_weights(name: str, listed: Iterable[str]) -> list[str]:
    """Return the names of the files that weights lie in, given those that a card lists, which is not trusted.

    Parameters
    ----------
    name : str
        Of the one file, such as weights.safetensors.
    listed : iterable of str
        Names in the card.

    Returns
    -------
    list of str
        The one file; or the index and its files, also those that are not listed but must be there.
    """
    listed = set(listed)
    if index_of(name) not in listed:
        return [name]
    found = [match for one in listed if (match := _pattern(name).fullmatch(one))]
    n_files = min((int(match[2]) for match in found), default=0)
    return [index_of(name), *(_part_name(name, number, n_files) for number in range(1, n_files + 1))]


def remove_weights(path: Path) -> None:
    """Remove the file of the weights, or its parts and their index, whichever are there."""
    with storage_errors(path):
        for one in list(path.parent.iterdir()) if path.parent.is_dir() else []:
            if is_of_weights(path.name, one.name):
                one.unlink()


def is_of_weights(name: str, other: str) -> bool:
    """Whether a file is one of those that weights lie in; see `names_of_weights`."""
    return other in (name, index_of(name)) or _pattern(name).fullmatch(other) is not None


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(Path(name).stem)}-(\d{{5}})-of-(\d{{5}}){re.escape(Path(name).suffix)}")


def _part_name(name: str, number: int, n_files: int) -> str:
    return f"{Path(name).stem}-{number:05d}-of-{n_files:05d}{Path(name).suffix}"


@dataclass(frozen=True)
class _Piece:
    """An array, or some rows of one; `end` is None of a whole one."""

    name: str
    start: int = 0
    end: int | None = None

    @property
    def key(self) -> str:
        return self.name if self.end is None else f"{self.name}[{self.start}:{self.end}]"


def _cut(streams: Mapping[str, Stream], file_bytes: int) -> list[list[_Piece]]:
    """Return what goes into which file: arrays in their order, those larger than a file by rows."""
    files: list[list[_Piece]] = [[]]
    room = file_bytes
    for name in in_order(streams):
        n_bytes, shape = streams[name].n_bytes, streams[name].shape
        n_rows = shape[0] if shape else 1
        step = n_rows
        if n_bytes > file_bytes and n_rows > 1:
            step = max(1, file_bytes * n_rows // n_bytes)
            step = step // _EVEN * _EVEN or step
        for start in range(0, max(n_rows, 1), max(step, 1)):
            end = min(start + step, n_rows)
            size = n_bytes * (end - start) // max(n_rows, 1)
            if size > room and files[-1]:
                files.append([])
                room = file_bytes
            files[-1].append(_Piece(name) if step >= n_rows else _Piece(name, start, end))
            room -= size
    return files


def write_weight_files(path: Path, streams: Mapping[str, Stream], file_bytes: int | None = None) -> None:
    """Write weights as one file, or as several with an index; what was there before is removed first.

    Parameters
    ----------
    path : Path
        The one file; the others lie beside it.
    streams : mapping of str to Stream
        Weights by name, gone through once, in the order of `in_order`.
    file_bytes : int, optional
        The most that a file holds, without its header; None for one file. A file is larger where a row is.

    Raises
    ------
    StorageError
        If it cannot be written, or there would be too many files.
    UsageError
        If an array has the name of a part.
    """
    remove_weights(path)
    if file_bytes is None:
        write_streams(path, streams)
        return
    taken = [name for name in streams if _PART.fullmatch(name)]
    if taken:
        raise UsageError(
            f"got an array named {taken[0]}, which is the name of some rows; give it another one, or write one file"
        )
    files = _cut(streams, file_bytes)
    if len(files) > _MOST_FILES:
        raise StorageError(
            f"got {len(files):,} files of {file_bytes:,} bytes for {path}, expected {_MOST_FILES:,} at most; let them "
            "be larger"
        )
    weight_map: dict[str, str] = {}
    rows = {name: _Rows(stream) for name, stream in streams.items()}
    for number, pieces in enumerate(files, 1):
        name = _part_name(path.name, number, len(files))
        cut = {piece.key: _stream_of(piece, streams[piece.name], rows[piece.name]) for piece in pieces}
        write_streams(path.with_name(name), cut, order=[piece.key for piece in pieces])
        weight_map |= dict.fromkeys(cut, name)
    total = sum(stream.n_bytes for stream in streams.values())
    write_json(path.with_name(index_of(path.name)), {"metadata": {"total_size": total}, "weight_map": weight_map})


class _Rows:
    """The rows of a stream, some at a time, however they come."""

    def __init__(self, stream: Stream) -> None:
        self._parts = iter(stream.parts())
        self._left: np.ndarray | None = None

    def next(self, n_rows: int) -> Iterator[np.ndarray]:
        """Yield the next rows."""
        while n_rows:
            part = next(self._parts) if self._left is None else self._left
            now, self._left = part[:n_rows], part[n_rows:] if len(part) > n_rows else None
            n_rows -= len(now)
            yield now

    def all(self) -> Iterator[np.ndarray]:
        """Yield everything, of an array that may have no rows."""
        return self._parts


def _stream_of(piece: _Piece, stream: Stream, rows: _Rows) -> Stream:
    if piece.end is None:
        return Stream(stream.dtype, stream.shape, rows.all)
    n_rows = piece.end - piece.start
    return Stream(stream.dtype, (n_rows, *stream.shape[1:]), lambda: rows.next(n_rows))


def read_weight_files(folder: Path, names: list[str], mapped: bool = True) -> dict[str, np.ndarray]:
    """Read weights that lie in one file, or in several with an index.

    Parameters
    ----------
    folder : Path
        Their folder.
    names : list of str
        From `names_of_weights`.
    mapped : bool
        See `read_weights`; arrays that are cut are always copied.

    Returns
    -------
    dict of str to ndarray
        Arrays by name.

    Raises
    ------
    SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError
        If a file is missing or damaged, or the index speaks of other arrays than the files hold.
    """
    first, *others = names
    if not first.endswith(_INDEX):
        return read_weights(folder / first, mapped)
    weight_map: dict[str, Any] = json.loads((folder / first).read_text(encoding="utf-8"))["weight_map"]
    found: dict[str, np.ndarray] = {}
    for name in others:
        arrays = read_weights(folder / name, mapped)
        expected = {key for key, file in weight_map.items() if file == name}
        if arrays.keys() != expected:
            raise ValueError(f"{name} has other arrays than {first} says: {sorted(arrays.keys() ^ expected)[0]}")
        found |= arrays
    if found.keys() != weight_map.keys():
        missing = sorted(weight_map.keys() - found.keys())[0]
        raise ValueError(f"{first} has {missing} in {weight_map[missing]}, which is no file of these weights")
    return _whole(found)


def _whole(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays with those that were cut put together; the parts are let go of one by one."""
    parts: dict[str, list[tuple[int, int]]] = {}
    for key in found:
        if match := _PART.fullmatch(key):
            parts.setdefault(match[1], []).append((int(match[2]), int(match[3])))
    for name, ranges in parts.items():
        ranges.sort()
        first = found[f"{name}[{ranges[0][0]}:{ranges[0][1]}]"]
        whole, at = np.empty((ranges[-1][1], *first.shape[1:]), first.dtype), 0
        for start, end in ranges:
            part = found.pop(f"{name}[{start}:{end}]")
            if start != at or part.shape != (end - start, *whole.shape[1:]) or part.dtype != whole.dtype:
                raise ValueError(f"the rows of {name} from {at:,} on are missing, or are not what their name says")
            whole[start:end], at = part, end
        if name in found:
            raise ValueError(f"{name} is there whole and in parts")
        found[name] = whole
    return found
