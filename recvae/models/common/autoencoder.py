"""What all autoencoders share: training options, the way through the training loop, scoring and weights.

A model adds its network, its loss and its optimiser; see `multvae.py`.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recvae.compute.devices import PRECISIONS, resolve_device, resolve_precision
from recvae.compute.memory import Needs, rows_within
from recvae.errors import OutOfMemoryError, TrainingError
from recvae.interactions import HeldOut, as_interactions
from recvae.models.common.base import Model
from recvae.models.common.footprint import blocks_of, check_batches, network_needs
from recvae.models.common.hyperparameters import check_hyperparameters, hyperparameter
from recvae.models.common.networks import initialise
from recvae.models.common.scorers import NetworkScorer
from recvae.models.common.similarity import cosines
from recvae.ranking import block_rows
from recvae.training.batches import SparseBatch, whole_batch
from recvae.training.checkpoints import Checkpoint
from recvae.training.losses import output_nll
from recvae.training.records import EpochRecord, History, Monitor, NullMonitor, divergence, shortage
from recvae.training.sampled_softmax import SAMPLINGS, ItemSampler, sampled_bytes, sampled_nll
from recvae.training.schedules import Schedule
from recvae.training.trainer import Losses, Phase, Task, Trainer

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
        "estimate the softmax from drawn items, for catalogues past 25,000",
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
        """Return the network, not initialised; its last layer, with an output per item, is its `output`."""

    @abstractmethod
    def _loss(self, batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:
        """Return the mean losses of a batch, with the noise of training."""

    @abstractmethod
    def _logits(self, batch: SparseBatch) -> torch.Tensor:
        """Return the scores (B, I) of a batch, without any noise."""

    @abstractmethod
    def _code(self, batch: SparseBatch) -> torch.Tensor:
        """Return what the encoder makes of a batch (B, D), without any noise."""

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

    def _prior(self, n_items: int) -> nn.Module | None:  # noqa: ARG002  (some models have one)
        """Return what only training has beside the network, not initialised."""
        return None

    def _blocks(self) -> tuple[float, float]:
        """Return how many blocks of users x items there are at the peak of an update, and while scoring."""
        return blocks_of(self._likelihood()[0]), 1.2

    def _noise_bytes(self, n_items: int, n_users: int) -> int:  # noqa: ARG002  (some models draw for all items)
        """Return what an update of so many users takes besides."""
        return 0

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:
        """Count what the network takes, without allocating it; see `Model.needs`."""
        with torch.device("meta"):
            network, prior = self._network(n_items), self._prior(n_items)
        blocks, scoring_blocks = self._blocks()
        batch = min(self.batch_size, n_users)
        update = self._noise_bytes(n_items, batch)
        if self.sampling != "none":
            width = max((p.shape[1] for p in network.parameters() if p.dim() == 2 and len(p) == n_items), default=0)
            update += sampled_bytes(batch, batch * n_interactions // max(n_users, 1), self.sampled_items, width)
            blocks = 0.0
        elif on_gpu:
            blocks += 1  # all users' part at once, which a CPU has piece by piece
        return network_needs(
            network,
            prior,
            shape=(n_users, n_items),
            n_interactions=n_interactions,
            batch_size=self.batch_size,
            blocks=blocks,
            scoring_blocks=scoring_blocks,
            noise_bytes=update,
            averaged=self.averaging > 0,
            on_gpu=on_gpu,
        )

    def check_memory(self, n_users: int, n_items: int, n_interactions: int, device: str | torch.device = "cpu") -> None:
        """Refuse a network that cannot fit, and say which batches would; see `Model.check_memory`."""
        check_hyperparameters(self)
        device = torch.device(device)

        def needs(batch_size: int) -> Needs:
            smaller = replace(self, batch_size=batch_size)
            return smaller.needs(n_users, n_items, n_interactions, on_gpu=device.type == "cuda")

        what = f"{self.name} on {n_items:,} items"
        check_batches(needs, min(self.batch_size, n_users), self.max_memory, device, what, self._smaller())

    def _smaller(self) -> str:
        """Say what could be made smaller beside batches."""
        widths = [name for name in ("hidden_dims", "hidden_dim", "latent_dim", "pseudo_inputs") if hasattr(self, name)]
        return f"take smaller {', '.join(widths)}, or leave out rare items (recvae preprocess --min-item-users)"

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
        self.check_memory(*train.shape, train.nnz, self.device_)
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
            rows=self._rows_while_training(train),
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
            self.history_ = trainer.run(monitor or NullMonitor(), checkpoint)
        finally:
            self.sampler_ = None
            self._finish()
        if not self.history_.best_epoch:
            return self  # stopped by its monitor before there was anything to keep
        self.n_items_ = train.shape[1]
        kept = f"the weights of epoch {self.history_.best_epoch} are kept"
        if self.history_.diverged_at:
            raise TrainingError(f"{divergence(self.history_)}; {kept}")
        if self.history_.out_of_memory_at:
            raise OutOfMemoryError(f"{shortage(self.history_, self.batch_size)}; {kept}")
        return self

    def _rows_while_training(self, train: sp.csr_matrix) -> int:
        """Return how many validation users to score at a time beside everything that training holds."""
        needs = self.needs(*train.shape, train.nnz, on_gpu=self.device_.type == "cuda")
        return rows_within(self.max_memory, needs.held, needs.per_user, block_rows(train.shape[1]))

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
            **({} if self.history_.stop is None else {"stopped": self.history_.stop.reason}),
        }

    def _stop_training(self) -> None:
        if self.network_.training:  # looked up once: telling every layer takes longer than some of them
            self.network_.eval()

    @torch.no_grad()
    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        self._stop_training()
        return self._logits(whole_batch(user_items, self.device_))  # (B, I)

    @torch.no_grad()
    def _embed_block(self, user_items: sp.csr_matrix) -> np.ndarray:
        self._stop_training()
        return self._code(whole_batch(user_items, self.device_)).cpu().numpy()  # (B, D)

    def scorer(self) -> NetworkScorer:
        """Return the network with its logits; see `Model.scorer`."""
        self.check_fitted()
        return NetworkScorer(self.network_, self._logits)

    def similarities(self, columns: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
        """Return cosines of the last layer's weights; see `Model.similarities`."""
        self.check_fitted()
        output = cast(Any, self.network_).output
        return cosines(output.weight.detach().cpu().numpy(), columns, others)

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
