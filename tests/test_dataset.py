"""A data set on disk: equal to the bit when it is read back, refused when anything in it has changed."""

import json
import os
import re
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from recvae import __version__
from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events, Filters
from recvae.datasets.splits.base import Split
from recvae.datasets.splits.protocols import PROTOCOLS
from recvae.datasets.splits.ready_made import ready_made
from recvae.errors import DataError, StorageError, UsageError
from recvae.interactions import HeldOut

MakeLog = Callable[..., Events]
MATRICES = ("train.npz", "validation/fold_in.npz", "validation/targets.npz", "test/fold_in.npz", "test/targets.npz")
FILES = (
    "manifest.json",
    "items.parquet",
    "train_users.parquet",
    "validation/users.parquet",
    "test/users.parquet",
    *MATRICES,
)


@pytest.fixture(scope="session")
def dataset(random_log: MakeLog) -> Dataset:
    titles = {f"film {item}": f'Amélie {item}, or: "{item}"' for item in range(975, 1001, 2)}
    return Dataset.from_events(
        random_log(words=True),
        name="toy",
        filters=Filters(),
        heldout_users=6,
        titles=titles,
        source={"file": "toy"},
    )


@pytest.fixture(scope="session")
def saved(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the data set, for reading only."""
    folder = tmp_path_factory.mktemp("data") / "toy"
    dataset.save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder, to be damaged."""
    return shutil.copytree(saved, tmp_path / "toy")


def matrices_of(dataset: Dataset | Split) -> list[sp.csr_matrix]:
    parts = (dataset.validation, dataset.test)
    return [dataset.train, *(matrix for part in parts for matrix in (part.fold_in, part.targets))]


def assert_equal(one: Dataset, other: Dataset) -> None:
    for first, second in zip(matrices_of(one), matrices_of(other), strict=True):
        assert first.shape == second.shape
        for name in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
            assert getattr(first, name).dtype == getattr(second, name).dtype
    for name in ("item_ids", "titles"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.item_ids.dtype == other.item_ids.dtype
    for first, second in ((one.validation, other.validation), (one.test, other.test)):
        np.testing.assert_array_equal(first.user_ids, second.user_ids)
        assert first.user_ids.dtype == second.user_ids.dtype
    assert one.manifest == other.manifest


# --- what it is


def test_words_and_titles_come_back_equal_to_the_bit(dataset: Dataset, saved: Path) -> None:
    assert dataset.titles is not None
    assert {type(title) for title in dataset.titles} == {str, type(None)}
    assert_equal(Dataset.load(saved), dataset)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_comes_back_equal_to_the_bit(random_log: MakeLog, tmp_path: Path, protocol: str) -> None:
    dataset = Dataset.from_events(random_log(), name="toy", split=protocol)
    dataset.save(str(tmp_path / "toy"))
    assert dataset.titles is None
    assert_equal(Dataset.load(str(tmp_path / "toy")), dataset)


def test_a_folder_holds_these_files_and_no_others(saved: Path) -> None:
    assert {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()} == set(FILES)


def test_the_manifest_tells_the_whole_story(dataset: Dataset) -> None:
    manifest = dict(dataset.manifest)
    assert datetime.fromisoformat(manifest.pop("created")).tzinfo is not None
    assert re.fullmatch("[0-9a-f]{64}", manifest.pop("fingerprint"))
    manifest["source"] = dict(manifest["source"])
    reading = dict(manifest["source"].pop("reading"))
    assert (reading.pop("rows"), reading.pop("events"), reading.pop("dropped"), reading.pop("skipped")) == (
        500,
        500,
        {},
        {},
    )
    assert reading.pop("form") == {"form": "a table in memory"} and reading.pop("times")["form"] == "seconds"
    assert {*reading} == {"columns", "ratings"}
    train, validation, test = dataset.train, dataset.validation, dataset.test
    steps = [
        {"name": "as read", "events": 500, "users": 40, "items": 30},
        {"name": "duplicates dropped", "events": 500, "users": 40, "items": 30},
        {"name": "users with >= 5 items", "events": 500, "users": 40, "items": 30},
    ]
    assert manifest == {
        "format": 1,
        "name": "toy",
        "recvae": __version__,
        "source": {"file": "toy"},
        "filters": {"min_rating": None, "min_user_items": 5, "min_item_users": 0, "steps": steps},
        "protocol": {"split": "strong", "seed": 98765, "target_share": 0.2, "heldout_users": 6},
        "counts": {
            "items": 30,
            "train_users": 28,
            "train_interactions": train.nnz,
            "validation_users": 6,
            "validation_fold_in": validation.fold_in.nnz,
            "validation_targets": validation.targets.nnz,
            "validation_users_without_target": 0,
            "test_users": 6,
            "test_fold_in": test.fold_in.nnz,
            "test_targets": test.targets.nnz,
            "test_users_without_target": 0,
        },
        "dropped": {"held-out events on items not in training": 0},
    }
    assert sum(matrix.nnz for matrix in matrices_of(dataset)) == 500


def test_the_filters_asked_for_are_applied_and_told(random_log: MakeLog) -> None:
    dataset = Dataset.from_events(random_log(), name="toy", filters=Filters(min_rating=3), split="holdout")
    assert dataset.manifest["filters"]["steps"][1]["name"] == "rating >= 3"
    assert dataset.manifest["protocol"] == {"split": "holdout", "seed": 98765, "target_share": 0.2}


def test_a_tenth_of_the_users_are_held_out_by_default(random_log: MakeLog) -> None:
    dataset = Dataset.from_events(random_log(), name="toy", filters=Filters())
    assert dataset.manifest["protocol"]["heldout_users"] == 4
    assert (dataset.train.shape[0], dataset.validation.n_users, dataset.test.n_users) == (32, 4, 4)


def test_by_default_the_filters_are_those_of_the_command(random_log: MakeLog) -> None:
    log = random_log()
    steps = Dataset.from_events(log, name="toy").manifest["filters"]["steps"]
    assert [step["name"] for step in steps] == [
        "as read",
        "rating >= 4",
        "duplicates dropped",
        "users with >= 5 items",
    ]
    without = Events.from_columns(log.user_ids[log.users], log.item_ids[log.items])
    assert Dataset.from_events(without, name="toy").manifest["filters"]["min_rating"] is None


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", ".hidden", "two words"])
def test_a_name_that_would_be_a_path_is_refused(random_log: MakeLog, name: str) -> None:
    with pytest.raises(UsageError, match=f"^got name '{re.escape(name)}', expected letters, digits, . _ - only"):
        Dataset.from_events(random_log(), name=name)


def test_a_data_set_whose_manifest_has_a_path_for_a_name_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"name": "../../evil"}))
    with pytest.raises(DataError, match=r"is damaged: its manifest has the name '\.\./\.\./evil'; preprocess again$"):
        Dataset.load(folder)


