"""Building blocks of the networks: layers on sparse rows, initialisation.

Letters in shape comments: B users of a batch, N interactions in it, I items, H width of a layer, D latent dimensions.
"""

import functools
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from recvae.compute.collectives import summed
from recvae.compute.matmul import linear_product, product
from recvae.compute.ranks import current
from recvae.training.batches import SparseBatch
from recvae.training.shards import Shard

BIAS_STD = 1e-3
LOGVAR_RANGE = (-12.0, 4.0)  # of a `Head`

Gaussian = tuple[torch.Tensor, torch.Tensor]
"""Mean and log-variance."""


def sparse_product(
    batch: SparseBatch, inputs: torch.Tensor, weight: torch.Tensor, row_wise: bool = False
) -> torch.Tensor:
    """Return W^T x of each user without a dense x, shape (n_users, width).

    Parameters
    ----------
    batch : SparseBatch
        Whose items count.
    inputs : Tensor of shape (n_interactions,)
        The values of x at these items.
    weight : Tensor of shape (n_items, width)
        W.
    row_wise : bool
        Whether the gradient of W is sparse, with the rows of the batch only.
    """
    if torch.compiler.is_compiling():  # ONNX has no embedding_bag
        rows = (batch.rows == torch.arange(batch.offsets.shape[0], device=batch.device)[:, None]) * inputs  # (B, N)
        return rows @ functional.embedding(batch.items, weight)  # (B, N) x (N, H) -> (B, H)
    return functional.embedding_bag(
        batch.items, weight, batch.offsets, mode="sum", per_sample_weights=inputs, sparse=row_wise
    )


