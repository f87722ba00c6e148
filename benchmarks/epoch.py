"""One epoch of Mult-VAE on the CPU: this package against the plain dense PyTorch loop of public ports.

Both sides train the same network (600-200) with the same loss on the same users, in one run and by turns, batch for
batch, so that whatever else the machine does troubles both alike. The first epoch is a warm-up and is not counted.

    python benchmarks/epoch.py --repeats 5

The interactions are made up by `recvae.synthetic_log`, which gives each (user, item) pair at most once. Without a
rating filter every event is an interaction, so their number is exact: 1.54 million on 20,000 users is the 77 per
user of MovieLens-20M's training matrix after the filters of Liang et al. (2018), and 20,108 items are its width.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional

from measuring import Times, machine_line, write_results
from recvae import MultVAE
from recvae.history import EpochRecord
from recvae.interactions import interactions
from recvae.models.networks import initialise
from recvae.synthetic import synthetic_log

HIDDEN, LATENT = 600, 200
DROPOUT = 0.5
BETA = 0.2
LEARNING_RATE = 1e-3

# Letters in shape comments: B users of a batch, I items, H width of the hidden layer, D latent dimensions.


class DenseMultVAE(nn.Module):
    """Mult-VAE as public PyTorch ports write it, for the loop to be compared with.

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

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits (B, I), mean (B, D) and log-variance (B, D)."""
        mean, logvar = self.encoder(self.dropout(functional.normalize(x))).chunk(2, dim=1)  # (B, I) -> (B, 2 D)
        std = torch.exp(0.5 * logvar)
        return self.decoder(mean + torch.randn_like(std) * std), mean, logvar


def dense_loss(network: DenseMultVAE, x: torch.Tensor, beta: float = BETA) -> torch.Tensor:
    """Return -log p(x | z) + beta KL, the mean over the users of a batch.

    Parameters
    ----------
    network : DenseMultVAE
        In training mode.
    x : Tensor of shape (n_users, n_items), float32
        The rows of the users, zeros included.
    beta : float
        Weight of the KL term.
    """
    logits, mean, logvar = network(x)
    likelihood = (functional.log_softmax(logits, dim=1) * x).sum(dim=1)  # (B, I) -> (B,)
    kl = -0.5 * (1 + logvar - mean.pow(2) - logvar.exp()).sum(dim=1)  # (B, D) -> (B,)
    return -likelihood.mean() + beta * kl.mean()


def dense_epoch(
    network: DenseMultVAE,
    optimizer: torch.optim.Optimizer,
    train: sp.csr_matrix,
    batch_size: int,
    rng: np.random.Generator,
) -> Iterator[float]:
    """Train on every user once, batch after dense batch.

    Parameters
    ----------
    network, optimizer
        What is trained, and how.
    train : csr_matrix of shape (n_users, n_items), float32
        The interactions.
    batch_size : int
        Users per update.
    rng : Generator
        Draws the order of the users.

    Yields
    ------
    float
        The loss of a batch, summed over its users, after its update.
    """
    network.train()
    order = rng.permutation(train.shape[0])
    for start in range(0, len(order), batch_size):
        x = torch.from_numpy(train[order[start : start + batch_size]].toarray())  # (B, I)
        optimizer.zero_grad()
        loss = dense_loss(network, x)
        loss.backward()
        optimizer.step()
        yield loss.item() * len(x)


@dataclass
class Side:
    """What the epochs of one side took.

    Parameters
    ----------
    name : str
        Which side it is.
    seconds : list of list of float
        By epoch and batch; the first epoch is the warm-up.
    losses : list of float
        Mean over the users, by epoch.
    memory : int or None
        Most bytes in use beside weights and Adam's state: gradients, and what is computed on the way. None where
        the system does not tell.
    """

    name: str
    seconds: list[list[float]] = field(default_factory=lambda: [[]])
    losses: list[float] = field(default_factory=list)
    memory: int | None = None

    def note(self, seconds: float, growth: int | None, gradients: int) -> None:
        """Add a batch."""
        self.seconds[-1].append(seconds)
        if growth is not None and len(self.seconds) > 1:
            self.memory = max(growth + gradients, self.memory or 0)

    def end_epoch(self, loss: float) -> None:
        """Say how the epoch went and begin another."""
        what = "warm-up" if not self.losses else f"epoch {len(self.losses)}"
        print(f"  {what:<8} {self.name:<7} {sum(self.seconds[-1]):7.2f} s   loss {loss:.2f}", flush=True)
        self.losses.append(loss)
        self.seconds.append([])

    @property
    def epochs(self) -> np.ndarray:
        """Seconds of each counted epoch."""
        return np.array([sum(batches) for batches in self.seconds[1:-1]])

    @property
    def batches(self) -> np.ndarray:
        """Seconds of each counted batch."""
        return np.concatenate(self.seconds[1:])

    def to_json(self) -> dict[str, Any]:
        """Return the seconds of the counted epochs, the losses of all, and the memory."""
        return {**Times(self.name, self.epochs).to_json(), "losses": self.losses, "memory": self.memory}


class MemoryMeter:
    """Growth of this process's resident memory since the last `start`, where Linux tells."""

    def __init__(self) -> None:
        self._before: int | None = None

    def start(self) -> None:
        """Begin a new measurement."""
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the highest so far back
        except OSError:
            self._before = None
        else:
            self._before = self._bytes("VmRSS")

    def growth(self) -> int | None:
        """Return by how many bytes the highest since the start lies above the memory at the start."""
        highest = self._bytes("VmHWM")
        return None if highest is None or self._before is None else highest - self._before

    @staticmethod
    def _bytes(field: str) -> int | None:
        try:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


