"""Lists that repeat themselves less: items are chosen for their score and for being unlike those above.

Letters in shape comments: C candidates, k ranks.
"""

import numpy as np


def diversified(scores: np.ndarray, similarities: np.ndarray, k: int, share: float) -> np.ndarray:
    """Choose k candidates one after the other, each good in itself and unlike those chosen before.

    The next is the one of highest (1 - share) score - share * (highest similarity to one chosen already), scores and
    similarities between different ones brought to [0, 1] over the candidates: maximal marginal relevance, Carbonell and
    Goldstein 1998.

    Parameters
    ----------
    scores : ndarray of shape (n_candidates,), float32
        Descending.
    similarities : ndarray of shape (n_candidates, n_candidates), float32
        Between the candidates.
    k : int
        How many to choose, >= 1.
    share : float
        Weight of being unlike, in [0, 1]; 0 leaves the order as it is.

    Returns
    -------
    ndarray of shape (min(k, n_candidates),), int
        Positions in the order in which they were chosen; the first is the candidate of the highest score.
    """
    others = ~np.eye(len(scores), dtype=bool)  # how like an item is to itself must not set the scale
    relevance, likeness = _between_0_and_1(scores, scores), _between_0_and_1(similarities, similarities[others])
    nearest = np.zeros(len(scores))  # highest likeness to one chosen already
    left = np.ones(len(scores), dtype=bool)
    chosen: list[int] = []
    for _ in range(min(k, len(scores))):
        gain = np.where(left, (1 - share) * relevance - share * nearest, -np.inf)
        best = int(np.argmax(gain))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, likeness[best])
    return np.array(chosen, dtype=np.int64)


def _between_0_and_1(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return values on a scale from the lowest to the highest of some."""
    low, high = (of.min(), of.max()) if of.size else (0, 0)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
