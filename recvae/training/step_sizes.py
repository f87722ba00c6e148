"""How large the steps of the optimisers are in the course of a run."""

from collections.abc import Sequence

import torch

from recvae.training.schedules import Schedule, constant, cosine, linear

DECAYS = ("none", "linear", "cosine")


def step_size(decay: str, warmup: float, total_updates: int) -> Schedule | None:
    """Return the share of the step size by update: it rises from 0 in equal steps, then falls to 0 or stays.

    Parameters
    ----------
    decay : str
        One of `DECAYS`: how it falls, "none" for not at all.
    warmup : float
        Part of the run in which it rises, in [0, 1).
    total_updates : int
        Updates of the whole run.

    Returns
    -------
    Schedule or None
        None where every update takes all of it. With w warm-up updates of T: (t + 1) / w before update w, then
        1 - s ("linear") or (1 + cos(pi s)) / 2 ("cosine": Loshchilov and Hutter, ICLR 2017, eq. 5, without restarts)
        for s = (t - w) / (T - w).

    Examples
    --------
    >>> share = step_size("linear", warmup=0.2, total_updates=10)
    >>> [round(share(t), 3) for t in range(10)]
    [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    """
    rising = round(warmup * total_updates)
    left = total_updates - rising
    if decay == "none" and not rising:
        return None

    gone = {"none": constant(0.0), "linear": linear(1.0, left), "cosine": cosine(1.0, left)}[decay]

    def share(update: float) -> float:
        return min(1.0, (update + 1) / rising) if update < rising else 1 - gone(update - rising)

    return share


class StepSizes:
    """Sets the step sizes of all optimisers of a run, by one clock.

    Parameters
    ----------
    optimizers : sequence of Optimizer
        With the step size of the run, each of their groups of parameters its own.
    share : Schedule or None
        What `step_size` returned.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], share: Schedule | None) -> None:
        self._share = share
        self._sizes = [(optimizer, [group["lr"] for group in optimizer.param_groups]) for optimizer in optimizers]

    def set(self, update: int) -> None:
        """Set them for an update, given how many were done before it."""
        if self._share is not None:
            share = self._share(update)
            for optimizer, sizes in self._sizes:  # groups are other ones once a run is resumed
                for group, size in zip(optimizer.param_groups, sizes, strict=True):
                    group["lr"] = share * size
