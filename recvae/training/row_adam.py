"""Adam that reads and writes only the rows that a batch holds: a step's cost no longer grows with the number of items.

Adam moves every row in every step, also one whose gradient is 0: by what is left of its momentum, while its moments
decay. A row's way is known until it gets its next gradient, so it may be gone all at once, when the row is next read.
After step s, with moments m and v, n steps without a gradient are

    w <- w - m / sqrt(v) W(s),   m <- b1^n m,   v <- b2^n v
    W(s) = sum_{k = 1..n} lr(s + k) r^k sqrt(1 - b2^(s + k)) / (1 - b1^(s + k)),   r = b1 / sqrt(b2)

which adds up the steps of Kingma and Ba (ICLR 2015, algorithm 1) with the step size and the correction of bias of each.
W is kept for every s, and each step adds its term to those before it; r^k ends that after a few hundred. So this is
Adam, to rounding, but for two things: epsilon counts as it did in step s, and weight decay is only of rows with a
gradient.
(`torch.optim.SparseAdam` leaves rows without a gradient where they are, and their moments too: another method, which
moves rare rows less.)

Letters in shape comments: R rows of a parameter, T rows that are touched, n rows asked for, H width.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from recvae.compute.matmul import first_order

_BETA_1, _BETA_2, _EPS = 0.9, 0.999, 1e-8
_RATIO = _BETA_1 / _BETA_2**0.5
_TERMS = 200  # of W(s): the next one is a 10^9th of the first, less than float32 shows
_POWERS = _RATIO ** torch.arange(_TERMS, 0, -1, dtype=torch.float64)  # r^k, the highest k first
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
    """Adam for parameters with sparse gradients, and with dense ones as usual.

    Whoever reads rows calls `catch_up` for them first, or reads them by `read`; before all rows are read, `catch_up`
    without rows.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        What learns, in groups or not.
    lr : float
        Step size, >= 0.
    weight_decay : float
        L2 penalty added to the gradient, of rows that have one.
    """

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def read(self, parameter: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return rows of a parameter as they are now, with a sparse gradient; see `sparse_rows`."""
        self.catch_up(parameter, rows)
        return sparse_rows(parameter, rows)

    @torch.no_grad()
    def catch_up(self, parameter: torch.Tensor | None = None, rows: torch.Tensor | None = None) -> None:
        """Do the steps that rows without a gradient have not done yet.

        Parameters
        ----------
        parameter : Parameter, optional
            One of those that learn; by default all.
        rows : Tensor of shape (n,), int
            Which of its rows; by default all.
        """
        for group in self.param_groups:
            for one in group["params"] if parameter is None else [parameter]:
                state = self.state.get(one)
                if state and "last" in state and any(one is other for other in group["params"]):
                    every = torch.arange(len(one), device=one.device) if rows is None else rows.long()
                    self._catch_up(one, state, every)

    @staticmethod
    def _catch_up(parameter: torch.Tensor, state: dict[str, Any], rows: torch.Tensor) -> None:
        step = int(state["step"])
        rows = rows[state["last"].index_select(0, rows) < step]  # a row that comes twice is written twice, alike
        # Not by `detach`: rows that were read are not changed, so that no backward pass need be refused.
        every = [parameter.data, state["exp_avg"], state["exp_avg_sq"], state["last"]]
        for some in _parts(rows, parameter):
            weights, first, second, last = touched = [tensor.index_select(0, some) for tensor in every]
            since = last.double()
            n = step - since  # (T,)
            way = state["ways"][since.long()]  # (T,) W(s)
            least = _EPS * (1 - _BETA_2 ** since.clamp(min=1)).sqrt()
            weights -= first.div(second.sqrt().add_(_by_row(least, weights))).mul_(_by_row(way, weights))
            first *= _by_row(_BETA_1**n, weights)
            second *= _by_row(_BETA_2**n, weights)
            last.fill_(step)
            for tensor, part in zip(every, touched, strict=True):
                tensor.index_copy_(0, some, part)

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
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)  # PyTorch loads a state of this name as it is
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        if gradient.is_sparse and "last" not in state:
            step = int(state["step"])  # of dense gradients, which moved all rows
            # The step that each row is at; a float, as it would be after it was loaded, exact up to 2^24.
            state["last"] = torch.full((len(parameter),), float(step), device=parameter.device)  # (R,)
            # W by step, longer than there are steps
            state["ways"] = torch.zeros(max(_TERMS, 2 * step), device=parameter.device)
        every = [parameter.data, state["exp_avg"], state["exp_avg_sq"]]
        if not gradient.is_sparse:
            self.catch_up(parameter)
            _advance(state, group["lr"])
            _adam(every, gradient, int(state["step"]), group)
            if "last" in state:
                state["last"].fill_(int(state["step"]))
            return
        gradient = gradient.coalesce()  # each row once, its gradients added up in the order of the batch
        rows, values = gradient.indices()[0], gradient.values()  # (T,), (T, H)
        self.catch_up(parameter, rows)  # whoever read them has done so
        _advance(state, group["lr"])
        for some, of_some in zip(_parts(rows, parameter), _parts(values, parameter), strict=True):
            touched = [tensor.index_select(0, some) for tensor in every]
            _adam(touched, of_some, int(state["step"]), group)
            for tensor, part in zip(every, touched, strict=True):
                tensor.index_copy_(0, some, part)
        state["last"].index_fill_(0, rows, int(state["step"]))


def _advance(state: dict[str, Any], lr: float) -> None:
    """Count a step, and add its term to W(s) of the steps before it."""
    state["step"] += 1
    if "ways" not in state:
        return
    step = int(state["step"])
    if step >= len(state["ways"]):
        state["ways"] = torch.cat([state["ways"], torch.zeros_like(state["ways"])])
    first = max(0, step - _TERMS)
    terms = lr * _POWERS[first - step :] * (1 - _BETA_2**step) ** 0.5 / (1 - _BETA_1**step)
    state["ways"][first:step] += terms.to(state["ways"])


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


def _adam(state: list[torch.Tensor], gradient: torch.Tensor, step: int, group: dict[str, Any]) -> None:
    """Do a step in place, on weights and moments of rows that all have a gradient."""
    weights, first, second = state
    if group["weight_decay"]:
        gradient = gradient.add(weights, alpha=group["weight_decay"])
    first.lerp_(gradient, 1 - _BETA_1)
    second.mul_(_BETA_2).addcmul_(gradient, gradient, value=1 - _BETA_2)
    of_second = (1 - _BETA_2**step) ** 0.5
    weights.addcdiv_(first, second.sqrt().add_(_EPS * of_second), value=-group["lr"] * of_second / (1 - _BETA_1**step))


def _parts(tensor: torch.Tensor, parameter: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield some rows at a time on a CPU, all at once on a GPU."""
    row_bytes = parameter[:1].numel() * parameter.element_size()
    yield from tensor.split(max(1, _PART_BYTES // row_bytes if tensor.device.type == "cpu" else len(tensor)))


def _by_row(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return a value for each row (T,) in the type of the rows (T, ...), to be multiplied with them."""
    return values.to(rows.dtype).view(-1, *[1] * (rows.dim() - 1))
