"""Which column of a table holds users, items, ratings, times, weights or titles: one table of names for every reader.

Importing this takes the standard library alone, for a service without torch and pandas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from recvae.errors import DataError, UsageError

# Names compare without case, underscores and type suffixes: user_id, userId and "user_id:token" are all `userid`.
# If a table has several, the one listed first counts.
COLUMN_NAMES = {
    "user": (
        *("userid", "user", "uid", "customerid", "customer", "visitorid", "reviewerid", "accountid", "sessionid"),
    ),
    "item": (
        *("itemid", "item", "iid", "movieid", "movie", "productid", "product", "asin", "parentasin"),
        *("trackid", "songid", "artistid", "bookid", "articleid", "newsid", "videoid", "businessid", "items"),
    ),
    "rating": ("rating", "ratings", "stars", "score", "overall"),
    "time": ("timestamp", "time", "ts", "datetime", "date", "unixreviewtime", "createdat"),
    "weight": ("weight",),
    "title": ("title", "name", "itemname", "movietitle"),
}
LOG = ("user", "item", "rating", "time")
"""Columns of a log; user and item are required."""

HISTORIES = ("user", "item", "weight")
"""Columns of a table of histories; user and item are required."""

TITLES = ("item", "title")
"""Columns of a table of titles; both are required."""

FEATURES = ("item",)
"""Columns of a table of items' features; all other columns are features."""

ATTRIBUTES = ("user",)
"""Columns of a table of users' attributes; all other columns are attributes."""

_OPTIONAL = ("rating", "time", "weight")
_ROW_ID = "id"  # the item in a table of titles, where a row is an item; in a log, `id` is the row's own number
_ITSELF = {"item": ("itemid", "item", "iid"), "user": ("userid", "user", "uid")}  # beside one, `id` is the row's number
_WORDS = {"user": "user id", "item": "item id"}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of the columns that are read; None where the table has none, "" for ids that are not looked for."""

    user: str = ""
    item: str = ""
    rating: str | None = None
    time: str | None = None
    weight: str | None = None
    title: str | None = None

    @property
    def ids(self) -> tuple[str, str]:
        """The columns of users and items."""
        return self.user, self.item

    @property
    def are_of_a_log(self) -> bool:
        """Whether there are users and items; in other tables, `--id-col` names the one column of ids."""
        return bool(self.user and self.item)


def what_rows_are(roles: Sequence[str]) -> str | None:
    """Return what a row of a table with these roles is: "item", "user", or None for an event."""
    if tuple(roles) == ATTRIBUTES:
        return "user"
    return "item" if "title" in roles or tuple(roles) == FEATURES else None


def usual_names(role: str, roles: Sequence[str]) -> Sequence[str]:
    """Return the usual names of a column; in a table of items, `id` is the item, and likewise of users."""
    names = COLUMN_NAMES[role]
    return (*names, _ROW_ID) if role == what_rows_are(roles) else names


def plain_name(name: str) -> str:
    """Return a column name without case, separators and type suffix."""
    return "".join(letter for letter in name.split(":")[0].lower() if letter.isalnum())


def find_columns(
    names: Sequence[str],
    roles: Sequence[str],
    where: str,
    way_out: str,
    named: Mapping[str, str | None] | None = None,
) -> Columns:
    """Choose the columns of a table: those that the user named, else by the names they usually have.

    Parameters
    ----------
    names : sequence of str
        The columns of the table.
    roles : sequence of str
        What to look for: `LOG`, `HISTORIES`, `TITLES`, `FEATURES` or `ATTRIBUTES`.
    where : str
        How messages call the table.
    way_out : str
        What messages propose, with {role} in the place of the role.
    named : mapping of str to (str or None), optional
        The column that the user named for each role, if any.

    Returns
    -------
    Columns
        All but rating, time and weight are always found, or it raises.

    Raises
    ------
    UsageError
        If a column that the user named is missing or ambiguous, or is named twice.
    DataError
        If no user or item column is recognised, or two columns fit a role equally well.

    Examples
    --------
    >>> find_columns(["product_id", "customer_id"], HISTORIES, "the table", "rename it to {role}").user
    'customer_id'
    """
    given = {role: name for role, name in (named or {}).items() if name is not None}
    found: dict[str, str] = {}
    row = what_rows_are(roles)
    options = {role: f"--{role}-col" for role in roles} | dict.fromkeys([row] if row else [], "--id-col")
    for role in roles:
        if role in given:
            found[role] = _named(given[role], names, options[role], where)
        else:
            free = [name for name in names if name not in given.values()]
            name = _usual(free, usual_names(role, roles), role, where, way_out)
            if role == row:
                _refuse_other_id(name, free, role, where, way_out)
            if name is not None:
                found[role] = name
            elif role not in _OPTIONAL:
                _missing(names, role, where, way_out)
    first: dict[str, str] = {}
    for role, name in found.items():
        if name in first:
            raise UsageError(
                f"got column '{name}' for both {first[name]} and {role}; "
                f"change {options[first[name]]} or {options[role]}"
            )
        first[name] = role
    return Columns(**found)


def _named(name: str, names: Sequence[str], option: str, where: str) -> str:
    """Return a column that the user named, if the table has it once."""
    listed = ", ".join(names)
    if names.count(name) > 1:
        raise UsageError(f"{where} has {names.count(name)} columns '{name}'; it has: {listed}; rename one of them")
    if name not in names:
        close = get_close_matches(name, names, n=1)
        hint = f"did you mean {option} {close[0]}?" if close else f"name one of them with {option}"
        raise UsageError(f"{where} has no column '{name}'; it has: {listed}; {hint}")
    return name


def _usual(names: Sequence[str], usual: Sequence[str], role: str, where: str, way_out: str) -> str | None:
    """Return the column with the first of the usual names, None where no column has one."""
    for one in usual:
        matching = [name for name in names if plain_name(name) == one]
        if len(matching) > 1:
            raise DataError(
                f"{where}: {' and '.join(map(repr, matching))} both look like the {_WORDS.get(role, role)}, "
                f"expected one column; {way_out.format(role=role)}"
            )
        if matching:
            return matching[0]
    return None


def _refuse_other_id(name: str | None, names: Sequence[str], role: str, where: str, way_out: str) -> None:
    """Refuse a table of items with an `id` where the item would be another column: it may be that of an artist."""
    own = next((one for one in names if plain_name(one) == _ROW_ID), None)
    if name is not None and own not in (None, name) and plain_name(name) not in _ITSELF[role]:
        raise DataError(
            f"{where}: {own!r} and {name!r} both look like the {_WORDS[role]}, expected one column; "
            f"{way_out.format(role=role)}"
        )


def _missing(names: Sequence[str], role: str, where: str, way_out: str) -> str:
    raise DataError(
        f"{where}: could not tell which column holds the {_WORDS.get(role, role)}; "
        f"it has: {', '.join(names) or 'none'}; {way_out.format(role=role)}"
    )
