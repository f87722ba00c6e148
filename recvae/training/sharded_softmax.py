"""The multinomial likelihood of a last layer whose items several processes share: each has the logits of its own.

    -sum_i x_ui log softmax(f_u)_i = n_u log sum_i exp f_ui - sum_i x_ui f_ui,  f_u = h_u W^T + b

Each process finds the highest of its logits m_r, the sum s_r of their exponentials over exp(m_r), and its part of the
second sum. With the highest m of all m_r, the sum over all items is exp(m) sum_r s_r exp(m_r - m): one number of each
user whose highest is taken over processes, and two that are added up. The gradient n_u softmax(f_u) - x_u is then made
in the place of the logits, as in `losses`, and no process ever has more than users x its own items.

Letters in shape comments: B users, b of them at a time, I items of this process, N interactions with these, H width.
"""

from typing import Any

import torch
from torch import nn

from recvae.compute.collectives import replicated
from recvae.compute.matmul import product
from recvae.compute.ranks import current
from recvae.training.batch_parts import parts_of
from recvae.training.batches import SparseBatch
from recvae.training.losses import LinearMultinomialNLL, target_of


class _ShardedNLL(LinearMultinomialNLL):
    """Loss over the items of all processes; gradients for the items of this one, and what these give h."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        dtype: torch.dtype,
        *target: torch.Tensor,
    ) -> torch.Tensor:
        rows, items, values, totals, lengths = target
        w, ranks = weight.to(dtype), current()
        block = product(hidden.to(dtype), w.t())  # (B, H) x (H, I) -> (B, I)
        share, sums = _to_exponentials(block, bias, rows, items, values, lengths)  # (B,), (2, B)
        highest = share.clone()
        ranks.check(same=len(highest))
        ranks.highest(highest)  # nothing large is made from here to the sum
        share.sub_(highest).exp_()  # (B,) what the exponentials of this process count
        sums[0] *= share
        ranks.sum(sums)
        nll = totals * (highest + sums[0].log()) - sums[1]
        _to_gradient(block, totals * share / sums[0], rows, items, values, lengths)
        ctx.save_for_backward(hidden, w, block)
        return nll


def _to_exponentials(
    logits: torch.Tensor,
    bias: torch.Tensor,
    rows: torch.Tensor,
    items: torch.Tensor,
    values: torch.Tensor,
    lengths: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put exp(f - m) in the place of the logits f; return m (B,), and sums of these and of x f, (2, B)."""
    highest, sums = values.new_empty(len(logits)), values.new_empty((2, len(logits)))
    for users, hits in parts_of(logits, lengths, len(items), values.element_size()):
        f = logits[users].to(values.dtype)  # (b, I), a view if it is of that type
        f += bias
        of_hits = f[rows[hits] - users.start, items[hits]] * values[hits]  # (n,)
        sums[1, users] = torch.segment_reduce(of_hits, "sum", lengths=lengths[users], unsafe=True, initial=0)
        highest[users] = f.amax(dim=1)  # (b,)
        f.sub_(highest[users, None]).exp_()
        sums[0, users] = f.sum(dim=1)
        if f.dtype != logits.dtype:
            logits[users] = f
    return highest, sums


def _to_gradient(
    block: torch.Tensor,
    scale: torch.Tensor,
    rows: torch.Tensor,
    items: torch.Tensor,
    values: torch.Tensor,
    lengths: torch.Tensor,
) -> None:
    """Put n_u softmax(f_u) - x_u in the place of the exponentials, each times the scale (B,) of its user."""
    for users, hits in parts_of(block, lengths, len(items), values.element_size()):
        g = block[users].to(values.dtype)
        g *= scale[users, None]
        g[rows[hits] - users.start, items[hits]] -= values[hits]  # each (row, item) once, so nothing is lost
        if g.dtype != block.dtype:
            block[users] = g


def sharded_nll(
    hidden: torch.Tensor, layer: nn.Linear, batch: SparseBatch, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return the negative multinomial log-likelihood of each user's row, over the items of all processes.

    Parameters
    ----------
    hidden : Tensor of shape (n_users, width), float32 or float64
        h, the same in all processes.
    layer : Linear
        W and b of the items of this process.
    batch : SparseBatch
        The target at these items, from `Shard.of_batch`.
    dtype : torch.dtype
        bfloat16 multiplies in bfloat16, anything else in the type of `hidden`.

    Returns
    -------
    Tensor of shape (n_users,)
        The same in all processes.
    """
    product_dtype = dtype if dtype == torch.bfloat16 else hidden.dtype
    same = replicated(hidden, current())
    loss: torch.Tensor = _ShardedNLL.apply(
        same, layer.weight, layer.bias, product_dtype, *target_of(batch, hidden.dtype)
    )
    return loss