class TurnAbout:
    """A monitor of `MultVAE.fit` that times each of its batches, then lets the dense loop do one.

    Parameters
    ----------
    train : csr_matrix of shape (n_users, n_items), float32
        The interactions.
    batch_size : int
        Users per update.
    """

    def __init__(self, train: sp.csr_matrix, batch_size: int) -> None:
        self._train, self._batch_size = train, batch_size
        self._network = DenseMultVAE(train.shape[1])
        initialise(self._network, torch.Generator().manual_seed(0))
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=LEARNING_RATE)
        self._rng = np.random.default_rng(0)
        # A side has the gradients of its last batch when its turn begins, and frees them: they are not growth.
        self._gradients = 4 * sum(parameter.numel() for parameter in self._network.parameters())
        self._meter = MemoryMeter()
        self.ours, self.dense = Side("recvae"), Side("dense")

    def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002  (every monitor's signature)
        """Get ready for the first epoch."""
        self._begin_epoch()

    def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
        """Note a batch of ours and do one of the dense loop."""
        self._note(self.ours)
        self._begin_turn()
        self._dense_loss += next(self._dense_batches)
        self._note(self.dense)
        self._begin_turn()

    def epoch(self, record: EpochRecord) -> None:
        """Note the losses; the time since the last batch, in which weights are copied, counts for nobody."""
        self.ours.end_epoch(record.loss)
        self.dense.end_epoch(self._dense_loss / self._train.shape[0])
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._dense_batches = dense_epoch(self._network, self._optimizer, self._train, self._batch_size, self._rng)
        self._dense_loss = 0.0
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._meter.start()
        self._began = time.perf_counter()

    def _note(self, side: Side) -> None:
        seconds = time.perf_counter() - self._began
        side.note(seconds, self._meter.growth(), self._gradients)


def made_up(n_users: int, n_items: int, n_interactions: int) -> sp.csr_matrix:
    """Return exactly so many interactions of made-up users, shape (n_users, n_items), float32."""
    events, _ = synthetic_log(n_users=n_users, n_items=n_items, n_events=n_interactions, seed=0)
    return interactions(events.users, events.items, (n_users, n_items))


def measure(train: sp.csr_matrix, batch_size: int, repeats: int) -> tuple[Side, Side]:
    """Return what this package took, and what the dense loop did.

    Parameters
    ----------
    train : csr_matrix of shape (n_users, n_items), float32
        The interactions.
    batch_size : int
        Users per update.
    repeats : int
        Epochs of each side after the warm-up.
    """
    both = TurnAbout(train, batch_size)
    model = MultVAE(
        hidden_dims=(HIDDEN,),
        latent_dim=LATENT,
        dropout=DROPOUT,
        learning_rate=LEARNING_RATE,
        beta=BETA,
        anneal="constant",
        epochs=1 + repeats,
        batch_size=batch_size,
        seed=0,
    )
    model.fit(train, device="cpu", monitor=both)
    return both.ours, both.dense


def table(ours: Side, dense: Side, n_users: int) -> str:
    """Return what was measured, one line per side, and the ratios.

    Parameters
    ----------
    ours, dense : Side
        What both took.
    n_users : int
        Users of an epoch.
    """
    lines = [f"{'':<7}  min s   median s    max s   users/s     memory"]
    for side in (ours, dense):
        median = np.median(side.epochs)
        times = f"{side.epochs.min():6.2f}   {median:8.2f}   {side.epochs.max():6.2f}"
        memory = "unknown" if side.memory is None else f"{side.memory / 2**20:,.0f} MiB"
        lines.append(f"{side.name:<7} {times}   {n_users / median:7,.0f}   {memory:>8}")
    ratios = ours.epochs / dense.epochs
    lines.append(
        f"recvae takes {np.median(ratios):.2f} of the dense loop's time, {ratios.min():.2f} to {ratios.max():.2f} "
        f"epoch by epoch; median batch against median batch {np.median(ours.batches) / np.median(dense.batches):.2f}"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="One epoch of Mult-VAE: recvae against a plain dense PyTorch loop.")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=20_108)
    parser.add_argument("--interactions", type=int, default=1_540_000, help="at least 20 per user")
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3, help="counted epochs of each side, after one warm-up")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    given = parser.parse_args(arguments)
    if given.repeats < 1 or given.batch_size < 1:
        parser.error("--repeats and --batch-size must be 1 or more")
    print(machine_line())
    train = made_up(given.users, given.items, given.interactions)
    print(
        f"Mult-VAE {HIDDEN}-{LATENT}, batches of {given.batch_size}: {train.shape[0]:,} users x "
        f"{train.shape[1]:,} items, {train.nnz:,} interactions"
    )
    ours, dense = measure(train, given.batch_size, given.repeats)
    print(table(ours, dense, train.shape[0]))
    shape = {"users": given.users, "items": given.items, "interactions": train.nnz, "batch_size": given.batch_size}
    write_results(given.json, "epoch", shape, {side.name: side.to_json() for side in (ours, dense)})


if __name__ == "__main__":
    main()
