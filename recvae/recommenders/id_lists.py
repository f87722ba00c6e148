"""The ids of one history, or of a list to exclude or allow; what can be iterated but is no list of ids is refused.

Read as ids, a dense row of a matrix would be 0 and 1, and a table the names of its columns; both would be answered.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from recvae.datasets.columns import COLUMN_NAMES, plain_name
from recvae.errors import UsageError
from recvae.ids import MOST_EXACT, most_exact
from recvae.items import ItemIndex

HISTORY = "a history"
"""What messages call the items of a user."""

BECOME_ONE = "a type that is exact only below {:,}: different ids may have become one; give integers or texts"
"""What messages say of floats that are too large for ids."""

_NUMBER = (int, float, np.number, np.bool_)
_TO_LIST = ("tolist", "to_list", "to_pylist")  # of numpy, pandas and PyTorch; of polars; of Arrow


def is_column(given: object) -> bool:
    """Return whether something is an array or a column that can be made a list, not a table."""
    return any(hasattr(given, name) for name in _TO_LIST) and not _is_table(given)


def as_list(given: Iterable[Any]) -> list[Any]:
    """Return the values of a list, a column or anything iterable; those of arrays as Python's numbers and texts."""
    for name in _TO_LIST:
        if hasattr(given, name):
            return getattr(given, name)()
    return list(given)


def listed_ids(given: object, n_items: int, what: str = HISTORY) -> list[Any]:
    """Return ids as a list.

    Parameters
    ----------
    given : object
        A list, set, generator, array or column of ids.
    n_items : int
        Number of known items: as long as a dense row is.
    what : str
        What messages call it: the name of the argument, or a history.

    Raises
    ------
    UsageError
        If it is a single id, a table, a matrix, or a row of a matrix, e.g. a mask; values by item, e.g. of
        `value_counts`; or floats that may have been other ids.
    """
    kind = type(given).__name__
    if _is_table(given):
        raise UsageError(
            f"got a {kind} for {what}, expected a list of ids; pass its column of items, e.g. table['item'], or the "
            "whole table to recommend_batch"
        )
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        single = f"a single id {given!r}" if what == HISTORY else f"{what}={given!r}"
        raise UsageError(f"got {single}, expected a list of ids, e.g. [{given!r}]")
    shape = tuple(getattr(given, "shape", (0,)))
    if len(shape) != 1 or hasattr(given, "tocsr"):
        raise UsageError(
            f"got a {kind} of shape {shape} for {what}, expected a list of ids; for many users use recommend_batch, "
            "with scipy.sparse.csr_matrix(x) where columns are items"
        )
    if _is_by_item(given):
        raise UsageError(
            f"got a {kind} with the items as its index for {what}, expected ids; for weights of a history pass "
            "series.to_dict(), for ids alone series.index"
        )
    ids = as_list(given)
    check_exact(ids, what, most_exact(given))
    if _is_dense_row(ids, n_items):
        raise UsageError(
            f"got {len(ids):,} numbers for {what}, as many as there are items and nearly all of them 0 or 1, expected "
            "ids; for a row of a matrix use recommend_batch(scipy.sparse.csr_matrix(x))"
        )
    return ids


def check_exact(ids: Iterable[Any], what: str = HISTORY, most: int = MOST_EXACT) -> None:
    """Refuse floats that may have been other ids, before they were rounded.

    Parameters
    ----------
    ids : iterable
        Of any types.
    what : str
        What messages call them.
    most : int
        Up to where Python's floats among them are exact; see `most_exact`.

    Raises
    ------
    UsageError
        If there is one.
    """
    for item in ids:
        if isinstance(item, float | np.floating):
            limit = most if isinstance(item, float) else most_exact(item)
            if np.isfinite(item) and abs(item) >= limit:
                raise UsageError(f"got the float {float(item):.0f} in {what}, {BECOME_ONE.format(limit)}")


def check_id(item: object, what: str = HISTORY) -> None:
    """Refuse a list where an id is expected.

    Raises
    ------
    UsageError
        If it can be iterated, and is no text.
    """
    if isinstance(item, Iterable) and not isinstance(item, str | bytes):
        raise UsageError(
            f"got a {type(item).__name__} as an id in {what}, expected a number or a text; for many users use "
            "recommend_batch with a list of ids for each"
        )


def mask_of_ids(given: object, items: ItemIndex, name: str) -> np.ndarray:
    """Return which items have one of these ids, shape (n_items,), bool; unknown ids are ignored.

    Parameters
    ----------
    given : object
        See `listed_ids`.
    items : ItemIndex
        The known items.
    name : str
        Name of the argument, for messages.

    Raises
    ------
    UsageError
        See `listed_ids`; also if an id is a list.
    """
    ids = listed_ids(given, len(items), name)
    for item in ids:
        check_id(item, name)
    return items.mask_of(ids)


def refuse_matrix(given: object) -> None:
    """Refuse a dense matrix for the histories of many users; a matrix of texts has rows of ids.

    Raises
    ------
    UsageError
        If it is one.
    """
    shape = getattr(given, "shape", None)
    is_texts = getattr(getattr(given, "dtype", None), "kind", None) in ("O", "U", "S", "T")
    if shape is not None and len(shape) > 1 and not (is_texts and len(shape) == 2):
        raise UsageError(
            f"got a {type(given).__name__} of shape {tuple(shape)} for histories, expected a sparse matrix, lists of "
            "ids or a table; use scipy.sparse.csr_matrix(x) where columns are items, or x.tolist() where rows are ids"
        )


def _is_table(given: object) -> bool:
    return hasattr(type(given), "columns")  # of pandas, polars, Arrow, DuckDB and Spark


def _is_by_item(given: object) -> bool:
    """Return whether something is a pandas Series of anything else, such as counts, whose index has the items."""
    names = [getattr(one, "name", None) for one in (getattr(given, "index", None), given)]
    of_index, of_values = (isinstance(name, str) and plain_name(name) in COLUMN_NAMES["item"] for name in names)
    return of_index and not of_values


def _is_dense_row(ids: list[Any], n_items: int) -> bool:
    """Return whether ids are the values of a row of users x items: as many as items, most of them 0, or all 0 or 1."""
    if len(ids) != n_items or n_items < 3 or not all(isinstance(value, _NUMBER) for value in ids):
        return False
    n_zeros = sum(value == 0 for value in ids)
    return 2 * n_zeros > n_items or n_zeros + sum(value == 1 for value in ids) == n_items
