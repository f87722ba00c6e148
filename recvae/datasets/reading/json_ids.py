"""What JSON objects hold where ids are expected: one id, a list of ids, or an object of ids and weights."""

import duckdb

from recvae.datasets.reading.sql import json_path
from recvae.datasets.reading.times import quoted
from recvae.errors import DataError

_INNER = "('OBJECT', 'ARRAY', 'BOOLEAN')"
_PARTS_OF_AN_ID = "('id', '_id', 'name', 'title')"


def lists_in(connection: duckdb.DuckDBPyConnection, objects: str, user: str, item: str, name: str) -> tuple[bool, bool]:
    """Return whether items are lists, or objects of items and weights, in any row of a file; and whether objects.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        DuckDB.
    objects : str
        The SQL of the objects, as in `relations.lines_relation`.
    user, item : str
        Keys of the users and items; "" for none.
    name : str
        What messages call the file.

    Raises
    ------
    DataError
        If a user is an object or an array, or an item something else: its keys would be taken for items.
    """
    user_path, item_path = quoted(json_path(user) if user else "$"), quoted(json_path(item))
    values, elements = quoted(json_path(item) + ".*"), quoted(json_path(item) + "[*]")
    kind = f"json_type(line, {item_path})"
    not_weights = (
        f"list_bool_or(list_transform(json_type(line, {values}), lambda one: one IN {_INNER})) OR list_bool_or("
        f"list_transform(json_extract_string(line, {values}), lambda one: one IS NOT NULL "
        f"AND try_cast(one AS FLOAT) IS NULL)) OR list_bool_or(list_transform(json_keys(line, {item_path}), "
        f"lambda one: one IN {_PARTS_OF_AN_ID} OR starts_with(one, '$')))"
    )
    not_ids = f"list_bool_or(list_transform(json_type(line, {elements}), lambda one: one IN {_INNER}))"
    tests = f"({kind} = 'OBJECT' AND ({not_weights})) OR ({kind} = 'ARRAY' AND ({not_ids}))"
    is_nested = f"json_type(line, {user_path}) IN ('OBJECT', 'ARRAY')" if user else "false"
    query = (
        f"SELECT first(json_extract(line, {user_path})::VARCHAR) FILTER ({is_nested}), "
        f"first(json_extract(line, {item_path})::VARCHAR) FILTER ({tests}), "
        f"count(*) FILTER ({kind} IN ('OBJECT', 'ARRAY')), count(*) FILTER ({kind} = 'OBJECT') "
        f"FROM {objects} WHERE json_valid(line)"
    )
    wrong_user, wrong_item, n_lists, n_objects = connection.execute(query).fetchall()[0]
    if wrong_user is not None:
        raise DataError(
            f"{name}: the column '{user}' holds objects or arrays, expected one user id per object; "
            "write them flat, e.g. with jq"
        )
    if wrong_item is not None:
        raise DataError(
            f"{name}: the column '{item}' holds {wrong_item[:60]}, expected one id, a list of ids, or an object of ids "
            "and their weights; write them flat, e.g. with jq"
        )
    return n_lists > 0, n_objects > 0
