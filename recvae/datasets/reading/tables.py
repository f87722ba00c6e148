"""Files or a table in memory -> batches of the columns that are asked for; every row is accounted for.

DuckDB reads:

    user, item, title   texts, or integers and floats as they are; null where there is none
    rating, weight      float32; null where there is no number
    time                int64, see `times.sql_of`; null where it cannot be read
    other 0, other 1    texts, float64 or lists of these: the columns without a role, where they are asked for

Text is read as text: what a value means is decided here and not by a sniffer. Lines are held against rows.
"""

import bisect
import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

import duckdb
import numpy as np
import pyarrow as pa

from recvae.datasets.columns import LOG, Columns
from recvae.datasets.reading import lines, times
from recvae.datasets.reading.census import sha256_of_content, take_census
from recvae.datasets.reading.connection import connect
from recvae.datasets.reading.dialects import JSON_ARRAY, TABLE
from recvae.datasets.reading.lines import FileReport
from recvae.datasets.reading.opening import MixedEndsError, Opener, damaged, unread
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.scans import MEMORY, PARQUET, Scan
from recvae.datasets.reading.several import in_one_form, open_all, others_of, selected, time_form_of, unused_of
from recvae.datasets.reading.sinks import Sink, WrongValueError
from recvae.datasets.reading.sources import EmptyFileError, Source, find_sources
from recvae.errors import DataError
from recvae.progress import Progress

_BATCH = 1 << 20  # rows


class _ReadAgainError(Exception):
    """Raised when a file must be read in another way."""

    def __init__(self, scan: Scan) -> None:
        super().__init__()
        self.scan = scan


