"""What `Recommender` promises beyond a plain list: batches, filters, variety, similar items, reasons, vectors."""

import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae.datasets.dataset import Dataset
from recvae.errors import DataError, UsageError
from recvae.models import Model
from recvae.models.common.similarity import cosines
from recvae.recommenders.answers import Request
from recvae.recommenders.diversity import diversified
from recvae.recommenders.recommender import Recommender
from recvae.serving.onnx import OnnxRecommender

IDS = [1000 - 10 * column for column in range(32)]  # those of the blocks
HISTORIES = st.lists(st.sampled_from(IDS), min_size=1, max_size=31, unique=True)
LINEAR = ("ease", "edlae", "sansa", "als", "ials")


@pytest.fixture(scope="session")
def recommender(fitted: Callable[[str], Model], blocks: Dataset, model_name: str) -> Recommender:
    """Return a recommender of each model in turn."""
    return Recommender(fitted(model_name), blocks)


@pytest.fixture(scope="session")
def ease(fitted: Callable[[str], Model], blocks: Dataset) -> Recommender:
    return Recommender(fitted("ease"), blocks)


@settings(deadline=None)
@given(
    history=HISTORIES,
    exclude=st.lists(st.sampled_from(IDS)),
    allow=st.none() | st.lists(st.sampled_from(IDS)),
    k=st.integers(1, 40) | st.just(10**9),
    filter_seen=st.booleans(),
)
def test_what_is_seen_excluded_or_not_allowed_never_comes_and_all_else_does(
    recommender: Recommender, history: list[int], exclude: list[int], allow: list[int] | None, k: int, filter_seen: bool
) -> None:
    found = recommender.recommend(history, k, exclude=exclude, allow=allow, filter_seen=filter_seen)
    possible = set(IDS if allow is None else allow) - set(exclude) - set(history if filter_seen else [])
    assert set(found.ids) <= possible
    assert len(found.ids) == len(set(found.ids)) == min(k, len(possible))
    assert np.isfinite(found.scores).all() and found.scores == sorted(found.scores, reverse=True)


@settings(deadline=None, max_examples=30)
@given(histories=st.lists(st.lists(st.sampled_from(IDS), max_size=31), max_size=6), k=st.integers(1, 40))
def test_in_company_everyone_is_recommended_what_is_recommended_alone(
    recommender: Recommender, histories: list[list[int]], k: int
) -> None:
    together = recommender.recommend_batch(histories, k)
    assert len(together) == len(histories)
    for found, history in zip(together, histories, strict=True):
        alone = recommender.recommend(history, k)
        np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-4, atol=1e-5)
        assert (found.unknown, found.fallback, len(found)) == (alone.unknown, alone.fallback, len(alone))
        if min(np.diff(alone.scores[::-1]), default=1) > 1e-4:  # no two so close that rounding could turn them round
            assert found.ids == alone.ids


WISHES = st.builds(
    Request,
    items=st.lists(st.sampled_from([*IDS, 5]), max_size=20),
    k=st.integers(1, 40),
    exclude=st.lists(st.sampled_from(IDS), max_size=3),
    allow=st.none() | st.lists(st.sampled_from(IDS), max_size=20),
    filter_seen=st.booleans(),
    diversify=st.sampled_from([0.0, 0.0, 0.5]),
)


@settings(deadline=None, max_examples=40)
@given(requests=st.lists(WISHES, max_size=5))
def test_users_with_wishes_of_their_own_are_answered_together_as_alone(
    ease: Recommender, requests: list[Request]
) -> None:
    together = ease.answer(requests)
    assert len(together) == len(requests)
    for found, request in zip(together, requests, strict=True):
        alone = ease.recommend(**vars(request))
        np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-5, atol=1e-6)
        assert (found.unknown, found.fallback, len(found)) == (alone.unknown, alone.fallback, len(alone))