def test_a_ready_made_split_needs_no_filters(random_log: MakeLog) -> None:
    split = ready_made(random_log(1), random_log(2))
    dataset = Dataset.from_split(split, name="pair")
    assert dataset.manifest["protocol"] == {"split": "ready-made", "seed": 98765, "validation_share": 0.1}
    assert (dataset.name, dataset.manifest["filters"], dataset.manifest["source"]) == ("pair", {}, {})
    assert dataset.manifest["dropped"] == split.dropped


def test_parts_are_found_by_name(dataset: Dataset) -> None:
    assert dataset.part("test") is dataset.test
    assert dataset.part("validation") is dataset.validation
    with pytest.raises(UsageError, match="got split 'train', expected one of: validation, test"):
        dataset.part("train")


# --- the fingerprint


def split_of(dataset: Dataset) -> Split:
    return Split(train=dataset.train, validation=dataset.validation, test=dataset.test, item_ids=dataset.item_ids)


def fingerprint(split: Split, **about: Any) -> str:
    return Dataset.from_split(split, **{"name": "toy", **about}).fingerprint


def test_the_fingerprint_is_of_the_content_alone(dataset: Dataset) -> None:
    split = split_of(dataset)
    assert fingerprint(split) == dataset.fingerprint
    assert fingerprint(split, name="other", titles={"film 1000": "Heat"}, source={"file": "x"}) == dataset.fingerprint


def changed(matrix: sp.csr_matrix, how: str) -> sp.csr_matrix:
    """Return a matrix of the same shape in which a single thing is different."""
    if how == "another user":
        first_row_shorter = matrix.indptr - (np.arange(len(matrix.indptr)) == 1)
        return sp.csr_matrix((matrix.data, matrix.indices, first_row_shorter), matrix.shape)
    other = matrix.tolil()
    row, column = (int(position[0]) for position in matrix.nonzero())
    if how == "one less":
        other[row, column] = 0
    elif how == "another weight":
        other[row, column] = 2
    else:
        other[row, int(np.flatnonzero(matrix[row].toarray() == 0)[0])] = 1
    return sp.csr_matrix(other)


