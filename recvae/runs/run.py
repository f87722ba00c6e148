"""A training run on disk: where it is kept, how it is made, how it continues after a kill.

While it trains, a run's folder holds `run.json` (what it is), `log.jsonl` (a line per epoch) and
`checkpoint.safetensors`; the bundle is written at the end, its card last. A folder without card is unfinished.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recvae.bundles.bundle import Bundle, gather_weights, unknown_model, write_bundle
from recvae.bundles.card import CARD, RUN_LOCK, RUN_LOG, RUN_STATE
from recvae.compute.devices import resolve_device
from recvae.compute.ranks import current
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, OutOfMemoryError, UsageError
from recvae.evaluation.fitting import Fit, fit
from recvae.metrics import Metric
from recvae.models import MODELS, known_model
from recvae.models.common.base import Model
from recvae.models.common.hyperparameters import build, parse_settings, values_of
from recvae.models.common.streaming import check_fits, order_of
from recvae.runs.finding import list_runs
from recvae.runs.state import (
    check_same_stream,
    claim,
    is_locked,
    locked_run,
    metric_of,
    read_state,
    write_state,
)
from recvae.storage.files import check_replaceable, move_folder, storage_errors, taken_names
from recvae.training.checkpoints import FILE_NAME, Checkpoint
from recvae.training.details import DetailedMonitor, failed
from recvae.training.monitors import LogFile, MonitorList
from recvae.training.records import Monitor
from recvae.training.refits import Refit
from recvae.training.validation import OBJECTIVE, check_objective

_MAY_CHANGE = ("epochs", "patience")  # when resuming: how long the run is


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run to train, or to continue.

    Parameters
    ----------
    model : Model
        Not fitted.
    folder : Path
        Where the bundle will be.
    work : Path
        Where it is made: the same, unless it replaces a bundle that stays until the new one is whole.
    resumes : bool
        Whether there may be a checkpoint to continue from.
    overwrites : bool
        Whether an unfinished run in `work` may be removed.
    refit : Refit, optional
        What another run has chosen, to train that again on its held-out users too.
    select_by : Metric
        What the validation users choose by.
    tracking : dict of str to str
        Where its training is followed in other programs, to go on there when it is resumed; no bundle has it.
    job : str, optional
        Which call of torchrun trains it; see `recvae.runs.sharing`.
    file_bytes : int, optional
        The most that a file of its weights holds, also when it is resumed; None for one file.
    """

    model: Model
    folder: Path
    work: Path
    resumes: bool = False
    overwrites: bool = False
    refit: Refit | None = None
    select_by: Metric = OBJECTIVE
    tracking: dict[str, str] = field(default_factory=dict)
    job: str | None = None
    file_bytes: int | None = None


def new_run(
    model: Model,
    parent: Path,
    name: str,
    overwrite: bool = False,
    refit: Refit | None = None,
    select_by: Metric = OBJECTIVE,
) -> Run:
    """Choose a folder for a new run.

    Parameters
    ----------
    model : Model
        What to train.
    parent : Path
        The runs of one data set.
    name : str
        The folder's name; where it is taken, "-2", "-3" and so on are tried.
    overwrite : bool
        Replace the run of that name instead, once the new one is whole.
    refit : Refit, optional
        See `Run`.
    select_by : Metric
        What the validation users choose by.

    Raises
    ------
    UsageError
        If what would be replaced is not a run.
    """
    folder = parent / name
    if overwrite:
        check_replaceable(folder, CARD, RUN_STATE)
        work = parent / f".{name}.new" if (folder / CARD).is_file() else folder
        return Run(model=model, folder=folder, work=work, overwrites=True, refit=refit, select_by=select_by)
    folder = _free(folder)
    return Run(model=model, folder=folder, work=folder, refit=refit, select_by=select_by)


def _free(folder: Path) -> Path:
    """Return the folder, or the first of "-2", "-3" and so on that is not taken."""
    n_taken = len(taken_names(folder.parent, folder.name))
    return folder.with_name(f"{folder.name}-{n_taken + 1}") if n_taken else folder


