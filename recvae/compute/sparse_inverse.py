"""A sparse factor of the inverse of X^T X plus a diagonal; X^T X itself is never in memory.

For a symmetric positive definite matrix A with a diagonal of ones,

    A^-1 = W^T D^-1 W,  W lower triangular with a diagonal of ones, D diagonal
    W_iS = -y,  d_i = 1 - A_iS y,  A_SS y = A_Si

Row i of W is the regression of i on the columns S before it. With all of them in S this is exact: W is the inverse of
the Cholesky factor of A, scaled. With a few of them it is the factorised sparse approximate inverse (Kolotilina and
Yeremin, SIAM J. Matrix Anal. Appl. 1993): of all W with these entries, the one whose normal distribution is nearest to
that of A^-1 (Schaefer, Katzfuss and Owhadi, SIAM J. Sci. Comput. 2021). A block of a positive definite matrix is
positive definite, so there is no pivot that fails, as there is in an incomplete Cholesky decomposition.

Only the largest entries of each row of A are kept. Between two columns of S the others count as 0, so that a block may
lose definiteness; its entries off the diagonal are then made smaller until it has it again.
"""

from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp
import torch

# Letters in shape comments: U users, I items, B rows of a batch, K columns they are regressed on, L local columns.

_PAIRS = 1 << 24  # multiplications of a block of rows of X^T X, which has at most as many entries
_WHOLE = 2048  # rows that are kept whole: those of popular items, whose many small entries add up
_LOCAL = 1024  # columns of a batch: a block of them in float32 is 4 MiB, which stays in the cache
_LEAST = 1e-6  # a pivot below this is rounding: entries are float32
_SMALLER = (0.9, 0.8, 0.6, 0.2, 0.0)  # times the entries of a block that is not positive definite

TABLE_BYTES = 8
"""Of an entry that is kept: a column and a value."""

Report = Callable[[float], object]
"""Told which share of the work is done."""


def kept_entries(n_items: int, kept: int) -> int:
    """Return the most entries that `largest_entries` may keep.

    Parameters
    ----------
    n_items, kept : int
        Rows, and entries of a row.
    """
    whole = min(n_items, max(_WHOLE, kept))  # row i has at most i entries
    return whole * (whole - 1) // 2 + (n_items - whole) * kept


