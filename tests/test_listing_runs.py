"""The list of runs: of every state and version, with what is damaged named, and nothing that ends the list."""

import fcntl
import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from recvae.errors import UsageError
from recvae.runs.listing import is_being_trained, listed_runs

Command = Callable[..., Any]

RUNS = Path("runs")
EARLIER = sorted((Path(__file__).parent / "earlier").iterdir())
QUICK = ("--model", "popularity")
CARD: dict[str, Any] = {
    **{name: {} for name in ("hyperparameters", "training", "dataset", "versions", "files")},
    "format": 1,
    "model": "als",
    "interrupted": False,
    "created": "2026-01-02T03:04:05+00:00",
    "metrics": {"validation": {"recall@20": 0.5, "ndcg@100": 0.25}},
}


def make(place: str, files: dict[str, Any]) -> Path:
    """Write a run as files by name: objects as JSON, texts as they are."""
    folder = RUNS / place
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def only(place: str, files: dict[str, Any]) -> Any:
    make(place, files)
    (found,) = listed_runs(RUNS)
    assert found.run == place and found.path == RUNS / place
    return found


def test_a_finished_run_has_its_model_time_figure_and_size(workplace: Path) -> None:
    found = only("films/als", {"recommender.json": CARD, "weights.safetensors": "x" * 1000})
    assert (found.state, found.model, found.metric, found.validation) == ("finished", "als", "ndcg@100", 0.25)
    assert found.made == "2026-01-02T03:04:05+00:00" and found.note == ""
    assert found.n_bytes == 1000 + len(json.dumps(CARD))


def test_exports_count_for_the_size(workplace: Path) -> None:
    folder = make("films/als", {"recommender.json": CARD})
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_text("x" * 500)
    assert listed_runs(RUNS)[0].n_bytes == 500 + len(json.dumps(CARD))


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({}, (None, None)),
        ({"validation": {}}, (None, None)),
        ({"validation": {"recall@20": 1, "ndcg@10": 0.5, "mrr@5": 0.1}}, ("ndcg@10", 0.5)),
        ({"validation": {"recall@20": 0.75}}, ("recall@20", 0.75)),
    ],
)
def test_another_metric_is_named_where_there_is_no_ndcg_at_100(
    metrics: dict[str, Any], expected: tuple[Any, Any], workplace: Path
) -> None:
    found = only("films/als", {"recommender.json": CARD | {"metrics": metrics}})
    assert (found.metric, found.validation) == expected


def test_interrupted_failed_and_refitted_runs_say_so(workplace: Path) -> None:
    make("films/a", {"recommender.json": CARD | {"interrupted": True, "training": {"failure": "memory ran out"}}})
    refit = {"run": "a", "on": "train+validation", "made": "then", "n_users": 5}
    make("films/b", {"recommender.json": CARD | {"training": {"refit": refit}, "metrics": {}}})
    found = {run.run: (run.state, run.note, run.validation) for run in listed_runs(RUNS)}
    assert found["films/a"] == ("interrupted", "memory ran out", 0.25)
    assert found["films/b"] == ("finished", "a trained again on train+validation", None)


def test_a_run_without_a_bundle_says_how_far_it_is(workplace: Path) -> None:
    log = "\n".join(json.dumps({"epoch": n, "ndcg": ndcg}) for n, ndcg in ((1, 0.1), (2, 0.4), (3, None), (4, 0.3)))
    found = only("films/vae", {"run.json": {"model": "multvae"}, "log.jsonl": log + '\n{"epoch": 5, "nd'})
    assert (found.state, found.model, found.validation, found.note) == ("unfinished", "multvae", 0.4, "4 epochs done")
    assert datetime.fromisoformat(found.made).timestamp() == pytest.approx(
        (RUNS / "films/vae/run.json").stat().st_mtime, abs=1
    )


def test_the_figure_of_an_unfinished_run_is_that_of_the_epoch_it_keeps_by_whatever_metric(workplace: Path) -> None:
    records = [{"epoch": n, "ndcg": ndcg, "best": n != 2} for n, ndcg in ((1, 0.1), (2, 0.4), (3, 0.3))]
    found = only("films/vae", {"run.json": {"model": "multvae"}, "log.jsonl": "\n".join(map(json.dumps, records))})
    assert (found.metric, found.validation) == ("ndcg@100", 0.3), "as `recvae runs` will say once it has finished"


@pytest.mark.parametrize("log", ["", "[]\nnull\n3\n{}\n", '{"epoch": 1, "ndcg": NaN}\n', "\xff\x00"])
def test_a_log_that_says_little_is_no_obstacle(log: str, workplace: Path) -> None:
    found = only("films/vae", {"run.json": {"model": "multvae"}, "log.jsonl": log})
    assert found.state == "unfinished" and found.validation is None
    json.dumps(found.to_json(), allow_nan=False)


def test_a_run_that_replaces_another_is_listed_until_it_is_whole(workplace: Path) -> None:
    make("films/als", {"recommender.json": CARD})
    make("films/.als.new", {"run.json": {"model": "als", "folder": "als"}})
    make("films/.tmp", {"recommender.json": CARD})  # a bundle that is being written
    found = {run.run: run.note for run in listed_runs(RUNS)}
    assert found == {"films/als": "", "films/.als.new": "no epoch done, to replace als"}


