"""Before a long run: what a model will need, and about how long it will take.

Memory is what the model says of itself (`Model.needs`). Time is tried out on a copy of the model: a network makes some
updates on one batch of users whose histories are as long, on the whole, as everyone's; a closed form is solved on more
and more of the users or items, until that takes about as long as there is time for. Nothing is written.

Where training rows stay on disk, only users of some places of them are read: a network's time is without the reading,
and a closed form's, which needs all of them, is not estimated.
"""

import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.devices import resolve_device
from recvae.compute.memory import Needs, rows_within
from recvae.compute.ranks import current
from recvae.datasets.dataset import Dataset
from recvae.datasets.streams import spread_users
from recvae.errors import MemoryLimitError, TrainingError, UsageError
from recvae.interactions import HeldOut, StoredRows
from recvae.models.common.autoencoder import Autoencoder
from recvae.models.common.base import Model
from recvae.models.common.streaming import as_held, buffer_of, check_can_stream, check_fits
from recvae.ranking import block_rows
from recvae.training.records import EpochRecord, NullMonitor, StopTraining
from recvae.training.refits import Refit
from recvae.training.validation import validation_ndcg

SECONDS = 2.0
"""About how long a model is tried out."""

_MOST_EPOCHS = 10**6  # of a model that is tried out: it never gets there
_MORE = 5  # batches of a longer trial epoch, to tell what each takes from what an epoch takes besides
_FIRST_SHARE = 1 / 32  # of the users or items, in the first try of a closed form

