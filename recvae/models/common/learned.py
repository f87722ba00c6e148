"""What a model learns: fields of arrays, which are kept in a bundle and loaded from it by name.

A field `item_factors_` is kept as `item_factors`; a sparse matrix `similarity_` as `similarity.data`,
`similarity.indices` and `similarity.indptr`, and `similarity.shape` where it is not square.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import scipy.sparse as sp

_PARTS = ("data", "indices", "indptr")


def learned(ndim: int = 2, *, per_item: bool = True) -> Any:
    """Declare an array that a model learns, as a dataclass field whose name ends in an underscore.

    Parameters
    ----------
    ndim : int
        Number of dimensions of the array; a sparse CSR matrix has 2.
    per_item : bool
        Whether its first dimension is the items; every model needs at least one such array.
    """
    return dataclasses.field(
        default_factory=lambda: np.empty((0,) * ndim, dtype=np.float32),
        init=False,
        repr=False,
        compare=False,
        metadata={"learned": ndim, "per_item": per_item},
    )


def learned_arrays(model: Any) -> dict[str, np.ndarray]:
    """Return the learned arrays of a model by name, as a bundle keeps them."""
    arrays: dict[str, np.ndarray] = {}
    for field in _learned_fields(model):
        name, value = field.name.rstrip("_"), getattr(model, field.name)
        if sp.issparse(value):
            csr = sp.csr_matrix(cast(Any, value))
            arrays |= {f"{name}.{part}": getattr(csr, part) for part in _PARTS}
            if csr.shape[0] != csr.shape[1]:
                arrays[f"{name}.shape"] = np.array(csr.shape, dtype=np.int64)
        else:
            arrays[name] = np.asarray(value)
    return arrays


def load_learned_arrays(model: Any, arrays: Mapping[str, np.ndarray]) -> int:
    """Set the learned fields of a model from what `learned_arrays` returned.

    Parameters
    ----------
    model : Model
        Whose fields are set.
    arrays : mapping of str to ndarray
        By name.

    Returns
    -------
    int
        Number of items.

    Raises
    ------
    KeyError, ValueError
        If an array is missing, has another number of dimensions, or another number of items than the others.
    """
    n_items: int | None = None
    for field in _learned_fields(model):
        name, ndim = field.name.rstrip("_"), field.metadata["learned"]
        value = _sparse(arrays, name) if f"{name}.indptr" in arrays else arrays[name]
        if value.ndim != ndim:
            raise ValueError(f"{name} of shape {value.shape}, expected {ndim} dimension{'s' if ndim > 1 else ''}")
        if field.metadata["per_item"]:
            if n_items not in (None, value.shape[0]):
                raise ValueError(f"{name} of shape {value.shape}, expected a first dimension of {n_items:,} items")
            n_items = value.shape[0]
        setattr(model, field.name, value)
    if n_items is None:
        raise ValueError(
            f"{type(model).__name__} declares no array of shape (n_items, ...); declare one with learned(), "
            "or write its own weights() and load_weights()"
        )
    return n_items


def _sparse(arrays: Mapping[str, np.ndarray], name: str) -> sp.csr_matrix:
    data, indices, indptr = (arrays[f"{name}.{part}"] for part in _PARTS)
    for part, array in zip(_PARTS, (data, indices, indptr), strict=True):
        if array.ndim != 1:
            raise ValueError(f"{name}.{part} of shape {array.shape}, expected one dimension")
    n_rows = len(indptr) - 1
    _, n_columns = arrays.get(f"{name}.shape", (n_rows, n_rows))
    matrix = sp.csr_matrix((data, indices, indptr), shape=(n_rows, int(n_columns)))
    matrix.check_format()
    return matrix


def _learned_fields(model: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(model) if "learned" in field.metadata]
