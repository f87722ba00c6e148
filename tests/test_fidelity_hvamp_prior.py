"""The prior that H+Vamp keeps: probabilities and draws, against numpy in float64; bundles, and refusals."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.special import expit, logsumexp
from scipy.stats import norm

from recvae import Dataset, Recommender
from recvae.errors import UsageError
from recvae.latent.anomalies import AnomalyDetector
from recvae.latent.generation import generate
from recvae.models import HVamp
from recvae.models.common.draws import content_keys, draws_for
from recvae.models.common.mixtures import LayeredPrior, NormalMixture
from recvae.models.hvamp import VampPrior

# Letters in shape comments: U users, I items, D latent dimensions, K pseudo-inputs.

N_USERS, N_ITEMS, LATENT, PSEUDO = 40, 15, 3, 4
SMALL: dict[str, Any] = {
    "hidden_dim": 6,
    "latent_dim": LATENT,
    "pseudo_inputs": PSEUDO,
    "epochs": 15,
    "batch_size": 10,
    "learning_rate": 0.02,
    "seed": 3,
}
ROWS = sp.csr_matrix((np.random.default_rng(0).random((N_USERS, N_ITEMS)) < 0.3).astype(np.float32))
EARLIER = Path(__file__).parent / "earlier" / "0.1.0" / "runs" / "hvamp"
Weights = dict[str, np.ndarray]
Gaussian = tuple[np.ndarray, np.ndarray]
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def model() -> HVamp:
    return HVamp(**SMALL).fit(ROWS)


@pytest.fixture(scope="module")
def older() -> HVamp:
    """Return a model of a bundle without a prior."""
    return cast(HVamp, Recommender.load(EARLIER).model)


def small(**changes: Any) -> HVamp:
    return HVamp(**{**SMALL, **changes})


def in_float64(model: HVamp) -> Weights:
    return {name: value.astype(np.float64) for name, value in model.weights().items()}


def gated(weights: Weights, name: str, hidden: np.ndarray) -> np.ndarray:
    weight = weights[f"{name}.weight"]
    outputs = hidden @ (weight if name.startswith("items_to") else weight.T) + weights[f"{name}.bias"]
    linear, gate = np.split(outputs, 2, axis=1)
    return linear * expit(gate)


def head(weights: Weights, name: str, hidden: np.ndarray) -> Gaussian:
    mean, logvar = np.split(hidden @ weights[f"{name}.weight"].T + weights[f"{name}.bias"], 2, axis=1)
    return mean, logvar.clip(-12, 4)


def q_z2(weights: Weights, inputs: np.ndarray) -> Gaussian:
    return head(weights, "q_z2.1.linear", gated(weights, "q_z2.0.linear", gated(weights, "items_to_z2", inputs)))


def q_z1(weights: Weights, inputs: np.ndarray, z2: np.ndarray) -> Gaussian:
    both = [gated(weights, "items_to_z1", inputs), gated(weights, "z2_to_q_z1.linear", z2)]
    return head(weights, "q_z1.1.linear", gated(weights, "q_z1.0.linear", np.hstack(both)))


def p_z1(weights: Weights, z2: np.ndarray) -> Gaussian:
    hidden = gated(weights, "kept_prior.z1.1.linear", gated(weights, "kept_prior.z1.0.linear", z2))
    return head(weights, "kept_prior.z1.2.linear", hidden)


def log_density(z: np.ndarray, of: Gaussian) -> np.ndarray:
    return np.asarray(norm.logpdf(z, of[0], np.exp(of[1] / 2))).sum(axis=1)


def log_p_z2(weights: Weights, z2: np.ndarray) -> np.ndarray:
    mean, logvar = weights["kept_prior.z2.mean"], weights["kept_prior.z2.logvar"]
    return logsumexp([log_density(z2, (mean[k], logvar[k])) for k in range(len(mean))], axis=0) - math.log(len(mean))


def log_p_x(weights: Weights, z1: np.ndarray, z2: np.ndarray, x: np.ndarray, likelihood: str) -> np.ndarray:
    both = [gated(weights, "z1_to_items.linear", z1), gated(weights, "z2_to_items.linear", z2)]
    logits = gated(weights, "p_x.0.linear", np.hstack(both)) @ weights["p_x.1.weight"].T + weights["p_x.1.bias"]
    if likelihood == "multinomial":
        return (x * (logits - logsumexp(logits, axis=1, keepdims=True))).sum(axis=1)
    return np.log(np.where(x > 0, expit(logits), expit(-logits))).sum(axis=1)


def log_weights(model: HVamp, rows: sp.csr_matrix, n: int, seed: int) -> np.ndarray:
    """Return log p(x | z1, z2) p(z2) p(z1 | z2) / (q(z2 | x) q(z1 | x, z2)) of the draws of each user (U, n)."""
    weights, x = in_float64(model), rows.toarray().astype(np.float64)
    inputs = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    sources = [draws_for(seed, key) for key in content_keys(rows)]
    noise = np.stack([source.standard_normal((n, 2 * LATENT), np.float32) for source in sources]).astype(np.float64)
    found = []
    for k in range(n):
        of_z2 = q_z2(weights, inputs)
        z2 = of_z2[0] + noise[:, k, LATENT:] * np.exp(of_z2[1] / 2)
        of_z1 = q_z1(weights, inputs, z2)
        z1 = of_z1[0] + noise[:, k, :LATENT] * np.exp(of_z1[1] / 2)
        log_p = log_p_x(weights, z1, z2, x, model.likelihood)
        log_p += log_p_z2(weights, z2) + log_density(z1, p_z1(weights, z2))
        found.append(log_p - log_density(z2, of_z2) - log_density(z1, of_z1))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("likelihood", ["multinomial", "bernoulli"])
def test_log_weights_bound_and_elbo_are_those_of_the_formula(likelihood: str) -> None:
    model = HVamp(**SMALL, likelihood=likelihood).fit(ROWS)
    rows = sp.vstack([2 * ROWS[:12], sp.csr_matrix((1, N_ITEMS))]).tocsr()  # weighted, and a user without any
    expected = log_weights(model, rows, 20, seed=7)
    assert expected.std(axis=1).min() > 0.01, "draws differ"
    np.testing.assert_allclose(model.log_weights(rows, 20, seed=7), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(model.elbo(rows, 20, seed=7), expected.mean(axis=1), rtol=1e-4, atol=1e-3)
    bound = logsumexp(expected, axis=1) - math.log(20)
    np.testing.assert_allclose(model.log_likelihood(rows, 20, seed=7), bound, rtol=1e-4, atol=1e-3)


def test_what_is_kept_is_the_prior_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = HVamp(**SMALL).fit(ROWS)
    monkeypatch.setattr(HVamp, "_finish", lambda _: None)
    whole = HVamp(**SMALL).fit(ROWS)
    prior = cast(VampPrior, whole.network_.prior)
    pseudo_inputs = prior.pseudo_inputs.detach().numpy().astype(np.float64)
    assert (pseudo_inputs < 0).any(), "some are to be read as 0"
    mean, logvar = q_z2(in_float64(whole), pseudo_inputs.clip(0, 1))
    weights = kept.weights()
    np.testing.assert_allclose(weights["kept_prior.z2.mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights["kept_prior.z2.logvar"], logvar, rtol=1e-4, atol=1e-5)
    for name, value in prior.z1.state_dict().items():
        np.testing.assert_array_equal(weights[f"kept_prior.z1.{name}"], value.numpy())


def test_the_loss_of_training_is_the_elbo() -> None:
    """With beta = 1, no dropout and hardly a step, the mean loss of an epoch is the negative ELBO."""
    model = small(dropout=0.0, beta=1.0, anneal="constant", learning_rate=1e-12, epochs=1).fit(
        sp.vstack([ROWS] * 50).tocsr()
    )
    weights = model.log_weights(ROWS, 50)
    error = weights.std() / math.sqrt(50 * N_USERS)
    assert abs(model.log_[0].loss + weights.mean()) < 6 * error


def test_elbo_is_at_most_the_bound_of_k_draws_is_at_most_that_of_more(model: HVamp) -> None:
    k, groups = 5, 8
    weights = model.log_weights(ROWS, k * groups, seed=2)
    of_groups = logsumexp(weights.reshape(N_USERS, groups, k), axis=2) - math.log(k)
    elbo, bound = (ask(ROWS, k * groups, seed=2) for ask in (model.elbo, model.log_likelihood))
    np.testing.assert_allclose(elbo, weights.mean(axis=1), rtol=1e-6)
    assert (elbo <= of_groups.mean(axis=1) + 1e-6).all() and (of_groups.mean(axis=1) <= bound + 1e-6).all()
    assert (elbo < bound - 1e-3).any()


@pytest.mark.slow
def test_log_likelihood_is_the_integral_over_the_prior(model: HVamp) -> None:
    """Draws from the prior itself, without q, have the same mean of p(x | z)."""
    weights, n = in_float64(model), 20_000
    codes = model._from_prior(n, 5, None).astype(np.float64)
    x = ROWS[:3].toarray().astype(np.float64)
    for row, found in zip(x, model.log_likelihood(ROWS[:3], 5_000, seed=1), strict=True):
        log_p = log_p_x(weights, codes[:, :LATENT], codes[:, LATENT:], np.tile(row, (n, 1)), "multinomial")
        p = np.exp(log_p - log_p.max())
        error = p.std() / p.mean() / math.sqrt(n)
        assert abs(logsumexp(log_p) - math.log(n) - found) < 5 * error + 0.02
        assert error < 0.1


def test_codes_are_drawn_from_the_mixture_and_then_from_p_z1() -> None:
    prior = LayeredPrior(2, 1, torch.nn.Identity())
    prior.z1.forward = lambda z2: (10 * z2, torch.full_like(z2, 2 * math.log(0.1)))
    prior.z2.mean.copy_(torch.tensor([[-5.0], [7.0]]))
    prior.z2.logvar.copy_(2 * torch.tensor([[0.5], [2.0]]).log())
    model = small(latent_dim=1, pseudo_inputs=2, epochs=1).fit(ROWS)
    model.network_.kept_prior = prior  # type: ignore[assignment]
    z1, z2 = model._from_prior(8000, 3, None).astype(np.float64).T
    first = z2 < -1
    assert first.mean() == pytest.approx(0.5, abs=0.03)
    assert (z2[first].mean(), z2[first].std()) == pytest.approx((-5, 0.5), abs=0.05)
    assert (z2[~first].mean(), z2[~first].std()) == pytest.approx((7, 2), abs=0.15)
    rest = z1 - 10 * z2
    assert (rest.mean(), rest.std()) == pytest.approx((0, 0.1), abs=0.01)


def test_histories_are_drawn_from_that_prior(model: HVamp) -> None:
    drawn = model.sample(np.full(9, 4), seed=5)
    codes = model._from_prior(9, 5, None)
    np.testing.assert_array_equal(drawn.toarray(), model.sample(np.full(9, 4), codes=codes, seed=5).toarray())
    np.testing.assert_array_equal(drawn[:3].toarray(), model.sample(np.full(3, 4), seed=5).toarray())
    least = model.scoring_needs(N_ITEMS).scoring
    np.testing.assert_array_equal(drawn.toarray(), model.sample(np.full(9, 4), seed=5, max_memory=least).toarray())
    assert model.sample(np.empty(0, int)).shape == (0, N_ITEMS)


def test_blocks_and_memory_change_nothing(model: HVamp) -> None:
    least = model.scoring_needs(N_ITEMS).scoring
    assert model.rows_at_a_time(least) == 1
    for ask in (model.log_weights, model.elbo, model.log_likelihood):
        np.testing.assert_allclose(ask(ROWS, 10, max_memory=least), ask(ROWS, 10), rtol=1e-5, atol=1e-5)
    mixture = NormalMixture(400_000, 1)
    rng = np.random.default_rng(0)
    mixture.mean.copy_(torch.from_numpy(rng.normal(0, 3, (400_000, 1))))
    mixture.logvar.copy_(torch.from_numpy(rng.normal(-1, 1, (400_000, 1))))
    z = rng.normal(0, 3, (5, 1)).astype(np.float32)  # two users at a time
    mean, scale = mixture.mean.numpy().astype(float)[:, 0], np.exp(mixture.logvar.numpy().astype(float)[:, 0] / 2)
    expected = [math.log(norm.pdf(float(one), mean, scale).mean()) for one in z[:, 0]]
    np.testing.assert_allclose(mixture.log_density(torch.from_numpy(z)), expected, rtol=1e-5)


def test_memory_and_parameters_count_what_is_kept(model: HVamp) -> None:
    needs = model.needs(*ROWS.shape, ROWS.nnz)
    assert needs.parameters == model.count_parameters() == sum(value.size for value in model.weights().values())
    more = small(pseudo_inputs=PSEUDO + 100).needs(*ROWS.shape, ROWS.nnz)
    assert more.parameters - needs.parameters == 2 * 100 * LATENT
    assert more.weights - needs.weights >= 4 * 2 * 100 * LATENT and more.training > needs.training
    assert small(pseudo_inputs=10**6).scoring_needs(N_ITEMS).per_user >= 8 * 10**6


def test_a_bundle_holds_it_and_gives_the_same(blocks: Dataset, tmp_path: Path) -> None:
    model, rows = HVamp(**SMALL).fit(blocks), blocks.test.fold_in
    Recommender(model).save(tmp_path / "run")
    again = cast(HVamp, Recommender.load(tmp_path / "run").model)
    assert again.has_likelihood and again.count_parameters() == model.count_parameters()
    for name, value in model.weights().items():
        np.testing.assert_array_equal(again.weights()[name], value)
    for ask in ("elbo", "log_likelihood", "log_weights", "reconstruction"):
        np.testing.assert_array_equal(getattr(again, ask)(rows, 3), getattr(model, ask)(rows, 3))
    np.testing.assert_array_equal(again.sample(np.full(5, 3)).toarray(), model.sample(np.full(5, 3)).toarray())


def test_weights_that_lack_a_part_of_the_prior_are_refused(model: HVamp) -> None:
    weights = model.weights()
    del weights["kept_prior.z2.logvar"]
    with pytest.raises(RuntimeError, match=r"Missing key.*z2\.logvar"):
        HVamp(**SMALL).load_weights(weights)
    with pytest.raises(RuntimeError, match=r"size mismatch for z2\.mean"):
        small(pseudo_inputs=9).load_weights(model.weights())


def test_what_is_exported_has_no_prior_and_shares_its_weights(model: HVamp) -> None:
    exported = model.scorer()
    assert not any("prior" in name for name in exported.state_dict())
    assert exported.network.output.weight.data_ptr() == model.network_.output.weight.data_ptr()
    csr = [torch.from_numpy(part) for part in (ROWS.indices.astype(np.int64), ROWS.indptr.astype(np.int64), ROWS.data)]
    np.testing.assert_allclose(exported(*csr).numpy(), model.score(ROWS), rtol=1e-5, atol=1e-6)


def test_an_earlier_bundle_is_loaded_and_refused_where_its_prior_is_needed(older: HVamp) -> None:
    rows = sp.csr_matrix(np.eye(60, older.n_items_, dtype=np.float32))
    assert not older.has_likelihood and not older.has_prior
    assert not any("prior" in name for name in older.weights())
    assert np.isfinite(older.score(rows)).all() and np.isfinite(older.reconstruction(rows, 2)).all()
    assert older.sample(np.full(2, 3), codes=older.encode(rows[:2]).mean).nnz == 6
    message = "got hvamp without its prior, which bundles of earlier versions do not hold, .*; train it again"
    asked: list[Callable[[], object]] = [
        lambda: older.elbo(rows),
        lambda: older.log_likelihood(rows),
        lambda: older.log_weights(rows),
        lambda: older.sample(np.full(2, 3)),
        lambda: generate(older, rows, 5, "prior"),
        lambda: AnomalyDetector(older, score="likelihood").fit(rows),
    ]
    for ask in asked:
        with pytest.raises(UsageError, match=message):
            ask()


def test_the_command_measures_whole_rows_and_says_so_where_it_cannot(
    toy: Path, command: Command, tmp_path: Path
) -> None:
    words = [
        word for name in ("hidden_dim", "latent_dim", "pseudo_inputs") for word in ("--set", f"{name}={SMALL[name]}")
    ]
    assert command("train", "--model", "hvamp", "--set", "epochs=2", *words).code == 0
    said = command("likelihood", "--samples", "7", "--json")
    assert said.code == 0, said.err
    rows = json.loads(said.out)["rows"]
    dataset, recommender = Dataset.load(toy), Recommender.load("runs/toy/hvamp")
    whole = sp.csr_matrix(dataset.test.fold_in + dataset.test.targets)
    expected = math.exp(-recommender.model.elbo(whole, 7).sum() / whole.sum())  # type: ignore[attr-defined]
    assert rows["ELBO"]["value"] == pytest.approx(expected)
    assert rows["bound of 7 draws"]["value"] <= rows["ELBO"]["value"]
    assert np.isfinite(AnomalyDetector(recommender.model, score="likelihood").fit(dataset.train).decision_scores_).all()
    assert command("generate", "--from", "prior", "--users", "5", "--output", "made.csv").code == 0

    model = cast(HVamp, recommender.model)
    model.network_.kept_prior = None  # as an earlier version has saved it
    Recommender(model, dataset).save(tmp_path / "older")
    said = command("likelihood", tmp_path / "older", "--samples", "3")
    assert said.code == 0, said.err
    told = " ".join(said.out.split())
    assert "whole rows have no probability, since this run does not hold its prior (one of an earlier version" in told
    assert json.loads(command("likelihood", tmp_path / "older", "--samples", "3", "--json").out)["rows"] == {}
    said = command("generate", tmp_path / "older", "--users", "60", "--compare", "--json")
    assert said.code == 0 and "no users from the prior: this run of hvamp does not hold one" in said.err
    assert "prior" not in json.loads(said.out)["figures"]
    said = command("generate", tmp_path / "older", "--from", "prior", "--users", "5", "--output", "more.csv")
    assert said.code != 0 and "got hvamp without its prior" in said.err and not Path("more.csv").exists()