def _tables() -> list[tuple[str, Any]]:
    frame = pd.DataFrame({"user": ["b", "b", "a"], "item": [1000, 990, 980]})
    texts = frame.assign(item=frame["item"].astype(str))
    named = frame.rename(columns={"user": "userId", "item": "movieId"})[["movieId", "userId"]]
    return [
        ("pandas", frame),
        ("Arrow", pa.table(frame)),
        ("ids as texts", texts),
        ("columns by name", named),
        ("a date too", frame.assign(timestamp=pd.Timestamp("2020-01-01"))),
        ("repetitions", pd.concat([frame, frame])),
        ("a mapping", {"b": [1000, 990], "a": [980]}),
    ]


@pytest.mark.parametrize("given_as", [table for _, table in _tables()], ids=[name for name, _ in _tables()])
def test_histories_of_many_come_in_every_form(ease: Recommender, given_as: Any) -> None:
    found = ease.recommend_batch(given_as, k=3)
    assert found.users == ["b", "a"]
    assert list(found) == list(ease.recommend_batch([[1000, 990], [980]], k=3))


def _forms_of_ids(ids: list[int]) -> dict[str, Any]:
    """Return forms in which the ids of one user come."""
    return {
        "tuple": tuple(ids),
        "set": set(ids),
        "generator": (item for item in ids),
        "keys": dict.fromkeys(ids).keys(),
        "values": dict(enumerate(ids)).values(),
        "array": np.array(ids),
        "array of floats": np.array(ids, dtype=np.float64),
        "array of texts": np.array(list(map(str, ids))),
        "tensor": torch.tensor(ids),
        "Series": pd.Series(ids, index=range(7, 7 + len(ids))),
        "Index": pd.Index(ids),
        "nullable Series": pd.Series(ids, dtype="Int64"),
        "Arrow": pa.array(ids),
        "chunks": pa.chunked_array([ids]),
        "arrays of Python": array.array("q", ids),
    }


@pytest.mark.parametrize("form", _forms_of_ids([1]))
def test_ids_come_in_every_form(ease: Recommender, form: str) -> None:
    def given(*ids: int) -> Any:
        return _forms_of_ids(list(ids))[form]

    found = ease.recommend(given(1000, 990, 5), 3, exclude=given(970), allow=given(*range(900, 1000, 10)))
    assert found.ids == ease.recommend([1000, 990], 3, exclude=[970], allow=range(900, 1000, 10)).ids
    assert list(map(float, found.unknown)) == [5]
    assert ease.recommend_batch([given(1000), given(990)], 3)[1] == ease.recommend([990], 3)
    assert ease.explain(given(1000, 990), given(970)) == ease.explain([1000, 990], [970])


def test_histories_come_as_a_column_of_lists(ease: Recommender) -> None:
    frame = pd.DataFrame({"user": ["b", "b", "a"], "item": [1000, 990, 980]})
    expected = list(ease.recommend_batch([[1000, 990], [980]], k=3))
    grouped = frame.groupby("user", sort=False)["item"].apply(list)
    assert ease.recommend_batch(grouped, k=3).users == ["b", "a"]
    lists = pa.array([[1000, 990], [980]])
    texts = np.array([["1000", "990"], ["980", "980"]])
    for histories in (grouped, grouped.to_dict().values(), lists, pa.chunked_array([lists]), iter(grouped), texts):
        assert list(ease.recommend_batch(histories, k=3)) == expected


DENSE = np.eye(3, 32, dtype=np.float32)
MATRICES = {
    "ndarray": DENSE,
    "integers": DENSE.astype(int),
    "booleans": DENSE > 0,
    "ids in rows": np.array([[1000, 990], [980, 970]]),
    "matrix": sp.csr_matrix(DENSE).todense(),
    "tensor": torch.tensor(DENSE),
    "sparse tensor": torch.tensor(DENSE).to_sparse(),
    "three dimensions": DENSE[None],
}
MATRIX = (
    r"^got a \w+ of shape \([\d, ]+\) for histories, expected a sparse matrix, lists of ids or a table; use "
    r"scipy\.sparse\.csr_matrix\(x\) where columns are items, or x\.tolist\(\) where rows are ids$"
)


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("engine", ["run", "export"])
def test_a_dense_matrix_is_no_histories(
    ease: Recommender, exported: Callable[..., Path], engine: str, matrix: Any
) -> None:
    one: Any = ease if engine == "run" else OnnxRecommender.load(exported("ease"), threads=1)
    with pytest.raises(UsageError, match=MATRIX):
        one.recommend_batch(matrix, k=3)
    for call in (one.recommend, lambda x: one.explain(x, [970]), lambda x: one.answer([Request(items=x)])):
        with pytest.raises(
            UsageError, match=r"^got a \w+ of shape .* for a history, expected a list of ids; for many u"
        ):
            call(matrix)
    if engine == "run":
        with pytest.raises(UsageError, match=MATRIX):
            one.embed(matrix)


