"""Ids that look alike are told, and stay apart: Unicode forms, invisible signs, blanks of other widths."""

import re
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recvae.datasets.logs import events_of, read_events
from recvae.datasets.reading.twins import twins_of

SIGNS = "aé\u0301e \u00a0\u3000\u200b\u00adB²"


def _look(text: str) -> str:
    seen = re.sub("[\u00ad\u200b-\u200f\u2060\ufeff]", "", unicodedata.normalize("NFC", text))
    return re.sub(r"\s+", " ", seen)


@given(st.lists(st.text(SIGNS, max_size=4), unique=True, max_size=30))
def test_as_many_look_alike_as_python_finds(texts: list[str]) -> None:
    ids = np.array(sorted(texts), dtype=object)
    looks = [_look(text) for text in ids]
    found = twins_of(ids)
    assert (0 if found is None else found.n_ids) == len(looks) - len(set(looks))
    if found is not None:
        assert found.first != found.second
        assert _look(found.first) == _look(found.second)


FORM = "in one form, in Python unicodedata.normalize('NFC', text)"
SIGNS_AND_BLANKS = "without invisible signs, and with single blanks of one kind"


@pytest.mark.parametrize(
    ("first", "second", "advice"),
    [
        ("Bj\u00f6rk", "Bjo\u0308rk", FORM),
        ("Sigur R\u00f3s", "Sigur\u00a0R\u00f3s", SIGNS_AND_BLANKS),
        ("The Who", "The  Who", SIGNS_AND_BLANKS),
        ("AC/DC", "AC/\u200bDC", SIGNS_AND_BLANKS),
        ("\ud55c\uae00", unicodedata.normalize("NFD", "\ud55c\uae00"), FORM),
    ],
)
@pytest.mark.parametrize("role", ["user", "item"])
def test_a_log_with_two_forms_of_an_id_says_so_and_keeps_both(
    first: str, second: str, advice: str, role: str, tmp_path: Path
) -> None:
    """The advice is one that helps: the form of Unicode says nothing of blanks."""
    assert (len({unicodedata.normalize("NFC", one) for one in (first, second)}) == 1) == (advice == FORM)
    log = pd.DataFrame({"user": ["a", "b", "c"], "item": ["x", "y", "z"]})
    log[role] = [first, second, "other"]
    log.to_csv(tmp_path / "log.csv", index=False)
    for events in (read_events(tmp_path / "log.csv"), events_of(log)):
        ids = events.user_ids if role == "user" else events.item_ids
        assert sorted(ids) == sorted([first, second, "other"])
        low, high = sorted([first, second])
        assert events.reading is not None
        assert events.reading.warnings() == [
            f"1 {role} id looks like another one, e.g. {low!a} and {high!a}, and stays apart; if they are "
            f"one, write the file {advice}"
        ]
        assert events.reading.to_json()["alike"] == {role: {"n_ids": 1, "first": low, "second": high}}


@pytest.mark.parametrize("ids", [["a", "A", "b c", "bc", "x\u00b2", "x2", "\uff21"], list(range(9)), []])
def test_ids_that_look_different_are_not_named(ids: list) -> None:
    assert twins_of(np.array(ids, dtype=np.int64 if ids and isinstance(ids[0], int) else object)) is None


def test_several_are_counted_without_the_one_that_they_look_like() -> None:
    found = twins_of(np.array(["a b", "a  b", "a\u00a0b", "c", "d e", "d\u3000e"], dtype=object))
    assert found is not None
    assert found.n_ids == 3
