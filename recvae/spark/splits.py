"""The protocols on Spark: which events are trained on, which are targets, and who writes them.

What is drawn for all users or all events is drawn from the counts of users on the driver, and by executors from the
place of an event (`draws`). The targets of `strong` are drawn on the driver from the events of the held-out users
alone, by the code of the engine on one machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recvae.datasets import relational
from recvae.datasets.events import Events
from recvae.datasets.protocol import Protocol
from recvae.datasets.shards import ShardedMatrix, write_matrix
from recvae.datasets.splits import same_users, strong
from recvae.datasets.splits.base import LATER_SHARE, Vocabulary
from recvae.datasets.splits.protocols import usual_heldout_users
from recvae.datasets.splits.time import dropped_of, starts_of
from recvae.errors import DataError, UsageError
from recvae.spark.draws import with_draws, with_pair_hashes
from recvae.spark.frames import arrays_of, frame_of, run
from recvae.spark.log import CodedLog
from recvae.spark.writing import write_interactions

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Letters in shape comments: E events, U users, I items.

_CONDITIONS = {
    "train": f"part = {relational.TRAIN}",
    "validation/targets": f"part = {relational.VALIDATION}",
    "test/fold_in": f"part < {relational.TEST}",
    "test/targets": f"part = {relational.TEST}",
}
_MOMENTS = 1 << 12  # seconds that are counted together at first


@dataclass(frozen=True, kw_only=True)
class WrittenSplit:
    """A split whose matrices are on disk.

    Parameters
    ----------
    matrices : dict of str to ShardedMatrix
        By the names of `folder.MATRICES`.
    users : dict of str to ndarray
        Codes of the users of the rows of "train", "validation" and "test".
    items : ndarray of shape (n_items,), int32
        Codes of the items of the columns.
    protocol, dropped : dict
        See `Split`.
    """

    matrices: dict[str, ShardedMatrix]
    users: dict[str, np.ndarray]
    items: np.ndarray
    protocol: dict[str, Any]
    dropped: dict[str, int]


def write_split(log: CodedLog, events: "DataFrame", protocol: Protocol, folder: Path) -> WrittenSplit:
    """Split filtered events by a protocol, and write the matrices to a folder.

    Parameters
    ----------
    log : CodedLog
        Has the ids.
    events : DataFrame
        user_code, item_code, place and maybe moment.
    protocol : Protocol
        The protocol.
    folder : Path
        The folder of the data set.

    Raises
    ------
    UsageError, DataError
        See `split_events`.
    """
    splits: dict[str, Callable[[CodedLog, DataFrame, Protocol, Path], WrittenSplit]] = {
        "strong": _strong,
        "holdout": _holdout,
        "leave-last-out": _leave_last_out,
        "time": _time,
    }
    return splits[protocol.split](log, events, protocol, folder)


def _strong(log: CodedLog, events: "DataFrame", protocol: Protocol, folder: Path) -> WrittenSplit:
    spark = events.sparkSession
    found = arrays_of(run(spark, relational.EVENTS_OF_USERS, events=events))
    present, counts = found["user_code"], found["n"]  # (U,), (U,)
    heldout = protocol.heldout_users or usual_heldout_users(len(present))
    order = strong.permutation_of(len(present), heldout, protocol.seed)
    permuted = present[order]
    train_users, others = permuted[: -2 * heldout], permuted[-2 * heldout :]
    held_out = frame_of(spark, {"user_code": others})
    train = events.join(held_out, "user_code", "left_anti").persist()
    items = arrays_of(run(spark, relational.FIRST_SEEN, events=train))["item_code"]
    asked = _events_of(events.join(held_out, "user_code", "left_semi"), log)
    column_of = np.full(len(log.item_ids), -1, dtype=np.int32)
    column_of[items] = np.arange(len(items))
    vocabulary = Vocabulary(log.item_ids[items], column_of)
    parts = strong.held_out_of(asked, vocabulary, others, protocol.seed, protocol.target_share)
    columns = _columns(train, items)
    n_train = int(counts[order[: -2 * heldout]].sum())
    placed = run(spark, relational.known("true"), events=train, columns=columns)
    matrices = {"train": write_interactions(placed, train_users, len(items), folder, "train", n_train)}
    _expect(matrices["train"].nnz, n_train)
    train.unpersist()
    for name, part in zip(("validation", "test"), parts, strict=True):
        for side in ("fold_in", "targets"):
            matrices[f"{name}/{side}"] = write_matrix(folder, f"{name}/{side}", getattr(part, side))
    return WrittenSplit(
        matrices=matrices,
        users={"train": train_users, "validation": others[:heldout], "test": others[heldout:]},
        items=items,
        protocol=strong.protocol_of(heldout, protocol.seed, protocol.target_share),
        dropped={strong.DROPPED: int((~vocabulary.known(asked)).sum())},
    )


def _events_of(events: "DataFrame", log: CodedLog) -> Events:
    """Return the events of a few users on the driver, in their order."""
    found = arrays_of(events.select("user_code", "item_code", "place").orderBy("place"))
    return Events(users=found["user_code"], items=found["item_code"], user_ids=log.user_ids, item_ids=log.item_ids)


def _columns(events: "DataFrame", items: np.ndarray) -> "DataFrame":
    """Return item_code and item_column of the items of the training part."""
    return frame_of(events.sparkSession, {"item_code": items, "item_column": np.arange(len(items), dtype=np.int32)})


def _expect(found: int, expected: int) -> None:
    """Refuse shards that have lost or doubled an interaction: the table has changed under Spark's hands."""
    if found != expected:
        raise DataError(
            f"got {found:,} interactions in the shards, expected {expected:,}: the table has changed while it was "
            "read; try again"
        )


