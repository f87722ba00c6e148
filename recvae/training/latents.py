"""What the codes of many users say of a latent space: how many of its units are used, and for how much.

Letters in shape comments: U users, D latent dimensions.
"""

import math
from dataclasses import dataclass

import torch

from recvae.compute.ranks import current
from recvae.training.batch_parts import Share
from recvae.training.losses import kl_of_units, log_normal

ACTIVE = 0.01
"""Variance over users above which a latent unit counts as active: Burda et al., ICLR 2016, section 5.2."""

LOOKED_AT = 1000  # users, after each epoch


_FEW, _LITTLE = 0.05, 1.0  # share of units in use, and nats in all, below which the space has collapsed


def collapse(active: int | None, latent_dim: int, kl: float | None) -> str | None:
    """Say that a latent space has collapsed, and what to try; None where it has not.

    Parameters
    ----------
    active : int or None
        Units that differ between users.
    latent_dim : int
        All units.
    kl : float or None
        Mean KL divergence of a user, None where codes are points.
    """
    if active is None or kl is None or (active >= max(1, math.ceil(_FEW * latent_dim)) and kl >= _LITTLE):
        return None
    return (
        f"{active} of {latent_dim} latent units differ between users, with {kl:.2g} nats in all: the latent space has "
        "collapsed, and users are hardly told apart; lower the weight of the KL term (beta, gamma) or let it grow "
        "more slowly (anneal_fraction), set free_bits=0.1 (multvae), or fewer latent_dim"
    )


@dataclass(frozen=True)
class LatentRecord:
    """How a latent space is used after an epoch.

    Parameters
    ----------
    active_units : int
        Units whose mean differs between users; see `active_units`.
    kl_per_dimension : list of float or None
        See `kl_per_dimension`; None where codes have no variance.
    mutual_information : float or None
        See `mutual_information`; likewise.
    """

    active_units: int
    kl_per_dimension: list[float] | None
    mutual_information: float | None

    @classmethod
    def of(cls, mean: torch.Tensor, logvar: torch.Tensor | None) -> "LatentRecord":
        """Return what the codes of some users say; the noise that mutual information needs is always the same.

        Parameters
        ----------
        mean : Tensor of shape (n_users, latent_dim)
            Means of the codes.
        logvar : Tensor of shape (n_users, latent_dim) or None
            Logarithms of their variances.
        """
        active = int(active_units(mean))
        if logvar is None:
            return cls(active, None, None)
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0)).to(mean.device)
        kl = [float(f"{value:.4g}") for value in kl_per_dimension(mean, logvar).tolist()]
        return cls(active, kl, float(f"{mutual_information(mean, logvar, noise):.6g}"))


def kl_per_dimension(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Return the mean over users of KL(N(mean_d, exp(logvar_d)) || N(0, 1)), shape (latent_dim,), at least 0.

    Parameters
    ----------
    mean, logvar : Tensor of shape (n_users, latent_dim)
        Parameters of the posteriors.
    """
    return kl_of_units(mean, logvar).mean(dim=0)  # (U, D) -> (D,)


def kl_beyond_free_bits(
    mean: torch.Tensor, logvar: torch.Tensor, free: float, share: Share | None = None
) -> torch.Tensor:
    """Return the KL divergence that counts where each latent unit has some for nothing, shape ().

    sum_d max(free, mean over users of KL_d), Kingma et al., Improved Variational Inference with Inverse Autoregressive
    Flow, NeurIPS 2016, eq. 15: below that, a unit is not pulled to the prior, so that it may stay in use.

    Parameters
    ----------
    mean, logvar : Tensor of shape (n_users, latent_dim)
        Parameters of the posterior.
    free : float
        Nats of each unit, 0 or more.
    share : Share, optional
        Which part of a batch these users are; the mean is that of the whole batch, for which all processes meet.
    """
    per_unit = kl_per_dimension(mean, logvar)  # (U, D) -> (D,)
    if share is None:
        return per_unit.clamp(min=free).sum()
    of_all = per_unit.detach() * share.weight  # (D,)
    current().check()
    current().sum(of_all)
    return torch.where(of_all >= free, per_unit, per_unit.new_full((), free)).sum()  # (D,) -> ()


def active_units(mean: torch.Tensor, threshold: float = ACTIVE) -> torch.Tensor:
    """Return how many dimensions have a mean whose variance over users exceeds a threshold, shape ().

    A_d = Cov_x(E_{q(z | x)}[z_d]), Burda et al., Importance Weighted Autoencoders, ICLR 2016, section 5.2.

    Parameters
    ----------
    mean : Tensor of shape (n_users, latent_dim)
        Means of the posteriors.
    threshold : float
        In (0, inf).
    """
    return (mean.var(dim=0, correction=0) > threshold).sum()  # (U, D) -> ()


def mutual_information(mean: torch.Tensor, logvar: torch.Tensor, noise: torch.Tensor) -> float:
    """Return how much the codes tell of who the user is, in nats: E KL(q(z|x) || p) - KL(q(z) || p).

    The prior cancels: it is E_x E_q(z|x) [log q(z|x) - log q(z)], Hoffman and Johnson, ELBO surgery, 2016, with one
    draw of z for each user and q(z) the mean of the posteriors of these users. So it is at most ln(n_users), which
    a space that tells all users apart reaches.

    Parameters
    ----------
    mean, logvar : Tensor of shape (n_users, latent_dim)
        Parameters of the posteriors.
    noise : Tensor of shape (n_users, latent_dim)
        Standard normal.
    """
    mean, logvar = mean.double(), logvar.double()
    z = mean + noise.double() * (0.5 * logvar).exp()  # (U, D)
    own = log_normal(z, mean, logvar).sum(dim=1)  # (U, D) -> (U,)
    # The squared distances of all draws from all means as products of matrices: a block (U, U, D) would be huge.
    precision = (-logvar).exp()
    distance = z.square() @ precision.T - 2 * z @ (mean * precision).T + (mean.square() * precision).sum(dim=1)
    density = -0.5 * (distance + (logvar + math.log(2 * math.pi)).sum(dim=1))  # (U, U)
    density.fill_diagonal_(-math.inf).diagonal().copy_(own)  # exactly what it is compared with
    of_all = density.logsumexp(dim=1) - math.log(len(mean))  # (U,)
    return float((own - of_all).mean())
