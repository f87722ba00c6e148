"""What the server promises: the library's answers over HTTP, together as alone, and new versions without a pause."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, TrainingError, UsageError
from recvae.exports.writing import export
from recvae.models import Model
from recvae.recommenders.answers import Recommendations, Request
from recvae.recommenders.recommender import Recommender
from recvae.serving.app import create_app
from recvae.serving.batching import Batcher, OverloadedError
from recvae.serving.settings import Settings
from recvae.serving.store import ModelStore, names_of
from recvae.serving.telemetry import Telemetry

HISTORY = [1000, 990, 980]
TOKEN = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def runs(
    fitted: Callable[[str], Model], blocks: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., list[Path]]:
    """Return a function from names of models to folders of their runs."""
    folder = tmp_path_factory.mktemp("runs")

    def make(*names: str) -> list[Path]:
        for name in names:
            if not (folder / name).exists():
                Recommender(fitted(name), blocks).save(folder / name)
        return [folder / name for name in names]

    return make


@pytest.fixture(scope="module")
def client(runs: Callable[..., list[Path]]) -> Iterator[TestClient]:
    """Return a client of a server of three models."""
    with TestClient(create_app(runs("multvae", "ease", "popularity"))) as client:
        yield client


@pytest.fixture(scope="module")
def ease(fitted: Callable[[str], Model], blocks: Dataset) -> Recommender:
    return Recommender(fitted("ease"), blocks)


def test_it_answers_what_the_library_answers(client: TestClient, ease: Recommender) -> None:
    wishes: dict[str, Any] = {"k": 4, "exclude": [970], "allow": list(range(900, 1001, 10)), "filter_seen": True}
    answer = client.post("/recommend", json={"items": [*HISTORY, 5], "model": "ease", **wishes}).json()
    found = ease.recommend([*HISTORY, 5], **wishes)
    assert [item["id"] for item in answer["items"]] == found.ids
    assert [item["title"] for item in answer["items"]] == found.titles
    assert [item["score"] for item in answer["items"]] == pytest.approx(found.scores, rel=1e-5)
    assert (answer["unknown"], answer["fallback"], answer["model"]) == ([5], False, "ease")


def test_many_histories_are_answered_in_their_order(client: TestClient, ease: Recommender) -> None:
    histories = [HISTORY, [], {"700": 2.5, "690": 0.5}, ["920"]]
    answer = client.post("/recommend", json={"histories": histories, "k": 3, "model": "ease"}).json()
    for result, history in zip(answer["results"], histories, strict=True):
        assert [item["id"] for item in result["items"]] == ease.recommend(history, 3).ids  # type: ignore[arg-type]
    assert [result["fallback"] for result in answer["results"]] == [False, True, False, False]


def test_reasons_are_those_of_the_library(client: TestClient, ease: Recommender) -> None:
    answer = client.post("/recommend", json={"items": HISTORY, "k": 2, "explain": True, "model": "ease"}).json()
    for item, explained in zip(answer["items"], ease.explain(HISTORY, [i["id"] for i in answer["items"]]), strict=True):
        assert [reason["id"] for reason in item["reasons"]] == [key for key, _, _ in explained.reasons]
        assert sum(reason["contribution"] for reason in item["reasons"]) == pytest.approx(item["score"], rel=1e-4)


def test_with_reasons_comes_what_is_known_of_the_history(client: TestClient) -> None:
    answer = client.post("/recommend", json={"items": [990, "none", 1000], "k": 1, "explain": True}).json()
    assert answer["history"] == [{"id": 990, "title": "Title 1"}, {"id": 1000, "title": None}]
    assert "history" not in client.post("/recommend", json={"items": [990]}).json()


def test_where_nothing_is_known_the_popular_come_without_reasons(client: TestClient) -> None:
    answer = client.post("/recommend", json={"items": ["?"], "k": 2, "explain": True}).json()
    assert answer["fallback"] and answer["unknown"] == ["?"]
    assert all("reasons" not in item for item in answer["items"])


def test_variety_and_seen_items_are_a_wish_of_each_request(client: TestClient, ease: Recommender) -> None:
    wishes: dict[str, Any] = {"k": 5, "filter_seen": False, "diversify": 0.5}
    answer = client.post("/recommend", json={"items": HISTORY, "model": "ease", **wishes}).json()
    assert [item["id"] for item in answer["items"]] == ease.recommend(HISTORY, **wishes).ids


def test_similar_items_and_titles_are_found(client: TestClient, ease: Recommender) -> None:
    similar = client.get("/similar/990?k=3&model=ease").json()
    assert [item["id"] for item in similar["items"]] == ease.similar_items(990, 3).ids
    assert client.get("/items", params={"query": "title 7"}).json()["items"][0] == {
        "id": 930, "title": "Title 7", "users": int(ease.items.train_counts[7])
    }  # fmt: skip
    assert client.get("/items", params={"query": "nothing like it"}).json() == {"items": []}


def test_it_says_what_is_served(client: TestClient) -> None:
    served = client.get("/model").json()
    assert [model["name"] for model in served["models"]] == ["multvae", "ease", "popularity"]
    assert served["models"][0]["data"] == "blocks" and served["models"][0]["n_items"] == 32
    assert len({model["version"] for model in served["models"]}) == 3
    assert served["limits"]["k"] == Settings().k


def test_a_model_is_found_by_more_of_its_path_too(runs: Callable[..., list[Path]], client: TestClient) -> None:
    parent = runs("ease")[0].parent.name
    answer = client.post("/recommend", json={"items": HISTORY, "model": f"{parent}/ease"})
    assert (answer.status_code, answer.json()["model"]) == (200, "ease")
    assert client.get("/similar/990?model=se").status_code == 404


def test_it_says_which_models_can_diversify(client: TestClient) -> None:
    assert [model["diversifies"] for model in client.get("/model").json()["models"]] == [True, True, False]


def test_it_is_alive_ready_and_counted(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "alive"}
    assert client.get("/ready").json() == {"status": "ready"}
    assert client.head("/health").status_code == client.head("/ready").status_code == 200
    before = client.get("/metrics").text
    client.get("/similar/990")
    client.get("/made/up/by/someone")
    after = client.get("/metrics").text
    name = 'recvae_requests_total{path="/similar/{item:path}",status="200"}'
    count = {text: float(line.split()[-1]) for text in (before, after) for line in text.splitlines() if name in line}
    assert count[after] == count.get(before, 0) + 1
    assert 'path="other",status="404"' in after and "made" not in after


def test_the_interface_and_the_page_are_there(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/recommend", "/similar/{item}", "/items", "/health", "/ready", "/metrics", "/model"} <= set(paths)
    assert client.get("/docs").status_code == 200
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")


def test_before_and_after_it_is_not_ready(runs: Callable[..., list[Path]]) -> None:
    client = TestClient(create_app(runs("ease")))  # not entered: its life has not begun
    answer = client.get("/ready")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert client.get("/health").status_code == 200


# Batches.


class Slow(Recommender):
    """A recommender that waits to be let go, and notes how many users it answers together."""

    def __init__(self, model: Model, dataset: Dataset) -> None:
        super().__init__(model, dataset)
        self.go, self.together = threading.Event(), list[int]()

    def answer(self, requests: Sequence[Request]) -> list[Recommendations]:
        self.together.append(len(requests))
        assert self.go.wait(10)
        return super().answer(requests)


async def batched(slow: Slow, n: int, **settings: Any) -> list[Any]:
    """Ask n times at once, one user each, and let the recommender go."""
    batcher = Batcher(**{"window": 0.01, "most": 8, "capacity": 100, "observer": Telemetry()} | settings)
    batcher.start()
    asked = [asyncio.create_task(batcher.answer(slow, [Request(items=HISTORY, k=1 + i % 3)])) for i in range(n)]
    await asyncio.sleep(0.05)
    slow.go.set()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    await batcher.stop()
    return outcomes


@pytest.fixture
def slow(fitted: Callable[[str], Model], blocks: Dataset) -> Slow:
    return Slow(fitted("ease"), blocks)


def test_what_arrives_together_is_scored_together_and_answered_alike(slow: Slow, ease: Recommender) -> None:
    outcomes = asyncio.run(batched(slow, 20))
    assert slow.together == [8, 8, 4]
    for number, found in enumerate(outcomes):
        assert found[0].ids == ease.recommend(HISTORY, 1 + number % 3).ids


def test_a_lone_request_waits_no_longer_than_the_window(slow: Slow) -> None:
    assert len(asyncio.run(batched(slow, 1))) == 1
    assert slow.together == [1]


def test_beyond_capacity_it_is_refused_and_the_others_are_answered(slow: Slow) -> None:
    outcomes = asyncio.run(batched(slow, 20, capacity=5, window=0.02))
    assert sum(isinstance(outcome, OverloadedError) for outcome in outcomes) == 15
    assert sum(isinstance(outcome, list) for outcome in outcomes) == 5


def test_who_cannot_be_answered_does_not_harm_the_others(client: TestClient) -> None:
    # Popularity knows no similarity, so that variety cannot be had of it.
    bodies = [{"items": HISTORY, "model": "popularity", "diversify": 0.5 * (n % 2)} for n in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda body: client.post("/recommend", json=body), bodies))
    assert [answer.status_code for answer in answers] == [200, 422] * 6
    assert "similarit" in answers[1].json()["error"]


def test_a_culprit_costs_few_batches_and_an_accident_not_the_next_one(slow: Slow, ease: Recommender) -> None:
    class Accidents(Telemetry):
        def observe_batch(self, n_users: int) -> None:
            raise RuntimeError(f"an accident with {n_users} users")

    slow.go.set()

    async def asked(observer: Telemetry, wrong: int | None) -> list[Any]:
        batcher = Batcher(0.01, 64, 100, observer)
        batcher.start()
        requests = [Request(items=HISTORY, k=0 if n == wrong else 3) for n in range(64)]
        outcomes = await asyncio.gather(*(batcher.answer(slow, [r]) for r in requests), return_exceptions=True)
        assert batcher.is_alive
        await batcher.stop()
        return outcomes

    outcomes = asyncio.run(asked(Telemetry(), 5))
    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, UsageError)] == [5]
    assert outcomes[6][0].ids == ease.recommend(HISTORY, 3).ids and len(slow.together) <= 2 * 6 + 1
    assert all(isinstance(outcome, RuntimeError) for outcome in asyncio.run(asked(Accidents(), None)))


def test_models_are_not_mixed_in_a_batch(client: TestClient) -> None:
    with ThreadPoolExecutor(12) as pool:
        names = ["ease", "multvae", "popularity"] * 8
        answers = list(pool.map(lambda name: client.post("/recommend", json={"items": HISTORY, "model": name}), names))
    by_name = {name: client.post("/recommend", json={"items": HISTORY, "model": name}).json() for name in set(names)}
    for name, answer in zip(names, answers, strict=True):
        assert [item["id"] for item in answer.json()["items"]] == [item["id"] for item in by_name[name]["items"]]


# New versions.


@pytest.fixture
def own_run(runs: Callable[..., list[Path]], tmp_path: Path) -> Path:
    """Return a run that a test may replace."""
    return Path(shutil.copytree(runs("ease")[0], tmp_path / "run"))


@pytest.fixture
def own_client(own_run: Path) -> Iterator[TestClient]:
    with TestClient(create_app([own_run], Settings(token="secret")), headers=TOKEN) as client:
        yield client


def test_a_new_version_is_taken_up(own_client: TestClient, own_run: Path, runs: Callable[..., list[Path]]) -> None:
    before = own_client.get("/model").json()["models"][0]
    shutil.rmtree(own_run)
    shutil.copytree(runs("multvae")[0], own_run)
    assert own_client.get("/model").json()["models"][0] == before
    served = own_client.post("/reload").json()["models"][0]
    assert (served["model"], served["name"]) == ("multvae", "run") and served["version"] != before["version"]
    assert own_client.post("/recommend", json={"items": HISTORY}).json()["version"] == served["version"]
    assert 'recvae_reloads_total{result="done"} 1.0' in own_client.get("/metrics").text


@pytest.mark.parametrize("damage", ["flipped byte", "cut off", "no weights", "no folder", "newer format"])
def test_a_broken_version_is_refused_and_the_old_one_stays(own_client: TestClient, own_run: Path, damage: str) -> None:
    before = own_client.post("/recommend", json={"items": HISTORY}).json()
    weights = own_run / "weights.safetensors"
    if damage == "flipped byte":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)  # in place, as `cp` does it
    elif damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no folder":
        shutil.rmtree(own_run)
    else:
        card = own_run / "recommender.json"
        card.write_text(card.read_text().replace('"format": 1', '"format": 99'))
    answer = own_client.post("/reload")
    assert answer.status_code == 409
    said = {
        "flipped byte": "damaged",
        "cut off": "should have",
        "no weights": "no file",
        "no folder": "no bundle",
        "newer format": "upgrade",
    }
    assert said[damage] in answer.json()["error"]
    assert own_client.post("/recommend", json={"items": HISTORY}).json() == before
    assert 'recvae_reloads_total{result="refused"} 1.0' in own_client.get("/metrics").text


def test_while_a_version_is_taken_up_every_request_is_answered(own_client: TestClient) -> None:
    def ask(number: int) -> int:
        if number % 10 == 5:
            return own_client.post("/reload").status_code
        return own_client.post("/recommend", json={"items": HISTORY, "k": 3}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(80))) == {200}


def test_a_run_that_cannot_be_read_at_all_is_refused_like_a_broken_one(
    own_client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(Recommender, "load", fail)
    answer = own_client.post("/reload")
    assert (answer.status_code, answer.json()["error"]) == (
        409,
        "the runs could not be read; see the server log",
    )
    assert own_client.post("/recommend", json={"items": HISTORY}).status_code == 200


def test_without_a_token_no_one_reloads(client: TestClient) -> None:
    answer = client.post("/reload")
    assert answer.status_code == 403
    assert answer.json()["error"] == "reload is disabled: start the server with --token"


# Exports.


@pytest.fixture(scope="module")
def exported(runs: Callable[..., list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with both its exports; copy it before changing anything."""
    folder = Path(shutil.copytree(runs("multvae")[0], tmp_path_factory.mktemp("exported") / "multvae"))
    for quantize in (None, "int8"):
        export(folder, format="onnx", quantize=quantize)
    return folder


