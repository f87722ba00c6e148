"""Groups of users: the map of items, the page and the picture of `recvae segments`, read back from the files."""

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from playwright.sync_api import Browser, sync_playwright

from recvae import plots
from recvae.datasets.dataset import Dataset
from recvae.datasets.preparation import Protocol, prepare_synthetic
from recvae.errors import DataError, UsageError
from recvae.items import ItemIndex
from recvae.latent.projections import principal_components, project
from recvae.latent.segments import LEAST_USERS, find_segments
from recvae.models import AE, ALS, ELSA, MultVAE
from recvae.recommenders.recommender import Recommender
from recvae.reports.canvas import ENDINGS
from recvae.reports.latent import OTHER
from recvae.reports.segments import segments_map
from recvae_cli.opening import train_users
from recvae_cli.segments import _PICTURES

Command = Callable[..., Any]
RNG = np.random.default_rng(0)
POINTS = {"users": RNG.normal(size=(60, 5)), "items": RNG.normal(size=(40, 3))}
LABELS = {"users": np.arange(60) % 4, "items": np.arange(40) % 5 - 1}
NAMES = ["a", "b", "c", "d"]
NASTY = "--><script>document.title='taken'</script><b>&\"'</b>"


def legend_of(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


# Which group an item belongs to


def test_an_item_belongs_to_the_group_of_its_highest_lift_and_rare_ones_to_none() -> None:
    rng = np.random.default_rng(3)
    dense = (rng.random((300, 40)) < rng.random(40)).astype(np.float32)
    dense[:, 7], dense[:9, 7] = 0, 1
    model = ALS(factors=4, iterations=3).fit(sp.csr_matrix(dense))
    found = find_segments(model, sp.csr_matrix(dense), 3, named_by=2)
    assert LEAST_USERS == 10 and found.item_labels[7] == -1
    overall = dense.mean(axis=0)
    lifts = np.array([dense[found.labels == label].mean(axis=0) for label in range(3)]) / np.maximum(overall, 1e-12)
    common = dense.sum(axis=0) >= 10
    assert common.sum() > 20
    np.testing.assert_array_equal(found.item_labels[common], lifts.argmax(axis=0)[common])
    assert (found.item_labels[~common] == -1).all()
    assert found.item_vectors is not None and found.item_vectors.shape == (40, 4)


def test_items_have_the_vectors_of_the_model_or_none() -> None:
    rows = sp.csr_matrix((np.random.default_rng(1).random((60, 20)) < 0.4).astype(np.float32))
    ae = AE(hidden_dims=(), latent_dim=4, epochs=1).fit(rows)
    vectors = find_segments(ae, rows, 2).item_vectors
    assert vectors is not None
    np.testing.assert_array_equal(vectors, ae.item_embeddings())
    compressed = ELSA(latent_dim=8, epochs=1, entries=4).fit(rows)
    assert find_segments(compressed, rows, 2).item_vectors is None


def test_users_who_cannot_be_told_apart_are_not_divided() -> None:
    rows = sp.csr_matrix(np.kron(np.ones((20, 1)), np.eye(2, 12)).astype(np.float32))  # two different users
    model = AE(hidden_dims=(), latent_dim=3, epochs=1).fit(rows)
    with pytest.raises(DataError, match="got users with only 2 different vectors, expected 3 or more"):
        find_segments(model, rows, 3)


def test_vectors_that_are_no_numbers_are_refused() -> None:
    rows = sp.csr_matrix((np.random.default_rng(1).random((60, 20)) < 0.4).astype(np.float32))
    model = AE(hidden_dims=(), latent_dim=4, epochs=1).fit(rows)
    model.embed = lambda *_, **__: np.full((60, 4), np.nan, np.float32)  # type: ignore[method-assign]
    with pytest.raises(DataError, match="got vectors of users that are NaN or infinite"):
        find_segments(model, rows, 2)


# Maps


def test_every_point_is_on_the_map_once_with_the_look_of_its_group() -> None:
    figure = plots.segment_map(POINTS, LABELS, NAMES, without="rare")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["users", "items"]
    assert legend_of(figure) == ["a", "b", "c", "d", "rare"]
    for part, axis in zip(POINTS, figure.axes, strict=True):
        places, shares = principal_components(POINTS[part])
        assert f"{shares[0]:.0%} of variance" in axis.get_xlabel()
        lines = axis.get_lines()
        for group, line in zip((-1, 0, 1, 2, 3), lines, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), places[LABELS[part] == group])
    looks = [(line.get_color(), line.get_marker()) for line in figure.axes[0].get_lines()]
    assert len(set(looks)) == 5


