"""What a model learns: fields of arrays, which are kept in a bundle and loaded from it by name.

A field `item_factors_` is kept as `item_factors`; a sparse matrix `similarity_` as `similarity.data`,
`similarity.indices` and `similarity.indptr`, and `similarity.shape` where it is not square.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import scipy.sparse as sp

from recvae.errors import UsageError

_PARTS = ("data", "indices", "indptr")
_NO_ARRAY = (
    "declares no array of shape (n_items, ...); "
    "declare one with learned(), or write its own weights() and load_weights()"
)


def learned(ndim: int = 2, *, per_item: bool = True, counted: bool = True) -> Any:
    """Declare an array that a model learns, as a dataclass field whose name ends in an underscore.

    Parameters
    ----------
    ndim : int
        Number of dimensions of the array; a sparse CSR matrix has 2.
    per_item : bool
        Whether its first dimension is the items; every model needs at least one such array.
    counted : bool
        Whether its numbers are parameters, as tables count them; a setting that was left to the data is none.
    """
    return dataclasses.field(
        default_factory=lambda: np.empty((0,) * ndim, dtype=np.float32),
        init=False,
        repr=False,
        compare=False,
        metadata={"learned": ndim, "per_item": per_item, "counted": counted},
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


def parameters_in(model: Any, arrays: Mapping[str, np.ndarray]) -> int:
    """Return how many numbers of a model's arrays are parameters: neither indices nor settings left to the data.

    Parameters
    ----------
    model : Model
        Whose fields say what counts.
    arrays : mapping of str to ndarray
        What its `weights` returned.
    """
    others = {field.name.rstrip("_") for field in _learned_fields(model) if not field.metadata["counted"]}
    return sum(array.size for name, array in arrays.items() if array.dtype.kind == "f" and name not in others)


def check_fields(model: Any) -> None:
    """Refuse a model without a name, or with a field that no bundle would keep: neither a hyperparameter nor learned.

    Raises
    ------
    UsageError
        With the name of the field.
    """
    if not isinstance(getattr(model, "name", None), str):
        raise UsageError(
            f"got {type(model).__name__} without a name; give it a class attribute such as name = 'itemknn'"
        )
    for field in dataclasses.fields(model):
        if field.init and field.name != "parts" and "meaning" not in field.metadata:
            raise UsageError(
                f"got field {field.name} of {type(model).__name__}, which no bundle would keep; declare it with "
                "hyperparameter(...), or with learned() if the model learns it"
            )


def check_learned(model: Any, n_items: int) -> None:
    """Refuse what a model has learned if it could not be loaded again.

    Raises
    ------
    UsageError
        If no array has a row for each item, or one has another shape than was declared.
    """
    fields = _learned_fields(model)
    if not any(field.metadata["per_item"] for field in fields):
        raise UsageError(f"got {type(model).__name__}, which {_NO_ARRAY}")
    for field in fields:
        value = getattr(model, field.name)
        shape = getattr(value, "shape", None)
        rows = n_items if field.metadata["per_item"] else None
        if shape is None or len(shape) != field.metadata["learned"] or rows not in (None, shape[0]):
            got = type(value).__name__ if shape is None else f"shape {shape}"
            expected = f"{field.metadata['learned']} dimensions" + (f", the first of {n_items:,} items" if rows else "")
            raise UsageError(
                f"got {field.name} of {got} from {type(model).__name__}._fit, expected an array of {expected}"
            )


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
        raise ValueError(f"{type(model).__name__} {_NO_ARRAY}")
    return n_items


def _sparse(arrays: Mapping[str, np.ndarray], name: str) -> sp.csr_matrix:
    data, indices, indptr = (arrays[f"{name}.{part}"] for part in _PARTS)
    for part, array in zip(_PARTS, (data, indices, indptr), strict=True):
        if array.ndim != 1:
            raise ValueError(f"{name}.{part} of shape {array.shape}, expected one dimension")
    n_rows = len(indptr) - 1
    shape = np.asarray(arrays.get(f"{name}.shape", (n_rows, n_rows)))
    if shape.shape != (2,):
        raise ValueError(f"{name}.shape of shape {shape.shape}, expected two numbers")
    matrix = sp.csr_matrix((data, indices, indptr), shape=(n_rows, int(shape[1])))
    matrix.check_format()
    return matrix


def _learned_fields(model: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(model) if "learned" in field.metadata]
