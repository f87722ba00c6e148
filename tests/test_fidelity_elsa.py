"""ELSA is the one of Vancura et al. (2022): scores, loss, gradient and optimiser, re-derived in float64."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from recvae.models import ELSA
from recvae.training.batches import whole_batch

N_USERS, N_ITEMS, N_FACTORS = 17, 12, 5
CPU = torch.device("cpu")


def rows(weighted: bool = True) -> sp.csr_matrix:
    """Return users with weighted items; the last one has none."""
    rng = np.random.default_rng(3)
    dense = rng.integers(1, 4 if weighted else 2, (N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.4)
    dense[:, 0] = 1
    dense[-1] = 0
    return sp.csr_matrix(dense, dtype=np.float32)


def model_before_training(seed: int = 0, latent_dim: int = N_FACTORS) -> ELSA:
    model = ELSA(latent_dim=latent_dim)
    model.network_ = model._network(N_ITEMS)
    model._initialise(torch.Generator().manual_seed(seed))
    return model


def dense_loss(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the mean over users of | x/|x| - y/|y| |^2, y = x A A^T - x, rows of A of length 1, as it is written."""
    vectors = weight / weight.norm(dim=1, keepdim=True)  # (I, D)
    y = x @ (vectors @ vectors.T) - x  # (B, I)
    return (functional.normalize(x, dim=1) - functional.normalize(y, dim=1)).square().sum(dim=1).mean()


@pytest.mark.parametrize("latent_dim", [2, N_FACTORS, 2 * N_ITEMS])  # the last has more factors than users
def test_the_loss_and_its_gradient_are_those_of_the_paper(latent_dim: int) -> None:
    model, x = model_before_training(latent_dim=latent_dim), rows()[:-1]
    loss = model._loss(whole_batch(x, CPU), 0.0, torch.Generator()).total
    loss.backward()
    weight = model.network_.output.weight.detach().double().requires_grad_()
    expected = dense_loss(weight, torch.from_numpy(x.toarray()).double())
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    gradient = model.network_.output.weight.grad
    assert gradient is not None and weight.grad is not None
    torch.testing.assert_close(gradient.double(), weight.grad, rtol=1e-3, atol=1e-6)


def test_a_user_without_items_has_a_finite_loss_and_moves_nothing() -> None:
    model = model_before_training()
    loss = model._loss(whole_batch(rows()[-1:], CPU), 0.0, torch.Generator()).total
    loss.backward()
    assert loss.item() == pytest.approx(2.0)  # the cosine is 0
    assert not model.network_.output.weight.grad.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("latent_dim", [8, 40])
@pytest.mark.parametrize("noise", [1e-1, 1e-2, 1e-3, 1e-4, 1e-6])
def test_a_row_that_is_explained_by_nothing_does_not_make_gradients_explode(latent_dim: int, noise: float) -> None:
    """With nearly orthogonal vectors f(x) is nearly 0, and float32 cannot tell how near."""
    x = sp.csr_matrix(np.kron(np.eye(16), [[1, 1]])[:, :32], dtype=np.float32)  # 16 users of two items each
    generator = torch.Generator().manual_seed(0)
    model = ELSA(latent_dim=latent_dim)
    model.network_ = model._network(32)
    orthogonal = torch.eye(32, latent_dim) if latent_dim >= 32 else torch.eye(latent_dim).repeat(4, 1)
    model.network_.output.weight.data = orthogonal + noise * torch.randn(32, latent_dim, generator=generator)
    cosine = model.network_.cosine(whole_batch(x, CPU))
    (2 - 2 * cosine).mean().backward()
    gradient = model.network_.output.weight.grad
    assert cosine.abs().max() <= 1.001 and gradient is not None
    assert gradient.isfinite().all() and gradient.abs().max() < 25  # without a bound, 10,000 and more


@given(st.floats(0.1, 100), st.integers(0, 1000))
def test_the_loss_does_not_depend_on_the_length_of_a_row(factor: float, seed: int) -> None:
    model, x = model_before_training(seed), rows(weighted=False)
    once, scaled = (
        model._loss(whole_batch(sp.csr_matrix(some), CPU), 0.0, torch.Generator()).total.item()
        for some in (x, x * np.float32(factor))
    )
    assert scaled == pytest.approx(once, rel=1e-5)


def test_scores_are_x_times_a_matrix_without_diagonal_whose_vectors_have_length_1() -> None:
    x = rows()
    model = ELSA(latent_dim=N_FACTORS, epochs=3, batch_size=4, seed=2).fit(x, device="cpu")
    [vectors] = model.weights().values()  # (I, D)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    matrix = vectors.astype(np.float64) @ vectors.T.astype(np.float64) - np.eye(N_ITEMS)
    np.testing.assert_allclose(np.diagonal(matrix), 0, atol=1e-6)
    np.testing.assert_allclose(model.score(x), x.toarray() @ matrix, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.embed(x), x.toarray() @ vectors, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.similarities(np.arange(N_ITEMS)), matrix + np.eye(N_ITEMS), atol=1e-5)


def test_reasons_add_up_to_the_score() -> None:
    x = rows()
    model = ELSA(latent_dim=N_FACTORS, epochs=3, batch_size=4, seed=2).fit(x, device="cpu")
    columns = np.arange(N_ITEMS)  # also those of the history
    np.testing.assert_allclose(model.contributions(x[0], columns).sum(axis=0), model.score(x[0])[0], atol=1e-4)


def test_training_is_nadam_on_that_loss() -> None:
    x = rows()[:-1]
    model = ELSA(latent_dim=N_FACTORS, epochs=2, batch_size=N_USERS, seed=4).fit(x, device="cpu")
    weight = torch.nn.Parameter(torch.empty(N_ITEMS, N_FACTORS))
    with torch.no_grad():
        torch.nn.init.xavier_uniform_(weight, generator=torch.Generator().manual_seed(4))
    optimizer = torch.optim.NAdam([weight], lr=0.1)
    losses = []
    for _ in range(2):  # one batch of all users each
        optimizer.zero_grad()
        loss = dense_loss(weight, torch.from_numpy(x.toarray()))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [record.loss for record in model.log_] == pytest.approx(losses, rel=1e-4)
    assert all(record.kl is None and record.beta is None for record in model.log_)
    [learned] = model.weights().values()
    np.testing.assert_allclose(learned, functional.normalize(weight.detach()).numpy(), rtol=1e-3, atol=1e-4)


def test_an_update_makes_no_block_of_users_x_items() -> None:
    """Its memory grows with items x latent_dim alone: of a million items, a block of 500 users would take 2 GB."""
    few, many = (ELSA(latent_dim=8, batch_size=n).needs(100_000, 1_000_000, 10**6).training for n in (1, 1000))
    assert many - few < 4 * 1000 * 1_000_000 / 10


def test_weights_of_any_length_are_loaded_as_directions() -> None:
    model = ELSA(latent_dim=3).load_weights({"items.weight": np.full((4, 3), 2.0, dtype=np.float32)})
    np.testing.assert_allclose(model.weights()["items.weight"], 3**-0.5, rtol=1e-6)
