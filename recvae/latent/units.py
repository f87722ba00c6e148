"""What a unit of the latent space stands for: items that become more or less probable when it moves.

    m + s sigma_d e_d  instead of  m

m is the mean code of users, sigma_d the spread of unit d over them, s how far it moves. The change of an item is that
of log p(i | z), in nats. Only items count that are at least as probable as the average item, 1 / n_items, before or
after: log p of items that nobody chooses changes most, and says least.

Letters in shape comments: U users, D latent dimensions, C units that are moved, I items.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.special import log_softmax

from recvae.errors import UsageError
from recvae.interactions import as_interactions
from recvae.items import check_k
from recvae.models.common.base import Model
from recvae.models.common.codes import CodeModel
from recvae.training.latents import ACTIVE


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A latent unit, and what moves with it.

    Parameters
    ----------
    unit : int
        Which dimension of the code, from 0.
    kl : float or None
        Mean KL divergence from N(0, 1) over users, in nats; None where codes are points.
    spread : float
        Standard deviation over users of their mean codes.
    rises, falls : ndarray of shape (at most k,), int64
        Columns of the items that become more probable when it moves, and less; the largest change first.
    rises_by, falls_by : ndarray of the same shapes, float64
        Change of log p of each, in nats; positive and negative.
    """

    unit: int
    kl: float | None
    spread: float
    rises: np.ndarray
    falls: np.ndarray
    rises_by: np.ndarray
    falls_by: np.ndarray


def latent_units(
    model: Model,
    users: sp.csr_matrix,
    k: int = 10,
    *,
    unit: int | None = None,
    sigmas: float = 2.0,
    max_memory: int | None = None,
) -> list[Unit]:
    """Move latent units one by one, and see which items rise and fall.

    Parameters
    ----------
    model : Model
        A fitted autoencoder whose scores are made of its codes, with a multinomial likelihood.
    users : sparse matrix of shape (n_users, n_items)
        Two or more users, such as those of training: their codes say where the middle is, and how far to move.
    k : int
        Items to name of each unit, 1 or more.
    unit : int, optional
        Only this one, active or not; by default all active units.
    sigmas : float
        How far to move, in standard deviations over users; below 0 in the other direction.
    max_memory : int, optional
        Bytes that encoding and decoding may take at a time.

    Returns
    -------
    list of Unit
        Those with the largest KL divergence first, or where codes are points, with the largest spread.

    Raises
    ------
    UsageError
        If the model has no such codes or another likelihood, there is no such unit, or a parameter is out of range.
    DataError
        If the users do not fit the model.
    NotFittedError
        Before `fit`.
    """
    if not isinstance(model, CodeModel) or not model.has_decoder:
        raise UsageError(
            f"got {model.name}, whose scores are not made of units; use multvae, recvae, hvamp, multdae or ae"
        )
    likelihood = model._likelihood()
    if likelihood is None or likelihood[0] != "multinomial":
        name = "none" if likelihood is None else likelihood[0]
        raise UsageError(f"got {model.name} with likelihood {name}, expected multinomial; train such a run")
    check_k(k)
    if not isinstance(sigmas, int | float) or not np.isfinite(sigmas) or sigmas == 0:
        raise UsageError(f"got sigmas={sigmas!r}, expected a number other than 0, such as 2")
    model.check_fitted()
    rows = as_interactions(users, "the users", model.n_items_)
    if rows.shape[0] < 2:
        raise UsageError("got one user, expected two or more, over whom units differ; give e.g. the training users")
    codes = model.embed(rows, max_memory=max_memory)  # (U, D)
    middle, spread = codes.mean(axis=0, dtype=np.float64), codes.std(axis=0, dtype=np.float64)  # (D,), (D,)
    if unit is not None and (not isinstance(unit, int) or isinstance(unit, bool) or not 0 <= unit < len(middle)):
        raise UsageError(f"got unit {unit!r}, expected a whole number from 0 to {len(middle) - 1}")
    kl = model.kl_per_dimension(rows, max_memory=max_memory) if model.has_distribution else None
    weight = spread if kl is None else kl  # (D,)
    chosen = np.flatnonzero(spread**2 > ACTIVE) if unit is None else np.array([unit])  # (C,)
    start = log_softmax(model.decode(middle[None], max_memory=max_memory)[0].astype(np.float64))  # (I,)
    found = []
    for place in chosen[np.argsort(-weight[chosen], kind="stable")].tolist():
        moved = middle.copy()
        moved[place] += sigmas * spread[place]
        end = log_softmax(model.decode(moved[None], max_memory=max_memory)[0].astype(np.float64))  # (I,)
        found.append(_unit(place, None if kl is None else float(kl[place]), float(spread[place]), start, end, k))
    return found


def _unit(place: int, kl: float | None, spread: float, start: np.ndarray, end: np.ndarray, k: int) -> Unit:
    """Return what a unit moves, of log-probabilities before and after, each (n_items,)."""
    known = np.flatnonzero(np.maximum(start, end) >= -np.log(len(start)) - 1e-9)
    change = (end - start)[known]
    order = np.argsort(-change, kind="stable")
    up, down = order[change[order] > 0][:k], order[::-1][change[order[::-1]] < 0][:k]
    return Unit(
        unit=place,
        kl=kl,
        spread=spread,
        rises=known[up],
        falls=known[down],
        rises_by=change[up],
        falls_by=change[down],
    )
