"""More variety in a list: items are chosen for their score and for being different from the items above.

Letters in shape comments: C candidates, k ranks.
"""

import numpy as np


def diversified(scores: np.ndarray, similarities: np.ndarray, k: int, share: float) -> np.ndarray:
    """Choose k candidates one after the other by maximal marginal relevance (Carbonell and Goldstein 1998).

    The next item has the highest (1 - share) * score - share * (highest similarity to an item chosen before). Scores,
    and similarities between different items, are scaled to [0, 1] over the candidates.

    Parameters
    ----------
    scores : ndarray of shape (n_candidates,), float32
        Descending.
    similarities : ndarray of shape (n_candidates, n_candidates), float32
        Between the candidates.
    k : int
        Number of items to choose, >= 1.
    share : float
        Variety, in [0, 1]; 0 keeps the order.

    Returns
    -------
    ndarray of shape (min(k, n_candidates),), int
        Positions of the chosen candidates, in order; the first has the highest score.
    """
    others = ~np.eye(len(scores), dtype=bool)  # the similarity of an item to itself must not set the scale
    relevance, likeness = _between_0_and_1(scores, scores), _between_0_and_1(similarities, similarities[others])
    nearest = np.zeros(len(scores))  # highest similarity to an item chosen before
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
    """Return values scaled by the lowest and the highest of some."""
    low, high = (of.min(), of.max()) if of.size else (0, 0)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
