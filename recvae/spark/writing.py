"""Executors write the shards of a data set, each file once and whole, into a folder that all machines share.

A task that fails is run again, and writes the same bytes under the same name: nothing is doubled. What a killed task
has left is removed. The driver holds the list of files, and reads them once, one after another, for the fingerprint.

Letters in shape comments: N interactions of one batch.
"""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from recvae.datasets.shards import Shard, ShardedMatrix, rows_per_shard, shard_name, write_shard
from recvae.errors import EngineError
from recvae.spark.frames import frame_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_WRITTEN = "number int, rows bigint, nnz bigint, bytes bigint, sha256 string"


def write_interactions(
    found: "DataFrame", users: np.ndarray, n_columns: int, folder: Path, part: str, n_events: int
) -> ShardedMatrix:
    """Let executors write a matrix.

    Parameters
    ----------
    found : DataFrame
        user_code and item_column of each interaction; no pair twice.
    users : ndarray of shape (n_users,), int32
        The code of the user of each row; interactions of other users are left out.
    n_columns : int
        Number of items.
    folder : Path
        The folder of the data set.
    part : str
        Name of the matrix in it.
    n_events : int
        About how many interactions there are.

    Returns
    -------
    ShardedMatrix
        All of its files exist.

    Raises
    ------
    EngineError
        If a file that an executor has written is not in the folder.
    """
    size = rows_per_shard(len(users), n_events)
    rows = frame_of(found.sparkSession, {"user_code": users, "row": np.arange(len(users), dtype=np.int32)})
    placed = found.join(rows, "user_code").selectExpr(
        f"CAST(row div {size} AS INT) AS number", "row", "CAST(item_column AS INT) AS item_column"
    )
    n_shards = -(-len(users) // size)
    together = placed.repartition(n_shards, "number").sortWithinPartitions("number", "row", "item_column")
    (folder / part).mkdir(parents=True, exist_ok=True)
    write = partial(_write, folder=str(folder.resolve()), part=part, size=size, n_rows=len(users))
    written = {one["number"]: one for one in together.mapInArrow(write, _WRITTEN).toArrow().to_pylist()}
    shards = []
    for number in range(n_shards):
        name = shard_name(part, number)
        facts = written.get(number) or {
            "number": number,
            **_empty(folder / name, min(size, len(users) - number * size)),
        }
        shards.append(Shard(file=name, **{key: value for key, value in facts.items() if key != "number"}))
    _check(folder, part, shards)
    return ShardedMatrix(folder, tuple(shards), n_columns)


def _empty(path: Path, n_rows: int) -> dict[str, int | str]:
    """Write a shard of users without an interaction, for whom no executor has seen a row."""
    return write_shard(path, np.zeros(n_rows + 1, dtype=np.int64), np.empty(0, dtype=np.int32))


def _check(folder: Path, part: str, shards: list[Shard]) -> None:
    """Refuse a folder without the files that executors wrote; remove what killed tasks have left in it."""
    for shard in shards:
        path = folder / shard.file
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise EngineError(
                f"an executor has written {shard.file}, which is not in {folder.parent}; expected a folder that all "
                "machines of the cluster share; choose one with --data-dir; nothing is written"
            )
    names = {Path(shard.file).name for shard in shards}
    for path in (folder / part).iterdir():
        if path.is_file() and path.name not in names:
            path.unlink()


def _write(
    batches: Iterator[pa.RecordBatch], folder: str, part: str, size: int, n_rows: int
) -> Iterator[pa.RecordBatch]:
    """Write the shards of a partition, whose interactions are sorted; runs on an executor."""
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    current = -1
    for batch in batches:
        numbers, row, column = (batch.column(name).to_numpy() for name in ("number", "row", "item_column"))  # (N,)
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for first, end in pairwise(edges):
            if first == end:
                continue
            if int(numbers[first]) != current:
                if rows:
                    yield _written(folder, part, current, size, n_rows, rows, columns)
                current, rows, columns = int(numbers[first]), [], []
            rows.append(row[first:end].copy())
            columns.append(column[first:end].copy())
    if rows:
        yield _written(folder, part, current, size, n_rows, rows, columns)


def _written(
    folder: str, part: str, number: int, size: int, n_rows: int, rows: list[np.ndarray], columns: list[np.ndarray]
) -> pa.RecordBatch:
    """Write one shard, and return what the driver must know of it."""
    first = number * size
    row = np.concatenate(rows) - first
    starts = np.searchsorted(row, np.arange(min(size, n_rows - first) + 1)).astype(np.int64)  # (U + 1,)
    found = write_shard(Path(folder) / shard_name(part, number), starts, np.concatenate(columns))
    kinds = {"number": pa.int32(), "sha256": pa.string()}
    values = {"number": number, **found}
    return pa.RecordBatch.from_pydict(
        {key: pa.array([value], kinds.get(key, pa.int64())) for key, value in values.items()}
    )
