"""Who takes part in a comparison: a fitted model with its values per user and its cost, once or over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from recvae.bundles.bundle import WEIGHTS, Bundle
from recvae.errors import UsageError
from recvae.evaluation.baselines import describe_choice
from recvae.evaluation.evaluate import Summary, check_needs, rank_all, summarise, summarise_resampled
from recvae.evaluation.slices import Slice
from recvae.interactions import HeldOut
from recvae.metrics import Background, Metric
from recvae.metrics import measure as measure_lists
from recvae.metrics.metric import resample
from recvae.models.common.base import Model
from recvae.models.common.hyperparameters import hyperparameters_of, values_of
from recvae.progress import Progress
from recvae.storage.weight_files import is_of_weights

Fitted = Model | Bundle


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What a model reached on some held-out users and what it cost, fitted once or with several seeds.

    Parameters
    ----------
    name : str
        What tables call it.
    model : str
        Name of the model.
    hyperparameters : dict
        Its settings; with several seeds, those of the first.
    per_user : dict of str to ndarray of shape (n_users,)
        Values of each per-user metric, NaN where a user has no target; means over the seeds.
    overall : dict of str to float
        Values of metrics that are not per user; means over the seeds.
    resampled : dict of str to ndarray of shape (n_resamples,)
        The same of users drawn again, from which their intervals are made.
    slices : dict of str to dict of str to ndarray of shape (n_users,)
        By slice and metric, values per user as in `per_user`; NaN where a user has no target in the slice.
    is_baseline : bool
        Whether it takes part as a baseline.
    note : str
        What has to be known of it, such as how the hyperparameters of a baseline were chosen.
    trained_on : str
        The parts of the data: "train", "train+validation" or "all".
    seeds : list of int
        Of each fit; empty where the model has none.
    seed_means : dict of str to list of float
        By metric, the mean over users of each fit; none where no user has a value.
    seconds : float or None
        Training time of one fit, the mean over those that know it.
    n_bytes : int
        Size of the weights on disk; in memory, where they were never written.
    n_parameters : int
        Numbers learned.
    """

    name: str
    model: str
    hyperparameters: dict[str, Any]
    per_user: dict[str, np.ndarray]
    overall: dict[str, float] = field(default_factory=dict)
    resampled: dict[str, np.ndarray] = field(default_factory=dict)
    slices: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    is_baseline: bool = False
    note: str = ""
    trained_on: str = "train"
    seeds: list[int] = field(default_factory=list)
    seed_means: dict[str, list[float]] = field(default_factory=dict)
    seconds: float | None = None
    n_bytes: int = 0
    n_parameters: int = 0

    def summary(self, metric: str) -> Summary:
        """Return the mean of a metric, or its value of all lists, with its interval."""
        if metric in self.per_user:
            return summarise(self.per_user[metric])
        return summarise_resampled(self.overall[metric], self.resampled.get(metric))

    def seed_sd(self, metric: str) -> float | None:
        """Return the standard deviation over seeds of the mean of a metric, None with fewer than two."""
        means = self.seed_means.get(metric, [])
        return float(np.std(means, ddof=1)) if len(means) > 1 else None


