"""Who takes part in a comparison: a fitted model with its values per user and its cost, once or over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from recvae.bundles.bundle import WEIGHTS, Bundle
from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.evaluation.baselines import describe_choice
from recvae.evaluation.evaluate import Summary, check_needs, rank_all, summarise, summarise_resampled
from recvae.evaluation.segments import Segment
from recvae.interactions import HeldOut
from recvae.metrics import Background, Metric
from recvae.metrics import measure as measure_lists
from recvae.metrics.metric import resample
from recvae.models.common.base import Model
from recvae.models.common.hyperparameters import values_of
from recvae.progress import Progress
from recvae.training.refits import Refit

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
    segments : dict of str to dict of str to ndarray of shape (n_users,)
        By segment and metric, values per user as in `per_user`; NaN where a user has no target in the segment.
    is_baseline : bool
        Whether it takes part as a baseline.
    note : str
        What has to be known of it, such as how the hyperparameters of a baseline were chosen.
    trained_on : str
        The parts of the data: "train", "train+validation" or "all".
    seeds : list of int
        Of each fit; empty where the model has none.
    seed_means : dict of str to list of float
        By metric, the mean over users of each fit.
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
    segments: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
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
    segments: Sequence[Segment] = (),
    folder: Path | None = None,
    is_baseline: bool = False,
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
    segments : sequence of Segment
        Parts of the users or targets to measure too, by metrics with values per user.
    folder : Path, optional
        Where the bundle is.
    is_baseline : bool
        Whether it takes part as a baseline; then the note says how it was tuned.
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
    ranked = rank_all(model, held_out, metrics, progress, max_memory=max_memory)
    per_user, overall = measure_lists(metrics, ranked, held_out.targets, background)
    of_users = [metric for metric in metrics if metric.is_per_user] if segments else []
    values, weights = values_of(model), model.weights().values()
    refit = bundle.training.refit if bundle else None
    means = {metric: [summarise(found).mean or 0.0] for metric, found in per_user.items()}
    file = folder / WEIGHTS if folder is not None else None
    return Contender(
        name=name,
        model=model.name,
        hyperparameters=values,
        per_user=per_user,
        overall=overall,
        resampled=resample(metrics, ranked, held_out.targets),
        segments={one.name: measure_lists(of_users, ranked, one.targets, background)[0] for one in segments},
        is_baseline=is_baseline,
        note=f"{name}: {refit.describe()}" if refit else describe_choice(bundle) if is_baseline and bundle else "",
        trained_on=refit.on if refit else "train",
        seeds=[values["seed"]] if "seed" in values else [],
        seed_means=means | {metric: [value] for metric, value in overall.items()},
        seconds=bundle.training.seconds if bundle else None,
        n_bytes=file.stat().st_size if file is not None and file.is_file() else sum(w.nbytes for w in weights),
        n_parameters=model.count_parameters(),
    )


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


def over_seeds(fits: Sequence[Contender]) -> Contender:
    """Make one contender of several fits of the same model that differ in their seed.

    Parameters
    ----------
    fits : sequence of Contender
        From `measure`, at least one; name and note are those of the first.

    Raises
    ------
    UsageError
        If they differ in more than the seed, or two have the same one.
    """
    first, seeds = fits[0], [seed for fit in fits for seed in fit.seeds]
    if len(fits) == 1:
        return first
    kinds = [(fit.model, {k: v for k, v in fit.hyperparameters.items() if k != "seed"}) for fit in fits]
    if any(kind != kinds[0] for kind in kinds) or len(set(seeds)) < len(fits):
        found = "; ".join(f"{kind[0]} {fit.hyperparameters}" for kind, fit in zip(kinds, fits, strict=True))
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
        segments={
            name: {metric: np.mean([fit.segments[name][metric] for fit in fits], axis=0) for metric in values}
            for name, values in first.segments.items()
        },
        seeds=seeds,
        seed_means={metric: [fit.seed_means[metric][0] for fit in fits] for metric in first.seed_means},
        seconds=float(np.mean(times)) if times else None,
    )


def check_unseen(refits: Mapping[str, Refit | None], split: str) -> None:
    """Refuse to measure what was trained on these very users and their targets.

    Parameters
    ----------
    refits : mapping of str to Refit or None
        By the name of a run, what its card says of being a refit.
    split : str
        "validation" or "test".

    Raises
    ------
    UsageError
        If one of the runs has seen them.
    """
    for name, refit in refits.items():
        if refit is not None and refit.has_seen(split):
            other = "" if refit.has_seen("test") else "use --split test, or "
            raise UsageError(
                f"{name} was trained on {refit.on}, so it has seen the targets of the {split} users, and a measure on "
                f"them would say nothing; {other}measure {refit.run}, which has chosen its settings"
            )


def check_same_data(manifests: Mapping[str, Mapping[str, Any]], dataset: Dataset) -> None:
    """Refuse to compare what was trained on other data than that at hand.

    Parameters
    ----------
    manifests : mapping of str to mapping
        By the name of a run, the manifest of the data it was trained on.
    dataset : Dataset
        What it would be measured on.

    Raises
    ------
    UsageError
        If fingerprints differ, with all of them and their protocols side by side.
    """
    others = [name for name, manifest in manifests.items() if manifest.get("fingerprint") != dataset.fingerprint]
    if not others:
        return
    sides = {**manifests, f"{dataset.name} as it is now": dataset.manifest}
    width = max(map(len, sides))
    lines = [f"  {name:<{width}}  {_identity(manifest)}" for name, manifest in sides.items()]
    fits = [name for name in manifests if name not in others]
    raise UsageError(
        f"{others[0]} was not trained on {dataset.name} as it is now, and numbers on different data or protocols "
        "cannot be compared:\n"
        + "\n".join(lines)
        + "\n"
        + (f"leave out {', '.join(others)}, or " if fits else "")
        + f"train {'it' if len(others) == 1 else 'them'} again on {dataset.name}, or prepare the data as it was"
    )


def _identity(manifest: Mapping[str, Any]) -> str:
    """Say in one line what data these are."""
    protocol = ", ".join(f"{key} {value}" for key, value in manifest.get("protocol", {}).items())
    fingerprint = str(manifest.get("fingerprint", "unknown"))[:12]
    return f"fingerprint {fingerprint:<12}  {manifest.get('name', 'unnamed')}: {protocol or 'unknown protocol'}"
