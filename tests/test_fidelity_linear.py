"""EASE and EDLAE against the least-squares problems that define them, solved another way in float64."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recvae.models import EASE, EDLAE, SANSA, InfAE
from recvae.models.common.penalties import l2_by_size, two_digits, typical_l2

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
    penalty = EDLAE(dropout=p)._penalty((x**2).sum(axis=0), l2=2.0) - 2.0  # (I,) besides l2
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
    np.testing.assert_allclose(EDLAE(dropout=0.5)._penalty(counts, l2=5.0), 5 + counts)
    np.testing.assert_allclose(EDLAE(dropout=0.75)._penalty(counts, l2=5.0), 5 + 3 * counts)
    np.testing.assert_allclose(EDLAE(dropout=0.0)._penalty(counts, l2=5.0), 5.0)


# Relaxed diagonals: RLAE, RDLAE and DLAE (Moon et al., SIGIR 2023)


def relaxed(x: np.ndarray, penalty: np.ndarray, largest: float) -> np.ndarray:
    """Return the B (I, I) that minimises |X - X B|^2 + sum_i penalty_i |B_i|^2 with B_jj <= largest.

    Column j is a ridge regression on all items; where its own weight comes out too large it is fixed at the largest
    one, and what is left is a regression on the others.
    """
    n_items = x.shape[1]
    weights = np.zeros((n_items, n_items))
    for item in range(n_items):
        left = np.vstack([x, np.diag(np.sqrt(penalty))])  # (U + I, I)
        right = np.concatenate([x[:, item], np.zeros(n_items)])
        column = np.linalg.lstsq(left, right)[0]
        if column[item] > largest:
            others = np.arange(n_items) != item
            column[item] = largest
            column[others] = np.linalg.lstsq(left[:, others], right - largest * left[:, item])[0]
        weights[:, item] = column
    return weights


def without_diagonal(weights: np.ndarray) -> np.ndarray:
    return weights * (1 - np.eye(len(weights)))


@pytest.mark.parametrize("relax", [0.0, 0.05, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_relax_bounds_the_diagonal_of_the_least_squares_problem(relax: float, dropout: float, l2: float) -> None:
    x = rows().toarray().astype(np.float64)
    penalty = l2 + dropout / (1 - dropout) * (x**2).sum(axis=0)
    expected = without_diagonal(relaxed(x, penalty, relax))
    model = EDLAE(l2=l2, dropout=dropout, relax=relax).fit(sp.csr_matrix(x))
    np.testing.assert_allclose(weights_of(model), expected, rtol=1e-3, atol=2e-5)


def test_relaxed_by_1_it_is_dlae_which_is_dropout_alone() -> None:
    """By enumeration of all masks, its own item among the inputs: ridge regression of the targets on what is left."""
    x, p = rows(12, 4).toarray().astype(np.float64), 0.4
    inputs, targets, probability = all_maskings(x, p)
    root = np.sqrt(probability)[:, None]
    left = np.vstack([root * inputs, np.sqrt(2.0) * np.eye(4)])
    expected = np.linalg.lstsq(left, np.vstack([root * targets, np.zeros((4, 4))]))[0]
    model = EDLAE(l2=2.0, dropout=p, relax=1.0).fit(sp.csr_matrix(x))
    np.testing.assert_allclose(weights_of(model), without_diagonal(expected), rtol=1e-3, atol=1e-5)


def test_relaxed_by_0_it_is_edlae_to_the_bit() -> None:
    x = rows(n_items=300)
    model = EDLAE(l2=5.0, dropout=0.3, relax=0.0, user_power=0.0, item_power=0.0).fit(x)
    np.testing.assert_array_equal(weights_of(model), weights_of(EDLAE(l2=5.0, dropout=0.3).fit(x)))


# Data-adaptive normalisation (DAN, SIGIR 2025)


@pytest.mark.parametrize("power", [0.1, 0.5, 1.0])
def test_user_power_is_edlae_on_rows_that_count_less(power: float) -> None:
    x = rows()
    shares = np.maximum(np.diff(x.indptr), 1.0) ** -power
    weighted = sp.csr_matrix(sp.diags_array(np.sqrt(shares)) @ x).astype(np.float32)
    mean = float(shares[np.diff(x.indptr) > 0].mean())  # one user has nothing, and is not counted
    expected = EDLAE(l2=3.0 * mean, dropout=0.4, relax=0.2).fit(weighted)
    model = EDLAE(l2=3.0, dropout=0.4, relax=0.2, user_power=power).fit(x)
    np.testing.assert_allclose(weights_of(model), weights_of(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("power", [0.1, 0.5, 1.0])
def test_item_power_favours_what_is_rare(power: float) -> None:
    x = rows()
    counts = np.maximum(np.diff(x.tocsc().indptr), 1.0)
    without = weights_of(EDLAE(l2=3.0, user_power=0.2).fit(x))
    model = EDLAE(l2=3.0, user_power=0.2, item_power=power).fit(x)
    np.testing.assert_allclose(weights_of(model), without * (counts[:, None] / counts) ** power, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("power", [0.1, 1.0])
def test_powers_count_interactions_whatever_their_weights(power: float) -> None:
    """By hand: the penalty has the weighted G, n_u^-beta and (n_i / n_j)^alpha have counts."""
    x = rows(weighted=True).toarray().astype(np.float64)
    x = x[x.any(axis=1)]
    shares, counts = np.count_nonzero(x, axis=1) ** -power, np.count_nonzero(x, axis=0)
    gram = x.T @ (shares[:, None] * x)
    penalty = 3.0 * shares.mean() + 0.4 / 0.6 * gram.diagonal()
    precision = np.linalg.inv(gram + np.diag(penalty))
    expected = without_diagonal(-precision / precision.diagonal()) * (counts[:, None] / counts) ** power
    model = EDLAE(l2=3.0, dropout=0.4, user_power=power, item_power=power).fit(sp.csr_matrix(x))
    np.testing.assert_allclose(weights_of(model), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("settings", [{"l2": 3.0}, {}])
@pytest.mark.parametrize(
    ("model", "others"), [(EASE, {}), (EDLAE, {}), (EDLAE, {"user_power": 0.5}), (SANSA, {}), (InfAE, {})]
)
def test_users_without_interactions_change_no_closed_form(model: Any, others: Any, settings: dict[str, Any]) -> None:
    """Neither by their number: l2 of EDLAE is in means over users of n_u^-beta, that of InfAE in means too."""
    x = rows(weighted=True)
    wider = sp.csr_matrix(np.vstack([x.toarray(), np.zeros((300, x.shape[1]), np.float32)]))
    found, expected = (model(**settings, **others).fit(some).score(x) for some in (wider, x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_nobody_with_interactions_leaves_weights_of_0() -> None:
    model = EDLAE(l2=3.0, user_power=0.5, item_power=0.5).fit(sp.csr_matrix(np.zeros((4, 3), np.float32)))
    assert not weights_of(model).any()


def test_items_and_users_without_interactions_are_no_harm() -> None:
    x = rows().toarray()
    x[:, 3] = 0
    model = EDLAE(l2=3.0, dropout=0.4, relax=0.3, user_power=0.5, item_power=0.5).fit(sp.csr_matrix(x))
    weights = weights_of(model)
    assert np.isfinite(weights).all() and not weights[3].any() and not weights[:, 3].any()


@pytest.mark.parametrize(
    ("n_users", "n_items", "n_interactions", "tuned"),
    [
        (363, 4_972, 28_803, 100),  # latest-small; the first five: the best on validation users
        (538, 1_355, 32_364, 200),  # ML-100K
        (5_034, 3_502, 480_438, 500),  # ML-1M
        (1_503, 15_388, 74_354, 100),  # HetRec Last.fm
        (4_441, 16_931, 163_412, 50),  # citeulike-a
        (29_858, 40_981, 810_128, 80),  # gowalla; from here on: published
        (31_668, 38_048, 1_237_259, 300),  # Yelp 2018
        (52_643, 91_599, 2_380_730, 60),  # Amazon-book
        (116_677, 20_108, 8_500_000, 500),  # ML-20M
        (383_435, 17_769, 47_000_000, 1_000),  # Netflix
        (471_355, 41_140, 27_700_000, 200),  # Million Song
    ],
)
def test_l2_by_the_size_of_the_data_is_near_what_was_tuned(
    n_users: int, n_items: int, n_interactions: int, tuned: float
) -> None:
    assert 0.4 <= tuned / l2_by_size(n_users, n_items, n_interactions) <= 2.5


def test_l2_is_left_to_the_data_unless_it_is_given() -> None:
    assert EASE() == EASE(l2=None) and EDLAE() == EDLAE(l2=None, dropout=0.33)
    train = rows()
    typical = typical_l2(train)
    assert typical == l2_by_size(train.shape[0] - 1, train.shape[1], train.nnz)  # one user has none
    assert typical_l2(2 * train) == 4 * typical
    for left, given in ((EASE(), EASE(l2=typical)), (EDLAE(), EDLAE(l2=two_digits(0.7 * typical)))):
        np.testing.assert_array_equal(weights_of(left.fit(train)), weights_of(given.fit(train)))
        assert left.training_summary().from_data == {"l2": given.l2}
        assert given.training_summary().from_data is None
    np.testing.assert_array_equal(weights_of(EDLAE(dropout=0.0).fit(train)), weights_of(EASE().fit(train)))


def test_users_and_items_without_interactions_do_not_change_the_typical_l2() -> None:
    train = rows()
    rows_and_one = np.append(train.indptr, train.nnz)
    wider = sp.csr_matrix((train.data, train.indices, rows_and_one), shape=(train.shape[0] + 1, 900))
    assert typical_l2(wider) == typical_l2(train)
    assert typical_l2(sp.csr_matrix(np.zeros((5, 4), dtype=np.float32))) > 0
