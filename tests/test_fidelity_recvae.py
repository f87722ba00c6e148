"""RecVAE against its authors' code (ilya-shenbin/RecVAE), written out below with dense matrices in float64."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import norm
from torch import nn
from torch.nn import functional

from recvae.models import RecVAE, recvae
from recvae.models.recvae import RecVAENetwork, composite_log_prior
from recvae.training.batches import SparseBatch, whole_batch
from recvae.training.records import EpochRecord, NullMonitor
from recvae.training.task import Phase

# Letters in shape comments: U users, I items, D latent dimensions, H width of a layer.

Weights = dict[str, torch.Tensor]
N_USERS, N_ITEMS, HIDDEN, LATENT, DEPTH = 23, 11, 6, 3, 5
SMALL: dict[str, Any] = {"hidden_dim": HIDDEN, "latent_dim": LATENT, "batch_size": 8, "learning_rate": 0.01}
UPDATES = 3  # per pass: 8, 8 and 7 users
PARTS = ("encoder", "decoder", "prior")


def layer_norm(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    centred = hidden - hidden.mean(dim=1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(dim=1, keepdim=True) + 0.1) * weight + bias


def paper_encoder(weights: Weights, part: str, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and log-variance (U, D); block k is LN(swish(W h_{k-1} + the sum of all blocks before))."""
    blocks: list[torch.Tensor] = []
    for k in range(DEPTH):
        name = "first" if k == 0 else f"inner.{k - 1}"
        weight = weights[f"{part}.{name}.weight"]
        hidden = inputs @ weight if k == 0 else blocks[-1] @ weight.T
        hidden = hidden + weights[f"{part}.{name}.bias"] + sum(blocks)
        hidden = hidden / (1 + torch.exp(-hidden))
        blocks.append(layer_norm(hidden, weights[f"{part}.norms.{k}.weight"], weights[f"{part}.norms.{k}.bias"]))
    heads, bias = weights[f"{part}.heads.weight"], weights[f"{part}.heads.bias"]
    mean = blocks[-1] @ heads[:LATENT].T + bias[:LATENT]
    return mean, blocks[-1] @ heads[LATENT:].T + bias[LATENT:]


def density(z: torch.Tensor, mean: torch.Tensor | float, variance: torch.Tensor | float) -> torch.Tensor:
    return torch.exp(-((z - mean) ** 2) / (2 * variance)) / (2 * math.pi * torch.as_tensor(variance)).sqrt()


def paper_log_prior(z: torch.Tensor, old_mean: torch.Tensor, old_logvar: torch.Tensor) -> torch.Tensor:
    """Return log p(z | phi_old, x) of each user (U,): a mixture in every dimension, not one of whole vectors."""
    of_old = density(z, old_mean, old_logvar.exp())
    mixture = 3 / 20 * density(z, 0.0, 1.0) + 3 / 4 * of_old + 1 / 10 * density(z, 0.0, math.exp(10))
    return mixture.log().sum(dim=1)


