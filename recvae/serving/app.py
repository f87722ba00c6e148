"""The HTTP application: one function per address."""

import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from recvae.items import DEFAULT_K, json_id
from recvae.serving import schemas
from recvae.serving.guards import Guard
from recvae.serving.service import Service, not_ready
from recvae.serving.settings import Settings
from recvae.serving.telemetry import RequestCounter
from recvae.version import __version__

_PAGE = Path(__file__).parent / "page"
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
        lifespan=service.lifespan,
        responses={status: _WRONG[status] for status in (401, 503)},
        # The guard looks at the token; this is to have /docs ask for it.
        dependencies=[] if settings.token is None else [Depends(HTTPBearer(auto_error=False))],
    )
    app.state.service = service
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
    app.add_middleware(RequestCounter, telemetry=service.telemetry)
    return app


def _add_answers(app: FastAPI, service: Service) -> None:
    """Add the addresses that answer questions."""

    @app.post("/recommend", responses={status: _WRONG[status] for status in (400, 404, 408, 413, 422)})
    async def recommend(question: schemas.Question) -> schemas.OneAnswer | schemas.ManyAnswers:
        """Recommend items to a user, or to many, by what they consumed."""
        async with service.deadline():
            return _json(await service.answer(question))

    @app.get("/similar/{item:path}", responses={status: _WRONG[status] for status in (404, 422)})
    async def similar(
        item: str, k: Annotated[int, Query(ge=1, le=service.settings.k)] = DEFAULT_K, model: str | None = None
    ) -> schemas.SimilarItems:
        """Return the items most similar to one."""
        async with service.deadline():
            asked = service.model(model)
            if asked.recommender.items.column_of(item) is None:
                raise HTTPException(404, f"got item {schemas.shown(item)}, which {asked.name} does not know")
            found = await service.in_thread(partial(asked.recommender.similar_items, item, k))
            return _json({"model": asked.name, "version": asked.version, "items": found.to_json()["items"]})

    @app.get("/items", responses={status: _WRONG[status] for status in (404, 422)})
    async def items(
        query: Annotated[str, Query(max_length=200)],
        limit: Annotated[int, Query(ge=1, le=100)] = DEFAULT_K,
        model: str | None = None,
    ) -> schemas.FoundItems:
        """Search items by words of their titles."""
        async with service.deadline():
            index = service.model(model).recommender.items
            columns = await service.in_thread(partial(index.search, query, limit))
            found = [
                {"id": json_id(index.id_of(c)), "title": index.title_of(c), "users": int(index.train_counts[c])}
                for c in columns
            ]
            return _json({"items": found})


def _add_state(app: FastAPI, service: Service) -> None:
    """Add the addresses that say how the server is, and the one that takes up new versions."""

    @app.get("/health")
    async def health() -> schemas.Status:
        """Say that the process is alive."""
        return schemas.Status(status="alive")

    @app.get("/ready")
    async def ready() -> schemas.Status:
        """Say whether questions are answered."""
        if not service.is_ready:
            raise not_ready()
        return schemas.Status(status="ready")

    app.head("/health", include_in_schema=False)(health)  # some load balancers ask without wanting the words
    app.head("/ready", include_in_schema=False)(ready)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Return counters in the text format of Prometheus."""
        return Response(service.telemetry.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/model")
    async def model() -> schemas.ServerInfo:
        """Say what is served, and the limits."""
        models = [model.describe() for model in service.store.models()]
        return _json({"models": models, "limits": service.settings.limits()})

    @app.post("/reload", responses={403: {"model": schemas.Error}, 409: {"model": schemas.Error}})
    async def reload() -> schemas.ServerInfo:
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
    detail = error.detail if isinstance(error, HTTPException) else said.get(error.status_code, error.detail)
    if error.status_code == 400:  # FastAPI's own words for what its decoder fails at
        detail = "got something that is not JSON in UTF-8, or is nested too deeply"
    return JSONResponse({"error": str(detail)}, error.status_code, headers=error.headers)


async def _say_invalid(_: Request, error: Exception) -> JSONResponse:
    """Say the first thing that is wrong; what was sent may be no JSON, as NaN, and is not sent back."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(schemas.shown(part) if isinstance(part, int) else part for part in first["loc"][1:])
    where = schemas.cut(where)
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
