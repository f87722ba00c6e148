"""The softmax over all items in parts: loss and gradients are those of the whole block, with any number at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from recvae.datasets.dataset import Dataset
from recvae.errors import MemoryLimitError, UsageError
from recvae.models import AE, HVamp, MultDAE, MultVAE, RecVAE
from recvae.models.common.hyperparameters import build
from recvae.training import chunked_softmax
from recvae.training.batches import SparseBatch, whole_batch
from recvae.training.chunked_softmax import chunked_nll
from recvae.training.losses import output_nll

# Letters in shape comments: B users, I items, H width of the last layer.

CPU = torch.device("cpu")
N_USERS, N_ITEMS, WIDTH = 6, 20, 5
STEPS = (1, 7, N_ITEMS - 1, N_ITEMS, N_ITEMS + 1, 1000)
SMALL: dict[Any, dict[str, Any]] = {
    HVamp: {"hidden_dim": 16, "latent_dim": 8, "pseudo_inputs": 6},
    RecVAE: {"hidden_dim": 16, "latent_dim": 8},
    MultVAE: {"hidden_dims": (16,), "latent_dim": 8},
    MultDAE: {"latent_dim": 8},
    AE: {"latent_dim": 8},
}


def rows() -> sp.csr_matrix:
    """Return weighted rows, of which one is empty and one whole."""
    rng = np.random.default_rng(0)
    dense = rng.integers(1, 4, (N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.3)
    dense[1], dense[4] = 0, 2
    return sp.csr_matrix(dense, dtype=np.float32)


def layer_and_hidden(scale: float = 1.0, dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, torch.Tensor]:
    """Return a last layer and what goes into it (B, H)."""
    generator = torch.Generator().manual_seed(1)
    layer = nn.utils.skip_init(nn.Linear, WIDTH, N_ITEMS, dtype=dtype)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    hidden = scale * torch.randn(N_USERS, WIDTH, generator=generator, dtype=dtype)
    return layer, hidden.requires_grad_()  # type: ignore[return-value]


def with_gradients(loss: torch.Tensor, layer: nn.Linear, hidden: torch.Tensor) -> list[torch.Tensor]:
    counts = torch.linspace(-1, 2, len(loss), dtype=loss.dtype)  # each user counts differently
    return [loss.detach(), *torch.autograd.grad((loss * counts).sum(), [hidden, layer.weight, layer.bias])]


def by_the_textbook(x: sp.csr_matrix, layer: nn.Linear, hidden: torch.Tensor) -> list[torch.Tensor]:
    """Return loss and gradients of -sum_i x_ui log softmax(h W^T + b)_i with a dense target, in float64."""
    h, weight, bias = (t.detach().double().requires_grad_() for t in (hidden, layer.weight, layer.bias))
    loss = -(torch.from_numpy(x.toarray()).double() * (h @ weight.t() + bias).log_softmax(dim=1)).sum(dim=1)
    counts = torch.linspace(-1, 2, len(loss), dtype=torch.float64)
    return [loss.detach(), *torch.autograd.grad((loss * counts).sum(), [h, weight, bias])]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_loss_and_gradients_are_those_of_the_textbook(step: int, scale: float) -> None:
    x = rows()
    layer, hidden = layer_and_hidden(scale)
    found = with_gradients(chunked_nll(hidden, layer, whole_batch(x, CPU), step), layer, hidden)
    expected = by_the_textbook(x, layer, hidden)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        # A logit of 1e4 is known to 1e-3 in float32; so is, relatively, a probability.
        tolerance = max(1e-5, 1e-6 * scale)
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance * float(other.abs().max()))
    assert found[0][1] == 0, "a user without items has no loss"
    assert not found[1][1].any(), "and no gradient"


@pytest.mark.parametrize("step", STEPS)
def test_in_float64_it_is_the_textbook_to_the_last_digits(step: int) -> None:
    x = rows()
    layer, hidden = layer_and_hidden(3.0, torch.float64)
    found = with_gradients(chunked_nll(hidden, layer, whole_batch(x, CPU), step), layer, hidden)
    for one, other in zip(found, by_the_textbook(x, layer, hidden), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), step=st.integers(1, 14), scale=st.floats(0, 300))
def test_any_rows_and_any_number_at_a_time_give_the_whole_blocks_numbers(seed: int, step: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(0, 6)), int(rng.integers(1, 13)))
    dense = rng.integers(1, 4, shape) * (rng.random(shape) < rng.random((shape[0], 1)))
    batch = whole_batch(sp.csr_matrix(dense, dtype=np.float32), CPU)
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, 3, shape[1], dtype=torch.float64)  # type: ignore[assignment]
    layer.weight.data, layer.bias.data = (torch.from_numpy(rng.normal(size=(*s,))) for s in ((shape[1], 3), shape[1:]))
    hidden = torch.from_numpy(rng.normal(0, scale, (shape[0], 3))).requires_grad_()
    one = with_gradients(chunked_nll(hidden, layer, batch, step), layer, hidden)
    other = with_gradients(output_nll(hidden, layer, batch), layer, hidden)
    for part, whole in zip(one, other, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-9, atol=1e-9)


def test_the_gradient_is_that_of_finite_differences() -> None:
    x = rows()
    layer, hidden = layer_and_hidden(1.0, torch.float64)
    batch = whole_batch(x, CPU)

    def loss(h: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        other = nn.utils.skip_init(nn.Linear, WIDTH, N_ITEMS, dtype=torch.float64)
        del other.weight, other.bias
        other.weight, other.bias = weight, bias  # type: ignore[assignment]
        return chunked_nll(h, other, batch, 7)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(loss, (hidden, layer.weight, layer.bias))


@pytest.mark.parametrize("step", [1, 3, N_ITEMS])
def test_a_part_without_any_probability_adds_nothing(step: int) -> None:
    """A bias of -inf leaves an item out; where a part holds nothing else, -inf - -inf is no number."""
    dense = rows().toarray()
    dense[:, 3:6] = 0  # nobody has these
    batch = whole_batch(sp.csr_matrix(dense), CPU)
    layer, hidden = layer_and_hidden()
    layer.bias.data[3:6] = -torch.inf
    found = with_gradients(chunked_nll(hidden, layer, batch, step), layer, hidden)
    kept = [number for number in range(N_ITEMS) if number not in (3, 4, 5)]
    smaller = nn.utils.skip_init(nn.Linear, WIDTH, len(kept))
    smaller.weight.data, smaller.bias.data = layer.weight.data[kept], layer.bias.data[kept]
    x = sp.csr_matrix(dense[:, kept])
    for one, other in zip(found[:2], by_the_textbook(x, smaller, hidden)[:2], strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-4)
    assert not found[2][3:6].any() and not found[3][3:6].any()


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_bfloat16_is_as_close_in_parts_as_in_one(step: int) -> None:
    x = rows()
    layer, hidden = layer_and_hidden()
    batch, expected = whole_batch(x, CPU), by_the_textbook(x, layer, hidden)
    for loss in (
        chunked_nll(hidden, layer, batch, step, torch.bfloat16),
        output_nll(hidden, layer, batch, dtype=torch.bfloat16),
    ):
        for one, other in zip(with_gradients(loss, layer, hidden), expected, strict=True):
            assert one.dtype == torch.float32
            assert (one - other).norm() < 0.03 * other.norm()  # bfloat16 has eight bits


@pytest.mark.parametrize("frozen", ["weight", "bias", "hidden"])
def test_what_stands_still_gets_no_gradient_and_the_rest_the_same(frozen: str) -> None:
    layer, hidden = layer_and_hidden()
    batch = whole_batch(rows(), CPU)
    every = with_gradients(chunked_nll(hidden, layer, batch, 7), layer, hidden)[1:]
    leaves = {"hidden": hidden, "weight": layer.weight, "bias": layer.bias}
    leaves[frozen].requires_grad_(False)
    (chunked_nll(hidden, layer, batch, 7) * torch.linspace(-1, 2, N_USERS)).sum().backward()
    for (name, leaf), gradient in zip(leaves.items(), every, strict=True):
        if name == frozen:
            assert leaf.grad is None
        else:
            assert torch.equal(leaf.grad, gradient)  # type: ignore[arg-type]


def test_no_block_of_users_by_items_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    original = chunked_softmax.product

    def watched(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        widths.extend(max(part.shape) for part in (a, b))
        return original(a, b)

    monkeypatch.setattr(chunked_softmax, "product", watched)
    layer, hidden = layer_and_hidden()
    with_gradients(chunked_nll(hidden, layer, whole_batch(rows(), CPU), 7), layer, hidden)
    assert len(widths) == 2 * 3 * 4 and max(widths) == 7  # four products of each of three parts


def test_a_second_derivative_is_refused_instead_of_wrong() -> None:
    layer, hidden = layer_and_hidden()
    loss = chunked_nll(hidden, layer, whole_batch(rows(), CPU), 7).sum()
    (gradient,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


@pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.name)
def test_models_learn_the_same_to_rounding_and_to_the_bit_with_the_same_setting(kind: Any, blocks: Dataset) -> None:
    settings = {"epochs": 2, "batch_size": 20, "precision": "float32", **SMALL[kind]}
    whole = kind(**settings).fit(blocks.train, device="cpu")
    parts, again = (kind(**settings, items_at_a_time=7).fit(blocks.train, device="cpu") for _ in range(2))
    for record, other in zip(parts.log_, whole.log_, strict=True):
        assert record.loss == pytest.approx(other.loss, rel=1e-4)
    for name, value in parts.weights().items():
        np.testing.assert_array_equal(value, again.weights()[name])
        np.testing.assert_allclose(value, whole.weights()[name], atol=2e-3)


def test_a_model_takes_its_loss_in_parts_of_that_size(blocks: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    original = chunked_nll

    def watched(hidden: torch.Tensor, layer: nn.Linear, batch: SparseBatch, step: int, dtype: Any) -> torch.Tensor:
        seen.append((step, dtype))
        return original(hidden, layer, batch, step, dtype)

    monkeypatch.setattr("recvae.models.common.likelihood.chunked_nll", watched)
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 50, "latent_dim": 4}
    MultDAE(**settings, items_at_a_time=5, precision="bfloat16").fit(blocks.train, device="cpu")
    assert seen == [(5, torch.bfloat16)] * 2
    MultDAE(**settings).fit(blocks.train, device="cpu")
    assert len(seen) == 2, "off by default"


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (MultVAE, {"items_at_a_time": 0}, r"got items_at_a_time=0, expected a whole number, 1 or more \(or none\)"),
        (
            AE,
            {"items_at_a_time": 9, "likelihood": "bernoulli"},
            "got items_at_a_time=9 with likelihood=bernoulli, where it has no effect; leave it out, or set likelihood=",
        ),
        (
            RecVAE,
            {"items_at_a_time": 9, "sampling": "uniform"},
            "got items_at_a_time=9 with sampling='uniform', which never has the logits of all items; leave one of them",
        ),
    ],
)
def test_what_cannot_be_in_parts_is_refused(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(kind, settings)
    with pytest.raises(UsageError, match=message):
        kind(**settings).fit(rows())


def test_the_estimate_falls_by_the_block_and_a_refusal_says_what_to_set() -> None:
    size = (10_000, 1_000_000, 200_000)
    model = MultDAE(latent_dim=64, batch_size=500)
    whole, parts = (replace(model, items_at_a_time=step).needs(*size).training for step in (None, 4096))
    fell = whole - parts + 4 * 4 * 4096 * (500 + 64) + 2 * 4 * 64 * 10**6  # room for two gradients once more, see there
    assert 1.3 * 4 * 500 * 10**6 < fell < 1.31 * 4 * 500 * 10**6
    fewer = MultDAE(latent_dim=64, batch_size=500, items_at_a_time=64).needs(*size).training
    assert fewer < parts
    with pytest.raises(MemoryLimitError, match=r"raise --max-memory to .*GB, or set items_at_a_time=4096, or set bat"):
        MultDAE(latent_dim=64, batch_size=500).check_memory(*size, max_memory=parts)
    with pytest.raises(MemoryLimitError) as caught:
        MultDAE(latent_dim=64, batch_size=500).check_memory(*size, max_memory=parts - 1)
    assert "items_at_a_time" not in str(caught.value), "it would not fit either"
    others: list[dict[str, Any]] = [{"sampling": "uniform"}, {"likelihood": "bernoulli"}, {"items_at_a_time": 9000}]
    for other in others:
        with pytest.raises(MemoryLimitError) as caught:
            MultDAE(latent_dim=64, batch_size=5000, **other).check_memory(*size, max_memory=10**9)
        assert "items_at_a_time" not in str(caught.value)


def test_the_command_trains_in_parts(toy: Path, command: Any) -> None:
    words = ("train", "--model", "multdae", "--set", "epochs=1", "--set", "latent_dim=4")
    assert command(*words, "--set", "items_at_a_time=50").code == 0
    assert command("recommend", "--user", "0", "-k", "3").code in (0, 2)
    said = command(*words, "--set", "items_at_a_time=50", "--set", "sampling=uniform")
    assert said.code == 2 and "leave one of them out" in said.err