def measure(
    name: str,
    fitted: Fitted,
    held_out: HeldOut,
    metrics: Sequence[Metric],
    *,
    background: Background | None = None,
    slices: Sequence[Slice] = (),
    folder: Path | None = None,
    is_baseline: bool = False,
    ranked: np.ndarray | None = None,
    progress: Progress | None = None,
    max_memory: int | None = None,
) -> Contender:
    """Evaluate one fitted model and see what it cost.

    Parameters
    ----------
    name : str
        What tables call it.
    fitted : Model or Bundle
        Of a bundle, the training time is known.
    held_out : HeldOut
        The users to ask.
    metrics : sequence of Metric
        What to measure.
    background : Background, optional
        What metrics beyond accuracy need.
    slices : sequence of Slice
        Parts of the users or targets to measure too, by metrics with values per user.
    folder : Path, optional
        Where the bundle is.
    is_baseline : bool
        Whether it takes part as a baseline; then the note says how it was tuned.
    ranked : ndarray of shape (n_users, k), int32, optional
        What `rank_all` returned, at least as deep as the metrics look; by default items are ranked here.
    progress : Progress, optional
        Called with the users done and the users in all.
    max_memory : int, optional
        Bytes that scoring may take.

    Raises
    ------
    NotFittedError, UsageError, DataError
        See `evaluate`.
    """
    bundle = fitted if isinstance(fitted, Bundle) else None
    model = bundle.model if bundle else cast(Model, fitted)
    held_out = HeldOut.of(held_out, held_out.fold_in.shape[1])
    check_needs(metrics, held_out, background)
    if ranked is None:
        ranked = rank_all(model, held_out, max(metric.k for metric in metrics), progress, max_memory=max_memory)
    per_user, overall = measure_lists(metrics, ranked, held_out.targets, background)
    of_users = [metric for metric in metrics if metric.is_per_user] if slices else []
    values, weights = values_of(model), model.weights().values()
    refit = bundle.training.refit if bundle else None
    summaries = {metric: summarise(found) for metric, found in per_user.items()}
    means = {metric: [] if one.mean is None else [one.mean] for metric, one in summaries.items()}
    kept = [] if folder is None or not folder.is_dir() else folder.iterdir()  # a baseline need not be on the disk
    files = [one for one in kept if is_of_weights(WEIGHTS, one.name)]
    return Contender(
        name=name,
        model=model.name,
        hyperparameters=values,
        per_user=per_user,
        overall=overall,
        resampled=resample(metrics, ranked, held_out.targets),
        slices={one.name: measure_lists(of_users, ranked, one.targets, background)[0] for one in slices},
        is_baseline=is_baseline,
        note="" if bundle is None else _note(name, bundle, is_baseline),
        trained_on=refit.on if refit else "train",
        seeds=[values["seed"]] if "seed" in values else [],
        seed_means=means | {metric: [value] for metric, value in overall.items()},
        seconds=bundle.training.seconds if bundle else None,
        n_bytes=sum(one.stat().st_size for one in files) or sum(w.nbytes for w in weights),
        n_parameters=model.count_parameters(),
    )


def _note(name: str, bundle: Bundle, is_baseline: bool) -> str:
    """Say what has to be known of what is measured: a refit, the choice of a baseline, an end before its time."""
    training = bundle.training
    notes = [f"{name}: {training.refit.describe()}"] if training.refit else []
    notes += [describe_choice(bundle)] if is_baseline and not notes else []
    why = training.failure or "stopped by hand"
    notes += [f"{name} was interrupted ({why}): measured with its best weights so far"] if bundle.interrupted else []
    return "; ".join(note for note in notes if note)


def fits_of(name: str, made: Any) -> list[Fitted]:
    """Return the fits of one contender as a list.

    Parameters
    ----------
    name : str
        What tables call it.
    made : Model, Bundle or sequence of these
        One fit, or several.

    Raises
    ------
    UsageError
        If it is something else, or nothing.
    """
    fits = list(made) if isinstance(made, list | tuple) else [made]
    if not fits:
        raise UsageError(f"got no model for '{name}', expected one or more fitted ones")
    for fit in fits:
        if not isinstance(fit, Fitted):
            raise UsageError(
                f"got a {type(fit).__name__} for '{name}', expected a fitted model or a bundle, or a list of these; "
                "load the bundle of a run with recvae.read_bundle(folder)"
            )
    return fits


