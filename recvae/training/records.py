"""What a run tells of itself: a record per epoch, how it went as a whole, and whoever watches it."""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class EpochRecord:
    """One line of a run's log.

    Parameters
    ----------
    epoch : int
        From 1.
    loss, reconstruction : float
        Means over the users of the epoch, in all passes of its first phase.
    kl : float or None
        The same of the KL divergence, None for a model without one.
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
    kl: float | None
    beta: float | None
    ndcg: float | None
    best: bool
    seconds: float
    users_per_second: float


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
    diverged_at : int
        The update, from 1, at which the loss was no longer a number; 0 if it never was.
    out_of_memory_at : int
        The last update, from 1, that was begun before memory ran out; 0 if it never did.
    """

    records: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    best_ndcg: float | None = None
    interrupted: bool = False
    stopped_early: bool = False
    diverged_at: int = 0
    out_of_memory_at: int = 0


def divergence(history: History) -> str:
    """Say at which update the loss was no longer a number, and what to try."""
    return (
        f"the loss is no longer a number at update {history.diverged_at:,} (epoch {len(history.records) + 1}); "
        "lower learning_rate, or raise batch_size, and train again"
    )


def shortage(history: History, batch_size: int) -> str:
    """Say at which update memory ran out, and what to try."""
    return (
        f"memory ran out at update {history.out_of_memory_at:,} (epoch {len(history.records) + 1}); "
        f"take a smaller batch_size, now {batch_size:,}, and train again"
    )


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