def working_bytes(n_items: int, n_interactions: int, tried: int, kept: int) -> int:
    """Return the bytes of a block of rows of X^T X, and of a batch of regressions, whichever are more.

    Parameters
    ----------
    n_items, n_interactions : int
        Shape of X.
    tried : int
        Columns that a row is regressed on, at most.
    kept : int
        Entries of a row that are kept.
    """
    entries = min(_PAIRS, n_items * min(n_items, n_interactions)) + n_items
    local = min(max(_LOCAL, tried), n_items) + 1
    of_rows = 2 * 12 * min(local * max(kept, _WHOLE), local * n_items)
    blocks = 8 * 5 * min(max(1, _LOCAL // tried), n_items) * (tried + 1) ** 2
    return max(12 * entries, 4 * local**2 + of_rows + blocks)


def largest_entries(rows: sp.csr_matrix, kept: int, report: Report) -> sp.csr_matrix:
    """Return the largest entries of X^T X below its diagonal, of each row some.

    Rows are made block by block, so that memory does not depend on how many entries X^T X has. Time does: it is that of
    the sum of the squared lengths of the users' rows.

    Parameters
    ----------
    rows : csr_matrix of shape (n_users, n_items), float32
        X, with values >= 0.
    kept : int
        Entries of a row, >= 1; the first rows are kept whole.
    report : callable
        Told which share is done.

    Returns
    -------
    csr_matrix of shape (n_items, n_items), float32
        Each row from its largest entry to its smallest; among equal ones the first columns are kept, and come first.
        Zeros are among them only where all columns before a row are kept: there W may have entries where A has none.
    """
    n_items = rows.shape[1]
    most = kept_entries(n_items, kept)
    columns, values = np.empty(most, dtype=np.int32), np.empty(most, dtype=np.float32)
    starts = np.zeros(n_items + 1, dtype=np.int64)
    transposed = sp.csr_matrix(rows.T)  # (I, U)
    for start, end in _blocks(rows):
        block = sp.csr_matrix(transposed[start:end] @ rows[:, :end])
        for item in range(start, end):
            part = slice(block.indptr[item - start], block.indptr[item - start + 1])
            if item <= kept:
                found = _all(block.indices[part], block.data[part], item)
            else:
                found = _largest(block.indices[part], block.data[part], item, kept if item >= _WHOLE else item)
            stop = starts[item] + len(found[0])
            columns[starts[item] : stop], values[starts[item] : stop] = found
            starts[item + 1] = stop
        report(end / n_items)
    stop = starts[-1]
    return sp.csr_matrix((values[:stop], columns[:stop], starts), shape=(n_items, n_items))


def _blocks(rows: sp.csr_matrix) -> Iterator[tuple[int, int]]:
    """Yield first and last row of blocks of X^T X of about as many multiplications."""
    lengths = np.diff(rows.indptr)
    of_item = np.bincount(rows.indices, weights=np.repeat(lengths, lengths), minlength=rows.shape[1])  # (I,)
    done = np.cumsum(of_item)
    start = 0
    while start < len(done):
        before = done[start - 1] if start else 0.0
        end = max(start + 1, int(np.searchsorted(done, before + _PAIRS, side="right")))
        yield start, end
        start = end


def _all(columns: np.ndarray, values: np.ndarray, item: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all columns before the diagonal of a row, and their values."""
    dense = np.zeros(item, dtype=np.float32)
    below = columns < item
    dense[columns[below]] = values[below]
    order = np.argsort(-dense, kind="stable")
    return order, dense[order]


def _largest(columns: np.ndarray, values: np.ndarray, item: int, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns and values of the largest entries of a row, among those before its diagonal."""
    below = (columns < item) & (values > 0)
    columns, values = columns[below], values[below]
    if len(values) > kept:
        least = np.partition(values, len(values) - kept)[len(values) - kept]
        chosen = values > least
        equal = np.flatnonzero(values == least)
        equal = equal[np.argsort(columns[equal], kind="stable")]
        chosen[equal[: kept - np.count_nonzero(chosen)]] = True
        columns, values = columns[chosen], values[chosen]
    order = np.lexsort((columns, -values))
    return columns[order], values[order]


def inverse_factor(
    nearest: sp.csr_matrix, entries: int, candidates: int, report: Report
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Return W and the diagonal of D.

    Each row is regressed on its largest entries of A, `candidates` times as many as it may have, and then once more on
    those of the largest coefficients.

    Parameters
    ----------
    nearest : csr_matrix of shape (n_items, n_items), float32
        Of `largest_entries`; the diagonal of A is 1.
    entries : int
        Entries of a row of W, without the diagonal, >= 1.
    candidates : int
        How many times as many are tried, >= 1.
    report : callable
        Told which share is done.

    Returns
    -------
    W : csr_matrix of shape (n_items, n_items), float32
        With its diagonal; each row in the order of its columns.
    d : ndarray of shape (n_items,), float64
        > 0, and at most 1.
    """
    n_items = nearest.shape[0]
    tried = min(entries * candidates, max(n_items - 1, 1))
    lengths = np.minimum(np.diff(nearest.indptr), tried)  # (I,)
    columns = np.full((n_items, min(entries, n_items) + 1), -1, dtype=np.int32)
    values = np.zeros(columns.shape, dtype=np.float32)
    columns[:, -1], values[:, -1] = np.arange(n_items), 1.0  # a diagonal lies behind all it is regressed on
    d = np.ones(n_items)
    first = np.full(n_items, n_items)
    first[lengths > 0] = nearest.indices[nearest.indptr[:-1][lengths > 0]]
    order = np.argsort(first, kind="stable")  # rows with the same largest entry have many columns in common
    batch = max(1, _LOCAL // tried)
    place = np.full(n_items, -1, dtype=np.int32)
    square = np.zeros((min(batch * tried, n_items) + 1,) * 2, dtype=np.float32)  # (L, L)
    for start in range(0, n_items, batch):
        items = order[start : start + batch]
        if lengths[items].any():
            found, y, d[items] = _regress(nearest, items, lengths[items], entries, place, square)
            columns[items, : found.shape[1]], values[items, : found.shape[1]] = found, -y
        report(min(start + batch, n_items) / n_items)
    there = (columns >= 0) & (values != 0)
    starts = np.append(0, np.cumsum(there.sum(axis=1)))
    return sp.csr_matrix((values[there], columns[there], starts), shape=nearest.shape), d


def _regress(
    nearest: sp.csr_matrix,
    items: np.ndarray,
    lengths: np.ndarray,
    entries: int,
    place: np.ndarray,
    square: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return columns (B, K) in ascending order, -1 where there are fewer, their coefficients, and d (B,)."""
    n_items = nearest.shape[0]
    ranks = np.arange(lengths.max())
    there = ranks < lengths[:, None]  # (B, K)
    at = np.where(there, nearest.indptr[items][:, None] + ranks, 0)
    columns = np.where(there, nearest.indices[at], n_items)
    by_column = np.argsort(columns, axis=1)
    columns = np.take_along_axis(columns, by_column, axis=1)
    sides = np.take_along_axis(np.where(there, nearest.data[at], 0), by_column, axis=1)  # (B, K)
    blocks = _blocks_of(nearest, columns, sides, place, square)  # (B, K + 1, K + 1)
    y, d = _solve(blocks)
    if y.shape[1] > entries:
        chosen = np.sort(np.argsort(-np.abs(y), axis=1, kind="stable")[:, :entries], axis=1)
        columns = np.take_along_axis(columns, chosen, axis=1)
        whole = np.hstack([chosen, np.full((len(items), 1), y.shape[1])])  # and the row itself
        y, d = _solve(blocks[np.arange(len(items))[:, None, None], whole[:, :, None], whole[:, None, :]])
    return np.where(columns < n_items, columns, -1), y, d


def _blocks_of(
    nearest: sp.csr_matrix, columns: np.ndarray, sides: np.ndarray, place: np.ndarray, square: np.ndarray
) -> np.ndarray:
    """Return A_SS with A_iS as the last row (B, K + 1, K + 1), in float64; only what is not above the diagonal counts.

    `place` is -1 everywhere and `square` 0, before and after: to make new ones takes longer than all else. A column of
    n_items, where there is none, becomes a row of the unit matrix.
    """
    is_there = columns < len(place)
    union = np.unique(columns[is_there])
    rows = nearest[union]
    place[union] = np.arange(len(union))
    of_entry = place[rows.indices]
    place[union] = -1
    inside = np.flatnonzero(of_entry >= 0)
    row = np.searchsorted(rows.indptr, inside, side="right") - 1
    of_entry = of_entry[inside]
    square[row, of_entry] = rows.data[inside]
    local = np.searchsorted(union, columns)  # (B, K); the row after the last one is 0
    n, width = columns.shape
    blocks = np.empty((n, width + 1, width + 1))
    blocks[:, :width, :width] = square[local[:, :, None], local[:, None, :]]
    square[row, of_entry] = 0.0
    blocks[:, width, :width] = sides
    blocks[:, np.arange(width + 1), np.arange(width + 1)] = 1.0
    return blocks


def _solve(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return y (B, K) and d (B,); blocks that are not positive definite are changed until they are."""
    given = torch.from_numpy(blocks)
    factors, failed = torch.linalg.cholesky_ex(given)
    bad = _not_definite(factors, failed)
    for times in _SMALLER:
        if not bad.any():
            break
        smaller = given[bad] * times
        smaller.diagonal(dim1=1, dim2=2).fill_(1.0)
        again, failed = torch.linalg.cholesky_ex(smaller)
        factors[bad] = again
        left = bad.clone()
        left[bad] = _not_definite(again, failed)
        bad = left
    last = factors[:, -1, :-1, None]  # (B, K, 1)
    y = torch.linalg.solve_triangular(factors[:, :-1, :-1].mT, last, upper=True)[:, :, 0]
    return y.numpy(), factors[:, -1, -1].square().numpy()


def _not_definite(factors: torch.Tensor, failed: torch.Tensor) -> torch.Tensor:
    """Return whether a pivot (B,) was missing or no more than rounding."""
    pivots = factors.diagonal(dim1=1, dim2=2).square().amin(dim=1)
    return (failed != 0) | ~(pivots > _LEAST)
