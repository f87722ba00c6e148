"""The joined training matrix: under every protocol the union of the parts, each interaction once, one row a user."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events, Filters
from recvae.datasets.joining import join
from recvae.datasets.parts import ALL, ON, SEEN, VALIDATION_TOO, check_on
from recvae.datasets.splits.protocols import PROTOCOLS
from recvae.datasets.splits.ready_made import other_users, ready_made
from recvae.errors import DataError, UsageError
from recvae.interactions import HeldOut

Pairs = dict[Any, dict[int, float]]
KINDS = (*PROTOCOLS, "ready-made", "ready-made with validation", "other users")


def log(seed: int, words: bool) -> Events:
    """Return a log with many short histories that are equal, and many equal times."""
    generator = np.random.default_rng(seed)
    n_users, n_items = int(generator.integers(12, 40)), int(generator.integers(4, 12))
    pairs = np.flatnonzero(generator.random(n_users * n_items) < 0.4)
    pairs = generator.permutation(pairs)
    users = 7 * (pairs // n_items) + 3
    times = generator.integers(0, 60, size=len(pairs))
    return Events.from_columns([f"u{user}" for user in users] if words else users, pairs % n_items, None, times)


def some(events: Events, chosen: np.ndarray) -> Events:
    """Return chosen events (a mask) as a log of their own, as another file would be read."""
    users, items = events.user_ids[events.users[chosen]], events.item_ids[events.items[chosen]]
    return Events.from_columns(list(users), list(items), None, None)


def made(kind: str, seed: int, words: bool = False) -> Dataset:
    """Return a data set of random events by a protocol."""
    events = log(seed, words)
    if kind in PROTOCOLS:
        return Dataset.from_events(
            events, name="toy", filters=Filters(min_user_items=1), split=kind, heldout_users=4, seed=seed
        )
    share = np.random.default_rng(seed + 1).random(len(events))
    parts = [some(events, (share >= low) & (share < high)) for low, high in ((0, 0.6), (0.6, 0.8), (0.8, 1))]
    if kind == "ready-made":
        split = ready_made(parts[0], parts[2], seed)
    elif kind == "ready-made with validation":
        split = ready_made(parts[0], parts[2], validation=parts[1])
    else:  # the same users in all files, so that each may be in any number of parts
        halves = [some(events, (share >= low) & (share < low + 0.1)) for low in (0.6, 0.7, 0.8, 0.9)]
        split = other_users(parts[0], (halves[0], halves[1]), (halves[2], halves[3]))
    return Dataset.from_split(split, name="toy")


def pairs_of(*parts: tuple[Any, sp.csr_matrix]) -> Pairs:
    """Return the weight of each item by user id, of matrices with the ids of their rows."""
    found: Pairs = defaultdict(dict)
    for ids, matrix in parts:
        cells = sp.coo_matrix(matrix)
        cells.sum_duplicates()
        for row, column, weight in zip(cells.row.tolist(), cells.col.tolist(), cells.data.tolist(), strict=True):
            if weight != 0:
                found[ids[row]][column] = weight
    return found


def union_of(dataset: Dataset, on: str) -> Pairs:
    """Return the union of the parts, made pair by pair."""
    held_out = [dataset.validation, dataset.test][: 1 + (on == ALL)]
    of_parts = [(part.user_ids, matrix) for part in held_out for matrix in (part.fold_in, part.targets)]
    return pairs_of((dataset.train_user_ids, dataset.train), *of_parts)


def rows_of(matrix: sp.csr_matrix) -> Counter[frozenset[tuple[int, float]]]:
    """Return the rows as sets of items with weights, without regard to their order."""
    matrix = sp.csr_matrix(matrix)
    ends = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    rows = [list(zip(matrix.indices[a:b].tolist(), matrix.data[a:b].tolist(), strict=True)) for a, b in ends]
    assert all(len(set(row)) == len(row) for row in rows)  # each interaction once
    return Counter(frozenset(row) for row in rows if row)


def is_same(one: Any, other: Any) -> bool:
    return (one != other).nnz == 0


def as_rows(pairs: Pairs) -> Counter[frozenset[tuple[int, float]]]:
    return Counter(frozenset(row.items()) for row in pairs.values() if row)


@pytest.mark.slow
@settings(max_examples=80)
@given(kind=st.sampled_from(KINDS), on=st.sampled_from(ON), seed=st.integers(0, 10_000), words=st.booleans())
def test_the_joined_rows_are_the_union_of_the_parts_user_by_user(kind: str, on: str, seed: int, words: bool) -> None:
    try:
        dataset = made(kind, seed, words)
    except DataError:
        return  # too few events to split
    if on == VALIDATION_TOO and kind == "other users":
        leaks = union_of(dataset, on)
        test = pairs_of((dataset.test.user_ids, dataset.test.targets))
        if any(item in leaks.get(user, {}) for user, row in test.items() for item in row):
            with pytest.raises(DataError, match="are also interactions of the same users in training or validation"):
                join(dataset, on)
            return
    joined = join(dataset, on)
    assert rows_of(joined) == as_rows(union_of(dataset, on))
    assert joined.shape[1] == len(dataset.item_ids) and joined.dtype == np.float32 and joined.has_canonical_format
    n_train = dataset.train.shape[0]
    for row in range(n_train):  # training users come first, in their order, with all that they had
        assert set(dataset.train[row].indices) <= set(joined[row].indices)
    assert (np.diff(joined.indptr)[n_train:] > 0).all()


@pytest.mark.slow
@settings(max_examples=60)
@given(kind=st.sampled_from(KINDS[:-1]), seed=st.integers(0, 10_000))
def test_no_test_target_is_trained_on_unless_all_is_asked_for(kind: str, seed: int) -> None:
    try:
        dataset = made(kind, seed)
    except DataError:
        return
    targets = pairs_of((dataset.test.user_ids, dataset.test.targets))
    trained = union_of(dataset, VALIDATION_TOO)
    assert rows_of(join(dataset, VALIDATION_TOO)) == as_rows(trained)  # so these pairs are what was joined
    assert not any(item in trained.get(user, {}) for user, row in targets.items() for item in row)
    n_targets = sum(map(len, targets.values()))
    if kind != "time":  # where the test users may have a history of their own
        before = join(dataset, VALIDATION_TOO).nnz + (dataset.test.fold_in.nnz if kind == "strong" else 0)
        assert join(dataset, ALL).nnz == before + n_targets


@pytest.mark.parametrize("kind", ["holdout", "leave-last-out", "ready-made", "ready-made with validation"])
def test_where_users_are_the_same_the_history_of_a_test_is_what_was_joined(kind: str) -> None:
    dataset = made(kind, 3)
    assert is_same(join(dataset, VALIDATION_TOO), dataset.test.fold_in)  # row by row


@pytest.mark.parametrize("kind", ["strong", "holdout", "leave-last-out", "ready-made", "ready-made with validation"])
@pytest.mark.parametrize("on", ON)
def test_a_data_set_of_an_earlier_version_is_joined_alike(kind: str, on: str) -> None:
    dataset = made(kind, 5)
    earlier = replace(dataset, train_user_ids=None)
    assert is_same(join(earlier, on), join(dataset, on))


@pytest.mark.parametrize("kind", ["time", "other users"])
def test_where_an_earlier_version_did_not_keep_whose_rows_these_are_it_is_refused(kind: str, tmp_path: Path) -> None:
    dataset = made(kind, 5)
    said = r"toy does not say which of its held-out users were trained on \(split: (time|ready-made)\)"
    with pytest.raises(DataError, match=rf"{said}.*run the same `recvae preprocess` again"):
        join(replace(dataset, train_user_ids=None))
    dataset.save(tmp_path / "toy")
    (tmp_path / "toy" / "train_users.parquet").unlink()  # as an earlier version wrote it
    earlier = Dataset.load(tmp_path / "toy")
    assert earlier.train_user_ids is None and earlier.fingerprint == dataset.fingerprint
    with pytest.raises(DataError, match="The fingerprint stays the same"):
        join(earlier, ALL)


def test_a_split_that_is_not_known_is_refused(blocks: Dataset) -> None:
    with pytest.raises(DataError, match=r"\(split: none\)"):
        join(blocks)


def test_rows_that_only_look_like_those_of_training_are_not_taken_for_the_same_users() -> None:
    dataset = replace(made("holdout", 3), train_user_ids=None)
    rolled = sp.csr_matrix(dataset.train[np.roll(np.arange(dataset.train.shape[0]), 1)])
    other = replace(dataset.validation, fold_in=rolled)
    with pytest.raises(DataError, match="holdout, with other rows in validation than in training"):
        join(replace(dataset, validation=other))


def test_ids_come_back_from_disk_and_rows_are_those_of_these_users(
    random_log: Callable[..., Events], tmp_path: Path
) -> None:
    for split in PROTOCOLS:
        events = random_log(words=True)
        dataset = Dataset.from_events(events, name="toy", filters=Filters(), split=split)
        dataset.save(tmp_path / split)
        ids = Dataset.load(tmp_path / split).train_user_ids
        assert ids is not None and ids.tolist() == dataset.train_user_ids.tolist()  # type: ignore[union-attr]
        log_pairs = set(zip(events.user_ids[events.users], events.item_ids[events.items], strict=True))
        rows, columns = dataset.train.nonzero()
        assert {(ids[row], dataset.item_ids[column]) for row, column in zip(rows, columns, strict=True)} <= log_pairs


def test_weights_are_kept_and_two_weights_of_one_interaction_are_refused() -> None:
    dataset = made("holdout", 3)

    def weighted(matrix: sp.csr_matrix) -> sp.csr_matrix:
        rows, columns = matrix.nonzero()
        return sp.csr_matrix((1 + rows + columns / 4, (rows, columns)), shape=matrix.shape, dtype=np.float32)

    def with_weights(part: HeldOut) -> HeldOut:
        return replace(part, fold_in=weighted(part.fold_in), targets=weighted(part.targets))

    heavy = replace(
        dataset,
        train=weighted(dataset.train),
        validation=with_weights(dataset.validation),
        test=with_weights(dataset.test),
    )
    assert is_same(join(heavy, ALL), weighted(join(dataset, ALL)))
    twice = replace(heavy, train=heavy.train * 2)
    with pytest.raises(DataError, match="toy has an interaction with another weight in training than among"):
        join(twice)


def test_users_that_are_there_twice_or_in_two_parts_of_strong_are_refused() -> None:
    dataset = made("strong", 3)
    numbered = HeldOut(fold_in=dataset.test.fold_in, targets=dataset.test.targets)
    clash = replace(dataset, train_user_ids=None, test=numbered, validation=replace(numbered))
    for on in ON:
        with pytest.raises(DataError, match="the same user in two of its parts"):
            join(clash, on)
    ids = dataset.train_user_ids
    assert ids is not None
    with pytest.raises(DataError, match="has a user twice in its train part"):
        join(replace(dataset, train_user_ids=np.repeat(ids[:1], len(ids))))
    with pytest.raises(DataError, match=r"got 3 ids of [\d,]+ training users; preprocess toy again"):
        join(replace(dataset, train_user_ids=ids[:3]))


def test_held_out_users_without_any_interaction_get_no_row() -> None:
    dataset = made("strong", 3)
    empty = sp.csr_matrix(dataset.validation.fold_in.shape).astype(np.float32)
    nobody = replace(dataset.validation, fold_in=empty, targets=empty)
    assert is_same(join(replace(dataset, validation=nobody)), dataset.train)


def test_an_unknown_choice_of_parts_is_refused() -> None:
    with pytest.raises(UsageError, match=r"got --on 'test', expected one of: train\+validation, all"):
        join(made("strong", 3), "test")
    assert check_on(ALL) == ALL and SEEN[VALIDATION_TOO] == ("validation",) and SEEN[ALL] == ("validation", "test")
