"""Trained again for the epochs that a run has chosen: equal weights on equal users, schedules by part of epoch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recvae.datasets.dataset import Dataset
from recvae.datasets.joining import join
from recvae.errors import UsageError
from recvae.evaluation.fitting import fit
from recvae.evaluation.same_data import check_unseen
from recvae.models import MODELS, MultVAE
from recvae.models.common.autoencoder import Autoencoder
from recvae.training.records import EpochRecord, NullMonitor, TrainingSummary
from recvae.training.refits import Course, Refit
from recvae.training.schedules import linear, stretched

NETWORKS = [name for name, model in MODELS.items() if issubclass(model, Autoencoder)]
CHOSEN = Refit(run="multvae", made="today", on="train+validation", n_users=100, epochs=4, metrics={"ndcg@100": 0.5})


class Betas(NullMonitor):
    """Notes beta after each update, and the length of the run."""

    def __init__(self) -> None:
        self.betas: list[float | None] = []
        self.epochs = 0
        self.records: list[EpochRecord] = []

    def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002
        self.epochs = epochs

    def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
        self.betas.append(beta)

    def epoch(self, record: EpochRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("averaging", [0.0, 0.6])
def test_on_the_same_users_the_weights_are_those_of_the_epoch_that_was_chosen(
    name: str, averaging: float, make_model: Callable[..., Any], blocks: Dataset
) -> None:
    chosen = make_model(name, epochs=12, patience=2, averaging=averaging, learning_rate=0.05, seed=3)
    chosen.fit(blocks.train, blocks.validation, device="cpu")
    course = Course(epochs=chosen.history_.best_epoch, n_users=blocks.train.shape[0])
    again = replace(chosen).fit(blocks.train, device="cpu", course=course)
    assert len(again.log_) == again.history_.best_epoch == course.epochs and not again.history_.stopped_early
    assert [record.beta for record in again.log_] == [record.beta for record in chosen.log_[: course.epochs]]
    expected = chosen.weights()
    assert all(np.array_equal(array, expected[weight]) for weight, array in again.weights().items())


@pytest.mark.parametrize(
    "settings",
    [
        {"anneal": "linear"},
        {"anneal": "cosine", "anneal_fraction": 0.5},
        {"anneal": "cyclical", "anneal_cycles": 3},
        {"anneal": "linear", "anneal_steps": 30},
        {"anneal": "constant"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_beta_at_each_part_of_each_epoch_is_that_of_the_run(settings: dict[str, Any], blocks: Dataset) -> None:
    # 100 users in batches of 10 are 10 updates an epoch; twice the users are 20, of which each second one coincides.
    model = MultVAE(hidden_dims=(8,), latent_dim=4, epochs=8, batch_size=10, patience=0, beta=0.3, **settings)
    twice = blocks.train[np.tile(np.arange(100), 2)]
    before, now = Betas(), Betas()
    replace(model).fit(blocks.train, monitor=before)
    replace(model).fit(twice, monitor=now, course=Course(epochs=5, n_users=100))
    assert (before.epochs, now.epochs, len(before.betas), len(now.betas)) == (8, 5, 80, 100)
    assert now.betas[::2] == pytest.approx(before.betas[:50], abs=1e-12)
    assert [record.epoch for record in now.records] == [1, 2, 3, 4, 5]


def test_a_schedule_is_stretched_to_more_updates_in_an_epoch() -> None:
    rise = linear(cap=0.5, steps=10)
    wider = stretched(rise, before=4, now=6)
    assert [wider(t) for t in (0, 3, 6, 15, 18)] == pytest.approx([rise(t) for t in (0, 2, 4, 10, 12)])
    assert stretched(rise, 4, 4) is rise


def test_a_refit_is_fitted_to_the_joined_parts_and_measured_on_none(toy_data: Any) -> None:
    dataset = Dataset.load(toy_data)
    model = MultVAE(hidden_dims=(8,), latent_dim=4, epochs=9, batch_size=40, patience=1, seed=2)
    refit = replace(CHOSEN, n_users=dataset.train.shape[0])
    bundle = fit(model, dataset, device="cpu", refit=refit).bundle()
    expected = replace(model).fit(join(dataset), device="cpu", course=refit.course).weights()
    assert all(np.array_equal(array, expected[name]) for name, array in bundle.model.weights().items())
    assert bundle.metrics == {} and bundle.manifest == dataset.manifest and bundle.training.refit == refit
    assert bundle.items.train_counts.sum() == join(dataset).nnz
    assert (bundle.training.epochs, bundle.training.best_epoch) == (4, 4)
    whole = fit(replace(model), dataset, device="cpu", refit=replace(refit, on="all")).bundle()
    assert whole.items.train_counts.sum() == join(dataset, "all").nnz and whole.metrics == {}


def test_what_is_said_of_a_refit_comes_back_and_what_is_damaged_is_refused() -> None:
    summary = TrainingSummary(epochs=4, refit=CHOSEN)
    assert TrainingSummary.from_json(summary.to_json()) == summary
    assert TrainingSummary.from_json({"epochs": 4}).refit is None
    assert CHOSEN.describe() == "settings and epochs (4) chosen by multvae on validation; trained on train+validation"
    closed = replace(CHOSEN, epochs=None, metrics={}, on="all")
    assert closed.describe() == "settings chosen by multvae; trained on all" and closed.course is None
    wrong: list[dict[str, Any]] = [{"on": "test"}, {"run": 3}, {"epochs": "4"}, {"n_users": True}, {"metrics": []}]
    for change in wrong:
        with pytest.raises(TypeError, match=r"of a refit|got a refit on 'test'"):
            TrainingSummary.from_json({"refit": CHOSEN.to_json() | change})
    with pytest.raises(TypeError, match="missing"):
        TrainingSummary.from_json({"refit": {"run": "multvae"}})


def test_only_users_that_were_not_trained_on_are_asked() -> None:
    on_all = replace(CHOSEN, on="all")
    check_unseen({"a": None, "b": CHOSEN}, "test")
    check_unseen({"a": None}, "validation")
    said = r"b was trained on train\+validation, so it has seen the targets of the validation users.*use --split test"
    with pytest.raises(UsageError, match=said):
        check_unseen({"a": None, "b": CHOSEN}, "validation")
    for split in ("validation", "test"):
        with pytest.raises(UsageError, match=rf"c was trained on all.* {split} users.*nothing; measure multvae, which"):
            check_unseen({"c": on_all}, split)
