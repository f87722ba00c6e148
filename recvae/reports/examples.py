"""Single users: what they have, what they were recommended and why, and for whom a run does worst.

Letters in shape comments: U users.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recvae.display import plural
from recvae.items import ItemIndex
from recvae.recommenders.base import BaseRecommender
from recvae.reports.groups import FEWEST, groups_of
from recvae.reports.markup import escaped, text_table
from recvae.reports.measuring import Measured
from recvae.reports.popularity import popularity_of_histories

_HISTORY, _RECOMMENDED, _REASONS = 12, 10, 2
_WORST, _SEGMENTS, _MISSED = 5, 5, 3
_PLACES = {
    1: ("a typical result",),
    2: ("a poor result", "a good result"),
    3: ("a poor result", "a typical result", "a good result"),
}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The run that is shown, and what it reached for each user.

    Parameters
    ----------
    name : str
        Of the run.
    recommender : BaseRecommender
        It.
    metric : str
        Written `name@k`.
    values : ndarray of shape (n_users,)
        Of the metric, NaN where a user has no target.
    measured : Measured
        With the run, and any others.
    """

    name: str
    recommender: BaseRecommender
    metric: str
    values: np.ndarray
    measured: Measured


def title_of(items: ItemIndex, column: int) -> str:
    """Return the title of an item, or its id."""
    title = items.title_of(column)
    return str(items.id_of(column)) if title is None else title


