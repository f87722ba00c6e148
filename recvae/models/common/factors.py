"""Models of item factors: a user is folded in, and scores are inner products of a user's factors with the items'.

Letters in shape comments: B users of a block, I items, F factors.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from recvae.models.common.base import Model
from recvae.models.common.learned import learned
from recvae.models.common.similarity import cosines


@dataclass(kw_only=True)
class FactorModel(Model):
    """A matrix factorisation that answers; a model states its hyperparameter `factors` and how users are folded in."""

    item_factors_: np.ndarray = learned()

    def item_vectors(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the item factors; see `Model.item_vectors`."""
        self.check_fitted()
        return self.item_factors_, None

    def _query_block(self, user_items: sp.csr_matrix) -> np.ndarray:
        return self._embed_block(user_items)  # (B, F)

    def similarities(self, columns: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
        """Return cosines of item factors; see `Model.similarities`."""
        self.check_fitted()
        return cosines(self.item_factors_, columns, others)


def item_factors_of(weights: Mapping[str, np.ndarray], n_factors: int) -> np.ndarray:
    """Return the item factors (I, F) among weights that are loaded.

    Raises
    ------
    KeyError, ValueError
        If they are missing or have another number of factors.
    """
    factors = np.ascontiguousarray(weights["item_factors"], dtype=np.float32)
    if factors.ndim != 2 or factors.shape[1] != n_factors:
        raise ValueError(f"item factors of shape {factors.shape} do not fit factors={n_factors}")
    # In torch's own memory: how an array is aligned decides how BLAS rounds, fitted or loaded must be the same.
    return torch.tensor(factors).numpy()