def paper_losses(
    weights: Weights, x: torch.Tensor, inputs: torch.Tensor, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return negative log-likelihood and KL term, one value per user each."""
    mean, logvar = paper_encoder(weights, "encoder", inputs)
    z = mean + noise * torch.exp(logvar / 2)
    logits = z @ weights["decoder.weight"].T + weights["decoder.bias"]
    reconstruction = -(x * torch.log_softmax(logits, dim=1)).sum(dim=1)
    kl = density(z, mean, logvar.exp()).log().sum(dim=1)
    return reconstruction, kl - paper_log_prior(z, *paper_encoder(weights, "prior", functional.normalize(x)))


def rows() -> sp.csr_matrix:
    """Return users with weighted items, no two alike, one with none."""
    rng = np.random.default_rng(1)
    dense = rng.integers(1, 4, (N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.5)
    dense[4] = 0
    assert len(np.unique(dense, axis=0)) == N_USERS
    return sp.csr_matrix(dense, dtype=np.float32)


def dense_of(x: sp.csr_matrix) -> torch.Tensor:
    return torch.from_numpy(x.toarray()).double()


def with_random_weights(**settings: Any) -> RecVAE:
    """Return a model with large weights, its frozen encoder too, as in the middle of a run."""
    rng = np.random.default_rng(2)
    model = RecVAE(**SMALL, **settings)
    network = model.network_ = model._network(N_ITEMS)
    model._initialise(torch.Generator().manual_seed(0))
    for parameter in network.parameters():
        parameter.data = torch.from_numpy(rng.normal(0, 0.6, parameter.shape)).float()
    model.n_items_ = N_ITEMS
    return model


def as_leaves(model: RecVAE) -> Weights:
    """Return a float64 copy of the weights to differentiate by."""
    return {name: value.double().requires_grad_() for name, value in model.network_.state_dict().items()}


class Watch(NullMonitor):
    """Keeps the state of each part before the first update and after every one, and who went through the encoders."""

    def __init__(self, model: RecVAE) -> None:
        self.model = model
        self.states: list[dict[str, Weights]] = []
        self.betas: list[float | None] = []
        self.seen: dict[str, list[tuple[SparseBatch, torch.Tensor]]] = {"encoder": [], "prior": []}

    def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002
        for part, seen in self.seen.items():
            first = self.model.network_.get_submodule(f"{part}.first")
            first.register_forward_pre_hook(partial(self._enter, seen))
        self._look()

    def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
        self.betas.append(beta)
        self._look()

    @staticmethod
    def _enter(seen: list[Any], layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        if layer.training:  # and not when codes are looked at after an epoch
            seen.append(arguments)

    def _look(self) -> None:
        states = {part: self.model.network_.get_submodule(part).state_dict() for part in PARTS}
        self.states.append({p: {n: v.clone() for n, v in state.items()} for p, state in states.items()})


def same(one: Weights, other: Weights) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def watched() -> Watch:
    """Return what was seen in two epochs; do not change it."""
    model = RecVAE(**SMALL, epochs=2)
    watch = Watch(model)
    model.fit(rows(), monitor=watch, device="cpu")
    return watch


def test_prior_density_is_that_of_a_mixture_in_every_dimension() -> None:
    """RecBole and Cornac evaluate it at a z with noise of 0.01, where it says nothing of its width."""
    rng = np.random.default_rng(3)
    z, mean, logvar = (rng.normal(0, scale, (7, LATENT)) for scale in (3.0, 1.0, 1.5))
    expected = np.zeros(7)
    for user in range(7):
        for d in range(LATENT):
            of_old = norm.pdf(z[user, d], mean[user, d], math.exp(logvar[user, d] / 2))
            wide = norm.pdf(z[user, d], 0, math.exp(5))
            expected[user] += math.log(3 / 20 * norm.pdf(z[user, d]) + 3 / 4 * of_old + 1 / 10 * wide)
    ours = composite_log_prior(*(torch.from_numpy(values) for values in (z, mean, logvar)))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_prior_density_integrates_to_1_and_stays_finite_far_away() -> None:
    grid = torch.linspace(-3000, 3000, 600_001, dtype=torch.float64)[:, None]
    old = torch.full_like(grid, 1.5), torch.full_like(grid, -0.7)
    mass = torch.trapezoid(composite_log_prior(grid, *old).exp(), grid[:, 0])
    assert mass.item() == pytest.approx(1, abs=1e-6)
    assert composite_log_prior(*(torch.tensor([[value]]) for value in (1e6, 0.0, -12.0))).isfinite().all()


def test_encoder_loss_and_gradients_are_those_of_the_paper() -> None:
    x, gamma, share = rows(), 0.03, 0.4
    model = with_random_weights(dropout=share)
    batch = whole_batch(x, torch.device("cpu"))
    losses = model._loss(batch, gamma, torch.Generator().manual_seed(11))
    losses.total.backward()

    draws, weights, target = torch.Generator().manual_seed(11), as_leaves(model), dense_of(x)
    kept = torch.zeros_like(target)
    kept[batch.rows, batch.items.long()] = (torch.rand(x.nnz, generator=draws) >= share).double()
    noise = torch.randn(N_USERS, LATENT, generator=draws).double()
    inputs = functional.normalize(target) * kept / (1 - share)
    reconstruction, kl = paper_losses(weights, target, inputs, noise)
    total = (reconstruction + gamma * target.sum(dim=1) * kl).mean()
    total.backward()

    assert losses.reconstruction.item() == pytest.approx(reconstruction.mean().item(), rel=1e-5)
    assert losses.kl is not None
    assert losses.kl.item() == pytest.approx(kl.mean().item(), rel=1e-5)
    assert losses.total.item() == pytest.approx(total.item(), rel=1e-5)
    for name, parameter in model.network_.named_parameters():
        if name.startswith("prior"):
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad.double(), weights[name].grad, rtol=1e-4, atol=1e-4)


def test_decoder_loss_is_the_likelihood_without_dropout_and_its_gradient_stops_at_the_encoder() -> None:
    x = rows()
    model = with_random_weights(dropout=0.9)
    losses = model._decoder_loss(whole_batch(x, torch.device("cpu")), 0.03, torch.Generator().manual_seed(5))
    losses.total.backward()
    weights, target = as_leaves(model), dense_of(x)
    noise = torch.randn(N_USERS, LATENT, generator=torch.Generator().manual_seed(5)).double()
    reconstruction, _ = paper_losses(weights, target, functional.normalize(target), noise)
    reconstruction.mean().backward()
    assert losses.total.item() == pytest.approx(reconstruction.mean().item(), rel=1e-5)
    for name, parameter in model.network_.named_parameters():
        if name.startswith("decoder"):
            assert parameter.grad is not None, name
            torch.testing.assert_close(parameter.grad.double(), weights[name].grad, rtol=1e-4, atol=1e-4)
        else:
            assert parameter.grad is None, name


def test_kl_of_each_user_weighs_gamma_times_the_size_of_his_history() -> None:
    """A weight shared by all users is Mult-VAE's; the paper's grows with the likelihood it stands against."""
    x, gamma = rows(), 0.03
    model = with_random_weights()
    for user in range(N_USERS):
        batch = whole_batch(sp.csr_matrix(x[user]), torch.device("cpu"))
        losses = model._loss(batch, gamma, torch.Generator().manual_seed(user))
        assert losses.kl is not None
        expected = gamma * x[user].sum() * losses.kl.item()
        assert (losses.total - losses.reconstruction).item() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_scores_are_the_papers_from_the_mean_without_dropout() -> None:
    x = rows()
    model = with_random_weights(dropout=0.9)
    weights = as_leaves(model)
    mean, _ = paper_encoder(weights, "encoder", functional.normalize(dense_of(x)))
    expected = mean @ weights["decoder.weight"].T + weights["decoder.bias"]
    np.testing.assert_allclose(model.score(x), expected.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.score(x), model.score(x))


def test_encoder_passes_leave_the_decoder_alone_and_decoder_passes_the_encoder_to_the_bit(watched: Watch) -> None:
    """One optimiser step over everything would move both: there are three encoder passes to one of the decoder."""
    learned = [
        [part for part in ("encoder", "decoder") if not same(before[part], after[part])]
        for before, after in pairwise(watched.states)
    ]
    assert learned == 2 * ([["encoder"]] * 3 * UPDATES + [["decoder"]] * UPDATES)


def test_the_prior_becomes_the_encoder_once_per_epoch_between_encoder_and_decoder_passes(watched: Watch) -> None:
    """Updated after each batch it would hold the encoder where it is; never updated, it is noise."""
    old = [state["prior"] for state in watched.states]
    assert not same(old[0], watched.states[0]["encoder"])  # drawn on its own, as the authors'
    changes = [update for update in range(1, len(old)) if not same(old[update - 1], old[update])]
    assert changes == [3 * UPDATES + 1, 7 * UPDATES + 1]  # seen after the first update of the decoder
    for update in changes:
        assert same(old[update], watched.states[update - 1]["encoder"])


def test_the_encoder_sees_a_part_of_the_row_only_while_it_learns_and_the_prior_always_the_whole(
    watched: Watch,
) -> None:
    def hidden(seen: tuple[SparseBatch, torch.Tensor]) -> float:
        batch, inputs = seen
        kept = inputs != 0
        scale = 2.0 if not kept.all() else 1.0
        torch.testing.assert_close(inputs[kept], scale * batch.inputs[kept])
        return 1 - kept.float().mean().item()

    shares = [hidden(seen) for seen in watched.seen["encoder"]]
    assert len(shares) == 8 * UPDATES
    for epoch in (shares[: 4 * UPDATES], shares[4 * UPDATES :]):
        assert np.mean(epoch[: 3 * UPDATES]) == pytest.approx(0.5, abs=0.1)
        assert min(epoch[: 3 * UPDATES]) > 0.2
        assert epoch[3 * UPDATES :] == [0.0] * UPDATES
    assert [hidden(seen) for seen in watched.seen["prior"]] == [0.0] * 6 * UPDATES


def test_gamma_is_the_same_in_every_update_unless_asked_otherwise(watched: Watch) -> None:
    assert watched.betas == [RecVAE().gamma] * 8 * UPDATES


def test_the_two_optimisers_share_neither_parameters_nor_moments() -> None:
    phases: list[Phase] = []

    class Watched(RecVAE):
        def _phases(self) -> Sequence[Phase]:
            phases.extend(super()._phases())
            return phases

    model = Watched(**SMALL, epochs=2).fit(rows(), device="cpu")
    assert [(phase.name, phase.passes) for phase in phases] == [("encoder", 3), ("decoder", 1)]
    for phase in phases:
        parameters = list(model.network_.get_submodule(phase.name).parameters())
        assert [id(p) for p in phase.parameters()] == [id(p) for p in parameters]
        assert {id(p) for p in phase.optimizer.state} == {id(p) for p in parameters}
        assert {int(state["step"]) for state in phase.optimizer.state.values()} == {2 * phase.passes * UPDATES}
    assert phases[0].optimizer is not phases[1].optimizer


def test_two_epochs_are_the_papers_alternation_of_two_adams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recvae, "sample", lambda mean, *_: mean)
    x, gamma = rows(), 0.02
    settings = SMALL | {"dropout": 0.0, "batch_size": 100, "gamma": gamma, "epochs": 2}
    model = RecVAE(**settings)
    watch = Watch(model)
    model.fit(x, monitor=watch, device="cpu")

    initial = {f"{part}.{name}": value for part, state in watch.states[0].items() for name, value in state.items()}
    weights = {name: value.double().requires_grad_() for name, value in initial.items()}
    parts = {part: [w for name, w in weights.items() if name.startswith(f"{part}.")] for part in PARTS}
    adams = {part: torch.optim.Adam(parts[part], lr=model.learning_rate) for part in ("encoder", "decoder")}
    target, noise = dense_of(x), torch.zeros(N_USERS, LATENT)
    for learns in 2 * ["encoder", "encoder", "encoder", "update", "decoder"]:
        if learns == "update":
            for new, old in zip(parts["encoder"], parts["prior"], strict=True):
                old.data = new.data.clone()
            continue
        reconstruction, kl = paper_losses(weights, target, functional.normalize(target), noise)
        loss = (reconstruction + gamma * target.sum(dim=1) * kl).mean()
        gradients = torch.autograd.grad(loss, parts[learns])
        for weight, gradient in zip(parts[learns], gradients, strict=True):
            weight.grad = gradient
        adams[learns].step()
    for name, value in model.weights().items():
        np.testing.assert_allclose(value, weights[name].detach(), rtol=1e-3, atol=2e-4, err_msg=name)


def test_weights_start_as_pytorchs_and_the_norms_have_an_eps_of_a_tenth() -> None:
    model = RecVAE(hidden_dim=120, latent_dim=50, epochs=1, learning_rate=0.0)
    watch = Watch(model)
    model.fit(sp.csr_matrix(np.eye(5, 300), dtype=np.float32), monitor=watch, device="cpu")
    for name, value in ((f"{p}.{n}", v) for p, state in watch.states[0].items() for n, v in state.items()):
        if ".norms." in name:
            assert (value == (1.0 if name.endswith("weight") else 0.0)).all(), name
        elif value.ndim == 2:
            inputs = value.shape[0] if name.endswith("first.weight") else value.shape[1]
            assert 0.98 < value.abs().max() * inputs**0.5 <= 1, name
            assert value.std() * inputs**0.5 == pytest.approx(1 / 3**0.5, rel=0.05), name
    encoder = cast(RecVAENetwork, model.network_).encoder
    assert [layer.eps for layer in encoder.norms if isinstance(layer, nn.LayerNorm)] == [0.1] * DEPTH


def test_what_is_kept_of_a_run_holds_no_frozen_encoder(watched: Watch) -> None:
    names = watched.model.weights()
    assert {name.split(".")[0] for name in names} == {"encoder", "decoder"}
    assert cast(RecVAENetwork, watched.model.network_).prior is None


def test_defaults_are_the_authors() -> None:
    model = RecVAE()
    assert (model.hidden_dim, model.depth, model.latent_dim, model.dropout) == (600, 5, 200, 0.5)
    assert (model.gamma, model.anneal, model.encoder_passes, model.decoder_passes) == (0.005, "constant", 3, 1)
    assert (model.users_per_update(116_677), model.learning_rate, model.epochs) == (500, 5e-4, 50)  # those of ML-20M