def chosen_users(values: np.ndarray, n: int) -> list[int]:
    """Return the rows of n users at even steps from the worst to the best: for three, at the quartiles.

    Where all of these have the same value and others have a higher one, the last is the middle one of those others.

    Parameters
    ----------
    values : ndarray of shape (n_users,)
        NaN where a user has no target.
    n : int
        Users, >= 0; fewer where there are not as many.
    """
    order = np.argsort(values, kind="stable")
    order = order[: np.count_nonzero(~np.isnan(values))]  # NaN comes last
    places = {len(order) * (step + 1) // (n + 1) for step in range(n)}
    chosen = [int(order[place]) for place in sorted(places)] if len(order) else []
    higher = order[values[order] > values[chosen[0]]] if chosen else order[:0]
    if len(chosen) > 1 and len(higher) and values[chosen[-1]] == values[chosen[0]]:
        chosen[-1] = int(higher[len(higher) // 2])
    return chosen


def examples(shown: Shown, n: int) -> str:
    """Return n users with their histories, hidden items, recommendations and the reasons for these."""
    users = chosen_users(shown.values, n)
    words = _PLACES.get(len(users), ())
    return "\n".join(
        _example(shown, user, words[place] if words else f"number {place + 1} of {len(users)}, from poor to good")
        for place, user in enumerate(users)
    )


def _example(shown: Shown, user: int, word: str) -> str:
    held_out, items = shown.measured.held_out, shown.recommender.items
    row = held_out.fold_in[user]
    history = {
        items.id_of(column): float(weight) for column, weight in zip(row.indices.tolist(), row.data, strict=True)
    }
    hidden = set(held_out.targets[user].indices.tolist())
    found = shown.recommender.recommend(history, k=_RECOMMENDED)
    reasons = shown.recommender.explain(history, found.ids, most=_REASONS) if history and found.ids else []
    word = word if shown.values[user] > 0 else "nothing was found"
    lines = []
    for place, item in enumerate(found.ids):
        column = items.column_of(item)
        because = [name or str(key) for key, name, part in (reasons[place].reasons if reasons else ()) if part > 0]
        mark = ' <span class="hit">✓ a hidden item</span>' if column in hidden else ""
        why = f'<span class="why">because of {escaped(" and ".join(because))}</span>' if because else ""
        lines.append(f"<li>{escaped(found.titles[place] or item)}{mark}{why}</li>")
    return (
        f'<article class="user">\n<h3>User {escaped(held_out.user_ids[user])}: {escaped(word)} '
        f"({escaped(shown.metric)} {shown.values[user]:.3f})</h3>\n"
        f'<div class="sides"><div>{_titles("History", items, row.indices)}</div>'
        f"<div>{_titles('Hidden items', items, held_out.targets[user].indices)}</div></div>\n"
        f"<h4>Recommended by {escaped(shown.name)}</h4><ol>{''.join(lines)}</ol>\n</article>"
    )


def _titles(word: str, items: ItemIndex, columns: np.ndarray) -> str:
    """Return the titles of some items, the most popular first."""
    order = columns[np.argsort(-items.train_counts[columns], kind="stable")][:_HISTORY]
    size = plural(len(columns), "item") + (f", the {_HISTORY} most popular" if len(columns) > _HISTORY else "")
    body = "".join(f"<li>{escaped(title_of(items, column))}</li>" for column in order.tolist())
    return f"<h4>{escaped(word)} ({size})</h4><ul>{body}</ul>"


def segments(shown: Shown, others: dict[str, np.ndarray]) -> str:
    """Return the groups of users for whom the run does worst, next to what the other runs reach for these.

    Parameters
    ----------
    shown : Shown
        The run.
    others : dict of str to ndarray of shape (n_users,)
        Values of the same metric, by run.
    """
    known = ~np.isnan(shown.values)  # (U,)
    parts = [(label, inside) for label, inside in _segments(shown.measured, known) if inside.sum() >= FEWEST]
    parts.sort(key=lambda part: float(shown.values[part[1]].mean()))
    rows = [
        [label, f"{inside.sum():,}", *(f"{values[inside].mean():.4f}" for values in (shown.values, *others.values()))]
        for label, inside in [*parts[:_SEGMENTS], ("all users", known)]
    ]
    return text_table(
        ["users", "how many", shown.name, *others],
        rows,
        texts=(0,),
        note=f"mean {shown.metric}, the {min(_SEGMENTS, len(parts))} groups where {shown.name} is lowest, worst first",
    )


def _segments(measured: Measured, known: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return groups of users (U,) by their history and by the popularity of their targets, with a name each."""
    found = []
    lengths = groups_of(measured.lengths[known])
    for place, label in enumerate(lengths.labels()):
        inside = np.zeros(len(known), dtype=bool)
        inside[known] = lengths.of == place
        found.append((f"history of {label} items", inside))
    counts = popularity_of_histories(measured.held_out.targets, measured.train_counts)
    popularity = groups_of(np.rint(counts[known]).astype(np.int64))
    for place, label in enumerate(popularity.labels()):
        inside = np.zeros(len(known), dtype=bool)
        inside[known] = popularity.of == place
        found.append((f"hidden items that {label} training users have on average", inside))
    return found


def worst_users(shown: Shown, k: int) -> str:
    """Return the users with the lowest values, of these first those with the most hidden items."""
    measured, items = shown.measured, shown.recommender.items
    targets = measured.held_out.targets
    n_targets = np.diff(targets.indptr)
    order = [user for user in np.lexsort((-n_targets, shown.values)).tolist() if not np.isnan(shown.values[user])]
    rows = []
    for user in order[:_WORST]:
        hidden = targets[user].indices
        first = measured.ranked[shown.name][user, :k]
        missed = hidden[~np.isin(hidden, first)]
        missed = missed[np.argsort(-items.train_counts[missed], kind="stable")]
        rows.append(
            [
                measured.held_out.user_ids[user],
                f"{shown.values[user]:.4f}",
                f"{measured.lengths[user]:,}",
                f"{len(hidden) - len(missed)} of {len(hidden)}",
                _missed(items, missed.tolist()),
            ]
        )
    return text_table(
        [
            "user",
            shown.metric,
            "items in history",
            f"hidden items among the first {k}",
            "missed, the most popular first",
        ],
        rows,
        texts=(4,),
    )


def _missed(items: ItemIndex, columns: Sequence[int]) -> str:
    words = [
        f"{title_of(items, column)} ({items.train_counts[column]:,} training users)" for column in columns[:_MISSED]
    ]
    return "; ".join([*words, *([f"and {len(columns) - _MISSED} more"] if len(columns) > _MISSED else [])])
