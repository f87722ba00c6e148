"""A log -> coded events, and a report of what was read, by the rules of files; rows stay on the executors.

The driver holds the distinct ids, and a few numbers for each file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recvae.datasets.columns import COLUMN_NAMES, plain_name
from recvae.datasets.reading import times
from recvae.datasets.reading.lines import FileReport
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.ratings import FEW, RatingScale
from recvae.datasets.reading.report import Reading
from recvae.datasets.reading.times import TimeColumn, TimeSpan
from recvae.datasets.reading.twins import twins_of
from recvae.errors import DataError, UsageError
from recvae.spark.footers import lacks
from recvae.spark.frames import arrays_of
from recvae.spark.keys import Keys, keys_of
from recvae.spark.patterns import shown_file
from recvae.spark.tables import Rows, folder_columns

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PARQUET, TABLE = "Parquet", "a table of Spark"
NO_RATING, NO_TIME = "rows without a readable rating", "rows without a readable time"

_IS_RATING = "coalesce(rating > CAST('-Infinity' AS FLOAT) AND rating < CAST('Infinity' AS FLOAT), false)"
_IS_TIME = "coalesce(moment >= 0, false)"
_CODE_BITS = 31


@dataclass(frozen=True, kw_only=True)
class CodedLog:
    """A log as events on the executors.

    Parameters
    ----------
    events : DataFrame
        user_code, item_code (int), place (bigint), and where the log has them rating (float) and moment (bigint).
    user_ids, item_ids : ndarray of shape (n_users,) and (n_items,), int64 or object (str)
        The distinct ids, ascending.
    scale : RatingScale, optional
        The scale of the ratings.
    reading : Reading
        What was read.
    """

    events: "DataFrame"
    user_ids: np.ndarray
    item_ids: np.ndarray
    scale: RatingScale | None
    reading: Reading

    @property
    def has_times(self) -> bool:
        """Whether the events have times."""
        return "moment" in self.events.columns


def read_log(rows: Rows, options: LogFormat) -> CodedLog:
    """Read a log.

    Parameters
    ----------
    rows : Rows
        The rows.
    options : LogFormat
        What is known about them: `null`, `kept` and `on_bad_row` are used here.

    Returns
    -------
    CodedLog
        Its events are kept by the executors until `events.unpersist()`.

    Raises
    ------
    DataError
        If the log cannot be used.
    """
    skips = options.on_bad_row == "skip"
    counted = _count(rows, skips)
    span = _span(rows, counted)
    files = [(int(one["argument"]), str(one["file"])) for one in counted] if rows.are_files else []
    placed = rows.with_places(files) if rows.are_files else rows
    frame = placed.frame
    if skips:
        tests = [test for name, test in (("rating", _IS_RATING), ("moment", _IS_TIME)) if name in frame.columns]
        frame = frame.where(" AND ".join(tests)) if tests else frame
    users = keys_of(frame, "user", rows.name, str(rows.columns.user), options)
    with_user = users.coded(frame, "user")
    items = keys_of(with_user if users.has_missing else frame, "item", rows.name, rows.columns.item, options)
    events = _ordered(items.coded(with_user, "item"), span).persist()
    n_events = events.count()
    if not n_events:
        marks = {mark for one in (users, items) for mark in one.ids.missing}
        raise DataError(
            f"{rows.name}: no row has both a user and an item ({', '.join(sorted(marks)) or 'empty'}); "
            "choose other columns with --user-col and --item-col"
        )
    _refuse_header(events, rows, {"user": users, "item": items})
    scale = _scale(events) if "rating" in events.columns else None
    reading = _reading(placed, counted, {"user": users, "item": items}, span, scale, n_events)
    return CodedLog(events=events, user_ids=users.ids.ids, item_ids=items.ids.ids, scale=scale, reading=reading)


def _count(rows: Rows, skips: bool) -> list[dict[str, Any]]:
    """Count the rows of each file and those whose rating or time cannot be read, and look for the bounds of times.

    Raises
    ------
    DataError
        If there is no row, a rating or time cannot be read and rows are not skipped, or a file lacks a column.
    """
    has_rating, has_time = ("rating" in rows.frame.columns), ("moment" in rows.frame.columns)
    rated = _IS_RATING if has_rating else "true"
    usable = f"{rated} AND {_IS_TIME if has_time else 'true'}"
    asked = [
        "count(*) AS n_rows",
        "count(user) AS n_users",
        "count(item) AS n_items",
        f"count_if(NOT {rated}) AS no_rating",
    ]
    asked += [f"count({role}) AS n_{role}s" for role, there in (("rating", has_rating), ("moment", has_time)) if there]
    if has_time:
        there = "moment" if not skips else f"CASE WHEN {usable} THEN moment END"
        asked += [
            f"count_if({rated} AND NOT {_IS_TIME}) AS no_time",
            "count_if(moment IS NULL) AS null_time",
            f"min({there}) AS first",
            f"max({there}) AS last",
            f"min(CASE WHEN {there} > 0 THEN {there} END) AS first_after_0",
        ]
    from pyspark.sql import functions

    groups = ["argument", "file"] if rows.are_files else []
    found = rows.frame.groupBy(*groups).agg(*(functions.expr(one) for one in asked)).toArrow().to_pylist()
    if not sum(one["n_rows"] for one in found):
        raise DataError(f"{rows.name} has no rows; expected one row per event")
    seen: dict[str, str] = {}
    for one in found if rows.are_files else ():
        _refuse_file(rows, one, seen)
    if not skips and any(one["no_rating"] for one in found):
        raise _wrong(rows, "rating", f"NOT {_IS_RATING}", "a number")
    if not skips and any(one.get("null_time") for one in found):
        raise _wrong(rows, "time", "moment IS NULL", f"a time as in the first rows ({rows.time_form})")
    return found


def _refuse_file(rows: Rows, one: Mapping[str, Any], seen: dict[str, str]) -> None:
    """Refuse a file that is found twice, also by a link, or that lacks a column, which Spark fills with nothing."""
    name = shown_file(one["file"])
    place = str(Path(name).resolve()) if one["file"].startswith("file:") else name  # Spark follows links, too
    if place in seen:
        raise UsageError(f"got {name} twice (also as {seen[place]}); give each file once")
    seen[place] = name
    for role, name_of in (("user", "user"), ("item", "item"), ("rating", "rating"), ("time", "moment")):
        column = str(getattr(rows.columns, role))
        if one.get(f"n_{name_of}s") == 0 and not _has(rows, one["file"], column):
            way_out = f", or leave it out with --no-{role}" if role in ("rating", "time") else ""
            raise DataError(
                f"{name}: column '{column}' has no value in {one['n_rows']:,} rows, expected the "
                f"files of one log; give only those{way_out}"
            )


def _has(rows: Rows, file: str, column: str) -> bool:
    """Whether a file has a column, or its folder: then its cells are empty."""
    of_folders = {name.casefold() for name in folder_columns([file])}
    return column.casefold() in of_folders or not lacks(rows.spark, file, column)


def _wrong(rows: Rows, role: str, test: str, expected: str) -> DataError:
    """Return the error about a rating or time that cannot be used: where it stands, of files, and what to do."""
    column = getattr(rows.columns, role)
    where, found = rows.name, rows.frame.where(test)
    value = "rating" if role == "rating" else "moment"
    if rows.are_files:
        files = found.select("argument", "file").distinct().toArrow().to_pylist()
        argument, name = rows.ordered((one["argument"], one["file"]) for one in files)[0]
        found = found.where((found["argument"] == argument) & (found["file"] == name)).orderBy("row")
        first = found.select(value, "row").first()
        assert first is not None
        where = f"{shown_file(name)} row {first['row'] + 1}"
    else:
        first = found.select(value).first()
        assert first is not None
    holds = "is empty or no such value" if first[0] is None else f"holds {first[0]}"
    return DataError(
        f"{where}: column '{column}' {holds}, expected {expected}; repair or remove the row, name another column with "
        f"--{role}-col, or leave it out with --no-{role}, or such rows with --on-bad-row skip"
    )


def _span(rows: Rows, counted: list[dict[str, Any]]) -> TimeSpan | None:
    """Decide the unit of the times from their bounds, as `TimeColumn` does from all of them."""
    if rows.time_form is None:
        return None
    column = TimeColumn(rows.time_form in times.NUMBERS, rows.time_form)
    bounds = [one[name] for one in counted for name in ("first", "first_after_0", "last") if one[name] is not None]
    if rows.time_form in times.NUMBERS and times.form_of_integers([str(one) for one in bounds]) == times.COMPACT:
        raise DataError(
            f"{rows.name}: the times are numbers such as {bounds[0]}, which look like days, expected dates, or seconds "
            "to nanoseconds since 1970; convert them, e.g. with to_date(string(time), 'yyyyMMdd'), or leave them out "
            "with --no-time"
        )
    column.append(np.array(bounds, dtype=np.int64))
    latest = (
        {shown_file(one["file"]): one["last"] for one in counted if one["last"] is not None} if rows.are_files else {}
    )
    try:
        _, span, wrong = column.finish(lambda _: times.check_units(latest))
    except DataError as error:
        raise DataError(f"{rows.name}: {error}") from error
    if wrong is not None:
        raise _wrong(rows, "time", "moment < 0", "a time since 1970")
    return span


def _ordered(events: "DataFrame", span: TimeSpan | None) -> "DataFrame":
    """Return events with their place and their time in seconds."""
    chosen = ["user_code", "item_code"]
    place = f"shiftleft(CAST(user_code AS BIGINT), {_CODE_BITS}) + item_code AS place"
    chosen.append("place" if "place" in events.columns else place)
    if "rating" in events.columns:
        chosen.append("rating")
    if span is not None:
        divisor = next((number for name, number, _ in times.UNITS if name == span.form), 1)
        chosen.append(f"moment div {divisor} AS moment")
    return events.selectExpr(*chosen)


def _refuse_header(events: "DataFrame", rows: Rows, found: Mapping[str, Keys]) -> None:
    """Refuse a row of names: a header among the rows, after which the columns may be in another order."""
    names = [*COLUMN_NAMES["user"], *COLUMN_NAMES["item"], *map(plain_name, rows.columns.ids)]
    codes = {role: np.flatnonzero(one.ids.ids_named(names)).tolist() for role, one in found.items()}
    if all(codes.values()):
        test = " AND ".join(f"{role}_code IN ({', '.join(map(str, here))})" for role, here in codes.items())
        if events.where(test).limit(1).count():
            name = found["user"].ids.ids[codes["user"][0]]
            raise DataError(
                f"{rows.name}: column '{rows.columns.user}' holds {name!r}, expected an id, not the name of a column; "
                "remove the row"
            )


def _scale(events: "DataFrame") -> RatingScale:
    """Return the scale of the ratings; of many values the quarters are near the true ones."""
    few = arrays_of(events.groupBy("rating").count().orderBy("rating").limit(FEW + 1))
    values = few["rating"].astype(np.float64)
    if len(values) <= FEW:
        return RatingScale.of_counts(values + 0.0, few["count"])
    query = "min(rating)", "max(rating)", "approx_percentile(CAST(rating AS DOUBLE), array(0.25D, 0.5D, 0.75D))"
    row = events.selectExpr(*query, "bool_and(rating = floor(rating))").first()
    assert row is not None
    quarters = [float(one) for one in row[2]]
    return RatingScale(
        low=float(row[0]),
        high=float(row[1]),
        values=(),
        shares=(),
        quantiles=(quarters[0], quarters[1], quarters[2]),
        are_whole=bool(row[3]) and math.isfinite(float(row[1])),
    )


def _reading(
    rows: Rows,
    counted: list[dict[str, Any]],
    found: Mapping[str, Keys],
    span: TimeSpan | None,
    scale: RatingScale | None,
    n_events: int,
) -> Reading:
    """Return the report; every row is accounted for.

    Raises
    ------
    DataError
        If one is not.
    """
    n_rows = sum(one["n_rows"] for one in counted)
    dropped = {
        NO_RATING: sum(one["no_rating"] for one in counted),
        NO_TIME: sum(one.get("no_time", 0) for one in counted),
    }
    for role, one in found.items():
        dropped[f"rows without {'an' if role == 'item' else 'a'} {role} id"] = sum(one.ids.missing.values())
    if n_rows != n_events + sum(dropped.values()):
        raise DataError(
            f"{rows.name}: {n_rows:,} rows were read, but {n_events:,} events and {sum(dropped.values()):,} rows left "
            "out are accounted for: the table has changed while it was read; try again"
        )
    by_file = {one.get("file"): one["n_rows"] for one in counted}
    form = {"form": PARQUET if rows.files else TABLE}
    reports = [FileReport(name=shown_file(name), form=form, rows=by_file[name]) for name in rows.files]
    return Reading(
        files=reports or [FileReport(name=rows.name, form=form, rows=n_rows)],
        columns=rows.columns,
        rows=n_rows,
        events=n_events,
        dropped={reason: count for reason, count in dropped.items() if count},
        marks={role: one.ids.missing for role, one in found.items() if one.ids.missing},
        doubtful={role: one.ids.doubtful for role, one in found.items() if one.ids.doubtful},
        alike={role: twins for role, one in found.items() if (twins := twins_of(one.ids.ids)) is not None},
        times=span,
        ratings=scale,
        empty=_without_rows(rows),
        unused=rows.unused,
    )


def _without_rows(rows: Rows) -> list[str]:
    """Return the names of the files without a row, where others have some."""
    if not rows.files:
        return []
    return sorted({*map(shown_file, rows.frame.inputFiles())} - {*map(shown_file, rows.files)})
