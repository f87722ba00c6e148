"""Lines held against rows: every line of a text file is a row, a part of one, or is counted with the reason why not.

A quote that nothing closes makes one row of many lines, and the rows are lost without an error. It is found here.
"""

import itertools
import shlex
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import duckdb

from recvae.datasets.reading.census import Census
from recvae.datasets.reading.dialects import COMMENTS, JSON_LINES, TABLE
from recvae.datasets.reading.line_numbers import line_at, line_of, texts_of
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.relations import LONGEST_LINE, lines_relation
from recvae.datasets.reading.scans import Scan
from recvae.datasets.reading.times import quoted
from recvae.display import plural
from recvae.errors import DataError

BLANK, COMMENT, MALFORMED, OTHER = "blank lines", "comment lines", "malformed rows", "rows of other kinds"

_SHOWN = 80  # letters of a bad line in a message
_UNQUOTED = "UNQUOTED VALUE"


@dataclass(kw_only=True)
class FileReport:
    """What was found in one file, and which of its lines are no rows.

    Parameters
    ----------
    name : str
        What messages call it.
    sha256 : str
        Checksum of the file on disk; empty for a table in memory.
    form : dict
        How it is written.
    rows : int
        Rows read.
    skipped : Counter of str
        Lines that are no rows, by reason.
    """

    name: str
    sha256: str = ""
    form: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


class _Refused(NamedTuple):
    """A line that DuckDB refused: its number (of the row, if values go over several lines), why, its text and place."""

    line: int
    reason: str
    text: str
    position: int | None = None

    @property
    def is_bad(self) -> bool:
        """Whether it should have been a row, and is not blank or a comment."""
        return bool(self.text.strip()) and not self.text.lstrip().startswith(COMMENTS)


def account(
    connection: duckdb.DuckDBPyConnection, scan: Scan, options: LogFormat, report: FileReport, census: Census
) -> Scan | None:
    """Account for every line of a file that has just been read.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        It has the table of refused lines.
    scan : Scan
        The file.
    options : LogFormat
        What the user says about it.
    report : FileReport
        With the number of rows; the lines that are no rows are added.
    census : Census
        The lines of the file.

    Returns
    -------
    Scan or None
        How to read the file instead, because lines were taken together that are rows of their own; None if all is well.

    Raises
    ------
    DataError
        If a line is malformed, unless such lines are to be skipped; or if lines and rows do not agree.
    """
    if census.n_zeros:
        raise DataError(
            f"{scan.name} holds {census.n_zeros:,} zero bytes, expected text; repair the file, or say --encoding utf-16"
        )
    refused = _refused(connection)
    bad = [one for one in refused if one.is_bad]
    if scan.form == JSON_LINES:
        bad += _invalid_json(connection, scan)
    end = "\n" if census.line_feeds else "\r"
    skips = options.on_bad_row == "skip"
    if scan.form == TABLE and options.quote is None and any(one.reason == _UNQUOTED for one in bad):
        other = _read_otherwise(connection, scan, end, _n_lines(bad, end) - 1 if skips else 0)
        if other is not None:
            return other
    if bad and not skips:
        raise DataError(_message(scan, bad))
    dialect = scan.dialect
    assert dialect is not None
    report.skipped[MALFORMED] += _n_lines(bad, end)  # what an open quote has swallowed is lost line by line
    report.skipped[COMMENT] += dialect.comments + sum(one.text.lstrip().startswith(COMMENTS) for one in refused)
    n_refused = _n_lines([one for one in refused if one.text.strip()], end)
    blank_inside = 0
    if scan.form == TABLE:
        rest = census.lines - dialect.skip - report.rows - n_refused
        if rest and dialect.quote:
            inside, blank_inside, taken_together = _lines_inside(connection, scan, end)
            if taken_together is not None and options.quote is None:
                most = _n_lines(bad, end) if skips else 0
                return _apart(connection, scan, taken_together, end, most)
            rest -= inside
    else:
        assert scan.path is not None
        n_read = connection.execute(f"SELECT count(*) FROM {lines_relation(scan.path)}").fetchall()[0][0]
        rest = census.lines - n_read - n_refused
    if rest and not 0 < rest <= _blank_lines(scan, dialect.skip) - blank_inside:
        raise DataError(
            f"{scan.name} has {census.lines:,} lines, but {report.rows:,} rows were read and {abs(rest):,} lines "
            "cannot be accounted for; say how the file is written with --sep and --quote, or convert it"
        )
    report.skipped[BLANK] += dialect.blanks + rest
    return None


