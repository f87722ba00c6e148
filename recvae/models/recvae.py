"""RecVAE: Shenbin, Alekseev, Tutubalina, Malykh and Nikolenko, WSDM 2020.

    L_u = E_q[log p(x_u | z)] - gamma |x_u| KL(q(z | x_u) || p(z | phi_old, x_u))                       (eq. 7, 9)
    p(z | phi_old, x) = 3/20 N(0, 1) + 3/4 q_old(z | x) + 1/10 N(0, e^10),  in every latent dimension   (eq. 5)

The encoder is dense (every layer gets the sum of all before it) and layer-normalised, the decoder one linear layer.
An epoch is three passes over the users that update the encoder, with dropout on its input, then the frozen encoder of
the prior becomes the present one, then one pass without dropout updates the decoder (section 3.5). Where paper and
the authors' code (ilya-shenbin/RecVAE) differ, this is their code: the mixture's weights, and that the KL term is one
draw of log q(z) - log p(z). With `start="implicitslim"`, first and last layer begin with a step of the authors' later
paper; see `implicit_slim`. Their code takes such steps before epochs 10, 20 and so on, and begins with random vectors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import scipy.sparse as sp
import torch
from torch import nn

from recvae.models.common.hyperparameters import Range, Space, hyperparameter
from recvae.models.common.implicit_slim import implicit_slim
from recvae.models.common.item_networks import ProductNetwork
from recvae.models.common.likelihood import RowWise
from recvae.models.common.networks import DenseEncoder, Linear, initialise_by_inputs
from recvae.models.common.noise import dropout, sample
from recvae.models.common.penalties import typical_l2
from recvae.models.common.variational import VariationalAutoencoder
from recvae.training.batches import SparseBatch
from recvae.training.losses import log_normal
from recvae.training.schedules import NAMES
from recvae.training.task import Losses, Phase

# Letters in shape comments: B users of a batch, I items, D latent dimensions.

_PRIOR = ((3 / 20, 0.0), (1 / 10, 10.0))  # weight and log-variance of the two components around 0
_WEIGHT_OF_OLD = 3 / 4
RANDOM, IMPLICIT_SLIM = "random", "implicitslim"


class RecVAENetwork(ProductNetwork):
    """Encoder, decoder, and while training the frozen encoder of the prior.

    Parameters
    ----------
    n_items, hidden_dim, latent_dim, depth : int
        See `DenseEncoder`.
    """

    def __init__(self, n_items: int, hidden_dim: int, latent_dim: int, depth: int) -> None:
        super().__init__(n_items)
        self.encoder = DenseEncoder(n_items, hidden_dim, latent_dim, depth)
        self.decoder = Linear(latent_dim, n_items)
        self.prior: DenseEncoder | None = None

    @property
    def output(self) -> nn.Linear:
        """The last layer, which is the whole decoder."""
        return self.decoder

    def posterior(self, batch: SparseBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance of q(z | x) without dropout, each of shape (n_users, latent_dim)."""
        return self.encoder(batch, batch.inputs)

    def code(self, batch: SparseBatch) -> torch.Tensor:
        """Return the mean of q(z | x), shape (n_users, latent_dim)."""
        return self.posterior(batch)[0]  # (B, D)

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """Return the code itself: the decoder is the last layer alone, shape (n_users, latent_dim)."""
        return code  # (B, D)


def composite_log_prior(z: torch.Tensor, old_mean: torch.Tensor, old_logvar: torch.Tensor) -> torch.Tensor:
    """Return log p(z | phi_old, x), summed over the latent dimensions; see the module's second formula.

    Parameters
    ----------
    z, old_mean, old_logvar : Tensor of shape (n_users, latent_dim)
        A draw, and what the frozen encoder says of the user.

    Returns
    -------
    Tensor of shape (n_users,)
    """
    zero = torch.zeros_like(z)
    components = [math.log(weight) + log_normal(z, zero, zero + logvar) for weight, logvar in _PRIOR]
    components.append(math.log(_WEIGHT_OF_OLD) + log_normal(z, old_mean, old_logvar))
    return torch.stack(components).logsumexp(dim=0).sum(dim=1)  # (3, B, D) -> (B, D) -> (B,)


