"""The filters, step by step, as `events.filter_events` applies them to arrays."""

from typing import TYPE_CHECKING

from recvae.datasets import relational
from recvae.datasets.events import Filters, FilterStep, check_filters, nothing_left
from recvae.errors import DataError
from recvae.spark.frames import run
from recvae.spark.log import CodedLog

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def filtered(log: CodedLog, filters: Filters) -> tuple["DataFrame", list[FilterStep]]:
    """Apply the filters once, in the paper's order: rating, duplicates, items, then users.

    Parameters
    ----------
    log : CodedLog
        The log.
    filters : Filters
        The thresholds.

    Returns
    -------
    events : DataFrame
        user_code, item_code, place and maybe moment, kept by the executors until `events.unpersist()`.
    steps : list of FilterStep
        The counts at the start and after each filter.

    Raises
    ------
    UsageError, DataError
        See `events.filter_events`.
    """
    check_filters(filters, log.scale is not None)
    spark = log.events.sparkSession
    queries = {}
    if filters.min_rating is not None:
        queries[f"rating >= {filters.min_rating:g}"] = relational.liked(filters.min_rating)
    queries["duplicates dropped"] = relational.first_of_pairs(log.has_times)
    for code, least, name in (
        ("item_code", filters.min_item_users, f"items with >= {filters.min_item_users} users"),
        ("user_code", filters.min_user_items, f"users with >= {filters.min_user_items} items"),
    ):
        if least > 0:
            queries[name] = relational.with_enough(code, least)
    steps = [_step("as read", log.events)]
    left = log.events
    kept: list[DataFrame] = []
    ratings = None if log.scale is None else (log.scale.low, log.scale.high)
    for name, query in queries.items():
        left = run(spark, query, events=left).persist()
        kept.append(left)
        steps.append(_step(name, left))
        if steps[-1].events == 0:
            raise DataError(nothing_left(name, ratings, steps))
        for before in kept[:-1]:  # what the last step was made of
            before.unpersist()
        kept = kept[-1:]
    return left, steps


def _step(name: str, events: "DataFrame") -> FilterStep:
    found = run(events.sparkSession, relational.COUNTS, events=events).first()
    assert found is not None
    return FilterStep(name, int(found[0]), int(found[1]), int(found[2]))
