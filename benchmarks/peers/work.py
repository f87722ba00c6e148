"""What both sides of a comparison share: the settings, the data file, and how a worker is asked.

The peers' environments import it too, so it needs numpy and scipy, and nothing of recvae.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import scipy.sparse as sp

HIDDEN, LATENT = 600, 200
DROPOUT = 0.5
BETA = 0.2
LEARNING_RATE = 1e-3
BATCH_SIZE = 500
ANNEAL_EPOCHS = 170  # of the paper's 200, in which the weight of the KL term is raised to BETA, in equal steps
TOP = 100  # ranks of an evaluation, and of a list of recommendations
FACTORS, REGULARIZATION, ALPHA, ITERATIONS = 64, 50.0, 10.0, 15

USERS_AT_ONCE = 500  # in a validation

WEIGHTS = "multvae.npz"  # in the folder that all workers run in: recvae's weights, for a peer to evaluate the same ones

# Letters in shape comments: U users, B users of a block, I items, k ranks.

Result = TypeVar("Result")
Jobs = Mapping[str, Callable[..., "Answer"]]


@dataclass(frozen=True)
class Answer:
    """What a job took, and what came out, to show that both sides did the same.

    Parameters
    ----------
    seconds : float
        Of the work alone, without what the worker did to get ready for it.
    found : mapping of str to float or list of float
        By name.
    """

    seconds: float
    found: Mapping[str, Any]


@dataclass(frozen=True)
class Data:
    """The data of a comparison.

    Parameters
    ----------
    train : csr_matrix of shape (n_users, n_items), float32
        What is trained on; ones.
    targets : csr_matrix of shape (n_users or n_validation_users, n_items), float32
        What is to be found; ones.
    fold_in : csr_matrix of the shape of `targets`, float32, optional
        What users are known by whose targets are to be found, no entry in both; None if these are the training users.
    """

    train: sp.csr_matrix
    targets: sp.csr_matrix
    fold_in: sp.csr_matrix | None = None

    def write(self, folder: Path) -> None:
        """Write them into a folder, as npz files."""
        for name in ("train", "targets", "fold_in"):
            matrix = getattr(self, name)
            if matrix is not None:
                sp.save_npz(folder / f"{name}.npz", matrix, compressed=False)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return what was written."""
        paths = {name: folder / f"{name}.npz" for name in ("train", "targets", "fold_in")}
        return cls(**{name: sp.csr_matrix(sp.load_npz(path)) for name, path in paths.items() if path.exists()})


def recall(items: np.ndarray, targets: sp.csr_matrix, k: int) -> float:
    """Return hits / number of targets, the mean over the users that have one.

    Parameters
    ----------
    items : ndarray of shape (n_users, >= k), integer
        Best first.
    targets : csr_matrix of shape (n_users, n_items)
        Ones.
    k : int
        Ranks that count.
    """
    rows = np.arange(len(items))[:, None]  # (U, 1)
    hits = np.asarray(targets[rows, items[:, :k]].sum(axis=1)).ravel()  # (U, k) -> (U,)
    n_targets = np.diff(targets.indptr)  # (U,)
    return float((hits[n_targets > 0] / n_targets[n_targets > 0]).mean())


@dataclass(frozen=True)
class Limits:
    """When a training ends.

    Parameters
    ----------
    epochs : int
        After so many.
    seconds : float
        After the first epoch that brings its updates beyond so many.
    patience : int
        After so many epochs without a better validation.
    mark : float
        After the first epoch whose validation NDCG@100 reaches it.
    """

    epochs: int
    seconds: float
    patience: int
    mark: float = float("inf")


