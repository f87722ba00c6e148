"""A comparison written to a file: HTML and CSV read back have the numbers that `to_json` has."""

import csv
import html
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recvae.evaluation.comparison import Comparison
from recvae.evaluation.contenders import Contender
from recvae.evaluation.documents import COLUMNS, document
from recvae.models import ALS, IALS

Command = Callable[..., Any]
NASTY = "<script>alert('1')</script> & \"co\""


class Tables(HTMLParser):
    """The texts of the cells of every table, and the names of all elements that were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.tables[-1][-1][-1] += data


@pytest.fixture
def nasty() -> Comparison:
    def contender(name: str, values: list[float]) -> Contender:
        means = {"ndcg@10": [float(np.nanmean(values))], "coverage@5": [0.5]}
        return Contender(
            name=name,
            model="als",
            hyperparameters={},
            per_user={"ndcg@10": np.array(values)},
            overall={"coverage@5": 0.5},
            seeds=[0],
            seed_means=means,
            seconds=1.0,
            note=f"note of {name}",
        )

    return Comparison(
        manifest={"name": NASTY, "protocol": {"split": NASTY}, "fingerprint": NASTY},
        split="test",
        user_ids=np.arange(4),
        n_users=4,
        metrics=["ndcg@10", "coverage@5"],
        contenders=[contender(NASTY, [0.1, 0.2, 0.4, 0.1]), contender("base", [0.3, 0.2, 0.5, 0.2])],
        baseline="base",
        choice=NASTY,
    )


def test_the_page_is_whole_escaped_and_asks_nothing_of_a_network(nasty: Comparison) -> None:
    page = nasty.to_html()
    read = Tables(page)
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")
    assert "script" not in read.tags and html.escape(NASTY) in page
    assert not re.search(r"(src|href)=|url\(|@import|http://|https://", page)
    assert {read.tables[0][row][0] for row in (1, 2)} == {NASTY, "base"}
    assert "<title>&lt;b&gt;</title>" in document("<b>", "")


def test_the_numbers_of_the_page_are_those_of_the_comparison(nasty: Comparison) -> None:
    metrics, cost = Tables(nasty.to_html()).tables
    for row, run in zip(metrics[1:], nasty.to_json()["runs"], strict=True):
        summary = run["metrics"]["ndcg@10"]
        assert row[1] == f"{summary['mean']:.4f} ± {summary['mean'] - summary['low']:.4f}"
        assert row[2] == "0.5000"
    test = nasty.to_json()["runs"][1]["difference"]["metrics"]["ndcg@10"]
    assert cost[2][1] == f"{test['mean']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]"


def test_rows_of_csv_have_every_digit(nasty: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(nasty.to_csv())))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["run"], row["metric"]) for row in rows] == [
        *(("base", "ndcg@10"), ("base", "coverage@5")),
        *((NASTY, "ndcg@10"), (NASTY, "coverage@5")),
    ]
    first, overall, other, _ = rows
    runs = nasty.to_json()["runs"]
    for name, value in runs[0]["metrics"]["ndcg@10"].items():
        assert float(first[name]) == value
    assert (overall["mean"], overall["low"], overall["p"]) == ("0.5", "", "")
    assert (first["difference_to"], first["difference"], first["is_baseline"]) == ("", "", "false")
    test = runs[1]["difference"]["metrics"]["ndcg@10"]
    found = (other["difference"], other["difference_low"], other["difference_high"], other["p"], other["p_holm"])
    assert tuple(map(float, found)) == tuple(test[name] for name in ("mean", "low", "high", "p", "p_holm"))
    assert (other["difference_to"], other["significant"]) == ("base", str(test["significant"]).lower())


@pytest.fixture
def runs(toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ALS, "grid", {"factors": (4,)})
    monkeypatch.setattr(IALS, "grid", {"factors": (4,)})
    for model in ("ease", "popularity"):
        assert command("train", "--model", model).code == 0


@pytest.mark.parametrize("verb", ["compare", "evaluate"])
def test_the_command_writes_what_json_has(verb: str, runs: None, command: Command) -> None:
    words = (verb, "ease", "--baselines", "popularity", "--metrics", "recall@5,ndcg@10")
    known = json.loads(command(*words, "--json").out)
    for name in ("x.html", "x.csv"):
        said = command(*words, "--output", name)
        assert said.code == 0 and f"comparison: {name}" in said.err
        assert Path(name).read_text() == command(*words, "--format", name[2:]).out
    rows = {(row["run"], row["metric"]): row for row in csv.DictReader(Path("x.csv").read_text().splitlines())}
    for run in known["runs"]:
        for metric, summary in run["metrics"].items():
            assert float(rows[run["name"], metric]["mean"]) == summary["mean"]
    table = Tables(Path("x.html").read_text()).tables[0]
    assert [row[0] for row in table[1:]] == [run["name"] for run in known["runs"]]


def test_a_file_that_could_not_be_written_is_refused_before_anything_is_measured(runs: None, command: Command) -> None:
    Path("file").write_text("")
    for words in (["--output", "file/x.html"], ["--per-user", "file/x.parquet"]):
        said = command("compare", "ease", *words)
        assert said.code == 1 and f"error: could not write {words[1]}: a file stands where a folder" in said.err
        assert "comparing" not in said.err
