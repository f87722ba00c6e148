"""H+Vamp (Gated): Kim and Suh, Enhancing VAEs for Collaborative Filtering, RecSys 2019.

    p(z2) = 1/K sum_k q(z2 | u_k),  z1 ~ p(z1 | z2),  x_u ~ Mult(n_u, softmax(f(z1, z2)))             (eq. 9, 13)
    L_u = E_q[log p(x_u | z1, z2)] - beta (log q(z2 | x) q(z1 | x, z2) - log p(z2) p(z1 | z2))        (one draw)

The prior of the upper layer is the mean posterior of K pseudo-inputs u_k that are learned with everything else
(VampPrior, Tomczak and Welling, AISTATS 2018). Every hidden layer is gated: h = (W x + b) * sigmoid(V x + c).
Scores are f at the means of q. As in the authors' code (psywaves/EVCF), each of q(z2 | x), q(z1 | x, z2) and the
pseudo-inputs has dropout of its own, and Adam is given gradients divided by their norm; here a layer and its gate,
and a mean and its log-variance, are one parameter each and are normed together.

After training, q(z2 | u_k) without dropout and p(z1 | z2) are kept, the pseudo-inputs are not: they make how probable
a row is (`HVampNetwork.draws`), and codes that are drawn from the prior.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy.special import ndtr
from torch import nn

from recvae.compute.matmul import product
from recvae.compute.memory import Needs, in_blocks
from recvae.errors import UsageError
from recvae.models.common.draws import standard_normal
from recvae.models.common.footprint import BatchFootprint
from recvae.models.common.graphs import NetworkScorer
from recvae.models.common.hyperparameters import Range, Space, hyperparameter
from recvae.models.common.item_networks import Draw, ItemNetwork, ProductNetwork
from recvae.models.common.likelihood import ItemLikelihood
from recvae.models.common.mixtures import LayeredPrior, log_mixture, mixture_bytes
from recvae.models.common.networks import Gated, Gaussian, Head, Linear, SparseLinear, initialise_by_inputs
from recvae.models.common.noise import dropout, sample
from recvae.models.common.variational import VariationalAutoencoder
from recvae.training.batches import SparseBatch
from recvae.training.losses import log_normal
from recvae.training.task import Losses

# Letters in shape comments: B users of a batch, N interactions stored in it, I items, H hidden width, D latent
# dimensions, K pseudo-inputs.

_PSEUDO_MEAN, _PSEUDO_STD = 0.05, 0.01
_OLD_PRIOR = ("pseudo_inputs", "p_z1")  # modules of it, in the first bundles
_KEPT = "kept_prior."  # what its weights are called in a bundle


def p_z1(hidden_dim: int, latent_dim: int) -> nn.Sequential:
    """Return p(z1 | z2), not initialised."""
    h, d = hidden_dim, latent_dim
    return nn.Sequential(Gated(d, h), Gated(h, h), Head(h, d))


class VampPrior(nn.Module):
    """What only training needs: the pseudo-inputs that make p(z2), and p(z1 | z2).

    Parameters
    ----------
    n_items, hidden_dim, latent_dim, n_pseudo_inputs : int
        Widths, and K.
    """

    def __init__(self, n_items: int, hidden_dim: int, latent_dim: int, n_pseudo_inputs: int) -> None:
        super().__init__()
        self.pseudo_inputs = nn.Parameter(torch.empty(n_pseudo_inputs, n_items))
        self.z1 = p_z1(hidden_dim, latent_dim)


class HVampNetwork(ProductNetwork):
    """The encoders of both layers and the decoder; while training the prior, and then what is kept of it.

    Parameters
    ----------
    n_items, hidden_dim, latent_dim : int
        Widths.
    """

    def __init__(self, n_items: int, hidden_dim: int, latent_dim: int) -> None:
        super().__init__(n_items)
        h, d = hidden_dim, latent_dim
        self.items_to_z2 = SparseLinear(n_items, 2 * h)
        self.q_z2 = nn.Sequential(Gated(h, h), Head(h, d))
        self.items_to_z1 = SparseLinear(n_items, 2 * h)
        self.z2_to_q_z1 = Gated(d, h)
        self.q_z1 = nn.Sequential(Gated(2 * h, h), Head(h, d))
        self.prior: VampPrior | None
        self.register_module("prior", None)  # here, since weights are drawn in this order
        self.z1_to_items, self.z2_to_items = Gated(d, h), Gated(d, h)
        self.p_x = nn.Sequential(Gated(2 * h, h), Linear(h, n_items))
        self.kept_prior: LayeredPrior | None
        self.register_module("kept_prior", None)

    def posterior_z2(self, batch: SparseBatch, inputs: torch.Tensor) -> Gaussian:
        """Return q(z2 | x)."""
        return self.q_z2(nn.functional.glu(self.items_to_z2(batch, inputs), dim=1))  # (N,) -> (B, 2 H) -> (B, H)

    def posterior_z1(self, batch: SparseBatch, inputs: torch.Tensor, z2: torch.Tensor) -> Gaussian:
        """Return q(z1 | x, z2)."""
        of_items = nn.functional.glu(self.items_to_z1(batch, inputs), dim=1)  # (B, H)
        return self.q_z1(torch.cat([of_items, self.z2_to_q_z1(z2)], dim=1))  # (B, 2 H) -> (B, D)

    def join(self, z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
        """Return what the last layer makes logits of, shape (n_users, width)."""
        return self.p_x[0](torch.cat([self.z1_to_items(z1), self.z2_to_items(z2)], dim=1))  # (B, 2 H) -> (B, H)

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """Return the same of z1 and z2 side by side, shape (n_users, width)."""
        z1, z2 = code.chunk(2, dim=1)  # (B, 2 D) -> (B, D), (B, D)
        return self.join(z1, z2)  # (B, H)

    @property
    def output(self) -> nn.Linear:
        """The last layer, whose outputs are the logits f(z1, z2) of the items."""
        layer = self.p_x[1]
        assert isinstance(layer, nn.Linear)
        return layer

    def posterior(self, batch: SparseBatch) -> Gaussian:
        """Return mean and log-variance of z1 and z2, (n_users, 2 latent_dim); of z1 as they are at the mean of z2."""
        z2, z2_logvar = self.posterior_z2(batch, batch.inputs)
        z1, z1_logvar = self.posterior_z1(batch, batch.inputs, z2)
        return torch.cat([z1, z2], dim=1), torch.cat([z1_logvar, z2_logvar], dim=1)  # (B, D), (B, D) -> (B, 2 D)

    def code(self, batch: SparseBatch) -> torch.Tensor:
        """Return the means of z1 and z2, shape (n_users, 2 latent_dim)."""
        return self.posterior(batch)[0]  # (B, 2 D)

    def draws(self, batch: SparseBatch) -> Draw:
        """Return what turns noise into draws of z1 and z2, and log p(z2) p(z1 | z2) - log q(z2 | x) q(z1 | x, z2).

        The latter is None without a prior, as in bundles of earlier versions.
        """
        mean, logvar = self.posterior_z2(batch, batch.inputs)  # (B, D)

        def draw(noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            of_z1, of_z2 = noise.chunk(2, dim=1)  # (B, 2 D) -> (B, D), (B, D)
            z2 = mean + of_z2 * (0.5 * logvar).exp()
            z1_mean, z1_logvar = self.posterior_z1(batch, batch.inputs, z2)
            z1 = z1_mean + of_z1 * (0.5 * z1_logvar).exp()
            code = torch.cat([z1, z2], dim=1)  # (B, 2 D)
            if self.kept_prior is None:
                return code, None
            log_q = -0.5 * (noise.square() + math.log(2 * math.pi)).sum(dim=1) - 0.5 * (logvar + z1_logvar).sum(dim=1)
            return code, self.kept_prior.log_density(z1, z2) - log_q  # (B, 2 D), (B,)

        return draw

    def pseudo_posterior(self, pseudo_inputs: torch.Tensor) -> Gaussian:
        """Return q(z2 | u_k) given the pseudo-inputs as the encoder shall see them, each of shape (K, latent_dim)."""
        first = self.items_to_z2
        hidden = product(pseudo_inputs, first.weight) + first.bias  # (K, I) -> (K, 2 H)
        return self.q_z2(nn.functional.glu(hidden, dim=1))  # (K, D), (K, D)

    def log_prior_z2(self, z2: torch.Tensor, pseudo_inputs: torch.Tensor) -> torch.Tensor:
        """Return log p(z2) given the pseudo-inputs as the encoder shall see them, shape (n_users,)."""
        return log_mixture(z2, *self.pseudo_posterior(pseudo_inputs))  # (B,)


@dataclass(kw_only=True)
class HVamp(ItemLikelihood[HVampNetwork], VariationalAutoencoder[HVampNetwork]):
    """The hierarchical variational autoencoder with learned pseudo-inputs as prior and gated layers.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = HVamp(hidden_dim=16, latent_dim=4, pseudo_inputs=5, epochs=40, batch_size=10, seed=1)
    >>> items, scores = model.fit(train).recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)
    >>> sorted(items[0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "hvamp"
    shares_users: ClassVar[bool] = True
    paper: ClassVar[str] = "Kim, Suh: Enhancing VAEs for Collaborative Filtering (RecSys 2019)"
    space: ClassVar[Space] = {
        "learning_rate": Range(2e-4, 1e-3, log=True),
        "batch_size": (100, 200, 500),
        "dropout": Range(0.4, 0.8),
        "beta": Range(0.1, 1.0, log=True),
    }

    batch_size: int | None = hyperparameter(200, "users per update; none: a 25th, from 32 to 500", low=1)
    learning_rate: float = hyperparameter(5e-4, "step size of Adam on normalised gradients", low=0)
    hidden_dim: int = hyperparameter(600, "width of the gated layers", low=1)
    latent_dim: int = hyperparameter(200, "latent variables of each of the two layers", low=1)
    pseudo_inputs: int = hyperparameter(1000, "components of the prior", low=1)
    dropout: float = hyperparameter(
        0.5, "share of a user's items hidden from the encoder", low=0, high=1, below_high=True
    )
    likelihood: str = hyperparameter(
        "multinomial", "distribution of a user's row given its logits", choices=("multinomial", "bernoulli")
    )
    beta: float = hyperparameter(0.3, "highest weight of the KL term", low=0)
    anneal_fraction: float = hyperparameter(
        0.5, "part of the run (or cycle) after which the KL weight is at its maximum", low=0, high=1
    )

    def _network(self, n_items: int) -> HVampNetwork:
        return HVampNetwork(n_items, self.hidden_dim, self.latent_dim)

    def _prior(self, n_items: int) -> VampPrior:
        return VampPrior(n_items, self.hidden_dim, self.latent_dim, self.pseudo_inputs)

    def _kept_prior(self) -> LayeredPrior:
        return LayeredPrior(self.pseudo_inputs, self.latent_dim, p_z1(self.hidden_dim, self.latent_dim))

    def needs(self, n_users: int, n_items: int, n_interactions: int, *, on_gpu: bool = False) -> Needs:
        """Count what the network takes, with the prior that is kept; see `Model.needs`."""
        found = super().needs(n_users, n_items, n_interactions, on_gpu=on_gpu)
        with torch.device("meta"):
            numbers = sum(value.numel() for value in self._kept_prior().parameters())
        density, of_user = mixture_bytes(self.pseudo_inputs, self.latent_dim)
        of_user += 32 * (self.hidden_dim + 2 * self.latent_dim)  # a draw, and the layers of p(z1 | z2)
        return replace(
            found,
            parameters=found.parameters + numbers,
            training=found.training + 8 * self.pseudo_inputs * self.latent_dim,
            weights=found.weights + 4 * numbers + density,
            per_user=max(found.per_user, of_user),  # before there are scores
        )

    def _footprint(self, network: ItemNetwork, n_users: int, n_interactions: int, *, on_gpu: bool) -> BatchFootprint:
        batch = super()._footprint(network, n_users, n_interactions, on_gpu=on_gpu)
        pseudo_inputs = 20 * self.pseudo_inputs * network.n_items  # clamped, drawn, masked, with gradients
        return replace(batch, more=batch.more + pseudo_inputs)

    def _initialise(self, generator: torch.Generator) -> None:
        network = self.network_
        network.prior = prior = self._prior(network.n_items)
        initialise_by_inputs(network, generator, he=True)
        nn.init.normal_(prior.pseudo_inputs, _PSEUDO_MEAN, _PSEUDO_STD, generator=generator)

    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer = super()._optimizer()
        optimizer.register_step_pre_hook(_norm_gradients)
        return optimizer

    @torch.no_grad()
    def _finish(self) -> None:
        network = self.network_
        if network.prior is not None:
            kept = self._kept_prior().requires_grad_(False).to(self.device_)
            mean, logvar = network.pseudo_posterior(network.prior.pseudo_inputs.clamp(0, 1))  # (K, D), (K, D)
            kept.z2.mean.copy_(mean)
            kept.z2.logvar.copy_(logvar)
            kept.z1.load_state_dict(network.prior.z1.state_dict())
            network.kept_prior = kept
        super()._finish()

    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:
        """Load a network's weights, with its prior where they hold it as this version keeps it."""
        kept = {name.removeprefix(_KEPT): value for name, value in weights.items() if name.startswith(_KEPT)}
        prior = self._kept_prior() if kept else None
        if prior is not None:
            tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in kept.items()}
            prior.load_state_dict(tensors, assign=True)
        left_out = (*_OLD_PRIOR, _KEPT.rstrip("."))
        needed = {name: value for name, value in weights.items() if name.partition(".")[0] not in left_out}
        super().load_weights(needed, device)
        if prior is not None:
            self.network_.kept_prior = prior.requires_grad_(False).to(self.device_)
        return self

    def scorer(self) -> NetworkScorer:
        """Return the network with its scores, without the prior; see `Model.scorer`."""
        self.check_fitted()
        with torch.device("meta"):
            network = self._network(self.n_items_)
        weights = self.network_.state_dict()
        network.load_state_dict({name: weights[name] for name in network.state_dict()}, assign=True)
        return NetworkScorer(network.requires_grad_(False))

    @property
    def has_prior(self) -> bool:
        """Whether its prior is known: not in bundles of earlier versions."""
        return not self.n_items_ or self.network_.kept_prior is not None

    def _check_likelihood(self) -> None:
        if self.n_items_:
            self._check_prior()
        super()._check_likelihood()

    def _check_prior(self) -> LayeredPrior:
        self.check_fitted()
        prior = self.network_.kept_prior
        if prior is None:
            raise UsageError(
                f"got {self.name} without its prior, which bundles of earlier versions do not hold, expected one for "
                "probabilities of rows and draws of codes; train it again"
            )
        return prior

    def _from_prior(self, n: int, seed: int, max_memory: int | None) -> np.ndarray:
        prior, width = self._check_prior(), 2 * self.latent_dim
        noise = standard_normal(n, width + 1, seed)  # (U, 2 D + 1)
        chosen = np.minimum(self.pseudo_inputs * ndtr(noise[:, -1]), self.pseudo_inputs - 1).astype(np.int64)  # (U,)
        codes = np.empty((n, width), np.float32)  # (U, 2 D)

        @torch.no_grad()
        def work(start: int, end: int) -> None:
            of_block = torch.from_numpy(noise[start:end, :width]).float().to(self.device_)
            codes[start:end] = prior.draw(of_block, torch.from_numpy(chosen[start:end]).to(self.device_)).cpu().numpy()

        in_blocks(n, self.rows_at_a_time(max_memory), work)
        return codes

    def _likelihood(self) -> tuple[str, float]:
        return self.likelihood, 1.0

    def _loss(self, batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:
        network = self.network_
        prior = network.prior
        assert prior is not None  # while training
        q_z2 = network.posterior_z2(batch, dropout(batch.inputs, self.dropout, generator, batch))
        z2 = sample(*q_z2, generator, batch)  # (B, D)
        q_z1 = network.posterior_z1(batch, dropout(batch.inputs, self.dropout, generator, batch), z2)
        z1 = sample(*q_z1, generator, batch)  # (B, D)
        log_q = (log_normal(z2, *q_z2) + log_normal(z1, *q_z1)).sum(dim=1)  # (B, D) -> (B,)
        pseudo_inputs = dropout(prior.pseudo_inputs.clamp(0, 1), self.dropout, generator)  # (K, I)
        log_p = network.log_prior_z2(z2, pseudo_inputs) + log_normal(z1, *prior.z1(z2)).sum(dim=1)  # (B,)
        kl = (log_q - log_p).mean()
        hidden = network.join(z1, z2)
        reconstruction = self._nll(hidden, batch, generator).mean()  # (B,) -> ()
        return Losses(reconstruction + beta * kl, reconstruction, kl)


def _norm_gradients(optimizer: torch.optim.Optimizer, args: Sequence[Any], kwargs: dict[str, Any]) -> None:  # noqa: ARG001
    """Divide the gradient of each parameter by its norm, as the authors' AdamNormGrad does."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad /= parameter.grad.norm() + 1e-7
