"""Models of item factors: a user is folded in, and scores are inner products of a user's factors with the items'.

Letters in shape comments: B users of a block, I items, F factors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.memory import allowed_on, check_memory, enough_bytes
from recvae.models.common.base import FEWER_ITEMS, Model
from recvae.models.common.hyperparameters import hyperparameter
from recvae.models.common.learned import learned
from recvae.models.common.similarity import cosines


@dataclass(kw_only=True)
class FactorModel(Model):
    """A matrix factorisation that answers; a model states how it is fitted and how users are folded in."""

    factors: int = hyperparameter(64, "number of latent factors", low=1)

    item_factors_: np.ndarray = learned()

    def check_memory(
        self,
        n_users: int,
        n_items: int,
        n_interactions: int,
        device: str | torch.device = "cpu",
        *,
        max_memory: int | None = None,
    ) -> None:
        """Refuse what does not fit, and say how many factors would; see `Model.check_memory`."""
        host, place = torch.device("cpu"), torch.device(device)

        def places(factors: int) -> list[tuple[int, torch.device]]:
            needs = replace(self, factors=factors).needs(n_users, n_items, n_interactions, on_gpu=place != host)
            return [(needs.training, place), *([(needs.host, host)] if place != host else [])]

        def fits(factors: int) -> bool:
            return all(n_bytes <= allowed_on(where, max_memory) for n_bytes, where in places(factors))

        if fits(self.factors):
            return
        fitting, too_many = 0, self.factors
        while too_many - fitting > 1:
            middle = (fitting + too_many) // 2
            fitting, too_many = (middle, too_many) if fits(middle) else (fitting, middle)
        least = enough_bytes(max(n_bytes for n_bytes, _ in places(self.factors)))
        ways = [f"raise --max-memory to {least}"] if max_memory is not None else []
        ways += [f"set factors={fitting}"] if fitting else []
        for n_bytes, where in places(self.factors):
            what = f"{self.name} on {n_items:,} items with factors={self.factors}"
            check_memory(n_bytes, max_memory, what, ", ".join([*ways, FEWER_ITEMS]), where)

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