def _holdout(_: CodedLog, events: "DataFrame", protocol: Protocol, folder: Path) -> WrittenSplit:
    drawn = with_draws(events, protocol.seed)
    parts = run(events.sparkSession, relational.holdout(protocol.target_share), events=drawn)
    facts = {"split": "holdout", "seed": int(protocol.seed), "target_share": float(protocol.target_share)}
    return _same_users(parts, facts, folder)


def _leave_last_out(log: CodedLog, events: "DataFrame", protocol: Protocol, folder: Path) -> WrittenSplit:
    _check_times(log, "leave-last-out")
    spark = events.sparkSession
    ids = {}
    for role, values in (("user", log.user_ids), ("item", log.item_ids)):
        codes = np.arange(len(values), dtype=np.int32)
        ids[f"{role}_ids"] = frame_of(spark, {f"{role}_code": codes, f"{role}_id": values})
    hashed = with_pair_hashes(events, **ids, seed=protocol.seed)
    ranked = run(spark, relational.from_last(), events=hashed).persist()
    least = same_users.MIN_EVENTS_TO_HOLD_OUT
    n_tied = int(arrays_of(run(spark, relational.tied_users(least), events=ranked))["n"][0])
    ties = {"seed": int(protocol.seed), "tied_users": n_tied} if n_tied else {}
    parts = run(spark, relational.leave_last_out(least), events=ranked)
    split = _same_users(parts, {"split": "leave-last-out", **ties}, folder)
    ranked.unpersist()
    return split


def _same_users(parts: "DataFrame", facts: dict[str, Any], folder: Path) -> WrittenSplit:
    """Write the events of every user, which have their `part`; the items are those that are left for training."""
    spark = parts.sparkSession
    parts = parts.persist()
    items = arrays_of(run(spark, relational.FIRST_SEEN, events=parts.where("part = 0")))["item_code"]
    users = arrays_of(run(spark, relational.EVENTS_OF_USERS, events=parts))["user_code"]
    columns = _columns(parts, items)
    counts = parts.count()
    known = run(spark, relational.known("true"), events=parts, columns=columns).count()
    matrices = {}
    for name, condition in _CONDITIONS.items():
        found = run(spark, relational.known(condition), events=parts, columns=columns)
        matrices[name] = write_interactions(found, users, len(items), folder, name, counts)
    matrices["validation/fold_in"] = matrices["train"]
    _expect(matrices["test/fold_in"].nnz + matrices["test/targets"].nnz, known)
    _expect(matrices["train"].nnz + matrices["validation/targets"].nnz, matrices["test/fold_in"].nnz)
    parts.unpersist()
    return WrittenSplit(
        matrices=matrices,
        users=dict.fromkeys(("train", "validation", "test"), users),
        items=items,
        protocol=facts,
        dropped={strong.DROPPED: counts - known},
    )


