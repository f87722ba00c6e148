"""The softmax over drawn items: exact where all are drawn, without bias where not, and good enough to learn by."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.evaluation.evaluate import evaluate
from recvae.metrics import parse_metrics
from recvae.models import AE, ELSA, VASP, HVamp, MultDAE, MultVAE, RecVAE
from recvae.models.common.hyperparameters import build
from recvae.training.batches import whole_batch
from recvae.training.losses import output_nll
from recvae.training.sampled_softmax import ItemSampler, sampled_nll

CPU = torch.device("cpu")
N_ITEMS, WIDTH = 30, 6


def rows() -> sp.csr_matrix:
    """Return weighted rows, one of them empty, with items of different popularity."""
    rng = np.random.default_rng(0)
    dense = rng.integers(1, 4, (8, N_ITEMS)) * (rng.random((8, N_ITEMS)) < np.linspace(0.05, 0.6, N_ITEMS))
    dense[3] = 0
    return sp.csr_matrix(dense, dtype=np.float32)


def layer_and_hidden(dtype: torch.dtype = torch.float64) -> tuple[nn.Linear, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(WIDTH, N_ITEMS, dtype=dtype)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    return layer, torch.randn(8, WIDTH, generator=generator, dtype=dtype).requires_grad_()


@pytest.fixture(autouse=True)
def own_random_state() -> Any:
    with torch.random.fork_rng():
        yield


def test_with_every_item_drawn_once_it_is_the_full_softmax_and_so_is_its_gradient() -> None:
    layer, hidden = layer_and_hidden()
    batch, every = whole_batch(rows(), CPU), (torch.arange(N_ITEMS), torch.zeros(N_ITEMS))
    found = {}
    for name, loss in (
        ("sampled", sampled_nll(hidden, layer, batch, every)),
        ("full", output_nll(hidden, layer, batch)),
    ):
        found[name] = [loss, *torch.autograd.grad(loss.sum(), [hidden, layer.weight, layer.bias])]
    for one, other in zip(found["sampled"], found["full"], strict=True):
        torch.testing.assert_close(one, other)
    assert found["sampled"][0][3] == 0, "a user without items has no loss"


@pytest.mark.parametrize("by", ["uniform", "popularity"])
def test_the_normaliser_has_no_bias(by: str) -> None:
    """Without the log-q correction popular items would count too often, and rare ones not enough."""
    x = rows()
    layer, hidden = layer_and_hidden()
    batch, sampler = whole_batch(x, CPU), ItemSampler(x, 12, by, CPU)
    generator, values = torch.Generator().manual_seed(2), batch.values.double()
    logits = layer(hidden).detach()
    hit = torch.zeros(8, dtype=torch.float64).index_add_(0, batch.rows, values * logits[batch.rows, batch.items.long()])
    estimates = []
    for _ in range(6000):
        loss = sampled_nll(hidden.detach(), layer, batch, sampler.draw(generator)).detach()
        estimates.append(((loss + hit) / batch.totals.clamp(min=1)).exp())  # Z_u
    z, seen = torch.stack(estimates), batch.totals > 0
    error = z.std(dim=0) / len(estimates) ** 0.5
    exact = logits.exp().sum(dim=1)
    assert ((z.mean(dim=0) - exact).abs() < 4.5 * error)[seen].all()
    assert (error / exact < 0.05)[seen].all()


def test_items_are_drawn_as_often_as_they_should() -> None:
    x = rows()
    counts = np.bincount(x.indices, minlength=N_ITEMS) + 1
    for by, q in (("uniform", np.full(N_ITEMS, 1 / N_ITEMS)), ("popularity", counts / counts.sum())):
        sampler = ItemSampler(x, 50_000, by, CPU)
        items, log_weights = sampler.draw(torch.Generator().manual_seed(0))
        assert items.tolist() == list(range(N_ITEMS))
        # c / (m q) is near 1 for each where q is what it is drawn by
        np.testing.assert_allclose(log_weights.exp(), 1, atol=5 / np.sqrt(50_000 * q.min()))


@pytest.mark.parametrize("by", ["uniform", "popularity"])
@pytest.mark.parametrize("kind", [AE, MultDAE, MultVAE, RecVAE, HVamp])
def test_models_learn_nearly_as_well_by_it(kind: Any, by: str, blocks: Dataset) -> None:
    settings: dict[str, Any] = {"epochs": 20, "batch_size": 20, "learning_rate": 0.01, "latent_dim": 8}
    settings |= {"hidden_dim": 16} if kind in (RecVAE, HVamp) else {}
    settings |= {"pseudo_inputs": 5} if kind is HVamp else {}
    found = []
    for sampling in ({}, {"sampling": by, "sampled_items": 10}):
        model = kind(**settings, **sampling).fit(blocks.train, device="cpu")
        per_user, _ = evaluate(model, blocks.test, parse_metrics("ndcg@10"))
        found.append(float(np.nanmean(per_user["ndcg@10"])))
        assert model.sampler_ is None, "what only training needs is let go"
    assert found[1] > found[0] - 0.1


def test_the_same_seed_draws_the_same_and_bfloat16_is_close() -> None:
    x = rows()
    layer, hidden = layer_and_hidden(torch.float32)
    batch, sampler = whole_batch(x, CPU), ItemSampler(x, 20, "popularity", CPU)
    first, second = (
        sampled_nll(hidden, layer, batch, sampler.draw(torch.Generator().manual_seed(5)), dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    again = sampled_nll(hidden, layer, batch, sampler.draw(torch.Generator().manual_seed(5)))
    assert torch.equal(first, again) and second.dtype == torch.float32
    torch.testing.assert_close(second, first, rtol=0.05, atol=0.1)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (MultVAE, {"sampling": "all"}, "got sampling='all', expected one of none, uniform, popularity"),
        (MultVAE, {"sampling": "uniform", "sampled_items": 0}, "got sampled_items=0, expected a whole number, 1 or"),
        (
            MultVAE,
            {"sampled_items": 5},
            "sampled_items=5 with sampling=none, where it has no effect; leave it out, or set",
        ),
        (AE, {"sampling": "uniform", "likelihood": "gaussian"}, "with likelihood=gaussian, where it has no effect"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kind(**settings).fit(rows())


def test_the_command_says_where_drawing_does_not_pay(toy: Path, command: Any) -> None:
    words = ("train", "--model", "multdae", "--set", "epochs=1", "--set", "latent_dim=4", "--set", "sampling=uniform")
    said = command(*words)
    assert said.code == 0 and "8,192 sampled items of 118: all items (sampling=none) would need less" in said.err
    assert "sampled items of" not in command(*words, "--set", "sampled_items=20").err


@pytest.mark.parametrize("setting", ["sampling", "sampled_items", "likelihood"])
def test_a_model_without_a_softmax_over_all_items_has_no_such_hyperparameter(setting: str) -> None:
    for kind in (VASP, ELSA) if setting == "likelihood" else (VASP,):  # ELSA samples a loss of its own
        with pytest.raises(UsageError, match=f"got unknown hyperparameter '{setting}'; .*{kind.__name__} has: "):
            build(kind, {setting: "none"})