@pytest.mark.parametrize("how", ["one less", "one more", "another weight", "another user"])
@pytest.mark.parametrize("which", range(5), ids=MATRICES)
def test_the_fingerprint_changes_with_any_interaction(dataset: Dataset, which: int, how: str) -> None:
    matrices = matrices_of(dataset)
    matrices[which] = changed(matrices[which], how)
    train, *rest = matrices
    validation, test = HeldOut(fold_in=rest[0], targets=rest[1]), HeldOut(fold_in=rest[2], targets=rest[3])
    assert (
        fingerprint(Split(train=train, validation=validation, test=test, item_ids=dataset.item_ids))
        != dataset.fingerprint
    )


def test_the_fingerprint_changes_with_ids_their_order_and_the_parts(dataset: Dataset) -> None:
    split = split_of(dataset)
    others = [
        replace(split, item_ids=split.item_ids[::-1]),
        replace(split, item_ids=np.where(split.item_ids == "film 1000", "film 7", split.item_ids)),
        replace(split, validation=split.test, test=split.validation),
        replace(split, train=split.train[::-1]),
    ]
    assert len({dataset.fingerprint, *map(fingerprint, others)}) == 5


# --- damage


def edit(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("manifest.json", "train_users.parquet")])
def test_a_folder_without_one_of_its_files_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"^{folder} is damaged \(.*{name}.*\); preprocess again$"):
        Dataset.load(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 3, 100, -20])
def test_a_folder_with_a_truncated_file_is_refused(folder: Path, name: str, keep: int) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:keep])
    with pytest.raises(DataError, match=f"^{folder} is damaged .*; preprocess again$"):
        Dataset.load(folder)


def test_no_folder_and_no_data_set_are_wrong_use(tmp_path: Path) -> None:
    for folder, what in (
        (tmp_path / "none", "does not exist"),
        (tmp_path, "has no manifest.json, so it is not a finished data set"),
    ):
        with pytest.raises(UsageError, match=f"^{folder} {what}; make one with `recvae preprocess`$"):
            Dataset.load(folder)


def test_a_newer_format_asks_for_an_upgrade(folder: Path) -> None:
    edit(folder, format=3)
    message = "has format 3, this version reads up to 2; upgrade recvae, or preprocess again"
    with pytest.raises(DataError, match=f"^{folder} {message}$"):
        Dataset.load(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null", "{}", '{"format": "one"}', '{"format": null}', "not JSON"])
def test_a_manifest_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=rf"^{folder} is damaged \(.*\); preprocess again$"):
        Dataset.load(folder)


def test_content_that_is_not_what_the_manifest_says_is_refused(folder: Path, dataset: Dataset) -> None:
    found = dataset.fingerprint[:12]
    edit(folder, fingerprint="0" * 64)
    message = f"its content has fingerprint {found}, its manifest says 000000000000; preprocess again"
    with pytest.raises(DataError, match=f"^{folder} is damaged: {message}$"):
        Dataset.load(folder)
    edit(folder, fingerprint=dataset.fingerprint)
    shutil.copy(folder / "test" / "targets.npz", folder / "validation" / "targets.npz")
    with pytest.raises(DataError, match=f"its content has fingerprint .*, its manifest says {found}; preprocess again"):
        Dataset.load(folder)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [(6, 1, "File 'indices.npy' is encrypted"), (8, 99, "That compression method is not supported"), (8, 8, "Bad CRC")],
)
def test_a_matrix_that_says_it_is_packed_in_another_way_is_refused(
    folder: Path, field: int, value: int, reason: str
) -> None:
    content = bytearray((folder / "train.npz").read_bytes())
    content[field] = content[content.index(b"PK\x01\x02") + field + 2] = value  # both headers of a zip's first file
    (folder / "train.npz").write_bytes(content)
    with pytest.raises(DataError, match=rf"^{folder} is damaged \({reason}.*; preprocess again$"):
        Dataset.load(folder)


def test_a_title_or_user_that_has_changed_is_refused(folder: Path, saved: Path, dataset: Dataset) -> None:
    for name, text in (("items.parquet", "Amélie"), ("test/users.parquet", dataset.test.user_ids[0])):
        content = (saved / name).read_bytes()
        (folder / name).write_bytes(content.replace(text.encode(), text.encode()[::-1], 1))
        with pytest.raises(DataError, match=rf"^{folder} is damaged \(.*checksum"):
            Dataset.load(folder)
        (folder / name).write_bytes(content)


