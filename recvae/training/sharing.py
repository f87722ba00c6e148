"""What several processes do together in the course of training, whichever they share: users or items.

Those that share users have the whole network each, and add up gradients. Those that share items have all users, and
each has the rows of its own items; of all else, which all have, the gradients are the same in all of them.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import scipy.sparse as sp
import torch
from torch import nn

from recvae.compute.ranks import Ranks
from recvae.errors import TrainingError
from recvae.training.batches import SparseBatches
from recvae.training.checkpoints import Checkpoint, TrainingState, of_first
from recvae.training.gradients import SharedGradients
from recvae.training.records import StopTraining
from recvae.training.shard_files import load_shards, save_shards
from recvae.training.shards import Shard


class Sharing:
    """What one of several processes that train a network has in common with the others.

    Parameters
    ----------
    network : Module
        Which is trained; with a `shard` and `item_parameters`, where items are shared.
    ranks : Ranks
        Which of the processes this one is.
    """

    def __init__(self, network: nn.Module, ranks: Ranks) -> None:
        self.ranks, self._network = ranks, network
        self.shard: Shard | None = getattr(network, "shard", None) if ranks.by_items else None

    @property
    def sees_codes(self) -> bool:
        """Whether this process finds the codes of users: all do together where they share items."""
        return self.ranks.leads or self.shard is not None

    def batches(self, train: sp.csr_matrix, batch_size: int, device: torch.device) -> SparseBatches:
        """Return what this process has of the batches."""
        if self.shard is not None:
            return SparseBatches(train, batch_size, device, of_items=self.shard.of_batch)
        return SparseBatches(train, batch_size, device, rank=self.ranks.rank, world_size=self.ranks.size)

    def gradients(self, parameters: Iterable[nn.Parameter]) -> SharedGradients:
        """Return the gradients that are to be added up: none where items are shared."""
        return SharedGradients(parameters if self.ranks.by_users else [])

    def sum_losses(self, losses: torch.Tensor) -> None:
        """Add up the losses of the processes' users, where each has a part of them."""
        if self.ranks.by_users:
            self.ranks.sum(losses)

    def of_all(self, wish: StopTraining | None, n_numbers: int = 0) -> StopTraining | None:
        """Return the wish of the first process to end training, once all have come and are well."""
        if not self.ranks.several or not self.ranks.check(wish=wish is not None, same=n_numbers):
            return wish
        return StopTraining(self.ranks.from_first(wish and wish.reason))

    def weights_are_finite(self) -> bool:
        """Whether the weights of all processes are numbers."""
        own = all(bool(value.sum().isfinite()) for value in self._network.parameters())
        return not self.ranks.check(wish=not own)

    def check_in_step(self, epoch: int, generators: Mapping[str, torch.Generator]) -> None:
        """Refuse to go on with processes that have not the same weights and noise, whatever the reason."""
        if not self.ranks.several:
            return
        own = self._of_items()
        state = [value for name, value in self._network.state_dict().items() if name not in own]
        state += [generator.get_state() for generator in generators.values()]
        sums = [int(value.contiguous().view(-1).view(torch.uint8).sum(dtype=torch.int64)) for value in state]
        self.ranks.check()
        self.ranks.check_alike(
            {"sums of bytes": sums},
            f"weights and noise after epoch {epoch}",
            "use machines with one kind of processor; a loss of your own draws noise by recvae.training.draws",
            TrainingError,
        )

    def _of_items(self) -> set[str]:
        """Return the names of the weights that this process has of its own items alone."""
        return set() if self.shard is None else set(self._item_parameters())

    def _item_parameters(self) -> dict[str, nn.Parameter]:
        found: Any = self._network
        return found.item_parameters()

    def save(self, checkpoint: Checkpoint | None, state: TrainingState, phases: Iterable[Any]) -> None:
        """Write a checkpoint, in which everything is whole; only the first process has one."""
        if self.shard is not None:
            save_shards(checkpoint, state, self.shard, set(self._names(phases)))
        elif checkpoint is not None:
            checkpoint.save(state)

    def load(self, checkpoint: Checkpoint | None, phases: Iterable[Any]) -> TrainingState | None:
        """Return what this process needs of the checkpoint to go on from, which the first one reads; None without."""
        resumes = checkpoint is not None and checkpoint.resumes
        if self.shard is not None:
            return load_shards(checkpoint if resumes else None, self.shard, set(self._names(phases)))
        state = checkpoint.load() if checkpoint is not None and resumes else None
        return of_first(self.ranks, state) if self.ranks.several else state

    def _names(self, phases: Iterable[Any]) -> Iterator[str]:
        """Yield what in a checkpoint has a row for each item: names, and for Adam's state the beginnings of names."""
        parameters = self._item_parameters()
        for name in parameters:
            yield from (f"{kind}/{name}" for kind in ("weights", "best", "average"))
        own = {id(parameter) for parameter in parameters.values()}
        for phase in phases:
            for number, parameter in enumerate(phase.parameters()):
                if id(parameter) in own:
                    yield from (f"optimizers/{phase.name}/{number}/{key}" for key in ("exp_avg", "exp_avg_sq"))
