"""SANSA against EASE, against regressions in float64, and where it may go wrong: blocks, ties, rounding, memory."""

import functools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recvae.bundles.bundle import Bundle, read_bundle, write_bundle
from recvae.compute import sparse_inverse
from recvae.compute.sparse_inverse import _largest, _solve, inverse_factor, largest_entries
from recvae.datasets.dataset import Dataset
from recvae.datasets.synthetic import synthetic_log
from recvae.errors import MemoryLimitError, UsageError
from recvae.interactions import HeldOut, interactions
from recvae.models import EASE, SANSA, sansa
from recvae.training.validation import validation_ndcg

# Letters in shape comments: U users, I items.


def users(seed: int = 0, n_users: int = 80, n_items: int = 30, weighted: bool = False) -> sp.csr_matrix:
    """Return users with items of different popularity, an item of nobody, and a user with nothing."""
    rng = np.random.default_rng(seed)
    dense = (rng.random((n_users, n_items)) < rng.uniform(0.05, 0.6, n_items)).astype(np.float32)
    dense[4], dense[:, 7] = 0, 0
    if weighted:
        dense *= rng.integers(1, 4, dense.shape)
    return sp.csr_matrix(dense)


@functools.cache
def made_up() -> tuple[sp.csr_matrix, HeldOut]:
    """Return users with tastes, and held-out users."""
    events, _ = synthetic_log(n_users=3000, n_items=300, n_events=60_000, seed=3)
    everyone = interactions(events.users, events.items, (3000, 300))
    train, rest = everyone[:-300], everyone[-300:]
    is_target = sp.csr_matrix((np.random.default_rng(0).random(rest.nnz) < 0.3, rest.indices, rest.indptr), rest.shape)
    targets = sp.csr_matrix(rest.multiply(is_target))
    targets.eliminate_zeros()
    return train, HeldOut.of((rest - targets, targets), 300)


def nothing(share: float) -> None:
    """Ignore how far the work is."""


def unit_gram(train: sp.csr_matrix, l2: float) -> tuple[sp.csr_matrix, np.ndarray]:
    """Return X scaled such that X^T X + l2 I has a unit diagonal, most popular item first, and that matrix (I, I)."""
    order = np.argsort(-np.bincount(train.indices, minlength=train.shape[1]), kind="stable")
    scale = sansa._scale(train, l2)[order]
    rows = sansa._ordered(train, order, scale)
    dense = rows.toarray().astype(np.float64)
    gram = dense.T @ dense
    np.fill_diagonal(gram, 1.0)
    return rows, gram


def b_of(model: SANSA) -> np.ndarray:
    return model.similarities(np.arange(model.n_items_)).astype(np.float64)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("l2", [0.5, 5.0, 500.0])
