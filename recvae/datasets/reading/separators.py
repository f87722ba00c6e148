"""What separates the columns of a text file, and what stands around values: DuckDB's sniffer is asked, and helped.

It does not know `::`, columns aligned by spaces, and lines of which some are malformed.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb

from recvae.datasets.reading.headers import is_number, names_columns
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.times import quoted

SPACES = "spaces"
"""The separator of columns that are aligned by any number of spaces."""


_RARE_SEPARATORS = ("^", "~", "\x01", "\x02", "\x1f")  # others may be part of a date or an id


def separator_of(
    lines: list[str], given: LogFormat, roles: Sequence[str], sniff: "Sniff"
) -> tuple[str | None, str, str]:
    """Return separator, quote and escape; the separator is None if each line is one column."""
    quote = '"' if given.quote is None else given.quote
    escape = quote if given.escape is None else given.escape
    if given.separator is not None:
        separator = given.separator
        if separator == " " and are_consistent(lines, SPACES, "", "") and not are_consistent(lines, " ", quote, escape):
            return SPACES, "", ""
        return separator, quote, escape
    if are_consistent(lines, "::", "", ""):
        return "::", "" if given.quote is None else given.quote, escape
    if _are_numbers_in_columns(lines):
        return (SPACES, "", "") if any("  " in line.strip() or "\t" in line for line in lines) else (" ", quote, escape)
    found = sniff(lines)
    if found is not None and (len(lines) == 1 or are_consistent(lines, *found, share=0.5)):
        return found
    for separator in ("\t", ",", ";", "|", " ", SPACES, *_RARE_SEPARATORS):
        if separator == SPACES:
            if are_consistent(lines, SPACES, "", ""):
                return SPACES, "", ""
        elif are_consistent(lines, separator, quote, escape):
            return separator, quote, escape
    for separator in ("\t", ",", ";", "|"):  # names of columns tell it, whatever the other lines look like
        if names_columns(splitter(separator, quote, escape)(lines[0]), given, roles):
            return separator, quote, escape
    return None, quote, escape


def separator_of_most(lines: list[str], quote: str, escape: str) -> str | None:
    """Return a usual separator that fits half of the lines: the others are malformed, and named when they are read."""
    usual = ("::", "\t", ",", ";", "|", " ")
    return next((one for one in usual if are_consistent(lines, one, quote, escape, share=0.5)), None)


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
            return next(
                csv.reader(
                    [line],
                    delimiter=separator,
                    quotechar=quote,
                    doublequote=escape == quote,
                    escapechar=None if escape == quote else escape or None,
                ),
                [],
            )
        except csv.Error:  # a value of more than 128 KiB
            return line.split(separator)

    return split


def are_consistent(lines: Sequence[str], separator: str, quote: str, escape: str, share: float = 0.95) -> bool:
    """Whether a separator splits (nearly) all lines into the same number of columns, at least two."""
    split = splitter(separator, quote, escape)
    counts: dict[int, int] = {}
    for line in lines:
        n_columns = len(split(line))
        counts[n_columns] = counts.get(n_columns, 0) + 1
    most = max(counts, key=lambda n_columns: counts[n_columns])
    return most > 1 and counts[most] >= share * len(lines)


def _are_numbers_in_columns(lines: Sequence[str]) -> bool:
    """Whether lines hold nothing but numbers with blanks between them, perhaps below a header."""
    if not any(" " in line.strip() for line in lines) or not are_consistent(lines, SPACES, "", "", share=1):
        return False
    return len(lines) > 1 and all(is_number(word) for line in lines[1:] for word in line.split())


def are_lists(lines: Sequence[str]) -> bool:
    """Whether lines look like LightGCN's `user item item ...`: integers split by spaces, of unequal number."""
    rows = [line.split() for line in lines]
    if not any(" " in line.strip() for line in lines):  # integers between tabs are a table
        return False
    return any(len(row) > 2 for row in rows) and all(word.isdecimal() for row in rows for word in row)
