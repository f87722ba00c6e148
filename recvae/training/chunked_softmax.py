"""The multinomial likelihood of a last layer, some items at a time: for catalogues whose logits are too many to hold.

    -sum_i x_ui log softmax(f_u)_i = n_u log sum_i exp f_ui - sum_i x_ui f_ui,  f_u = h_u W^T + b

The sum over items is added up part by part: s <- s exp(m - m') + sum_{i in part} exp(f_ui - m'), where m is the highest
logit so far and m' the highest with the new part (Milakov and Gimelshein 2018). The gradient n_u softmax(f_u) - x_u is
made part by part as well, from logits that are computed again: four products with the item layer instead of three, but
never more than users x `items_at_a_time` numbers (Wijmans et al., ICLR 2025, do so for language models). Loss and
gradients are those of the whole block, to rounding.

Letters in shape comments: B users, I items, C items at a time, N interactions of a batch, n of them at these items,
H width of the last layer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from recvae.compute.matmul import first_order, product
from recvae.training.batches import SparseBatch

_BLOCKS = 4  # of users x items at a time: logits, what a product or bfloat16 copies of them, and their gradient


@dataclass(frozen=True)
class _Part:
    """Some items, and the interactions with them.

    Parameters
    ----------
    items : slice
        Which items.
    hits : Tensor of shape (n,), int64
        Which interactions.
    cells : tuple of two tensors of shape (n,), int64
        Where these are in a block of users x the part's items.
    """

    items: slice
    hits: torch.Tensor
    cells: tuple[torch.Tensor, torch.Tensor]


def _parts(n_items: int, step: int, rows: torch.Tensor, items: torch.Tensor) -> Iterator[_Part]:
    """Yield the items from first to last, `step` at a time."""
    of_items, order = items.sort(stable=True)  # (N,)
    starts = torch.arange(0, n_items + step, step, device=items.device)
    bounds = torch.searchsorted(of_items, starts).tolist()  # a GPU is waited for, once for all parts
    for number, start in enumerate(range(0, n_items, step)):
        hits = order[bounds[number] : bounds[number + 1]]
        yield _Part(slice(start, min(start + step, n_items)), hits, (rows[hits], items[hits] - start))


class _ChunkedNLL(torch.autograd.Function):
    """Loss and gradients; the products may be of bfloat16, what is done between them is of the type of h."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        dtype: torch.dtype,
        step: int,
        rows: torch.Tensor,
        items: torch.Tensor,
        values: torch.Tensor,
        totals: torch.Tensor,
        lengths: torch.Tensor,
    ) -> torch.Tensor:
        h = hidden.to(dtype)
        # The lowest number, not -inf: a part may have logits of -inf alone.
        highest = torch.full_like(totals, torch.finfo(totals.dtype).min)  # (B,)
        sums = torch.zeros_like(totals, dtype=torch.float64)  # (B,) of up to I terms
        of_hits = torch.empty_like(values)  # (N,)
        for part in _parts(len(weight), step, rows, items):
            f = _logits(h, weight[part.items], bias[part.items])  # (B, C)
            of_hits[part.hits] = f[part.cells] * values[part.hits]
            now = torch.maximum(highest, f.amax(dim=1))  # (B,)
            sums *= (highest - now).exp()
            sums += f.sub_(now[:, None]).exp_().sum(dim=1)
            highest = now
        # "unsafe" leaves out a check of the lengths, for which a GPU would have to be waited for.
        hit = torch.segment_reduce(of_hits, "sum", lengths=lengths, unsafe=True, initial=0)  # (N,) -> (B,)
        ctx.save_for_backward(hidden, weight, bias, highest, (totals / sums).to(totals.dtype), rows, items, values)
        ctx.dtype, ctx.step = dtype, step
        return totals * (highest + sums.log()).to(totals.dtype) - hit

    @staticmethod
    @first_order
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, highest, scale, rows, items, values = ctx.saved_tensors
        counts = grad_outputs[0][:, None]  # (B, 1)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]  # a frozen part costs no product
        h, counted = hidden.to(ctx.dtype), (hidden * counts).to(ctx.dtype)  # (B, H)
        of_hidden = torch.zeros_like(hidden) if needs_hidden else None
        of_weight = torch.empty_like(weight) if needs_weight else None
        of_bias = torch.empty_like(bias) if needs_bias else None
        for part in _parts(len(weight), ctx.step, rows, items):
            w = weight[part.items]  # (C, H)
            gradient = _logits(h, w, bias[part.items])  # (B, C), the same numbers as before
            gradient.sub_(highest[:, None]).exp_().mul_(scale[:, None])
            gradient[part.cells] -= values[part.hits]  # each (row, item) once, so nothing is lost
            if of_bias is not None:
                of_bias[part.items] = (counts.t() @ gradient)[0]  # (1, B) x (B, C) -> (C,)
            g = gradient.to(ctx.dtype)
            if of_hidden is not None:
                of_hidden += product(g, w.to(ctx.dtype))  # (B, C) x (C, H) -> (B, H)
            if of_weight is not None:
                of_weight[part.items] = product(g.t(), counted)  # (C, B) x (B, H) -> (C, H)
        if of_hidden is not None:
            of_hidden *= counts
        return of_hidden, of_weight, of_bias, *[None] * 7


def _logits(h: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return h W^T + b of some items, shape (n_users, n), multiplied in the type of h and of the type of b."""
    return product(h, weight.to(h.dtype).t()).to(bias.dtype).add_(bias)  # (B, H) x (H, C) -> (B, C)


def chunked_nll(
    hidden: torch.Tensor,
    layer: nn.Linear,
    batch: SparseBatch,
    items_at_a_time: int,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the negative multinomial log-likelihood of each user's interactions under f = h W^T + b.

    Liang et al. 2018, eq. 2, without the constant; `losses.output_nll` has the same from one block of logits.

    Parameters
    ----------
    hidden : Tensor of shape (n_users, width), float32 or float64
        h.
    layer : Linear
        W and b, with an output for each item.
    batch : SparseBatch
        The target x.
    items_at_a_time : int
        Items whose logits are held at a time, >= 1.
    dtype : torch.dtype
        bfloat16 multiplies in bfloat16, anything else in the type of `hidden`.

    Returns
    -------
    Tensor of shape (n_users,)
        0 for a user without interactions.
    """
    values, totals = batch.values.to(hidden.dtype), batch.totals.to(hidden.dtype)
    target = (batch.rows, batch.items.long(), values, totals, batch.lengths)
    product_dtype = dtype if dtype == torch.bfloat16 else hidden.dtype
    step = min(items_at_a_time, layer.out_features)
    loss: torch.Tensor = _ChunkedNLL.apply(hidden, layer.weight, layer.bias, product_dtype, step, *target)
    return loss


def chunked_bytes(n_users: int, n_items: int, items_at_a_time: int, width: int) -> int:
    """Return about what `chunked_nll` and its gradient take at their peak, without the gradient of the layer.

    Parameters
    ----------
    n_users : int
        Of a batch.
    n_items, items_at_a_time : int
        In all, and at a time.
    width : int
        Of the layer before the items.
    """
    step = min(items_at_a_time, n_items)
    return 4 * (_BLOCKS * n_users * step + 2 * step * width)  # also the rows of W and of their gradient
