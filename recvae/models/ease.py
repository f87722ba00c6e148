"""EASE: Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019.

    min_B |X - X B|^2 + l2 |B|^2  with  diag(B) = 0                                    (eq. 2, 3)
    P = (X^T X + l2 I)^-1,  B_ij = -P_ij / P_jj for i != j                             (eq. 8)

A user's scores are x_u B, so users nobody has seen are no different. One items x items block of float32 is
worked on in place, and a second one is there for a moment when a bundle is written or read.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional

from recvae.compute.inverse import invert
from recvae.compute.memory import Needs, check_memory
from recvae.datasets.streams import parts_of
from recvae.errors import TrainingError
from recvae.interactions import HeldOut, StoredRows
from recvae.models.common.base import Model
from recvae.models.common.fit_options import FitOptions
from recvae.models.common.footprint import ranking_bytes
from recvae.models.common.graphs import scorer_of
from recvae.models.common.hyperparameters import Space, hyperparameter
from recvae.models.common.learned import learned
from recvae.models.common.penalties import two_digits, typical_l2
from recvae.models.common.sparse_scores import sparse_scores
from recvae.training.records import TrainingSummary
from recvae.training.validation import validation_ndcg

# Letters in shape comments: U users, I items, B users of a block, P popular items, C of them at a time.

_STRIPE_BYTES = 64 << 20  # of what is worked on at a time, apart from the block itself
_CACHE_BYTES = 16 << 20  # of what is gathered from at random
_DENSE_COLUMNS = 128  # popular items at a time; more columns at once are slower, as are fewer
# Time of an entry's multiplication in a sparse product over that in a dense one, measured at 20,108 items: 8 ns, .05 ns
_SPARSE_TO_DENSE = 160
_NO_ANSWER = "the weights of the items have no unique answer; raise l2"


@dataclass(kw_only=True)
class EASE(Model):
    """The linear autoencoder with item-item weights in closed form.

    Examples
    --------
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = EASE(l2=1.0).fit(train)
    >>> sorted(model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)[0][0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "ease"
    paper: ClassVar[str] = "Steck: Embarrassingly Shallow Autoencoders for Sparse Data (WWW 2019)"
    streams: ClassVar[bool] = True
    grows_with: ClassVar[str] = "items"
    grows_as: ClassVar[tuple[int, int]] = (2, 3)
    space: ClassVar[Space] = {"l2": (None, 10.0, 20.0, 50.0, 100.0, 200.0, 300.0, 500.0, 700.0, 1000.0, 2000.0)}

    l2: float | None = hyperparameter(
        None, "weight of the squared weights, in interactions; none: from the data, see `typical_l2`", low=0
    )
    top_k: int | None = hyperparameter(None, "weights kept per item for serving, the largest by size", low=1)

    similarity_: np.ndarray | sp.csr_matrix = learned()
    summary_: TrainingSummary = field(default_factory=TrainingSummary, init=False, repr=False, compare=False)

    def _fit(self, train: sp.csr_matrix, validation: HeldOut | None, options: FitOptions) -> None:
        """Solve for the weights; validation users only show what pruning by `top_k` costs.

        Raises
        ------
        TrainingError
            If there is no unique solution, which takes an l2 near 0.
        """
        options.monitor.start(1, [])
        started = time.perf_counter()
        l2 = two_digits(self._share_of_l2 * typical_l2(train)) if self.l2 is None else self.l2
        self.similarity_ = self._solve(train, l2)
        seconds, pruning = time.perf_counter() - started, None
        if self.top_k is not None:
            whole = None if validation is None else validation_ndcg(self._score_block, validation)
            self.similarity_ = prune(self.similarity_, self.top_k)
            pruned = None if validation is None else validation_ndcg(self._score_block, validation)
            kept = self.similarity_.nnz / train.shape[1] ** 2
            pruning = {"kept": kept, "ndcg@100 before": whole, "ndcg@100 after": pruned}
        from_data = {"l2": l2} if self.l2 is None else None
        self.summary_ = TrainingSummary(seconds=seconds, pruning=pruning, from_data=from_data)
        options.monitor.advance(1, None)

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:  # noqa: ARG002
        """Count the items x items blocks, which lie on the host always; see `Model.needs`."""
        block = 4 * n_items**2
        kept = n_items * min(self.top_k or n_items, n_items)
        weights = block if self.top_k is None else 8 * kept + 4 * n_items
        pruned = 16 * kept if self.top_k is not None else 0  # rows and values, by column and then by row
        return Needs(
            parameters=kept,
            training=max(2 * block, block + pruned, block + 8 * n_interactions),
            held=weights if self.top_k is None else block + weights,
            weights=weights,
            per_user=ranking_bytes(n_items, 1.5 if self.top_k is None else 4),  # a product of sparse rows, then dense
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
        """Refuse items x items blocks that cannot fit; see `Model.check_memory`."""
        check_memory(
            self.needs(n_users, n_items, n_interactions).training,
            max_memory,
            f"{self.name} on {n_items:,} items",
            "raise --max-memory, leave out rare items (recvae preprocess --min-item-users), or use sansa, elsa, "
            "multvae or als, which need memory in proportion to the items",
        )

    @property
    def _share_of_l2(self) -> float:
        """What an l2 that is left to the data is, of `typical_l2`."""
        return 1.0

    def _solve(self, train: sp.csr_matrix, l2: float) -> np.ndarray:
        """Return B (I, I)."""
        gram = gram_matrix(train)
        gram[np.diag_indices_from(gram)] += np.float32(l2)
        precision = inverse_of(gram)
        return weights_without_diagonal(precision, 1 / precision.diagonal())  # B_ij = -P_ij / P_jj

    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        if isinstance(self.similarity_, np.ndarray):
            return _sparse_times_dense(user_items, torch.from_numpy(self.similarity_))  # (B, I)
        return torch.from_numpy(sparse_scores(user_items, self.similarity_).toarray())  # (B, I)

    def _sparse_block(self, user_items: sp.csr_matrix) -> sp.csr_matrix | None:
        return None if isinstance(self.similarity_, np.ndarray) else sparse_scores(user_items, self.similarity_)

    def scorer(self) -> nn.Module:
        """Return the sum of rows of B; see `Model.scorer`."""
        self.check_fitted()
        return scorer_of(self.similarity_)

    def similarities(self, columns: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
        """Return the weights from some items on all; see `Model.similarities`."""
        self.check_fitted()
        rows = self.similarity_[columns] if others is None else self.similarity_[columns[:, None], others]
        return rows if isinstance(rows, np.ndarray) else rows.toarray()

    def contributions(
        self,
        user_items: sp.csr_matrix,
        columns: np.ndarray,
        *,
        max_memory: int | None = None,  # noqa: ARG002  (no users are scored)
    ) -> np.ndarray:
        """Return x_i B_ij, which add up to the score; see `Model.contributions`."""
        history = self._check_histories(user_items)
        return history.data[:, None] * self.similarities(history.indices, columns)  # (N, C)

    def training_summary(self) -> TrainingSummary:
        """Return how long the solution took and what pruning cost; see `Model.training_summary`."""
        return self.summary_

    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:
        """Load B, whole or pruned as `top_k` says; see `Model.load_weights`."""
        array = weights["similarity" if self.top_k is None else "similarity.indptr"]
        if self.top_k is None and (array.ndim != 2 or array.shape[0] != array.shape[1]):
            raise ValueError(f"weights of shape {array.shape} are not items x items")
        return super().load_weights(weights, device)


def gram_matrix(
    train: sp.csr_matrix | StoredRows, weigh: Callable[[sp.csr_matrix], sp.csr_matrix] = lambda rows: rows
) -> np.ndarray:
    """Return X^T X in float32, filled piece by piece so that no second block is needed.

    Rows that are streamed are added up, part by part.

    Columns of the most popular items, which are well filled, are made dense and multiplied by the sparse rows of
    X^T; what is left, few entries, is a sparse product.

    Parameters
    ----------
    train : csr_matrix or StoredRows of shape (n_users, n_items)
        X.
    weigh : callable, optional
        Rows of X -> what is to be taken in their place.

    Returns
    -------
    ndarray of shape (n_items, n_items), float32
    """
    n_items = train.shape[1]
    gram = np.zeros((n_items, n_items), dtype=np.float32)
    for part in parts_of(train):
        rows = weigh(part)  # (U, I)
        transposed = sp.csr_matrix(rows.T)  # (I, U)
        popular = _popular(rows, transposed)  # (P,)
        _add_rare(gram, transposed, popular)
        del transposed  # there are as many entries in what is made next
        _add_popular(gram, rows, popular)
    return gram


def _popular(train: sp.csr_matrix, transposed: sp.csr_matrix) -> np.ndarray:
    """Return the columns (P,) of the items to make dense: as many as take the least time, as measured."""
    pairs = transposed @ np.diff(train.indptr).astype(np.float64)  # (I,) multiplications of each row of X^T X
    by_popularity = np.argsort(-pairs, kind="stable")
    left = pairs.sum() - np.append(0, np.cumsum(pairs[by_popularity]))  # (I + 1,) by number of popular items
    # The rare items' share of the pairs is about their share of a user, and they meet only one another: its square.
    sparse = _SPARSE_TO_DENSE * left**2 / max(pairs.sum(), 1)
    dense = train.nnz * np.arange(len(left))
    return np.sort(by_popularity[: np.argmin(sparse + dense)])


def _add_rare(gram: np.ndarray, transposed: sp.csr_matrix, popular: np.ndarray) -> None:
    """Add rows stripe by stripe, 0 where an item is popular; scipy's product lets other threads work meanwhile."""
    n_items = len(gram)
    is_rare = np.ones(n_items, dtype=bool)
    is_rare[popular] = False
    rare = sp.csr_matrix(sp.diags_array(is_rare.astype(np.float32)) @ transposed)  # (I, U)
    rare.eliminate_zeros()
    others = sp.csr_matrix(rare.T)  # (U, I)
    threads = torch.get_num_threads()
    rows = _stripe(n_items, 16 * threads)  # an entry is sparse first: a value and an index, of 4 or 8 bytes; then dense

    def add(start: int) -> None:
        gram[start : start + rows] += (rare[start : start + rows] @ others).toarray()

    with ThreadPoolExecutor(threads, thread_name_prefix="recvae-gram") as pool:
        list(pool.map(add, range(0, n_items, rows)))


def _add_popular(gram: np.ndarray, train: sp.csr_matrix, popular: np.ndarray) -> None:
    """Add rows and columns of the popular items, a few at a time for as many users as fit into the cache."""
    n_users, n_items = train.shape
    users = max(1, min(_CACHE_BYTES, _STRIPE_BYTES) // (4 * _DENSE_COLUMNS))
    batches = [sp.csr_matrix(train[start : start + users].T) for start in range(0, n_users, users)]  # (I, B) each
    for columns in np.split(popular, range(_DENSE_COLUMNS, len(popular), _DENSE_COLUMNS)):
        products = torch.zeros(n_items, len(columns))  # (I, C)
        for batch in batches:
            dense = batch[columns].T.toarray(order="C")  # (B, C)
            products += _sparse_times_dense(batch, torch.from_numpy(dense))
        gram[columns] += products.numpy().T  # rows, which lie together; columns follow from them
    rows = _stripe(n_items, 4)
    for start in range(0, n_items, rows):
        gram[start : start + rows, popular] = gram[popular, start : start + rows].T


def _sparse_times_dense(left: sp.csr_matrix, right: torch.Tensor) -> torch.Tensor:
    """Return the dense product; PyTorch adds up rows of `right` on all threads, faster than scipy on one."""
    kind = np.promote_types(left.indices.dtype, left.indptr.dtype)  # columns may be int32 where positions are not
    columns, offsets = (torch.from_numpy(part.astype(kind, copy=False)) for part in (left.indices, left.indptr[:-1]))
    return functional.embedding_bag(columns, right, offsets, mode="sum", per_sample_weights=torch.from_numpy(left.data))


def inverse_of(gram: np.ndarray) -> np.ndarray:
    """Return the inverse of X^T X and its penalty (I, I), in the same memory.

    Raises
    ------
    TrainingError
        If there is none.
    """
    if not invert(gram):
        raise TrainingError(_NO_ANSWER)
    return gram


def weights_without_diagonal(precision: np.ndarray, columns: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Turn P into W_ij = -P_ij c_j r_i for i != j, W_ii = 0, in the same memory.

    Parameters
    ----------
    precision : ndarray of shape (n_items, n_items), float32
        P; used up.
    columns : ndarray of shape (n_items,), float32
        c; 1 / diag(P) in EASE.
    rows : ndarray of shape (n_items,), float32, optional
        r; 1 without it.

    Returns
    -------
    ndarray of shape (n_items, n_items), float32
    """
    precision *= -columns
    if rows is not None:
        precision *= rows[:, None]
    np.fill_diagonal(precision, 0.0)
    return precision


def prune(similarity: np.ndarray, top_k: int) -> sp.csr_matrix:
    """Keep of each column the weights of largest size.

    Parameters
    ----------
    similarity : ndarray of shape (n_items, n_items), float32
        B; column j says what speaks for item j.
    top_k : int
        Weights per column, >= 1.

    Returns
    -------
    csr_matrix of shape (n_items, n_items), float32
        At most top_k entries in each column; among equal ones the first rows are kept.
    """
    n_items = len(similarity)
    kept = min(top_k, n_items)
    rows = np.empty((n_items, kept), dtype=np.int32)  # of each column, one after the other
    values = np.empty((n_items, kept), dtype=np.float32)
    columns = _stripe(n_items, 16)  # negated sizes, and their order as int64
    for start in range(0, n_items, columns):
        stripe = similarity[:, start : start + columns]
        largest = np.argsort(-np.abs(stripe), axis=0, kind="stable")[:kept]  # (top_k, columns)
        rows[start : start + columns] = largest.T
        values[start : start + columns] = np.take_along_axis(stripe, largest, axis=0).T
    starts = np.arange(0, n_items * kept + 1, kept)
    pruned = sp.csr_matrix(sp.csc_matrix((values.ravel(), rows.ravel(), starts), shape=similarity.shape))
    pruned.eliminate_zeros()
    pruned.sort_indices()
    return pruned


def _stripe(n_items: int, bytes_per_entry: int) -> int:
    """Return how many rows of a block are worked on at a time: small beside the block, and small in themselves."""
    budget = min(_STRIPE_BYTES, n_items**2)  # a quarter of the block
    return max(1, budget // (bytes_per_entry * n_items))
