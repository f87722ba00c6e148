"""Tables and Parquet, wherever Spark reads them -> rows of user, item, rating and time, in the types of a log.

    files       the order of the events is that of the rows: file after file, as the engine on one machine reads them
    tables      rows of a table have no order: events are ordered by user and item, as in a file that is sorted so

A type of which Spark and the engine on one machine could make different values is refused, with what to do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from recvae.datasets.columns import LOG, Columns, find_columns
from recvae.datasets.reading import times
from recvae.datasets.reading.options import LogFormat
from recvae.errors import DataError, UsageError
from recvae.spark.footers import holds_nanoseconds
from recvae.spark.frames import frame_of
from recvae.spark.kinds import NANOSECONDS, id_column, number_column, time_column
from recvae.spark.patterns import as_named, order_of, parts_of, refuse_other_files, shown_file
from recvae.spark.session import located, spark_errors

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

PLACES = 40
"""Bits of the row number in a file; the number of the file is above them."""

_TEXT = (".csv", ".tsv", ".txt", ".dat", ".json", ".jsonl", ".gz", ".zip", ".zst", ".bz2", ".xz", ".inter")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a log, not read yet.

    Parameters
    ----------
    frame : DataFrame
        With the columns user, item, and where the log has them rating (float) and moment (bigint); of files, also
        `file` and `row`.
    columns : Columns
        The columns that are read.
    name : str
        What messages call the log.
    time_form : str, optional
        How times are written: `times.NUMBER` or `times.DATES`.
    unused : list of str
        The columns that are not read.
    files : tuple of str
        The files in order, once `with_places` has ordered them.
    given : tuple of str
        The paths that were given, as Spark finds them, each a number in `argument`.
    """

    frame: "DataFrame"
    columns: Columns
    name: str
    time_form: str | None
    unused: list[str] = field(default_factory=list)
    files: tuple[str, ...] = ()
    given: tuple[str, ...] = ()

    @property
    def are_files(self) -> bool:
        """Whether the rows have an order."""
        return "row" in self.frame.columns

    @property
    def spark(self) -> "SparkSession":
        """The session."""
        return self.frame.sparkSession

    def ordered(self, files: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
        """Return files, each with the number of the path that it was found by, in the order of the log."""
        return sorted(files, key=lambda one: (one[0], order_of(one[1], self.given[one[0]])))

    def with_places(self, files: Sequence[tuple[int, str]]) -> "Rows":
        """Return the rows with `place`, their order over all files.

        Parameters
        ----------
        files : sequence of (int, str)
            Each file that has a row: the number of the path that it was found by, and its name as Spark has it.
        """
        ordered = self.ordered(files)
        table = frame_of(self.spark, {"file": [name for _, name in ordered], "number": list(range(len(ordered)))})
        frame = self.frame.join(table, "file").selectExpr("*", f"shiftleft(number, {PLACES}) + row AS place")
        return replace(self, frame=frame.drop("file", "row", "number", "argument"), files=tuple(n for _, n in ordered))


def is_path(text: str) -> bool:
    """Whether a text is a path and not the name of a table."""
    return (
        "/" in text
        or any(mark in text for mark in "*?[")
        or Path(text).exists()
        or Path(text).suffix
        in (
            ".parquet",
            *_TEXT,
        )
    )


def refuse_texts(paths: Sequence[str]) -> None:
    """Refuse text files: what they mean is guessed by the engine on one machine alone.

    Raises
    ------
    UsageError
        If one of the paths is no Parquet by its name.
    """
    for path in paths:
        if path == "-" or Path(path).suffix.lower() in _TEXT:
            raise UsageError(
                f"got {path} with Spark, which reads Parquet and tables here; write it as Parquet, or leave out "
                "--engine spark"
            )


def rows_of_paths(spark: "SparkSession", paths: Sequence[str], options: LogFormat) -> Rows:
    """Open Parquet files.

    Parameters
    ----------
    spark : SparkSession
        The session.
    paths : sequence of str
        Files, folders or patterns, on any storage that Spark reads.
    options : LogFormat
        What is known about them.

    Raises
    ------
    UsageError
        If they are not Parquet.
    UsageError, DataError
        If a column is missing, or of a type that cannot be read.
    EngineError
        If Spark cannot read them.
    """
    refuse_texts(paths)
    places = tuple(located(spark, path) for path in paths)
    opened = [_opened(spark, path, number, options) for number, path in enumerate(places)]
    first = opened[0]
    for one in opened[1:]:
        for role in LOG:
            names = [getattr(found.columns, role) for found in (first, one)]
            if bool(names[0]) != bool(names[1]):
                raise DataError(
                    f"{first.name} has {names[0] or 'no column'} for the {role}, but {one.name} has "
                    f"{names[1] or 'no column'}; expected the files of one log; name the columns, or leave them out "
                    "with --no-rating and --no-time"
                )
        if one.columns != first.columns:
            raise DataError(
                f"{first.name} has the columns {_listed(first.columns)}, but {one.name} has {_listed(one.columns)}; "
                "expected the files of one log; give only those"
            )
        kinds = [dict(found.frame.dtypes) for found in (first, one)]
        if one.time_form != first.time_form or kinds[0] != kinds[1]:
            raise DataError(
                f"{first.name} and {one.name} have columns of different types ({first.frame.dtypes} and "
                f"{one.frame.dtypes}), expected the files of one log; convert one of them"
            )
    frame = first.frame
    for one in opened[1:]:
        frame = frame.unionByName(one.frame)
    more = f" and {len(opened) - 1} more" if len(opened) > 1 else ""
    return replace(first, frame=frame, name=first.name + more, given=places)


def _listed(columns: Columns) -> str:
    return ", ".join(filter(None, vars(columns).values()))


def _opened(spark: "SparkSession", path: str, number: int, options: LogFormat) -> Rows:
    """Open the files of one path."""
    name = path.removeprefix("file://")
    with spark_errors(f"{name} could not be read"):
        frame = parquet(spark, path)
        folders = folder_columns(frame.inputFiles())
        in_files = _files_below(spark, path).columns if folders else frame.columns  # without their columns
    found = rows_of_frame(frame, options, name, of_files=True)
    _refuse_folders(frame.columns, in_files, folders, found.columns, options, name)
    with spark_errors(f"{name} could not be read"):
        return replace(found, frame=found.frame.selectExpr("*", f"{number} AS argument"))


def parquet(spark: "SparkSession", path: str) -> "DataFrame":
    """Open Parquet files: all of a folder and its sub-folders, with the columns that folders name, such as `day=3`.

    Raises
    ------
    UsageError
        If there are none, or Spark would find others by this pattern.
    DataError
        If Spark would leave out some of them without a word, as it does with folders of which only some name a column.
    """
    refuse_other_files(path)
    every = _files_below(spark, path)
    if not folder_columns(every.inputFiles()):
        return every
    found = spark.read.parquet(as_named(path))
    left_out = sorted(map(shown_file, {*every.inputFiles()} - {*found.inputFiles()}))
    if left_out:
        raise DataError(
            f"{path.removeprefix('file://')}: Spark would leave out {left_out[0]}, expected all files in folders that "
            "name the same columns; give them as several paths"
        )
    return found


def _files_below(spark: "SparkSession", path: str) -> "DataFrame":
    """Open all files of a folder and its sub-folders; what the folders are called plays no part."""
    from pyspark.errors import AnalysisException

    try:
        return spark.read.option("recursiveFileLookup", "true").parquet(as_named(path))
    except AnalysisException as error:
        name = path.removeprefix("file://")
        if error.getCondition() == "COLUMN_ALREADY_EXISTS":
            twin = str((error.getMessageParameters() or {}).get("columnName", "")).strip("`")
            raise DataError(f"{name}: several columns are called '{twin}' but for case; rename one of them") from error
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
        raise UsageError(f"no file at {name}; check the path") from error


def folder_columns(files: Sequence[str]) -> list[str]:
    """Return the columns that folders hold, such as `day=3`."""
    parts = {part for file in files for part in parts_of(file)[:-1] if "=" in part.removeprefix("=")}
    return sorted({part.partition("=")[0] for part in parts})


def _refuse_folders(
    names: Sequence[str],
    in_files: Sequence[str],
    folders: Sequence[str],
    columns: Columns,
    options: LogFormat,
    where: str,
) -> None:
    """Refuse folders that name a column that is read, and that files have too, or that Spark does not see."""
    chosen = {column.casefold() for column in vars(columns).values() if column}
    for folder in folders:
        if folder.casefold() in chosen and folder.casefold() in {name.casefold() for name in in_files}:
            raise DataError(f"{where}: the column '{folder}' is in the files and in their folders; rename one of them")
    unseen = [folder for folder in folders if folder not in names]
    roles = [role for role in LOG if role not in options.without]
    every = [*names, *unseen]
    if unseen and find_columns(every, roles, where, "name it with --{role}-col", options.named_in(every)) != columns:
        raise DataError(
            f"{where}: its folder names the column '{unseen[0]}', which Spark does not read here; give the folder above"
        )


def rows_of_frame(frame: "DataFrame", options: LogFormat, name: str, *, of_files: bool = False) -> Rows:
    """Choose the columns of a data frame, and bring them to the types of a log.

    Parameters
    ----------
    frame : DataFrame
        One row per event.
    options : LogFormat
        What is known about it.
    name : str
        What messages call it.
    of_files : bool
        Whether Spark reads it from files, so that rows have an order.

    Raises
    ------
    UsageError, DataError
        If a column is missing, or of a type that cannot be read.
    """
    from pyspark.sql import functions

    way_out = "name it with --{role}-col"
    roles = [role for role in LOG if role not in options.without]
    columns = find_columns(frame.columns, roles, name, way_out, options.named_in(frame.columns))
    _refuse_twins(frame.columns, columns, name)
    kinds = {one.name: one.dataType for one in frame.schema.fields}
    chosen: list[Column] = []
    for role in ("user", "item"):
        column = getattr(columns, role)
        chosen.append(id_column(column, kinds[column], role, name).alias(role))
    time_form = None
    if columns.rating:
        kind = kinds[columns.rating].simpleString()
        chosen.append(number_column(columns.rating, kind, "rating", name).alias("rating"))
    if columns.time:
        kind = kinds[columns.time].simpleString()
        if of_files and kind == "bigint" and holds_nanoseconds(frame, columns.time, name):
            kind = NANOSECONDS
        time_form = times.DATES if kind.startswith(("date", "timestamp")) else times.NUMBER
        chosen.append(time_column(columns.time, kind, name).alias("moment"))
    if of_files:
        chosen += [
            functions.col("_metadata.file_path").alias("file"),
            functions.col("_metadata.row_index").alias("row"),
        ]
    taken = {column for column in vars(columns).values() if column}
    with spark_errors(f"{name} could not be read"):
        return Rows(
            frame=frame.select(*chosen),
            columns=columns,
            name=name,
            time_form=time_form,
            unused=[column for column in frame.columns if column not in taken],
        )


def _refuse_twins(names: Sequence[str], columns: Columns, where: str) -> None:
    """Refuse a column whose name differs from another one only in case: Spark would mix them up."""
    for chosen in filter(None, vars(columns).values()):
        twins = [name for name in names if name.casefold() == chosen.casefold()]
        if len(twins) > 1:
            raise DataError(
                f"{where}: the columns {' and '.join(map(repr, twins))} differ only in case; rename one of them"
            )
