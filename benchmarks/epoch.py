"""One epoch on the CPU: this package against the plain dense PyTorch loop of public ports (benchmarks/dense.py).

Both sides train the same network (600-200) with the same loss on the same users, each in a process of its own and by
turns of ten batches, so that whatever else the machine does troubles both alike, and what the caches hold is mostly
their own, as it is in training. The first epoch is a warm-up and is not counted. The floor is what the largest
products, by the fastest way we know, and Adam's memory take, at the rates measured on the way.

    python benchmarks/epoch.py --model recvae --precision float32

The interactions are made up by `recvae.synthetic_log`, which gives each (user, item) pair at most once. Without a
rating filter every event is an interaction, so their number is exact: 1.54 million on 20,000 users is the 77 per
user of MovieLens-20M's training matrix after the filters of Liang et al. (2018), and 20,108 items are its width.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from dense import BETA, DROPOUT, GAMMA, HIDDEN, LATENT, LEARNING_RATE
from measuring import MemoryMeter, Times, by_turns, machine_line, write_results
from recvae import MultDAE, MultVAE, RecVAE
from recvae.compute.allocator import kept_blocks
from recvae.compute.matmul import product
from recvae.datasets.synthetic import synthetic_log
from recvae.interactions import interactions
from recvae.models.common.autoencoder import Autoencoder
from recvae.training.records import EpochRecord

# Letters in shape comments: B users of a batch, I items, H width of the layer before the items.

TURN = 10  # batches


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
        Mean over the batches, by epoch.
    peak : int or None
        Highest resident memory of its process, all told; None where the system does not tell.
    """

    name: str
    seconds: list[list[float]] = field(default_factory=lambda: [[]])
    losses: list[float] = field(default_factory=list)
    peak: int | None = None

    def end_epoch(self, loss: float) -> None:
        """Say how the epoch went and begin another."""
        what = "warm-up" if not self.losses else f"epoch {len(self.losses)}"
        print(f"  {what:<8} {self.name:<7} {sum(self.seconds[-1]):7.2f} s   loss {loss:.2f}", flush=True)
        self.losses.append(loss)
        self.seconds.append([])

    @property
    def epochs(self) -> Times:
        """Seconds of each counted epoch."""
        return Times(self.name, np.array([sum(batches) for batches in self.seconds[1:-1]]))

    @property
    def batches(self) -> np.ndarray:
        """Seconds of each counted batch."""
        return np.concatenate(self.seconds[1:])


