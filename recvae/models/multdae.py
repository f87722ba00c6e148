"""Mult-DAE: the denoising autoencoder of Liang et al., WWW 2018, section 2.3.

    L_u = log p(x_u | g(x_u)),  with dropout on the L2-normalised input and weight decay instead of a KL term

The released best is one hidden layer of 200 with tanh (vae_cf notebook). Their penalty lambda ||W||^2 with
lambda = 2e-5 on the weights, not the biases, is Adam's L2 weight decay of 2 lambda = 4e-5.
"""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import nn

from recvae.batches import SparseBatch
from recvae.hyperparameters import hyperparameter
from recvae.losses import multinomial_nll
from recvae.models.autoencoder import Autoencoder
from recvae.models.networks import SparseLinear, dropout, layers
from recvae.training import Losses

# Letters in shape comments: B users of a batch, N interactions stored in it, I items, H width of a layer.


class MultDAENetwork(nn.Module):
    """Items, hidden layers, items again, with tanh after every layer but the last.

    Parameters
    ----------
    n_items : int
        Width of input and output.
    hidden_dims : tuple of int
        Widths between the items and the code; the decoder has them in reverse.
    latent_dim : int
        Width of the code.
    """

    def __init__(self, n_items: int, hidden_dims: tuple[int, ...], latent_dim: int) -> None:
        super().__init__()
        widths = [*hidden_dims, latent_dim, *reversed(hidden_dims), n_items]
        self.encoder = nn.ModuleList([SparseLinear(n_items, widths[0])])
        self.decoder = layers(widths)

    def forward(self, batch: SparseBatch, inputs: torch.Tensor) -> torch.Tensor:
        """Return the logits f(x), shape (n_users, n_items)."""
        hidden = self.encoder[0](batch, inputs)  # (N,) -> (B, H)
        for layer in self.decoder:
            hidden = layer(torch.tanh(hidden))
        return hidden  # (B, I)


@dataclass(kw_only=True)
class MultDAE(Autoencoder):
    """The denoising autoencoder with a multinomial likelihood; defaults are the paper's for MovieLens-20M.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = MultDAE(latent_dim=4, epochs=40, batch_size=10, learning_rate=0.01, seed=1).fit(train)
    >>> items, scores = model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)
    >>> sorted(items[0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "multdae"
    paper: ClassVar[str] = "Liang et al.: Variational Autoencoders for Collaborative Filtering (WWW 2018), section 2.3"

    hidden_dims: tuple[int, ...] = hyperparameter((), "widths between items and code", low=1)
    latent_dim: int = hyperparameter(200, "width of the code", low=1)
    dropout: float = hyperparameter(
        0.5, "share of a user's items hidden from the encoder", low=0, high=1, below_high=True
    )
    weight_decay: float = hyperparameter(4e-5, "L2 penalty added to the gradient, on weights only", low=0)

    def _network(self, n_items: int) -> MultDAENetwork:
        return MultDAENetwork(n_items, self.hidden_dims, self.latent_dim)

    def _optimizer(self) -> torch.optim.Optimizer:
        weights = [parameter for parameter in self.network_.parameters() if parameter.dim() == 2]
        biases = [parameter for parameter in self.network_.parameters() if parameter.dim() == 1]
        groups = [{"params": weights, "weight_decay": self.weight_decay}, {"params": biases, "weight_decay": 0.0}]
        return torch.optim.Adam(groups, lr=self.learning_rate, fused=True)

    def _loss(self, batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:  # noqa: ARG002  (no KL)
        network = cast(MultDAENetwork, self.network_)
        logits = network(batch, dropout(batch.inputs, self.dropout, generator))
        reconstruction = multinomial_nll(logits, batch).mean()  # (B,) -> ()
        return Losses(reconstruction, reconstruction, torch.zeros_like(reconstruction))

    def _logits(self, batch: SparseBatch) -> torch.Tensor:
        return cast(MultDAENetwork, self.network_)(batch, batch.inputs)