def test_with_all_entries_it_is_ease(l2: float, weighted: bool) -> None:
    train = users(weighted=weighted)
    dense = train.toarray().astype(np.float64)
    precision = np.linalg.inv(dense.T @ dense + l2 * np.eye(30))
    expected = -precision / precision.diagonal()
    np.fill_diagonal(expected, 0)
    model = SANSA(l2=l2, entries=29).fit(train)
    np.testing.assert_allclose(b_of(model), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(model.score(train), EASE(l2=l2).fit(train).score(train), rtol=1e-3, atol=1e-5)


def test_the_factor_with_all_entries_is_the_inverse_of_the_cholesky_factor() -> None:
    rows, gram = unit_gram(users(), 2.0)
    factor, d = inverse_factor(largest_entries(rows, 30, nothing), 30, 1, nothing)
    lower = np.linalg.cholesky(gram)
    np.testing.assert_allclose(factor.toarray(), np.linalg.inv(lower / lower.diagonal()), atol=1e-5)
    np.testing.assert_allclose(d, lower.diagonal() ** 2, rtol=1e-5)


@pytest.mark.parametrize("candidates", [1, 3])
def test_rows_of_the_factor_are_regressions_and_a_w_is_0_where_w_is_not(candidates: int) -> None:
    """(A W^T)_ji = 0 for j in S: that defines the factorised sparse approximate inverse."""
    rows, gram = unit_gram(users(1, 200, 40), 3.0)
    nearest = largest_entries(rows, 40, nothing)
    factor, d = inverse_factor(nearest, 5, candidates, nothing)
    dense = factor.toarray().astype(np.float64)
    assert np.diff(factor.indptr).max() == 6
    assert not np.triu(dense, 1).any() and (dense.diagonal() == 1).all()
    product = dense @ gram
    off = (dense != 0) & ~np.eye(40, dtype=bool)
    assert off.sum() > 150
    np.testing.assert_allclose(product[off], 0, atol=1e-6)
    np.testing.assert_allclose((product * dense).sum(axis=1), d, rtol=1e-5)
    if candidates == 1:
        for item in range(40):
            best = sorted(range(item), key=lambda j: (-np.float32(gram[item, j]), j))[:5]
            assert set(np.flatnonzero(off[item])) == {j for j in best if gram[item, j] > 0}


def divergence(factor: sp.csr_matrix, d: np.ndarray, gram: np.ndarray) -> float:
    """Return the Kullback-Leibler divergence between the normal distributions of A^-1 and W^T D^-1 W."""
    dense = factor.toarray().astype(np.float64)
    product = dense.T @ (dense / d[:, None]) @ gram
    return float((np.trace(product) - len(d) - np.linalg.slogdet(product)[1]) / 2)


def test_more_entries_and_more_candidates_come_nearer_to_the_inverse() -> None:
    rows, gram = unit_gram(made_up()[0], 50.0)
    nearest = largest_entries(rows, 300, nothing)
    found = [divergence(*inverse_factor(nearest, n, 1, nothing), gram) for n in (1, 5, 20, 300)]
    assert found == sorted(found, reverse=True) and found[0] > 3 * found[2] and found[-1] == pytest.approx(0, abs=1e-5)
    tried = [divergence(*inverse_factor(nearest, 5, n, nothing), gram) for n in (1, 2, 4)]
    assert tried[0] > tried[1] > tried[2]


@pytest.mark.parametrize("pairs", [1, 500, 1 << 24])
def test_largest_entries_are_those_of_the_whole_product_however_it_is_cut(
    pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_inverse, "_PAIRS", pairs)
    monkeypatch.setattr(sparse_inverse, "_WHOLE", 10)
    train = users(3, 60, 40)
    gram = (train.T @ train).toarray()  # whole numbers, many of them equal
    shares: list[float] = []
    found = largest_entries(train, 4, shares.append)
    for item in range(40):
        best = sorted((j for j in range(item) if gram[item, j]), key=lambda j: (-gram[item, j], j))
        best = best[: 4 if item >= 10 else item]
        best += [j for j in range(item) if item <= 4 and j not in best]  # where all fit
        part = slice(found.indptr[item], found.indptr[item + 1])
        assert found.indices[part].tolist() == best
        np.testing.assert_array_equal(found.data[part], gram[item, best])
    assert shares == sorted(shares) and shares[-1] == 1


def test_of_equal_entries_the_first_columns_are_kept() -> None:
    columns, values = _largest(np.array([5, 3, 9, 1, 7]), np.array([2.0, 1.0, 9.0, 1.0, 1.0]), 8, 3)
    assert (columns.tolist(), values.tolist()) == ([5, 1, 3], [2.0, 1.0, 1.0])


@pytest.mark.parametrize("local", [1, 40, 1024])
def test_batches_do_not_change_the_factor(local: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train = users(4, 100, 50)
    expected = SANSA(l2=2.0, entries=6).fit(train)
    monkeypatch.setattr(sparse_inverse, "_LOCAL", local)
    found = SANSA(l2=2.0, entries=6).fit(train)
    np.testing.assert_allclose(b_of(found), b_of(expected), rtol=1e-5, atol=1e-7)


def test_a_fit_is_the_same_to_the_bit_and_so_is_its_bundle(blocks: Dataset, tmp_path: Path) -> None:
    one, other = (SANSA(l2=5.0, entries=4).fit(blocks.train) for _ in range(2))
    write_bundle(tmp_path, Bundle(model=one, items=blocks.items))
    copy = read_bundle(tmp_path).model
    for name, value in one.weights().items():
        np.testing.assert_array_equal(other.weights()[name], value)
        np.testing.assert_array_equal(copy.weights()[name], value, strict=True)
    np.testing.assert_array_equal(copy.score(blocks.test.fold_in), one.score(blocks.test.fold_in))


@pytest.mark.parametrize("l2", [0.01, 5.0, 500.0])
def test_no_item_explains_itself(l2: float) -> None:
    train = users(5, 200, 60)
    model = SANSA(l2=l2, entries=7).fit(train)
    alone = model.score(sp.csr_matrix(100 * np.eye(60, dtype=np.float32))) / 100
    np.testing.assert_allclose(alone.diagonal(), 0, atol=1e-5)
    np.testing.assert_allclose(alone, b_of(model), atol=1e-5)
    assert not b_of(model).diagonal().any(), "exactly 0"


def test_contributions_add_up_to_the_score() -> None:
    train = users(6, 200, 60, weighted=True)
    model = SANSA(l2=3.0, entries=7).fit(train)
    history, columns = train[2], np.array([5, 0, 59, int(train[2].indices[0])])
    found = model.contributions(history, columns)
    np.testing.assert_allclose(found.sum(axis=0), model.score(history)[0, columns], atol=1e-5)
    assert found[0, 3] == 0, "an item says nothing of itself"
    some = np.array([3, 4])
    np.testing.assert_allclose(model.similarities(some, columns), model.similarities(some)[:, columns], atol=1e-7)


def test_groups_of_items_that_nobody_has_together_say_nothing_of_each_other() -> None:
    train = sp.csr_matrix(sp.block_diag([users(7, 60, 20), users(8, 60, 20)]))
    weights = b_of(SANSA(l2=1.0, entries=5).fit(train))
    assert not weights[:20, 20:].any() and not weights[20:, :20].any() and weights[:20, :20].any()


def test_items_of_nobody_and_data_without_a_unique_answer_give_finite_scores() -> None:
    for train in (users(9), sp.csr_matrix((4, 3)), sp.csr_matrix(np.ones((6, 5))), sp.csr_matrix([[1.0]])):
        for l2 in (0.0, 1e-30, 2.0):
            model = SANSA(l2=l2).fit(train)
            scores = model.score(sp.csr_matrix(np.ones((1, train.shape[1]))))
            assert np.isfinite(scores).all() and np.abs(scores).max() < 1e4
    train = users(9)
    assert not b_of(SANSA(l2=0.0).fit(train))[7].any() and not b_of(SANSA(l2=0.0).fit(train))[:, 7].any()


def test_weights_of_any_size_are_scaled_before_they_are_squared() -> None:
    train = users(10, 60, 12)
    expected = b_of(SANSA(l2=4.0, entries=11).fit(train))
    for scale in (1e8, 1e-8):  # near the bounds of what weights may be
        again = train.copy()
        again.data *= np.float32(scale)
        np.testing.assert_allclose(b_of(SANSA(l2=4 * scale**2, entries=11).fit(again)), expected, atol=1e-5)


def test_a_block_that_is_not_positive_definite_is_made_smaller_until_it_is() -> None:
    good = np.array([[1, 0, 0], [0.5, 1, 0], [0.5, 0.2, 1.0]])
    bad = np.array([[1, 0, 0], [0.9, 1, 0], [0.9, 0.0, 1.0]])  # 1 and 2 are both like 0, but not like each other
    assert np.linalg.eigvalsh(bad).min() < 0
    y, d = _solve(np.stack([good, bad]))
    np.testing.assert_allclose(y[0], np.linalg.solve([[1, 0.5], [0.5, 1]], [0.5, 0.2]))
    times = next(t for t in sparse_inverse._SMALLER if np.linalg.eigvalsh(times_off(bad, t)).min() > 0)
    assert times == 0.6
    smaller = times_off(bad, times)
    smaller += np.tril(smaller, -1).T
    np.testing.assert_allclose(y[1], np.linalg.solve(smaller[:2, :2], smaller[2, :2]))
    assert d[1] == pytest.approx(1 - smaller[2, :2] @ y[1]) and d[1] > 0


def times_off(block: np.ndarray, times: float) -> np.ndarray:
    return times * block + (1 - times) * np.eye(len(block))


def test_two_columns_that_are_one_are_told_apart_no_more() -> None:
    y, d = _solve(np.array([[[1, 0, 0], [1, 1, 0], [0.5, 0.5, 1.0]]]))
    assert np.isfinite(y).all() and y[0, 0] == pytest.approx(y[0, 1]) and 0 < d[0] <= 1


def test_quality_rises_with_the_entries_up_to_that_of_ease() -> None:
    train, held_out = made_up()
    found = [validation_ndcg(SANSA(l2=50.0, entries=n).fit(train)._score_block, held_out) for n in (1, 2, 5)]
    whole = validation_ndcg(EASE(l2=50.0).fit(train)._score_block, held_out)
    assert found == sorted(found, key=lambda value: value or 0) and found[0] != found[2]
    assert found[2] == pytest.approx(whole, abs=0.01)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"l2": -1.0}, r"got l2=-1.0, expected a number, 0 or more"),
        ({"entries": 0}, r"got entries=0, expected a whole number, at least 1 and at most 1,000"),
        ({"entries": 1001}, r"got entries=1001, expected a whole number, at least 1 and at most 1,000"),
        ({"entries": 0.01}, r"got entries=0.01, expected a whole number"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SANSA(**values).fit(users())


def test_what_does_not_fit_is_refused_with_what_to_do() -> None:
    said = r"^sansa on 1,000,000 items needs .* GB of memory, 1\.0 GB is allowed by --max-memory; raise --max-memory, "
    with pytest.raises(MemoryLimitError, match=said + r"lower entries=50, or leave out rare items"):
        SANSA().fit(sp.csr_matrix((2, 1_000_000)), max_memory=10**9)


@pytest.mark.slow
@pytest.mark.parametrize("entries", [5, 60])
def test_it_takes_no_more_memory_than_it_says(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_inverse, "_PAIRS", 1 << 20)
    rng = np.random.default_rng(0)
    columns = (4000 * rng.random(60_000) ** 2).astype(np.int64)
    train = sp.csr_matrix((np.ones(60_000, np.float32), (rng.integers(0, 2000, 60_000), columns)), shape=(2000, 4000))
    model = SANSA(entries=entries)
    needed = model.needs(*train.shape, train.nnz)
    tracemalloc.start()
    model.fit(train, max_memory=needed.training)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert needed.training / 3 < peak < needed.training
    weights = sum(array.nbytes for array in model.weights().values())
    assert needed.weights / 3 < weights <= needed.weights
