"""The server fuzzed through its own OpenAPI: whatever comes, the answer is one that it declares."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode

from recvae.datasets.dataset import Dataset
from recvae.models import Model
from recvae.recommenders.recommender import Recommender
from recvae.serving.app import create_app
from recvae.serving.settings import Settings

ASKED = [("POST", "/recommend"), ("GET", "/similar/{item}"), ("GET", "/items")]
PLAIN = [("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics"), ("GET", "/model"), ("POST", "/reload")]
WRONG_TOO = [(address, mode) for address in ASKED for mode in GenerationMode]


@pytest.fixture(scope="module")
def app(fitted: Callable[[str], Model], blocks: Dataset, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    run = Path(tmp_path_factory.mktemp("runs")) / "ease"
    Recommender(fitted("ease"), blocks).save(run)
    # OpenAPI can say how long a list may be, but not how long several together, nor how many bytes a request has.
    return create_app([run], Settings(answered_items=10**6, explained_items=10**6, body_bytes=2**30))


def test_every_address_is_fuzzed(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == {*ASKED, *PLAIN}


@pytest.mark.slow
@pytest.mark.parametrize(("address", "mode"), [*WRONG_TOO, *((address, GenerationMode.POSITIVE) for address in PLAIN)])
def test_every_answer_is_a_declared_one(app: FastAPI, address: tuple[str, str], mode: GenerationMode) -> None:
    method, path = address
    interface = schemathesis.openapi.from_asgi("/openapi.json", app)
    operation = interface[path][method]
    n_examples = 150 if path == "/recommend" else 20

    @settings(
        max_examples=n_examples,
        deadline=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def fuzz(case: Any) -> None:
        case.call_and_validate()

    fuzz()
