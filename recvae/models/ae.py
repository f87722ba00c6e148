"""The plain autoencoder: encoder, decoder, reconstruction loss.

    L_u = -log p(x_u | f(g(x_u))),  g the encoder of the L2-normalised row, f the decoder

The simplest member of the family, and what the others are measured against: what noise on the input (`multdae`) or a
distribution of latent variables (`multvae`) gain, they gain over this. Hinton and Salakhutdinov, Science 2006; on
users' rows AutoRec, Sedhain et al., WWW 2015.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from recvae.models.common.hyperparameters import Range, Space, hyperparameter
from recvae.models.common.item_networks import ProductNetwork
from recvae.models.common.likelihood import TIED, LikelihoodChoice
from recvae.models.common.networks import SparseLinear, TiedLinear, layers
from recvae.models.common.noise import NoisyInput
from recvae.training.batches import SparseBatch
from recvae.training.task import Losses

# Letters in shape comments: B users of a batch, N interactions stored in it, I items, H width of a layer.


class AENetwork(ProductNetwork):
    """Items, hidden layers, items again, with tanh after every layer but the last.

    Parameters
    ----------
    n_items : int
        Width of input and output.
    hidden_dims : tuple of int
        Widths between the items and the code; the decoder has them in reverse.
    latent_dim : int
        Width of the code.
    tied : bool
        Whether the last layer has the weight of the first.
    """

    def __init__(self, n_items: int, hidden_dims: tuple[int, ...], latent_dim: int, tied: bool = False) -> None:
        super().__init__(n_items)
        widths = [*hidden_dims, latent_dim, *reversed(hidden_dims), n_items]
        first = SparseLinear(n_items, widths[0])
        self.encoder = nn.ModuleList([first])
        self.decoder = nn.ModuleList([*layers(widths[:-1]), TiedLinear(first)]) if tied else layers(widths)
        self._depth = len(hidden_dims)  # layers between the first and the code

    def encode(self, batch: SparseBatch, inputs: NoisyInput) -> torch.Tensor:
        """Return the code of what the encoder sees, shape (n_users, latent_dim)."""
        hidden = torch.tanh(self.encoder[0](batch, inputs.values, inputs.extra))  # (N,) and (B, I) -> (B, H)
        for layer in self.decoder[: self._depth]:
            hidden = torch.tanh(layer(hidden))
        return hidden  # (B, D)

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """Return what the last layer makes logits of, shape (n_users, width)."""
        for layer in self.decoder[self._depth : -1]:
            code = torch.tanh(layer(code))
        return code  # (B, H)

    @property
    def output(self) -> nn.Linear:
        """The last layer, whose outputs are the logits f(x) of the items."""
        layer = self.decoder[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def code(self, batch: SparseBatch) -> torch.Tensor:
        """Return the code, shape (n_users, latent_dim)."""
        return self.encode(batch, NoisyInput(batch.inputs))  # (B, D)


@dataclass(kw_only=True)
class AE(LikelihoodChoice[AENetwork]):
    """The plain autoencoder: no noise, no latent distribution, one reconstruction loss.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = AE(latent_dim=4, epochs=40, batch_size=10, learning_rate=0.01, seed=1).fit(train)
    >>> items, scores = model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)
    >>> sorted(items[0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "ae"
    shares_users: ClassVar[bool] = True
    shares_items: ClassVar[bool] = True
    paper: ClassVar[str] = "Sedhain et al.: AutoRec, Autoencoders Meet Collaborative Filtering (WWW 2015)"
    space: ClassVar[Space] = {
        "learning_rate": Range(1e-4, 3e-3, log=True),
        "batch_size": (None, 50, 100, 200),
        "latent_dim": (50, 100, 200),
        "weight_decay": Range(1e-5, 1e-2, log=True),
    }

    hidden_dims: tuple[int, ...] = hyperparameter((), "widths between items and code", low=1)
    latent_dim: int = hyperparameter(200, "width of the code", low=1)
    weight_decay: float = hyperparameter(4e-5, "L2 penalty added to the gradient, on weights only", low=0)
    tied: bool = hyperparameter(False, TIED)

    def _network(self, n_items: int) -> AENetwork:
        return AENetwork(n_items, self.hidden_dims, self.latent_dim, self.tied)

    def _optimizer(self) -> torch.optim.Optimizer:
        weights = [parameter for parameter in self.network_.parameters() if parameter.dim() == 2]
        biases = [parameter for parameter in self.network_.parameters() if parameter.dim() == 1]
        return self._adam([{"params": weights, "weight_decay": self.weight_decay}, {"params": biases}])

    def _noisy(self, batch: SparseBatch, generator: torch.Generator) -> NoisyInput:  # noqa: ARG002  (denoising ones)
        """Return what the encoder sees in training."""
        return NoisyInput(batch.inputs)

    def _loss(self, batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:  # noqa: ARG002  (no KL)
        network = self.network_
        hidden = network.decode(network.encode(batch, self._noisy(batch, generator)))  # (B, H)
        reconstruction = self._nll(hidden, batch, generator).mean()  # (B,) -> ()
        return Losses(reconstruction, reconstruction)
