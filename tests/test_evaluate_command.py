"""`recvae evaluate` and `recvae compare` are one: the same options, forms and numbers; metrics of one's own."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recvae.bundles.bundle import read_bundle
from recvae.evaluation.evaluate import DEFAULT_METRICS
from recvae.metrics import NAMES
from recvae.models import ALS, IALS
from recvae_cli import comparison

Command = Callable[..., Any]
METRICS = ("--metrics", "recall@5,ndcg@10")


@pytest.fixture(autouse=True)
def _small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ALS, "grid", {"factors": (4, 8), "regularization": (1.0,)})
    monkeypatch.setattr(IALS, "grid", {"factors": (4, 8), "regularization": (0.05,)})


@pytest.fixture
def runs(toy: Path, command: Command) -> Path:
    """Return the folder of two finished runs, ease and popularity; the latter is the newest."""
    for words in (("ease", "--set", "l2=20"), ("popularity",)):
        assert command("train", "--model", *words).code == 0
    return Path("runs/toy")


def numbers(report: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics and differences of a report by run."""
    return {run["name"]: (run["metrics"], run.get("difference")) for run in report["runs"]}


def test_what_help_says_of_metrics_is_what_there_is() -> None:
    assert comparison.METRIC_NAMES.split(", ") == list(NAMES)
    assert comparison.DEFAULT_METRICS == DEFAULT_METRICS


def test_evaluate_is_compare_with_the_default_baselines(runs: Path, command: Command) -> None:
    evaluated = json.loads(command("evaluate", "ease", *METRICS, "--json").out)
    compared = json.loads(command("compare", "ease", "--baselines", "als,ials,popularity", *METRICS, "--json").out)
    assert evaluated == compared and set(numbers(evaluated)) == {"ease", "als", "ials", "popularity"}
    for run in evaluated["runs"]:
        difference = run.get("difference", {"to": evaluated["baseline"], "metrics": {}})
        assert difference["to"] == evaluated["baseline"]
        assert all(test["p_holm"] >= test["p"] for test in difference["metrics"].values())
    assert {run["name"]: run["baseline"] for run in evaluated["runs"]} == {
        "ease": False,
        "als": True,
        "ials": True,
        "popularity": True,
    }
    reached = {
        name: read_bundle(Path("data/toy/baselines", name)).metrics["validation"]["ndcg@100"]
        for name in ("als", "ials", "popularity")
    }
    assert evaluated["baseline"] == max(reached, key=reached.__getitem__)
    said = command("evaluate", "ease", *METRICS).out
    choice = "highest validation ndcg@100: " + ", ".join(f"{name} {value:.4f}" for name, value in reached.items())
    assert f"baseline: {evaluated['baseline']} ({choice})" in said


def test_the_baseline_may_be_a_run_or_another_model(runs: Path, command: Command) -> None:
    found = json.loads(command("evaluate", "--to", "ease", "ease", "popularity", *METRICS, "--json").out)
    assert found["baseline"] == "ease"
    assert set(numbers(found)) == {"ease", "popularity", "als", "ials", "popularity (baseline)"}
    said = command("evaluate", "--to", "popularity", "ease", "popularity", *METRICS)
    assert said.code == 0 and "fitted and tuned as the baseline" not in said.err, "differences are to the run"
    said = command("evaluate", "--to", "popularity", "ease", *METRICS)
    assert "popularity is fitted and tuned as the baseline; to use the run runs/toy/popularity, name it" in said.err
    found = json.loads(
        command("evaluate", "ease", "--baselines", "popularity", "--to", "edlae", *METRICS, "--json").out
    )
    assert found["baseline"] == "edlae" and set(numbers(found)) == {"ease", "popularity", "edlae"}
    assert "baseline: ease (named with --to)" in command("compare", "--to", "ease", *METRICS).out
    several = command("compare", "ease", "popularity", "--baselines", "none", *METRICS)
    assert several.code == 0 and "difference" not in several.out and "baseline" not in several.out
    refused = command("evaluate", "--to", "nobody")
    assert refused.code == 2 and "got --to nobody, expected one of the runs compared (popularity)" in refused.err


def test_both_write_and_print_every_form(runs: Path, command: Command) -> None:
    for verb in ("evaluate", "compare"):
        words = (verb, "ease", "--baselines", "popularity", *METRICS)
        printed = json.loads(command(*words, "--json").out)
        for name, start in (
            ("a.md", "**toy: 18 test users"),
            ("a.tex", "% needs"),
            ("a.json", "{"),
            ("a.txt", "toy: "),
        ):
            said = command(*words, "--output", f"{verb}/{name}")
            assert (said.code, said.out) == (0, "") and f"comparison: {verb}/{name}" in said.err
            assert Path(verb, name).read_text().startswith(start)
        assert json.loads(Path(verb, "a.json").read_text()) == printed
        both = command(*words, "--output", f"{verb}/b.md", "--json", "--per-user", f"{verb}/users.parquet")
        assert json.loads(both.out) == printed
        assert Path(verb, "b.md").read_text() == Path(verb, "a.md").read_text()
        assert set(pq.read_table(f"{verb}/users.parquet")["run"].to_pylist()) == {"ease", "popularity"}
        assert command(*words, "--format", "markdown").out == Path(verb, "a.md").read_text()


