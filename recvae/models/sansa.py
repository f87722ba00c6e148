"""SANSA: Spisak, Bartyzal, Hoskovec, Peska and Tuma, Scalable Approximate NonSymmetric Autoencoder, RecSys 2023.

    A = X^T X + l2 I,  A^-1 ~ W^T D^-1 W,  W sparse and triangular
    B = W1 W2,  W1 = W^T,  W2 = -D^-1 W / diag(W^T D^-1 W)
    scores = x W1 W2 + x

This is EASE, whose B_ij = -P_ij / P_jj with P = A^-1, with a sparse factor of P in the place of P. Dividing makes the
diagonal of B -1; the + x takes it out, so that no item explains itself.

The paper finds W in two steps: it factors A by an incomplete Cholesky decomposition, or by a whole one which is then
pruned, and it improves an approximate inverse of the factor by steps that make residuals smaller. Here W is solved for
at once, row by row, see `compute.sparse_inverse`. A whole factor does not fit into memory where this model is of use.
The incomplete one breaks down on such data, unless l2 is raised so far that little more than item-kNN is left: on the
validation users of MovieLens-1M, with 35 entries per item, it gives NDCG@100 .25 with the best l2 of EASE, and .35
with the scaling of the paper and the best l2 for it. Rows that are solved for give .41; EASE gives .42.

Items are taken from the most popular one to the rarest, so that an item is regressed on more popular ones.
"""

import time
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recvae.compute.memory import Needs, check_memory
from recvae.compute.sparse_inverse import TABLE_BYTES, inverse_factor, kept_entries, largest_entries, working_bytes
from recvae.interactions import HeldOut
from recvae.models.common.base import FEWER_ITEMS, Model
from recvae.models.common.fit_options import FitOptions
from recvae.models.common.footprint import ranking_bytes
from recvae.models.common.graphs import FactorsScorer
from recvae.models.common.hyperparameters import Space, hyperparameter
from recvae.models.common.learned import learned
from recvae.models.common.penalties import typical_l2
from recvae.training.records import TrainingSummary

# Letters in shape comments: I items, B users of a block, N items of a history, C columns, E stored entries.

_CANDIDATES = 2  # times as many columns are tried for a row of W as it has entries
_TABLE = 6  # times as many entries of a row of A are kept
_FIRST = 0.5  # of the work, about, is finding the largest entries of A


