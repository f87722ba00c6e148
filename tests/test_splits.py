"""Evaluation protocols: Liang's to the bit, and in every one of them nothing asked for has been seen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from recvae.datasets.events import Events, Filters, filter_events
from recvae.datasets.logs import read_events
from recvae.datasets.splits.base import Split, pair_hashes, timestamps_of
from recvae.datasets.splits.protocols import PROTOCOLS, split_events
from recvae.datasets.splits.ready_made import ready_made
from recvae.datasets.splits.same_users import holdout, leave_last_out
from recvae.datasets.splits.strong import strong
from recvae.datasets.splits.time import time_split
from recvae.errors import DataError, UsageError

MakeLog = Callable[..., Events]
Pairs = set[tuple[Any, Any]]
logs = {"seed": st.integers(0, 10_000), "n_events": st.integers(300, 900)}


def pairs_of(matrix: sp.csr_matrix, user_ids: Any, item_ids: np.ndarray) -> Pairs:
    """Return the (user id, item id) pairs that a matrix stores."""
    rows, columns = matrix.nonzero()
    return set(zip(np.asarray(user_ids)[rows].tolist(), item_ids[columns].tolist(), strict=True))


def parts_of(split: Split) -> dict[str, Pairs]:
    """Return the pairs of both held-out parts, after checking what holds in every protocol."""
    parts = {}
    for name, part in (("validation", split.validation), ("test", split.test)):
        for kind in ("fold_in", "targets"):
            matrix = getattr(part, kind)
            assert matrix.shape == (len(part.user_ids), len(split.item_ids))
            assert matrix.dtype == np.float32
            assert (matrix.data == 1).all()
            parts[f"{name} {kind}"] = pairs_of(matrix, part.user_ids, split.item_ids)
        assert parts[f"{name} fold_in"].isdisjoint(parts[f"{name} targets"])
        assert len(set(part.user_ids.tolist())) == part.n_users
    assert split.train.shape[1] == len(split.item_ids)
    assert (split.train.data == 1).all()
    return parts


def rows_of(events: Events) -> list[tuple[Any, Any, int]]:
    times = np.zeros(len(events), dtype=np.int64) if events.timestamps is None else events.timestamps
    columns = events.user_ids[events.users], events.item_ids[events.items], times
    return list(zip(*(column.tolist() for column in columns), strict=True))


def first_seen(values: Any) -> list[Any]:
    return list(dict.fromkeys(values))


# --- strong generalisation


def liang(events: Events, n_heldout: int, seed: int = 98765, test_prop: float = 0.2) -> dict[str, Any]:
    """Transcribe the published notebook of Liang et al. (2018), with a generator of its own for the global one."""
    plays: Any = pd.DataFrame([row[:2] for row in rows_of(events)], columns=["userId", "movieId"])
    unique_uid = plays.groupby("userId").size().index
    unique_uid = unique_uid[np.random.RandomState(seed).permutation(unique_uid.size)]
    n_users = unique_uid.size
    tr_users = unique_uid[: n_users - n_heldout * 2]
    vd_users = unique_uid[n_users - n_heldout * 2 : n_users - n_heldout]
    te_users = unique_uid[n_users - n_heldout :]
    train_plays = plays.loc[plays["userId"].isin(tr_users)]
    unique_sid = pd.unique(train_plays["movieId"])

    def split_train_test_proportion(data: Any) -> tuple[Any, Any]:
        random = np.random.RandomState(seed)
        tr_list, te_list = [], []
        for _, group in data.groupby("userId"):
            n_items_u = len(group)
            idx = np.zeros(n_items_u, dtype="bool")
            if n_items_u >= 5:
                idx[random.choice(n_items_u, size=int(test_prop * n_items_u), replace=False).astype("int64")] = True
            tr_list.append(group[np.logical_not(idx)])
            te_list.append(group[idx])
        return pd.concat(tr_list), pd.concat(te_list)

    found = {"items": unique_sid, "train users": tr_users, "train": train_plays}
    for name, users in (("validation", vd_users), ("test", te_users)):
        known = plays.loc[plays["userId"].isin(users) & plays["movieId"].isin(unique_sid)]
        fold_in, targets = split_train_test_proportion(known)
        found |= {f"{name} users": users, f"{name} fold_in": fold_in, f"{name} targets": targets}
    return found


def assert_liangs(split: Split, expected: dict[str, Any]) -> None:
    assert split.item_ids.tolist() == expected["items"].tolist()
    matrices = {"train": (split.train, expected["train users"])}
    for name, part in (("validation", split.validation), ("test", split.test)):
        assert part.user_ids.tolist() == expected[f"{name} users"].tolist()
        matrices |= {f"{name} fold_in": (part.fold_in, part.user_ids), f"{name} targets": (part.targets, part.user_ids)}
    for name, (matrix, users) in matrices.items():
        plays = expected[name]
        assert matrix.nnz == len(plays), name
        assert pairs_of(matrix, users, split.item_ids) == set(zip(plays["userId"], plays["movieId"], strict=True)), name


@given(**logs, n_heldout=st.integers(1, 12), share=st.sampled_from([0.2, 0.5]), split_seed=st.integers(0, 2**32 - 1))
def test_strong_is_what_liangs_code_does(
    random_log: MakeLog, seed: int, n_events: int, n_heldout: int, share: float, split_seed: int
) -> None:
    events = random_log(seed, n_events=n_events)
    split = strong(events, n_heldout, split_seed, share)
    assert_liangs(split, liang(events, n_heldout, split_seed, share))


def test_strong_is_what_liangs_code_does_on_movielens(real_data: Path) -> None:
    events, _ = filter_events(read_events(real_data / "ml-1m" / "ratings.csv"), Filters(min_rating=4))
    split = strong(events, 500)
    assert split.train.shape == (5_034, 3_502)
    assert (split.train.nnz, split.validation.targets.nnz, split.test.targets.nnz) == (480_438, 9_973, 8_582)
    assert_liangs(split, liang(events, 500))


@pytest.mark.slow
@given(**logs)
def test_in_strong_no_user_is_in_two_parts_and_every_one_is_in_one(
    random_log: MakeLog, seed: int, n_events: int
) -> None:
    events = random_log(seed, n_events=n_events, words=True)
    split = strong(events, 8)
    parts_of(split)
    held_out = [*split.validation.user_ids, *split.test.user_ids]
    trained = [row for row in rows_of(events) if row[0] not in held_out]
    assert len(set(held_out)) == 16
    assert {row[0] for row in trained}.isdisjoint(held_out)
    assert split.train.shape[0] == len({row[0] for row in trained})
    assert split.train.nnz == len(trained)
    assert split.item_ids.tolist() == first_seen(row[1] for row in trained)


@pytest.mark.slow
@given(**logs)
def test_in_strong_a_fifth_of_five_items_or_more_are_targets_and_none_of_fewer(
    random_log: MakeLog, seed: int, n_events: int
) -> None:
    events = random_log(seed, n_events=n_events, n_items=100)  # many items, so that few are common
    split = strong(events, 15)
    for part in (split.validation, split.test):
        targets = np.diff(part.targets.indptr)
        sizes = targets + np.diff(part.fold_in.indptr)
        assert targets.tolist() == [int(0.2 * size) if size >= 5 else 0 for size in sizes]


def test_held_out_events_on_items_nobody_trains_on_are_dropped_and_counted() -> None:
    events = Events.from_columns([user for user in range(9) for _ in range(2)], [0, *range(100, 117)])
    split = strong(events, 2)
    assert split.dropped == {"held-out events on items not in training": 8}
    assert split.test.fold_in.nnz == 0


@given(**logs)
def test_in_strong_the_order_of_rows_does_not_change_who_is_in_which_part(
    random_log: MakeLog, seed: int, n_events: int
) -> None:
    events = random_log(seed, n_events=n_events)
    one, other = (strong(log, 8) for log in (events, events.keep(np.random.default_rng(seed).permutation(n_events))))
    assert one.validation.user_ids.tolist() == other.validation.user_ids.tolist()
    assert one.test.user_ids.tolist() == other.test.user_ids.tolist()
    assert sorted(one.item_ids.tolist()) == sorted(other.item_ids.tolist())
    assert one.train.nnz == other.train.nnz


# --- the same users


@given(**logs, share=st.floats(0.05, 0.6))
def test_in_holdout_a_share_of_each_users_items_is_asked_for(
    random_log: MakeLog, seed: int, n_events: int, share: float
) -> None:
    events = random_log(seed, n_events=n_events)
    split = holdout(events, seed, share)
    parts = parts_of(split)
    trained = pairs_of(split.train, split.test.user_ids, split.item_ids)
    assert parts["validation fold_in"] == trained
    assert parts["test fold_in"] == trained | parts["validation targets"]
    everything = {row[:2] for row in rows_of(events)}
    unknown = {pair for pair in everything if pair[1] not in set(split.item_ids.tolist())}
    assert trained | parts["validation targets"] | parts["test targets"] | unknown == everything
    assert split.dropped == {"held-out events on items not in training": len(unknown)}
    assert split.test.user_ids.tolist() == sorted({row[0] for row in rows_of(events)})
    sizes = events.user_counts()[events.user_counts() > 0]
    n_test = np.floor(share * sizes)
    n_train = sizes - n_test - np.floor(share * (sizes - n_test))
    assert np.diff(split.train.indptr).tolist() == n_train.tolist()


def test_holdout_is_the_same_for_the_same_seed_only(random_log: MakeLog) -> None:
    one, same, other = (parts_of(holdout(random_log(), seed))["test targets"] for seed in (1, 1, 2))
    assert one == same
    assert one != other


@given(**logs, words=st.booleans(), split_seed=st.integers(0, 2**32 - 1))
def test_leave_last_out_asks_for_the_last_event_and_of_equal_times_for_one_that_the_seed_chooses(
    random_log: MakeLog, seed: int, n_events: int, words: bool, split_seed: int
) -> None:
    events = random_log(seed, n_users=120, n_events=n_events, words=words)  # many users with fewer than three events
    rows = rows_of(events)
    user_ids, item_ids = (np.array([row[place] for row in rows]) for place in (0, 1))
    draws = pair_hashes(user_ids, item_ids, split_seed).tolist()
    histories: dict[Any, list[tuple[Any, Any]]] = {}
    times: dict[Any, list[int]] = {}
    for _, (user, item, time) in sorted(zip(draws, rows, strict=True), key=lambda one: (one[1][2], one[0])):
        histories.setdefault(user, []).append((user, item))
        times.setdefault(user, []).append(time)
    enough = [history for history in histories.values() if len(history) >= 3]
    last, one_before = {history[-1] for history in enough}, {history[-2] for history in enough}
    trained = {row[:2] for row in rows} - last - one_before
    known = {item for _, item in trained}
    last, one_before = ({pair for pair in pairs if pair[1] in known} for pairs in (last, one_before))
    split = leave_last_out(events, split_seed)
    assert parts_of(split) == {
        "validation fold_in": trained,
        "validation targets": one_before,
        "test fold_in": trained | one_before,
        "test targets": last,
    }
    assert split.dropped == {"held-out events on items not in training": n_events - len(trained | one_before | last)}
    assert split.item_ids.tolist() == first_seen(row[1] for row in rows_of(events) if row[:2] in trained)
    n_tied = sum(len(set(of_user[-3:])) < 3 for of_user in times.values() if len(of_user) >= 3)
    decided = {"seed": split_seed, "tied_users": n_tied} if n_tied else {}
    assert split.protocol == {"split": "leave-last-out", **decided}


@pytest.mark.slow
@given(**logs, words=st.booleans(), protocol=st.sampled_from(["leave-last-out", "time"]), split_seed=st.integers(0, 9))
def test_the_order_of_rows_changes_no_split_by_time(
    random_log: MakeLog, seed: int, n_events: int, words: bool, protocol: str, split_seed: int
) -> None:
    events = random_log(seed, n_events=n_events, words=words)
    events = replace(events, timestamps=timestamps_of(events, protocol) % 40)  # nearly all users have ties
    order = np.random.default_rng(seed).permutation(n_events)
    one, other = (split_events(log, protocol, seed=split_seed) for log in (events, events.keep(order)))
    assert parts_of(one) == parts_of(other)
    assert sorted(one.item_ids.tolist()) == sorted(other.item_ids.tolist())
    assert (one.protocol, one.dropped) == (other.protocol, other.dropped)


def test_the_seed_decides_among_equal_times_as_in_every_version() -> None:
    users, times = np.append(np.repeat(np.arange(6), 4), [6, 6, 7, 7]), [5, 7, 7, 7] * 6 + [1, 2, 3, 4]
    events = Events.from_columns(users, [101, 102, 103, 104] * 7, None, times)
    texts = Events.from_columns([f"u{user}" for user in users], [*"abcd"] * 7, None, times)
    found = []
    for log, seed in ((events, 98765), (events, 1), (texts, 98765)):
        split = leave_last_out(log, seed)
        assert split.protocol == {"split": "leave-last-out", "seed": seed, "tied_users": 6}
        found.append([split.item_ids[row.indices].tolist() for row in split.test.targets[:6]])
    assert found == [
        [[103], [102], [104], [102], [104], [104]],
        [[103], [103], [103], [104], [104], [104]],
        [["c"], ["b"], ["b"], ["b"], ["d"], ["c"]],
    ]


def test_without_equal_times_the_seed_of_leave_last_out_has_no_say() -> None:
    events = Events.from_columns([1, 1, 1, 1, 2, 2, 2, 2, 2], [1, 2, 3, 4] * 2 + [5], None, [1, 1, 2, 3, 4, 1, 2, 3, 4])
    one, other = leave_last_out(events, 1), leave_last_out(events, 2)
    assert other.protocol == {"split": "leave-last-out", "seed": 2, "tied_users": 1}
    events = events.keep(np.arange(9) != 8)  # user 2 has 1, 2, 3, 4 now; of user 1 only the first two are at one time
    one, other = leave_last_out(events, 1), leave_last_out(events, 2)
    assert parts_of(one) == parts_of(other)
    assert one.protocol == other.protocol == {"split": "leave-last-out"}


# --- global moments


@given(**logs)
def test_in_time_nothing_known_is_as_late_as_anything_asked_for(random_log: MakeLog, seed: int, n_events: int) -> None:
    events = random_log(seed, n_events=n_events)
    when = {row[:2]: row[2] for row in rows_of(events)}
    split = time_split(events)
    parts = {name: [when[pair] for pair in pairs] for name, pairs in parts_of(split).items()}
    latest, validation, test = max(parts["validation fold_in"]), parts["validation targets"], parts["test targets"]
    assert latest < min(validation) <= max(validation) < min(test)
    assert max(parts["test fold_in"]) < min(test)
    for part in (split.validation, split.test):
        assert (np.diff(part.fold_in.indptr) > 0).all()
        assert (np.diff(part.targets.indptr) > 0).all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(**logs)
def test_every_event_is_trained_on_held_out_or_counted_as_dropped(
    random_log: MakeLog, protocol: str, seed: int, n_events: int
) -> None:
    """In a split by time, later events of users without a history were neither."""
    events, _ = filter_events(random_log(seed, n_events=n_events), Filters())
    split = split_events(events, protocol, heldout_users=3)
    held_out = split.validation.targets.nnz + split.test.targets.nnz
    if protocol == "strong":  # users of whom nothing was trained on
        held_out += split.validation.fold_in.nnz + split.test.fold_in.nnz
    assert split.train.nnz + held_out + sum(split.dropped.values()) == len(events)


def test_the_moments_of_time_are_where_the_shares_say() -> None:
    moments = np.arange(100)  # user after user takes an item that was there in the first round
    events = Events.from_columns(moments % 20, (moments + moments // 20) % 20, None, moments + 10**9)
    split = time_split(events, validation_share=0.2, test_share=0.3)
    assert (split.train.nnz, split.validation.targets.nnz, split.test.targets.nnz) == (50, 20, 30)
    assert (split.train.shape[0], split.validation.fold_in.nnz, split.test.fold_in.nnz) == (20, 50, 70)
    assert split.dropped == {"later events on items not in training": 0}


def test_in_time_all_events_at_a_moment_are_after_it_and_counted() -> None:
    numbers = np.arange(
        100
    )  # the last 10 begin within the events at moment 12, 84 to 90, the 10 before within 77 to 83
    split = time_split(Events.from_columns(numbers % 20, (numbers + numbers // 20) % 20, None, numbers // 7))
    assert (split.validation.targets.nnz, split.test.targets.nnz) == (7, 16)
    assert (split.protocol["validation_start"], split.protocol["test_start"]) == (11, 12)
    assert split.protocol["tied_events"] == 3 + 6


# --- ready-made pairs


def test_ready_made_keeps_the_items_of_the_training_file_in_its_order(random_log: MakeLog) -> None:
    train, test = random_log(1), random_log(2)
    split = ready_made(train, test, seed=5)
    assert split.item_ids.tolist() == first_seen(row[1] for row in rows_of(train))
    assert split.test.user_ids.tolist() == train.user_ids.tolist()


@pytest.mark.slow
@given(**logs)
def test_ready_made_takes_validation_from_training_and_leaves_the_test_alone(
    random_log: MakeLog, seed: int, n_events: int
) -> None:
    log = random_log(seed, n_users=60, n_items=60, n_events=n_events)
    in_train = np.random.default_rng(seed).random(n_events) < 0.7
    train, test = (
        Events.from_columns(*zip(*[row[:2] for row in rows_of(log.keep(mask))], strict=True))
        for mask in (in_train, ~in_train)
    )
    split = ready_made(train, test, seed)
    parts = parts_of(split)
    trained = {row[:2] for row in rows_of(train)}
    assert parts["test fold_in"] == trained
    assert parts["validation fold_in"] | parts["validation targets"] == trained
    assert pairs_of(split.train, split.test.user_ids, split.item_ids) == parts["validation fold_in"]
    assert np.diff(split.validation.targets.indptr).tolist() == (train.user_counts() // 10).tolist()
    users, items = set(train.user_ids.tolist()), set(train.item_ids.tolist())
    asked = [row[:2] for row in rows_of(test)]
    assert parts["test targets"] == {(user, item) for user, item in asked if user in users and item in items}
    assert split.dropped == {
        "test events of users not in training": sum(user not in users for user, _ in asked),
        "test events on items not in training": sum(user in users and item not in items for user, item in asked),
        "test events already in training": 0,
    }


def test_ready_made_drops_and_counts_test_events_that_are_in_training_already() -> None:
    train = Events.from_columns([1, 1, 2, 2], ["a", "b", "b", "c"])
    test = Events.from_columns([2, 1, 1, 3], ["c", "c", "a", "a"])
    split = ready_made(train, test)
    assert pairs_of(split.test.targets, split.test.user_ids, split.item_ids) == {(1, "c")}
    assert split.dropped == {
        "test events of users not in training": 1,
        "test events on items not in training": 0,
        "test events already in training": 2,
    }


# --- choosing a protocol


def test_every_split_tells_the_protocol_that_ran_and_no_setting_that_had_no_say(random_log: MakeLog) -> None:
    log = random_log()
    told = {
        name: split_events(log, name, heldout_users=4, seed=3, target_share=0.5).protocol
        for name in ("strong", "holdout", "leave-last-out")
    }
    assert told == {
        "strong": {"split": "strong", "seed": 3, "target_share": 0.5, "heldout_users": 4},
        "holdout": {"split": "holdout", "seed": 3, "target_share": 0.5},
        "leave-last-out": {"split": "leave-last-out", "seed": 3, "tied_users": 4},
    }
    assert log.timestamps is not None
    moments = np.sort(log.timestamps)
    assert split_events(log, "time", seed=3, target_share=0.5).protocol == {
        "split": "time",
        "validation_share": 0.1,
        "test_share": 0.1,
        "validation_start": moments[400],
        "test_start": moments[450],
        "tied_events": 4,
    }
    ready = ready_made(random_log(1), random_log(2), 5, 0.3).protocol
    assert ready == {"split": "ready-made", "seed": 5, "validation_share": 0.3}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_has_a_name_and_draws_nothing_from_the_global_generator(
    random_log: MakeLog, protocol: str
) -> None:
    np.random.seed(1)  # noqa: NPY002
    direct: dict[str, Callable[[Events], Split]] = {
        "strong": lambda events: strong(events, 4),
        "holdout": holdout,
        "leave-last-out": leave_last_out,
        "time": time_split,
    }
    named = split_events(random_log(), protocol, heldout_users=4)
    assert parts_of(named) == parts_of(direct[protocol](random_log()))
    assert np.random.random() == np.random.RandomState(1).random_sample()  # noqa: NPY002


@pytest.mark.parametrize(("n_users", "held_out"), [(5, 1), (29, 2), (100, 10), (100_010, 10_000)])
def test_a_tenth_of_the_users_but_10000_at_most_are_held_out(n_users: int, held_out: int) -> None:
    split = split_events(Events.from_columns(np.arange(n_users), np.zeros(n_users, dtype=int)))
    assert (split.validation.n_users, split.test.n_users) == (held_out, held_out)


LOG = Events.from_columns([1, 1, 2, 2, 3, 3], [1, 2, 1, 2, 1, 2], None, [1, 2, 3, 4, 5, 6])
TIMELESS = Events.from_columns([1, 2, 3], [1, 1, 1])
CUT = "^too few distinct timestamps to split by time; check the time column, or use another "


@pytest.mark.parametrize(
    ("split", "error", "message"),
    [
        (lambda: split_events(LOG, "loo"), UsageError, "^got split 'loo', expected one of: strong, holdout, leave-la"),
        (lambda: split_events(LOG, seed=-1), UsageError, "^got seed -1, expected 0 to 4294967295$"),
        (lambda: split_events(LOG, seed=2**32), UsageError, "^got seed 4294967296, expected 0 to 4294967295$"),
        (lambda: ready_made(LOG, LOG, seed=-1), UsageError, "^got seed -1, expected 0 to 4294967295$"),
        (lambda: split_events(LOG.keep(LOG.users < 0)), DataError, "^got no events to split; check the log and the fi"),
        (lambda: strong(LOG, 0), UsageError, "^got 0 held-out users, expected 1 or more for each of validation and t"),
        (
            lambda: strong(LOG, 2),
            DataError,
            "^got 3 users, expected more than 2 x 2 to hold out 2 for each of validation and test; lower --heldout-us",
        ),
        (lambda: strong(LOG, 1, target_share=1.0), UsageError, "^got target share 1.0, expected a number between 0 an"),
        (lambda: holdout(LOG, target_share=0.0), UsageError, "^got target share 0.0, expected a number between 0 and"),
        (
            lambda: ready_made(LOG, LOG, validation_share=np.nan),
            UsageError,
            "^got validation share nan, expected a number",
        ),
        (
            lambda: leave_last_out(TIMELESS),
            UsageError,
            "^the split 'leave-last-out' needs timestamps and the log has none; name them with --time-col$",
        ),
        (lambda: leave_last_out(LOG, -1), UsageError, "^got seed -1, expected 0 to 4294967295$"),
        (lambda: time_split(TIMELESS), UsageError, "^the split 'time' needs timestamps and the log has none; name th"),
        (lambda: time_split(Events.from_columns([1, 2], [1, 2], None, [5, 5])), DataError, CUT),
        (lambda: time_split(LOG), DataError, CUT),
        (
            lambda: time_split(Events.from_columns([*range(20)], [1] * 20, None, [*range(20)])),
            DataError,
            "^no user has events both before and after the time of the split; use another --split$",
        ),
        (
            lambda: ready_made(LOG, Events.from_columns(["ann"], ["heat"])),
            DataError,
            "^no test event has a user and an item of the training file; check that both files use the same ids$",
        ),
        (
            lambda: ready_made(LOG, LOG),
            DataError,
            "^every test event is also in the training file; check that the test file is the right one$",
        ),
        (
            lambda: time_split(LOG, 0.0),
            UsageError,
            "^got validation share 0.0, expected a number between 0 and 1, such",
        ),
        (lambda: time_split(LOG, 0.1, -0.1), UsageError, "^got test share -0.1, expected a number between 0 and 1, su"),
        (
            lambda: time_split(LOG, 0.6, 0.7),
            UsageError,
            "^got validation share 0.6 and test share 0.7, expected a sum below 1; leave something to train on$",
        ),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(split: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        split()


def test_ties_are_printed(workplace: Path, command: Callable[..., Any]) -> None:
    lines = [f"u{user},i{(user + item) % 9},{2 * item // 3}" for user in range(40) for item in range(9)]
    Path("log.csv").write_text("\n".join(["user,item,timestamp", *lines]))
    for split, tied in (
        ("leave-last-out", "ties: 40 users have last items with equal times; --seed decides which of them are the tar"),
        ("time", "ties: 52 events have the time at which a later part begins, and are in that part"),
    ):
        said = command("preprocess", "log.csv", "--split", split, "--overwrite")
        assert said.code == 0 and tied in said.out, said
