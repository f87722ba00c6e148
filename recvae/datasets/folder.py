"""The folder of a data set: its matrices and users as files, what tells one content from another, and damage.

Importing this does not import what makes data sets.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from recvae.datasets.features import ItemFeatures
from recvae.datasets.splits.base import Split
from recvae.errors import DataError, UsageError
from recvae.interactions import HeldOut
from recvae.items import ItemIndex, ids_from_arrow, ids_to_arrow
from recvae.storage.files import check_name
from recvae.storage.integrity import UNREADABLE_ARCHIVE

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TRAIN_USERS = "train_users.parquet"  # earlier versions did not write it


@contextmanager
def damage(folder: Path) -> Iterator[None]:
    """Turn errors of reading a damaged file into a `DataError` that names the data set."""
    try:
        yield
    except UNREADABLE_ARCHIVE as error:
        raise DataError(f"{folder} is damaged ({error}); preprocess again") from error


def counts_of_parts(split: Split) -> dict[str, int]:
    """Return the numbers of users, items and interactions of a split, for the manifest."""
    counts = {
        "items": split.train.shape[1],
        "train_users": split.train.shape[0],
        "train_interactions": split.train.nnz,
    }
    for name, part in (("validation", split.validation), ("test", split.test)):
        counts[f"{name}_users"] = part.n_users
        counts[f"{name}_fold_in"] = part.fold_in.nnz
        counts[f"{name}_targets"] = part.targets.nnz
        counts[f"{name}_users_without_target"] = part.n_without_target()
    return {name: int(count) for name, count in counts.items()}


def fingerprint_of(train: sp.csr_matrix, validation: HeldOut, test: HeldOut, item_ids: np.ndarray) -> str:
    """Return a SHA-256 over positions, values and ids, the same on every machine."""
    digest = hashlib.sha256()
    for matrix in (train, validation.fold_in, validation.targets, test.fold_in, test.targets):
        digest.update(np.array(matrix.shape, dtype="<i8").tobytes())
        digest.update(matrix.indptr.astype("<i8", copy=False).data)  # without a copy
        digest.update(matrix.indices.astype("<i4", copy=False).data)
        digest.update(matrix.data.astype("<f4", copy=False).data)
    digest.update("\n".join(map(str, item_ids.tolist())).encode())
    return digest.hexdigest()


def load_matrix(path: Path) -> sp.csr_matrix:
    """Read a sparse matrix and check its structure."""
    with path.open("rb") as file:
        matrix = sp.csr_matrix(sp.load_npz(file))  # load_npz refuses pickled content
    matrix.check_format(full_check=True)
    return matrix


def load_part(folder: Path) -> HeldOut:
    """Read held-out users."""
    return HeldOut(
        fold_in=load_matrix(folder / "fold_in.npz"),
        targets=load_matrix(folder / "targets.npz"),
        user_ids=_read_users(folder / "users.parquet"),
    )


def write_parts(folder: Path, train: sp.csr_matrix, train_users: np.ndarray | None, parts: dict[str, HeldOut]) -> None:
    """Write the matrices, with the ids of their users; those of training users only where they are known."""
    sp.save_npz(folder / "train.npz", train, compressed=False)
    if train_users is not None:
        _write_users(train_users, folder / TRAIN_USERS)
    for name, part in parts.items():
        (folder / name).mkdir()
        sp.save_npz(folder / name / "fold_in.npz", part.fold_in, compressed=False)
        sp.save_npz(folder / name / "targets.npz", part.targets, compressed=False)
        _write_users(part.user_ids, folder / name / "users.parquet")


def _write_users(ids: np.ndarray, path: Path) -> None:
    pq.write_table(pa.table({"id": ids_to_arrow(ids)}), path, write_page_checksum=True)


def _read_users(path: Path) -> np.ndarray:
    return ids_from_arrow(pq.read_table(path, page_checksum_verification=True)["id"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what a data set says of itself.

    Raises
    ------
    UsageError
        If there is no data set.
    DataError
        If it is damaged, unfinished or of a newer format.
    """
    if not (folder / MANIFEST).is_file():
        what = "has no manifest.json, so it is not a finished data set" if folder.is_dir() else "does not exist"
        raise UsageError(f"{folder} {what}; make one with `recvae preprocess`")
    with damage(folder):
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        is_newer = manifest["format"] > FORMAT_VERSION
        name = str(manifest.get("name", "unnamed"))
    if is_newer:
        raise DataError(
            f"{folder} has format {manifest['format']}, this version reads up to {FORMAT_VERSION}; "
            "upgrade recvae, or preprocess again"
        )
    try:
        check_name(name)
    except UsageError as error:  # it becomes the name of a folder of runs
        raise DataError(f"{folder} is damaged: its manifest has the name {name!r}; preprocess again") from error
    return manifest


def read_folder(folder: Path) -> dict[str, Any]:
    """Read the parts of a data set, which are the arguments of `Dataset`, and check that they are intact.

    Raises
    ------
    UsageError
        If there is no data set.
    DataError
        If it is damaged, unfinished or of a newer format.
    """
    manifest = read_manifest(folder)
    with damage(folder):
        items = ItemIndex.read(folder / "items.parquet")
        train = load_matrix(folder / "train.npz")
        validation, test = (load_part(folder / part) for part in ("validation", "test"))
        features = ItemFeatures.read(folder, manifest["features"], len(items)) if "features" in manifest else None
        users = _read_users(folder / TRAIN_USERS) if (folder / TRAIN_USERS).is_file() else None
        expected = str(manifest.get("fingerprint", ""))
    found = fingerprint_of(train, validation, test, items.ids)
    if found != expected:
        raise DataError(
            f"{folder} is damaged: its content has fingerprint {found[:12]}, its manifest says {expected[:12]}; "
            "preprocess again"
        )
    return {
        "train": train,
        "validation": validation,
        "test": test,
        "item_ids": items.ids,
        "titles": items.titles,
        "manifest": manifest,
        "features": features,
        "train_user_ids": users,
    }