@dataclass(kw_only=True)
class SANSA(Model):
    """The linear autoencoder with item-item weights as the product of two sparse matrices.

    Examples
    --------
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = SANSA(l2=1.0).fit(train)
    >>> sorted(model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)[0][0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "sansa"
    paper: ClassVar[str] = "Spisak et al.: Scalable Approximate NonSymmetric Autoencoder (RecSys 2023)"
    grows_with: ClassVar[str] = "items"
    grows_as: ClassVar[tuple[int, int]] = (2, 3)
    space: ClassVar[Space] = {
        "l2": (None, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0),
        "entries": (25, 50, 100),
    }

    l2: float | None = hyperparameter(
        None, "weight of the squared weights, in interactions, as in ease; none: from the size of the data", low=0
    )
    entries: int = hyperparameter(50, "more popular items that an item is explained by", low=1, high=1000)

    encoder_: sp.csr_matrix = learned()
    decoder_: sp.csr_matrix = learned()
    summary_: TrainingSummary = field(default_factory=TrainingSummary, init=False, repr=False, compare=False)

    def _fit(self, train: sp.csr_matrix, validation: HeldOut | None, options: FitOptions) -> None:  # noqa: ARG002
        """Solve for W, and make both factors of B from it."""
        options.monitor.start(1, [])
        started = time.perf_counter()
        users = np.bincount(train.indices, minlength=train.shape[1])
        order = np.argsort(-users, kind="stable")  # (I,) items from the most popular one to the rarest
        l2 = typical_l2(train) if self.l2 is None else self.l2
        scale = _scale(train, l2)[order]  # (I,)
        nearest = largest_entries(
            _ordered(train, order, scale),
            _TABLE * self.entries,
            lambda share: options.monitor.advance(_FIRST * share, None),
        )
        factor, d = inverse_factor(
            nearest,
            self.entries,
            _CANDIDATES,
            lambda share: options.monitor.advance(min(_FIRST + (1 - _FIRST) * share, 0.999), None),
        )
        del nearest
        self.encoder_, self.decoder_ = _weights(factor, d, scale, order)
        from_data = {"l2": l2} if self.l2 is None else None
        self.summary_ = TrainingSummary(seconds=time.perf_counter() - started, from_data=from_data)
        options.monitor.advance(1, None)

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:  # noqa: ARG002
        """Count the largest entries of X^T X, and the factors; see `Model.needs`."""
        most = min(self.entries, n_items - 1)
        kept = n_items * (most + 1) - most * (most + 1) // 2  # the first rows have fewer columns before them
        weights = 2 * (8 * kept + 8 * n_items)
        table = TABLE_BYTES * kept_entries(n_items, min(_TABLE * self.entries, n_items))
        rows = 3 * 8 * n_interactions + 16 * n_users  # in the order of popularity, by item, and the part for a block
        work = working_bytes(n_items, n_interactions, min(_CANDIDATES * self.entries, n_items), _TABLE * self.entries)
        return Needs(
            parameters=2 * kept,
            training=max(table + work + max(rows, 8 * kept), 5 * weights) + 64 * n_items,
            held=weights,
            weights=weights,
            per_user=ranking_bytes(n_items, 7),  # a product of sparse rows, and copies in the order of scipy's product
        )

    def check_memory(
        self,
        n_users: int,
        n_items: int,
        n_interactions: int,
        device: str | torch.device = "cpu",  # noqa: ARG002
        *,
        max_memory: int | None = None,
    ) -> None:
        """Refuse what does not fit; see `Model.check_memory`."""
        check_memory(
            self.needs(n_users, n_items, n_interactions).training,
            max_memory,
            f"{self.name} on {n_items:,} items",
            f"raise --max-memory, lower entries={self.entries}, {FEWER_ITEMS}",
        )

    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        hidden = (user_items @ self.encoder_).toarray()  # (B, I) popular items have a part in most rows of W
        scores = np.ascontiguousarray(hidden @ self.decoder_)  # (B, I)
        users = np.repeat(np.arange(len(scores)), np.diff(user_items.indptr))
        scores[users, user_items.indices] += user_items.data
        return torch.from_numpy(scores)

    def scorer(self) -> nn.Module:
        """Return the two products; see `Model.scorer`."""
        self.check_fitted()
        return FactorsScorer(self.encoder_, self.decoder_)

    def similarities(self, columns: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
        """Return the weights from some items on all; see `Model.similarities`."""
        self.check_fitted()
        decoder = self.decoder_ if others is None else self.decoder_[:, others]
        weights = (self.encoder_[columns] @ decoder).toarray()  # (C, I)
        places = np.arange(self.n_items_) if others is None else others
        weights[np.asarray(columns)[:, None] == places] = 0.0  # the diagonal
        return weights

    def contributions(
        self,
        user_items: sp.csr_matrix,
        columns: np.ndarray,
        *,
        max_memory: int | None = None,  # noqa: ARG002  (no users are scored)
    ) -> np.ndarray:
        """Return x_i B_ij, which add up to the score; see `Model.contributions`."""
        history = self._check_histories(user_items)
        return history.data[:, None] * self.similarities(history.indices, np.asarray(columns))  # (N, C)

    def training_summary(self) -> TrainingSummary:
        """Return how long fitting took; see `Model.training_summary`."""
        return self.summary_


def _scale(train: sp.csr_matrix, l2: float) -> np.ndarray:
    """Return what makes the diagonal of A one, shape (n_items,); 1 for an item of nobody without a penalty."""
    squares = np.bincount(train.indices, weights=train.data.astype(np.float64) ** 2, minlength=train.shape[1])
    diagonal = squares + l2
    return 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))


def _ordered(train: sp.csr_matrix, order: np.ndarray, scale: np.ndarray) -> sp.csr_matrix:
    """Return X with its columns in that order, times `scale`, each row in the order of its columns."""
    rank = np.empty(len(order), dtype=train.indices.dtype)
    rank[order] = np.arange(len(order))
    columns = rank[train.indices]
    rows = sp.csr_matrix((train.data * scale.astype(np.float32)[columns], columns, train.indptr), shape=train.shape)
    rows.sort_indices()
    return rows


def _weights(
    factor: sp.csr_matrix, d: np.ndarray, scale: np.ndarray, order: np.ndarray
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Return W1 and W2 (I, I) of items in their own order; the units of A come back with `scale`."""
    ranks = factor.indices  # (E,)
    left = (factor.data * scale[ranks]).astype(np.float32)
    right = (factor.data / np.repeat(d, np.diff(factor.indptr))).astype(np.float32)
    diagonal = np.bincount(ranks, weights=left.astype(np.float64) * right, minlength=len(d))  # (I,) of what is stored
    right = (-right / diagonal[ranks]).astype(np.float32)
    items = order[ranks].astype(ranks.dtype)
    encoder = sp.csr_matrix(sp.csr_matrix((left, items, factor.indptr), shape=factor.shape).T)
    decoder = sp.csr_matrix((right, items, factor.indptr), shape=factor.shape)
    decoder.sort_indices()
    return encoder, decoder
