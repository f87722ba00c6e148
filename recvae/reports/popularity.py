"""Pictures of what is recommended: how popular it is, and how much of the catalogue it covers.

Letters in shape comments: U users, I items, k ranks.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from recvae.display import plural
from recvae.errors import UsageError
from recvae.reports.canvas import INK, SOFT, check_series, legend, look_of, panels, picture
from recvae.reports.groups import bars_of, check_enough, groups_of, means_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def popularity_of_lists(ranked: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """Return the mean popularity of the items recommended to each user, NaN for an empty list.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, k), int
        Item columns; -1 where a list ended.
    popularity : ndarray of shape (n_items,)
        Of each item, such as its share of training users.

    Returns
    -------
    ndarray of shape (n_users,), float64
    """
    listed = ranked >= 0  # (U, k)
    total = np.where(listed, np.asarray(popularity, dtype=np.float64)[ranked], 0.0).sum(axis=1)  # (U,)
    n = listed.sum(axis=1)
    return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


def popularity_of_histories(histories: sp.csr_matrix, popularity: np.ndarray) -> np.ndarray:
    """Return the mean popularity of the items of each user's history, (n_users,), NaN for an empty one."""
    n = np.diff(histories.indptr)  # (U,)
    rows = np.repeat(np.arange(len(n)), n)
    total = np.bincount(rows, weights=np.asarray(popularity)[histories.indices], minlength=len(n))
    return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


def times_recommended(ranked: np.ndarray, n_items: int) -> np.ndarray:
    """Return how many users each item is recommended to, shape (n_items,), int64; -1 ends a list."""
    return np.bincount(ranked[ranked >= 0], minlength=n_items).astype(np.int64)