def test_what_way_out_a_dense_matrix_has_works(ease: Recommender) -> None:
    expected = list(ease.recommend_batch([[1000], [990], [980]], k=3))
    for matrix in (DENSE, DENSE > 0, MATRICES["matrix"], torch.tensor(DENSE)):
        assert list(ease.recommend_batch(sp.csr_matrix(matrix), k=3)) == expected
    assert list(ease.recommend_batch(np.array([[1000], [990], [980]]).tolist(), k=3)) == expected


@given(values=st.lists(st.sampled_from([0, 1]) | st.sampled_from([0.0, 1.0]), min_size=32, max_size=32))
def test_a_row_of_a_dense_matrix_is_no_history(ease: Recommender, values: list[float]) -> None:
    rows: list[Any] = [
        values,
        tuple(values),
        np.array(values),
        np.array(values) > 0,
        list(np.array(values, dtype=np.float32)),
    ]
    for row in [*rows, torch.tensor(values), pd.Series(values)]:
        for call in (ease.recommend, lambda x: ease.recommend_batch([[1000], x]), lambda x: ease.explain(x, [970])):
            with pytest.raises(
                UsageError, match=r"^got 32 numbers for a history, as many as there are items and nearly"
            ):
                call(row)
    for name in ("exclude", "allow"):
        mask: dict[str, Any] = {name: np.array(values) > 0}
        with pytest.raises(UsageError, match=f"^got 32 numbers for {name}, .* expected ids; for a row of a matrix use"):
            ease.recommend([1000], **mask)


def test_a_dense_row_of_ratings_is_no_history_and_a_long_history_is_one(ease: Recommender) -> None:
    ratings: list[Any] = [0, 5, 0, 3.5, *[0] * 28]
    with pytest.raises(UsageError, match=r"^got 32 numbers for a history"):
        ease.recommend(ratings)
    assert ease.recommend(IDS, 3, filter_seen=False).ids
    assert ease.recommend([*IDS[:20], *[0] * 12], 3).unknown == [0] * 12


@pytest.mark.parametrize(
    "table", [pd.DataFrame({"item": [1000, 990]}), pa.table({"item": [1000]}), pa.record_batch({"item": [1000]})]
)
def test_a_table_is_no_history_of_one_user(ease: Recommender, table: Any) -> None:
    for call in (ease.recommend, lambda x: ease.recommend([1000], exclude=x), lambda x: ease.recommend_batch([x])):
        with pytest.raises(
            UsageError,
            match=r"^got a \w+ for (a history|exclude), expected a list of ids; pass its column of items, e\.g\. table",
        ):
            call(table)


@pytest.mark.parametrize(
    "given_as",
    [
        {"user": [1, 1], "item": [1000, 990]},
        [{"user": 1, "item": 1000}, {"user": 1, "item": 990}],
        [{"userId": 1, "movieId": 1000, "rating": 4.0}],
    ],
    ids=["columns", "rows", "rows with more"],
)
def test_columns_in_a_mapping_are_no_histories(ease: Recommender, given_as: Any) -> None:
    message = (
        r"^got columns of user\w* and \w+ for histories, expected ids; make a table of them, e\.g\. with pandas\.Dat"
    )
    with pytest.raises(UsageError, match=message):
        ease.recommend_batch(given_as)


