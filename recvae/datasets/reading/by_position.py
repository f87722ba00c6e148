"""The columns of a text file without a header, by their positions: user, item, rating, time, as in MovieLens."""

from collections.abc import Sequence

from recvae.datasets.columns import LOG, plain_name, usual_names, what_rows_are
from recvae.datasets.reading import times
from recvae.datasets.reading.dialects import Dialect
from recvae.datasets.reading.sources import Source
from recvae.errors import DataError

_COUNTED = 5  # rows from which on it is no chance that they count 0, 1, 2, ..., or look like times


def by_position(
    source: Source, dialect: Dialect, roles: Sequence[str], ratings: str | None = None
) -> dict[str, str | None]:
    """Without a header, the columns are those of MovieLens: user, item, rating, time; or user, item, time.

    A file of histories has weights in the third, unless files like it have `ratings` there.
    """
    if row := what_rows_are(roles):
        if "title" in roles and len(dialect.names) > 2 and all(map(times.is_number, dialect.column("2"))):
            raise DataError(
                f"{source.name}: there is no header, and column 2 holds numbers, expected titles; name the column by "
                "its position, e.g. --id-col 1 --title-col 3"
            )
        return {"item": "1", "title": "2"} if "title" in roles else {row: "1"}
    named: dict[str, str | None] = {"user": "1", "item": "2"}
    _refuse_others(source, dialect, roles)
    if tuple(roles[:2]) != LOG[:2] or ("rating" not in roles and "time" not in roles):
        if "weight" in roles and len(dialect.names) > 2 and ratings != "3":
            named["weight"] = "3"
        return named
    for name in dialect.names[2:4]:
        values = dialect.column(name)
        is_time = bool(values) and all(times.looks_like_time(value) for value in values)
        is_number = all(times.is_number(value) for value in values)
        role = "time" if is_time or (is_number and "rating" in named) else "rating"
        if role in named or role not in roles:
            continue
        if not is_time and not is_number:
            wrong = next(value for value in values if not times.is_number(value))
            raise DataError(
                f"{source.name}: there is no header, and column {name} holds {wrong[:60]!r}, which is neither a rating "
                "nor a time; name the columns by their positions, e.g. --user-col 1 --item-col 2"
            )
        named[role] = name
    return named


def _refuse_others(source: Source, dialect: Dialect, roles: Sequence[str]) -> None:
    """Refuse columns in an order that is not the usual one, as far as their values tell."""
    if "weight" not in roles and len(dialect.names) > 2 and _counts_rows(dialect.column("1")):
        first = ", ".join(dialect.column("1")[:3])
        raise DataError(
            f"{source.name}: there is no header, and the first column counts the rows ({first}, ...), expected user, "
            "item, rating, time; name the columns by their positions, e.g. --user-col 2 --item-col 3"
        )
    are_times = [_are_times(dialect.column(name)) for name in dialect.names]
    if len(dialect.names) > 2 and any(are_times[:2]) and not any(are_times[2:]):
        place = are_times.index(True)
        raise DataError(
            f"{source.name}: there is no header, and column {place + 1} looks like times "
            f"({dialect.column(dialect.names[place])[0]}), expected user, item, rating, time; name the columns by "
            "their positions, e.g. --user-col 2 --item-col 3 --time-col 1"
        )
    if len(dialect.names) > 4 and all(times.is_number(value) for value in dialect.column("5")):
        raise DataError(
            f"{source.name}: there is no header, and {len(dialect.names)} columns of numbers, expected user, item, "
            "rating, time; name the columns by their positions, e.g. --user-col 1 --item-col 2; if each line is a user "
            "with a list of items, write one row per user and item"
        )


def _are_times(values: Sequence[str]) -> bool:
    """Whether a column holds times since 1995 only, as ids would hardly do by chance."""
    return len(values) >= _COUNTED and all(map(times.is_recent, values))


def _counts_rows(values: Sequence[str]) -> bool:
    """Whether the first values of a column are 0, 1, 2, ... or 1, 2, 3, ..., as an index that was written too."""
    if len(values) < _COUNTED or values[0].strip() not in ("0", "1"):
        return False
    start = int(values[0])
    return all(value.strip() == str(start + place) for place, value in enumerate(values))


def refuse_named_folders(source: Source, extra: Sequence[str], roles: Sequence[str]) -> None:
    """Refuse a file without a header below folders that are named for users or items: its first column is another."""
    for role in roles[:2]:
        for name in extra:
            if plain_name(name) in usual_names(role, roles):
                raise DataError(
                    f"{source.name}: there is no header, and its folder names the column '{name}', expected names for "
                    f"the other columns; say them by their positions, e.g. --{role}-col {name} and --"
                    f"{'item' if role == 'user' else 'user'}-col 1"
                )
