"""Columns of a table of histories: the ids of users and items as codes, and weights as numbers.

Letters in shape comments: N rows.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from recvae.errors import UsageError
from recvae.ids import most_exact
from recvae.recommenders.id_lists import BECOME_ONE

if TYPE_CHECKING:
    import pyarrow as pa


def coded(column: "pa.ChunkedArray", name: str) -> tuple[np.ndarray, list[Any]]:
    """Return the code of each row (N,), -1 where it is empty, and the different ids in order of appearance.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        Of a table. Of categories, those that no row has are no ids, and their order says nothing.
    name : str
        What messages call it.

    Raises
    ------
    UsageError
        If it holds floats that may have been other ids.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = column.combine_chunks()
    if isinstance(whole, pa.DictionaryArray):
        values, codes = whole.dictionary, whole.indices
        is_view = pa.types.is_string_view(values.type)  # of polars, which Arrow cannot take from
        whole = (values.cast(pa.large_string()) if is_view else values).take(codes)
    if pa.types.is_floating(whole.type):
        values = whole.to_numpy(zero_copy_only=False)
        largest = float(np.abs(values).max(initial=0, where=np.isfinite(values)))
        most = most_exact(whole)
        if largest >= most:
            raise UsageError(f"got {whole.type} numbers up to {largest:.0f} in {name}, {BECOME_ONE.format(most)}")
        whole = pc.call_function("if_else", [pc.call_function("is_nan", [whole]), None, whole])
    found = whole.dictionary_encode()
    return found.indices.fill_null(-1).to_numpy(zero_copy_only=False), found.dictionary.to_pylist()


def numbers(column: "pa.ChunkedArray") -> np.ndarray:
    """Return a column as float64; all NaN if it holds anything but numbers."""
    try:
        return np.array(column.to_pandas(), dtype=np.float64)
    except (ValueError, TypeError):
        return np.full(len(column), np.nan)