def test_groups_without_a_look_of_their_own_are_put_together_and_said() -> None:
    labels = np.arange(60) % 15
    figure = plots.segment_map({"users": POINTS["users"]}, {"users": labels}, [f"g{one}" for one in range(15)])
    names, lines = legend_of(figure), figure.axes[0].get_lines()
    assert names == [*(f"g{one}" for one in range(13)), OTHER]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 14
    assert [len(np.asarray(line.get_xdata())) for line in lines] == [4] * 13 + [8]
    fourteen = plots.segment_map({"users": POINTS["users"]}, {"users": labels % 14}, [f"g{n}" for n in range(14)])
    assert legend_of(fourteen) == [f"g{one}" for one in range(14)]


def test_of_very_many_points_a_part_is_drawn_and_the_panel_says_so() -> None:
    values = np.random.default_rng(0).normal(size=(5000, 3))
    figure = plots.segment_map({"items": values}, {"items": np.zeros(5000, int)}, ["all"])
    assert figure.axes[0].get_title(loc="left") == "items (2,000 of 5,000 are drawn)"
    drawn = np.asarray(figure.axes[0].get_lines()[0].get_xydata())
    assert len(drawn) == 2000 and set(map(tuple, drawn)) <= set(map(tuple, principal_components(values)[0]))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is not installed")
def test_a_map_by_umap_keeps_blocks_together() -> None:
    centers = np.repeat(np.eye(3) * 20, 40, axis=0)
    values = centers + np.random.default_rng(0).normal(size=centers.shape)
    places = project(values, "umap", seed=1)
    middles = np.array([places[40 * one : 40 * one + 40].mean(axis=0) for one in range(3)])
    nearest = np.linalg.norm(places[:, None] - middles, axis=2).argmin(axis=1)
    assert (nearest == np.repeat(np.arange(3), 40)).all()
    assert project(np.eye(4), "umap").shape == (4, 2), "few points have a map too"
    figure = plots.segment_map({"users": values}, {"users": nearest}, NAMES, "umap", seed=1)
    assert "distances say nothing" in figure.axes[0].get_ylabel()


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (lambda: plots.segment_map({}, {}, NAMES), UsageError, "got no panels to draw"),
        (lambda: plots.segment_map(POINTS, LABELS, NAMES, "tsne"), UsageError, "got projection 'tsne', expected one"),
        (lambda: plots.segment_map(POINTS, {"users": LABELS["users"]}, NAMES), UsageError, "got 0 labels of items"),
        (lambda: plots.segment_map(POINTS, LABELS, NAMES[:3]), UsageError, "got 60 labels of users, expected 60 from"),
        (
            lambda: plots.segment_map({"a": np.ones((4, 2))}, {"a": np.zeros(4, int)}, NAMES),
            DataError,
            "the same embed",
        ),
    ],
)
def test_maps_of_what_does_not_fit_are_refused(work: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        work()


# The command


def test_pictures_have_the_endings_of_all_pictures() -> None:
    assert _PICTURES == ENDINGS


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set whose titles would like to be HTML, and a run of it; do not change it."""
    folder = tmp_path_factory.mktemp("shop")
    protocol = Protocol(heldout_users=40)
    dataset = prepare_synthetic(protocol, name="toy", n_users=400, n_items=120, n_events=12000).dataset
    dataset.items.titles[:] = [f"{NASTY} {column}" for column in range(len(dataset.items))]  # type: ignore[index]
    dataset.save(folder / "data" / "toy")
    model = MultVAE(epochs=4, hidden_dims=(16,), latent_dim=6).fit(Dataset.load(folder / "data" / "toy"))
    Recommender(model).save(folder / "runs" / "toy" / "multvae")
    return folder


@pytest.fixture
def run(workplace: Path, shop: Path) -> Path:
    """Return the folder of a copy of that run, in a workplace with a copy of its data set."""
    shutil.copytree(shop, workplace, dirs_exist_ok=True)
    return Path("runs/toy/multvae")


class Texts(HTMLParser):
    """Tables and tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.tables[-1][-1][-1] += data


def test_the_page_has_what_was_found(run: Path, command: Command) -> None:
    said = command("segments", "--groups", "3", "--output", "groups.html")
    assert said.code == 0, said.err
    text = Path("groups.html").read_text(encoding="utf-8")
    page, found = Texts(text), json.loads(command("segments", "--groups", "3", "--json").out)
    assert "script" not in page.tags and "img" not in page.tags and "http://" not in text.replace("http://www.w3", "")
    groups = page.tables[0][1:]
    assert [row[2] for row in groups] == [str(one["users"]) for one in found["groups"]]
    dataset = Dataset.load("data/toy")
    command("segments", "--groups", "3", "--output", "groups.csv")
    labels = pd.read_csv("groups.csv")["group"].to_numpy()
    lengths, counts = dataset.train.getnnz(axis=1), np.bincount(dataset.train.indices, minlength=120)
    popularity = (dataset.train @ (counts / dataset.train.shape[0])) / lengths
    for number, row in enumerate(groups, 1):
        assert float(row[4]) == round(float(np.median(lengths[labels == number])))
        assert row[6] == f"{popularity[labels == number].mean():.1%}"
    for one, row, table in zip(found["groups"], groups, page.tables[1:4], strict=True):
        assert row[1] == "; ".join(item["title"] for item in one["items"])
        first = one["items"][0]
        assert table[1][:3] == [first["title"], f"{first['lift']:.1f}", f"{first['share']:.1%}"]
    assert text.count("<svg") == 1 and "of variance" in text
    again = "segments toy/multvae --groups 3 --named-by 3 --seeds 5 --seed 0 --output groups.html"
    plain = "".join(part.partition(">")[2] for part in text.split("<"))
    assert again in plain.replace("\n", " ") and f"agrees by {found['agreement']:.2f}" in plain


def test_a_page_made_again_is_the_same(run: Path, command: Command) -> None:
    for name in ("one", "two"):
        assert command("segments", "--groups", "3", "--output", f"{name}.html").code == 0
    one, two = (Path(f"{name}.html").read_text(encoding="utf-8") for name in ("one", "two"))
    assert one == two.replace("two.html", "one.html")


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_map_is_written_in_the_form_that_its_ending_names(run: Path, command: Command, ending: str) -> None:
    said = command("segments", "--groups", "3", "--output", f"map.{ending}")
    assert said.code == 0 and f"map: map.{ending}" in said.err
    assert Path(f"map.{ending}").read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--output", "x.txt"), "got --output x.txt, expected a name that ends in .csv, .parquet, .html, .htm, .png, "),
        (("--map", "umap"), "got --map umap without a page or a map; add --output groups.html, or groups.png"),
        (("--map", "umap", "--output", "x.csv"), "got --map umap without a page or a map"),
        (("--map", "tsne", "--output", "x.html"), "got projection 'tsne', expected one of pca, umap"),
        (("--named-by", "0", "--output", "x.html"), "got named_by=0, expected a whole number >= 1"),
    ],
)
def test_what_cannot_be_written_is_said_before_any_work(
    run: Path, command: Command, words: tuple[str, ...], message: str
) -> None:
    said = command("segments", "--groups", "3", *words)
    assert said.code == 2 and message in said.err.replace("\n", " ")
    assert not list(Path.cwd().glob("x.*"))