class TurnAbout:
    """A monitor of `fit` that times its batches, and every few has the dense loop do as many in the other process.

    Parameters
    ----------
    model : str
        "multvae", "multdae" or "recvae".
    train : csr_matrix of shape (n_users, n_items), float32
        The interactions.
    batch_size : int
        Users per update.
    """

    def __init__(self, model: str, train: sp.csr_matrix, batch_size: int) -> None:
        self.ours, self.dense = Side("recvae"), Side("dense")
        self._of_dense: list[float] = []
        self._meter = MemoryMeter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.npz"
            sp.save_npz(path, train, compressed=False)
            command = [sys.executable, str(Path(__file__).with_name("dense.py")), str(path), model, str(batch_size)]
            self._other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._other.stdin is not None and self._other.stdout is not None
            self._questions, self._answers = self._other.stdin, self._other.stdout
            self._answers.readline()  # the file was read

    def _ask(self) -> dict[str, Any]:
        self._questions.write("batch\n")
        self._questions.flush()
        return json.loads(self._answers.readline())

    def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002  (every monitor's signature)
        """Get ready for the first epoch."""
        self._meter.start()
        self._began = time.perf_counter()

    def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
        """Note a batch of ours; after the last of a turn it is the dense loop's."""
        self.ours.seconds[-1].append(time.perf_counter() - self._began)
        if len(self.ours.seconds[-1]) % TURN == 0:
            self._other_turn()
        self._began = time.perf_counter()

    def _other_turn(self) -> None:
        """Have the dense loop do what batches it is behind."""
        self.ours.peak = self._meter.peak()
        for _ in range(len(self.ours.seconds[-1]) - len(self.dense.seconds[-1])):
            answer = self._ask()
            self.dense.seconds[-1].append(answer["seconds"])
            self.dense.peak = answer["peak"]
            self._of_dense.append(answer["loss"])

    def epoch(self, record: EpochRecord) -> None:
        """Note the losses; the time since the last batch, in which weights are copied, counts for nobody."""
        self._other_turn()
        self.ours.end_epoch(record.loss)
        self.dense.end_epoch(float(np.mean(self._of_dense)))
        self._of_dense.clear()
        self._began = time.perf_counter()

    def close(self) -> None:
        """Let the other process end."""
        self._questions.close()
        self._other.wait()
        self._answers.close()


def made_up(n_users: int, n_items: int, n_interactions: int) -> sp.csr_matrix:
    """Return exactly so many interactions of made-up users, shape (n_users, n_items), float32."""
    events, _ = synthetic_log(n_users=n_users, n_items=n_items, n_events=n_interactions, seed=0)
    return interactions(events.users, events.items, (n_users, n_items))


def ours(model: str, epochs: int, batch_size: int, precision: str) -> Autoencoder:
    """Return our side, not fitted."""
    common: dict[str, Any] = {"learning_rate": LEARNING_RATE, "dropout": DROPOUT, "latent_dim": LATENT}
    common |= {"epochs": epochs, "batch_size": batch_size, "precision": precision}
    if model == "multvae":
        return MultVAE(hidden_dims=(HIDDEN,), beta=BETA, anneal="constant", **common)
    return MultDAE(weight_decay=0.0, **common) if model == "multdae" else RecVAE(gamma=GAMMA, **common)


def measure(
    model: str, train: sp.csr_matrix, batch_size: int, repeats: int, precision: str
) -> tuple[TurnAbout, torch.dtype]:
    """Return what this package took and the dense loop did, and the numbers that this package multiplied.

    Parameters
    ----------
    model : str
        "multvae", "multdae" or "recvae".
    train : csr_matrix of shape (n_users, n_items), float32
        The interactions.
    batch_size : int
        Users per update.
    repeats : int
        Epochs of each side after the warm-up.
    precision : str
        "auto", "float32" or "bfloat16".
    """
    both = TurnAbout(model, train, batch_size)
    try:
        fitted = ours(model, 1 + repeats, batch_size, precision).fit(train, device="cpu", monitor=both)
    finally:
        both.close()
    return both, fitted.dtype_


def floor(model: str, n_items: int, n_batches: int, batch_size: int, dtype: torch.dtype) -> float:
    """Return the seconds that the products with the items' layer and Adam's memory take in an epoch.

    Parameters
    ----------
    model : str
        "multvae", "multdae" or "recvae".
    n_items, n_batches, batch_size : int
        Shape of an epoch, one pass over the users.
    dtype : torch.dtype
        Of the products.
    """
    width = HIDDEN if model == "multvae" else LATENT
    h, w, g = (
        torch.zeros(shape, dtype=dtype) for shape in ((batch_size, width), (n_items, width), (batch_size, n_items))
    )
    from_, to = torch.zeros(4, n_items * HIDDEN), torch.empty(4, n_items * HIDDEN)  # 2 x 4 floats for each weight
    sides = {
        "logits": lambda: product(h, w.t()),
        "of hidden": lambda: product(g, w),
        "of weight": lambda: product(g.t(), h),
        "memory": lambda: to.copy_(from_),
    }
    with kept_blocks(torch.device("cpu")):
        taken = by_turns(sides, rounds=9)
    logits_s, hidden_s, weight_s, memory_s = (times.median for times in taken.values())
    adam = memory_s * 7 / 8  # Adam reads four floats for each weight and writes three
    if model == "recvae":  # the encoder learns without the decoder's gradient, then the decoder without the encoder's
        return n_batches * (3 * (logits_s + hidden_s + adam) + logits_s + weight_s + adam * LATENT / HIDDEN)
    of_layers = 2 * width / HIDDEN  # the items' layers of encoder and decoder
    return n_batches * (logits_s + hidden_s + weight_s + adam * of_layers)


def table(both: TurnAbout, n_users: int, floor_seconds: float) -> str:
    """Return what was measured, one line per side, and the ratios.

    Parameters
    ----------
    both : TurnAbout
        What both sides took.
    n_users : int
        Users of an epoch.
    floor_seconds : float
        See `floor`.
    """
    lines = [f"{'':<7}  min s   median s    max s   users/s   resident"]
    for side in (both.ours, both.dense):
        seconds = side.epochs.seconds
        times = f"{seconds.min():6.2f}   {side.epochs.median:8.2f}   {seconds.max():6.2f}"
        memory = "unknown" if side.peak is None else f"{side.peak / 2**20:,.0f} MiB"
        lines.append(f"{side.name:<7} {times}   {n_users / side.epochs.median:7,.0f}   {memory:>8}")
    ratio, low, high = both.dense.epochs.ratio(both.ours.epochs)
    by_batch = np.median(both.dense.batches) / np.median(both.ours.batches)
    lines.append(
        f"the dense loop takes {ratio:.2f} times as long as recvae, {low:.2f} to {high:.2f} epoch by epoch; median "
        f"batch against median batch {by_batch:.2f}"
    )
    lines.append(
        f"floor {floor_seconds:.2f} s: recvae takes {both.ours.epochs.median / floor_seconds:.2f} times as long"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="One epoch: recvae against a plain dense PyTorch loop.")
    parser.add_argument("--model", choices=("multvae", "multdae", "recvae"), default="multvae")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=20_108)
    parser.add_argument("--interactions", type=int, default=1_540_000, help="at least 20 per user")
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3, help="counted epochs of each side, after one warm-up")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args(arguments)
    if given.repeats < 1 or given.batch_size < 1:
        parser.error("--repeats and --batch-size must be 1 or more")
    print(machine_line())
    train = made_up(given.users, given.items, given.interactions)
    print(
        f"{given.model} in {given.precision}, batches of {given.batch_size}: {train.shape[0]:,} users x "
        f"{train.shape[1]:,} items, {train.nnz:,} interactions"
    )
    both, dtype = measure(given.model, train, given.batch_size, given.repeats, given.precision)
    n_batches = -(-train.shape[0] // given.batch_size)
    floor_seconds = floor(given.model, train.shape[1], n_batches, given.batch_size, dtype)
    print(table(both, train.shape[0], floor_seconds))
    shape = {
        name: getattr(given, name) for name in ("model", "precision", "users", "items", "interactions", "batch_size")
    }
    results = {side.name: {**side.epochs.to_json(), "peak_resident": side.peak} for side in (both.ours, both.dense)}
    write_results(given.json, "epoch", shape, {**results, "floor": floor_seconds})


if __name__ == "__main__":
    main()
