"""Monitors that are told more than a record per epoch: the model, the codes of users, the end, and the bundle."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae.training.records import EpochRecord, Monitor, StopTraining, TrainingSummary

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class EpochDetails:
    """What is at hand after an epoch, and not in its record.

    Parameters
    ----------
    epoch : int
        From 1.
    step_sizes : dict of str to float
        The step size of each phase of the epoch in its last update, by the name of the phase.
    mean : Tensor of shape (n_users, latent_dim), or None
        Means of the codes of at most 1,000 users, the same after each epoch; None without a latent space.
    logvar : Tensor of shape (n_users, latent_dim), or None
        Logarithms of their variances, None where codes are points.
    """

    epoch: int
    step_sizes: dict[str, float]
    mean: "torch.Tensor | None"
    logvar: "torch.Tensor | None"


class DetailedMonitor:
    """A monitor that is told more; derive from it, and replace what you need: what is here does nothing.

    Any other monitor gets the three calls of `Monitor` and no more.
    """

    def start(self, epochs: int, done: list[EpochRecord]) -> None:
        """Ignore it; see `Monitor`."""

    def advance(self, epochs_done: float, beta: float | None) -> StopTraining | None:
        """Ignore it; see `Monitor`."""

    def epoch(self, record: EpochRecord) -> StopTraining | None:
        """Ignore it; see `Monitor`."""

    def fitting(self, model: Any) -> None:
        """Note that a model will be fitted; before `start`, and also of models without epochs.

        Parameters
        ----------
        model : Model
            Not fitted.
        """

    def details(self, details: EpochDetails) -> None:
        """Note what the record of an epoch does not have; just before `epoch`."""

    def ended(self, summary: TrainingSummary) -> None:
        """Note how the fit ended; `interrupted` and `failure` say whether before its time."""

    def saved(self, bundle: Any, folder: Path | None) -> None:
        """Note that a run has left its bundle, or that a trial was measured; after `ended`.

        Parameters
        ----------
        bundle : Bundle
            The fitted model with its items and its validation metrics.
        folder : Path or None
            Where it is, None of a trial, which is not kept.
        """


def failed(error: BaseException) -> TrainingSummary:
    """Return how a fit ended that has raised: by hand, or by a failure."""
    if isinstance(error, KeyboardInterrupt):
        return TrainingSummary(interrupted=True)
    return TrainingSummary(interrupted=True, failure=str(error) or type(error).__name__)


@contextmanager
def watched(monitor: Monitor, model: Any) -> Iterator[None]:
    """Tell a detailed monitor that a model is fitted in the block, and how that ended.

    Parameters
    ----------
    monitor : Monitor
        Of any kind.
    model : Model
        Asked for its `training_summary` at the end.
    """
    if not isinstance(monitor, DetailedMonitor):
        yield
        return
    monitor.fitting(model)
    try:
        yield
    except BaseException as error:
        monitor.ended(failed(error))
        raise
    monitor.ended(model.training_summary())
