"""ELSA: Vancura, Alves, Kasalicky and Kordik, Scalable Linear Shallow Autoencoder, RecSys 2022.

    f(x) = x A A^T - x,  rows of A (n_items x latent_dim) of length 1                       (eq. 3, 5)
    L_u  = | x_u / |x_u| - f(x_u) / |f(x_u)| |^2 = 2 - 2 cos(x_u, f(x_u))                    (eq. 6)

EASE with a weight matrix of low rank: A A^T - I has a zero diagonal, since rows have length 1, so that no item explains
itself. Memory grows with the items, not with their square. With h = x A and G = A^T A,

    x . f(x) = |h|^2 - |x|^2,  |f(x)|^2 = h G h^T - 2 |h|^2 + |x|^2

so the loss of a large batch needs no block of users x items; a batch of at most latent_dim users has one, which is
faster there and no larger than A. As in the paper, there is no noise, and the optimiser is NAdam. The loss sums over
items; with a mean, as the authors' code may have it, the steps of NAdam are smaller.

`sampling` takes for A the rows of the batch's items and of drawn others, as the paper says it may be done: x and f(x)
have these items only, and no other row is read or changed. `entries` makes A sparse: see `compressed_elsa.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.allocator import return_free_blocks
from recvae.compute.devices import resolve_device
from recvae.compute.memory import Needs
from recvae.models.common.autoencoder import Autoencoder
from recvae.models.common.footprint import BatchFootprint
from recvae.models.common.hyperparameters import Range, Space, hyperparameter
from recvae.models.common.item_networks import ItemNetwork
from recvae.models.common.sharing import items_of
from recvae.models.common.sparse_vectors import SparseItemVectors, keep_largest
from recvae.models.compressed_elsa import CompressedNetwork, check_entries, entries_after
from recvae.models.elsa_network import ELSANetwork
from recvae.training.batches import SparseBatch
from recvae.training.item_samples import sample_items
from recvae.training.row_nadam import RowNAdam
from recvae.training.task import Losses, Phase

# Letters in shape comments: B users, N interactions of them, I items, S sampled ones, D latent, C columns, O others.

_BLOCKS = 12  # of the size of A in an update: directions, gradients, what lies between, what the allocator keeps
_ROW_BLOCKS = 12  # the same of sampled rows, with their weights and moments
_RETURN_AFTER = 4  # updates by rows: more often, getting memory back takes longer than it saves


@dataclass(kw_only=True)
class ELSA(Autoencoder[Any]):  # an ELSANetwork; once it is fitted with `entries`, a CompressedNetwork
    """The linear autoencoder with one vector per item in place of item-item weights.

    Examples
    --------
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = ELSA(latent_dim=4, epochs=10, batch_size=10, seed=1).fit(train)
    >>> sorted(model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)[0][0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "elsa"
    shares_users: ClassVar[bool] = True
    shares_items: ClassVar[bool] = True
    paper: ClassVar[str] = "Vancura et al.: Scalable Linear Shallow Autoencoder (RecSys 2022)"
    space: ClassVar[Space] = {
        "learning_rate": Range(0.01, 0.3, log=True),
        "batch_size": (32, 128, 512, 1024),
        "latent_dim": (100, 200, 400, 800),
        "epochs": (5, 10, 20),
    }

    epochs: int = hyperparameter(10, "passes over the training users", low=1)
    batch_size: int | None = hyperparameter(128, "users per update; none: a 25th, from 32 to 500", low=1)
    learning_rate: float = hyperparameter(0.1, "step size of NAdam", low=0)
    latent_dim: int = hyperparameter(800, "length of an item's vector", low=2)
    sampling: str = hyperparameter(
        "none",
        "draw the items that an update sees in addition to those of its users, for more than 20,000 items",
        choices=("none", "uniform"),
    )
    sampled_items: int = hyperparameter(10_000, "items drawn per batch", low=1, only_with=("sampling", "uniform"))
    entries: int | None = hyperparameter(
        None, "entries kept of an item's vector, the largest, of 4 bytes each; none: all, of float32", low=1
    )

    _updates: int = field(default=1, init=False, repr=False, compare=False)
    _samples: int = field(default=0, init=False, repr=False, compare=False)
    _scored: tuple[int, CompressedNetwork] | None = field(default=None, init=False, repr=False, compare=False)

    def _network(self, n_items: int) -> ELSANetwork:
        sparse = self.entries is not None
        return ELSANetwork(n_items, self.latent_dim, row_wise=self.sampling != "none", sparse=sparse)

    def _optimizer(self) -> torch.optim.Optimizer:
        if self.sampling != "none":
            return RowNAdam(self.network_.parameters(), lr=self.learning_rate)
        return torch.optim.NAdam(self.network_.parameters(), lr=self.learning_rate, foreach=False)

    def _begin(self, train: sp.csr_matrix) -> None:
        super()._begin(train)
        self._updates = -(-train.shape[0] // self.users_per_update(train.shape[0]))  # of an epoch

    def _phases(self) -> Sequence[Phase]:
        optimizer = self._optimizer()
        return [Phase(name="all", optimizer=optimizer, loss=self._loss, after=partial(self._after_pass, optimizer))]

    def _after_pass(self, optimizer: torch.optim.Optimizer) -> None:
        """Shrink the rows, and have memory for the validation users, whose blocks have other sizes."""
        if self.entries is not None:
            self._shrink(optimizer, self.entries)
        return_free_blocks(self.device_)

    def _shrink(self, optimizer: torch.optim.Optimizer, entries: int) -> None:
        """Keep as many entries of each row as the schedule has after this epoch, and no momentum of the others."""
        state = optimizer.state[self.network_.items.weight]
        epochs_done = round(float(state["step"]) / self._updates)  # by the optimiser, whose state is in checkpoints
        kept = entries_after(epochs_done, self.epochs, self.latent_dim, entries)
        keep_largest(self.network_.items.weight, kept, (state["exp_avg"], state["exp_avg_sq"]))

    def _loss(self, batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:  # noqa: ARG002  (no noise)
        sample = None
        if self.sampling != "none":
            self._samples += 1
            if self._samples % _RETURN_AFTER == 0:
                return_free_blocks(self.device_)  # a sample has another size each time
            sample = sample_items(batch, self.network_.n_items, self.sampled_items, generator)
        loss = (2 - 2 * self.network_.cosine(batch, sample)).mean()  # (B,) -> ()
        return Losses(loss, loss)

    def check_together(self) -> None:
        """Refuse more entries than a vector has; see `Model.check_together`."""
        super().check_together()
        check_entries(self.entries, self.latent_dim)

    @property
    def needs_all_items(self) -> str | None:
        """Which of its settings needs all items in one process; see `Model.needs_all_items`."""
        return None if self.sampling == "none" else f"sampling={self.sampling}"

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:
        """Count what the network takes; see `Model.needs`."""
        found = super().needs(n_users, n_items, n_interactions, on_gpu=on_gpu)
        if self.entries is None:
            return found
        n_own = items_of(n_items)
        weights = SparseItemVectors.bytes_for(n_own, self.entries)
        return replace(
            found,
            parameters=n_own * self.entries,
            training=found.training + weights,  # with which validation users are scored
            held=found.held + weights,
            weights=weights,
        )

    def _footprint(
        self,
        network: ItemNetwork,
        n_users: int,
        n_interactions: int,
        *,
        on_gpu: bool,  # noqa: ARG002
    ) -> BatchFootprint:
        if self.sampling != "none":
            rows = min(n_interactions + self.sampled_items, network.n_items)
            blocks = 4 * n_users if n_users <= self.latent_dim else 0
            more = 4 * rows * (_ROW_BLOCKS * self.latent_dim + blocks)
            return BatchFootprint(blocks=0.0, scoring_blocks=2.2, more=more, row_wise=True)
        of_vectors = 4 * network.output.weight.numel()
        blocks = 4.0 if n_users <= self.latent_dim else 0.0
        return BatchFootprint(blocks=blocks, scoring_blocks=2.2, more=_BLOCKS * of_vectors)

    def _finish(self) -> None:
        super()._finish()
        self._scored = None
        if self.entries is None:
            self.network_.fix(in_place=True)
        else:
            self.network_ = CompressedNetwork(SparseItemVectors.of(self.network_.items.weight, self.entries))

    @torch.no_grad()
    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        network = self.network_
        if isinstance(network, ELSANetwork) and self.entries is not None:  # while it learns: what would be kept
            weight = network.items.weight
            if self._scored is None or self._scored[0] != weight._version:
                self._scored = weight._version, CompressedNetwork(SparseItemVectors.of(weight, self.entries))
            network = self._scored[1]
        self._stop_training()
        return network(self._batch(user_items))  # (B, I)

    @property
    def has_item_vectors(self) -> bool:
        """Whether A is there as it is, not compressed; see `Model.has_item_vectors`."""
        return self.entries is None

    def item_vectors(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return A; see `Model.item_vectors`."""
        if not self.has_item_vectors:
            return super().item_vectors()  # which says that there are none
        self.check_fitted()
        return self.network_.vectors().detach().cpu().numpy(), None

    def _query_block(self, user_items: sp.csr_matrix) -> np.ndarray:
        return self._embed_block(user_items)  # (B, D), x A

    def own_item_terms(self, weights: np.ndarray) -> np.ndarray:
        """Return -x, the second term of f; see `Model.own_item_terms`."""
        return -weights

    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:
        """Load A, whole or compressed as `entries` says; see `Model.load_weights`."""
        if self.entries is None:
            super().load_weights(weights, device)
            self.network_.fix(in_place=False)
            return self
        self.device_, self.shard_ = resolve_device(device), None
        found = {name: np.asarray(weights[f"items.{name}"]) for name in ("columns", "values")}
        self.network_ = CompressedNetwork(SparseItemVectors.load(self.latent_dim, self.entries, **found))
        self.network_.to(self.device_)
        self.n_items_ = self.network_.n_items
        return self

    def similarities(self, columns: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
        """Return cosines of item vectors; see `Model.similarities`."""
        if self.entries is None:
            return super().similarities(columns, others)
        self.check_fitted()
        lengths = self.network_.items.lengths().cpu().numpy()  # (I,)
        of_others = lengths if others is None else lengths[others]  # (O,)
        products = self._products(columns, others) / lengths[columns][:, None] / of_others  # (C, O)
        return np.clip(products, -1, 1)

    def _products(self, columns: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
        """Return a_i . a_j of some items and others, by default all, as scores have them."""
        if self.entries is None:
            return self.similarities(columns, others)  # rows of length 1
        vectors = self.network_.items
        chosen = vectors.rows(torch.as_tensor(columns, device=self.device_))  # (C, D)
        if others is None:
            return vectors.products(chosen).cpu().numpy()
        return (chosen @ vectors.rows(torch.as_tensor(others, device=self.device_)).t()).cpu().numpy()  # (C, O)

    def contributions(
        self,
        user_items: sp.csr_matrix,
        columns: np.ndarray,
        *,
        max_memory: int | None = None,  # noqa: ARG002  (no users are scored)
    ) -> np.ndarray:
        """Return x_i (a_i . a_j - [i = j]), which add up to the score; see `Model.contributions`."""
        history = self._check_histories(user_items)
        products = self._products(history.indices, columns)  # (N, C)
        itself = history.indices[:, None] == np.asarray(columns)  # (N, C)
        return (history.data[:, None] * (products - itself)).astype(np.float32)
