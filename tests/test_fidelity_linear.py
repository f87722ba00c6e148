"""EASE and EDLAE against the least-squares problems that define them, solved another way in float64."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recvae.models import EASE, EDLAE

# Letters in shape comments: U users, I items.


def rows(n_users: int = 40, n_items: int = 9, weighted: bool = False) -> sp.csr_matrix:
    """Return users with items of different popularity, one user with none."""
    rng = np.random.default_rng(1)
    dense = (rng.random((n_users, n_items)) < rng.uniform(0.1, 0.8, n_items)).astype(np.float32)
    dense[4] = 0
    if weighted:
        dense *= rng.integers(1, 4, dense.shape)
    return sp.csr_matrix(dense)


def weights_of(model: EASE) -> np.ndarray:
    return model.weights()["similarity"].astype(np.float64)


def column_by_column(inputs: np.ndarray, targets: np.ndarray, l2: float) -> np.ndarray:
    """Return the B (I, I) that minimises |targets - inputs B|^2 + l2 |B|^2 without a diagonal.

    Column j is an ordinary ridge regression of item j on all others, solved as least squares with the penalty as
    further rows.
    """
    n_items = inputs.shape[1]
    weights = np.zeros((n_items, n_items))
    for item in range(n_items):
        others = np.arange(n_items) != item
        left = np.vstack([inputs[:, others], np.sqrt(l2) * np.eye(n_items - 1)])
        right = np.concatenate([targets[:, item], np.zeros(n_items - 1)])
        weights[others, item] = np.linalg.lstsq(left, right)[0]
    return weights


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("l2", [0.5, 5.0, 500.0])
def test_ease_weights_solve_the_constrained_least_squares_problem(l2: float, weighted: bool) -> None:
    """Dividing -P_ij by P_ii instead of P_jj, its transpose, still looks plausible and still recommends."""
    x = rows(weighted=weighted)
    expected = column_by_column(x.toarray().astype(np.float64), x.toarray().astype(np.float64), l2)
    assert np.abs(expected - expected.T).max() > 1e-3 * np.abs(expected).max()  # the transpose would not do
    np.testing.assert_allclose(weights_of(EASE(l2=l2).fit(x)), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", [EASE(l2=0.5), EASE(l2=500.0), EDLAE(l2=0.5), EDLAE(l2=300.0, dropout=0.8)])
@pytest.mark.parametrize("n_items", [2, 9, 300])
def test_diagonal_is_exactly_0(model: EASE, n_items: int) -> None:
    """Nearly 0 is enough to rank every item by what the user has already."""
    assert not weights_of(model.fit(rows(n_items=n_items))).diagonal().any()


@pytest.mark.parametrize("model", [EASE(l2=5.0), EDLAE(l2=5.0)])
def test_scores_are_the_users_row_times_the_weights(model: EASE) -> None:
    """Neither normalised nor transposed: x B, with the weights of the row as they are."""
    x = rows(weighted=True)
    model.fit(x)
    np.testing.assert_allclose(model.score(x), x.toarray() @ weights_of(model), rtol=1e-5, atol=1e-6)


def test_edlae_without_dropout_is_ease_to_the_bit() -> None:
    for x in (rows(), rows(weighted=True)):
        np.testing.assert_array_equal(weights_of(EDLAE(l2=5.0, dropout=0.0).fit(x)), weights_of(EASE(l2=5.0).fit(x)))


def all_maskings(x: np.ndarray, p: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every user under every mask: dropped and scaled inputs, targets, and the probability of each row."""
    masks = np.array(list(product([0, 1], repeat=x.shape[1])))  # (2^I, I), 1 where kept
    probabilities = np.prod(np.where(masks == 1, 1 - p, p), axis=1)  # (2^I,)
    inputs = (x[:, None, :] * masks[None] / (1 - p)).reshape(-1, x.shape[1])
    return inputs, np.repeat(x, len(masks), axis=0), np.tile(probabilities, len(x))


@pytest.mark.parametrize("p", [0.1, 0.33, 0.7])
@pytest.mark.parametrize("weighted", [False, True])
def test_edlae_minimises_the_expectation_of_the_loss_under_dropout(p: float, weighted: bool) -> None:
    """By enumeration: 4 items have 16 masks, and a row weighted by its probability counts that often."""
    x = rows(12, 4, weighted)
    inputs, targets, probability = all_maskings(x.toarray().astype(np.float64), p)
    root = np.sqrt(probability)[:, None]
    expected = column_by_column(root * inputs, root * targets, l2=2.0)
    np.testing.assert_allclose(weights_of(EDLAE(l2=2.0, dropout=p).fit(x)), expected, rtol=1e-4, atol=1e-5)
    without = column_by_column(x.toarray().astype(np.float64), x.toarray().astype(np.float64), l2=2.0)
    assert np.abs(expected - without).max() > 0.01  # dropout does make a difference here


@pytest.mark.parametrize("p", [0.0, 0.1, 0.33, 0.7])
def test_the_penalty_is_what_dropout_adds_to_the_loss_of_any_weights_without_diagonal(p: float) -> None:
    x = rows(12, 4).toarray().astype(np.float64)
    inputs, targets, probability = all_maskings(x, p)
    penalty = EDLAE(l2=2.0, dropout=p)._penalty((x**2).sum(axis=0)) - 2.0  # (I,) besides l2
    rng = np.random.default_rng(0)
    for _ in range(5):
        weights = rng.normal(0, 1, (4, 4))
        np.fill_diagonal(weights, 0)
        expectation = (probability[:, None] * (targets - inputs @ weights) ** 2).sum()
        added = (penalty[:, None] * weights**2).sum()
        assert expectation == pytest.approx(((x - x @ weights) ** 2).sum() + added, rel=1e-9)


def test_edlae_holds_popular_items_back_more_than_rare_ones() -> None:
    """A penalty equal for all items is EASE with a larger l2."""
    counts = np.array([1.0, 10.0, 100.0])
    np.testing.assert_allclose(EDLAE(l2=5.0, dropout=0.5)._penalty(counts), 5 + counts)
    np.testing.assert_allclose(EDLAE(l2=5.0, dropout=0.75)._penalty(counts), 5 + 3 * counts)
    np.testing.assert_allclose(EASE(l2=5.0)._penalty(counts), 5.0)


@pytest.mark.parametrize("settings", [{"l2": 500.0}])
def test_defaults_are_the_papers(settings: dict[str, Any]) -> None:
    assert EASE() == EASE(**settings)
    assert EDLAE() == EDLAE(l2=300.0, dropout=0.33)
