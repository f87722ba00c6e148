"""The multinomial likelihood with a normaliser that is estimated from drawn items: for very large catalogues.

    -sum_i x_ui (f_ui - log Z_u),  Z_u ~ sum_{i in x_u} exp f_ui + sum_{j drawn, not in x_u} c_j / (m q_j) exp f_uj

A user's own items are always there; of m draws from q, item j came c_j times, and 1 / (m q_j) makes up for how often
it comes (the log-q correction: Bengio and Senecal 2008; Jean et al., ACL 2015), so that the estimate of Z_u has no
bias. All users of a batch share the draws, so that scoring them is one product.

Letters in shape comments: B users, I items, N interactions of a batch, M different items drawn, H width of the last
layer.
"""

import math
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional

from recvae.compute.matmul import product
from recvae.interactions import StoredRows, item_counts_of
from recvae.training.batches import SparseBatch
from recvae.training.losses import sum_of_each

SAMPLINGS = ("none", "uniform", "popularity")


class ItemSampler:
    """Draws items, all alike or by how many training users have them.

    Parameters
    ----------
    train : csr_matrix of shape (n_users, n_items)
        Training interactions.
    n_draws : int
        m, draws per batch, >= 1.
    by : str
        "uniform", or "popularity": in proportion to the training users of an item plus one.
    device : torch.device
        Where the draws are wanted.
    """

    def __init__(self, train: sp.csr_matrix | StoredRows, n_draws: int, by: str, device: torch.device) -> None:
        n_items = train.shape[1]
        counts = item_counts_of(train) + 1.0 if by == "popularity" else np.ones(n_items)
        q = torch.from_numpy(counts / counts.sum())  # (I,), float64
        self.n_draws = n_draws
        self._cumulative = q.cumsum(0).to(device)
        self._log_expected = (q.log() + math.log(n_draws)).float().to(device)  # log of m q

    def draw(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw items with replacement.

        Parameters
        ----------
        generator : Generator
            On the device.

        Returns
        -------
        items : Tensor of shape (n_different,), int64
            Each item drawn, once.
        log_weights : Tensor of shape (n_different,), float32
            log(c / (m q)).
        """
        draws = torch.rand(self.n_draws, generator=generator, device=self._cumulative.device, dtype=torch.float64)
        found = torch.searchsorted(self._cumulative, draws).clamp_(max=len(self._cumulative) - 1)
        items, counts = found.unique(return_counts=True)  # (m,) -> (M,), (M,)
        return items, counts.log() - self._log_expected[items]


def sampled_nll(
    hidden: torch.Tensor,
    layer: nn.Linear,
    batch: SparseBatch,
    drawn: tuple[torch.Tensor, torch.Tensor],
    dtype: torch.dtype = torch.float32,
    read: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return the negative multinomial log-likelihood of each user's interactions, its normaliser estimated.

    Parameters
    ----------
    hidden : Tensor of shape (n_users, width)
        h; the logits are f = h W^T + b.
    layer : Linear
        W and b, with an output for each item.
    batch : SparseBatch
        The target.
    drawn : tuple of two tensors
        From `ItemSampler.draw`.
    dtype : torch.dtype
        bfloat16 multiplies in bfloat16, anything else in the type of `hidden`.
    read : callable, optional
        (W or b, items) -> their rows, in place of a look-up whose gradient is dense; see `RowAdam.read`.

    Returns
    -------
    Tensor of shape (n_users,)
        0 for a user without interactions.
    """
    items, log_weights = drawn
    n = len(batch.items)
    wanted = torch.cat([batch.items.long(), items])  # (N + M,), so that W has one gradient
    if read is not None:
        weight, bias = read(layer.weight, wanted), read(layer.bias, wanted)  # (N + M, H), (N + M,)
    else:  # not by indexing: the gradient of that adds up in any order where several threads do it
        weight = functional.embedding(wanted, layer.weight)  # (N + M, H)
        bias = functional.embedding(wanted, layer.bias[:, None])[:, 0]  # (N + M,)
    own = (hidden.index_select(0, batch.rows) * weight[:n]).sum(dim=1) + bias[:n]  # (N,)
    product_dtype = dtype if dtype == torch.bfloat16 else hidden.dtype
    logits = product(hidden.to(product_dtype), weight[n:].to(product_dtype).t())  # (B, H) x (H, M) -> (B, M)
    others = logits.to(hidden.dtype) + (bias[n:] + log_weights.to(hidden.dtype))
    others = others.masked_fill(_own_among(items, batch, layer.out_features), -torch.inf)
    highest = _highest(others, own, batch)
    sums = (others - highest[:, None]).exp().sum(dim=1) + sum_of_each((own - highest[batch.rows]).exp(), batch)
    values, totals = batch.values.to(hidden.dtype), batch.totals.to(hidden.dtype)
    return totals * (sums.log() + highest) - sum_of_each(values * own, batch)


def sampled_bytes(n_users: int, n_interactions: int, n_draws: int, width: int) -> int:
    """Return about what `sampled_nll` and its gradient take at their peak.

    Parameters
    ----------
    n_users, n_interactions : int
        Of a batch.
    n_draws : int
        Items drawn.
    width : int
        Of the layer before the items.
    """
    rows = n_interactions + n_draws
    return 4 * (5 * width * rows + 4 * n_users * n_draws)  # rows of W, products and gradients; logits and theirs


def _highest(others: torch.Tensor, own: torch.Tensor, batch: SparseBatch) -> torch.Tensor:
    """Return the highest logit of each user (B,), without a gradient: it cancels."""
    highest = others.detach().amax(dim=1).clamp_(min=torch.finfo(others.dtype).min)
    return highest.scatter_reduce(0, batch.rows, own.detach(), "amax")


def _own_among(items: torch.Tensor, batch: SparseBatch, n_items: int) -> torch.Tensor:
    """Return which of the drawn items a user has, shape (B, M)."""
    place = torch.full((n_items,), len(items), device=items.device)  # (I,)
    place[items] = torch.arange(len(items), device=items.device)
    has = torch.zeros(len(batch), len(items) + 1, dtype=torch.bool, device=items.device)
    has[batch.rows, place[batch.items.long()]] = True  # what was not drawn goes into a last column
    return has[:, :-1]
