"""What the server refuses, and how: each with what was wrong, none with a traceback, none stops it."""

import json
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae.bundles.bundle import WEIGHTS, check_files
from recvae.bundles.card import CARD
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, RecvaeError
from recvae.models import Model
from recvae.recommenders.recommender import Recommender
from recvae.serving.app import create_app
from recvae.serving.settings import Settings
from recvae.storage.arrays import write_weights
from recvae.storage.integrity import sha256_of

IDS = [1000 - 10 * column for column in range(32)]  # those of the blocks
SMALL = Settings(history_items=50, histories=3, k=20, explained_items=4, answered_items=45, body_bytes=2000)


@pytest.fixture(scope="module")
def run(fitted: Callable[[str], Model], blocks: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a sound run; copy it before changing anything."""
    folder = tmp_path_factory.mktemp("runs") / "multvae"
    Recommender(fitted("multvae"), blocks).save(folder)
    return folder


@pytest.fixture(scope="module")
def app(run: Path) -> FastAPI:
    return create_app([run], SMALL)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("", 422, "expected a JSON object, e.g. "),
        ("{", 400, "the body is not JSON"),
        ("[318]", 422, "expected a JSON object, e.g. "),
        ("null", 422, "expected a JSON object, e.g. "),
        ("{}", 422, "expected 'items' for one user, or 'histories' for many"),
        ('{"items": [1000], "histories": [[1000]]}', 422, "give one of the two"),
        ('{"histories": []}', 422, "histories: got [], expected a list of histories"),
        ('{"items": 318}', 422, "items: got 318, expected a list of ids, e.g. [318, 296], or an object"),
        ('{"items": "318"}', 422, 'items: got "318", expected a list of ids'),
        ('{"items": [true]}', 422, "items: got true for an id, expected an integer or a string"),
        ('{"items": [9007199254740993.0]}', 422, "items: got 9007199254740992.0 for an id"),
        ('{"items": [31.5]}', 422, "items: got 31.5 for an id"),
        ('{"items": [NaN]}', 422, "items: got NaN for an id"),
        ('{"items": [[1000]]}', 422, "items: got [1000] for an id"),
        ('{"histories": [1000]}', 422, "histories: got 1000, expected a list of ids"),
        ('{"items": {"1000": NaN}}', 422, 'got weight NaN for item "1000", expected a number from'),
        ('{"items": {"1000": -1}}', 422, 'got weight -1 for item "1000", expected a number from'),
        (
            '{"items": {"1000": 1e999}}',
            422,
            'got weight Infinity for item "1000", expected a number from',
        ),
        (
            '{"items": {"1000": "much"}}',
            422,
            'got weight "much" for item "1000", expected a number from',
        ),
        ('{"items": [1000], "k": 0}', 422, "k: got 0, expected a whole number of items, 1 or more"),
        ('{"items": [1000], "k": -1}', 422, "k: got -1, expected a whole number"),
        ('{"items": [1000], "k": 2.5}', 422, "k: got 2.5, expected a whole number"),
        ('{"items": [1000], "k": 1000000000}', 422, "got 1000000000 for k, expected at most 20; send less"),
        ('{"items": [1000], "k": ' + "9" * 300 + "}", 422, "for k, expected at most 20; send less"),
        ('{"items": [1000], "k": ' + "9" * 1900 + "}", 422, "for k, expected at most 20; send less"),
        ('{"items": [1000], "diversify": 2}', 422, "diversify: got 2, expected a number from 0 to 1"),
        ('{"items": [1000], "diversify": NaN}', 422, "diversify: got NaN, expected a number from 0 to 1"),
        ('{"items": [1000], "filter_seen": "no"}', 422, 'filter_seen: got "no", expected true or false'),
        ('{"items": [1000], "exclude": 990}', 422, "exclude: got 990, expected a list of ids"),
        ('{"items": [1000], "allow": {"990": 1}}', 422, 'allow: got {"990": 1}, expected a list of ids'),
        ('{"items": [1000], "number": 5}', 422, "number: unknown; expected some of items, histories, k"),
        ('{"items": [1000], "model": "multvea"}', 404, 'got model "multvea", expected one of multvae'),
        ('{"items": [1000], "model": 5}', 422, "model: "),
        (json.dumps({"items": list(range(51))}), 422, "got 51 for items in a history, expected at most 50; send less"),
        (json.dumps({"items": [1], "exclude": list(range(51))}), 422, "got 51 for ids to exclude, expected at most 50"),
        (json.dumps({"items": [1], "allow": list(range(51))}), 422, "got 51 for ids to allow, expected at most 50"),
        (json.dumps({"histories": [[1]] * 4}), 422, "got 4 for histories, expected at most 3; send less"),
        (
            json.dumps({"items": IDS[:5], "explain": True}),
            422,
            "got 5 for items to give reasons for, expected at most 4",
        ),
        (
            json.dumps({"items": ["x" * 2000]}),
            413,
            "got a request of more than 2,000 bytes, the limit of this server",
        ),
    ],
)
def test_each_mistake_is_named(client: TestClient, body: str, status: int, said: str) -> None:
    answer = client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert said in answer.json()["error"] and len(answer.text) < 600
    assert client.post("/recommend", json={"items": [1000], "k": 2}).status_code == 200


def test_json_must_be_said_to_be_json(client: TestClient) -> None:
    answer = client.post("/recommend", content='{"items": [1000]}', headers={"content-type": "text/plain"})
    assert answer.status_code == 422 and "the header content-type: application/json" in answer.json()["error"]


@pytest.mark.parametrize("body", [b"\xff\xfe", b'{"items": ["\xc3"]}', b"9" * 1990, b"[" * 1990])
def test_bytes_that_are_no_json_are_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422) and list(answer.json()) == ["error"]


def test_requests_without_mistakes_are_answered_however_odd(client: TestClient) -> None:
    def ask(**body: Any) -> dict[str, Any]:
        answer = client.post("/recommend", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert ask(items=["none", "of these"])["fallback"]
    assert ask(items=[])["fallback"]
    assert ask(items=[1000, "1000", 1000], k=3)["items"] == ask(items=[1000], k=3)["items"]
    assert ask(items=[1000.0], k=3.0)["items"] == ask(items=[1000], k=3)["items"]  # the same numbers in JSON
    assert ask(items=[1000], exclude=IDS)["items"] == []
    assert ask(items=[1000], allow=[])["items"] == []
    assert ask(items=IDS)["items"] == []  # nothing is left that was not seen
    assert len(ask(items=[10**30, -1, ""])["unknown"]) == 3


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/similar/5", 404, 'unknown item "5" in multvae'),
        ("/similar/..%2f..%2fetc%2fpasswd", 404, "unknown item "),
        ("/similar/1000?k=0", 422, "k: "),
        ("/similar/1000?k=many", 422, "k: "),
        ("/similar/1000?k=21", 422, "k: "),
        ("/similar/1000?model=als", 404, 'got model "als", expected one of multvae'),
        ("/items", 422, "query: "),
        ("/items?query=" + "x" * 201, 422, "query: "),
        ("/items?query=a&limit=101", 422, "limit: "),
        ("/page/..%2f..%2f..%2fpyproject.toml", 404, "nothing at this path"),
        ("/page/none.js", 404, "nothing at this path"),
        ("/recommend", 405, "this path has other methods"),
        ("/admin", 404, "nothing at this path"),
    ],
)
def test_addresses_are_checked_too(client: TestClient, path: str, status: int, said: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status and said in answer.json()["error"]


@settings(max_examples=60)
@given(body=st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8) | st.sampled_from(IDS),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["items", "histories", "k", "exclude", "allow", "explain", "1000"]), inner),
    max_leaves=8,
))  # fmt: skip
def test_no_json_breaks_it(app: FastAPI, client: TestClient, body: Any) -> None:
    answer = client.post("/recommend", content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 404, 413, 422)


def test_ids_that_javascript_would_take_for_others_are_texts(
    fitted: Callable[[str], Model], blocks: Dataset, tmp_path: Path
) -> None:
    large = replace(blocks, item_ids=2**60 + np.arange(len(blocks.item_ids)))
    Recommender(fitted("ease"), large).save(tmp_path / "run")
    with TestClient(create_app([tmp_path / "run"])) as client:
        answer = client.post("/recommend", json={"items": [2**60, str(2**60 + 1), 2**60 - 1], "explain": True, "k": 2})
        found, reasons = answer.json(), answer.json()["items"][0]["reasons"]
        assert all(isinstance(item["id"], str) and int(item["id"]) > 2**60 for item in [*found["items"], *reasons][:2])
        assert found["unknown"] == [str(2**60 - 1)] and len(reasons) == 2
        assert client.get("/similar/" + found["items"][0]["id"]).status_code == 200
        assert client.get("/items?query=title").json()["items"][0]["id"] > str(2**60)


# More than may be.


class Blocked(NamedTuple):
    """What makes servers that answer only once they are let go."""

    serve: Callable[..., TestClient]
    begun: threading.Event
    go: threading.Event


@pytest.fixture
def blocked(run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Blocked]:
    begun, go, answer_now = threading.Event(), threading.Event(), Recommender.answer

    def answer(self: Recommender, requests: Any) -> Any:
        begun.set()
        go.wait(10)
        return answer_now(self, requests)

    with ExitStack() as stack:

        def serve(**settings: Any) -> TestClient:
            client = stack.enter_context(TestClient(create_app([run], Settings(**settings))))
            monkeypatch.setattr(Recommender, "answer", answer)
            return client

        yield Blocked(serve, begun, go)
        go.set()


def test_more_requests_than_may_be_in_flight_are_refused_and_those_of_a_load_balancer_are_not(
    blocked: Blocked,
) -> None:
    serve, begun, go = blocked
    client = serve(in_flight=1)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, "/recommend", json={"items": [1000]})
        assert begun.wait(10)
        refused = client.get("/model")
        assert (refused.status_code, refused.json()["error"]) == (503, "too many requests at the same time; try again")
        assert refused.headers["retry-after"] == "1"
        assert client.get("/ready").status_code == client.get("/").status_code == 200
        go.set()
        assert asked.result().status_code == 200
    assert client.get("/model").status_code == 200
    assert 'recvae_requests_total{path="/model",status="503"}' in client.get("/metrics").text


def test_more_users_than_may_wait_are_refused(blocked: Blocked) -> None:
    serve, _, go = blocked
    client = serve(waiting_users=3, batch_users=1, window_ms=0)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.post, "/recommend", json={"items": [1000]}) for _ in range(8)]
        _until(lambda: sum(answer.done() for answer in asked) == 4)  # one is being scored, three wait
        assert "recvae_waiting_users 3.0" in client.get("/metrics").text
        go.set()
        found = sorted((answer.result().status_code, answer.result().headers.get("retry-after")) for answer in asked)
    assert found == [(200, None)] * 4 + [(503, "1")] * 4


def test_what_was_given_up_is_not_scored_on(blocked: Blocked, monkeypatch: pytest.MonkeyPatch) -> None:
    serve, _, go = blocked
    client = serve(seconds=0.2, batch_users=1)
    sizes, slow = list[int](), Recommender.answer
    monkeypatch.setattr(
        Recommender, "answer", lambda self, requests: (sizes.append(len(requests)), slow(self, requests))[1]
    )
    assert client.post("/recommend", json={"histories": [[1000]] * 20}).status_code == 503
    go.set()
    assert client.post("/recommend", json={"items": [1000]}).status_code == 200
    assert sizes == [1, 1]  # the first slice of the twenty, and the other request


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# The token, other origins, and what is inside.


@pytest.fixture(scope="module")
def closed(run: Path) -> Iterator[TestClient]:
    """Return a client, without the token, of a server that has one."""
    with TestClient(create_app([run], Settings(token="secret", origins=("https://shop.example",)))) as client:
        yield client


@pytest.mark.parametrize(
    "given_as", [None, "secret", "Bearer", "Bearer wrong", "Basic secret", "Bearer secret2", "Bearer \xff"]
)
def test_without_the_token_nothing_is_answered(closed: TestClient, given_as: str | None) -> None:
    headers = {} if given_as is None else {b"Authorization": given_as.encode("latin-1")}
    for method, path in [
        ("POST", "/recommend"),
        ("GET", "/model"),
        ("GET", "/metrics"),
        ("POST", "/reload"),
    ]:
        answer = closed.request(method, path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "expected the header 'Authorization: Bearer TOKEN'" in answer.json()["error"]


def test_with_the_token_everything_is_and_some_things_without(closed: TestClient) -> None:
    for scheme in ("Bearer", "bearer"):
        answer = closed.post("/recommend", json={"items": [1000]}, headers={"Authorization": f"{scheme} secret"})
        assert answer.status_code == 200
    assert [closed.get(path).status_code for path in ("/", "/health", "/ready", "/docs")] == [200] * 4
    schemes = closed.get("/openapi.json").json()["components"]["securitySchemes"]
    assert schemes["HTTPBearer"]["scheme"] == "bearer"  # so that /docs asks for it


def test_pages_from_elsewhere_may_ask_only_where_they_were_named(closed: TestClient, client: TestClient) -> None:
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    named = closed.options("/recommend", headers=asking | {"Origin": "https://shop.example"})
    assert named.headers["access-control-allow-origin"] == "https://shop.example"
    refused = closed.get("/model", headers={"Origin": "https://shop.example"})  # what was wrong must be readable there
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://shop.example")
    other = closed.options("/recommend", headers=asking | {"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
    assert "access-control-allow-origin" not in client.get("/model", headers={"Origin": "https://shop.example"}).headers


def test_what_goes_wrong_inside_stays_inside(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Recommender, requests: object) -> None:
        raise RuntimeError("the password is 1234")

    with TestClient(create_app([run]), raise_server_exceptions=False) as client:
        monkeypatch.setattr(Recommender, "answer", fail)
        answer = client.post("/recommend", json={"items": [1000]})
        assert (answer.status_code, answer.json()) == (
            500,
            {"error": "internal error; see the server log"},
        )
        monkeypatch.undo()
        assert client.post("/recommend", json={"items": [1000]}).status_code == 200
        assert 'recvae_requests_total{path="/recommend",status="500"} 1.0' in client.get("/metrics").text


def test_what_takes_too_long_is_given_up(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(create_app([run], Settings(seconds=0.05))) as client:
        answer_ = Recommender.answer
        monkeypatch.setattr(Recommender, "answer", lambda self, requests: (time.sleep(0.3), answer_(self, requests))[1])
        answer = client.post("/recommend", json={"items": [1000]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"error": "the request took too long; try again, or request less"}


# Runs that are not what they seem.


def sealed(folder: Path) -> Path:
    """Have the card of a run agree with its files, as someone who means harm would."""
    card = json.loads((folder / CARD).read_text())
    for name in card["files"]:
        path = folder / name
        card["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    (folder / CARD).write_text(json.dumps(card))
    return folder


class Explodes:
    """What would be noticed if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def _pickle(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(pickle.dumps(Explodes()))


def _wrong_shape(folder: Path) -> None:
    write_weights(folder / WEIGHTS, {"encoder.0.weight": np.ones((7, 3), np.float32)})


def _outside(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    card["files"] = {f"../{name}": content for name, content in card["files"].items()}
    (folder / CARD).write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_pickle, "is damaged"),
        (_wrong_shape, "weights.safetensors does not fit the hyperparameters"),
        (_outside, "recommender.json does not list weights.safetensors"),
    ],
)
def test_runs_that_are_not_what_they_seem_are_refused(
    run: Path, workplace: Path, change: Callable[[Path], None], said: str
) -> None:
    folder = Path(shutil.copytree(run, workplace / "run"))
    change(folder)
    if change is not _outside:
        sealed(folder)
    with pytest.raises(RecvaeError, match=said) as refused:
        create_app([folder])
    assert isinstance(refused.value, BundleError) and not Path("exploded").exists()
    assert check_files(run, json.loads((run / CARD).read_text()))[WEIGHTS].problem is None
