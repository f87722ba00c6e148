"""`recvae plot` and `recvae report` as a user types them, and what the page says, read back from the file."""

import html
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from playwright.sync_api import Browser, sync_playwright

from recvae.bundles.bundle import Bundle, read_bundle
from recvae.datasets.dataset import Dataset
from recvae.datasets.splits.protocols import PROTOCOLS
from recvae.errors import DataError, MemoryLimitError, UsageError
from recvae.evaluation.comparison import compare
from recvae.interactions import HeldOut
from recvae.metrics import METRICS as KNOWN
from recvae.metrics import Background, measure
from recvae.metrics.metric import HIGHER
from recvae.models import ALS, EASE, IALS, MODELS, MultVAE, Popularity
from recvae.plots import training_curves
from recvae.recommenders.recommender import Recommender
from recvae.reports.again import again, preprocess_command, train_command
from recvae.reports.examples import chosen_users
from recvae.reports.markup import picture_of
from recvae.reports.measuring import Measured, rank_users
from recvae.reports.page import Report, in_short, report_page
from recvae.reports.pictures import NAMES, draw, parse_names
from recvae.reports.words import metric_words, protocol_words
from recvae.training.records import TrainingSummary
from recvae.training.refits import Refit
from recvae_cli.plot import PICTURE_NAMES

Command = Callable[..., Any]
METRICS = ("--metrics", "recall@5,ndcg@10")
SMALL = ("--set", "hidden_dims=16", "--set", "latent_dim=8", "--set", "epochs=3", "--set", "batch_size=50")
NASTY = "--><script>document.title='taken'</script><b>&\"'</b>"


