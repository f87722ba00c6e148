"""Answers requests: the models, the batches, the limits and the counters."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException

from recvae.errors import DataError, RecvaeError, UsageError
from recvae.items import ItemIndex, json_id
from recvae.recommenders.answers import Explanation, Recommendations, Request
from recvae.serving.batching import Batcher, OverloadedError
from recvae.serving.guards import RETRY_AFTER
from recvae.serving.schemas import Question, shown
from recvae.serving.settings import Settings
from recvae.serving.store import ModelStore, StoredModel
from recvae.serving.telemetry import Telemetry

_LOG = logging.getLogger("uvicorn.error")
_REASONS = 10  # per item at most; the page shows two
_COST_OF_REASONS = 10  # an item with reasons counts like this many without

T = TypeVar("T")


class Service:
    """The models that are served, and the answers to requests.

    Parameters
    ----------
    runs : sequence of Path
        Folders of runs.
    settings : Settings
        Settings and limits of the server.

    Raises
    ------
    UsageError, BundleError
        If a run cannot be served.
    """

    def __init__(self, runs: Sequence[Path], settings: Settings) -> None:
        self.settings = settings
        self.store = ModelStore(runs, settings)
        self.telemetry = Telemetry()
        self._batcher: Batcher | None = None  # while the application runs
        self._reloading = asyncio.Lock()

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Start and stop scoring with the application; accepted requests are still answered."""
        loop, settings = asyncio.get_running_loop(), self.settings
        loop.set_default_executor(ThreadPoolExecutor(2, "explaining"))  # reasons, similar items and searches
        batcher = Batcher(settings.window_ms / 1000, settings.batch_users, settings.waiting_users, self.telemetry)
        batcher.start()
        is_main = threading.current_thread() is threading.main_thread()  # in other threads, signals cannot be handled
        if is_main and hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._batcher = batcher
        yield
        self._batcher = None
        await batcher.stop()

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return self._batcher is not None and self._batcher.is_alive

    def _on_hangup(self) -> None:
        self._hangup = asyncio.create_task(self.reload(only_if_new=True))  # kept, or it could be garbage-collected

    async def reload(self, only_if_new: bool = False) -> str | None:
        """Load new versions of the models.

        Parameters
        ----------
        only_if_new : bool
            Whether to do nothing if the served versions are current.

        Returns
        -------
        str or None
            The error, if a version could not be loaded; the old versions then stay.
        """
        async with self._reloading:
            error = None
            try:
                if only_if_new and await self.in_thread(self.store.is_current):
                    return None
                await self.in_thread(self.store.reload)
            except RecvaeError as found:
                error = str(found)
            except Exception:
                _LOG.exception("not reloaded")
                error = "the runs could not be read; see the server log"
        self.telemetry.observe_reload(error is None)
        versions = ", ".join(f"{model.name} {model.version}" for model in self.store.models())
        if error is None:
            _LOG.info("reloaded: %s", versions)
        else:
            _LOG.error("not reloaded: %s", error)
        return error

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Stop a request after the time limit, and turn errors into HTTP errors."""
        try:
            async with asyncio.timeout(self.settings.seconds):
                yield
        except TimeoutError as error:
            raise _busy("the request took too long; try again, or request less") from error
        except OverloadedError as error:
            raise _busy("too many users are waiting; try again") from error
        except (UsageError, DataError) as error:
            raise HTTPException(422, str(error)) from error

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run a function in a thread, so that the event loop and the scoring continue."""
        return await asyncio.get_running_loop().run_in_executor(None, work)

    def model(self, name: str | None) -> StoredModel:
        """Return the model that a request names."""
        model = self.store.find(name)
        if model is None:
            names = ", ".join(model.name for model in self.store.models())
            raise HTTPException(404, f"got model {shown(name)}, expected one of {names}")
        return model

    async def answer(self, question: Question) -> dict[str, Any]:
        """Answer a request, in a batch with others that arrive at the same time; return JSON values."""
        if self._batcher is None:
            raise not_ready()
        requests = self._requests(question)
        model = self.model(question.model)
        found = await self._batcher.answer(model.recommender, requests)
        reasons: list[list[Explanation] | None] = [None] * len(found)
        if question.explain:
            reasons = await self.in_thread(partial(_explained, model, requests, found))
        answers = [of_user.to_json(of_items) for of_user, of_items in zip(found, reasons, strict=True)]
        if question.explain:
            for answer, request in zip(answers, requests, strict=True):
                answer["history"] = named(model.recommender.items, request.items)
        given: Any = {"results": answers} if question.histories else answers[0]
        return {"model": model.name, "version": model.version, **given}

    def _requests(self, question: Question) -> list[Request]:
        """Return one request per user, within the limits."""
        if (question.items is None) == (not question.histories):
            raise HTTPException(422, "expected 'items' for one user, or 'histories' for many; give one of the two")
        histories, limits = question.histories or [question.items], self.settings
        cost = len(histories) * question.k * (_COST_OF_REASONS if question.explain else 1)
        for what, number, most in (
            ("histories", len(histories), limits.histories),
            ("items in a history", max(map(len, histories)), limits.history_items),
            ("ids to exclude", len(question.exclude), limits.history_items),
            ("ids to allow", len(question.allow or ()), limits.history_items),
            ("k", question.k, limits.k),
            ("items to give reasons for", sum(map(len, histories)) if question.explain else 0, limits.explained_items),
            ("items in the response (histories x k; with reasons, ten times that)", cost, limits.answered_items),
        ):
            if number > most:
                raise HTTPException(422, f"got {shown(number)} for {what}, expected at most {most:,}; send less")
        same = question.model_dump(include={"k", "exclude", "allow", "filter_seen", "diversify"})
        return [Request(items=history, **same) for history in histories]


def not_ready() -> HTTPException:
    """Return the error before the start and after the end."""
    return _busy("the server is starting or stopping; try again")


def _busy(reason: str) -> HTTPException:
    return HTTPException(503, reason, {"Retry-After": RETRY_AFTER})


def _explained(
    model: StoredModel, requests: Sequence[Request], found: Sequence[Recommendations]
) -> list[list[Explanation] | None]:
    """Return the reasons of each item of each user; None for the most popular items."""
    return [
        None if of_user.fallback else model.recommender.explain(request.items, of_user.ids, most=_REASONS)
        for request, of_user in zip(requests, found, strict=True)
    ]


def named(items: ItemIndex, ids: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the known items among some ids, with their titles, as JSON values."""
    columns = (column for column in map(items.column_of, ids) if column is not None)
    return [{"id": json_id(items.id_of(column)), "title": items.title_of(column)} for column in columns]
