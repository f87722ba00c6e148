"""Popularity: the same list for everyone, by number of training users. The floor every model must clear."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.memory import Needs
from recvae.interactions import HeldOut, as_interactions
from recvae.models.common.base import Model
from recvae.models.common.footprint import ranking_bytes
from recvae.models.common.hyperparameters import check_hyperparameters
from recvae.models.common.scorers import ConstantScorer
from recvae.training.checkpoints import Checkpoint
from recvae.training.records import Monitor


@dataclass(kw_only=True)
class Popularity(Model):
    """Score each item by how many training users have it.

    Examples
    --------
    >>> train = sp.csr_matrix([[1, 1, 0], [0, 1, 0]])
    >>> Popularity().fit(train).recommend(sp.csr_matrix([[0, 1, 0]]), k=2)[0].tolist()
    [[0, 2]]
    """

    name: ClassVar[str] = "popularity"
    paper: ClassVar[str] = "no paper: number of training users per item"

    counts_: np.ndarray = field(default_factory=lambda: np.empty(0), init=False, repr=False, compare=False)

    def fit(
        self,
        train: sp.csr_matrix,
        validation: HeldOut | tuple[Any, Any] | None = None,  # noqa: ARG002  (every model's signature)
        *,
        device: str | torch.device = "auto",  # noqa: ARG002
        monitor: Monitor | None = None,  # noqa: ARG002
        checkpoint: Checkpoint | None = None,  # noqa: ARG002
    ) -> Self:
        """Count; see `Model.fit`."""
        check_hyperparameters(self)
        train = as_interactions(train, "the training interactions")
        self.check_memory(*train.shape, train.nnz)
        return self.load_weights({"counts": np.bincount(train.indices, minlength=train.shape[1])})

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:  # noqa: ARG002
        """Count the counts, and the columns while they are counted; see `Model.needs`."""
        return Needs(
            parameters=n_items,
            training=12 * (n_items + n_interactions),
            held=4 * n_items,
            weights=4 * n_items,
            per_user=ranking_bytes(n_items),
        )

    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        return torch.from_numpy(self.counts_).repeat(user_items.shape[0], 1)  # (I,) -> (B, I)

    def scorer(self) -> ConstantScorer:
        """Return the counts; see `Model.scorer`."""
        self.check_fitted()
        return ConstantScorer(torch.from_numpy(self.counts_))

    def weights(self) -> dict[str, np.ndarray]:
        """Return the counts, shape (n_items,); see `Model.weights`."""
        self.check_fitted()
        return {"counts": self.counts_}

    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:  # noqa: ARG002
        """Take over counts; see `Model.load_weights`."""
        counts = np.asarray(weights["counts"])
        if counts.ndim != 1:
            raise ValueError(f"counts of shape {counts.shape}, expected one number per item")
        self.counts_ = counts.astype(np.float32)
        self.n_items_ = len(self.counts_)
        return self