@pytest.mark.parametrize("items", [[[1000, 990], [980]], [np.array([1000])], [{1000: 1.0}], [(1000, 1.0)]])
def test_a_list_is_no_id(ease: Recommender, items: Any) -> None:
    message = (
        r"^got a \w+ as an id in (a history|allow), expected a number or a text; for many users use recommend_batch"
    )
    for call in (ease.recommend, lambda x: ease.recommend_batch([x]), lambda x: ease.recommend([1000], allow=x)):
        with pytest.raises(UsageError, match=message):
            call(items)


def test_a_matrix_has_the_columns_of_the_index(ease: Recommender) -> None:
    matrix = sp.csr_matrix(np.eye(2, 32), dtype=np.float32)
    assert list(ease.recommend_batch(matrix, k=3)) == list(ease.recommend_batch([[1000], [990]], k=3))
    with pytest.raises(DataError, match=r"got 31 items \(columns\) in the histories, expected 32"):
        ease.recommend_batch(matrix[:, 1:])
    assert len(ease.recommend_batch(matrix[:0])) == 0


def test_polars_tables_are_read_too(ease: Recommender) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"user": ["b", "b", "a"], "item": [1000, 990, 980]})
    assert list(ease.recommend_batch(frame, k=3)) == list(ease.recommend_batch([[1000, 990], [980]], k=3))


def _categories() -> list[tuple[str, Any]]:
    columns = {"user": ["z", "z", "c", "b", "b"], "item": ["1000", "990", "980", "970", "960"]}
    known = pd.CategoricalDtype(["a", "b", "c", "z"])  # nobody is called "a"
    frame, polar = pd.DataFrame(columns), pl.DataFrame(columns)
    dictionary = pa.DictionaryArray.from_arrays(pa.array([3, 3, 4, 1, 2], pa.uint8()), ["a", "b", "b", "z", "c"])
    return [
        ("pandas", frame.astype({"user": known, "item": "category"})),
        ("pandas, sorted", frame.astype("category")),
        ("pandas, floats", frame.astype({"item": "float32"}).astype("category")),
        ("polars", polar.with_columns(pl.all().cast(pl.Categorical))),
        ("polars, an enumeration", polar.with_columns(pl.col("user").cast(pl.Enum(["a", "b", "c", "z"])))),
        ("Arrow, a value twice", pa.table({"user": dictionary, "item": columns["item"]})),
    ]


@pytest.mark.parametrize("table", [table for _, table in _categories()], ids=[name for name, _ in _categories()])
def test_of_categories_those_are_users_that_have_a_row_in_the_order_of_their_rows(
    table: Any, ease: Recommender
) -> None:
    found = ease.recommend_batch(table, k=3)
    assert found.users == ["z", "c", "b"] and not found.fallback.any()
    assert list(found) == list(ease.recommend_batch([[1000, 990], [980], [970, 960]], k=3))
    few = ease.recommend_batch(table[:2], k=3)  # which keeps its categories
    assert (few.users, few.unknown) == (["z"], [[]])


def _by_item() -> list[tuple[str, Any]]:
    plays = pd.DataFrame({"movieId": [1000, 1000, 990], "weight": [2.0, 1.0, 3.0]})
    return [
        ("counts", plays["movieId"].value_counts()),
        ("sizes", plays.groupby("movieId").size()),
        ("weights", plays.drop_duplicates("movieId").set_index("movieId")["weight"]),
    ]


@pytest.mark.parametrize("values", [values for _, values in _by_item()], ids=[name for name, _ in _by_item()])
def test_numbers_by_item_are_no_ids(values: Any, ease: Recommender) -> None:
    said = "got a Series with the items as its index for {}, expected ids; for weights of a history pass series.to_dict"
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("a history", lambda: ease.recommend(values)),
        ("a history", lambda: ease.recommend_batch([values])),
        ("exclude", lambda: ease.recommend([1000], exclude=values)),
        ("allow", lambda: ease.recommend([1000], allow=values)),
    ]
    for what, call in calls:
        with pytest.raises(UsageError, match=said.format(what)):
            call()
    assert ease.recommend(values.index, k=3).ids == ease.recommend([1000, 990], k=3).ids
    assert ease.recommend(values.to_dict(), k=3).unknown == []
    items = pd.DataFrame({"item": [1000, 990], "user": [1, 1]}, index=pd.Index([990, 1000], name="item"))["item"]
    assert ease.recommend(items, k=3) == ease.recommend([1000, 990], k=3)
    assert ease.recommend(items.rename_axis("user"), k=3) == ease.recommend([1000, 990], k=3)


