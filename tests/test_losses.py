"""The likelihoods, the KL divergence and the log-density, against hand-worked values and dense textbook formulas."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from recvae.models.common.networks import Linear
from recvae.training import batch_parts, losses
from recvae.training.batches import SparseBatch, whole_batch
from recvae.training.losses import (
    LIKELIHOODS,
    bernoulli_nll,
    gaussian_nll,
    kl_to_standard_normal,
    likelihood,
    log_normal,
    multinomial_nll,
    output_nll,
)

# Letters in shape comments: B users, I items, D latent dimensions.

CPU = torch.device("cpu")
SEEDS = st.integers(0, 2**32 - 1)

# Three users, four items; the last user has none.
X = sp.csr_matrix([[1, 0, 1, 0], [0, 2, 0, 1], [0, 0, 0, 0]], dtype=np.float32)
LOGITS = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, math.log(2), 0.0, math.log(4)], [5.0, 1.0, 2.0, 3.0]])
# softmax: 1/4 each; 1/8, 2/8, 1/8, 4/8; any
BY_HAND = [2 * math.log(4), 2 * math.log(8 / 2) + math.log(8 / 4), 0.0]


def random_case(seed: int, dtype: torch.dtype) -> tuple[sp.csr_matrix, torch.Tensor]:
    """Return weighted users, some without items, and logits of any size (B, I)."""
    rng = np.random.default_rng(seed)
    shape = (rng.integers(1, 8), rng.integers(1, 12))
    dense = rng.integers(1, 4, shape) * (rng.random(shape) < rng.random((shape[0], 1)))
    return sp.csr_matrix(dense, dtype=np.float32), torch.from_numpy(rng.normal(0, 20, shape)).to(dtype)


def test_multinomial_loss_is_that_worked_out_by_hand() -> None:
    torch.testing.assert_close(multinomial_nll(LOGITS, whole_batch(X, CPU)), torch.tensor(BY_HAND))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(seed=SEEDS)
def test_multinomial_loss_and_gradient_are_those_of_the_dense_formula(dtype: torch.dtype, seed: int) -> None:
    x, logits = random_case(seed, dtype)
    weight = torch.linspace(-1, 2, len(logits), dtype=dtype)  # each user counts differently
    ours, dense = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss = multinomial_nll(ours, whole_batch(x, CPU))
    expected = -(torch.from_numpy(x.toarray()).double() * dense.log_softmax(dim=1)).sum(dim=1)
    (loss * weight).sum().backward()
    (expected * weight).sum().backward()
    assert loss.dtype == dtype
    assert ours.grad is not None
    assert dense.grad is not None
    torch.testing.assert_close(loss, expected.to(dtype), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(ours.grad, dense.grad.to(dtype), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("users_at_a_time", [1, 2, 3, 7])
def test_multinomial_loss_and_gradient_are_the_same_however_many_users_are_worked_on_at_a_time(
    users_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    dense = rng.integers(1, 4, (7, 12)) * (rng.random((7, 12)) < 0.4)
    dense[[1, 6]] = 0  # users without interactions, within a chunk and at the end
    batch = whole_batch(sp.csr_matrix(dense, dtype=np.float32), CPU)
    logits = torch.from_numpy(rng.normal(0, 3, dense.shape)).float()

    def found() -> list[torch.Tensor]:
        leaf = logits.clone().requires_grad_()
        loss = multinomial_nll(leaf, batch)
        (loss * torch.linspace(-1, 2, 7)).sum().backward()
        assert leaf.grad is not None
        return [loss.detach(), leaf.grad]

    at_once = found()
    monkeypatch.setattr(batch_parts, "_CHUNK_BYTES", users_at_a_time * 12 * 4)
    for one, other in zip(at_once, found(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("users_at_a_time", [1, 2, 3])
def test_a_last_layer_and_its_loss_are_the_same_however_many_users_are_worked_on_at_a_time(
    users_at_a_time: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    dense = rng.integers(1, 4, (7, 12)) * (rng.random((7, 12)) < 0.4)
    dense[[1, 6]] = 0
    batch = whole_batch(sp.csr_matrix(dense, dtype=np.float32), CPU)
    layer = Linear(5, 12)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    hidden = torch.from_numpy(rng.normal(0, 1, (7, 5))).float().requires_grad_()

    def found() -> list[torch.Tensor]:
        loss = output_nll(hidden, layer, batch, dtype=dtype)
        total = (loss * torch.linspace(-1, 2, 7)).sum()
        return [loss.detach(), *torch.autograd.grad(total, [hidden, layer.weight, layer.bias])]

    at_once = found()
    monkeypatch.setattr(batch_parts, "_CHUNK_BYTES", users_at_a_time * 12 * 4)
    monkeypatch.setattr(losses, "_CHUNK_ITEMS", 5)
    for one, other in zip(at_once, found(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_a_bias_is_added_up_in_float32(dtype: torch.dtype) -> None:
    x = sp.csr_matrix(np.tile(np.eye(8), (100, 1)), dtype=np.float32)
    layer = Linear(3, 8)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    hidden = torch.ones(800, 3, requires_grad=True)
    output_nll(hidden, layer, whole_batch(x, CPU), dtype=dtype).mean().backward()
    # Each user's gradient is an eighth, less one at the item it has, exact in either type; the mean over them is 0.
    assert layer.bias.grad is not None and layer.bias.grad.dtype == torch.float32
    torch.testing.assert_close(layer.bias.grad, torch.zeros(8), rtol=0, atol=1e-7)


def test_a_batch_of_nobody_loses_nothing() -> None:
    batch = whole_batch(X, CPU).map(lambda tensor: tensor[:0])
    layer = Linear(3, 4)
    for parameter in layer.parameters():
        torch.nn.init.ones_(parameter)
    hidden = torch.ones(0, 3, requires_grad=True)
    for loss in (output_nll(hidden, layer, batch), multinomial_nll(layer(hidden), batch)):
        assert loss.shape == (0,)
        gradients = torch.autograd.grad(loss.sum(), [hidden, layer.weight], retain_graph=True)
        assert [gradient.abs().sum().item() for gradient in gradients] == [0.0, 0.0]


def test_a_second_derivative_is_refused_instead_of_wrong() -> None:
    logits = LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(multinomial_nll(logits, whole_batch(X, CPU)).sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


@given(seed=SEEDS)
def test_multinomial_gradient_is_that_of_finite_differences(seed: int) -> None:
    x, logits = random_case(seed, torch.float64)
    batch = whole_batch(x, CPU)
    small = (logits / 20).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: multinomial_nll(f, batch), small)


@given(seed=SEEDS, shift=st.floats(-300, 300))
def test_multinomial_loss_does_not_overflow_nor_feel_a_shift_of_all_logits(seed: int, shift: float) -> None:
    x, logits = random_case(seed, torch.float64)
    batch = whole_batch(x, CPU)
    loss = multinomial_nll(10 * logits, batch)
    assert loss.isfinite().all()
    assert (loss >= -1e-9).all()
    torch.testing.assert_close(multinomial_nll(10 * logits + shift, batch), loss, rtol=1e-9, atol=1e-8)


@given(seed=SEEDS)
def test_kl_is_that_of_torch_summed_over_latent_dimensions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 6)), int(rng.integers(1, 9)))
    mean, logvar = torch.from_numpy(rng.normal(0, 2, shape)), torch.from_numpy(rng.normal(0, 2, shape))
    expected = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(kl_to_standard_normal(mean, logvar), expected)


def test_kl_is_0_for_the_prior_and_grows_with_the_number_of_dimensions() -> None:
    zero = torch.zeros(2, 200)
    assert kl_to_standard_normal(zero, zero).tolist() == [0.0, 0.0]
    assert kl_to_standard_normal(zero + 1, zero).tolist() == [100.0, 100.0]  # 200 / 2: a sum, not a mean


def dense_bernoulli(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return the loss of each user, with a dense target of zeros and ones."""
    present = (x > 0).to(logits.dtype)
    return binary_cross_entropy_with_logits(logits, present, reduction="none").sum(dim=1)