def _n_lines(refused: list[_Refused], end: str) -> int:
    """Return how many lines were refused: an open quote makes one row of many."""
    return sum(1 + one.text.count(end) for one in refused)


def _refused(connection: duckdb.DuckDBPyConnection) -> list[_Refused]:
    """Return the lines that DuckDB refused, each once, in order."""
    try:
        found = connection.execute(
            "SELECT line, any_value(error_type::VARCHAR), any_value(csv_line), min(line_byte_position) "
            "FROM reject_errors GROUP BY line ORDER BY line"
        ).fetchall()
    except duckdb.CatalogException:  # nothing was refused
        return []
    # Where lines end in CRLF, the text begins with the line feed of the line before.
    return [_Refused(line, reason, (text or "").strip("\r\n"), position) for line, reason, text, position in found]


def _invalid_json(connection: duckdb.DuckDBPyConnection, scan: Scan) -> list[_Refused]:
    """Return the lines that DuckDB did not take for JSON, all with the number and the text of the first."""
    assert scan.path is not None
    query = f"SELECT count(*), first(line) FROM {lines_relation(scan.path)} WHERE NOT json_valid(line)"
    n_invalid, first = connection.execute(query).fetchall()[0]
    if not n_invalid:
        return []
    lines = enumerate(texts_of(scan), start=1)
    number = next((number for number, text in lines if text.strip() == first.strip()), 1)
    return [_Refused(number, "JSON", first.strip())] * n_invalid


def _message(scan: Scan, bad: list[_Refused]) -> str:
    first = bad[0]
    dialect = scan.dialect
    assert dialect is not None
    shown = repr(first.text[:_SHOWN])
    are_titles = scan.columns.title is not None
    is_log = scan.columns.are_of_a_log  # whose options are not those of other tables
    more = f" ({len(bad) - 1:,} more such rows)" if len(bad) > 1 else ""
    repair = "repair the line" + (", or leave such rows out with --on-bad-row skip" if is_log else "")
    assert scan.path is not None
    line = first.line if first.position is None or not dialect.quote else line_at(scan.path, first.position)
    where = f"{scan.name} line {line}"
    if first.reason == "JSON":
        return f"{where}: got {shown}, which is not valid JSON; {repair}{more}"
    if first.reason == _UNQUOTED:
        repair = repair.replace(", or", ", or say --quote none, or")
        return f"{where}: got a quote that nothing closes: {shown}; {repair}{more}"
    if first.reason == "INVALID ENCODING":
        shown = repr(_bytes_of(scan, line)[:_SHOWN])
        repair = repair.replace("repair the line", "say what it is, e.g. --encoding latin-1")
        if not is_log:
            repair = "convert the file first"
        if not is_log and not are_titles and scan.source is not None and scan.source.packing() is None:
            repair += f", e.g. iconv -f latin1 -t utf-8 {shlex.quote(scan.name)} > utf8.txt"
        return f"{where}: not UTF-8 text: {shown}; {repair}{more}"
    if first.reason.startswith("LINE SIZE"):
        most = "2 MB" if scan.form == TABLE else f"{LONGEST_LINE >> 20} MB"
        return f"{where}: the line is longer than {most}; {repair}{more}"
    n_columns = len(dialect.split(first.text))
    repair = f"{repair}; put a title that holds the separator in quotes" if are_titles else repair
    found = f"got {plural(n_columns, 'column')}, expected {len(dialect.names)} as in the first line: {shown}"
    return f"{where}: {found}; {repair}{more}"


def _bytes_of(scan: Scan, number: int) -> bytes:
    """Return a line as it lies in the file."""
    text = next(itertools.islice(texts_of(scan, "surrogateescape"), number - 1, None), "")
    return text.strip("\r\n").encode(errors="surrogateescape")


def _read_otherwise(connection: duckdb.DuckDBPyConnection, scan: Scan, end: str, most: int) -> Scan | None:
    """Return the scan with a backslash before quotes, or with quotes taken for letters.

    The way with fewer refused lines is taken, or none if these are more than `most`.
    """
    dialect = scan.dialect
    assert dialect is not None
    others = [replace(scan, dialect=replace(dialect, escape="\\")), _with_quotes_as_letters(scan)]
    ways = [(_n_bad(connection, other, end), other) for other in others if other.dialect != dialect]
    n_bad, best = min(ways, key=lambda way: way[0])
    return best if n_bad <= most else None


