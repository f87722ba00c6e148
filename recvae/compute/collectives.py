"""Sums over processes that gradients pass through, for networks of which each process has a part.

All processes compute the same, but for the part that each has alone. Where a part begins, what all have is
`replicated`; where the parts end, they are `summed`. A process finds the gradient of its own part; what all have is the
same to the bit in all of them, with its gradient. Shoeybi et al., Megatron-LM, 2019, section 3 (f and g).

Every process must come to each of these, in one order: what only one does would leave the others waiting.
"""

from typing import Any

import torch

from recvae.compute.matmul import first_order
from recvae.compute.ranks import Ranks


class _Summed(torch.autograd.Function):
    """The sum over processes; its gradient is that of each term."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, ranks: Ranks) -> torch.Tensor:  # noqa: ARG004  (nothing to keep)
        return _sum_of(own, ranks)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ARG004
        return grad_outputs[0], None


class _Replicated(torch.autograd.Function):
    """What all processes have; its gradient is the sum of what each has found."""

    @staticmethod
    def forward(ctx: Any, same: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks = ranks  # gradients may be found in a thread that knows of no others
        return same.view_as(same)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _sum_of(grad_outputs[0], ctx.ranks), None


def _sum_of(own: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    total = own.detach().clone(memory_format=torch.contiguous_format)
    ranks.check(same=total.numel())  # memory may have run out for it
    ranks.sum(total)
    return total


def summed(own: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Return the sum over processes, of which each has a term; the gradient of a term is that of the sum.

    Parameters
    ----------
    own : Tensor
        The term of this process, of one shape in all.
    ranks : Ranks
        Which of the processes this one is.

    Returns
    -------
    Tensor
        The same to the bit in all of them.

    Raises
    ------
    TrainingError
        If the processes have different shapes, or one of them is lost.
    """
    if not ranks.several:
        return own
    result: torch.Tensor = _Summed.apply(own, ranks)
    return result


def replicated(same: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Return what all processes have as it is; its gradient is the sum over processes of what each computes from it.

    Parameters
    ----------
    same : Tensor
        Of one shape in all; the same values.
    ranks : Ranks
        Which of the processes this one is.

    Returns
    -------
    Tensor
        The same values.
    """
    if not ranks.several:
        return same
    result: torch.Tensor = _Replicated.apply(same, ranks)
    return result
