"""Codes and probabilities of autoencoders: against closed forms, and what is refused by name."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from recvae.errors import DataError, NotFittedError, UsageError
from recvae.models import AE, ELSA, MODELS, VASP, HVamp, MultDAE, MultVAE, RecVAE
from recvae.models.common.autoencoder import Autoencoder
from recvae.models.common.densities import DensityModel
from recvae.training.latents import active_units, collapse, kl_beyond_free_bits, kl_per_dimension, mutual_information

RNG = np.random.default_rng(0)
N_ITEMS = 30
ROWS = sp.csr_matrix((RNG.random((40, N_ITEMS)) < 0.25).astype(np.float32))
SMALL: dict[str, dict[str, Any]] = {
    "ae": {"latent_dim": 6},
    "multdae": {"hidden_dims": (12,), "latent_dim": 6},
    "multvae": {"hidden_dims": (12,), "latent_dim": 6},
    "recvae": {"hidden_dim": 12, "latent_dim": 6},
    "hvamp": {"hidden_dim": 12, "latent_dim": 6, "pseudo_inputs": 5},
    "vasp": {"hidden_dim": 12, "latent_dim": 6},
    "elsa": {"latent_dim": 6},
}
AUTOENCODERS = [name for name, model in MODELS.items() if issubclass(model, Autoencoder)]


def fitted(name: str, **values: Any) -> DensityModel:
    model = MODELS[name](**{"epochs": 3, "batch_size": 10, "seed": 1} | SMALL[name] | values).fit(ROWS)  # type: ignore[call-arg]
    assert isinstance(model, DensityModel)
    return model


def linear_gaussian(
    weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, logvar: np.ndarray, slope: np.ndarray | None = None
) -> MultVAE:
    """Return the model x = W z + b + N(0, I): probabilistic PCA with noise of variance 1; q is not its posterior."""
    n_items, width = weight.shape
    model = MultVAE(hidden_dims=(), latent_dim=width, likelihood="gaussian")
    zero = np.zeros((n_items, 2 * width), np.float32) if slope is None else slope
    return model.load_weights(
        {
            "encoder.0.weight": zero.astype(np.float32),
            "encoder.0.bias": np.concatenate([mean, logvar]).astype(np.float32),
            "decoder.0.weight": weight.astype(np.float32),
            "decoder.0.bias": bias.astype(np.float32),
        }
    )


def log_p(rows: sp.csr_matrix, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return multivariate_normal(bias, weight @ weight.T + np.eye(len(bias))).logpdf(rows.toarray().astype(float))


def ppca(seed: int, n_items: int = 7, width: int = 2) -> tuple[np.ndarray, np.ndarray, sp.csr_matrix]:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(n_items, width)), rng.normal(size=n_items) / 2
    weight, _ = np.linalg.qr(weight)  # columns at right angles: the posterior has no covariances
    weight = weight * rng.uniform(0.5, 2, width)
    values = rng.integers(0, 3, (4, n_items)).astype(np.float32)
    return weight, bias, sp.csr_matrix(values)


def test_log_likelihood_of_a_linear_gaussian_model_is_that_of_probabilistic_pca() -> None:
    weight, bias, rows = ppca(3)
    model = linear_gaussian(weight, bias, np.zeros(2), np.zeros(2))  # q(z | x) = p(z), far from the posterior
    truth = log_p(rows, weight, bias)
    ratios = np.exp(model.log_weights(rows, 2000, seed=1) - truth[:, None])  # (U, K), 1 on average
    error = ratios.std(axis=1) / np.sqrt(10_000)  # standard error of the mean of 10,000 draws, (U,)
    assert (error < 0.03).all()
    assert (np.abs(model.log_likelihood(rows, 10_000) - truth) < 4 * error).all()
    assert (model.elbo(rows, 1000) < truth - 0.1).all(), "the ELBO is lower, as q is not the posterior"


def with_its_posterior(row: sp.csr_matrix, weight: np.ndarray, bias: np.ndarray) -> tuple[MultVAE, np.ndarray]:
    """Return the model whose encoder is the posterior of this row, and log p of the row."""
    covariance = np.linalg.inv(weight.T @ weight + np.eye(2))
    mean = covariance @ weight.T @ (row.toarray()[0] - bias)
    model = linear_gaussian(weight, bias, mean, np.log(np.diag(covariance)))
    return model, log_p(row, weight, bias).reshape(1)


@pytest.mark.parametrize("n_samples", [1, 2, 30])
def test_every_bound_is_exact_where_the_encoder_is_the_posterior(n_samples: int) -> None:
    weight, bias, rows = ppca(4)
    for row in rows:
        model, truth = with_its_posterior(row, weight, bias)
        np.testing.assert_allclose(model.log_weights(row, n_samples), truth.repeat(n_samples)[None], atol=1e-4)
        np.testing.assert_allclose(model.log_likelihood(row, n_samples), truth, atol=1e-4)


@pytest.mark.slow
def test_the_elbo_is_exact_where_the_encoder_is_the_posterior() -> None:
    weight, bias, rows = ppca(4)
    for row in rows:
        model, truth = with_its_posterior(row, weight, bias)
        np.testing.assert_allclose(model.elbo(row, 4000), truth, atol=0.1)


def test_log_likelihood_of_a_multinomial_model_is_the_integral_over_its_codes() -> None:
    model = fitted("multvae", hidden_dims=(), latent_dim=1, epochs=30)
    grid = np.linspace(-8, 8, 4001)
    logits = model.decode(grid[:, None]).astype(float)
    log_softmax = logits - logsumexp(logits, axis=1, keepdims=True)
    prior = -0.5 * grid**2 - 0.5 * math.log(2 * math.pi) + math.log(grid[1] - grid[0])
    truth = [logsumexp(row.toarray()[0] @ log_softmax.T + prior) for row in ROWS[:5]]
    np.testing.assert_allclose(model.log_likelihood(ROWS[:5], 5000), truth, atol=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 8), st.integers(2, 6))
def test_elbo_is_at_most_iwae_k_is_at_most_iwae_of_more_draws(seed: int, k: int, groups: int) -> None:
    """For any draws: the mean of the bounds of their groups is at most the bound of all (Burda et al., theorem 1)."""
    weights = ELBO_MODEL.log_weights(ROWS[:6], k * groups, seed=seed)
    of_groups = logsumexp(weights.reshape(6, groups, k), axis=2) - math.log(k)
    of_all = ELBO_MODEL.log_likelihood(ROWS[:6], k * groups, seed=seed)
    assert (weights.mean(axis=1) <= of_groups.mean(axis=1) + 1e-9).all()
    assert (of_groups.mean(axis=1) <= of_all + 1e-9).all()


ELBO_MODEL = fitted("multvae")


def test_elbo_has_the_exact_divergence_and_agrees_with_the_mean_of_its_draws() -> None:
    weights = ELBO_MODEL.log_weights(ROWS, 4000)
    error = weights.std(axis=1) / math.sqrt(4000)
    assert (abs(ELBO_MODEL.elbo(ROWS, 4000) - weights.mean(axis=1)) < 6 * error + 1e-3).all()
    total = ELBO_MODEL.kl(ROWS).mean(axis=0)
    np.testing.assert_allclose(total, ELBO_MODEL.kl_per_dimension(ROWS))


def test_the_loss_of_training_is_the_elbo_with_its_weight() -> None:
    """With beta = 1 and no dropout, the loss of the log and the negative ELBO are of one definition."""
    model = fitted("multvae", dropout=0.0, beta=1.0, anneal="constant", learning_rate=1e-12, warmup=0.0, epochs=1)
    mean, error = -model.elbo(ROWS, 2000).mean(), 0.2
    assert abs(model.log_[0].loss - mean) < error + 0.05 * abs(mean)  # type: ignore[attr-defined]
    assert model.log_[0].kl == pytest.approx(model.kl(ROWS).sum(axis=1).mean(), rel=1e-4)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_codes_of_every_autoencoder(name: str) -> None:
    model = fitted(name)
    mean, logvar = model.encode(ROWS)
    np.testing.assert_array_equal(mean, model.embed(ROWS))
    assert mean.dtype == np.float32
    assert (logvar is not None) == model.has_distribution == (name in ("multvae", "recvae", "hvamp", "vasp"))
    assert logvar is None or (logvar.shape == mean.shape and np.isfinite(logvar).all())
    assert model.item_embeddings().shape[0] == N_ITEMS
    assert model.active_units(ROWS) == (mean.astype(float).var(axis=0) > 0.01).sum()
    if model.has_decoder:
        np.testing.assert_allclose(model.decode(mean), model.score(ROWS), rtol=1e-4, atol=1e-5)
    else:
        with pytest.raises(UsageError, match=rf"got {name}, whose scores are not made of codes alone; use ae, multdae"):
            model.decode(mean)
    if not model.has_distribution:
        for method in (model.kl, model.kl_per_dimension, model.mutual_information):
            with pytest.raises(UsageError, match=f"got {name}, whose codes are points .*; use multvae, recvae"):
                method(ROWS)
    if not model.has_likelihood:
        for method in (model.elbo, model.log_likelihood, model.log_weights):
            with pytest.raises(
                UsageError, match=f"got {name} with no probability of a row, .*; use multvae, recvae or hv"
            ):
                method(ROWS)


def test_the_names_in_messages_are_the_models_that_have_it() -> None:
    models = {name: MODELS[name]() for name in AUTOENCODERS}
    can = {name: model for name, model in models.items() if isinstance(model, DensityModel)}
    assert [name for name, model in can.items() if model.has_likelihood] == ["multvae", "recvae", "hvamp"]
    assert {name for name, model in can.items() if model.has_prior} == {"multvae", "recvae", "hvamp"}
    assert {name for name, model in can.items() if model.has_decoder} == {"ae", "multdae", "multvae", "recvae", "hvamp"}
    assert {name for name, model in can.items() if model.has_distribution} == {"multvae", "recvae", "hvamp", "vasp"}


def test_draws_of_a_user_do_not_depend_on_the_users_beside() -> None:
    whole = ELBO_MODEL.log_weights(ROWS, 20, seed=5)
    np.testing.assert_allclose(ELBO_MODEL.log_weights(ROWS[:3], 20, seed=5), whole[:3], rtol=1e-5)
    np.testing.assert_allclose(ELBO_MODEL.log_weights(ROWS, 5, seed=5), whole[:, :5], rtol=1e-5)
    assert not np.allclose(ELBO_MODEL.log_weights(ROWS, 20, seed=6), whole)
    drawn = ELBO_MODEL.sample(np.full(9, 4), seed=5)
    np.testing.assert_array_equal(drawn[:3].toarray(), ELBO_MODEL.sample(np.full(3, 4), seed=5).toarray())


def test_targets_are_foreseen_by_the_softmax_over_items_not_in_the_fold_in() -> None:
    model = fitted("ae")
    fold_in, targets = ROWS.copy(), ROWS.copy()
    hidden = np.random.default_rng(1).random(ROWS.nnz) < 0.4
    fold_in.data[hidden], targets.data[~hidden] = 0, 0
    fold_in.eliminate_zeros()
    targets.eliminate_zeros()
    expected = []
    for seen, wanted, scores in zip(
        fold_in.toarray(), targets.toarray(), model.score(fold_in).astype(float), strict=True
    ):
        left = np.where(seen > 0, -np.inf, scores)
        expected.append(float((wanted * (scores - logsumexp(left))).sum()))
    np.testing.assert_allclose(model.target_log_likelihood(fold_in, targets), expected, rtol=1e-4)
    certain = MultVAE(hidden_dims=(), latent_dim=2).load_weights(
        {
            "encoder.0.weight": (RNG.normal(size=(N_ITEMS, 4)) * [1, 1, 0, 0]).astype(np.float32),
            "encoder.0.bias": np.array([0, 0, -60, -60], np.float32),  # so small a variance that draws are the mean
            "decoder.0.weight": RNG.normal(size=(N_ITEMS, 2)).astype(np.float32),
            "decoder.0.bias": RNG.normal(size=N_ITEMS).astype(np.float32),
        }
    )
    scores = np.where(fold_in.toarray() > 0, -np.inf, certain.score(fold_in).astype(float))
    log_probability = scores - logsumexp(scores, axis=1, keepdims=True)
    expected = (targets.toarray() * np.where(np.isfinite(log_probability), log_probability, 0)).sum(axis=1)
    np.testing.assert_allclose(certain.target_log_likelihood(fold_in, targets, 7), expected, rtol=1e-4)


def test_draws_follow_the_softmax_and_have_the_lengths_asked_for() -> None:
    model = fitted("multvae")
    code = np.repeat(model.encode(ROWS[:1]).mean, 4000, axis=0)
    first = model.sample(np.ones(4000, int), codes=code, seed=2)
    assert (np.diff(first.indptr) == 1).all()
    scores = model.decode(code[:1])[0].astype(float)
    expected = np.exp(scores - logsumexp(scores))
    observed = np.bincount(first.indices, minlength=N_ITEMS) / 4000
    assert (abs(observed - expected) < 5 * np.sqrt(expected * (1 - expected) / 4000) + 1e-3).all()
    lengths = np.array([0, 1, N_ITEMS, 5])
    drawn = model.sample(lengths)
    np.testing.assert_array_equal(np.diff(drawn.indptr), lengths)
    assert drawn.has_canonical_format
    assert drawn.has_sorted_indices
    assert model.sample(np.empty(0, int)).shape == (0, N_ITEMS)


def test_pairs_are_drawn_without_replacement() -> None:
    """P({i, j}) = p_i p_j / (1 - p_i) + p_j p_i / (1 - p_j)."""
    scores = np.log([0.5, 0.3, 0.2])
    model = MultVAE(hidden_dims=(), latent_dim=1).load_weights(
        {
            "encoder.0.weight": np.zeros((3, 2), np.float32),
            "encoder.0.bias": np.zeros(2, np.float32),
            "decoder.0.weight": np.zeros((3, 1), np.float32),
            "decoder.0.bias": scores.astype(np.float32),
        }
    )
    drawn = model.sample(np.full(6000, 2), seed=1).toarray().astype(int)
    counts = Counter(map(tuple, drawn))
    expected = 0.5 * 0.3 / 0.5 + 0.3 * 0.5 / 0.7
    assert counts[(1, 1, 0)] / 6000 == pytest.approx(expected, abs=0.03)


def test_units_and_information_of_known_spaces() -> None:
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.normal(size=(50, 3)))
    collapsed, logvar = torch.zeros(50, 3).double(), torch.zeros(50, 3).double()
    assert int(active_units(collapsed)) == 0
    assert mutual_information(collapsed, logvar, noise) == pytest.approx(0, abs=1e-12)
    assert kl_per_dimension(collapsed, logvar).tolist() == [0, 0, 0]
    apart = torch.from_numpy(rng.normal(size=(50, 3)) * 100)
    assert mutual_information(apart, logvar, noise) == pytest.approx(math.log(50), abs=1e-6), "all users are told apart"
    assert int(active_units(apart)) == 3
    assert int(active_units(apart, threshold=1e9)) == 0
    mean, spread = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[0.0, math.log(2)], [0.0, math.log(2)]])
    expected = [0.5, 0.5 * (2 - math.log(2) - 1)]
    assert kl_per_dimension(mean, spread).tolist() == pytest.approx(expected)


def test_information_of_two_groups_is_one_bit() -> None:
    mean = np.repeat([[-50.0], [50.0]], 500, axis=0)
    weights = {
        "encoder.0.weight": np.array([[-50, 0], [50, 0]], np.float32),
        "encoder.0.bias": np.zeros(2, np.float32),
        "decoder.0.weight": np.zeros((2, 1), np.float32),
        "decoder.0.bias": np.zeros(2, np.float32),
    }
    model = MultVAE(hidden_dims=(), latent_dim=1).load_weights(weights)
    rows = sp.csr_matrix(np.repeat(np.eye(2, dtype=np.float32), 500, axis=0))
    np.testing.assert_array_equal(model.encode(rows).mean, mean)
    assert model.mutual_information(rows) == pytest.approx(math.log(2), abs=1e-6)


def test_log_has_units_divergence_and_information_of_each_epoch() -> None:
    validation = (ROWS[:15], ROWS[15:30])
    model = MultVAE(**SMALL["multvae"], epochs=3, batch_size=10).fit(ROWS, validation)
    last = model.log_[model.history_.best_epoch - 1]
    assert last.active_units == model.active_units(validation[0])
    np.testing.assert_allclose(np.array(last.kl_per_dimension), model.kl_per_dimension(validation[0]), rtol=1e-3)
    assert last.mutual_information is not None
    assert 0 <= last.mutual_information <= math.log(15) + 1e-6
    points = AE(latent_dim=6, epochs=2).fit(ROWS).log_[-1]
    assert (points.kl_per_dimension, points.mutual_information) == (None, None)
    assert points.active_units is not None


@pytest.mark.parametrize("model", [MultVAE(), RecVAE(), AE(), MultDAE(), HVamp(), VASP(), ELSA()])
def test_nothing_is_asked_before_fit(model: DensityModel) -> None:
    asked = (model.encode, model.elbo, model.log_likelihood, model.active_units, model.item_embeddings, model.decode)
    for method in asked:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            method(*([] if method == model.item_embeddings else [ROWS]))  # type: ignore[operator]
    with pytest.raises(NotFittedError, match="not fitted yet"):
        model.sample(np.array([1]))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.decode(np.zeros((2, 5))), r"got codes of shape \(2, 5\), expected \(n, 6\)"),
        (lambda m: m.decode(np.full((1, 6), np.nan)), "got codes that are not finite"),
        (lambda m: m.decode(np.full((1, 6), 1e300)), "got codes that are not finite"),
        (lambda m: m.decode([["a"] * 6]), "got codes of type <U1, expected numbers"),
        (lambda m: m.decode(np.full((1, 6), 1j)), "got codes of type complex128, expected numbers"),
        (lambda m: m.decode([[1, 2], [3]]), "got codes that are no array .*, expected numbers"),
        (lambda m: m.sample(np.array([-1])), "got lengths from -1 to -1, expected 0 to 30"),
        (lambda m: m.sample(np.array([31, 2])), "got lengths from 2 to 31, expected 0 to 30"),
        (lambda m: m.sample(np.array([1.5])), "expected whole numbers, one for each history"),
        (lambda m: m.sample(np.array([1, 2]), codes=np.zeros((1, 6))), "got 1 codes for 2 lengths"),
        (lambda m: m.sample(np.array([1]), seed=-1), "got seed=-1, expected a whole number, 0 or more"),
        (lambda m: m.log_likelihood(ROWS, 0), "got n_samples=0, expected a whole number >= 1"),
        (lambda m: m.log_likelihood(ROWS, 2, seed=-3), "got seed=-3, expected a whole number, 0 or more"),
        (lambda m: m.target_log_likelihood(ROWS, ROWS), "targets that are in the fold-in"),
        (lambda m: m.target_log_likelihood(ROWS, ROWS[:3]), r"got targets of shape \(3, 30\), expected \(40, 30\)"),
    ],
)
def test_bad_input_is_refused(ask: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask(ELBO_MODEL)


def test_codes_that_are_points_take_no_impossible_number_of_draws() -> None:
    model = fitted("ae")
    for ask in (model.reconstruction, lambda rows, n: model.target_log_likelihood(rows, 0 * rows, n)):
        with pytest.raises(UsageError, match="got n_samples=-5, expected a whole number >= 1"):
            ask(ROWS, -5)


def test_a_model_that_states_no_likelihood_is_told_how_to() -> None:
    model = fitted("multvae")
    model._likelihood = lambda: None  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="whose class states no likelihood of a row, expected one; let its `_likeli"):
        model.reconstruction(ROWS)


def test_what_is_kept_of_draws_is_bounded_by_blocks_and_the_numbers_are_the_same() -> None:
    """Log-weights draw by draw, noise and posteriors in blocks that follow max_memory: the same to rounding."""
    least = ELBO_MODEL.scoring_needs(N_ITEMS).scoring
    assert ELBO_MODEL.rows_at_a_time(least) == 1
    weights = ELBO_MODEL.log_weights(ROWS, 40, seed=3, max_memory=least)
    expected = logsumexp(weights, axis=1) - math.log(40)
    for limit in (None, least):
        found = ELBO_MODEL.log_likelihood(ROWS, 40, seed=3, max_memory=limit)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    fold_in, targets = ROWS.copy(), ROWS.copy()
    first = np.arange(ROWS.nnz) % 2 == 0
    fold_in.data[first], targets.data[~first] = 0, 0
    for ask in (
        lambda limit: ELBO_MODEL.reconstruction(ROWS, 20, seed=3, max_memory=limit),
        lambda limit: ELBO_MODEL.elbo(ROWS, 20, seed=3, max_memory=limit),
        lambda limit: ELBO_MODEL.target_log_likelihood(fold_in, targets, 20, seed=3, max_memory=limit),
        lambda limit: ELBO_MODEL.kl(ROWS, max_memory=limit),
        lambda limit: ELBO_MODEL.kl_per_dimension(ROWS, max_memory=limit),
        lambda limit: ELBO_MODEL.mutual_information(ROWS, max_memory=limit),
        lambda limit: ELBO_MODEL.decode(ELBO_MODEL.encode(ROWS).mean, max_memory=limit),
    ):
        np.testing.assert_allclose(ask(least), ask(None), rtol=1e-5, atol=1e-6)
    drawn = ELBO_MODEL.sample(np.full(9, 4), seed=5, max_memory=least)
    np.testing.assert_array_equal(drawn.toarray(), ELBO_MODEL.sample(np.full(9, 4), seed=5).toarray())


def test_no_more_than_a_block_of_draws_is_held() -> None:
    import tracemalloc

    rows, draws = sp.vstack([ROWS] * 50).tocsr(), 600
    whole = 8 * rows.shape[0] * draws  # all log-weights at once
    tracemalloc.start()
    ELBO_MODEL.log_likelihood(rows, draws)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < whole / 2, "numpy tells tracemalloc what it takes"


def test_models_without_what_is_asked_are_refused() -> None:
    with pytest.raises(UsageError, match="got multvae with a gaussian likelihood, which draws numbers"):
        fitted("multvae", likelihood="gaussian").sample(np.array([2]))
    with pytest.raises(UsageError, match="got ae, whose codes are points"):
        fitted("ae").sample(np.array([2]))
    with pytest.raises(UsageError, match="got vasp with no likelihood"):
        fitted("vasp").sample(np.array([2]))
    with pytest.raises(UsageError, match=r"got multvae with a weight of interactions \(confidence\)"):
        fitted("multvae", likelihood="gaussian", confidence=3.0).elbo(ROWS)
    with pytest.raises(UsageError, match="got multvae with likelihood bernoulli, expected multinomial"):
        fitted("multvae", likelihood="bernoulli").target_log_likelihood(ROWS, ROWS)
    with pytest.raises(DataError, match="items"):
        ELBO_MODEL.encode(ROWS[:, :4])


@pytest.mark.parametrize("free", [0.0, 0.3])
def test_free_bits_count_only_what_exceeds_them(free: float) -> None:
    """sum_d max(free, mean over users of KL_d); below that, no gradient pulls a unit to the prior."""
    rng = np.random.default_rng(0)
    mean = torch.from_numpy(rng.normal(size=(20, 4)) * [0.01, 0.1, 1, 3]).requires_grad_()
    logvar = torch.from_numpy(rng.normal(size=(20, 4)) * 0.01)
    found = kl_beyond_free_bits(mean, logvar, free)
    of_units = 0.5 * (mean.detach().numpy() ** 2 + np.exp(logvar.numpy()) - logvar.numpy() - 1).mean(axis=0)
    assert found.item() == pytest.approx(np.maximum(of_units, free).sum())
    found.backward()
    assert mean.grad is not None
    assert ((mean.grad != 0).any(dim=0).numpy() == (of_units > free)).all()


def test_free_bits_keep_units_in_use_under_a_heavy_prior() -> None:
    heavy: dict[str, Any] = {"beta": 5.0, "anneal": "constant", "epochs": 40, "learning_rate": 0.01}
    collapsed, kept = fitted("multvae", **heavy), fitted("multvae", **heavy, free_bits=0.5)
    assert collapsed.kl_per_dimension(ROWS).sum() < 0.1
    assert kept.kl_per_dimension(ROWS).sum() > 1
    assert kept.active_units(ROWS) > collapsed.active_units(ROWS)


def test_a_collapsed_space_is_named_with_what_to_change() -> None:
    assert collapse(0, 200, 0.3) == collapse(9, 200, 0.3).replace("9 of", "0 of")  # type: ignore[union-attr]
    assert "0 of 200 latent units differ" in str(collapse(0, 200, 0.3))
    assert "free_bits=0.1" in str(collapse(0, 200, 0.3))
    assert "28 of 50 latent units differ between users, with 0.6 nats in all" in str(collapse(28, 50, 0.6))
    assert collapse(10, 200, 3.0) is None
    assert collapse(1, 4, 3.0) is None
    assert collapse(0, 200, None) is None, "codes that are points have no prior to collapse to"
    assert collapse(None, 200, 3.0) is None
