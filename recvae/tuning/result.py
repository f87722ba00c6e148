"""The result of a search, monitors that follow it, and how the best becomes a run like any other."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from recvae.bundles.bundle import training_of
from recvae.bundles.card import CARD, read_card
from recvae.errors import BundleError, UsageError
from recvae.models.common.base import Model
from recvae.runs.run import new_run
from recvae.storage.files import check_replaceable, taken_names, write_folder
from recvae.tuning.study import COMPLETE, Trial

ALL_DONE, EXHAUSTED, INTERRUPTED, OUT_OF_TIME = "all done", "exhausted", "interrupted", "out of time"


class TuningMonitor(Protocol):
    """What follows a search, such as a progress bar."""

    def advance(self, done: float, total: int, best: Trial | None) -> None:
        """Say how many trials are done, in parts of one, of how many, and which is the best so far."""

    def trial(self, trial: Trial, total: int, best: Trial | None) -> None:
        """Say how a trial ended."""


class NullTuningMonitor:
    """A monitor that ignores everything."""

    def advance(self, done: float, total: int, best: Trial | None) -> None:
        """Ignore it."""

    def trial(self, trial: Trial, total: int, best: Trial | None) -> None:
        """Ignore it."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The result of a search.

    Parameters
    ----------
    model : Model
        The best one's hyperparameters, not fitted.
    best : Trial
        The one with the highest mean over the validation users; `best.metric` names the metric.
    trials : list of Trial
        All finished ones, of earlier calls too.
    begun_with : int
        How many of them there were before this call.
    ended : str
        Why it ended: "all done", "exhausted" (every point of the space was tried), "interrupted", "out of time".
    bundle : Path
        The best one, kept with the study.
    """

    model: Model
    best: Trial
    trials: list[Trial]
    begun_with: int
    ended: str
    bundle: Path

    def count(self, state: str) -> int:
        """Return how many trials ended like this."""
        return sum(trial.state == state for trial in self.trials)

    def top(self, n: int = 5) -> list[Trial]:
        """Return the n best complete trials, the best first."""
        complete = [trial for trial in self.trials if trial.state == COMPLETE]
        return sorted(complete, key=lambda trial: math.inf if trial.value is None else -trial.value)[:n]


def deliver(tuning: Tuning, parent: Path, name: str, overwrite: bool = False) -> Path:
    """Copy the best bundle to where runs are kept.

    Parameters
    ----------
    tuning : Tuning
        From `tune`.
    parent : Path
        The runs of one data set.
    name : str
        The folder's name; where it is taken, "-2", "-3" and so on are tried. What an earlier call for the same study
        has left under one of these names is replaced.
    overwrite : bool
        Replace the run of that name, whatever it is.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UsageError
        If what would be replaced is not a run.
    StorageError
        If it cannot be written.
    """
    check_deliverable(parent / name, overwrite)
    folder = place_of(tuning, parent, name, overwrite)
    with write_folder(folder, CARD) as aside:
        for file in tuning.bundle.iterdir():
            shutil.copyfile(file, aside / file.name)  # not its age: the newest run is the one just made
    return folder


def place_of(tuning: Tuning, parent: Path, name: str, overwrite: bool = False) -> Path:
    """Return the folder that `deliver` fills; what it holds is replaced."""
    earlier = None if overwrite else _delivered(tuning.bundle, parent, name)
    return earlier or new_run(tuning.model, parent, name, overwrite).folder


def _delivered(bundle: Path, parent: Path, name: str) -> Path | None:
    """Return the run that an earlier call for the same study has left, None without one."""
    study = _study_of(bundle)
    for folder in taken_names(parent, name):
        if study is not None and _study_of(folder) == study:
            return folder
    return None


def _study_of(folder: Path) -> str | None:
    """Return the study that a run comes from, None where it says nothing of one."""
    try:
        return training_of(folder, read_card(folder)).study
    except (UsageError, BundleError):
        return None


def check_deliverable(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that the best could not replace in the end.

    Raises
    ------
    UsageError
        If a folder that is not a finished run would be replaced.
    """
    if overwrite:
        check_replaceable(folder, CARD)
