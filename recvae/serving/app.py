"""The HTTP application: one function per address."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from recvae.errors import RecvaeError, UsageError
from recvae.recommendations import Explanation, Recommendations
from recvae.recommendations import Request as Wish
from recvae.serving import schemas
from recvae.serving.batching import Batcher, OverloadedError
from recvae.serving.guards import RETRY_AFTER, Guard
from recvae.serving.settings import Settings
from recvae.serving.shelf import Shelf, Volume
from recvae.serving.telemetry import Counting, Telemetry
from recvae.version import __version__

_PAGE = Path(__file__).parent / "page"
_LOG = logging.getLogger("uvicorn.error")
_WRONG: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Error, "description": said}
    for status, said in {
        400: "Not JSON",
        401: "Without the token",
        404: "No such item or model",
        408: "Too slow",
        413: "Too large",
        422: "Wrong, with what was expected",
        503: "Too busy; see Retry-After",
    }.items()
}


class Service:
    """What the addresses share: the models, the scoring of what waits, the limits, the counters.

    Parameters
    ----------
    runs : sequence of Path
        Folders of runs.
    settings : Settings
        How to serve.
    """

    def __init__(self, runs: Sequence[Path], settings: Settings) -> None:
        self.settings = settings
        self.shelf = Shelf(runs, settings)
        self.telemetry = Telemetry(lambda: 0 if self.batcher is None else self.batcher.n_waiting)
        self.batcher: Batcher | None = None  # while it lives
        self._reloading = asyncio.Lock()

    @asynccontextmanager
    async def life(self, _: FastAPI) -> AsyncIterator[None]:
        """Score from start to end; what was accepted by then is answered."""
        loop, settings = asyncio.get_running_loop(), self.settings
        # Reasons, similar items and searches are worked on beside the scoring.
        loop.set_default_executor(ThreadPoolExecutor(2, "beside"))
        self.batcher = Batcher(
            settings.window_ms / 1000, settings.batch_users, settings.waiting_users, self.telemetry.observe_batch
        )
        self.batcher.start()
        is_main = threading.current_thread() is threading.main_thread()  # elsewhere, signals belong to someone else
        if is_main and hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        yield
        batcher, self.batcher = self.batcher, None
        await batcher.stop()

    def _on_hangup(self) -> None:
        self._hangup = asyncio.create_task(self.reload())  # kept, or it might be collected before its end

    async def reload(self) -> str | None:
        """Take up new versions; return what was wrong with them, after which all stays as it was."""
        async with self._reloading:
            error = None
            try:
                await asyncio.get_running_loop().run_in_executor(None, self.shelf.reload)
            except RecvaeError as found:
                error = str(found)
        self.telemetry.observe_reload(error is None)
        versions = ", ".join(f"{volume.name} {volume.version}" for volume in self.shelf.volumes())
        _LOG.info("reloaded: %s", versions) if error is None else _LOG.error("not reloaded: %s", error)
        return error

    async def answer(self, volume: Volume, wishes: Sequence[Wish]) -> list[Recommendations]:
        """Answer users, together with whoever asks at the same time."""
        if self.batcher is None:
            raise HTTPException(503, "starting or stopping; try again", {"Retry-After": RETRY_AFTER})
        found: list[Recommendations] = await self.timed(self.batcher.answer(volume.recommender, wishes))
        return found

    async def timed(self, work: Any) -> Any:
        """Wait for an answer as long as a request may take."""
        try:
            async with asyncio.timeout(self.settings.seconds):
                return await work
        except (TimeoutError, OverloadedError) as error:
            said = "too much is waiting" if isinstance(error, OverloadedError) else "this took too long"
            raise HTTPException(503, f"{said}; try again", {"Retry-After": RETRY_AFTER}) from error
        except UsageError as error:
            raise HTTPException(422, str(error)) from error

    async def beside(self, work: Callable[[], Any]) -> Any:
        """Work in a thread, while the event loop and the scoring go on."""
        return await self.timed(asyncio.get_running_loop().run_in_executor(None, work))

    def volume(self, name: str | None) -> Volume:
        """Return the model asked for."""
        volume = self.shelf.find(name)
        if volume is None:
            names = ", ".join(volume.name for volume in self.shelf.volumes())
            raise HTTPException(404, f"got model {schemas.shown(name)}, expected one of {names}")
        return volume

    def wishes(self, question: schemas.Question) -> list[Wish]:
        """Return what each user asks for, within the limits."""
        if (question.items is None) == (not question.histories):
            raise HTTPException(422, "expected 'items' for one user, or 'histories' for many; give one of the two")
        histories = question.histories or [question.items]
        longest = max(map(len, histories))
        self._check("histories", len(histories), self.settings.histories)
        self._check("items in a history", longest, self.settings.history_items)
        self._check("ids to exclude", len(question.exclude), self.settings.history_items)
        self._check("ids to allow", len(question.allow or ()), self.settings.history_items)
        self._check("k", question.k, self.settings.k)
        if question.explain:
            self._check("items to give reasons for", sum(map(len, histories)), self.settings.explained_items)
        same = question.model_dump(include={"k", "exclude", "allow", "filter_seen", "diversify"})
        return [Wish(items=history, **same) for history in histories]

    @staticmethod
    def _check(what: str, number: int, most: float) -> None:
        if number > most:
            raise HTTPException(422, f"got {schemas.shown(number)} for {what}, expected at most {most:,}; send less")


def _listed(found: Recommendations, reasons: list[Explanation] | None = None) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = [
        {"id": item, "title": title, "score": score}
        for item, title, score in zip(found.ids, found.titles, found.scores, strict=True)
    ]
    for item, explained in zip(items, reasons or [], strict=False):
        item["reasons"] = [{"id": key, "title": name, "contribution": part} for key, name, part in explained.reasons]
    return items


def create_app(runs: Sequence[Path | str], settings: Settings | None = None) -> FastAPI:
    """Return the application that serves some runs; they are loaded here.

    Parameters
    ----------
    runs : sequence of Path or str
        Folders of runs; the first answers where a request names none.
    settings : Settings, optional
        How to serve.

    Raises
    ------
    UsageError
        If one is no run, or not exported in the format asked for.
    BundleError
        If one is damaged.
    """
    settings = settings or Settings()
    service = Service([Path(run) for run in runs], settings)
    app = FastAPI(
        title="recvae",
        version=__version__,
        summary="Recommendations for users by what they consumed",
        lifespan=service.life,
        responses={status: _WRONG[status] for status in (401, 503)},
    )
    _add_answers(app, service)
    _add_state(app, service)
    app.get("/", include_in_schema=False)(lambda: FileResponse(_PAGE / "index.html"))
    app.mount("/page", StaticFiles(directory=_PAGE), "page")
    describe = app.openapi
    app.openapi = lambda: schemas.with_limits(describe(), settings)  # type: ignore[method-assign]
    app.add_exception_handler(StarletteHTTPException, _say)
    app.add_exception_handler(RequestValidationError, _say_invalid)
    app.add_exception_handler(Exception, _say_nothing)
    app.add_middleware(Guard, settings=settings)
    if settings.origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(Counting, telemetry=service.telemetry)
    return app


def _add_answers(app: FastAPI, service: Service) -> None:
    """Add the addresses that answer questions."""

    @app.post("/recommend", responses={status: _WRONG[status] for status in (400, 404, 408, 413, 422)})
    async def recommend(question: schemas.Question) -> schemas.OneAnswer | schemas.ManyAnswers:
        """Recommend items to a user, or to many, by what they consumed."""
        wishes = service.wishes(question)
        volume = service.volume(question.model)
        found = await service.answer(volume, wishes)
        answers = []
        for wish, of_user in zip(wishes, found, strict=True):
            explain = partial(volume.recommender.explain, wish.items, of_user.ids)
            reasons = await service.beside(explain) if question.explain and not of_user.fallback else None
            answers.append(
                {"items": _listed(of_user, reasons), "unknown": of_user.unknown, "fallback": of_user.fallback}
            )
        given: Any = {"results": answers} if question.histories else answers[0]
        return _json({"model": volume.name, "version": volume.version, **given})

    @app.get("/similar/{item:path}", responses={status: _WRONG[status] for status in (404, 422)})
    async def similar(
        item: str, k: Annotated[int, Query(ge=1, le=service.settings.k)] = 10, model: str | None = None
    ) -> schemas.SimilarItems:
        """Return the items most similar to one."""
        volume = service.volume(model)
        if volume.recommender.items.column_of(item) is None:
            raise HTTPException(404, f"got item {schemas.shown(item)}, which {volume.name} does not know")
        found = await service.beside(partial(volume.recommender.similar_items, item, k))
        return _json({"model": volume.name, "version": volume.version, "items": _listed(found)})

    @app.get("/items", responses={status: _WRONG[status] for status in (404, 422)})
    async def items(
        query: Annotated[str, Query(max_length=200)],
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
        model: str | None = None,
    ) -> schemas.FoundItems:
        """Search items by words of their titles."""
        index = service.volume(model).recommender.items
        columns = await service.beside(partial(index.search, query, limit))
        ids = index.ids[columns].tolist() if columns else []
        counts = index.train_counts[columns].tolist() if columns else []
        found = zip(ids, map(index.title_of, columns), counts, strict=True)
        return _json({"items": [{"id": item, "title": title, "users": users} for item, title, users in found]})


def _add_state(app: FastAPI, service: Service) -> None:
    """Add the addresses that say how the server is, and the one that takes up new versions."""

    @app.get("/health")
    async def health() -> schemas.Status:
        """Say that the process is alive."""
        return schemas.Status(status="alive")

    @app.get("/ready")
    async def ready() -> schemas.Status:
        """Say whether questions are answered."""
        if service.batcher is None:
            raise HTTPException(503, "starting or stopping; try again", {"Retry-After": RETRY_AFTER})
        return schemas.Status(status="ready")

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Return counters in the text format of Prometheus."""
        return Response(service.telemetry.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/model")
    async def model() -> schemas.Served:
        """Say what is served, and the limits."""
        volumes = [volume.describe() for volume in service.shelf.volumes()]
        return _json({"models": volumes, "limits": service.settings.limits()})

    @app.post("/reload", responses={403: {"model": schemas.Error}, 409: {"model": schemas.Error}})
    async def reload() -> schemas.Served:
        """Take up new versions of what is served; broken ones are refused, and the old ones stay."""
        if service.settings.token is None:
            raise HTTPException(403, "this server has no token, without which no one may reload; start it with one")
        error = await service.reload()
        if error is not None:
            raise HTTPException(409, error)
        if service.settings.workers > 1:
            os.kill(os.getppid(), signal.SIGHUP)  # the parent passes it on to the other processes
        return await model()


def _json(content: Any) -> Any:
    # As made here, not validated a second time: with a hundred items that takes longer than scoring them.
    return JSONResponse(content)


async def _say(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    said = {404: "there is nothing at this address; see /docs", 405: "this address has other methods; see /docs"}
    known = isinstance(error, HTTPException)
    detail = error.detail if known else said.get(error.status_code, error.detail)
    return JSONResponse({"error": str(detail)}, error.status_code, headers=error.headers)


async def _say_invalid(_: Request, error: Exception) -> JSONResponse:
    """Say the first thing that is wrong; what was sent may be no JSON, as NaN, and is not sent back."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    if first["type"] == "json_invalid":
        return JSONResponse({"error": f"got something that is not JSON ({first['ctx']['error']})"}, 400)
    said = first["msg"].removeprefix("Value error, ")
    if not where:
        said = 'expected a JSON object, such as {"items": [318, 296]}, and the header content-type: application/json'
    if first["type"] == "extra_forbidden":
        said = f"not known; expected some of {', '.join(schemas.Question.model_fields)}"
    return JSONResponse({"error": f"{where or 'the body'}: {said}"}, 422)


async def _say_nothing(_: Request, error: Exception) -> JSONResponse:
    """Keep what went wrong to the log, where the server writes it."""
    del error
    return JSONResponse({"error": "something went wrong here; the server's log says what"}, 500)
