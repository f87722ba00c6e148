"""Items' features: tables and embeddings -> one matrix with named columns, in the order of the items."""

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from recvae.datasets import feature_tables
from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events
from recvae.datasets.feature_kinds import FeatureColumn
from recvae.datasets.features import ItemFeatures, read_features
from recvae.datasets.reading.options import LogFormat
from recvae.errors import DataError, UsageError

IDS = np.array([30, 10, 20])


def as_csv(table: dict[str, list[Any]], path: Path) -> Path:
    pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in table.items()}).to_csv(path, index=False)
    return path


def as_json_lines(table: dict[str, list[Any]], path: Path) -> Path:
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def as_json_array(table: dict[str, list[Any]], path: Path) -> Path:
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    path.write_text(json.dumps(rows))
    return path


def as_parquet(table: dict[str, list[Any]], path: Path) -> Path:
    pq.write_table(pa.table(table), path)
    return path


def as_polars(table: dict[str, list[Any]], path: Path) -> pl.DataFrame:
    return pl.DataFrame(table)


def as_arrow(table: dict[str, list[Any]], path: Path) -> pa.Table:
    return pa.table(table)


FORMS = [as_csv, as_json_lines, as_json_array, as_parquet, as_polars, as_arrow]
Form = Callable[[dict[str, list[Any]], Path], Any]


def dense(features: ItemFeatures) -> list[list[float]]:
    matrix = features.matrix
    return (matrix if isinstance(matrix, np.ndarray) else matrix.toarray()).tolist()


def read(path: Path, content: str, item_ids: np.ndarray = IDS, **options: Any) -> tuple[ItemFeatures, list[str]]:
    columns = options.pop("columns", None)
    path.write_text(content)
    return read_features(path, item_ids, LogFormat(**options), columns)


