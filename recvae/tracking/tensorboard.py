"""Training in TensorBoard: curves by epoch, histograms of the codes, and the vectors of items with their titles."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recvae.bundles.bundle import Bundle
from recvae.errors import UsageError, requires_extra
from recvae.items import ItemIndex
from recvae.models.common.hyperparameters import values_of
from recvae.storage.files import storage_errors
from recvae.tracking.figures import (
    EVERY_EPOCH,
    chosen_items,
    figures_of,
    final_figures,
    item_vectors,
    outcome_text,
    step_sizes_of,
)
from recvae.training.details import DetailedMonitor, EpochDetails
from recvae.training.records import EpochRecord, TrainingSummary

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# Letters in shape comments: I items, C chosen items, D width of the vectors.

_EVENTS = "events.out.tfevents.*"
_PROJECTOR = ("00000", "items")  # folder and tag of the item vectors
_MOST_NUMBERS = 3_000_000  # of the item vectors, which are written as text


class TensorBoardMonitor(DetailedMonitor):
    """A monitor that writes for TensorBoard: `tensorboard --logdir FOLDER`.

    After each epoch: loss, reconstruction, KL, beta, step size, validation NDCG@100, active units, mutual information
    and speed; histograms of mean and standard deviation of the codes of up to 1,000 users, and of the KL divergence of
    each latent unit. A run that `recvae.runs` saves also leaves its validation metrics and its item vectors;
    after `fit`, `add_items` does that. A fit that is resumed goes on; one that begins in a folder with older events
    hides these.

    Parameters
    ----------
    folder : Path or str
        Of this training alone; made if missing.
    max_items : int
        Item vectors to write at most, those with the most training users; 0 for none.

    Raises
    ------
    UsageError
        If TensorBoard is not installed, with the command that installs it, or a parameter is out of range.
    """

    def __init__(self, folder: Path | str, max_items: int = 5000) -> None:
        with requires_extra("track", "TensorBoardMonitor"):
            import torch.utils.tensorboard  # noqa: F401  (before training, not after the first epoch)
        if isinstance(max_items, bool) or not isinstance(max_items, int) or max_items < 0:
            raise UsageError(f"got max_items={max_items!r}, expected a whole number, 0 or more; 0 writes no vectors")
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"got {folder} for TensorBoard, which is a file; name a folder")
        self._max_items = max_items
        self._writer: SummaryWriter | None = None
        self._model: Any = None
        self._last = 0  # epoch
        self._outcome = ""
        self._purge: int | None = None  # the step from which on older events are hidden

    def fitting(self, model: Any) -> None:
        """Remember the model, whose hyperparameters are shown as a text."""
        with storage_errors(self.folder):
            self._close()
        self._model, self._last, self._purge, self._outcome = model, 0, 0, ""

    def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002  (every monitor's signature)
        """Begin, or go on after the epochs done before; those that a kill kept from being written are added."""
        self._last = len(done)
        with storage_errors(self.folder):
            known = _epochs_in(self.folder) if done else set()
            self._close()
            self._purge = len(done) + 1 if done else 0
            writer = self._open()
            for record in done:
                if record.epoch not in known:
                    self._write(writer, record)
            if not done and self._model is not None:
                writer.add_text("hyperparameters", _as_table(values_of(self._model)), 0)
            writer.flush()

    def details(self, details: EpochDetails) -> None:
        """Write step sizes and histograms of the codes."""
        with self._opened() as writer:
            for name, size in step_sizes_of(details).items():
                writer.add_scalar(name, size, details.epoch)
            if details.mean is not None:
                writer.add_histogram("latent/mean", details.mean.float(), details.epoch)
            if details.logvar is not None:
                writer.add_histogram("latent/sigma", (0.5 * details.logvar.float()).exp(), details.epoch)

    def epoch(self, record: EpochRecord) -> None:
        """Write the figures of an epoch, and make sure that they are in the file."""
        self._last = record.epoch
        with self._opened() as writer:
            self._write(writer, record)
            writer.flush()

    def ended(self, summary: TrainingSummary) -> None:
        """Say how training ended: finished, interrupted or failed."""
        if self._model is None or outcome_text(summary) == self._outcome:
            return  # nothing has begun, or it is known already
        self._outcome = outcome_text(summary)
        with self._opened() as writer:
            writer.add_text("outcome", self._outcome, self._last)
        with storage_errors(self.folder):
            self._close()

    def saved(self, bundle: Bundle, folder: Path | None) -> None:
        """Write the validation metrics of the model that is kept, and its item vectors."""
        with self._opened() as writer:
            for name, value in final_figures(bundle).items():
                writer.add_scalar(name, value, self._last)
        if folder is not None:
            self.add_items(bundle.model, bundle.items)
        with storage_errors(self.folder):
            self._close()

    def add_items(self, model: Any, items: ItemIndex) -> None:
        """Write item vectors for the projector, with id, title and number of training users of each.

        Parameters
        ----------
        model : Model
            Fitted; nothing is written of a model without item vectors.
        items : ItemIndex
            Of the model's columns, such as `dataset.items`.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        vectors = item_vectors(model)
        if vectors is not None and self._max_items:
            if len(vectors) != len(items):
                raise UsageError(
                    f"got a model of {len(vectors):,} items and an index of {len(items):,}, expected as many of each; "
                    "give the items that the model was trained on"
                )
            most = max(min(self._max_items, _MOST_NUMBERS // vectors.shape[1]), 1)
            columns = chosen_items(items, most)
            rows = [[items.id_of(one), _cell(items, one), int(items.train_counts[one])] for one in columns.tolist()]
            with self._opened() as writer:
                shutil.rmtree(self.folder.joinpath(*_PROJECTOR), ignore_errors=True)  # of an earlier end of this run
                writer.add_embedding(
                    np.asarray(vectors[columns]),  # (C, D)
                    metadata=rows,
                    metadata_header=["id", "title", "training users"],
                    tag=_PROJECTOR[1],
                )
        with storage_errors(self.folder):
            self._close()

    def _write(self, writer: "SummaryWriter", record: EpochRecord) -> None:
        for name, value in figures_of(record).items():
            writer.add_scalar(name, value, record.epoch)
        if record.kl_per_dimension is not None:
            writer.add_histogram("latent/kl_per_unit", np.array(record.kl_per_dimension), record.epoch)

    @contextmanager
    def _opened(self) -> "Iterator[SummaryWriter]":
        with storage_errors(self.folder):
            yield self._writer or self._open()

    def _open(self) -> "SummaryWriter":
        """Open a new file of events."""
        from torch.utils.tensorboard import SummaryWriter

        is_new = not any(self.folder.glob(_EVENTS))
        _wait_for_a_later_name(self.folder)
        purge, self._purge = self._purge, None
        self._writer = SummaryWriter(str(self.folder), purge_step=None if is_new else purge)
        return self._writer

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _wait_for_a_later_name(folder: Path) -> None:
    """Wait for the next second if a file is of this one: TensorBoard reads files by name, and may mix up these two."""
    seconds = {path.name.split(".")[3] for path in folder.glob(_EVENTS)}
    while f"{int(time.time()):010d}" in seconds:
        time.sleep(0.05)


def _epochs_in(folder: Path) -> set[int]:
    """Return the epochs whose figures a folder shows."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.compat.proto import event_pb2

    start: int = event_pb2.SessionLog.START  # pyright: ignore[reportAttributeAccessIssue]  (made by protobuf)
    found: set[int] = set()
    for path in sorted(folder.glob(_EVENTS)):
        for event in EventFileLoader(str(path)).Load():
            if event.HasField("session_log") and event.session_log.status == start:
                found = {step for step in found if step < event.step}
            found |= {event.step for value in event.summary.value if value.tag == EVERY_EPOCH}
    return found


def _as_table(values: dict[str, Any]) -> str:
    """Return hyperparameters as a Markdown table, which TensorBoard shows as one."""
    rows = [f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in values.items()]
    return "\n".join(["| hyperparameter | value |", "|---|---|", *rows])


def _cell(items: ItemIndex, column: int) -> str:
    """Return the title of an item, or its id, in one cell of a table."""
    title = items.title_of(column)
    return " ".join(str(items.id_of(column) if title is None else title).split())
