"""Tuning: fit one point after another, stop the hopeless ones early, and keep the best as a bundle.

The best bundle so far is on disk before the study names it: what a stop or a kill leaves is always whole.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recvae.bundles.bundle import Bundle, read_bundle, write_bundle
from recvae.bundles.card import CARD, RUN_LOG
from recvae.compute.devices import resolve_device
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, DataError, MemoryLimitError, TrainingError, UsageError, is_out_of_memory
from recvae.evaluation.fitting import Fit, fit
from recvae.metrics import Metric
from recvae.models import is_own, model_class
from recvae.models.common.base import Model
from recvae.models.common.streaming import check_can_stream, order_of
from recvae.storage.files import write_folder
from recvae.training.details import DetailedMonitor
from recvae.training.monitors import LogFile, MonitorList
from recvae.training.records import EpochRecord, Monitor, NullMonitor, StopTraining
from recvae.training.validation import OBJECTIVE, check_objective, objective
from recvae.tuning.database import BEST, check_optuna, open_study
from recvae.tuning.interrupts import Shield
from recvae.tuning.result import ALL_DONE, EXHAUSTED, INTERRUPTED, OUT_OF_TIME, NullTuningMonitor, Tuning, TuningMonitor
from recvae.tuning.search import Search
from recvae.tuning.study import OpenTrial, Study, Trial


def tune(
    name: str | type[Model],
    dataset: Dataset,
    folder: Path,
    *,
    fixed: Mapping[str, Any] | None = None,
    trials: int = 30,
    timeout: float | None = None,
    seed: int = 0,
    device: str = "auto",
    max_memory: int | None = None,
    fresh: bool = False,
    monitor: TuningMonitor | None = None,
    select_by: str | Metric = OBJECTIVE,
    follow: Callable[[int, Model], Monitor] | None = None,
) -> Tuning:
    """Search for the hyperparameters that are best on the validation users, by NDCG@100, or continue a search.

    Parameters
    ----------
    name : str or type of Model
        A registered model, or one of your own as its class or `MODULE:CLASS`.
    dataset : Dataset
        Train and validation are used, test users are not looked at.
    folder : Path
        Where the study is kept, and its best bundle.
    fixed : mapping, optional
        Hyperparameters that are not searched, with their values.
    trials : int
        How many finished trials the study has in the end, including those of earlier calls; >= 1.
    timeout : float, optional
        Seconds after which this call ends, > 0. The current trial is given up at its next update.
    seed : int
        Of the choice of points, >= 0; the models have their own among their hyperparameters.
    device : str
        "auto", "cpu" or "cuda".
    max_memory : int, optional
        Bytes that fitting may take; see `Model`.
    fresh : bool
        Whether to forget an older study of that folder.
    monitor : TuningMonitor, optional
        Follows the search.
    select_by : str or Metric
        What trials and their epochs are chosen by; see `Model.fit`. A folder holds the study of one metric.
    follow : callable, optional
        Number of a trial as `Trial` has it, model -> a monitor that follows its training. One that was stopped, and so
        does not count, has the number of the next.

    Returns
    -------
    Tuning
        With the best of all trials. Ctrl-C ends the search with the best so far, once there is one.

    Raises
    ------
    UsageError
        If a name or number is wrong, there is nothing to tune, Optuna is missing, or the study in the folder is being
        made by another process or was made with other data or settings.
    DataError
        If no validation user has a target.
    TrainingError
        If all trials failed, or none finished in time.
    BundleError
        If the study is damaged.
    StorageError
        If it cannot be written.
    """
    search, metric = Search(model_class(name), dict(fixed or {})), objective(select_by)
    _check(search.model_class, dataset, trials, timeout, seed)
    check_objective(metric, dataset.validation, dataset.train)
    resolve_device(device)
    order = order_of(dataset.train)
    opened = open_study(folder, search, dataset.fingerprint, fresh=fresh, select_by=metric, order=order)
    with Shield() as shield, opened as study:
        tuner = _Tuner(
            study=study,
            shield=shield,
            dataset=dataset,
            place=folder / BEST,
            trials=trials,
            deadline=None if timeout is None else time.monotonic() + timeout,
            device=device,
            max_memory=max_memory,
            monitor=monitor or NullTuningMonitor(),
            follow=follow or (lambda _number, _model: NullMonitor()),
        )
        return tuner.run(seed)


def _check(model: type[Model], dataset: Dataset, trials: int, timeout: float | None, seed: int) -> None:
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise UsageError(f"got trials {trials!r}, expected a whole number, 1 or more")
    if timeout is not None and not 0 < timeout < float("inf"):
        raise UsageError(f"got timeout {timeout!r}, expected a number of seconds above 0")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"got seed {seed!r}, expected a whole number, 0 or more")
    if not dataset.validation.has_targets:
        raise DataError(
            f"no validation user of {dataset.name} has a target, so there is nothing to tune by; "
            "prepare it again with more users or a larger share held out"
        )
    check_optuna()
    model.check_libraries()
    if order_of(dataset.train):
        check_can_stream(model)


_NO_TIME = StopTraining("the time of the search is over")
_HOPELESS = StopTraining("worse than most trials at this epoch")


class _TrialMonitor:
    """A model's monitor that reports epochs to the trial, and stops it if it is hopeless or the time is over."""

    def __init__(self, tuner: "_Tuner", trial: OpenTrial) -> None:
        self._tuner, self._trial = tuner, trial
        self._epochs = 1
        self.records: list[EpochRecord] = []
        self.stop: StopTraining | None = None  # remembered here, since models of one step cannot be stopped

    def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002  (every monitor's signature)
        """Begin."""
        self._epochs = epochs
        self._trial.start(epochs)

    def advance(self, epochs_done: float, beta: float | None) -> StopTraining | None:  # noqa: ARG002
        """Show it, and stop once the time is over."""
        self._tuner.show(epochs_done / self._epochs)
        if self._tuner.is_out_of_time():
            self.stop = _NO_TIME
        return self.stop

    def epoch(self, record: EpochRecord) -> StopTraining | None:
        """Stop a trial that is worse than most."""
        self.records.append(record)
        if record.value is not None:
            with self._tuner.shield.closed():
                is_hopeless = self._trial.is_hopeless(record.epoch, record.value)
            if is_hopeless:
                self.stop = _HOPELESS
        return self.stop


@dataclass(kw_only=True)
class _Tuner:
    """One call of `tune`: the study, and what its trials have in common."""

    study: Study
    shield: Shield
    dataset: Dataset
    place: Path
    trials: int
    deadline: float | None
    device: str
    max_memory: int | None
    monitor: TuningMonitor
    follow: Callable[[int, Model], Monitor]
    done: int = field(default=0, init=False)
    best: Trial | None = field(default=None, init=False)

    def run(self, seed: int) -> Tuning:
        self.study.settle(self._kept())
        self.done, self.best = len(self.study.trials()), self.study.best()
        begun_with = self.done
        try:
            ended = self._try_points(seed)
        except KeyboardInterrupt:
            self.shield.close()  # it may have been interrupted while closing
            ended = INTERRUPTED
        if ended in (INTERRUPTED, OUT_OF_TIME):
            self.study.settle(self._kept())
        trials, best = self.study.trials(), self.study.best()
        if best is None and ended == INTERRUPTED:
            raise KeyboardInterrupt
        if best is None:
            raise TrainingError(_nothing_finished(trials))
        model = self.study.search.build(best.settings)
        if best.key not in self._kept():
            self._write(self._bundle(self._fit(model), best.key), [])  # somebody has removed or changed it
        return Tuning(
            model=model,
            best=best,
            trials=trials,
            begun_with=begun_with,
            ended=ended,
            bundle=self.place,
        )

    def _kept(self) -> dict[int, float]:
        """Return the value by trial of the bundle that is kept, if it is whole."""
        try:
            bundle = read_bundle(self.place, models=_own(self.study.search.model_class))
            trial = bundle.training.trial
            return {} if trial is None else {trial: self._value(bundle)}
        except (UsageError, BundleError, KeyError):
            return {}

    def _value(self, bundle: Bundle) -> float:
        return bundle.metrics["validation"][str(self.study.metric)]

    def is_out_of_time(self) -> bool:
        """Whether the time of this call is over."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def show(self, share: float) -> None:
        """Show how much of the current trial is done."""
        self.monitor.advance(self.done + min(share, 1.0), self.trials, self.best)

    def _try_points(self, seed: int) -> str:
        points = self.study.search.points()
        self.trials = self.trials if points is None else min(self.trials, len(points))
        while self.done < self.trials:
            point = self.study.propose(seed)
            if point is None:
                return EXHAUSTED
            if self.is_out_of_time():
                return OUT_OF_TIME
            self.show(0)
            if not self._try(self.study.begin(point), self.study.search.build(point)):
                return OUT_OF_TIME
            finished, self.best = self.study.trials(), self.study.best()
            self.done = len(finished)
            self.monitor.trial(finished[-1], self.trials, self.best)
        return EXHAUSTED if points is not None and self.done >= len(points) else ALL_DONE

    def _try(self, trial: OpenTrial, model: Model) -> bool:
        """Fit a point and write down what it reached; False if the time was over before that."""
        started = time.monotonic()
        watch, follower = _TrialMonitor(self, trial), self.follow(self.done + 1, model)
        try:
            fitted = self._fit(model, MonitorList(watch, follower))
            if watch.stop is _NO_TIME:
                return False
            if watch.stop is _HOPELESS:
                trial.note(seconds=time.monotonic() - started)
                self.study.prune(trial)
                return True
            bundle = self._bundle(fitted, trial.key)
            if isinstance(follower, DetailedMonitor):
                follower.saved(bundle, None)
        except MemoryLimitError:
            raise  # says what is free now, and nothing of the point: another call may have more
        except Exception as error:
            if not (isinstance(error, TrainingError) or is_out_of_memory(error)):
                raise
            self.study.fail(trial, str(error))
            return True
        trial.note(seconds=time.monotonic() - started)
        value = self._value(bundle)
        if self.best is None or self.best.value is None or value > self.best.value:
            self._write(bundle, watch.records)
        self.study.complete(trial, value)
        return True

    def _fit(self, model: Model, watch: Monitor | None = None) -> Fit:
        """Fit a model; one that was interrupted, or whose training failed, is no result."""
        with self.shield.opened():
            fitted = fit(
                model,
                self.dataset,
                device=self.device,
                monitor=watch,
                max_memory=self.max_memory,
                select_by=self.study.metric,
            )
            if fitted.failure is not None:
                raise fitted.failure
            if fitted.training.interrupted:
                raise KeyboardInterrupt
        return fitted

    def _bundle(self, fitted: Fit, key: int) -> Bundle:
        """Measure a model on the validation users, and note which trial it is."""
        searched = list(self.study.search.space)
        with self.shield.opened():
            how = {"chosen_on": "validation", "select_by": self.study.metric.path}
            return fitted.bundle(**how, searched=searched, trial=key, study=self.study.id)

    def _write(self, bundle: Bundle, records: list[EpochRecord]) -> None:
        with write_folder(self.place, CARD) as aside:
            write_bundle(aside, bundle)
            if records:
                LogFile(aside / RUN_LOG).start(len(records), records)


def _own(model: type[Model]) -> list[type[Model]]:
    """Return what has to be given to read a bundle of this model."""
    return [model] if is_own(model) else []


def _nothing_finished(trials: list[Trial]) -> str:
    errors = [trial.error for trial in trials if trial.error]
    if not errors:
        return "no trial finished within --timeout; allow more time or fewer epochs"
    which = "the only trial" if len(trials) == 1 else f"all {len(trials)} trials"
    return f"{which} failed; last error: {errors[-1]}"
