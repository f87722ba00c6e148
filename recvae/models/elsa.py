"""ELSA: Vancura, Alves, Kasalicky and Kordik, Scalable Linear Shallow Autoencoder, RecSys 2022.

    f(x) = x A A^T - x,  rows of A (n_items x latent_dim) of length 1                       (eq. 3, 5)
    L_u  = | x_u / |x_u| - f(x_u) / |f(x_u)| |^2 = 2 - 2 cos(x_u, f(x_u))                    (eq. 6)

EASE with a weight matrix of low rank: A A^T - I has a zero diagonal, since rows have length 1, so that no item explains
itself. Memory grows with the items, not with their square. With h = x A and G = A^T A,

    x . f(x) = |h|^2 - |x|^2,  |f(x)|^2 = h G h^T - 2 |h|^2 + |x|^2

so the loss of a large batch needs no block of users x items; a batch of at most latent_dim users has one, which is
faster there and no larger than A. As in the paper, there is no noise, and the optimiser is NAdam. The loss sums over
items; with a mean, as the authors' code may have it, the steps of NAdam are smaller.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch.nn import functional

from recvae.compute.matmul import product
from recvae.models.common.autoencoder import Autoencoder
from recvae.models.common.footprint import BatchFootprint
from recvae.models.common.hyperparameters import Range, Space, hyperparameter
from recvae.models.common.networks import ItemNetwork, ItemVectors, sparse_product
from recvae.training.batches import SparseBatch
from recvae.training.trainer import Losses

# Letters in shape comments: B users of a batch, N interactions stored in it, I items, D latent dimensions.

_LEAST = 1e-4  # of |f(x)|^2: float32 cannot tell it from 0 below about 1e-6, and gradients would explode


class ELSANetwork(ItemNetwork):
    """One matrix A that encodes and decodes.

    Parameters
    ----------
    n_items, latent_dim : int
        Shape of A.
    """

    def __init__(self, n_items: int, latent_dim: int) -> None:
        super().__init__(n_items)
        self.items = ItemVectors(n_items, latent_dim)

    @property
    def output(self) -> ItemVectors:
        """The layer of A."""
        return self.items

    def vectors(self) -> torch.Tensor:
        """Return A with rows of length 1, shape (n_items, latent_dim)."""
        weight = self.items.weight
        return functional.normalize(weight) if weight.requires_grad else weight  # fitted, it is of length 1 already

    def code(self, batch: SparseBatch) -> torch.Tensor:
        """Return x A, shape (n_users, latent_dim)."""
        return sparse_product(batch, batch.values, self.vectors())  # (N,) -> (B, D)

    def forward(self, batch: SparseBatch) -> torch.Tensor:
        """Return x A A^T - x, shape (n_users, n_items)."""
        scores = product(self.code(batch), self.vectors().t())  # (B, D) x (D, I) -> (B, I)
        return scores.index_put((batch.rows, batch.items.long()), -batch.values, accumulate=True)

    def cosine(self, batch: SparseBatch) -> torch.Tensor:
        """Return the cosine of x and f(x) of each user, shape (n_users,); 0 for a user without interactions."""
        vectors = self.vectors()  # (I, D)
        hidden = sparse_product(batch, batch.inputs, vectors)  # (N,) -> (B, D), of rows of length 1
        length = (batch.lengths > 0).to(hidden.dtype)  # (B,) |x|^2
        explained = hidden.square().sum(dim=1)  # (B,) |h|^2
        if len(batch) <= vectors.shape[1]:
            scores = product(hidden, vectors.t())  # (B, D) x (D, I) -> (B, I)
            scores = scores.index_put((batch.rows, batch.items.long()), -batch.inputs, accumulate=True)
            square = scores.square().sum(dim=1)  # (B,) |f(x)|^2
        else:
            gram = product(vectors.t(), vectors)  # (D, I) x (I, D) -> (D, D)
            square = (product(hidden, gram) * hidden).sum(dim=1) - 2 * explained + length
        return (explained - length) / square.clamp(min=_LEAST).sqrt()


@dataclass(kw_only=True)
class ELSA(Autoencoder[ELSANetwork]):
    """The linear autoencoder with one vector per item in place of item-item weights.

    Examples
    --------
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = ELSA(latent_dim=4, epochs=10, batch_size=10, seed=1).fit(train)
    >>> sorted(model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)[0][0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "elsa"
    paper: ClassVar[str] = "Vancura et al.: Scalable Linear Shallow Autoencoder (RecSys 2022)"
    space: ClassVar[Space] = {
        "learning_rate": Range(0.01, 0.3, log=True),
        "batch_size": (32, 128, 512, 1024),
        "latent_dim": (100, 200, 400, 800),
        "epochs": (5, 10, 20),
    }

    epochs: int = hyperparameter(10, "passes over the training users", low=1)
    batch_size: int = hyperparameter(128, "users per update", low=1)
    learning_rate: float = hyperparameter(0.1, "step size of NAdam", low=0)
    latent_dim: int = hyperparameter(800, "length of an item's vector", low=2)

    def _network(self, n_items: int) -> ELSANetwork:
        return ELSANetwork(n_items, self.latent_dim)

    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.NAdam(self.network_.parameters(), lr=self.learning_rate, foreach=False)

    def _loss(self, batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:  # noqa: ARG002  (no noise)
        loss = (2 - 2 * self.network_.cosine(batch)).mean()  # (B,) -> ()
        return Losses(loss, loss)

    def _footprint(
        self,
        network: ItemNetwork,
        n_users: int,
        n_interactions: int,  # noqa: ARG002
        *,
        on_gpu: bool,  # noqa: ARG002
    ) -> BatchFootprint:
        of_vectors = 4 * network.output.weight.numel()
        blocks = 4.0 if n_users <= self.latent_dim else 0.0
        return BatchFootprint(blocks=blocks, scoring_blocks=2.2, more=4 * of_vectors)  # of length 1, with gradients

    def _finish(self) -> None:
        super()._finish()
        self._normalise()

    def _normalise(self) -> None:
        """Give the rows of A length 1 for good, unless they have it: scoring then need not do it each time."""
        vectors = self.network_.items.weight.requires_grad_(False)
        lengths = vectors.square().sum(dim=1)  # (I,)
        if not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-4):
            vectors.data = functional.normalize(vectors)

    @property
    def has_item_vectors(self) -> bool:
        """A is all there is; see `Model.has_item_vectors`."""
        return True

    def item_vectors(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return A; see `Model.item_vectors`."""
        self.check_fitted()
        return self.network_.vectors().detach().cpu().numpy(), None

    def _query_block(self, user_items: sp.csr_matrix) -> np.ndarray:
        return self._embed_block(user_items)  # (B, D), x A

    def own_item_terms(self, weights: np.ndarray) -> np.ndarray:
        """Return -x, the second term of f; see `Model.own_item_terms`."""
        return -weights

    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:
        """Load A; see `Model.load_weights`."""
        super().load_weights(weights, device)
        self._normalise()
        return self

    def contributions(
        self,
        user_items: sp.csr_matrix,
        columns: np.ndarray,
        *,
        max_memory: int | None = None,  # noqa: ARG002  (no users are scored)
    ) -> np.ndarray:
        """Return x_i (a_i . a_j - [i = j]), which add up to the score; see `Model.contributions`."""
        history = self._check_histories(user_items)
        similarities = self.similarities(history.indices, columns)  # (N, C)
        itself = history.indices[:, None] == np.asarray(columns)  # (N, C)
        return (history.data[:, None] * (similarities - itself)).astype(np.float32)