@pytest.mark.parametrize("format_", ["onnx", "onnx-int8"])
def test_an_export_is_served_like_its_run(exported: Path, format_: str) -> None:
    body = {"items": [*HISTORY, 5], "k": 4, "explain": True, "exclude": [970]}
    with TestClient(create_app([exported])) as ours, TestClient(create_app([exported], Settings(format=format_))) as it:
        expected, answer = (client.post("/recommend", json=body).json() for client in (ours, it))
        assert it.get("/model").json()["models"][0]["format"] == format_
        similar = [client.get("/similar/990?k=3").json()["items"] for client in (ours, it)]
    rounded = 0.02 if "int8" in format_ else 1e-4  # of scores that are a few units apart
    assert {item["id"] for item in answer["items"]} == {item["id"] for item in expected["items"]}
    assert [i["score"] for i in answer["items"]] == pytest.approx([i["score"] for i in expected["items"]], rel=rounded)
    assert all(len(item["reasons"]) == 3 for item in answer["items"]) and answer["unknown"] == [5]
    assert [item["id"] for item in similar[0]] == [item["id"] for item in similar[1]]


def test_an_export_that_is_missing_or_older_than_its_run_is_not_served(
    exported: Path, runs: Callable[..., list[Path]], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"expected an exported model; make it with `recvae export"):
        create_app(runs("ease"), Settings(format="onnx"))
    folder = Path(shutil.copytree(exported, tmp_path / "run"))
    Recommender.load(runs("ease")[0]).save(tmp_path / "newer")
    shutil.copy(tmp_path / "newer" / "recommender.json", folder)
    with pytest.raises(UsageError, match=r"was retrained after this export; export it again with `recvae export"):
        create_app([folder], Settings(format="onnx-int8"))


