"""Products of matrices on the CPU, by the library that is fastest at them.

PyTorch multiplies float32 by Intel's MKL, which on processors of other makers leaves half of their speed unused:
500 x 600 x 20,108 takes 67 ms on two cores of an AMD EPYC, and 27 ms by oneDNN, which PyTorch brings along and itself
takes for bfloat16. Both round in float32; a product may differ from PyTorch's in the last bits.
"""

import platform
from typing import Any

import torch

_WORTHWHILE = 1 << 20  # multiplications: for fewer, the call takes longer than the product


class _Product(torch.autograd.Function):
    """A B by oneDNN, with the gradients G B^T and A^T G."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        return _by_onednn(a, b)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        a, b = ctx.saved_tensors
        needs_a, needs_b = ctx.needs_input_grad
        return (
            product(grad_outputs[0], b.t()) if needs_a else None,
            product(a.t(), grad_outputs[0]) if needs_b else None,
        )


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return A B, differentiable.

    Parameters
    ----------
    a : Tensor of shape (n, k)
        A, of any type of numbers, on any device.
    b : Tensor of shape (k, m)
        B, of the same type, on the same device.

    Returns
    -------
    Tensor of shape (n, m)
        Of the same type.
    """
    if not _is_for_onednn(a, b):
        return a @ b
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        result: torch.Tensor = _Product.apply(a, b)
        return result
    return _by_onednn(a, b)


def _is_for_onednn(a: torch.Tensor, b: torch.Tensor) -> bool:
    n_multiplications = a.numel() * b.shape[1]
    return (
        a.dtype == b.dtype == torch.float32
        and a.device.type == "cpu"
        and n_multiplications >= _WORTHWHILE
        and _has_onednn()
        and not torch.compiler.is_compiling()  # which chooses for itself
    )


def _has_onednn() -> bool:
    """Whether this build of PyTorch has oneDNN for dense matrices, which is what its compiler calls."""
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    return is_x86 and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _by_onednn(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # A linear layer is x W^T: its weight is B^T, a view.
    return torch.ops.mkldnn._linear_pointwise(a.detach(), b.detach().t(), None, "none", [], "")