def _time(log: CodedLog, events: "DataFrame", protocol: Protocol, folder: Path) -> WrittenSplit:
    del protocol  # it has no choices
    _check_times(log, "time")
    spark = events.sparkSession
    n_events = events.count()
    places = starts_of(n_events, LATER_SHARE, LATER_SHARE)
    (test_start, n_before_test), (validation_start, n_before) = (_moment_at(events, place) for place in places)
    if not n_before or validation_start == test_start:
        raise DataError("too few distinct timestamps to split by time; check the time column, or use another --split")
    n_tied = places[0] - n_before_test + places[1] - n_before
    parts = run(spark, relational.time_split(validation_start, test_start), events=events).persist()
    items = arrays_of(run(spark, relational.FIRST_SEEN, events=parts.where("part = 0")))["item_code"]
    columns = _columns(parts, items)
    users = {"train": arrays_of(run(spark, relational.EVENTS_OF_USERS, events=parts.where("part = 0")))["user_code"]}
    conditions = _CONDITIONS | {"validation/fold_in": _CONDITIONS["train"]}
    known = {name: run(spark, relational.known(one), events=parts, columns=columns) for name, one in conditions.items()}
    matrices = {"train": write_interactions(known["train"], users["train"], len(items), folder, "train", n_before)}
    _expect(matrices["train"].nnz, n_before)
    for name in ("validation", "test"):
        sides = [
            arrays_of(known[f"{name}/{side}"].select("user_code").distinct())["user_code"]
            for side in ("fold_in", "targets")
        ]
        users[name] = np.intersect1d(sides[0], sides[1])
        if not len(users[name]):
            raise DataError("no user has events both before and after the time of the split; use another --split")
        for side in ("fold_in", "targets"):
            full = f"{name}/{side}"
            matrices[full] = write_interactions(known[full], users[name], len(items), folder, full, n_events)
    n_known = run(spark, relational.known("part > 0"), events=parts, columns=columns).count()
    parts.unpersist()
    facts = {
        "split": "time",
        "validation_share": LATER_SHARE,
        "test_share": LATER_SHARE,
        "validation_start": validation_start,
        "test_start": test_start,
        **({"tied_events": n_tied} if n_tied else {}),
    }
    n_targets = sum(matrices[f"{name}/targets"].nnz for name in ("validation", "test"))
    dropped = dropped_of(n_events - n_before - n_known, n_known - n_targets)
    return WrittenSplit(matrices=matrices, users=users, items=items, protocol=facts, dropped=dropped)


def _moment_at(events: "DataFrame", place: int) -> tuple[int, int]:
    """Return the time at a place among the sorted times, and how many events are before that time.

    Times are counted in coarse steps first, so that the driver never holds all of them.
    """
    coarse = arrays_of(events.selectExpr(f"moment div {_MOMENTS} AS step").groupBy("step").count().orderBy("step"))
    ends = coarse["count"].cumsum()
    here = int(np.searchsorted(ends, place, side="right"))
    step, n_before = int(coarse["step"][here]), int(ends[here] - coarse["count"][here])
    fine = events.where(f"moment div {_MOMENTS} = {step}").groupBy("moment").count().orderBy("moment")
    found = arrays_of(fine)
    ends = n_before + found["count"].cumsum()
    here = int(np.searchsorted(ends, place, side="right"))
    return int(found["moment"][here]), int(ends[here] - found["count"][here])


def _check_times(log: CodedLog, protocol: str) -> None:
    if not log.has_times:
        raise UsageError(f"the split '{protocol}' needs timestamps and the log has none; name them with --time-col")
