"""Parts of a batch: what one of several processes has of it, and the users to go through at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

# A CPU's cache holds so many logits through all that is done to them; a GPU takes all at once, since counting would
# make it wait.
_CHUNK_BYTES = 8 << 20


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


def users_at_a_time(block: torch.Tensor, element_size: int) -> int:
    """Return how many rows of a block (n_users, n_items) to go through at a time, given the bytes of a number."""
    n_users, n_items = block.shape
    return max(1, n_users if block.is_cuda else _CHUNK_BYTES // (element_size * n_items))


def parts_of(
    block: torch.Tensor, lengths: torch.Tensor, n_interactions: int, element_size: int
) -> Iterator[tuple[slice, slice]]:
    """Yield which rows of a block to go through at a time, and which interactions are theirs.

    Parameters
    ----------
    block : Tensor of shape (n_users, n_items)
        Only its shape and device count.
    lengths : Tensor of shape (n_users,)
        Interactions of each user.
    n_interactions : int
        Their sum, which a GPU need not be asked for.
    element_size : int
        Bytes of a number while it is worked on.
    """
    n_users, step, first = len(block), users_at_a_time(block, element_size), 0
    for start in range(0, n_users, step):
        users = slice(start, min(start + step, n_users))
        n = n_interactions if step >= n_users else int(lengths[users].sum())
        yield users, slice(first, first + n)
        first += n
