"""Reading a log of interactions from CSV, TSV, `::`-separated text, Parquet, or lists of items per user.

The separator, the header and the columns are guessed if they are not given. pyarrow reads whole columns at a time; only
if something is wrong are the lines read one by one, to say which line.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from recvae.datasets.columns import LOG, Columns
from recvae.datasets.events import Events, RowName, check_ratings, check_times, refuse_rows
from recvae.datasets.log_errors import first_bad_line, line_of_row
from recvae.datasets.log_format import LogFormat, find_log_columns, parse_options, sniff
from recvae.datasets.sources import OneByteSeparator, Source, file_errors
from recvae.errors import DataError

_BLOCK_BYTES = 1 << 23  # per block: each block has its own dictionary of ids, and few dictionaries are merged quickly

# Letters in shape comments: E events, D distinct ids.


@dataclass(frozen=True)
class _Columns:
    """The columns of a log, as pyarrow has read them."""

    user: pa.ChunkedArray
    item: pa.ChunkedArray
    rating: pa.ChunkedArray | None
    time: pa.ChunkedArray | None


def read_events(source: Source | Path | str, log_format: LogFormat | None = None) -> Events:
    """Read a log into canonical events, in file order.

    Parameters
    ----------
    source : Source, Path or str
        A text file (plain, gzip or zip) or a Parquet file.
    log_format : LogFormat, optional
        What is known about the file; the rest is guessed from its first lines.

    Returns
    -------
    Events
        One event per row. If all ids are integers they become int64, otherwise they stay strings.

    Raises
    ------
    UsageError
        If there is no such file, or a named column is not in it.
    DataError
        If the content cannot be used; the message names file, line and column.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
    >>> _ = path.write_text("user_id,item_id\\nann,film-7\\nbob,film-7\\n")
    >>> read_events(path).counts()
    {'events': 2, 'users': 2, 'items': 1}
    """
    source = source if isinstance(source, Source) else Source(Path(source))
    log_format = log_format or LogFormat()
    if source.is_parquet():
        columns = _read_parquet(source, log_format)
        return _events(columns, lambda row: f"{source.name} row {row + 1}")
    log_format = sniff(source, log_format)
    columns = _read_text(source, log_format)
    events = _events(columns, lambda row: f"{source.name} line {line_of_row(source, log_format, row)}")
    del columns
    pa.default_memory_pool().release_unused()  # Arrow would keep memory that numpy needs next
    return events


def columns_of(source: Source, log_format: LogFormat | None = None) -> dict[str, str | None]:
    """Return the names of the columns that are read as user, item, rating and time; None if there is none.

    Raises
    ------
    UsageError, DataError
        As `read_events`.
    """
    log_format = log_format or LogFormat()
    if source.is_parquet():
        found: LogFormat | Columns = find_log_columns(pq.read_schema(source.path).names, log_format, source)
    else:
        found = sniff(source, log_format)
    return {role: getattr(found, role) for role in LOG}


def _read_parquet(source: Source, log_format: LogFormat) -> _Columns:
    try:
        with file_errors(source):
            names = pq.read_schema(source.path).names
            found = find_log_columns(names, log_format, source)
            wanted = [name for name in (found.user, found.item, found.rating, found.time) if name is not None]
            table = pq.read_table(source.path, columns=wanted)
    except pa.ArrowInvalid as error:
        raise DataError(f"{source.name} is damaged or not a Parquet file ({error}); write or fetch it again") from error
    if table.num_rows == 0:
        raise DataError(f"{source.name} has a header but no rows; expected one row per event")
    return _Columns(
        user=_ids(source, table, found.user, "user"),
        item=_ids(source, table, found.item, "item"),
        rating=_numbers(source, table, found.rating, "rating"),
        time=_numbers(source, table, found.time, "time"),
    )


def _ids(source: Source, table: pa.Table, name: str, role: str) -> pa.ChunkedArray:
    """Return a Parquet column of ids as integers or strings, or a dictionary of them."""
    column = table[name]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if is_text or (pa.types.is_integer(kind) and kind != pa.uint64()):  # uint64 need not fit into int64
        return column
    try:
        if pa.types.is_floating(kind):  # pandas writes integers as floats if one is missing
            column = pc.call_function("if_else", [pc.call_function("is_finite", [column]), column, None])
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{source.name}: column '{name}' holds {column.type}, expected integers or strings for the {role} id "
            f"({error}); name another column with --{role}-col"
        ) from error


def _numbers(source: Source, table: pa.Table, name: str | None, role: str) -> pa.ChunkedArray | None:
    """Return a Parquet column as float32 ratings or as int64 seconds."""
    if name is None:
        return None
    column = table[name]
    try:
        if role == "rating":
            return column.cast(pa.float32(), safe=False)
        return _seconds(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{source.name}: column '{name}' holds {column.type}, expected numbers for the {role} ({error}); "
            f"name another column with --{role}-col"
        ) from error


def _seconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return int64 seconds since 1970 of a column of integers, floats or timestamps."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"), safe=False)
    if pa.types.is_floating(column.type):
        in_range = pc.call_function("less", [pc.call_function("abs", [column]), pa.scalar(2.0**63)])  # not for NaN
        column = pc.call_function("if_else", [in_range, column, None])
    return column.cast(pa.int64(), safe=False)


def _read_text(source: Source, log_format: LogFormat) -> _Columns:
    """Read the four columns with pyarrow; ids as dictionaries, so that no row keeps a string."""
    identifier = pa.dictionary(pa.int32(), pa.string())
    user, item, rating, time = log_format.user, log_format.item, log_format.rating, log_format.time
    assert user is not None and item is not None  # sniff has filled them in
    types: dict[str, pa.DataType] = {user: identifier, item: identifier}
    if rating is not None:
        types[rating] = pa.float32()
    if time is not None:
        types[time] = log_format.time_type()
    convert = pacsv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=[""], strings_can_be_null=False
    )
    try:
        with file_errors(source), _stream(source, log_format) as stream:
            table = pacsv.read_csv(
                stream,
                read_options=pacsv.ReadOptions(
                    column_names=None if log_format.header else list(log_format.names), block_size=_BLOCK_BYTES
                ),
                parse_options=parse_options(log_format),
                convert_options=convert,
            )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        problem = first_bad_line(source, log_format) or f"{source.name}: {error}; repair the file"
        raise DataError(problem) from error
    return _Columns(
        user=table[user],
        item=table[item],
        rating=None if rating is None else table[rating],
        time=None if time is None else _seconds(table[time]),
    )


@contextmanager
def _stream(source: Source, log_format: LogFormat) -> Iterator[Any]:
    """Yield what pyarrow reads fastest: the path itself if possible, else a stream."""
    if source.is_plain() and log_format.separator != "::":
        yield str(source.path)
        return
    with source.open() as stream:
        yield OneByteSeparator(stream) if log_format.separator == "::" else stream


def _events(columns: _Columns, place: RowName) -> Events:
    """Check every value and build the events; `place` returns what messages call a row."""
    users, user_ids = _index(columns.user, "user", place)
    items, item_ids = _index(columns.item, "item", place)
    ratings = timestamps = None
    if columns.rating is not None:
        ratings = check_ratings(columns.rating.to_numpy(), place)  # (E,), null as NaN
    if columns.time is not None:
        timestamps = check_times(columns.time.to_numpy(), columns.time.is_null().to_numpy(), place)  # (E,)
    return Events(
        users=users, items=items, user_ids=user_ids, item_ids=item_ids, ratings=ratings, timestamps=timestamps
    )


def _index(column: pa.ChunkedArray, role: str, place: RowName) -> tuple[np.ndarray, np.ndarray]:
    """Return int32 codes (E,) and the ascending distinct ids (D,) of a column of ids."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    raw = _identifiers(column.chunk(0).dictionary)  # (D,) in order of appearance
    ids, position = np.unique(raw, return_inverse=True)  # (D,), (D,)
    code_of = np.append(np.where(raw == "", -1, position), -1).astype(np.int32)  # (D + 1,), the last stands for null
    codes = np.empty(len(column), dtype=np.int32)  # (E,)
    start = 0
    for chunk in column.chunks:  # chunk by chunk, so that no temporary array is as long as the log
        indices = chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        # "wrap" makes -1 the last one, as indexing does, but needs no buffer
        code_of.take(indices, mode="wrap", out=codes[start : start + len(chunk)])
        start += len(chunk)
    if code_of[:-1].min(initial=0) < 0 or column.null_count:
        refuse_rows(codes < 0, f"{role} id is empty, expected an id", place)
    return codes, ids


