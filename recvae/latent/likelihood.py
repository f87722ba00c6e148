"""How probable a model finds users it was not trained on, as perplexity: the whole row, and what is hidden of it.

    perplexity = exp(-sum_u log p(x_u) / sum_u n_u)

A model that guesses among so many items, all alike, would do as well. The whole row costs what its code costs; targets
are foreseen from the fold-in. Guessing by popularity, p(i) = (c_i + 1) / sum_j (c_j + 1) with c_i the training
interactions of item i, is what to compare with: it looks at no user.

Letters in shape comments: U users, I items.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import stdtrit

from recvae.datasets.dataset import Dataset
from recvae.display import plural
from recvae.errors import UsageError
from recvae.evaluation.evaluate import CONFIDENCE
from recvae.evaluation.same_data import check_fits
from recvae.interactions import HeldOut
from recvae.models.common.base import Model
from recvae.models.common.codes import MOST_COMPARED
from recvae.models.common.densities import DensityModel
from recvae.progress import Progress, part_of

N_SAMPLES = 100
"""Draws of each user's code."""

_STEPS = ("targets given the fold-in", "whole rows", "whole rows, ELBO")


@dataclass(frozen=True)
class Perplexity:
    """What one interaction costs, as the number of items that it is chosen from.

    Parameters
    ----------
    value : float
        1 or more, lower is better.
    low, high : float
        95 % interval over users, NaN with fewer than two.
    nats : float
        Mean of -log p of a user's interactions.
    """

    value: float
    low: float
    high: float
    nats: float

    @classmethod
    def of(cls, log_p: np.ndarray, counts: np.ndarray) -> "Perplexity":
        """Return the perplexity of users' log-probabilities.

        The interval is that of a ratio of means (delta method), carried over by the exponential.

        Parameters
        ----------
        log_p : ndarray of shape (n_users,)
            In nats.
        counts : ndarray of shape (n_users,)
            How many interactions each stands for; users without any are left out.
        """
        log_p, counts = log_p[counts > 0], counts[counts > 0]
        n = len(counts)
        if n == 0:
            return cls(*[float("nan")] * 4)
        rate = -log_p.sum() / counts.sum()
        rest = -log_p - rate * counts  # (U,) whose mean is 0
        error = rest.std(ddof=1) / np.sqrt(n) / counts.mean() if n > 1 else float("nan")
        margin = stdtrit(n - 1, 0.5 + CONFIDENCE / 2) * error if n > 1 else float("nan")
        low, value, high = np.exp([rate - margin, rate, rate + margin]).tolist()
        return cls(value, low, high, float(-log_p.mean()))

    def to_json(self) -> dict[str, float | None]:
        """Return the figures by name, null where there is no number."""
        return {name: None if np.isnan(value) else value for name, value in vars(self).items()}


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """What a model finds of held-out users.

    Parameters
    ----------
    rows, targets : dict of str to Perplexity
        By what is measured: of whole rows, empty where the model gives rows no probability, and of targets given the
        fold-in.
    n_users, n_samples : int
        How many users, and draws of each.
    active_units, latent_dim : int
        Latent units that differ between these users, and how many there are.
    kl : float or None
        Mean KL divergence of a user from N(0, I), in nats, of hvamp too; None where codes are points.
    mutual_information : float or None
        Nats that codes tell of who the user is; None where codes are points.
    most_information : float
        What that is at most with so many users.
    """

    rows: dict[str, Perplexity]
    targets: dict[str, Perplexity]
    n_users: int
    n_samples: int
    active_units: int
    latent_dim: int
    kl: float | None
    mutual_information: float | None
    most_information: float

    def to_json(self) -> dict[str, Any]:
        """Return everything for JSON."""
        figures = {
            part: {name: figure.to_json() for name, figure in found.items()}
            for part, found in (("rows", self.rows), ("targets", self.targets))
        }
        rest = {name: value for name, value in vars(self).items() if name not in figures}
        return {**figures, **rest}


