"""ImplicitSLIM against its authors' code (ilya-shenbin/ImplicitSLIM), written out below with dense matrices."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from processes import (
    WIDE,
    Several,
    Stops,
    check_same,
    ends,
    figures,
    fitted,
    in_fresh_processes,
    memory_taken,
    needs_proc,
    ones,
)

from recvae.datasets.dataset import Dataset
from recvae.datasets.preparation import Protocol, prepare_synthetic
from recvae.errors import UsageError
from recvae.models import MODELS, RecVAE
from recvae.models.common import implicit_slim as slim
from recvae.models.common.implicit_slim import implicit_slim
from recvae.models.common.penalties import typical_l2
from recvae.recommenders.recommender import Recommender
from recvae.training.checkpoints import Checkpoint
from recvae.training.records import EpochRecord, NullMonitor, StopTraining

SMALL: dict[str, Any] = {"hidden_dim": 16, "latent_dim": 8, "batch_size": 10, "learning_rate": 0.01, "seed": 3}
BEGUN: dict[str, Any] = {**SMALL, "start": "implicitslim"}


def authors(vectors: np.ndarray, train: np.ndarray, l2: float, alpha: float) -> np.ndarray:
    """Return the new vectors (width, items), in their order of operations, with their threshold at 0."""
    weights = 1 / (train.sum(axis=0, keepdims=True) + l2)
    mixed = (l2 * vectors + vectors @ train.T @ train) * weights * weights
    inverse = l2 * mixed + mixed @ train.T @ train
    among = inverse @ vectors.T
    left = inverse - among @ np.linalg.inv(np.eye(len(vectors)) / alpha + among) @ inverse
    return alpha * vectors @ vectors.T @ left


def random_rows(seed: int, n_users: int, n_items: int) -> sp.csr_matrix:
    return sp.csr_matrix(np.random.default_rng(seed).random((n_users, n_items)) < 0.3, dtype=np.float32)


@given(
    seed=st.integers(0, 10**6),
    n_users=st.integers(1, 30),
    n_items=st.integers(1, 12),
    width=st.integers(1, 15),
    l2=st.floats(0.1, 1000),
    alpha=st.floats(0.01, 10),
    users=st.integers(1, 40),
)
def test_it_is_the_authors_code(
    seed: int, n_users: int, n_items: int, width: int, l2: float, alpha: float, users: int
) -> None:
    """Also with items without interactions, more numbers than items, and any number of users at a time."""
    train = random_rows(seed, n_users, n_items)
    vectors = np.random.default_rng(seed).normal(size=(n_items, width)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slim, "_BLOCK_BYTES", 4 * width * users)
        found = implicit_slim(vectors, train, l2, alpha)
    expected = authors(vectors.T.astype(np.float64), train.toarray().astype(np.float64), l2, alpha).T
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("scale", [1e-9, 0.2, 5.0, 1e9])
def test_the_scale_of_weights_does_not_matter(scale: float) -> None:
    train = random_rows(1, 30, 12)
    train.data = np.random.default_rng(2).integers(1, 4, train.nnz).astype(np.float32)
    vectors = np.random.default_rng(3).normal(size=(12, 5)).astype(np.float32)
    found = implicit_slim(vectors, sp.csr_matrix(train * np.float32(scale)), 7.0 * scale**2)
    expected = implicit_slim(vectors, train, 7.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_items_that_occur_with_the_same_others_get_alike_vectors(blocks: Dataset) -> None:
    vectors = np.random.default_rng(0).normal(size=(blocks.train.shape[1], 16)).astype(np.float32)
    found = implicit_slim(vectors, blocks.train, 5.0)
    groups = np.arange(len(found)) // 8
    same = groups[:, None] == groups

    def contrast(of: np.ndarray) -> float:
        cosines = of @ of.T / np.outer(*[np.linalg.norm(of, axis=1)] * 2)
        return float(cosines[same & ~np.eye(len(of), dtype=bool)].mean() - cosines[~same].mean())

    assert contrast(found) > 0.25 > contrast(vectors) + 0.15


class Layers(NullMonitor):
    """Keeps what the layers are before the first update, and ends training."""

    def __init__(self, model: RecVAE) -> None:
        self.model = model
        self.found: list[np.ndarray] = []

    def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002
        network = self.model.network_
        self.found = [one.weight.detach().numpy().copy() for one in (network.encoder.first, network.decoder)]

    def advance(self, epochs_done: float, beta: float | None) -> StopTraining:  # noqa: ARG002
        return StopTraining("seen")


def layers(train: Any, **changes: Any) -> list[np.ndarray]:
    model = RecVAE(**{**SMALL, **changes})
    seen = Layers(model)
    model.fit(train, device="cpu", monitor=seen)
    return seen.found


def test_first_and_last_layer_begin_so_from_the_random_ones_of_the_seed(blocks: Dataset) -> None:
    random, begun = layers(blocks.train), layers(blocks.train, start="implicitslim", start_l2=7.0)
    for one, other in zip(random, begun, strict=True):
        np.testing.assert_array_equal(other, implicit_slim(one, blocks.train, 7.0))


def test_without_an_l2_it_is_that_of_the_data_and_the_run_says_so(blocks: Dataset) -> None:
    model = RecVAE(**BEGUN, epochs=1).fit(blocks.train, device="cpu")
    l2 = typical_l2(blocks.train)
    assert model.training_summary().from_data == {"start_l2": l2}
    assert RecVAE(**BEGUN, start_l2=2.0, epochs=1).fit(blocks.train, device="cpu").training_summary().from_data is None
    for one, other in zip(layers(blocks.train, **BEGUN), layers(blocks.train, **BEGUN, start_l2=l2), strict=True):
        np.testing.assert_array_equal(one, other)


def test_rows_on_disk_begin_alike(tmp_path: Path) -> None:
    made = prepare_synthetic(Protocol(), name="x", n_users=300, n_items=80, n_events=6000).dataset
    made.save(tmp_path / "x", shards=True)
    streamed: Any = Dataset.load(tmp_path / "x", stream=True, buffer=8_000).train
    assert len(list(streamed.parts())) > 1
    for one, other in zip(layers(made.train, **BEGUN), layers(streamed, **BEGUN), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(one).max())


def test_a_bundle_keeps_it_and_loads(blocks: Dataset, tmp_path: Path) -> None:
    model = RecVAE(**BEGUN, epochs=5).fit(blocks, device="cpu")
    Recommender(model, blocks).save(tmp_path / "run")
    loaded = Recommender.load(tmp_path / "run")
    assert getattr(loaded.model, "start") == "implicitslim"  # noqa: B009
    history = [int(item) for item in blocks.item_ids[:3]]
    assert loaded.recommend(history, k=5).ids == Recommender(model, blocks).recommend(history, k=5).ids


def test_what_has_no_effect_or_is_out_of_range_is_refused() -> None:
    train = sp.csr_matrix(np.eye(4, dtype=np.float32))
    with pytest.raises(UsageError, match=r"got start_l2=5\.0 with start=random, where it has no effect"):
        RecVAE(start_l2=5.0).fit(train)
    with pytest.raises(UsageError, match=r"got start_l2=0, expected a number, 0\.01 or more \(or none\)"):
        RecVAE(start="implicitslim", start_l2=0).fit(train)
    with pytest.raises(UsageError, match="got start='slim', expected one of random, implicitslim"):
        RecVAE(start="slim").fit(train)
    assert RecVAE(**BEGUN).needs_all_items == "start=implicitslim" and RecVAE(**SMALL).needs_all_items is None
    assert {name for name, model in MODELS.items() if "start" in model.__dataclass_fields__} == {"recvae"}


def begin() -> tuple[int, int]:
    """Return how many bytes a fit was said to take where beginning takes the most, and how many it took."""
    train = ones(400, 20_000, 30)
    fitted("recvae", **BEGUN)  # loads what has to be loaded
    how: dict[str, Any] = {"sampling": "uniform", "sampled_items": 100, "row_wise": True, "precision": "float32"}
    settings: dict[str, Any] = {**BEGUN, **how, "latent_dim": 600, "epochs": 1}
    model = RecVAE(**settings)
    expected = model.needs(*train.shape, train.nnz).training
    return expected, memory_taken(lambda: model.fit(train, device="cpu"))


@needs_proc
def test_what_it_is_said_to_need_is_what_it_takes(warm_python: str) -> None:
    ((expected, took),) = in_fresh_processes(1, warm_python, begin)
    assert 0.5 <= expected / took <= 1.5, f"expected {expected:,}, took {took:,}"


@pytest.mark.parametrize(("hidden_dim", "latent_dim"), [(600, 200), (50, 600), (600, 10)])
@pytest.mark.parametrize("row_wise", [False, True])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_training_takes_more_than_the_three_arrays(
    hidden_dim: int, latent_dim: int, row_wise: bool, on_gpu: bool
) -> None:
    sampled: dict[str, Any] = {"sampling": "uniform", "row_wise": True} if row_wise else {}
    model = RecVAE(hidden_dim=hidden_dim, latent_dim=latent_dim, start="implicitslim", **sampled)
    needs = model.needs(400, 20_000, 12_000, on_gpu=on_gpu)
    begun = model.bytes_of_weights(20_000)[0] + 3 * 4 * 20_000 * max(hidden_dim, latent_dim)
    assert begun <= (needs.host if on_gpu else needs.training)


@pytest.mark.parametrize(
    "how",
    [{}, {"averaging": 0.5}, {"sampling": "uniform", "sampled_items": 8, "row_wise": True, "precision": "float32"}],
    ids=["plain", "averaged", "rows"],
)
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    how: dict[str, Any], blocks: Dataset, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {**BEGUN, **how, "epochs": 4}
    whole = RecVAE(**settings).fit(blocks.train, blocks.validation, device="cpu")
    kept = Checkpoint(tmp_path / "checkpoint.safetensors", {"model": "recvae"})
    RecVAE(**settings).fit(blocks.train, blocks.validation, device="cpu", monitor=Stops(epoch=2), checkpoint=kept)
    resumed = RecVAE(**settings)
    resumed.fit(blocks.train, blocks.validation, device="cpu", checkpoint=replace(kept, resumes=True))
    assert len(resumed.log_) == 4
    for name, value in whole.weights().items():
        np.testing.assert_array_equal(resumed.weights()[name], value, err_msg=name)


def test_a_refit_begins_with_the_l2_that_was_found(toy: Path, command: Callable[..., Any]) -> None:
    small = ("--set", "hidden_dim=16", "--set", "latent_dim=8", "--set", "epochs=2")
    assert command("train", "--model", "recvae", *small, "--set", "start=implicitslim").code == 0
    said = command("train", "--refit", "recvae")
    assert said.code == 0, said.err
    l2 = typical_l2(Dataset.load(toy).train)
    card = json.loads(Path("runs/toy/recvae-refit/recommender.json").read_text())
    assert (card["hyperparameters"]["start"], card["hyperparameters"]["start_l2"]) == ("implicitslim", l2)


def test_several_processes_begin_alike_and_cannot_share_its_items(several: Several) -> None:
    begun = {"start": "implicitslim", **WIDE}
    whole = figures(fitted("recvae", **begun))
    for found in ends(several, 2, lambda: figures(fitted("recvae", **begun))):
        check_same(found, whole)
    for name, words in ends(several, 2, lambda: fitted("recvae", **begun), share="items"):
        assert (name, "with start=implicitslim; leave that out" in words) == ("UsageError", True)
