"""Ratings that are not read are named: who trains on high ratings only and gives a file of all is told so."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recvae.recommenders.history_files import HistoryFile, options_like

Command = Callable[..., Any]
SAID = "is not read: every row counts as an interaction, but low ratings were left out of the training data"
EVERY = "every row counts, whatever its rating: a split made elsewhere is taken as it is"


def log(heading: bool = True, low: bool = True) -> str:
    """Return ratings of 60 users, as CSV; half of them are low."""
    rng = np.random.default_rng(3)
    lines = ["user,item,rating"] if heading else []
    for user in range(60):
        items = rng.choice(24, size=12, replace=False)
        lines += [f"{user},{item},{(place % 2) * 3 + 2 if low else 5}" for place, item in enumerate(items)]
    return "\n".join(lines) + "\n"


@pytest.fixture
def run(workplace: Path, command: Command) -> Callable[..., None]:
    """Return a function that trains EASE on a log."""

    def trained(text: str, *words: str) -> None:
        Path("log.csv").write_text(text)
        said = command("preprocess", "log.csv", "--name", "toy", "--heldout-users", 8, *words)
        assert said.code == 0, said.err
        assert command("train", "--model", "ease", "--name", "ease").code == 0

    return trained


def answer(command: Command, name: str, content: str | pd.DataFrame) -> tuple[str, list[Any]]:
    """Write a file of histories, and return what is said and the answers."""
    if isinstance(content, str):
        Path(name).write_text(content)
    else:
        content.to_parquet(name)
    said = command("recommend", "ease", "--input", name, "--output", "recs.jsonl", "-k", 3)
    assert said.code == 0, said.err
    return said.err, [json.loads(line) for line in Path("recs.jsonl").read_text().splitlines()]


FILES: Mapping[str, tuple[str, str | pd.DataFrame, str | None]] = {
    "of the log's form": ("h.csv", "user,item,rating\nann,3,1\nann,4,5\n", "rating"),
    "under another usual name": ("h.csv", "user,item,stars\nann,3,1\nann,4,5\n", "stars"),
    "beside weights": ("h.csv", "user,item,weight,rating\nann,3,1,2\nann,4,1,5\n", "rating"),
    "in Parquet": ("h.parquet", pd.DataFrame({"user": ["ann", "ann"], "item": [3, 4], "rating": [1, 5]}), "rating"),
    "in JSON lines": ("h.jsonl", '{"user":"ann","item":3,"rating":1}\n{"user":"ann","item":4,"rating":5}\n', "rating"),
    "nowhere": ("h.csv", "user,item\nann,3\nann,4\n", None),
    "only weights": ("h.csv", "user,item,weight\nann,3,1\nann,4,1\n", None),
}


@pytest.mark.parametrize("where", FILES)
def test_a_column_of_ratings_in_histories_is_named_and_changes_nothing(
    where: str, run: Callable[..., None], command: Command
) -> None:
    run(log())
    name, content, column = FILES[where]
    said, found = answer(command, name, content)
    assert (f"column '{column}' {SAID}" in said) if column else (SAID not in said)
    assert found == answer(command, "plain.csv", "user,item\nann,3\nann,4\n")[1]


def test_ratings_without_a_header_are_no_weights_where_the_log_has_ratings_there(
    run: Callable[..., None], command: Command
) -> None:
    run(log(heading=False))
    said, found = answer(command, "h.csv", "7,3,1\n7,4,5\n")
    assert f"column '3' {SAID}" in said
    assert "read user = 1, item = 2\n" in said
    assert found == answer(command, "plain.csv", "7,3\n7,4\n")[1]


@pytest.mark.parametrize("words", [("--no-rating",), ("--min-rating", "0"), ()])
def test_nothing_is_said_where_training_left_nothing_out(
    words: tuple[str, ...], run: Callable[..., None], command: Command
) -> None:
    run(log(low=bool(words)), *words)
    assert SAID not in answer(command, "h.csv", "user,item,rating\nann,3,1\nann,4,5\n")[0]


@pytest.mark.parametrize(
    "filters", [{}, {"steps": None}, {"steps": [{"name": "as read"}, {"name": "rating >= 4"}]}, {"steps": [3, 4]}]
)
def test_a_manifest_of_another_hand_says_nothing_of_ratings_and_keeps_its_columns(filters: Any, tmp_path: Path) -> None:
    columns = {"user": "who", "item": "what", "rating": "how"}
    known = options_like({"source": {"reading": {"columns": columns}}, "filters": filters})
    assert known.usual == (("user", "who"), ("item", "what"))
    path = tmp_path / "h.csv"
    path.write_text("who,what,how\n1,2,3\n")
    with HistoryFile(path, known) as file:
        assert file.ratings is None


def test_a_split_made_elsewhere_says_that_ratings_of_any_height_count(workplace: Path, command: Command) -> None:
    lines = log().splitlines()
    for name, rows in (("train.csv", lines[1::2] + lines[2::4]), ("test.csv", lines[4::4])):
        Path(name).write_text("\n".join([lines[0], *rows]) + "\n")
    said = command("preprocess", "--train", "train.csv", "--test", "test.csv", "--name", "toy")
    assert said.code == 0 and EVERY in said.out
    for name in ("train.csv", "test.csv"):
        Path(name).write_text("\n".join(line.rpartition(",")[0] for line in Path(name).read_text().splitlines()))
    said = command("preprocess", "--train", "train.csv", "--test", "test.csv", "--name", "toy", "--overwrite")
    assert said.code == 0 and EVERY not in said.out
