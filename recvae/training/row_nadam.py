"""NAdam that updates only rows with a gradient: the cost of a step does not grow with the rows of a matrix.

    t_i    how many gradients row i has had so far
    m_i  = b1 m_i + (1 - b1) g_i,   v_i = b2 v_i + (1 - b2) g_i^2
    w_i -= lr ((1 - mu(t_i)) / (1 - M_i) g_i + mu(t_i + 1) / (1 - M_i mu(t_i + 1)) m_i) / (sqrt(v_i / (1 - b2^t_i)) + e)
    mu(t) = b1 (1 - 0.96^(t psi) / 2),   M_i = mu(1) ... mu(t_i)

Dozat, Incorporating Nesterov Momentum into Adam (2016), as PyTorch has it, with one difference: each row has a NAdam of
its own, which sees only the batches that the row is in. A row without a gradient stands still: weights, momentum and
second moment stay, and no time passes for it. Dense NAdam lets momentum move and decay all rows in every step, so that
results differ unless every row has a gradient each time; then both are the same.

The missed steps could be made up as `row_adam` does for Adam. With the clock s of all rows in place of t_i, n steps
without a gradient are, but for epsilon,

    w <- w - lr m / sqrt(v) (A(s) - r^n A(s + n)),   m <- b1^n m,   v <- b2^n v
    A(t) = sum_{k >= 1} r^k sqrt(1 - b2^(t + k)) mu(t + k + 1) / (1 - mu(1) ... mu(t + k + 1)),   r = b1 / sqrt(b2)

They are not, since that is worse for the rare rows of a large catalogue. Here, a row's first gradient moves it by about
lr, whenever it comes. In dense NAdam the clock runs without it, no bias is left to correct, and m and v are almost 0: a
first gradient at step 1,000 moves a row by 13 lr at once, and by 25 lr with the momentum that follows. The rows would
also have to be read before each batch and all of them after an epoch. What was measured is in docs/models.md, under
"A million items".
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

# Letters in shape comments: I rows of a matrix, R rows with a gradient, D columns.


class RowNAdam(torch.optim.Optimizer):
    """NAdam by rows, for matrices whose gradients are sparse.

    Parameters
    ----------
    parameters : iterable of Parameter of shape (n_rows, n_columns)
        Whose gradients come from `torch.nn.functional.embedding(..., sparse=True)`.
    lr : float
        Step size, >= 0.
    """

    BETA1, BETA2 = 0.9, 0.999
    EPS = 1e-8
    MOMENTUM_DECAY = 4e-3  # psi

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Update the rows that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, self._state_of(parameter), group["lr"])

    def _state_of(self, parameter: torch.nn.Parameter) -> dict[str, torch.Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)  # of the whole; PyTorch loads a state of this name as it is
            state["exp_avg"] = torch.zeros_like(parameter)  # (I, D)
            state["exp_avg_sq"] = torch.zeros_like(parameter)  # (I, D)
            state["updates"] = parameter.new_zeros(len(parameter), 1)  # (I, 1) t, exact up to 2^24
            state["mu_product"] = parameter.new_ones(len(parameter), 1)  # (I, 1) M
        return state

    def _update(self, parameter: torch.nn.Parameter, state: dict[str, torch.Tensor], lr: float) -> None:
        assert parameter.grad is not None
        gradient = parameter.grad.coalesce()  # a row that came twice has one gradient
        rows, g = gradient.indices()[0], gradient.values()  # (R,), (R, D)
        names = ("exp_avg", "exp_avg_sq", "updates", "mu_product")
        m, v, t, product = (state[name].index_select(0, rows) for name in names)  # (R, D), (R, D), (R, 1), (R, 1)
        t += 1
        product *= self._mu(t)
        mu_next = self._mu(t + 1)
        m.lerp_(g, 1 - self.BETA1)
        v.mul_(self.BETA2).addcmul_(g, g, value=1 - self.BETA2)
        for name, values in zip(names, (m, v, t, product), strict=True):
            state[name].index_copy_(0, rows, values)
        state["step"] += 1
        lengths = v.div_(1 - self.BETA2**t).sqrt_().add_(self.EPS)  # (R, D)
        step = m.mul_(mu_next / (1 - product * mu_next)).addcmul_(g, (1 - self._mu(t)) / (1 - product))
        parameter.index_add_(0, rows, step.div_(lengths), alpha=-lr)

    def _mu(self, t: torch.Tensor) -> torch.Tensor:
        return self.BETA1 * (1 - 0.5 * 0.96 ** (t * self.MOMENTUM_DECAY))
