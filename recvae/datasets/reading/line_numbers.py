"""The line of a text file on which a row begins: read anew, line by line, only to name it in a message."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb

from recvae.datasets.reading.dialects import HEAD_BYTES, JSON_LINES, LISTS
from recvae.datasets.reading.relations import lines_relation
from recvae.datasets.reading.scans import Scan
from recvae.datasets.reading.sources import Source


def line_of(scan: Scan, row: int, connection: duckdb.DuckDBPyConnection) -> int:
    """Return the line, counted from 1, on which a row begins, counted from 0; what `Scan.only` leaves out is no row."""
    last = 0
    for line, n_rows in _rows_by_line(scan, connection):
        if row < n_rows:
            return line
        row -= n_rows
        last = line
    return last


def _rows_by_line(scan: Scan, connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[int, int]]:
    """Yield the line on which each row begins, and how many rows of the reader it makes."""
    texts = texts_of(scan)
    if scan.form == LISTS:
        for number, text in enumerate(texts, start=1):
            if text.strip():
                yield number, max(1, len(text.split()) - 1)
    elif scan.form == JSON_LINES:
        yield from _json_rows(scan, texts, connection)
    else:
        yield from _table_rows(scan, texts)


def texts_of(scan: Scan, errors: str = "replace") -> Iterator[str]:
    """Yield the lines of the file that DuckDB reads, with their ends; a CR ends a line only in a file without LF."""
    assert scan.path is not None
    source = Source(scan.path)
    with source.open() as stream:
        head = stream.read(HEAD_BYTES)
    end = "\r" if b"\r" in head and b"\n" not in head else "\n"
    with io.TextIOWrapper(source.open(), encoding="utf-8-sig", errors=errors, newline=end) as texts:
        yield from texts


def _json_rows(scan: Scan, texts: Iterator[str], connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[int, int]]:
    assert scan.path is not None
    numbered = f"SELECT row_number() OVER () - 1 AS place, line FROM {lines_relation(scan.path)}"
    query = f"SELECT place FROM ({numbered}) WHERE NOT json_valid(line)"  # Python's parser takes other lines for valid
    invalid = {place for (place,) in connection.execute(query).fetchall()}
    written = ((number, text) for number, text in enumerate(texts, start=1) if text.strip())
    for place, (number, text) in enumerate(written):
        row = _object_of(text)
        if place in invalid or not _is_kept(scan, {name: _as_text(value) for name, value in row.items()}):
            continue
        items = row.get(scan.columns.item) if scan.has_json_items else None
        yield number, max(1, len(items)) if isinstance(items, list | dict) else 1


def _table_rows(scan: Scan, texts: Iterator[str]) -> Iterator[tuple[int, int]]:
    dialect = scan.dialect
    assert dialect is not None
    for _ in range(dialect.skip):
        next(texts, None)
    n_columns = len(dialect.names)
    if not dialect.quote or len(dialect.separator) > 1:
        for number, text in enumerate(texts, start=dialect.skip + 1):
            row = dialect.split(text.rstrip("\r\n"))
            if text.strip("\r\n") and len(row) == n_columns and _is_kept(scan, _named(scan, row)):
                yield number, 1
        return
    doubled = dialect.escape == dialect.quote
    reader = csv.reader(
        texts,
        delimiter=dialect.separator,
        quotechar=dialect.quote,
        doublequote=doubled,
        escapechar=None if doubled else dialect.escape or None,
    )
    before, usual = 0, csv.field_size_limit(1 << 30)
    try:
        for row in reader:
            if len(row) == n_columns and _is_kept(scan, _named(scan, row)):
                yield dialect.skip + before + 1, 1
            before = reader.line_num
    except csv.Error:
        return
    finally:
        csv.field_size_limit(usual)


def line_at(path: Path, position: int) -> int:
    """Return the line of a text file in which a byte stands, counted from 1; the position is that of a line's start."""
    line, left = 1, position
    with Source(path).open() as stream:
        while left > 0 and (chunk := stream.read(min(left, 1 << 22))):
            line += chunk.count(b"\n") or (chunk.count(b"\r") if b"\n" not in chunk else 0)
            left -= len(chunk)
    return line


def _is_kept(scan: Scan, row: Mapping[str, str | None]) -> bool:
    values_of = {**row, **dict(scan.constants)}
    return all(values_of.get(name) in values for name, values in scan.only)


def _named(scan: Scan, row: list[str]) -> dict[str, str]:
    """Return the values of a row by their columns, without the quotes that were taken for letters."""
    assert scan.dialect is not None
    if scan.unquoted:
        row = [_without(scan.unquoted, value) for value in row]
    return dict(zip(scan.dialect.names, row, strict=True))


def _without(quote: str, value: str) -> str:
    bare = value.strip()
    return bare[1:-1].replace(2 * quote, quote) if len(bare) > 1 and bare[0] == bare[-1] == quote else value


def _object_of(text: str) -> dict[str, Any]:
    """Return the JSON object of a line; without values if Python cannot read it, although DuckDB could."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _as_text(value: Any) -> str | None:
    """Return a JSON value as DuckDB writes it."""
    return value if isinstance(value, str) or value is None else json.dumps(value)
