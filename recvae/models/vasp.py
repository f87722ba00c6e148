"""VASP: Vancura and Kordik, Deep Variational Autoencoder with Shallow Parallel Path, ICANN 2021.

A deep variational autoencoder f and a linear item-item model g without diagonal are trained together on split
histories: a random half of a user's items is the input, the other half the target, so that neither can learn to
repeat its input. How the two meet is a choice:

    sum       x_u ~ Mult(n_u, softmax(f(z_u) + W^T x_u)),  diag(W) = 0
    product   p_ui = sigmoid(f(z_u)_i) sigmoid(W^T x_u)_i  with the focal loss, alpha .25 and gamma 2 (the paper)

The sum is the simpler member with the same idea: softmax probabilities multiply where logits add. Other than in the
authors' code, the input is L2-normalised, the KL term a sum over latent dimensions, the decoder one linear layer, and
an update takes one direction of a random split instead of both.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from recvae.models.common.footprint import BatchFootprint
from recvae.models.common.hyperparameters import Range, Space, hyperparameter
from recvae.models.common.item_networks import ItemNetwork, LogitNetwork
from recvae.models.common.likelihood import ReducedPrecision
from recvae.models.common.networks import DenseEncoder, Linear, initialise_by_inputs, sparse_product
from recvae.models.common.noise import sample
from recvae.models.common.variational import VariationalAutoencoder
from recvae.training.batches import SparseBatch
from recvae.training.draws import of_interactions
from recvae.training.losses import kl_to_standard_normal, linear_logits, multinomial_nll, sum_of_each
from recvae.training.task import Losses

# Letters in shape comments: B users of a batch, N interactions stored in it, I items, D latent dimensions.

_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss
_TINY = 1e-12


class VASPNetwork(LogitNetwork):
    """The deep path and the shallow one.

    Parameters
    ----------
    n_items, hidden_dim, latent_dim, depth : int
        See `DenseEncoder`; the decoder is one linear layer.
    joint : str
        "sum" or "product".
    """

    def __init__(self, n_items: int, hidden_dim: int, latent_dim: int, depth: int, joint: str) -> None:
        super().__init__(n_items)
        self.joint = joint
        self.encoder = DenseEncoder(n_items, hidden_dim, latent_dim, depth)
        self.decoder = Linear(latent_dim, n_items)
        self.shallow = nn.Parameter(torch.empty(n_items, n_items))

    @property
    def output(self) -> nn.Linear:
        """The last layer of the deep path, which is its whole decoder."""
        return self.decoder

    def posterior(self, batch: SparseBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance of q(z | x) without dropout, each of shape (n_users, latent_dim)."""
        return self.encoder(batch, batch.inputs)

    def code(self, batch: SparseBatch) -> torch.Tensor:
        """Return the mean of q(z | x), shape (n_users, latent_dim)."""
        return self.posterior(batch)[0]  # (B, D)

    def forward(self, batch: SparseBatch) -> torch.Tensor:
        """Return what both paths say together, shape (n_users, n_items)."""
        deep = self.decoder(self.code(batch))  # (B, D) -> (B, I)
        shallow = self.shallow_logits(batch, batch.inputs)  # (B, I)
        return deep + shallow if self.joint == "sum" else log_product(deep, shallow)

    def shallow_logits(self, batch: SparseBatch, inputs: torch.Tensor) -> torch.Tensor:
        """Return W^T x, shape (n_users, n_items)."""
        return sparse_product(batch, inputs, self.shallow)  # (N,) -> (B, I)


def split_histories(batch: SparseBatch, generator: torch.Generator) -> tuple[torch.Tensor, SparseBatch]:
    """Send each interaction to the input or to the target, by the toss of a coin.

    Parameters
    ----------
    batch : SparseBatch
        Whole histories.
    generator : Generator
        On the same device.

    Returns
    -------
    inputs : Tensor of shape (n_interactions,)
        The input half, L2-normalised per user, 0 elsewhere.
    targets : SparseBatch
        The same users with the other half as what is to be found.
    """
    is_input = of_interactions(torch.rand, batch, generator) < 0.5  # (N,)
    inputs = batch.inputs * is_input
    norms = sum_of_each(inputs.square(), batch).sqrt()  # (N,) -> (B,)
    inputs = inputs / norms.clamp(min=_TINY)[batch.rows]  # without a scalar that would be sent to a GPU
    values = batch.values * ~is_input
    totals = sum_of_each(values, batch)  # (N,) -> (B,)
    return inputs, replace(batch, values=values, totals=totals)


def log_product(deep: torch.Tensor, shallow: torch.Tensor) -> torch.Tensor:
    """Return log(sigmoid(deep) sigmoid(shallow)), of the same shape."""
    return functional.logsigmoid(deep) + functional.logsigmoid(shallow)


