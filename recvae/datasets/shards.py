"""A matrix of users x items in several files, each with the rows of consecutive users, which can be mapped.

    train/part-00000.safetensors     indptr (rows + 1,) int64, indices (n,) int32, data (n,) float32: rows as in CSR
    train/part-00001.safetensors     the rows after those, and so on

The manifest lists them in the order of their rows, with the number of rows and interactions, size and SHA-256. No
machine needs to hold more than one of them: executors of Spark write them, training can stream them.

Letters in shape comments: U users, N stored interactions.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from recvae.errors import DataError
from recvae.storage.arrays import write_weights
from recvae.storage.integrity import UNREADABLE, sha256_of
from recvae.storage.mapped import map_arrays

EVENTS_PER_SHARD = 4_000_000
"""Interactions for which a shard is made: 48 MB."""

_ARRAYS = {"indptr": np.int64, "indices": np.int32, "data": np.float32}


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file with the rows of consecutive users.

    Parameters
    ----------
    file : str
        Its path in the folder of the data set.
    rows, nnz : int
        Rows, and interactions in them.
    bytes : int
        Size of the file.
    sha256 : str
        Its checksum.
    """

    file: str
    rows: int
    nnz: int
    bytes: int
    sha256: str

    def arrays(self, folder: Path) -> dict[str, np.ndarray]:
        """Map its indptr, indices and data.

        Raises
        ------
        DataError
            If the file is missing, or not what it should be.
        """
        path = folder / self.file
        if not path.is_file():
            raise DataError(f"{path} is missing, expected a shard of {self.rows:,} users; preprocess again")
        found = path.stat().st_size
        if found != self.bytes:
            raise DataError(f"{path} has {found:,} bytes, expected {self.bytes:,}: it is damaged; preprocess again")
        try:
            arrays = map_arrays(path)
            shapes = {name: (self.rows + 1 if name == "indptr" else self.nnz,) for name in _ARRAYS}
            fits = all(
                arrays[name].shape == shapes[name] and arrays[name].dtype == kind for name, kind in _ARRAYS.items()
            )
        except UNREADABLE as error:
            raise DataError(f"{path} is damaged ({error}); preprocess again") from error
        if not fits:
            raise DataError(f"{path} holds other arrays than its manifest says: it is damaged; preprocess again")
        return arrays


