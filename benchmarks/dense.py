"""The plain dense PyTorch loops of public ports, one batch whenever a line comes in: the other side of epoch.py.

    python benchmarks/dense.py TRAIN.npz MODEL BATCH_SIZE

In a process of its own, so that neither side lives off what the other has done to memory or caches. The loops are as
public ports write them: a batch of rows made dense, float32, autograd's own gradients, PyTorch's default Adam.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional

from measuring import MemoryMeter

HIDDEN, LATENT = 600, 200
DROPOUT = 0.5
BETA, GAMMA = 0.2, 0.005
LEARNING_RATE = 1e-3

# Letters in shape comments: B users of a batch, I items, H width of a hidden layer, D latent dimensions.


class DenseMultVAE(nn.Module):
    """Mult-VAE as public PyTorch ports write it.

    Parameters
    ----------
    n_items, hidden, latent : int
        Widths of the layers.
    dropout : float
        Share of the input entries set to 0.
    """

    def __init__(self, n_items: int, hidden: int = HIDDEN, latent: int = LATENT, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.Sequential(nn.Linear(n_items, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, n_items))

    def loss(self, x: torch.Tensor, beta: float = BETA) -> torch.Tensor:
        """Return -log p(x | z) + beta KL, the mean over the users of a batch x (B, I)."""
        mean, logvar = self.encoder(self.dropout(functional.normalize(x))).chunk(2, dim=1)  # (B, I) -> (B, 2 D)
        std = torch.exp(0.5 * logvar)
        logits = self.decoder(mean + torch.randn_like(std) * std)  # (B, D) -> (B, I)
        likelihood = (functional.log_softmax(logits, dim=1) * x).sum(dim=1)  # (B, I) -> (B,)
        kl = -0.5 * (1 + logvar - mean.pow(2) - logvar.exp()).sum(dim=1)  # (B, D) -> (B,)
        return -likelihood.mean() + beta * kl.mean()


class DenseMultDAE(nn.Module):
    """Mult-DAE as public PyTorch ports write it: one hidden layer.

    Parameters
    ----------
    n_items, latent : int
        Widths of the layers.
    """

    def __init__(self, n_items: int, latent: int = LATENT) -> None:
        super().__init__()
        self.dropout = nn.Dropout(DROPOUT)
        self.network = nn.Sequential(nn.Linear(n_items, latent), nn.Tanh(), nn.Linear(latent, n_items))

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Return -log p(x), the mean over the users of a batch x (B, I)."""
        logits = self.network(self.dropout(functional.normalize(x)))  # (B, I) -> (B, I)
        return -(functional.log_softmax(logits, dim=1) * x).sum(dim=1).mean()


class DenseRecVAE(nn.Module):
    """RecVAE in the way its authors train it: dense rows, the decoder's gradient also where only the encoder learns.

    Parameters
    ----------
    n_items, hidden, latent : int
        Widths of the layers.
    """

    def __init__(self, n_items: int, hidden: int = HIDDEN, latent: int = LATENT) -> None:
        super().__init__()
        self.encoder, self.old_encoder = (DenseEncoder(n_items, hidden, latent) for _ in range(2))
        self.old_encoder.requires_grad_(False)
        self.decoder = nn.Linear(latent, n_items)

    def loss(self, x: torch.Tensor, dropout: float) -> torch.Tensor:
        """Return -log p(x | z) + gamma n_u KL, the mean over the users of a batch x (B, I)."""
        mean, logvar = self.encoder(functional.dropout(functional.normalize(x), dropout))
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
        old_mean, old_logvar = self.old_encoder(functional.normalize(x))
        zero = torch.zeros_like(z)
        mixture = ((3 / 20, zero, zero), (3 / 4, old_mean, old_logvar), (1 / 10, zero, zero + 10))
        parts = [_log_normal(z, m, v) + np.log(weight) for weight, m, v in mixture]
        prior = torch.logsumexp(torch.stack(parts, dim=-1), dim=-1)  # (B, D, 3) -> (B, D)
        likelihood = (functional.log_softmax(self.decoder(z), dim=1) * x).sum(dim=1)  # (B, I) -> (B,)
        kl = (_log_normal(z, mean, logvar) - prior).sum(dim=1)
        return -(likelihood - GAMMA * x.sum(dim=1) * kl).mean()


class DenseEncoder(nn.Module):
    """RecVAE's encoder on dense rows.

    Parameters
    ----------
    n_items, hidden, latent : int
        Widths of the layers.
    """

    def __init__(self, n_items: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(n_items, hidden), *(nn.Linear(hidden, hidden) for _ in range(4))])
        self.norms = nn.ModuleList(nn.LayerNorm(hidden, eps=0.1) for _ in range(5))
        self.heads = nn.Linear(hidden, 2 * latent)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return mean and log-variance, (B, D) each."""
        total = hidden = self.norms[0](functional.silu(self.layers[0](x)))
        for layer, norm in zip(self.layers[1:], self.norms[1:], strict=True):
            hidden = norm(functional.silu(layer(hidden) + total))
            total = total + hidden
        return self.heads(hidden).chunk(2, dim=1)


def _log_normal(z: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    return -0.5 * (logvar + np.log(2 * np.pi) + (z - mean).pow(2) / logvar.exp())


Step = Callable[[torch.Tensor], torch.Tensor]


def adam_step(network: DenseMultVAE | DenseMultDAE) -> list[Step]:
    """Return an epoch's passes over the users: one, in which everything learns."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)

    def step(x: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = network.loss(x)
        loss.backward()
        optimizer.step()
        return loss

    return [step]


def recvae_steps(network: DenseRecVAE) -> list[Step]:
    """Return an epoch's passes over the users: three in which the encoder learns, one of the decoder."""
    encoder, decoder = (
        torch.optim.Adam(part.parameters(), lr=LEARNING_RATE) for part in (network.encoder, network.decoder)
    )

    def step_of(optimizer: torch.optim.Optimizer, dropout: float) -> Step:
        def step(x: torch.Tensor) -> torch.Tensor:
            optimizer.zero_grad()
            loss = network.loss(x, dropout)
            loss.backward()
            optimizer.step()
            return loss

        return step

    return [*[step_of(encoder, DROPOUT)] * 3, step_of(decoder, 0.0)]


def passes_of(model: str, n_items: int) -> list[Step]:
    """Return the passes of an epoch of a model, each a function of a batch (B, I)."""
    torch.manual_seed(0)
    if model == "recvae":
        return recvae_steps(DenseRecVAE(n_items))
    return adam_step(DenseMultVAE(n_items) if model == "multvae" else DenseMultDAE(n_items))


def batches(train: sp.csr_matrix, batch_size: int, passes: list[Step], seed: int = 0) -> Iterator[float]:
    """Train without end, yielding the loss of each batch."""
    rng = np.random.default_rng(seed)
    while True:
        for step in passes:
            order = rng.permutation(train.shape[0])
            for start in range(0, len(order), batch_size):
                x = torch.from_numpy(train[order[start : start + batch_size]].toarray())  # (B, I)
                yield step(x).item()


def main() -> None:
    """Do a batch for each line of the standard input, and print its seconds, loss and the peak of memory as JSON."""
    path, model, batch_size = sys.argv[1:]
    train = sp.csr_matrix(sp.load_npz(path))
    losses = batches(train, int(batch_size), passes_of(model, train.shape[1]))
    meter = MemoryMeter()
    meter.start()
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        loss = next(losses)
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "loss": loss, "peak": meter.peak()}), flush=True)


if __name__ == "__main__":
    main()
