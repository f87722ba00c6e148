"""recvae's side of every comparison; `serve` says how it is asked."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

import work
from recvae import ALS, EDLAE, Blend, MultVAE
from recvae.evaluation.evaluate import evaluate
from recvae.interactions import HeldOut
from recvae.metrics import parse_metrics
from recvae.models import Model, model_class
from recvae.models.common.autoencoder import Autoencoder
from recvae.models.common.hyperparameters import build, hyperparameters_of
from recvae.training.records import EpochRecord, NullMonitor, StopTraining
from work import Answer, Course, Data, Jobs, Limits, recall, serve, timed

METRICS = parse_metrics(f"recall_all@20,recall_all@50,ndcg@{work.TOP}")  # recall over all targets, as RecBole has it


class Ours:
    """The jobs of recvae.

    Parameters
    ----------
    data : Data
        What to work on.
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        self._network = MultVAE(
            hidden_dims=(work.HIDDEN,),
            latent_dim=work.LATENT,
            dropout=work.DROPOUT,
            learning_rate=work.LEARNING_RATE,
            beta=work.BETA,
            anneal="constant",
            epochs=1,
            batch_size=work.BATCH_SIZE,
            seed=0,
        )
        self._als = ALS(
            factors=work.FACTORS,
            regularization=work.REGULARIZATION,
            alpha=work.ALPHA,
            iterations=work.ITERATIONS,
            seed=0,
        )

    def train(self, precision: str = "auto") -> Answer:
        """Train one epoch, from the start: its time is the one that the run's log has."""
        model = replace(self._network, precision=precision)
        self._network = model.fit(self._data.train, device="cpu")
        n_parameters = sum(values.size for values in model.weights().values())
        found = {"parameters": n_parameters, "bits of the products": torch.finfo(model.dtype_).bits}
        return Answer(model.log_[0].seconds, found)

    def evaluate(self) -> Answer:
        """Evaluate the network of the last epoch, which the first time is left for the peer to evaluate too."""
        if not Path(work.WEIGHTS).exists():
            np.savez(work.WEIGHTS, **cast(Any, self._network.weights()))
        held_out = HeldOut(fold_in=self._data.train, targets=self._data.targets)
        seconds, (per_user, _) = timed(lambda: evaluate(self._network, held_out, METRICS))
        return Answer(seconds, {name: float(np.nanmean(values)) for name, values in per_user.items()})

    def als_fit(self) -> Answer:
        """Fit implicit ALS through the package's wrapper."""
        seconds, _ = timed(lambda: self._als.fit(self._data.train))
        return Answer(seconds, {})

    def als_recommend(self) -> Answer:
        """Fold all users in, and list what they have not seen."""
        seconds, (items, _) = timed(lambda: self._als.recommend(self._data.train, k=work.TOP))
        return Answer(seconds, {"recall_all@20": recall(items, self._data.targets, 20)})


class Follow(NullMonitor):
    """A monitor that notes each epoch, and ends the training at its limits.

    Parameters
    ----------
    course : Course
        Where to note it.
    """

    def __init__(self, course: Course) -> None:
        self._course = course
        self._began = time.perf_counter()

    def epoch(self, record: EpochRecord) -> StopTraining | None:
        """Note how it went."""
        assert record.ndcg is not None
        goes_on = self._course.add(record.seconds, record.ndcg, time.perf_counter() - self._began)
        return None if goes_on else StopTraining("a limit is reached")


def learn(data: Data, model: str, values: dict[str, Any], seed: int, limits: dict[str, Any]) -> Answer:
    """Fit a model with some hyperparameters; one without epochs is validated once, outside its time."""
    assert data.fold_in is not None
    held_out = HeldOut(fold_in=data.fold_in, targets=data.targets)
    course = Course(Limits(**limits))
    ours = made(model, values, seed)
    if isinstance(ours, Autoencoder):
        ours.fit(data.train, held_out, device="cpu", monitor=Follow(course))
        return course.answer(batch_size=ours.users_per_update(data.train.shape[0]), learning_rate=ours.learning_rate)
    seconds, _ = timed(lambda: ours.fit(data.train, held_out, device="cpu"))
    per_user, _ = evaluate(ours, held_out, f"ndcg@{work.TOP}")
    course.add(seconds, float(np.nanmean(per_user[f"ndcg@{work.TOP}"])), seconds)
    return course.answer()


def made(model: str, values: dict[str, Any], seed: int) -> Model:
    """Return a model, not fitted; "blend" is that of edlae and als."""
    if model == "blend":
        return Blend.of(EDLAE(), ALS(seed=seed))
    known = model_class(model)
    return build(known, ({"seed": seed} if "seed" in hyperparameters_of(known) else {}) | values)


def jobs(data: Data) -> Jobs:
    """Return what recvae can be asked for."""
    if data.fold_in is not None:
        return {"learn": partial(learn, data)}
    ours = Ours(data)
    return {
        "train": ours.train,
        "train_float32": lambda: ours.train("float32"),
        "evaluate": ours.evaluate,
        "als_fit": ours.als_fit,
        "als_recommend": ours.als_recommend,
    }


if __name__ == "__main__":
    serve(jobs)