# Letters in shape comments: U users, I items.


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would need.

    Parameters
    ----------
    model : Model
        Not fitted.
    device : str
        Where it would be trained.
    needs : Needs
        Memory.
    peak : int
        Bytes that training takes where it computes, with its looks at the validation users.
    rows : int
        Users that would be scored at a time when it is evaluated.
    epochs : int
        Of the whole run, at most; 0 for a model without epochs.
    epoch_seconds : float or None
        Training and validation of an epoch, about; None for a model without epochs, or that was not tried out.
    seconds : float or None
        The whole run, about, and at most where it may end early; None if it was not tried out.
    obstacle : str
        Why it cannot be trained; empty if it can.
    """

    model: Model
    device: str
    needs: Needs
    peak: int
    rows: int
    epochs: int
    epoch_seconds: float | None
    seconds: float | None
    obstacle: str

    @property
    def fits(self) -> bool:
        """Whether it can be trained."""
        return not self.obstacle

    @property
    def on_host(self) -> int:
        """Bytes that training takes on the host."""
        return self.needs.host if self._computes_on_gpu else self.peak

    @property
    def on_gpu(self) -> int:
        """Bytes that training takes on a GPU, 0 where none is used."""
        return self.peak if self._computes_on_gpu else 0

    @property
    def scoring(self) -> int:
        """Bytes that scoring takes at most, as many users at a time as there is memory for."""
        return self.needs.weights + self.rows * self.needs.per_user

    @property
    def _computes_on_gpu(self) -> bool:
        return self.device != "cpu"


_ENOUGH = StopTraining("it was tried out for long enough")


def plan(
    model: Model,
    dataset: Dataset,
    *,
    device: str = "auto",
    seconds: float = SECONDS,
    max_memory: int | None = None,
    refit: Refit | None = None,
) -> Plan:
    """Find out what training a model would need.

    Parameters
    ----------
    model : Model
        With its hyperparameters and parts; it is left as it is, a copy is tried out.
    dataset : Dataset
        Train and validation are used, test users are not looked at. Of training rows that are streamed, a buffer is
        in memory, as in training; a closed form is not tried out on them.
    device : str
        "auto", "cpu" or "cuda".
    seconds : float
        About how long to try it out; 0 leaves times out.
    max_memory : int, optional
        Bytes that training may take, on the host and on a GPU each; by default what is free.
    refit : Refit, optional
        What another run has chosen, to be trained again: for its epochs, and without looks at the validation users. The
        training users of the data set must be the joined ones; see `recvae.datasets.joining.join`.

    Returns
    -------
    Plan
        Also of a model that does not fit, which is not tried out.

    Raises
    ------
    UsageError
        If there is no such device, or it shall be tried out in several processes, where only memory can be planned.
    """
    if current().several and seconds > 0:
        raise UsageError(
            f"got {current().size} processes to try out {model.name}, expected one: they would not end together; set "
            "seconds=0 for what each needs of memory, or plan in one process"
        )
    resolved = resolve_device(device)
    place = resolved if model.uses_device else torch.device("cpu")
    train, epochs = dataset.train, int((refit and refit.epochs) or getattr(model, "epochs", 0))
    held, size = as_held(model, train, buffer_of(train))
    needs = held.needs(*size, on_gpu=place.type == "cuda")
    most = min(max(dataset.validation.n_users, dataset.test.n_users), block_rows(train.shape[1]))
    rows = rows_within(max_memory, needs.weights, needs.per_user, most)
    while_training = rows_within(max_memory, needs.held, needs.per_user, most)
    obstacle, of_epoch, whole = "", None, None
    try:
        model.check_libraries()
        if isinstance(train, StoredRows):
            check_can_stream(type(model))
    except UsageError as error:
        obstacle, seconds = str(error), 0.0
    try:
        if not obstacle:
            check_fits(model, train, place, max_memory)
        if seconds > 0 and isinstance(model, Autoencoder):
            held_out = None if refit else dataset.validation
            of_epoch = _epoch_seconds(model, dataset.train, held_out, place, seconds, max_memory)
            whole = of_epoch * epochs
        elif seconds > 0 and not isinstance(train, StoredRows):
            whole = _fit_seconds(model, dataset, place, seconds)
    except MemoryLimitError as error:
        obstacle = str(error)
    except TrainingError as error:
        obstacle = f"{model.name} could not be tried out: {error}"
    return Plan(
        model=model,
        device=str(place),
        needs=needs,
        peak=max(needs.training, 0 if refit else needs.held + while_training * needs.per_user),
        rows=rows,
        epochs=epochs,
        epoch_seconds=of_epoch,
        seconds=whole,
        obstacle=obstacle,
    )


class _EpochTimer(NullMonitor):
    """A monitor that lets a network go through some epochs of one batch each."""

    def __init__(self, seconds: float) -> None:
        self.seconds: list[float] = []
        self._budget, self._started = seconds, time.perf_counter()

    def epoch(self, record: EpochRecord) -> StopTraining | None:
        """Note how long it took; the first warms up."""
        self.seconds.append(record.seconds)
        is_over = len(self.seconds) > 2 and time.perf_counter() - self._started > self._budget
        return _ENOUGH if is_over else None


def _epoch_seconds(
    model: Autoencoder[Any],
    train: sp.csr_matrix | StoredRows,
    validation: HeldOut | None,
    device: torch.device,
    seconds: float,
    max_memory: int | None,
) -> float:
    """Return about how long an epoch takes, with its look at the validation users if there is one."""
    n_users = train.shape[0]
    users = min(model.users_per_update(n_users), n_users)
    updates = n_users / users  # the last, smaller batch counts as what it is of a batch
    tried = replace(model, epochs=_MOST_EPOCHS, batch_size=users)

    def trial(n_batches: int) -> float:
        watch, some = _EpochTimer(seconds), spread_users(train, n_batches * users)
        tried.fit(some[_typical(some, n_batches * users)], device=device, monitor=watch, max_memory=max_memory)
        if tried.history_.interrupted:
            raise KeyboardInterrupt  # typed by somebody; the training loop ends well after it
        return statistics.median(watch.seconds[1:])

    of_update, of_epoch = trial(1), 0.0
    if getattr(model, "sampling", "none") != "none" and updates >= _MORE:
        # An epoch ends with work on all items, which an update of sampled ones does not have.
        of_more = trial(_MORE)
        each = max(of_more - of_update, 0.0) / (_MORE - 1)
        of_update, of_epoch = each, of_update - each
    looking = 0.0 if validation is None else _validation_seconds(tried, validation, max_memory)
    return updates * of_update + of_epoch + looking


def _validation_seconds(model: Autoencoder[Any], validation: HeldOut, max_memory: int | None) -> float:
    """Return about how long ranking for the validation users takes, from as many as are scored at a time."""
    needs = model.scoring_needs(model.n_items_)
    rows = rows_within(max_memory, needs.held, needs.per_user, block_rows(model.n_items_))
    rows = min(rows, validation.n_users)
    part = HeldOut(fold_in=validation.fold_in[:rows], targets=validation.targets[:rows])
    started = time.perf_counter()
    validation_ndcg(model._score_block, part, rows)
    return (time.perf_counter() - started) * validation.n_users / rows


class _StepTimer(NullMonitor):
    """A monitor that lets a closed form go through some of its steps, and says how long all would take."""

    def __init__(self, seconds: float) -> None:
        self.whole: float | None = None
        self._budget = seconds
        self._steps = 0
        self._first: tuple[float, float] | None = None

    def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002  (every monitor's signature)
        """Note the number of steps."""
        self._steps = epochs

    def advance(self, epochs_done: float, beta: float | None) -> StopTraining | None:  # noqa: ARG002
        """End the fit once two steps are done and the time is over; the first may have been slower."""
        now = time.perf_counter()
        if self._first is None:
            self._first = now, epochs_done
            return None
        started, first = self._first
        if now - started <= self._budget:
            return None
        self.whole = (now - started) / (epochs_done - first) * self._steps
        return _ENOUGH


def _fit_seconds(model: Model, dataset: Dataset, device: torch.device, seconds: float) -> float:
    """Return about how long a closed form takes, from more and more of the users or items."""
    share, tried = _FIRST_SHARE, list[tuple[float, float]]()
    _time_fit(model, dataset, share, device, seconds)  # warms up
    while True:
        took = _time_fit(model, dataset, share, device, seconds / 4)
        tried.append((share, took))
        if share == 1:
            return took
        if took > seconds / 4 and len(tried) > 1:
            return _extrapolated(tried[-2:], model.grows_as)
        share = min(1.0, 2 * share)


def _extrapolated(tried: list[tuple[float, float]], powers: tuple[int, int]) -> float:
    """Return a + b where seconds = a share^p + b share^q, neither of them below 0, from two shares."""
    second, took = tried[1]
    equations = np.array([[share**power for power in powers] for share, _ in tried])  # (2, 2)
    parts = np.linalg.solve(equations, np.array([seconds for _, seconds in tried]))
    if parts.min() < 0:  # noise: all of it grows as one of the two does
        power = powers[int(parts.argmax())]
        return took / second**power
    return float(parts.sum())


def _time_fit(model: Model, dataset: Dataset, share: float, device: torch.device, seconds: float) -> float:
    """Return how long a copy of a model takes on a share of the users or items."""
    train, validation = dataset.train, dataset.validation
    held_out: HeldOut | None = None
    if model.grows_with == "items":
        columns = _typical(train.T.tocsr(), max(2, round(share * train.shape[1])))
        train = sp.csr_matrix(train[:, columns])
    else:
        with_target = np.flatnonzero(np.diff(validation.targets.indptr))
        some = with_target[: max(1, round(share * len(with_target)))]
        if len(some):
            held_out = HeldOut(fold_in=validation.fold_in[some], targets=validation.targets[some])
        if not model.parts:
            train = train[_typical(train, max(1, round(share * train.shape[0])))]
    watch = _StepTimer(seconds)
    copy = replace(model, parts=dict(model.parts))
    started = time.perf_counter()
    copy.fit(train, held_out, device=device, monitor=watch)
    return time.perf_counter() - started if watch.whole is None else watch.whole


def _typical(matrix: Any, n_rows: int) -> np.ndarray:
    """Return some rows, in order, whose lengths are spread as those of all rows are."""
    by_length = np.argsort(np.diff(matrix.indptr), kind="stable")  # (U,)
    places = ((np.arange(n_rows) + 0.5) * len(by_length) / n_rows).astype(np.int64)  # the middle of each of equal parts
    return np.sort(by_length[places])