ROUNDED: list[Any] = [
    [2.0**53],
    [1000, -(2.0**60)],
    [np.float32(2**24)],
    np.array([2**25], np.float32),
    np.array([2048], np.float16),
    pd.Series([2**25], dtype="float32"),
    pd.Series([2**25], dtype="Float32"),
    pl.Series([2**25], dtype=pl.Float32),
    pa.array([2.0**25], pa.float32()),
    torch.tensor([2.0**25]),
    array.array("f", [2.0**25]),
]


@pytest.mark.parametrize("ids", ROUNDED, ids=lambda ids: type(ids).__name__)
def test_floats_that_may_have_been_other_ids_are_none(ids: Any, ease: Recommender) -> None:
    said = r"got the float -?\d+ in {}, a type that is exact only below [\d,]+: different ids may have become one"
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("a history", lambda: ease.recommend(ids)),
        ("a history", lambda: ease.recommend_batch([[1000], ids])),
        ("exclude", lambda: ease.recommend([1000], exclude=ids)),
        ("allow", lambda: ease.recommend([1000], allow=ids)),
    ]
    for what, call in calls:
        with pytest.raises(UsageError, match=said.format(what)):
            call()
    with pytest.raises(UsageError, match=said.format("a history")):
        ease.recommend({2.0**53: 1.0})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=said.format("what was asked for")):
        ease.similar_items(2.0**60)  # type: ignore[arg-type]
    assert ease.recommend(np.array([1000], np.float32), k=3) == ease.recommend([1000], k=3)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("role", ["user", "item"])
def test_floats_of_a_table_that_may_have_been_other_ids_are_none(kind: str, role: str, ease: Recommender) -> None:
    large = {"float16": 3000, "float32": 2**25, "float64": 2**60}[kind]
    frame = pd.DataFrame({"user": [1, 1], "item": [1000, 990]}).astype({role: kind})
    assert list(ease.recommend_batch(frame, k=3)) == list(ease.recommend_batch([[1000, 990]], k=3))
    frame.loc[1, role] = large
    for table in (frame, frame.astype({role: "category"}) if kind != "float16" else frame):
        with pytest.raises(UsageError, match=rf"got \w+ numbers up to \d+ in {role}, a type that is exact only below"):
            ease.recommend_batch(table)


def test_unknown_ids_of_a_table_are_told_by_user(ease: Recommender) -> None:
    found = ease.recommend_batch(pd.DataFrame({"user": [7, 7, 8], "item": [1000, 5, 6]}), k=2)
    assert [one.unknown for one in found] == [[], [5], [6]][1:]
    assert [one.fallback for one in found] == [False, True]


def test_weights_count(ease: Recommender) -> None:
    plain, weighted = ease.recommend([1000, 900]), ease.recommend({1000: 1, 900: 5})
    assert plain.scores != weighted.scores
    assert ease.recommend({1000: 1.0, 900: 1}) == plain
    table = pd.DataFrame({"user": 1, "item": [1000, 900, 900], "weight": [1, 2, 5]})
    assert ease.recommend_batch(table)[0] == weighted


def test_a_batch_becomes_one_table(ease: Recommender) -> None:
    found = ease.recommend_batch({"x": [1000], "y": [1]}, k=2)
    frame = found.to_pandas()
    assert frame.columns.tolist() == ["user", "rank", "id", "title", "score", "fallback"]
    assert frame["user"].tolist() == ["x", "x", "y", "y"] and frame["rank"].tolist() == [1, 2, 1, 2]
    assert frame["id"].tolist() == [*found[0].ids, *found[1].ids]
    assert [None if pd.isna(title) else title for title in frame["title"]] == [*found[0].titles, *found[1].titles]
    assert frame["fallback"].tolist() == [False, False, True, True]
    assert found[-1] == found[0:2][1] and len(ease.recommend_batch([]).to_pandas()) == 0


