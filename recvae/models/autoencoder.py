"""What all autoencoders share: training options, the way through the training loop, scoring and weights.

A model adds its network, its loss and its optimiser; see `multvae.py`.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recvae.batches import SparseBatch, resolve_device, whole_batch
from recvae.checkpoints import Checkpoint
from recvae.errors import TrainingError
from recvae.history import EpochRecord, History, Monitor, Silent, divergence
from recvae.hyperparameters import check_hyperparameters, hyperparameter
from recvae.interactions import HeldOut, as_interactions
from recvae.losses import output_nll
from recvae.models.base import Model
from recvae.models.networks import initialise
from recvae.precision import PRECISIONS, resolve_precision
from recvae.sampled_softmax import SAMPLINGS, ItemSampler, sampled_nll
from recvae.schedules import Schedule
from recvae.training import Losses, Phase, Task, Trainer

# Letters in shape comments: B users of a block, I items.


@dataclass(kw_only=True)
class Autoencoder(Model):
    """A model that encodes a user's row and decodes it into scores of all items."""

    epochs: int = hyperparameter(200, "passes over the training users", low=1)
    batch_size: int = hyperparameter(500, "users per update", low=1)
    learning_rate: float = hyperparameter(1e-3, "step size of Adam", low=0)
    patience: int = hyperparameter(50, "epochs without a better validation NDCG@100 before it ends; 0: never", low=0)
    averaging: float = hyperparameter(
        0.0,
        "share that earlier epochs keep of a running mean of weights, which is validated and kept; 0: none",
        low=0,
        high=1,
        below_high=True,
    )
    precision: str = hyperparameter(
        "auto", "numbers of the largest products; auto: bfloat16 where the hardware multiplies it", choices=PRECISIONS
    )
    sampling: str = hyperparameter(
        "none",
        "estimate the softmax from drawn items, for catalogues past 50,000",
        choices=SAMPLINGS,
        only_with=("likelihood", "multinomial"),
    )
    sampled_items: int = hyperparameter(
        8192, "draws per batch for that", low=1, only_with=("sampling", "uniform", "popularity")
    )
    seed: int = hyperparameter(0, "seed of initialisation, shuffling and noise", low=0, high=2**32 - 1)

    network_: nn.Module = field(default_factory=nn.Module, init=False, repr=False, compare=False)
    dtype_: torch.dtype = field(default=torch.float32, init=False, repr=False, compare=False)
    sampler_: ItemSampler | None = field(default=None, init=False, repr=False, compare=False)
    device_: torch.device = field(default=torch.device("cpu"), init=False, repr=False, compare=False)
    history_: History = field(default_factory=History, init=False, repr=False, compare=False)

    @abstractmethod
    def _network(self, n_items: int) -> nn.Module:
        """Return the network, not initialised."""

    @abstractmethod
    def _loss(self, batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:
        """Return the mean losses of a batch, with the noise of training."""

    @abstractmethod
    def _logits(self, batch: SparseBatch) -> torch.Tensor:
        """Return the scores (B, I) of a batch, without any noise."""

    def _nll(
        self,
        hidden: torch.Tensor,
        layer: nn.Linear,
        batch: SparseBatch,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Return the loss of each user (n_users,) under a last layer, in the precision of this fit."""
        if self.sampler_ is not None:
            return sampled_nll(hidden, layer, batch, self.sampler_.draw(generator), self.dtype_)
        return output_nll(hidden, layer, batch, *self._likelihood(), self.dtype_)

    def _output_size(self, n_items: int) -> int:
        """Return the number of weights of the layer that makes the logits."""
        layers = (module for module in self.network_.modules() if isinstance(module, nn.Linear))
        return max((layer.weight.numel() for layer in layers if layer.out_features == n_items), default=0)

    def _likelihood(self) -> tuple[str, float]:
        """Return the likelihood's name and the confidence of an interaction; multinomial where there is no choice."""
        return "multinomial", 1.0

    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network_.parameters(), lr=self.learning_rate, fused=True)

    def _phases(self) -> Sequence[Phase]:
        """Return what happens in an epoch: one pass over the users, unless a model's paper has more."""
        return [Phase(name="all", optimizer=self._optimizer(), loss=self._loss)]

    def _check_memory(self, n_items: int, device: torch.device) -> None:
        """Refuse what cannot fit; a network whose size grows with items x items has something to say here."""

    def _finish(self) -> None:
        """Let go of what only training needed."""

    def _initialise(self, generator: torch.Generator) -> None:
        """Fill the network's weights; as Liang et al. unless a model's paper has another way."""
        initialise(self.network_, generator)

    def _schedule(self, total_updates: int) -> Schedule | None:  # noqa: ARG002  (variational models need it)
        return None

    def fit(
        self,
        train: sp.csr_matrix,
        validation: HeldOut | tuple[Any, Any] | None = None,
        *,
        device: str | torch.device = "auto",
        monitor: Monitor | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """Train from a fresh initialisation; see `Model.fit`.

        The log of the run is in `history_`. On Ctrl-C, and when the loss is no longer a number (`TrainingError`),
        the best weights so far are kept, and the model is fitted with them.
        """
        check_hyperparameters(self)
        train = as_interactions(train, "the training interactions")
        held_out = None if validation is None else HeldOut.of(validation, train.shape[1])
        self.device_ = resolve_device(device)
        self._check_memory(train.shape[1], self.device_)
        self.n_items_ = 0  # not fitted until the loop has ended well
        self.network_ = self._network(train.shape[1])
        # Drawn on the CPU whatever the device, so that a seed means the same weights everywhere.
        self._initialise(torch.Generator().manual_seed(self.seed))
        self.network_.to(self.device_)
        self.dtype_ = resolve_precision(self.precision, self.device_, self._output_size(train.shape[1]))
        draws = None if self.sampling == "none" else self.sampled_items
        self.sampler_ = None if draws is None else ItemSampler(train, draws, self.sampling, self.device_)
        task = Task(
            network=self.network_,
            phases=self._phases(),
            schedule=self._schedule,
            score=self._score_block,
        )
        trainer = Trainer(
            task,
            train,
            held_out,
            epochs=self.epochs,
            batch_size=self.batch_size,
            patience=self.patience,
            averaging=self.averaging,
            seed=self.seed,
            device=self.device_,
        )
        try:
            self.history_ = trainer.run(monitor or Silent(), checkpoint)
        finally:
            self.sampler_ = None
            self._finish()
        self.n_items_ = train.shape[1]
        if self.history_.diverged_at:
            kept = f"the weights of epoch {self.history_.best_epoch} are kept"
            raise TrainingError(f"{divergence(self.history_)}; {kept}")
        return self

    @property
    def log_(self) -> list[EpochRecord]:
        """One record per epoch of the last fit."""
        return self.history_.records

    def training_summary(self) -> dict[str, Any]:
        """Say how the last fit went; see `Model.training_summary`."""
        return {
            "interrupted": self.history_.interrupted,
            "seconds": sum(record.seconds for record in self.log_),
            "device": str(self.device_),
            "precision": str(self.dtype_).removeprefix("torch."),
            "epochs": len(self.log_),
            "best_epoch": self.history_.best_epoch,
            "stopped_early": self.history_.stopped_early,
        }

    @torch.no_grad()
    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        self.network_.eval()
        return self._logits(whole_batch(user_items, self.device_))  # (B, I)

    def weights(self) -> dict[str, np.ndarray]:
        """Return the network's weights; see `Model.weights`."""
        self.check_fitted()
        return {name: value.detach().cpu().numpy() for name, value in self.network_.state_dict().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:
        """Take over a network's weights; see `Model.load_weights`."""
        self.device_ = resolve_device(device)
        n_items = len(weights[self._item_weight])
        self.network_ = self._network(n_items)
        tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()}
        self.network_.load_state_dict(tensors, assign=True)
        self.network_.requires_grad_(False).to(self.device_)
        self.n_items_ = n_items
        return self

    _item_weight = "encoder.0.weight"
    """Name of a weight with one row per item."""