def test_a_missing_matplotlib_is_said_before_users_are_grouped(
    run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    said = command("segments", "--groups", "3", "--output", "x.html")
    assert said.code == 2 and "recvae[plot]" in said.err and "grouping" not in said.err


def test_a_model_without_vectors_of_items_has_a_map_of_users_alone() -> None:
    rows = sp.csr_matrix((np.random.default_rng(1).random((60, 20)) < 0.4).astype(np.float32))
    found = find_segments(AE(hidden_dims=(), latent_dim=4, epochs=1).fit(rows), rows, 2)
    items = ItemIndex(ids=np.arange(20), titles=None, train_counts=np.ones(20, np.int64))
    assert len(segments_map(found, items).axes) == 2
    assert len(segments_map(replace(found, item_vectors=None), items).axes) == 1


@pytest.mark.usefixtures("run")
def test_rows_of_training_users_without_ids_are_not_taken_for_ids(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset.load("data/toy")
    assert dataset.train_user_ids is not None
    assert train_users(dataset) == dataset.train_user_ids.tolist()
    assert train_users(replace(dataset, train_user_ids=None))[:2] == ["row 0", "row 1"]
    assert "has no ids of its training users" in capsys.readouterr().err


# In a browser


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


def test_the_page_is_readable_in_light_and_dark_on_its_own(browser: Browser, run: Path, command: Command) -> None:
    assert command("segments", "--groups", "3", "--output", "groups.html").code == 0
    grounds = []
    for scheme in ("light", "dark"):
        for width in (1200, 390):
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
            page, asked, wrong = context.new_page(), [], []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("console", lambda text, wrong=wrong: wrong.append(text.text))
            page.goto(Path("groups.html").resolve().as_uri())
            assert len(asked) == 1 and wrong == [] and page.title() == "Groups of users of toy"
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("svg").is_visible() and page.locator("td", has_text="<script>").count() > 0
        grounds.append(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_the_page_of_an_own_model_is_made_again_with_its_class(
    toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setitem(sys.modules, "my_ae", None)  # so that it is forgotten afterwards
    del sys.modules["my_ae"]
    Path("my_ae.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom recvae.models import MODELS\n\n\n"
        "@dataclass(kw_only=True)\nclass MyAE(MODELS['ae']):\n    '''Mine.'''\n\n    name: ClassVar[str] = 'my-ae'\n"
    )
    model = ("--model", "my_ae:MyAE")
    assert command("train", *model, "--set", "latent_dim=8", "--set", "epochs=2").code == 0
    said = command("segments", *model, "--groups", "3", "--output", "groups.html")
    assert said.code == 0, said.err
    page = re.sub("<[^>]+>", "", Path("groups.html").read_text())
    assert f"recvae segments toy/my-ae {' '.join(model)} --groups 3" in page
