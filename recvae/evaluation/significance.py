"""Whether a difference is more than chance: paired t-tests over users, Holm's correction for several of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from recvae.errors import UsageError
from recvae.evaluation.evaluate import CONFIDENCE, Summary, summarise

ALPHA = 1 - CONFIDENCE
_NOTHING = 1e-12  # what the rounding of a mean over seeds can make of two equal metric values


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust p-values of several tests so that the chance of any false discovery stays below the level of one.

    Parameters
    ----------
    p_values : sequence of float
        In [0, 1]; NaN stands for a test that could not be made and is not counted.

    Returns
    -------
    ndarray of shape (n_tests,), float64
        In the same order; the i-th smallest of m times m - i + 1, made monotone, at most 1.

    Raises
    ------
    UsageError
        If a value is outside [0, 1].

    References
    ----------
    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    made = np.flatnonzero(~np.isnan(values))
    if ((values[made] < 0) | (values[made] > 1)).any():
        raise UsageError(f"got p-values {values.tolist()}, expected numbers from 0 to 1; hand over p, not t")
    order = made[np.argsort(values[made], kind="stable")]
    adjusted = np.full(values.shape, np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return adjusted


def paired_p_value(differences: np.ndarray) -> float:
    """Return the p-value of the two-sided t-test that differences have the mean 0, NaN left out.

    Parameters
    ----------
    differences : ndarray of shape (n_users,)
        Of two models on the same users.

    Returns
    -------
    float
        In [0, 1]; 1 where no difference is other than 0, NaN where fewer than two users have a value.
    """
    values = differences[~np.isnan(differences)]
    n = len(values)
    if n < 2:
        return float("nan")
    if not values.any():
        return 1.0
    se = values.std(ddof=1) / np.sqrt(n)
    t = abs(values.mean()) / se if se > 0 else np.inf
    return float(2 * stdtr(n - 1, -t))


@dataclass(frozen=True)
class PairedTest:
    """How a contender differs from the baseline.

    Parameters
    ----------
    difference : Summary
        Mean over users of contender - baseline, with its interval.
    p : float
        Of the two-sided paired t-test; NaN with fewer than two users.
    p_holm : float
        After Holm's correction over all contenders.
    significant : bool
        Whether `p_holm` is below .05.
    """

    difference: Summary
    p: float
    p_holm: float
    significant: bool


def paired_tests(values: Mapping[str, np.ndarray], baseline: str) -> dict[str, PairedTest]:
    """Test whether models differ from one of them on the same users.

    Parameters
    ----------
    values : mapping of str to ndarray of shape (n_users,)
        By the name of a model, its value of a metric for each user; NaN where a user has no target.
    baseline : str
        Name of the one that the others are tested against.

    Returns
    -------
    dict of str to PairedTest
        By the name of each of the others.
    """
    differences = {name: found - values[baseline] for name, found in values.items() if name != baseline}
    differences = {name: np.where(np.abs(found) < _NOTHING, 0.0, found) for name, found in differences.items()}
    p_values = [paired_p_value(found) for found in differences.values()]
    adjusted = holm(p_values).tolist()
    return {
        name: PairedTest(summarise(found), p, p_holm, p_holm < ALPHA)
        for (name, found), p, p_holm in zip(differences.items(), p_values, adjusted, strict=True)
    }
