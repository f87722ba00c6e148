"""VASP against its paper: split histories, a shallow path without diagonal, two ways to join the paths.

The networks and the losses are written out below with dense matrices in float64.
"""

import math
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional

from recvae.models import VASP, vasp
from recvae.models.vasp import VASPNetwork, focal_loss, log_product, split_histories
from recvae.training.batches import SparseBatch, whole_batch
from recvae.training.records import EpochRecord, NullMonitor

# Letters in shape comments: U users, I items.

Weights = dict[str, torch.Tensor]
N_USERS, N_ITEMS, HIDDEN, LATENT, DEPTH = 23, 11, 6, 3, 3
SMALL: dict[str, Any] = {"hidden_dim": HIDDEN, "latent_dim": LATENT, "depth": DEPTH}
JOINTS = ["sum", "product"]


def rows(n_users: int = N_USERS, n_items: int = N_ITEMS) -> sp.csr_matrix:
    """Return users with weighted items, everyone with another number of them, one with none."""
    rng = np.random.default_rng(1)
    dense = rng.integers(1, 4, (n_users, n_items)) * (rng.random((n_users, n_items)) < rng.random((n_users, 1)))
    dense[4] = 0
    return sp.csr_matrix(dense, dtype=np.float32)


def cpu_batch(x: sp.csr_matrix) -> SparseBatch:
    return whole_batch(x, torch.device("cpu"))


def dense_of(x: sp.csr_matrix) -> torch.Tensor:
    return torch.from_numpy(x.toarray()).double()


def scattered(batch: SparseBatch, values: torch.Tensor, n_items: int = N_ITEMS) -> torch.Tensor:
    """Return values of interactions as a dense block (U, I)."""
    block = torch.zeros(len(batch), n_items, dtype=torch.float64)
    block[batch.rows, batch.items.long()] = values.double()
    return block


