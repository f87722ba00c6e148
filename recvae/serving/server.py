"""Processes and signals: uvicorn, with one process or several on one socket."""

import errno
import functools
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.supervisors import Multiprocess

from recvae.bundles.exported import INDEX
from recvae.errors import RecvaeError, UsageError
from recvae.serving.app import create_app
from recvae.serving.settings import Settings
from recvae.serving.telemetry import SHARED_FOLDER

_BACKLOG = 2048  # connections that wait to be accepted, as uvicorn has it
_CONNECTIONS = 4  # per request at the same time; uvicorn refuses more
_LOG = logging.getLogger("uvicorn.error")


def _tell(address: str, examples: list[Any]) -> None:
    _LOG.info("serving at %s, with items like %s", address, examples)


class _Workers(Multiprocess):
    """Several processes; SIGHUP is forwarded to each, which loads new versions while it answers requests."""

    def handle_hup(self) -> None:
        for process in self.processes:
            # A process that is starting loads the new versions anyway; the signal would end it.
            if process.pid is not None and process.is_ready(timeout=1):
                os.kill(process.pid, signal.SIGHUP)

    def keep_subprocess_alive(self) -> None:
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            mark_process_dead(pid)  # otherwise its last gauges would count for ever


def serve(
    runs: Sequence[Path],
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_start: Callable[[str, list[Any]], None] = _tell,
) -> None:
    """Serve runs until the process is stopped (Ctrl-C, SIGTERM); accepted requests are still answered.

    Parameters
    ----------
    runs : sequence of Path
        Folders of runs.
    settings : Settings
        Settings and limits of the server.
    host : str
        Address to listen on; 127.0.0.1 is reachable only from this machine.
    port : int
        Port; 0 chooses a free one.
    on_start : callable
        Called before the first request with the address and the ids of two items as examples.

    Raises
    ------
    UsageError
        If a run cannot be served, or the port cannot be used.
    BundleError
        If a run is damaged.
    """
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the application handles it, it would end the process
    make = functools.partial(_make_again, runs, settings)
    app = _make(runs, settings)  # before any other process starts, so that an error is reported once
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    on_start(f"http://{shown}:{listening.getsockname()[1]}", _examples(app))
    config = uvicorn.Config(
        make if settings.workers > 1 else app,
        factory=settings.workers > 1,
        workers=settings.workers,
        log_level="info",
        access_log=False,
        limit_concurrency=_CONNECTIONS * settings.in_flight,
        timeout_graceful_shutdown=round(settings.seconds) + 5,
        server_header=False,
    )
    with listening:
        if settings.workers == 1:
            uvicorn.Server(config).run([listening])
            return
        del app
        with tempfile.TemporaryDirectory(prefix="recvae-serve-") as shared:
            os.environ[SHARED_FOLDER] = shared  # the other processes inherit it
            try:
                _Workers(config, [listening]).run()
            finally:
                del os.environ[SHARED_FOLDER]


def _make(runs: Sequence[Path], settings: Settings) -> FastAPI:
    """Return the application; a module-level function, because other processes import it by name."""
    if settings.threads is not None and settings.format in ("torch", INDEX):
        import torch

        torch.set_num_threads(settings.threads)
    return create_app(runs, settings)


def _make_again(runs: Sequence[Path], settings: Settings) -> FastAPI:
    """Return the application of one of several processes; an error becomes one line of the log."""
    try:
        return _make(runs, settings)
    except RecvaeError as error:
        _LOG.error("this process could not start, trying another one: %s", error)
        raise SystemExit(1) from None


def _examples(app: FastAPI) -> list[Any]:
    """Return the ids of two popular items."""
    return app.state.service.store.models()[0].recommender.recommend([], k=2).ids


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)  # who connects before uvicorn is ready waits, and is not refused
    except (OSError, OverflowError) as error:
        listening.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} is in use; choose another with --port") from error
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot listen on {host}:{port} ({reason}); choose another --host or --port") from error
    listening.set_inheritable(True)
    return listening
