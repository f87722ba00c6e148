"""iALS is the one of Rendle et al. (2022): its objective and its solutions, re-derived in float64."""

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recvae.errors import TrainingError
from recvae.models import ALS, IALS
from recvae.models import ials as code
from recvae.models.common import ridge
from recvae.training.records import NullMonitor, StopTraining

# Letters in shape comments: U users, I items, F factors.

N_USERS, N_ITEMS = 23, 14


def rows(weighted: bool = True) -> sp.csr_matrix:
    """Return users with 1 to 12 weighted items; the last user has none, and nobody has the last item."""
    rng = np.random.default_rng(5)
    dense = rng.integers(1, 4 if weighted else 2, (N_USERS, N_ITEMS)) * (
        rng.random((N_USERS, N_ITEMS)) < np.linspace(0.1, 0.9, N_USERS)[:, None]
    )
    dense[:, 0] = 1
    dense[-1], dense[:, -1] = 0, 0
    return sp.csr_matrix(dense, dtype=np.float32)


def vectors(n: int, factors: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, factors, generator=torch.Generator().manual_seed(seed)) * 0.3


def model_of(a: float, **settings: Any) -> IALS:
    """Return a model that is not fitted, with the paper's weight of unobserved pairs."""
    model = IALS(**settings)
    model.unobserved_weight_ = np.array([a])
    return model


def loaded(a: float, items: np.ndarray, **settings: Any) -> IALS:
    weights = {"item_factors": items, "unobserved_weight": np.array([a])}
    return IALS(factors=items.shape[1], **settings).load_weights(weights)


def ratio_of(a: float, train: sp.csr_matrix) -> float:
    """Return the hyperparameter with which fitting uses the paper's weight of unobserved pairs."""
    return float(a * train.shape[0] * train.shape[1] / train.sum())


def penalties(model: IALS, dense: np.ndarray) -> np.ndarray:
    """Return lambda (n + a C)^p of each row, with n the sum of its weights and C the number of columns."""
    weight = dense.sum(axis=1) + model.unobserved_weight_[0] * dense.shape[1]
    of_paper = model.regularization / (1 + model.unobserved_ratio) ** model.regularization_power
    return of_paper * weight**model.regularization_power


def objective(model: IALS, dense: np.ndarray, users: np.ndarray, items: np.ndarray) -> float:
    """Return the loss as it is written in the paper, over the whole matrix."""
    scores = users @ items.T  # (U, I)
    observed = (dense * (1 - scores) ** 2).sum()
    shrinking = (penalties(model, dense) * (users**2).sum(axis=1)).sum()
    shrinking += (penalties(model, dense.T) * (items**2).sum(axis=1)).sum()
    return float(observed + model.unobserved_weight_[0] * (scores**2).sum() + shrinking)


