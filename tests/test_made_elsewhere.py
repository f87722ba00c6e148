"""Splits made elsewhere: what was left out of every file is told, and who is in two of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recvae import Dataset
from recvae.datasets.preparation import prepare_pair, prepare_parts
from recvae.datasets.protocol import PreparedDataset
from recvae.datasets.reading.options import LogFormat

TRAIN = "user,item\n1,10\n1,11\n1,13\n2,10\n2,12\n2,13\n3,11\n3,12\n3,13\n"
BAD = "user,item\n{row}\n,11\nNULL,13\n{user},\n\n# a remark\n{row}\nxx\n{row}\n"
HELD_OUT = {"valid_fold_in": "4,10", "valid_targets": "4,11", "test_fold_in": "5,10", "test_targets": "5,13"}
SKIP = LogFormat(on_bad_row="skip")
LEFT_OUT = ({"rows without a user id": 2, "rows without an item id": 1}, {"malformed rows": 1, "comment lines": 1})


def pair(folder: Path, **files: str) -> PreparedDataset:
    texts = {"train": TRAIN, "test": "user,item\n1,12\n", "valid": "user,item\n2,11\n"} | files
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    paths: dict[str, Any] = {name: folder / f"{name}.csv" for name in texts}
    return prepare_pair(**paths, name="made", log_format=SKIP)


def parts(folder: Path, **files: str) -> PreparedDataset:
    texts = {"train": TRAIN} | {name: f"user,item\n{row}\n" for name, row in HELD_OUT.items()} | files
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    paths: dict[str, Any] = {name: folder / f"{name}.csv" for name in texts}
    return prepare_parts(**paths, name="made", log_format=SKIP)


PLACES = [(pair, "test", "1,12"), (pair, "valid", "2,11"), *((parts, name, row) for name, row in HELD_OUT.items())]


@pytest.mark.parametrize(("prepare", "role", "row"), PLACES)
def test_what_is_left_out_of_any_file_is_told(
    prepare: Callable[..., PreparedDataset], role: str, row: str, tmp_path: Path
) -> None:
    """Only that of the training file was: rows of the others were gone without a word."""
    made = prepare(tmp_path, **{role: BAD.format(row=row, user=row[0])})
    reading = made.others[role]
    assert (reading.dropped, {**reading.skipped, "blank lines": 0}) == (LEFT_OUT[0], {**LEFT_OUT[1], "blank lines": 0})
    assert made.dataset.manifest["source"][role]["reading"] == reading.to_json()
    assert made.dataset.manifest["dropped"][f"{role.replace('_', ' ')} events that repeat another"] == 2
    assert set(made.others) == set(made.dataset.manifest["source"]) - {"name", "train", "reading"}


@pytest.mark.parametrize("option", [{}, {"on_bad_row": "skip"}, {"null": ("x",)}])
def test_lists_are_lists_whatever_else_is_said(option: dict[str, Any], tmp_path: Path) -> None:
    """Users with two items each were a table of users, items and ratings as soon as an option was given."""
    (tmp_path / "train.txt").write_text("".join(f"{user} {user % 5} {5 + user % 3}\n" for user in range(39, -1, -1)))
    (tmp_path / "test.txt").write_text("".join(f"{user} {(user + 1) % 5}\n" for user in range(39, -1, -1)))
    paths = (tmp_path / "train.txt", tmp_path / "test.txt")
    assert prepare_pair(*paths, name="made", log_format=LogFormat(**option)).dataset.test.fold_in.nnz == 80
    for of_tables in (LogFormat(separator=" "), LogFormat(without=("rating",)), LogFormat(user="1", item="2")):
        table = prepare_pair(*paths, name="made", log_format=of_tables)
        assert table.dataset.test.fold_in.nnz == 40


def test_the_command_tells_it_of_each_file(command: Callable[..., Any], workplace: Path) -> None:
    pair(Path(), test=BAD.format(row="1,12", user=1))
    said = command("preprocess", "--train", "train.csv", "--test", "test.csv", "--name", "made", "--on-bad-row", "skip")
    assert said.code == 0, said.err
    for line in ("test: read: 6 rows", "test: left out: 1 malformed row", "test: left out: 2 rows without a user id"):
        assert line in said.out, said.out
    assert "dropped: 2 test events that repeat another" in said.out
    assert Dataset.load("data/made").fingerprint


def test_held_out_users_who_are_training_users_are_told(tmp_path: Path) -> None:
    """A model has seen what it is asked for, or two files call different people by one number."""
    assert parts(tmp_path).warnings == []
    seen = parts(tmp_path, test_targets="user,item\n1,11\n5,13\n", valid_targets="user,item\n2,11\n4,11\n")
    assert seen.warnings == [
        "1 of 2 validation users are training users too, by their ids",
        "1 of 2 test users are training users too, by their ids; targets of theirs that were trained on: 1",
    ]
