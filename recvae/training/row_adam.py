"""Updates of only the rows that a batch touches: a step's cost no longer grows with the number of items.

With a sparse gradient, a row that it has nothing for is left as it is, with its moments and its count of steps. So each
row goes the way of an Adam of its own that is given only the steps that touch it: m, v and the correction of their bias
(Kingma and Ba, ICLR 2015, algorithm 1) count the row's own steps. That is not Adam on the whole matrix, which also
moves the rows that a batch does not touch, by what is left of their momentum, and shrinks all rows by weight decay.
`torch.optim.SparseAdam` differs from both: it counts all steps for every row, so that a row's first step is up to
(1 - beta_1) / sqrt(1 - beta_2) = 3.2 times as long as the first step of Adam, and it takes no dense gradient.

Letters in shape comments: R rows of a parameter, T rows that a batch touches, n rows asked for, H width.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from recvae.compute.matmul import first_order

_PART_BYTES = 1 << 20  # of a matrix's rows that are worked on at a time, so that what is made of them stays small
_COPIES = 3  # of the rows of a gradient: as it comes, in order, and added up


class _Rows(torch.autograd.Function):
    """Rows of a parameter, with a sparse gradient."""

    @staticmethod
    def forward(ctx: Any, parameter: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = parameter.shape
        return parameter.index_select(0, rows)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (rows,) = ctx.saved_tensors
        return torch.sparse_coo_tensor(rows[None], grad_outputs[0], ctx.shape, check_invariants=False), None


def sparse_rows(parameter: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return rows of a parameter; its gradient is sparse and holds these rows only.

    Parameters
    ----------
    parameter : Tensor of shape (n_rows, ...)
        Of one dimension or more.
    rows : Tensor of shape (n,), int64
        Which rows; the same one may come several times.

    Returns
    -------
    Tensor of shape (n, ...)
    """
    found: torch.Tensor = _Rows.apply(parameter, rows)
    return found


class RowAdam(torch.optim.Optimizer):
    """Adam of each row on its own; a dense gradient touches all rows, and is then Adam as usual, to rounding.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        What learns, in groups or not.
    lr : float
        Step size, >= 0.
    betas : tuple of two float
        Share of the first and of the second moment that a step keeps, in [0, 1).
    eps : float
        Added to the root of the second moment.
    weight_decay : float
        L2 penalty added to the gradient, of the rows that are touched.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Called first, with gradients; computes the loss and returns it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            # Floats, since a checkpoint's integers would come back as such; whole up to 2^24 steps of a row, where
            # they stay: no correction is left by then.
            state["updates"] = torch.zeros(len(parameter), device=parameter.device)  # (R,)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        every = [parameter.detach(), state["exp_avg"], state["exp_avg_sq"], state["updates"]]
        gradient = parameter.grad
        assert gradient is not None
        if not gradient.is_sparse:
            _adam(every, gradient, group)
            return
        gradient = gradient.coalesce()  # each row once, its gradients added up in the order of the batch
        rows, values = gradient.indices()[0], gradient.values()  # (T,), (T, H)
        step = max(1, _PART_BYTES // (4 * values[:1].numel())) if rows.device.type == "cpu" else len(rows)
        for some, of_some in zip(rows.split(step), values.split(step), strict=True):
            touched = [tensor.index_select(0, some) for tensor in every]
            _adam(touched, of_some, group)
            for tensor, part in zip(every, touched, strict=True):
                tensor.index_copy_(0, some, part)


def row_bytes(n_rows: int, width: int) -> int:
    """Return about what sparse gradients take at their peak.

    Parameters
    ----------
    n_rows : int
        Rows that a batch touches, counted as often as it does.
    width : int
        Of all the matrices whose rows are touched, added up.
    """
    return 4 * _COPIES * n_rows * width


def _adam(state: list[torch.Tensor], gradient: torch.Tensor, group: dict[str, Any]) -> None:
    """Do a step in place on weights, moments and counts of rows that it touches all."""
    parameter, first, second, updates = state  # (T, H), (T, H), (T, H), (T,)
    beta_1, beta_2 = group["betas"]
    if group["weight_decay"]:
        gradient = gradient.add(parameter, alpha=group["weight_decay"])
    updates += 1
    first.lerp_(gradient, 1 - beta_1)
    second.mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
    count = updates.double()  # 1 - beta^t loses half of its digits in float32
    of_first, of_second = 1 - beta_1**count, (1 - beta_2**count).sqrt()  # (T,)
    by_row = (-1, *[1] * (parameter.dim() - 1))
    size = (group["lr"] * of_second / of_first).to(parameter.dtype).view(by_row)
    least = (group["eps"] * of_second).to(parameter.dtype).view(by_row)
    # lr m / of_first / (sqrt(v) / of_second + eps), with one division of each number
    parameter.sub_(first.mul(size).div_(second.sqrt().add_(least)))
