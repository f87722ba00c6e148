"""What a model states about its training: losses of a batch, phases of an epoch, schedules, and how to score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import scipy.sparse as sp
import torch
from torch import nn

from recvae.training.batches import SparseBatch
from recvae.training.schedules import Schedule


@dataclass(frozen=True)
class Losses:
    """Means over the users of a batch: what is minimised, and its parts for the log.

    Parameters
    ----------
    total : Tensor of shape ()
        Differentiable; reconstruction + beta * kl, where a model does not weigh the latter by user.
    reconstruction : Tensor of shape ()
        The negative log-likelihood, or what a model has in its place.
    kl : Tensor of shape (), optional
        The KL divergence before beta; None for a model without one.
    """

    total: torch.Tensor
    reconstruction: torch.Tensor
    kl: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of every epoch, in which some of the parameters learn and the others stand still.

    Parameters
    ----------
    name : str
        What checkpoints call it.
    optimizer : Optimizer
        Over the parameters that learn.
    loss : callable
        (batch, beta, generator) -> Losses; noise is drawn from the generator.
    passes : int
        How often every training user is seen, >= 1.
    after : callable, optional
        Called once the passes are done.
    """

    name: str
    optimizer: torch.optim.Optimizer
    loss: Callable[[SparseBatch, float, torch.Generator], Losses]
    passes: int = 1
    after: Callable[[], None] | None = None

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a model states about its training.

    Parameters
    ----------
    network : Module
        On the device already.
    phases : sequence of Phase
        What happens in an epoch, in this order; most models have one phase of one pass.
    schedule : callable
        Total number of updates -> Schedule, or None without a KL term.
    score : callable
        Block of users -> Tensor of shape (n_users, n_items), without noise.
    step_size : callable, optional
        Total number of updates -> Schedule of the share of the optimisers' step size, or None for all of it always.
    rows : int, optional
        How many users to score at a time; None for as many as `block_rows` says.
    codes : callable, optional
        Rows of users -> mean and logvar of the codes of the first of them, see `LatentRecord.of`; after each epoch.
    """

    network: nn.Module
    phases: Sequence[Phase]
    schedule: Callable[[int], Schedule | None]
    score: Callable[[sp.csr_matrix], torch.Tensor]
    step_size: Callable[[int], Schedule | None] = lambda _: None
    rows: int | None = None
    codes: Callable[[sp.csr_matrix], tuple[torch.Tensor, torch.Tensor | None]] | None = None
