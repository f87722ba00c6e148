"""How a text file is written: encoding, separator, quotes, header.

DuckDB's sniffer is asked; what it cannot know is added: `::`, columns aligned by spaces, comment lines, blank last
lines, and that a line that holds a usual name of a column is a header.
"""

import codecs
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from recvae.datasets.columns import what_rows_are
from recvae.datasets.reading.headers import is_header, names_columns
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.separators import (
    SPACES,
    Sniff,
    are_lists,
    rows_of,
    separator_of,
    separator_of_most,
    sniffed,
    splitter,
)
from recvae.datasets.reading.sources import EmptyFileError, Source, file_errors
from recvae.errors import DataError

HEAD_BYTES = 1 << 20
SAMPLE_LINES = 2000

COMMENTS = ("#", "%", "//")
LISTS, TABLE, JSON_LINES, JSON_ARRAY = "lists", "table", "JSON lines", "a JSON array"
_PYTHON = re.compile(r"\{\s*u?'[^']*'\s*:")
_EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?')  # the first line of some files for Excel
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
    nested : frozenset of str
        Columns of JSON that hold arrays or objects.
    has_weights : bool
        Whether items of JSON are objects of items and weights, in any row.
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
    nested: frozenset[str] = frozenset()
    has_weights: bool = False

    @property
    def is_named(self) -> bool:
        """Whether the columns have names: those of a header, or of the first file of the log."""
        return self.header or self.names != positions(len(self.names))

    def split(self, line: str) -> list[str]:
        """Split a line into values."""
        return splitter(self.separator, self.quote, self.escape)(line)

    def column(self, name: str) -> list[str]:
        """Return the first values of a column that are not empty."""
        place = self.names.index(name)
        return [row[place] for row in self.sample if len(row) > place and row[place].strip()]

    def of_objects(self, rows: Sequence[dict[str, Any]]) -> "Dialect":
        """Return the dialect of a file of JSON objects, of which these are the first."""
        names = tuple(dict.fromkeys(name for row in rows for name in row))
        sample = tuple(tuple("" if row.get(name) is None else str(row[name]) for name in names) for row in rows)
        nested = frozenset(name for row in rows for name in row if isinstance(row[name], list | dict))
        return replace(self, names=names, sample=sample, header=True, nested=nested)

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


def positions(n_columns: int) -> tuple[str, ...]:
    """Return the names of columns without a header: "1", "2", ..."""
    return tuple(str(place + 1) for place in range(n_columns))


