"""A model of your own takes part everywhere, without a change to the package: in Python and from the command.

It is named by an import path that the user types; a bundle never imports anything by itself.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse as sp

from recvae import Dataset, Recommender, compare, read_bundle
from recvae.errors import BundleError, UsageError
from recvae.models import EASE, MODELS, Blend, Model, Popularity, hyperparameter, learned, model_class
from recvae.models.common.fit_options import FitOptions

Command = Callable[..., Any]

MODULE = '''
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from recvae.models import EASE, Model, hyperparameter, learned


@dataclass(kw_only=True)
class ItemKNN(Model):
    """Similar items by cosine."""

    name: ClassVar[str] = "itemknn"
    paper: ClassVar[str] = "Sarwar et al.: Item-Based Collaborative Filtering (WWW 2001)"
    space: ClassVar = {"shrinkage": (0.0, 10.0)}

    shrinkage: float = hyperparameter(0.0, "added to the product of lengths", low=0)
    similarity_: sp.csr_matrix = learned()

    def _fit(self, train, validation, options):
        length = np.sqrt(np.bincount(train.indices, minlength=train.shape[1]))
        together = (train.T @ train).toarray() / (np.outer(length, length) + self.shrinkage + 1e-9)
        np.fill_diagonal(together, 0)
        self.similarity_ = sp.csr_matrix(together, dtype=np.float32)

    def _score_block(self, user_items):
        return (user_items @ self.similarity_).toarray()


@dataclass(kw_only=True)
class Known(EASE):
    name: ClassVar[str] = "ease"


@dataclass(kw_only=True)
class Nameless(ItemKNN):
    name: ClassVar[str] = ""


class Unfinished(Model):
    name = "unfinished"
    paper = "none"


class Other:
    pass


raised = "not a class"
'''


@dataclass(kw_only=True)
class ItemKNN(Model):
    """Similar items by cosine; what notebooks and docs show."""

    name: ClassVar[str] = "itemknn"
    paper: ClassVar[str] = "Sarwar et al.: Item-Based Collaborative Filtering (WWW 2001)"

    shrinkage: float = hyperparameter(0.0, "added to the product of lengths", low=0)
    similarity_: sp.csr_matrix = learned()

    def _fit(self, train: sp.csr_matrix, validation: Any, options: FitOptions) -> None:  # noqa: ARG002
        length = np.sqrt(np.bincount(train.indices, minlength=train.shape[1]))
        together = (train.T @ train).toarray() / (np.outer(length, length) + self.shrinkage + 1e-9)
        np.fill_diagonal(together, 0)
        self.similarity_ = sp.csr_matrix(together, dtype=np.float32)

    def _score_block(self, user_items: sp.csr_matrix) -> Any:
        return (user_items @ self.similarity_).toarray()


@pytest.fixture
def module(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write a module with models into this folder and return its name; it is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (workplace / "my_models.py").write_text(MODULE)
    yield "my_models"
    sys.modules.pop("my_models", None)


@pytest.fixture
def run(module: str, toy: Path, command: Command) -> Path:
    """Train that model by the command and return its run; the module is not imported any more."""
    said = command("train", "--model", f"{module}:ItemKNN", "--set", "shrinkage=5")
    assert said.code == 0 and "next: recvae evaluate runs/toy/itemknn --model my_models:ItemKNN" in said.err, said.err
    del sys.modules[module]
    return Path("runs/toy/itemknn")


# In Python


def test_it_is_fitted_compared_and_recommends_like_any_other(blocks: Dataset) -> None:
    fitted = ItemKNN().fit(blocks.train)
    found = compare({"mine": fitted, "popularity": Popularity().fit(blocks.train)}, blocks, metrics="ndcg@5")
    assert found.ranking[0].name == "mine" and found.ranking[0].model == "itemknn"
    recommender = Recommender(fitted, blocks)
    users = blocks.test.fold_in
    assert len(recommender.recommend(blocks.item_ids[users[0].indices], k=5).ids) == 5
    reasons = fitted.contributions(users[0], np.array([3]))  # what the score loses without each item
    assert reasons.shape == (3, 1)
    assert (fitted.has_similarities, fitted.has_embeddings, fitted.is_exportable) == (False, False, False)


def test_its_bundle_comes_back_where_its_class_is_given(blocks: Dataset, tmp_path: Path) -> None:
    fitted = ItemKNN(shrinkage=2.0).fit(blocks.train)
    Recommender(fitted, blocks).save(tmp_path / "mine")
    card = json.loads((tmp_path / "mine" / "recommender.json").read_text())
    assert (card["model"], card["hyperparameters"]) == ("itemknn", {"shrinkage": 2.0})
    assert "Sarwar et al." in (tmp_path / "mine" / "README.md").read_text()
    back = Recommender.load(tmp_path / "mine", models=[ItemKNN])
    assert back.model == fitted
    np.testing.assert_array_equal(back.model.score(blocks.test.fold_in), fitted.score(blocks.test.fold_in))
    refused = (
        r"holds a model 'itemknn', which recvae does not have\. If it is your own, add --model MODULE:CLASS "
        r"\(in Python models=\[MyModel\]; to blend it, --model blend --model MODULE:CLASS\)\."
    )
    for load in (Recommender.load, read_bundle):
        with pytest.raises(BundleError, match=refused):
            load(tmp_path / "mine")


def test_it_may_be_part_of_a_blend(blocks: Dataset, tmp_path: Path) -> None:
    blend = Blend.of(ItemKNN(), EASE(l2=5.0), weight=0.5).fit(blocks.train, blocks.validation)
    assert not blend.has_similarities and not blend.is_exportable, "a part has neither"
    Recommender(blend, blocks).save(tmp_path / "blend")
    with pytest.raises(BundleError, match="holds a model 'itemknn'"):
        Recommender.load(tmp_path / "blend")
    back = Recommender.load(tmp_path / "blend", models=[ItemKNN]).model
    np.testing.assert_array_equal(back.score(blocks.test.fold_in), blend.score(blocks.test.fold_in))


def test_scores_of_another_shape_are_refused(blocks: Dataset) -> None:
    @dataclass(kw_only=True)
    class Wrong(ItemKNN):
        name: ClassVar[str] = "wrong"

        def _score_block(self, user_items: sp.csr_matrix) -> Any:
            return super()._score_block(user_items)[:, 1:]

    model = Wrong().fit(blocks.train)
    with pytest.raises(UsageError, match=r"got scores of shape \(12, 31\) from Wrong._score_block, expected an array"):
        model.recommend(blocks.test.fold_in)

    class Nothing(Wrong):
        def _score_block(self, user_items: sp.csr_matrix) -> Any:  # noqa: ARG002
            return None

    with pytest.raises(
        UsageError, match=r"got a NoneType from Nothing._score_block, expected an array of scores of shape \(12, 32\)"
    ):
        Nothing().fit(blocks.train).score(blocks.test.fold_in)


def test_arrays_that_do_not_fit_are_refused(blocks: Dataset) -> None:
    @dataclass(kw_only=True)
    class Two(Popularity):
        name: ClassVar[str] = "two"
        more_: np.ndarray = learned(ndim=1, per_item=True)

    for arrays, message in (
        ({"counts": np.ones(3)}, "more"),
        ({"counts": np.ones(3), "more": np.ones((3, 2))}, r"more of shape \(3, 2\), expected 1 dimension$"),
        ({"counts": np.ones(3), "more": np.ones(4)}, r"more of shape \(4,\), expected a first dimension of 3 items"),
    ):
        with pytest.raises((KeyError, ValueError), match=message):
            Two().load_weights(arrays)
    wide = ItemKNN()
    wide.similarity_, wide.n_items_ = sp.csr_matrix(np.eye(3, 5, dtype=np.float32)), 3
    back = ItemKNN().load_weights(wide.weights())
    assert isinstance(back, ItemKNN) and back.similarity_.shape == (3, 5)
    with pytest.raises(ValueError, match=r"similarity.data of shape \(3, 2\), expected one dimension"):
        ItemKNN().load_weights(wide.weights() | {"similarity.data": np.ones((3, 2))})

    @dataclass(kw_only=True)
    class Forgetful(ItemKNN):
        name: ClassVar[str] = "forgetful"
        similarity_: Any = field(default=None, init=False)

    with pytest.raises(
        UsageError, match=r"got Forgetful, which declares no array of shape \(n_items, \.\.\.\); declare"
    ):
        Forgetful().fit(blocks.train)
    with pytest.raises(ValueError, match=r"Forgetful declares no array of shape \(n_items, \.\.\.\); declare one"):
        Forgetful().load_weights({})


def test_what_could_not_be_loaded_again_is_refused_when_it_is_fitted(blocks: Dataset) -> None:
    @dataclass(kw_only=True)
    class Lost(ItemKNN):
        name: ClassVar[str] = "lost"
        shrink: int = 3

    with pytest.raises(UsageError, match="got field shrink of Lost, which no bundle would keep; declare it with hy"):
        Lost().fit(blocks.train)

    class Empty(ItemKNN):
        def _fit(self, train: sp.csr_matrix, validation: Any, options: FitOptions) -> None:
            """Forget to learn."""

    with pytest.raises(UsageError, match=r"got similarity_ of shape \(0, 0\) from Empty._fit, expected an array"):
        Empty().fit(blocks.train)

    class Nameless(Model):
        paper = "none"

        def _fit(self, train: sp.csr_matrix, validation: Any, options: FitOptions) -> None:
            """Learn nothing."""

        def _score_block(self, user_items: sp.csr_matrix) -> Any:
            """Score nothing."""

    with pytest.raises(UsageError, match="got Nameless without a name; give it a class attribute such as name = "):
        Nameless().fit(blocks.train)


def test_what_its_code_does_wrong_is_said_with_file_and_line(blocks: Dataset) -> None:
    class Raises(ItemKNN):
        def _fit(self, train: sp.csr_matrix, validation: Any, options: FitOptions) -> None:  # noqa: ARG002
            raise ZeroDivisionError("no items")

    with pytest.raises(
        UsageError, match=r"Raises._fit failed with ZeroDivisionError: no items \(.*test_own_models.py, li"
    ):
        Raises().fit(blocks.train)

    class Returns(ItemKNN):
        def _fit(self, train: sp.csr_matrix, validation: Any, options: FitOptions) -> Any:
            super()._fit(train, validation, options)
            return self

    with pytest.raises(UsageError, match=r"got Returns from Returns._fit, expected None; let it return nothing"):
        Returns().fit(blocks.train)

    @dataclass(kw_only=True)
    class Scores(ItemKNN):
        name: ClassVar[str] = "scores"

        def _score_block(self, user_items: sp.csr_matrix) -> Any:
            return user_items @ np.ones(3)

    model = Scores().fit(blocks.train)
    with pytest.raises(UsageError, match=r"Scores._score_block failed with ValueError: .*fix it there"):
        model.score(blocks.test.fold_in)


@pytest.mark.parametrize("form", [sp.csc_matrix, sp.coo_matrix, sp.csr_array])
def test_any_sparse_matrix_it_learns_is_kept(form: Any, blocks: Dataset, tmp_path: Path) -> None:
    fitted = ItemKNN().fit(blocks.train)
    fitted.similarity_ = form(fitted.similarity_)
    Recommender(fitted, blocks).save(tmp_path / "mine")
    back = Recommender.load(tmp_path / "mine", models=[ItemKNN]).model
    np.testing.assert_allclose(back.score(blocks.test.fold_in), fitted.score(blocks.test.fold_in))


def test_two_of_one_name_and_fields_that_are_not_read_are_refused(blocks: Dataset, tmp_path: Path) -> None:
    @dataclass(kw_only=True)
    class Other(ItemKNN):
        pass

    Recommender(ItemKNN().fit(blocks.train), blocks).save(tmp_path / "mine")
    with pytest.raises(UsageError, match="got two models of your own with name 'itemknn', expected a different name"):
        model_class("itemknn", [ItemKNN, Other])

    class Undecorated(ItemKNN):
        name: ClassVar[str] = "undecorated"
        more: float = hyperparameter(1.0, "not read", low=0)

    with pytest.raises(UsageError, match=r"got Undecorated, whose fields are not read; put @dataclass\(kw_only=True\)"):
        model_class(Undecorated)


# From the command


def test_the_command_trains_measures_and_answers_with_it(run: Path, command: Command) -> None:
    own = ("--model", "my_models:ItemKNN")
    found = json.loads(command("evaluate", "itemknn", "--baselines", "popularity", "--json", *own).out)
    assert [one["model"] for one in found["runs"] if not one["baseline"]] == ["itemknn"]
    assert command("compare", "itemknn", "--to", "popularity", *own).code == 0
    said = command("recommend", "itemknn", "--items", "1,2", *own)
    assert said.code == 0 and f"recvae serve {run} --model my_models:ItemKNN" in said.err
    assert command("inspect", "itemknn").code == 0, "says what it is without its code"


def test_it_can_be_a_baseline_planned_listed_and_tuned(run: Path, command: Command) -> None:
    path = "my_models:ItemKNN"
    found = json.loads(command("evaluate", "itemknn", "--baselines", path, "--model", path, "--json").out)
    assert [one["baseline"] for one in found["runs"]] in ([True, False], [False, True])
    assert found["baseline"] == "itemknn (baseline)"
    again = command("compare", "itemknn", "--to", path, "--model", path)
    assert again.code == 0, again.err
    assert "recvae train --model my_models:ItemKNN" in command("plan", path, "--seconds", "0").err
    assert "Sarwar" in command("models", path).out
    tuned = command("tune", "--model", path)
    assert tuned.code == 0 and f"recvae train --model {path} --data toy" in tuned.out, tuned.err
    assert command("evaluate", "itemknn-tuned", "--baselines", "none", "--model", path).code == 0


@pytest.mark.parametrize("verb", ["evaluate", "compare", "recommend", "similar", "export"])
def test_a_run_of_it_imports_nothing_by_itself(verb: str, run: Path, command: Command) -> None:
    more = {"recommend": ("--items", "1"), "similar": ("1",)}.get(verb, ())
    said = command(verb, "itemknn", *more)
    assert said.code == 1 and said.err.count("\n") <= 2, said.err
    assert "holds a model 'itemknn', which recvae does not have" in said.err
    assert "--model MODULE:CLASS" in said.err and "my_models" not in sys.modules


@pytest.mark.parametrize("verb", ["evaluate", "compare", "recommend", "similar", "export", "serve"])
def test_a_damaged_card_that_names_a_module_imports_nothing(
    verb: str, module: str, toy: Path, command: Command
) -> None:
    assert command("train", "--model", "popularity").code == 0
    card = Path("runs/toy/popularity/recommender.json")
    card.write_text(card.read_text().replace('"popularity"', f'"{module}:ItemKNN"'))
    more = {"recommend": ("--items", "1"), "similar": ("1",)}.get(verb, ())
    said = command(verb, "runs/toy/popularity", *more)
    assert said.code == 1 and "holds a model 'my_models:ItemKNN', which recvae does not have" in said.err
    assert module not in sys.modules


def test_a_run_that_was_interrupted_imports_nothing_either(module: str, toy: Path, command: Command) -> None:
    work = Path("runs/toy/mine")
    work.mkdir(parents=True)
    fingerprint = Dataset.load(toy).fingerprint
    state = {"model": f"{module}:ItemKNN", "hyperparameters": {}, "fingerprint": fingerprint, "folder": "mine"}
    (work / "run.json").write_text(json.dumps(state))
    said = command("train", "--resume")
    assert said.code == 1 and "holds a model 'my_models:ItemKNN'" in said.err and module not in sys.modules


def test_a_blend_of_it_is_trained_by_naming_both(run: Path, command: Command) -> None:
    assert command("train", "--model", "ease", "--set", "l2=10").code == 0
    words = ("--set", "first=itemknn", "--set", "second=ease", "--set", "weight=0.5")
    refused = command("train", "--model", "blend", *words)
    assert refused.code == 1 and "to blend it, --model blend --model MODULE:CLASS" in refused.err
    said = command("train", "--model", "blend", "--model", "my_models:ItemKNN", *words)
    assert said.code == 0, said.err
    assert command("plan", "blend", *words, "--model", "my_models:ItemKNN", "--seconds", "0").code == 0
    assert command("recommend", "blend", "--items", "1", "--model", "my_models:ItemKNN").code == 0


def test_a_model_that_is_named_in_vain_is_refused(run: Path, command: Command) -> None:
    before = {path.name for path in run.parent.iterdir()}
    other = "got --model multdae, which comes with recvae, expected a model of your own as MODULE:CLASS; leave it out"
    for words in (
        ("train", "--model", "ease", "--model", "multdae"),
        ("train", "--model", "blend", "--model", "multdae", "--set", "first=knn", "--set", "second=knn"),
        *((verb, str(run), "--model", "multdae") for verb in ("evaluate", "export")),
        ("recommend", str(run), "--items", "1", "--model", "multdae"),
        ("similar", str(run), "1", "--model", "multdae"),
        ("plan", "ease", "--model", "multdae"),
    ):
        refused = command(*words)
        assert refused.code == 2 and other in " ".join(refused.err.split()), (words, refused.err)
    refused = command("train", "--model", "ease", "--model", "my_models:ItemKNN")
    assert refused.code == 2
    assert "got --model my_models:ItemKNN after --model ease, which is no blend, expected one model" in refused.err
    assert {path.name for path in run.parent.iterdir()} == before


def test_comparing_all_runs_leaves_out_what_cannot_be_loaded(run: Path, command: Command) -> None:
    assert command("train", "--model", "popularity").code == 0
    said = command("compare", "--to", "popularity")
    assert "left out, since they hold models of your own: itemknn; to include them, add --model" in said.err
    both = command("compare", "--to", "popularity", "--json", "--model", "my_models:ItemKNN")
    assert {one["name"] for one in json.loads(both.out)["runs"]} == {"popularity", "itemknn"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "my_models:Other",
            "got my_models:Other, which is not a subclass of recvae.Model; write `class MyModel.Model.`",
        ),
        ("my_models:raised", "got my_models:raised, which is not a subclass of recvae.Model"),
        (
            "my_models:Unfinished",
            "got my_models:Unfinished, which does not define _fit, _score_block; see recvae.Model",
        ),
        ("my_models:Known", "got my_models:Known with name 'ease', which is a model of recvae; choose another name"),
        ("my_models:Nameless", "got my_models:Nameless with name '', expected letters, digits"),
        ("my_models:Missing", "got model 'my_models:Missing', but my_models has no 'Missing'; it has: .*ItemKNN"),
        ("no_such:Model", "got model 'no_such:Model', but there is no module no_such; expected no_such.py in"),
        ("broken:Model", "got model 'broken:Model', but importing broken failed with ZeroDivisionError: division by"),
        ("my_models:", "got model 'my_models:', expected MODULE:NAME such as my_module:my_model"),
        ("itemknn", "got model 'itemknn', expected one of: multvae, .*or MODULE:CLASS for a model of your own"),
    ],
)
def test_what_is_no_model_is_refused_in_words(
    name: str, message: str, module: str, toy: Path, command: Command
) -> None:
    Path("broken.py").write_text("1 / 0\n")
    said = command("train", "--model", name)
    assert said.code == 2 and re.search(f"^error: {message}", said.err), said.err
    assert not Path("runs").exists()
    with pytest.raises(UsageError, match=message):
        model_class(name)


def test_a_model_without_a_paper_is_refused() -> None:
    class Paperless(ItemKNN):
        paper = None  # type: ignore[assignment]

    with pytest.raises(
        UsageError, match=r'got Paperless without a paper, expected a class attribute such as paper = "'
    ):
        model_class(Paperless)
    assert model_class(MODELS["ease"]) is EASE and model_class("itemknn", [ItemKNN]) is ItemKNN
