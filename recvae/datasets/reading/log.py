"""A log in files or in memory -> columns of codes, ratings and times, and a report of what was read.

Letters in shape comments: E events.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recvae.compute.memory import human_bytes
from recvae.datasets.columns import COLUMN_NAMES, LOG, plain_name
from recvae.datasets.reading.growing import Growing
from recvae.datasets.reading.id_column import MISSING, IdColumn, Ids
from recvae.datasets.reading.lines import OTHER
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.ratings import RatingScale
from recvae.datasets.reading.report import Reading
from recvae.datasets.reading.sinks import WrongValueError
from recvae.datasets.reading.sources import Source
from recvae.datasets.reading.tables import Table
from recvae.datasets.reading.times import NUMBERS, TimeColumn, TimeSpan
from recvae.datasets.reading.twins import twins_of
from recvae.errors import DataError, MemoryLimitError
from recvae.interactions import chosen_of
from recvae.progress import Progress

_ROW_BYTES = 20  # of the ids, and of what filters and splits make of them
_OWN_BYTES = 250_000_000  # of Python, its libraries and the reader's buffers


@dataclass(frozen=True, kw_only=True)
class LogColumns:
    """A log as columns.

    Parameters
    ----------
    users, items : ndarray of shape (n_events,), int32
        Positions in the ids.
    user_ids, item_ids : ndarray, int64 or object (str)
        The distinct ids, ascending.
    ratings : ndarray of shape (n_events,), float32, optional
        Ratings, if the log has any.
    timestamps : ndarray of shape (n_events,), int64, optional
        Seconds since 1970, if the log has times.
    reading : Reading
        What was read.
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    ratings: np.ndarray | None
    timestamps: np.ndarray | None
    reading: Reading


def read_columns(
    given: "Sequence[Path | str | Source] | pa.Table",
    options: LogFormat | None = None,
    *,
    progress: Progress | None = None,
    max_memory: int | None = None,
    name: str = "the table",
) -> LogColumns:
    """Read a log.

    Parameters
    ----------
    given : sequence of (Path or str or Source), or pyarrow.Table
        Files, or a table in memory.
    options : LogFormat, optional
        What is known about them; the rest is guessed.
    progress : Progress, optional
        Called with the number of rows so far.
    max_memory : int, optional
        Bytes that reading, filtering and splitting may take.
    name : str
        What messages call a table in memory.

    Returns
    -------
    LogColumns
        The events in the order of the rows. Rows without a user or an item are left out and counted.

    Raises
    ------
    UsageError, DataError
        If the log cannot be used; the message names file, line and column.
    MemoryLimitError
        If it needs more memory than is allowed.
    """
    options = options or LogFormat()
    with Table(given, options, LOG, max_memory=max_memory, name=name) as table:
        sink = _LogSink(table, options, max_memory)
        table.read(sink, progress)
        return sink.finish()


