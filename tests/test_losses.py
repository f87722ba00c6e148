"""The likelihood, the KL divergence and its schedule, against hand-worked values and dense textbook formulas."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from recvae.batches import whole_batch
from recvae.losses import kl_to_standard_normal, multinomial_nll
from recvae.schedules import constant, linear, schedule

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


CAPS, UPDATES = st.floats(0, 2), st.integers(0, 10**6)


@given(cap=CAPS, steps=st.integers(1, 10**6), update=UPDATES)
def test_linear_schedule_is_exact(cap: float, steps: int, update: int) -> None:
    """Liang et al. write min(cap, t / T) with T = steps / cap; it never passes the cap, nor falls back to it."""
    beta = linear(cap, steps)
    expected = min(cap, update / (steps / cap)) if cap > 0 else 0.0
    assert beta(update) == pytest.approx(expected, rel=1e-12)
    assert 0 <= beta(update) <= beta(update + 1) <= cap
    assert (beta(0), beta(steps), beta(10 * steps)) == (0, cap, cap)


@given(cap=CAPS, update=UPDATES)
def test_without_steps_the_cap_holds_from_the_start(cap: float, update: int) -> None:
    assert linear(cap, 0)(update) == constant(cap)(update) == cap
    assert schedule("constant", cap, 1000, 500, 0.9)(update) == cap
    assert schedule("linear", cap, 1000, None, 0.0)(update) == cap


def test_papers_constants_give_the_papers_schedule() -> None:
    """vae_cf: min(0.2, updates / 200000), so the cap is reached after 40,000 updates."""
    beta = schedule("linear", 0.2, 46_800, steps=40_000, fraction=0.5)
    assert beta(20_000) == pytest.approx(20_000 / 200_000)
    assert (beta(39_999) < 0.2, beta(40_000), beta(199_999)) == (True, 0.2, 0.2)


@given(cap=CAPS, updates=st.integers(1, 500), times=st.integers(1, 50), share=st.floats(0, 1), part=st.integers(0, 4))
def test_with_a_fraction_the_batch_size_does_not_change_beta(
    cap: float, updates: int, times: int, share: float, part: int
) -> None:
    """Batches that are `times` smaller make `times` more updates; at the same part of the run beta is the same."""
    small, large = (schedule("linear", cap, 4 * n, None, share) for n in (updates * times, updates))
    at = part * updates
    rounding = cap / max(1, share * 4 * updates - 1)  # steps are whole
    assert small(at * times) == pytest.approx(large(at), abs=rounding + 1e-9)
    assert small(4 * updates * times) == large(4 * updates) == cap
