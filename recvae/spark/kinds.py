"""Columns of a table in the types of a log; a type of which two engines could make different values is refused."""

from typing import TYPE_CHECKING, Any

from recvae.errors import DataError

if TYPE_CHECKING:
    from pyspark.sql import Column

_INTEGERS = ("tinyint", "smallint", "int", "bigint")
_FLOATS = ("float", "double")

NANOSECONDS = "timestamp in nanoseconds"
"""The type of times that Spark reads as numbers; see `footers`."""


def quoted(name: str) -> str:
    """Return a name of a column as Spark takes it, whatever it has in it."""
    return "`" + name.replace("`", "``") + "`"


def id_column(name: str, kind: Any, role: str, where: str) -> "Column":
    """Return a column of ids as integers, floats or texts, as `IdColumn` takes them.

    Parameters
    ----------
    name, kind
        The column and its type in Spark.
    role, where : str
        What messages call it and the table.

    Raises
    ------
    DataError
        If its type can hold no ids.
    """
    from pyspark.sql import functions

    column, text = functions.col(quoted(name)), kind.simpleString()
    if text == "string" or text in _FLOATS:
        return column
    if text in _INTEGERS:
        return column.cast("bigint")
    if text.startswith("decimal") and kind.scale == 0:
        return column.cast("string")
    if text.startswith("array"):
        raise DataError(
            f"{where}: column '{name}' holds lists, expected one id per row; write one row per user and item, e.g. "
            "with explode"
        )
    raise _refused(where, name, text, f"integers or texts for the {role}", role)


def number_column(name: str, kind: str, role: str, where: str) -> "Column":
    """Return a column of ratings or weights as float32.

    Raises
    ------
    DataError
        If it does not hold numbers.
    """
    from pyspark.sql import functions

    column = functions.col(quoted(name))
    if kind == "boolean" and role == "rating":
        return column.cast("int").cast("float")
    if kind in (*_INTEGERS, *_FLOATS) or kind.startswith("decimal"):
        return column.cast("float")
    raise _refused(where, name, kind, f"numbers for the {role}", role)


def time_column(name: str, kind: str, where: str) -> "Column":
    """Return a column of times as whole seconds since 1970, or as the numbers that they are.

    Raises
    ------
    DataError
        If it does not hold times.
    """
    from pyspark.sql import functions

    column = functions.col(quoted(name))

    if kind == NANOSECONDS:
        return functions.expr(f"({quoted(name)} - pmod({quoted(name)}, 1000000000)) div 1000000000")  # rounded down
    if kind == "timestamp":
        return functions.unix_seconds(column)  # rounded down, as before 1970 too
    if kind in ("timestamp_ntz", "date"):
        day = functions.unix_date(column.cast("date")).cast("bigint") * 86_400
        if kind == "date":
            return day
        clock = functions.hour(column) * 3600 + functions.minute(column) * 60 + functions.second(column)
        return day + clock.cast("bigint")
    if kind == "float":
        raise _refused(where, name, "32-bit floats, which cannot tell seconds apart", "64 bits", "time")
    if kind in _INTEGERS:
        return column.cast("bigint")
    if kind.startswith("decimal"):  # also integers of 64 bits without a sign: a float would round them
        return functions.expr(f"try_cast(floor({quoted(name)}) AS BIGINT)")
    if kind == "double":
        fits = (column >= -(2.0**63)) & (column < 2.0**63)  # else null, as a time that cannot be read; so is NaN
        return functions.when(fits, functions.floor(column)).cast("bigint")
    raise _refused(where, name, kind, "times: numbers, dates or timestamps", "time")


def _refused(where: str, name: str, kind: str, expected: str, role: str) -> DataError:
    switch = f", or leave it out with --no-{role}" if role in ("rating", "time") else ""
    hint = "; convert it first, e.g. with cast or to_timestamp"
    return DataError(
        f"{where}: column '{name}' holds {kind}, expected {expected}{hint}; "
        f"name another column with --{role}-col{switch}"
    )
