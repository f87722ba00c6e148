"""Files of histories, read block by block: memory holds one block, and the ids of the users read so far.

    histories.parquet, .csv or .tsv   one row per user and item: user, item[, weight]; the rows of a user together
    histories.jsonl                   one line per user: {"user": 7, "items": [318, 296]}

The user ids of a file are all strings or all integers, so that all blocks of the output have one type. In .csv and .tsv
ids are strings: as a number, 007 would become 7.
"""

import itertools
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from recvae.errors import DataError, UsageError
from recvae.recommenders.histories import EXPECTED_WEIGHT, are_weights, check_weights, find_history_columns
from recvae.storage.integrity import UNREADABLE

INPUTS = (".parquet", ".csv", ".tsv", ".jsonl")
BLOCK = 10_000
"""Users per block."""

_ROWS = 1 << 20  # rows of a table read at once
_SHOWN = 60  # characters of a value in a message
_LINE = '{"user": 7, "items": [318, 296]}'

Block = pa.Table | dict[Any, list[Any] | dict[Any, float]]
"""Histories of some users for `Recommender.recommend_batch`; a table has the columns user, item and maybe weight."""


def read_blocks(path: Path, users: int = BLOCK) -> Iterator[Block]:
    """Yield the histories of a file in blocks of users.

    Parameters
    ----------
    path : Path
        A file in one of the formats above.
    users : int
        Users per block, >= 1; the last block may have fewer.

    Yields
    ------
    pyarrow.Table or dict
        For `Recommender.recommend_batch`; the users of all blocks have one type, int or str.

    Raises
    ------
    UsageError
        If there is no such file, or its ending is not one of `INPUTS`.
    DataError
        If it cannot be read, the rows of a user are not together, or a value is no user, item or weight.
    """
    if not path.is_file():
        raise UsageError(f"no file {path}; expected a file of histories: {', '.join(INPUTS)}")
    if path.suffix not in INPUTS:
        raise UsageError(f"got {path.name}, expected a name ending in {', '.join(INPUTS)}")
    try:
        yield from _lines(path, users) if path.suffix == ".jsonl" else _whole_users(_tables(path), users, path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())  # Arrow writes several lines
        raise DataError(f"{path} cannot be read: {reason}; expected a {path.suffix[1:]} file of histories") from error


def users_of(block: Block) -> list[Any]:
    """Return the users of a block, or only the first and the last."""
    if isinstance(block, dict):
        return list(block)
    return [block["user"][place].as_py() for place in (0, -1)]


