"""`recvae probe`, as users type it: the figures of the library, for runs beside simple vectors, of items or users."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recvae import probe
from recvae.bundles.bundle import read_bundle
from recvae.datasets.dataset import Dataset
from recvae.latent.vectors import vectors_of

pytestmark = pytest.mark.slow

Command = Callable[..., Any]
SMALL = ("--set", "epochs=3", "--set", "hidden_dims=16", "--set", "latent_dim=6", "--set", "batch_size=50")


@pytest.fixture
def toy(workplace: Path, command: Command) -> Dataset:
    """Return the data set `data/toy` of this folder, with two runs on it."""
    made = ("--users", 300, "--items", 100, "--events", 7500, "--name", "toy", "--heldout-users", 30)
    for words in (("preprocess", "synthetic", *made), ("train", "--model", "ease"), ("train", *SMALL)):
        said = command(*words)
        assert said.code == 0, said.err
    return Dataset.load("data/toy")


@pytest.fixture
def films(toy: Dataset) -> pd.DataFrame:
    """Return a table of films in another order, with one that nobody knows and one without a row."""
    ids = toy.item_ids
    table = pd.DataFrame({"film": ids, "half": np.where(np.arange(len(ids)) % 2, "odd", "even"), "length": ids % 7})
    table = pd.concat([table[1:], pd.DataFrame({"film": [10**6], "half": ["even"], "length": [5]})])
    table.sample(frac=1, random_state=0).to_csv("films.csv", index=False)
    assert isinstance(table, pd.DataFrame)
    return table


@pytest.fixture
def people(toy: Dataset) -> pd.Series:
    """Return who likes most of all the first half of the films, by user id; the file has other users too."""
    assert toy.train_user_ids is not None
    half = toy.train.shape[1] // 2
    likes = np.asarray(toy.train[:, :half].sum(axis=1)).ravel() / np.diff(toy.train.indptr)
    found = pd.Series(likes > np.median(likes), index=pd.Index(toy.train_user_ids, name="user"))
    words = found.map({True: "yes", False: "no"}).rename("first_half").reset_index()
    others = pd.DataFrame({"user": toy.test.user_ids, "first_half": "no"})
    pd.concat([others, words]).sample(frac=1, random_state=1).to_csv("people.csv", index=False)
    return found


def test_item_vectors_are_probed_as_the_library_does(toy: Dataset, films: pd.DataFrame, command: Command) -> None:
    said = command("probe", "multvae", "ease", "--features", "films.csv", "--id-col", "film", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert list(found["vectors"]) == ["multvae", "ease", "truncated SVD", "popularity", "random numbers"]
    assert found["of"] == "items" and found["n"] == len(toy.item_ids) - 1
    assert "left out: 1 of 100 items, of which nothing is known" in said.err
    told = films[films["film"] < 10**6].set_index("film").loc[toy.item_ids[1:]]
    labels = pd.DataFrame({"half=even": told["half"] == "even", "length > 3": told["length"] > 3})
    assert found["features"] == {name: int(np.sum(labels[name])) for name in labels}
    for name in ("multvae", "ease"):
        vectors = vectors_of(read_bundle(Path("runs/toy") / name, "cpu").model, toy.train, "items", 16)
        expected = probe(vectors[1:], labels)
        one = found["vectors"][name]
        assert one["width"] == 16  # of the run that is the narrowest
        assert list(one["aucs"].values()) == pytest.approx(expected.aucs.tolist())
        assert one["interval"] == pytest.approx(list(expected.interval))
    assert found["vectors"]["truncated SVD"]["above_svd"] is None
    assert (found["data"], found["seed"], found["folds"], found["least"]) == ("toy", 0, 5, 20)


def test_attributes_of_users_are_put_in_the_order_of_the_vectors(
    toy: Dataset, people: pd.Series, command: Command
) -> None:
    said = command("probe", "multvae", "--users", "people.csv", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    model = read_bundle(Path("runs/toy/multvae"), "cpu").model
    rarer, has = ("yes", people) if people.sum() < len(people) / 2 else ("no", ~people)
    expected = probe(model.embed(toy.train), has.to_numpy()[:, None], of="users")
    assert found["features"] == {f"first_half={rarer}": int(has.sum())}  # the other word is the same question once more
    assert found["vectors"]["multvae"]["aucs"][f"first_half={rarer}"] == pytest.approx(expected.mean)
    assert found["vectors"]["truncated SVD"]["mean"] > 0.7 > 0.62 > found["vectors"]["random numbers"]["mean"]
    assert "belong to users that are not in training" in said.err


def test_the_tables_say_what_the_figures_are_of(toy: Dataset, films: pd.DataFrame, command: Command) -> None:
    said = command("probe", "--features", "films.csv", "--id-col", "film", "--feature-col", "half", "--width", 4)
    assert said.code == 0, said.err
    for words in ("item vectors", "mean ROC-AUC", "minus truncated SVD", "half=even", "multvae"):
        assert words in said.out
    assert "length" not in said.out
    assert "probing items of toy: runs/toy/multvae" in said.err
    assert "mean of 1 feature; intervals over 99 items" in said.err
    assert said.err.splitlines()[-1] == "next: recvae segments runs/toy/multvae"
    rare = command("probe", "--features", "films.csv", "--id-col", "film", "--least", 45)
    assert "left out: length > 3, which fewer than 45 items have, or lack" in rare.err


def test_features_of_the_data_set_need_no_file(films: pd.DataFrame, command: Command) -> None:
    dataset = Dataset.load("data/toy").with_features("films.csv", item="film")
    shutil.rmtree("data/toy")
    dataset.save("data/toy")
    said = command("probe", "ease", "--json")
    found = json.loads(said.out)
    assert list(found["features"]) == ["half=even"]
    assert "'length' is left out: the data set does not say which of its zeros are missing numbers" in said.err
    assert found["vectors"]["ease"]["width"] == 64
    assert list(json.loads(command("probe", "--feature-col", "half", "--json").out)["features"]) == ["half=even"]
    said = command("probe", "--feature-col", "halves")
    assert "got no column 'halves' of features, expected some of: half, length" in said.err


@pytest.mark.parametrize("of", ["features", "users"])
@pytest.mark.parametrize("name", ["popularity", "truncated SVD", "random numbers", "length of the history"])
def test_a_run_that_is_called_as_simple_vectors_are_stays_beside_them(
    films: pd.DataFrame, people: pd.Series, command: Command, of: str, name: str
) -> None:
    """One of the two would be shown as the other, without a word."""
    Path("runs/toy/multvae").rename(Path("runs/toy", name))
    table = ("--features", "films.csv", "--id-col", "film") if of == "features" else ("--users", "people.csv")
    found = json.loads(command("probe", f"runs/toy/{name}", *table, "--json").out)["vectors"]
    assert len(found) == 4
    own, *simple = found
    assert own.removesuffix(" (run)") == name and found[own]["width"] == (16 if of == "features" else 6)
    third = "popularity" if of == "features" else "length of the history"
    assert simple == ["truncated SVD", third, "random numbers"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "toy has no features of its items; give a table with --features FILE, or with --users FILE one of the"),
        (("--features", "films.csv"), "could not tell which column holds the item id; it has: film, half, length"),
        (("--users", "films.csv"), "could not tell which column holds the user id; it has: film, half, length"),
        (("--users", "films.csv", "--id-col", "film", "--least", "90"), "none of its"),
        (("--users", "nobody.csv"), "no file at nobody.csv"),
        (("--users", "x.csv", "--features", "y.csv"), "got --features and --users, expected one of them"),
        (("--id-col", "film"), "got --id-col without a table, where it has no effect; add --features or --users"),
        (("--feature-col", "film"), "toy has no features of its items; give a table with --features FILE"),
        (
            ("ease", "--features", "films.csv", "--folds", "25"),
            "got --least 20 with --folds 25, expected --least 50 or",
        ),
        (("--features", "films.csv", "--folds", "1"), "got folds=1, expected a whole number >= 2"),
        (("--features", "films.csv", "--width", "0"), "got --width 0, expected 1 or more"),
        (
            ("ease", "--features", "films.csv", "--id-col", "film", "--width", "100"),
            "got --width 100, expected at most 99",
        ),
        (
            ("ease", "multvae", "--features", "films.csv", "--id-col", "film", "--width", "17"),
            "got --width 17, but the vectors of multvae have 16 numbers, expected one width for all; give --width 16",
        ),
        (
            ("popularity", "--features", "films.csv", "--id-col", "film"),
            "got popularity, which has no vectors of",
        ),
        (("--features", "films.csv", "--id-col", "film", "--least", "60"), "got no feature that 60 items have and 60"),
    ],
)
def test_what_is_wrong_is_one_line(
    toy: Dataset, films: pd.DataFrame, command: Command, words: tuple[str, ...], message: str
) -> None:
    if "popularity" in words:
        assert command("train", "--model", "popularity").code == 0
    if words[-1:] == ("90",):  # users whose ids are all others
        films.assign(film=[f"x{film}" for film in films["film"]]).to_csv("films.csv", index=False)
    said = command("probe", *words)
    assert said.code in (1, 2), said
    assert message in said.err
    assert said.err.strip().splitlines()[-1].startswith("error: ")


def test_a_data_set_without_ids_of_training_users_says_so(
    people: pd.Series, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Dataset.load

    def without_ids(*given: Any, **more: Any) -> Dataset:
        return replace(load(*given, **more), train_user_ids=None)

    monkeypatch.setattr(Dataset, "load", without_ids)
    said = command("probe", "--users", "people.csv")
    assert "toy has no ids of its training users, since an earlier version wrote it; prepare it again" in said.err
