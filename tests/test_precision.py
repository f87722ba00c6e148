"""bfloat16 for the largest products: where it is taken, what it may change, and that memory is kept between batches."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from recvae.compute.allocator import kept_blocks
from recvae.compute.devices import PRECISIONS, multiplies_bfloat16, resolve_precision
from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.evaluation.evaluate import evaluate
from recvae.metrics import parse_metrics
from recvae.models import AE, VASP, HVamp, Model, MultDAE, MultVAE, RecVAE
from recvae.training.batches import whole_batch
from recvae.training.losses import likelihood, linear_logits, multinomial_nll, output_nll

CPU = torch.device("cpu")
NETWORKS = [AE, MultDAE, MultVAE, RecVAE, HVamp, VASP]
SMALL: dict[type[Model], dict[str, Any]] = {
    HVamp: {"hidden_dim": 16, "latent_dim": 8, "pseudo_inputs": 6},
    RecVAE: {"hidden_dim": 16, "latent_dim": 8},
    VASP: {"hidden_dim": 16, "latent_dim": 8},
}


def case(n_users: int = 7, n_items: int = 40, width: int = 12) -> tuple[sp.csr_matrix, nn.Linear, torch.Tensor]:
    """Return weighted rows, one of them empty, a last layer and what goes into it (B, H)."""
    rng = np.random.default_rng(0)
    dense = rng.integers(1, 4, (n_users, n_items)) * (rng.random((n_users, n_items)) < 0.3)
    dense[2] = 0
    x = sp.csr_matrix(dense, dtype=np.float32)
    generator = torch.Generator().manual_seed(1)
    layer = nn.utils.skip_init(nn.Linear, width, n_items)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    return x, layer, torch.randn(n_users, width, generator=generator)  # type: ignore[return-value]


def with_gradients(loss: torch.Tensor, layer: nn.Linear, hidden: torch.Tensor) -> list[torch.Tensor]:
    weight = torch.linspace(-1, 2, len(loss), dtype=loss.dtype)  # each user counts differently
    return [loss.detach(), *torch.autograd.grad((loss * weight).sum(), [hidden, layer.weight, layer.bias])]


def test_layer_and_likelihood_in_one_are_the_same_as_one_after_the_other() -> None:
    x, layer, hidden = case()
    batch, h = whole_batch(x, CPU), hidden.clone().requires_grad_()
    together = with_gradients(output_nll(h, layer, batch), layer, h)
    apart = with_gradients(multinomial_nll(layer(h), batch), layer, h)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_gradient_in_one_is_autograds_in_float64() -> None:
    x, layer, hidden = case(n_users=4, n_items=6, width=3)
    layer, batch = layer.double(), whole_batch(x, CPU)
    inputs = (hidden.double().requires_grad_(), layer.weight, layer.bias)

    def loss(h: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        other = nn.utils.skip_init(nn.Linear, 3, 6, dtype=torch.float64)
        del other.weight, other.bias
        other.weight, other.bias = weight, bias  # type: ignore[assignment]
        return output_nll(h, other, batch)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("frozen", ["weight", "bias", "hidden"])
def test_what_stands_still_gets_no_gradient_and_the_rest_the_same(frozen: str) -> None:
    x, layer, hidden = case()
    batch, h = whole_batch(x, CPU), hidden.clone().requires_grad_()
    every = with_gradients(output_nll(h, layer, batch), layer, h)[1:]
    leaves = {"hidden": h, "weight": layer.weight, "bias": layer.bias}
    leaves[frozen].requires_grad_(False)
    weight = torch.linspace(-1, 2, len(x.toarray()))
    (output_nll(h, layer, batch) * weight).sum().backward()
    for (name, leaf), gradient in zip(leaves.items(), every, strict=True):
        if name == frozen:
            assert leaf.grad is None
        else:
            torch.testing.assert_close(leaf.grad, gradient)


@pytest.mark.parametrize("name", ["multinomial", "bernoulli", "gaussian"])
def test_bfloat16_gives_float32_numbers_close_to_those_of_float32(name: str) -> None:
    x, layer, hidden = case()
    batch, h = whole_batch(x, CPU), hidden.clone().requires_grad_()
    exact = with_gradients(likelihood(name)(layer(h), batch), layer, h)
    close = with_gradients(output_nll(h, layer, batch, name, dtype=torch.bfloat16), layer, h)
    for one, other in zip(close, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.03 * other.norm()  # bfloat16 has eight bits
    logits = linear_logits(h, layer, torch.bfloat16)
    assert logits.dtype == torch.float32 and not torch.equal(logits, layer(h))


@pytest.mark.parametrize("kind", NETWORKS)
def test_each_network_learns_as_well_in_bfloat16(kind: Any, blocks: Dataset) -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        settings = {"epochs": 12, "batch_size": 20, "learning_rate": 0.01, "latent_dim": 8, "precision": precision}
        model = kind(**settings | SMALL.get(kind, {})).fit(blocks.train, blocks.validation, device="cpu")
        per_user, _ = evaluate(model, blocks.test, parse_metrics("ndcg@10"))
        found[precision] = float(np.nanmean(per_user["ndcg@10"])), model.weights()
        assert model.training_summary().precision == precision
        assert all(array.dtype == np.float32 for array in model.weights().values())
    assert found["bfloat16"][0] > found["float32"][0] - 0.05
    assert any((found["bfloat16"][1][name] != array).any() for name, array in found["float32"][1].items())


def test_auto_takes_bfloat16_for_large_layers_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_it in (True, False):
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda has_it=has_it: has_it, raising=False)
        assert multiplies_bfloat16(CPU) == has_it
        large, small = (resolve_precision("auto", CPU, n_weights) for n_weights in (1 << 22, 1 << 12))
        assert (large, small) == (torch.bfloat16 if has_it else torch.float32, torch.float32)
        assert [resolve_precision(name, CPU, 1) for name in PRECISIONS[1:]] == [torch.float32, torch.bfloat16]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert not multiplies_bfloat16(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert multiplies_bfloat16(torch.device("cuda"))


def test_an_unknown_precision_is_refused(blocks: Dataset) -> None:
    with pytest.raises(UsageError, match="got precision='float8', expected one of auto, float32, bfloat16"):
        MultVAE(precision="float8").fit(blocks.train)


def test_the_command_takes_a_precision_and_says_where_it_does_not_pay(
    toy: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", "--model", "multdae", "--set", "epochs=1", "--set", "latent_dim=4")
    monkeypatch.setattr("recvae.compute.devices.multiplies_bfloat16", lambda _: False)
    said = command(*words, "--precision", "bfloat16")
    assert said.code == 0 and "no instructions for bfloat16: it works, but float32 would be faster" in said.err
    assert "bfloat16" not in command(*words, "--precision", "float32").err
    assert command(*words, "--precision", "half").code == 2


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_kept_memory_changes_nothing_but_the_time(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with kept_blocks(torch.device(device)):
        kept = [torch.ones(1 << 22) * number for number in range(3)]
    assert [block[0].item() for block in kept] == [0, 1, 2]
    with pytest.raises(KeyboardInterrupt), kept_blocks(torch.device(device)):
        raise KeyboardInterrupt
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with kept_blocks(torch.device(device)):
        pass
