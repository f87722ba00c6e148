"""The format of a text log: separator, header and columns, guessed from the first lines."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.csv as pacsv

from recvae.datasets.columns import COLUMN_NAMES, LOG, Columns, find_columns, plain_name
from recvae.datasets.sources import OneByteSeparator, Source, file_errors
from recvae.errors import DataError, UsageError

SEPARATORS = ("::", "\t", ",", ";", "|", " ")
QUOTED = (",", ";", "\t")  # separators with which values may be in double quotes
_HEAD_BYTES = 1 << 16
_NO_RATING = 1e8  # a larger number is a time, not a rating


@dataclass(frozen=True, kw_only=True)
class LogFormat:
    """The format of a log. None means "to be guessed"; after `sniff`, it means "the log has none".

    Parameters
    ----------
    separator : str, optional
        Separator of columns: `::`, tab, comma, semicolon, bar or space.
    header : bool, optional
        Whether the first line names the columns.
    user, item, rating, time : str, optional
        The names of the columns; without a header their positions, "1" for the first.
    names : tuple of str
        All columns of the file in order; filled in by `sniff`.
    time_kind : str
        How times are written: "integer", "decimal", "text" (ISO 8601) or "zoned" (ISO 8601 with an offset from
        UTC); filled in by `sniff`.
    """

    separator: str | None = None
    header: bool | None = None
    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None
    names: tuple[str, ...] = ()
    time_kind: str = "integer"

    def time_type(self) -> pa.DataType:
        """Return the Arrow type to read the time column as."""
        zoned = pa.timestamp("us", tz="UTC")
        kinds = {"integer": pa.int64(), "decimal": pa.float64(), "text": pa.timestamp("us"), "zoned": zoned}
        return kinds[self.time_kind]

    def split(self, line: str) -> list[str]:
        """Split a line into columns, as the reader does."""
        separator = self.separator or ","
        if len(separator) > 1 or not self.quoted():
            return line.split(separator)
        try:
            return next(csv.reader([line], delimiter=separator), [])
        except csv.Error:  # a bare carriage return, or a value of more than 128 KiB
            return [line]

    def quoted(self) -> bool:
        """Whether values may be in double quotes in this format."""
        return self.separator in QUOTED


def find_log_columns(names: Sequence[str], log_format: LogFormat, source: Source) -> Columns:
    """Choose the columns of a log; see `columns.find_columns`, which says what it raises."""
    named = {role: getattr(log_format, role) for role in LOG}
    way_out = "name it with --{role}-col, or give --no-header if the first line is data already"
    return find_columns(names, LOG, source.name, way_out, named)


def sniff(source: Source, log_format: LogFormat) -> LogFormat:
    """Guess the format of a text log from its first lines.

    Parameters
    ----------
    source : Source
        The log.
    log_format : LogFormat
        What is known; it is kept.

    Returns
    -------
    LogFormat
        With separator, header, columns, `names` and `time_kind` filled in.

    Raises
    ------
    UsageError, DataError
        If there is no such file, it is not text, or its columns cannot be told apart.
    """
    lines = head_lines(source)
    separator = log_format.separator or guess_separator(lines)
    if separator != "::" and not (len(separator) == 1 and separator.isascii()):
        raise UsageError(f"got separator {separator!r}, expected '::' or one ASCII character, e.g. a comma or tab")
    log_format = replace(log_format, separator=separator)
    first = log_format.split(lines[0])
    if len(first) < 2:
        raise DataError(
            f"{source.name} line 1: got one column with separator {separator!r}: {lines[0][:80]!r}; expected at "
            f"least a user and an item column; give the right one with --sep"
        )
    header = log_format.header if log_format.header is not None else not any(is_number(field) for field in first)
    if header:
        names = tuple(first)
    else:
        names = tuple(str(position + 1) for position in range(len(first)))
        log_format = _positions(log_format, first)
    found = find_log_columns(names, log_format, source)
    log_format = replace(
        log_format, header=header, names=names, user=found.user, item=found.item, rating=found.rating, time=found.time
    )
    if header and len(lines) == 1:
        raise DataError(f"{source.name} has a header but no rows; expected one row per event")
    return replace(log_format, time_kind=_time_kind(log_format, lines[1] if header else lines[0]))


def is_user_lists(source: Source) -> bool:
    """Whether a file looks like LightGCN's `user item item ...`: words split by spaces, and no header.

    Raises
    ------
    UsageError, DataError
        If there is no such file, or it is not text.
    """
    if source.is_parquet():
        return False
    first = head_lines(source)[0]
    if any(separator in first for separator in SEPARATORS if separator != " "):
        return False
    usual = {name for names in COLUMN_NAMES.values() for name in names}
    return not any(plain_name(word) in usual for word in first.split())


def head_lines(source: Source) -> list[str]:
    """Return the first lines of a text file that are not blank, or raise if it is no text."""
    with file_errors(source), source.open() as stream:
        head = stream.read(_HEAD_BYTES)
    if b"\0" in head:
        raise DataError(f"{source.name} is a binary file, expected text or Parquet; export it as CSV")
    lines = [line.rstrip("\r") for line in head.decode("utf-8-sig", errors="replace").split("\n")]
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise DataError(f"{source.name} is empty; expected a log with one row per event")
    if lines[0].lstrip()[0] in "{[":
        raise DataError(f"{source.name} looks like JSON, expected a table; export it as CSV or Parquet")
    if "\r" in lines[0]:
        raise DataError(f"{source.name} line 1: got lines that end in a carriage return, expected newlines; convert it")
    return lines


def guess_separator(lines: list[str]) -> str:
    """Return the first separator that splits the first lines into the same number (> 1) of columns."""
    sample = lines[: max(1, min(20, len(lines) - 1))]  # the last line of the head may be cut
    for separator in SEPARATORS:
        columns = {line.count(separator) for line in sample}
        if len(columns) == 1 and columns != {0}:
            return separator
    return next((separator for separator in SEPARATORS if separator in lines[0]), ",")


def is_number(text: str) -> bool:
    """Whether a text can be read as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _positions(log_format: LogFormat, first: list[str]) -> LogFormat:
    """Without a header, the columns are in the order of MovieLens: user, item, rating, time; or user, item, time."""
    roles: tuple[str, ...] = ("user", "item", "rating", "time")
    if any(getattr(log_format, role) is not None for role in roles):
        return log_format
    if len(first) == 3 and is_number(first[2]) and float(first[2]) >= _NO_RATING:
        roles = ("user", "item", "time")
    return replace(log_format, **{role: str(i + 1) for i, role in enumerate(roles) if i < len(first)})


def _time_kind(log_format: LogFormat, line: str) -> str:
    fields = log_format.split(line)
    if log_format.time is None or log_format.names.index(log_format.time) >= len(fields):
        return "integer"
    field = fields[log_format.names.index(log_format.time)].strip()
    if field.lstrip("+-").isdecimal() or not field:
        return "integer"
    if is_number(field):
        return "decimal"
    return "zoned" if read_as([field], pa.timestamp("us", tz="UTC")) else "text"


def read_as(texts: Sequence[str], kind: pa.DataType) -> bool:
    """Whether all texts can be read as values of an Arrow type."""
    try:
        pa.array([text.strip() for text in texts]).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def parse_options(log_format: LogFormat) -> pacsv.ParseOptions:
    """Return the options with which pyarrow splits lines of this format."""
    separator = log_format.separator or ","
    if separator == "::":
        separator = OneByteSeparator.SEPARATOR
    return pacsv.ParseOptions(delimiter=separator, quote_char='"' if log_format.quoted() else False)
