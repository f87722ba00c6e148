"""What a run writes down of itself while it is unfinished, the metric it chooses by, and what else is in its folder."""

import json
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from recvae.bundles.bundle import ITEMS, README, WEIGHTS
from recvae.bundles.card import CARD, RUN_LOCK, RUN_LOG, RUN_STATE
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, UsageError
from recvae.metrics import Metric
from recvae.models.common.streaming import buffer_of
from recvae.storage.files import locked, storage_errors, write_json
from recvae.storage.integrity import UNREADABLE
from recvae.storage.weight_files import is_of_weights
from recvae.training.checkpoints import FILE_NAME
from recvae.training.refits import Refit
from recvae.training.validation import OBJECTIVE, objective

_OF_A_RUN = {CARD, ITEMS, README, RUN_STATE, RUN_LOG, FILE_NAME, RUN_LOCK}


def read_state(path: Path) -> dict[str, Any]:
    """Read what a run has written down.

    Raises
    ------
    BundleError
        If it cannot be read.
    """
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        known = {key: state[key] for key in ("model", "hyperparameters", "fingerprint", "folder")}
        refit = None if state.get("refit") is None else Refit.from_json(state["refit"])
        tracking = {str(name): str(value) for name, value in dict(state.get("tracking", {})).items()}
        further = {key: state.get(key) for key in ("select_by", "job", "stream", "file_bytes")}
        for key in ("stream", "file_bytes"):
            if not isinstance(further[key], int | None):
                raise TypeError(f"{key} is {further[key]!r}")
        return {**known, **further, "refit": refit, "tracking": tracking}
    except UNREADABLE as error:
        raise BundleError(f"{path} is damaged ({error!r}); remove {path.parent} and train again") from error


def write_state(work: Path, state: dict[str, Any]) -> None:
    """Write it down in the folder of a run."""
    refit = {} if state["refit"] is None else {"refit": state["refit"].to_json()}
    empty = {key for key in ("tracking", "job", "stream", "file_bytes") if not state.get(key)}
    kept = {key: value for key, value in state.items() if key != "refit" and key not in empty}
    write_json(work / RUN_STATE, {**kept, **refit})


def metric_of(run: Path, written: str | None, given: Metric | None = None) -> Metric:
    """Return the metric that a run has written down, whose code is never imported because a file names it.

    Parameters
    ----------
    run : Path
        For messages.
    written : str or None
        As `recvae.metrics.Metric.path` has it; None for NDCG@100, of an earlier version.
    given : Metric, optional
        What was asked for, which must be the same; a metric of your own has to be.

    Raises
    ------
    UsageError
        If it is not, or is your own and not given.
    """
    written = written or str(OBJECTIVE)
    if given is not None and given.path != written:
        raise UsageError(
            f"got {given.path} to choose by, but {run} chooses by {written}, which cannot change; leave it out, or "
            "train again without --resume"
        )
    if given is None and ":" in written:
        raise UsageError(f"{run} chooses by your own metric; add --select-by {written}")
    return given or objective(written)


def check_same_stream(run: Path, written: int | None, dataset: Dataset) -> None:
    """Refuse to continue a run whose users came in another order than they would now.

    Parameters
    ----------
    run : Path
        For messages.
    written : int or None
        Bytes of training rows that it has held; None for all, in memory.
    dataset : Dataset
        As it was loaded.

    Raises
    ------
    UsageError
        If that differs.
    """
    now = buffer_of(dataset.train)
    if written != now:
        before, here = ("in memory" if one is None else f"on disk with a buffer of {one:,}" for one in (written, now))
        raise UsageError(
            f"got training rows {here}, but {run} was begun with those {before}, which decides the order of users; "
            "resume it without --stream and --buffer, or train again without --resume"
        )


def locked_run(work: Path) -> AbstractContextManager[None]:
    """Keep a run for this process."""
    return locked(work / RUN_LOCK, f"{work} is being trained by another process; wait for it, or use another --name")


def is_locked(work: Path) -> bool:
    """Whether another process trains it."""
    if not (work / RUN_LOCK).exists():
        return False
    try:
        with locked_run(work):
            return False
    except UsageError:
        return True


def claim(work: Path, *, resumes: bool, overwrites: bool) -> None:
    """Make the folder of a new run, or tidy up that of one to continue.

    Parameters
    ----------
    work : Path
        The folder.
    resumes : bool
        Whether it is there already.
    overwrites : bool
        Whether an unfinished run in it may be removed.
    """
    with storage_errors(work):
        if overwrites and work.is_dir():
            with locked_run(work):
                shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=resumes)
        for half_written in work.glob(".*.tmp"):  # a kill in the middle of writing leaves one
            half_written.unlink()


def further_files(folder: Path) -> list[str]:
    """Return by name what the folder of a run holds besides it, such as its exports; a folder's name ends in "/".

    Parameters
    ----------
    folder : Path
        It need not exist. Whoever replaces the run removes all of these.
    """
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        entry.name + ("/" if entry.is_dir() else "")
        for entry in entries
        if entry.name not in _OF_A_RUN and not is_of_weights(WEIGHTS, entry.name) and not entry.name.startswith(".")
    ]
