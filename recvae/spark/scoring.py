"""Recommendations for all users of a data frame: a transformation of Spark, with the rows of `Recommender`."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from recvae.datasets.columns import HISTORIES, Columns, find_columns
from recvae.datasets.reading.options import LogFormat
from recvae.errors import DataError, UsageError
from recvae.items import DEFAULT_K, ItemIndex
from recvae.recommenders.histories import HistoryBlock
from recvae.recommenders.history_files import options_like
from recvae.spark.bundles import recommender_here, send_bundle
from recvae.spark.frames import frame_of
from recvae.spark.keys import keys_of
from recvae.spark.kinds import id_column, number_column
from recvae.spark.session import check_spark, spark_errors

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Letters in shape comments: N rows.

_BLOCK = 1_000
"""Users that are answered together."""


def recommend(
    df: "DataFrame",
    run: Path | str,
    k: int = DEFAULT_K,
    *,
    user: str | None = None,
    item: str | None = None,
    exclude: Iterable[int | str] = (),
    allow: Iterable[int | str] | None = None,
    filter_seen: bool = True,
    diversify: float = 0.0,
) -> "DataFrame":
    """Recommend items to every user of a data frame: the rows that `Recommender.recommend_batch` gives.

    This is a transformation: nothing is computed before the result is used. The bundle is sent to each executor once. A
    task that fails is run again by Spark; its rows are not doubled.

    Parameters
    ----------
    df : DataFrame
        One row for each user and item of the histories, in any order, with a weight if there is one. A row without an
        item says that its user is to be answered; a row without a user stops the job.
    run : Path or str
        A bundle: the folder of a run.
    k : int
        Number of items, >= 1.
    user, item : str, optional
        The columns; by default those of the training data, else found by their usual names.
    exclude, allow, filter_seen, diversify
        See `Recommender.recommend`; the same for every user.

    Returns
    -------
    DataFrame
        user, rank (from 1), id, title, score and fallback; a user with no item left to recommend has no row.

    Raises
    ------
    UsageError, DataError
        If an option, a column or the type of one cannot be used.
    BundleError
        If there is no bundle, or it is damaged.

    Examples
    --------
    >>> from recvae.spark import recommend
    >>> recommend(spark.table("shop.orders"), "runs/orders/ease", 10).write.parquet("top10")  # doctest: +SKIP
    """
    check_spark()
    from recvae.recommenders.recommender import Recommender

    options: dict[str, Any] = {
        "k": k,
        "exclude": list(exclude) if not isinstance(exclude, str | bytes) else exclude,
        "allow": allow if allow is None or isinstance(allow, str | bytes) else list(allow),
        "filter_seen": filter_seen,
        "diversify": diversify,
    }
    recommender = Recommender.load(run)
    recommender.recommend_batch([], **options)  # wrong options are refused here, not by a task
    known = options_like(recommender.manifest, LogFormat(user=user, item=item), recommender.items)
    with spark_errors("Spark could not recommend"):
        rows = histories_of_frame(df, known, "the table")
        return answered(rows, Path(run), recommender.items, options)


def histories_of_frame(df: "DataFrame", options: LogFormat, name: str, *, decided: bool = False) -> "DataFrame":
    """Return user, item and maybe weight of a data frame, in types that executors take.

    Parameters
    ----------
    df : DataFrame
        The histories.
    options : LogFormat
        The columns.
    name : str
        What messages call it.
    decided : bool
        Whether users may be whole floats, because `with_decided_users` follows.

    Raises
    ------
    UsageError, DataError
        If a column is missing, or of a wrong type.
    """
    from pyspark.sql import functions

    columns = columns_of(df, options, name)
    kinds = {one.name: one.dataType for one in df.schema.fields}
    chosen = []
    for role, column in (("user", columns.user), ("item", columns.item)):
        if role == "user" and not decided and kinds[column].simpleString() in ("float", "double"):
            raise DataError(
                f"{name}: column '{column}' holds {kinds[column].simpleString()}, expected integers or texts for the "
                "user; cast it to bigint"
            )
        chosen.append(id_column(column, kinds[column], role, name).alias(role))
    if columns.weight:
        weight = number_column(columns.weight, kinds[columns.weight].simpleString(), "weight", name)
        zero = functions.lit(0.0).cast("float")  # is no weight: an empty cell stops the task, as in a file
        chosen.append(functions.coalesce(functions.nanvl(weight, zero), zero).alias("weight"))
    return df.select(*chosen)


def columns_of(df: "DataFrame", options: LogFormat, name: str) -> Columns:
    """Choose the columns of histories."""
    return find_columns(df.columns, HISTORIES, name, "name it with --{role}-col", options.named_in(df.columns))


def answered(rows: "DataFrame", folder: Path, items: ItemIndex, options: dict[str, Any]) -> "DataFrame":
    """Let executors answer histories.

    Parameters
    ----------
    rows : DataFrame
        user, item, and maybe weight.
    folder : Path
        The bundle.
    items : ItemIndex
        Its items.
    options : dict
        Of `recommend_batch`.
    """
    name = send_bundle(rows.sparkSession, folder)
    kind = dict(rows.dtypes)["user"]
    item = "bigint" if items.ids.dtype.kind in "iu" else "string"
    schema = f"user {kind}, rank int, id {item}, title string, score float, fallback boolean"
    together = rows.repartition("user").sortWithinPartitions("user")
    return together.mapInArrow(partial(_answer, name=name, options=options), schema)


def _answer(batches: Iterator[pa.RecordBatch], name: str, options: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    """Answer the users of a partition, whose rows are together, block by block; runs on an executor."""
    recommender = recommender_here(name)
    rest: list[pa.Table] = []
    n_users = 0
    for batch in batches:
        rows = pa.table(batch)
        if rows["user"].null_count:
            raise UsageError(
                "got an empty cell in the column of users, expected a user in every row; filter such rows out"
            )
        while len(rows):
            users = rows["user"].combine_chunks()
            starts = _starts(users, rest)  # places where another user begins
            missing = _BLOCK - n_users
            if len(starts) <= missing:
                n_users += len(starts)
                rest.append(rows)
                break
            end = int(starts[missing])
            rest.append(rows.slice(0, end))
            yield from _rows(recommender, rest, options)
            rest, n_users, rows = [], 0, rows.slice(end)
    if rest:
        yield from _rows(recommender, rest, options)


def _starts(users: pa.Array, rest: list[pa.Table]) -> np.ndarray:
    """Return the places of the rows whose user is another one than that of the row before."""
    values = users.dictionary_encode().indices.to_numpy()  # (N,)
    places = np.flatnonzero(np.diff(values)) + 1
    continues = bool(rest) and bool(rest[-1]["user"][-1].as_py() == users[0].as_py())
    return places if continues else np.append(0, places)


def _rows(recommender: Any, parts: list[pa.Table], options: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    """Yield the recommendations of some users."""
    block = HistoryBlock(pa.concat_tables(parts))
    found = recommender.recommend_batch(block, **options).to_arrow()
    kind = block.table["user"].type
    found = found.set_column(0, "user", found["user"].cast(kind))
    yield from found.to_batches()


def with_decided_users(rows: "DataFrame", name: str, column: str, options: LogFormat) -> tuple["DataFrame", int, int]:
    """Return histories whose users are integers or texts, by the rules of files; rows without one, and users.

    Parameters
    ----------
    rows : DataFrame
        user, item and maybe weight.
    name, column : str
        What messages call the table, and its column of users.
    options : LogFormat
        Further words that mean a missing id.
    """
    keys = keys_of(rows, "user", name, column, LogFormat(null=options.null))
    if not len(keys.ids.ids):
        if not keys.ids.missing:
            raise DataError(f"{name} has no rows; expected one row per event")
        raise DataError(f"{name}: no row has a user id; choose another column with --user-col")
    decided = frame_of(rows.sparkSession, {"user": keys.values, "person": keys.ids.ids[keys.codes]})
    joined = rows.join(decided, "user").drop("user").withColumnRenamed("person", "user")
    return joined, sum(keys.ids.missing.values()), len(keys.ids.ids)
