"""Gradients of one batch whose users several processes share: those of all, added up.

Each process has the mean loss of its own users, times their share of the batch, so that the sum over processes is the
mean over all users; its gradient is what one process would have, to rounding.
"""

from collections.abc import Iterable

import torch
from torch import nn

from recvae.compute.ranks import Ranks

_LARGE = 1 << 18  # numbers: smaller gradients are sent together, larger ones as they are


class SharedGradients:
    """The gradients of this process, ready to be added to those of the others: what needs memory is there already.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those that learn, in the same order everywhere; those without a gradient are passed over.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._sparse: list[tuple[nn.Parameter, torch.Tensor]] = []
        self._small: list[torch.Tensor] = []
        self._large: list[torch.Tensor] = []
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None:
                continue
            if gradient.is_sparse:
                self._sparse.append((parameter, gradient.coalesce()))
                continue
            if not gradient.is_contiguous():
                parameter.grad = gradient = gradient.contiguous()
            (self._small if gradient.numel() < _LARGE else self._large).append(gradient)
        self._together = [torch.cat([one.view(-1) for one in self._small])] if self._small else []

    @property
    def n_numbers(self) -> int:
        """How many numbers are added up, the same in all processes; a sparse gradient counts as one."""
        return sum(one.numel() for one in (*self._large, *self._together)) + len(self._sparse)

    def sum(self, ranks: Ranks) -> None:
        """Put the sum over all processes in the place of each gradient; check first.

        Parameters
        ----------
        ranks : Ranks
            Which of the processes this one is.
        """
        ranks.sum(*self._large, *self._together)
        for together in self._together:
            for gradient, part in zip(self._small, together.split([one.numel() for one in self._small]), strict=True):
                gradient.copy_(part.view_as(gradient))
        for parameter, own in self._sparse:  # whoever reads it adds up rows that come twice
            rows = ranks.gather_rows(own.indices()[0])  # (R,)
            values = ranks.gather_rows(own.values())  # (R, ...)
            parameter.grad = torch.sparse_coo_tensor(rows[None], values, own.shape, check_invariants=False)
