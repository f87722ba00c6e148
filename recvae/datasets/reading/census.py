"""One pass over the bytes of a file: its lines, and how they end. It also finds a damaged archive.

The lines are held against the rows that were read: this is how a row that was lost is noticed.
"""

import hashlib
from dataclasses import dataclass
from threading import Event

import numpy as np

from recvae.datasets.reading.sources import Source, file_errors

_CHUNK = 1 << 20  # stays in the cache while it is counted
_LINE_FEED, _RETURN = b"\n\r"


@dataclass(frozen=True, kw_only=True)
class Census:
    """What a pass over a file counted.

    Parameters
    ----------
    n_bytes : int
        Bytes after decompression.
    line_feeds, returns, pairs : int
        How often LF and CR occur, and CR followed by LF.
    n_zeros : int
        Zero bytes, which no text has.
    ends_line : bool
        Whether the last byte ends a line.
    """

    n_bytes: int
    line_feeds: int
    returns: int
    pairs: int
    n_zeros: int
    ends_line: bool

    @property
    def lines(self) -> int:
        """Number of lines, also of a last one without an end."""
        breaks = self.line_feeds or self.returns
        return breaks + (0 if self.ends_line or not self.n_bytes else 1)

    @property
    def is_mixed(self) -> bool:
        """Whether lines end in different ways, or hold a CR of their own."""
        return bool(self.line_feeds and self.returns) and not self.line_feeds == self.returns == self.pairs


def take_census(source: Source, stop: Event) -> Census:
    """Count lines and line ends of a text file, unless it is stopped before the end.

    Raises
    ------
    DataError
        If it is damaged.
    """
    n_bytes = line_feeds = returns = pairs = n_zeros = 0
    last = b""
    with file_errors(source), source.open() as stream:
        while not stop.is_set() and (chunk := stream.read(_CHUNK)):
            octets = np.frombuffer(chunk, dtype=np.uint8)  # numpy counts several times as fast as bytes.count
            n_bytes += len(chunk)
            n_zeros += int(np.count_nonzero(octets == 0))
            line_feeds += int(np.count_nonzero(octets == _LINE_FEED))
            found = int(np.count_nonzero(octets == _RETURN))
            if found or last == b"\r":
                returns += found
                pairs += chunk.count(b"\r\n") + (last == b"\r" and chunk.startswith(b"\n"))
            last = chunk[-1:]
    return Census(
        n_bytes=n_bytes,
        line_feeds=line_feeds,
        returns=returns,
        pairs=pairs,
        n_zeros=n_zeros,
        ends_line=last in (b"\n", b"\r"),
    )


def sha256_of_content(source: Source, stop: Event) -> str:
    """Return the SHA-256 of the file as it lies on the disk, as 64 hexadecimal digits, unless it is stopped before."""
    found = hashlib.sha256()
    with file_errors(source), source.path.open("rb") as file:
        while not stop.is_set() and (chunk := file.read(_CHUNK)):
            found.update(chunk)
    return found.hexdigest()
