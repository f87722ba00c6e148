"""Popularity: the same list for everyone, by number of training users. The floor every model must clear."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.memory import Needs
from recvae.interactions import HeldOut, item_counts_of
from recvae.models.common.base import Model
from recvae.models.common.fit_options import FitOptions
from recvae.models.common.footprint import ranking_bytes
from recvae.models.common.graphs import ConstantScorer
from recvae.models.common.learned import learned


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

    streams: ClassVar[bool] = True

    counts_: np.ndarray = learned(ndim=1)

    def _fit(self, train: sp.csr_matrix, validation: HeldOut | None, options: FitOptions) -> None:  # noqa: ARG002
        self.counts_ = item_counts_of(train).astype(np.float32)  # (I,)

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