def _batches(path: Path) -> Iterator[tuple[list[str], pa.RecordBatch]]:
    """Yield the rows of a table in batches, with the names of the columns that are used."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            names = _names(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=_ROWS, columns=names):
                yield names, batch.select(names)
        return
    parse = pacsv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
    with pacsv.open_csv(path, parse_options=parse) as reader:
        header = reader.schema.names
    if all(name.lstrip("-").replace(".", "").isdecimal() for name in header):  # the first row would be lost
        first = ", ".join(header)
        raise DataError(f"{path}: got {first} in the first line, expected a header; add one, e.g. user,item")
    names = _names(header, path)
    convert = pacsv.ConvertOptions(
        include_columns=names,
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],  # NA may be an id
        strings_can_be_null=True,
    )
    with pacsv.open_csv(path, parse_options=parse, convert_options=convert) as reader:
        for batch in reader:
            yield names, batch


def _names(names: list[str], path: Path) -> list[str]:
    """Return the columns that are used: user, item, and weight if there is one."""
    found = find_history_columns(names, str(path))
    return [found.user, found.item, *([found.weight] if found.weight is not None else [])]


def _tables(path: Path) -> Iterator[pa.Table]:
    """Yield checked rows in batches: user (int64 or string), item, and weight (float64) if there is one."""
    n_before = 0
    for names, batch in _batches(path):
        for name, column in zip(names[:2], batch.columns, strict=False):
            if column.null_count:
                row = n_before + int(np.flatnonzero(column.is_null())[0]) + 1
                raise DataError(f"{path}, row {row:,}: got an empty cell in {name}, expected a user and an item")
        columns = {"user": _users(batch.column(0), names[0], path), "item": batch.column(1)}
        if len(names) > 2:
            columns["weight"] = pa.array(_weights(batch.column(2), n_before, path))
        yield pa.table(columns)
        n_before += len(batch)


def _users(column: pa.Array, name: str, path: Path) -> pa.Array:
    """Return users as int64 or string."""
    values = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):  # data frames make floats of integers
        return values.cast(pa.int64())
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return values.cast(pa.string())
    raise DataError(f"{path}: got {name} of type {values.type}, expected integers or strings")


def _weights(column: pa.Array, n_before: int, path: Path) -> np.ndarray:
    values = pd.Series(column.to_pandas())
    weights = np.asarray(pd.to_numeric(values, errors="coerce"), dtype=np.float64)
    wrong = np.flatnonzero(~are_weights(weights))
    if len(wrong):
        found = column[int(wrong[0])].as_py()
        raise DataError(
            f"{path}, row {n_before + int(wrong[0]) + 1:,}: got weight {found!r:.{_SHOWN}}, {EXPECTED_WEIGHT}; "
            "remove such rows"
        )
    return weights


def _whole_users(tables: Iterator[pa.Table], users: int, path: Path) -> Iterator[pa.Table]:
    """Cut rows into blocks of users; the rows of a user must be together."""
    seen: set[Any] = set()
    rest: pa.Table | None = None
    for table in itertools.chain(tables, [None]):  # None marks the end
        joined = table if rest is None else rest if table is None else pa.concat_tables([rest, table])
        if joined is None:
            return
        column = joined["user"].to_numpy()
        starts = np.flatnonzero(np.append(True, column[1:] != column[:-1])) if len(column) else np.empty(0, np.int64)
        n_whole = len(starts) if table is None else max(len(starts) - 1, 0)  # the last user may have more rows
        ends = np.append(starts, len(column))
        for first in range(0, n_whole if table is None else n_whole // users * users, users):
            last = min(first + users, n_whole)
            block = joined.slice(ends[first], ends[last] - ends[first])
            _check_new(column[starts[first:last]].tolist(), seen, str(path))
            yield block
        done = n_whole if table is None else n_whole // users * users
        rest = joined.slice(ends[done])


def _check_new(users: Iterable[Any], seen: set[Any], where: str) -> None:
    for user in users:
        if user in seen:
            raise DataError(f"{where}: the rows of user {user!r} are not together; sort the file by user")
        seen.add(user)


def _lines(path: Path, users: int) -> Iterator[dict[Any, Any]]:
    block: dict[Any, Any] = {}
    seen: set[Any] = set()
    kind: type | None = None
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            user, items = _read_line(line, number, where)
            kind = kind or type(user)
            if type(user) is not kind:
                other = "an integer" if kind is int else "a string"
                raise DataError(f"{where}: got user {user!r}, expected {other} as before; use one type for all")
            _check_new([user], seen, where)
            block[user] = items
            if len(block) == users:
                yield block
                block = {}
    if block:
        yield block


def _read_line(line: bytes, number: int, where: str) -> tuple[Any, Any]:
    """Return the user of a line (by default the number of the line) and the history."""
    try:
        content = json.loads(line.decode("utf-8-sig"))
    except UNREADABLE as error:
        raise DataError(f"{where} cannot be read: {getattr(error, 'msg', error)}; expected {_LINE}") from error
    if not isinstance(content, dict) or not isinstance(content.get("items"), list | dict):
        start = line.strip()[:_SHOWN].decode(errors="replace")
        raise DataError(f"{where}: got {start}, expected {_LINE}")
    user, items = content.get("user", number), content["items"]
    if not _is_id(user):
        raise DataError(f"{where}: got user {_shown(user)}, expected a 64-bit integer or a UTF-8 string")
    for item in items:
        if not _is_id(item) and not (isinstance(item, float) and math.isfinite(item)):
            raise DataError(f"{where}: got item {_shown(item)}, expected a 64-bit number or a UTF-8 string")
    if isinstance(items, dict):
        try:
            check_weights(items)
        except (UsageError, OverflowError) as error:
            raise DataError(f"{where}: {error}") from error
    return user, items


def _is_id(value: object) -> bool:
    """Return whether a JSON value can be an id in every format: an int64, or a string that UTF-8 can encode."""
    if isinstance(value, str):  # JSON can hold half of a surrogate pair, UTF-8 cannot
        return value.isascii() or not any("\ud800" <= one <= "\udfff" for one in value)
    return type(value) is int and -(2**63) <= value < 2**63


def _shown(value: object) -> str:
    """Return a JSON value as a message shows it; a nested one may be too deep to print."""
    kinds = {list: "a list", dict: "an object"}
    return kinds.get(type(value)) or f"{value!a:.{_SHOWN}}"
