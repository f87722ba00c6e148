"""A mixture of normal distributions as a prior of codes, also of two layers: how likely codes are, and draws.

    p(z) = 1/K sum_k N(z; m_k, diag(v_k))

Letters in shape comments: B users, K components, D width of the codes.
"""

import math

import torch
from torch import nn

from recvae.training.losses import log_normal

_BLOCK_BYTES = 8 << 20  # of users x components in float64, where no gradient is asked for
_BLOCKS, _OF_COMPONENTS = 4, 5  # of these, and of components x width, in float64 at a time


class NormalMixture(nn.Module):
    """Means and log-variances of K normal distributions with equal weights; nothing of it learns.

    Parameters
    ----------
    n_components, width : int
        K, and the width of the codes.
    """

    def __init__(self, n_components: int, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.empty(n_components, width), requires_grad=False)
        self.logvar = nn.Parameter(torch.empty(n_components, width), requires_grad=False)

    def log_density(self, z: torch.Tensor) -> torch.Tensor:
        """Return log p(z) of codes (n_users, width), shape (n_users,); a block of users at a time."""
        rows = max(1, _BLOCK_BYTES // (8 * len(self.mean)))
        return torch.cat([log_mixture(part, self.mean, self.logvar) for part in z.split(rows)])  # (B,)

    def draw(self, noise: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        """Return codes, given standard normal noise (n_users, width) and which component (n_users,) each is of."""
        return self.mean[components] + noise * (0.5 * self.logvar[components]).exp()  # (B, D)


class LayeredPrior(nn.Module):
    """The prior of codes in two layers: a mixture p(z2), and p(z1 | z2).

    Parameters
    ----------
    n_components, width : int
        Of p(z2); z1 is as wide.
    z1 : Module
        From z2 to mean and log-variance of z1.
    """

    def __init__(self, n_components: int, width: int, z1: nn.Module) -> None:
        super().__init__()
        self.z2, self.z1 = NormalMixture(n_components, width), z1

    def log_density(self, z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
        """Return log p(z2) + log p(z1 | z2), shape (n_users,)."""
        return self.z2.log_density(z2) + log_normal(z1, *self.z1(z2)).sum(dim=1)  # (B, D) -> (B,)

    def draw(self, noise: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        """Return z1 and z2 side by side, (n_users, 2 width), of noise of that shape and components of p(z2)."""
        of_z1, of_z2 = noise.chunk(2, dim=1)  # (B, 2 D) -> (B, D), (B, D)
        z2 = self.z2.draw(of_z2, components)
        mean, logvar = self.z1(z2)
        return torch.cat([mean + of_z1 * (0.5 * logvar).exp(), z2], dim=1)


def mixture_bytes(n_components: int, width: int) -> tuple[int, int]:
    """Return the bytes that `NormalMixture.log_density` takes for any number of users, and for each user."""
    return 8 * _OF_COMPONENTS * n_components * width, 8 * _BLOCKS * n_components


def log_mixture(z: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Return log p(z) under a mixture of normal distributions with equal weights.

    Parameters
    ----------
    z : Tensor of shape (n_users, width)
        Codes.
    mean, logvar : Tensor of shape (n_components, width)
        Of the components.

    Returns
    -------
    Tensor of shape (n_users,), float32
    """
    # sum_d (z - m)^2 / v as three products of matrices: a block (B, K, D) would be a hundred times larger. In
    # float64, since they nearly cancel where a variance is small.
    z, mean, logvar = z.double(), mean.double(), logvar.double()
    precision = (-logvar).exp()  # (K, D)
    distance = z.square() @ precision.T - 2 * z @ (mean * precision).T  # (B, K)
    of_component = (logvar + mean.square() * precision + math.log(2 * math.pi)).sum(dim=1)  # (K,)
    log_density = -0.5 * (distance + of_component)  # (B, K)
    return (log_density.logsumexp(dim=1) - math.log(len(mean))).float()  # (B,)
