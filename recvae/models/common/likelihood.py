"""What models with a softmax or another likelihood over all items opt into: its precision, sampling and choice.

ReducedPrecision   products with the item layer in bfloat16 where the hardware multiplies it
ItemLikelihood     a likelihood of a user's row under the item layer, multinomial; the softmax may be sampled or chunked
RowWise            the same; with a sampled softmax, Adam may read and write only the rows that a batch holds
LikelihoodChoice   the same with a choice of likelihoods
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

import scipy.sparse as sp
import torch

from recvae.compute.devices import PRECISIONS, resolve_precision
from recvae.errors import UsageError
from recvae.models.common.autoencoder import Autoencoder
from recvae.models.common.footprint import BatchFootprint, blocks_of
from recvae.models.common.hyperparameters import hyperparameter
from recvae.models.common.item_networks import ItemNetwork, LogitNetwork
from recvae.models.common.networks import SparseLinear, TiedLinear
from recvae.models.common.sharing import check_precision
from recvae.training.batches import SparseBatch
from recvae.training.chunked_softmax import chunked_bytes, chunked_nll
from recvae.training.losses import LIKELIHOODS, output_nll
from recvae.training.row_adam import RowAdam, row_bytes
from recvae.training.sampled_softmax import SAMPLINGS, ItemSampler, sampled_bytes, sampled_nll
from recvae.training.sharded_softmax import sharded_nll

TIED = "one vector for each item, in the first and in the last layer: half as many weights"
"""Meaning of the hyperparameter of networks whose first and last layer may be one."""

LogitNetworkT = TypeVar("LogitNetworkT", bound=LogitNetwork)
_FEW_ITEMS = 4096  # at a time: with batches of 500, what a CPU's cache holds


@dataclass(kw_only=True)
class ReducedPrecision(Autoencoder[LogitNetworkT]):
    """An autoencoder that may multiply with its item layer in bfloat16."""

    precision: str = hyperparameter(
        "auto",
        "number format of the largest products; auto: bfloat16 where the hardware supports it",
        choices=PRECISIONS,
    )

    def _begin(self, train: sp.csr_matrix) -> None:
        super()._begin(train)
        n_items = train.shape[1]  # of the whole network, also where this process has a part of it
        n_weights = n_items * self.network_.output.weight.shape[1]
        self.dtype_ = resolve_precision(self.precision, self.device_, n_weights)
        check_precision(self.dtype_)


@dataclass(kw_only=True)
class ItemLikelihood(ReducedPrecision[LogitNetworkT]):
    """An autoencoder whose loss is the likelihood of a user's row under its item layer."""

    sampling: str = hyperparameter(
        "none",
        "estimate the softmax from sampled items, for catalogues of more than 25,000 items",
        choices=SAMPLINGS,
        only_with=("likelihood", "multinomial"),
    )
    sampled_items: int = hyperparameter(
        8192, "items sampled per batch", low=1, only_with=("sampling", "uniform", "popularity")
    )

    items_at_a_time: int | None = hyperparameter(
        None,
        "items of the softmax at a time, for catalogues whose logits of a batch do not fit into memory; none: all",
        low=1,
        only_with=("likelihood", "multinomial"),
    )

    sampler_: ItemSampler | None = field(default=None, init=False, repr=False, compare=False)
    read_: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def check_together(self) -> None:
        """Refuse a sampled softmax in parts; see `Model.check_together`."""
        super().check_together()
        if self.items_at_a_time is not None and self.sampling != "none":
            raise UsageError(
                f"got items_at_a_time={self.items_at_a_time} with sampling={self.sampling!r}, which never has the "
                "logits of all items; leave one of them out"
            )

    @property
    def needs_all_items(self) -> str | None:
        """Which of its settings needs all items in one process; see `Model.needs_all_items`."""
        if self._likelihood()[0] != "multinomial":
            return f"likelihood={self._likelihood()[0]}"
        if self.sampling != "none":
            return f"sampling={self.sampling}"
        return None if self.items_at_a_time is None else f"items_at_a_time={self.items_at_a_time}"

    def _likelihood(self) -> tuple[str, float]:
        """Return the likelihood's name and the confidence of an interaction; multinomial where there is no choice."""
        return "multinomial", 1.0

    def _nll(self, hidden: torch.Tensor, batch: SparseBatch, generator: torch.Generator) -> torch.Tensor:
        """Return the loss of each user (n_users,) from what the item layer is given, in the precision of this fit."""
        layer = self.network_.output
        if self.sampler_ is not None:
            return sampled_nll(hidden, layer, batch, self.sampler_.draw(generator), self.dtype_, self.read_)
        if self.items_at_a_time is not None:
            return chunked_nll(hidden, layer, batch, self.items_at_a_time, self.dtype_)
        if batch.own is not None:
            return sharded_nll(hidden, layer, batch, self.dtype_)
        return output_nll(hidden, layer, batch, *self._likelihood(), self.dtype_)

    def _begin(self, train: sp.csr_matrix) -> None:
        super()._begin(train)
        if self.sampling != "none":
            self.sampler_ = ItemSampler(train, self.sampled_items, self.sampling, self.device_)

    def _finish(self) -> None:
        super()._finish()
        self.sampler_ = None

    def _footprint(self, network: ItemNetwork, n_users: int, n_interactions: int, *, on_gpu: bool) -> BatchFootprint:
        n_items, width = network.output.weight.shape
        if self.sampling != "none":
            more = sampled_bytes(n_users, n_interactions, self.sampled_items, width)
            return BatchFootprint(blocks=0.0, more=more, gradients_again=1)
        if self.items_at_a_time is not None:
            more = chunked_bytes(n_users, n_items, self.items_at_a_time, width)
            return BatchFootprint(
                blocks=0.0, more=more, gradients_again=1 if isinstance(network.output, TiedLinear) else 2
            )
        # On a GPU all users' part is there at once, which a CPU has piece by piece.
        return BatchFootprint(blocks=blocks_of(self._likelihood()[0]) + on_gpu)

    def _lighter(self) -> Mapping[str, Self]:
        """Return the same model with a softmax in parts, if it may have one; see `Autoencoder._lighter`."""
        if self.sampling != "none" or self.items_at_a_time is not None or self._likelihood()[0] != "multinomial":
            return {}
        return {f"items_at_a_time={_FEW_ITEMS}": replace(self, items_at_a_time=_FEW_ITEMS)}


