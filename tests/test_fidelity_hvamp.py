"""H+Vamp against its authors' code (psywaves/EVCF), written out below with dense matrices in float64.

Their gated layers have no tanh; the linear part and the gate of a layer, and mean and log-variance of a head, are the
halves of one matrix here.
"""

import math
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import norm
from torch.nn import functional

from recvae.models import HVamp, hvamp
from recvae.models.hvamp import HVampNetwork, VampPrior
from recvae.training.batches import whole_batch

# Letters in shape comments: U users, I items, D latent dimensions, H hidden width, K pseudo-inputs.

Weights = dict[str, torch.Tensor]
Gaussian = tuple[torch.Tensor, torch.Tensor]
N_USERS, N_ITEMS, HIDDEN, LATENT, PSEUDO = 23, 11, 6, 3, 4
SMALL: dict[str, Any] = {"hidden_dim": HIDDEN, "latent_dim": LATENT, "pseudo_inputs": PSEUDO}


def affine(weights: Weights, name: str, hidden: torch.Tensor) -> torch.Tensor:
    """Apply a layer; those that take items store their matrix as items x width."""
    weight = weights[f"{name}.weight"]
    return hidden @ (weight if name.startswith("items_to") else weight.T) + weights[f"{name}.bias"]


def gated(weights: Weights, name: str, hidden: torch.Tensor) -> torch.Tensor:
    linear, gate = affine(weights, name, hidden).chunk(2, dim=1)
    return linear / (1 + torch.exp(-gate))


def head(weights: Weights, name: str, hidden: torch.Tensor) -> Gaussian:
    mean, logvar = affine(weights, name, hidden).chunk(2, dim=1)
    return mean, functional.hardtanh(logvar, -12, 4)


def paper_q_z2(weights: Weights, inputs: torch.Tensor) -> Gaussian:
    hidden = gated(weights, "q_z2.0.linear", gated(weights, "items_to_z2", inputs))
    return head(weights, "q_z2.1.linear", hidden)


def paper_q_z1(weights: Weights, inputs: torch.Tensor, z2: torch.Tensor) -> Gaussian:
    both = [gated(weights, "items_to_z1", inputs), gated(weights, "z2_to_q_z1.linear", z2)]
    return head(weights, "q_z1.1.linear", gated(weights, "q_z1.0.linear", torch.cat(both, dim=1)))


def paper_p_z1(weights: Weights, z2: torch.Tensor) -> Gaussian:
    hidden = gated(weights, "prior.z1.1.linear", gated(weights, "prior.z1.0.linear", z2))
    return head(weights, "prior.z1.2.linear", hidden)


