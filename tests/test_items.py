"""The item index: from external ids to columns and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recvae.items import ItemIndex

WORDS = np.array(["heat", "jaws", "été"], dtype=object)
TITLES = np.array(["Heat (1995)", None, "L'Été"], dtype=object)
COUNTS = np.array([3, 0, 1])


@pytest.mark.parametrize("ids", [WORDS, np.array([318, -7, 2**62])])
@pytest.mark.parametrize("titles", [TITLES, None])
def test_an_index_reads_back_as_it_was_written(tmp_path: Path, ids: np.ndarray, titles: np.ndarray | None) -> None:
    ItemIndex(ids=ids, titles=titles, train_counts=COUNTS).write(tmp_path / "items.parquet")
    items = ItemIndex.read(tmp_path / "items.parquet")
    assert (items.ids.tolist(), items.ids.dtype) == (ids.tolist(), ids.dtype)
    assert items.train_counts.tolist() == COUNTS.tolist()
    expected = [None, None, None] if titles is None else titles.tolist()
    assert [items.title_of(column) for column in range(len(items))] == expected


@pytest.mark.parametrize(
    ("asked", "columns"),
    [(["jaws", "heat", "jaws"], [1, 0, 1]), (["alien", "été", 5, None], [None, 2, None, None])],
)
def test_items_are_looked_up_by_their_words(asked: list[Any], columns: list[int | None]) -> None:
    items = ItemIndex(ids=WORDS, titles=None, train_counts=COUNTS)
    assert [items.column_of(item) for item in asked] == columns


def test_an_integer_and_its_text_are_the_same_item() -> None:
    items = ItemIndex(ids=np.array([318, 7]), titles=None, train_counts=np.array([1, 1]))
    assert [items.column_of(item) for item in ("7", np.int64(318), "318.0", " 7", "7.00")] == [1, 0, 0, 1, 1]
    assert [items.column_of(item) for item in ("07", 7.5, "7.5", "")] == [None] * 4


def test_whole_floats_are_the_integers_they_stand_for() -> None:
    index = ItemIndex(ids=np.array([50, 181]), titles=None, train_counts=np.array([2, 1]))
    assert [index.column_of(item) for item in (181.0, np.float64(50), 50.5, float("nan"))] == [1, 0, None, None]


def test_a_mask_has_the_known_items_of_a_list() -> None:
    items = ItemIndex(ids=np.array([30, 10, 20]), titles=None, train_counts=np.zeros(3, dtype=np.int64))
    assert items.mask_of(iter([20, "30", 30, "x"])).tolist() == [True, False, True]
    assert items.mask_of([]).tolist() == [False] * 3


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("heat", [0, 3, 4]),  # begins with it, a word begins with it, within a word
        ("HEAT 1995", [0]),
        ("ete", [2]),
        ("l'été", [2]),
        ("jaws", [1]),  # has no title, is found by its id
        ("heat jaws", []),
        ("", []),
        ("?!", []),
    ],
)
def test_items_are_found_by_words_of_their_titles(text: str, columns: list[int]) -> None:
    titles = np.array(["Heat (1995)", None, "L'Été", "In the Heat of the Night", "Cheats"], dtype=object)
    ids = np.array(["heat", "jaws", "été", "night", "cheats"], dtype=object)
    items = ItemIndex(ids=ids, titles=titles, train_counts=np.arange(5))
    assert items.search(text) == columns
    assert items.search(text, 1) == columns[:1]


def test_among_equals_the_item_of_more_users_is_found_first() -> None:
    titles = np.array(["Alien", "Alien 3", "Aliens"], dtype=object)
    items = ItemIndex(ids=np.arange(3), titles=titles, train_counts=np.array([5, 2, 9]))
    assert items.search("alien") == [2, 0, 1]
