"""The weights of a history: how much each item counts.

Importing this needs only numpy.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from recvae.errors import UsageError

LIGHTEST, HEAVIEST = 1e-6, 1e6
"""Smallest and largest weight: their squares and sums fit in float32, and ALS can solve its equations with them."""


RANGE_OF_WEIGHTS = f"a number from {LIGHTEST:g} to {HEAVIEST:g}"


EXPECTED_WEIGHT = f"expected {RANGE_OF_WEIGHTS}"


def check_weights(history: Mapping[Any, object]) -> None:
    """Refuse a history with an invalid weight, also of unknown items.

    Raises
    ------
    UsageError
        If there is one.
    """
    for item, weight in history.items():
        weight_of(weight, item)


def is_weight(weight: object) -> bool:
    """Return whether a value is a valid weight: a number from `LIGHTEST` to `HEAVIEST`."""
    is_number = isinstance(weight, int | float | np.number) and not isinstance(weight, bool)
    return is_number and bool(LIGHTEST <= cast(Any, weight) <= HEAVIEST)


def are_weights(values: np.ndarray) -> np.ndarray:
    """Return which numbers of an array are valid weights, shape (n,), bool."""
    return (values >= LIGHTEST) & (values <= HEAVIEST)


def weight_of(weight: object, item: object) -> float:
    """Return the weight of an item as a float.

    Raises
    ------
    UsageError
        If it is no valid weight.
    """
    if not is_weight(weight):
        raise UsageError(f"got weight {weight!r} for item {item!r}, {EXPECTED_WEIGHT}")
    return float(cast(Any, weight))
