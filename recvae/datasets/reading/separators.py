"""What separates the columns of a text file, and what stands around values: DuckDB's sniffer is asked, and helped.

It does not know `::`, columns aligned by spaces, and lines of which some are malformed.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from recvae.datasets.reading.headers import is_number, names_columns
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.times import quoted
from recvae.errors import DataError, UsageError

SPACES = "spaces"
"""The separator of columns that are aligned by any number of spaces."""


_DECIMAL = re.compile(r"[+-]?\d+,\d+")
_RARE_SEPARATORS = ("^", "~", "\x01", "\x02", "\x1f")  # others may be part of a date or an id


def separator_of(
    lines: list[str], given: LogFormat, roles: Sequence[str], sniff: "Sniff", where: str
) -> tuple[str | None, str, str]:
    """Return separator, quote and escape; the separator is None if each line is one column.

    Raises
    ------
    UsageError
        If the quote is the separator.
    DataError
        If two separators fit; `where` is what messages call the file.
    """
    quote = '"' if given.quote is None else given.quote
    escape = quote if given.escape is None else given.escape
    if given.separator is not None:
        is_aligned = given.separator == " " and not _are_consistent(lines, " ", quote, escape)
        if is_aligned and _are_consistent(lines, SPACES, "", ""):
            return SPACES, "", ""
        if given.separator == quote:
            raise UsageError(f"got {quote!r} for the quote and the separator, expected two characters; change one")
        return given.separator, quote, escape
    if _are_consistent(lines, "::", "", ""):
        return "::", "" if given.quote is None else given.quote, escape
    if _are_numbers_in_columns(lines):
        return (SPACES, "", "") if any("  " in line.strip() or "\t" in line for line in lines) else (" ", quote, escape)
    found = sniff(lines)
    if found is not None and (len(lines) == 1 or _are_consistent(lines, *found, share=0.5)):
        return _decided(lines, found, given, roles, where)
    for separator in ("\t", ",", ";", "|", " ", SPACES, *_RARE_SEPARATORS):
        if separator == SPACES:
            if _are_consistent(lines, SPACES, "", ""):
                return SPACES, "", ""
        elif _are_consistent(lines, separator, quote, escape):
            return separator, quote, escape
    for separator in ("\t", ",", ";", "|"):  # names of columns tell it, whatever the other lines look like
        if names_columns(splitter(separator, quote, escape)(lines[0]), given, roles):
            return separator, quote, escape
    return None, quote, escape


def _decided(
    lines: list[str], found: tuple[str, str, str], given: LogFormat, roles: Sequence[str], where: str
) -> tuple[str, str, str]:
    """Return what was sniffed, unless another separator fits as well: a comma may be that of decimals or of a title."""
    separator, quote, escape = found
    if given.quote is None and quote != "'":
        fields = splitter(separator, "", "")(lines[0])
        if all(len(field) > 2 and field[0] == field[-1] == "'" for field in map(str.strip, fields)):
            quote = escape = "'"
    fitting = [one for one in ("\t", ";", ",") if one != separator and _are_consistent(lines, one, quote, escape, 1)]
    if not fitting:
        return separator, quote, escape
    fitting.append(separator)
    named = [one for one in fitting if names_columns(splitter(one, quote, escape)(lines[0]), given, roles)]
    if named:
        return separator if separator in named else named[0], quote, escape
    if "\t" in fitting:
        return "\t", quote, escape
    values = [value.strip() for line in lines for value in splitter(";", quote, escape)(line)]
    if all(map(_DECIMAL.fullmatch, (value for value in values if "," in value))):
        return ";", quote, escape
    raise DataError(
        f"{where} line 1: {lines[0][:80]!r} can be split by {' and by '.join(map(repr, fitting))}; say which with --sep"
    )


def separator_of_most(lines: list[str], quote: str, escape: str) -> str | None:
    """Return a usual separator that fits half of the lines: the others are malformed, and named when they are read."""
    usual = ("::", "\t", ",", ";", "|", " ")
    return next((one for one in usual if _are_consistent(lines, one, quote, escape, share=0.5)), None)


Sniff = Callable[[list[str]], tuple[str, str, str] | None]


def sniffed(
    given: LogFormat, connection: duckdb.DuckDBPyConnection, scratch: Path, lines: list[str]
) -> tuple[str, str, str] | None:
    """Ask DuckDB's sniffer; None if it finds a single column, or nothing."""
    sample = scratch / "sample.txt"
    sample.write_text("\n".join(lines) + "\n", encoding="utf-8")
    known = "" if given.quote is None else f", quote = {quoted(given.quote)}"
    query = (
        f"SELECT Delimiter, Quote, Escape, len(Columns) FROM sniff_csv(?, all_varchar = true, sample_size = -1{known})"
    )
    try:
        row = connection.execute(query, [str(sample)]).fetchall()[0]
    except duckdb.Error:
        return None
    separator, quote, escape, n_columns = row
    if n_columns < 2 or separator == " ":  # spaces are tried with and without alignment
        return None
    quote = given.quote if given.quote is not None else '"' if quote == "(empty)" else quote
    usual = quote if escape == "(empty)" else escape
    return separator, quote, usual if given.escape is None else given.escape


