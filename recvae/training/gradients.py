"""Gradients of one batch whose users several processes share: those of all, added up.

Each process has the mean loss of its own users, times their share of the batch, so that the sum over processes is the
mean over all users; its gradient is what one process would have, to rounding.
"""

from collections.abc import Iterable

import torch
from torch import nn

from recvae.compute.ranks import Ranks

_LARGE = 1 << 18  # numbers: smaller gradients are sent together, larger ones as they are


def n_gradients(parameters: Iterable[nn.Parameter]) -> int:
    """Return how many numbers the dense gradients have, and one for each sparse one."""
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return sum(1 if gradient.is_sparse else gradient.numel() for gradient in found)


def sum_gradients(ranks: Ranks, parameters: Iterable[nn.Parameter]) -> None:
    """Put the sum over all processes in the place of each gradient; check first.

    Parameters
    ----------
    ranks : Ranks
        Which of the processes this one is.
    parameters : iterable of Parameter
        Those that learn, in the same order everywhere.
    """
    having = [parameter for parameter in parameters if parameter.grad is not None]
    small, large = [], []
    for parameter in having:
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse:
            parameter.grad = _sum_of_rows(ranks, gradient)
            continue
        if not gradient.is_contiguous():
            parameter.grad = gradient = gradient.contiguous()
        (small if gradient.numel() < _LARGE else large).append(gradient)
    together = torch.cat([gradient.view(-1) for gradient in small]) if small else None
    ranks.sum(*large, *([] if together is None else [together]))
    if together is not None:
        for gradient, part in zip(small, together.split([one.numel() for one in small]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _sum_of_rows(ranks: Ranks, gradient: torch.Tensor) -> torch.Tensor:
    """Return a sparse gradient with the rows of all processes; whoever reads it adds up those that come twice."""
    own = gradient.coalesce()
    rows = ranks.gather_rows(own.indices()[0])  # (R,)
    values = ranks.gather_rows(own.values())  # (R, ...)
    return torch.sparse_coo_tensor(rows[None], values, gradient.shape, check_invariants=False)