@dataclass(kw_only=True)
class RecVAE(RowWise[RecVAENetwork], VariationalAutoencoder[RecVAENetwork]):
    """The variational autoencoder with a composite prior and alternating updates; defaults are the authors'.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = RecVAE(hidden_dim=16, latent_dim=4, epochs=15, batch_size=10, learning_rate=0.01, seed=1).fit(train)
    >>> items, scores = model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)
    >>> sorted(items[0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "recvae"
    shares_users: ClassVar[bool] = True
    shares_items: ClassVar[bool] = True
    kl_weight: ClassVar[str] = "gamma"
    paper: ClassVar[str] = "Shenbin et al.: RecVAE, a New Variational Autoencoder for Top-N Recommendations (WSDM 2020)"
    space: ClassVar[Space] = {
        "learning_rate": Range(3e-4, 1e-3, log=True),
        "batch_size": (None, 50, 100, 200),
        "latent_dim": (200, 400),
        "dropout": Range(0.4, 0.7),
        "gamma": Range(0.002, 0.01, log=True),
        "start": (RANDOM, IMPLICIT_SLIM),
    }

    epochs: int = hyperparameter(50, "epochs, each of encoder_passes + decoder_passes passes over the users", low=1)
    learning_rate: float = hyperparameter(5e-4, "step size of both Adam optimisers", low=0)
    patience: int = hyperparameter(
        15, "epochs without a better validation NDCG@100 (or select_by) after which training stops; 0: never", low=0
    )
    hidden_dim: int = hyperparameter(600, "width of the encoder's layers", low=1)
    depth: int = hyperparameter(5, "hidden layers of the encoder", low=1)
    latent_dim: int = hyperparameter(200, "number of latent variables", low=1)
    dropout: float = hyperparameter(
        0.5, "share of a user's items hidden from the encoder while it is trained", low=0, high=1, below_high=True
    )
    gamma: float = hyperparameter(0.005, "highest weight of the KL term, per interaction of the user", low=0)
    anneal: str = hyperparameter("constant", "how gamma grows", choices=NAMES)
    encoder_passes: int = hyperparameter(3, "passes of an epoch that update the encoder", low=1)
    decoder_passes: int = hyperparameter(1, "passes of an epoch that update the decoder", low=1)
    start: str = hyperparameter(
        RANDOM, "how first and last layer begin: implicitslim needs fewer epochs", choices=(RANDOM, IMPLICIT_SLIM)
    )
    start_l2: float | None = hyperparameter(
        None,
        "of implicitslim: the higher, the less few interactions count; none: from the size of the data",
        low=0.01,
        only_with=("start", IMPLICIT_SLIM),
    )

    @property
    def needs_all_items(self) -> str | None:
        """Which of its settings needs all items in one process; see `Model.needs_all_items`."""
        return super().needs_all_items or (None if self.start == RANDOM else f"start={self.start}")

    def _network(self, n_items: int) -> RecVAENetwork:
        return RecVAENetwork(n_items, self.hidden_dim, self.latent_dim, self.depth)

    def _prior(self, n_items: int) -> DenseEncoder:
        return DenseEncoder(n_items, self.hidden_dim, self.latent_dim, self.depth).requires_grad_(False)

    def _initialise(self, generator: torch.Generator) -> None:
        network = self.network_
        network.prior = self._prior(network.n_items)
        initialise_by_inputs(network, generator)

    def _begin(self, train: sp.csr_matrix) -> None:
        super()._begin(train)
        if self.start == RANDOM:
            return
        l2 = self.start_l2
        if l2 is None:
            l2 = typical_l2(train)
            self.from_data_ |= {"start_l2": l2}
        for layer in (self.network_.encoder.first, self.network_.decoder):
            vectors = layer.weight.detach().cpu().numpy()  # (I, D)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(implicit_slim(vectors, train, l2)))

    def _phases(self) -> Sequence[Phase]:
        network = self.network_
        return [
            Phase(
                name="encoder",
                optimizer=self._adam(network.encoder.parameters()),
                loss=self._loss,
                passes=self.encoder_passes,
                after=self._update_prior,
            ),
            Phase(
                name="decoder",
                optimizer=self._adam(network.decoder.parameters()),
                loss=self._decoder_loss,
                passes=self.decoder_passes,
            ),
        ]

    def _update_prior(self) -> None:
        assert self.network_.prior is not None  # while training
        self.network_.prior.load_state_dict(self.network_.encoder.state_dict())

    def _loss(self, batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:
        network = self.network_
        assert network.prior is not None
        mean, logvar = network.encoder(batch, dropout(batch.inputs, self.dropout, generator, batch))
        z = sample(mean, logvar, generator, batch)  # (B, D)
        with torch.no_grad():
            old = network.prior(batch, batch.inputs)  # of the whole row, also while the encoder sees a part
        reconstruction = self._nll(z, batch, generator)  # (B, D) -> (B,)
        kl = log_normal(z, mean, logvar).sum(dim=1) - composite_log_prior(z, *old)  # (B, D) -> (B,)
        total = (reconstruction + beta * batch.totals * kl).mean()
        return Losses(total, reconstruction.mean(), kl.mean())

    def _decoder_loss(self, batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """Return the reconstruction from the whole row; the KL term does not depend on the decoder."""
        network = self.network_
        with torch.no_grad():
            mean, logvar = network.encoder(batch, batch.inputs)
            z = sample(mean, logvar, generator, batch)  # (B, D)
        reconstruction = self._nll(z, batch, generator).mean()
        return Losses(reconstruction, reconstruction)
