"""Matrix products on the CPU, with the faster of two libraries in PyTorch.

PyTorch multiplies float32 with Intel's MKL, which uses only half the speed of other makers' processors:
500 x 600 x 20,108 takes 67 ms on two cores of an AMD EPYC, and 27 ms with oneDNN, which PyTorch itself uses for
bfloat16. Intel's own processors have not been measured. Both round in float32; a product may differ from PyTorch's in
the last bits.
"""

import functools
import platform
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch.autograd.function import once_differentiable

_WORTHWHILE = 1 << 20  # multiplications: with fewer, the call takes longer than the product


Backward = TypeVar("Backward", bound=Callable[..., Any])


def first_order(backward: Backward) -> Backward:
    """Mark a backward pass that has no derivative itself: a second derivative is then an error, not a wrong result."""
    return cast(Backward, once_differentiable(backward))


class _Product(torch.autograd.Function):
    """A B with oneDNN; the gradients are G B^T and A^T G."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        return _by_onednn(a, b)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        a, b = ctx.saved_tensors
        needs_a, needs_b = ctx.needs_input_grad
        return (
            product(grad_outputs[0], b.t()) if needs_a else None,
            product(a.t(), grad_outputs[0]) if needs_b else None,
        )


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return A B, with gradients (first order, reverse mode).

    Parameters
    ----------
    a : Tensor of shape (n, k)
        A, of any dtype, on any device.
    b : Tensor of shape (k, m)
        B, of the same dtype, on the same device.

    Returns
    -------
    Tensor of shape (n, m)
        Of the same dtype.
    """
    if not _is_for_onednn(a, b):
        return a @ b
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        result: torch.Tensor = _Product.apply(a, b)
        return result
    return _by_onednn(a, b)


def linear_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return x W^T + b, with gradients.

    Parameters
    ----------
    x : Tensor of shape (n, k)
        Of any dtype, on any device.
    weight, bias : Tensor of shape (m, k) and (m,)
        W and b.

    Returns
    -------
    Tensor of shape (n, m)
    """
    if not _is_for_onednn(x, weight.t()):
        return torch.nn.functional.linear(x, weight, bias)  # one step; `product` would need a second one for b
    return product(x, weight.t()).add_(bias)


def _is_for_onednn(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # the compiler chooses itself, and its shapes may be symbolic
        and a.dtype == b.dtype == torch.float32
        and a.device.type == b.device.type == "cpu"
        and a.dim() == b.dim() == 2
        and a.shape[1] == b.shape[0]
        and a.numel() * b.shape[1] >= _WORTHWHILE
        and torch.backends.mkldnn.enabled
        and _has_onednn()
    )


@functools.cache
def _has_onednn() -> bool:
    """Return whether oneDNN can multiply dense matrices here, by the call of PyTorch's compiler, which may change."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return False
    try:
        return torch.equal(_by_onednn(torch.eye(2), torch.ones(2, 3)), torch.ones(2, 3))
    except (AttributeError, RuntimeError, TypeError):
        return False


def _by_onednn(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # A linear layer is x W^T: its weight is B^T, a view.
    return torch.ops.mkldnn._linear_pointwise(a.detach(), b.detach().t(), None, "none", [], "")
