"""The relational steps of preparing a log, each once, as SQL that DuckDB and Spark both run.

The rows are events: `user_code` and `item_code` (positions in the sorted ids), `place` (their order), and, where the
log has them, `rating` and `moment` (the time). `{events}` stands for the relation.

The engine on one machine does the same steps on arrays of numpy (`events`, `splits/`), which stay the definition: for
the filters of five million rows they take 0.65 s of one core and 108 MB, this SQL in DuckDB 1.25 s and 291 MB. Tests
hold the two, and Spark, to the same events for every protocol. What draws random numbers is no SQL; see
`recvae.spark.draws`.
"""

import numpy as np

TRAIN, VALIDATION, TEST = 0, 1, 2
"""The values of `part`: training, validation targets, test targets."""

COUNTS = (
    "SELECT count(*) AS events, count(DISTINCT user_code) AS users, count(DISTINCT item_code) AS items FROM {events}"
)
"""Events, users and items."""

EVENTS_OF_USERS = "SELECT user_code, count(*) AS n FROM {events} GROUP BY user_code ORDER BY user_code"
"""The number of events of each user who has one."""

FIRST_SEEN = "SELECT item_code, min(place) AS first FROM {events} GROUP BY item_code ORDER BY first, item_code"
"""The items, in the order of their first event."""


def liked(min_rating: float) -> str:
    """Return the events with at least this rating; ratings are compared as float32, as numpy does."""
    return f"SELECT * FROM {{events}} WHERE rating >= CAST('{float(np.float32(min_rating))!r}' AS FLOAT)"


def first_of_pairs(has_times: bool) -> str:
    """Return the earliest event of each pair of user and item, the first in the order where times are equal."""
    times = ", moment" if has_times else ""
    return (
        f"SELECT user_code, item_code, place{times} FROM (SELECT *, row_number() OVER "
        f"(PARTITION BY user_code, item_code ORDER BY {'moment, ' if has_times else ''}place) AS nth FROM {{events}}) "
        "AS numbered WHERE nth = 1"
    )


def with_enough(code: str, least: int) -> str:
    """Return the events of the users or items that have enough of them.

    Parameters
    ----------
    code : str
        "user_code" or "item_code".
    least : int
        Number of events.
    """
    return (
        f"SELECT * FROM {{events}} WHERE {code} IN "
        f"(SELECT {code} FROM {{events}} GROUP BY {code} HAVING count(*) >= {int(least)})"
    )


def holdout(target_share: float) -> str:
    """Return the events with their `part`, by `draw`: a share of each user's events are test targets, and so on."""
    share = f"CAST('{float(target_share)!r}' AS DOUBLE)"
    ranked = (
        "SELECT *, row_number() OVER (PARTITION BY user_code ORDER BY draw, place) - 1 AS nth, "
        "count(*) OVER (PARTITION BY user_code) AS size FROM {events}"
    )
    tested = f"SELECT *, CAST(floor({share} * size) AS BIGINT) AS n_test FROM ({ranked}) AS ranked"
    both = f"SELECT *, CAST(floor({share} * (size - n_test)) AS BIGINT) AS n_validation FROM ({tested}) AS tested"
    return (
        f"SELECT user_code, item_code, place, CASE WHEN nth < n_test THEN {TEST} "
        f"WHEN nth < n_test + n_validation THEN {VALIDATION} ELSE {TRAIN} END AS part FROM ({both}) AS both_counts"
    )


def from_last() -> str:
    """Return the events with their rank from the user's last one (1), and the number of the user's events.

    Among equal times `draw` decides, which depends on both ids and the seed.
    """
    return (
        "SELECT *, row_number() OVER (PARTITION BY user_code ORDER BY moment DESC, draw DESC, item_code DESC) AS nth, "
        "count(*) OVER (PARTITION BY user_code) AS size FROM {events}"
    )


def leave_last_out(least: int) -> str:
    """Return the rows of `from_last` with their `part`; users with fewer than `least` events are in training only."""
    return (
        f"SELECT user_code, item_code, place, CASE WHEN size >= {least} AND nth = 1 THEN {TEST} "
        f"WHEN size >= {least} AND nth = 2 THEN {VALIDATION} ELSE {TRAIN} END AS part FROM {{events}}"
    )


def tied_users(least: int) -> str:
    """Return, of the rows of `from_last`, for how many users a draw decided about a target."""
    nth = ", ".join(f"max(CASE WHEN nth = {rank} THEN moment END) AS moment_{rank}" for rank in (1, 2, 3))
    return (
        f"SELECT count(*) AS n FROM (SELECT user_code, {nth} FROM {{events}} WHERE size >= {least} AND nth <= 3 "
        "GROUP BY user_code) AS last WHERE moment_1 = moment_2 OR moment_2 = moment_3"
    )


def time_split(validation_start: int, test_start: int) -> str:
    """Return the events with their `part`, by their time."""
    return (
        f"SELECT user_code, item_code, place, CASE WHEN moment < {int(validation_start)} THEN {TRAIN} "
        f"WHEN moment < {int(test_start)} THEN {VALIDATION} ELSE {TEST} END AS part FROM {{events}}"
    )


def known(part: str) -> str:
    """Return the events of some parts on items of the training part, with the column of each item.

    Parameters
    ----------
    part : str
        A condition on `part`; `{columns}` has `item_code` and `item_column`.
    """
    return f"SELECT user_code, item_column FROM {{events}} JOIN {{columns}} USING (item_code) WHERE {part}"
