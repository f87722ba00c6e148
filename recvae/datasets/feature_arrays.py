"""Embeddings of items in `.npy` and safetensors -> features.

Letters in shape comments: N rows of the array, I items, D dimensions.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recvae.datasets.feature_kinds import VECTORS, Block, FeatureColumn
from recvae.datasets.feature_tables import Blocks
from recvae.errors import DataError, RecvaeError, UsageError
from recvae.ids import spellings
from recvae.storage.integrity import UNREADABLE, sha256_of

_NUMPY = b"\x93NUMPY"
_IDS = "ids"
_WAY_OUT = (
    "write safetensors with a tensor 'ids' of integers, or Parquet with a column of item ids and a column of vectors"
)


def is_array(path: Path) -> bool:
    """Whether a file is an array of NumPy or safetensors, by its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(16)
    length = int.from_bytes(head[:8], "little")  # of the header of safetensors, which is a JSON object
    return head.startswith(_NUMPY) or (head[8:9] == b"{" and length <= path.stat().st_size - 8)


def read_array(path: Path, item_ids: np.ndarray, columns: Sequence[str] | None) -> Blocks:
    """Read embeddings: a row for each item.

    Parameters
    ----------
    path : Path
        `.npy` with a matrix, or safetensors with a matrix and, if the rows are not numbered by item id, `ids`.
    item_ids : ndarray of shape (n_items,), int64 or object (str)
        Ids of the items of the data set.
    columns : sequence of str, optional
        Of safetensors with several matrices, the one to read.

    Returns
    -------
    Blocks
        One block of vectors.

    Raises
    ------
    UsageError
        If the chosen matrix is not there.
    DataError
        If it is no matrix of finite numbers, or its rows cannot be given to items.
    """
    with path.open("rb") as file:
        is_numpy = file.read(6) == _NUMPY
    if is_numpy and columns is not None:
        raise UsageError(f"got --feature-col with {path}, which has no names of columns; leave it out")
    ids, name, vectors = (None, path.stem, _numpy(path)) if is_numpy else _tensors(path, columns)
    if vectors.ndim != 2 or 0 in vectors.shape or vectors.dtype.kind not in "fiub":
        raise DataError(
            f"{path}: got {vectors.dtype} of shape {vectors.shape}, expected a matrix of numbers with a row for each "
            "item; save it so"
        )
    rows = _rows_by_number(path, item_ids, len(vectors)) if ids is None else _rows_by_id(path, ids, vectors, item_ids)
    has = rows >= 0  # (I,)
    matrix = np.zeros((len(item_ids), vectors.shape[1]), dtype=np.float32)  # (I, D)
    with np.errstate(over="ignore"):
        matrix[has] = vectors[rows[has]]
    wrong = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(wrong):
        place = int(np.flatnonzero(~np.isfinite(matrix[wrong[0]]))[0])
        raise DataError(
            f"{path}: the vector of item {item_ids[wrong[0]]} holds {vectors[rows[wrong[0]], place]:g} at place "
            f"{place}, expected finite numbers; repair it"
        )
    n_without = int((~has).sum())
    warnings = []
    n_others = len(vectors) - int(has.sum())
    if n_others:
        warnings.append(f"{n_others:,} rows of {path} belong to items that are not in training")
    if n_without:
        first = item_ids[np.flatnonzero(~has)[0]]
        warnings.append(f"{n_without:,} of {len(has):,} items have no row in {path}, e.g. {first}")
    column = FeatureColumn(name, VECTORS, matrix.shape[1], n_without)
    block = Block(column, tuple(f"{name}[{place}]" for place in range(matrix.shape[1])), matrix, has)
    return Blocks([block], warnings, {"file": path.name, "sha256": sha256_of(path)})


def _numpy(path: Path) -> np.ndarray:
    """Return the array (N, D) of a file, mapped into memory."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        if "bject" in str(error) or "pickle" in str(error):
            raise DataError(
                f"{path} holds Python objects, which could run any code, expected numbers; save an array of float32"
            ) from error
        raise DataError(f"{path} is damaged ({error}); write it again") from error


def _tensors(path: Path, columns: Sequence[str] | None) -> tuple[np.ndarray | None, str, np.ndarray]:
    """Return the ids (N,), if there are any, the name of the matrix, and the matrix (N, D)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            kinds = {name: file.get_slice(name).get_dtype() for name in shapes}
            names = [name for name in shapes if name != _IDS]
            name = _matrix_of(path, names, columns)
            if kinds[name] == "BF16" or kinds[name].startswith("F8"):
                raise DataError(f"{path}: tensor '{name}' is of type {kinds[name]}, expected float32; convert it first")
            return (file.get_tensor(_IDS) if _IDS in shapes else None), name, file.get_tensor(name)
    except RecvaeError:
        raise
    except (SafetensorError, *UNREADABLE) as error:
        raise DataError(f"{path} is damaged ({error}); write it again") from error


def _matrix_of(path: Path, names: list[str], columns: Sequence[str] | None) -> str:
    listed = ", ".join(sorted(names)) or "none"
    if columns is not None:
        if len(columns) != 1 or columns[0] not in names:
            raise UsageError(
                f"{path} has the tensors {listed}, got --feature-col {', '.join(columns)}, expected one of them; "
                "choose one"
            )
        return columns[0]
    if len(names) != 1:
        raise DataError(
            f"{path} has the tensors {listed}, expected one matrix (and 'ids'); choose one with --feature-col"
        )
    return names[0]


def _rows_by_number(path: Path, item_ids: np.ndarray, n_rows: int) -> np.ndarray:
    """Return the row (I,) of each item where row i belongs to the item with the id i."""
    if item_ids.dtype.kind not in "iu":
        raise DataError(
            f"{path} has no ids, so row i would belong to item i, but ids look like {str(item_ids[0])!r}; {_WAY_OUT}"
        )
    if len(item_ids) and (item_ids.min() < 0 or item_ids.max() >= n_rows):
        raise DataError(
            f"{path} has no ids, so row i belongs to item i, counted from 0; it has {n_rows:,} rows, but ids run from "
            f"{item_ids.min()} to {item_ids.max()}; {_WAY_OUT}"
        )
    return item_ids.astype(np.int64)


def _rows_by_id(path: Path, ids: np.ndarray, vectors: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
    """Return the row (I,) of each item, -1 where it has none, of rows with ids (N,)."""
    if ids.dtype.kind not in "iu" or ids.ndim != 1 or len(ids) != len(vectors):
        raise DataError(
            f"{path}: got 'ids' of type {ids.dtype} and shape {ids.shape} for {len(vectors):,} rows, expected an "
            "integer for each row; save it so"
        )
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise DataError(
            f"{path}: item {values[counts > 1][0]} occurs {counts[counts > 1][0]} times in 'ids', expected each item "
            "once; keep one row"
        )
    row_of = {str(item): row for row, item in enumerate(ids.tolist())}
    rows = np.array(
        [next((row_of[one] for one in spellings(item) if one in row_of), -1) for item in item_ids.tolist()],
        dtype=np.int64,
    )  # (I,)
    if not (rows >= 0).any():
        raise DataError(
            f"{path}: none of its {len(ids):,} items is in the data set; its ids look like {ids[0]}, those of the data "
            f"set like {str(item_ids[0])!r}; write the ids of the log"
        )
    return rows
