"""Scoring as PyTorch modules, for export: each takes the same three tensors and returns the scores.

    items    (N,) int64      item column of each interaction, user after user, no item twice of a user
    offsets  (B + 1,) int64  where each user's interactions begin, and the last one's end
    weights  (N,) float32    weight of each interaction, > 0

These are indices, indptr and data of a scipy CSR matrix. A user may have no interaction, and there may be no user.

Letters in shape comments: B users, N interactions of all of them, I items, K weights of an item.
"""

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recvae.models.common.item_networks import ItemNetwork
from recvae.models.common.networks import sparse_product
from recvae.training.batches import SparseBatch


class NetworkScorer(nn.Module):
    """The scores of a network.

    Parameters
    ----------
    network : ItemNetwork
        Whose weights are used.
    """

    def __init__(self, network: ItemNetwork) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, items: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the scores, shape (n_users, n_items)."""
        return self.network(batch_of(items, offsets, weights))  # (N,) -> (B, I)


class SimilarityScorer(nn.Module):
    """The sum of a user's rows of B.

    Parameters
    ----------
    similarity : Tensor of shape (n_items, n_items), float32
        B.
    """

    similarity: torch.Tensor

    def __init__(self, similarity: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("similarity", similarity)

    def forward(self, items: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the scores, shape (n_users, n_items)."""
        return sparse_product(batch_of(items, offsets, weights), weights, self.similarity)  # (N,) -> (B, I)


class PrunedScorer(nn.Module):
    """The same where B has few weights in each column: these are what is kept.

    Parameters
    ----------
    rows : Tensor of shape (n_weights, n_items), int64
        Which items speak for each; any where there are fewer.
    values : Tensor of shape (n_weights, n_items), float32
        How much; 0 where there are fewer.
    """

    rows: torch.Tensor
    values: torch.Tensor

    def __init__(self, rows: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.register_buffer("values", values)

    def forward(self, items: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the scores, shape (n_users, n_items)."""
        batch = batch_of(items, offsets, weights)
        histories = weights.new_zeros(offsets.shape[0] - 1, self.rows.shape[1])  # (B, I)
        histories = histories.index_put((batch.rows, items), weights)
        scores = torch.zeros_like(histories)
        for rows, values in zip(self.rows, self.values, strict=True):  # one of K at a time: (B, I, K) would be too much
            scores = scores + histories[:, rows] * values  # (B, I)
        return scores


def scorer_of(similarity: np.ndarray | sp.csr_matrix) -> nn.Module:
    """Return what adds up a user's rows of B, whole or pruned."""
    if isinstance(similarity, np.ndarray):
        return SimilarityScorer(torch.from_numpy(similarity))
    return PrunedScorer(*_padded(sp.csc_matrix(similarity)))


def _padded(lines: sp.csr_matrix | sp.csc_matrix) -> tuple[torch.Tensor, torch.Tensor]:
    """Return places and values of the entries of each row (CSR) or column (CSC), (K, I); place 0, value 0 if fewer."""
    lengths = np.diff(lines.indptr)  # (I,)
    is_there = np.arange(lengths.max(initial=0)) < lengths[:, None]  # (I, K)
    places, values = np.zeros(is_there.shape, dtype=np.int64), np.zeros(is_there.shape, dtype=np.float32)
    places[is_there], values[is_there] = lines.indices, lines.data
    return torch.from_numpy(places.T.copy()), torch.from_numpy(values.T.copy())


class FactorsScorer(nn.Module):
    """The sum of a user's rows of W1 W2, without what an item says of itself: x W1 W2 + x.

    W1 has few entries in each column, and W2 in each row: these are what is kept.

    Parameters
    ----------
    encoder, decoder : csr_matrix of shape (n_items, n_items), float32
        W1 and W2; the diagonal of their product is -1.
    """

    def __init__(self, encoder: sp.csr_matrix, decoder: sp.csr_matrix) -> None:
        super().__init__()
        self.encoder = scorer_of(encoder)
        rows, values = _padded(decoder)
        self.register_buffer("columns", rows)
        self.register_buffer("values", values)

    columns: torch.Tensor
    values: torch.Tensor

    def forward(self, items: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the scores, shape (n_users, n_items)."""
        hidden = self.encoder(items, offsets, weights)  # (B, I)
        batch = batch_of(items, offsets, weights)
        scores = torch.zeros_like(hidden).index_put((batch.rows, items), weights)
        for columns, values in zip(self.columns, self.values, strict=True):  # (I,) one of K at a time
            scores = scores.index_add(1, columns, hidden * values)  # (B, I)
        return scores


class ConstantScorer(nn.Module):
    """The same scores for everyone.

    Parameters
    ----------
    scores : Tensor of shape (n_items,), float32
        Theirs.
    """

    scores: torch.Tensor

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("scores", scores)

    def forward(self, items: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the scores, shape (n_users, n_items)."""
        return self.scores.repeat(offsets.shape[0] - 1, 1)  # (I,) -> (B, I)


def batch_of(items: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor) -> SparseBatch:
    """Return rows of interactions as one batch, by nothing that a PyTorch program or ONNX could not repeat.

    Positions are compared with offsets, and sums are products of matrices: runtimes leave open in which order they add
    up what is scattered. That takes a block of users x interactions, so that large batches had better be cut.

    Parameters
    ----------
    items : Tensor of shape (n_interactions,), int64
        Item column of each interaction, user after user.
    offsets : Tensor of shape (n_users + 1,), int64
        Where each user's interactions begin, and the last one's end.
    weights : Tensor of shape (n_interactions,), float32
        x_ui.

    Returns
    -------
    SparseBatch
        On the same device.
    """
    starts, ends = offsets[:-1], offsets[1:]  # (B,)
    position = torch.arange(items.shape[0], device=items.device)  # (N,)
    belongs = ((position >= starts[:, None]) & (position < ends[:, None])).to(weights.dtype)  # (B, N)
    norms = (belongs @ weights.square()).sqrt() @ belongs  # (N,) -> (B,) -> (N,)
    return SparseBatch(
        items=items,
        offsets=starts,
        rows=(position >= ends[:, None]).sum(dim=0),  # (B, N) -> (N,)
        values=weights,
        inputs=weights / torch.where(norms > 0, norms, 1.0),
        totals=belongs @ weights,  # (B,)
        lengths=ends - starts,
    )
