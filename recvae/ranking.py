"""The one place where scores become ranked items.

Seen items are masked with -inf, the k best are taken, and equal scores are ordered by item column, so that a
ranking depends on the scores alone: not on the block it was computed in, nor on how a sort happens to run.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch

from recvae.errors import TrainingError
from recvae.items import check_k

# Memory for one block of scores; 24 MiB are 300 users at 20,000 items, enough for the matrix product's full rate.
# Above 32 MiB, glibc asks the system for new pages block after block: a tenth of the time of an evaluation.
BLOCK_BYTES = 24 << 20

# Letters in shape comments: B users of a block, I items, C candidates, k ranks.


def block_rows(n_items: int, block_bytes: int = BLOCK_BYTES) -> int:
    """Return how many users' float32 scores fit into one block, at least 1."""
    return max(1, block_bytes // (4 * n_items))


def rank(
    scores: torch.Tensor, k: int, seen: sp.csr_matrix | None = None, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best items of each row of scores.

    Parameters
    ----------
    scores : Tensor of shape (n_users, n_items), float32
        Higher is better; overwritten where it is masked.
    k : int
        Number of ranks, >= 1.
    seen : csr_matrix of shape (n_users, n_items), optional
        Items that must not be returned.
    allowed : ndarray of shape (n_items,) or (n_users, n_items), bool, optional
        Items that may be returned, of all users or of each.

    Returns
    -------
    items : ndarray of shape (n_users, k), int64
        Item columns, best first, equal scores by ascending column; -1 where the items ran out.
    scores : ndarray of shape (n_users, k), float32
        Their scores, descending; -inf where the items ran out.

    Raises
    ------
    UsageError
        If k is not a positive whole number.
    TrainingError
        If a score is NaN.
    """
    check_k(k)
    if seen is not None:
        rows = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
        scores[torch.from_numpy(rows), torch.from_numpy(seen.indices.astype(np.int64))] = -torch.inf
    if allowed is not None:
        scores.masked_fill_(torch.from_numpy(~allowed).to(scores.device), -torch.inf)  # (I,) or (B, I)
    n_items = scores.shape[1]
    best, columns = _best(scores, min(k, n_items))  # (B, k)
    items = columns.masked_fill(torch.isneginf(best), -1).cpu().numpy()
    values = best.cpu().numpy()
    if k > n_items:
        missing = (len(items), k - n_items)
        items = np.hstack([items, np.full(missing, -1, dtype=items.dtype)])  # (B, k)
        values = np.hstack([values, np.full(missing, -np.inf, dtype=values.dtype)])  # (B, k)
    return items, values


def rank_candidates(columns: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of some candidates of each user, as `rank` does of all items.

    Parameters
    ----------
    columns : ndarray of shape (n_users, n_candidates), int64
        Item columns, ascending in each row; -1 after the last one of a shorter row.
    scores : ndarray of shape (n_users, n_candidates), float32
        Their scores; those after the last one are ignored.
    k : int
        Number of ranks, >= 1.

    Returns
    -------
    items : ndarray of shape (n_users, k), int64
        Item columns, best first, equal scores by ascending column; -1 where the candidates ran out.
    scores : ndarray of shape (n_users, k), float32
        Their scores, descending; -inf where the candidates ran out.

    Raises
    ------
    UsageError
        If k is not a positive whole number.
    TrainingError
        If a score is NaN.
    """
    masked = np.where(columns >= 0, scores, -np.inf).astype(np.float32)  # (B, C)
    places, values = rank(torch.from_numpy(masked), k)  # (B, k), places ascend as columns do
    items = np.take_along_axis(columns, np.maximum(places, 0), axis=1) if columns.shape[1] else places
    return np.where(places >= 0, items, -1), values


def rank_sparse(
    scores: sp.csr_matrix, k: int, seen: sp.csr_matrix, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `rank` returns of the same scores as a dense matrix, whose other scores are 0.

    Parameters
    ----------
    scores : csr_matrix of shape (n_users, n_items), float32
        Sorted; items that are not stored have score 0.
    k : int
        Number of ranks, >= 1.
    seen : csr_matrix of shape (n_users, n_items)
        Items that must not be returned, sorted.
    allowed : ndarray of shape (n_items,) or (n_users, n_items), bool, optional
        Items that may be returned, of all users or of each.

    Returns
    -------
    items : ndarray of shape (n_users, k), int64
        Item columns, best first, equal scores by ascending column; -1 where the items ran out.
    scores : ndarray of shape (n_users, k), float32
        Their scores, descending; -inf where the items ran out.

    Raises
    ------
    UsageError
        If k is not a positive whole number.
    TrainingError
        If a score is NaN.
    """
    check_k(k)
    of_users = []
    for user in range(scores.shape[0]):
        here, hidden = slice(*scores.indptr[user : user + 2]), seen.indices[slice(*seen.indptr[user : user + 2])]
        mask = allowed if allowed is None or allowed.ndim == 1 else allowed[user]
        of_users.append(_sparse_candidates(scores.indices[here], scores.data[here], k, hidden, mask, scores.shape[1]))
    columns = padded_rows([columns for columns, _ in of_users], -1)
    return rank_candidates(columns, padded_rows([values for _, values in of_users], -np.inf), k)


def _sparse_candidates(
    columns: np.ndarray, scores: np.ndarray, k: int, hidden: np.ndarray, allowed: np.ndarray | None, n_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return columns and scores (C,) among which the k best of a user are: what is stored, and the first others."""
    stored = columns
    stays = ~np.isin(columns, hidden, assume_unique=True)  # (C,)
    if allowed is not None:
        stays &= allowed[columns]
    columns, scores = columns[stays].astype(np.int64), scores[stays]
    if np.count_nonzero(scores > 0) >= k:
        return columns, scores
    some = k + len(stored) + len(hidden)  # so many contain k that are neither stored nor hidden, if there are as many
    first = np.arange(min(some, n_items)) if allowed is None else np.flatnonzero(allowed)[:some]
    zeros = np.setdiff1d(first, np.concatenate([stored, hidden]))[:k]
    columns = np.concatenate([columns, zeros])
    order = np.argsort(columns)
    return columns[order], np.concatenate([scores, np.zeros(len(zeros), dtype=scores.dtype)])[order]


def padded_rows(parts: Sequence[np.ndarray], last: float) -> np.ndarray:
    """Return arrays as the rows of one, shape (n_parts, n_longest), the shorter ones filled up with `last`."""
    rows = np.full((len(parts), max(map(len, parts), default=0)), last, dtype=parts[0].dtype if len(parts) else None)
    for row, part in zip(rows, parts, strict=True):
        row[: len(part)] = part
    return rows


def _best(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k highest scores (B, k) and their columns (B, k), equal scores by ascending column."""
    n_items = scores.shape[1]
    # One rank more than asked shows whether the last place is tied; topk is free to choose among equals.
    best, columns = scores.topk(min(k + 1, n_items), dim=1)  # (B, k + 1)
    if torch.isnan(best).any():  # topk puts NaN first, so none is missed
        raise TrainingError("the model gives scores that are not numbers; train it again with a lower learning rate")
    if n_items > k:
        tied = torch.nonzero(best[:, k - 1] == best[:, k]).squeeze(1)  # (T,)
        columns = columns[:, :k]
        if len(tied):
            columns[tied] = _lowest_columns(scores[tied], best[tied, k - 1 : k], k)
    columns = columns.sort(dim=1).values  # by column first, so that a stable sort by score keeps that order
    best, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return best, columns.gather(1, order)


def _lowest_columns(scores: torch.Tensor, last: torch.Tensor, k: int) -> torch.Tensor:
    """Return the columns (B, k) of all scores above `last` (B, 1) and of the first ones equal to it."""
    above, equal = scores > last, scores == last  # (B, I)
    places = k - above.sum(dim=1, keepdim=True)  # (B, 1) left for the equal ones
    chosen = above | (equal & (equal.cumsum(dim=1) <= places))  # (B, I), k per row
    return chosen.nonzero()[:, 1].view(len(scores), k)
