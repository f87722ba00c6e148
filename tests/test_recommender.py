"""Recommendations by external ids: what holds for every model, history and k."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae.datasets.dataset import Dataset
from recvae.errors import DataError, NotFittedError, UsageError
from recvae.models import ALS, MODELS, Model, Popularity
from recvae.recommenders.answers import Recommendations
from recvae.recommenders.recommender import Recommender

IDS = [1000 - 10 * column for column in range(32)]  # those of the blocks
HISTORIES = st.lists(st.sampled_from(IDS), min_size=1, max_size=32, unique=True)
UNKNOWN = st.one_of(st.integers().filter(lambda i: i not in IDS), st.text().filter(lambda t: t not in map(str, IDS)))
KS = st.integers(1, 40)
OF_EACH_MODEL = settings(max_examples=30)  # hundreds, since the code beside the model is one

Recommend = Callable[..., Recommendations]


@pytest.fixture(scope="session")
def recommender_of(
    fitted: Callable[[str], Model], blocks: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Recommender]:
    """Return a function from a model's name to its recommender, saved and loaded as a service would have it."""
    loaded: dict[str, Recommender] = {}

    def load(name: str) -> Recommender:
        if name not in loaded:
            folder: Path = tmp_path_factory.mktemp(name) / "bundle"
            Recommender(fitted(name), blocks).save(folder)
            loaded[name] = Recommender.load(folder)
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def recommend(recommender_of: Callable[[str], Recommender], model_name: str) -> Recommend:
    """Return the `recommend` of each model in turn."""
    return recommender_of(model_name).recommend


@OF_EACH_MODEL
@given(history=HISTORIES, k=KS)
def test_k_other_items_are_recommended_unless_the_catalogue_is_exhausted(
    recommend: Recommend, history: list[int], k: int
) -> None:
    found = recommend(history, k=k)
    assert len(found) == len(found.ids) == len(found.scores) == len(found.titles) == min(k, 32 - len(history))
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.ids) <= set(IDS) - set(history)
    assert found.scores == sorted(found.scores, reverse=True)
    assert np.isfinite(found.scores).all()
    assert (found.unknown, found.fallback) == ([], False)


@OF_EACH_MODEL
@given(history=HISTORIES, k=KS)
def test_recommendations_are_those_of_the_model_under_their_ids_and_titles(
    recommend: Recommend, fitted: Callable[[str], Model], blocks: Dataset, model_name: str, history: list[int], k: int
) -> None:
    row = np.isin(IDS, history)[None].astype(np.float32)
    items, scores = fitted(model_name).recommend(type(blocks.train)(row), k)
    known = items[0][items[0] >= 0]
    found = recommend(history, k=k)
    assert found.ids == [IDS[column] for column in known]
    assert found.titles == [None if column % 5 == 0 else f"Title {column}" for column in known]
    assert found.scores == scores[0][: len(known)].tolist()
    assert all(type(item) is int for item in found.ids)


@OF_EACH_MODEL
@given(history=HISTORIES, data=st.data())
def test_order_and_repetitions_of_the_history_and_the_type_of_its_ids_do_not_matter(
    recommend: Recommend, history: list[int], data: st.DataObject
) -> None:
    again = data.draw(st.permutations(history + data.draw(st.lists(st.sampled_from(history), max_size=5))))
    written = data.draw(st.sampled_from([int, str, np.int64]))
    assert recommend([written(item) for item in again]) == recommend(history)


@OF_EACH_MODEL
@given(history=HISTORIES, unknown=st.lists(UNKNOWN, min_size=1, max_size=4))
def test_unknown_ids_are_reported_as_given_and_otherwise_ignored(
    recommend: Recommend, history: list[int], unknown: list[Any]
) -> None:
    found = recommend([*unknown, *history])
    assert found.unknown == unknown
    assert found == Recommendations(**{**vars(recommend(history)), "unknown": unknown})


@OF_EACH_MODEL
@given(unknown=st.lists(UNKNOWN, max_size=3), k=KS)
def test_without_a_known_id_the_most_popular_items_are_recommended_and_it_is_said(
    recommend: Recommend, blocks: Dataset, unknown: list[Any], k: int
) -> None:
    found = recommend(unknown, k=k)
    counts = np.asarray(blocks.train.sum(axis=0)).ravel()
    order = np.argsort(-counts, kind="stable")[:k]
    assert found.ids == [IDS[column] for column in order]
    assert found.scores == counts[order].tolist()
    assert (found.fallback, found.unknown) == (True, unknown)


def test_nothing_is_left_for_who_knows_everything(recommend: Recommend) -> None:
    assert recommend(IDS) == Recommendations(ids=[], titles=[], scores=[], unknown=[], fallback=False)


