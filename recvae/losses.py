"""Likelihoods and divergences: one value per user, batch means are left to the training loop.

Letters in shape comments: B users, I items, N interactions of a batch, D latent dimensions.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from recvae.batches import SparseBatch


class _MultinomialNLL(torch.autograd.Function):
    """-sum_i x_ui log softmax(f_u)_i without a dense target, and its gradient in one dense block.

    With n_u = sum_i x_ui this is n_u logsumexp(f_u) - sum_i x_ui f_ui, so the gradient with respect to f is
    n_u softmax(f_u) - x_u. Autograd would build three more blocks of shape (B, I) on the way.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        rows: torch.Tensor,
        items: torch.Tensor,
        values: torch.Tensor,
        totals: torch.Tensor,
        lengths: torch.Tensor,
    ) -> torch.Tensor:
        normaliser = torch.logsumexp(logits, dim=1)  # (B,)
        hit_values = logits[rows, items] * values  # (N,)
        # "unsafe" leaves out a check of the lengths, for which a GPU would have to be waited for.
        hit = torch.segment_reduce(hit_values, "sum", lengths=lengths, unsafe=True, initial=0)  # (N,) -> (B,)
        ctx.save_for_backward(logits, normaliser, rows, items, values, totals)
        return totals * normaliser - hit

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, normaliser, rows, items, values, totals = ctx.saved_tensors
        weight = grad_outputs[0]  # (B,)
        gradient = (logits - normaliser[:, None]).exp_()  # (B, I) softmax
        gradient *= (weight * totals)[:, None]
        gradient[rows, items] -= values * weight[rows]  # each (row, item) once, so nothing is lost
        return gradient, None, None, None, None, None


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
    loss: torch.Tensor = _MultinomialNLL.apply(
        logits,
        batch.rows,
        batch.items.long(),
        batch.values.to(logits.dtype),
        batch.totals.to(logits.dtype),
        batch.lengths,
    )
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
    return 0.5 * (mean.square() + logvar.exp() - logvar - 1).sum(dim=1)  # (B, D) -> (B,)


def log_normal(z: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Return the log-density of N(mean, exp(logvar)) at z in each dimension.

    Parameters
    ----------
    z, mean, logvar : Tensor
        Of shapes that broadcast.
    """
    return -0.5 * (logvar + (z - mean).square() / logvar.exp() + math.log(2 * math.pi))
