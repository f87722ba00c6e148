"""From a model to a bundle: fit it, measure it on the validation users, and note how training went."""

import time
from dataclasses import dataclass, replace
from typing import Any

from recvae.bundles.bundle import Bundle
from recvae.compute.ranks import current
from recvae.datasets.dataset import Dataset
from recvae.datasets.joining import join
from recvae.errors import TrainingError
from recvae.evaluation.evaluate import DEFAULT_METRICS, evaluate, summarise
from recvae.metrics import Metric, parse_metrics
from recvae.models.common.base import Model
from recvae.models.common.streaming import stream_of
from recvae.training.checkpoints import Checkpoint
from recvae.training.records import Monitor, TrainingSummary
from recvae.training.refits import Refit
from recvae.training.validation import OBJECTIVE, background_for, objective, validation_means


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A model that was fitted to a data set; made by `fit`.

    Parameters
    ----------
    model : Model
        Fitted, unless its monitor stopped it before it had learned anything.
    dataset : Dataset
        What it was fitted to; of a refit, with the joined parts as its training users.
    training : TrainingSummary
        How that went.
    max_memory : int, optional
        Bytes that scoring may take.
    failure : TrainingError, optional
        What ended training, where the model has its best weights so far nevertheless.
    select_by : Metric
        What validation users choose by, which the bundle is measured with too.
    means : dict of str to float, optional
        What the bundle says of the validation users, where processes that share items have found it together.
    """

    model: Model
    dataset: Dataset
    training: TrainingSummary
    max_memory: int | None = None
    failure: TrainingError | None = None
    select_by: Metric = OBJECTIVE
    means: dict[str, float] | None = None

    def bundle(self, **facts: Any) -> Bundle:
        """Measure the model on the validation users, and return it with everything needed to recommend.

        Parameters
        ----------
        **facts
            Further fields of `TrainingSummary`, such as how the hyperparameters were chosen.

        Returns
        -------
        Bundle
            `metrics` holds the means over the validation users; none where no validation user has a target, or where
            these were trained on.

        Raises
        ------
        TrainingError
            If training was stopped before the model had learned anything.
        """
        if not self.model.n_items_:
            why = f" ({self.training.stopped})" if self.training.stopped else ""
            raise TrainingError(f"training of {self.model.name} was stopped{why} before there were any weights to keep")
        means = self.means
        if means is None:
            means = dict[str, float]()
            metrics = _measured_by(self.dataset, self.training.refit, self.select_by)
            if metrics:
                train = self.dataset.train if self.select_by.needs else None
                held_out = self.dataset.validation
                per_user, _ = evaluate(self.model, held_out, metrics, train=train, max_memory=self.max_memory)
                means = {name: summarise(values).mean or 0.0 for name, values in per_user.items()}
        return Bundle(
            model=self.model,
            items=self.dataset.items,
            manifest=self.dataset.manifest,
            metrics={} if self.training.refit else {"validation": means},
            training=replace(self.training, **facts),
        )


def _measured_by(dataset: Dataset, refit: Refit | None, select_by: Metric) -> list[Metric]:
    """Return the metrics that a bundle is measured by on the validation users, none where it has seen these."""
    if not dataset.validation.has_targets or (refit and refit.has_seen("validation")):
        return []
    return parse_metrics([*DEFAULT_METRICS.split(","), select_by])


def _means_together(
    model: Model, dataset: Dataset, refit: Refit | None, select_by: Metric, max_memory: int | None
) -> dict[str, float]:
    """Return what the bundle says of the validation users, found by all processes, of which none has all items."""
    metrics = _measured_by(dataset, refit, select_by)
    if not metrics:
        return {}
    held_out, rows = dataset.validation, model.rows_at_a_time(max_memory)
    background = background_for(metrics, held_out, dataset.train)
    means = validation_means(model._score_block, held_out, metrics, rows, background, current())
    return {str(metric): means.get(str(metric), 0.0) for metric in metrics}


def fit(
    model: Model,
    dataset: Dataset,
    *,
    device: str = "auto",
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
    max_memory: int | None = None,
    refit: Refit | None = None,
    select_by: str | Metric = OBJECTIVE,
) -> Fit:
    """Fit a model to a data set, as `train`, `tune` and baselines all do.

    Parameters
    ----------
    model : Model
        With its hyperparameters and parts.
    dataset : Dataset
        Train and validation are used, test users are not looked at, unless it is a refit on all.
    device : str
        "auto", "cpu" or "cuda".
    monitor : Monitor, optional
        Follows training, and may stop it.
    checkpoint : Checkpoint, optional
        Where to keep the state after each epoch.
    max_memory : int, optional
        Bytes that fitting and scoring may take; see `Model.fit`.
    refit : Refit, optional
        What another run has chosen, to train that again on its held-out users too; nothing is chosen then.
    select_by : str or Metric
        What the validation users choose by; see `Model.fit`.

    Returns
    -------
    Fit
        Also of a model whose training was interrupted or failed after its first epoch, with its best weights so far.

    Raises
    ------
    KeyboardInterrupt, TrainingError
        If there are no weights to keep.
    UsageError, DataError, MemoryLimitError, StorageError, BundleError
        See `Model.fit` and `Checkpoint`.
    """
    dataset = dataset if refit is None else replace(dataset, train=join(dataset, refit.on), train_user_ids=None)
    metric = objective(select_by)
    started = time.perf_counter()
    failure: TrainingError | None = None
    try:
        model.fit(
            dataset.train,
            None if refit else dataset.validation,
            device=device,
            monitor=monitor,
            checkpoint=checkpoint,
            max_memory=max_memory,
            course=None if refit is None else refit.course,
            select_by=metric,
        )
    except TrainingError as error:
        if not model.n_items_:
            raise
        failure = error.with_traceback(None)  # whose frames would hold on to what training had
    seconds = round(time.perf_counter() - started, 2)
    summary = model.training_summary()
    stopped = summary.stopped or (model.stop_.reason if model.stop_ else None)
    stream = stream_of(dataset.train)
    training = replace(summary, seconds=summary.seconds or seconds, stopped=stopped, refit=refit, stream=stream)
    if failure is not None:
        training = replace(training, interrupted=True, failure=str(failure))
    means = None
    if current().by_items and model.n_items_:
        means = _means_together(model, dataset, refit, metric, max_memory)
    return Fit(
        model=model,
        dataset=dataset,
        training=training,
        max_memory=max_memory,
        failure=failure,
        select_by=metric,
        means=means,
    )
