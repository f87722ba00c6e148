"""Infinite autoencoder: Sachdeva, Dhaliwal, Wu and McAuley, Infinite Recommendation Networks, NeurIPS 2022.

    S = K(x, X) (K(X, X) + l2 tr(K(X, X)) / U I)^-1 X                                           (eq. 3, 4)
    K(x, y) = |x| |y| [2 c (pi - t) + sin t] / pi,  c = cos t = x . y / (|x| |y|)

An autoencoder with one hidden layer of ReLU, in the limit of an infinite width, is a ridge regression on users: K is
its neural tangent kernel, and an unseen user's scores are a weighted sum of the training users' rows. There are no
epochs. What the other closed forms know of pairs of items, this one knows of pairs of users; so it makes other
mistakes, and is a good part of a blend.

|x| |y| is taken to the power 2 `length_power`: 1/2 is the paper's kernel. The authors' code adds a bias to both
layers; on five data sets the best l2 with it was not better than the best one without (docs/models.md).

The rows X stay sparse, and the inverse is a block of users x users, so that nothing of users x items is dense. Both are
in the bundle: it contains the histories of the training users.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import norm

from recvae.compute.inverse import invert
from recvae.compute.matmul import product
from recvae.compute.memory import Needs, check_memory
from recvae.errors import TrainingError
from recvae.interactions import HeldOut
from recvae.models.common.base import Model
from recvae.models.common.fit_options import FitOptions
from recvae.models.common.footprint import ranking_bytes
from recvae.models.common.hyperparameters import Space, hyperparameter
from recvae.models.common.learned import learned
from recvae.models.ease import gram_matrix
from recvae.training.records import TrainingSummary

# Letters in shape comments: U training users, I items, B users of a block, R rows of a stripe, C columns, O others.

_STRIPE_BYTES = 1 << 20  # of the kernel that is worked on at a time, in float64 and several times over
_GRAM_BYTES = 16 << 20  # that products of all rows take at a time, beside their result
_NO_ANSWER = "the weights of the training users have no unique answer; raise l2"


@dataclass(kw_only=True)
class InfAE(Model):
    """The infinitely wide autoencoder, in closed form, for up to some 30,000 training users.

    Examples
    --------
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = InfAE(l2=1.0).fit(train)
    >>> sorted(model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)[0][0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "infae"
    paper: ClassVar[str] = "Sachdeva et al.: Infinite Recommendation Networks (NeurIPS 2022)"
    grows_as: ClassVar[tuple[int, int]] = (2, 3)
    space: ClassVar[Space] = {"l2": (0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0), "length_power": (0.25, 0.5)}

    l2: float = hyperparameter(2.0, "weight of the penalty, in means of a user's likeness to itself", low=0)
    length_power: float = hyperparameter(
        0.5, "how much more long histories count: their likeness grows with this power of the length", low=0, high=1
    )

    histories_: sp.csr_matrix = learned()
    inverse_: np.ndarray = learned(per_item=False)
    lengths_: np.ndarray = field(default_factory=lambda: np.empty(0), init=False, repr=False, compare=False)
    summary_: TrainingSummary = field(default_factory=TrainingSummary, init=False, repr=False, compare=False)

    def _fit(self, train: sp.csr_matrix, validation: HeldOut | None, options: FitOptions) -> None:  # noqa: ARG002
        """Solve for the weights of the training users.

        Raises
        ------
        TrainingError
            If there is no unique solution, which takes an l2 near 0.
        """
        options.monitor.start(1, [])
        started = time.perf_counter()
        train = sp.csr_matrix(train[np.diff(train.indptr) > 0])  # a user without items says nothing of others
        lengths = _lengths(train, axis=1)  # (U,)
        histories = sp.csr_matrix(train.T)  # (I, U)
        kernel = gram_matrix(histories) if len(lengths) else np.empty((0, 0), np.float32)  # (U, U) products of rows
        rows = max(1, _STRIPE_BYTES // (4 * max(len(kernel), 1)))
        for start in range(0, len(kernel), rows):
            stripe = kernel[start : start + rows]  # (R, U)
            stripe[:] = self._kernel(stripe, lengths[start : start + rows], lengths)
        penalty = self.l2 * float(kernel.diagonal().mean(dtype=np.float64)) if len(kernel) else 0.0
        kernel[np.diag_indices_from(kernel)] += np.float32(penalty)
        if len(kernel) and not invert(kernel):
            raise TrainingError(_NO_ANSWER)
        self.histories_, self.inverse_, self.lengths_ = histories, kernel, lengths
        self.summary_ = TrainingSummary(seconds=time.perf_counter() - started)
        options.monitor.advance(1, None)

    def _kernel(self, products: np.ndarray, lengths: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return K from products x . y of rows, given the Euclidean lengths |x| and |y|; shape as the products.

        A row of length 0 is like no other.
        """
        scale = np.outer(lengths, others)  # (B, U) float64: near 1, the angle has half of the digits of its cosine
        cosine = np.clip(np.divide(products, scale, out=np.zeros_like(scale), where=scale > 0), -1, 1)
        angle = np.arccos(cosine)
        shape = (2 * cosine * (np.pi - angle) + np.sin(angle)) / np.pi
        power = 2 * self.length_power
        return shape * np.where(scale > 0, np.outer(lengths**power, others**power), 0)

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:  # noqa: ARG002
        """Count the users x users block; see `Model.needs`."""
        block, rows = 4 * n_users**2, 8 * n_interactions + 4 * (n_items + 1)
        return Needs(
            parameters=n_users**2 + n_interactions,
            training=2 * block + 2 * rows + min(2 * _GRAM_BYTES, 2 * 4 * 128 * n_items),
            held=block + rows,
            weights=block + rows,
            per_user=ranking_bytes(n_items, 2) + 6 * 8 * n_users,
        )

    def scoring_needs(self, n_items: int) -> Needs:
        """Return what scoring takes with the training users there are; see `Model.scoring_needs`."""
        return self.needs(len(self.inverse_), n_items, self.histories_.nnz if len(self.inverse_) else 0)

    def check_memory(
        self,
        n_users: int,
        n_items: int,
        n_interactions: int,
        device: str | torch.device = "cpu",  # noqa: ARG002
        *,
        max_memory: int | None = None,
    ) -> None:
        """Refuse a users x users block that cannot fit; see `Model.check_memory`."""
        check_memory(
            self.needs(n_users, n_items, n_interactions).training,
            max_memory,
            f"{self.name} on {n_users:,} users",
            "raise --max-memory, or use edlae, sansa, elsa or multvae, which have no block of users x users",
        )

    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        if not len(self.inverse_):
            return torch.zeros(user_items.shape)  # nobody to learn from
        products = (user_items @ self.histories_).toarray()  # (B, I), (I, U) -> (B, U)
        kernel = self._kernel(products, _lengths(user_items, axis=1), self.lengths_).astype(np.float32)  # (B, U)
        weights = product(torch.from_numpy(kernel), torch.from_numpy(self.inverse_)).numpy()  # (B, U)
        scores = self.histories_ @ weights.T  # (I, U), (U, B) -> (I, B)
        return torch.from_numpy(np.ascontiguousarray(scores.T))  # (B, I)

    def similarities(self, columns: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
        """Return how many training users two items have in common, as a cosine; see `Model.similarities`."""
        self.check_fitted()
        lengths = np.maximum(_lengths(self.histories_, axis=1), np.finfo(np.float32).tiny)  # (I,)
        places = np.arange(self.n_items_) if others is None else others
        products = (self.histories_[columns] @ self.histories_[places].T).toarray()  # (C, U), (U, O) -> (C, O)
        return np.clip(products / lengths[columns][:, None] / lengths[places], -1, 1).astype(np.float32)

    def training_summary(self) -> TrainingSummary:
        """Return how long the solution took; see `Model.training_summary`."""
        return self.summary_

    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:
        """Load the rows and the inverse; see `Model.load_weights`."""
        super().load_weights(weights, device)
        n_users, self.lengths_ = self.histories_.shape[1], _lengths(self.histories_, axis=0)
        if self.inverse_.shape != (n_users, n_users):
            raise ValueError(f"an inverse of shape {self.inverse_.shape} is not that of {n_users:,} users")
        return self


def _lengths(matrix: sp.csr_matrix, axis: int) -> np.ndarray:
    """Return the Euclidean lengths, float64, of its rows (axis 1) or columns (axis 0)."""
    return norm(matrix.astype(np.float64), axis=axis)