def test_a_run_that_another_process_trains_is_in_training(workplace: Path) -> None:
    folder = make("films/vae", {"run.json": {"model": "multvae"}, "run.lock": ""})
    assert listed_runs(RUNS)[0].state == "unfinished" and not is_being_trained(RUNS / "films")
    with (folder / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert listed_runs(RUNS)[0].state == "training"
    assert listed_runs(RUNS)[0].state == "unfinished"


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "half a card": ({"recommender.json": '{"format": 1, "mod'}, "recommender.json cannot be read"),
    "a list": ({"recommender.json": []}, "recommender.json cannot be read"),
    "a card without a model": ({"recommender.json": CARD | {"model": 7}}, "got model 7, expected a text"),
    "a newer card": ({"recommender.json": CARD | {"format": 99}}, "has bundle format 99, this version reads up to 1"),
    "an empty state": ({"run.json": ""}, "run.json cannot be read"),
    "a state without a model": ({"run.json": {"model": None}}, "run.json cannot be read"),
    "a deep state": ({"run.json": "[" * 100_000}, "run.json cannot be read"),
    "no card": ({"weights.safetensors": "x", "items.parquet": "x"}, "there is no recommender.json, so this is only a"),
    "a log alone": ({"log.jsonl": "{}"}, "there is no recommender.json"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_cannot_be_read_is_named_with_the_reason_and_the_others_are_listed(
    case: str, workplace: Path, command: Command
) -> None:
    files, reason = DAMAGED[case]
    make("films/bad", files)
    make("films/good", {"recommender.json": CARD})
    found = {run.run: run for run in listed_runs(RUNS)}
    assert found["films/bad"].state == "unreadable" and reason in found["films/bad"].note
    assert found["films/good"].state == "finished"
    said = command("runs")
    assert said.code == 0 and "Traceback" not in said.err
    assert "films/good" in said.out and any(
        line.startswith("films/bad: ") and reason in line for line in said.out.splitlines()
    )
    listed = {run["run"]: run for run in json.loads(command("runs", "--json").out)["runs"]}
    assert listed["films/bad"]["state"] == "unreadable" and listed["films/bad"]["model"] is None


def test_a_card_that_may_not_be_read_is_no_obstacle(workplace: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    folder = make("films/bad", {"recommender.json": CARD})
    (folder / "recommender.json").chmod(0)
    assert listed_runs(RUNS)[0].state == "unreadable"


@pytest.mark.parametrize("version", EARLIER, ids=lambda path: path.name)
def test_runs_of_earlier_versions_are_listed(version: Path, workplace: Path, command: Command) -> None:
    RUNS.mkdir()
    (RUNS / "toy").symlink_to(version / "runs")
    expected = {f"toy/{path.name}" for path in (version / "runs").iterdir()}
    found = listed_runs(RUNS)
    assert {run.run for run in found} == expected and {run.state for run in found} == {"finished"}
    assert all(run.validation is not None and run.metric == "ndcg@100" and run.n_bytes > 1000 for run in found)
    said = command("runs").out
    assert all(name in said for name in expected) and "…" not in said


def test_a_list_of_one_data_set(workplace: Path, command: Command) -> None:
    for place in ("films/als", "films/ease", "shop/als"):
        make(place, {"recommender.json": CARD})
    assert [run.run for run in listed_runs(RUNS, "films")] == ["films/als", "films/ease"]
    assert [run.run for run in listed_runs(RUNS, "data/shop")] == ["shop/als"]  # a path, as other verbs take it
    with pytest.raises(UsageError, match=r"^no run on 'musik' in runs; there are runs on: films, shop$"):
        listed_runs(RUNS, "musik")
    assert command("runs", "--data", "musik").code == 2
    assert "shop/als" not in command("runs", "--data", "films").out


def test_runs_are_in_the_order_they_were_made_in(workplace: Path) -> None:
    for day, name in ((3, "a"), (1, "b"), (2, "c")):
        make(f"films/{name}", {"recommender.json": CARD | {"created": f"2026-01-0{day}T00:00:00+00:00"}})
    assert [run.path.name for run in listed_runs(RUNS)] == ["b", "c", "a"]
    make("films/d", {"recommender.json": CARD | {"created": "today"}})  # of its file, where the card has no time
    assert listed_runs(RUNS)[-1].run == "films/d"


def test_the_command_lists_what_was_trained(toy: Path, command: Command) -> None:
    assert command("runs") == (0, "", "no run in runs\nnext: recvae train --model multvae\n")
    assert json.loads(command("runs", "--json").out) == {"folder": "runs", "runs": []}
    trained = json.loads(command("train", *QUICK, "--json").out)
    said = command("runs")
    assert said.code == 0 and said.err == "next: recvae inspect toy/popularity\n"
    figure = trained["metrics"]["validation"]["ndcg@100"]
    assert all(word in said.out for word in ("toy/popularity", f"{figure:.4f}", "finished", "validation ndcg@100"))
    (listed,) = json.loads(command("runs", "--json").out)["runs"]
    assert (listed["run"], listed["path"], listed["validation"]) == ("toy/popularity", "runs/toy/popularity", figure)
    assert command("inspect", listed["run"]).code == 0
    make("toy/vae", {"run.json": {"model": "multvae"}})
    assert "recvae train --resume" in command("runs").err
    assert "--runs-dir" in command("runs", "--runs-dir", "elsewhere").err