@dataclass(kw_only=True)
class RowWise(ItemLikelihood[LogitNetworkT]):
    """The same, for networks of which a batch touches only the rows of its own items and of those drawn."""

    row_wise: bool = hyperparameter(
        False,
        "let Adam read and write only the rows of items that a batch holds or draws, for more than 100,000 items",
        only_with=("sampling", "uniform", "popularity"),
    )

    def _adam(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        if not self.row_wise:
            return super()._adam(parameters)
        optimizer = RowAdam(parameters, self.learning_rate)
        learned = {id(one) for group in optimizer.param_groups for one in group["params"]}
        for module in self.network_.modules():
            if isinstance(module, SparseLinear) and id(module.weight) in learned:
                module.catch_up = optimizer.catch_up
        if id(self.network_.output.weight) in learned:
            self.read_ = optimizer.read
        return optimizer

    def _finish(self) -> None:
        super()._finish()
        self.read_ = None
        for module in self.network_.modules():
            if isinstance(module, SparseLinear):
                module.catch_up = None

    def _footprint(self, network: ItemNetwork, n_users: int, n_interactions: int, *, on_gpu: bool) -> BatchFootprint:
        batch = super()._footprint(network, n_users, n_interactions, on_gpu=on_gpu)
        if not self.row_wise:
            return batch
        widths = [module.weight.shape[1] for module in network.modules() if isinstance(module, SparseLinear)]
        widths.append(network.output.weight.shape[1])
        rows = n_interactions + self.sampled_items
        return replace(batch, more=batch.more + row_bytes(rows, sum(widths)), row_wise=True)


@dataclass(kw_only=True)
class LikelihoodChoice(RowWise[LogitNetworkT]):
    """The same with a choice of likelihoods."""

    likelihood: str = hyperparameter(
        "multinomial", "distribution of a user's row given its logits", choices=LIKELIHOODS
    )
    confidence: float = hyperparameter(
        1.0, "weight of an interaction in the Gaussian likelihood", low=1, only_with=("likelihood", "gaussian")
    )

    def _likelihood(self) -> tuple[str, float]:
        return self.likelihood, self.confidence