def _identifiers(dictionary: pa.Array) -> np.ndarray:
    """Return ids (D,) as int64 if each is written as a plain integer, else as stripped strings."""
    if pa.types.is_integer(dictionary.type):
        return dictionary.cast(pa.int64()).to_numpy()
    texts = [text.strip() for text in dictionary.to_pylist()]
    try:
        numbers = [int(text) for text in texts]
        # "007" and "+7" are strings, not numbers: as numbers they would be written differently.
        if all(str(number) == text for number, text in zip(numbers, texts, strict=True)):
            return np.array(numbers, dtype=np.int64)
    except (ValueError, OverflowError):
        pass
    return np.array(texts, dtype=object)


def read_user_lists(source: Source | Path | str) -> Events:
    """Read the LightGCN format: one line per user, `user item item ...`, separated by spaces.

    Parameters
    ----------
    source : Source, Path or str
        A text file, plain, gzip or zip. A user without items is left out.

    Returns
    -------
    Events
        One event per (user, item), in file order, without ratings or timestamps.

    Raises
    ------
    UsageError
        If there is no such file.
    DataError
        If it is empty or not text.
    """
    source = source if isinstance(source, Source) else Source(Path(source))
    with file_errors(source), source.open() as stream:
        lines = pa.array(stream.read().decode("utf-8-sig").split("\n"))
    trimmed = pc.call_function("utf8_trim_whitespace", [lines])
    words = pc.call_function("utf8_split_whitespace", [trimmed])  # per line: user, then items
    flat = words.flatten()
    start = words.offsets.to_numpy()[:-1]  # where each line's user stands in flat
    length = np.diff(words.offsets.to_numpy())
    is_item = np.ones(len(flat), dtype=bool)
    is_item[start] = False
    if not is_item.any():
        raise DataError(f"{source.name} is empty; expected lines of 'user item item ...'")
    users = flat.take(pa.array(np.repeat(start, length - 1)))  # (E,)
    items = flat.filter(pa.array(is_item))  # (E,)
    columns = _Columns(pa.chunked_array([users]), pa.chunked_array([items]), None, None)
    return _events(columns, lambda row: f"{source.name} event {row + 1}")
