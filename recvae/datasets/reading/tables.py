"""Files or a table in memory -> batches of the columns that are asked for; every row is accounted for.

DuckDB reads:

    user, item, title   texts, or integers and floats as they are; null where there is none
    rating, weight      float32; null where there is no number
    time                int64, see `times.sql_of`; null where it cannot be read

Text is read as text: what a value means is decided here and not by a sniffer. Lines are held against rows.
"""

import bisect
import contextlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import duckdb
import pyarrow as pa

from recvae.datasets.columns import LOG, Columns
from recvae.datasets.reading import lines, times
from recvae.datasets.reading.census import sha256_of_content, take_census
from recvae.datasets.reading.dialects import JSON_ARRAY, JSON_LINES, LISTS, TABLE
from recvae.datasets.reading.lines import FileReport
from recvae.datasets.reading.opening import Opener, damaged
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.scans import MEMORY, PARQUET, Scan, identifier
from recvae.datasets.reading.sources import Source, find_sources
from recvae.errors import DataError
from recvae.progress import Progress

_BATCH = 1 << 20  # rows
_SHOWN = 60  # letters of a value in a message
_LEAST_MEMORY = 150 << 20  # bytes with which DuckDB still reads any file
_USUAL_MEMORY = 1 << 30


class Sink(Protocol):
    """What takes the batches of a table."""

    def append(self, batch: pa.RecordBatch) -> None:
        """Take a batch, with the columns named by their roles."""
        ...

    def __len__(self) -> int:
        """Return the number of rows so far."""
        ...

    def truncate(self, n_rows: int) -> None:
        """Forget all rows but the first: a file is read again in another way."""
        ...


class _ReadAgainError(Exception):
    """Raised when a file must be read in another way."""

    def __init__(self, scan: Scan) -> None:
        super().__init__()
        self.scan = scan


class WrongValueError(Exception):
    """Raised by a sink about a value that cannot be used; the table tells where it stands.

    Parameters
    ----------
    role, expected : str
        The role of the column, and what should stand there.
    row : int
        The row, counted over all files.
    count : int
        How many such rows there are in the same batch.
    """

    def __init__(self, role: str, expected: str, row: int, count: int = 1) -> None:
        super().__init__(role)
        self.role = role
        self.expected = expected
        self.row = row
        self.count = count


class _LineEndsError(Exception):
    """Raised when DuckDB meets a line that ends in another way than the first."""


