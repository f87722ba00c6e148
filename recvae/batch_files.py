"""Recommendations for a file of histories, block by block, in memory that does not grow with the file.

    histories.parquet, .csv or .tsv   a row for each user and item: user, item[, weight]; a user's rows together
    histories.jsonl                   a line for each user: {"user": 7, "items": [318, 296]}

Each finished block is kept beside the output until all are done, so that an interrupted job goes on where it stopped.
"""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from recvae.errors import DataError, UsageError
from recvae.files import storage_errors, write_file, write_json
from recvae.histories import user_column
from recvae.recommendations import BatchRecommendations

INPUTS = (".parquet", ".csv", ".tsv", ".jsonl")
OUTPUTS = (".parquet", ".csv", ".jsonl")
BLOCK = 10_000
"""Users that are answered and kept at a time."""

_ROWS = 1 << 20  # of a table, read at a time

Block = pa.Table | dict[Any, list[Any]]
"""Histories of some users, as `Recommender.recommend_batch` takes them."""


def read_blocks(path: Path, users: int = BLOCK) -> Iterator[Block]:
    """Yield the histories of a file, so many users at a time.

    Parameters
    ----------
    path : Path
        See above.
    users : int
        Of a block, >= 1; the last may have fewer.

    Yields
    ------
    pyarrow.Table or dict
        For `Recommender.recommend_batch`.

    Raises
    ------
    UsageError
        If there is no such file, or its ending is not one of `INPUTS`.
    DataError
        If it cannot be read, or a user comes again after another.
    """
    if not path.is_file():
        raise UsageError(f"no file {path}; expected histories in {', '.join(INPUTS)}")
    if path.suffix not in INPUTS:
        raise UsageError(f"got {path.name}, expected a name ending in {', '.join(INPUTS)}")
    try:
        yield from _lines(path, users) if path.suffix == ".jsonl" else _whole_users(_tables(path), users, path)
    except (pa.ArrowException, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; expected a {path.suffix[1:]} file of histories") from error


def _tables(path: Path) -> Iterator[pa.Table]:
    """Yield the rows of a table some at a time."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                yield pa.Table.from_batches([batch])
        return
    parse = pacsv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
    with pacsv.open_csv(path, parse_options=parse) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _whole_users(tables: Iterator[pa.Table], users: int, path: Path) -> Iterator[pa.Table]:
    """Cut rows into blocks of whole users, who must not come again later."""
    seen: set[Any] = set()
    rest: pa.Table | None = None
    for table in itertools.chain(tables, [None]):  # the end, after which nobody can go on
        joined = table if rest is None else rest if table is None else pa.concat_tables([rest, table])
        if joined is None:
            return
        column = joined[user_column(joined.column_names)].to_numpy()
        starts = np.flatnonzero(np.append(True, column[1:] != column[:-1])) if len(column) else np.empty(0, np.int64)
        n_whole = len(starts) if table is None else max(len(starts) - 1, 0)  # the last user may go on
        ends = np.append(starts, len(column))
        for first in range(0, n_whole if table is None else n_whole // users * users, users):
            last = min(first + users, n_whole)
            block = joined.slice(ends[first], ends[last] - ends[first])
            _check_new(column[starts[first:last]].tolist(), seen, path)
            yield block
        done = n_whole if table is None else n_whole // users * users
        rest = joined.slice(ends[done])


def _check_new(users: list[Any], seen: set[Any], path: Path) -> None:
    for user in users:
        if user in seen:
            raise DataError(
                f"{path}: user {user!r} comes again after other users, expected the rows of a user together; "
                "sort the file by user"
            )
        seen.add(user)


def _lines(path: Path, users: int) -> Iterator[dict[Any, list[Any]]]:
    block: dict[Any, list[Any]] = {}
    seen: set[Any] = set()
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            content = json.loads(line)
            if not isinstance(content, dict) or not isinstance(content.get("items"), list | dict):
                raise DataError(
                    f'{path}, line {number}: got {line.strip()[:60]}, expected {{"user": 7, "items": [318, 296]}}'
                )
            user = content.get("user", number)
            if isinstance(user, list | dict):
                raise DataError(f"{path}, line {number}: got user {user!r}, expected a number or a text")
            _check_new([user], seen, path)
            block[user] = content["items"]
            if len(block) == users:
                yield block
                block = {}
    if block:
        yield block


def recommend_file(
    source: Path,
    output: Path,
    recommend: Callable[[Block], BatchRecommendations],
    identity: dict[str, Any],
    progress: Callable[[int], None] | None = None,
    users: int = BLOCK,
) -> tuple[int, int]:
    """Answer all histories of a file, into another.

    Parameters
    ----------
    source : Path
        See `read_blocks`.
    output : Path
        A name ending in one of `OUTPUTS`: the table of `BatchRecommendations.to_arrow`, or as .jsonl a line per user.
    recommend : callable
        Block -> BatchRecommendations.
    identity : dict
        What the answers depend on besides the histories; parts of another one are thrown away.
    progress : callable, optional
        Told how many users are done.
    users : int
        Answered at a time, >= 1.

    Returns
    -------
    tuple of int
        Users answered, and of these how many an earlier call had done already.

    Raises
    ------
    UsageError
        If the ending of `output` is not known, or it is `source`.
    UsageError, DataError
        See `read_blocks`.
    StorageError
        If something cannot be written.
    """
    if output.suffix not in OUTPUTS:
        raise UsageError(f"got {output.name}, expected a name ending in {', '.join(OUTPUTS)}")
    if output.resolve() == source.resolve():
        raise UsageError(f"got {output} for the input and the output, expected two files")
    blocks = read_blocks(source, users)
    first = next(blocks, None)  # before anything is written
    whose = identity | {"source": str(source.resolve()), "bytes": source.stat().st_size, "users": users}
    whose |= {"modified": source.stat().st_mtime_ns}
    parts = _parts_folder(output, whose)
    done = before = 0
    written: list[Path] = []
    for number, block in enumerate(itertools.chain([] if first is None else [first], blocks)):
        part = parts / f"{number:06d}.parquet"
        if part.is_file():
            n_users = int((pq.read_schema(part).metadata or {})[b"users"])
            before += n_users
        else:
            answers = recommend(block)
            n_users = len(answers)
            with write_file(part) as aside:
                pq.write_table(answers.to_arrow().replace_schema_metadata({"users": str(n_users)}), aside)
        written.append(part)
        done += n_users
        if progress is not None:
            progress(done)
    _join(written, output)
    with storage_errors(parts):
        shutil.rmtree(parts)
    return done, before


def _parts_folder(output: Path, whose: dict[str, Any]) -> Path:
    """Return the folder of finished blocks, emptied if they are of another job."""
    parts = output.with_name(f".{output.name}.parts")
    state = parts / "job.json"
    with storage_errors(parts):
        if parts.exists() and (not state.is_file() or json.loads(state.read_text(encoding="utf-8")) != whose):
            shutil.rmtree(parts)
        parts.mkdir(parents=True, exist_ok=True)
    write_json(state, whose)
    return parts


def _join(parts: list[Path], output: Path) -> None:
    """Write all blocks into one file, one at a time."""
    with write_file(output) as aside:
        if output.suffix == ".jsonl":
            with aside.open("w", encoding="utf-8") as file:
                for part in parts:
                    file.writelines(_json_lines(pq.read_table(part)))
            return
        schema = pq.read_schema(parts[0]).remove_metadata() if parts else pa.schema([("user", pa.int64())])
        write = pq.ParquetWriter if output.suffix == ".parquet" else pacsv.CSVWriter
        with write(str(aside), schema) as writer:
            for part in parts:
                writer.write_table(pq.read_table(part).cast(schema))


def _json_lines(table: pa.Table) -> Iterator[str]:
    """Yield a line for each user."""
    rows = table.to_pylist()
    for user, of_user in itertools.groupby(rows, key=lambda row: row["user"]):
        found = list(of_user)
        items = [{"id": row["id"], "title": row["title"], "score": row["score"]} for row in found]
        line = {"user": user, "items": items, "fallback": found[0]["fallback"]}
        yield json.dumps(line, ensure_ascii=False) + "\n"