def dense_gaussian(x: torch.Tensor, logits: torch.Tensor, confidence: float) -> torch.Tensor:
    weights = torch.where(x > 0, confidence, 1.0)
    return 0.5 * (weights * (x.to(logits.dtype) - logits) ** 2).sum(dim=1)


DENSE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "multinomial": lambda x, logits: -(x.to(logits.dtype) * logits.log_softmax(dim=1)).sum(dim=1),
    "bernoulli": dense_bernoulli,
    "gaussian": lambda x, logits: dense_gaussian(x, logits, 3.0),
}


def test_bernoulli_loss_is_that_worked_out_by_hand() -> None:
    """With f = log odds, -log p = log(1 + e^-f) for an interaction and log(1 + e^f) elsewhere; weights do not count."""
    x = sp.csr_matrix([[1, 0, 0], [0, 5, 0], [0, 0, 0]], dtype=np.float32)
    logits = torch.tensor([[math.log(3), 0.0, 0.0], [0.0, math.log(3), math.log(3)], [0.0, 0.0, 0.0]])
    expected = [math.log(4 / 3) + 2 * math.log(2), math.log(2) + math.log(4 / 3) + math.log(4), 3 * math.log(2)]
    torch.testing.assert_close(bernoulli_nll(logits, whole_batch(x, CPU)), torch.tensor(expected))


