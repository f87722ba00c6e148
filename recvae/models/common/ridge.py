"""Many small ridge regressions on shared vectors, one for each row of a sparse matrix, in batches of bounded memory.

With N = W^1/2 Y D^-1/2 (the vectors Y of the columns of a row, its weights W, the diagonal D of its penalty),

    D^1/2 x = (1 + N^T N)^-1 N^T w^1/2 = N^T (1 + N N^T)^-1 w^1/2

minimises sum_i w_i (1 - x . y_i)^2 + x^T D x. No eigenvalue of either system is below 1.

Letters in shape comments: R rows, B rows of a batch, N interactions of each of them, F factors, P factors of a block.
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch

from recvae.errors import TrainingError

BATCH_BYTES = 8 << 20
"""Of the vectors of a batch, and of its systems."""

NO_ANSWER = "the least-squares problems have no answer in float32; raise regularization"

_LEAST_PIECE = 256  # interactions


class Histories:
    """The interactions of a batch of rows, as many for each: shorter histories end with weights of 0.

    Parameters
    ----------
    rows : csr_matrix of shape (n_rows, n_columns), float32
        Weights > 0.
    batch : ndarray of shape (n_batch,), int
        Which rows; each has an interaction.
    length : int
        What each history is filled up to, at least the longest.
    vectors : Tensor of shape (n_columns, n_factors), float32
        Y, on the device to compute on.
    scale : Tensor of shape (n_batch, n_factors), float32
        D^-1/2 of each row.
    """

    def __init__(
        self, rows: sp.csr_matrix, batch: np.ndarray, length: int, vectors: torch.Tensor, scale: torch.Tensor
    ) -> None:
        starts, ends = rows.indptr[batch, None], rows.indptr[batch + 1, None]  # (B, 1)
        places = starts + np.arange(length)  # (B, N)
        inside = places < ends
        places = np.where(inside, places, starts)
        self._vectors, self._scale = vectors, scale
        self._columns = torch.from_numpy(rows.indices[places]).to(vectors.device)
        self.weights = torch.from_numpy(np.sqrt(rows.data[places]) * inside).to(vectors)  # (B, N) w^1/2

    def pieces(self, width: int) -> list[slice]:
        """Cut the interactions into pieces, so that those of a long history never lie in memory at once.

        Parameters
        ----------
        width : int
            Number of factors.
        """
        length = self.weights.shape[1]
        piece = length if 4 * length * width <= BATCH_BYTES else max(_LEAST_PIECE, BATCH_BYTES // (4 * width))
        return [slice(start, start + piece) for start in range(0, length, piece)]

    def scaled(self, piece: slice, part: slice = slice(None)) -> torch.Tensor:
        """Return a part of N, shape (n_batch, n_interactions, n_factors).

        Parameters
        ----------
        piece, part : slice
            Which interactions, and which factors.
        """
        columns = self._columns[:, piece]
        vectors = self._vectors[:, part].index_select(0, columns.reshape(-1))  # (B N, P)
        found = vectors.view(*columns.shape, -1)
        return found.mul_(self.weights[:, piece, None]).mul_(self._scale[:, None, part])


def by_history(histories: Histories) -> torch.Tensor:
    """Solve by systems of the size of the history.

    Parameters
    ----------
    histories : Histories
        With no more interactions than fit into memory at once.

    Returns
    -------
    Tensor of shape (n_batch, n_factors), float32
        D^1/2 x = N^T (1 + N N^T)^-1 w^1/2.

    Raises
    ------
    TrainingError
        If float32 is not enough.
    """
    scaled = histories.scaled(slice(None))  # (B, N, F)
    solved = _solved(torch.bmm(scaled, scaled.mT), histories.weights)  # (B, N)
    return torch.bmm(solved[:, None], scaled)[:, 0]  # (B, 1, N) x (B, N, F) -> (B, F)


def by_factors(histories: Histories, found: torch.Tensor, block: int) -> torch.Tensor:
    """Solve for some factors at a time, in one pass over them: the solution, if the block holds all.

    Parameters
    ----------
    histories : Histories
        Of any length.
    found : Tensor of shape (n_batch, n_factors), float32
        D^1/2 x to begin with; it is used up.
    block : int
        Number of factors at a time.

    Returns
    -------
    Tensor of shape (n_batch, n_factors), float32
        D^1/2 x, of a lower loss.

    Raises
    ------
    TrainingError
        If float32 is not enough.
    """
    parts = [slice(start, start + block) for start in range(0, found.shape[1], block)]
    pieces, missing = histories.pieces(block), histories.weights.clone()  # (B, N) w^1/2 - N D^1/2 x
    if found.any():
        for part in parts:
            _subtract(histories, missing, found[:, part], part, pieces)
    for part in parts:
        width = found[:, part].shape[1]
        system, right = found.new_zeros(len(found), width, width), -found[:, part]  # (B, P, P), (B, P)
        for piece in pieces:
            scaled = histories.scaled(piece, part)  # (B, N, P)
            system.baddbmm_(scaled.mT, scaled)
            right += torch.bmm(missing[:, None, piece], scaled)[:, 0]
        step = _solved(system, right)  # (B, P)
        found[:, part] += step
        if part is not parts[-1]:
            _subtract(histories, missing, step, part, pieces)
    return found


def _subtract(
    histories: Histories, missing: torch.Tensor, step: torch.Tensor, part: slice, pieces: list[slice]
) -> None:
    """Take off N step, of some factors, in place."""
    for piece in pieces:
        missing[:, piece] -= torch.bmm(histories.scaled(piece, part), step[:, :, None])[:, :, 0]  # (B, N)


def _solved(system: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return (1 + S)^-1 b of each row, for systems (B, P, P), which are used up, and right sides (B, P)."""
    system.diagonal(dim1=1, dim2=2).add_(1)
    factor, failed = torch.linalg.cholesky_ex(system)
    solved = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
    if failed.any() or not solved.isfinite().all():
        raise TrainingError(NO_ANSWER)
    return solved


def batches_of(lengths: np.ndarray, factors: int, block: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cut rows into batches of about the same length.

    What a row is filled up to depends on its own length alone. So its solution does not depend on who else is in the
    batch, but for the last bits: BLAS rounds by where in memory a system lies, which is by its place in the batch.

    Parameters
    ----------
    lengths : ndarray of shape (n_rows,), int
        Interactions of each row; those with none are left out.
    factors, block : int
        Number of factors, and of those that are solved for at a time.

    Yields
    ------
    batch : ndarray of shape (n_batch,), int
        Rows.
    length : int
        What they are filled up to, at most an eighth more than each has.
    """
    extra = np.maximum(np.frexp(lengths)[1] - 4, 0)  # bits beyond the first four
    filled = ((lengths - 1 >> extra) + 1) << extra  # (R,)
    order = np.argsort(filled, kind="stable")
    order = order[np.count_nonzero(lengths == 0) :]
    for group in np.split(order, np.flatnonzero(np.diff(filled[order])) + 1):
        length = int(filled[group[0]]) if len(group) else 0
        widest = length * factors if length <= block else max(length * block, block**2)
        size = max(1, BATCH_BYTES // (4 * max(widest, 1)))
        for start in range(0, len(group), size):
            yield group[start : start + size], length
