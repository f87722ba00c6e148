"""Scores of models whose item-item weights are sparse, without a number for each item that has none.

Letters in shape comments: B users of a block, I items, N interactions, E weights of all their items.
"""

import numpy as np
import scipy.sparse as sp

_MOST = 1 << 18  # weights that are looked at together, some 16 MB with what is made of them


def sparse_scores(user_items: sp.csr_matrix, weights: sp.csr_matrix) -> sp.csr_matrix:
    """Return the sums of the weights of each user's items, where there are any.

    SciPy's product prepares an array of all items for each call, which takes longer than the sums of one user. Popular
    items may have many weights; memory stays bounded however many there are.

    Parameters
    ----------
    user_items : csr_matrix of shape (n_users, n_items), float32
        Histories.
    weights : csr_matrix of shape (n_items, n_items), float32
        Row i has what item i says of others.

    Returns
    -------
    csr_matrix of shape (n_users, n_items), float32
        Sorted; an entry of 0 is a sum that is 0. Added up in float64, so that no order of summation matters.
    """
    of_items = np.diff(weights.indptr)[user_items.indices].astype(np.int64)  # (N,)
    done = np.append(0, np.cumsum(of_items))[user_items.indptr]  # (B + 1,) weights before each user's
    parts, start = list[sp.csr_matrix](), 0
    while start < user_items.shape[0]:
        end = max(start + 1, int(np.searchsorted(done, done[start] + _MOST, side="right")) - 1)
        of_part = user_items[start:end] if end - start < user_items.shape[0] else user_items
        parts.append(_sums_of_one(of_part, weights) if done[end] - done[start] > _MOST else _sums(of_part, weights))
        start = end
    if not parts:  # no users
        return _sums(user_items, weights)
    return parts[0] if len(parts) == 1 else sp.csr_matrix(sp.vstack(parts, format="csr"))


def _sums(user_items: sp.csr_matrix, weights: sp.csr_matrix) -> sp.csr_matrix:
    """Return the sums of some users, who have few weights together."""
    n_users, n_items = user_items.shape
    starts, ends = weights.indptr[user_items.indices], weights.indptr[user_items.indices + 1]  # (N,)
    lengths = (ends - starts).astype(np.int64)  # (N,)
    offsets = np.cumsum(lengths) - lengths  # (N,) where the weights of each interaction begin
    places = np.repeat(starts - offsets, lengths) + np.arange(lengths.sum())  # (N,) -> (E,)
    of_users = np.repeat(np.repeat(np.arange(n_users, dtype=np.int64), np.diff(user_items.indptr)), lengths)  # (E,)
    values = weights.data[places].astype(np.float64) * np.repeat(user_items.data, lengths)  # (E,)
    cells, first = np.unique(of_users * n_items + weights.indices[places], return_inverse=True)
    sums = np.bincount(first, weights=values, minlength=len(cells)).astype(np.float32)
    indptr = np.searchsorted(cells, np.arange(n_users + 1, dtype=np.int64) * n_items)
    return sp.csr_matrix((sums, (cells % n_items).astype(np.int32), indptr), shape=user_items.shape)


def _sums_of_one(user_items: sp.csr_matrix, weights: sp.csr_matrix) -> sp.csr_matrix:
    """Return the sums of one user with many weights, item by item into a row of all items."""
    n_items = user_items.shape[1]
    sums, there = np.zeros(n_items), np.zeros(n_items, dtype=bool)  # (I,)
    for item, value in zip(user_items.indices, user_items.data.astype(np.float64), strict=True):
        part = slice(weights.indptr[item], weights.indptr[item + 1])
        columns = weights.indices[part]  # each once
        sums[columns] += value * weights.data[part]
        there[columns] = True
    columns = np.flatnonzero(there)
    return sp.csr_matrix((sums[columns].astype(np.float32), columns, [0, len(columns)]), shape=user_items.shape)