class _LogSink:
    """Collects the rows of a log."""

    def __init__(self, table: Table, options: LogFormat, max_memory: int | None) -> None:
        columns = table.columns
        self._table = table
        self._columns = columns
        where = table.name
        self._ids = {
            role: IdColumn(
                f"{where}: the {role} column '{getattr(columns, role)}'",
                (*options.null, *table.headings(role)),  # a header once more, as in files put together
                options.kept,
            )
            for role in ("user", "item")
        }
        self._ratings = Growing(np.dtype(np.float32)) if columns.rating else None
        self._max_memory = max_memory
        self._skips = options.on_bad_row == "skip"
        self._unreadable: dict[int, Counter[str]] = {}  # of each file
        form = table.time_form
        self._times = None if form is None else TimeColumn(form in NUMBERS, form)

    def __len__(self) -> int:
        return len(self._ids["user"])

    def append(self, batch: pa.RecordBatch) -> None:
        start = len(self)
        self._check_memory(start + len(batch))
        if self._skips:
            batch = self._readable(batch)
        for role, column in self._ids.items():
            column.append(batch.column(role))
        if self._ratings is not None:
            ratings = batch.column("rating").to_numpy(zero_copy_only=False)  # (E,), null as NaN
            wrong = ~np.isfinite(ratings)
            if wrong.any():
                raise WrongValueError("rating", "a number", start + int(wrong.argmax()), int(wrong.sum()))
            self._ratings.append(ratings)
        if self._times is not None:
            moments = batch.column("time")
            missing = pc.call_function("is_null", [moments]).to_numpy(zero_copy_only=False)
            if missing.any():
                expected = f"a time as in the first rows ({self._table.time_form})"
                raise WrongValueError("time", expected, start + int(missing.argmax()), int(missing.sum()))
            self._times.append(moments.to_numpy(zero_copy_only=False))

    def _readable(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows whose rating and time can be read, and count the others."""
        kept = np.ones(len(batch), dtype=bool)
        counts = self._unreadable.setdefault(len(self._table.reports), Counter())
        if self._ratings is not None:
            kept = np.isfinite(batch.column("rating").to_numpy(zero_copy_only=False))
            counts["rows without a readable rating"] += int(np.count_nonzero(~kept))
        if self._times is not None:
            moments = pc.call_function("coalesce", [batch.column("time"), pa.scalar(-1, pa.int64())])
            is_time = moments.to_numpy(zero_copy_only=False) >= 0  # a time before 1970 is none either
            counts["rows without a readable time"] += int(np.count_nonzero(kept & ~is_time))
            kept &= is_time
        return batch if kept.all() else batch.filter(pa.array(kept))

    def _check_memory(self, n_rows: int) -> None:
        """Refuse what filters and splits would need more memory for than is allowed."""
        per_row = _ROW_BYTES + 4 * (self._ratings is not None) + 8 * (self._times is not None)
        needed = _OWN_BYTES + n_rows * per_row
        if self._max_memory is not None and needed > self._max_memory:
            raise MemoryLimitError(
                f"{self._table.name}: {n_rows:,} rows or more need {human_bytes(needed)} of memory, "
                f"{human_bytes(self._max_memory)} is allowed by --max-memory; allow more, or leave out what is not "
                "needed with --no-time or --no-rating"
            )

    def truncate(self, n_rows: int) -> None:
        self._unreadable.pop(len(self._table.reports), None)
        for column in self._ids.values():
            column.truncate(n_rows)
        for column in (self._ratings, self._times):
            if column is not None:
                column.truncate(n_rows)

    def finish(self) -> LogColumns:
        found = {"user": self._ids["user"].finish()}
        users = found["user"].codes
        found["item"] = self._ids["item"].finish(users != MISSING if found["user"].missing else None)
        items = found["item"].codes
        self._refuse_header(users, items, found)
        ratings = None if self._ratings is None else self._ratings.finish()
        timestamps = span = None
        if self._times is not None:
            try:
                timestamps, span, wrong = self._times.finish(self._table.check_units)
            except DataError as error:
                raise DataError(f"{self._table.name}: {error}") from error
            if wrong is not None:
                raise self._table.wrong_value(WrongValueError("time", "a time since 1970", wrong))
        if any(one.missing for one in found.values()):
            kept = (users != MISSING) & (items != MISSING)
            users, found["user"] = _without_unused(chosen_of(users, kept), found["user"])
            items, found["item"] = _without_unused(chosen_of(items, kept), found["item"])
            ratings = None if ratings is None else chosen_of(ratings, kept)
            timestamps = None if timestamps is None else chosen_of(timestamps, kept)
        if not len(users):
            marks = {mark for one in found.values() for mark in one.missing}
            raise DataError(
                f"{self._table.name}: no row has both a user and an item ({', '.join(sorted(marks)) or 'empty'}); "
                "choose other columns with --user-col and --item-col"
            )
        scale = None if ratings is None else RatingScale.of(ratings)
        return LogColumns(
            users=users,
            items=items,
            user_ids=found["user"].ids,
            item_ids=found["item"].ids,
            ratings=ratings,
            timestamps=timestamps,
            reading=self._reading(len(users), found, span, scale),
        )

    def _refuse_header(self, users: np.ndarray, items: np.ndarray, found: dict[str, Ids]) -> None:
        """Refuse a row of names: a second header, after which the columns may be in another order."""
        names = [*COLUMN_NAMES["user"], *COLUMN_NAMES["item"], *map(plain_name, self._columns.ids)]
        is_name = [one.ids_named(names) for one in found.values()]
        if all(mask.any() for mask in is_name):
            rows = np.flatnonzero(np.append(is_name[0], False)[users] & np.append(is_name[1], False)[items])
            if (
                len(rows) and sum(self._unreadable.values(), Counter()).total()
            ):  # rows are counted without those left out
                user, item = found["user"].ids[users[rows[0]]], found["item"].ids[items[rows[0]]]
                raise DataError(
                    f"{self._table.name}: a row holds {str(user)!r} as the user and {str(item)!r} as the item, "
                    "expected ids, not the names of columns; repair or remove the row, or name other columns with "
                    "--user-col and --item-col"
                )
            if len(rows):
                raise self._table.wrong_value(WrongValueError("user", "an id, not the name of a column", int(rows[0])))

    def _reading(
        self, n_events: int, found: dict[str, Ids], span: TimeSpan | None, scale: RatingScale | None
    ) -> Reading:
        reports = self._table.reports
        n_rows = sum(report.rows for report in reports)
        dropped = {
            OTHER: sum(report.skipped.pop(OTHER, 0) for report in reports),
            **sum(self._unreadable.values(), Counter()),
        }
        for role, one in found.items():
            dropped[f"rows without {'an' if role == 'item' else 'a'} {role} id"] = sum(one.missing.values())
        if n_rows != n_events + sum(dropped.values()):
            raise DataError(
                f"{self._table.name}: {n_rows:,} rows were read, but {n_events:,} events and {sum(dropped.values()):,} "
                "rows left out are accounted for; report this with the first lines of the file"
            )
        return Reading(
            files=reports,
            columns=self._columns,
            rows=n_rows,
            events=n_events,
            dropped={reason: count for reason, count in dropped.items() if count},
            marks={role: one.missing for role, one in found.items() if one.missing},
            doubtful={role: one.doubtful for role, one in found.items() if one.doubtful},
            alike={role: twins for role, one in found.items() if (twins := twins_of(one.ids)) is not None},
            times=span,
            ratings=scale,
            empty=self._table.empty,
            unused=self._table.unused,
        )


def _without_unused(codes: np.ndarray, ids: Ids) -> tuple[np.ndarray, Ids]:
    """Return codes (E,) and ids without those of which no row is left: such a user had no item, or an item no user."""
    is_used = np.zeros(len(ids.ids), dtype=bool)
    is_used[codes] = True
    new_code = (np.cumsum(is_used) - 1).astype(np.int32)
    return new_code[codes], replace(ids, ids=ids.ids[is_used])
