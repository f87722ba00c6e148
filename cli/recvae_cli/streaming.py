"""`recvae train --stream`: training rows that stay on disk."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recvae.datasets.dataset import Dataset


def asked_buffer(stream: bool, buffer: str | None) -> int | None:
    """Return the bytes of training rows to hold at a time; None where all shall be in memory."""
    from recvae.compute.memory import parse_limit
    from recvae.datasets.streams import BUFFER_BYTES
    from recvae.errors import UsageError

    if buffer is None:
        return BUFFER_BYTES if stream else None
    if not stream:
        raise UsageError(f"got --buffer {buffer} without --stream, where it has no effect; add --stream, or leave it out")
    return parse_limit(buffer, "--buffer")


def load(home: Path, buffer: int | None, max_memory: int | None = None) -> "Dataset":
    """Load a data set, whose training rows stay on disk where there is a buffer for them."""
    from recvae.datasets.dataset import Dataset

    if buffer is None:
        return Dataset.load(home, max_memory=max_memory)
    return Dataset.load(home, stream=True, buffer=buffer, max_memory=max_memory)
