"""Recommendations for a table or for Parquet files of histories, written by executors: the rows of `recommend_file`."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recvae.datasets.columns import HISTORIES
from recvae.datasets.reading.options import LogFormat
from recvae.errors import DataError, UsageError
from recvae.recommenders.answer_files import AnswerCounts
from recvae.recommenders.history_files import ids_differ, options_like, ratings_among
from recvae.recommenders.recommender import Recommender
from recvae.spark.footers import refuse_lacking
from recvae.spark.frames import frame_of
from recvae.spark.keys import keys_of
from recvae.spark.patterns import as_named
from recvae.spark.places import check_paths
from recvae.spark.scoring import answered, columns_of, histories_of_frame, with_decided_users
from recvae.spark.session import located, reading_settings, spark_errors, spark_session
from recvae.spark.tables import folder_columns, is_path, parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyspark.sql import DataFrame, SparkSession

ENDING = ".parquet"


def recommend_files(
    source: str,
    output: str,
    folder: Path,
    settings: "Mapping[str, str] | None" = None,
    options: dict[str, Any] | None = None,
    starting: "Callable[[], None] | None" = None,
    **columns: Any,
) -> AnswerCounts:
    """Write recommendations for every history of a table or of Parquet files.

    Parameters
    ----------
    source : str
        The name of a table, or a path on any storage that Spark reads.
    output : str
        A new folder, on any storage that Spark writes; its name ends in .parquet. It has the rows of `recommend_file`,
        in no order, and is written completely or has no `_SUCCESS`.
    folder : Path
        The bundle.
    settings : mapping of str to str, optional
        Settings of a new session.
    options : dict, optional
        Of `Recommender.recommend_batch`.
    starting : callable, optional
        Called before a new session is made: all that can be refused without Spark was refused by then.
    **columns
        Fields of `LogFormat`: user, item, null.

    Returns
    -------
    AnswerCounts
        How many users were answered, and how.

    Raises
    ------
    UsageError, DataError
        See `recommend_file`.
    EngineError
        If Spark cannot do its part.
    """
    options = options or {}
    if not output.endswith(ENDING):
        raise UsageError(f"got {output} with Spark, expected a name ending in {ENDING}, which becomes a folder")
    if Path(output).exists():
        raise UsageError(f"{output} exists already; remove it, or choose another name")
    if is_path(source):
        check_paths([source], settings)
    recommender = Recommender.load(folder)
    recommender.recommend_batch([], **options)  # refuse wrong options before anything is read
    known = options_like(recommender.manifest, LogFormat(**columns), recommender.items)
    with spark_session(settings, starting) as spark, spark_errors("Spark could not recommend"), reading_settings(spark):
        return _recommended(spark, source, output, folder, recommender, options, known)


def _recommended(
    spark: "SparkSession",
    source: str,
    output: str,
    folder: Path,
    recommender: Recommender,
    options: dict[str, Any],
    known: LogFormat,
) -> AnswerCounts:
    with spark_errors(f"{source} could not be read"):
        frame = parquet(spark, located(spark, source)) if is_path(source) else spark.table(source)
    named = columns_of(frame, known, source)
    if is_path(source):
        of_folders = folder_columns(frame.inputFiles())
        refuse_lacking(frame, [one for role in HISTORIES if (one := getattr(named, role)) and one not in of_folders])
    histories = histories_of_frame(frame, known, source, decided=True)
    rows, n_without_item, unheard = _items(histories, source, str(named.item), known, recommender)
    decided, n_without_user, n_users = with_decided_users(rows, source, str(named.user), known)
    n_unknown = decided.join(frame_of(spark, {"item": unheard}), "item").count() if len(unheard) else 0
    place = located(spark, output)
    _write(answered(decided, folder, recommender.items, options), place)
    found = spark.read.parquet(as_named(place)).select("user", "fallback").distinct()
    n_answered, n_fallback = found.count(), found.where("fallback").count()
    left_out = {"rows without a user id": n_without_user, "rows without an item": n_without_item}
    return AnswerCounts(
        users=n_users,
        fallback=n_fallback,
        without=n_users - n_answered,
        unknown=n_unknown,
        left_out={reason: count for reason, count in left_out.items() if count},
        columns=tuple(f"{role} = {name}" for role in HISTORIES if (name := getattr(named, role))),
        ratings=ratings_among(frame.columns, named, known),
    )


def _write(answers: "DataFrame", place: str) -> None:
    """Write a new folder; where that fails, what Spark leaves of it is no folder that stands in the way of a rerun."""
    from pyspark.errors import AnalysisException

    try:
        answers.write.parquet(place)
    except AnalysisException:  # the folder is another one's
        raise
    except Exception:
        with suppress(Exception):  # the session may be lost
            spark: Any = answers.sparkSession
            path = spark._jvm.org.apache.hadoop.fs.Path(place)
            path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf()).delete(path, False)  # if empty
        raise


def _items(
    rows: "DataFrame", source: str, column: str, options: LogFormat, recommender: Recommender
) -> tuple["DataFrame", int, pa.Array]:
    """Return histories in which a word that means "no item" is none, how many rows have no item, and unknown items.

    Raises
    ------
    DataError
        If the model knows none of the items.
    """
    from pyspark.sql import functions

    keys = keys_of(rows, "item", source, column, options)
    items = recommender.items
    values = keys.values.to_pylist()
    is_unknown = [items.column_of(value) is None for value in values]
    if values and all(is_unknown):
        raise DataError(
            f"{source}: none of its items is in the model, all users would get the most popular items; nothing is "
            f"written; {ids_differ(values[0], items)}"
        )
    words = [value for value in keys.missing if value is not None and value == value]  # not null, and not NaN
    if words:
        item = functions.col("item")
        rows = rows.withColumn("item", functions.when(item.isin(words), None).otherwise(item))
    return rows, sum(keys.ids.missing.values()), keys.values.filter(pa.array(is_unknown, pa.bool_()))
