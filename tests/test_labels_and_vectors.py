"""What a probe is asked and given: features as 0 and 1, and the vectors of models at one width."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from recvae import ALS, EASE, ELSA, MultVAE, Popularity, synthetic_log
from recvae.datasets.dataset import Dataset
from recvae.datasets.features import ItemFeatures, read_features
from recvae.errors import DataError, MemoryLimitError, UsageError
from recvae.latent.labels import Labels, labels_of
from recvae.latent.probes import narrowed
from recvae.latent.vectors import item_vectors_of, own_width, simple_vectors, vectors_of

IDS = np.arange(10)


def read(table: pd.DataFrame, **more: Any) -> ItemFeatures:
    return read_features(table, IDS, **more)[0]


def told(found: Labels) -> dict[str, list[int]]:
    """Return the ids that have each feature."""
    dense = found.matrix.toarray()
    return {name: found.known[dense[:, place]].tolist() for place, name in enumerate(found.names)}


def test_words_stay_numbers_are_halved_and_vectors_are_left_out() -> None:
    table = pd.DataFrame(
        {"item": IDS, "genre": ["a|b", *["a"] * 4, *["b"] * 3, "c", "a"], "year": [1990 + n for n in IDS]}
    )
    table["vector"] = [[float(n), 0.5] for n in IDS]
    found = labels_of(read(table))
    assert told(found) == {
        "genre=a": [0, 1, 2, 3, 4, 9],
        "genre=b": [0, 5, 6, 7],
        "genre=c": [8],
        "year > 1994.5": [5, 6, 7, 8, 9],
    }
    assert found.remarks == ["'vector' is a vector, and left out; a probe takes words and numbers"]


@pytest.mark.parametrize(
    ("numbers", "name", "expected"),
    [
        ([0, 1] * 5, "flag", [1, 3, 5, 7, 9]),
        ([1] * 9 + [0], "flag", list(range(9))),
        ([0] * 9 + [1], "flag", [9]),
        ([5] * 7 + [1, 2, 3], "flag >= 5", list(range(7))),
        ([-1] * 7 + [1, 2, 3], "flag > -1", [7, 8, 9]),
        ([0] * 7 + [1, 2, 3], "flag > 0", [7, 8, 9]),
    ],
)
def test_a_number_tells_one_part_of_the_items_from_the_other(numbers: list, name: str, expected: list[int]) -> None:
    for matrix in (np.array(numbers, np.float32)[:, None], sp.csr_matrix(np.array(numbers, np.float32)[:, None])):
        assert told(labels_of(ItemFeatures(matrix=matrix, names=("flag",)))) == {name: expected}
    assert told(labels_of(read(pd.DataFrame({"item": IDS, "flag": numbers})))) == {name: expected}


def test_two_words_that_exclude_each_other_are_asked_once_and_others_each() -> None:
    table = pd.DataFrame({"user": IDS, "sex": ["f", "m"] * 5, "likes": ["tea"] * 4 + ["tea|milk"] * 3 + ["milk"] * 3})
    assert list(told(labels_of(read(table, row="user"), "users"))) == ["sex=f", "likes=milk", "likes=tea"]


def test_who_is_not_in_the_table_or_has_an_empty_column_has_not_the_opposite_of_a_feature() -> None:
    """Nothing is known of 0, 1 and 2: a man is not who has no row, and not young who has no age."""
    table = pd.DataFrame({"user": IDS[1:], "woman": [1, 0] * 4 + [1], "age": [30.0, np.nan, *range(20, 27)]})
    table["town"] = ["", "x", "y", *["x"] * 6]
    found = labels_of(read(table, row="user"), "users")
    assert found.known.tolist() == list(range(3, 10))
    assert told(found) == {"woman": [3, 5, 7, 9], "age > 23": [7, 8, 9], "town=y": [3]}
    assert found.remarks == [
        "left out: 1 of 10 users, of which nothing is known",
        "left out: 1 users for which 'age' is empty",
        "left out: 1 users for which 'town' is empty",
    ]


def test_a_column_that_is_mostly_empty_leaves_nobody_out_but_itself() -> None:
    table = pd.DataFrame({"item": IDS, "prize": ["Oscar"] * 2 + [""] * 8, "year": 2000 + IDS})
    found = labels_of(read(table))
    assert list(told(found)) == ["year > 2004.5"]
    assert found.remarks == ["'prize' is left out: it is empty for 8 of 10 items"]


def test_features_of_a_folder_are_told_as_those_just_read_or_left_out(tmp_path: Path) -> None:
    """A folder keeps a missing number as 0: a column with true zeros beside them cannot be told apart."""
    events, _ = synthetic_log(n_users=60, n_items=80, n_events=1200, seed=3)
    dataset = Dataset.from_events(events, name="toy", heldout_users=10)
    n = np.arange(len(dataset.item_ids))
    table = pd.DataFrame({"item": dataset.item_ids, "word": np.where(n % 3, "a", "b"), "whole": n})
    table["gaps"] = np.where(n % 5, 1.0 + n, np.nan)
    table["zeros"] = np.where(n % 5, n % 2, np.nan)
    dataset = dataset.with_features(table)
    dataset.save(tmp_path / "toy")
    just_read, kept = dataset.features, Dataset.load(tmp_path / "toy").features
    assert just_read is not None and kept is not None
    before, after = labels_of(just_read), labels_of(kept)
    assert {name: ids for name, ids in told(before).items() if name != "zeros"} == told(after)
    assert "zeros" in told(before)
    assert after.remarks[-1] == "'zeros' is left out: the data set does not say which of its zeros are missing numbers"


def test_of_a_table_of_few_users_these_are_probed_and_of_named_columns_all() -> None:
    few = pd.DataFrame({"user": IDS[:3], "sex": ["f", "f", "m"]})
    found = labels_of(read(few, row="user"), "users")
    assert (told(found), found.known.tolist()) == ({"sex=m": [2]}, [0, 1, 2])
    assert found.remarks == ["left out: 7 of 10 users, of which nothing is known"]
    table = pd.DataFrame({"user": IDS, "sex": ["f", "f", "m", *[""] * 7], "age": IDS})
    assert list(told(labels_of(read(table, row="user"), "users"))) == ["age > 4.5"]
    assert list(told(labels_of(read(table, row="user"), "users", are_chosen=True))) == ["sex=m", "age > 1"]


def test_nothing_to_probe_is_an_error() -> None:
    table = pd.DataFrame({"item": IDS, "vector": [[float(n), 0.5] for n in IDS]})
    with pytest.raises(DataError, match=r"no feature of items that can be probed \('vector' is a vector, and left out"):
        labels_of(read(table))


@pytest.mark.parametrize("of", ["items", "users"])
def test_every_model_with_vectors_has_them_at_one_width(of: Any, fitted: Callable[[str], Any], blocks: Dataset) -> None:
    n = blocks.train.shape[1 if of == "items" else 0]
    for name in ("multvae", "multdae", "recvae", "ae", "als", "ials", "elsa", "ease", "edlae"):
        found = vectors_of(fitted(name), blocks.train, of, 3)
        assert found.shape == (n, 3), name
        assert np.isfinite(found).all()
    for name in ("popularity", "infae"):
        with pytest.raises(UsageError, match=f"got {name}, which has no vectors of {of}; use an autoencoder, als"):
            vectors_of(fitted(name), blocks.train, of, 3)
    assert {kind: rows.shape for kind, rows in simple_vectors(blocks.train, of, 3).items()} == {
        "truncated SVD": (n, 3),
        "popularity" if of == "items" else "length of the history": (n, 1),
        "random numbers": (n, 3),
    }


def test_the_vectors_are_the_models_own_and_those_of_a_matrix_are_its_rows(blocks: Dataset) -> None:
    train = blocks.train
    network = MultVAE(hidden_dims=(8,), latent_dim=4, epochs=2).fit(train)
    assert np.array_equal(vectors_of(network, train, "items", 8), network.item_embeddings())
    assert np.array_equal(vectors_of(network, train, "users", 8), network.embed(train))
    assert (own_width(network, "items"), own_width(network, "users")) == (8, 4)
    als = ALS(factors=5).fit(train)
    assert np.array_equal(vectors_of(als, train, "users", 9), als.embed(train))
    assert np.array_equal(vectors_of(als, train, "items", 9), als.item_factors_)
    ease = EASE(l2=20.0).fit(train)
    rows = narrowed(ease.similarity_, 6)
    assert np.allclose(vectors_of(ease, train, "items", 6), rows)
    assert np.allclose(vectors_of(ease, train, "users", 6), train @ rows)
    assert own_width(ease, "items") is None
    elsa = ELSA(latent_dim=6, epochs=2).fit(train)
    own = item_vectors_of(elsa)
    assert own is not None
    users = elsa.embed(train) if elsa.has_embeddings else train @ own
    assert np.array_equal(vectors_of(elsa, train, "users", 6), users)
    assert item_vectors_of(Popularity().fit(train)) is None


def test_vectors_that_are_not_finite_are_refused(blocks: Dataset) -> None:
    als = ALS(factors=5).fit(blocks.train)
    als.item_factors_[0, 0] = np.nan
    with pytest.raises(DataError, match="got vectors of als that are NaN or infinite, expected numbers; train the run"):
        vectors_of(als, blocks.train, "items", 5)


@pytest.mark.parametrize("more", [{}, {"top_k": 3}])
def test_a_matrix_that_does_not_fit_once_more_is_refused_before_it_is_narrowed(blocks: Dataset, more: dict) -> None:
    ease = EASE(l2=20.0, **more).fit(blocks.train)
    with pytest.raises(MemoryLimitError, match="narrowing the vectors of ease"):
        vectors_of(ease, blocks.train, "items", 4, max_memory=100)
    assert vectors_of(ease, blocks.train, "items", 4, max_memory=10**9).shape == (blocks.train.shape[1], 4)
