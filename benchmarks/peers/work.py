"""What both sides of a comparison share: the settings, the data file, and how a worker is asked.

The peers' environments import it too, so it needs numpy and scipy, and nothing of recvae.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import scipy.sparse as sp

HIDDEN, LATENT = 600, 200
DROPOUT = 0.5
BETA = 0.2
LEARNING_RATE = 1e-3
BATCH_SIZE = 500
TOP = 100  # ranks of an evaluation, and of a list of recommendations
FACTORS, REGULARIZATION, ALPHA, ITERATIONS = 64, 50.0, 10.0, 15

WEIGHTS = "multvae.npz"  # in the folder that all workers run in: recvae's weights, for a peer to evaluate the same ones

# Letters in shape comments: U users, k ranks.

Result = TypeVar("Result")
Jobs = Mapping[str, Callable[[], "Answer"]]


@dataclass(frozen=True)
class Answer:
    """What a job took, and what came out, to show that both sides did the same.

    Parameters
    ----------
    seconds : float
        Of the work alone, without what the worker did to get ready for it.
    found : mapping of str to float
        By name.
    """

    seconds: float
    found: Mapping[str, float]


@dataclass(frozen=True)
class Data:
    """The data of a comparison.

    Parameters
    ----------
    train, targets : csr_matrix of shape (n_users, n_items), float32
        What is trained on and folded in, and what is to be found; ones, no entry in both.
    """

    train: sp.csr_matrix
    targets: sp.csr_matrix

    def write(self, folder: Path) -> None:
        """Write them into a folder, as npz files."""
        sp.save_npz(folder / "train.npz", self.train, compressed=False)
        sp.save_npz(folder / "targets.npz", self.targets, compressed=False)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return what was written."""
        return cls(sp.csr_matrix(sp.load_npz(folder / "train.npz")), sp.csr_matrix(sp.load_npz(folder / "targets.npz")))


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


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds that a call takes, and what it returns."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def serve(make_jobs: Callable[[Data], Jobs]) -> None:
    """Be a worker: get ready, then do each job whose name comes in as a line; answer in lines of JSON.

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
        answer = jobs[line.strip()]()
        print(json.dumps({"seconds": answer.seconds, "found": dict(answer.found)}), file=answers, flush=True)
