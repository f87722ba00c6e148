"""Likelihoods and divergences: one value per user, batch means are left to the training loop.

Letters in shape comments: B users, I items, N interactions of a batch, D latent dimensions, H width of the last layer.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from recvae.compute.matmul import first_order, product
from recvae.training.batch_parts import parts_of, users_at_a_time
from recvae.training.batches import SparseBatch

# A CPU's cache holds so many columns of the logits' gradient while it is multiplied the other way round.
_CHUNK_ITEMS = 4096


class _MultinomialNLL(torch.autograd.Function):
    """-sum_i x_ui log softmax(f_u)_i without a dense target, and its gradient in one dense block.

    With n_u = sum_i x_ui this is n_u logsumexp(f_u) - sum_i x_ui f_ui, so the gradient with respect to f is
    n_u softmax(f_u) - x_u. Autograd would build three more blocks of shape (B, I) on the way.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, *target: torch.Tensor) -> torch.Tensor:
        gradient = logits.clone()
        nll = _to_gradient(gradient, None, *target)
        ctx.save_for_backward(gradient)
        return nll

    @staticmethod
    @first_order
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0][:, None], None, None, None, None, None


class LinearMultinomialNLL(torch.autograd.Function):
    """`multinomial_nll` of f = h W^T + b: the block of logits becomes that of their gradient, and is the only one.

    It is made while the logits are at hand, for users that count alike; how much each counts, known when gradients
    are asked for, is brought in by the far smaller h. The products, and the block, may be of bfloat16; what is done
    between them and what is returned are of the type of h.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        dtype: torch.dtype,
        *target: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss of each user (B,)."""
        w = weight.to(dtype)  # (I, H)
        # The bias comes later: within the product it takes four times as long in bfloat16.
        gradient = product(hidden.to(dtype), w.t())  # (B, H) x (H, I) -> (B, I)
        nll = _to_gradient(gradient, bias, *target)
        ctx.save_for_backward(hidden, w, gradient)
        return nll

    @staticmethod
    @first_order
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of h, W and b, from what `forward` has saved: h, W and the block."""
        hidden, w, gradient = ctx.saved_tensors
        counts = grad_outputs[0][:, None]  # (B, 1)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]  # a frozen part costs no product
        of_hidden = of_weight = of_bias = None
        if needs_hidden:
            of_hidden = product(gradient, w).to(hidden.dtype) * counts  # (B, I) x (I, H) -> (B, H)
        if needs_weight:
            of_weight = _turned_product(gradient, (hidden * counts).to(w.dtype), hidden.dtype)  # (I, H)
        if needs_bias:
            of_bias = _weighted_sum(gradient, counts)  # (B, I) -> (I,)
        return of_hidden, of_weight, of_bias, *[None] * 6


def _turned_product(gradient: torch.Tensor, hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return G^T h, from (B, I) and (B, H) to (I, H), by items, since turning all of G would take another block."""
    n_items = gradient.shape[1]
    result = hidden.new_empty((n_items, hidden.shape[1]), dtype=dtype)
    step = n_items if gradient.is_cuda else _CHUNK_ITEMS
    for part, rows in zip(gradient.split(step, dim=1), result.split(step), strict=True):
        rows.copy_(product(part.t(), hidden))
    return result