def kinds(features: ItemFeatures) -> dict[str, str]:
    return {column.name: column.kind for column in features.columns}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test may write its table; the name must not matter."""
    return tmp_path / "films"


@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_column_from_every_form(form: Form, path: Path) -> None:
    table = {
        "item_id": [10, 20, 30, 40],
        "year": [1994, None, 2001, 1950],
        "genre": ["Drama", "Crime", None, "War"],
        "tags": [["old", "good"], ["good"], [], ["bad"]],
        "vector": [[0.5, 1.0], [2.0, -1.0], [0.25, 4.0], [9.0, 9.0]],
    }
    features, warnings = read_features(form(table, path), IDS)
    assert kinds(features) == {"year": "numbers", "genre": "words", "tags": "lists", "vector": "vectors"}
    assert features.names == (
        *("year", "genre=Crime", "genre=Drama", "tags=good", "tags=old"),
        *("vector[0]", "vector[1]"),
    )
    assert dense(features) == [
        [2001, 0, 0, 0, 0, 0.25, 4],
        [1994, 0, 1, 1, 1, 0.5, 1],
        [0, 1, 0, 1, 0, 2, -1],
    ]
    assert features.is_sparse
    assert features.matrix.dtype == np.float32
    assert {column.name: column.n_without for column in features.columns} == {
        "year": 1,
        "genre": 1,
        "tags": 1,
        "vector": 0,
    }
    assert features.n_without == 0
    (warning,) = warnings
    assert warning.startswith("1 rows of ")
    assert warning.endswith(" belong to items that are not in training, e.g. 40")


@pytest.mark.parametrize("written", [["10", "20"], ["10.0", "20.0"], [" 10", "20 "], ["+10", "20"]])
def test_ids_match_in_every_spelling(path: Path, written: list[str]) -> None:
    content = f"item_id,year\n{written[0]},1\n{written[1]},2\n"
    features, _ = read(path, content)
    assert dense(features) == [[0], [0 if "+" in written[0] else 1], [2]]  # +10 is a word: no other id is written so


@pytest.mark.parametrize("ids", [[10.0, 20.0], [10, 20], ["10", "20"], pa.array([10, 20], pa.uint64())])
def test_ids_match_in_every_type(ids: Any) -> None:
    for item_ids in (IDS, IDS.astype(str).astype(object)):
        features, warnings = read_features(pa.table({"item": ids, "year": [1, 2]}), item_ids)
        assert dense(features) == [[0], [1], [2]]
        assert warnings == ["1 of 3 items have no row in the table, e.g. 30"]


def test_words_as_ids(path: Path) -> None:
    features, _ = read(path, "asin,year\nB007,1\n007,2\n", np.array(["007", "B007", "7"], dtype=object))
    assert dense(features) == [[2], [1], [0]]


def test_rows_without_an_id_are_counted(path: Path) -> None:
    _, warnings = read(path, "item_id,year\n10,1\n,2\nNULL,3\nxx,4\n", null=("xx",))
    assert warnings == [
        f"3 rows of {path} have no item id",
        f"2 of 3 items have no row in {path}, e.g. 30",
    ]


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["1.5", "", "2"], [1.5, 0, 2]),
        (["NA", "-3e2", "n/a"], [0, -300, 0]),
        (['"4,5"', "3", '"1,25"'], [4.5, 3, 1.25]),
        (["true", "False", "TRUE"], [1, 0, 1]),
        ([".5", "5.", "+1"], [0.5, 5, 1]),
    ],
)
def test_numbers_as_they_are_written(path: Path, values: list[str], numbers: list[float]) -> None:
    content = "item_id,price\n" + "".join(f"{item},{value}\n" for item, value in zip(IDS, values, strict=True))
    features, _ = read(path, content)
    assert features.columns[0].kind == "numbers"
    assert [row[0] for row in dense(features)] == numbers
    assert not features.is_sparse


def test_codes_with_a_leading_zero_are_words(path: Path) -> None:
    features, _ = read(path, "item_id,zip\n10,02139\n20,10115\n30,02139\n")
    assert features.names == ("zip=02139", "zip=10115")


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["Drama|Crime", "Drama", "(no genres listed)"], ("genres=Crime", "genres=Drama")),
        (["\"['Drama', 'Crime']\"", "\"['Drama']\"", "[]"], ("genres=Crime", "genres=Drama")),
        (['"[""Drama"", ""Crime""]"', '"[""Drama""]"', ""], ("genres=Crime", "genres=Drama")),
        ([" Drama | Crime ", "Drama|", "|"], ("genres=Crime", "genres=Drama")),
    ],
)
def test_lists_as_they_are_written(path: Path, cells: list[str], names: tuple[str, ...]) -> None:
    content = "item_id,genres\n" + "".join(f"{item},{cell}\n" for item, cell in zip(IDS, cells, strict=True))
    features, _ = read(path, content)
    assert features.names == names
    assert kinds(features) == {"genres": "lists"}
    assert dense(features) == [[1, 1], [0, 1], [0, 0]]
    assert features.n_without == features.columns[0].n_without == 1


def test_lists_of_ids_of_unequal_length_are_words() -> None:
    features, _ = read_features(pa.table({"item": [10, 20], "genres": [[18, 35], [18]]}), IDS)
    assert features.names == ("genres=18", "genres=35")
    assert dense(features) == [[0, 0], [1, 1], [1, 0]]


def test_vectors_of_a_fixed_length_and_as_numpy_writes_them(path: Path) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2, 3, 4], pa.float32()), 2)
    features, _ = read_features(pa.table({"item": [10, 20], "v": column}), IDS)
    assert dense(features) == [[0, 0], [1, 2], [3, 4]]
    features, _ = read(path, 'item_id:token,v:float_seq\n10,1 2\n20,"3 4"\n')
    assert features.names == ("v[0]", "v[1]")
    assert dense(features) == [[0, 0], [1, 2], [3, 4]]


def test_types_behind_the_names_as_recbole_writes_them(path: Path) -> None:
    content = (
        "item_id:token\tyear:token\tclass:token_seq\tprice:float\n10\t1994\tDrama Crime\t007\n20\t1994\tDrama\t1.5\n"
    )
    features, _ = read(path, content)
    assert features.names == ("year=1994", "class=Crime", "class=Drama", "price")
    assert dense(features)[1] == [1, 1, 1, 7]


def test_without_a_header_columns_have_their_positions_as_names(path: Path) -> None:
    features, _ = read(path, "10::Heat (1995)::Action|Crime\n20::Ran::Crime\n")
    assert features.names[-2:] == ("3=Action", "3=Crime")


def test_a_key_that_only_a_late_object_has_is_a_column(path: Path) -> None:
    lines = [json.dumps({"item": 100 + number, "year": 1}) for number in range(3000)]
    path.write_text("\n".join([*lines, json.dumps({"item": 10, "award": "Palme"})]) + "\n")
    features, _ = read_features(path, np.array([10, 100]))
    assert features.names == ("year", "award=Palme")


def many(column: str, cells: list[str]) -> str:
    return f"item_id,{column}\n" + "".join(f"{item},{cell}\n" for item, cell in enumerate(cells))


MANY = np.arange(100)


def test_a_column_of_titles_is_left_out_unless_it_is_chosen(path: Path) -> None:
    content = "item_id,title,genre\n" + "".join(f"{item},Film {item},Drama\n" for item in MANY)
    features, warnings = read(path, content, MANY)
    assert features.names == ("genre=Drama",)
    assert warnings == [
        f"{path}: column 'title' holds 100 different words for 100 values, so nearly every item has its own, and is "
        "left out; take it with --feature-col 'title'"
    ]
    features, warnings = read(path, content, MANY, columns=["title"])
    assert len(features.names) == 100
    assert not warnings


def test_another_id_is_left_out_unless_it_is_chosen(path: Path) -> None:
    content = "item_id,imdbId,year\n" + "".join(f"{item},{7 * item},{1990 + item % 9}\n" for item in MANY)
    features, warnings = read(path, content, MANY)
    assert features.names == ("year",)
    assert warnings == [
        f"{path}: column 'imdbId' looks like another id, and is left out; take it with --feature-col 'imdbId'"
    ]
    assert read(path, content, MANY, columns=["imdbId"])[0].names == ("imdbId",)


def test_columns_that_cannot_be_features_are_left_out_and_said(path: Path) -> None:
    table = pa.table({"item": [10, 20], "a": [{"b": 1}, {"b": 2}], "nothing": pa.nulls(2), "year": [1, 2]})
    features, warnings = read_features(table, np.array([10, 20]))
    assert features.names == ("year",)
    assert warnings == [
        "the table: column 'a' holds STRUCT(b BIGINT), expected numbers, texts or lists of these, and is left out",
        "the table: column 'nothing' is empty, and left out",
    ]
    with pytest.raises(DataError, match=r"column 'a' holds STRUCT.*, expected numbers, .*; convert it, or leave it"):
        read_features(table, IDS, columns=["a"])
    path.write_text('{"item": 10, "a": {"b": 1}, "year": 1}\n{"item": 20, "a": {"b": 2}, "year": 1}\n')
    features, warnings = read_features(path, np.array([10, 20]))
    assert features.names == ("year",)
    assert warnings == [f"{path}: column 'a' holds JSON objects, expected texts, numbers or lists, and is left out"]
    path.write_text(",item_id,year\n0,10,1\n1,20,2\n")  # as pandas writes a table with its index
    features, warnings = read_features(path, np.array([10, 20]))
    assert features.names == ("year",)
    assert warnings == [f"{path}: a column without a name is left out"]


def test_words_of_several_rows_are_joined(path: Path) -> None:
    content = "item_id,genre,year\n10,Drama,1994\n10,Crime,\n20,Drama,1995\n10,Drama,1994\n30,,\n"
    features, warnings = read(path, content)
    assert features.names == ("genre=Crime", "genre=Drama", "year")
    assert dense(features) == [[0, 0, 0], [1, 1, 1994], [0, 1, 1995]]
    assert warnings == [f"1 items have several rows in {path}, e.g. 10; their words are joined"]


def test_files_with_columns_in_another_order_and_of_another_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item": [10], "year": [1994], "genre": ["Drama"]}), tmp_path / "a")
    pq.write_table(pa.table({"genre": ["Crime"], "year": ["1995"], "item": ["20"]}), tmp_path / "b")
    features, _ = read_features([tmp_path / "a", tmp_path / "b"], IDS)
    assert features.names == ("year", "genre=Crime", "genre=Drama")
    assert dense(features) == [[0, 0, 0], [1994, 0, 1], [1995, 1, 0]]
    assert features.source["files"] == 2
    pq.write_table(pa.table({"item": [20], "year": [[1995.0]], "genre": ["Drama"]}), tmp_path / "b")
    with pytest.raises(DataError, match=r"column 'year' holds lists in one file and single values in another; write"):
        read_features([tmp_path / "a", tmp_path / "b"], IDS)


LONG = ["1"] * 60 + ["2"] * 39


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("item_id,year\n1,1\n2,2\n", "none of its 2 items is in the data set; its ids look like '1', those of the data "
         "set like '30'; name the column of ids with --id-col"),
        ("item_id,year\n,1\nNULL,2\n", "none of its 0 items is in the data set; its ids look like empty, "),
        ("what,year\n10,1\n", "could not tell which column holds the item id; it has: what, year; .*--id-col$"),
        ("what,who\nx,y\nz,a\n", "cannot tell whether 'what, who' .*; name the column of item ids with --id-col$"),
        ("item_id\n10\n20\n", "got one column .*'item_id'; expected at least a column of item ids and another one"),
        ("item_id,a,a\n10,1,2\n", "has several columns 'a', expected different names; rename one of them"),
        ("item_id,a\n10,\n20,\n", "no column that can be a feature .*column 'a' is empty.*; choose columns with"),
        ("item_id,a\n10,1\n10,2\n", "column 'a': item 10 has 1 and 2 in several rows, expected one number; keep one"),
        ("item_id,a\n10,1\n20,inf\n", "column 'a': item 20 has inf, expected finite numbers; repair or empty"),
        ("item_id,a\n10,1\n20,1e39\n", "column 'a': item 20 has 1e\\+39, expected finite numbers; repair or empty"),
        ('item_id,a\n10,"1,000"\n20,5\n', "column 'a' holds '1,000', which could be a decimal comma or a thousands "),
        ("item_id,a:float\n10,x\n20,5\n", "column 'a:float': item 10 has 'x', but 1 of 2 values are numbers; repair"),
        ('item_id,v\n10,"[1, 2]"\n20,"[3]"\n30,"[.5"\n', "column 'v': item 30 has '\\[.5', expected a list of texts"),
        ('item_id,v\n10,"[1, 2]"\n20,"[[3]]"\n', "column 'v': item 20 has '\\[\\[3\\]\\]', expected a list of texts"),
        ('item_id,v\n10,"[1, 2.5]"\n20,"[3]"\n', "item 10 has 2 numbers and item 20 has 1, expected vectors of the "
         "same length; repair the rows"),
        ('item_id,v\n10,"[1, 2.5]"\n20,"[3, NaN]"\n', "the vector of item 20 holds nan at place 1, expected finite "),
        ('item_id,v\n10,"[1, 2.5]"\n20,"[3, 1e999]"\n', "the vector of item 20 holds inf at place 1, expected finite "),
        ('item_id,v\n10,"[1, 2.5]"\n20,"[3, null]"\n', "the vector of item 20 holds nan at place 1, expected finite "),
        ('item_id,v\n10,"[1, 2.5]"\n10,"[3, 4]"\n', "item 10 has several rows with different vectors, expected one "),
        ('{"item": [10, 20], "a": 1}\n', "column 'item' holds lists of items, expected one item per row; write a row"),
        ("10 20 30\n20 1\n", "column 'item' holds lists of items, expected one item per row; write a row for each"),
        ("item_id,a=b,a\n10,c,b=c\n", "two columns make the feature 'a=b=c', expected different names; rename"),
        ("item_id,a\n10.5,1\n", "none of its 1 items is in the data set; its ids look like '10.5'"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_refused(path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(path, content)


def test_a_mistake_among_numbers_is_refused_by_name(path: Path) -> None:
    content = many("price", [*LONG, "abc"])
    with pytest.raises(
        DataError,
        match=r"column 'price': item 99 has 'abc', but 99 of 100 values are numbers; repair or empty the value, call "
        r"the column 'price:token' if it holds words, or choose other columns with --feature-col$",
    ):
        read(path, content, MANY)
    features, _ = read(path, content.replace("price", "price:token"), MANY)
    assert features.names == ("price=1", "price=2", "price=abc")


def test_too_many_words_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_tables, "MOST_WORDS", 3)
    with pytest.raises(
        DataError, match=r"has 4 different words, 3 of them in column 'b', expected at most 3; choose other columns"
    ):
        read(path, "item_id,a,b\n10,x,y|z\n20,x,w\n")


def test_wrong_uses_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file at .*films; check the path$"):
        read_features(path, IDS)
    with pytest.raises(UsageError, match="got no file of features, expected at least one"):
        read_features([], IDS)
    with pytest.raises(UsageError, match="got int for a log, expected a table of pandas, polars or Arrow"):
        read_features(7, IDS)
    content = "item_id,genres,year\n10,Drama,1\n"
    with pytest.raises(
        UsageError,
        match=r"has no column of features 'genre'; it has: genres, year; did you mean --feature-col genres\?$",
    ):
        read(path, content, columns=["genre"])
    with pytest.raises(UsageError, match=r"it has: genres, year; choose some of them with --feature-col$"):
        read(path, content, columns=["item_id"])
    with pytest.raises(UsageError, match=r"has no column 'movie'; it has: item_id, genres, year; name one .*--id-col$"):
        read(path, content, item="movie")
    with pytest.raises(DataError, match="the table has no column but the item ids, expected features; add columns"):
        read_features(pa.table({"item": [10]}), IDS)
    np.save(tmp_path / "a.npy", np.zeros((40, 2)))
    with pytest.raises(UsageError, match=r"got .*a\.npy and other files, expected a single file of embeddings; give"):
        read_features([tmp_path / "a.npy", path], IDS)
    with pytest.raises(UsageError, match=r"got --feature-col with .*a\.npy, which has no names of columns; leave it"):
        read_features(tmp_path / "a.npy", IDS, columns=["a"])


def test_columns_and_the_id_are_chosen_by_name(path: Path) -> None:
    content = "item_id,film,genre,year\n1,10,Drama,1\n2,20,Crime,2\n3,30,War,3\n"
    features, warnings = read(path, content, item="film", columns=["year"])
    assert features.names == ("year",)
    assert dense(features) == [[3], [1], [2]]
    assert not warnings
    assert features.source["columns"] == {"item": "film"}
    assert len(features.source["sha256"]) == 64


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, bool])
def test_embeddings_by_number(tmp_path: Path, dtype: Any) -> None:
    vectors = (np.arange(82).reshape(41, 2) % 5).astype(dtype)
    np.save(tmp_path / "model.npy", vectors)
    features, warnings = read_features(tmp_path / "model.npy", IDS)
    np.testing.assert_array_equal(features.matrix, vectors[IDS].astype(np.float32))
    assert features.names == ("model[0]", "model[1]")
    assert kinds(features) == {"model": "vectors"}
    assert warnings == [f"38 rows of {tmp_path / 'model.npy'} belong to items that are not in training"]


def test_embeddings_by_id(tmp_path: Path) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = tmp_path / "any name"
    save_file({"ids": np.array([10, 30, 7]), "text": vectors}, path)
    for item_ids in (IDS, IDS.astype(str).astype(object)):
        features, warnings = read_features(path, item_ids)
        assert dense(features) == [[2, 3], [0, 1], [0, 0]]
        assert features.names == ("text[0]", "text[1]")
        assert warnings == [
            f"1 rows of {path} belong to items that are not in training",
            f"1 of 3 items have no row in {path}, e.g. 20",
        ]
    save_file({"a": np.zeros((31, 1)), "b": np.ones((31, 1))}, path)
    assert dense(read_features(path, IDS, columns=["b"])[0]) == [[1], [1], [1]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(40), r"got float64 of shape \(40,\), expected a matrix of numbers with a row for each item; save it"),
        (np.zeros((40, 2, 2)), r"got float64 of shape \(40, 2, 2\), expected a matrix of numbers"),
        (np.zeros((40, 0)), r"got float64 of shape \(40, 0\), expected a matrix of numbers"),
        (np.zeros((40, 2), np.complex64), r"got complex64 of shape \(40, 2\), expected a matrix of numbers"),
        (np.zeros((40, 2), "U3"), r"got <U3 of shape \(40, 2\), expected a matrix of numbers"),
        (np.full((40, 2), np.nan), r"the vector of item 30 holds nan at place 0, expected finite numbers; repair it"),
        (np.full((40, 2), 1e39), r"the vector of item 30 holds 1e\+39 at place 0, expected finite numbers; repair it"),
        (np.zeros((30, 2)), r"row i belongs to item i, counted from 0; it has 30 rows, but ids run from 10 to 30;"),
        (np.array([[None, 1]]), r"holds Python objects, which could run any code, expected numbers; save an array of"),
    ],
)  # fmt: skip
def test_an_array_that_cannot_be_used_is_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=array.dtype == object)
    with pytest.raises(DataError, match=rf"a\.npy.*{message}"):
        read_features(tmp_path / "a.npy", IDS)


def test_arrays_that_are_damaged_or_pickled_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((40, 2)))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"a\.npy is damaged \(.*\); write it again$"):
        read_features(path, IDS)
    path.write_bytes(pickle.dumps(np.zeros((40, 2))))
    with pytest.raises(DataError, match=r"is a pickle, which could run any code, expected text or Parquet; write it"):
        read_features(path, IDS)
    np.save(path, np.zeros((40, 2)))
    with pytest.raises(
        DataError, match=r"has no ids, so row i would belong to item i, but ids look like 'a'; write saf"
    ):
        read_features(path, np.array(["a", "b"], dtype=object))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"ids": np.array([1, 2]), "a": np.zeros((2, 1))}, "none of its 2 items is in the data set; its ids look like "
         "1, those of the data set like '30'; write the ids of the log"),
        ({"ids": np.array([10, 10]), "a": np.zeros((2, 1))}, "item 10 occurs 2 times in 'ids', expected each item"),
        ({"ids": np.array([10.0]), "a": np.zeros((1, 1))}, r"got 'ids' of type float64 and shape \(1,\) for 1 rows, "),
        ({"ids": np.array([10, 20]), "a": np.zeros((1, 1))}, r"got 'ids' of type int64 and shape \(2,\) for 1 rows, "),
        ({"a": np.zeros((1, 1)), "b": np.zeros((1, 1))}, "has the tensors a, b, expected one matrix .*; choose one"),
        ({"ids": np.array([10])}, "has the tensors none, expected one matrix"),
    ],
)  # fmt: skip
def test_tensors_that_cannot_be_used_are_refused(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    save_file(tensors, tmp_path / "a")
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / "a", IDS)


def test_tensors_that_are_not_there_or_of_another_type(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": np.zeros((31, 1)), "b": np.zeros((31, 1))}, path)
    with pytest.raises(UsageError, match=r"has the tensors a, b, got --feature-col c, expected one of them; choose"):
        read_features(path, IDS, columns=["c"])
    header = json.dumps({"a": {"dtype": "BF16", "shape": [31, 1], "data_offsets": [0, 62]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(62))
    with pytest.raises(DataError, match="tensor 'a' is of type BF16, expected float32; convert it first"):
        read_features(path, IDS)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"a\.safetensors is damaged \(.*\); write it again"):
        read_features(path, IDS)


@pytest.mark.parametrize(
    ("matrix", "names", "message"),
    [
        ([[1]], ("a",), "got list for features, expected a matrix of shape"),
        (np.zeros(3), ("a",), "got ndarray for features, expected a matrix of shape"),
        (np.array([["x"]]), ("a",), "got features of type <U1, expected float32; convert them with astype"),
        (np.zeros((1, 2)), ("a",), r"got 1 names \(1 different\) for 2 features, expected a name of its own for each"),
        (np.zeros((1, 2)), ("a", "a"), r"got 2 names \(1 different\) for 2 features, expected a name of its own"),
        (np.array([[np.inf]]), ("a",), "got features that are NaN or infinite, expected finite numbers; replace them"),
        (sp.csr_matrix([[np.nan]]), ("a",), "got features that are NaN or infinite, expected finite numbers"),
    ],
)
def test_a_matrix_that_cannot_be_features_is_refused(matrix: Any, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ItemFeatures(matrix=matrix, names=names)


def test_items_whose_features_are_all_0_have_none() -> None:
    matrix = np.array([[0, 0], [1, 0], [0, 0]])
    assert ItemFeatures(matrix=matrix, names=("a", "b")).n_without == 2
    stored = sp.csr_matrix((np.array([0.0, 1.0]), (np.array([0, 1]), np.array([1, 0]))), shape=(3, 2))
    features = ItemFeatures(matrix=stored, names=("a", "b"))
    assert features.n_without == 2
    assert features.matrix.dtype == np.float32


@pytest.fixture
def log() -> Events:
    """Return a log of 20 users and 12 items, with the ids 0, 10, ... 110."""
    pairs = [(user, 10 * ((user + step) % 12)) for user in range(20) for step in range(8)]
    return Events.from_columns([user for user, _ in pairs], [item for _, item in pairs])


TABLE = pd.DataFrame({"item": [10 * item for item in range(11)], "genre": ["Drama", "Crime|War"] * 5 + [None]})


def made(log: Events, **options: Any) -> Dataset:
    return Dataset.from_events(log, name="toy", split="holdout", **options)


@pytest.mark.parametrize("vectors", [False, True])
def test_a_data_set_keeps_its_features(log: Events, tmp_path: Path, vectors: bool) -> None:
    plain = made(log)
    given: Any = TABLE
    if vectors:
        given = tmp_path / "model.npy"
        np.save(given, np.arange(222, dtype=np.float32).reshape(111, 2))
    dataset = made(log, features=given)
    assert dataset.features is not None
    assert dataset.features.is_sparse != vectors
    assert dataset.fingerprint == plain.fingerprint
    dataset.save(tmp_path / "toy")
    loaded = Dataset.load(tmp_path / "toy")
    assert loaded.features is not None
    assert dense(loaded.features) == dense(dataset.features)
    assert loaded.features.matrix.dtype == np.float32
    assert loaded.features.names == dataset.features.names
    assert loaded.features.columns == dataset.features.columns
    assert loaded.features.fingerprint == dataset.features.fingerprint
    assert loaded.manifest == dataset.manifest
    entry = loaded.manifest["features"]
    assert entry["form"] == ("dense" if vectors else "sparse")
    assert entry["items_without"] == (0 if vectors else 2)
    assert entry["n_features"] == len(loaded.features.names)
    assert loaded.with_features(loaded.features).features is loaded.features


def test_a_data_set_without_features_stays_as_it_was(log: Events, tmp_path: Path) -> None:
    dataset = made(log)
    dataset.save(tmp_path / "toy")
    assert Dataset.load(tmp_path / "toy").features is None
    assert not list((tmp_path / "toy").glob("features*"))
    assert "features" not in dataset.manifest
    with_features = dataset.with_features(TABLE)
    replace(with_features, features=None).save(tmp_path / "toy")
    assert Dataset.load(tmp_path / "toy").features is None
    replace(dataset, features=with_features.features).save(tmp_path / "toy")
    assert Dataset.load(tmp_path / "toy").features is not None


def test_features_of_other_items_are_refused(log: Events) -> None:
    features = ItemFeatures(matrix=np.zeros((3, 1)), names=("a",))
    with pytest.raises(
        UsageError, match="got features of 3 items, expected a row for each of the 12 items of toy, in the order of"
    ):
        made(log, features=features)


def changed_matrix(folder: Path) -> None:
    matrix = sp.csr_matrix(sp.load_npz(folder / "features.npz"))
    matrix.data[0] = 7
    sp.save_npz(folder / "features.npz", matrix)


def changed_names(folder: Path) -> None:
    names = json.loads((folder / "features.json").read_text())["names"]
    (folder / "features.json").write_text(json.dumps({"names": names[::-1]}))


def fewer_items(folder: Path) -> None:
    sp.save_npz(folder / "features.npz", sp.csr_matrix(sp.load_npz(folder / "features.npz"))[:-1])


def one_name_less(folder: Path) -> None:
    (folder / "features.json").write_text(json.dumps({"names": ["a"]}))


def cut(folder: Path) -> None:
    (folder / "features.npz").write_bytes((folder / "features.npz").read_bytes()[:100])


def other_entry(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["features"]["columns"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            changed_matrix,
            r"damaged \(got features of shape \(12, 3\) with .*, expected .* for 12 items as in the manifest\);",
        ),
        (changed_names, r"damaged \(got features of shape \(12, 3\) with fingerprint .*, expected"),
        (fewer_items, r"damaged \(got features of shape \(11, 3\) with fingerprint .* for 12 items"),
        (one_name_less, r"damaged \(got 1 names \(1 different\) for 3 features, .*\); preprocess again"),
        (cut, r"toy is damaged \(.*\); preprocess again"),
        (lambda folder: (folder / "features.npz").unlink(), r"toy is damaged \(.*features\.npz.*\); preprocess again"),
        (
            lambda folder: (folder / "features.json").unlink(),
            r"toy is damaged \(.*features\.json.*\); preprocess again",
        ),
        (other_entry, r"toy is damaged \('columns'\); preprocess again"),
    ],
)
def test_damaged_features_are_found(log: Events, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    made(log, features=TABLE).save(tmp_path / "toy")
    damage(tmp_path / "toy")
    with pytest.raises(DataError, match=message) as raised:
        Dataset.load(tmp_path / "toy")
    assert str(raised.value).count("is damaged") == 1


words = st.lists(st.sampled_from(["Drama", "Crime", "War", "a b", "Über", "x=y", "7"]), max_size=3)
rows = st.lists(st.tuples(st.integers(0, 9), words, st.sampled_from(["red", "blue", ""])), min_size=1, max_size=25)


@pytest.mark.slow
@given(rows=rows, item_ids=st.permutations(list(range(12))), n_items=st.integers(1, 12))
def test_words_are_what_pandas_makes_of_them(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, list[str], str]],
    item_ids: list[int],
    n_items: int,
) -> None:
    known = np.array(item_ids[:n_items])
    table: Any = pd.DataFrame(rows, columns=["item", "tags", "colour"])
    kept = table[table["item"].isin(known)]
    tags, colours = kept.explode("tags")[["item", "tags"]].dropna(), kept[kept["colour"] != ""]
    parts: list[Any] = [
        pd.get_dummies(part.set_index("item")[name], prefix=name, prefix_sep="=").groupby(level=0).max()
        for name, part in (("tags", tags), ("colour", colours))
        if len(part)
    ]
    path = tmp_path_factory.mktemp("rows") / "films.jsonl"
    table.to_json(path, orient="records", lines=True)
    if not parts:
        with pytest.raises(DataError, match=r"none of its|has no column that can be a feature"):
            read_features(path, known)
        return
    aligned: list[pd.DataFrame] = [part.reindex(known, fill_value=False) for part in parts]
    expected = pd.concat(aligned, axis=1).astype(np.float32)
    features, _ = read_features(path, known, columns=["tags", "colour"])
    assert features.names == tuple(expected.columns)
    assert dense(features) == expected.to_numpy().tolist()
    assert features.n_without == int((expected.sum(axis=1) == 0).sum())


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Events) -> Path:
    """Return a folder with a log, films and embeddings, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECVAE_DATA", raising=False)
    users, items = log.user_ids[log.users], log.item_ids[log.items]
    pd.DataFrame({"user_id": users, "item_id": items}).to_csv("log.csv", index=False)
    TABLE.rename(columns={"item": "film"}).assign(title="Film", year=1990).to_csv("films.csv", index=False)
    np.save("model.npy", np.ones((500, 2), np.float32))
    return tmp_path


