"""How the weight beta of the KL term grows while training."""

from collections.abc import Callable

Schedule = Callable[[int], float]
"""Number of updates done so far -> beta of the next one."""


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


NAMES = ("linear", "constant")


def schedule(name: str, cap: float, total_updates: int, steps: int | None, fraction: float) -> Schedule:
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
        Updates until the cap; None takes `fraction` of the run, so that the batch size does not matter.
    fraction : float
        Part of the run after which the cap is reached, in [0, 1].
    """
    if name == "constant":
        return constant(cap)
    return linear(cap, round(fraction * total_updates) if steps is None else steps)