class Page(HTMLParser):
    """What a page holds: its elements, its ids and links, the texts of its tables and of its pictures."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        known = dict(attrs)
        self.ids += [str(known["id"])] if "id" in known else []
        self.links += [str(known[name]) for name in ("href", "xlink:href", "src") if name in known]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data


@pytest.fixture(autouse=True)
def _small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ALS, "grid", {"factors": (4,), "regularization": (1.0,)})
    monkeypatch.setattr(IALS, "grid", {"factors": (4,), "regularization": (0.05,)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, toy_data: Path, command: Command) -> Path:
    """Return a folder with the data set toy and runs of multvae, multdae, ease and popularity; do not change it."""
    place = tmp_path_factory.mktemp("reports")
    shutil.copytree(toy_data, place / "data" / "toy")
    places = ("--data-dir", place / "data", "--runs-dir", place / "runs")
    multdae = ("multdae", "--set", "latent_dim=8", "--set", "epochs=2", "--set", "batch_size=50")
    for words in (("multvae", *SMALL), multdae, ("ease", "--set", "l2=20"), ("popularity",)):
        said = command("train", "--model", *words, *places)
        assert said.code == 0, said.err
    return place


@pytest.fixture
def runs(trained: Path, workplace: Path) -> Path:
    shutil.copytree(trained, workplace, dirs_exist_ok=True)
    return Path("runs/toy")


# ---------------------------------------------------------------- recvae plot


def test_what_help_says_of_pictures_is_what_there_is() -> None:
    assert PICTURE_NAMES.split(", ") == list(NAMES) == parse_names("all")
    assert parse_names("map, curves,map") == ["map", "curves"]


def test_the_curves_of_two_runs_are_drawn_and_the_next_command_works(runs: Path, command: Command) -> None:
    said = command("plot", "multvae", "multdae", "--output", "new/curves.svg")
    assert (said.code, said.out) == (0, "curves: new/curves.svg\n"), said.err
    text = Path("new/curves.svg").read_text()
    assert "multvae" in text and "multdae" in text and "epoch whose weights are kept" in text
    words = shlex.split(said.err.rpartition("next: ")[2])
    assert words == ["recvae", "plot", "runs/toy/multvae", "runs/toy/multdae", "--picture", "by-k,by-history,bias"]
    said = command(*words[1:])
    assert said.out == "by-k: by-k.svg\nby-history: by-history.svg\nbias: bias.svg\n", said.err
    words = shlex.split(said.err.rpartition("next: ")[2])
    assert words[:2] == ["recvae", "report"] and words[-2:] == ["--output", "report.html"]


def test_all_pictures_of_runs_some_of_which_cannot_have_each(runs: Path, command: Command) -> None:
    said = command("plot", "multvae", "ease", "--picture", "all", "--output", "x.png", "-k", 5)
    assert said.code == 0, said.err
    assert sorted(path.name for path in Path().glob("x-*.png")) == sorted(f"x-{name}.png" for name in NAMES)
    assert "not in the curves: runs/toy/ease has no training log" in said.err
    assert "not in the map: the run ease holds ease, which has no user embeddings" in said.err
    alone = command("plot", "popularity", "--picture", "all", "--output", "y.svg")
    assert alone.code == 0 and {path.stem for path in Path().glob("y-*.svg")} == {
        f"y-{name}" for name in ("by-k", "by-history", "by-popularity", "bias", "coverage")
    }


def test_a_map_is_coloured_by_given_labels(runs: Path, command: Command) -> None:
    users = Dataset.load("data/toy").test.user_ids
    lines = [f"{user},{'young' if number % 2 else 'old'}" for number, user in enumerate(users[:-1].tolist())]
    Path("ages.csv").write_text("user,label\n" + "\n".join(lines))
    said = command("plot", "multvae", "--picture", "map", "--labels", "ages.csv", "--output", "map.svg")
    assert said.code == 0, said.err
    assert all(f">{word}</text>" in Path("map.svg").read_text() for word in ("young", "old", "no label"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ease"], 2, "runs/toy/ease has no training log (log.jsonl), since ease is fitted without epochs"),
        (
            ["ease", "--picture", "map"],
            2,
            "no user embeddings to draw a map of; leave it out, or name a run of one of: mul",
        ),
        (["multvae", "--output", "x.jpg"], 2, "got x.jpg, expected a name ending in .png, .svg, .pdf"),
        (["multvae", "--output", "data"], 2, "got data, expected a name ending in"),
        (["multvae", "--output", "taken.svg"], 2, "taken.svg exists already; give --overwrite to replace it"),
        (
            ["multvae", "--output", "taken.svg/x.svg"],
            1,
            "could not write taken.svg/x.svg: a file stands where a folder",
        ),
        (["multvae", "--picture", "pie"], 2, "got picture 'pie', expected one or more of: curves, by-k,"),
        (["multvae", "--picture", ","], 2, "got no picture, expected one or more of"),
        (["multvae", "--picture", "by-k", "--metric", "recal"], 2, "got metric 'recal', expected one of"),
        (["multvae", "--metric", "coverage"], 2, "got --metric coverage, which has no value per user"),
        (["multvae", "-k", "0"], 2, "got k=0, expected a whole number of items"),
        (["multvae", "--labels", "ages.csv"], 2, "got --labels ages.csv without --picture map"),
        (["multvae", "--picture", "map", "--labels", "none.csv"], 2, "got labels none.csv, which is no file"),
        (["nothing"], 2, "no run 'nothing' in runs"),
        (["multvae", "--split", "train", "--picture", "bias"], 2, "got split 'train', expected one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_drawn_is_one_line_and_leaves_nothing(
    words: list[str], code: int, said: str, runs: Path, command: Command
) -> None:
    Path("taken.svg").write_text("mine")
    before = sorted(str(path) for path in Path().rglob("*"))
    found = command("plot", *words)
    assert (found.code, found.out) == (code, "") and said in found.err, found.err
    assert found.err.count("error: ") == 1 and "Traceback" not in found.err
    assert sorted(str(path) for path in Path().rglob("*")) == before and Path("taken.svg").read_text() == "mine"


@pytest.mark.parametrize("verb", ["plot", "report"])
def test_runs_on_different_data_are_refused_with_the_data_of_each(verb: str, runs: Path, command: Command) -> None:
    other = ("--users", 200, "--items", 100, "--events", 5000, "--name", "other")
    assert command("preprocess", "synthetic", *other).code == 0
    assert command("train", "--data", "other", "--model", "multvae", *SMALL).code == 0
    fingerprints = [Dataset.load(f"data/{name}").fingerprint[:12] for name in ("toy", "other")]
    said = command(verb, "toy/multvae", "other/multvae", *METRICS[: 2 if verb == "report" else 0])
    assert (said.code, said.out) == (2, "") and all(one in said.err for one in fingerprints), said.err
    if verb == "plot":
        assert f"runs/toy/multvae    toy, fingerprint {fingerprints[0]}" in said.err


def test_too_few_users_are_said(workplace: Path, command: Command) -> None:
    words = ("--users", 60, "--items", 100, "--events", 1400, "--heldout-users", 5, "--name", "few")
    assert command("preprocess", "synthetic", *words).code == 0 and command("train", "--model", "ease").code == 0
    said = command("plot", "--picture", "by-history")
    assert said.code == 1 and "users with a target, expected 10 or more to draw groups of users" in said.err
    said = command("report", "--baselines", "none", *METRICS)
    assert said.code == 0, said.err
    assert "no picture &#x27;by-k&#x27;: got 5 users with a target" in Path("report.html").read_text()


@pytest.mark.parametrize("verb", ["plot", "report"])
def test_without_matplotlib_one_line_says_what_to_install(
    verb: str, runs: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    said = command(verb, "multvae")
    assert said.code == 2 and said.err.endswith("install it with: pip install 'recvae[plot]'\n")
    assert said.err.count("\n") == 1 and not Path("report.html").exists()


def test_a_refit_is_not_drawn_on_users_it_was_trained_on(runs: Path, command: Command) -> None:
    assert command("train", "--refit", "ease", "--on", "all").code == 0
    newest = max(Path("runs/toy").iterdir(), key=lambda path: (path / "recommender.json").stat().st_mtime)
    for verb in ("plot", "report"):
        said = command(verb, newest, *(["--picture", "by-k"] if verb == "plot" else []))
        assert said.code == 2 and "so it has seen the targets of the test users" in said.err, said.err


# ---------------------------------------------------------------- recvae report


def test_every_number_of_the_table_is_that_of_compare(runs: Path, command: Command) -> None:
    words = ("multvae", "ease", "--baselines", "als,popularity", *METRICS)
    known = json.loads(command("compare", *words, "--json").out)
    said = command("report", *words, "--output", "pages/report.html")
    assert (said.code, said.out) == (0, "report: pages/report.html\n"), said.err
    page = Page(Path("pages/report.html").read_text())
    results = next(table for table in page.tables if table[0] == ["run", "recall@5", "ndcg@10"])
    costs = next(table for table in page.tables if table[0][:3] == ["run", "ndcg@10 difference", "p (Holm)"])
    assert [row[0] for row in results[1:]] == [run["name"] for run in known["runs"]]
    for row, cost, run in zip(results[1:], costs[1:], known["runs"], strict=True):
        for cell, metric in zip(row[1:], ("recall@5", "ndcg@10"), strict=True):
            summary = run["metrics"][metric]
            assert cell.rstrip("†") == f"{summary['mean']:.4f} ± {summary['mean'] - summary['low']:.4f}"
        test = run.get("difference", {}).get("metrics", {}).get("ndcg@10")
        assert cost[1] == (
            "baseline" if test is None else f"{test['mean']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]"
        )
    for one in (
        known["fingerprint"],
        "drawn at random with seed",
        "recvae preprocess synthetic --users 200",
    ):
        assert one in page.text
    next_words = shlex.split(said.err.rpartition("next: ")[2])
    assert next_words[:2] == ["recvae", "plot"] and command(*next_words[1:]).code == 0


def test_the_commands_of_the_page_make_the_same_runs_again(runs: Path, command: Command) -> None:
    assert command("report", "multvae", "ease", "--baselines", "none", *METRICS).code == 0
    block = re.search(r"<pre>(.*?)</pre>", Path("report.html").read_text(), flags=re.DOTALL)
    assert block is not None
    lines = [html.unescape(re.sub(r"<[^>]*>", "", line)) for line in re.findall(r"<div>(.*?)</div>", block[1])]
    assert [line.split()[1] for line in lines] == ["preprocess", "train", "train", "report"]
    before = {name: Path(f"runs/toy/{name}/weights.safetensors").read_bytes() for name in ("multvae", "ease")}
    first = Path("report.html").read_text()
    for folder in ("data", "runs"):
        shutil.rmtree(folder)
    Path("report.html").unlink()
    for line in lines:
        said = command(*shlex.split(line)[1:])
        assert said.code == 0, (line, said.err)
    assert {name: Path(f"runs/toy/{name}/weights.safetensors").read_bytes() for name in before} == before

    def undated(text: str) -> str:
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:+]+", "", text)
        return re.sub(r">\d+\.\d s<|>\d+ min \d+ s<", "", text)

    assert undated(Path("report.html").read_text()) == undated(first), "the pages are the same, but for dates and times"


def test_the_page_is_not_replaced_and_nothing_is_measured_for_what_cannot_be_written(
    runs: Path, command: Command
) -> None:
    Path("report.html").write_text("mine")
    for words, code, message in (
        (["ease"], 2, "report.html exists already; give --overwrite to replace it, or choose another name"),
        (["ease", "--output", "x.pdf"], 2, "got --output x.pdf, expected a name ending in .html"),
        (["ease", "--output", "report.html/x.html"], 1, "could not write report.html/x.html: a file stands where"),
        (["ease", "--output", "/proc/x.html"], 1, "could not write /proc/x.html: "),
        (["ease", "--examples", "-1", "--output", "x.html"], 2, "got --examples -1, expected 0 or more users"),
        (
            ["ease", "--metrics", "coverage@5", "--output", "x.html"],
            2,
            "got --metrics coverage@5, which have no values per",
        ),
        (
            ["ease", "--metrics", "popularity_miscalibration@5,coverage@5", "--output", "x.html"],
            2,
            "got popularity_miscalibration@5, coverage@5, of which none says how good a user's list is",
        ),
        (["ease", "--metrics", "nothing@5", "--output", "x.html"], 2, "got metric 'nothing@5', expected"),
        (["nothing", "--output", "x.html"], 2, "no run 'nothing' in runs"),
    ):
        said = command("report", *words)
        assert (said.code, said.out) == (code, "") and message in said.err, said.err
        assert "reporting on" not in said.err and "Traceback" not in said.err
    assert Path("report.html").read_text() == "mine" and not list(Path().glob("x.*"))
    said = command("report", "ease", "--baselines", "none", "--overwrite", *METRICS)
    assert said.code == 0 and Path("report.html").read_text().startswith("<!doctype html>"), said.err


def test_a_baseline_of_your_own_is_in_the_page_too(
    runs: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.py").write_text(
        "from dataclasses import dataclass\nfrom recvae.models import Popularity\n"
        "@dataclass(kw_only=True)\nclass Mine(Popularity):\n    'As popular as it is.'\n    name = 'mine'\n"
    )
    monkeypatch.syspath_prepend(".")
    assert command("train", "--model", "mine:Mine").code == 0
    words = ("mine", "ease", "--model", "mine:Mine", "--output")
    said = command("report", "ease", "--to", "mine:Mine", *METRICS, "--output", "first.html")
    assert said.code == 0, said.err
    assert ">mine</text>" in Path("first.html").read_text()
    said = command("report", *words, "second.html", "--baselines", "none", *METRICS)
    assert said.code == 0 and "<span>mine:Mine</span>" in Path("second.html").read_text(), said.err
    said = command("plot", *words, "bias.svg", "--picture", "bias")
    assert said.code == 0 and shlex.split(said.err.rpartition("next: ")[2])[-2:] == ["--model", "mine:Mine"], said.err


# ---------------------------------------------------------------- the page itself


def made(name: str = "blocks", **changes: Any) -> Report:
    """Return a report on a data set of which every text is markup."""
    rng = np.random.default_rng(1)

    def users(n: int) -> sp.csr_matrix:
        return sp.csr_matrix(rng.random((n, 30)) < 0.3, dtype=np.float32)

    def heldout(n: int) -> HeldOut:
        both = users(n)
        hidden = sp.csr_matrix(both.multiply(rng.random(both.shape) < 0.4), dtype=np.float32)
        hidden.eliminate_zeros()
        seen = (both - hidden).tocsr()
        seen.eliminate_zeros()
        return HeldOut(fold_in=seen, targets=hidden, user_ids=np.array([f"{NASTY}{i}" for i in range(n)], dtype=object))

    data = Dataset(
        train=users(60),
        validation=heldout(20),
        test=heldout(20),
        item_ids=np.array([f"{NASTY} item {i}" for i in range(30)], dtype=object),
        titles=np.array([None if i % 5 == 0 else f"{NASTY} {i}" for i in range(30)], dtype=object),
        manifest={
            "name": NASTY,
            "fingerprint": NASTY,
            "recvae": NASTY,
            "created": NASTY,
            "protocol": {"split": NASTY, "seed": NASTY},
            "source": {"name": NASTY, "file": NASTY},
            "filters": {"steps": [{"name": NASTY, "events": 1, "users": 2, "items": 3}]},
            "dropped": {NASTY: 3},
        },
    )
    models = {"popular": Popularity().fit(data.train), "ease": EASE(l2=5.0).fit(data.train)}
    found = compare(models, data, metrics="recall@5,ndcg@10,coverage@5")
    measured = Measured(
        ranked={name: rank_users(model, data.test, 20) for name, model in models.items()},
        held_out=data.test,
        train_counts=data.items.train_counts,
        n_train_users=60,
    )
    record = {"epoch": 1, "loss": 1.0, "ndcg": 0.1, "best": True}
    card = {"created": NASTY, "versions": {"recvae": NASTY, "torch": NASTY}}
    given: dict[str, Any] = {
        "comparison": found,
        "dataset": data,
        "runs": {"ease": Bundle(model=models["ease"], items=data.items, manifest=data.manifest)},
        "cards": {"ease": card},
        "measured": measured,
        "pictures": [("curves", training_curves({NASTY: [record]})), ("bias", draw("bias", measured))],
        "command": f"recvae report {shlex.quote(NASTY)}",
        "remarks": [NASTY],
    }
    return Report(**given | changes)


def test_everything_that_comes_from_data_is_escaped_and_the_page_needs_nothing_else() -> None:
    text = report_page(made())
    page = Page(text)
    assert "script" not in page.tags and "b" not in page.tags and page.text.count("<script>") > 40
    assert all(link.startswith("#") for link in page.links) and not re.search(r"url\((?!#)|@import|src=", text)
    assert len(page.ids) == len(set(page.ids)), "no id twice, also with several pictures"
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert page.tags.count("svg") == 2 and page.tags.count("article") == 3


def test_the_page_says_what_was_measured() -> None:
    report = made()
    page = Page(report_page(report))
    data, model = report.dataset, report.runs["ease"].model
    counts = next(table for table in page.tables if table[0][0] == "users for")
    assert counts[1] == ["training", "60", f"{data.train.nnz:,}", "-", f"{data.train.nnz / 1800:.2%}"]
    both = data.test.fold_in.nnz + data.test.targets.nnz
    assert counts[3][-1] == f"{both / 600:.2%}"
    contender = next(one for one in report.comparison.contenders if one.name == "ease")
    values = contender.per_user["ndcg@10"]
    worst = next(table for table in page.tables if table[0][0] == "user")
    assert [row[1] for row in worst[1:]] == [f"{value:.4f}" for value in np.sort(values)[:5]]
    for row in worst[1:]:
        user = data.test.user_ids.tolist().index(row[0])
        found = np.isin(data.test.targets[user].indices, report.measured.ranked["ease"][user, :20]).sum()
        assert row[3] == f"{found} of {data.test.targets[user].nnz}"
    groups = next(table for table in page.tables if table[0][:2] == ["users", "how many"])
    assert groups[-1] == [
        "all users",
        f"{np.count_nonzero(~np.isnan(values))}",
        f"{np.nanmean(values):.4f}",
        f"{contender_mean(report, 'popular'):.4f}",
    ]
    means = [float(row[2]) for row in groups[1:-1]]
    assert means == sorted(means)
    for user in chosen_users(values, 3):
        history = data.item_ids[data.test.fold_in[user].indices]
        recommended = Recommender(model, data).recommend(history, k=10)
        named = [title or item for title, item in zip(recommended.titles, recommended.ids, strict=True)]
        assert all(str(one) in page.text for one in named)
    assert f"ndcg@10 {np.nanmean(values):.4f} ±" in " ".join(in_short(report))


def contender_mean(report: Report, name: str) -> float:
    one = next(one for one in report.comparison.contenders if one.name == name)
    return float(np.nanmean(one.per_user["ndcg@10"]))


@pytest.mark.parametrize("name", [name for name, one in KNOWN.items() if one.per_user and one.needs != "features"])
def test_good_and_poor_users_are_told_by_metrics_that_are_better_the_higher_they_are(name: str) -> None:
    report = made()
    models = {name: Popularity().fit(report.dataset.train) for name in ("popular", "ease")}
    found = compare(models, report.dataset, metrics=f"{name}@5,coverage@5")
    if KNOWN[name].better == HIGHER:
        assert "Where it fails" in report_page(replace(report, comparison=found))
        return
    with pytest.raises(UsageError, match=r"of which none says how good a user's list is.*; add one such as ndcg@100$"):
        replace(report, comparison=found)
    more = compare(models, report.dataset, metrics=f"{name}@5,recall@5")
    assert "recall@5" in " ".join(in_short(replace(report, comparison=more)))


def test_a_page_for_everyone_has_no_single_user() -> None:
    text = report_page(made(n_examples=0))
    page = Page(text)
    assert "article" not in page.tags and not any(table[0][0] == "user" for table in page.tables)
    users = made().dataset.test.user_ids
    assert not any(re.search(rf"{re.escape(user)}(?!\d)", page.text.replace(f"{NASTY} ", "")) for user in users)


def test_users_are_shown_from_poor_to_good() -> None:
    values = np.array([0.9, np.nan, 0.1, 0.5, 0.3, 0.7, 0.2, 0.4])
    assert values[chosen_users(values, 3)].tolist() == [0.2, 0.4, 0.7]
    assert chosen_users(values, 0) == [] and chosen_users(np.array([np.nan]), 3) == []
    assert chosen_users(np.array([np.nan, 1.0]), 3) == [1]
    mostly_nothing = np.append(np.zeros(20), [0.2, 0.3, 0.9])
    assert mostly_nothing[chosen_users(mostly_nothing, 3)].tolist() == [0, 0, 0.3]
    assert len(set(chosen_users(np.zeros(8), 3))) == 3


def test_a_picture_in_a_page_has_the_colours_of_the_page_and_ids_of_its_own() -> None:
    figure = training_curves({"a": [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5}]})
    one, other = (picture_of(figure, name, "what it shows") for name in ("one", "other"))
    assert one.replace("one-", "other-") == other and 'aria-label="Training, epoch by epoch"' in one
    assert "var(--s1)" in one and "#0072b2" not in one and "var(--ink)" in one and "<metadata>" not in one
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', one)) <= set(re.findall(r' id="([^"]+)"', one))


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        (
            {"split": "strong", "seed": 3, "target_share": 0.25, "heldout_users": 40},
            "40 users for validation and as many",
        ),
        ({"split": "holdout", "seed": 3, "target_share": 0.25}, "Of each user&#x27;s items, 25% are hidden"),
        ({"split": "leave-last-out"}, "The last item of each user is hidden for the test"),
        ({"split": "time"}, "Nothing that happened later was known in training"),
        ({"split": "ready-made"}, "The split was made elsewhere and taken as it is."),
        ({"split": "own", "x": 3}, "How the data were split: split own, x 3."),
        ({}, "How the data were split: it is not known how."),
    ],
)
def test_a_protocol_is_told_in_words(protocol: dict[str, Any], said: str) -> None:
    assert said in protocol_words(protocol, "test", 10, 20)
    assert "have decided nothing" in protocol_words(protocol, "test", 10, 20)
    assert "look better than they are" in protocol_words(protocol, "validation", 10, 20)


def test_words_name_the_history_where_a_metric_depends_on_it_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    train, one, other, targets = (sp.csr_matrix(rng.random((20, 12)) < 0.4, dtype=float) for _ in range(4))
    ranked = np.array([rng.permutation(12)[:5] for _ in range(20)])
    features = (rng.random((12, 4)) < 0.5).astype(float)
    for name in KNOWN:
        first, second = (
            measure(f"{name}@5", ranked, targets, Background(train=train, fold_in=fold_in, features=features))
            for fold_in in (one, other)
        )
        values = [np.array([*found[0].values(), *found[1].values()]) for found in (first, second)]
        depends = not np.array_equal(*values, equal_nan=True)
        assert depends == ("history" in metric_words([f"{name}@5"])), name


def test_every_metric_and_protocol_has_its_words() -> None:
    assert "a metric of your own" not in metric_words([f"{name}@7" for name in KNOWN])
    assert "a metric of your own" in metric_words(["f1@7"])
    for name in PROTOCOLS:
        assert "How the data were split" not in protocol_words({"split": name}, "test", 1, 1), name


@pytest.mark.parametrize(
    ("manifest", "line"),
    [
        (
            {"name": "ml", "source": {"name": "ml-1m"}, "filters": {"min_rating": 4.0, "min_user_items": 5}}
            | {"protocol": {"split": "strong", "seed": 1, "target_share": 0.2, "heldout_users": 9}},
            "recvae preprocess ml-1m --name ml --min-rating 4 --min-user-items 5 --split strong --heldout-users 9 "
            "--target-share 0.2 --seed 1",
        ),
        (
            {
                "name": "own",
                "source": {"name": "own", "file": "my log.csv", "reading": {"columns": {"rating": "stars"}}},
            }
            | {"filters": {"min_rating": None}, "protocol": {"split": "time"}},
            "recvae preprocess 'my log.csv' --name own --min-rating 0 --split time",
        ),
        ({"source": {"name": "gowalla"}, "protocol": {"split": "ready-made"}}, None),
        ({"protocol": {"split": "strong"}}, None),
    ],
)
def test_the_command_that_prepares_the_data_again(manifest: dict[str, Any], line: str | None) -> None:
    assert preprocess_command(manifest) == line


def test_the_command_that_trains_a_run_again(blocks: Dataset) -> None:
    model = MultVAE(hidden_dims=(20, 10), beta=0.3)
    run = Bundle(model=model, items=blocks.items, manifest={"name": "toy"}, training=TrainingSummary(device="cuda:0"))
    found = train_command("folder/it", run)
    assert found.startswith("recvae train --model multvae --data toy --set ") and found.endswith(
        "--name it --device cuda"
    )
    assert "--set hidden_dims=20,10" in found and "--set beta=0.3" in found and "epochs" not in found
    refit = Refit(run="toy/it", made="today", on="all", n_users=3)
    again = replace(run, training=TrainingSummary(refit=refit))
    assert train_command("it-2", again) == "recvae train --refit toy/it --on all --name it-2"


def test_what_decides_a_run_besides_its_settings_is_in_the_command_that_trains_it_again(
    runs: Path, command: Command
) -> None:
    assert command("train", "--model", "multvae", "--name", "usual", *SMALL).code == 0
    assert command("train", "--model", "multvae", "--name", "chosen", "--select-by", "hit_rate@1", *SMALL).code == 0
    lines = {name: train_command(name, read_bundle(Path("runs/toy", name))) for name in ("usual", "chosen")}
    assert "--select-by" not in lines["usual"] and "--select-by hit_rate@1" in lines["chosen"]
    assert command(*shlex.split(lines["chosen"].replace("--name chosen", "--name again"))[1:]).code == 0
    first, second = (read_bundle(Path("runs/toy", name)) for name in ("chosen", "again"))
    assert second.training.select_by == "hit_rate@1" and first.metrics == second.metrics
    card = {"created": "now", "versions": {}}
    for one, is_told in ((first, False), (replace(first, training=replace(first.training, interrupted=True)), True)):
        told = again(one.manifest, {"chosen": one}, {"chosen": card}, "recvae report")
        assert ("Interrupted, and another run once it is trained to its end, as here: chosen." in told) == is_told
    streamed = replace(first, training=replace(first.training, stream={"buffer": 5000, "share": 0.2}))
    assert "--stream --buffer 5000B" in train_command("chosen", streamed)


def test_single_users_are_answered_within_the_memory_limit(fitted: Callable[[str], Any], blocks: Dataset) -> None:
    recommender = Recommender(fitted("multvae"), blocks, max_memory=1)
    with pytest.raises(MemoryLimitError, match="multvae"):
        recommender.recommend(blocks.item_ids[:3])
    with pytest.raises(MemoryLimitError, match="ease"):
        report_page(made(max_memory=1))


def test_nobody_with_a_target_cannot_be_ranked(fitted: Callable[[str], Any], blocks: Dataset) -> None:
    nobody = HeldOut(fold_in=blocks.test.fold_in, targets=sp.csr_matrix(0 * blocks.test.targets.toarray()))
    with pytest.raises(DataError, match="none of the held-out users has a target"):
        rank_users(fitted("ease"), nobody, 5)
    assert rank_users(fitted("ease"), blocks.test, 99).shape == (blocks.test.n_users, 32)


def test_models_that_are_said_to_have_a_map_have_one(fitted: Callable[[str], Any]) -> None:
    from recvae.reports.pictures import check_has_map

    with pytest.raises(UsageError, match="has no user embeddings") as refused:
        check_has_map("run", fitted("popularity"))
    named = str(refused.value).partition("one of: ")[2].split(", ")
    assert named == [name for name in MODELS if fitted(name).has_embeddings]


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser of the machine; none is fetched."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no browser is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_is_readable_in_light_and_dark_on_wide_and_narrow_screens(
    browser: Browser, tmp_path: Path, scheme: Any, width: int
) -> None:
    (tmp_path / "report.html").write_text(report_page(made()), encoding="utf-8")
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    page, asked, wrong = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((tmp_path / "report.html").as_uri())
    assert len(asked) == 1 and wrong == [] and page.title().startswith("Recommenders on --><script>")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing to scroll sideways but tables"

    def brightness(color: str) -> float:
        red, green, blue = (int(part) for part in re.findall(r"\d+", color)[:3])
        return (0.299 * red + 0.587 * green + 0.114 * blue) / 255

    script = "selector => { const s = getComputedStyle(document.querySelector(selector)); return [s.color, s.fill] }"
    ground = brightness(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert (ground < 0.2) == (scheme == "dark")
    for selector, place in (("p", 0), ("td", 0), ("figcaption", 0), ("svg text", 1)):
        assert abs(brightness(page.evaluate(script, selector)[place]) - ground) > 0.4, selector
    context.close()