def test_gaussian_loss_is_that_worked_out_by_hand() -> None:
    x = sp.csr_matrix([[1, 0, 2], [0, 0, 0]], dtype=np.float32)
    logits = torch.tensor([[0.0, 3.0, 1.0], [1.0, -2.0, 0.0]])
    batch = whole_batch(x, CPU)
    assert gaussian_nll(logits, batch).tolist() == [(1 + 9 + 1) / 2, (1 + 4) / 2]
    assert gaussian_nll(logits, batch, confidence=10).tolist() == [(10 + 9 + 10) / 2, (1 + 4) / 2]


@pytest.mark.parametrize("name", LIKELIHOODS)
@given(seed=SEEDS)
def test_every_likelihood_and_its_gradient_are_those_of_the_dense_formula(name: str, seed: int) -> None:
    x, logits = random_case(seed, torch.float64)
    weight = torch.linspace(-1, 2, len(logits), dtype=torch.float64)
    ours, dense = (logits / 4).requires_grad_(), (logits / 4).requires_grad_()
    loss = likelihood(name, confidence=3.0)(ours, whole_batch(x, CPU))
    expected = DENSE[name](torch.from_numpy(x.toarray()), dense)
    (loss * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, dense.grad)
    assert (loss >= -1e-9).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
@given(seed=SEEDS)
def test_a_target_of_weight_0_is_as_good_as_none(name: str, seed: int) -> None:
    """VASP hides a half of each history from the targets by setting it to 0."""
    x, logits = random_case(seed, torch.float64)
    kept = np.random.default_rng(seed).random(x.nnz) < 0.5
    hidden = x.copy()
    hidden.data *= kept
    batch = whole_batch(x, CPU)
    values = batch.values * torch.from_numpy(kept)
    totals = torch.zeros_like(batch.totals).index_add(0, batch.rows, values)
    with_zeros = replace(batch, values=values, totals=totals)
    hidden.eliminate_zeros()
    nll = likelihood(name, confidence=3.0)

    def loss_and_gradient(target: SparseBatch) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = (logits / 4).requires_grad_()
        loss = nll(leaf, target)
        loss.sum().backward()
        assert leaf.grad is not None
        return loss.detach(), leaf.grad

    torch.testing.assert_close(loss_and_gradient(with_zeros), loss_and_gradient(whole_batch(hidden, CPU)))


@given(seed=SEEDS, confidence=st.floats(1, 100))
def test_only_the_gaussian_likelihood_knows_confidence_and_only_at_interactions(seed: int, confidence: float) -> None:
    x, logits = random_case(seed, torch.float64)
    batch = whole_batch(x, CPU)
    for name in ("multinomial", "bernoulli"):
        assert torch.equal(likelihood(name, confidence)(logits, batch), likelihood(name)(logits, batch))
    expected = dense_gaussian(torch.from_numpy(x.toarray()), logits, confidence)
    torch.testing.assert_close(gaussian_nll(logits, batch, confidence), expected)
    without = torch.from_numpy(np.diff(x.indptr) == 0)
    assert torch.equal(gaussian_nll(logits, batch, confidence)[without], gaussian_nll(logits, batch)[without])


@given(seed=SEEDS, weight=st.floats(0.5, 100))
def test_bernoulli_loss_does_not_feel_the_weights_of_interactions(seed: int, weight: float) -> None:
    x, logits = random_case(seed, torch.float64)
    assert torch.equal(bernoulli_nll(logits, whole_batch(x, CPU)), bernoulli_nll(logits, whole_batch(x * weight, CPU)))


@given(seed=SEEDS)
def test_log_density_is_that_of_torch_also_where_shapes_broadcast(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.normal(0, 3, (5, 1, 4)))
    mean, logvar = (torch.from_numpy(rng.normal(0, 2, (3, 4))) for _ in range(2))
    expected = Normal(mean, (logvar / 2).exp()).log_prob(z)
    assert log_normal(z, mean, logvar).shape == (5, 3, 4)
    torch.testing.assert_close(log_normal(z, mean, logvar), expected)
