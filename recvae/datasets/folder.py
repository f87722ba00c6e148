"""The folder of a data set: its matrices and users as files, what tells one content from another, and damage.

Importing this does not import what makes data sets.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from recvae.compute.memory import check_amount, check_memory
from recvae.datasets.features import ItemFeatures
from recvae.datasets.shards import ShardedMatrix, damaged_shards, write_matrix
from recvae.datasets.splits.base import Split
from recvae.datasets.streams import StreamedMatrix
from recvae.errors import DataError, UsageError
from recvae.interactions import HeldOut
from recvae.items import ItemIndex, ids_from_arrow, ids_to_arrow
from recvae.storage.files import check_name
from recvae.storage.integrity import UNREADABLE_ARCHIVE
from recvae.version import __version__

FORMAT_VERSION = 1
SHARDED_VERSION = 2
"""The format of a folder whose matrices are in shards, see `shards`; the newest that this version reads."""

MANIFEST = "manifest.json"
MATRICES = ("train", "validation/fold_in", "validation/targets", "test/fold_in", "test/targets")
"""The matrices of a data set, in the order of the fingerprint."""

_PARTS = ("validation", "test")
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
    parts = {"validation": split.validation, "test": split.test}
    sides = {f"{name}/{side}": getattr(part, side) for name, part in parts.items() for side in ("fold_in", "targets")}
    without = {name: part.n_without_target() for name, part in parts.items()}
    return counts_of_matrices({"train": split.train, **sides}, without)


def counts_of_matrices(
    matrices: Mapping[str, sp.csr_matrix | ShardedMatrix], without_target: Mapping[str, int]
) -> dict[str, int]:
    """Return the numbers of users, items and interactions, for the manifest.

    Parameters
    ----------
    matrices : mapping of str to matrix
        By the names of `MATRICES`.
    without_target : mapping of str to int
        Users without a target in "validation" and "test".
    """
    train = matrices["train"]
    counts = {"items": train.shape[1], "train_users": train.shape[0], "train_interactions": train.nnz}
    for name in ("validation", "test"):
        counts[f"{name}_users"] = matrices[f"{name}/targets"].shape[0]
        counts[f"{name}_fold_in"] = matrices[f"{name}/fold_in"].nnz
        counts[f"{name}_targets"] = matrices[f"{name}/targets"].nnz
        counts[f"{name}_users_without_target"] = without_target[name]
    return {name: int(count) for name, count in counts.items()}


def manifest_of(name: str, *, source: dict[str, Any], filters: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """Return the manifest of a new data set.

    Parameters
    ----------
    name : str
        Name of the data set: letters, digits, dots, dashes and underscores.
    source, filters : dict
        Where it is from, and how it was filtered.
    **facts
        `protocol`, `counts`, `dropped` and `fingerprint`.

    Raises
    ------
    UsageError
        If the name cannot be the name of a folder.
    """
    return {
        "format": FORMAT_VERSION,
        "name": check_name(name),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recvae": __version__,
        "source": source,
        "filters": filters,
        **{fact: facts[fact] for fact in ("protocol", "counts", "dropped", "fingerprint")},
    }


def fingerprint_of(
    train: sp.csr_matrix | StreamedMatrix, validation: HeldOut, test: HeldOut, item_ids: np.ndarray
) -> str:
    """Return a SHA-256 over positions, values and ids, the same on every machine."""
    return fingerprint_of_matrices(
        (train, validation.fold_in, validation.targets, test.fold_in, test.targets), item_ids
    )


def fingerprint_of_matrices(
    matrices: Iterable[sp.csr_matrix | ShardedMatrix | StreamedMatrix], item_ids: np.ndarray
) -> str:
    """Return the fingerprint of the matrices of `MATRICES`, in memory or in shards: the same for the same content."""
    digest = hashlib.sha256()
    for matrix in matrices:
        digest.update(np.array(matrix.shape, dtype="<i8").tobytes())
        if isinstance(matrix, ShardedMatrix | StreamedMatrix):
            for part in (matrix.shards if isinstance(matrix, StreamedMatrix) else matrix).bytes_of_arrays():
                digest.update(part)
            continue
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


def write_parts(
    folder: Path, train: sp.csr_matrix, train_users: np.ndarray | None, parts: dict[str, HeldOut], *, in_shards: bool
) -> dict[str, Any]:
    """Write the matrices, with the ids of their users; those of training users only where they are known.

    Returns
    -------
    dict
        What the manifest says of matrices that are in shards.
    """
    if train_users is not None:
        write_users(train_users, folder / TRAIN_USERS)
    for name, part in parts.items():
        (folder / name).mkdir()
        write_users(part.user_ids, folder / name / "users.parquet")
    if in_shards:
        return _write_shards(folder, {"train": train, **_sides(parts)})
    sp.save_npz(folder / "train.npz", train, compressed=False)
    for name, matrix in _sides(parts).items():
        sp.save_npz(folder / f"{name}.npz", matrix, compressed=False)
    return {}


def _sides(parts: Mapping[str, HeldOut]) -> dict[str, sp.csr_matrix]:
    return {f"{name}/{side}": getattr(part, side) for name, part in parts.items() for side in ("fold_in", "targets")}


def _write_shards(folder: Path, matrices: Mapping[str, sp.csr_matrix]) -> dict[str, Any]:
    """Write matrices in shards, one that is there under two names once."""
    written: dict[int, ShardedMatrix] = {}
    for name, matrix in matrices.items():
        if id(matrix) not in written:
            written[id(matrix)] = write_matrix(folder, name, matrix)
    listed = {name: written[id(matrix)].to_json() for name, matrix in matrices.items()}
    return {"format": SHARDED_VERSION, "shards": listed}


def write_users(ids: np.ndarray, path: Path) -> None:
    """Write the ids of users, in the order of their rows."""
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
        is_newer = manifest["format"] > SHARDED_VERSION
        name = str(manifest.get("name", "unnamed"))
    if is_newer:
        raise DataError(
            f"{folder} has format {manifest['format']}, this version reads up to {SHARDED_VERSION}; "
            "upgrade recvae, or preprocess again"
        )
    try:
        check_name(name)
    except UsageError as error:  # it becomes the name of a folder of runs
        raise DataError(f"{folder} is damaged: its manifest has the name {name!r}; preprocess again") from error
    return manifest


def shards_of(folder: Path, manifest: Mapping[str, Any], n_items: int) -> dict[str, ShardedMatrix]:
    """Return the matrices of a data set in shards, by the names of `MATRICES`; none of them is read.

    Raises
    ------
    DataError
        If the manifest is damaged.
    """
    with damage(folder):
        listed = manifest["shards"]
        return {name: ShardedMatrix.of_json(folder, listed[name], n_items) for name in MATRICES}


def _gathered(folder: Path, part: str, sharded: Mapping[str, ShardedMatrix], train: sp.csr_matrix | None) -> HeldOut:
    """Read held-out users from shards; a fold-in that is the training matrix in memory is the same object."""
    fold_in = sharded[f"{part}/fold_in"]
    is_train = fold_in.shards == sharded["train"].shards
    return HeldOut(
        fold_in=train if train is not None and is_train else fold_in.matrix(),
        targets=sharded[f"{part}/targets"].matrix(),
        user_ids=_read_users(folder / part / "users.parquet"),
    )


def _check_room(folder: Path, sharded: Mapping[str, ShardedMatrix], stream: bool, max_memory: int | None) -> None:
    """Refuse to read into memory what does not fit, before any of it is read."""
    held = [matrix for name, matrix in sharded.items() if not (stream and name == "train")]
    each = {matrix.shards: 8 * (matrix.nnz + matrix.shape[0]) for matrix in held}  # one that is there twice, once
    if not stream:
        ways = "`recvae train --stream` trains from disk (in Python: Dataset.load(folder, stream=True))"
    elif any(sharded[f"{part}/fold_in"].shards == sharded["train"].shards for part in _PARTS):
        ways = "held-out users are the training users, all in memory; raise --max-memory, or preprocess with the "
        ways += "split strong"
    else:
        ways = "raise --max-memory, or hold out fewer users (recvae preprocess --heldout-users)"
    what = f"reading {'the held-out users of ' if stream else ''}{folder}"
    check_memory(sum(each.values()), max_memory, what, ways)


def _in_memory(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of a data set that no longer lies in shards."""
    return {**{key: value for key, value in manifest.items() if key != "shards"}, "format": FORMAT_VERSION}


