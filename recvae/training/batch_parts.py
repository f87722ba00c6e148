"""What one of several processes has of a batch: some of its users, or the interactions with some of the items."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Share:
    """Which part of a batch that several processes share is this one's.

    A process for which no user is left has the first one, which counts nothing for it: it draws the same noise, and
    has gradients to add to those of the others.

    Parameters
    ----------
    n_users, n_interactions : int
        Of the whole batch.
    counted : int
        Users of this part that count, 0 or all.
    users : Tensor of shape (n_users of this part,), int64
        Which users of the whole batch they are.
    interactions : Tensor of shape (n_interactions of this part,), int64
        Which interactions of the whole batch.
    whole_items : callable
        () -> items of all interactions of the whole batch.
    """

    n_users: int
    n_interactions: int
    counted: int
    users: torch.Tensor
    interactions: torch.Tensor
    whole_items: Callable[[], torch.Tensor]

    @property
    def weight(self) -> float:
        """What a mean over this part counts in the mean over the whole batch."""
        return self.counted / self.n_users

    def map(self, move: Callable[[torch.Tensor], torch.Tensor]) -> "Share":
        """Return it with `move` applied to each tensor."""
        return replace(self, users=move(self.users), interactions=move(self.interactions))


@dataclass(frozen=True)
class OwnItems:
    """Which interactions of a batch are with the items of this process, where several share the items; see `Shard`.

    Parameters
    ----------
    n_interactions : int
        Of the batch with all items.
    interactions : Tensor of shape (n_interactions of these items,), int64
        Which of them, ascending.
    """

    n_interactions: int
    interactions: torch.Tensor

    def map(self, move: Callable[[torch.Tensor], torch.Tensor]) -> "OwnItems":
        """Return it with `move` applied to each tensor."""
        return replace(self, interactions=move(self.interactions))
