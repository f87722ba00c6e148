"""Data sets in shards: equal to the bit when they are read back, refused when a shard is missing or has changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recvae.datasets import shards
from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events, Filters
from recvae.datasets.folder import MATRICES, fingerprint_of_matrices, read_manifest, shards_of
from recvae.datasets.shards import ShardedMatrix, rows_per_shard, write_matrix
from recvae.errors import DataError
from recvae.interactions import interactions
from recvae.storage.arrays import write_weights
from recvae.storage.mapped import map_arrays

MakeLog = Callable[..., Events]


def matrices_of(dataset: Dataset) -> dict[str, sp.csr_matrix]:
    parts = {"validation": dataset.validation, "test": dataset.test}
    sides = {f"{name}/{side}": getattr(part, side) for name, part in parts.items() for side in ("fold_in", "targets")}
    return {"train": dataset.train, **sides}


def in_shards(dataset: Dataset, folder: Path) -> dict[str, ShardedMatrix]:
    """Save a data set, and put its matrices into shards."""
    dataset.save(folder)
    found = {name: write_matrix(folder, name, matrix) for name, matrix in matrices_of(dataset).items()}
    for path in folder.rglob("*.npz"):
        path.unlink()
    edit(folder, format=2, shards={name: matrix.to_json() for name, matrix in found.items()})
    return found


def edit(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


@pytest.fixture
def dataset(random_log: MakeLog, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(shards, "EVENTS_PER_SHARD", 70)
    return Dataset.from_events(random_log(words=True), name="toy", filters=Filters(min_rating=2), heldout_users=6)


def test_what_is_in_shards_comes_back_equal_to_the_bit(dataset: Dataset, tmp_path: Path) -> None:
    found = in_shards(dataset, tmp_path / "toy")
    assert len(found["train"].shards) > 2
    again = Dataset.load(tmp_path / "toy")
    for name, matrix in matrices_of(again).items():
        expected = matrices_of(dataset)[name]
        assert abs(matrix - expected).nnz == 0
        for array in ("indptr", "indices", "data"):
            assert np.array_equal(getattr(matrix, array), getattr(expected, array))
            assert getattr(matrix, array).dtype == getattr(expected, array).dtype
    assert again.fingerprint == dataset.fingerprint
    assert again.train_user_ids is not None and dataset.train_user_ids is not None
    assert again.train_user_ids.tolist() == dataset.train_user_ids.tolist()
    again.save(tmp_path / "plain")  # it no longer lies in shards
    assert Dataset.load(tmp_path / "plain").manifest == again.manifest == dataset.manifest


def test_the_fingerprint_of_shards_is_that_of_the_matrices(dataset: Dataset, tmp_path: Path) -> None:
    found = in_shards(dataset, tmp_path / "toy")
    assert fingerprint_of_matrices((found[name] for name in MATRICES), dataset.item_ids) == dataset.fingerprint
    listed = shards_of(tmp_path / "toy", read_manifest(tmp_path / "toy"), len(dataset.item_ids))
    assert listed == found
    assert listed["test/targets"].n_empty_rows == dataset.test.n_without_target()


def test_a_shard_is_mapped_and_has_the_rows_of_consecutive_users(dataset: Dataset, tmp_path: Path) -> None:
    found = in_shards(dataset, tmp_path / "toy")["train"]
    first = 0
    for arrays, shard in zip(found.arrays(), found.shards, strict=True):
        rows = dataset.train[first : first + shard.rows]
        assert np.array_equal(arrays["indptr"], rows.indptr)
        assert np.array_equal(arrays["indices"], rows.indices)
        assert not arrays["indices"].flags.writeable  # it lies in the file
        assert not arrays["indices"].flags.owndata
        first += shard.rows
    assert first == dataset.train.shape[0]


@pytest.mark.parametrize(("n_rows", "n_events"), [(1, 0), (5, 1), (10, 70), (10, 71), (3, 10_000), (1000, 69)])
def test_shards_have_about_so_many_events(
    monkeypatch: pytest.MonkeyPatch, n_rows: int, n_events: int, tmp_path: Path
) -> None:
    monkeypatch.setattr(shards, "EVENTS_PER_SHARD", 70)
    size = rows_per_shard(n_rows, n_events)
    assert 1 <= size <= n_rows
    assert -(-n_rows // size) <= max(1, -(-n_events // 70))


def test_users_without_an_interaction_have_rows(tmp_path: Path) -> None:
    for matrix in (interactions(np.empty(0, int), np.empty(0, int), (n_users, 4)) for n_users in (3, 0)):
        found = write_matrix(tmp_path, f"of-{matrix.shape[0]}", matrix)
        assert found.shape == matrix.shape
        assert found.matrix().shape == matrix.shape
        assert found.n_empty_rows == matrix.shape[0]


def test_a_missing_shard_is_named(dataset: Dataset, tmp_path: Path) -> None:
    found = in_shards(dataset, tmp_path / "toy")["train"].shards[1]
    (tmp_path / "toy" / found.file).unlink()
    with pytest.raises(DataError, match=rf"part-00001.safetensors is missing, expected a shard of {found.rows} users;"):
        Dataset.load(tmp_path / "toy")


def test_a_shard_of_another_size_is_named(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "toy" / in_shards(dataset, tmp_path / "toy")["test/fold_in"].shards[0].file
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"part-00000.safetensors has [\d,]+ bytes, expected [\d,]+: it is damaged;"):
        Dataset.load(tmp_path / "toy")


def test_any_flipped_byte_of_a_shard_is_noticed(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "toy" / in_shards(dataset, tmp_path / "toy")["train"].shards[0].file
    whole = path.read_bytes()
    for place in [*range(0, 300, 7), *range(300, len(whole), 61), len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        try:
            again = Dataset.load(tmp_path / "toy")
        except DataError as error:
            assert "preprocess again" in str(error)
        else:  # blanks behind the header
            assert again.fingerprint == dataset.fingerprint
            assert abs(again.train - dataset.train).nnz == 0


def test_a_shard_that_was_replaced_is_named(dataset: Dataset, tmp_path: Path) -> None:
    one, other = in_shards(dataset, tmp_path / "toy")["train"].shards[:2]
    path = tmp_path / "toy" / one.file
    arrays = {name: array.copy() for name, array in map_arrays(path).items()}
    arrays["data"][0] = 2
    write_weights(path, arrays)
    with pytest.raises(DataError, match=rf"is damaged: {one.file} was changed after it was written; preprocess again"):
        Dataset.load(tmp_path / "toy")
    write_weights(path, {"indptr": arrays["indptr"]} | {"of": np.zeros(len(arrays["data"]) * 2, dtype=np.float32)})
    edit_bytes = {"bytes": path.stat().st_size}
    manifest = read_manifest(tmp_path / "toy")
    manifest["shards"]["train"][0] |= edit_bytes
    edit(tmp_path / "toy", shards=manifest["shards"])
    with pytest.raises(DataError, match=r"part-00000.safetensors is damaged \('indices'\); preprocess again"):
        Dataset.load(tmp_path / "toy")
    write_weights(path, arrays | {"data": arrays["data"].astype(np.float64)})
    manifest["shards"]["train"][0] |= {"bytes": path.stat().st_size}
    edit(tmp_path / "toy", shards=manifest["shards"])
    with pytest.raises(DataError, match=r"holds other arrays than its manifest says: it is damaged; preprocess again"):
        Dataset.load(tmp_path / "toy")
    assert other.file != one.file


@pytest.mark.parametrize("file", ["/etc/passwd", "../other/train.safetensors"])
def test_a_manifest_cannot_point_out_of_its_folder(dataset: Dataset, tmp_path: Path, file: str) -> None:
    in_shards(dataset, tmp_path / "toy")
    manifest = read_manifest(tmp_path / "toy")
    manifest["shards"]["train"][0]["file"] = file
    edit(tmp_path / "toy", shards=manifest["shards"])
    with pytest.raises(DataError, match=rf"is damaged \(the manifest lists the file '{file}'\); preprocess again"):
        Dataset.load(tmp_path / "toy")


def test_a_file_that_ends_too_early_is_no_file_of_arrays(tmp_path: Path) -> None:
    write_weights(tmp_path / "one", {"a": np.arange(10, dtype=np.int64)})
    whole = (tmp_path / "one").read_bytes()
    (tmp_path / "one").write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=r"^the file ends before the array 'a'$"):
        map_arrays(tmp_path / "one")
