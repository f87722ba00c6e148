"""The line of a text file on which a row begins: read anew, line by line, only to name it in a message."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recvae.datasets.reading.dialects import HEAD_BYTES, JSON_LINES, LISTS
from recvae.datasets.reading.scans import Scan
from recvae.datasets.reading.sources import Source


def line_of(scan: Scan, row: int) -> int:
    """Return the line, counted from 1, on which a row begins, counted from 0."""
    last = 0
    for line, n_rows in _rows_by_line(scan):
        if row < n_rows:
            return line
        row -= n_rows
        last = line
    return last


def _rows_by_line(scan: Scan) -> Iterator[tuple[int, int]]:
    """Yield the line on which each row begins, and how many rows of the reader it makes."""
    texts = texts_of(scan)
    if scan.form == LISTS:
        for number, text in enumerate(texts, start=1):
            if text.strip():
                yield number, max(1, len(text.split()) - 1)
    elif scan.form == JSON_LINES:
        for number, text in enumerate(texts, start=1):
            with_row = object_of(text)
            if with_row is not None:
                items = with_row.get(scan.columns.item) if scan.has_json_items else None
                yield number, max(1, len(items)) if isinstance(items, list | dict) else 1
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


def _table_rows(scan: Scan, texts: Iterator[str]) -> Iterator[tuple[int, int]]:
    dialect = scan.dialect
    assert dialect is not None
    for _ in range(dialect.skip):
        next(texts, None)
    n_columns = len(dialect.names)
    if not dialect.quote or len(dialect.separator) > 1:
        for number, text in enumerate(texts, start=dialect.skip + 1):
            row = dialect.split(text.rstrip("\r\n"))
            if text.strip() and len(row) == n_columns and _is_kept(scan, row):
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
            if len(row) == n_columns and _is_kept(scan, row):
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


def _is_kept(scan: Scan, row: list[str]) -> bool:
    assert scan.dialect is not None
    return all(row[scan.dialect.names.index(name)] in values for name, values in scan.only)


def object_of(text: str) -> dict[str, Any] | None:
    """Return the JSON object of a line; None if it is not valid JSON."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else {}