def solved(model: IALS, dense: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the vector of each row by its own normal equations."""
    found = []
    for row, penalty in zip(dense, penalties(model, dense), strict=True):
        system = model.unobserved_weight_[0] * columns.T @ columns + penalty * np.eye(columns.shape[1])
        system += columns.T @ (row[:, None] * columns)
        found.append(np.linalg.solve(system, columns.T @ row) if row.any() else np.zeros(columns.shape[1]))
    return np.array(found)


CASES: list[dict[str, Any]] = [
    {"factors": factors, "regularization": 0.1, "a": a, "regularization_power": power}
    for factors in (2, 5, 40)  # more and fewer than the interactions of most users
    for a, power in ((0.1, 1.0), (0.1, 0.0), (2.0, 0.5), (0.0, 1.0))
]


@pytest.mark.parametrize("settings", CASES)
def test_half_an_iteration_solves_the_normal_equations(settings: dict[str, Any]) -> None:
    model, train = model_of(**settings), rows()
    found, items = model._half(train, vectors(N_ITEMS, model.factors), None)
    np.testing.assert_allclose(found, solved(model, train.toarray(), items.double().numpy()), rtol=2e-4, atol=2e-5)
    back, users = model._half(sp.csr_matrix(train.T), found, items)
    np.testing.assert_allclose(back, solved(model, train.T.toarray(), users.double().numpy()), rtol=2e-4, atol=2e-5)
    assert not found[-1].any() and not back[-1].any(), "without interactions, a vector of zeros"


@pytest.mark.parametrize("block_size", [1, 3, 8])
@pytest.mark.parametrize("settings", CASES[4:])
def test_every_half_of_an_iteration_lowers_the_objective(settings: dict[str, Any], block_size: int) -> None:
    model, train = model_of(**settings, block_size=block_size), rows()
    items, users = vectors(N_ITEMS, model.factors), None
    reached = []
    for _ in range(6):
        users, items = model._half(train, items, users)
        reached.append(objective(model, train.toarray(), users.double().numpy(), items.double().numpy()))
        items, users = model._half(sp.csr_matrix(train.T), users, items)
        reached.append(objective(model, train.toarray(), users.double().numpy(), items.double().numpy()))
    assert all(after < before * (1 + 1e-6) for before, after in itertools.pairwise(reached))
    assert reached[-1] < 0.999 * reached[0]


@pytest.mark.parametrize("settings", CASES[1:7])
def test_fitting_is_alternating_from_small_normal_item_vectors(settings: dict[str, Any]) -> None:
    """The same start, users first, and as many alternations in float64 give the same scores."""
    settings = dict(settings)
    ratio = ratio_of(settings.pop("a"), rows())
    model = IALS(**settings, unobserved_ratio=ratio, iterations=3, seed=11).fit(rows(), device="cpu")
    start = torch.randn(N_ITEMS, model.factors, generator=torch.Generator().manual_seed(11))
    items, dense = start.double().numpy() * 0.1 / np.sqrt(model.factors), rows().toarray().astype(np.float64)
    for _ in range(3):
        users = solved(model, dense, items)
        items = solved(model, dense.T, users)
    histories = sp.csr_matrix(rows()[:, ::-1])  # of users that are not those of training
    expected = solved(model, histories.toarray().astype(np.float64), items) @ items.T
    np.testing.assert_allclose(model.score(histories), expected, rtol=2e-3, atol=2e-4)
    assert not model.item_factors_[-1].any() and not model.score(sp.csr_matrix((1, N_ITEMS))).any()
    embedded = model.embed(histories)
    np.testing.assert_allclose(embedded @ model.item_factors_.T, expected, rtol=2e-3, atol=2e-4)
    assert np.isfinite(model.similarities(np.arange(N_ITEMS))).all()


@pytest.mark.parametrize("block_size", [1, 4, 7])
def test_passes_over_blocks_lead_to_the_solution(block_size: int) -> None:
    """iALS++: what is solved in blocks, again and again, is what is solved at once."""
    model, train = model_of(0.1, factors=13, block_size=block_size, regularization=0.05), rows()
    basis = code._Basis.of(vectors(N_ITEMS, 13))
    exact = model._solve(train, basis, 13)
    once = found = model._solve(train, basis, block_size)
    for _ in range(200):
        found = model._solve(train, basis, block_size, found)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-5)
    is_short = torch.from_numpy(np.diff(train.indptr) <= block_size)
    torch.testing.assert_close(once[is_short], exact[is_short], rtol=1e-3, atol=1e-5)
    assert not torch.allclose(once, exact, rtol=1e-2, atol=1e-4), "one pass of blocks is not the solution"


@pytest.mark.parametrize("block_size", [3, 64])
def test_cutting_long_histories_into_pieces_changes_nothing(block_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    train = sp.csr_matrix((rng.random((6, 300)) < np.array([0.05, 0.1, 0.3, 0.6, 0.9, 1])[:, None]).astype(np.float32))
    model, basis, before = model_of(0.1, factors=10), code._Basis.of(vectors(300, 10)), vectors(6, 10, 1)
    whole = model._solve(train, basis, block_size, before)
    monkeypatch.setattr(ridge, "BATCH_BYTES", 1000)
    monkeypatch.setattr(ridge, "_LEAST_PIECE", 7)
    sizes = [len(batch) for batch, _ in ridge.batches_of(np.diff(train.indptr), 10, min(block_size, 10))]
    assert sizes == [1] * 6
    torch.testing.assert_close(model._solve(train, basis, block_size, before), whole, rtol=1e-4, atol=1e-6)
    if block_size > 10:
        expected = solved(model, train.toarray(), basis.vectors.double().numpy())
        np.testing.assert_allclose(whole, expected, rtol=1e-3, atol=1e-5, err_msg="wherever it begins")


def test_a_batch_is_padded_by_an_eighth_at_most_and_has_every_row_once() -> None:
    lengths = np.random.default_rng(0).permutation(np.arange(3000))
    seen = []
    for batch, length in ridge.batches_of(lengths, 16, 8):
        assert lengths[batch].max() <= length <= 9 / 8 * lengths[batch].min()
        seen += batch.tolist()
    assert sorted(seen) == sorted(np.flatnonzero(lengths).tolist())
    assert list(ridge.batches_of(np.zeros(4, dtype=int), 16, 8)) == []


def test_who_else_is_in_a_batch_changes_no_bit_of_a_vector() -> None:
    train, basis = rows(), code._Basis.of(vectors(N_ITEMS, 6))
    together = model_of(0.1, factors=6)._solve(train, basis, 6)
    for user in range(N_USERS):
        assert torch.equal(model_of(0.1, factors=6)._solve(train[[user]], basis, 6)[0], together[user])


def test_with_power_0_it_is_the_implicit_als_of_hu_et_al() -> None:
    """There, a weight is c instead of 1; here it is c - 1 more, and scores are smaller: c - 1 for c."""
    items, histories, c = vectors(N_ITEMS, 5).numpy(), rows(weighted=False), 8.0
    theirs = ALS(factors=5, regularization=3.0, alpha=c).load_weights({"item_factors": items})
    ours = loaded(1.0, items, regularization=3.0, regularization_power=0.0)
    scaled = sp.csr_matrix(histories * (c - 1))
    np.testing.assert_allclose(c / (c - 1) * ours.score(scaled), theirs.score(histories), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_with_power_1_it_does_not_matter_in_what_unit_weights_are(power: float) -> None:
    settings = {"factors": 4, "iterations": 3, "regularization": 0.05, "regularization_power": power}
    once = IALS(**settings).fit(rows(), device="cpu").score(rows())
    scaled = IALS(**settings).fit(rows() * 5, device="cpu").score(rows() * 5)
    assert np.allclose(scaled, once, rtol=1e-3, atol=1e-4) == (power == 1)


def test_without_unobserved_weight_one_item_has_its_closed_form() -> None:
    """x = w y / (w |y|^2 + r w) = y / (|y|^2 + r), for a user of one item of any weight."""
    items = vectors(3, 4).numpy()
    model = loaded(0.0, items, regularization=0.5, unobserved_ratio=0.0)
    found = model.embed(sp.csr_matrix(np.diag([1.0, 7.0, 0.01])))
    expected = items / ((items**2).sum(axis=1, keepdims=True) + 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_heavier_weight_of_everything_else_pulls_scores_to_0() -> None:
    sizes = [
        np.abs(
            IALS(factors=4, unobserved_ratio=ratio, regularization=1e-3).fit(rows(), device="cpu").score(rows())
        ).max()
        for ratio in (0.01, 1.0, 10.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2] > 0


def test_where_all_rows_are_alike_regularization_1_is_where_only_0_is_left() -> None:
    circle = sp.csr_matrix(
        np.sum([np.roll(np.eye(30), shift, axis=1) for shift in (0, 1, 3, 8)], axis=0), dtype=np.float32
    )
    for ratio in (1.0, 20.0):
        settings: dict[str, Any] = {"factors": 4, "iterations": 150, "unobserved_ratio": ratio}
        below, above = (
            np.abs(IALS(**settings, regularization=r).fit(circle, device="cpu").score(circle)).max() for r in (0.9, 1.1)
        )
        assert below > 1e-3 and above < 1e-6


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_float32_is_enough_for_long_histories_and_heavy_weights(power: float) -> None:
    rng = np.random.default_rng(0)
    train = sp.csr_matrix((rng.random((3, 5000)) < np.array([0.001, 0.1, 1])[:, None]) * rng.integers(1, 10**4, 5000))
    model = model_of(0.1, factors=32, regularization=0.003, regularization_power=power)
    basis = code._Basis.of(vectors(5000, 32))
    found = model._solve(train.astype(np.float32), basis, 32)
    expected = solved(model, train.toarray().astype(np.float64), basis.vectors.double().numpy())
    assert np.linalg.norm(found.numpy() - expected) < 2e-3 * np.linalg.norm(expected)


def test_contributions_add_up_to_the_score() -> None:
    model, history = IALS(factors=5, iterations=4).fit(rows(), device="cpu"), rows()[7]
    found = model.contributions(history, np.arange(N_ITEMS))
    assert found.shape == (history.nnz, N_ITEMS) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=0), model.score(history)[0], rtol=1e-3, atol=1e-5)
    assert model.contributions(sp.csr_matrix((1, N_ITEMS)), np.arange(3)).shape == (0, 3)


def test_a_monitor_may_end_it_after_any_iteration_and_the_last_whole_one_is_kept() -> None:
    class Stops(NullMonitor):
        def __init__(self, after: float) -> None:
            self.after = after

        def advance(self, epochs_done: float, beta: float | None) -> StopTraining | None:  # noqa: ARG002
            return StopTraining("enough") if epochs_done >= self.after else None

    two = IALS(factors=4, iterations=2).fit(rows(), device="cpu")
    for after in (2, 2.5):
        stopped = IALS(factors=4, iterations=9).fit(rows(), device="cpu", monitor=Stops(after))
        np.testing.assert_array_equal(stopped.item_factors_, two.item_factors_)
        summary = stopped.training_summary()
        assert (summary.epochs, summary.stopped, summary.device) == (2, "enough", "cpu")
    assert two.training_summary().stopped is None
    nothing = IALS(factors=4).fit(rows(), device="cpu", monitor=Stops(0.5))
    assert not nothing.n_items_ and nothing.stop_ == StopTraining("enough")


def test_what_float32_cannot_solve_is_refused() -> None:
    answer = "the least-squares problems have no answer in float32; raise regularization"
    for ratio in (0.0, 1.0):
        with pytest.raises(TrainingError, match=answer):
            IALS(factors=N_ITEMS, regularization=0.0, unobserved_ratio=ratio).fit(rows(), device="cpu")
    with pytest.raises(TrainingError, match=answer):
        loaded(0.1, np.full((3, 2), 1e38, dtype=np.float32)).score(sp.csr_matrix([[1, 0, 1]]))


def test_factors_that_all_become_0_are_refused() -> None:
    with pytest.raises(TrainingError, match="all factors became 0; lower regularization"):
        IALS(factors=3, regularization=1e30).fit(rows(), device="cpu")


def test_factors_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"item factors of shape \(3, 5\) do not fit factors=4"):
        IALS(factors=4).load_weights({"item_factors": np.zeros((3, 5)), "unobserved_weight": np.ones(1)})
    with pytest.raises(ValueError, match=r"an unobserved weight of shape \(2,\) is not one number"):
        IALS(factors=5).load_weights({"item_factors": np.zeros((3, 5)), "unobserved_weight": np.ones(2)})
