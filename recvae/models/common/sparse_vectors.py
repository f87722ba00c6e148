"""Item vectors with few entries each: 4 bytes an entry, on disk and in memory.

Every item has the same number of entries, so that an item's are found without an index: `columns` says where they are,
`values` how large. An item's score comes from the latent dimensions that its entries and the user's have in common.

Letters in shape comments: B users, N interactions, I items, C items of a chunk, D latent dimensions, K entries.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from recvae.training.batches import SparseBatch

ENTRY_BYTES = 4
"""Of an entry: int16 for its column and float16 for its value."""

WIDEST = 2**15
"""The most columns that int16 can tell apart."""

_CHUNK_ENTRIES = 1 << 21  # of what is worked on at a time
_UNPACKED_BYTES = 8  # an entry, as int32 and float32


class SparseItemVectors(nn.Module):
    """A matrix with a few entries in each row.

    Parameters
    ----------
    n_items, width : int
        Its shape; width at most `WIDEST`.
    n_entries : int
        Entries of each row.
    """

    columns: torch.Tensor
    values: torch.Tensor

    def __init__(self, n_items: int, width: int, n_entries: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("columns", torch.zeros(n_items, n_entries, dtype=torch.int16))
        self.register_buffer("values", torch.zeros(n_items, n_entries, dtype=torch.float16))

    @classmethod
    @torch.no_grad()
    def of(cls, weight: torch.Tensor, n_entries: int) -> "SparseItemVectors":
        """Return the largest entries of each row by size, scaled to length 1 before they are rounded.

        Parameters
        ----------
        weight : Tensor of shape (n_items, width), float32
            The matrix.
        n_entries : int
            Entries kept of each row, at most `width`.
        """
        found = cls(len(weight), weight.shape[1], n_entries).to(weight.device)
        for start, rows in _in_chunks(weight, weight.shape[1]):
            columns = rows.abs().topk(n_entries, dim=1).indices.sort(dim=1).values  # (C, D) -> (C, K)
            values = functional.normalize(rows.gather(1, columns))  # (C, K)
            found.columns[start : start + len(rows)] = columns.to(torch.int16)
            found.values[start : start + len(rows)] = values.to(torch.float16)
        return found

    @classmethod
    def load(cls, width: int, n_entries: int, columns: np.ndarray, values: np.ndarray) -> "SparseItemVectors":
        """Return the vectors that arrays hold, without a copy.

        Parameters
        ----------
        width, n_entries : int
            What their shape should be.
        columns : ndarray of shape (n_items, n_entries), int16
            Where the entries are.
        values : ndarray of shape (n_items, n_entries), float16
            How large they are.

        Raises
        ------
        ValueError
            If the arrays are of another type or shape, or a column is beyond the width.
        """
        for name, array, dtype in (("columns", columns, np.int16), ("values", values, np.float16)):
            if array.dtype != dtype or array.shape != (len(columns), n_entries):
                raise ValueError(
                    f"{name} of type {array.dtype} and shape {array.shape}, expected {np.dtype(dtype)} and "
                    f"({len(columns)}, {n_entries})"
                )
        if columns.size and not 0 <= int(columns.min()) <= int(columns.max()) < width:
            raise ValueError(f"columns from {columns.min()} to {columns.max()}, expected 0 to {width - 1}")
        found = cls(0, width, n_entries)
        found.columns, found.values = torch.from_numpy(columns), torch.from_numpy(values)
        return found

    @staticmethod
    def bytes_for(n_items: int, n_entries: int) -> int:
        """Return what such a matrix takes in memory, with what scoring unpacks of it at a time."""
        return n_items * n_entries * ENTRY_BYTES + _UNPACKED_BYTES * min(_CHUNK_ENTRIES, n_items * n_entries)

    def lengths(self) -> torch.Tensor:
        """Return the lengths of the rows, shape (n_items,): 1, but for rounding."""
        return torch.linalg.vector_norm(self.values, dim=1, dtype=torch.float32)

    def rows(self, items: torch.Tensor) -> torch.Tensor:
        """Return some rows with their zeros, shape (n, width), float32.

        Parameters
        ----------
        items : Tensor of shape (n,), int32 or int64
            Which ones; few, because this is dense.
        """
        columns = self.columns[items.long()].long()  # (N, K)
        values = self.values[items.long()].float()  # (N, K)
        return values.new_zeros(values.shape[0], self.width).scatter(1, columns, values)  # (N, D)

    def code(self, batch: SparseBatch) -> torch.Tensor:
        """Return x A, shape (n_users, width)."""
        if torch.compiler.is_compiling():  # there a loop would have a fixed number of rounds
            user = torch.arange(batch.offsets.shape[0], device=batch.device)
            return ((batch.rows == user[:, None]) * batch.values) @ self.rows(batch.items)  # (B, N) x (N, D)
        hidden = batch.values.new_zeros(len(batch), self.width)  # (B, D)
        for start, items in _in_chunks(batch.items, self.width):
            chunk = slice(start, start + len(items))
            hidden.index_add_(0, batch.rows[chunk], self.rows(items) * batch.values[chunk, None])  # one after the other
        return hidden

    def products(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the products of dense vectors with all rows, shape (n, n_items).

        Parameters
        ----------
        vectors : Tensor of shape (n, width), float32
            Such as users' codes.
        """
        if torch.compiler.is_compiling():  # ONNX has no embedding_bag
            scores = vectors.new_zeros(vectors.shape[0], len(self.columns))
            for columns, values in zip(self.columns.t(), self.values.t(), strict=True):  # (I,) of each of K
                scores = scores + vectors[:, columns.long()] * values.float()  # (B, I)
            return scores
        scores = vectors.new_empty(len(vectors), len(self.columns))  # (B, I)
        by_column = vectors.t().contiguous()  # (D, B)
        for start, columns in _in_chunks(self.columns, self.columns.shape[1]):
            values = self.values[start : start + len(columns)].float()  # (C, K)
            found = functional.embedding_bag(columns.int(), by_column, mode="sum", per_sample_weights=values)  # (C, B)
            scores[:, start : start + len(columns)] = found.t()
        return scores


@torch.no_grad()
def keep_largest(weight: torch.Tensor, n_entries: int, others: tuple[torch.Tensor, ...] = ()) -> None:
    """Set all but the largest entries of each row by size to 0, in place.

    Parameters
    ----------
    weight : Tensor of shape (n_items, width)
        The matrix.
    n_entries : int
        Entries kept of each row, at most `width`; fewer remain where fewer were there.
    others : tuple of Tensor of shape (n_items, width)
        What is set to 0 at the same places, such as an optimiser's moments.
    """
    for start, rows in _in_chunks(weight, weight.shape[1]):
        columns = rows.abs().topk(n_entries, dim=1).indices  # (C, D) -> (C, K)
        kept = torch.zeros_like(rows).scatter_(1, columns, 1.0)  # (C, D)
        for matrix in (weight, *others):
            matrix[start : start + len(rows)] *= kept


def _in_chunks(tensor: torch.Tensor, width: int) -> "list[tuple[int, torch.Tensor]]":
    """Return consecutive parts of a tensor and where each begins, small also where its rows were `width` wide."""
    rows = max(1, _CHUNK_ENTRIES // max(width, 1))
    return [(start, tensor[start : start + rows]) for start in range(0, len(tensor), rows)]