@dataclass
class Course:
    """A training, epoch by epoch.

    Parameters
    ----------
    limits : Limits
        When it ends.
    """

    limits: Limits
    training: list[float] = field(default_factory=list, init=False)
    """Seconds of updates from the start to the end of each epoch, without validations."""

    whole: list[float] = field(default_factory=list, init=False)
    """The same with validations and all else; only recvae's are its own."""

    ndcg: list[float] = field(default_factory=list, init=False)
    """Validation NDCG@100 after each epoch."""

    def add(self, seconds: float, ndcg: float, whole: float | None = None) -> bool:
        """Note an epoch, and return whether another shall follow.

        Parameters
        ----------
        seconds : float
            Of its updates.
        ndcg : float
            Of the validation after it.
        whole : float, optional
            Seconds since the very start.
        """
        self.training.append(seconds + (self.training[-1] if self.training else 0.0))
        self.ndcg.append(ndcg)
        if whole is not None:
            self.whole.append(whole)
        epochs_since_best = len(self.ndcg) - 1 - self.ndcg.index(max(self.ndcg))
        return (
            len(self.ndcg) < self.limits.epochs
            and self.training[-1] < self.limits.seconds
            and epochs_since_best < self.limits.patience
            and ndcg < self.limits.mark
        )

    def answer(self, **found: float) -> Answer:
        """Return it, with what else is to be known."""
        return Answer(
            self.training[-1], {"training": self.training, "whole": self.whole, "ndcg": self.ndcg} | dict(found)
        )


def validated(score: Callable[[sp.csr_matrix], np.ndarray], data: Data) -> float:
    """Return the NDCG@100 of scores, the mean over the users that have a target.

    Parameters
    ----------
    score : callable
        Rows of some users, shape (n_rows, n_items), to an array of scores of that shape.
    data : Data
        With fold-in, whose items are not ranked.

    Raises
    ------
    ValueError
        If a score is no number.
    """
    assert data.fold_in is not None
    values = []
    for start in range(0, data.fold_in.shape[0], USERS_AT_ONCE):
        rows = slice(start, start + USERS_AT_ONCE)
        seen, targets = data.fold_in[rows], data.targets[rows]
        values.append(ndcg(np.array(score(seen)), seen, targets, TOP))
    per_user = np.concatenate(values)  # (U,)
    return float(np.nanmean(per_user))


def ndcg(scores: np.ndarray, seen: sp.csr_matrix, targets: sp.csr_matrix, k: int) -> np.ndarray:
    """Return the discounted gain of the first k over that of min(k, n_targets) hits at the top, NaN without targets.

    Parameters
    ----------
    scores : ndarray of shape (n_users, n_items)
        Used up.
    seen, targets : csr_matrix of shape (n_users, n_items)
        What is not ranked, and what counts as a hit.
    k : int
        Ranks that count.

    Returns
    -------
    ndarray of shape (n_users,), float64

    Raises
    ------
    ValueError
        If a score is no number.
    """
    if np.isnan(scores).any():
        raise ValueError("got scores that are no numbers, expected a model that has not diverged")
    rows = np.arange(len(scores))[:, None]  # (B, 1)
    scores[seen.nonzero()] = -np.inf
    k = min(k, scores.shape[1])
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]  # (B, k)
    best = best[rows, np.argsort(-scores[rows, best], axis=1, kind="stable")]
    hits = sp.csr_matrix(targets[rows, best]).toarray() > 0  # (B, k)
    hits &= scores[rows, best] > -np.inf
    discount = 1 / np.log2(np.arange(2, k + 2))  # (k,)
    ideal = np.append(np.nan, np.cumsum(discount))  # (k + 1,) by number of hits
    return (hits @ discount) / ideal[np.minimum(k, np.diff(targets.indptr))]  # (B,)


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds that a call takes, and what it returns."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def serve(make_jobs: Callable[[Data], Jobs]) -> None:
    """Be a worker: get ready, then do each job that comes in as a line, name and arguments; answer in lines of JSON.

    Parameters
    ----------
    make_jobs : callable
        Takes the data of the folder that the command line names, returns what can be asked for.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a package prints shall not come between the answers
    jobs = make_jobs(Data.read(Path(sys.argv.pop())))  # gone before a package takes it for an argument of its own
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name, _, settings = line.partition(" ")
        answer = jobs[name](**json.loads(settings))
        print(json.dumps({"seconds": answer.seconds, "found": dict(answer.found)}), file=answers, flush=True)
