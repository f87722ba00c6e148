"""Processes and signals around the application: uvicorn, one process or several on one socket."""

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

from recvae.errors import RecvaeError, UsageError
from recvae.serving.app import create_app
from recvae.serving.settings import Settings
from recvae.serving.telemetry import SHARED_FOLDER

_CONNECTIONS = 4  # for each request at a time; more are refused by uvicorn
_LOG = logging.getLogger("uvicorn.error")


def _tell(address: str, examples: list[Any]) -> None:
    _LOG.info("serving at %s, items such as %s", address, examples)


class _Workers(Multiprocess):
    """Several processes; a hangup is passed on to each, which takes up new versions while it goes on answering."""

    def handle_hup(self) -> None:
        for process in self.processes:
            # One that is starting will read what there is now; the signal would end it.
            if process.pid is not None and process.is_ready(timeout=1):
                os.kill(process.pid, signal.SIGHUP)

    def keep_subprocess_alive(self) -> None:
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            mark_process_dead(pid)  # or its last gauges would be counted for ever


def serve(
    runs: Sequence[Path],
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_start: Callable[[str, list[Any]], None] = _tell,
) -> None:
    """Serve runs until the process is told to stop (Ctrl-C, SIGTERM); what was accepted is answered.

    Parameters
    ----------
    runs : sequence of Path
        Folders of runs.
    settings : Settings
        How to serve.
    host : str
        Address to listen at; 127.0.0.1 is reached from this machine alone.
    port : int
        Port; 0 for any that is free.
    on_start : callable
        Is told the address, and the ids of two items as examples, before the first request.

    Raises
    ------
    UsageError
        If a run cannot be served, or the address cannot be listened at.
    BundleError
        If a run is damaged.
    """
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the application listens to it; it would end the process
    make = functools.partial(_make_again, runs, settings)
    app = _make(runs, settings)  # before any other process starts: what is wrong is said once, in one line
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
    """Return the application; a function of the module, since other processes are told its name."""
    if settings.threads is not None and settings.format == "torch":
        import torch

        torch.set_num_threads(settings.threads)
    return create_app(runs, settings)


def _make_again(runs: Sequence[Path], settings: Settings) -> FastAPI:
    """Return the application of one of several processes; what is wrong by now is one line of the log."""
    try:
        return _make(runs, settings)
    except RecvaeError as error:
        _LOG.error("this process cannot serve, and another is tried: %s", error)
        raise SystemExit(1) from None


def _examples(app: FastAPI) -> list[Any]:
    """Return the ids of two items that many had."""
    return app.state.service.store.models()[0].recommender.recommend([], k=2).ids


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise UsageError(
            f"got {host}:{port} to listen at, which does not work: {error}; take another --port (0: any) or --host"
        ) from error
    listening.set_inheritable(True)
    return listening
