"""The step size over a run: warm-up and decay, the same on every way through the one training loop."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, UsageError
from recvae.models import MODELS, MultDAE, MultVAE
from recvae.models.common.autoencoder import Autoencoder
from recvae.training.checkpoints import FILE_NAME, Checkpoint
from recvae.training.records import EpochRecord, NullMonitor
from recvae.training.refits import Course
from recvae.training.step_sizes import DECAYS, step_size

NETWORKS = [name for name, model in MODELS.items() if issubclass(model, Autoencoder)]
IDENTITY = {"run": "of this test"}


class Killed(NullMonitor):
    """Ends the process, as it were, after some epochs."""

    def __init__(self, after: int) -> None:
        self.after = after

    def epoch(self, record: EpochRecord) -> None:
        if record.epoch == self.after:
            raise ConnectionAbortedError


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """Return a list that gets the step sizes of all groups of parameters at each update of Adam."""
    noted: list[list[float]] = []
    adam = torch.optim.Adam.step

    def step(self: torch.optim.Adam, *args: Any) -> Any:
        noted.append([group["lr"] for group in self.param_groups])
        return adam(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    return noted


def test_each_decay_has_its_formula_after_the_warm_up() -> None:
    linear, cosine, none = (step_size(name, 0.25, 8) for name in ("linear", "cosine", "none"))
    assert linear is not None and cosine is not None and none is not None
    assert [linear(t) for t in (0, 1)] == [cosine(t) for t in (0, 1)] == [none(t) for t in (0, 1)] == [0.5, 1.0]
    assert [linear(t) for t in range(2, 8)] == pytest.approx([1 - s / 6 for s in range(6)])
    assert [cosine(t) for t in range(2, 8)] == pytest.approx([(1 + math.cos(math.pi * s / 6)) / 2 for s in range(6)])
    assert [none(t) for t in range(2, 8)] == [1.0] * 6
    assert step_size("none", 0.0, 8) is None


@given(decay=st.sampled_from(DECAYS), warmup=st.floats(0, 0.99), updates=st.integers(1, 400))
def test_every_update_moves_and_none_by_more_than_the_step_size(decay: str, warmup: float, updates: int) -> None:
    share = step_size(decay, warmup, updates)
    if share is None:
        assert decay == "none"
        return
    shares = [share(update) for update in range(updates)]
    assert all(0 < one <= 1 for one in shares)
    top = shares.index(max(shares))
    assert shares[: top + 1] == sorted(shares[: top + 1]) and shares[top:] == sorted(shares[top:], reverse=True)


def test_the_optimiser_takes_that_share_of_its_step_size(sizes: list[list[float]], blocks: Dataset) -> None:
    settings: dict[str, Any] = {"epochs": 5, "batch_size": 10, "learning_rate": 0.02, "decay": "cosine", "warmup": 0.1}
    MultVAE(hidden_dims=(8,), latent_dim=4, patience=0, **settings).fit(blocks.train)
    share = step_size("cosine", 0.1, 50)
    assert share is not None
    assert sizes == [[0.02 * share(update)] for update in range(50)]


def test_every_group_and_every_optimiser_follows_one_clock(
    sizes: list[list[float]], make_model: Callable[..., Any], blocks: Dataset
) -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 20, "learning_rate": 0.02, "decay": "linear"}
    make_model("multdae", **settings).fit(blocks.train)  # weights decay, biases do not
    assert sizes == [[0.02 * (1 - update / 10)] * 2 for update in range(10)]
    sizes.clear()
    make_model("recvae", **settings).fit(blocks.train)  # 3 passes with one optimiser, 1 with the other
    assert [one for (one,) in sizes] == pytest.approx([0.02 * (1 - update / 40) for update in range(40)])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_it(name: str, make_model: Callable[..., Any], blocks: Dataset) -> None:
    plain, decayed = (make_model(name, epochs=3, patience=0, decay=decay) for decay in ("none", "linear"))
    for model in (plain, decayed):
        model.fit(blocks.train, blocks.validation, device="cpu")
    found, other = plain.weights(), decayed.weights()
    assert any(not np.array_equal(found[weight], other[weight]) for weight in found)
    assert plain.log_[0].ndcg is not None and all(np.isfinite(value).all() for value in other.values())


@pytest.mark.parametrize("name", ["multvae", "recvae"])
def test_a_killed_run_goes_on_with_the_same_step_sizes(
    name: str, make_model: Callable[..., Any], blocks: Dataset, tmp_path: Path
) -> None:
    model = make_model(name, epochs=6, patience=0, decay="cosine", warmup=0.2)
    straight = replace(model).fit(blocks.train, blocks.validation, device="cpu")
    path = tmp_path / FILE_NAME
    with pytest.raises(ConnectionAbortedError):
        replace(model).fit(blocks.train, blocks.validation, monitor=Killed(4), checkpoint=Checkpoint(path, IDENTITY))
    resumed = replace(model).fit(
        blocks.train, blocks.validation, device="cpu", checkpoint=Checkpoint(path, IDENTITY, resumes=True)
    )
    for weight, values in straight.weights().items():
        np.testing.assert_array_equal(resumed.weights()[weight], values)


def test_a_run_that_was_begun_before_there_was_a_decay_goes_on_without_one(
    make_model: Callable[..., Any], blocks: Dataset, tmp_path: Path
) -> None:
    model, path = make_model("multvae", epochs=6, patience=0, decay="none", warmup=0.0), tmp_path / FILE_NAME
    before = {"hyperparameters": {"epochs": 6}}
    with pytest.raises(ConnectionAbortedError):
        replace(model).fit(blocks.train, blocks.validation, monitor=Killed(4), checkpoint=Checkpoint(path, before))
    now = {"hyperparameters": {"epochs": 6, "decay": "none", "warmup": 0.0}}
    resumes = Checkpoint(path, now, resumes=True, earlier=model.earlier)
    resumed = replace(model).fit(blocks.train, blocks.validation, device="cpu", checkpoint=resumes)
    straight = replace(model).fit(blocks.train, blocks.validation, device="cpu")
    for weight, values in straight.weights().items():
        np.testing.assert_array_equal(resumed.weights()[weight], values)
    other = {"hyperparameters": {"epochs": 6, "decay": "cosine", "warmup": 0.0}}
    with pytest.raises(BundleError, match="belongs to another run"):
        replace(model).fit(
            blocks.train, blocks.validation, checkpoint=Checkpoint(path, other, resumes=True, earlier=model.earlier)
        )


def test_a_refit_has_the_step_size_of_each_part_of_each_epoch(sizes: list[list[float]], blocks: Dataset) -> None:
    model = MultVAE(hidden_dims=(8,), latent_dim=4, epochs=8, batch_size=10, patience=0, decay="cosine")
    replace(model).fit(blocks.train)
    before = [size for (size,) in sizes]
    sizes.clear()
    twice = blocks.train[np.tile(np.arange(100), 2)]
    replace(model).fit(twice, course=Course(epochs=5, n_users=100))
    assert (len(before), len(sizes)) == (80, 100)
    assert [size for (size,) in sizes][::2] == pytest.approx(before[:50], abs=1e-12)


def test_what_does_not_go_with_it_is_refused(blocks: Dataset) -> None:
    with pytest.raises(UsageError, match=r"got decay='step', expected one of none, linear, cosine; how the step"):
        MultDAE(decay="step").fit(blocks.train)
    with pytest.raises(UsageError, match=r"got warmup=1\.0, expected a number, at least 0 and below 1"):
        MultDAE(warmup=1.0).fit(blocks.train)
