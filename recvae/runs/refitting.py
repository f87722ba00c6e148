"""A finished run trained again on its held-out users too, with the settings and the epochs that it has chosen.

A blend is made of the same runs, each refitted; its weight stays. Everything is checked before anything is trained.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from recvae.bundles.bundle import Bundle, read_bundle, training_of
from recvae.bundles.card import RUN_STATE, read_card
from recvae.datasets.dataset import Dataset
from recvae.datasets.parts import ALL, VALIDATION_TOO, check_on
from recvae.errors import BundleError, UsageError
from recvae.models.blend import Blend
from recvae.models.common.autoencoder import Autoencoder
from recvae.models.common.base import Model
from recvae.models.common.hyperparameters import hyperparameters_of
from recvae.runs.finding import find_run, list_runs
from recvae.runs.parts import load_parts
from recvae.runs.run import Run, new_run, resumed_run, train
from recvae.runs.sharing import is_restarted, this_job
from recvae.runs.state import read_state
from recvae.training.records import Monitor
from recvae.training.refits import Refit

Watch = Callable[[Run], AbstractContextManager[tuple[Run, Monitor]]]
Tell = Callable[[str, Path, bool], None]


_SUFFIXES = {VALIDATION_TOO: "refit", ALL: "refit-all"}  # of names: what may be measured is told from what may not


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a finished run has chosen; made by `chosen_by`.

    Parameters
    ----------
    folder : Path
        The run.
    model : Model
        With its settings, not fitted.
    refit : Refit
        What is said of it in the run that repeats it.
    parts : dict of str to Chosen
        Of a blend: what the runs have chosen that it is made of, by role.
    """

    folder: Path
    model: Model
    refit: Refit
    parts: dict[str, "Chosen"] = field(default_factory=dict)


def chosen_by(
    folder: Path, dataset: Dataset, runs_dir: Path, on: str = VALIDATION_TOO, models: Sequence[type[Model]] = ()
) -> Chosen:
    """Read what a run has chosen, and make sure that it can be trained again.

    Parameters
    ----------
    folder : Path
        A finished run.
    dataset : Dataset
        What it was trained on.
    runs_dir : Path
        Where the runs of a blend are looked for.
    on : str
        "train+validation" or "all".
    models : sequence of type of Model
        Models of your own that the run may hold.

    Raises
    ------
    UsageError
        If the run was trained on other data, was interrupted, is a refit itself, does not say its best epoch, or is a
        blend of runs that have changed since.
    BundleError
        If it is damaged or unfinished.
    """
    return _chosen(folder, read_bundle(folder, models=models), dataset, runs_dir, on, models)


def _chosen(
    folder: Path, bundle: Bundle, dataset: Dataset, runs_dir: Path, on: str, models: Sequence[type[Model]]
) -> Chosen:
    """Return what a run has chosen whose bundle is read; see `chosen_by`."""
    found = str(bundle.manifest.get("fingerprint"))
    if found != dataset.fingerprint:
        raise UsageError(
            f"{folder} was not trained on {dataset.name} as it is now: fingerprints {found[:12]} and "
            f"{dataset.fingerprint[:12]}; what it has chosen may be wrong for these data: say --data "
            f"{bundle.manifest.get('name')} to take the data it was trained on, or train it again"
        )
    if bundle.training.refit is not None:
        run = bundle.training.refit.run
        raise UsageError(f"{folder} is a refit already, of {run}; name the run that has chosen: --refit {run}")
    if bundle.interrupted:
        why = bundle.training.failure
        instead = "train it again" if why else "finish it with `recvae train --resume`"
        raise UsageError(
            f"{folder} was interrupted ({why or 'stopped by hand'}), so its best epoch may be still to come; {instead} "
            "before it is refitted"
        )
    model, epochs = _with_epochs(folder, bundle)
    refit = Refit(
        run=folder.resolve().name,
        made=read_card(folder)["created"],
        on=check_on(on),
        n_users=dataset.train.shape[0],
        epochs=epochs,
        metrics=bundle.metrics.get("validation", {}),
        select_by=bundle.training.select_by,
    )
    parts = {
        role: _chosen_part(folder, role, bundle, find_run(runs_dir, getattr(model, role), dataset.name), models)
        for role in model.roles
    }
    if isinstance(model, Blend):
        model = replace(model, weight=model.weight_)
    return Chosen(
        folder=folder,
        # What was left to the data stays as the run had it: it was chosen with that.
        model=replace(model, **bundle.training.from_data) if bundle.training.from_data else model,
        refit=refit,
        parts={role: _chosen(*part, dataset, runs_dir, on, models) for role, part in parts.items()},
    )


def _with_epochs(folder: Path, bundle: Bundle) -> tuple[Model, int | None]:
    """Return the model of a run, which trains the epochs that were chosen if it is told how many, and this number."""
    model, epochs = bundle.model, bundle.training.best_epoch
    if isinstance(model, Autoencoder):
        if not epochs:
            raise UsageError(f"{folder} does not say its best epoch, so it cannot be refitted; train it again")
        return model, epochs
    if epochs is not None and epochs != bundle.training.epochs:
        if "epochs" not in hyperparameters_of(model):
            raise UsageError(
                f"{folder} has kept epoch {epochs} of {bundle.training.epochs}, and {type(model).__name__} has no "
                "hyperparameter epochs to train as many again; give it one"
            )
        return replace(model, epochs=epochs), epochs  # pyright: ignore[reportCallIssue]  (it has been looked up)
    return model, epochs


