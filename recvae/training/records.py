"""What is known of a run: a record per epoch, how it went as a whole, and monitors that follow it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol, Self

from recvae.display import html_table, one_line, plural
from recvae.training.refits import Refit
from recvae.training.validation import OBJECTIVE

_SHOWN = 60  # epochs that a notebook shows


@dataclass(frozen=True)
class EpochRecord:
    """One line of a run's log.

    Parameters
    ----------
    epoch : int
        From 1.
    loss, reconstruction : float
        Means over the users of the epoch, in all passes of its first phase.
    kl : float or None
        The same of the KL divergence, None for a model without one.
    beta : float or None
        Weight of the KL term in the epoch's last update, None where there is no such term.
    ndcg : float or None
        Validation NDCG@100, None without validation users.
    best : bool
        Whether `value` is higher than in every epoch before, or there is none.
    seconds, users_per_second : float
        Time of the epoch's training, and its speed.
    active_units : int or None
        Latent units that differ between users, None where there is no latent space or an earlier version trained.
    kl_per_dimension : list of float or None
        Mean KL divergence of each latent unit from N(0, 1), None where codes are points.
    mutual_information : float or None
        Nats that codes tell of who the user is; likewise. All three are of the fold-in of at most 1,000 validation
        users; without validation, of training users.
    metric : str
        What the epoch to keep is chosen by, as `recvae.metrics.Metric.path` has it.
    value : float or None
        Its mean over the validation users.
    """

    epoch: int
    loss: float
    reconstruction: float
    kl: float | None
    beta: float | None
    ndcg: float | None
    best: bool
    seconds: float
    users_per_second: float
    active_units: int | None = None
    kl_per_dimension: list[float] | None = None
    mutual_information: float | None = None
    metric: str = str(OBJECTIVE)
    value: float | None = None

    def __post_init__(self) -> None:
        if self.metric == str(OBJECTIVE):  # also of an earlier version, which has no other
            object.__setattr__(self, "value", self.ndcg)


@dataclass(frozen=True)
class StopTraining:
    """What a monitor returns to end training; the best weights so far are kept.

    Parameters
    ----------
    reason : str
        Why, in a few words.
    """

    reason: str


@dataclass(kw_only=True)
class History:
    """How a run went.

    Parameters
    ----------
    records : list of EpochRecord
        One per epoch, from the first one on, also across a resumption.
    best_epoch : int
        The epoch whose weights were kept, 0 before the first.
    best_ndcg : float or None
        Its validation NDCG@100.
    metric : str
        What it was chosen by, as `recvae.metrics.Metric.path` has it.
    best_value : float or None
        Its mean over the validation users.
    interrupted : bool
        Whether the run was stopped by hand before its end.
    stopped_early : bool
        Whether it ended because validation had not improved for `patience` epochs.
    stop : StopTraining or None
        What its monitor ended it with.
    diverged_at : int
        The update, from 1, at which the loss was no longer a number; 0 if it never was.
    out_of_memory_at : int
        The last update, from 1, that was begun before memory ran out; 0 if it never did.
    """

    records: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    best_ndcg: float | None = None
    metric: str = str(OBJECTIVE)
    best_value: float | None = None
    interrupted: bool = False
    stopped_early: bool = False
    stop: StopTraining | None = None
    diverged_at: int = 0
    out_of_memory_at: int = 0

    def __repr__(self) -> str:
        """Return the run in one line: epochs, the best one, how it ended."""
        return f"<History: {plural(len(self.records), 'epoch')}{self._best()}{self._end()}>"

    def _repr_html_(self) -> str:
        step = -(-len(self.records) // _SHOWN) or 1
        shown = [r for r in self.records if r.epoch % step == 0 or r.epoch in (1, self.best_epoch, len(self.records))]
        names = [item.name for item in fields(EpochRecord) if item.name != "best"]
        names = [name for name in names if any(getattr(record, name) is not None for record in self.records)]
        rows = [[getattr(record, name) for name in names] for record in shown]
        remarks = [f"{len(shown)} of {plural(len(self.records), 'epoch')}"] if len(shown) < len(self.records) else []
        return html_table(f"{plural(len(self.records), 'epoch')}{self._best()}{self._end()}", names, rows, remarks)

    def _best(self) -> str:
        if not self.best_epoch:
            return ""
        best = self.best_ndcg if self.best_value is None else self.best_value
        reached = "" if best is None else f" (validation {self.metric} {best:.4f})"
        return f", best {self.best_epoch}{reached}"

    def _end(self) -> str:
        ends = {
            "interrupted": self.interrupted,
            "stopped early": self.stopped_early,
            f"stopped: {one_line(self.stop.reason) if self.stop else ''}": self.stop is not None,
            f"diverged at update {self.diverged_at:,}": bool(self.diverged_at),
            f"out of memory at update {self.out_of_memory_at:,}": bool(self.out_of_memory_at),
        }
        return "".join(f", {words}" for words, is_so in ends.items() if is_so)

    def to_progress(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it, as JSON has it."""
        kept = ("best_epoch", "best_ndcg", "metric", "best_value")
        return {name: getattr(self, name) for name in kept} | {"records": [asdict(record) for record in self.records]}

    @classmethod
    def of_progress(cls, progress: Mapping[str, Any]) -> Self:
        """Read back what `to_progress` returned, of this version or an earlier one, which chose by NDCG@100."""
        return cls(
            records=[EpochRecord(**record) for record in progress["records"]],
            best_epoch=progress["best_epoch"],
            best_ndcg=progress["best_ndcg"],
            metric=progress.get("metric", str(OBJECTIVE)),
            best_value=progress.get("best_value", progress["best_ndcg"]),
        )


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """How a fit went as a whole: what a model says of its last fit, and what its bundle keeps.

    A model sets what it knows, whoever fits it adds the rest; what is None is not known or does not apply.

    Parameters
    ----------
    seconds : float, optional
        How long training took.
    device, precision : str, optional
        Where a network was trained, and in which precision.
    epochs, best_epoch : int, optional
        Epochs trained, and the one whose weights are kept.
    stopped_early : bool, optional
        Whether training ended because validation had not improved for `patience` epochs.
    stopped : str, optional
        Why the monitor ended training.
    interrupted : bool
        Whether training was ended by hand or by a failure, so that more of it could do better.
    failure : str, optional
        What ended it: the loss was no longer a number, or memory ran out.
    select_by : str, optional
        The metric of the validation users that has chosen the epoch, or the weight of a blend.
    weight : float, optional
        Of a blend: the weight of the first run.
    pruning : dict, optional
        Of a pruned linear model: the share of weights kept, and validation NDCG@100 before and after.
    from_data : dict, optional
        Hyperparameters that were left to the data, and what they became.
    tried : dict or list of dict, optional
        What `select_by` was for each weight of a blend, or validation NDCG@100 of each point of a baseline's grid.
    grid : dict, optional
        Of a tuned baseline: the values tried of each hyperparameter.
    chosen_on : str, optional
        The users that hyperparameters were chosen on: "validation".
    searched : list of str, optional
        Hyperparameters that were searched by `tune`.
    trial : int, optional
        Which trial of the search it was.
    study : str, optional
        Id of the search's study.
    refit : Refit, optional
        Of a run trained again on more users: what has chosen its settings, and what it was trained on.
    stream : dict, optional
        Of training rows that stayed on disk: the `buffer` in bytes, and the `share` of the users that it held.
    further : dict
        What another version wrote and this one does not know; written back as it is.
    """

    seconds: float | None = None
    device: str | None = None
    precision: str | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    stopped_early: bool | None = None
    stopped: str | None = None
    interrupted: bool = False
    failure: str | None = None
    select_by: str | None = None
    weight: float | None = None
    pruning: dict[str, Any] | None = None
    from_data: dict[str, Any] | None = None
    chosen_on: str | None = None
    grid: dict[str, list[Any]] | None = None
    tried: dict[str, float] | list[dict[str, Any]] | None = None
    searched: list[str] | None = None
    trial: int | None = None
    study: str | None = None
    refit: Refit | None = None
    stream: dict[str, Any] | None = None
    further: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what is set, ready for JSON; `interrupted` has its own place in a bundle's card."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        del values["further"], values["interrupted"]
        values["refit"] = None if self.refit is None else self.refit.to_json()
        return {name: value for name, value in values.items() if value is not None} | self.further

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned, of this version or another.

        Parameters
        ----------
        values : mapping
            By name; a name that this version does not know is kept in `further`.

        Raises
        ------
        TypeError
            If a value is of another kind than what is written.
        """
        known = {item.name for item in fields(cls)} - {"further"}
        for name, (kind, wanted) in _KINDS.items():
            found = values.get(name)
            if found is not None and (not isinstance(found, kind) or isinstance(found, bool) != (kind is bool)):
                raise TypeError(f"got {name} {found!r:.60} of training, expected {wanted}")
        given = {name: value for name, value in values.items() if name in known}
        if given.get("refit") is not None:
            given["refit"] = Refit.from_json(given["refit"])
        return cls(
            **given,
            further={name: value for name, value in values.items() if name not in known},
        )


_KINDS: dict[str, tuple[Any, str]] = {  # of what others compute with, print or look into
    **dict.fromkeys(("seconds", "weight"), (int | float, "a number")),
    **dict.fromkeys(("epochs", "best_epoch", "trial"), (int, "a whole number")),
    **dict.fromkeys(("stopped_early", "interrupted"), (bool, "true or false")),
    **dict.fromkeys(("device", "precision", "stopped", "failure", "select_by", "chosen_on", "study"), (str, "a text")),
    **dict.fromkeys(("pruning", "from_data", "grid", "refit", "stream"), (dict, "an object")),
    "tried": (dict | list, "an object or a list"),
    "searched": (list, "a list"),
}


def divergence(history: History) -> str:
    """Say at which update the loss was no longer a number, and what to try."""
    return (
        f"the loss is no longer a number at update {history.diverged_at:,} (epoch {len(history.records) + 1}); "
        "lower learning_rate, or raise batch_size, and train again"
    )


def shortage(history: History, batch_size: int) -> str:
    """Say at which update memory ran out, and what to try."""
    return (
        f"memory ran out at update {history.out_of_memory_at:,} (epoch {len(history.records) + 1}); "
        f"use a batch_size below {batch_size:,} and train again"
    )


class Monitor(Protocol):
    """What follows a run, such as a progress bar or a log file, and may end it.

    A run that is stopped before its first epoch is finished leaves the model unfitted.
    """

    def start(self, epochs: int, done: list[EpochRecord]) -> None:
        """Note that a run of `epochs` begins; `done` holds the records of a run that is resumed."""

    def advance(self, epochs_done: float, beta: float | None) -> StopTraining | None:
        """Note how many epochs are done, parts of one included, and the KL weight where there is one."""

    def epoch(self, record: EpochRecord) -> StopTraining | None:
        """Note how an epoch went."""


class NullMonitor:
    """A monitor that ignores everything."""

    def start(self, epochs: int, done: list[EpochRecord]) -> None:
        """Ignore it."""

    def advance(self, epochs_done: float, beta: float | None) -> StopTraining | None:
        """Ignore it."""

    def epoch(self, record: EpochRecord) -> StopTraining | None:
        """Ignore it."""