def splitter(separator: str, quote: str, escape: str) -> Callable[[str], list[str]]:
    """Return a function that splits a line into values."""
    if separator == SPACES:
        return str.split
    if not quote or len(separator) > 1:
        return lambda line: line.split(separator)

    def split(line: str) -> list[str]:
        try:
            return next(_reader([line], separator, quote, escape), [])
        except csv.Error:  # a value of more than 128 KiB
            return line.split(separator)

    return split


def _reader(lines: Iterable[str], separator: str, quote: str, escape: str) -> Any:
    doubled = escape == quote
    escaped = None if doubled else escape or None
    return csv.reader(lines, delimiter=separator, quotechar=quote, doublequote=doubled, escapechar=escaped)


def rows_of(lines: Sequence[str], separator: str, quote: str, escape: str) -> list[tuple[int, tuple[str, ...]]]:
    """Split lines into rows, each with the position of its first line; a value in quotes may go over several lines."""
    split = splitter(separator, quote, escape)
    rows = [(place, tuple(split(line))) for place, line in enumerate(lines)]
    if separator == SPACES or not quote or len(separator) > 1 or _share(rows) == 1:
        return rows
    reader = _reader((f"{line}\n" for line in lines), separator, quote, escape)
    longer, place = [], 0
    try:
        for row in reader:
            longer.append((place, tuple(row)))
            place = reader.line_num
    except csv.Error:
        return rows
    return longer if _share(longer) > _share(rows) else rows


def _share(rows: Sequence[tuple[int, tuple[str, ...]]]) -> float:
    """Return the share of the rows that have the usual number of columns, 0 if this is one."""
    [(most, count)] = Counter(len(row) for _, row in rows).most_common(1)
    return count / len(rows) if most > 1 else 0


def _are_consistent(lines: Sequence[str], separator: str, quote: str, escape: str, share: float = 0.95) -> bool:
    """Whether a separator splits (nearly) all lines into the same number of columns, at least two."""
    return _share(rows_of(lines, separator, quote, escape)) >= share


def _are_numbers_in_columns(lines: Sequence[str]) -> bool:
    """Whether lines hold nothing but numbers with blanks between them, perhaps below a header."""
    if not any(" " in line.strip() for line in lines) or not _are_consistent(lines, SPACES, "", "", share=1):
        return False
    words = [word for line in lines[1:] for word in line.split()]
    return bool(words) and all(is_number(word) and word[-1].isdigit() for word in words)


def are_lists(lines: Sequence[str]) -> bool:
    """Whether lines look like LightGCN's `user item item ...`: integers split by spaces, of unequal number."""
    rows = [line.split() for line in lines]
    if not any(" " in line.strip() for line in lines):  # integers between tabs are a table
        return False
    return any(len(row) > 2 for row in rows) and all(word.isdecimal() for row in rows for word in row)
