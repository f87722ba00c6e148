"""What was tried, what each trial reached, and what to try next.

The next point depends on the seed and on the finished trials alone: a study that was stopped, killed or made in
parts tries what it would have tried in one go.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recvae.metrics import Metric
from recvae.models.common.hyperparameters import Range
from recvae.training.validation import OBJECTIVE
from recvae.tuning.search import Point, Search, settings_text

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

ID = "id"  # user attribute of a study's own name, by which its runs are known
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
_COMPLETE_BEFORE_PRUNING = 4  # trials: the median of fewer says little
# Of the epochs: annealing and small steps look worse than they are at first. Of 24 random points on MovieLens-100K,
# multvae and multdae, in 500 orders each, the best was never pruned, and half of all epochs were saved.
_WARMUP_SHARE = 0.2
_ATTEMPTS = 20  # to be offered a point that was not tried yet


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A finished trial.

    Parameters
    ----------
    number : int
        From 1, among the finished ones.
    key : int
        Number in the database, where trials that were stopped have one too.
    state : str
        "complete", "pruned" (hopeless, so not trained to its end) or "failed" (its training failed).
    value : float or None
        Mean of the metric over the validation users; of a pruned trial the best so far, None of a failed one.
    settings : dict
        The hyperparameters that are searched.
    epochs : int
        Epochs that were trained, 0 for a model without epochs.
    seconds : float
        How long it took.
    error : str
        Why it failed.
    metric : str
        What is searched for, as `recvae.metrics.Metric.path` has it.
    """

    number: int
    key: int
    state: str
    value: float | None
    settings: Point
    epochs: int = 0
    seconds: float = 0.0
    error: str = ""
    metric: str = str(OBJECTIVE)

    @property
    def ndcg(self) -> float | None:
        """The value where it is NDCG@100, None where the search is by another metric."""
        return self.value if self.metric == str(OBJECTIVE) else None


class OpenTrial:
    """A trial that has begun; made by `Study.begin`.

    Parameters
    ----------
    study : optuna.Study
        Its study.
    trial : optuna.Trial
        Asked for.
    """

    def __init__(self, study: "optuna.Study", trial: "optuna.Trial") -> None:
        self._study, self._trial = study, trial
        self.key = trial.number
        self._epochs = 0
        self._best = -math.inf

    def start(self, epochs: int) -> None:
        """Say how many epochs it is to have."""
        from optuna.pruners import MedianPruner

        self._epochs = epochs
        self._study.pruner = MedianPruner(
            n_startup_trials=_COMPLETE_BEFORE_PRUNING,
            n_warmup_steps=math.ceil(_WARMUP_SHARE * epochs),
            n_min_trials=_COMPLETE_BEFORE_PRUNING,  # also late, where only trials that did not end early can be asked
        )

    def is_hopeless(self, epoch: int, value: float) -> bool:
        """Note what an epoch reached, and return whether the best so far is below the median of the others'.

        Parameters
        ----------
        epoch : int
            From 1.
        value : float
            What is searched for, of the validation users.
        """
        self._best = max(self._best, value)  # the best is what is kept in the end, a single epoch is noisy
        self._trial.report(self._best, epoch)
        return epoch < self._epochs and self._trial.should_prune()

    def note(self, **facts: Any) -> None:
        """Keep facts about it, ready for JSON."""
        for name, fact in facts.items():
            self._trial.set_user_attr(name, fact)