def paper_paths(weights: Weights, inputs: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the logits of the deep path and of the shallow one (U, I), and the KL divergence (U,)."""
    hidden = inputs @ weights["encoder.first.weight"] + weights["encoder.first.bias"]
    blocks: list[torch.Tensor] = []
    for k in range(DEPTH):
        if k > 0:
            layer = weights[f"encoder.inner.{k - 1}.weight"], weights[f"encoder.inner.{k - 1}.bias"]
            hidden = functional.linear(blocks[-1], *layer) + sum(blocks)
        scale, shift = weights[f"encoder.norms.{k}.weight"], weights[f"encoder.norms.{k}.bias"]
        blocks.append(functional.layer_norm(hidden * torch.sigmoid(hidden), (HIDDEN,), scale, shift, eps=0.1))
    heads = functional.linear(blocks[-1], weights["encoder.heads.weight"], weights["encoder.heads.bias"])
    mean, logvar = heads[:, :LATENT], heads[:, LATENT:]
    deep = functional.linear(mean + noise * torch.exp(logvar / 2), weights["decoder.weight"], weights["decoder.bias"])
    return deep, inputs @ weights["shallow"], 0.5 * (mean**2 + logvar.exp() - logvar - 1).sum(dim=1)


def paper_focal(p: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Return the focal loss of each user (U,), with alpha 1/4 and gamma 2."""
    of_seen, of_others = -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log()
    return torch.where(seen, of_seen, of_others).sum(dim=1)


def with_random_weights(joint: str) -> VASP:
    """Return a model with large weights, and a shallow path without diagonal."""
    rng = np.random.default_rng(2)
    model = VASP(**SMALL, joint=joint)
    shapes = {name: value.shape for name, value in model._network(N_ITEMS).state_dict().items()}
    weights = {name: rng.normal(0, 0.6, shape).astype(np.float32) for name, shape in shapes.items()}
    np.fill_diagonal(weights["shallow"], 0)
    model.load_weights(weights)
    model.network_.requires_grad_(True)
    return model


def as_leaves(model: VASP) -> Weights:
    """Return a float64 copy of the weights to differentiate by."""
    return {name: value.double().requires_grad_() for name, value in model.network_.state_dict().items()}


def test_the_two_halves_are_disjoint_and_together_the_history() -> None:
    """With an item in both halves the shallow path would learn to repeat its input."""
    batch = cpu_batch(rows(400, 50))
    inputs, targets = split_histories(batch, torch.Generator().manual_seed(0))
    given, wanted = inputs > 0, targets.values > 0
    assert (given ^ wanted).all()
    assert given.float().mean().item() == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(targets.values[wanted], batch.values[wanted], rtol=0, atol=0)
    totals = torch.zeros(len(batch)).index_add(0, batch.rows, batch.values * wanted)
    torch.testing.assert_close(targets.totals, totals)
    again, _ = split_histories(batch, torch.Generator().manual_seed(1))
    assert ((again > 0) != given).float().mean() > 0.4  # another split each time


def test_the_input_half_is_normalised_and_the_target_half_is_not() -> None:
    batch = cpu_batch(rows(400, 50))
    inputs, targets = split_histories(batch, torch.Generator().manual_seed(0))
    expected = functional.normalize(scattered(batch, batch.values * (inputs > 0), 50))
    torch.testing.assert_close(scattered(batch, inputs, 50), expected, rtol=1e-5, atol=1e-6)
    assert set(targets.values.tolist()) == {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("joint", JOINTS)
def test_no_update_of_a_whole_run_has_an_input_item_among_its_targets(
    joint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []
    wanted: list[torch.Tensor] = []
    name = "multinomial_nll" if joint == "sum" else "focal_loss"
    loss = getattr(vasp, name)
    shallow = VASPNetwork.shallow_logits

    def look_at_loss(logits: torch.Tensor, batch: SparseBatch) -> torch.Tensor:
        wanted.append(scattered(batch, batch.values))
        return loss(logits, batch)

    def look_at_input(network: VASPNetwork, batch: SparseBatch, inputs: torch.Tensor) -> torch.Tensor:
        given.append(scattered(batch, inputs))
        return shallow(network, batch, inputs)

    monkeypatch.setattr(vasp, name, look_at_loss)
    monkeypatch.setattr(VASPNetwork, "shallow_logits", look_at_input)
    VASP(**SMALL, joint=joint, epochs=3, batch_size=8).fit(rows(), device="cpu")
    assert len(given) == len(wanted) == 9
    for start in range(0, 9, 3):
        inputs, targets = torch.cat(given[start : start + 3]), torch.cat(wanted[start : start + 3])
        assert not ((inputs > 0) & (targets > 0)).any()
        assert ((inputs > 0) | (targets > 0)).sum() == rows().nnz


@pytest.mark.parametrize("settings", [{"joint": "sum"}, {"joint": "product"}, {"joint": "sum", "shallow_decay": 0.01}])
def test_the_shallow_diagonal_is_exactly_0_after_every_update(settings: dict[str, Any]) -> None:
    """A diagonal would rank what a user has, and at scoring time the whole history is the input."""
    model = VASP(**SMALL, **settings, epochs=4, batch_size=8, learning_rate=0.05)
    diagonals: list[torch.Tensor] = []

    class Watch(NullMonitor):
        def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
            diagonals.append(cast(VASPNetwork, model.network_).shallow.detach().diagonal().clone())

    model.fit(rows(), monitor=Watch(), device="cpu")
    assert len(diagonals) == 12
    assert not torch.stack(diagonals).any()
    learned = model.weights()["shallow"]
    assert (learned[~np.eye(N_ITEMS, dtype=bool)] != 0).mean() > 0.9


@pytest.mark.parametrize("joint", JOINTS)
def test_loss_and_gradients_are_those_of_the_formulas(joint: str) -> None:
    x, beta = rows(), 0.37
    model, batch = with_random_weights(joint), cpu_batch(x)
    losses = model._loss(batch, beta, torch.Generator().manual_seed(11))
    losses.total.backward()

    draws, weights = torch.Generator().manual_seed(11), as_leaves(model)
    given = scattered(batch, torch.rand(x.nnz, generator=draws) < 0.5) > 0
    noise = torch.randn(N_USERS, LATENT, generator=draws).double()
    target = dense_of(x) * ~given
    deep, shallow, kl = paper_paths(weights, functional.normalize(dense_of(x) * given), noise)
    if joint == "sum":
        per_user = -(target * torch.log_softmax(deep + shallow, dim=1)).sum(dim=1)
    else:
        per_user = paper_focal(torch.sigmoid(deep) * torch.sigmoid(shallow), target > 0)
    total = per_user.mean() + beta * kl.mean()
    total.backward()

    assert losses.reconstruction.item() == pytest.approx(per_user.mean().item(), rel=1e-5)
    assert losses.kl is not None
    assert losses.kl.item() == pytest.approx(kl.mean().item(), rel=1e-5)
    assert losses.total.item() == pytest.approx(total.item(), rel=1e-5)
    for name, parameter in model.network_.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad.double(), weights[name].grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("joint", JOINTS)
def test_scores_come_from_the_whole_history_and_the_mean(joint: str) -> None:
    """Elliot and Microsoft's recommenders sample z at prediction time; half a history would be half a user."""
    x = rows()
    model = with_random_weights(joint)
    deep, shallow, _ = paper_paths(as_leaves(model), functional.normalize(dense_of(x)), torch.zeros(N_USERS, LATENT))
    expected = deep + shallow
    if joint == "product":
        expected = torch.log(torch.sigmoid(deep) * torch.sigmoid(shallow))
    np.testing.assert_allclose(model.score(x), expected.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.score(x), model.score(x))


def test_focal_loss_is_that_worked_out_by_hand() -> None:
    p = torch.tensor([[0.5, 0.5, 0.9, 0.9], [0.1, 0.5, 0.9, 0.5], [0.5, 0.5, 0.5, 0.5]])
    x = sp.csr_matrix([[1, 0, 3, 0], [0, 0, 0, 0], [0, 2, 0, 0]], dtype=np.float32)
    seen_half, other_half = 0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)
    seen_sure, other_sure = 0.25 * 0.01 * math.log(10 / 9), 0.75 * 0.81 * math.log(10)
    expected = [
        seen_half + other_half + seen_sure + other_sure,  # 0.043322 + 0.129965 + 0.000263 + 1.398820
        0.75 * 0.01 * math.log(10 / 9) + 2 * other_half + other_sure,
        seen_half + 3 * other_half,
    ]
    ours = focal_loss(p.log(), cpu_batch(x))
    torch.testing.assert_close(ours, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert ours[0].item() == pytest.approx(1.572370, abs=1e-5)


def test_focal_loss_and_gradient_are_those_of_the_dense_formula() -> None:
    x, rng = rows(), np.random.default_rng(5)
    ours = torch.from_numpy(np.log(rng.uniform(0.01, 0.99, x.shape))).requires_grad_()
    dense = ours.detach().clone().requires_grad_()
    weight = torch.linspace(-1, 2, N_USERS, dtype=torch.float64)
    loss, expected = focal_loss(ours, cpu_batch(x)), paper_focal(dense.exp(), dense_of(x) > 0)
    (loss * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.grad, dense.grad, rtol=1e-9, atol=1e-12)


def test_the_product_of_both_paths_is_taken_of_probabilities_and_does_not_underflow() -> None:
    """The product of two logits would call two confident refusals a recommendation."""
    deep, shallow = torch.tensor([[0.3, -2.0, 4.0, -500.0]]), torch.tensor([[1.2, -3.0, -4.0, -500.0]])
    ours = log_product(deep, shallow)
    expected = torch.log(torch.sigmoid(deep.double()) * torch.sigmoid(shallow.double()))
    torch.testing.assert_close(ours[:, :3].double(), expected[:, :3], rtol=1e-5, atol=1e-6)
    assert ours[0, 3].item() == pytest.approx(-1000)
    assert ours.argmin().item() == 3


def test_the_shallow_path_starts_at_nothing_and_alone_is_decayed() -> None:
    model = VASP(**SMALL, epochs=1, learning_rate=0.0).fit(rows(), device="cpu")
    assert not model.weights()["shallow"].any()
    decayed = VASP(**SMALL, shallow_decay=0.1)
    decayed.network_ = model.network_
    shallow = cast(nn.Module, model.network_).get_parameter("shallow")
    for group in decayed._optimizer().param_groups:
        assert group["weight_decay"] == (0.1 if group["params"] == [shallow] else 0.0)


def test_the_record_of_an_epoch_is_the_mean_of_its_users() -> None:
    records: list[EpochRecord] = []

    class Watch(NullMonitor):
        def epoch(self, record: EpochRecord) -> None:
            records.append(record)

    model = VASP(**SMALL, epochs=2, batch_size=5, beta=0.2, anneal="constant").fit(
        rows(), monitor=Watch(), device="cpu"
    )
    assert records == model.log_
    for record in records:
        assert record.kl is not None
        assert record.loss == pytest.approx(record.reconstruction + 0.2 * record.kl, rel=1e-5)
