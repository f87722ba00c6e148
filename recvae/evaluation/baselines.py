"""Baselines that are fair: fitted on the same training users, hyperparameters chosen on validation."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from recvae.bundles.bundle import Bundle, read_bundle, write_bundle
from recvae.bundles.card import CARD
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, StorageError, UsageError
from recvae.evaluation.fitting import fit
from recvae.models import is_own, model_class
from recvae.models.common.base import Model
from recvae.models.common.hyperparameters import grid_of, values_of
from recvae.progress import Progress
from recvae.storage.files import write_folder
from recvae.training.validation import OBJECTIVE


def fit_baseline(
    name: str | type[Model],
    dataset: Dataset,
    progress: Progress | None = None,
    *,
    device: str = "auto",
    max_memory: int | None = None,
) -> Bundle:
    """Fit a model for each point of its grid and keep the one with the best validation NDCG@100.

    Parameters
    ----------
    name : str or type of Model
        A registered model, or one of your own as its class or `MODULE:CLASS`.
    dataset : Dataset
        Test users are not looked at.
    progress : Progress, optional
        Called with the fits done, the fits in all, and the settings of the next one.
    device : str
        "auto", "cpu" or "cuda", for a network.
    max_memory : int, optional
        Bytes that fitting and scoring may take; see `Model`.

    Returns
    -------
    Bundle
        The best model with its metrics on the validation users; `training` also holds the grid and what each point
        of it reached.

    Raises
    ------
    UsageError
        If there is no such model or device.
    MemoryLimitError
        If it does not fit.
    """
    model_type = model_class(name)
    grid = _grid(model_type)
    tried: list[dict[str, Any]] = []
    best: Bundle | None = None
    if not dataset.validation.has_targets:
        grid = [{}]  # nothing to choose by: the model's defaults
    for done, settings in enumerate(grid):
        if progress is not None:
            progress(done, len(grid), ", ".join(f"{key} {_short(value)}" for key, value in settings.items()))
        fitted = fit(model_type(**settings), dataset, device=device, max_memory=max_memory)
        if fitted.failure is not None:
            raise fitted.failure
        if fitted.training.interrupted:
            raise KeyboardInterrupt
        bundle = fitted.bundle(chosen_on="validation", grid=_values_of_grid(model_type))
        if len(grid) > 1:
            tried.append({**settings, str(OBJECTIVE): validation_of(bundle)})
        if best is None or (validation_of(bundle) or 0.0) > (validation_of(best) or 0.0):
            best = bundle
    assert best is not None  # a grid has at least one point
    return replace(best, training=replace(best.training, tried=tried))


def strongest(baselines: Mapping[str, Bundle]) -> tuple[str, str]:
    """Choose the baseline that differences are taken to, on validation and never on test.

    Parameters
    ----------
    baselines : mapping of str to Bundle
        By the name that tables show; at least one.

    Returns
    -------
    name : str
        The baseline with the highest validation NDCG@100; the first, where none has one.
    choice : str
        How it was chosen, for the reader of a table.
    """
    names = list(baselines)
    reached = {name: value for name, bundle in baselines.items() if (value := validation_of(bundle)) is not None}
    if len(names) == 1:
        return names[0], "the only baseline"
    if not reached:
        return names[0], f"first of {', '.join(names)}; none has a validation {OBJECTIVE}"
    values = ", ".join(f"{name} {reached[name]:.4f}" if name in reached else f"{name} none" for name in names)
    return max(reached, key=reached.__getitem__), f"highest validation {OBJECTIVE}: {values}"


def validation_of(bundle: Bundle) -> float | None:
    """Return the validation NDCG@100 of a bundle, None where it does not say one."""
    return bundle.metrics.get("validation", {}).get(str(OBJECTIVE))


def cached_baseline(
    name: str | type[Model],
    dataset: Dataset,
    folder: Path,
    progress: Progress | None = None,
    *,
    device: str = "auto",
    max_memory: int | None = None,
) -> Bundle:
    """Return a tuned baseline, fitted once per data set and kept as a bundle.

    Parameters
    ----------
    name : str or type of Model
        A registered model, or one of your own as its class or `MODULE:CLASS`.
    dataset : Dataset
        What to fit on.
    folder : Path
        Where baselines of this data set are kept; the bundle is `folder / NAME`.
    progress : Progress, optional
        See `fit_baseline`; not called if the baseline is in the cache.
    device, max_memory
        See `fit_baseline`.

    Returns
    -------
    Bundle
        Read from disk if it was made from the same data with the same grid, otherwise fitted and written.

    Raises
    ------
    UsageError
        If there is no such model or device.
    MemoryLimitError
        If it does not fit.
    """
    model_type = model_class(name)
    if is_own(model_type):  # never kept: its code may have changed since
        return fit_baseline(model_type, dataset, progress, device=device, max_memory=max_memory)
    grid = _values_of_grid(model_type)
    fixed = {key: value for key, value in values_of(model_type()).items() if key not in grid}
    try:
        bundle = read_bundle(folder / model_type.name, device, max_memory)
        same_data = bundle.manifest.get("fingerprint") == dataset.fingerprint
        same_grid = bundle.training.grid == grid and fixed.items() <= values_of(bundle.model).items()
        if same_data and same_grid and _is_measured(bundle, dataset):
            return bundle
    except (UsageError, BundleError):
        pass  # none yet, or one that is damaged or of another version: fit it again
    bundle = fit_baseline(model_type, dataset, progress, device=device, max_memory=max_memory)
    with suppress(StorageError), write_folder(folder / model_type.name, CARD) as aside:  # a cache only saves time
        write_bundle(aside, bundle)
    return bundle


def _is_measured(bundle: Bundle, dataset: Dataset) -> bool:
    """Whether a bundle has its validation metric, where there is one; earlier versions left it out without a grid."""
    return not dataset.validation.has_targets or validation_of(bundle) is not None


def _grid(model: type[Model]) -> list[dict[str, Any]]:
    """Return the points to try."""
    return grid_of(model.grid or model.space)


def _values_of_grid(model: type[Model]) -> dict[str, list[Any]]:
    """Return the values tried of each hyperparameter, none where the model has no grid."""
    points = _grid(model)
    return {name: list(dict.fromkeys(point[name] for point in points)) for name in points[0]}


def describe_choice(bundle: Bundle) -> str:
    """Say in one line how a tuned baseline's hyperparameters were chosen; empty where there was no grid."""
    grid = bundle.training.grid or {}
    if not grid:
        return ""
    if not bundle.training.tried:
        return f"{bundle.model.name} has its default hyperparameters: no validation user has a target to choose by"
    values = values_of(bundle.model)
    chosen = ", ".join(f"{key} {_short(values[key])} of {'/'.join(map(_short, v))}" for key, v in grid.items())
    return f"{bundle.model.name} chosen on validation {OBJECTIVE}: {chosen}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
