"""The infinite autoencoder against its definition: the kernel of a wide network, and ridge regression on users."""

import numpy as np
import pytest
import scipy.sparse as sp

from recvae.errors import MemoryLimitError, TrainingError
from recvae.models import InfAE

# Letters in shape comments: U users, I items, B users that are scored, H width of the network.


@pytest.fixture
def train() -> sp.csr_matrix:
    """Return 40 users of 25 items, of weights 1 to 3, one of them without items."""
    rng = np.random.default_rng(3)
    dense = rng.integers(1, 4, size=(40, 25)) * (rng.random((40, 25)) < 0.25)
    dense[7] = 0
    return sp.csr_matrix(dense.astype(np.float32))


@pytest.fixture
def others() -> sp.csr_matrix:
    """Return 6 users nobody has seen, the last one without items."""
    rng = np.random.default_rng(4)
    dense = (rng.random((6, 25)) < 0.2).astype(np.float32)
    dense[-1] = 0
    return sp.csr_matrix(dense)


def tangent_kernel(rows: np.ndarray, others: np.ndarray, width: int = 400_000) -> np.ndarray:
    """Return the products of gradients of a wide network with one output, by drawing its weights; times I / 2.

    f(x) = sqrt(2 / H) sum_h a_h relu(z_h),  z_h = sqrt(2 / I) w_h . x, with a and w from N(0, 1).
    """
    rng = np.random.default_rng(0)
    n_items = rows.shape[1]
    weights, output = rng.normal(size=(n_items, width)), rng.normal(size=width)
    left, right = (np.sqrt(2 / n_items) * part @ weights for part in (rows, others))  # (B, H), (U, H)
    by_output = 2 / width * np.maximum(left, 0) @ np.maximum(right, 0).T  # (B, U)
    by_weights = 2 / width * ((left > 0) * output**2) @ (right > 0).T * (2 / n_items * rows @ others.T)
    return (by_output + by_weights) * n_items / 2


def solution(train: np.ndarray, rows: np.ndarray, l2: float, power: float) -> np.ndarray:
    """Return the scores of ridge regression with the kernel of the paper, in float64, user by user."""
    train = train[train.any(axis=1)].astype(np.float64)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        size = np.linalg.norm(x) * np.linalg.norm(y)
        if size == 0:
            return 0.0
        cosine = min(1.0, float(x @ y / size))
        angle = np.arccos(cosine)
        return size ** (2 * power) * (np.sin(angle) + 2 * (np.pi - angle) * cosine) / np.pi

    gram = np.array([[kernel(x, y) for y in train] for x in train])  # (U, U)
    ridge = gram + l2 * np.trace(gram) / len(gram) * np.eye(len(gram))
    seen = np.array([[kernel(x.astype(np.float64), y) for y in train] for x in rows])  # (B, U)
    return seen @ np.linalg.solve(ridge, train)  # (B, I)


def test_the_kernel_is_that_of_an_infinitely_wide_network(train: sp.csr_matrix, others: sp.csr_matrix) -> None:
    rows, new = train.toarray()[:5], others.toarray()[:5]
    lengths, of_new = np.linalg.norm(rows, axis=1), np.linalg.norm(new, axis=1)
    found = InfAE()._kernel(new @ rows.T, of_new, lengths)
    np.testing.assert_allclose(found, tangent_kernel(new, rows), rtol=0.03)


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("l2", [0.01, 2.0])
def test_scores_are_ridge_regression_on_users(
    train: sp.csr_matrix, others: sp.csr_matrix, l2: float, power: float
) -> None:
    model = InfAE(l2=l2, length_power=power).fit(train)
    expected = solution(train.toarray(), others.toarray(), l2, power)
    np.testing.assert_allclose(model.score(others), expected, atol=2e-4 * np.abs(expected).max())
    assert not model.score(others)[-1].any()  # nothing is known of a user without items


def test_without_a_penalty_training_users_get_their_own_rows(train: sp.csr_matrix) -> None:
    model = InfAE(l2=1e-6).fit(train)
    np.testing.assert_allclose(model.score(train), train.toarray(), atol=5e-3)


def test_users_without_items_change_nothing(train: sp.csr_matrix, others: sp.csr_matrix) -> None:
    more = sp.csr_matrix(sp.vstack([train, sp.csr_matrix(np.zeros((9, 25), dtype=np.float32))]))
    np.testing.assert_array_equal(InfAE().fit(more).score(others), InfAE().fit(train).score(others))


def test_the_bundle_holds_no_block_of_users_and_items(train: sp.csr_matrix) -> None:
    weights = InfAE().fit(train).weights()
    assert weights["inverse"].shape == (39, 39)
    assert weights["histories.data"].shape == (train.nnz,)
    assert not any(25 in array.shape and array.ndim == 2 for array in weights.values())


def test_two_equal_users_without_a_penalty_are_refused() -> None:
    twice = sp.csr_matrix(np.ones((2, 4), dtype=np.float32))
    with pytest.raises(TrainingError, match=r"^the weights of the training users have no unique answer; raise l2$"):
        InfAE(l2=0.0).fit(twice)


def test_more_users_than_fit_into_memory_are_refused_with_what_to_use_instead() -> None:
    said = r"^infae on 1,000,000 users needs .* raise --max-memory, or use edlae, sansa, elsa or multvae, which have no"
    with pytest.raises(MemoryLimitError, match=said):
        InfAE().check_memory(1_000_000, 1000, 10**7, max_memory=10**9)


def test_an_inverse_of_other_users_is_refused(train: sp.csr_matrix) -> None:
    weights = InfAE().fit(train).weights()
    with pytest.raises(ValueError, match=r"an inverse of shape .* is not that of 39 users"):
        InfAE().load_weights(weights | {"inverse": weights["inverse"][:-1]})


def test_items_are_similar_that_have_users_in_common(train: sp.csr_matrix) -> None:
    dense = train.toarray()
    dense[:, 3] = 0
    model = InfAE().fit(sp.csr_matrix(dense))
    sizes = np.outer(*2 * [np.linalg.norm(dense, axis=0)])
    expected = np.divide(dense.T @ dense, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    assert not expected[3].any() and expected[0, 24] > 0  # an item of nobody is like no other
    np.testing.assert_allclose(model.similarities(np.array([0, 3, 24])), expected[[0, 3, 24]], atol=1e-6)
    found = model.similarities(np.array([5]), np.array([7, 3]))
    np.testing.assert_allclose(found, expected[[5]][:, [7, 3]], atol=1e-6)


def test_without_any_interaction_nothing_is_said_of_anyone(others: sp.csr_matrix) -> None:
    model = InfAE().fit(sp.csr_matrix(np.zeros((5, 25), dtype=np.float32)))
    assert not model.score(others).any()
    assert not InfAE().load_weights(model.weights()).score(others).any()
