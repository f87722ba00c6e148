"""What models with a softmax or another likelihood over all items opt into: its precision, sampling and choice.

ReducedPrecision   products with the item layer in bfloat16 where the hardware multiplies it
ItemLikelihood     a likelihood of a user's row under the item layer, multinomial; the softmax may be sampled
LikelihoodChoice   the same with a choice of likelihoods
"""

from dataclasses import dataclass, field
from typing import TypeVar

import scipy.sparse as sp
import torch

from recvae.compute.devices import PRECISIONS, resolve_precision
from recvae.models.common.autoencoder import Autoencoder
from recvae.models.common.footprint import BatchFootprint, blocks_of
from recvae.models.common.hyperparameters import hyperparameter
from recvae.models.common.networks import ItemNetwork, LogitNetwork
from recvae.training.batches import SparseBatch
from recvae.training.losses import LIKELIHOODS, output_nll
from recvae.training.sampled_softmax import SAMPLINGS, ItemSampler, sampled_bytes, sampled_nll

LogitNetworkT = TypeVar("LogitNetworkT", bound=LogitNetwork)


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
        self.dtype_ = resolve_precision(self.precision, self.device_, self.network_.output.weight.numel())


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

    sampler_: ItemSampler | None = field(default=None, init=False, repr=False, compare=False)

    def _likelihood(self) -> tuple[str, float]:
        """Return the likelihood's name and the confidence of an interaction; multinomial where there is no choice."""
        return "multinomial", 1.0

    def _nll(self, hidden: torch.Tensor, batch: SparseBatch, generator: torch.Generator) -> torch.Tensor:
        """Return the loss of each user (n_users,) from what the item layer is given, in the precision of this fit."""
        layer = self.network_.output
        if self.sampler_ is not None:
            return sampled_nll(hidden, layer, batch, self.sampler_.draw(generator), self.dtype_)
        return output_nll(hidden, layer, batch, *self._likelihood(), self.dtype_)

    def _begin(self, train: sp.csr_matrix) -> None:
        super()._begin(train)
        if self.sampling != "none":
            self.sampler_ = ItemSampler(train, self.sampled_items, self.sampling, self.device_)

    def _finish(self) -> None:
        super()._finish()
        self.sampler_ = None

    def _footprint(self, network: ItemNetwork, n_users: int, n_interactions: int, *, on_gpu: bool) -> BatchFootprint:
        if self.sampling != "none":
            width = network.output.weight.shape[1]
            return BatchFootprint(blocks=0.0, more=sampled_bytes(n_users, n_interactions, self.sampled_items, width))
        # On a GPU all users' part is there at once, which a CPU has piece by piece.
        return BatchFootprint(blocks=blocks_of(self._likelihood()[0]) + on_gpu)


@dataclass(kw_only=True)
class LikelihoodChoice(ItemLikelihood[LogitNetworkT]):
    """The same with a choice of likelihoods."""

    likelihood: str = hyperparameter(
        "multinomial", "distribution of a user's row given its logits", choices=LIKELIHOODS
    )
    confidence: float = hyperparameter(
        1.0, "weight of an interaction in the Gaussian likelihood", low=1, only_with=("likelihood", "gaussian")
    )

    def _likelihood(self) -> tuple[str, float]:
        return self.likelihood, self.confidence