@pytest.mark.parametrize("user", ["a", 2**70, "\ud800"])
def test_users_that_are_no_column_are_refused_as_a_table_alone(user: Any, ease: Recommender) -> None:
    found = ease.recommend_batch({1: [1000], user: [990]} if user == "a" else {user: [990]}, k=2)
    assert len(found[-1]) == 2
    with pytest.raises(UsageError, match=r"got users of several types \(.*\), expected one type; use strings"):
        found.to_pandas()


@settings(deadline=None, max_examples=20)
@given(history=HISTORIES, k=st.integers(1, 12), share=st.floats(0, 1))
def test_a_diversified_list_keeps_every_promise_but_the_order(
    recommender: Recommender, history: list[int], k: int, share: float
) -> None:
    if recommender.model.name == "popularity":
        with pytest.raises(UsageError, match="popularity has no item similarities"):
            recommender.recommend(history, k, diversify=0.5)
        return
    plain = recommender.recommend(history, k)
    varied = recommender.recommend(history, k, diversify=share)
    assert len(set(varied.ids)) == len(plain) and not set(varied.ids) & set(history)
    assert varied.ids[0] == plain.ids[0]


def test_variety_chooses_the_other_block_first(ease: Recommender) -> None:
    chosen = diversified(np.array([1.0, 0.9, 0.5]), np.array([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1.0]]), 3, 0.5)
    assert chosen.tolist() == [0, 2, 1]
    assert diversified(np.array([1.0, 0.9, 0.5]), np.ones((3, 3)), 2, 0.0).tolist() == [0, 1]


def test_similar_items_are_others_in_falling_order(recommender: Recommender) -> None:
    if recommender.model.name == "popularity":
        with pytest.raises(UsageError, match="use ease, als or a network"):
            recommender.similar_items(1000)
        return
    found = recommender.similar_items("1000", k=7)
    assert len(found) == 7 and 1000 not in found.ids
    assert found.scores == sorted(found.scores, reverse=True)
    assert len(recommender.similar_items(1000, k=10**9)) == 31
    assert np.mean([item > 1000 - 80 for item in found.ids]) > 0.5  # of its own block of eight


@pytest.mark.parametrize("weight", [1e-6, 1e6])
def test_the_lightest_and_the_heaviest_weight_are_computed_with(recommender: Recommender, weight: float) -> None:
    found = recommender.recommend({1000: weight, 990: 1.0, 700: weight}, k=5)
    assert len(found) == 5 and np.isfinite(found.scores).all()


def test_so_many_reasons_are_the_greatest(ease: Recommender) -> None:
    whole = ease.explain(IDS[:5], [960])[0].reasons
    assert ease.explain(IDS[:5], [960], most=2)[0].reasons == whole[:2]


