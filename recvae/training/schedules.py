"""How the weight beta of the KL term grows while training."""

import math
from collections.abc import Callable

from recvae.errors import UsageError

Schedule = Callable[[float], float]
"""Number of updates done so far -> what the next one takes: beta, or a share of the step size."""


def constant(beta: float) -> Schedule:
    """Return the schedule that always gives `beta`."""
    return lambda _: beta


def linear(cap: float, steps: int) -> Schedule:
    """Return the schedule that rises from 0 in equal steps and stays at `cap` from update `steps` on.

    Parameters
    ----------
    cap : float
        Highest beta, >= 0.
    steps : int
        Updates until it is reached; 0 starts at the cap.

    Returns
    -------
    Schedule
        beta(t) = cap * min(1, t / steps); Liang et al. 2018, section 2.2.2, write min(cap, t / T), which is the
        same with steps = cap * T.

    Examples
    --------
    >>> beta = linear(cap=0.2, steps=4)
    >>> [round(beta(t), 2) for t in range(6)]
    [0.0, 0.05, 0.1, 0.15, 0.2, 0.2]
    """
    return lambda update: cap * min(1.0, update / steps) if steps > 0 else cap


def cosine(cap: float, steps: int) -> Schedule:
    """Return the schedule that rises from 0 along half a cosine wave and stays at `cap` from update `steps` on.

    Parameters
    ----------
    cap : float
        Highest beta, >= 0.
    steps : int
        Updates until it is reached; 0 starts at the cap.

    Returns
    -------
    Schedule
        beta(t) = cap * (1 - cos(pi * min(1, t / steps))) / 2.
    """
    rise = linear(1.0, steps)
    return lambda update: cap * (1 - math.cos(math.pi * rise(update))) / 2


def cyclical(cap: float, period: int, steps: int) -> Schedule:
    """Return the schedule that rises from 0 to `cap` again and again: Fu et al., NAACL 2019, eq. 6.

    Parameters
    ----------
    cap : float
        Highest beta, >= 0.
    period : int
        Updates of one cycle, >= 1.
    steps : int
        Updates of a cycle until the cap is reached; the rest of the cycle stays there.

    Returns
    -------
    Schedule
        beta(t) = cap * min(1, (t mod period) / steps).

    Examples
    --------
    >>> beta = cyclical(cap=1.0, period=4, steps=2)
    >>> [beta(t) for t in range(9)]
    [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 0.0]
    """
    rise = linear(cap, steps)
    return lambda update: rise(update % period)


NAMES = ("linear", "constant", "cosine", "cyclical")


def schedule(
    name: str, cap: float, total_updates: int, steps: int | None = None, fraction: float = 1.0, cycles: int = 1
) -> Schedule:
    """Return the schedule a model's hyperparameters describe.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    cap : float
        Highest beta.
    total_updates : int
        Updates of the whole run.
    steps : int, optional
        Updates until the cap (in each cycle); None takes `fraction` of the run, so that the batch size does not matter.
    fraction : float
        Part of the run (of each cycle) after which the cap is reached, in [0, 1].
    cycles : int
        Number of rises of "cyclical", >= 1.

    Raises
    ------
    UsageError
        If the cap would not be reached within a cycle.
    """
    period = max(1, math.ceil(total_updates / cycles)) if name == "cyclical" else total_updates
    rise = steps_of_rise(period, steps, fraction)
    if name == "cyclical" and rise > period:
        raise UsageError(
            f"got anneal_steps={rise:,}, longer than a cycle of {period:,} updates, so that beta would never reach its "
            "cap; set fewer anneal_steps or anneal_cycles, or use anneal_fraction"
        )
    known: dict[str, Schedule] = {
        "linear": linear(cap, rise),
        "constant": constant(cap),
        "cosine": cosine(cap, rise),
        "cyclical": cyclical(cap, period, rise),
    }
    return known[name]


def stretched(rise: Schedule, before: int, now: int) -> Schedule:
    """Return a schedule with `now` updates in an epoch that had `before`, the same at each part of each epoch.

    Parameters
    ----------
    rise : Schedule
        Counted in updates of before.
    before, now : int
        Updates of an epoch, >= 1.
    """
    return rise if before == now else lambda update: rise(update * before / now)


def steps_of_rise(updates: int, steps: int | None, fraction: float) -> int:
    """Return how many updates it takes to the cap: `steps`, or where that is None a fraction of the `updates`."""
    return round(fraction * updates) if steps is None else steps