class Table:
    """Files or a table in memory, opened for reading; use it in a `with` statement.

    Parameters
    ----------
    given : sequence of (Path or str or Source), or pyarrow.Table
        Files, see `sources.find_sources`, which are read one after the other; or a table in memory.
    options : LogFormat, optional
        What the user says about them.
    roles : sequence of str
        The columns that are looked for: `columns.LOG`, `HISTORIES`, `TITLES` or `FEATURES`.
    others : bool
        Whether all columns without a role are read too; see `others`.
    max_memory : int, optional
        Bytes that the reader may take, besides what is made of the rows.
    name : str
        What messages call a table in memory.

    Attributes
    ----------
    others : tuple of str
        The columns without a role: the first is `other 0` in the batches, and so on.
    unreadable : dict of str to str
        The DuckDB type of each column without a role that is neither a text, a number nor a list.
    empty : list of str
        The names of files without a row, where others have some.

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
        others: bool = False,
        max_memory: int | None = None,
        name: str = "the table",
    ) -> None:
        self.options = options or LogFormat()
        self.roles = tuple(role for role in roles if role not in self.options.without)
        self.reports: list[FileReport] = []
        self.empty: list[str] = []
        self._left_out: list[str] = []  # files without a row, which are not even opened
        self._stack = contextlib.ExitStack()
        try:
            scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="recvae-")))
            self._connection = self._stack.enter_context(connect(scratch, max_memory))
            self._opener = Opener(self._connection, scratch, self.options, self.roles, others)
            if isinstance(given, pa.Table):
                self._scans = in_one_form([self._opener.memory(given, name)])
            else:
                sources: list[Source] = []
                for number, one in enumerate(given):
                    (scratch / f"input-{number}").mkdir()
                    pipes = scratch / f"input-{number}"
                    sources += [one] if isinstance(one, Source) else find_sources([one], pipes)
                self._scans, self._left_out = open_all(self._opener, sources)
            self.others, self.unreadable = others_of(self._scans) if others else ((), {})
            self._n_rows = self._count()
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files and remove what was copied."""
        self._close()

    def _close(self) -> None:
        """Close the connection and forget it: DuckDB complains at exit about what an error's traceback still holds."""
        self._stack.close()
        for name in ("_connection", "_opener"):
            self.__dict__.pop(name, None)

    @property
    def columns(self) -> Columns:
        """The columns that are read, by their names in the first file."""
        return self._scans[0].columns

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of all columns of the first file."""
        return tuple(self._scans[0].kinds)

    @property
    def name(self) -> str:
        """What messages call all of it: the first file, and how many there are."""
        more = len(self._scans) - 1
        return self._scans[0].name + (f" and {more} more" if more else "")

    def headings(self, role: str) -> list[str]:
        """Return how the headers of text files name the column of a role."""
        named = (
            scan for scan in self._scans if scan.form == TABLE and scan.dialect is not None and scan.dialect.header
        )
        return [name for scan in named if (name := getattr(scan.columns, role)) and not name.isdecimal()]

    @property
    def unused(self) -> list[str]:
        """What is not read, in any of the files: columns without a role, and weights of items."""
        return list(dict.fromkeys(name for scan in self._scans for name in unused_of(scan)))

    @property
    def time_form(self) -> str | None:
        """How times are written in the first file: "number" or the name of a form; None without times."""
        return time_form_of(self._scans[0])

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
        self.reports, self._starts, self.empty = [], [], list(self._left_out)
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
        if not any(report.rows for report in self.reports):
            raise EmptyFileError(f"{self.name} has no rows; expected one row per event")
        self.empty += [report.name for report in self.reports if not report.rows and not report.skipped.total()]

    def relation(self) -> str:
        """Return the SQL of all rows, with columns named by their roles, in the way in which `read` has read them."""
        as_text = (
            len({(scan.kinds.get(scan.columns.user), scan.kinds.get(scan.columns.item)) for scan in self._scans}) > 1
        )
        weighted = self.weights_may_be_missing
        return " UNION ALL ".join(
            f"SELECT {selected(scan, self.roles, as_text, weighted)} FROM {scan.relation} WHERE {scan.kept}"
            for scan in self._scans
        )

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn errors of `execute`'s batches into a `DataError`."""
        try:
            yield
        except duckdb.Error as error:
            raise damaged(self.name, error) from error

    def check_units(self, moments: np.ndarray) -> None:
        """Refuse files of which one has its times in seconds and another one in milliseconds, as numbers (E,)."""
        latest = {}
        for number, scan in enumerate(self._scans):
            end = self._starts[number + 1] if number + 1 < len(self._starts) else len(moments)
            part = moments[self._starts[number] : end]
            if len(part):
                latest[scan.name] = int(part.max())
        times.check_units(latest)

    @property
    def has_lists_of_items(self) -> bool:
        """Whether a row may hold several items."""
        return any(scan.is_list for scan in self._scans)

    @property
    def weights_may_be_missing(self) -> bool:
        """Whether a row may have no weight: in JSON, items are listed with weights or without."""
        return any(scan.has_json_items for scan in self._scans)

    def run(self, query: str) -> None:
        """Run SQL that returns nothing, e.g. to keep the rows of `relation` where they can be sorted."""
        try:
            self._connection.execute(query)
        except duckdb.Error as error:
            raise damaged(self.name, error) from error

    def register(self, name: str, table: pa.Table) -> None:
        """Make a table in memory known to SQL."""
        self._connection.register(name, table)

    def names(self, relation: str) -> list[str]:
        """Return the names of the columns of a table that `run` has made."""
        return [row[0] for row in self._connection.execute(f"DESCRIBE {relation}").fetchall()]

    def execute(self, query: str) -> pa.RecordBatchReader:
        """Run SQL, e.g. over `relation`, and return its rows in batches."""
        return self._connection.sql(query).to_arrow_reader(_BATCH)

    def wrong_value(self, wrong: WrongValueError) -> DataError:
        """Return the error about a value that cannot be used: file, line, column and what it holds."""
        number = bisect.bisect_right(self._starts, wrong.row) - 1
        return wrong.described(self._scans[number], wrong.row - self._starts[number], self._connection)

    def _count(self) -> int | None:
        """Return the number of rows where it is known before reading: of Parquet and tables in memory."""
        if any(scan.form not in (PARQUET, MEMORY) for scan in self._scans):
            return None
        counts = (self._connection.execute(f"SELECT count(*) FROM {scan.relation}").fetchall() for scan in self._scans)
        return sum(rows[0][0] for rows in counts)

    def _read_file(self, scan: Scan, first: int, sink: Sink, progress: Progress | None) -> FileReport:
        report = FileReport(name=scan.name)
        stop = Event()
        with ThreadPoolExecutor(max_workers=1) as pool:  # checksums leave the other cores to the reader
            checksum = pool.submit(sha256_of_content, scan.source, stop) if scan.source is not None else None
            try:
                if scan.form in (PARQUET, MEMORY, JSON_ARRAY):
                    report.form = {"form": scan.form}
                    self._pass_on(scan, first, sink, progress, report)
                else:
                    self._read_text(scan, first, sink, progress, report, pool, stop)
                report.sha256 = checksum.result() if checksum is not None else ""
            finally:
                stop.set()  # an error does not wait for the rest of the file
        return report

    def _read_text(
        self,
        scan: Scan,
        first: int,
        sink: Sink,
        progress: Progress | None,
        report: FileReport,
        pool: ThreadPoolExecutor,
        stop: Event,
    ) -> None:
        assert scan.source is not None and scan.dialect is not None and scan.path is not None
        packing = scan.source.packing()
        report.form = {**scan.dialect.to_json(), **({"packing": packing} if packing else {})}
        census = pool.submit(take_census, Source(scan.path, shown=scan.name), stop)
        self._connection.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
        try:
            self._pass_on(scan, first, sink, progress, report)
        except MixedEndsError as error:
            if not census.result().is_mixed:
                raise
            raise _ReadAgainError(self._opener.with_plain_ends(scan)) from error
        again = lines.account(self._connection, scan, self.options, report, census.result())
        if again is not None:
            raise _ReadAgainError(again)

    def _pass_on(self, scan: Scan, first: int, sink: Sink, progress: Progress | None, report: FileReport) -> None:
        """Pass the rows of a file to the sink, and count them."""
        more = [f', {scan.other(name)} AS "other {place}"' for place, name in enumerate(self.others)]
        chosen = selected(scan, self.roles) + "".join(more) + (f", {scan.kept} AS kept" if scan.only else "")
        report.rows, report.skipped = 0, Counter()
        reader = None
        try:
            with self.execute(f"SELECT {chosen} FROM {scan.relation}") as reader:
                for batch in reader:
                    report.rows += len(batch)
                    if scan.only:
                        kept = batch.filter(batch.column("kept"))
                        report.skipped[lines.OTHER] += len(batch) - len(kept)
                        batch = kept
                    sink.append(batch)
                    if progress is not None:
                        progress(first + report.rows, self._n_rows, "rows")
        except WrongValueError as wrong:
            raise self.wrong_value(wrong) from wrong
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise unread(scan.name, error) from error
        finally:
            del reader  # an error that someone keeps would keep it too, and with it the connection
