"""Made-up odd users, to be planted among real ones: does a detector find them?

    random      items drawn evenly
    average     items drawn in proportion to their popularity, with no taste behind them
    bandwagon   half of it the most popular items of all, the rest drawn evenly
    copied      a part of a real user's history in which a fifth of the items are others, drawn evenly

These are the profiles of shilling attacks (Mobasher et al., ACM TOIT 2007), for interactions without ratings.

Letters in shape comments: U users, I items.
"""

import numpy as np
import scipy.sparse as sp

from recvae.errors import DataError, UsageError
from recvae.models.common.draws import check_seed

PROFILES = ("random", "average", "bandwagon", "copied")
_REPLACED = 5  # one item in so many, of a copied history


def plant(
    kind: str, lengths: np.ndarray, popularity: np.ndarray, donors: sp.csr_matrix | None = None, seed: int = 0
) -> sp.csr_matrix:
    """Make up odd users.

    Parameters
    ----------
    kind : str
        One of `PROFILES`.
    lengths : ndarray of shape (n_users,), int
        How many items each shall have, from 1 to the number of items.
    popularity : ndarray of shape (n_items,)
        Training interactions of each item.
    donors : sparse matrix of shape (n_donors, n_items), optional
        Real histories to copy from; only of "copied".
    seed : int
        Of all draws.

    Returns
    -------
    csr_matrix of shape (n_users, n_items), float32
        Ones.

    Raises
    ------
    UsageError
        If there is no such kind, or a length is out of range.
    DataError
        If no donor has so many items.
    """
    if kind not in PROFILES:
        raise UsageError(f"got profile {kind!r}, expected one of {', '.join(PROFILES)}")
    n_items, wanted = len(popularity), np.asarray(lengths, dtype=np.int64)
    if len(wanted) and not 1 <= wanted.min() <= wanted.max() <= n_items:
        raise UsageError(f"got lengths from {wanted.min()} to {wanted.max()}, expected 1 to {n_items:,}, the items")
    if kind == "copied" and donors is None:
        raise UsageError("got profile 'copied' without donors, expected histories to copy; give donors=")
    rng = np.random.default_rng(check_seed(seed))
    chance = (popularity + 1) / (popularity + 1).sum()  # (I,)
    by_popularity = np.argsort(-popularity, kind="stable")
    rows = []
    for length in wanted:
        if kind == "random":
            row = rng.choice(n_items, length, replace=False)
        elif kind == "average":
            row = rng.choice(n_items, length, replace=False, p=chance)
        elif kind == "bandwagon":
            top, rest = np.split(by_popularity, [length // 2])
            row = np.concatenate([top, rng.choice(rest, length - len(top), replace=False)])
        else:
            assert donors is not None
            row = _copied(donors, int(length), rng)
        rows.append(np.sort(row))
    starts = np.concatenate([[0], np.cumsum(wanted)])
    columns = np.concatenate([np.empty(0, np.int64), *rows])
    return sp.csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=(len(wanted), n_items))


def _copied(donors: sp.csr_matrix, length: int, rng: np.random.Generator) -> np.ndarray:
    long_enough = np.flatnonzero(donors.getnnz(axis=1) >= length)
    if not len(long_enough):
        raise DataError(f"got no history of {length} items to copy, expected one; ask for shorter ones")
    history = donors[rng.choice(long_enough)].indices
    items = rng.permutation(history)[:length]
    others = np.setdiff1d(np.arange(donors.shape[1]), history)  # not the donor's own
    n_others = min(max(1, length // _REPLACED), len(others))
    return np.concatenate([items[n_others:], rng.choice(others, n_others, replace=False)])