def fits_by_name(models: Any) -> dict[str, list[Fitted]]:
    """Return the fits of each contender by name.

    Parameters
    ----------
    models : mapping of str to fits, or sequence of fits
        What `fits_of` takes. Those of a sequence have the name of their model; where two have the same, with the
        hyperparameters that differ from their defaults.

    Raises
    ------
    UsageError
        If it is neither, or two models of a sequence cannot be told apart.
    """
    if isinstance(models, Mapping):
        return {name: fits_of(name, made) for name, made in models.items()}
    if not isinstance(models, list | tuple):
        raise UsageError(
            f"got a {type(models).__name__} of models, expected a list of fitted models, or a dictionary: "
            "name -> fitted model"
        )
    every = [fits_of(f"model {number}", made) for number, made in enumerate(models, 1)]
    kinds = [_model_of(fits[0]).name for fits in every]
    names = [
        kind if kinds.count(kind) == 1 else _with_settings(_model_of(fits[0]), without_seed=len(fits) > 1)
        for kind, fits in zip(kinds, every, strict=True)
    ]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"got two models {twice[0]} with the same settings, expected names: {{'NAME': model, ...}}")
    return dict(zip(names, every, strict=True))


def _model_of(fit: Fitted) -> Model:
    return fit.model if isinstance(fit, Bundle) else fit


def _with_settings(model: Model, *, without_seed: bool) -> str:
    """Return the name of a model with its hyperparameters that differ from their defaults."""
    known, values = hyperparameters_of(model), values_of(model)
    changed = {name: value for name, value in values.items() if getattr(model, name) != known[name].default}
    words = [f"{name}={value}" for name, value in changed.items() if not (without_seed and name == "seed")]
    return model.name + (f" ({', '.join(words)})" if words else "")


def over_seeds(fits: Sequence[Contender]) -> Contender:
    """Make one contender of several fits of the same model that differ in their seed.

    Parameters
    ----------
    fits : sequence of Contender
        From `measure`, at least one; the name is that of the first, notes are those of all.

    Raises
    ------
    UsageError
        If they differ in more than the seed, or two have the same one.
    """
    first, seeds = fits[0], [seed for fit in fits for seed in fit.seeds]
    if len(fits) == 1:
        return first
    kinds = [(f.model, {k: v for k, v in f.hyperparameters.items() if k != "seed"}, f.trained_on) for f in fits]
    if any(kind != kinds[0] for kind in kinds) or len(set(seeds)) < len(fits):
        found = "; ".join(f"{fit.model} {fit.hyperparameters} trained on {fit.trained_on}" for fit in fits)
        raise UsageError(
            f"got for '{first.name}' {found}, expected fits that differ in their seed and in nothing else; "
            "give others a name of their own"
        )
    times = [fit.seconds for fit in fits if fit.seconds is not None]
    return replace(
        first,
        per_user={metric: np.mean([fit.per_user[metric] for fit in fits], axis=0) for metric in first.per_user},
        overall={metric: float(np.mean([fit.overall[metric] for fit in fits])) for metric in first.overall},
        resampled={metric: np.mean([fit.resampled[metric] for fit in fits], axis=0) for metric in first.resampled},
        slices={
            name: {metric: np.mean([fit.slices[name][metric] for fit in fits], axis=0) for metric in values}
            for name, values in first.slices.items()
        },
        note="; ".join(dict.fromkeys(fit.note for fit in fits if fit.note)),
        seeds=seeds,
        seed_means={metric: [mean for fit in fits for mean in fit.seed_means[metric]] for metric in first.seed_means},
        seconds=float(np.mean(times)) if times else None,
    )


def check_names(names: Sequence[str], baseline: str | None) -> None:
    """Refuse a comparison of nothing, of two with one name, or with a baseline that takes no part or is alone.

    Raises
    ------
    UsageError
        If so.
    """
    if not names:
        raise UsageError("got no model, expected one or more: name -> fitted model")
    if baseline is not None and baseline not in names:
        raise UsageError(f"got baseline '{baseline}', expected one of: {', '.join(names)}")
    if baseline is not None and len(names) < 2:
        raise UsageError(f"got {names[0]} alone, expected two or more to compare; name another run or baseline")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"got '{twice[0]}' twice, expected a different name for each")
