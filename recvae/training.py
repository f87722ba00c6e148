"""The one training loop: epochs of batches, validation, early stopping, checkpoints.

A model hands in a `Task`: its network, its optimiser, its loss, its KL schedule and a way to score. The loop
knows nothing of what they are. Checkpoint selection sees validation users only.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recvae.batches import SparseBatch, SparseBatches
from recvae.checkpoints import Checkpoint, TrainingState
from recvae.errors import BundleError, TrainingError, UsageError
from recvae.interactions import HeldOut
from recvae.metrics import ndcg_at_k
from recvae.ranking import block_rows, rank
from recvae.schedules import Schedule

VALIDATION_K = 100

# Letters in shape comments: B users of a batch, U users, I items.


@dataclass(frozen=True)
class Losses:
    """Means over the users of a batch: what is minimised, and its parts for the log.

    Parameters
    ----------
    total : Tensor of shape ()
        Differentiable; reconstruction + beta * kl.
    reconstruction, kl : Tensor of shape ()
        The negative log-likelihood, and the KL divergence before beta.
    """

    total: torch.Tensor
    reconstruction: torch.Tensor
    kl: torch.Tensor


@dataclass(frozen=True)
class EpochRecord:
    """One line of a run's log.

    Parameters
    ----------
    epoch : int
        From 1.
    loss, reconstruction, kl : float
        Means over the users of the epoch.
    beta : float or None
        Weight of the KL term in the epoch's last update, None where there is no such term.
    ndcg : float or None
        Validation NDCG@100, None without validation users.
    best : bool
        Whether it is higher than in every epoch before, or there is none.
    seconds, users_per_second : float
        Time of the epoch's training, and its speed.
    """

    epoch: int
    loss: float
    reconstruction: float
    kl: float
    beta: float | None
    ndcg: float | None
    best: bool
    seconds: float
    users_per_second: float


class Monitor(Protocol):
    """Whoever watches a run: a progress bar, a log file."""

    def start(self, epochs: int, done: list[EpochRecord]) -> None:
        """Say that a run of so many epochs begins, with the records of those done before it was resumed."""

    def advance(self, epochs_done: float, beta: float | None) -> None:
        """Say how far the run is, in epochs and parts of one, and the KL weight where there is one."""

    def epoch(self, record: EpochRecord) -> None:
        """Say how an epoch went."""


class Silent:
    """A monitor that ignores everything."""

    def start(self, epochs: int, done: list[EpochRecord]) -> None:
        """Ignore it."""

    def advance(self, epochs_done: float, beta: float | None) -> None:
        """Ignore it."""

    def epoch(self, record: EpochRecord) -> None:
        """Ignore it."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a model states about its training.

    Parameters
    ----------
    network : Module
        On the device already.
    optimizer : Optimizer
        Over the network's parameters.
    loss : callable
        (batch, beta, generator) -> Losses; noise is drawn from the generator.
    schedule : callable
        Total number of updates -> Schedule, or None without a KL term.
    score : callable
        Block of users -> Tensor of shape (n_users, n_items), without noise.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[SparseBatch, float, torch.Generator], Losses]
    schedule: Callable[[int], Schedule | None]
    score: Callable[[sp.csr_matrix], torch.Tensor]


@dataclass(kw_only=True)
class History:
    """How a run went.

    Parameters
    ----------
    records : list of EpochRecord
        One per epoch, from the first one on, also across a resumption.
    best_epoch : int
        The epoch whose weights were kept, 0 before the first.
    best_ndcg : float or None
        Its validation NDCG@100.
    interrupted : bool
        Whether the run was stopped by hand before its end.
    stopped_early : bool
        Whether it ended because validation had not improved for `patience` epochs.
    """

    records: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    best_ndcg: float | None = None
    interrupted: bool = False
    stopped_early: bool = False