def test_a_link_keeps_its_name_wherever_it_leads(runs: Callable[..., list[Path]], tmp_path: Path) -> None:
    old, new = (shutil.copytree(runs(model)[0], tmp_path / name) for model, name in (("ease", "v3"), ("multvae", "v4")))
    link = tmp_path / "current"
    link.symlink_to(old)
    store = ModelStore([link], Settings())
    link.unlink()
    link.symlink_to(new)
    assert not store.is_current()
    store.reload()
    (served,) = store.models()
    assert (served.name, served.recommender.model_name) == ("current", "multvae")
    for name in ("current", f"{tmp_path.name}/current", "v4"):
        assert store.find(name) is served
    assert store.find("v3") is None
    with pytest.raises(UsageError, match="twice, expected each run once"):
        ModelStore([link, new], Settings())


@pytest.mark.parametrize("format_", ["onnx", "onnx-int8"])
def test_a_run_without_an_export_of_it_is_no_version_that_is_served(
    format_: str, exported: Path, runs: Callable[..., list[Path]], tmp_path: Path
) -> None:
    """After a signal too, which takes up new versions only."""
    folder = Path(shutil.copytree(exported, tmp_path / "run"))
    store = ModelStore([folder], Settings(format=format_))
    assert store.is_current()
    Recommender.load(runs("ease")[0]).save(tmp_path / "newer")
    shutil.copy(tmp_path / "newer" / "recommender.json", folder)
    assert not store.is_current()
    with pytest.raises(UsageError, match="was retrained after this export; export it again"):
        store.reload()


