"""The HTTP application: one function per path."""

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
    status: {"model": schemas.Error, "description": description}
    for status, description in {
        400: "Not JSON",
        401: "Missing or wrong token",
        404: "Unknown item or model",
        408: "The request arrived too slowly",
        413: "The request is too large",
        422: "Invalid request; the error says what was expected",
        503: "Too busy; see Retry-After",
    }.items()
}


def create_app(runs: Sequence[Path | str], settings: Settings | None = None) -> FastAPI:
    """Return the application that serves some runs, which are loaded here.

    Parameters
    ----------
    runs : sequence of Path or str
        Folders of runs; the first one answers requests that name no model.
    settings : Settings, optional
        Settings and limits of the server.

    Raises
    ------
    UsageError
        If one is not a run, or was not exported in the requested format.
    BundleError
        If one is damaged.
    """
    settings = settings or Settings()
    service = Service([Path(run) for run in runs], settings)
    app = FastAPI(
        title="recvae",
        version=__version__,
        summary="Recommendations for users from their histories",
        lifespan=service.lifespan,
        responses={status: _WRONG[status] for status in (401, 503)},
        # The guard checks the token; this makes /docs ask for it.
        dependencies=[] if settings.token is None else [Depends(HTTPBearer(auto_error=False))],
    )
    app.state.service = service
    _add_answers(app, service)
    _add_state(app, service)
    app.get("/", include_in_schema=False)(lambda: FileResponse(_PAGE / "index.html"))
    app.mount("/page", StaticFiles(directory=_PAGE), "page")
    describe = app.openapi
    app.openapi = lambda: schemas.with_limits(describe(), settings)  # type: ignore[method-assign]
    app.add_exception_handler(StarletteHTTPException, _error_response)
    app.add_exception_handler(RequestValidationError, _invalid_response)
    app.add_exception_handler(Exception, _internal_error_response)
    app.add_middleware(Guard, settings=settings)
    if settings.origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(RequestCounter, telemetry=service.telemetry)
    return app


def _add_answers(app: FastAPI, service: Service) -> None:
    """Add the paths that recommend, compare and search items."""

    @app.post("/recommend", responses={status: _WRONG[status] for status in (400, 404, 408, 413, 422)})
    async def recommend(question: schemas.Question) -> schemas.OneAnswer | schemas.ManyAnswers:
        """Recommend items to one user, or to many, from their histories."""
        async with service.deadline():
            return _json(await service.answer(question))

    @app.get("/similar/{item:path}", responses={status: _WRONG[status] for status in (404, 422)})
    async def similar(
        item: str, k: Annotated[int, Query(ge=1, le=service.settings.k)] = DEFAULT_K, model: str | None = None
    ) -> schemas.SimilarItems:
        """Return the items most similar to an item."""
        async with service.deadline():
            asked = service.model(model)
            if asked.recommender.items.column_of(item) is None:
                raise HTTPException(404, f"unknown item {schemas.shown(item)} in {asked.name}")
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
    """Add the paths for the state of the server, and the path that reloads models."""

    @app.get("/health")
    async def health() -> schemas.Status:
        """Return 200 if the process is alive."""
        return schemas.Status(status="alive")

    @app.get("/ready")
    async def ready() -> schemas.Status:
        """Return 200 if requests are answered, 503 otherwise."""
        if not service.is_ready:
            raise not_ready()
        return schemas.Status(status="ready")

    app.head("/health", include_in_schema=False)(health)  # some load balancers send HEAD
    app.head("/ready", include_in_schema=False)(ready)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Return counters in the text format of Prometheus."""
        return Response(service.telemetry.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/model")
    async def model() -> schemas.ServerInfo:
        """Return the models that are served, and the limits."""
        models = [model.describe() for model in service.store.models()]
        return _json({"models": models, "limits": service.settings.limits()})

    @app.post("/reload", responses={403: {"model": schemas.Error}, 409: {"model": schemas.Error}})
    async def reload() -> schemas.ServerInfo:
        """Load new versions of the models; if one is damaged, the old ones stay."""
        if service.settings.token is None:
            raise HTTPException(403, "reload is disabled: start the server with --token")
        error = await service.reload()
        if error is not None:
            raise HTTPException(409, error)
        if service.settings.workers > 1:
            os.kill(os.getppid(), signal.SIGHUP)  # the parent forwards it to the other processes
        return await model()


def _json(content: Any) -> Any:
    # Without validating it again: for a hundred items that takes longer than scoring them.
    return JSONResponse(content)


async def _error_response(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    usual = {404: "nothing at this path; see /docs", 405: "this path has other methods; see /docs"}
    detail = error.detail if isinstance(error, HTTPException) else usual.get(error.status_code, error.detail)
    if error.status_code == 400:  # FastAPI's message for what its decoder cannot read
        detail = "the body is not JSON in UTF-8, or is nested too deeply"
    return JSONResponse({"error": str(detail)}, error.status_code, headers=error.headers)


async def _invalid_response(_: Request, error: Exception) -> JSONResponse:
    """Return the first error; the values are not sent back, because some (NaN) are not JSON."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(schemas.shown(part) if isinstance(part, int) else part for part in first["loc"][1:])
    where = schemas.cut(where)
    if first["type"] == "json_invalid":
        return JSONResponse({"error": f"the body is not JSON ({first['ctx']['error']})"}, 400)
    problem = first["msg"].removeprefix("Value error, ")
    if not where:
        problem = 'expected a JSON object, e.g. {"items": [318, 296]}, and the header content-type: application/json'
    if first["type"] == "extra_forbidden":
        problem = f"unknown; expected some of {', '.join(schemas.Question.model_fields)}"
    return JSONResponse({"error": f"{where or 'the body'}: {problem}"}, 422)


async def _internal_error_response(_: Request, error: Exception) -> JSONResponse:
    """Return no details; the server writes them to its log."""
    del error
    return JSONResponse({"error": "internal error; see the server log"}, 500)
