"""Weights in several files with an index: read as they were, in files of the size asked for, and checked."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from safetensors.numpy import load_file

from recvae.bundles.bundle import Bundle, read_bundle, write_bundle
from recvae.errors import BundleError, StorageError, UsageError
from recvae.items import ItemIndex
from recvae.models import Popularity
from recvae.storage.arrays import streams_of
from recvae.storage.streams import Stream, write_streams
from recvae.storage.weight_files import (
    index_of,
    is_of_weights,
    names_of_weights,
    read_weight_files,
    remove_weights,
    write_weight_files,
)

Command = Callable[..., Any]
NAME = "weights.safetensors"


def some() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.random((101, 7), dtype=np.float32),
        "a.bias": rng.random(101, dtype=np.float32),
        "one row": rng.random((1, 300), dtype=np.float32),
        "none": np.empty((0, 4), np.float32),
        "scalar": np.array(3.5),
        "whole": rng.integers(0, 9, 32),
        "wide": rng.random((3, 200), dtype=np.float32),
    }


def pieces_of(array: np.ndarray, n_rows: int) -> Stream:
    def parts() -> Iterator[np.ndarray]:
        for start in range(0, len(array), n_rows):
            yield array[start : start + n_rows]

    return Stream(str(array.dtype), array.shape, parts)


@pytest.mark.parametrize("file_bytes", [40, 500, 1000, 10**6])
@pytest.mark.parametrize("n_rows", [1, 13, 1000])
def test_what_is_written_in_parts_is_read_whole(file_bytes: int, n_rows: int, tmp_path: Path) -> None:
    arrays = some()
    streams = {
        name: pieces_of(one, n_rows) if one.ndim else streams_of({name: one})[name] for name, one in arrays.items()
    }
    write_weight_files(tmp_path / NAME, streams, file_bytes)
    listed = sorted(path.name for path in tmp_path.iterdir())
    names = names_of_weights(NAME, [*listed, "../evil-00001-of-00002.safetensors", "items.parquet"])
    assert sorted(names) == listed and NAME not in listed
    for mapped in (True, False):
        found = read_weight_files(tmp_path, names, mapped)
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found[name], array)


def test_the_index_is_that_of_hugging_face_and_files_keep_to_their_size(tmp_path: Path) -> None:
    arrays = some()
    write_weight_files(tmp_path / NAME, streams_of(arrays), 1000)
    index = json.loads((tmp_path / index_of(NAME)).read_text())
    assert index["metadata"] == {"total_size": sum(array.nbytes for array in arrays.values())}
    assert set(index) == {"metadata", "weight_map"}
    held: dict[str, np.ndarray] = {}
    for name in set(index["weight_map"].values()):
        of_file = load_file(tmp_path / name)
        assert of_file.keys() == {key for key, file in index["weight_map"].items() if file == name}
        assert sum(array.nbytes for array in of_file.values()) <= 1000 or list(of_file) == ["one row"]
        held |= of_file
    rows = [key for key in held if key.startswith("a.weight[")]
    assert sorted(rows) == ["a.weight[0:32]", "a.weight[32:64]", "a.weight[64:96]", "a.weight[96:101]"]
    np.testing.assert_array_equal(held["a.weight[32:64]"], arrays["a.weight"][32:64])
    assert {"a.bias", "one row", "none", "scalar", "whole"} <= held.keys()
    assert math.prod(held["wide[0:1]"].shape) == 200


def test_files_of_another_kind_do_not_stay_beside_them(tmp_path: Path) -> None:
    def listed() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    (tmp_path / "other-00001-of-00001.safetensors").touch()
    write_weight_files(tmp_path / NAME, streams_of(some()), 500)
    write_weight_files(tmp_path / NAME, streams_of(some()), 10**6)
    assert listed() == ["other-00001-of-00001.safetensors", "weights-00001-of-00001.safetensors", index_of(NAME)]
    write_weight_files(tmp_path / NAME, streams_of(some()))
    assert listed() == ["other-00001-of-00001.safetensors", NAME] and is_of_weights(NAME, NAME)
    assert names_of_weights(NAME, listed()) == [NAME]
    remove_weights(tmp_path / NAME)
    remove_weights(tmp_path / "nowhere" / NAME)
    assert listed() == ["other-00001-of-00001.safetensors"]


def test_what_cannot_be_written_so_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^got an array named w\[0:3\], which is the name of some rows; give"):
        write_weight_files(tmp_path / NAME, streams_of({"w[0:3]": np.ones(3)}), 1000)
    with pytest.raises(StorageError, match=r"^got 100,000 files of 8 bytes for .*, expected 99,999 at most; let"):
        write_weight_files(tmp_path / NAME, streams_of({"w": np.ones(100_000)}), 8)
    with pytest.raises(ValueError, match=r"^the parts of w have 8 bytes, expected 16"):
        write_streams(tmp_path / "w", {"w": Stream("float64", (2,), lambda: [np.ones(1)])})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    train = sp.csr_matrix((rng.random((30, 64)) < 0.3).astype(np.float32))
    items = ItemIndex(ids=np.arange(64), titles=None, train_counts=np.ones(64, np.int64))
    write_bundle(tmp_path / "run", Bundle(model=Popularity().fit(train), items=items), file_bytes=100)
    return tmp_path / "run"


def test_a_bundle_in_several_files_is_read_and_each_missing_or_damaged_one_is_named(bundle: Path) -> None:
    whole = {path.name: path.read_bytes() for path in bundle.iterdir()}
    parts = [name for name in whole if is_of_weights(NAME, name)]
    assert len(parts) > 2 and read_bundle(bundle).model.n_items_ == 64
    for name in parts:
        for damage, words in (
            (lambda path: path.unlink(), "bytes, found no file"),
            (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, found "),
            (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x07"), "was changed after it was written"),
        ):
            damage(bundle / name)
            with pytest.raises(BundleError, match=rf"{name}.*{words}"):
                read_bundle(bundle)
            (bundle / name).write_bytes(whole[name])
    assert read_bundle(bundle).model.n_items_ == 64


def test_an_index_that_does_not_fit_its_files_is_refused(tmp_path: Path) -> None:
    arrays = {"w": np.arange(64.0), "b": np.arange(3.0)}

    def told(change: Callable[[dict[str, str]], Any]) -> str:
        write_weight_files(tmp_path / NAME, streams_of(arrays), 256)
        names = names_of_weights(NAME, [path.name for path in tmp_path.iterdir()])
        path = tmp_path / index_of(NAME)
        index = json.loads(path.read_text())
        change(index["weight_map"])
        path.write_text(json.dumps(index))
        with pytest.raises(ValueError, match=r"\w") as error:
            read_weight_files(tmp_path, names)
        return str(error.value)

    first = "weights-00001-of-00003.safetensors"
    assert (
        told(lambda known: known.pop("b"))
        == f"weights-00003-of-00003.safetensors has other arrays than {index_of(NAME)} says: b"
    )
    assert told(lambda known: known.update(c=first)) == f"{first} has other arrays than {index_of(NAME)} says: c"
    assert (
        told(lambda known: known.update(c="../x"))
        == f"{index_of(NAME)} has c in ../x, which is no file of these weights"
    )


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"w[0:2]": np.ones(2), "w[3:4]": np.ones(1)}, "the rows of w from 2 on are missing"),
        ({"w[1:2]": np.ones(1)}, "the rows of w from 0 on are missing"),
        ({"w[0:2]": np.ones(3)}, "the rows of w from 0 on are missing, or are not what their name says"),
        ({"w[0:1]": np.ones(1), "w[1:2]": np.ones(1, np.float32)}, "the rows of w from 1 on are missing"),
        ({"w[0:1]": np.ones(1), "w": np.ones(1)}, "w is there whole and in parts"),
    ],
)
def test_rows_that_are_missing_are_told(parts: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    file = "weights-00001-of-00001.safetensors"
    write_streams(tmp_path / file, streams_of(parts))
    (tmp_path / index_of(NAME)).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(parts, file)}))
    with pytest.raises(ValueError, match=words):
        read_weight_files(tmp_path, [index_of(NAME), file])
