"""How a text file is written: encoding, separator, quotes, header. DuckDB's sniffer is asked; what it cannot know is added.

It does not know `::`, columns aligned by spaces, comment lines, blank last lines, or that a line that holds a usual
name of a column is a header.
"""

import codecs
import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from recvae.datasets.columns import COLUMN_NAMES, plain_name
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source, file_errors
from recvae.datasets.reading.times import looks_like_time, quoted
from recvae.errors import DataError

HEAD_BYTES = 1 << 20
SAMPLE_LINES = 2000
SPACES = "spaces"
"""The separator of columns that are aligned by any number of spaces."""

COMMENTS = ("#", "%", "//")
LISTS, TABLE, JSON_LINES, JSON_ARRAY = "lists", "table", "JSON lines", "a JSON array"
_RARE_SEPARATORS = (
    "^",
    "~",
    "\x01",
    "\x1f",
    "\x02",
    ":",
    "!",
    "&",
    "=",
    "/",
    "@",
    "$",
    "*",
    "+",
    "-",
    "_",
    "#",
    "\\",
    ".",
)
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_BOMS = (  # the longest first: that of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one text file is written.

    Parameters
    ----------
    form : str
        `TABLE`, `LISTS` (a user and his items in each line), `JSON_LINES` or `JSON_ARRAY`.
    encoding : str
        Encoding.
    separator, quote, escape : str
        As in `LogFormat`; the separator may be `SPACES`.
    header : bool
        Whether a line names the columns.
    names : tuple of str
        All columns in order; without a header "1", "2", ...
    skip : int
        Lines before the first row: comments, blank lines and the header.
    comments, blanks : int
        How many of these are comments and blank lines.
    sample : tuple of tuple of str
        The values of the first rows.
    """

    form: str = TABLE
    encoding: str = "utf-8"
    separator: str = ","
    quote: str = '"'
    escape: str = '"'
    header: bool = False
    names: tuple[str, ...] = ()
    skip: int = 0
    comments: int = 0
    blanks: int = 0
    sample: tuple[tuple[str, ...], ...] = ()

    def split(self, line: str) -> list[str]:
        """Split a line into values."""
        return _splitter(self.separator, self.quote, self.escape)(line)

    def column(self, name: str) -> list[str]:
        """Return the first values of a column that are not empty."""
        place = self.names.index(name)
        return [row[place] for row in self.sample if len(row) > place and row[place].strip()]

    def of_objects(self, rows: Sequence[dict[str, Any]]) -> "Dialect":
        """Return the dialect of a file of JSON objects, of which these are the first."""
        names = tuple(dict.fromkeys(name for row in rows for name in row))
        sample = tuple(tuple("" if row.get(name) is None else str(row[name]) for name in names) for row in rows)
        return replace(self, names=names, sample=sample, header=True)

    def to_json(self) -> dict[str, Any]:
        """Return what the report shows."""
        if self.form != TABLE:
            return {"form": self.form, "encoding": self.encoding}
        quote = self.quote or "none"
        return {
            "form": self.form,
            "encoding": self.encoding,
            "separator": self.separator,
            "quote": quote,
            "header": self.header,
        }


def dialect_of(
    source: Source, given: LogFormat, roles: Sequence[str], connection: duckdb.DuckDBPyConnection, scratch: Path
) -> Dialect:
    """Find out how a text file is written, from its first megabyte.

    Parameters
    ----------
    source : Source
        The file.
    given : LogFormat
        What the user says, which is kept.
    roles : sequence of str
        The roles of the columns that are looked for: a line with their usual names is a header.
    connection : duckdb.DuckDBPyConnection
        DuckDB, whose sniffer is asked.
    scratch : Path
        A folder for the sample that it looks at.

    Returns
    -------
    Dialect
        Complete.

    Raises
    ------
    DataError
        If it is no text, empty, or its columns cannot be told apart.
    """
    with file_errors(source), source.open() as stream:
        head = stream.read(HEAD_BYTES)
    source.refuse_foreign(head)
    encoding = given.encoding or _encoding_of(head, source)
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(head).removeprefix("\ufeff")
    lines = re.split("\r\n|\n|\r", text)
    is_whole = len(head) < HEAD_BYTES
    if not is_whole and len(lines) > 1:
        del lines[-1]  # it may be cut
    if not any(line.strip() for line in lines):
        raise DataError(f"{source.name} is empty; expected a log with one row per event")
    first = next(line.strip() for line in lines if line.strip())
    if first[0] in "{[" and given.separator is None:
        return _json_dialect(source, lines, first, encoding)
    sniff = partial(_sniffed, given, connection, scratch)
    return _table_dialect(source, given, roles, lines[:SAMPLE_LINES], encoding, sniff)


def _encoding_of(head: bytes, source: Source) -> str:
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name
    sample = head[:4096]
    n_zeros = sample.count(0)
    if n_zeros > 0.05 * len(sample):  # fewer are damage in a text, which is named when all of it has been read
        even, odd = sample[::2].count(0), sample[1::2].count(0)
        if n_zeros >= 0.4 * len(sample) and min(even, odd) <= 0.05 * n_zeros:  # every second byte of Latin text is 0
            return "utf-16-le" if odd > even else "utf-16-be"
        raise DataError(
            f"{source.name} is a binary file of an unknown kind, expected text or Parquet; export it as CSV or Parquet"
        )
    return "utf-8"


def _json_dialect(source: Source, lines: list[str], first: str, encoding: str) -> Dialect:
    if first[0] == "[":
        return Dialect(form=JSON_ARRAY, encoding=encoding)
    rows = []
    for line in lines[:SAMPLE_LINES]:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a bad line is named when it is read
        if isinstance(row, dict):
            rows.append(row)
    if not rows:
        if first == "{" or (len(lines) > 1 and not lines[1].strip().startswith("{")):
            raise DataError(
                f"{source.name} looks like one JSON object over many lines, expected one object per line; "
                "write it as JSON lines, e.g. with jq -c"
            )
        raise DataError(f"{source.name} line 1: got {first[:80]!r}, which is not valid JSON; repair the line")
    return Dialect(form=JSON_LINES, encoding=encoding).of_objects(rows)


def _table_dialect(
    source: Source, given: LogFormat, roles: Sequence[str], lines: list[str], encoding: str, sniff: "_Sniff"
) -> Dialect:
    """Leave out blank lines and leading comments, let DuckDB sniff the rest, and decide about the header."""
    blanks = comments = 0
    kept = []
    preamble: list[str] = []
    for place, line in enumerate(lines):
        if not line.strip():
            continue
        if not kept and line.lstrip().startswith(COMMENTS):
            preamble.append(line)
            continue
        kept.append((place, line))
    if not kept:  # every line begins like a comment
        kept, preamble = [(place, line) for place, line in enumerate(lines) if line.strip()], []
    texts = [line for _, line in kept]
    if given.lists and given.separator is None and given.header is None and not any(given.columns.values()):
        if _are_lists(texts):
            return Dialect(form=LISTS, encoding=encoding, separator=SPACES, quote="", escape="")
    separator, quote, escape = _separator_of(texts, given, sniff)
    if separator is None and _are_lists(texts):
        return Dialect(form=LISTS, encoding=encoding, separator=SPACES, quote="", escape="")
    if separator is None:
        separator = _separator_of_most(texts, quote, escape)
    if separator is None:
        raise DataError(
            f"{source.name} line {kept[0][0] + 1}: got one column: {texts[0][:80]!r}; expected at least {_wanted(roles)}; "
            f"give the right separator with --sep"
        )
    split = _splitter(separator, quote, escape)
    if separator == SPACES and _are_lists(texts) and len({len(split(text)) for text in texts}) > 1:
        return Dialect(form=LISTS, encoding=encoding, separator=SPACES, quote="", escape="")
    if preamble and _names_columns(split(_bare(preamble[-1])), given, roles):  # "# user<tab>item" is a header
        kept.insert(0, (lines.index(preamble[-1]), _bare(preamble.pop())))
    elif preamble and not _is_remark(preamble[-1]) and len(split(preamble[-1])) == len(split(texts[0])):
        kept.insert(0, (lines.index(preamble[-1]), preamble.pop()))  # an id that begins with a mark
    comments = len(preamble)
    rows = [tuple(split(line)) for _, line in kept]
    first = rows[0]
    if len(first) < 2:
        raise DataError(
            f"{source.name} line {kept[0][0] + 1}: got one column with separator {separator!r}: {kept[0][1][:80]!r}; "
            f"expected at least {_wanted(roles)}; give the right one with --sep"
        )
    header = _is_header(source, given, roles, rows, kept[0][0] + 1)
    names = tuple(name.strip() for name in first) if header else tuple(str(n + 1) for n in range(len(first)))
    start = kept[1][0] if header and len(kept) > 1 else kept[0][0] if not header else len(lines)
    blanks = sum(not line.strip() for line in lines[:start])
    if header and len(kept) == 1:
        raise DataError(f"{source.name} has a header but no rows; expected one row per event")
    return Dialect(
        encoding=encoding,
        separator=separator,
        quote=quote,
        escape=escape,
        header=header,
        names=names,
        skip=start,
        comments=comments,
        blanks=blanks,
        sample=tuple(rows[1 if header else 0 :]),
    )


def _wanted(roles: Sequence[str]) -> str:
    return "a column of ids and one of titles" if "title" in roles else "a user and an item column"


def _bare(line: str) -> str:
    """Return a comment line without its mark."""
    return line.lstrip().lstrip("#%/").lstrip(" ")


def _is_remark(line: str) -> bool:
    """Whether a mark stands apart, as before a remark, not at the start of a word."""
    rest = line.lstrip()[1:]
    return not rest or not rest[0].isalnum()


def _separator_of(lines: list[str], given: LogFormat, sniff: "_Sniff") -> tuple[str | None, str, str]:
    """Return separator, quote and escape; the separator is None if each line is one column."""
    quote = '"' if given.quote is None else given.quote
    escape = quote if given.escape is None else given.escape
    if given.separator is not None:
        separator = given.separator
        if (
            separator == " "
            and _are_consistent(lines, SPACES, "", "")
            and not _are_consistent(lines, " ", quote, escape)
        ):
            return SPACES, "", ""
        return separator, quote, escape
    if _are_consistent(lines, "::", "", ""):
        return "::", "" if given.quote is None else given.quote, escape
    found = sniff(lines)
    if found is not None and (len(lines) == 1 or _are_consistent(lines, *found, share=0.5)):
        return found
    for separator in ("\t", ",", ";", "|", " ", SPACES, *_RARE_SEPARATORS):
        if separator == SPACES:
            if _are_consistent(lines, SPACES, "", ""):
                return SPACES, "", ""
        elif _are_consistent(lines, separator, quote, escape):
            return separator, quote, escape
    return None, quote, escape


def _separator_of_most(lines: list[str], quote: str, escape: str) -> str | None:
    """Return a usual separator that fits half of the lines: the others are malformed, and are named when they are read."""
    usual = ("::", "\t", ",", ";", "|", " ")
    return next((one for one in usual if _are_consistent(lines, one, quote, escape, share=0.5)), None)


_Sniff = Callable[[list[str]], tuple[str, str, str] | None]


def _sniffed(
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


def _splitter(separator: str, quote: str, escape: str) -> Callable[[str], list[str]]:
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


def _are_consistent(lines: Sequence[str], separator: str, quote: str, escape: str, share: float = 0.95) -> bool:
    """Whether a separator splits (nearly) all lines into the same number of columns, at least two."""
    split = _splitter(separator, quote, escape)
    counts: dict[int, int] = {}
    for line in lines:
        n_columns = len(split(line))
        counts[n_columns] = counts.get(n_columns, 0) + 1
    most = max(counts, key=lambda n_columns: counts[n_columns])
    return most > 1 and counts[most] >= share * len(lines)


def _are_lists(lines: Sequence[str]) -> bool:
    """Whether lines look like LightGCN's `user item item ...`: integers split by spaces, of unequal number."""
    rows = [line.split() for line in lines]
    if not any(" " in line.strip() for line in lines):  # integers between tabs are a table
        return False
    return any(len(row) > 2 for row in rows) and all(word.isdecimal() for row in rows for word in row)


def _usual_names(roles: Sequence[str]) -> set[str]:
    return {name for role in roles for name in COLUMN_NAMES[role]} | ({"id"} if "title" in roles else set())


def _names_columns(fields: Sequence[str], given: LogFormat, roles: Sequence[str]) -> bool:
    """Whether a line holds column names: one that the user named, or two usual ones."""
    fields = [field.strip() for field in fields]
    if any(name in fields for name in given.columns.values() if name is not None):
        return True
    usual = _usual_names(roles)
    return sum(plain_name(field) in usual for field in fields) >= 2


def _is_header(
    source: Source, given: LogFormat, roles: Sequence[str], rows: Sequence[Sequence[str]], line: int
) -> bool:
    """Decide whether the first row names the columns: by the names, then by what the other rows hold."""
    if given.header is not None:
        return given.header
    first = rows[0]
    if _names_columns(first, given, roles):
        return True
    named = [name for name in given.columns.values() if name is not None]
    if named:  # by their names, or by their positions
        return not all(name.isdecimal() and 1 <= int(name) <= len(first) for name in named)
    others = rows[1:]
    for place, field in enumerate(first):
        values = [row[place] for row in others if len(row) > place and row[place].strip()]
        is_value = _is_number(field) or looks_like_time(field)
        if values and not is_value and field.strip() and all(_is_number(one) or looks_like_time(one) for one in values):
            return True
    if any(_is_number(field) or looks_like_time(field) for field in first):
        return False
    shown = ", ".join(first)[:80]
    raise DataError(
        f"{source.name} line {line}: cannot tell whether {shown!r} names the columns or is the first row; "
        "say so with --header or --no-header, or name the columns with --user-col and --item-col"
    )


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text.strip()))
