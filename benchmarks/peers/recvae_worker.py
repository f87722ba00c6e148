"""recvae's side of every comparison; `serve` says how it is asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

import work
from recvae import ALS, MultVAE
from recvae.evaluation.evaluate import evaluate
from recvae.interactions import HeldOut
from recvae.metrics import parse_metrics
from work import Answer, Data, Jobs, recall, serve, timed

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


def jobs(data: Data) -> Jobs:
    """Return what recvae can be asked for."""
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
