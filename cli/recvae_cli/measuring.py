"""Runs and baselines measured one by one with a progress bar each, for `recvae evaluate`, `compare` and `report`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from recvae_cli.console import imported_models, memory_limit, say

if TYPE_CHECKING:
    import numpy as np

    from recvae.bundles.bundle import Bundle
    from recvae.datasets.dataset import Dataset
    from recvae.evaluation.contenders import Contender
    from recvae.metrics import Background, Metric
    from recvae.models import Model


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was typed."""

    to: str | None
    baselines: str
    metrics: str
    split: str
    by: str | None
    seeds: int
    form: str | None
    output: Path | None
    per_user: Path | None
    as_json: bool
    data: str | None
    max_memory: str | None
    own: list[str] | None
    device: str
    data_dir: Path
    runs_dir: Path


@dataclass(frozen=True)
class Kept:
    """What a comparison shall leave behind for pictures, by label: ranked items as deep as that, and the runs."""

    depth: int
    ranked: "dict[str, np.ndarray]" = field(default_factory=dict)
    bundles: "dict[str, Bundle]" = field(default_factory=dict)


class MeasureRuns:
    """Measures runs and baselines with a progress bar each."""

    def __init__(
        self,
        request: Request,
        dataset: "Dataset",
        home: Path,
        metrics: "list[Metric]",
        to: str | None,
        background: "Background",
        kept: Kept | None,
    ) -> None:
        from recvae.evaluation.slices import slices_of

        self._background, self._kept = background, kept
        self._slices = slices_of(request.by, dataset.part(request.split), background)
        self._request, self._dataset, self._metrics, self._to = request, dataset, metrics, to
        self._limit, self._models = memory_limit(request.max_memory), imported_models(request.own)
        self._home, self._cache = home, home / "baselines"

    def _contender(self, label: str, bundle: "Bundle", folder: Path, is_baseline: bool) -> "Contender":
        from recvae.evaluation.contenders import measure
        from recvae.evaluation.evaluate import rank_all
        from recvae.training.monitors import ProgressBar

        held_out, kept = self._dataset.part(self._request.split), self._kept
        k = max(0 if kept is None else kept.depth, *(metric.k for metric in self._metrics))
        with ProgressBar(f"ranking for {label}") as bar:
            ranked = rank_all(bundle.model, held_out, k, bar, max_memory=self._limit)
        if kept is not None and label not in kept.ranked:  # of a run that is repeated with other seeds, it is the first
            kept.ranked[label] = ranked[:, : min(kept.depth, ranked.shape[1], len(self._dataset.item_ids))]
            if not is_baseline or label == self._to:
                kept.bundles[label] = bundle
        return measure(
            label,
            bundle,
            held_out,
            self._metrics,
            background=self._background,
            slices=self._slices,
            folder=folder,
            is_baseline=is_baseline,
            ranked=ranked,
            max_memory=self._limit,
        )

    def run(self, label: str, folder: Path) -> "Contender":
        """Measure a run."""
        from recvae.bundles.bundle import read_bundle

        bundle = read_bundle(folder, self._request.device, self._limit, models=self._models)
        return self._contender(label, bundle, folder, is_baseline=label == self._to)

    def fit_baseline(self, label: str, model: "type[Model]") -> "Bundle":
        """Take a tuned baseline from the cache next to the data set, or fit it; a run may have its name as label."""
        from recvae.bundles.card import CARD
        from recvae.evaluation.baselines import cached_baseline
        from recvae.training.monitors import ProgressBar

        ignored = self._request.runs_dir / self._dataset.name / model.name
        if self._to == label and (ignored / CARD).is_file():
            say(f"{model.name} is fitted and tuned as the baseline; to use the run {ignored}, name it among the runs")
        with ProgressBar(f"tuning {model.name} on validation") as bar:
            return cached_baseline(
                model, self._dataset, self._cache, bar, device=self._request.device, max_memory=self._limit
            )

    def baseline(self, label: str, bundle: "Bundle") -> "Contender":
        """Measure a tuned baseline."""
        return self._contender(label, bundle, self._cache / bundle.model.name, is_baseline=True)

    def over_seeds(self, first: "Contender", label: str, folder: Path, seeds: list[int]) -> "Contender":
        """Repeat a run with other seeds, or take the repeats that exist, and return the mean over all."""
        from recvae.evaluation.contenders import over_seeds

        return over_seeds([first, *(self.run(label, self._repeat(folder, seed)) for seed in seeds)])

    def _as_trained(self, folder: Path) -> "Dataset":
        """Return the data set with its training rows where a run had them, which decides the order of users."""
        from recvae.bundles.bundle import training_of
        from recvae.bundles.card import read_card
        from recvae.datasets.dataset import Dataset
        from recvae.models.common.streaming import stream_of
        from recvae.runs.repeats import held_of

        held = held_of(training_of(folder, read_card(folder)).stream)
        if held == held_of(stream_of(self._dataset.train)):
            return self._dataset
        return Dataset.load(self._home) if held is None else Dataset.load(self._home, stream=True, buffer=held)

    def _repeat(self, folder: Path, seed: int) -> Path:
        from recvae.runs.repeats import repeat
        from recvae.training.monitors import ProgressBar, TrainingProgress

        try:
            with ProgressBar(f"{folder.name}, seed {seed}") as bar:
                watch, device = TrainingProgress(bar), self._request.device
                return repeat(
                    folder,
                    seed,
                    self._as_trained(folder),
                    device=device,
                    max_memory=self._limit,
                    monitor=watch,
                    models=self._models,
                )
        except KeyboardInterrupt:
            say("interrupted; run the same command again to continue")
            raise
