"""What objects show of themselves: one line at a prompt, HTML in a notebook that escapes what comes from data, help."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse as sp

from recvae import ALS, EASE, Comparison, Dataset, MultVAE, Popularity, Recommender, compare, evaluate
from recvae.display import html_table, one_line, plural
from recvae.evaluation.fitting import fit as fit_bundle
from recvae.interactions import HeldOut
from recvae.models import MODELS, Model, hyperparameter, learned
from recvae.models.common.hyperparameters import declared_in, hyperparameters_of
from recvae.training.records import EpochRecord, History, StopTraining

ALLOWED = {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "sup"}
EVIL = '<script>alert("1 & 2")</script>\n\x1b[31mred'


class Reader(HTMLParser):
    """Collects the tags and the text of a page, and whether every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.open = set[str](), list[str](), list[str]()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def evil(blocks: Dataset) -> Dataset:
    """Return the blocks with a name, ids and titles that a careless page would run."""
    titles = np.array([EVIL] * len(blocks.item_ids), dtype=object)
    ids = np.array([f"{EVIL}{item}" for item in range(len(titles))], dtype=object)
    manifest = {**blocks.manifest, "name": EVIL, "fingerprint": EVIL, "protocol": {"split": EVIL}}
    return replace(blocks, item_ids=ids, titles=titles, manifest=manifest)


@pytest.fixture(scope="module")
def shown(evil: Dataset) -> list[Any]:
    """Return one of everything that shows itself, each with evil data wherever data can be."""
    model = EASE(l2=5.0).fit(evil)
    recommender = Recommender(model)
    record = EpochRecord(1, 2.0, 1.5, None, None, 0.25, True, 0.5, 100.0)
    return [
        evil,
        evil.test,
        model,
        recommender,
        recommender.recommend(evil.item_ids[:2], k=5),
        recommender.recommend([EVIL], k=5),
        recommender.recommend_batch({EVIL: evil.item_ids[:2], "other": [EVIL]}, k=3),
        History(records=[record], best_epoch=1, best_ndcg=0.25, stop=StopTraining(EVIL)),
        compare({EVIL: model, "als": ALS(factors=2).fit(evil)}, evil, metrics="ndcg@10"),
        evaluate(model, evil, "ndcg@10"),
    ]


def test_one_line_is_one_line_and_holds_no_control_character(shown: list[Any]) -> None:
    for thing in shown:
        line = repr(thing)
        assert line.startswith("<") and line.endswith(">") and len(line) < 500, line
        assert "\n" not in line and "\x1b" not in line, line


def test_html_of_data_is_text_in_a_notebook(shown: list[Any]) -> None:
    for thing in shown:
        page = thing._repr_html_()
        read = Reader(page)
        assert not read.open and read.tags <= ALLOWED, page
        assert "<script" not in page and ("\x1b" not in page or isinstance(thing, Comparison)), page
    text = "".join("".join(Reader(thing._repr_html_()).texts) for thing in (shown[0], shown[4], shown[5], shown[6]))
    assert text.count('<script>alert("1 & 2")</script>') > 4  # it is there, as text


