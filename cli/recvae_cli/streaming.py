"""Which data a training is asked for, and training rows that stay on disk."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recvae_cli.console import say

if TYPE_CHECKING:
    from recvae.datasets.dataset import Dataset
    from recvae.models import Model

Stream = Annotated[
    bool, typer.Option("--stream", help="Read training rows from disk as it goes; the data set must be in shards.")
]
Buffer = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="With --stream: training rows in memory at a time.", show_default="1GB"),
]

STREAMED_REFIT = "got --stream with --refit, which puts train and held-out users together in memory; leave out --stream"


@dataclass(frozen=True)
class Wanted:
    """The data set to train on.

    Parameters
    ----------
    data : str or None
        As it was typed.
    data_dir : Path
        Where data sets are.
    buffer : int or None
        Bytes of training rows in memory at a time; None for all.
    max_memory : int or None
        Bytes allowed.
    """

    data: str | None
    data_dir: Path
    buffer: int | None
    max_memory: int | None

    def folder(self, usual: str | None = None) -> Path:
        """Return where it is; where none was typed, of the usual name, or the newest."""
        from recvae.datasets.home import find_dataset

        return find_dataset(self.data_dir, self.data or usual)

    def check(self, model: "type[Model]") -> None:
        """Refuse a model that needs all training rows in memory, where they stay on disk."""
        from recvae.models.common.streaming import check_can_stream

        if self.buffer is not None:
            check_can_stream(model)

    def words(self) -> list[str]:
        """Return the options that train on the same rows in the same order."""
        return [] if self.buffer is None else ["--stream", "--buffer", f"{self.buffer}B"]

    def load(self, usual: str | None = None, buffer: int | None = None) -> "Dataset":
        """Load it; the buffer counts where none was typed."""
        from recvae.datasets.dataset import Dataset

        held = self.buffer or buffer
        if held is None:
            return Dataset.load(self.folder(usual), max_memory=self.max_memory)
        return Dataset.load(self.folder(usual), stream=True, buffer=held, max_memory=self.max_memory)


def wanted(data: str | None, data_dir: Path, stream: bool, buffer: str | None, max_memory: str | None) -> Wanted:
    """Return what the options say."""
    from recvae.compute.memory import parse_limit
    from recvae.datasets.streams import BUFFER_BYTES
    from recvae.errors import UsageError

    if buffer is not None and not stream:
        raise UsageError(
            f"got --buffer {buffer} without --stream, where it has no effect; add --stream or leave it out"
        )
    held = BUFFER_BYTES if stream else None
    held = held if buffer is None else parse_limit(buffer, "--buffer")
    return Wanted(data, data_dir, held, None if max_memory is None else parse_limit(max_memory))


def remark_on_stream(dataset: "Dataset") -> None:
    """Say how much of the training rows is in memory at a time, where they stay on disk."""
    from recvae.compute.memory import human_bytes
    from recvae.datasets.streams import StreamedMatrix
    from recvae.display import plural

    rows = dataset.train
    if isinstance(rows, StreamedMatrix):
        held = "all of them, in the order of training in memory" if rows.fits else f"{rows.share:.0%} of them at a time"
        shards = plural(len(rows.shards.shards), "shard")
        say(f"training rows stay on disk in {shards}; {human_bytes(rows.buffer)} hold {held}")


def load_to_measure(home: Path, baselines: "Iterable[type[Model]]") -> "Dataset":
    """Load a data set to measure runs on; where its training rows do not fit into memory, these stay on disk."""
    from recvae.datasets.dataset import Dataset
    from recvae.errors import MemoryLimitError, UsageError

    try:
        return Dataset.load(home)
    except MemoryLimitError as error:
        needing = [model.name for model in baselines if not model.streams]
        if needing:
            raise UsageError(
                f"the training rows of {home} do not fit into memory, where the baselines {', '.join(needing)} need "
                "them; leave these out: --baselines popularity"
            ) from error
    return Dataset.load(home, stream=True)