def _weighted_sum(gradient: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return the sum of users' rows (B, I) times what each counts (B, 1), added up as numbers of the latter's type."""
    step = users_at_a_time(gradient, counts.element_size())
    total = counts.new_zeros((1, gradient.shape[1]))
    for part, count in zip(gradient.split(step), counts.split(step), strict=True):
        total += count.t() @ part.to(count.dtype)  # (1, b) x (b, I) -> (1, I)
    return total[0]


def _to_gradient(
    logits: torch.Tensor,
    bias: torch.Tensor | None,
    rows: torch.Tensor,
    items: torch.Tensor,
    values: torch.Tensor,
    totals: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    """Return the loss (B,) of the logits f (B, I), plus bias, and put n_u softmax(f_u) - x_u in their place."""
    nll = torch.empty_like(totals)
    for users, hits in parts_of(logits, lengths, len(items), values.element_size()):
        f = logits[users].to(values.dtype)  # (b, I), a view if it is of that type
        if bias is not None:
            f += bias
        cells = rows[hits] - users.start, items[hits]
        of_hits = f[cells] * values[hits]  # (n,)
        # "unsafe" leaves out a check of the lengths, for which a GPU would have to be waited for.
        hit = torch.segment_reduce(of_hits, "sum", lengths=lengths[users], unsafe=True, initial=0)  # (n,) -> (b,)
        highest = f.amax(dim=1)  # (b,)
        torch.softmax(f, dim=1, out=f)
        # The largest probability is that of the highest logit, and far from 0: log-sum-exp is their difference.
        nll[users] = totals[users] * (highest - f.amax(dim=1).log()) - hit
        f *= totals[users, None]
        f[cells] -= values[hits]  # each (row, item) once, so nothing is lost
        if f.dtype != logits.dtype:
            logits[users] = f
    return nll


def target_of(batch: SparseBatch, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Return what a loss is given of the target: rows, items, values, totals and lengths."""
    return batch.rows, batch.items.long(), batch.values.to(dtype), batch.totals.to(dtype), batch.lengths


def multinomial_nll(logits: torch.Tensor, batch: SparseBatch) -> torch.Tensor:
    """Return the negative multinomial log-likelihood of each user's interactions.

    -sum_i x_ui log softmax(f_u)_i, Liang et al. 2018, eq. 2; the constant of the multinomial is left out, as
    in the paper.

    Parameters
    ----------
    logits : Tensor of shape (n_users, n_items), float32 or float64
        f_u.
    batch : SparseBatch
        The target x: un-normalised, without dropout.

    Returns
    -------
    Tensor of shape (n_users,)
        0 for a user without interactions.
    """
    loss: torch.Tensor = _MultinomialNLL.apply(logits, *target_of(batch, logits.dtype))
    return loss


def bernoulli_nll(logits: torch.Tensor, batch: SparseBatch) -> torch.Tensor:
    """Return the negative Bernoulli log-likelihood of each user's row, every item being an event of its own.

    sum_i softplus(f_ui) - sum_i x_ui f_ui, the logistic likelihood of Liang et al. 2018, eq. 4, with x_ui = 1 for
    every stored interaction, whatever its weight.

    Parameters
    ----------
    logits : Tensor of shape (n_users, n_items), float32 or float64
        f_u.
    batch : SparseBatch
        The target x; entries of weight 0 are none.

    Returns
    -------
    Tensor of shape (n_users,)
        At least 0.
    """
    hits = logits[batch.rows, batch.items.long()] * (batch.values > 0)  # (N,)
    return functional.softplus(logits).sum(dim=1) - sum_of_each(hits, batch)  # (B, I) -> (B,)


def gaussian_nll(logits: torch.Tensor, batch: SparseBatch, confidence: float = 1.0) -> torch.Tensor:
    """Return the negative Gaussian log-likelihood of each user's row, without its constant.

    sum_i c_ui (x_ui - f_ui)^2 / 2 with c_ui = `confidence` for an interaction and 1 for any other item: Liang et
    al. 2018, eq. 3.

    Parameters
    ----------
    logits : Tensor of shape (n_users, n_items), float32 or float64
        f_u, the means.
    batch : SparseBatch
        The target x.
    confidence : float
        Weight of an interaction, > 0.

    Returns
    -------
    Tensor of shape (n_users,)
        At least 0.
    """
    found = logits[batch.rows, batch.items.long()]  # (N,)
    values = batch.values.to(logits.dtype)
    weights = torch.where(values > 0, values.new_full((), confidence), values.new_ones(()))  # (N,), made on the device
    change = weights * (values - found).square() - found.square()  # (N,) against a row without interactions
    return 0.5 * (logits.square().sum(dim=1) + sum_of_each(change, batch))  # (B, I) -> (B,)


def sum_of_each(values: torch.Tensor, batch: SparseBatch) -> torch.Tensor:
    """Add up values by user.

    Parameters
    ----------
    values : Tensor of shape (n_interactions,)
        One for each interaction of the batch.
    batch : SparseBatch
        Whose users count.

    Returns
    -------
    Tensor of shape (n_users,)
        0 for a user without interactions.
    """
    return values.new_zeros(len(batch)).index_add(0, batch.rows, values)


Likelihood = Callable[[torch.Tensor, SparseBatch], torch.Tensor]
"""Logits (n_users, n_items) and target -> negative log-likelihood of each user."""

LIKELIHOODS = ("multinomial", "bernoulli", "gaussian")


def likelihood(name: str, confidence: float = 1.0) -> Likelihood:
    """Return the negative log-likelihood of that name.

    Parameters
    ----------
    name : str
        One of `LIKELIHOODS`.
    confidence : float
        Weight of an interaction in the Gaussian one, > 0; the others have none.
    """
    known: dict[str, Likelihood] = {
        "multinomial": multinomial_nll,
        "bernoulli": bernoulli_nll,
        "gaussian": functools.partial(gaussian_nll, confidence=confidence),
    }
    return known[name]


def output_nll(
    hidden: torch.Tensor,
    layer: nn.Linear,
    batch: SparseBatch,
    name: str = "multinomial",
    confidence: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the negative log-likelihood of each user's row under the logits f = h W^T + b of a last layer.

    Parameters
    ----------
    hidden : Tensor of shape (n_users, width), float32 or float64
        h.
    layer : Linear
        W and b, with an output for each item.
    batch : SparseBatch
        The target.
    name, confidence
        See `likelihood`.
    dtype : torch.dtype
        bfloat16 multiplies in bfloat16, anything else in the type of `hidden`.

    Returns
    -------
    Tensor of shape (n_users,)
    """
    if name == "multinomial":
        target, product_dtype = target_of(batch, hidden.dtype), dtype if dtype == torch.bfloat16 else hidden.dtype
        loss: torch.Tensor = LinearMultinomialNLL.apply(hidden, layer.weight, layer.bias, product_dtype, *target)
        return loss
    return likelihood(name, confidence)(linear_logits(hidden, layer, dtype), batch)


def linear_logits(hidden: torch.Tensor, layer: nn.Linear, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the logits f = h W^T + b of a last layer, shape (n_users, n_items), of the type of `hidden`.

    Parameters
    ----------
    hidden, layer, dtype
        See `output_nll`.
    """
    if dtype != torch.bfloat16:
        return layer(hidden)
    logits = product(hidden.to(dtype), layer.weight.to(dtype).t())  # (B, H) x (H, I) -> (B, I)
    return logits.to(hidden.dtype) + layer.bias


def kl_to_standard_normal(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Return KL(N(mean, exp(logvar)) || N(0, 1)) of each user, summed over the latent dimensions.

    sum_d (mean_d^2 + exp(logvar_d) - logvar_d - 1) / 2, Kingma and Welling 2014, appendix B.

    Parameters
    ----------
    mean, logvar : Tensor of shape (n_users, latent_dim)
        Parameters of the posterior.

    Returns
    -------
    Tensor of shape (n_users,)
        At least 0.
    """
    return kl_of_units(mean, logvar).sum(dim=1)  # (B, D) -> (B,)


def kl_of_units(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Return the terms of `kl_to_standard_normal`, one for each latent dimension, shape (n_users, latent_dim)."""
    return 0.5 * (mean.square() + logvar.exp() - logvar - 1)


def log_normal(z: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Return the log-density of N(mean, exp(logvar)) at z in each dimension.

    Parameters
    ----------
    z, mean, logvar : Tensor
        Of shapes that broadcast.
    """
    return -0.5 * (logvar + (z - mean).square() / logvar.exp() + math.log(2 * math.pi))
