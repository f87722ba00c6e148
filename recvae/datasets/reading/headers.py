"""Whether the first line of a table names its columns: by the names, then by what the other lines hold."""

import re
from collections.abc import Sequence

from recvae.datasets.columns import plain_name, usual_names, what_rows_are
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.datasets.reading.times import looks_like_time
from recvae.errors import DataError
from recvae.ids import MARKERS, MARKERS_AMONG_INTEGERS

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")


def _usual_names(roles: Sequence[str]) -> set[str]:
    return {name for role in roles for name in usual_names(role, roles)}


def names_columns(fields: Sequence[str], given: LogFormat, roles: Sequence[str]) -> bool:
    """Whether a line holds column names: one that the user named, or two usual ones (one, if only one is known)."""
    fields = [field.strip() for field in fields]
    if any(name in fields for name in given.columns.values() if name is not None and not name.isdecimal()):
        return True
    usual = _usual_names(roles)
    trained = {name for _, name in given.usual if not name.isdecimal()}
    return sum(plain_name(field) in usual or field in trained for field in fields) >= min(2, len(roles))


def is_header(
    source: Source,
    given: LogFormat,
    roles: Sequence[str],
    rows: Sequence[Sequence[str]],
    line: int,
    *,
    may_go_on: bool = False,
) -> bool:
    """Decide whether the first row names the columns: by the names, then by what the other rows hold.

    Where that does not tell, the file goes on with the rows of another one if it may.
    """
    if given.header is not None:
        return given.header
    first = rows[0]
    if names_columns(first, given, roles):
        return True
    named = [name for name in given.columns.values() if name is not None]
    if named:  # by their names, or by their positions
        return not all(name.isdecimal() and 1 <= int(name) <= len(first) for name in named)
    if _is_numbered(first):
        return True
    n_words = n_values = 0  # over values that are numbers or times
    for place, field in enumerate(first):
        values = [row[place] for row in rows[1:] if len(row) > place and not _is_missing(row[place])]
        if values and not _is_missing(field) and all(map(_is_value, values)):
            n_words += not _is_value(field)
            n_values += _is_value(field)
    if n_words and n_words >= n_values:
        return True
    if may_go_on or any(map(_is_value, first)):
        return False
    shown = ", ".join(first)[:80]
    way_out = "say so with --header or --no-header, or name the columns with --user-col and --item-col"
    if row := what_rows_are(roles):
        way_out = f"name the column of {row} ids with --id-col"
    raise DataError(
        f"{source.name} line {line}: cannot tell whether {shown!r} names the columns or is the first row; {way_out}"
    )


def _is_numbered(first: Sequence[str]) -> bool:
    """Whether a line is what pandas writes above columns without names: 0, 1, 2, 3, perhaps after that of an index."""
    fields = [field.strip() for field in first]
    numbers = fields[1:] if fields[0] == "" else fields
    return numbers == [str(place) for place in range(len(numbers))] and len(fields) > 3


def _is_value(text: str) -> bool:
    """Whether a text is a number or a time."""
    return is_number(text) or looks_like_time(text)


def _is_missing(text: str) -> bool:
    return not text.strip() or text.strip() in MARKERS or text.strip() in MARKERS_AMONG_INTEGERS


def is_number(text: str) -> bool:
    """Whether a text is a number, with a decimal point or comma."""
    return bool(_NUMBER.fullmatch(text.strip()))