def test_histories_may_be_any_iterable(recommend: Recommend) -> None:
    expected = recommend(IDS[:3])
    for history in (tuple(IDS[:3]), set(IDS[:3]), np.array(IDS[:3]), pd.Series(IDS[:3]), iter(IDS[:3])):
        assert recommend(history) == expected


def test_words_as_ids_come_back_as_words(fitted: Callable[[str], Model], blocks: Dataset, tmp_path: Path) -> None:
    words = np.array([f"ítem/{column}" for column in range(32)], dtype=object)
    dataset = Dataset(train=blocks.train, validation=blocks.validation, test=blocks.test, item_ids=words)
    Recommender(fitted("multdae"), dataset).save(tmp_path / "bundle")
    recommender = Recommender.load(tmp_path / "bundle")
    found = recommender.recommend(["ítem/0", "ítem/1", "item/1"], k=6)
    assert set(found.ids) == {f"ítem/{column}" for column in range(2, 8)}
    assert (found.titles, found.unknown) == ([None] * 6, ["item/1"])
    np.testing.assert_array_equal(recommender.item_ids, words)


def test_recommendations_become_a_table(recommend: Recommend) -> None:
    found = recommend(IDS[:3], k=4)
    expected = pd.DataFrame({"id": found.ids, "title": found.titles, "score": found.scores})
    pd.testing.assert_frame_equal(found.to_pandas(), expected)
    assert found.to_pandas().columns.tolist() == ["id", "title", "score"]
    assert len(recommend(IDS).to_pandas()) == 0


@settings(max_examples=20)
@given(single=st.text() | st.binary() | st.integers() | st.floats(allow_nan=False) | st.none())
def test_a_single_id_is_refused_with_the_call_that_was_meant(recommend: Recommend, single: Any) -> None:
    with pytest.raises(UsageError) as caught:
        recommend(single)
    assert str(caught.value) == f"got a single id {single!r}, expected a list of ids, e.g. [{single!r}]"


def test_a_single_numpy_integer_is_refused_too(recommend: Recommend) -> None:
    with pytest.raises(UsageError, match=r"got a single id np.int64\(990\), expected a list of ids"):
        recommend(np.int64(990))


@pytest.mark.parametrize("k", [0, -1, 2.5, "3", True, None])
def test_k_must_be_a_whole_number_from_1(recommend: Recommend, k: Any) -> None:
    for history in ([], IDS[:3]):
        with pytest.raises(UsageError, match="expected a whole number of items, 1 or more"):
            recommend(history, k=k)


def test_a_model_of_other_items_is_refused(blocks: Dataset) -> None:
    model = Popularity().fit(blocks.train[:, :-1])
    with pytest.raises(
        DataError, match="got a model of 31 items and a data set of 32 items; give the data set the model"
    ):
        Recommender(model, blocks)


CALLS: list[Callable[[Recommender], Any]] = [
    lambda r: r.recommend([1000]),
    lambda r: r.recommend_batch([[1000]]),
    lambda r: r.similar_items(1000),
    lambda r: r.recommend([1000], diversify=0.5),
    lambda r: r.explain([1000], [990]),
    lambda r: r.embed([[1000]]),
    lambda r: r.save(Path("bundle")),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_model_that_was_fitted_again_answers_no_longer(
    call: Callable[[Recommender], Any], blocks: Dataset, workplace: Path
) -> None:
    """Its columns may be other items, under the ids and counts of the first data set."""
    model = ALS(factors=4, iterations=1).fit(blocks)
    first = Recommender(model)
    call(first)
    model.fit(blocks)
    with pytest.raises(UsageError, match="got als that was fitted again after its recommender was made"):
        call(first)
    assert "als" in repr(first)
    call(Recommender(model))


def test_a_model_that_is_not_fitted_is_refused(model_name: str, blocks: Dataset) -> None:
    with pytest.raises(NotFittedError, match="is not fitted yet; call fit"):
        Recommender(MODELS[model_name](), blocks)


def test_a_recommender_knows_its_model_items_and_data(
    recommender_of: Callable[[str], Recommender], model_name: str, blocks: Dataset
) -> None:
    recommender = recommender_of(model_name)
    assert recommender.model.name == model_name
    assert recommender.item_ids.tolist() == IDS
    assert recommender.manifest == blocks.manifest


def test_a_service_imports_neither_pandas_nor_sympy(
    fitted: Callable[[str], Model], blocks: Dataset, tmp_path: Path
) -> None:
    Recommender(fitted("multvae"), blocks).save(tmp_path / "bundle")
    code = (
        "import sys; from recvae.recommenders.recommender import Recommender\n"
        "Recommender.load(sys.argv[1]).recommend([1000, 990])\n"
        "print(sorted({'pandas', 'sympy'} & set(sys.modules)))"  # each takes as long to import as all else
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "bundle"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
