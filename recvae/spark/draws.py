"""Random numbers that depend on the place of an event, drawn by executors: those that numpy would draw for all events.

Letters in shape comments: E events of one batch.
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from recvae.datasets.splits.base import pair_hashes
from recvae.spark.frames import arrays_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_PER_BUCKET = 1 << 20  # places


def with_draws(events: "DataFrame", seed: int) -> "DataFrame":
    """Return the events with `draw`: the number that `default_rng(seed).random(n_events)` has at their place.

    The events are counted in buckets of consecutive places. From the number of events before its bucket, an executor
    knows how far to move numpy's generator forward, and draws the numbers of this bucket alone.

    Parameters
    ----------
    events : DataFrame
        With `place`, which no two events share.
    seed : int
        Seed of the generator.
    """
    last = events.agg({"place": "max"}).first()
    assert last is not None
    n_rows = events.count()
    size = max(
        _PER_BUCKET, (int(last[0]) + 1) // max(1, n_rows // _PER_BUCKET + 1) if _is_sparse(last[0], n_rows) else 0
    )
    bucketed = events.selectExpr("*", f"place div {size} AS bucket")
    found = arrays_of(bucketed.groupBy("bucket").count().orderBy("bucket"))
    before = dict(zip(found["bucket"].tolist(), (found["count"].cumsum() - found["count"]).tolist(), strict=True))
    schema = ", ".join(f"{name} {kind}" for name, kind in [*events.dtypes, ("draw", "double")])
    together = bucketed.repartition(max(1, min(len(before), 1000)), "bucket").sortWithinPartitions("bucket", "place")
    return together.mapInArrow(partial(_draw, before=before, seed=seed), schema)


def _is_sparse(last: int, n_rows: int) -> bool:
    """Whether buckets of places would mostly be empty: places made of user and item are far from one another."""
    return last // _PER_BUCKET > 4 * n_rows


def _draw(batches: Iterator[pa.RecordBatch], before: dict[int, int], seed: int) -> Iterator[pa.RecordBatch]:
    """Draw for the events of some buckets, bucket by bucket; runs on an executor."""
    bits = np.random.PCG64(seed)
    start = bits.state
    done: dict[int, int] = {}
    for batch in batches:
        buckets = batch.column("bucket").to_numpy()  # (E,)
        draws = np.empty(len(buckets))
        edges = np.flatnonzero(np.diff(buckets)) + 1
        for first, end in zip([0, *edges.tolist()], [*edges.tolist(), len(buckets)], strict=True):
            if first == end:
                continue
            bucket = int(buckets[first])
            bits.state = start
            bits.advance(before[bucket] + done.get(bucket, 0))
            draws[first:end] = np.random.Generator(bits).random(end - first)
            done[bucket] = done.get(bucket, 0) + end - first
        kept = batch.drop_columns(["bucket"])
        yield kept.append_column("draw", pa.array(draws))


def with_pair_hashes(events: "DataFrame", user_ids: "DataFrame", item_ids: "DataFrame", seed: int) -> "DataFrame":
    """Return the events with `draw`: `pair_hashes` of both ids and the seed, in an order of signed integers.

    Parameters
    ----------
    events : DataFrame
        With user_code and item_code.
    user_ids, item_ids : DataFrame
        user_code and user_id, item_code and item_id: the ids.
    seed : int
        Of the hash.
    """
    schema = ", ".join(f"{name} {kind}" for name, kind in [*events.dtypes, ("draw", "bigint")])
    joined = events.join(user_ids, "user_code").join(item_ids, "item_code")
    return joined.mapInArrow(partial(_hash, names=tuple(events.columns), seed=seed), schema)


def _hash(batches: Iterator[pa.RecordBatch], names: tuple[str, ...], seed: int) -> Iterator[pa.RecordBatch]:
    """Hash the ids of some events; runs on an executor."""
    for batch in batches:
        ids = []
        for name in ("user_id", "item_id"):
            column = batch.column(name)
            is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            ids.append(np.array(column.to_pylist(), dtype=object) if is_text else column.to_numpy())
        draws = pair_hashes(ids[0], ids[1], seed) ^ np.uint64(1 << 63)  # (E,) the same order as signed integers
        yield batch.select(list(names)).append_column("draw", pa.array(draws.view(np.int64)))