def test_users_that_do_not_fit_their_matrices_are_refused(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / "test" / "users.parquet").slice(1), folder / "test" / "users.parquet")
    message = rf"^{folder} is damaged \(got 5 user ids for 6 users, expected one for each\); preprocess again$"
    with pytest.raises(DataError, match=message):
        Dataset.load(folder)


class Evil:
    """What a pickle would run."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("entry", ["data", "format", "shape"])
def test_pickled_content_is_refused_and_not_run(folder: Path, tmp_path: Path, entry: str) -> None:
    arrays: dict[str, Any] = dict(np.load(folder / "train.npz"))
    arrays[entry] = np.array([Evil(tmp_path / "proof")], dtype=object)
    np.savez(folder / "train.npz", allow_pickle=True, **arrays)
    with pytest.raises(DataError, match=f"^{folder} is damaged .*allow_pickle=False"):
        Dataset.load(folder)
    assert not (tmp_path / "proof").exists()
    np.load(folder / "train.npz", allow_pickle=True)[entry]
    assert (tmp_path / "proof").exists(), "the trap itself works"


@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_flipped_byte_changes_nothing_or_is_refused(
    dataset: Dataset, saved: Path, tmp_path_factory: pytest.TempPathFactory, name: str, where: float, change: int
) -> None:
    folder = shutil.copytree(saved, tmp_path_factory.mktemp("flipped"), dirs_exist_ok=True)
    content = bytearray((folder / name).read_bytes())
    content[int(where * len(content))] ^= change
    (folder / name).write_bytes(content)
    try:
        found = Dataset.load(folder)
    except (DataError, UsageError) as error:
        assert str(folder) in str(error)
    else:
        for first, second in zip(matrices_of(found), matrices_of(dataset), strict=True):
            np.testing.assert_array_equal(first.toarray(), second.toarray())
        assert found.item_ids.tolist() == dataset.item_ids.tolist()


# --- writing it, and its size


def test_a_data_set_that_cannot_be_written_leaves_the_old_one(
    dataset: Dataset, folder: Path, random_log: MakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", refuse)
    other = Dataset.from_events(random_log(3), name="other")
    with pytest.raises(StorageError, match=f"^could not write {folder}: the disk is full; free some space"):
        other.save(folder)
    assert_equal(Dataset.load(folder), dataset)
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("shards", [False, True])
def test_what_could_not_be_read_again_is_not_written(dataset: Dataset, tmp_path: Path, shards: bool) -> None:
    """It was written without a word, and called damaged when it was read."""
    held_out = replace(dataset.test, targets=sp.csr_matrix(dataset.test.targets[::-1]))
    others = {
        r"its manifest is of others \(fingerprint \w{12}\)": [
            replace(dataset, train=dataset.train[1:], train_user_ids=None),
            replace(dataset, test=held_out),
            replace(dataset, item_ids=dataset.item_ids[::-1]),
        ],
        "it has no manifest": [replace(dataset, manifest={})],
    }
    for why, made in others.items():
        for one in made:
            with pytest.raises(UsageError, match=f"put together by hand: {why}, so that it could not be read again"):
                one.save(tmp_path / "toy", shards=shards)
    assert not list(tmp_path.iterdir())
    split = Split(train=dataset.train[1:], validation=dataset.validation, test=held_out, item_ids=dataset.item_ids)
    Dataset.from_split(split, name="toy").save(tmp_path / "toy", shards=shards)
    assert Dataset.load(tmp_path / "toy").train.shape[0] == dataset.train.shape[0] - 1


def test_nothing_of_users_times_items_is_ever_dense(tmp_path: Path) -> None:
    """As dense bytes, 200,000 users by 50,000 items are 10 GB; sparse, a million events are some tens of MB."""
    users = np.repeat(np.arange(200_000), 5)
    items = (users * 7919 + np.tile(np.arange(5), 200_000) ** 2) % 50_000
    tracemalloc.start()
    try:
        dataset = Dataset.from_events(Events.from_columns(users, items), name="large")
        dataset.save(tmp_path / "large")
        assert Dataset.load(tmp_path / "large").fingerprint == dataset.fingerprint
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert dataset.train.shape == (180_000, 50_000)
    assert peak < 400 * 2**20