def dialect_of(
    source: Source,
    given: LogFormat,
    roles: Sequence[str],
    connection: duckdb.DuckDBPyConnection,
    scratch: Path,
    first_names: Sequence[str] = (),
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
    first_names : sequence of str
        The columns that the header of the first file of the same log names: the other parts of a file that was cut
        have no header.

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
    with file_errors(source):
        text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(head).removeprefix("\ufeff")
    lines = re.split("\r\n|\n|\r", text)
    is_whole = len(head) < HEAD_BYTES
    if not is_whole and len(lines) > 1:
        del lines[-1]  # it may be cut
    elif not is_whole and not given.lists and not lines[0].lstrip().startswith("["):  # an array may be one line
        given = replace(given, lists=are_lists([lines[0].rpartition(" ")[0]]))
        if not given.lists:
            raise DataError(
                f"{source.name} line 1: got a line of more than 1 MB, expected one row per event; repair it"
            )
    if not any(line.strip() for line in lines):
        raise EmptyFileError.of(source.name)
    first = next(line.strip() for line in lines if line.strip())
    if given.lists:
        return Dialect(form=LISTS, encoding=encoding, separator=SPACES, quote="", escape="")
    if given.separator is None and _PYTHON.match(first):
        raise DataError(
            f"{source.name} line 1: got {first[:80]!r}, a dictionary of Python, expected JSON; write each line with "
            "json.dumps(ast.literal_eval(line))"
        )
    if given.separator is None and _begins_json(first):
        return _json_dialect(source, lines, first, encoding)
    sniff = partial(sniffed, given, connection, scratch)
    return _table_dialect(source, given, roles, lines[:SAMPLE_LINES], encoding, sniff, first_names)


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


def looks_like_lists(path: Path | str | Source) -> bool:
    """Whether a file may hold a user and his items in each line: integers with blanks between them, and no header.

    Columns of numbers look like this too. In a split made elsewhere they are lists.
    """
    source = path if isinstance(path, Source) else Source(Path(path))
    if not source.path.is_file() or source.is_parquet():
        return False
    with file_errors(source), source.open() as stream:
        head = stream.read(HEAD_BYTES)
    lines = head.decode("utf-8-sig", errors="replace").splitlines()[:SAMPLE_LINES]
    return are_lists([line for line in lines if line.strip()])


def _begins_json(first: str) -> bool:
    """Whether a first line begins JSON, and not a table with an id such as [x]."""
    return first in ("{", "[") or re.match(r'\{\s*(".*"\s*:|\})|\[\s*(\{|\[|"|\]|-?\d+\s*[,\]])', first) is not None


def _json_dialect(source: Source, lines: list[str], first: str, encoding: str) -> Dialect:
    if first[0] == "[":
        return Dialect(form=JSON_ARRAY, encoding=encoding)
    rows = []
    for line in lines[:SAMPLE_LINES]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
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
    source: Source,
    given: LogFormat,
    roles: Sequence[str],
    lines: list[str],
    encoding: str,
    sniff: Sniff,
    first_names: Sequence[str],
) -> Dialect:
    """Leave out blank lines and leading comments, let DuckDB sniff the rest, and decide about the header."""
    preamble, kept = _without_preamble(lines)
    texts = [line for _, line in kept]
    given = _with_told_separator(given, [line for _, line in preamble])
    separator, quote, escape = separator_of(texts, given, roles, sniff, source.name)
    if separator is None and are_lists(texts):
        return Dialect(form=LISTS, encoding=encoding, separator=SPACES, quote="", escape="")
    if separator is None:
        separator = separator_of_most(texts, quote, escape)
    if separator is None:
        raise DataError(
            f"{source.name} line {kept[0][0] + 1}: got one column: {texts[0][:80]!r}; "
            f"expected at least {_least(roles)}; give the right separator with --sep"
        )
    split = splitter(separator, quote, escape)
    if separator == SPACES and are_lists(texts) and len({len(split(text)) for text in texts}) > 1:
        return Dialect(form=LISTS, encoding=encoding, separator=SPACES, quote="", escape="")
    if preamble and names_columns(split(_bare(preamble[-1][1])), given, roles):  # "# user<tab>item" is a header
        place, line = preamble.pop()
        kept.insert(0, (place, _bare(line)))
    n_columns = len(split(texts[0]))
    while preamble and not _is_remark(preamble[-1][1]) and len(split(preamble[-1][1])) == n_columns:
        kept.insert(0, preamble.pop())  # an id that begins with a mark
    places, rows = zip(*rows_of([line for _, line in kept], separator, quote, escape), strict=True)
    if len(rows[0]) < 2:
        raise DataError(
            f"{source.name} line {kept[0][0] + 1}: got one column with separator {separator!r}: {kept[0][1][:80]!r}; "
            f"expected at least {_least(roles)}; give the right one with --sep"
        )
    may_go_on = len(first_names) == len(rows[0]) and not any(field.strip() in first_names for field in rows[0])
    named = given.without_names() if may_go_on else given
    header = is_header(source, named, roles, rows, kept[0][0] + 1, may_go_on=may_go_on)
    names = tuple(map(str.strip, rows[0])) if header else tuple(first_names) if may_go_on else positions(len(rows[0]))
    start = kept[0][0] if not header else kept[places[1]][0] if len(rows) > 1 else len(lines)
    if header and len(rows) == 1:
        raise EmptyFileError(f"{source.name} has a header but no rows; expected one row per event", names)
    blanks = sum(not line.strip() for line in lines[:start])
    read = Dialect(encoding=encoding, separator=separator, quote=quote, escape=escape, header=header, names=names)
    return replace(read, skip=start, comments=len(preamble), blanks=blanks, sample=tuple(rows[1 if header else 0 :]))


def _with_told_separator(given: LogFormat, preamble: list[str]) -> LogFormat:
    """Return what is known, with the separator that Excel writes above a table."""
    told = next((found[1] for line in preamble if (found := _EXCEL_SEPARATOR.fullmatch(line.strip()))), None)
    return given if told is None or given.separator is not None else replace(given, separator=told)


def _without_preamble(lines: list[str]) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Return the comments before the table, and the lines of the table, with their places; blank lines are left out."""
    present = [(place, line) for place, line in enumerate(lines) if line.strip()]
    is_remark = [line.lstrip().startswith(COMMENTS) or _EXCEL_SEPARATOR.fullmatch(line.strip()) for _, line in present]
    start = next((number for number, remark in enumerate(is_remark) if not remark), 0)  # 0: every line begins like one
    return present[:start], present[start:]


def _least(roles: Sequence[str]) -> str:
    """Return which columns a table must have."""
    if "title" in roles:
        return "a column of ids and one of titles"
    row = what_rows_are(roles)
    return f"a column of {row} ids and another one" if row else "a user and an item column"


def _bare(line: str) -> str:
    """Return a comment line without its mark."""
    return line.lstrip().lstrip("#%/").lstrip(" ")


def _is_remark(line: str) -> bool:
    """Whether a mark stands apart, as before a remark, not at the start of a word."""
    rest = line.lstrip()[1:]
    return not rest or not rest[0].isalnum()
