"""Baselines that are fair: fitted on the same training users, hyperparameters chosen on validation."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from recvae.bundles.bundle import Bundle, read_bundle, write_bundle
from recvae.bundles.card import CARD
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, StorageError, UsageError
from recvae.evaluation.evaluate import evaluate, summarise
from recvae.models import model_class
from recvae.models.common.base import Model
from recvae.models.common.hyperparameters import grid_of, values_of
from recvae.storage.files import write_folder
from recvae.training.validation import OBJECTIVE


def fit_baseline(
    name: str,
    dataset: Dataset,
    progress: Callable[[int, int, str], None] | None = None,
    *,
    device: str = "auto",
    max_memory: int | None = None,
) -> Bundle:
    """Fit a model for each point of its grid and keep the one with the best validation NDCG@100.

    Parameters
    ----------
    name : str
        Name of a registered model.
    dataset : Dataset
        Test users are not looked at.
    progress : callable, optional
        Called with the fits done, the fits in all, and the settings of the next.
    device : str
        "auto", "cpu" or "cuda", for a network.
    max_memory : int, optional
        Bytes that fitting and scoring may take; see `Model`.

    Returns
    -------
    Bundle
        The best model; `training` holds the seconds of its fit, the grid and what each point reached.

    Raises
    ------
    UsageError
        If there is no such model or device.
    MemoryLimitError
        If it does not fit.
    """
    model_type = model_class(name)
    grid = grid_of(model_type.space)
    tried: list[dict[str, Any]] = []
    best: tuple[float, Model, float] | None = None
    if dataset.validation.n_without_target() == dataset.validation.n_users:
        grid = [{}]  # nothing to choose by: the model's defaults
    for done, settings in enumerate(grid):
        if progress is not None:
            progress(done, len(grid), ", ".join(f"{key} {_short(value)}" for key, value in settings.items()))
        started = time.perf_counter()
        model = model_type(max_memory=max_memory, **settings).fit(dataset.train, dataset.validation, device=device)
        seconds = round(time.perf_counter() - started, 2)
        reached = 0.0
        if len(grid) > 1:
            per_user, _ = evaluate(model, dataset.validation, [OBJECTIVE])
            reached = summarise(per_user[str(OBJECTIVE)]).mean or 0.0
            tried.append({**settings, str(OBJECTIVE): reached})
        if best is None or reached > best[0]:
            best = reached, model, seconds
    assert best is not None  # a grid has at least one point
    return Bundle(
        model=best[1],
        items=dataset.items,
        manifest=dataset.manifest,
        metrics={"validation": {str(OBJECTIVE): best[0]}} if tried else {},
        training={
            "seconds": best[2],
            "chosen_on": "validation",
            "grid": _values_of_grid(model_type),
            "tried": tried,
        },
    )


def cached_baseline(
    name: str,
    dataset: Dataset,
    folder: Path,
    progress: Callable[[int, int, str], None] | None = None,
    *,
    device: str = "auto",
    max_memory: int | None = None,
) -> Bundle:
    """Return a tuned baseline, fitted once per data set and kept as a bundle.

    Parameters
    ----------
    name : str
        Name of a registered model.
    dataset : Dataset
        What to fit on.
    folder : Path
        Where baselines of this data set are kept; the bundle is `folder / name`.
    progress : callable, optional
        See `fit_baseline`; not called where a bundle is there.
    device, max_memory
        See `fit_baseline`.

    Returns
    -------
    Bundle
        Read from the disk if it was made from the same data with the same grid, else fitted and written.

    Raises
    ------
    UsageError
        If there is no such model or device.
    MemoryLimitError
        If it does not fit.
    """
    model_type = model_class(name)
    grid = _values_of_grid(model_type)
    fixed = {key: value for key, value in values_of(model_type()).items() if key not in grid}
    try:
        bundle = read_bundle(folder / name, device, max_memory)
        same_data = bundle.manifest.get("fingerprint") == dataset.fingerprint
        if same_data and bundle.training.get("grid") == grid and fixed.items() <= values_of(bundle.model).items():
            return bundle
    except (UsageError, BundleError):
        pass  # none yet, or one that is damaged or of another version: fit anew
    bundle = fit_baseline(name, dataset, progress, device=device, max_memory=max_memory)
    with suppress(StorageError), write_folder(folder / name, CARD) as aside:  # a cache only saves time
        write_bundle(aside, bundle)
    return bundle


def _values_of_grid(model: type[Model]) -> dict[str, list[Any]]:
    """Return the values tried of each hyperparameter, none where the model has no grid."""
    points = grid_of(model.space)
    return {name: list(dict.fromkeys(point[name] for point in points)) for name in points[0]}


def describe_choice(bundle: Bundle) -> str:
    """Say in one line how a tuned baseline's hyperparameters were chosen; empty where there was no grid."""
    grid = bundle.training.get("grid") or {}
    if not grid:
        return ""
    if not bundle.training.get("tried"):
        return f"{bundle.model.name} has its default hyperparameters: no validation user has a target to choose by"
    values = values_of(bundle.model)
    chosen = ", ".join(f"{key} {_short(values[key])} of {'/'.join(map(_short, v))}" for key, v in grid.items())
    return f"{bundle.model.name} chosen on validation {OBJECTIVE}: {chosen}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
