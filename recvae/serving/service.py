"""What the addresses share: the models, the scoring of what waits, the limits, the counters."""

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
_REASONS = 10  # of an item at most: a page shows two
_COST_OF_REASONS = 10  # items without reasons that an item with reasons counts for

T = TypeVar("T")


class Service:
    """The models served, and how questions to them are answered.

    Parameters
    ----------
    runs : sequence of Path
        Folders of runs.
    settings : Settings
        How to serve.

    Raises
    ------
    UsageError, BundleError
        If a run cannot be served.
    """

    def __init__(self, runs: Sequence[Path], settings: Settings) -> None:
        self.settings = settings
        self.store = ModelStore(runs, settings)
        self.telemetry = Telemetry()
        self._batcher: Batcher | None = None  # while it lives
        self._reloading = asyncio.Lock()

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Score from start to end; what was accepted by then is answered."""
        loop, settings = asyncio.get_running_loop(), self.settings
        loop.set_default_executor(ThreadPoolExecutor(2, "beside"))  # reasons, similar items and searches
        batcher = Batcher(settings.window_ms / 1000, settings.batch_users, settings.waiting_users, self.telemetry)
        batcher.start()
        is_main = threading.current_thread() is threading.main_thread()  # elsewhere, signals belong to someone else
        if is_main and hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._batcher = batcher
        yield
        self._batcher = None
        await batcher.stop()

    @property
    def is_ready(self) -> bool:
        """Whether questions are answered."""
        return self._batcher is not None and self._batcher.is_alive

    def _on_hangup(self) -> None:
        self._hangup = asyncio.create_task(self.reload(only_if_new=True))  # kept, or it might be collected

    async def reload(self, only_if_new: bool = False) -> str | None:
        """Take up new versions.

        Parameters
        ----------
        only_if_new : bool
            Whether to do nothing where all versions are those served.

        Returns
        -------
        str or None
            What was wrong with them, after which all stays as it was.
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
                error = "the runs could not be read; the server's log says why"
        self.telemetry.observe_reload(error is None)
        versions = ", ".join(f"{model.name} {model.version}" for model in self.store.models())
        if error is None:
            _LOG.info("reloaded: %s", versions)
        else:
            _LOG.error("not reloaded: %s", error)
        return error

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Give up what takes longer than a request may, and say what is wrong in HTTP's terms."""
        try:
            async with asyncio.timeout(self.settings.seconds):
                yield
        except TimeoutError as error:
            raise _busy("this took too long; try again, or ask for less") from error
        except OverloadedError as error:
            raise _busy("too much is waiting; try again") from error
        except (UsageError, DataError) as error:
            raise HTTPException(422, str(error)) from error

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Work in a thread, while the event loop and the scoring go on."""
        return await asyncio.get_running_loop().run_in_executor(None, work)

    def model(self, name: str | None) -> StoredModel:
        """Return the model asked for."""
        model = self.store.find(name)
        if model is None:
            names = ", ".join(model.name for model in self.store.models())
            raise HTTPException(404, f"got model {shown(name)}, expected one of {names}")
        return model

    async def answer(self, question: Question) -> dict[str, Any]:
        """Answer a question, together with what others ask at the same time; ready for JSON."""
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
        """Return what each user asks for, within the limits."""
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
            ("items of all histories (k each, tenfold with reasons)", cost, limits.answered_items),
        ):
            if number > most:
                raise HTTPException(422, f"got {shown(number)} for {what}, expected at most {most:,}; send less")
        same = question.model_dump(include={"k", "exclude", "allow", "filter_seen", "diversify"})
        return [Request(items=history, **same) for history in histories]


def not_ready() -> HTTPException:
    """Return what to say before the start and after the end."""
    return _busy("starting or stopping; try again")


def _busy(said: str) -> HTTPException:
    return HTTPException(503, said, {"Retry-After": RETRY_AFTER})


def _explained(
    model: StoredModel, requests: Sequence[Request], found: Sequence[Recommendations]
) -> list[list[Explanation] | None]:
    """Return the reasons of each item of each user; None where these are the most popular items."""
    return [
        None if of_user.fallback else model.recommender.explain(request.items, of_user.ids, most=_REASONS)
        for request, of_user in zip(requests, found, strict=True)
    ]


def named(items: ItemIndex, ids: Iterable[Any]) -> list[dict[str, Any]]:
    """Return those of some items that are known, with their titles, as JSON has them."""
    columns = (column for column in map(items.column_of, ids) if column is not None)
    return [{"id": json_id(items.id_of(column)), "title": items.title_of(column)} for column in columns]