def paper_logits(weights: Weights, z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
    both = [gated(weights, "z1_to_items.linear", z1), gated(weights, "z2_to_items.linear", z2)]
    return affine(weights, "p_x.1", gated(weights, "p_x.0.linear", torch.cat(both, dim=1)))


def log_density(z: torch.Tensor, of: Gaussian) -> torch.Tensor:
    """Return the log-density of a diagonal normal, summed over dimensions (U,)."""
    mean, logvar = of
    return -0.5 * (logvar + (z - mean) ** 2 / logvar.exp() + math.log(2 * math.pi)).sum(dim=1)


def paper_log_p_z2(weights: Weights, z2: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return log p(z2) (U,), one component of the mixture after the other; `kept` scales the pseudo-inputs (K, I)."""
    mean, logvar = paper_q_z2(weights, functional.hardtanh(weights["prior.pseudo_inputs"], 0, 1) * kept)
    of_components = [log_density(z2, (mean[k], logvar[k])) - math.log(PSEUDO) for k in range(PSEUDO)]
    return torch.logsumexp(torch.stack(of_components), dim=0)


def paper_losses(
    weights: Weights,
    x: torch.Tensor,
    inputs: tuple[torch.Tensor, torch.Tensor],
    noise: tuple[torch.Tensor, torch.Tensor],
    kept: torch.Tensor,
    likelihood: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return negative log-likelihood and KL term, each the mean over users; inputs and noise of z2, then of z1."""
    q_z2 = paper_q_z2(weights, inputs[0])
    z2 = q_z2[0] + noise[0] * torch.exp(q_z2[1] / 2)
    q_z1 = paper_q_z1(weights, inputs[1], z2)
    z1 = q_z1[0] + noise[1] * torch.exp(q_z1[1] / 2)
    kl = log_density(z2, q_z2) + log_density(z1, q_z1) - paper_log_p_z2(weights, z2, kept)
    kl = kl - log_density(z1, paper_p_z1(weights, z2))
    logits = paper_logits(weights, z1, z2)
    if likelihood == "multinomial":
        reconstruction = -(x * torch.log_softmax(logits, dim=1)).sum(dim=1)
    else:
        p, seen = torch.sigmoid(logits), (x > 0).double()
        reconstruction = -(seen * p.log() + (1 - seen) * (1 - p).log()).sum(dim=1)
    return reconstruction.mean(), kl.mean()


def rows() -> sp.csr_matrix:
    """Return users with weighted items, everyone with another number of them, one with none."""
    rng = np.random.default_rng(1)
    dense = rng.integers(1, 4, (N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < rng.random((N_USERS, 1)))
    dense[4] = 0
    return sp.csr_matrix(dense, dtype=np.float32)


def dense_of(x: sp.csr_matrix) -> torch.Tensor:
    return torch.from_numpy(x.toarray()).double()


def with_random_weights(std: float = 0.5, **settings: Any) -> HVamp:
    """Return a model with large weights, and pseudo-inputs on both sides of [0, 1]."""
    rng = np.random.default_rng(2)
    model = HVamp(**SMALL, **settings)
    shapes = {name: value.shape for name, value in model._network(N_ITEMS).state_dict().items()}
    model.load_weights({name: rng.normal(0, std, shape).astype(np.float32) for name, shape in shapes.items()})
    prior = VampPrior(N_ITEMS, HIDDEN, LATENT, PSEUDO)
    draws = {name: rng.normal(0, std, value.shape) for name, value in prior.state_dict().items()}
    draws["pseudo_inputs"] = rng.normal(0.5, 0.8, (PSEUDO, N_ITEMS))
    prior.load_state_dict({name: torch.from_numpy(value).float() for name, value in draws.items()})
    network_of(model).prior = prior
    model.network_.requires_grad_(True)
    return model


def network_of(model: HVamp) -> HVampNetwork:
    return cast(HVampNetwork, model.network_)


def prior_of(model: HVamp) -> VampPrior:
    return cast(VampPrior, network_of(model).prior)


@pytest.fixture
def kept_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the prior in fitted models, to look at it."""
    monkeypatch.setattr(HVamp, "_finish", lambda _: None)


def as_leaves(model: HVamp) -> Weights:
    """Return a float64 copy of the weights to differentiate by."""
    return {name: value.double().requires_grad_() for name, value in model.network_.state_dict().items()}


def test_log_density_of_the_prior_is_that_of_the_mixture_of_pseudo_posteriors() -> None:
    """Three products of matrices stand for the loops below: a sign or a half amiss is a prior of another shape."""
    model = with_random_weights()
    z2 = np.random.default_rng(3).normal(0, 2, (9, LATENT))
    inputs = as_leaves(model)["prior.pseudo_inputs"].detach().clamp(0, 1)
    mean, logvar = (part.detach().numpy() for part in paper_q_z2(as_leaves(model), inputs))
    expected = []
    for z in z2:
        densities = [norm.pdf(z, mean[k], np.exp(logvar[k] / 2)).prod() for k in range(PSEUDO)]
        expected.append(math.log(sum(densities) / PSEUDO))
    ours = network_of(model).log_prior_z2(torch.from_numpy(z2).float(), inputs.float()).detach()
    np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("likelihood", ["multinomial", "bernoulli"])
def test_loss_and_gradients_are_those_of_the_paper(likelihood: str) -> None:
    x, beta, share = rows(), 0.37, 0.4
    model = with_random_weights(dropout=share, likelihood=likelihood)
    batch = whole_batch(x, torch.device("cpu"))
    losses = model._loss(batch, beta, torch.Generator().manual_seed(11))
    losses.total.backward()

    draws, weights, target = torch.Generator().manual_seed(11), as_leaves(model), dense_of(x)

    def dropped_out() -> torch.Tensor:
        kept = torch.zeros_like(target)
        kept[batch.rows, batch.items.long()] = (torch.rand(x.nnz, generator=draws) >= share).double()
        return functional.normalize(target) * kept / (1 - share)

    def noise() -> torch.Tensor:
        return torch.randn(N_USERS, LATENT, generator=draws).double()

    inputs_2, noise_2, inputs_1, noise_1 = dropped_out(), noise(), dropped_out(), noise()
    kept = (torch.rand(PSEUDO, N_ITEMS, generator=draws) >= share).double() / (1 - share)
    reconstruction, kl = paper_losses(weights, target, (inputs_2, inputs_1), (noise_2, noise_1), kept, likelihood)
    (reconstruction + beta * kl).backward()

    assert losses.reconstruction.item() == pytest.approx(reconstruction.item(), rel=1e-5)
    assert losses.kl is not None
    assert losses.kl.item() == pytest.approx(kl.item(), rel=1e-4)
    assert losses.total.item() == pytest.approx((reconstruction + beta * kl).item(), rel=1e-5)
    for name, parameter in model.network_.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad.double(), weights[name].grad, rtol=1e-3, atol=1e-4)


def test_scores_are_the_papers_at_the_means_without_dropout() -> None:
    """Microsoft's and Elliot's recommenders sample at prediction time; here neither of the two layers may."""
    x = rows()
    model = with_random_weights(dropout=0.9)
    weights, inputs = as_leaves(model), functional.normalize(dense_of(x))
    z2, _ = paper_q_z2(weights, inputs)
    z1, _ = paper_q_z1(weights, inputs, z2)
    np.testing.assert_allclose(model.score(x), paper_logits(weights, z1, z2).detach(), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model.score(x), model.score(x))


def test_log_variances_of_all_distributions_stay_between_minus_12_and_4() -> None:
    """Without bounds one component of the prior can shrink to a point, where its density is infinite."""
    model = with_random_weights(std=8.0)
    network, batch = network_of(model), whole_batch(rows(), torch.device("cpu"))
    z2 = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (N_USERS, LATENT))).float()
    with torch.no_grad():
        distributions = [
            network.posterior_z2(batch, batch.inputs),
            network.posterior_z1(batch, batch.inputs, z2),
            cast(Gaussian, prior_of(model).z1(z2)),
        ]
        assert network.log_prior_z2(z2, prior_of(model).pseudo_inputs).isfinite().all()
    for mean, logvar in distributions:
        assert (logvar.min().item(), logvar.max().item()) == (-12, 4)
        assert mean.abs().max() > 12  # only the log-variances are held


@pytest.mark.usefixtures("kept_prior")
def test_pseudo_inputs_are_read_between_0_and_1_and_learned_with_everything_else() -> None:
    model, batch = with_random_weights(dropout=0.0), whole_batch(rows(), torch.device("cpu"))
    before = cast(torch.Tensor, model._loss(batch, 1.0, torch.Generator().manual_seed(0)).kl).detach()
    with torch.no_grad():
        prior_of(model).pseudo_inputs.clamp_(0, 1)
    after = cast(torch.Tensor, model._loss(batch, 1.0, torch.Generator().manual_seed(0)).kl).detach()
    torch.testing.assert_close(after, before, rtol=0, atol=0)

    states: list[torch.Tensor] = []
    for epochs in (1, 2):
        settings = SMALL | {"epochs": epochs, "batch_size": 8, "dropout": 0.0}
        fitted = HVamp(**settings, learning_rate=0.01, anneal="constant").fit(rows())
        states.append(prior_of(fitted).pseudo_inputs.detach().clone())
    assert (states[0] != states[1]).all()


@pytest.mark.usefixtures("kept_prior")
def test_training_is_adam_on_gradients_each_divided_by_its_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamNormGrad; plain Adam takes other steps as soon as the size of a gradient changes from batch to batch."""
    monkeypatch.setattr(hvamp, "sample", lambda mean, *_: mean)
    x, rate, beta = rows(), 0.05, 0.2
    settings = SMALL | {"dropout": 0.0, "batch_size": 100, "anneal": "constant", "beta": beta, "seed": 4}
    weights = as_leaves(HVamp(**settings, epochs=1, learning_rate=0.0).fit(x, device="cpu"))
    first = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    second = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    still = torch.zeros(N_USERS, LATENT)
    for step in range(1, 5):
        target, noise = dense_of(x), (still, still)
        inputs = functional.normalize(target)
        reconstruction, kl = paper_losses(weights, target, (inputs, inputs), noise, torch.ones(1), "multinomial")
        gradients = torch.autograd.grad(reconstruction + beta * kl, list(weights.values()))
        for (name, weight), raw in zip(weights.items(), gradients, strict=True):
            gradient = raw / (raw.square().sum().sqrt() + 1e-7)
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            corrected = (second[name] / (1 - 0.999**step)).sqrt() + 1e-8
            with torch.no_grad():
                weight -= rate * first[name] / (1 - 0.9**step) / corrected
    model = HVamp(**settings, epochs=4, learning_rate=rate).fit(x, device="cpu")
    for name, value in model.weights().items():
        np.testing.assert_allclose(value, weights[name].detach(), rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.usefixtures("kept_prior")
def test_weights_start_from_hes_normal_and_pseudo_inputs_near_a_twentieth() -> None:
    model = HVamp(hidden_dim=80, latent_dim=60, pseudo_inputs=50, epochs=1, learning_rate=0.0)
    for name, value in model.fit(sp.csr_matrix(np.eye(5, 300), dtype=np.float32)).weights().items():
        if name == "prior.pseudo_inputs":
            assert (value.mean(), value.std()) == pytest.approx((0.05, 0.01), rel=0.02)
        elif value.ndim == 2:
            inputs = value.shape[0] if name.startswith("items_to") else value.shape[1]
            assert value.std() == pytest.approx((2 / inputs) ** 0.5, rel=0.05), name
            assert abs(value).max() > 3 * value.std(), name  # no uniform draw reaches that far


def test_a_fitted_model_keeps_nothing_that_scoring_does_not_need() -> None:
    model = HVamp(**SMALL, epochs=1).fit(rows())
    assert prior_of(model) is None
    assert sum(value.size for name, value in model.weights().items() if name.startswith("kept_prior.z2")) == 2 * 4 * 3
    assert not any("pseudo" in name or name.startswith("prior") for name in model.weights())
    copy = HVamp(**SMALL, epochs=1).load_weights(model.weights())
    np.testing.assert_array_equal(copy.score(rows()), model.score(rows()))
    older = model.weights() | {"pseudo_inputs": np.zeros((2, 2)), "p_z1.0.linear.weight": np.zeros(3)}
    again = HVamp(**SMALL, epochs=1).load_weights(older)
    np.testing.assert_array_equal(again.score(rows()), model.score(rows()))


def test_defaults_are_the_authors() -> None:
    model = HVamp()
    assert (model.hidden_dim, model.latent_dim, model.pseudo_inputs, model.dropout) == (600, 200, 1000, 0.5)
    assert (model.batch_size, model.learning_rate, model.patience, model.beta) == (200, 5e-4, 50, 0.3)
    assert model.anneal_fraction * model.epochs == 100  # epochs of warm-up
