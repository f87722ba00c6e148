"""Latent units: which items rise and fall when one moves, against a model whose units are known."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import log_softmax

from recvae.datasets.dataset import Dataset
from recvae.datasets.preparation import Protocol, prepare_synthetic
from recvae.errors import NotFittedError, UsageError
from recvae.latent.units import latent_units
from recvae.models import AE, EASE, ELSA, MultVAE
from recvae.recommenders.recommender import Recommender

RNG = np.random.default_rng(0)
N_ITEMS, WIDTH = 20, 3
ROWS = sp.csr_matrix((RNG.random((50, N_ITEMS)) < 0.4).astype(np.float32))
ENCODER = RNG.normal(size=(N_ITEMS, WIDTH)) * [1, 2, 0]  # the third unit is the same for all
DECODER, BIAS = RNG.normal(size=(N_ITEMS, WIDTH)), RNG.normal(size=N_ITEMS)


@pytest.fixture(scope="module")
def model() -> MultVAE:
    """Return a linear model: logits are DECODER z + BIAS."""
    weights = {
        "encoder.0.weight": np.hstack([ENCODER, 0 * ENCODER]).astype(np.float32),
        "encoder.0.bias": np.zeros(2 * WIDTH, np.float32),
        "decoder.0.weight": DECODER.astype(np.float32),
        "decoder.0.bias": BIAS.astype(np.float32),
    }
    return MultVAE(hidden_dims=(), latent_dim=WIDTH).load_weights(weights)


@pytest.mark.parametrize("sigmas", [2.0, -1])
def test_items_rise_and_fall_as_the_decoder_says(model: MultVAE, sigmas: float) -> None:
    codes = model.encode(ROWS).mean.astype(float)
    middle, spread = codes.mean(axis=0), codes.std(axis=0)
    found = latent_units(model, ROWS, N_ITEMS, sigmas=sigmas)
    assert sorted(one.unit for one in found) == [0, 1], "the third does not differ between users"
    kl = model.kl(ROWS).mean(axis=0)
    assert [one.unit for one in found] == sorted([0, 1], key=lambda unit: -kl[unit])
    for one in found:
        start = log_softmax(DECODER @ middle + BIAS)
        end = log_softmax(DECODER @ (middle + sigmas * spread[one.unit] * np.eye(WIDTH)[one.unit]) + BIAS)
        change = np.where(np.maximum(start, end) >= -np.log(N_ITEMS), end - start, 0)
        order = np.argsort(-change)
        assert one.rises.tolist() == [item for item in order if change[item] > 0]
        assert one.falls.tolist() == [item for item in order[::-1] if change[item] < 0]
        np.testing.assert_allclose(one.rises_by, change[one.rises], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.falls_by, change[one.falls], rtol=1e-4, atol=1e-5)
        assert (one.kl, one.spread) == pytest.approx((kl[one.unit], spread[one.unit]), rel=1e-4)
        assert len(one.rises) and len(one.falls)


def test_one_unit_may_be_asked_for_also_if_it_is_not_active(model: MultVAE) -> None:
    (one,) = latent_units(model, ROWS, 2, unit=2)
    assert (one.unit, one.rises.tolist(), one.falls.tolist()) == (2, [], [])
    (other,) = latent_units(model, ROWS, 2, unit=1, max_memory=model.scoring_needs(N_ITEMS).scoring)
    assert other.rises.tolist() == latent_units(model, ROWS, unit=1)[0].rises[:2].tolist()


def test_units_of_points_come_by_their_spread() -> None:
    found = latent_units(AE(latent_dim=4, epochs=2).fit(ROWS), ROWS, 3)
    assert [one.kl for one in found] == [None] * len(found)
    assert [one.spread for one in found] == sorted((one.spread for one in found), reverse=True)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda m: latent_units(m, ROWS, 0), UsageError, "got k=0"),
        (lambda m: latent_units(m, ROWS, unit=3), UsageError, "got unit 3, expected a whole number from 0 to 2"),
        (lambda m: latent_units(m, ROWS, sigmas=0), UsageError, "got sigmas=0, expected a number other than 0"),
        (lambda m: latent_units(m, ROWS, sigmas=float("nan")), UsageError, "got sigmas=nan"),
        (lambda m: latent_units(m, ROWS[:1]), UsageError, "got one user, expected two or more"),
        (lambda _: latent_units(EASE(), ROWS), UsageError, "got ease, whose scores are not made of units; use multvae"),
        (lambda _: latent_units(ELSA(), ROWS), UsageError, "got elsa, whose scores are not made of units"),
        (
            lambda _: latent_units(MultVAE(likelihood="bernoulli"), ROWS),
            UsageError,
            "got multvae with likelihood bernoulli, expected multinomial",
        ),
        (lambda _: latent_units(MultVAE(), ROWS), NotFittedError, "not fitted yet"),
    ],
)
def test_what_cannot_be_moved_is_refused(model: MultVAE, ask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ask(model)


def test_the_command_prints_what_the_library_finds(workplace: Path, command: Callable[..., Any]) -> None:
    made = prepare_synthetic(Protocol(heldout_users=40), name="toy", n_users=400, n_items=120, n_events=12000).dataset
    made.save(workplace / "data" / "toy")
    dataset = Dataset.load("data/toy")
    model = MultVAE(epochs=10, hidden_dims=(16,), latent_dim=6).fit(dataset)
    Recommender(model).save("runs/toy/multvae")
    expected = latent_units(model, dataset.train, 4)
    assert expected
    found = json.loads(command("units", "-k", "4", "--json").out)["units"]
    assert [one["unit"] for one in found] == [one.unit for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert [item["change"] for item in one["rises"]] == pytest.approx(other.rises_by.tolist(), abs=1e-4)
        assert [item["id"] for item in one["falls"]] == dataset.item_ids[other.falls].tolist()
    said = command("units", "toy/multvae")
    assert said.code == 0 and f"{len(expected)} active units; {len(expected)} shown" in said.err
    single = command("units", "--unit", str(expected[0].unit))
    assert single.code == 0 and f"unit {expected[0].unit}: rises" in single.out
    assert command("units", "--unit", "6").code == 2
    shutil.rmtree("runs/toy/multvae")