def focal_loss(log_p: torch.Tensor, batch: SparseBatch) -> torch.Tensor:
    """Return the focal loss of each user, summed over items: Lin et al., ICCV 2017, eq. 5.

    -alpha (1 - p)^gamma log p for an interaction, -(1 - alpha) p^gamma log(1 - p) for any other item.

    Parameters
    ----------
    log_p : Tensor of shape (n_users, n_items)
        Below 0.
    batch : SparseBatch
        The target; entries of weight 0 are none.

    Returns
    -------
    Tensor of shape (n_users,)
    """
    p = log_p.exp()
    log_rest = torch.log1p(-p.clamp(max=1 - 1e-6))
    losses = -(1 - _ALPHA) * p.pow(_GAMMA) * log_rest  # (B, I)
    at = (batch.rows, batch.items.long())
    of_hits = -_ALPHA * (1 - p[at]).pow(_GAMMA) * log_p[at]  # (N,)
    change = (of_hits - losses[at]) * (batch.values > 0)
    return losses.sum(dim=1) + sum_of_each(change, batch)  # (B, I) -> (B,)


@dataclass(kw_only=True)
class VASP(ReducedPrecision[VASPNetwork], VariationalAutoencoder[VASPNetwork]):
    """A variational autoencoder and a linear model in parallel, trained on split histories.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = VASP(hidden_dim=16, latent_dim=4, epochs=20, batch_size=10, learning_rate=0.01, seed=1).fit(train)
    >>> items, scores = model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)
    >>> sorted(items[0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "vasp"
    shares_users: ClassVar[bool] = True
    retired: ClassVar[tuple[str, ...]] = ("sampling", "sampled_items")
    paper: ClassVar[str] = "Vancura, Kordik: Deep Variational Autoencoder with Shallow Parallel Path (ICANN 2021)"
    space: ClassVar[Space] = {
        "learning_rate": Range(3e-4, 2e-3, log=True),
        "batch_size": (50, 100, 200),
        "beta": Range(0.05, 1.0, log=True),
        "shallow_decay": Range(1e-6, 1e-3, log=True),
    }

    batch_size: int | None = hyperparameter(100, "users per update; none: a 25th, from 32 to 500", low=1)
    learning_rate: float = hyperparameter(5e-4, "step size of Adam", low=0)
    hidden_dim: int = hyperparameter(600, "width of the encoder's layers", low=1)
    depth: int = hyperparameter(5, "hidden layers of the encoder", low=1)
    latent_dim: int = hyperparameter(200, "number of latent variables", low=1)
    joint: str = hyperparameter(
        "sum", "how the two paths are combined; product: as in the paper", choices=("sum", "product")
    )
    beta: float = hyperparameter(0.2, "highest weight of the KL term", low=0)
    shallow_decay: float = hyperparameter(1e-5, "L2 penalty added to the gradient of the item-item weights", low=0)

    def _footprint(
        self,
        network: ItemNetwork,  # noqa: ARG002
        n_users: int,  # noqa: ARG002
        n_interactions: int,  # noqa: ARG002
        *,
        on_gpu: bool,
    ) -> BatchFootprint:
        # The focal loss keeps many of its steps.
        blocks, scoring_blocks = (4.0, 3.0) if self.joint == "sum" else (20.0, 5.0)
        return BatchFootprint(blocks=blocks + on_gpu, scoring_blocks=scoring_blocks)

    def _smaller(self) -> str:
        return (
            "leave out rare items (recvae preprocess --min-item-users), or use recvae or multvae, "
            "which need memory in proportion to the items"
        )

    def _network(self, n_items: int) -> VASPNetwork:
        return VASPNetwork(n_items, self.hidden_dim, self.latent_dim, self.depth, self.joint)

    def _initialise(self, generator: torch.Generator) -> None:
        initialise_by_inputs(self.network_, generator)
        nn.init.zeros_(self.network_.shallow)

    def _optimizer(self) -> torch.optim.Optimizer:
        deep = [*self.network_.encoder.parameters(), *self.network_.decoder.parameters()]
        groups = [{"params": deep}, {"params": [self.network_.shallow], "weight_decay": self.shallow_decay}]
        optimizer = torch.optim.Adam(groups, lr=self.learning_rate, fused=True)
        optimizer.register_step_pre_hook(self._keep_diagonal)
        return optimizer

    def _keep_diagonal(self, *_: Any) -> None:
        """Take the diagonal out of the gradient: it starts at 0 and stays there."""
        gradient = self.network_.shallow.grad
        assert gradient is not None  # a step follows a backward pass
        gradient.fill_diagonal_(0)

    def _loss(self, batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:
        network = self.network_
        inputs, targets = split_histories(batch, generator)
        mean, logvar = network.encoder(batch, inputs)
        deep = linear_logits(sample(mean, logvar, generator, batch), network.decoder, self.dtype_)  # (B, D) -> (B, I)
        shallow = network.shallow_logits(batch, inputs)  # (B, I)
        if self.joint == "sum":
            per_user = multinomial_nll(deep + shallow, targets)  # (B,)
        else:
            per_user = focal_loss(log_product(deep, shallow), targets)  # (B,)
        reconstruction = per_user.mean()
        kl = kl_to_standard_normal(mean, logvar).mean()  # (B,) -> ()
        return Losses(reconstruction + beta * kl, reconstruction, kl)