class SparseLinear(nn.Module):
    """A linear layer on sparse rows: adds up the weight rows of a user's items, no dense input in between.

    Parameters
    ----------
    n_items : int
        Width of the input.
    width : int
        Width of the output.
    """

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_items, width))
        self.bias = nn.Parameter(torch.empty(width))
        self.catch_up: Callable[[torch.Tensor, torch.Tensor], None] | None = None
        """What a model that updates rows has done to those of a batch before they are read; see `RowAdam`."""

    def forward(self, batch: SparseBatch, inputs: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
        """Return W^T x + b of each user, shape (n_users, width).

        Parameters
        ----------
        batch : SparseBatch
            Whose items count.
        inputs : Tensor of shape (n_interactions,)
            The values of x at these items.
        extra : Tensor of shape (n_users, n_items), optional
            What to add to x at all items, such as noise.
        """
        catch_up = self.catch_up if self.training else None
        if catch_up is not None:
            catch_up(self.weight, batch.items)
        hidden = sparse_product(batch, inputs, self.weight, catch_up is not None)  # (N,) -> (B, H)
        if batch.own is not None:
            hidden = summed(hidden, current())  # with those of the other processes, which have the other items
        if extra is not None:
            hidden = hidden + product(extra, self.weight)  # (B, I) -> (B, H)
        return hidden + self.bias

    @property
    def n_items(self) -> int:
        """Width of the input."""
        return len(self.weight)


class Linear(nn.Linear):
    """PyTorch's linear layer, multiplied by the faster library and not initialised."""

    def reset_parameters(self) -> None:
        """Leave the weights to who makes the layer: no global random state is touched."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return W x + b, shape (n_users, n_outputs)."""
        return linear_product(input, self.weight, self.bias)  # (B, n) x (n, m) -> (B, m)


class TiedLinear(Linear):
    """A last layer whose weight is that of the first: an item has one vector, to be read and to be scored.

    Parameters
    ----------
    first : SparseLinear
        The first layer of the same network, which holds the weight; this one has a bias of its own.
    """

    def __init__(self, first: SparseLinear) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = first.weight.shape
        self.bias = nn.Parameter(torch.empty(self.out_features))
        self._first = (first,)  # in a tuple, so that the weight has one name, that of the first layer

    @property
    def weight(self) -> nn.Parameter:  # type: ignore[override]
        """W, shape (n_items, width)."""
        return self._first[0].weight


def layers(widths: list[int]) -> nn.ModuleList:
    """Return linear layers from width to width, not initialised."""
    return nn.ModuleList(Linear(first, second) for first, second in pairwise(widths))


class DenseEncoder(nn.Module):
    """Layers that each take the sum of all before, swish, layer normalisation; mean and log-variance at the end.

    RecVAE, Shenbin et al., WSDM 2020, section 3.2.

    Parameters
    ----------
    n_items, hidden_dim, latent_dim : int
        Widths.
    depth : int
        Number of hidden layers, >= 1.
    """

    EPS = 0.1  # of the layer normalisation, as in the code of RecVAE's authors

    def __init__(self, n_items: int, hidden_dim: int, latent_dim: int, depth: int) -> None:
        super().__init__()
        self.first = SparseLinear(n_items, hidden_dim)
        self.inner = layers([hidden_dim] * depth)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_dim, eps=self.EPS) for _ in range(depth))
        self.heads = Linear(hidden_dim, 2 * latent_dim)

    def forward(self, batch: SparseBatch, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance of q(z | x), each of shape (n_users, latent_dim)."""
        first, *norms = self.norms
        hidden = before = first(functional.silu(self.first(batch, inputs)))  # (N,) -> (B, H)
        for layer, norm in zip(self.inner, norms, strict=True):
            hidden = norm(functional.silu(layer(hidden) + before))
            before = before + hidden
        mean, logvar = self.heads(hidden).chunk(2, dim=1)  # (B, 2 D) -> (B, D), (B, D)
        return mean, logvar


class Gated(nn.Module):
    """A linear layer whose outputs are let through by a second one: (W x + b) * sigmoid(V x + c).

    Parameters
    ----------
    n_inputs, width : int
        Widths.
    """

    def __init__(self, n_inputs: int, width: int) -> None:
        super().__init__()
        self.linear = Linear(n_inputs, 2 * width)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the gated outputs, shape (n, width)."""
        return nn.functional.glu(self.linear(inputs), dim=1)  # (B, 2 H) -> (B, H)


class Head(nn.Module):
    """Mean and log-variance of a normal distribution.

    Parameters
    ----------
    n_inputs, latent_dim : int
        Widths.
    """

    def __init__(self, n_inputs: int, latent_dim: int) -> None:
        super().__init__()
        self.linear = Linear(n_inputs, 2 * latent_dim)

    def forward(self, hidden: torch.Tensor) -> Gaussian:
        """Return both, each of shape (n, latent_dim)."""
        mean, logvar = self.linear(hidden).chunk(2, dim=1)  # (B, 2 D) -> (B, D), (B, D)
        return mean, logvar.clamp(*LOGVAR_RANGE)


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Fill weights with Glorot's uniform draw and biases with a normal of std 0.001 cut at two std (Liang et al.).

    Parameters
    ----------
    network : Module
        Of linear layers, on the CPU; where it has the items of one process, it gets their rows of the whole draw.
    generator : Generator
        The only source of randomness.
    """
    own = _shards_of(network)
    for parameter in network.parameters():
        shard = own.get(id(parameter))
        n_rows = len(parameter) if shard is None else shard.n_items
        if parameter.dim() == 2:
            bound = math.sqrt(3.0) * math.sqrt(2.0 / float(n_rows + parameter.shape[1]))
            _fill(parameter, shard, functools.partial(nn.init.uniform_, a=-bound, b=bound, generator=generator))
            continue
        whole = parameter if shard is None else torch.empty(n_rows)  # what is cut off is drawn again, all at once
        nn.init.trunc_normal_(whole, std=BIAS_STD, a=-2 * BIAS_STD, b=2 * BIAS_STD, generator=generator)
        if shard is not None:
            parameter.data.copy_(shard.rows_of(whole))


def _shards_of(network: nn.Module) -> dict[int, Shard]:
    """Return the shard of each parameter that has only rows of it, by identity."""
    shard: Shard | None = getattr(network, "shard", None)
    parameters: Any = network
    return {} if shard is None else {id(one): shard for one in parameters.item_parameters().values()}


def _fill(parameter: torch.Tensor, shard: Shard | None, draw: Callable[[torch.Tensor], object]) -> None:
    if shard is None:
        draw(parameter)
    else:
        shard.fill(parameter, draw)


def initialise_by_inputs(network: nn.Module, generator: torch.Generator, he: bool = False) -> None:
    """Fill linear layers by their number of inputs n, biases uniform within 1 / sqrt(n); other modules stay as made.

    Parameters
    ----------
    network : Module
        On the CPU.
    generator : Generator
        The only source of randomness.
    he : bool
        Whether weights are normal with variance 2 / n (He et al., ICCV 2015) instead of uniform within 1 / sqrt(n),
        which is PyTorch's way.
    """
    own = _shards_of(network)
    for module in network.modules():
        if isinstance(module, nn.Linear | SparseLinear):
            of_weight, of_bias = own.get(id(module.weight)), own.get(id(module.bias))
            n_items = module.n_items if isinstance(module, SparseLinear) else module.in_features
            n_inputs = of_weight.n_items if of_weight and isinstance(module, SparseLinear) else n_items
            bound = n_inputs**-0.5
            uniform = functools.partial(nn.init.uniform_, a=-bound, b=bound, generator=generator)
            normal = functools.partial(nn.init.normal_, mean=0, std=2**0.5 * bound, generator=generator)
            _fill(module.weight, of_weight, normal if he else uniform)
            _fill(module.bias, of_bias, uniform)