def find_unfinished(runs_dir: Path, data: str | None = None, model: str | None = None, name: str | None = None) -> Path:
    """Find the newest run that was killed or interrupted.

    Parameters
    ----------
    runs_dir : Path
        Where runs are kept.
    data, model, name : str, optional
        Only a run on this data set, of this model, or of this name.

    Returns
    -------
    Path
        Its folder, in that of its data set.

    Raises
    ------
    UsageError
        If there is none.
    BundleError
        If its state cannot be read.
    """
    for run in reversed([run for run in list_runs(runs_dir) if run.can_resume]):
        work = run.path
        if data not in (None, work.parent.name) or is_locked(work):
            continue
        known = read_state(work / RUN_STATE)
        if model in (None, known["model"]) and name in (None, known["folder"]):
            return work
    what = " ".join(word for word in ("no unfinished", model or "", "run", name or "") if word)
    where = f"on {data} in {runs_dir}" if data else f"in {runs_dir}"
    raise UsageError(f"{what} {where}; train without --resume")


def resumed_run(
    work: Path,
    dataset: Dataset,
    settings: Sequence[str] = (),
    models: Sequence[type[Model]] = (),
    select_by: Metric | None = None,
) -> Run:
    """Continue an unfinished run.

    Parameters
    ----------
    work : Path
        From `find_unfinished`.
    dataset : Dataset
        The data it must have been started on.
    settings : sequence of str
        Hyperparameters to change, "name=value" each; only `epochs` and `patience` may.
    models : sequence of type of Model
        Models of your own that the run may train.
    select_by : Metric, optional
        What the validation users choose by, which must be that of the run; your own has to be given.

    Returns
    -------
    Run
        With the model as it was started.

    Raises
    ------
    UsageError
        If a hyperparameter may not change, or the run chooses by another metric.
    BundleError
        If it was started on other data, or its state cannot be read.
    """
    state = read_state(work / RUN_STATE)
    if state["fingerprint"] != dataset.fingerprint:
        raise BundleError(
            f"{work} was started on data with fingerprint {state['fingerprint'][:12]}, "
            f"{dataset.name} now has {dataset.fingerprint[:12]}; train without --resume"
        )
    check_same_stream(work, state["stream"], dataset)
    if state["model"] not in MODELS and state["model"] not in [model.name for model in models]:
        raise unknown_model(work, state["model"])
    chosen = known_model(state["model"], models)
    changes = parse_settings(chosen, settings)
    if changes and state["refit"] is not None:
        raise UsageError(
            f"got {', '.join(changes)} to change with --resume, but {work.name} repeats {state['refit'].run}, which "
            "has chosen settings and epochs; leave out --set"
        )
    fixed = [key for key in changes if key not in _MAY_CHANGE]
    if fixed:
        raise UsageError(
            f"got {', '.join(fixed)} to change with --resume, only {' and '.join(_MAY_CHANGE)} may change; "
            "train again without --resume"
        )
    model = build(chosen, state["hyperparameters"] | changes, effects=False)
    return Run(
        model=model,
        folder=work.parent / state["folder"],
        work=work,
        resumes=True,
        refit=state["refit"],
        select_by=metric_of(work, state["select_by"], select_by),
        tracking=state["tracking"],
        file_bytes=state["file_bytes"],
    )


