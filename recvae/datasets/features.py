"""Items' features: one matrix with named columns, from a table or from embeddings, in the order of the items.

Users' attributes have the same form, from a table, in the order of the users.

Letters in shape comments: I items, F features.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from recvae.datasets.feature_arrays import is_array, read_array
from recvae.datasets.feature_kinds import LISTS, WORDS, FeatureColumn
from recvae.datasets.feature_tables import Blocks, read_table
from recvae.datasets.reading.memory import arrow_table
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.errors import DataError, UsageError
from recvae.storage.files import write_json

_SPARSE, _DENSE, _NAMES = "features.npz", "features.npy", "features.json"


@dataclass(frozen=True, kw_only=True)
class ItemFeatures:
    """What is known about each item, as numbers.

    Parameters
    ----------
    matrix : csr_matrix or ndarray of shape (n_items, n_features), float32
        A row for each item of the data set, in its order; 0 where nothing is known.
    names : tuple of str
        The name of each feature: `year`, `genre=Drama`, or `embedding[0]`.
    columns : tuple of FeatureColumn
        The columns of the table from which it was read, with their kinds.
    source : dict
        The file and its checksum, for the manifest.
    filled : ndarray of shape (n_items, n_columns), bool, optional
        Which items have something in each column, where it was just read; a folder does not keep it.

    Examples
    --------
    >>> features = ItemFeatures(matrix=np.array([[1994, 1], [0, 0]], np.float32), names=("year", "genre=Drama"))
    >>> features.n_without
    1
    """

    matrix: sp.csr_matrix | np.ndarray
    names: tuple[str, ...]
    columns: tuple[FeatureColumn, ...] = ()
    source: dict[str, Any] = field(default_factory=dict)
    filled: np.ndarray | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        matrix = self.matrix
        if not (sp.issparse(matrix) or isinstance(matrix, np.ndarray)) or matrix.ndim != 2:
            raise UsageError(
                f"got {type(matrix).__name__} for features, expected a matrix of shape (n_items, n_features): a numpy "
                "array, or a sparse matrix of scipy"
            )
        if matrix.dtype.kind not in "fiub":
            raise UsageError(f"got features of type {matrix.dtype}, expected float32; convert them with astype")
        if sp.issparse(matrix):
            matrix = sp.csr_matrix(matrix, dtype=np.float32)
            matrix.sum_duplicates()
        else:
            matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        names = tuple(self.names)
        if len(names) != matrix.shape[1] or len(set(names)) != len(names):
            raise UsageError(
                f"got {len(names)} names ({len(set(names))} different) for {matrix.shape[1]} features, expected a name "
                "of its own for each"
            )
        if not np.isfinite(matrix.data if sp.issparse(matrix) else matrix).all():
            raise UsageError("got features that are NaN or infinite, expected finite numbers; replace them, e.g. by 0")
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "names", names)

    @property
    def is_sparse(self) -> bool:
        """Whether the matrix is sparse."""
        return sp.issparse(self.matrix)

    @property
    def n_without(self) -> int:
        """Number of items whose features are all 0."""
        if isinstance(self.matrix, np.ndarray):
            return int((~self.matrix.any(axis=1)).sum())
        kept = sp.csr_matrix(self.matrix, copy=True)
        kept.eliminate_zeros()
        return int((np.diff(kept.indptr) == 0).sum())

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of the matrix and the names, the same on every machine."""
        digest = hashlib.sha256(np.array(self.matrix.shape, dtype="<i8").tobytes())
        if isinstance(self.matrix, np.ndarray):
            digest.update(self.matrix.astype("<f4", copy=False).data)
        else:
            digest.update(self.matrix.indptr.astype("<i8", copy=False).data)
            digest.update(self.matrix.indices.astype("<i4", copy=False).data)
            digest.update(self.matrix.data.astype("<f4", copy=False).data)
        digest.update(json.dumps(self.names).encode())
        return digest.hexdigest()

    def of_columns(self, names: Sequence[str]) -> Self:
        """Return the features of some of the columns of the table from which they were read.

        Raises
        ------
        UsageError
            If there is no such column.
        """
        known = [column.name for column in self.columns]
        missing = [name for name in names if name not in known]
        if missing:
            raise UsageError(f"got no column {missing[0]!r} of features, expected some of: {', '.join(known)}")
        ends = np.cumsum([0, *(column.n_features for column in self.columns)])
        kept = [place for place, name in enumerate(known) if name in names]
        places = [feature for place in kept for feature in range(ends[place], ends[place + 1])]
        return replace(
            self,
            matrix=self.matrix[:, places],
            names=tuple(self.names[place] for place in places),
            columns=tuple(self.columns[place] for place in kept),
            filled=None if self.filled is None else self.filled[:, kept],
        )

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest of a data set says about them."""
        return {
            "form": "sparse" if self.is_sparse else "dense",
            "n_features": len(self.names),
            "items_without": self.n_without,
            "columns": [column.to_json() for column in self.columns],
            "source": self.source,
            "fingerprint": self.fingerprint,
        }

    def write(self, folder: Path) -> None:
        """Write the matrix and the names to a folder."""
        if isinstance(self.matrix, np.ndarray):
            np.save(folder / _DENSE, self.matrix, allow_pickle=False)
        else:
            sp.save_npz(folder / _SPARSE, self.matrix, compressed=False)
        write_json(folder / _NAMES, {"names": list(self.names)})

    @classmethod
    def read(cls, folder: Path, entry: Mapping[str, Any], n_items: int) -> Self:
        """Read features back, and check that they are those that were written.

        Parameters
        ----------
        folder : Path
            The folder of a data set.
        entry : mapping
            What the manifest says about them; see `to_json`.
        n_items : int
            The number of items of the data set.

        Returns
        -------
        ItemFeatures
            The same as before.

        Raises
        ------
        ValueError
            If they were changed, or belong to other items.
        OSError, KeyError, TypeError, and what damaged archives raise
            If a file is missing or damaged; see `storage.integrity.UNREADABLE_ARCHIVE`.
        """
        if entry["form"] == "sparse":
            with (folder / _SPARSE).open("rb") as file:
                matrix = sp.csr_matrix(sp.load_npz(file))  # load_npz refuses pickled content
            matrix.check_format(full_check=True)
        else:
            matrix = np.load(folder / _DENSE, allow_pickle=False)
        names = json.loads((folder / _NAMES).read_text(encoding="utf-8"))["names"]
        found = cls(
            matrix=matrix,
            names=tuple(names),
            columns=tuple(FeatureColumn(**column) for column in entry["columns"]),
            source=dict(entry["source"]),
        )
        if found.matrix.shape[0] != n_items or found.fingerprint != entry["fingerprint"]:
            raise ValueError(
                f"got features of shape {found.matrix.shape} with fingerprint {found.fingerprint[:12]}, expected "
                f"{str(entry['fingerprint'])[:12]} for {n_items:,} items as in the manifest"
            )
        return found


def read_features(
    given: Any,
    item_ids: np.ndarray,
    options: LogFormat | None = None,
    columns: Sequence[str] | None = None,
    row: str = "item",
) -> tuple[ItemFeatures, list[str]]:
    """Read features of items: a table with a column of item ids, or embeddings.

    Each column of a table is decided as a whole. Numbers stay one feature; a missing number becomes 0. Words, and
    lists of words, become a feature for each word, which is 1 where an item has it. Vectors become a feature for each
    dimension.

    Parameters
    ----------
    given : Path or str, a sequence of these, or a table
        Files in any form in which a log may be; or one `.npy` or safetensors file; or a table of pandas, polars or
        Arrow.
    item_ids : ndarray of shape (n_items,), int64 or object (str)
        Ids of the items of the data set; rows of other items are counted.
    options : LogFormat, optional
        What is known about the files, above all the column of item ids.
    columns : sequence of str, optional
        The columns to read. By default all, except those in which nearly every item has a word of its own.
    row : {"item", "user"}
        What a row is; of users and their attributes, all that is said here of items holds.

    Returns
    -------
    features : ItemFeatures
        Sparse if most features are words, else dense.
    warnings : list of str
        Remarks on rows, items and columns that were left out.

    Raises
    ------
    UsageError
        If there is no such file or column.
    DataError
        If it cannot be read or used, or none of its items is in the data set.

    Examples
    --------
    >>> import pandas as pd
    >>> films = pd.DataFrame({"film": [7, 8], "genres": ["Drama|Crime", "Drama"]})
    >>> features, _ = read_features(films, np.array([8, 7]), LogFormat(item="film"))
    >>> features.names, features.matrix.toarray().tolist()
    (('genres=Crime', 'genres=Drama'), [[0.0, 1.0], [1.0, 1.0]])
    """
    options = options or LogFormat()
    if isinstance(given, Source | Path | str):
        given = [given]
    if isinstance(given, list | tuple):
        if not given:
            raise UsageError("got no file of features, expected at least one")
        paths = [one.path if isinstance(one, Source) else Path(one) for one in given]
        arrays = [path for path in paths if is_array(path)]
        if arrays and len(paths) > 1:
            raise UsageError(f"got {arrays[0]} and other files, expected a single file of embeddings; give one")
        if arrays and row != "item":
            raise UsageError(f"got {arrays[0]} for {row}s, expected a table with a column of {row} ids; write one")
        if arrays:
            found = read_array(paths[0], item_ids, columns)
        else:
            found = read_table(given, item_ids, options, columns, row)
    else:
        found = read_table(arrow_table(given), item_ids, options, columns, row)
    return _joined(found), found.warnings


def _joined(found: Blocks) -> ItemFeatures:
    """Return all blocks as one matrix (I, F): sparse if most features are words, else dense."""
    blocks = found.blocks
    n_words = sum(len(block.names) for block in blocks if block.column.kind in (WORDS, LISTS))
    names = tuple(name for block in blocks for name in block.names)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two columns make the feature '{twice}', expected different names; rename a column")
    if 2 * n_words > len(names):
        matrix = sp.csr_matrix(sp.hstack([sp.csr_matrix(block.matrix) for block in blocks]))
    else:
        dense = [block.matrix.toarray() if sp.issparse(block.matrix) else block.matrix for block in blocks]
        matrix = np.concatenate(dense, axis=1)
    return ItemFeatures(
        matrix=matrix,
        names=names,
        columns=tuple(block.column for block in blocks),
        source=found.source,
        filled=np.stack([block.has for block in blocks], axis=1),
    )


def features_for(
    given: Any, item_ids: np.ndarray, name: str, options: LogFormat, columns: Sequence[str] | None
) -> tuple[ItemFeatures, list[str]]:
    """Return features of the items of a data set, read or as they are, with remarks; see `read_features`.

    Raises
    ------
    UsageError
        If they are of another number of items than the data set of that name has.
    """
    features, remarks = (
        (given, []) if isinstance(given, ItemFeatures) else read_features(given, item_ids, options, columns)
    )
    if features.matrix.shape[0] != len(item_ids):
        raise UsageError(
            f"got features of {features.matrix.shape[0]:,} items, expected a row for each of the {len(item_ids):,} "
            f"items of {name}, in the order of item_ids; give a table with item ids"
        )
    return features, remarks


def with_features_of(manifest: dict[str, Any], features: ItemFeatures | None) -> dict[str, Any]:
    """Return a manifest with what it must say about the features, also if these were set by hand."""
    if features is None:
        return {key: value for key, value in manifest.items() if key != "features"}
    return {**manifest, "features": {**manifest.get("features", {}), **features.to_json()}}