def _chosen_part(
    folder: Path, role: str, bundle: Bundle, part: Path, models: Sequence[type[Model]]
) -> tuple[Path, Bundle]:
    """Return the run that a blend was made of and its bundle, if it still is what was blended."""
    assert isinstance(bundle.model, Blend)  # the only model with roles
    found = read_bundle(part, models=models)
    blended, now = bundle.model.parts_[role].weights(), found.model.weights()
    if blended.keys() != now.keys() or not all(np.array_equal(blended[name], now[name]) for name in now):
        raise UsageError(
            f"{part} has changed since {folder} was made of it, so the weight may be wrong for it; "
            "train the blend again"
        )
    return part, found


def all_of(chosen: Chosen) -> list[Chosen]:
    """Return what runs have chosen in the order in which they are refitted: of a blend, its runs come first."""
    return [*(one for part in chosen.parts.values() for one in all_of(part)), chosen]


def _silent(role: str, folder: Path, is_new: bool) -> None:
    """Say nothing of the runs of a blend."""


def name_of(chosen: Chosen, name: str | None = None) -> str:
    """Return the name of the run that repeats another one, unless it is given: "-refit" or "-refit-all" added."""
    return name or f"{chosen.refit.run}-{_SUFFIXES[chosen.refit.on]}"


def refit_run(
    chosen: Chosen,
    dataset: Dataset,
    runs_dir: Path,
    *,
    name: str | None = None,
    overwrite: bool = False,
    device: str = "auto",
    max_memory: int | None = None,
    watch: Watch,
    models: Sequence[type[Model]] = (),
    tell: Tell = _silent,
) -> tuple[Bundle, Path]:
    """Train a run again on its held-out users too, for the epochs that it has chosen.

    Parameters
    ----------
    chosen : Chosen
        From `chosen_by`.
    dataset : Dataset
        What the run was trained on.
    runs_dir : Path
        Where runs are kept, in a folder for each data set.
    name : str, optional
        Of the new run; by default that of the run with "-refit", or "-refit-all" with all users. See `new_run`.
    overwrite : bool
        Replace the run of that name.
    device : str
        "auto", "cpu" or "cuda".
    max_memory : int, optional
        Bytes that fitting may take; see `Model.fit`.
    watch : callable
        Run -> a context manager that gives this run, maybe with its `tracking`, and a monitor.
    models : sequence of type of Model
        Models of your own that the run may hold.
    tell : callable
        Of a blend: role, folder and whether it was trained now -> None; called for each run that it is made of.

    Returns
    -------
    bundle : Bundle
        As it was written.
    folder : Path
        Where it is.

    Raises
    ------
    KeyboardInterrupt
        If a run that a blend is made of was stopped by hand; what it reached is kept, and the next call continues it.
    UsageError, DataError, MemoryLimitError, TrainingError, StorageError, BundleError
        See `recvae.runs.run.train` and `recvae.datasets.joining.join`.
    """
    parent, model = runs_dir / dataset.name, chosen.model
    how: dict[str, Any] = {"device": device, "max_memory": max_memory}
    if chosen.parts:
        names = {}
        for role, part in chosen.parts.items():
            existing = _finished(part, parent, dataset)
            place = existing or _train_part(part, dataset, runs_dir, how, watch, models, tell)
            tell(role, place, existing is None)
            names[role] = f"{dataset.name}/{place.name}"
        model = replace(model, **names, parts={})
        load_parts(model, runs_dir, dataset, device, models, chosen.refit)
    run = _before_restart(chosen, parent, dataset, models)
    run = run or new_run(model, parent, name_of(chosen, name), overwrite, chosen.refit)
    with watch(run) as (run, monitor):
        return train(run, dataset, monitor=monitor, **how)


def _train_part(
    part: Chosen,
    dataset: Dataset,
    runs_dir: Path,
    how: dict[str, Any],
    watch: Watch,
    models: Sequence[type[Model]],
    tell: Tell,
) -> Path:
    """Train what a blend is made of, or continue it."""
    run = _unfinished(part, runs_dir / dataset.name, dataset, models)
    if run is None or part.parts:
        bundle, place = refit_run(part, dataset, runs_dir, **how, watch=watch, models=models, tell=tell)
    else:
        with watch(run) as (run, monitor):
            bundle, place = train(run, dataset, monitor=monitor, **how)
    if bundle.interrupted:
        raise KeyboardInterrupt
    return place


def _finished(part: Chosen, parent: Path, dataset: Dataset) -> Path | None:
    """Return a finished run that repeats the same one on the same users, None without one."""
    for run in list_runs(parent, "."):
        if not run.is_bundle or run.is_hidden:
            continue
        try:
            card = read_card(run.path)
            same_data = card["dataset"].get("fingerprint") == dataset.fingerprint
            if same_data and not card["interrupted"] and training_of(run.path, card).refit == part.refit:
                return run.path
        except (UsageError, BundleError):
            continue  # damaged: not to be relied on
    return None


def _before_restart(chosen: Chosen, parent: Path, dataset: Dataset, models: Sequence[type[Model]]) -> Run | None:
    """Return the run that torchrun has begun before it started this process again, None without one."""
    found = _unfinished(chosen, parent, dataset, models) if is_restarted() else None
    return found if found is not None and read_state(found.work / RUN_STATE)["job"] == this_job() else None


def _unfinished(part: Chosen, parent: Path, dataset: Dataset, models: Sequence[type[Model]]) -> Run | None:
    """Return a run to continue that repeats the same one on the same users, None without one."""
    for run in list_runs(parent, "."):
        if run.can_resume and not run.is_hidden:
            try:
                found = resumed_run(run.path, dataset, models=models)
            except (UsageError, BundleError):
                continue
            if found.refit == part.refit:
                return found
    return None
