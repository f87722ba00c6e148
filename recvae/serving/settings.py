"""How a server runs, and its limits: one place for each."""

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

from recvae.errors import UsageError

FORMATS = ("torch", "onnx", "onnx-int8", "index")
"""What scores: the bundle with PyTorch, an export of it with ONNX Runtime, or the bundle with an index of its items."""


def _limit(default: float, meaning: str, low: float = 1) -> Any:
    return field(default=default, metadata={"meaning": meaning, "low": low})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings and limits of a server.

    Parameters
    ----------
    format : str
        One of `FORMATS`.
    device : str
        Device of PyTorch: "auto", "cpu" or "cuda".
    threads : int, optional
        Threads that score, per process; by default chosen by PyTorch or ONNX Runtime.
    token : str, optional
        What a client must send as `Authorization: Bearer TOKEN`. Without a token everyone is answered, and reload is
        disabled.
    origins : tuple of str
        Web origins, e.g. "https://shop.example", from which browsers may send requests; by default only the server's
        own pages.
    workers : int
        Number of processes.
    models : tuple of str
        Models of your own that the runs may hold, each as `MODULE:CLASS`.
    """

    format: str = "torch"
    device: str = "cpu"
    threads: int | None = None
    token: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    workers: int = 1
    models: tuple[str, ...] = ()

    window_ms: float = _limit(3.0, "milliseconds that a request waits for others", low=0)
    batch_users: int = _limit(64, "users scored together")
    body_bytes: int = _limit(1 << 20, "bytes of a request")
    history_items: int = _limit(10_000, "items of a history, or ids to exclude or allow")
    histories: int = _limit(256, "histories in a request")
    explained_items: int = _limit(500, "items of all histories in a request with reasons")
    k: int = _limit(1_000, "items recommended to a user")
    answered_items: int = _limit(10_000, "items recommended in a request (with reasons, a tenth)")
    seconds: float = _limit(10.0, "seconds for a request, and for its bytes to arrive", low=0.01)
    in_flight: int = _limit(512, "requests at the same time")
    waiting_users: int = _limit(2_048, "users waiting to be scored")

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"got format {self.format!r}, expected one of {', '.join(FORMATS)}")
        token = self.token
        if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
            raise UsageError("got a token that is empty, has spaces or is not ASCII; use letters, digits and signs")
        for origin in self.origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise UsageError(f"got origin {origin!r}, expected an origin, e.g. https://shop.example, or * for all")
        for name, low in (("workers", 1), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"got {name}={value}, expected {low} or more")
        for limit in fields(self):
            if "low" in limit.metadata and not limit.metadata["low"] <= getattr(self, limit.name) < math.inf:
                raise UsageError(
                    f"got {limit.name}={getattr(self, limit.name)}, expected a number, {limit.metadata['low']} or more "
                    f"({limit.metadata['meaning']})"
                )

    def limits(self) -> dict[str, float]:
        """Return all limits by name."""
        return {limit.name: getattr(self, limit.name) for limit in fields(self) if "low" in limit.metadata}