def _with_quotes_as_letters(scan: Scan) -> Scan:
    assert scan.dialect is not None
    return replace(scan, dialect=replace(scan.dialect, quote="", escape=""), unquoted=scan.dialect.quote)


def _n_bad(connection: duckdb.DuckDBPyConnection, scan: Scan, end: str) -> int:
    """Return how many lines are refused when a file is read in this way."""
    connection.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
    columns = f"count({_column(scan, 0)})"
    connection.execute(f"SELECT {columns} FROM {scan.relation}").fetchall()
    return _n_lines([one for one in _refused(connection) if one.is_bad], end)


def _apart(connection: duckdb.DuckDBPyConnection, scan: Scan, row: int, end: str, most: int) -> Scan:
    """Return the scan with quotes taken for letters, if at most so many lines are no rows then; else name the line."""
    other = _with_quotes_as_letters(scan)
    if _n_bad(connection, other, end) <= most:
        return other
    number = line_of(replace(scan, only=()), row, connection)
    raise DataError(
        f"{scan.name} line {number}: a quote opens here and closes on a later line, but each of these "
        "lines looks like a row of its own; repair the line, or say --quote none (quotes are letters) or --quote '\"' "
        "(the lines are one row)"
    )


def _column(scan: Scan, place: int) -> str:
    return scan.column(list(scan.kinds)[place])


def _lines_inside(connection: duckdb.DuckDBPyConnection, scan: Scan, end: str) -> tuple[int, int, int | None]:
    """Count line ends and blank lines in quotes; also return the first row whose lines look like rows of their own.

    They do if each of them, with quotes taken for letters, has as many columns as a row, and, where users are integers,
    an integer in the place of the user. Without integers, a text may look so by chance: half of such rows must.
    """
    dialect = scan.dialect
    assert dialect is not None
    n_columns = len(dialect.names)
    separator, line_end = quoted(dialect.separator), f"chr({ord(end)})"

    def separators(text: str) -> str:
        return f"((length({text}) - length(replace({text}, {separator}, ''))) // {len(dialect.separator)})"

    ids = (name for name in scan.columns.ids if name in dialect.names)  # the others are those of folders
    user = dialect.names.index(next(ids, dialect.names[0]))
    users = dialect.column(dialect.names[user])
    are_integers = bool(users) and all(text.strip(' "').lstrip("-").isdecimal() for text in users)
    counts, blanks, looks = [], [], []
    for place in range(n_columns):
        column = f"coalesce({_column(scan, place)}, '')"
        pieces = f"string_split({column}, {line_end})"
        counts.append(f"(length({column}) - length(replace({column}, {line_end}, '')))")
        blanks.append(f"len(list_filter({pieces}[2:-2], lambda one: trim(one) = ''))")
        conditions = [
            f"contains({column}, {line_end})",
            f"{separators(f'{pieces}[1]')} = {n_columns - 1 - place}",
            f"{separators(f'{pieces}[-1]')} = {place}",
            f"len(list_filter({pieces}[2:-2], lambda one: {separators('one')} <> {n_columns - 1})) = 0",
        ]
        if are_integers:
            integer = "'\\s*\"?-?\\d+\"?\\s*'"
            field = f"string_split(one, {separator})[{user + 1}]"
            checked = f"{pieces}[2:]" if user <= place else f"{pieces}[2:-2]"
            is_other = f"NOT coalesce(regexp_full_match({field}, {integer}), false)"
            conditions.append(f"len(list_filter({checked}, lambda one: {is_other})) = 0")
        looks.append(f"({' AND '.join(conditions)})")
    inner = (
        f"SELECT {' + '.join(counts)} AS inside, {' + '.join(blanks)} AS blank, {' OR '.join(looks)} AS look, "
        "row_number() OVER () - 1 AS place"
    )
    query = (
        "SELECT sum(inside), sum(blank), count(*) FILTER (inside > 0), count(*) FILTER (look), "
        f"min(place) FILTER (look) FROM ({inner} FROM {scan.relation})"
    )
    inside, blank, n_multiple, n_looking, first = connection.execute(query).fetchall()[0]
    is_suspect = n_looking and (are_integers or 2 * n_looking > n_multiple)
    return int(inside or 0), int(blank or 0), first if is_suspect else None


def _blank_lines(scan: Scan, skip: int) -> int:
    """Return the number of blank lines after the first `skip` lines."""
    return sum(not text.strip() for text in itertools.islice(texts_of(scan), skip, None))
