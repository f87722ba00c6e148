"""Pictures of accuracy: against the number of items, by length of history, and by popularity of the items.

Letters in shape comments: U users, T targets of all users.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from recvae.display import plural
from recvae.errors import DataError, UsageError
from recvae.evaluation.evaluate import Summary, summarise
from recvae.reports.canvas import check_series, legend, look_of, panels, picture
from recvae.reports.groups import Groups, bars_of, check_enough, groups_of, means_of, shares_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORDS = {"ndcg": "NDCG", "map": "MAP", "mrr": "MRR", "recall_all": "recall of all targets", "hit_rate": "hit rate"}


def metric_title(name: str) -> str:
    """Return the name of a metric as people write it: NDCG for "ndcg"; others stay as they are."""
    return _WORDS.get(name, name)


@picture
def metric_by_k(values: Mapping[str, np.ndarray], ks: Sequence[int], metric: str = "ndcg") -> "Figure":
    """Draw a metric against the number of recommended items, with the 95 % interval of its mean as a band.

    Parameters
    ----------
    values : mapping of str to ndarray of shape (n_users, n_ks)
        By run, one value per user and number of items; NaN where a user has no target.
    ks : sequence of int
        The numbers of items, ascending.
    metric : str
        Its name.

    Returns
    -------
    matplotlib Figure
        One line per run.

    Raises
    ------
    UsageError
        If there is no run, there are too many, or shapes differ.
    DataError
        If fewer than 10 users have a target.
    """
    names = check_series(list(values))
    n_users = _check_users(values, (len(ks),))
    check_enough(n_users, "an interval")
    title = metric_title(metric)
    figure, [axis] = panels(1, f"{title} of the first K items", size=(7.0, 4.2))
    for place, name in enumerate(names):
        means, reach = bars_of([summarise(values[name][:, column]) for column in range(len(ks))])
        look = look_of(place)
        axis.fill_between(ks, means - reach[0], means + reach[1], color=look["color"], alpha=0.16, linewidth=0)
        axis.plot(ks, means, **look)
    axis.set_xscale("log")
    axis.set_xticks(list(ks), [str(k) for k in ks])
    axis.minorticks_off()
    axis.set(xlabel="K (number of recommended items)", ylabel=f"{title}@K (mean over users)")
    axis.set_title(f"band: 95 % interval of the mean over {plural(n_users, 'user')}", fontsize=9.5)
    axis.set_ylim(bottom=0)
    legend(figure, names)
    return figure


@picture
def accuracy_by_history(
    values: Mapping[str, np.ndarray], lengths: np.ndarray, metric: str = "ndcg@100", n_groups: int = 5
) -> "Figure":
    """Draw a metric for users with short and with long histories, with 95 % intervals.

    Parameters
    ----------
    values : mapping of str to ndarray of shape (n_users,)
        By run, one value per user; NaN where a user has no target.
    lengths : ndarray of shape (n_users,), int
        Items in the history that the model is given.
    metric : str
        Its name, with the number of items.
    n_groups : int
        Groups of users of about equal size.

    Returns
    -------
    matplotlib Figure
        One line per run, one point per group.

    Raises
    ------
    UsageError
        If there is no run, there are too many, or shapes differ.
    DataError
        If fewer than 10 users have a target, or all histories are equally long.
    """
    names = check_series(list(values))
    n_users = _check_users(values, (), len(lengths))
    check_enough(n_users, "groups of users")
    known = ~np.isnan(values[names[0]])  # (U,)
    word, _, k = metric.partition("@")
    title = f"{metric_title(word)}@{k}" if k else metric_title(word)
    return _by_group(
        {name: partial(means_of, values[name][known]) for name in names},
        groups_of(lengths[known], n_groups),
        "users",
        f"all {n_users} users have a history of {{}} items, expected different lengths to compare",
        title="Accuracy by length of history",
        x="items in the history that the model was given",
        y=f"{title} (mean over users)",
        note=f"bars: 95 % intervals over users; {plural(n_users, 'user')} in all",
    )


@picture
def accuracy_by_popularity(
    found: Mapping[str, np.ndarray], popularity: np.ndarray, users: np.ndarray, k: int, n_groups: int = 5
) -> "Figure":
    """Draw how many targets are among the first k items, for rare and for popular targets, with 95 % intervals.

    Parameters
    ----------
    found : mapping of str to ndarray of shape (n_targets,), bool
        By run, whether each target of each user is among the first k.
    popularity : ndarray of shape (n_targets,), int
        Training users that have the target.
    users : ndarray of shape (n_targets,), int
        Whose target it is.
    k : int
        Items that were recommended to each user.
    n_groups : int
        Groups of targets of about equal size.

    Returns
    -------
    matplotlib Figure
        One line per run, one point per group.

    Raises
    ------
    UsageError
        If there is no run, there are too many, or shapes differ.
    DataError
        If fewer than 10 users have a target, or all targets are equally popular.
    """
    names = check_series(list(found))
    if any(found[name].shape != popularity.shape for name in names) or users.shape != popularity.shape:
        shapes = ", ".join(f"{name} {found[name].shape}" for name in names)
        raise UsageError(f"got {shapes} of {popularity.shape[0]} targets, expected one value for each target")
    n_users = len(np.unique(users))
    check_enough(n_users, "groups of items")
    return _by_group(
        {name: partial(shares_of, found[name], users) for name in names},
        groups_of(popularity, n_groups),
        "targets",
        "all targets have {} training users, expected different popularity",
        title="Accuracy by popularity of the item",
        x="training users who have the item: rare ones on the left, popular ones on the right",
        y=f"share of targets among the first {k}",
        note=f"bars: 95 % intervals over {plural(n_users, 'user')}",
    )


def _by_group(
    series: Mapping[str, Callable[[Groups], Sequence[Summary]]],
    groups: Groups,
    unit: str,
    alike: str,
    *,
    title: str,
    x: str,
    y: str,
    note: str,
) -> "Figure":
    """Draw a point with its interval per run and group, side by side, and a thin line through those of a run.

    If there is one group only, that is refused in the words of `alike`.
    """
    if len(groups.sizes) < 2:
        raise DataError(alike.format(groups.labels()[0]))
    labels = [f"{label}\n{size:,} {unit}" for label, size in zip(groups.labels(), groups.sizes, strict=True)]
    figure, [axis] = panels(1, title, size=(7.0, 4.2))
    places, step = np.arange(len(labels)), min(0.12, 0.6 / len(series))
    for place, summaries in enumerate(series.values()):
        means, reach = bars_of(summaries(groups))
        at = places + (place - (len(series) - 1) / 2) * step
        axis.errorbar(
            at, means, yerr=reach, capsize=2.5, elinewidth=1.1, clip_on=False, **look_of(place, linewidth=1.0)
        )
    axis.set_xticks(places, labels)
    axis.grid(visible=False, axis="x")
    axis.set(xlabel=x, ylabel=y)
    axis.set_title(note, fontsize=9.5)
    axis.set_ylim(bottom=0)
    legend(figure, list(series))
    return figure


def _check_users(values: Mapping[str, np.ndarray], rest: tuple[int, ...], n_users: int | None = None) -> int:
    """Refuse values of different users, and return how many users have a target."""
    first = next(iter(values.values()))
    n_users = len(first) if n_users is None else n_users
    for name, of_run in values.items():
        if of_run.shape != (n_users, *rest):
            raise UsageError(f"got values of shape {of_run.shape} for {name}, expected {(n_users, *rest)}")
    missing = {name: np.isnan(of_run).reshape(n_users, -1).any(axis=1) for name, of_run in values.items()}
    for name, of_run in missing.items():
        if (of_run != missing[next(iter(values))]).any():
            raise UsageError(f"got other users without a value for {name}, expected the same ones for all runs")
    return int(np.count_nonzero(~missing[next(iter(values))]))
