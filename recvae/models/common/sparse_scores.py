"""Scores of models whose item-item weights are sparse, without a number for each item that has none.

Letters in shape comments: B users of a block, I items, N interactions, E weights of all their items.
"""

import numpy as np
import scipy.sparse as sp


def sparse_scores(user_items: sp.csr_matrix, weights: sp.csr_matrix) -> sp.csr_matrix:
    """Return the sums of the weights of each user's items, where there are any.

    SciPy's product prepares an array of all items for each call, which takes longer than the sums of one user.

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
