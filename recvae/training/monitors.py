"""Ways to watch something that takes long: a live bar on a terminal, plain lines elsewhere, a log file."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from recvae.storage.files import storage_errors
from recvae.training.details import DetailedMonitor, EpochDetails
from recvae.training.records import EpochRecord, Monitor, StopTraining, TrainingSummary

_SECONDS_BETWEEN_LINES = 2.0


class ProgressBar:
    """A bar on a terminal; elsewhere a line every two seconds, so that short work prints nothing.

    Parameters
    ----------
    title : str
        What is being done.
    stream : TextIO, optional
        Where to write; by default the standard error.

    Examples
    --------
    >>> with ProgressBar("reading") as bar:
    ...     bar(1, 2)
    """

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self._title = title
        self._stream = stream or sys.stderr
        self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if self._stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}", table_column=Column(no_wrap=True)),
                BarColumn(bar_width=12, table_column=Column(no_wrap=True, min_width=12)),
                TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4)),
                TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
                # The note comes last: on a narrow terminal it is what is cut short.
                TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
                console=Console(file=self._stream),
                transient=True,
                expand=True,
            )
            self._task = self._bar.add_task(title, total=None, note="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: float, total: float | None, note: str = "") -> None:
        """Show how much is done of how much, with a remark."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            share = f"{done / total:4.0%}" if total else f"{done:,.0f}"
            self.line(f"{self._title}: {share}  {note}".rstrip())

    def line(self, text: str) -> None:
        """Write a line of its own."""
        self._last_line = time.monotonic()
        print(text, file=self._stream, flush=True)


class TrainingProgress:
    """A monitor that shows epoch, loss, KL, beta, what epochs are chosen by, and speed.

    Parameters
    ----------
    bar : ProgressBar
        Where to show it.
    """

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar
        self._epochs = 0
        self._best: EpochRecord | None = None
        self._last: EpochRecord | None = None

    def start(self, epochs: int, done: list[EpochRecord]) -> None:
        """Begin, or continue after the epochs done before."""
        self._epochs = epochs
        for record in done:
            self._remember(record)
        self._bar(len(done), epochs)

    def advance(self, epochs_done: float, beta: float | None) -> None:
        """Show how far the run is, with the figures of the last full epoch."""
        words = [f"epoch {min(self._epochs, int(epochs_done) + 1)}/{self._epochs}"]
        if self._last is not None:
            words.append(f"loss {self._last.loss:.1f}")
        if beta is not None:
            kl = None if self._last is None else self._last.kl
            words += [*([] if kl is None else [f"KL {kl:.1f}"]), f"beta {beta:.3f}"]
        if self._last is not None and self._best is not None and self._last.value is not None:
            best = f"best {self._best.value:.4f} at {self._best.epoch}"
            words.insert(1, f"{self._last.metric} {self._last.value:.4f} ({best})")
        if self._last is not None:
            words.append(f"{self._last.users_per_second:,.0f} users/s")
        self._bar(epochs_done, self._epochs, "  ".join(words))

    def epoch(self, record: EpochRecord) -> None:
        """Show the figures of an epoch."""
        self._remember(record)
        self.advance(record.epoch, record.beta)

    def _remember(self, record: EpochRecord) -> None:
        self._last = record
        self._best = record if record.best else self._best


class LogFile:
    """A monitor that writes one JSON object per epoch and line.

    Parameters
    ----------
    path : Path
        The file, replaced at the start of a run; a resumed run begins with the records it had.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002  (every monitor's signature)
        """Write the records of the epochs done before."""
        self._write("w", done)

    def advance(self, epochs_done: float, beta: float | None) -> None:
        """Ignore it: only whole epochs are logged."""

    def epoch(self, record: EpochRecord) -> None:
        """Append a record."""
        self._write("a", [record])

    def _write(self, mode: str, records: list[EpochRecord]) -> None:
        with storage_errors(self._path), self._path.open(mode, encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(record)) + "\n" for record in records)


class MonitorList(DetailedMonitor):
    """Several monitors as one: each gets every call that it knows, and any of them may stop training.

    Parameters
    ----------
    monitors : Monitor
        In the order in which they are called.
    """

    def __init__(self, *monitors: Monitor) -> None:
        self._monitors = monitors
        self._detailed = [monitor for monitor in monitors if isinstance(monitor, DetailedMonitor)]

    def start(self, epochs: int, done: list[EpochRecord]) -> None:
        """Pass it on."""
        for monitor in self._monitors:
            monitor.start(epochs, done)

    def advance(self, epochs_done: float, beta: float | None) -> StopTraining | None:
        """Pass it on; return the first wish to stop."""
        wishes = [monitor.advance(epochs_done, beta) for monitor in self._monitors]
        return next((wish for wish in wishes if wish is not None), None)

    def epoch(self, record: EpochRecord) -> StopTraining | None:
        """Pass it on; return the first wish to stop."""
        wishes = [monitor.epoch(record) for monitor in self._monitors]
        return next((wish for wish in wishes if wish is not None), None)

    def fitting(self, model: Any) -> None:
        """Pass it on to those that it concerns, as all below."""
        for monitor in self._detailed:
            monitor.fitting(model)

    def details(self, details: EpochDetails) -> None:
        """Pass it on."""
        for monitor in self._detailed:
            monitor.details(details)

    def ended(self, summary: TrainingSummary) -> None:
        """Pass it on."""
        for monitor in self._detailed:
            monitor.ended(summary)

    def saved(self, bundle: Any, folder: Path | None) -> None:
        """Pass it on."""
        for monitor in self._detailed:
            monitor.saved(bundle, folder)