def read_folder(folder: Path, buffer: int | None = None, max_memory: int | None = None) -> dict[str, Any]:
    """Read the parts of a data set, which are the arguments of `Dataset`, and check that they are intact.

    Parameters
    ----------
    folder : Path
        Where it is.
    buffer : int, optional
        For a training matrix that stays in its shards: bytes of it to hold at a time, see `StreamedMatrix`.
    max_memory : int, optional
        Bytes that matrices in shards may take in memory; by default what is free.

    Raises
    ------
    UsageError
        If there is no data set, or one that shall stay in shards is not in any; if a number of bytes is none.
    DataError
        If it is damaged, unfinished or of a newer format.
    MemoryLimitError
        If matrices in shards do not fit into memory.
    """
    check_amount(buffer, "buffer", 1)
    check_amount(max_memory, "max_memory")
    manifest = read_manifest(folder)
    if buffer is not None and "shards" not in manifest:
        raise UsageError(
            f"{folder} is not in shards, which training from disk reads; make it with `recvae preprocess --shards`, or "
            "leave out --stream"
        )
    with damage(folder):
        items = ItemIndex.read(folder / "items.parquet")
        sharded = None if "shards" not in manifest else shards_of(folder, manifest, len(items))
        if sharded is None:
            train = load_matrix(folder / "train.npz")
            validation, test = (load_part(folder / part) for part in _PARTS)
        else:
            _check_room(folder, sharded, buffer is not None, max_memory)
            whole = None
            if buffer is None:
                train = whole = sharded["train"].matrix()
            else:
                train = StreamedMatrix(sharded["train"], buffer).marked()
            validation, test = (_gathered(folder, part, sharded, whole) for part in _PARTS)
        features = ItemFeatures.read(folder, manifest["features"], len(items)) if "features" in manifest else None
        users = _read_users(folder / TRAIN_USERS) if (folder / TRAIN_USERS).is_file() else None
    found = fingerprint_of(train, validation, test, items.ids)
    if found != str(manifest.get("fingerprint", "")):
        raise _changed(folder, manifest, found, sharded)
    return {
        "train": train,
        "validation": validation,
        "test": test,
        "item_ids": items.ids,
        "titles": items.titles,
        "manifest": manifest if sharded is None else _in_memory(manifest),
        "features": features,
        "train_user_ids": users,
    }


def _changed(
    folder: Path, manifest: Mapping[str, Any], found: str, sharded: Mapping[str, ShardedMatrix] | None
) -> DataError:
    """Return what to say of content that is not what was written."""
    wrong = "" if sharded is None else ", ".join(damaged_shards(sharded.values()))
    if wrong:
        return DataError(f"{folder} is damaged: {wrong} was changed after it was written; preprocess again")
    return DataError(
        f"{folder} is damaged: its content has fingerprint {found[:12]}, its manifest says "
        f"{str(manifest.get('fingerprint', ''))[:12]}; preprocess again"
    )