def test_cosines_are_those_of_the_textbook() -> None:
    vectors = np.array([[3, 4], [-3, -4], [4, -3], [0, 0]], dtype=np.float32)
    np.testing.assert_allclose(cosines(vectors, np.array([0])), [[1, -1, 0, 0]], atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(history=HISTORIES)
def test_reasons_add_up_to_the_score_or_are_what_it_loses(recommender: Recommender, history: list[int]) -> None:
    found = recommender.recommend(history, k=3)
    explained = recommender.explain(history, found.ids)
    assert [one.id for one in explained] == found.ids and [one.title for one in explained] == found.titles
    for one, score in zip(explained, found.scores, strict=True):
        values = [value for _, _, value in one.reasons]
        assert sorted(item for item, _, _ in one.reasons) == sorted(history)
        assert values == sorted(values, reverse=True)
        if recommender.model.name in LINEAR:
            np.testing.assert_allclose(sum(values), score, rtol=1e-3, atol=1e-4)
        elif len(history) > 1:
            item, _, lost = one.reasons[0]
            rest = [other for other in history if other != item]
            without = recommender.recommend(rest, allow=[one.id]).scores[0]
            np.testing.assert_allclose(lost, score - without, rtol=1e-3, atol=1e-4)


def test_explanations_become_tables_and_ids_are_looked_up(ease: Recommender) -> None:
    (found,) = ease.explain([1000, 900, "nobody"], ["990"])
    assert found.to_pandas().columns.tolist() == ["id", "title", "contribution"] and len(found.to_pandas()) == 2
    assert ease.explain(["nobody"], [990])[0].reasons == []
    with pytest.raises(UsageError, match="unknown item 'nobody'; ids look like 1000"):
        ease.explain([1000], ["nobody"])
    with pytest.raises(UsageError, match="got a single id 990, expected a list of ids"):
        ease.explain([1000], 990)  # type: ignore[arg-type]


def test_users_have_vectors_where_the_model_has_them(recommender: Recommender) -> None:
    histories = [[1000, 990], [900], [1000, 990]]
    if recommender.model.name in ("popularity", "ease", "edlae", "sansa", "infae", "blend"):
        with pytest.raises(UsageError, match="has no user embeddings; use als or a network"):
            recommender.embed(histories)
        return
    found = recommender.embed(histories)
    nobody = recommender.embed([])
    assert (nobody.shape, nobody.dtype) == ((0, found.shape[1]), found.dtype)
    assert found.shape[0] == 3 and found.dtype == np.float32 and np.isfinite(found).all()
    np.testing.assert_allclose(found[0], found[2], rtol=1e-4, atol=1e-5)
    assert not np.allclose(found[0], found[1])


def test_sixteen_threads_are_answered_as_one(recommender: Recommender) -> None:
    histories = [[IDS[place], IDS[(7 * place + 3) % 32]] for place in range(32)] * 4
    expected = [recommender.recommend(history) for history in histories]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(recommender.recommend, histories)) == expected


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda r: r.recommend([1000], diversify=2), r"got diversify=2, expected a number in \[0, 1\]"),
        (lambda r: r.recommend([1000], exclude="990"), r"got exclude='990', expected a list of ids"),
        (lambda r: r.recommend([1000], allow=990), r"got allow=990, expected a list of ids"),
        (lambda r: r.recommend({1000: 0}), "got weight 0 for item 1000, expected a number from 1e-06 to 1e\\+06"),
        (lambda r: r.recommend({1000: float("nan")}), "got weight nan for item 1000, expected a number from"),
        (lambda r: r.recommend({1000: "much"}), "got weight 'much' for item 1000"),
        (lambda r: r.recommend({1000: 10**400}), "got weight 1000"),
        (lambda r: r.recommend({1000: 1e-46}), "got weight 1e-46 for item 1000"),  # 0 in float32
        (lambda r: r.recommend([1000], exclude=None), "got exclude=None, expected a list of ids"),
        (lambda r: r.explain([1000], [990], most=0), "got k=0, expected a whole number of items"),
        (lambda r: r.recommend_batch("1000"), "got '1000' for histories, expected a list of lists of ids"),
        (lambda r: r.recommend_batch([1000]), "got a single id 1000, expected a list of ids"),
        (lambda r: r.recommend_batch(pd.DataFrame({"item": [1]})), "could not tell which column holds the user id"),
        (lambda r: r.recommend_batch(pd.DataFrame({"user": [1, None], "item": [1, 2]})), "got empty cells in user or"),
        (
            lambda r: r.recommend_batch(pd.DataFrame({"user": [1], "item": [1], "weight": [-1.0]})),
            "got invalid values in the column weight, expected a number from",
        ),
        (lambda r: r.recommend_batch([[1000]], k=0), "expected a whole number of items, 1 or more"),
        (lambda r: r.similar_items("nobody"), "unknown item 'nobody'; ids look like 1000"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[Recommender], Any], said: str, ease: Recommender) -> None:
    with pytest.raises((UsageError, DataError), match=said):
        call(ease)