@dataclass(frozen=True)
class ShardedMatrix:
    """A matrix that lies in shards; it holds none of them.

    Parameters
    ----------
    folder : Path
        The folder of the data set.
    shards : tuple of Shard
        In the order of their rows.
    n_columns : int
        Number of items.
    """

    folder: Path
    shards: tuple[Shard, ...]
    n_columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """Users and items."""
        return sum(one.rows for one in self.shards), self.n_columns

    @property
    def nnz(self) -> int:
        """Number of interactions."""
        return sum(one.nnz for one in self.shards)

    @cached_property
    def n_empty_rows(self) -> int:
        """Number of users without an interaction."""
        return sum(int(np.count_nonzero(np.diff(arrays["indptr"]) == 0)) for arrays in self.arrays())

    def arrays(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the mapped arrays of one shard after another.

        Raises
        ------
        DataError
            If one is missing or damaged.
        """
        for shard in self.shards:
            yield shard.arrays(self.folder)

    def matrix(self) -> sp.csr_matrix:
        """Return all rows as one matrix in memory, as `interactions` makes it."""
        starts, indices, values = [np.zeros(1, dtype=np.int64)], [], []
        done = 0
        for arrays in self.arrays():
            starts.append(arrays["indptr"][1:] + done)
            indices.append(arrays["indices"])
            values.append(arrays["data"])
            done += len(arrays["indices"])
        joined = (np.concatenate(parts) if parts else np.empty(0, dtype=np.int32) for parts in (values, indices))
        data, columns = joined
        matrix = sp.csr_matrix((data.astype(np.float32, copy=False), columns, np.concatenate(starts)), shape=self.shape)
        matrix.check_format(full_check=True)
        matrix.sum_duplicates()  # changes nothing, but lets scipy know that rows are sorted
        return matrix

    def bytes_of_arrays(self) -> Iterator[memoryview]:
        """Yield what `folder.fingerprint_of` hashes of a matrix, shard by shard: starts, columns, values."""
        yield np.zeros(1, dtype="<i8").data
        done = 0
        for arrays in self.arrays():
            yield (arrays["indptr"][1:] + done).astype("<i8", copy=False).data
            done += len(arrays["indices"])
        for arrays in self.arrays():
            yield np.ascontiguousarray(arrays["indices"], dtype="<i4").data
        for arrays in self.arrays():
            yield np.ascontiguousarray(arrays["data"], dtype="<f4").data

    def to_json(self) -> list[dict[str, Any]]:
        """Return the shards for the manifest."""
        return [asdict(shard) for shard in self.shards]

    def damaged(self) -> list[str]:
        """Return the files whose content is not what was written."""
        return [one.file for one in self.shards if sha256_of(self.folder / one.file) != one.sha256]

    @classmethod
    def of_json(cls, folder: Path, listed: Any, n_columns: int) -> "ShardedMatrix":
        """Return the matrix that a manifest lists; nothing is read.

        Raises
        ------
        KeyError, TypeError, ValueError
            If the manifest is damaged.
        """
        names = {"file", "rows", "nnz", "bytes", "sha256"}
        shards = []
        for one in listed:
            shard = Shard(**{name: one[name] for name in names})
            place = Path(shard.file)
            if place.is_absolute() or ".." in place.parts:
                raise ValueError(f"the manifest lists the file {shard.file!r}")
            shards.append(shard)
        return cls(folder, tuple(shards), n_columns)


def shard_name(part: str, number: int) -> str:
    """Return the path of a shard in the folder of the data set."""
    return f"{part}/part-{number:05d}.safetensors"


def write_shard(
    path: Path, starts: np.ndarray, columns: np.ndarray, values: np.ndarray | None = None
) -> dict[str, int | str]:
    """Write the rows of consecutive users, completely or not at all; the same rows give the same bytes.

    Parameters
    ----------
    path : Path
        The file.
    starts : ndarray of shape (n_rows + 1,), int64
        Start of each row's columns, and the end of the last one's.
    columns : ndarray of shape (n,), int32
        Columns, row by row, ascending in each.
    values : ndarray of shape (n,), float32, optional
        What each interaction weighs; 1 without it.

    Returns
    -------
    dict
        What `Shard` says of it, but for its name.
    """
    arrays = {"indptr": starts, "indices": columns, "data": np.ones(len(columns)) if values is None else values}
    write_weights(path, {name: array.astype(_ARRAYS[name], copy=False) for name, array in arrays.items()})
    return {
        "rows": len(starts) - 1,
        "nnz": len(columns),
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
    }


def rows_per_shard(n_rows: int, n_events: int) -> int:
    """Return how many users a shard has, so that it has about `EVENTS_PER_SHARD` interactions."""
    n_shards = max(1, -(-n_events // EVENTS_PER_SHARD))
    return max(1, -(-n_rows // n_shards))


def write_matrix(folder: Path, part: str, matrix: sp.csr_matrix) -> ShardedMatrix:
    """Write a matrix in memory as shards.

    Parameters
    ----------
    folder : Path
        The folder of the data set.
    part : str
        Name of the matrix in it, e.g. "test/fold_in".
    matrix : csr_matrix of shape (n_users, n_items)
        With sorted rows.
    """
    size = rows_per_shard(matrix.shape[0], matrix.nnz)
    shards = []
    for number, first in enumerate(range(0, matrix.shape[0], size)):
        starts = matrix.indptr[first : first + size + 1].astype(np.int64)
        columns, values = (array[starts[0] : starts[-1]] for array in (matrix.indices, matrix.data))
        name = shard_name(part, number)
        found: dict[str, Any] = write_shard(folder / name, starts - starts[0], columns, values)
        shards.append(Shard(file=name, **found))
    return ShardedMatrix(folder, tuple(shards), matrix.shape[1])


def damaged_shards(matrices: Iterable[ShardedMatrix]) -> Sequence[str]:
    """Return the damaged files of several matrices, each once."""
    return list(dict.fromkeys(name for matrix in matrices for name in matrix.damaged()))