def train(
    run: Run, dataset: Dataset, *, device: str = "auto", monitor: Monitor, max_memory: int | None = None
) -> tuple[Bundle, Path]:
    """Train a run to its end and leave a bundle.

    Parameters
    ----------
    run : Run
        From `new_run` or `resumed_run`.
    dataset : Dataset
        Train and validation are used; test users are not looked at, unless the run is a refit on all.
    device : str
        "auto", "cpu" or "cuda".
    monitor : Monitor
        Follows training; the log file is written too. A `DetailedMonitor` is given the bundle.
    max_memory : int, optional
        Bytes that fitting and scoring may take; see `Model.fit`.

    Returns
    -------
    bundle : Bundle
        As it was written.
    folder : Path
        Where it is: `run.folder`, or a free name next to it if the run was interrupted before it could replace
        a finished one.

    Raises
    ------
    UsageError, MemoryLimitError, TrainingError, StorageError, BundleError
        See `Model.fit` and `Checkpoint`. Without a finished epoch, nothing is left behind; a failure after that leaves
        a bundle of the best weights, marked as interrupted.
    """
    run.model.check_libraries()
    check_fits(run.model, dataset.train, resolve_device(device), max_memory)  # before all else; a refit needs more
    check_objective(run.select_by, dataset.validation, dataset.train)
    work = run.work
    claim(work, resumes=run.resumes, overwrites=run.overwrites)
    with locked_run(work):
        try:
            bundle, failure = (fitted := _fit(run, dataset, device, monitor, max_memory)).bundle(), fitted.failure
            write_bundle(work, bundle, file_bytes=run.file_bytes, has_weights=current().by_items)
        except BaseException as error:
            if isinstance(monitor, DetailedMonitor):
                monitor.ended(failed(error))  # also where the fit itself went well
            if not (work / FILE_NAME).exists() and not (work / CARD).exists():
                shutil.rmtree(work, ignore_errors=True)
            raise
        folder = run.folder
        if bundle.interrupted and work != folder:
            folder = _free(folder)  # the finished run stays
            write_state(work, {**read_state(work / RUN_STATE), "folder": folder.name})
        with storage_errors(folder):
            if work != folder:
                move_folder(work, folder)
            if not bundle.interrupted or not isinstance(failure, OutOfMemoryError | None):
                (folder / FILE_NAME).unlink(missing_ok=True)
                (folder / RUN_STATE).unlink()
            (folder / RUN_LOCK).unlink(missing_ok=True)
    if not bundle.interrupted:
        current().restarts.note_end(0)
    if isinstance(monitor, DetailedMonitor):
        monitor.saved(bundle, folder)
    if failure is not None:
        again = f"; where more memory is free, run `{current().typed('recvae train --resume')}` to continue"
        raise type(failure)(f"{failure} in {folder}{again if isinstance(failure, OutOfMemoryError) else ''}")
    return bundle, folder


def _fit(run: Run, dataset: Dataset, device: str, monitor: Monitor, max_memory: int | None) -> Fit:
    """Fit the model of a run, and keep in its folder what is needed to resume it."""
    model, work, hyperparameters = run.model, run.work, values_of(run.model)
    identity = {
        "model": model.name,
        "fingerprint": dataset.fingerprint,
        **order_of(dataset.train),
        "hyperparameters": {key: value for key, value in hyperparameters.items() if key not in _MAY_CHANGE},
        **({} if run.refit is None else {"refit": run.refit.to_json()}),
    }
    before = read_state(work / RUN_STATE) if run.resumes else None
    place = {"folder": run.folder.name, "file_bytes": run.file_bytes, "job": run.job, "tracking": run.tracking}
    chosen = {"hyperparameters": hyperparameters, "refit": run.refit, "select_by": run.select_by.path}
    write_state(work, {**identity, **chosen, **place})
    try:
        fitted = fit(
            model,
            dataset,
            device=device,
            monitor=MonitorList(LogFile(work / RUN_LOG), monitor),
            checkpoint=Checkpoint(
                work / FILE_NAME,
                identity,
                resumes=run.resumes and (work / FILE_NAME).exists(),
                earlier=model.earlier,
            ),
            max_memory=max_memory,
            refit=run.refit,
            select_by=run.select_by,
        )
        if current().by_items:
            gather_weights(model, work, run.file_bytes)
        current().end()
        return fitted
    except (UsageError, BundleError):
        if before is not None:  # a change that was refused is not kept
            write_state(work, before)
        raise
