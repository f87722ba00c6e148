"""Users and items in groups of about equal size, and means of groups with their intervals.

Letters in shape comments: U users, T targets of all users.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from recvae.errors import DataError
from recvae.evaluation.evaluate import CONFIDENCE, Summary, summarise

FEWEST = 10
"""Users below which groups say nothing."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Groups by a whole number, such as the length of a history.

    Parameters
    ----------
    of : ndarray of shape (n,), int
        The group of each, from 0.
    ranges : list of tuple of int
        The smallest and the largest number in each group.
    sizes : list of int
        How many are in each.
    """

    of: np.ndarray
    ranges: list[tuple[int, int]]
    sizes: list[int]

    def labels(self) -> list[str]:
        """Return the range of each group as a text, e.g. "5–12"."""
        return [f"{low:,}" if low == high else f"{low:,}–{high:,}" for low, high in self.ranges]


def groups_of(numbers: np.ndarray, n: int = 5) -> Groups:
    """Put numbers into at most n groups of about equal size; equal numbers are in one group.

    Parameters
    ----------
    numbers : ndarray of shape (n_numbers,), int
        At least one.
    n : int
        Groups, >= 1; fewer where too many numbers are equal.

    Examples
    --------
    >>> groups_of(np.array([1, 1, 1, 2, 3, 9]), 3).labels()
    ['1', '2', '3–9']
    """
    values, counts = np.unique(numbers, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / counts.sum()  # of each value among all
    group = np.minimum((middle * n).astype(int), n - 1)
    _, group = np.unique(group, return_inverse=True)  # without empty ones
    of = group[np.searchsorted(values, numbers)]
    found = range(int(group.max()) + 1)
    return Groups(
        of=of,
        ranges=[(int(values[group == one].min()), int(values[group == one].max())) for one in found],
        sizes=[int(np.count_nonzero(of == one)) for one in found],
    )


def check_enough(n_users: int, what: str) -> None:
    """Refuse too few users for groups.

    Raises
    ------
    DataError
        With both numbers.
    """
    if n_users < FEWEST:
        raise DataError(
            f"got {n_users} users with a target, expected {FEWEST} or more to draw {what}; "
            "prepare the data with more held-out users"
        )


def means_of(values: np.ndarray, groups: Groups) -> list[Summary]:
    """Return the mean of one value per user in each group, with its interval; NaN is left out."""
    return [summarise(values[groups.of == one]) for one in range(len(groups.sizes))]


def shares_of(found: np.ndarray, users: np.ndarray, groups: Groups) -> list[Summary]:
    """Return the share of targets that were found in each group, with an interval over users.

    The targets of one user are not independent. The interval is that of a ratio of two sums over users:
    variance of the share = n / (n - 1) * sum_u (hits_u - share * targets_u)^2 / (sum_u targets_u)^2.

    Parameters
    ----------
    found : ndarray of shape (n_targets,), bool
        Whether each target was found.
    users : ndarray of shape (n_targets,), int
        Whose target it is.
    groups : Groups
        Of the targets.

    References
    ----------
    Cochran, "Sampling Techniques", 1977, section 2.11 (ratio estimators).
    """
    return [_share(found[groups.of == one], users[groups.of == one]) for one in range(len(groups.sizes))]


def _share(found: np.ndarray, users: np.ndarray) -> Summary:
    _, row = np.unique(users, return_inverse=True)
    n_targets = np.bincount(row)  # (U,)
    hits = np.bincount(row, weights=found)  # (U,)
    n, share = len(n_targets), float(found.mean())
    if n == 1:
        return Summary(share)
    residuals = hits - share * n_targets
    se = float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / n_targets.sum())
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * se
    return Summary(share, se, max(0.0, share - half), min(1.0, share + half))


def bars_of(summaries: Sequence[Summary]) -> tuple[np.ndarray, np.ndarray]:
    """Return means (n,), and the distances (2, n) down and up to the ends of their intervals; 0 without one."""
    means = np.array([np.nan if one.mean is None else one.mean for one in summaries])
    lows = np.array([mean if one.low is None else one.low for one, mean in zip(summaries, means, strict=True)])
    highs = np.array([mean if one.high is None else one.high for one, mean in zip(summaries, means, strict=True)])
    return means, np.maximum(0.0, np.stack([means - lows, highs - means]))