def test_lines_say_what_matters(blocks: Dataset) -> None:
    assert repr(blocks) == (
        "<Dataset blocks: 100 training users x 32 items, 552 interactions; 20 validation and 12 test users; split none>"
    )
    assert repr(blocks.test) == "<HeldOut: 12 users, 32 items, 36 fold-in interactions, 60 targets>"
    nothing = HeldOut(fold_in=blocks.test.fold_in, targets=sp.csr_matrix(blocks.test.targets.shape))
    assert "12 users without a target" in repr(nothing)
    assert repr(replace(blocks, manifest={})).startswith("<Dataset unnamed: ")
    model = EASE(l2=5.0)
    assert repr(model) == "<EASE(l2=5.0), not fitted>"
    assert repr(model.fit(blocks.train)) == "<EASE(l2=5.0), fitted on 32 items>"
    assert repr(model.fit(blocks)) == "<EASE(l2=5.0), fitted on 32 items of blocks>"
    assert repr(MultVAE()) == "<MultVAE(), not fitted>"
    bundle = fit_bundle(model, blocks).bundle()
    assert repr(bundle) == "<Bundle: <EASE(l2=5.0), fitted on 32 items> on blocks>"
    assert repr(bundle.items) == "<ItemIndex: 32 items, with titles>"
    recommender = Recommender(model.fit(blocks))
    assert repr(recommender) == "<Recommender: ease on blocks, 32 items>"
    found = recommender.recommend(blocks.item_ids[:3], k=4)
    first = ", ".join(
        f"{item}" + (f" ({title})" if title else "") for item, title in zip(found.ids[:3], found.titles, strict=False)
    )
    assert repr(found) == f"<Recommendations: 4 items: {first}, ...>"
    assert repr(recommender.recommend(blocks.item_ids[:3], k=1)).count(", ...") == 0
    popular = recommender.recommend([-1], k=2)
    assert repr(popular).endswith("; the most popular items, as no item of the history is known>")
    many = recommender.recommend_batch([blocks.item_ids[:2], [-1]], k=3)
    assert repr(many) == "<BatchRecommendations: 2 users, up to 3 items each; the most popular items for 1 of them>"


def test_a_history_says_how_it_ended() -> None:
    records = [EpochRecord(n, 2.0, 1.5, 0.1, 0.2, 0.1, False, 0.5, 100.0) for n in range(1, 201)]
    assert repr(History()) == "<History: 0 epochs>"
    whole = History(records=records, best_epoch=77, best_ndcg=0.12345, stopped_early=True)
    assert repr(whole) == "<History: 200 epochs, best 77 (validation ndcg@100 0.1235), stopped early>"
    page = whole._repr_html_()
    assert 50 <= page.count("<tr>") <= 64 and ">77<" in page and ">1<" in page and ">200<" in page
    assert re.search(r"<p>\d+ of 200 epochs</p>", page)
    assert repr(History(records=records[:1], interrupted=True)) == "<History: 1 epoch, interrupted>"
    assert repr(History(stop=StopTraining("pruned"))) == "<History: 0 epochs, stopped: pruned>"
    assert repr(History(diverged_at=1200)) == "<History: 0 epochs, diverged at update 1,200>"
    assert repr(History(out_of_memory_at=3)) == "<History: 0 epochs, out of memory at update 3>"


def test_a_comparison_is_one_line_and_prints_as_tables(blocks: Dataset) -> None:
    found = compare([Popularity().fit(blocks), EASE(l2=5.0).fit(blocks)], blocks, metrics="ndcg@10")
    best, last = (f"{one.name} {one.summary('ndcg@10').mean:.4f}" for one in found.ranking)
    assert repr(found) == (f"<Comparison on 12 test users of blocks, ndcg@10: {best}, {last}; baseline popularity>")
    assert str(found) == found.to_markdown().rstrip() and str(found).count("\n") > 5


def test_a_notebook_shows_what_was_changed_of_a_model_and_how_many_are_as_they_were(blocks: Dataset) -> None:
    page = MultVAE(epochs=3, seed=0)._repr_html_()
    assert ">epochs<" in page and ">3<" in page and ">seed<" not in page
    assert f"{len(hyperparameters_of(MultVAE)) - 1} hyperparameters with defaults; help(MultVAE) lists all" in page
    assert "<table>" not in Popularity()._repr_html_() and "help" not in Popularity()._repr_html_()


