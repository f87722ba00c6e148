"""A running mean of weights: its formula, that it changes nothing but what is kept, and that a kill does not matter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.evaluation.evaluate import evaluate
from recvae.metrics import parse_metrics
from recvae.models import MultDAE, RecVAE
from recvae.models.common.autoencoder import Autoencoder
from recvae.training.averaging import WeightAverage
from recvae.training.checkpoints import FILE_NAME, Checkpoint
from recvae.training.records import NullMonitor

IDENTITY = {"model": "any", "fingerprint": "abc", "hyperparameters": {}}
SMALL = {
    MultDAE: {"latent_dim": 8, "batch_size": 40, "learning_rate": 0.01, "patience": 0},
    RecVAE: {"hidden_dim": 12, "latent_dim": 4, "depth": 2, "batch_size": 40, "learning_rate": 0.01, "patience": 0},
}
MODELS = pytest.mark.parametrize("kind", SMALL)


def fitted(kind: type[Autoencoder], data: Dataset, **settings: Any) -> Autoencoder:
    """Return a small model, fitted; without validation users the last weights are kept."""
    fit = {name: settings.pop(name) for name in ("validation", "monitor", "checkpoint") if name in settings}
    model = kind(**{**SMALL[kind], "epochs": 6, **settings})
    return model.fit(data.train, fit.pop("validation", None), device="cpu", **fit)


class Stops(NullMonitor):
    """Ends a run after so many epochs as a kill would."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def epoch(self, record: Any) -> None:
        if record.epoch == self.epochs:
            raise ConnectionAbortedError


@pytest.mark.parametrize("share", [0.3, 0.9])
@MODELS
def test_the_mean_is_that_of_the_formula_over_the_weights_of_the_epochs(
    kind: type[Autoencoder], share: float, blocks: Dataset
) -> None:
    of_epochs = [fitted(kind, blocks, epochs=epochs).weights() for epochs in range(1, 7)]
    averaged = fitted(kind, blocks, averaging=share).weights()
    assert set(averaged) == set(of_epochs[0])
    for name, found in averaged.items():
        mean = np.zeros_like(found, dtype=np.float64)
        for before, weights in enumerate(of_epochs):
            kept = min(share, before / (before + 3))  # `before` epochs were there before this one
            mean = kept * mean + (1 - kept) * weights[name]
        np.testing.assert_allclose(found, mean, rtol=1e-4, atol=1e-6)


@MODELS
def test_training_itself_is_not_changed(kind: type[Autoencoder], blocks: Dataset) -> None:
    plain, averaged = (fitted(kind, blocks, averaging=share, validation=blocks.validation) for share in (0.0, 0.8))
    assert [record.loss for record in plain.log_] == [record.loss for record in averaged.log_]
    assert [record.ndcg for record in plain.log_] != [record.ndcg for record in averaged.log_]


def test_what_is_kept_is_what_was_validated(blocks: Dataset) -> None:
    model = fitted(MultDAE, blocks, averaging=0.7, validation=blocks.validation, epochs=12)
    per_user, _ = evaluate(model, blocks.validation, parse_metrics("ndcg@100"))
    assert np.nanmean(per_user["ndcg@100"]) == model.history_.best_ndcg
    assert model.history_.best_ndcg == max(record.ndcg or 0.0 for record in model.log_)


@MODELS
def test_a_killed_run_goes_on_with_the_same_mean(kind: type[Autoencoder], blocks: Dataset, tmp_path: Path) -> None:
    straight = fitted(kind, blocks, averaging=0.6, validation=blocks.validation)
    path = tmp_path / FILE_NAME
    with pytest.raises(ConnectionAbortedError):
        checkpoint = Checkpoint(path, IDENTITY)
        fitted(kind, blocks, averaging=0.6, validation=blocks.validation, monitor=Stops(3), checkpoint=checkpoint)
    resumed = fitted(
        kind, blocks, averaging=0.6, validation=blocks.validation, checkpoint=Checkpoint(path, IDENTITY, resumes=True)
    )
    assert [record.ndcg for record in resumed.log_] == [record.ndcg for record in straight.log_]
    for name, weights in resumed.weights().items():
        np.testing.assert_array_equal(weights, straight.weights()[name])


def test_the_network_has_its_own_weights_back_also_after_an_interrupt() -> None:
    network = nn.Linear(2, 1)
    average = WeightAverage(network, 0.5)
    with average.in_place():
        pass  # before the first epoch there is nothing to put in
    average.add(1)
    first = network.weight.detach().clone()
    nn.init.constant_(network.weight, 5.0)
    with pytest.raises(KeyboardInterrupt), average.in_place():
        torch.testing.assert_close(network.weight.detach(), first)
        raise KeyboardInterrupt
    assert (network.weight == 5).all()


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_makes_no_mean_is_refused(share: float, blocks: Dataset) -> None:
    with pytest.raises(UsageError, match=r"got averaging=.*, expected a number, at least 0 and below 1"):
        fitted(MultDAE, blocks, averaging=share)
