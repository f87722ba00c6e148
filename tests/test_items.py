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
    ("asked", "columns", "unknown"),
    [
        (["jaws", "heat", "jaws"], [0, 1], []),
        (["alien", "été", 5, None], [2], ["alien", 5, None]),
        ([], [], []),
    ],
)
def test_items_are_looked_up_once_each_and_those_unknown_handed_back(
    asked: list[Any], columns: list[int], unknown: list[Any]
) -> None:
    items = ItemIndex(ids=WORDS, titles=None, train_counts=COUNTS)
    found, rest = items.columns_of(asked)
    assert (found.tolist(), found.dtype, rest) == (columns, np.int64, unknown)


def test_an_integer_and_its_text_are_the_same_item() -> None:
    items = ItemIndex(ids=np.array([318, 7]), titles=None, train_counts=np.array([1, 1]))
    assert items.columns_of(["7", np.int64(318)])[0].tolist() == [0, 1]
    assert items.columns_of(["07", 7.5])[1] == ["07", 7.5]


def test_whole_floats_are_the_integers_they_stand_for() -> None:
    index = ItemIndex(ids=np.array([50, 181]), titles=None, train_counts=np.array([2, 1]))
    columns, unknown = index.columns_of([181.0, np.float64(50), 50.5, float("nan")])
    assert columns.tolist() == [0, 1] and unknown[0] == 50.5 and len(unknown) == 2