def test_numbers_and_empty_cells_of_a_table() -> None:
    page = html_table("t", ["a"], [(1234, 0.123456789, None, True, "x")], ["r"])
    assert re.findall(r"<td[^>]*>(.*?)</td>", page) == ["1,234", "0.123457", "", "True", "x"]
    assert html_table("t", ["a"], []) == "<p><strong>t</strong></p>"
    assert one_line(" a\tb\u2028c ", 4) == "a..." and one_line("abc", 3) == "abc"
    assert [plural(n, "item") for n in (0, 1, 1500)] == ["0 items", "1 item", "1,500 items"]


def test_the_docstring_of_a_model_lists_every_hyperparameter_with_meaning_default_and_range(model_name: str) -> None:
    model = MODELS[model_name]
    text = inspect.getdoc(model) or ""
    section = text.partition("Parameters\n----------\n")[2]
    known = hyperparameters_of(model)
    assert re.findall(r"^(\w+) : ", section, flags=re.MULTILINE) == list(known)
    for name, about in known.items():
        entry = re.search(rf"^{name} : (.*)\n((?:    .*\n?)+)", section, flags=re.MULTILINE)
        assert entry is not None and f"default {about.default!r}" in entry[1], name
        assert ("or None" in entry[1]) == about.optional and all(f'"{word}"' in entry[1] for word in about.choices)
        body = " ".join(entry[2].split())
        assert about.meaning.rstrip(".").lower() in body.lower()
        bounds = [bound for bound in (about.low, about.high) if bound is not None]
        assert all(f"{bound:,.0f}" in body if bound == int(bound) else f"{bound:g}" in body for bound in bounds)
    examples = text.find("Examples\n--------")
    assert examples == -1 or text.find("Parameters\n---") < examples


def test_help_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    help(MultVAE)
    said = capsys.readouterr().out
    assert "learning_rate : float, default 0.003" in said and "A number, at least 0 and below 1." in said
    assert 'decay : {"none", "linear", "cosine"}, default \'cosine\'' in said


def test_your_own_model_is_documented_and_shown_as_well() -> None:
    @dataclass(kw_only=True)
    class Mine(EASE):
        """My own.

        Notes
        -----
        None.
        """

        name: ClassVar[str] = "mine"

        power: "float" = hyperparameter(0.5, "power of popularity", low=0)  # noqa: RUF009
        l2: float | None = 3.0  # type: ignore[assignment]  # no hyperparameter any more

    found = (Mine.__doc__ or "").split("\n")
    assert found[:4] == ["My own.", "", "Parameters", "----------"] and found[-3:] == ["Notes", "-----", "None."]
    assert "power : float, default 0.5" in found and not any(line.startswith("l2 :") for line in found)
    assert list(declared_in(Mine)) == list(hyperparameters_of(Mine))
    assert repr(Mine(power=0.25)) == "<Mine(power=0.25), not fitted>"


def test_what_a_model_writes_itself_stays() -> None:
    class Listed(EASE):
        """Mine.

        Parameters
        ----------
        l2 : float
            As I say.
        """

        def __repr__(self) -> str:
            return "listed"

    @dataclass(kw_only=True)
    class Later(Listed):
        shrinkage: float = hyperparameter(1.0, "shrinkage")

    assert (Listed.__doc__ or "").endswith("As I say.") and "top_k" not in (Listed.__doc__ or "")
    assert repr(Listed()) == repr(Later()) == "listed"
    assert (Later.__doc__ or "").startswith("Later, from Steck: ")


def test_a_model_whose_annotations_cannot_be_read_can_still_be_defined() -> None:
    class Odd(Model):
        """Odd."""

        strange: "nowhere.Thing" = hyperparameter(1, "strange")  # type: ignore[name-defined]  # noqa: F821
        array_: np.ndarray = learned()

    assert Odd.__doc__ == "Odd."


@pytest.mark.parametrize("make", [EASE, MultVAE])
def test_a_line_is_made_of_any_value(make: Callable[..., Model]) -> None:
    field = "l2" if make is EASE else "hidden_dims"
    assert repr(make(**{field: np.array([1, 2])})).startswith(f"<{make.__name__}({field}=array([1, 2]))")