def test_evaluate_repeats_runs_with_other_seeds(toy: Path, command: Command) -> None:
    command("train", "--model", "als", "--set", "factors=4", "--seed", 3)
    found = json.loads(command("evaluate", "--baselines", "popularity", "--seeds", 2, *METRICS, "--json").out)
    als = next(run for run in found["runs"] if run["name"] == "als")
    assert als["seeds"] == [3, 4] and len(als["over_seeds"]["ndcg@10"]["means"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--json", "report.json"],
            "got --json report.json, but --json takes no file, it prints to the standard output",
        ),
        (["--json", "report.json"], "to write a file, use --output report.json"),
        (["--json", "-"], "got --json -, but --json takes no file, it prints to the standard output; leave out the -"),
        (
            ["--output", "report.pdf"],
            "got --output report.pdf, expected a name ending in .txt, .md, .tex, .html, .csv, .json; or say",
        ),
        (["--output", "report"], "got --output report, expected a name ending in"),
        (["--json", "--format", "latex"], "got --json with --format latex; leave one out"),
        (["--format", "pdf"], "got --format pdf, expected one of: table, markdown, latex, html, csv, json"),
        (["--per-user", "users.csv"], "got --per-user users.csv, expected a name ending in .parquet"),
        (["--baselines", "svd"], "got model 'svd', expected one of"),
        (["--seeds", "0"], "got 0 seeds, expected 1 or more"),
        (["--split", "train"], "got split 'train', expected one of"),
        (["--metrics", "no_module:metric@10"], "there is no module no_module; expected no_module.py in"),
        (["--metrics", "own:nothing@10"], "but own has no 'nothing'; it has: "),
        (["--metrics", "own:number@10"], "got a int for the metric number@10, expected a function"),
        (["--metrics", "own:constant"], "got metric 'own:constant', expected a whole number after the @"),
        (["--metrics", "broken:constant@10"], "but importing broken failed with SyntaxError"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("verb", ["evaluate", "compare"])
def test_what_is_wrong_is_said_before_anything_is_measured(
    verb: str, words: list[str], said: str, toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_own_metrics()
    command("train", "--model", "popularity")
    before = sorted(str(path) for path in Path().rglob("*") if "__pycache__" not in str(path))
    found = command(verb, *words)
    assert (found.code, found.out) == (2, "") and said in found.err, found.err
    assert found.err.count("error: ") == 1 and "Traceback" not in found.err and "ing runs/" not in found.err
    assert sorted(str(path) for path in Path().rglob("*") if "__pycache__" not in str(path)) == before
    sys.modules.pop("own", None)


def write_own_metrics() -> None:
    Path("own.py").write_text(
        "number = 3\n"
        "def constant(ranked, targets, k):\n    return [0.25] * len(ranked)\n"
        "def hits(ranked, targets, k):\n"
        "    return [float(targets[user, items].sum()) / k for user, items in enumerate(ranked)]\n"
        "def one_number(ranked, targets, k):\n    return 0.5\n"
        "def failing(ranked, targets, k):\n    return ranked['title']\n"
    )
    Path("broken.py").write_text("def constant(:\n")


def test_a_metric_of_your_own_is_a_column_like_any_other(
    runs: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_own_metrics()
    words = ("evaluate", "ease", "--baselines", "popularity", "--metrics", "own:hits@10,precision@10,own:constant@3")
    found = json.loads(command(*words, "--json", "--per-user", "users.parquet").out)
    for metrics, difference in numbers(found).values():
        assert metrics["hits@10"] == pytest.approx(metrics["precision@10"])
        assert metrics["constant@3"]["mean"] == 0.25
        if difference:
            assert difference["metrics"]["hits@10"]["p"] == pytest.approx(difference["metrics"]["precision@10"]["p"])
    assert {"hits@10", "constant@3"} <= set(pq.read_table("users.parquet").column_names)
    assert "hits@10" in command(*words).out
    for metric, said in (
        ("one_number", "got values of shape () from the metric one_number@5, expected (18,), one float per user"),
        ("failing", "the metric failing@5 failed with IndexError"),
    ):
        failed = command("evaluate", "ease", "--metrics", f"own:{metric}@5")
        assert (failed.code, failed.out) == (2, "") and said in failed.err and "Traceback" not in failed.err
    sys.modules.pop("own", None)
