"""The figures of the README on real MovieLens data; skipped where that is missing."""

from pathlib import Path

import numpy as np
import pytest

from recvae import ALS, EASE, Dataset, MultDAE, MultVAE, Popularity, RecVAE
from recvae.datasets.preparation import Protocol, prepare_known
from recvae.evaluation.evaluate import evaluate
from recvae.metrics import parse_metrics
from recvae.models import Model

METRICS = parse_metrics("recall@20,recall@50,ndcg@100")
RECVAE = RecVAE(  # the leaderboard's
    epochs=40,
    patience=10,
    batch_size=100,
    averaging=0.9,
    precision="float32",
    learning_rate=0.000667,
    latent_dim=400,
    dropout=0.576,
    gamma=0.00248,
)


@pytest.fixture(scope="module")
def ml_1m(real_data: Path) -> Dataset:
    prepared = prepare_known("ml-1m", Protocol(heldout_users=500), source=real_data / "ml-1m")
    assert prepared.warnings == []
    return prepared.dataset


def _means(model: Model, dataset: Dataset) -> tuple[list[float], list[float]]:
    """Return the means and the standard errors of the three metrics on the test users."""
    per_user, _ = evaluate(model, dataset.test, METRICS)
    values = [per_user[str(metric)] for metric in METRICS]
    return [float(v.mean()) for v in values], [float(v.std(ddof=1) / np.sqrt(len(v))) for v in values]


def test_the_strong_split_has_the_known_counts(ml_1m: Dataset) -> None:
    counts = ml_1m.manifest["counts"]
    assert ml_1m.train.shape == (5_034, 3_502)
    assert counts["train_interactions"] == 480_438
    assert (counts["validation_targets"], counts["test_targets"]) == (9_973, 8_582)


def test_every_film_has_its_title(ml_1m: Dataset) -> None:
    assert ml_1m.titles is not None
    assert ml_1m.titles[ml_1m.item_ids.tolist().index(1)] == "Toy Story (1995)"
    assert None not in ml_1m.titles.tolist()


def test_popularity_is_exact(ml_1m: Dataset) -> None:
    means, _ = _means(Popularity().fit(ml_1m.train), ml_1m)
    assert [round(mean, 4) for mean in means] == [0.1614, 0.2333, 0.2105]


@pytest.mark.parametrize(("l2", "expected"), [(500.0, [0.3606, 0.4767, 0.4231]), (200.0, [0.3536, 0.4732, 0.4165])])
def test_ease_is_exact_to_four_digits(l2: float, expected: list[float], ml_1m: Dataset) -> None:
    means, _ = _means(EASE(l2=l2).fit(ml_1m.train), ml_1m)
    assert [round(mean, 4) for mean in means] == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (ALS(), (0.3588, 0.4880, 0.4205)),
        pytest.param(MultVAE(), (0.334, 0.479, 0.400), marks=pytest.mark.large),
        pytest.param(MultDAE(), (0.346, 0.477, 0.418), marks=pytest.mark.large),
        pytest.param(RECVAE, (0.3616, 0.4940, 0.4341), marks=pytest.mark.large),
    ],
    ids=lambda value: value.name if isinstance(value, Model) else "",
)
def test_models_reach_an_independent_implementation_within_a_standard_error(
    model: Model, expected: tuple[float, ...], ml_1m: Dataset
) -> None:
    means, errors = _means(model.fit(ml_1m.train, ml_1m.validation, device="cpu"), ml_1m)
    for mean, error, other in zip(means, errors, expected, strict=True):
        assert mean >= other - error


@pytest.mark.large
def test_bfloat16_is_within_a_standard_error_of_float32(ml_1m: Dataset) -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        model = MultVAE(precision=precision, averaging=0.9).fit(ml_1m.train, ml_1m.validation, device="cpu")
        found[precision] = _means(model, ml_1m)
    (exact, errors), (close, _) = found["float32"], found["bfloat16"]
    for one, other, error in zip(close, exact, errors, strict=True):
        assert abs(one - other) <= error


@pytest.mark.parametrize(
    ("name", "events", "users", "items"),
    [("ml-100k", 55_361, 938, 1_447), ("ml-latest-small", 48_562, 603, 6_298)],
)
def test_the_other_sets_go_through_as_the_data_page_says(
    name: str, events: int, users: int, items: int, real_data: Path
) -> None:
    prepared = prepare_known(name, Protocol(), source=real_data / name)
    last = prepared.dataset.manifest["filters"]["steps"][-1]
    assert prepared.warnings == []
    assert (last["events"], last["users"], last["items"]) == (events, users, items)
