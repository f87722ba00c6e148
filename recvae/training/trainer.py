"""The one training loop: epochs of batches, validation, early stopping, checkpoints.

A model hands in a `Task`: its network, its phases (an optimiser and a loss each), its KL schedule and a way to
score. The loop knows nothing of what they are. Checkpoint selection sees validation users only.

Several processes (`recvae.compute.ranks`) share the users of each batch, or the items of the network, and go through
the same loop (`recvae.training.sharing`); the first one writes and tells.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.allocator import kept_blocks
from recvae.compute.ranks import current
from recvae.datasets.streams import first_users
from recvae.errors import BundleError, OutOfMemoryError, TrainingError, UsageError, is_out_of_memory
from recvae.interactions import HeldOut
from recvae.metrics import Metric
from recvae.training.averaging import WeightAverage
from recvae.training.batch_parts import Share
from recvae.training.checkpoints import Checkpoint, TrainingState
from recvae.training.details import DetailedMonitor, EpochDetails
from recvae.training.latents import LOOKED_AT, LatentRecord
from recvae.training.records import EpochRecord, History, Monitor, NullMonitor, divergence, shortage
from recvae.training.refits import Course
from recvae.training.row_adam import RowAdam
from recvae.training.schedules import stretched
from recvae.training.sharing import Sharing
from recvae.training.step_sizes import StepSizes
from recvae.training.task import Losses, Phase, Task
from recvae.training.validation import OBJECTIVE, look_at, other_metric

# Letters in shape comments: B users of a batch, U users, I items.


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
    averaging : float
        Share of the running mean of weights that validation sees and that is kept; see `WeightAverage`.
    course : Course, optional
        How many of the epochs to train, where another run has chosen that.
    select_by : Metric
        What the epoch to keep is chosen by, the highest mean over the validation users.
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
        averaging: float = 0.0,
        course: Course | None = None,
        select_by: Metric = OBJECTIVE,
    ) -> None:
        self.task, self.ranks, self.n_users = task, current(), train.shape[0]
        self.validation, self.metric = validation, select_by
        # Whose codes are looked at:
        self.looked_at = first_users(train, LOOKED_AT) if validation is None else validation.fold_in
        self.look = look_at(validation, select_by, train, self.ranks)
        self.epochs, self.patience = course.epochs if course else epochs, patience
        self.device = device
        self.sharing = Sharing(task.network, self.ranks)
        self.batches = self.sharing.batches(train, batch_size, device)
        self.passes = sum(phase.passes for phase in task.phases)
        before = -(-course.n_users // batch_size) if course else len(self.batches)
        planned = epochs * self.passes * before
        rise, share = task.schedule(planned), task.step_size(planned)
        self.beta = None if rise is None else stretched(rise, before, len(self.batches))
        share = None if share is None else stretched(share, before, len(self.batches))
        self.step_sizes = StepSizes([phase.optimizer for phase in task.phases], share)
        shuffle_seed, noise_seed = np.random.SeedSequence(seed).generate_state(2, dtype=np.uint64)
        self.shuffle = torch.Generator().manual_seed(int(shuffle_seed >> 1))
        self.noise = torch.Generator(device).manual_seed(int(noise_seed >> 1))
        self.history = History(metric=select_by.path)
        self.updates = 0
        self._has_kl = False
        self._codes: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)  # of the last epoch
        self.average = WeightAverage(task.network, averaging)
        self.best_weights = self._weights()

    def run(self, monitor: Monitor, checkpoint: Checkpoint | None = None) -> History:
        """Train to the end, and leave the best weights in the network.

        Ctrl-C, a loss that is no longer a number, or its monitor ends the run with the best weights so far, once
        there is a finished epoch; `History` says so. Stopped by the monitor before that, there are none to keep.

        Raises
        ------
        TrainingError
            If the loss is no longer a number in the first epoch.
        UsageError
            If more epochs are done already than the run shall have.
        BundleError
            If a checkpoint to go on from is damaged or belongs to another run.
        """
        if not self.ranks.leads:
            monitor, checkpoint = NullMonitor(), None
        self._resume(checkpoint)
        done = len(self.history.records)
        if done > self.epochs:
            raise UsageError(f"got epochs={self.epochs}, but {done} are done already; expected {done} or more")
        monitor.start(self.epochs, self.history.records)
        try:
            with self.ranks.together(), kept_blocks(self.device):
                self._train(monitor, checkpoint)
        except KeyboardInterrupt:
            if not self.history.best_epoch:
                raise
            self.history.interrupted = True
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._end_without_memory(error)
        self.task.network.load_state_dict(self.best_weights)
        return self.history

    def _resume(self, checkpoint: Checkpoint | None) -> None:
        """Continue from a checkpoint, if it says so; it is read by the first of several processes."""
        state = self.sharing.load(checkpoint, self.task.phases)
        if state is None:
            return
        where = "the checkpoint of the first process" if checkpoint is None else checkpoint.path
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BundleError(
                f"{where} does not fit this run ({error}); "
                "resume on the kind of device it was started on, or train again without --resume"
            ) from error
        if self.history.metric != self.metric.path:
            raise BundleError(f"{where} {other_metric(self.history.metric, self.metric)}")

    def _train(self, monitor: Monitor, checkpoint: Checkpoint | None) -> None:
        for epoch in self._epochs_left():
            record = self._epoch(epoch, monitor)
            if record is None:
                return
            if checkpoint is not None or self.ranks.by_items:
                self.sharing.save(checkpoint, self._state(), self.task.phases)
            self._tell_details(epoch, monitor)
            self.history.stop = self.sharing.of_all(monitor.epoch(record))
            if self.history.stop is not None:
                return

    def _end_without_memory(self, error: Exception) -> None:
        """Note that memory ran out, and give back what the update had, for the best weights to be scored with."""
        self.history.out_of_memory_at = self.updates + 1
        if not self.history.best_epoch:
            raise OutOfMemoryError(f"{shortage(self.history, self.batches.batch_size)} ({error})") from error
        for phase in self.task.phases:
            phase.optimizer.zero_grad(set_to_none=True)
            phase.optimizer.state.clear()

    def _epochs_left(self) -> Iterator[int]:
        for epoch in range(len(self.history.records) + 1, self.epochs + 1):
            if self.patience and self.validation and epoch - 1 - self.history.best_epoch >= self.patience:
                self.history.stopped_early = True
                return
            yield epoch

    def _epoch(self, epoch: int, monitor: Monitor) -> EpochRecord | None:
        """Go through all phases, then look at the validation users; None if the epoch did not come to its end.

        It does not if the monitor stops training, or the loss is no longer a number.
        """
        started = time.perf_counter()
        first_update = self.updates
        self.task.network.train()
        passes: list[torch.Tensor] = []
        for phase in self._passes_of_an_epoch():
            passes.append(self._pass(phase, monitor))
            if self.history.stop is not None:
                return None
        losses = torch.cat(passes).cpu()  # (updates of the epoch, 4)
        seconds = time.perf_counter() - started
        broken = (~losses.isfinite()).any(dim=1).nonzero()  # updates whose loss is no number
        # The last update, whose effect no loss has shown yet, may have left weights that are no numbers.
        if len(broken) or not self.sharing.weights_are_finite():
            self.history.diverged_at = first_update + 1 + int(broken[0]) if len(broken) else self.updates
            if not self.history.best_epoch:
                raise TrainingError(divergence(self.history))
            return None
        self.sharing.check_in_step(epoch, {"shuffle": self.shuffle, "noise": self.noise})
        of_first_phase = torch.cat(passes[: self.task.phases[0].passes]).cpu().double()
        means = (of_first_phase[:, :3] * of_first_phase[:, 3:]).sum(dim=0) / of_first_phase[:, 3].sum()
        loss, reconstruction, mean_kl = means.tolist()
        kl = mean_kl if self._has_kl else None
        beta = None if self.beta is None else self.beta(self.updates - 1)
        self.average.add(epoch)
        with self.average.in_place():
            ndcg, value = self.look(self.task.score, self.task.rows)
            if self.task.codes is not None and self.sharing.sees_codes:
                self._codes = self.task.codes(self.looked_at)
            best = self._is_best(value)
            weights = self._weights() if best else self.best_weights
        known = (epoch, loss, reconstruction, kl, beta, ndcg, best, seconds, self.passes * self.n_users / seconds)
        mean, logvar = self._codes
        of_latent = {} if mean is None else asdict(LatentRecord.of(mean, logvar))
        record = EpochRecord(*known, **of_latent, metric=self.metric.path, value=value)
        if self.ranks.several:
            self.ranks.check()
            record = EpochRecord(**self.ranks.from_first(asdict(record)))
        self._keep(record, weights)
        return record

    def _tell_details(self, epoch: int, monitor: Monitor) -> None:
        """Hand over what is there anyway, once, to a monitor that has asked for it."""
        (mean, logvar), self._codes = self._codes, (None, None)
        if isinstance(monitor, DetailedMonitor):
            sizes = {phase.name: float(phase.optimizer.param_groups[0]["lr"]) for phase in self.task.phases}
            monitor.details(EpochDetails(epoch=epoch, step_sizes=sizes, mean=mean, logvar=logvar))

    def _passes_of_an_epoch(self) -> Iterator[Phase]:
        for phase in self.task.phases:
            self.task.network.requires_grad_(False)  # what stands still needs no gradient
            for parameter in phase.parameters():
                parameter.requires_grad_(True)
            for _ in range(phase.passes):
                yield phase
            if isinstance(phase.optimizer, RowAdam):
                phase.optimizer.catch_up()  # all rows are read now
            phase.optimizer.zero_grad(set_to_none=True)  # what comes now needs the room, and no gradient
            if phase.after is not None:
                phase.after()

    def _pass(self, phase: Phase, monitor: Monitor) -> torch.Tensor:
        """Train on every user once, unless stopped; return total, reconstruction, KL and users of each update."""
        rows = []  # left on the device: reading each would make a GPU wait
        wish = None
        for batch in self.batches.epoch(self.shuffle):
            beta = None if self.beta is None else self.beta(self.updates)
            phase.optimizer.zero_grad(set_to_none=True)  # before the loss, so that its blocks can be reused
            losses = phase.loss(batch, beta or 0.0, self.noise)
            row = self._backward(losses, len(batch), batch.share)
            if self.ranks.several:
                gradients = self.sharing.gradients(phase.parameters())
                self.history.stop = self.sharing.of_all(wish, gradients.n_numbers)
                if self.history.stop is not None:  # wished after the update before
                    break
                gradients.sum(self.ranks)
            self.step_sizes.set(self.updates)
            phase.optimizer.step()
            self.updates += 1
            rows.append(row)
            wish = monitor.advance(self.updates / (self.passes * len(self.batches)), beta)
            if wish is not None and not self.ranks.several:
                break
        else:
            wish = self.sharing.of_all(wish)
        self.history.stop = self.history.stop or wish
        found = torch.stack(rows)
        if self.history.stop is None:
            self.sharing.sum_losses(found)
        return found

    def _backward(self, losses: Losses, n_users: int, share: Share | None) -> torch.Tensor:
        """Find the gradients; return total, reconstruction, KL and users, of which the sum over processes counts."""
        self._has_kl |= losses.kl is not None
        kl = losses.total.new_zeros(()) if losses.kl is None else losses.kl
        parts = torch.stack([losses.total, losses.reconstruction, kl]).detach()
        if share is None:
            losses.total.backward()
            return torch.cat([parts, parts.new_full((1,), n_users)])  # made on the device
        (losses.total * share.weight).backward()
        return torch.cat([parts * share.weight, parts.new_full((1,), share.counted)])

    def _is_best(self, value: float | None) -> bool:
        best = self.history.best_value
        return value is None or best is None or value > best

    def _keep(self, record: EpochRecord, weights: dict[str, torch.Tensor]) -> None:
        """Note an epoch, and that it is the best: at once and last, so that an interrupt finds both or neither."""
        if record.best:
            self.best_weights = weights  # first: an interrupt in between must not label older weights as these
            history = self.history
            history.best_value, history.best_ndcg, history.best_epoch = record.value, record.ndcg, record.epoch
        self.history.records.append(record)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().to("cpu", copy=True) for name, value in self.task.network.state_dict().items()}

    def _state(self) -> TrainingState:
        return TrainingState(
            weights=dict(self.task.network.state_dict()),
            best_weights=self.best_weights,
            average=self.average.mean,
            optimizers={phase.name: phase.optimizer.state_dict()["state"] for phase in self.task.phases},
            generators={"shuffle": self.shuffle.get_state(), "noise": self.noise.get_state()},
            progress={"updates": self.updates, **self.history.to_progress()},
        )

    def _restore(self, state: TrainingState) -> None:
        self.task.network.load_state_dict(state.weights)
        for phase in self.task.phases:
            groups = phase.optimizer.state_dict()["param_groups"]
            phase.optimizer.load_state_dict({"state": state.optimizers[phase.name], "param_groups": groups})
        self.shuffle.set_state(state.generators["shuffle"])
        self.noise.set_state(state.generators["noise"])
        self.best_weights = state.best_weights
        self.average.mean = {name: value.to(self.device) for name, value in state.average.items()}
        progress: dict[str, Any] = state.progress
        self.updates = progress["updates"]
        self.history = History.of_progress(progress)