# What cannot be served.


def test_what_cannot_be_served_is_refused_before_the_start(runs: Callable[..., list[Path]], tmp_path: Path) -> None:
    run = runs("ease")[0]
    with pytest.raises(UsageError, match="got no run to serve, expected at least one"):
        create_app([])
    with pytest.raises(UsageError, match=r"got .*ease twice, expected each run once"):
        create_app([run, run])
    with pytest.raises(UsageError, match=r"no bundle at .*; expected the folder of a run"):
        create_app([tmp_path / "none"])
    broken = Path(shutil.copytree(run, tmp_path / "broken"))
    (broken / "items.parquet").write_bytes(b"")
    with pytest.raises(BundleError, match=r"items\.parquet should have"):
        create_app([run, broken])


def test_a_model_whose_scores_are_no_numbers_is_not_served(
    runs: Callable[..., list[Path]], blocks: Dataset, tmp_path: Path
) -> None:
    bad = Recommender.load(runs("ease")[0]).model
    bad.load_weights({name: weight * float("nan") for name, weight in bad.weights().items()})
    Recommender(bad, blocks).save(tmp_path / "bad")
    with pytest.raises(TrainingError, match="scores that are not numbers"):
        create_app([tmp_path / "bad"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"format": "tflite"}, "got format 'tflite', expected one of torch, onnx, onnx-int8"),
        ({"token": ""}, "got a token that is empty, has spaces or is not ASCII"),
        ({"token": "abc "}, "got a token that is empty, has spaces or is not ASCII"),
        ({"token": "schlüssel"}, "got a token that is empty, has spaces or is not ASCII"),
        ({"origins": ("shop.example",)}, "got origin 'shop.example', expected an origin, e.g. https://shop.example"),
        ({"workers": 0}, "got workers=0, expected 1 or more"),
        ({"threads": 0}, "got threads=0, expected 1 or more"),
        ({"k": 0}, r"got k=0, expected a number, 1 or more \(items recommended to a user\)"),
        ({"seconds": float("nan")}, r"got seconds=nan, expected a number, 0\.01 or more"),
        ({"window_ms": float("inf")}, r"got window_ms=inf, expected a number, 0 or more"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Settings(**settings)


def test_runs_are_named_by_as_much_as_tells_them_apart() -> None:
    assert names_of([Path("runs/ml-1m/ease")]) == ["ease"]
    assert names_of([Path("a/ml-1m/ease"), Path("a/ml-20m/ease"), Path("a/ml-1m/als")]) == [
        "ml-1m/ease", "ml-20m/ease", "als"
    ]  # fmt: skip
