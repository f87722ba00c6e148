"""The scale of ratings: stars from 1 to 5 have a threshold that everyone uses; any other scale has none.

Letters in shape comments: E events, D distinct values.
"""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

STARS_MIN_RATING = 4.0
"""Liang et al. (2018) keep ratings above 3.5; there are no stars between 3.5 and 4."""

FEW = 11
"""Distinct values up to which each is shown with its share."""


@dataclass(frozen=True, kw_only=True)
class RatingScale:
    """What values the ratings of a log take.

    Parameters
    ----------
    low, high : float
        Smallest and largest.
    values, shares : tuple of float
        The distinct values, ascending, and the share of rows of each; empty if there are more than eleven.
    quantiles : tuple of float
        The values below which a quarter, half and three quarters of the rows are.
    are_whole : bool
        Whether all are whole numbers.
    """

    low: float
    high: float
    values: tuple[float, ...]
    shares: tuple[float, ...]
    quantiles: tuple[float, float, float]
    are_whole: bool

    @classmethod
    def of(cls, ratings: np.ndarray) -> "RatingScale":
        """Look at ratings (E,), at least one."""
        few, counts = _few_values(ratings)
        if few is None:
            sample = ratings[:: max(1, len(ratings) // 1_000_000)]
            quarters = np.quantile(sample, (0.25, 0.5, 0.75))
            whole = bool((sample == np.floor(sample)).all())
            return cls(
                low=float(ratings.min()),
                high=float(ratings.max()),
                values=(),
                shares=(),
                quantiles=(float(quarters[0]), float(quarters[1]), float(quarters[2])),
                are_whole=whole,
            )
        return cls.of_counts(few, counts)

    @classmethod
    def of_counts(cls, few: np.ndarray, counts: np.ndarray) -> "RatingScale":
        """Return the scale of a few distinct values (D,), ascending float64, and how often each occurs (D,)."""
        reached = np.cumsum(counts) / counts.sum()
        quarters = [float(few[np.searchsorted(reached, share)]) for share in (0.25, 0.5, 0.75)]
        return cls(
            low=float(few[0]),
            high=float(few[-1]),
            values=tuple(few.tolist()),
            shares=tuple((counts / counts.sum()).tolist()),
            quantiles=(quarters[0], quarters[1], quarters[2]),
            are_whole=bool((few == np.floor(few)).all()),
        )

    @property
    def are_stars(self) -> bool:
        """Whether they are stars from 1 to 5, whole or half: the only scale on which 4 is the usual threshold.

        Where nothing is above 4, the scale may end there, or count something; only 4 alone loses no row.
        """
        halves = bool(self.values) and all(2 * value == int(2 * value) for value in self.values)
        return (halves and self.low >= 0.5 and 4 < self.high <= 5) or self.values == (4,)

    @property
    def suggestion(self) -> str:
        """What to choose on this scale, as options of `recvae preprocess`."""
        if len(self.values) == 1:
            return "--no-rating, because all are the same"
        if self.values == (0, 1) or self.values == (-1, 1) or self.values == (-1, 0, 1):
            return "--min-rating 1 for the positive ones"
        if self.low < 0:
            return "--min-rating with the lowest value that means a liking; negative ones often mean 'not rated'"
        if self.high <= 1:
            return "--min-rating 0.5 for the upper half of the scale"
        if self.are_whole and self.low >= 1 and (not self.values or self.high > 10):
            return "--no-rating if they are counts and every row is a sign of interest, or --min-rating 2 for repeats"
        if self.values and self.high <= 10:
            upper = 0.8 * self.high
            upper = math.ceil(round(upper, 6)) if self.are_whole else upper
            return f"--min-rating {upper:g} for the upper part of the scale, or --no-rating to keep every row"
        return f"--no-rating to keep every row, or --min-rating {self.quantiles[1]:g} for the upper half of the rows"

    def __str__(self) -> str:
        """Return the distribution in one line."""
        if self.values:
            shares = ", ".join(
                f"{value:g}: {share:.0%}" if share >= 0.005 else f"{value:g}: <1%"
                for value, share in zip(self.values, self.shares, strict=True)
            )
            return f"{self.low:g} to {self.high:g} ({shares})"
        first, half, third = self.quantiles
        return f"{self.low:g} to {self.high:g} (quarters end at {first:g}, {half:g} and {third:g})"


def _few_values(ratings: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the distinct values (D,) and their counts (D,), or None if there are more than `FEW`."""
    if len(np.unique(ratings[:10_000])) > FEW:
        return None, np.empty(0)
    found = pc.call_function("value_counts", [pa.array(ratings)])
    values = found.field("values").to_numpy()
    if len(values) > FEW:
        return None, np.empty(0)
    order = np.argsort(values)
    return values[order].astype(np.float64), found.field("counts").to_numpy()[order]
