"""Cornac's side: VAECF; `serve` says how it is asked.

It has no dropout, does not scale its rows and does not anneal its KL term, which is less work than in recvae; its
epochs go through the users in their order.
"""
# pyright: reportMissingImports=false
# Cornac is not installed where this package is checked.

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from cornac.data import Dataset
from cornac.models import VAECF

import work
from work import Answer, Course, Data, Jobs, Limits, serve, timed, validated


class Ended(Exception):
    """A training has reached a limit."""


class Watched(Dataset):
    """A data set that says when an epoch is over, since Cornac tells nobody: its Adam starts anew with every `fit`."""

    after: Callable[[float], None]
    """Takes the seconds that the epoch took."""

    def user_iter(self, batch_size: int = 1, shuffle: bool = False) -> Iterator[np.ndarray]:
        """Yield the users of each batch."""
        started = time.perf_counter()
        yield from super().user_iter(batch_size, shuffle)
        self.after(time.perf_counter() - started)  # asked for one more, after the last update


def dataset_of(data: Data, kind: type[Dataset]) -> Any:
    """Return the interactions as Cornac wants them, with the numbers of users and items as their names."""
    n_users, n_items = data.train.shape
    rows, columns = data.train.nonzero()
    names = {"uid_map": {n: n for n in range(n_users)}, "iid_map": {n: n for n in range(n_items)}}
    return kind(n_users, n_items, uir_tuple=(rows, columns, np.ones(len(rows), np.float32)), **names)


def model_of(seed: int, n_epochs: int, **others: float) -> VAECF:
    """Return the model with recvae's layers and weight of the KL term, not fitted."""
    return VAECF(
        k=work.LATENT,
        autoencoder_structure=[work.HIDDEN],
        act_fn="tanh",
        likelihood="mult",
        n_epochs=n_epochs,
        beta=work.BETA,
        seed=seed,
        **others,
    )


OURS = {"batch_size": work.BATCH_SIZE, "learning_rate": work.LEARNING_RATE}


def jobs(data: Data) -> Jobs:
    """Return what Cornac can be asked for."""
    dataset = dataset_of(data, Dataset if data.fold_in is None else Watched)
    once_more = model_of(0, 1, **OURS)
    warnings.filterwarnings("ignore", "Model is already fitted")  # it goes on with the same weights

    def train() -> Answer:
        seconds, _ = timed(lambda: once_more.fit(dataset))
        return Answer(
            seconds,
            {"parameters": sum(values.numel() for values in once_more.vae.parameters()), "bits of the products": 32},
        )

    def learn(seed: int, limits: dict[str, Any], own: bool) -> Answer:
        """Train to a limit, with Cornac's own batch size and learning rate or with recvae's."""
        course = Course(Limits(**limits))
        model = model_of(seed, course.limits.epochs, **({} if own else OURS))

        def after(seconds: float) -> None:
            if not course.add(seconds, validated(lambda rows: scores(model, rows), data)):
                raise Ended

        dataset.after = after
        with suppress(Ended):
            model.fit(dataset)
        return course.answer(batch_size=model.batch_size, learning_rate=model.learning_rate)

    return {"train": train} if data.fold_in is None else {"learn": learn}


@torch.no_grad()
def scores(model: VAECF, rows: sp.csr_matrix) -> np.ndarray:
    """Return what the model's own `score` does of training users, for other ones; of shape (n_rows, n_items)."""
    mean, _ = model.vae.encode(torch.tensor(rows.toarray(), dtype=torch.float32))
    return model.vae.decode(mean).numpy()


if __name__ == "__main__":
    serve(jobs)
