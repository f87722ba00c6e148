"""What the server allows and keeps to: one place for every limit."""

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

from recvae.errors import UsageError

FORMATS = ("torch", "onnx", "onnx-int8")
"""What serves: the bundle by PyTorch, or an export of it by ONNX Runtime."""


def _limit(default: float, meaning: str, low: float = 1) -> Any:
    return field(default=default, metadata={"meaning": meaning, "low": low})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to serve.

    Parameters
    ----------
    format : str
        One of `FORMATS`.
    device : str
        Where PyTorch scores: "auto", "cpu" or "cuda".
    threads : int, optional
        Threads that score, in each process; by default the library's choice.
    token : str, optional
        What a client must send as `Authorization: Bearer ...`; without one, everyone may ask and no one may reload.
    origins : tuple of str
        Web origins whose pages may ask, such as "https://shop.example"; by default none but the server's own.
    workers : int
        Processes.
    """

    format: str = "torch"
    device: str = "cpu"
    threads: int | None = None
    token: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    workers: int = 1

    window_ms: float = _limit(3.0, "milliseconds that a request waits for company", low=0)
    batch_users: int = _limit(64, "users scored together")
    body_bytes: int = _limit(1 << 20, "bytes of a request")
    history_items: int = _limit(10_000, "items of a history, or of a list to exclude or allow")
    histories: int = _limit(256, "histories in a request")
    explained_items: int = _limit(500, "items of the histories in a request that asks for reasons")
    k: int = _limit(1_000, "items recommended")
    answered_items: int = _limit(10_000, "items recommended to all users of a request; with reasons, a tenth of it")
    seconds: float = _limit(10.0, "seconds for a request, and for its bytes to arrive", low=0.01)
    in_flight: int = _limit(512, "requests at a time")
    waiting_users: int = _limit(2_048, "users waiting to be scored")

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"got format {self.format!r}, expected one of {', '.join(FORMATS)}")
        token = self.token
        if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
            raise UsageError("got a token that is empty, has spaces or is not ASCII; take letters, digits and signs")
        for origin in self.origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise UsageError(f"got origin {origin!r}, expected one such as https://shop.example, or * for all")
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
        """Return every limit by name."""
        return {limit.name: getattr(self, limit.name) for limit in fields(self) if "low" in limit.metadata}
