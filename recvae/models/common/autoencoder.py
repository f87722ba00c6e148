"""What all autoencoders share: training options, the way through the training loop, scoring and weights.

A model states its network and its loss, and where its paper differs its optimiser, phases, schedule, initialisation,
prior and memory; see `multvae.py`.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recvae.compute.memory import Needs
from recvae.errors import OutOfMemoryError, TrainingError
from recvae.interactions import HeldOut
from recvae.models.common.base import FEWER_ITEMS
from recvae.models.common.fit_options import FitOptions
from recvae.models.common.footprint import BatchFootprint, check_batches, network_needs
from recvae.models.common.graphs import NetworkScorer
from recvae.models.common.hyperparameters import check_hyperparameters, hyperparameter
from recvae.models.common.item_networks import ItemNetwork, ProductNetwork
from recvae.models.common.network_weights import NetworkWeights
from recvae.models.common.networks import initialise
from recvae.models.common.penalties import two_digits
from recvae.models.common.sharing import check_shares, items_of, shard_of, share_of
from recvae.models.common.similarity import cosines
from recvae.models.common.streaming import rows_while_training
from recvae.training.batches import SparseBatch
from recvae.training.records import EpochRecord, History, StopTraining, TrainingSummary, divergence, shortage
from recvae.training.schedules import Schedule
from recvae.training.step_sizes import DECAYS, step_size
from recvae.training.task import Losses, Phase, Task
from recvae.training.trainer import Trainer

# Letters in shape comments: B users of a block, I items, D latent dimensions.

_LEAST_USERS, _MOST_USERS = 32, 500  # per update, where the user has not said

NetworkT = TypeVar("NetworkT", bound=ItemNetwork)


@dataclass(kw_only=True)
class Autoencoder(NetworkWeights, Generic[NetworkT]):
    """A model that encodes a user's row and decodes it into scores of all items."""

    streams: ClassVar[bool] = True
    earlier: ClassVar[Mapping[str, Any]] = {"decay": "none", "warmup": 0.0}

    epochs: int = hyperparameter(200, "passes over the training users", low=1)
    batch_size: int | None = hyperparameter(
        None, "users per update; none: a 25th of the training users, from 32 to 500", low=1
    )
    learning_rate: float = hyperparameter(1e-3, "step size of Adam", low=0)
    decay: str = hyperparameter("none", "how the step size falls to 0 over the epochs", choices=DECAYS)
    warmup: float = hyperparameter(
        0.0, "part of the epochs over which the step size first rises from 0", low=0, high=1, below_high=True
    )
    patience: int = hyperparameter(
        50, "epochs without a better validation NDCG@100 (or select_by) after which training stops; 0: never", low=0
    )
    averaging: float = hyperparameter(
        0.0,
        "share of earlier epochs in a running mean of the weights, which is validated and kept; 0: off",
        low=0,
        high=1,
        below_high=True,
    )
    seed: int = hyperparameter(0, "seed of initialisation, shuffling and noise", low=0, high=2**32 - 1)

    network_: NetworkT = field(init=False, repr=False, compare=False)
    dtype_: torch.dtype = field(default=torch.float32, init=False, repr=False, compare=False)
    device_: torch.device = field(default=torch.device("cpu"), init=False, repr=False, compare=False)
    from_data_: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    history_: History = field(default_factory=History, init=False, repr=False, compare=False)

    def users_per_update(self, n_users: int) -> int:
        """Return `batch_size`, or where it is None what suits the number of users.

        Few users in large batches are few updates: with 500 users per update, citeulike-a has 9 in an epoch.

        Parameters
        ----------
        n_users : int
            Training users.

        Returns
        -------
        int
            A 25th of them to two digits, at least 32 and at most 500.
        """
        if self.batch_size is not None:
            return self.batch_size
        return min(max(int(two_digits(n_users / 25)), _LEAST_USERS), _MOST_USERS)

    @abstractmethod
    def _network(self, n_items: int) -> NetworkT:
        """Return the network, not initialised."""

    @abstractmethod
    def _loss(self, batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:
        """Return the mean losses of a batch, with the noise of training."""

    def _adam(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        """Return Adam on parameters, or on groups of them."""
        return torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)

    def _optimizer(self) -> torch.optim.Optimizer:
        return self._adam(self.network_.parameters())

    def _phases(self) -> Sequence[Phase]:
        """Return what happens in an epoch: one pass over the users, unless a model's paper has more."""
        return [Phase(name="all", optimizer=self._optimizer(), loss=self._loss)]

    def _schedule(self, total_updates: int) -> Schedule | None:  # noqa: ARG002  (models with a KL term have one)
        """Return the weight of the KL term by update, None where there is no such term."""
        return None

    def _step_size(self, total_updates: int) -> Schedule | None:
        """Return the share of the optimisers' step size by update, None where it is always all of it."""
        return step_size(self.decay, self.warmup, total_updates)

    def _prior(self, n_items: int) -> nn.Module | None:  # noqa: ARG002  (some models have one)
        """Return what only training has, not initialised; `_initialise` makes it `network_.prior`."""
        return None

    def _initialise(self, generator: torch.Generator) -> None:
        """Fill the network's weights, with its prior; as Liang et al. unless a model's paper has another way."""
        initialise(self.network_, generator)

    def _footprint(
        self,
        network: ItemNetwork,  # noqa: ARG002  (of those whose last layer is sampled)
        n_users: int,  # noqa: ARG002
        n_interactions: int,  # noqa: ARG002
        *,
        on_gpu: bool,  # noqa: ARG002
    ) -> BatchFootprint:
        """Return what a batch takes in memory, given its number of users and of interactions."""
        return BatchFootprint(blocks=2.0)

    def _begin(self, train: sp.csr_matrix) -> None:
        """Make ready what the loss needs; the network is there, initialised and on its device."""

    def _finish(self) -> None:
        """Let go of what only training needed."""
        if getattr(self.network_, "prior", None) is not None:
            self.network_.prior = None  # scoring needs no prior, so no bundle holds it

    @property
    def uses_device(self) -> bool:
        """Whether it computes on the device that `fit` is given: every network does."""
        return True

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:
        """Count what the network takes, without allocating it; see `Model.needs`."""
        with torch.device("meta"):
            network, prior = self._network(items_of(n_items)), self._prior(items_of(n_items))
        batch = share_of(min(self.users_per_update(n_users), n_users))
        of_batch = batch * n_interactions // max(n_users, 1)
        return network_needs(
            network,
            prior,
            self._footprint(network, batch, of_batch, on_gpu=on_gpu),
            n_users=n_users,
            n_interactions=n_interactions,
            batch_size=batch,
            averaged=self.averaging > 0,
            on_gpu=on_gpu,
        )

    def bytes_of_weights(self, n_items: int) -> tuple[int, int]:
        """Return the bytes of the weights of this process while training, and of Adam's two moments of them."""
        with torch.device("meta"):
            network, prior = self._network(items_of(n_items)), self._prior(items_of(n_items))
        modules = [network] if prior is None else [network, prior]
        every = [parameter for module in modules for parameter in module.parameters()]
        n_bytes = [one.numel() * one.element_size() for one in every]
        return sum(n_bytes), 2 * sum(n for one, n in zip(every, n_bytes, strict=True) if one.requires_grad)

    def check_memory(
        self,
        n_users: int,
        n_items: int,
        n_interactions: int,
        device: str | torch.device = "cpu",
        *,
        max_memory: int | None = None,
    ) -> None:
        """Refuse a network that does not fit, and say which batches would; see `Model.check_memory`."""
        check_hyperparameters(self)
        device = torch.device(device)

        def needs(batch_size: int) -> Needs:
            smaller = replace(self, batch_size=batch_size)
            return smaller.needs(n_users, n_items, n_interactions, on_gpu=device.type == "cuda")

        what, on_gpu = f"{self.name} on {n_items:,} items", device.type == "cuda"
        others = {
            change: lighter.needs(n_users, n_items, n_interactions, on_gpu=on_gpu)
            for change, lighter in self._lighter().items()
        }
        check_batches(
            needs, min(self.users_per_update(n_users), n_users), max_memory, device, what, self._smaller(), others
        )

    def _lighter(self) -> Mapping[str, Self]:
        """Return the same model in ways that need less memory, by what to set."""
        return {}

    def _smaller(self) -> str:
        """Return what could be made smaller if batches cannot."""
        widths = [name for name in ("hidden_dims", "hidden_dim", "latent_dim", "pseudo_inputs") if hasattr(self, name)]
        return f"set a smaller {' or '.join(widths)}, {FEWER_ITEMS}"

    def _fit(self, train: sp.csr_matrix, validation: HeldOut | None, options: FitOptions) -> StopTraining | None:
        """Train from a fresh initialisation.

        The log of the run is in `history_`. On Ctrl-C, and when the loss is no longer a number (`TrainingError`),
        the best weights so far are kept, and the model is fitted with them.
        """
        self.device_ = options.device
        users = self.users_per_update(train.shape[0])
        check_shares(min(users, train.shape[0]), train.shape[1])
        self.from_data_ = {} if self.batch_size is not None else {"batch_size": users}
        self.network_ = self._own_network(train.shape[1])
        # Drawn on the CPU whatever the device, so that a seed means the same weights everywhere.
        self._initialise(torch.Generator().manual_seed(self.seed))
        self.network_.to(self.device_)
        self._begin(train)
        task = Task(
            network=self.network_,
            phases=self._phases(),
            schedule=self._schedule,
            step_size=self._step_size,
            score=self._score_block,
            rows=rows_while_training(self, train, self.device_, options.max_memory),
            codes=self._codes_while_training,
        )
        trainer = Trainer(
            task,
            train,
            validation,
            epochs=self.epochs,
            batch_size=users,
            patience=self.patience,
            averaging=self.averaging,
            seed=self.seed,
            device=self.device_,
            course=options.course,
            select_by=options.select_by,
        )
        try:
            self.history_ = trainer.run(options.monitor, options.checkpoint)
        finally:
            self._finish()
        if not self.history_.best_epoch:
            return self.history_.stop  # before there was anything to keep
        self.n_items_ = train.shape[1]  # fitted, also where an error follows
        kept = f"the weights of epoch {self.history_.best_epoch} are kept"
        if self.history_.diverged_at:
            raise TrainingError(f"{divergence(self.history_)}; {kept}")
        if self.history_.out_of_memory_at:
            raise OutOfMemoryError(f"{shortage(self.history_, trainer.batches.batch_size)}; {kept}")
        return None

    def _own_network(self, n_items: int) -> NetworkT:
        """Return a network of the items of this process, which are all where others do not share them."""
        self.shard_ = shard_of(n_items)
        network = self._network(n_items if self.shard_ is None else self.shard_.n_own)
        network.shard = self.shard_
        return network

    @property
    def log_(self) -> list[EpochRecord]:
        """One record per epoch of the last fit."""
        return self.history_.records

    def training_summary(self) -> TrainingSummary:
        """Return how the last fit went; see `Model.training_summary`."""
        return TrainingSummary(
            interrupted=self.history_.interrupted,
            seconds=sum(record.seconds for record in self.log_),
            device=str(self.device_),
            precision=str(self.dtype_).removeprefix("torch."),
            epochs=len(self.log_),
            best_epoch=self.history_.best_epoch,
            stopped_early=self.history_.stopped_early,
            stopped=None if self.history_.stop is None else self.history_.stop.reason,
            select_by=None if self.history_.best_value is None else self.history_.metric,
            from_data=self.from_data_ or None,
        )

    @torch.no_grad()
    def _score_block(self, user_items: sp.csr_matrix) -> torch.Tensor:
        self._stop_training()
        return self.network_(self._batch(user_items))  # (B, I)

    @torch.no_grad()
    def _embed_block(self, user_items: sp.csr_matrix) -> np.ndarray:
        self._stop_training()
        return self.network_.code(self._batch(user_items)).cpu().numpy()  # (B, D)

    @property
    def has_item_vectors(self) -> bool:
        """Whether the scores are what a linear last layer makes of a user's vector; see `Model.has_item_vectors`."""
        if self.n_items_:
            return isinstance(self.network_, ProductNetwork)
        with torch.device("meta"):
            return isinstance(self._network(1), ProductNetwork)

    def item_vectors(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return weight and bias of the last layer; see `Model.item_vectors`."""
        self.check_fitted()
        if not isinstance(self.network_, ProductNetwork):
            return super().item_vectors()  # which says that there are none
        layer = self.network_.output
        return layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()

    @torch.no_grad()
    def _query_block(self, user_items: sp.csr_matrix) -> np.ndarray:
        assert isinstance(self.network_, ProductNetwork)
        self._stop_training()
        return self.network_.hidden(self._batch(user_items)).cpu().numpy()  # (B, H)

    def scorer(self) -> NetworkScorer:
        """Return the network with its scores; see `Model.scorer`."""
        self.check_fitted()
        return NetworkScorer(self.network_)

    def similarities(self, columns: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
        """Return cosines of the last layer's weights; see `Model.similarities`."""
        self.check_fitted()
        return cosines(self.network_.output.weight.detach().cpu().numpy(), columns, others)