class Table:
    """Files or a table in memory, opened for reading; use it in a `with` statement.

    Parameters
    ----------
    given : sequence of (Path or str or Source), or pyarrow.Table
        Files, see `sources.find_sources`, which are read one after the other; or a table in memory.
    options : LogFormat, optional
        What the user says about them.
    roles : sequence of str
        The columns that are looked for: `columns.LOG`, `HISTORIES` or `TITLES`.
    max_memory : int, optional
        Bytes that the reader may take, besides what is made of the rows.
    name : str
        What messages call a table in memory.

    Raises
    ------
    UsageError, DataError
        If a file is missing, cannot be read, or lacks a column that is needed.
    """

    def __init__(
        self,
        given: "Sequence[Path | str | Source] | pa.Table",
        options: LogFormat | None = None,
        roles: Sequence[str] = LOG,
        *,
        max_memory: int | None = None,
        name: str = "the table",
    ) -> None:
        self.options = options or LogFormat()
        self.roles = tuple(role for role in roles if role not in self.options.without)
        self.reports: list[FileReport] = []
        self._stack = contextlib.ExitStack()
        try:
            scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="recvae-")))
            self._connection = self._stack.enter_context(_connect(scratch, max_memory))
            self._opener = Opener(self._connection, scratch, self.options, self.roles)
            if isinstance(given, pa.Table):
                self._scans = [self._opener.memory(given, name)]
            else:
                sources: list[Source] = []
                for one in given:
                    sources += [one] if isinstance(one, Source) else find_sources([one], scratch)
                self._scans = _alike([self._opener.file(source) for source in sources])
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files and remove what was copied."""
        self._stack.close()

    @property
    def columns(self) -> Columns:
        """The columns that are read, by their names in the first file."""
        return self._scans[0].columns

    @property
    def name(self) -> str:
        """What messages call all of it: the first file, and how many there are."""
        more = len(self._scans) - 1
        return self._scans[0].name + (f" and {more} more" if more else "")

    @property
    def time_form(self) -> str | None:
        """How times are written in the first file: "number" or the name of a form; None without times."""
        scan = self._scans[0]
        if scan.columns.time is None:
            return None
        kind = scan.kinds[scan.columns.time]
        if kind == "VARCHAR":
            return times.OWN if scan.time_format else scan.time_form
        return "dates" if kind == "DATE" or kind.startswith("TIMESTAMP") else times.NUMBER

    def read(self, sink: Sink, progress: Progress | None = None) -> None:
        """Pass all rows to a sink, in order; afterwards `reports` says what was found.

        Parameters
        ----------
        sink : Sink
            It takes the batches. If a file has to be read in another way, its rows are taken back.
        progress : Progress, optional
            Called with the number of rows so far.

        Raises
        ------
        DataError
            If a row is malformed, or lines and rows do not agree.
        """
        self.reports, self._starts = [], []
        for number, scan in enumerate(self._scans):
            start = len(sink)
            self._starts.append(start)
            while True:
                try:
                    report = self._read_file(scan, start, sink, progress)
                    break
                except _ReadAgainError as again:
                    sink.truncate(start)
                    scan = self._scans[number] = again.scan
            self.reports.append(report)

    def relation(self) -> str:
        """Return the SQL of all rows, with columns named by their roles, in the way in which `read` has read them."""
        return " UNION ALL ".join(
            f"SELECT {_selected(scan, self.roles)} FROM {scan.relation} WHERE {scan.kept}" for scan in self._scans
        )

    def execute(self, query: str) -> pa.RecordBatchReader:
        """Run SQL, e.g. over `relation`, and return its rows in batches."""
        return self._connection.sql(query).to_arrow_reader(_BATCH)

    def wrong_value(self, wrong: WrongValueError) -> DataError:
        """Return the error about a value that cannot be used: file, line, column and what it holds."""
        number = bisect.bisect_right(self._starts, wrong.row) - 1
        scan, row = self._scans[number], wrong.row - self._starts[number]
        is_text = scan.form in (TABLE, LISTS, JSON_LINES)
        place = f"line {lines.line_of(scan, row)}" if is_text else f"row {row + 1}"
        name = getattr(scan.columns, wrong.role)
        text = "" if scan.is_list else self._text(scan, row, name)
        holds = f"holds {text[:_SHOWN]!r}" if text.strip() else "is empty"
        if scan.form == MEMORY:
            return DataError(
                f"{scan.name} {place}: column '{name}' {holds}, expected {wrong.expected}; repair or remove it"
            )
        more = f" ({wrong.count - 1:,} more such rows nearby)" if wrong.count > 1 else ""
        switch = f", or leave it out with --no-{wrong.role}" if wrong.role in ("rating", "time") else ""
        return DataError(
            f"{scan.name} {place}: column '{name}' {holds}, expected {wrong.expected}; repair or remove the row, name "
            f"another column with --{wrong.role}-col{switch}{more}"
        )

    def _text(self, scan: Scan, row: int, name: str) -> str:
        """Return what a column holds in a row of a file, as it is written there."""
        query = f"SELECT {identifier(name)}::VARCHAR FROM {scan.relation} WHERE {scan.kept} LIMIT 1 OFFSET {row}"
        found = self._connection.execute(query).fetchall()
        return "" if not found or found[0][0] is None else found[0][0]

    def _read_file(self, scan: Scan, first: int, sink: Sink, progress: Progress | None) -> FileReport:
        report = FileReport(name=scan.name)
        with ThreadPoolExecutor(max_workers=1) as pool:  # checksums leave the other cores to the reader
            checksum = pool.submit(sha256_of_content, scan.source) if scan.source is not None else None
            if scan.form in (PARQUET, MEMORY, JSON_ARRAY):
                report.form = {"form": scan.form}
                self._pass_on(scan, first, sink, progress, report)
            else:
                self._read_text(scan, first, sink, progress, report, pool)
            report.sha256 = checksum.result() if checksum is not None else ""
        if not report.rows:
            raise DataError(f"{scan.name} has no rows; expected one row per event")
        return report

    def _read_text(
        self,
        scan: Scan,
        first: int,
        sink: Sink,
        progress: Progress | None,
        report: FileReport,
        pool: ThreadPoolExecutor,
    ) -> None:
        assert scan.source is not None and scan.dialect is not None and scan.path is not None
        packing = scan.source.packing()
        report.form = {**scan.dialect.to_json(), **({"packing": packing} if packing else {})}
        census = pool.submit(take_census, Source(scan.path, shown=scan.name))
        self._connection.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
        try:
            self._pass_on(scan, first, sink, progress, report)
        except _LineEndsError as error:
            if not census.result().is_mixed:
                raise damaged(scan.name, error) from error
            raise _ReadAgainError(self._opener.with_plain_ends(scan)) from error
        again = lines.account(self._connection, scan, self.options, report, census.result())
        if again is not None:
            raise _ReadAgainError(again)

    def _pass_on(self, scan: Scan, first: int, sink: Sink, progress: Progress | None, report: FileReport) -> None:
        """Pass the rows of a file to the sink, and count them."""
        selected = _selected(scan, self.roles) + (f", {scan.kept} AS kept" if scan.only else "")
        report.rows, report.skipped = 0, Counter()
        try:
            with self.execute(f"SELECT {selected} FROM {scan.relation}") as reader:
                for batch in reader:
                    report.rows += len(batch)
                    if scan.only:
                        kept = batch.filter(batch.column("kept"))
                        report.skipped[lines.OTHER] += len(batch) - len(kept)
                        batch = kept
                    sink.append(batch)
                    if progress is not None:
                        progress(first + report.rows, None, f"{first + report.rows:,} rows")
        except WrongValueError as wrong:
            raise self.wrong_value(wrong) from wrong
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if "state machine" in str(error):
                raise _LineEndsError(str(error)) from error
            raise damaged(scan.name, error) from error


def _connect(scratch: Path, max_memory: int | None) -> duckdb.DuckDBPyConnection:
    """Return a connection that keeps what does not fit in memory in `scratch`, and never loads an extension."""
    limit = _USUAL_MEMORY if max_memory is None else max(_LEAST_MEMORY, max_memory // 4)
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "temp_directory": str(scratch / "spill"),
            "memory_limit": f"{limit >> 20}MiB",
        }
    )
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return connection


def _selected(scan: Scan, roles: Sequence[str]) -> str:
    """Return the SQL of the columns, each named by its role."""
    present = [role for role in roles if getattr(scan.columns, role)]
    if scan.has_json_items and "weight" in roles:
        present = [*dict.fromkeys([*present, "weight"])]
    return ", ".join(f"{scan.select(role)} AS {role}" for role in present)


def _alike(found: list[Scan]) -> list[Scan]:
    """Return the scans of several files, if they have the same columns."""
    for scan in found[1:]:
        if set(scan.kinds) != set(found[0].kinds):
            raise DataError(
                f"{found[0].name} has the columns {', '.join(found[0].kinds)}, but {scan.name} has "
                f"{', '.join(scan.kinds)}; expected the files of one log; give only those"
            )
    return found