class Trainer:
    """The state of one run between two epochs, and the loop over them.

    Parameters
    ----------
    task : Task
        What the model states.
    train : csr_matrix of shape (n_users, n_items)
        Training interactions, checked.
    validation : HeldOut, optional
        Users that choose the epoch to keep; without them, the last one is kept.
    epochs, batch_size, patience : int
        Length of the run, users per update, and epochs without improvement before it ends (0: never).
    seed : int
        Seed of the shuffling and of the noise.
    device : torch.device
        Where the network lies.
    """

    def __init__(
        self,
        task: Task,
        train: sp.csr_matrix,
        validation: HeldOut | None,
        *,
        epochs: int,
        batch_size: int,
        patience: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.task = task
        self.validation = validation
        self.epochs, self.patience = epochs, patience
        self.device = device
        self.batches = SparseBatches(train, batch_size, device)
        self.beta = task.schedule(epochs * len(self.batches))
        shuffle_seed, noise_seed = np.random.SeedSequence(seed).generate_state(2, dtype=np.uint64)
        self.shuffle = torch.Generator().manual_seed(int(shuffle_seed >> 1))
        self.noise = torch.Generator(device).manual_seed(int(noise_seed >> 1))
        self.history = History()
        self.updates = 0
        self.best_weights = self._weights()

    def run(self, monitor: Monitor, checkpoint: Checkpoint | None = None) -> History:
        """Train to the end, and leave the best weights in the network.

        Ctrl-C ends the run with the best weights so far, once there is a finished epoch.

        Raises
        ------
        TrainingError
            If the loss is no longer a number.
        UsageError
            If more epochs are done already than the run shall have.
        BundleError
            If a checkpoint to go on from is damaged or belongs to another run.
        """
        if checkpoint is not None and checkpoint.resumes:
            state = checkpoint.load()
            try:
                self._restore(state)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise BundleError(
                    f"{checkpoint.path} does not fit this run ({error}); "
                    "resume on the kind of device it was started on, or train again without --resume"
                ) from error
        done = len(self.history.records)
        if done > self.epochs:
            raise UsageError(f"got epochs={self.epochs}, but {done} are done already; expected {done} or more")
        monitor.start(self.epochs, self.history.records)
        try:
            for epoch in self._epochs_left():
                record = self._epoch(epoch, monitor)
                self.history.records.append(record)
                if checkpoint is not None:
                    checkpoint.save(self._state())
                monitor.epoch(record)
        except KeyboardInterrupt:
            if not self.history.best_epoch:
                raise
            self.history.interrupted = True
        self.task.network.load_state_dict(self.best_weights)
        return self.history

    def _epochs_left(self) -> Iterator[int]:
        for epoch in range(len(self.history.records) + 1, self.epochs + 1):
            if self.patience and self.validation and epoch - 1 - self.history.best_epoch >= self.patience:
                self.history.stopped_early = True
                return
            yield epoch

    def _epoch(self, epoch: int, monitor: Monitor) -> EpochRecord:
        """Train on every user once, then look at the validation users."""
        started = time.perf_counter()
        sums = torch.zeros(3, device=self.device)  # summed on the device: reading each batch would make a GPU wait
        users_done = 0
        beta = None
        self.task.network.train()
        for batch in self.batches.epoch(self.shuffle):
            beta = None if self.beta is None else self.beta(self.updates)
            self.task.optimizer.zero_grad(set_to_none=True)  # before the loss, so that its blocks can be reused
            losses = self.task.loss(batch, beta or 0.0, self.noise)
            losses.total.backward()
            self.task.optimizer.step()
            self.updates += 1
            sums += len(batch) * torch.stack([losses.total, losses.reconstruction, losses.kl]).detach()
            users_done += len(batch)
            monitor.advance(epoch - 1 + users_done / self.batches.n_users, beta)
        loss, reconstruction, kl = (sums / users_done).tolist()
        seconds = time.perf_counter() - started
        if not math.isfinite(loss):
            raise TrainingError(f"the loss became {loss} in epoch {epoch}; lower learning_rate and train again")
        ndcg = None if self.validation is None else validation_ndcg(self.task, self.validation)
        best = self._keep_if_best(epoch, ndcg)
        return EpochRecord(epoch, loss, reconstruction, kl, beta, ndcg, best, seconds, users_done / seconds)

    def _keep_if_best(self, epoch: int, ndcg: float | None) -> bool:
        best = self.history.best_ndcg
        if ndcg is not None and best is not None and ndcg <= best:
            return False
        self.best_weights = self._weights()  # first: an interrupt in between must not label older weights as these
        self.history.best_ndcg, self.history.best_epoch = ndcg, epoch
        return True

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().to("cpu", copy=True) for name, value in self.task.network.state_dict().items()}

    def _state(self) -> TrainingState:
        return TrainingState(
            weights=dict(self.task.network.state_dict()),
            best_weights=self.best_weights,
            optimizer=self.task.optimizer.state_dict()["state"],
            generators={"shuffle": self.shuffle.get_state(), "noise": self.noise.get_state()},
            progress={
                "updates": self.updates,
                "best_epoch": self.history.best_epoch,
                "best_ndcg": self.history.best_ndcg,
                "records": [asdict(record) for record in self.history.records],
            },
        )

    def _restore(self, state: TrainingState) -> None:
        self.task.network.load_state_dict(state.weights)
        groups = self.task.optimizer.state_dict()["param_groups"]
        self.task.optimizer.load_state_dict({"state": state.optimizer, "param_groups": groups})
        self.shuffle.set_state(state.generators["shuffle"])
        self.noise.set_state(state.generators["noise"])
        self.best_weights = state.best_weights
        progress: dict[str, Any] = state.progress
        self.updates = progress["updates"]
        self.history = History(
            records=[EpochRecord(**record) for record in progress["records"]],
            best_epoch=progress["best_epoch"],
            best_ndcg=progress["best_ndcg"],
        )


def validation_ndcg(task: Task, validation: HeldOut) -> float | None:
    """Return the mean NDCG@100 of the validation users, None if none of them has a target."""
    rows = block_rows(validation.fold_in.shape[1])
    values = []
    for start in range(0, validation.n_users, rows):
        fold_in = validation.fold_in[start : start + rows]
        ranked, _ = rank(task.score(fold_in), VALIDATION_K, seen=fold_in)
        values.append(ndcg_at_k(ranked, validation.targets[start : start + rows], VALIDATION_K))
    per_user = np.concatenate(values)  # (U,)
    return None if np.isnan(per_user).all() else float(np.nanmean(per_user))