OWN = ("preprocess", "log.csv", "--split", "holdout")


def test_the_command_keeps_features(command: Callable[..., Any], workplace: Path) -> None:
    said = command(*OWN, "--features", "films.csv", "--titles", "films.csv", "--id-col", "film")
    assert said.code == 0, said.err
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.out.splitlines() if "│" in line]
    assert cells[-4:] == [
        ["genre", "lists", "3", "2"],
        ["title", "words", "1", "1"],
        ["year", "numbers", "1", "1"],
        ["all", "sparse", "5", "1"],
    ]
    assert "warning: 1 of 12 items have no row in films.csv, e.g. 110" in said.err
    dataset = Dataset.load("data/log")
    assert dataset.features is not None
    assert dataset.features.names == ("genre=Crime", "genre=Drama", "genre=War", "title=Film", "year")
    assert dataset.titles is not None
    said = command(
        *OWN, "--overwrite", "--features", "films.csv", "--id-col", "film", "--feature-col", "year", "--json"
    )
    entry = json.loads(said.out)["features"]
    assert entry["columns"] == [FeatureColumn("year", "numbers", 1, 1).to_json()]
    assert entry["source"]["file"] == "films.csv"
    assert entry["warnings"] == ["1 of 12 items have no row in films.csv, e.g. 110"]
    assert command("train", "--model", "popularity", "--data", "log").code == 0


