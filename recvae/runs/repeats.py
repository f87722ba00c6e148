"""Runs repeated with other seeds: `NAME-seed-K` next to the run `NAME`, kept and used again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recvae.bundles.bundle import read_bundle, training_of
from recvae.bundles.card import RUN_STATE, read_card
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, UsageError
from recvae.metrics import Metric
from recvae.models import known_model
from recvae.models.common.base import Model
from recvae.models.common.hyperparameters import build, values_of
from recvae.models.common.streaming import stream_of
from recvae.runs.finding import repeats_of
from recvae.runs.run import Run, new_run, resumed_run, train
from recvae.runs.state import metric_of
from recvae.training.records import Monitor
from recvae.training.validation import OBJECTIVE


def seeds_for(folder: Path, n: int, models: Sequence[type[Model]] = ()) -> list[int]:
    """Return the seeds of n fits of a run, its own first; none where its model has no seed or is made of other runs.

    Parameters
    ----------
    folder : Path
        A finished run.
    n : int
        How many, >= 1.
    models : sequence of type of Model
        Models of your own that the run may hold.

    Raises
    ------
    UsageError
        If n is below 1, a seed would be out of range, or the run was stopped by hand and n is above 1.
    BundleError
        If the run is damaged.
    """
    if n < 1:
        raise UsageError(f"got {n} seeds, expected 1 or more; 1 uses each run as it is")
    card = read_card(folder)
    try:
        values = values_of(_model(card, models))
    except (UsageError, LookupError, TypeError, AttributeError):
        read_bundle(folder, models=models)  # says what is wrong with it
        raise
    if "seed" not in values or card.get("parts"):
        return []
    training = training_of(folder, card)
    if n > 1 and training.refit is not None:
        raise UsageError(
            f"got {n} seeds for {folder}, a refit of {training.refit.run}, whose epochs were chosen with one seed; "
            "use one seed for it, or leave it out"
        )
    if n > 1 and ":" in (training.select_by or ""):  # code is never imported because a card names it
        raise UsageError(
            f"got {n} seeds for {folder}, which was chosen by {training.select_by}, a metric of your own; use one seed "
            "for it, or leave it out"
        )
    seeds = [values["seed"] + step for step in range(n)]
    if n > 1 and card.get("interrupted"):
        failure = training.failure
        raise UsageError(
            f"got {n} seeds for {folder}, which was interrupted ({failure or 'stopped by hand'}); "
            + ("train it again" if failure else "finish it with `recvae train --resume`")
            + " before it is repeated, or leave it out"
        )
    for seed in seeds:
        _model(card, models, seed=seed)  # refuses what is out of range
    return seeds


def held_of(stream: Mapping[str, Any] | None) -> int | None:
    """Return the bytes of training rows that were in memory at a time; None for all, in whose order users came then.

    Parameters
    ----------
    stream : mapping, optional
        What a card says of training rows on disk, see `TrainingSummary`.
    """
    return int(stream["buffer"]) if stream and stream.get("share", 1) < 1 else None


def repeat(
    folder: Path,
    seed: int,
    dataset: Dataset,
    *,
    device: str = "auto",
    max_memory: int | None = None,
    monitor: Monitor,
    models: Sequence[type[Model]] = (),
) -> Path:
    """Return a run repeated with another seed: the existing one, or one that is resumed or trained now.

    Parameters
    ----------
    folder : Path
        A finished run; the repeat is next to it, as `NAME-seed-K`.
    seed : int
        The only hyperparameter that differs.
    dataset : Dataset
        What the run was trained on, with its training rows where they were.
    device : str
        "auto", "cpu" or "cuda".
    max_memory : int, optional
        Bytes that fitting and scoring may take; see `Model`.
    monitor : Monitor
        Follows training; not called if the repeat exists.
    models : sequence of type of Model
        Models of your own that the run may hold.

    Returns
    -------
    Path
        A finished bundle of the same data and hyperparameters.

    Raises
    ------
    KeyboardInterrupt
        If training was stopped by hand; what it reached is kept, and the next call continues it.
    UsageError, MemoryLimitError, TrainingError, StorageError, BundleError
        See `recvae.runs.run.train`; also if training rows are in memory and were not, or the other way round.
    """
    card = read_card(folder)
    wanted, training = _model(card, models, seed=seed), training_of(folder, card)
    metric = metric_of(folder, training.select_by)
    held, now = held_of(training.stream), held_of(stream_of(dataset.train))
    if held != now:
        before, here = ("in memory" if one is None else f"on disk with a buffer of {one:,}" for one in (held, now))
        raise UsageError(
            f"got training rows {here}, but {folder} was trained with those {before}, which decides the order of "
            "users: not the seed alone would differ; load the data set as it was then (stream=True, buffer=...)"
        )
    folder = folder if folder.name.strip(".") else folder.resolve()
    existing = repeats_of(folder, seed)
    for other in existing:
        if _is_finished(other, wanted, dataset, models, metric):
            return other
    unfinished = (run for other in existing if (run := _resumed(other, wanted, dataset, models, metric)) is not None)
    run = next(unfinished, None) or new_run(wanted, folder.parent, f"{folder.name}-seed-{seed}", select_by=metric)
    bundle, place = train(run, dataset, device=device, monitor=monitor, max_memory=max_memory)
    if bundle.interrupted:
        raise KeyboardInterrupt
    return place


def _model(card: dict[str, Any], models: Sequence[type[Model]], **changes: Any) -> Model:
    return build(known_model(str(card["model"]), models), card["hyperparameters"] | changes, effects=False)


def _is_finished(folder: Path, wanted: Model, dataset: Dataset, models: Sequence[type[Model]], metric: Metric) -> bool:
    """Whether a folder has a finished bundle of this model, its hyperparameters and these data, chosen so."""
    try:
        card = read_card(folder)
        same_data = card["dataset"].get("fingerprint") == dataset.fingerprint
        is_whole = not card.get("interrupted") and "refit" not in card["training"]
        training = training_of(folder, card)  # of an earlier version, an epoch was chosen by NDCG@100
        same_data &= held_of(training.stream) == held_of(stream_of(dataset.train))  # in the same order, too
        chosen_by = training.select_by or (None if training.best_epoch is None else str(OBJECTIVE))
        same_metric = chosen_by in (None, metric.path)
        return same_data and is_whole and same_metric and _is_same(_model(card, models), wanted)
    except (UsageError, BundleError, KeyError, TypeError, AttributeError):
        return False  # unfinished, damaged or of another version: not to be relied on


def _resumed(
    folder: Path, wanted: Model, dataset: Dataset, models: Sequence[type[Model]], metric: Metric
) -> Run | None:
    if not (folder / RUN_STATE).is_file():
        return None
    try:
        run = resumed_run(folder, dataset, models=models, select_by=metric)
    except (UsageError, BundleError):
        return None
    return run if run.refit is None and _is_same(run.model, wanted) else None


def _is_same(one: Model, other: Model) -> bool:
    return type(one) is type(other) and values_of(one) == values_of(other)