def likelihood(
    model: Model,
    dataset: Dataset,
    split: str = "test",
    *,
    n_samples: int = N_SAMPLES,
    seed: int = 0,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> Likelihood:
    """Measure how probable a model finds held-out users.

    Parameters
    ----------
    model : Model
        A fitted autoencoder with a multinomial likelihood. Whole rows have a probability under multvae, recvae and
        hvamp; for ae, multdae, and hvamp of a bundle without its prior, only the targets are measured.
    dataset : Dataset
        Whose training interactions make the popularity to compare with.
    split : str
        "test" or "validation".
    n_samples : int
        Draws of each user's code, 1 or more; the bound is tighter with more.
    seed : int
        Of the draws.
    max_memory : int, optional
        Bytes that scoring may take.
    progress : Progress, optional
        Called with how much is done, in per cent, and what is being measured.

    Returns
    -------
    Likelihood

    Raises
    ------
    UsageError
        If the model is no autoencoder, has another likelihood, or is known to be of other data.
    NotFittedError
        Before `fit`.
    """
    if not isinstance(model, DensityModel):
        raise UsageError(f"got {model.name}, which has no likelihood; use multvae, recvae, hvamp, multdae or ae")
    check_fits({model.name: model}, dataset, split)
    held_out = dataset.part(split)
    whole = sp.csr_matrix(held_out.fold_in + held_out.targets)
    options: Mapping[str, Any] = {"n_samples": n_samples, "seed": seed, "max_memory": max_memory}
    counts = _totals(held_out.targets)
    n_parts = 3 if model.has_likelihood else 1
    steps = [part_of(progress, place / n_parts, (place + 1) / n_parts, note) for place, note in enumerate(_STEPS)]
    foreseen = model.target_log_likelihood(held_out.fold_in, held_out.targets, **options, progress=steps[0])
    log_popularity = _log_popularity(dataset.train)
    targets = {
        "model": Perplexity.of(foreseen, counts),
        "popularity": Perplexity.of(_guess_targets(log_popularity, held_out), counts),
    }
    rows = {}
    if model.has_likelihood:
        length = _totals(whole)
        bound = model.log_likelihood(whole, **options, progress=steps[1])
        rows = {
            "ELBO": Perplexity.of(model.elbo(whole, **options, progress=steps[2]), length),
            f"bound of {plural(n_samples, 'draw')}": Perplexity.of(bound, length),
            "popularity": Perplexity.of(whole @ log_popularity, length),
        }
    known = model.has_distribution
    return Likelihood(
        rows=rows,
        targets=targets,
        n_users=held_out.n_users,
        n_samples=n_samples if known else 1,
        active_units=model.active_units(whole, max_memory=max_memory),
        latent_dim=model.embed(whole[:1], max_memory=max_memory).shape[1],
        kl=float(model.kl_per_dimension(whole, max_memory=max_memory).sum()) if known else None,
        mutual_information=model.mutual_information(whole, seed=seed, max_memory=max_memory) if known else None,
        most_information=float(np.log(min(held_out.n_users, MOST_COMPARED))),
    )


def _totals(rows: sp.csr_matrix) -> np.ndarray:
    return np.asarray(rows.sum(axis=1), dtype=np.float64).ravel()  # (U,)


def _log_popularity(train: sp.csr_matrix) -> np.ndarray:
    counts = np.bincount(train.indices, minlength=train.shape[1]) + 1.0  # (I,)
    return np.log(counts / counts.sum())


def _guess_targets(log_popularity: np.ndarray, held_out: HeldOut) -> np.ndarray:
    """Return log p(targets) of each user by popularity alone, among the items that are not in the fold-in."""
    seen = held_out.fold_in.astype(np.float64)
    seen.data[:] = 1
    left = np.log1p(-np.minimum(seen @ np.exp(log_popularity), 1 - 1e-12))  # (U,)
    return held_out.targets @ log_popularity - _totals(held_out.targets) * left
