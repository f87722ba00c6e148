"""Columns and tables in memory, of any library, as Arrow: the reader takes them as it takes files."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from recvae.errors import DataError, UsageError
from recvae.ids import most_exact, plain_id


def arrow_table(table: Any) -> pa.Table:
    """Return a table of pandas, polars or Arrow, or a mapping of columns, as an Arrow table.

    Raises
    ------
    UsageError
        If it is no table.
    DataError
        If a column cannot be used.
    """
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, Mapping):
        return table_of({str(name): column for name, column in table.items()})
    names = getattr(table, "columns", None)
    if names is None or not hasattr(table, "__arrow_c_stream__"):
        raise UsageError(f"got {type(table).__name__} for a log, expected a table of pandas, polars or Arrow")
    try:
        return pa.table(table)
    except (
        pa.ArrowException,
        ValueError,
        TypeError,
        OverflowError,
    ):  # pandas: a column of mixed objects, or two of one name
        columns = [arrow_column(table.iloc[:, place], str(name)) for place, name in enumerate(names)]
        return pa.Table.from_arrays(columns, names=[str(name) for name in names])


def readable(table: pa.Table, name: str, names: Sequence[str]) -> pa.Table:
    """Return a table with types that DuckDB takes, and that keep what a column says.

    Parameters
    ----------
    table : pyarrow.Table
        Any table.
    name : str
        What messages call it.
    names : sequence of str
        What messages call its columns.
    """
    columns = []
    for called, column in zip(names, table.columns, strict=True):
        kind = column.type
        if isinstance(kind, pa.BaseExtensionType) and kind.extension_name.startswith("pandas."):
            raise DataError(  # a period of a month is a number of months for Arrow
                f"{name}: column '{called}' holds {kind.extension_name.removeprefix('pandas.')}s of pandas, expected "
                "numbers, texts or times; convert it first, e.g. with .dt.to_timestamp() or .astype(str)"
            )
        if pa.types.is_dictionary(kind) and pa.types.is_floating(kind.value_type):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pa.types.is_float16(kind):  # exact up to 2048 only: a user with a larger id would be another one
            if _largest(column) >= (most := most_exact(column)):
                raise DataError(
                    f"{name}: column '{called}' holds float16 numbers from {most} on, which are not exact; "
                    "write them as float64 or as integers"
                )
            column = column.cast(pa.float32())
        elif pa.types.is_decimal256(kind):
            column = column.cast(pa.string())
        elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            element = pa.float32() if pa.types.is_float16(kind.value_type) else kind.value_type
            column = column.cast(pa.list_(element))
        columns.append(column)
    return pa.Table.from_arrays(columns, names=table.column_names)


def _largest(column: pa.ChunkedArray) -> float:
    numbers = np.abs(column.cast(pa.float32()).to_numpy())
    return float(np.nanmax(numbers, initial=0.0, where=np.isfinite(numbers)))


def table_of(columns: Mapping[str, Any]) -> pa.Table:
    """Return columns of equal length as an Arrow table.

    Parameters
    ----------
    columns : mapping of str to sequence
        Lists, generators, numpy arrays, or columns of pandas, polars and Arrow.

    Raises
    ------
    DataError
        If they differ in length, or one cannot be used.
    """
    arrays = {name: arrow_column(column, name) for name, column in columns.items()}
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1:
        raise DataError(f"got columns of {sorted(lengths)} rows, expected the same length; align them first")
    return pa.table(arrays)


def arrow_column(column: Any, name: str) -> pa.ChunkedArray:
    """Return one column as Arrow; mixed objects, such as integers and texts, become texts.

    Parameters
    ----------
    column : sequence
        A list, a generator, a numpy array, or a column of pandas, polars or Arrow.
    name : str
        What messages call it.

    Raises
    ------
    DataError
        If it has more than one dimension, or values that are no numbers, texts or times.
    """
    if isinstance(column, pa.ChunkedArray):
        return column
    if isinstance(column, pa.Array):
        return pa.chunked_array([column])
    if isinstance(column, str | bytes) or not isinstance(column, Iterable):
        raise DataError(
            f"got {type(column).__name__} for the column of {name}s, expected one value per event, e.g. a list"
        )
    if getattr(column, "ndim", 1) != 1:
        shape = getattr(column, "shape", ())
        raise DataError(f"got an array of shape {shape} for the column of {name}s, expected one value per event")
    dtype = getattr(column, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind == "c":
        raise DataError(f"got complex numbers for the column of {name}s, expected numbers, texts or times")
    if isinstance(column, np.ndarray) and column.dtype.kind == "M" and np.datetime_data(column.dtype)[0] in "YMWhm":
        column = column.astype("datetime64[s]")  # Arrow has no months and hours
    if dtype == np.dtype(object) or not (isinstance(column, np.ndarray) or hasattr(column, "__arrow_c_stream__")):
        # Arrow would cut the fraction of numpy's floats among integers.
        column = [_exact(value, name) if isinstance(value, float | np.floating) else value for value in column]
    try:
        if hasattr(column, "__arrow_c_stream__"):
            found = pa.chunked_array(column)  # type: ignore[arg-type]
        else:
            found = pa.chunked_array([pa.array(column, from_pandas=True)])
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return _texts([_text_of(value, name) for value in column], name)
    if pa.types.is_nested(found.type):
        raise DataError(
            f"got {found.type} for the column of {name}s, expected one value per event; use one row per user and item"
        )
    return found


def _exact(value: float | np.floating, name: str) -> float:
    """Return a float of a list, unless it is a whole number that its type does not hold exactly."""
    most = most_exact(value)
    if np.isfinite(value) and abs(value) > most and name not in ("rating", "time"):
        raise DataError(
            f"got {value!r} in the column of {name}s, expected floats up to {most}, which are exact: different ids may "
            "have become one; write the ids as integers or texts"
        )
    return float(value)


def _texts(values: list[str | None], name: str) -> pa.ChunkedArray:
    try:
        return pa.chunked_array([pa.array(values, pa.string())])
    except UnicodeEncodeError as error:
        raise DataError(f"got a text in the column of {name}s that UTF-8 cannot hold ({error}); repair it") from error


def _text_of(value: Any, name: str) -> str | None:
    """Return one object of a mixed column as text; None where it is missing."""
    if value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType"):
        return None
    is_opaque = type(value).__str__ is object.__str__ and type(value).__repr__ is object.__repr__  # only an address
    if is_opaque or isinstance(value, bool | complex | bytes | tuple | list | dict | set):
        raise DataError(
            f"got {value!r:.60} in the column of {name}s, expected numbers, texts or times; convert the column first"
        )
    if isinstance(value, int | float | Decimal | uuid.UUID | np.number):
        return plain_id(value)
    return str(value)
