"""The inverse of a symmetric positive definite matrix, in its own memory.

LAPACK's Cholesky decomposition on several threads (`spotrf` of SciPy's OpenBLAS) ends the process with a segmentation
fault somewhere between 26,000 and 33,000 rows. Beyond what it is known to do, and where it fails below, it only sees
small blocks here, and elimination goes on block by block (Gauss-Jordan; the "sweep" of statistics): with K the rows of
a block and the others i, j,

    A_ij -= A_iK A_KK^-1 A_Kj,    A_iK := A_iK A_KK^-1,    A_KK := -A_KK^-1

and after the last block A holds -A^-1. That is n^3 operations, as many as Cholesky's way takes, all but a few of them
in products of large tiles. Only the upper triangle is kept up to date. For a positive definite matrix no pivoting is
needed (Peters & Wilkinson, On the stability of Gauss-Jordan elimination with pivoting, CACM 1975).
"""

import numpy as np
import torch

from recvae.compute.lapack import invert_apart, invert_here
from recvae.compute.matmul import product

# Letters in shape comments: N rows, K of a block.

_LAPACKS = 20_480  # rows up to which LAPACK is called once: it is faster, and is known to end well
_HERE = 8_192  # of these, rows up to which it is called in this process: starting another one would take longer
_SIDE = 512  # rows of a block; with more, the products with its inverse take longer
_TILE = 2048  # rows and columns of a product: what it gives stays in the cache until it is subtracted
_SQUARE = 256  # rows and columns of a copy; two squares of float32 stay in the cache of one core


def invert(block: np.ndarray) -> bool:
    """Replace a symmetric positive definite matrix by its inverse.

    Parameters
    ----------
    block : ndarray of shape (n, n), float32
        In C order; its upper triangle is read. It is used up where there is no inverse.

    Returns
    -------
    bool
        Whether there is an inverse: False if a pivot is not above rounding, or something is not finite.
    """
    diagonal = block.diagonal().copy()
    if len(block) <= _HERE:
        found = invert_here(block, diagonal)
    else:
        by_lapack = invert_apart(block) if len(block) <= _LAPACKS else None
        found = _by_blocks(block, diagonal) if by_lapack is None else by_lapack
    _mirror(block)
    return found and bool(np.isfinite(block.diagonal()).all())


def _by_blocks(block: np.ndarray, before: np.ndarray) -> bool:
    """Invert the upper triangle in place, as `invert_here` does."""
    matrix = torch.from_numpy(block)
    for start in range(0, len(block), _SIDE):
        end = min(start + _SIDE, len(block))
        inverse = block[start:end, start:end].copy()  # (K, K)
        if not invert_here(inverse, before[start:end]):
            return False
        _mirror(inverse)
        _eliminate(matrix, torch.from_numpy(inverse), start, end)
    np.negative(block, out=block)
    return True


def _eliminate(matrix: torch.Tensor, inverse: torch.Tensor, start: int, end: int) -> None:
    """Take the rows of a block out of all others, and put A_iK A_KK^-1 and -A_KK^-1 in their place."""
    n = len(matrix)
    panel = torch.empty(n, end - start)  # (N, K): A_iK
    panel[:start] = matrix[:start, start:end]
    panel[end:] = matrix[start:end, end:].T
    panel[start:end] = 0.0  # the block itself is not changed by the tiles
    scaled = product(panel, inverse)  # (N, K): A_iK A_KK^-1
    for row in range(0, n, _TILE):
        for column in range(row, n, _TILE):
            change = product(panel[row : row + _TILE], scaled[column : column + _TILE].T)
            matrix[row : row + _TILE, column : column + _TILE] -= change
    matrix[:start, start:end] = scaled[:start]
    matrix[start:end, end:] = scaled[end:].T
    matrix[start:end, start:end] = -inverse


def _mirror(block: np.ndarray) -> None:
    """Copy the upper triangle to the lower one, by squares: columns of a whole stripe would not stay in the cache."""
    side = _SQUARE
    for start in range(0, len(block), side):
        end = min(start + side, len(block))
        for before in range(0, start, side):
            block[start:end, before : before + side] = block[before : before + side, start:end].T
        square = block[start:end, start:end]
        lower = np.tril_indices(end - start, -1)
        square[lower] = square.T[lower]