def test_the_command_takes_embeddings_and_titles_with_other_ids(command: Callable[..., Any], workplace: Path) -> None:
    Path("titles.csv").write_text("item_id,title\n10,Heat\n")
    said = command(*OWN, "--features", "films.csv", "--titles", "titles.csv", "--id-col", "film")
    assert said.code == 0, said.err
    said = command(
        "preprocess", "synthetic", "--users", "90", "--items", "90", "--events", "1900", "--features", "model.npy"
    )
    assert said.code == 0, said.err
    assert Dataset.load("data/synthetic").features is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--feature-col", "year"),
            "got --feature-col without --features, where it has no effect; add --features FILE",
        ),
        (("--id-col", "film"), "got --id-col without --titles and --features, where it has no effect; add one of them"),
        (("--features", "none.csv"), "no file at none.csv; check the path"),
        (
            ("--features", "model.npy", "--id-col", "film"),
            "got --id-col with model.npy, which has no columns; leave it",
        ),
        (("--features", "films.csv", "--id-col", "fil"), "has no column 'fil'; .*; did you mean --id-col film\\?"),
    ],
)
def test_options_of_features_that_cannot_be_used(
    command: Callable[..., Any], workplace: Path, options: tuple[str, ...], message: str
) -> None:
    said = command(*OWN, *options)
    assert said.code == 2
    assert re.search(message, said.err)
    assert not Path("data/log").exists()