class Study:
    """An open study; made by `open_study`.

    Parameters
    ----------
    study : optuna.Study
        Loaded.
    search : Search
        What is searched.
    metric : Metric
        By what.
    """

    def __init__(self, study: "optuna.Study", search: Search, metric: Metric = OBJECTIVE) -> None:
        self._study, self.search, self.metric = study, search, metric
        self._values = {
            name: {_encoded(value): value for value in domain}
            for name, domain in search.space.items()
            if not isinstance(domain, Range)
        }

    @property
    def id(self) -> str | None:
        """An id of its own, None for a study of an earlier version."""
        return self._study.user_attrs.get(ID)

    def trials(self) -> list[Trial]:
        """Return the finished trials in their order."""
        return [self._trial(number, trial) for number, trial in enumerate(counted(self._study), start=1)]

    def best(self) -> Trial | None:
        """Return the complete trial with the highest value, the first of equals, None without any."""
        complete = [trial for trial in self.trials() if trial.state == COMPLETE]
        return max(complete, key=lambda trial: -math.inf if trial.value is None else trial.value, default=None)

    def settle(self, finished: Mapping[int, float]) -> None:
        """Close the trials that a stop or a kill has left open.

        Parameters
        ----------
        finished : mapping of int to float
            Value by key of the trials known to have been fitted; the others never count.
        """
        from optuna.trial import TrialState

        while self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._study.ask()
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number in finished and set(trial.params) == set(self.search.space):
                self._study.tell(trial.number, finished[trial.number])
            else:
                self._study.tell(trial.number, state=TrialState.FAIL)

    def propose(self, seed: int) -> Point | None:
        """Return the next point to try: the defaults first, then one never tried; None if there is none left.

        Parameters
        ----------
        seed : int
            Of the sampler; the trials that are finished have a say too.
        """
        trials = self.trials()
        tried = {settings_text(trial.settings) for trial in trials}
        default = self.search.default()
        if default is not None and not trials:
            return default
        points = self.search.points()
        untried = None if points is None else [point for point in points if settings_text(point) not in tried]
        if untried == []:
            return None
        for attempt in range(_ATTEMPTS):
            point = self._suggest(np.random.SeedSequence([seed, len(trials), attempt]))
            if settings_text(point) not in tried:
                return point
        if untried is None:
            return None  # ranges too narrow for another number of so few digits
        return untried[np.random.default_rng([seed, len(trials)]).integers(len(untried))]

    def _suggest(self, seed: np.random.SeedSequence) -> Point:
        """Ask the sampler, in a copy of the study that knows the finished trials only and is not kept."""
        import optuna
        from optuna.trial import TrialState

        sampler = optuna.samplers.TPESampler(seed=int(seed.generate_state(1)[0]))
        copy = optuna.create_study(direction="maximize", sampler=sampler)
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        copy.add_trials(self._study.get_trials(deepcopy=False, states=states))
        return self.search.rounded(self._decoded(copy.ask(self._distributions()).params))

    def _distributions(self) -> dict[str, "BaseDistribution"]:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        distributions: dict[str, BaseDistribution] = {}
        for name, domain in self.search.space.items():
            if not isinstance(domain, Range):
                distributions[name] = CategoricalDistribution(list(self._values[name]))
            elif self.search.is_whole(name):
                distributions[name] = IntDistribution(int(domain.low), int(domain.high), log=domain.log)
            else:
                distributions[name] = FloatDistribution(domain.low, domain.high, log=domain.log)
        return distributions

    def begin(self, point: Point) -> OpenTrial:
        """Write down that a point is being tried."""
        self._study.enqueue_trial({name: _encoded(value) for name, value in point.items()})
        return OpenTrial(self._study, self._study.ask(self._distributions()))

    def complete(self, trial: OpenTrial, value: float) -> None:
        """Write down what a trial reached."""
        self._study.tell(trial.key, value)

    def prune(self, trial: OpenTrial) -> None:
        """Write down that a trial was hopeless."""
        from optuna.trial import TrialState

        self._study.tell(trial.key, state=TrialState.PRUNED)

    def fail(self, trial: OpenTrial, error: str) -> None:
        """Write down that a trial failed, and why."""
        from optuna.trial import TrialState

        trial.note(error=error)
        self._study.tell(trial.key, state=TrialState.FAIL)

    def _trial(self, number: int, trial: "FrozenTrial") -> Trial:
        facts = trial.user_attrs
        return Trial(
            number=number,
            key=trial.number,
            state=FAILED if "error" in facts else trial.state.name.lower(),
            value=trial.value,
            settings=self._decoded(trial.params),
            epochs=len(trial.intermediate_values),
            seconds=facts.get("seconds", 0.0),
            error=facts.get("error", ""),
            metric=self.metric.path,
        )

    def _decoded(self, parameters: Mapping[str, Any]) -> Point:
        """Return a point from what the sampler makes of it, in the order of the space."""
        return {
            name: self._values[name][parameters[name]] if name in self._values else parameters[name]
            for name in self.search.space
            if name in parameters
        }


def counted(study: "optuna.Study") -> list["FrozenTrial"]:
    """Return the finished trials of a study; one that was stopped or killed never counts."""
    from optuna.trial import TrialState

    def counts(trial: "FrozenTrial") -> bool:
        ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        return ended or (trial.state == TrialState.FAIL and "error" in trial.user_attrs)

    return [trial for trial in study.get_trials(deepcopy=False) if counts(trial)]


def _encoded(value: Any) -> Any:
    """Return a value as the sampler takes it: a tuple as text."""
    return json.dumps(value) if isinstance(value, tuple | list) else value
