"""Reading a text log line by line, which is slow and only done to find the line that is wrong."""

from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from recvae.datasets.log_format import LogFormat, read_as
from recvae.datasets.sources import Source, file_errors

_TIME_KINDS = {
    "integer": "whole seconds since 1970",
    "decimal": "seconds since 1970",
    "text": "an ISO 8601 time (an offset from UTC in every line or in none)",
    "zoned": "an ISO 8601 time (an offset from UTC in every line or in none)",
}
_LINES_AT_ONCE = 10_000


def data_lines(source: Source, log_format: LogFormat) -> Iterator[tuple[int, bytes]]:
    """Yield the line number and content of each row, without blank lines and the header."""
    with file_errors(source), source.open() as stream:
        skip_header = log_format.header
        for number, line in enumerate(stream, start=1):
            line = line.rstrip(b"\r\n")
            if not line:
                continue
            if skip_header:
                skip_header = False
                continue
            yield number, line


def line_of_row(source: Source, log_format: LogFormat, row: int) -> int:
    """Return the line number (from 1) of a row (from 0) of the table that was read."""
    for index, (number, _) in enumerate(data_lines(source, log_format)):
        if index == row:
            return number
    return row + 1


def first_bad_line(source: Source, log_format: LogFormat) -> str | None:
    """Look for the first line that cannot be read.

    Parameters
    ----------
    source : Source
        A log that pyarrow could not read.
    log_format : LogFormat
        Its complete format.

    Returns
    -------
    str or None
        What is wrong, with file, line and column; None if every line can be read.
    """
    lines = data_lines(source, log_format)
    while some := list(islice(lines, _LINES_AT_ONCE)):
        if _all_readable([line for _, line in some], log_format):
            continue
        for number, line in some:
            problem = _line_problem(line, log_format)
            if problem is not None:
                return f"{source.name} line {number}: {problem}"
    return None


def _all_readable(lines: list[bytes], log_format: LogFormat) -> bool:
    """Return whether all lines can be read; numbers are tried column by column, one by one takes minutes."""
    try:
        rows = [log_format.split(line.decode("utf-8")) for line in lines]
    except UnicodeDecodeError:
        return False
    if any(len(row) != len(log_format.names) for row in rows):
        return False
    kinds = {log_format.rating: pa.float32(), log_format.time: log_format.time_type()}
    columns = {log_format.names.index(name): kind for name, kind in kinds.items() if name is not None}
    return all(read_as([row[column] for row in rows], kind) for column, kind in columns.items())


def _line_problem(line: bytes, log_format: LogFormat) -> str | None:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8 text (byte 0x{line[error.start]:02x} at position {error.start + 1}); convert the file first"
    fields = log_format.split(text)
    if len(fields) != len(log_format.names):
        expected = len(log_format.names)
        return f"got {len(fields)} columns, expected {expected} as in the first line: {text[:80]!r}; repair the line"
    if log_format.rating is not None:
        rating = fields[log_format.names.index(log_format.rating)]
        if not read_as([rating], pa.float32()):
            return f"column '{log_format.rating}' holds {rating!r}, expected a number; repair or remove the line"
    if log_format.time is not None:
        time = fields[log_format.names.index(log_format.time)]
        if not read_as([time], log_format.time_type()):
            expected = _TIME_KINDS[log_format.time_kind]
            return f"column '{log_format.time}' holds {time!r}, expected {expected}; repair the line"
    return None