def concentration(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of items and the share of recommendations that these have, the most recommended first.

    This is the Lorenz curve, read from its other end.

    Parameters
    ----------
    counts : ndarray of shape (n_items,)
        Recommendations of each item, at least one in all.

    Returns
    -------
    items, recommendations : ndarray of shape (n_items + 1,), float64
        From (0, 0) to (1, 1).

    Examples
    --------
    >>> concentration(np.array([1, 0, 3, 0]))[1].tolist()
    [0.0, 0.75, 1.0, 1.0, 1.0]
    """
    ordered = np.sort(np.asarray(counts, dtype=np.float64))[::-1]
    return np.linspace(0, 1, len(ordered) + 1), np.append(0.0, np.cumsum(ordered) / ordered.sum())


def share_text(share: float) -> str:
    """Return a share of the catalogue as people read it; a small one never reads as nothing.

    Examples
    --------
    >>> [share_text(share) for share in (0.214, 0.0432, 0.0004, 0.0)]
    ['21%', '4.3%', 'less than 0.1%', '0%']
    """
    if 0 < share < 0.001:
        return "less than 0.1%"
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


@picture
def popularity_bias(recommended: Mapping[str, np.ndarray], consumed: np.ndarray, k: int, n_groups: int = 8) -> "Figure":
    """Draw how popular recommendations are against how popular the items are that the same users have.

    Above the dotted line, users are recommended more popular items than they chose themselves.

    Parameters
    ----------
    recommended : mapping of str to ndarray of shape (n_users,)
        By run, the mean popularity of each user's recommendations, as a share of training users; see
        `recvae.plots.popularity_of_lists`.
    consumed : ndarray of shape (n_users,)
        That of the items in each user's history; NaN for an empty one.
    k : int
        Items that were recommended to each user.
    n_groups : int
        Groups of users of about equal size; each is a point.

    Returns
    -------
    matplotlib Figure
        One line per run.

    Raises
    ------
    UsageError
        If there is no run, there are too many, or shapes differ.
    DataError
        If there are fewer than 10 users with a history.
    """
    from matplotlib.lines import Line2D

    names = check_series(list(recommended))
    for name in names:
        if recommended[name].shape != consumed.shape:
            raise UsageError(f"got values of shape {recommended[name].shape} for {name}, expected {consumed.shape}")
    known = ~np.isnan(consumed)
    check_enough(int(known.sum()), "groups of users")
    ranks = np.argsort(np.argsort(consumed[known], kind="stable"), kind="stable")
    groups = groups_of(ranks, n_groups)
    x, _ = bars_of(means_of(100 * consumed[known], groups))
    figure, [axis] = panels(1, "Popularity of recommendations", size=(7.0, 4.6))
    for place, name in enumerate(names):
        y, reach = bars_of(means_of(100 * recommended[name][known], groups))
        axis.errorbar(x, y, yerr=reach, capsize=2.5, elinewidth=1.1, **look_of(place, linewidth=1.2))
    start, end = float(x.min()) * 0.9, float(x.max()) * 1.05
    same: dict[str, Any] = {"color": SOFT, "linewidth": 1.0, "linestyle": (0, (1, 3))}
    axis.plot([start, end], [start, end], **same)
    axis.set(
        xlim=(start, end),
        xlabel="popularity of the items in their history (mean % of training users who have one)",
        ylabel=f"popularity of their first {k} recommendations (%)",
    )
    axis.set_ylim(bottom=0)
    axis.set_title(
        f"each point: about {plural(int(known.sum()) // len(groups.sizes), 'user')}, with a 95 % interval", fontsize=9.5
    )
    legend(
        figure,
        names,
        (Line2D([], [], color=SOFT, linewidth=1.0, linestyle=(0, (1, 3))), "as popular as their own items"),
    )
    return figure


@picture
def coverage_curve(counts: Mapping[str, np.ndarray], k: int, consumed: np.ndarray | None = None) -> "Figure":
    """Draw which share of all recommendations goes to which share of the catalogue, the most recommended first.

    It is the Lorenz curve, read from its other end: the diagonal would be a catalogue of equally many recommendations
    each, and where a curve reaches the top, no further item is recommended to anyone.

    Parameters
    ----------
    counts : mapping of str to ndarray of shape (n_items,)
        By run, how many users each item is recommended to; see `recvae.plots.times_recommended`.
    k : int
        Items that were recommended to each user.
    consumed : ndarray of shape (n_items,), optional
        How many training users have each item, drawn to compare with.

    Returns
    -------
    matplotlib Figure
        One line per run.

    Raises
    ------
    UsageError
        If there is no run, there are too many, a run recommends nothing, or shapes differ.
    """
    from matplotlib.lines import Line2D

    names = check_series(list(counts))
    n_items = len(next(iter(counts.values())))
    for name, of_run in (counts if consumed is None else {**counts, "the histories": consumed}).items():
        if of_run.shape != (n_items,) or not of_run.any():
            raise UsageError(
                f"got counts of shape {of_run.shape} with sum {of_run.sum():g} for {name}, "
                f"expected {(n_items,)} with a sum above 0"
            )
    figure, [axis] = panels(1, "How much of the catalogue is recommended", size=(7.0, 4.6))
    more = []
    if consumed is not None:
        look: dict[str, Any] = {"color": INK, "linewidth": 1.1, "linestyle": (0, (1, 1))}
        axis.plot(*(100 * part for part in concentration(consumed)), **look)
        more.append((Line2D([], [], **look), "what training users have"))
    even: dict[str, Any] = {"color": SOFT, "linewidth": 1.0, "linestyle": (0, (1, 3))}
    axis.plot([0, 100], [0, 100], **even)
    texts = []
    for place, name in enumerate(names):
        items, share = (100 * part for part in concentration(counts[name]))
        n_listed = int(np.count_nonzero(counts[name]))
        axis.plot(items, share, markevery=[n_listed], clip_on=False, **look_of(place))
        texts.append(f"{name}: {share_text(n_listed / n_items)} of the items")
    axis.set(
        xlim=(0, 100),
        ylim=(0, 101),
        xlabel=f"share of the catalogue of {n_items:,} items, the most recommended first (%)",
        ylabel=f"share of all first {k} recommendations (%)",
    )
    axis.set_title("a marker shows where the last recommended item is", fontsize=9.5)
    legend(figure, texts, *more, (Line2D([], [], **even), "every item equally often"))
    return figure
