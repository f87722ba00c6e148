"""Counters of the server, in the text format of Prometheus."""

import os
import time
from collections.abc import MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.routing import Match

from recvae.serving.guards import Application, Receive, Send

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder in which several processes sum their counters."""

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_USERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Telemetry:
    """Counters of an application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("path", "status")
        self._requests = Counter("recvae_requests", "Requests answered.", labels, registry=self._registry)
        self._seconds = Histogram(
            "recvae_request_seconds",
            "Seconds to respond.",
            ("path",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch = Histogram("recvae_batch_users", "Users scored together.", buckets=_USERS, registry=self._registry)
        self._reloads = Counter("recvae_reloads", "Reloads of new versions.", ("result",), registry=self._registry)
        self._waiting = Gauge(
            "recvae_waiting_users", "Users waiting to be scored.", multiprocess_mode="livesum", registry=self._registry
        )

    def observe_waiting(self, n_users: int) -> None:
        """Record how many users wait to be scored."""
        self._waiting.set(n_users)

    def observe_batch(self, n_users: int) -> None:
        """Count a batch."""
        self._batch.observe(n_users)

    def observe_reload(self, ok: bool) -> None:
        """Count a reload."""
        self._reloads.labels("done" if ok else "refused").inc()

    def observe_request(self, path: str, status: int, seconds: float) -> None:
        """Count a response."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Return all counters; those of all processes if they share a folder."""
        if not os.environ.get(SHARED_FOLDER):
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)


class RequestCounter:
    """ASGI middleware that counts and times responses.

    Parameters
    ----------
    application : callable
        The ASGI application inside.
    telemetry : Telemetry
        The counters.
    """

    def __init__(self, application: Application, telemetry: Telemetry) -> None:
        self._inside, self._telemetry = application, telemetry

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, and count it."""
        if scope["type"] != "http":
            await self._inside(scope, receive, send)
            return
        start, status = time.perf_counter(), 500  # if it fails before the response starts

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._inside(scope, receive, counted)
        finally:
            self._telemetry.observe_request(_declared_path(scope), status, time.perf_counter() - start)


def _declared_path(scope: MutableMapping[str, Any]) -> str:
    """Return the declared path of a route: paths invented by clients must not become labels."""
    route = scope.get("route")
    if route is None:  # refused before routing
        routes = scope["app"].router.routes
        route = next((one for one in routes if one.matches(scope)[0] is Match.FULL), None)
    return getattr(route, "path", None) or "other"
