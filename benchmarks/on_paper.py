"""What an epoch on 10^8 users x 10^6 items, and on 10^9 x 10^7, would cost: computed, from constants measured here.

    python benchmarks/on_paper.py --json on_paper.json

Nothing of that size is trained. Measured on this machine, on one thread: the softmax over all items and over sampled
ones, forwards and backwards, for each user; reading and writing the rows of the first layer, for each interaction;
Adam, for each weight; reading training rows from mapped shards, for each byte; sums between two processes of this
machine. Then, for one network (one hidden layer, an item has a vector in the first and one in the last layer), the
seconds of an epoch are added up for a number of processes, and for both ways to share the work:

    users    each process trains a part of each batch; all gradients are added up, and each makes all of Adam's step
    items    each process has a part of the items, and all users; vectors of the users are added up, four times

A second kind of hardware is put in by its maker's data sheet, with the share of the peak that is assumed (`--share`).
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import multiprocessing

from measuring import machine_line, write_results
from recvae.datasets.shards import write_matrix
from recvae.models.common.networks import Linear, SparseLinear
from recvae.training.batches import whole_batch
from recvae.training.losses import output_nll
from recvae.training.sampled_softmax import ItemSampler, sampled_nll

GATHERED = 2 * (1 << 24)  # numbers that are added up in the trial between processes


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained.

    Parameters
    ----------
    users, items : int
        Of the data.
    per_user : int
        Interactions of a user.
    width : int
        Of the one hidden layer.
    batch : int
        Users of an update, over all processes.
    sampled : int
        Items drawn for an update; 0 for the softmax over all of them.
    """

    users: int
    items: int
    per_user: int = 50
    width: int = 256
    batch: int = 8192
    sampled: int = 0

    @property
    def weights(self) -> int:
        """Numbers of the network: a vector for each item in the first and in the last layer."""
        return 2 * self.items * self.width

    @property
    def updates(self) -> int:
        """Updates of an epoch."""
        return -(-self.users // self.batch)

    @property
    def scored(self) -> int:
        """Items that a user is scored against."""
        return min(self.items, self.sampled + self.touched) if self.sampled else self.items

    @property
    def touched(self) -> int:
        """Items that a batch has at most."""
        return min(self.items, self.batch * self.per_user)

    @property
    def updated(self) -> int:
        """Numbers of the network that an update changes: with sampled items, the rows of the batch and those drawn."""
        return 2 * self.scored * self.width if self.sampled else self.weights

    @property
    def stored(self) -> int:
        """Bytes of the training rows: 8 for an interaction, 8 for a user."""
        return 8 * self.users * (self.per_user + 1)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What one process has, in seconds for each.

    Parameters
    ----------
    name : str
        What it is called, and where its figures come from.
    softmax : float
        For a user, an item and a number of the hidden layer: three products, and what is done to the logits.
    row : float
        For an interaction and a number of its row: read in the first layer, and its gradient written.
    adam : float
        For a weight.
    read : float
        For a byte of training rows.
    send : float
        For a byte that is added up over all processes.
    memory : float
        Bytes that a process may take.
    """

    name: str
    softmax: float
    row: float
    adam: float
    read: float
    send: float
    memory: float


def epoch(work: Workload, hardware: Hardware, processes: int, share: str) -> dict[str, float]:
    """Return the seconds of an epoch by what they are spent on, bytes added up in an update, and bytes of a process.

    Parameters
    ----------
    work : Workload
        What is trained.
    hardware : Hardware
        Of each process.
    processes : int
        How many there are.
    share : str
        "users" or "items".
    """
    by_users = share == "users"
    all_users = work.users / processes
    numbers = work.updated if by_users else work.updated / processes
    vectors = 4 * work.batch * work.width + 3 * work.batch  # into and out of both item layers; highest, sum and hits
    sent = 0.0 if processes == 1 else 4.0 * (work.updated if by_users else vectors)
    own = work.weights if by_users else work.weights / processes
    return {
        "softmax": all_users * work.scored * work.width * hardware.softmax,  # either way a part of the same products
        "rows": all_users * work.per_user * work.width * hardware.row,
        "adam": work.updates * numbers * hardware.adam,
        "reading": work.stored / (processes if by_users else 1) * hardware.read,
        "sending": work.updates * sent * hardware.send,
        "sent": sent,
        "memory": 4 * 4 * own,  # weights, gradients and two moments; the best weights so far may lie elsewhere
    }


SPENT = ("softmax", "rows", "adam", "reading", "sending")


def bottleneck(costs: dict[str, float]) -> str:
    """Return what most of an epoch is spent on."""
    return max(SPENT, key=costs.__getitem__)


def moves_at(work: Workload, hardware: Hardware, share: str, most: int = 1 << 20) -> tuple[int, str] | None:
    """Return the first power of two of processes at which another thing takes most of the time, and what it is."""
    first, n = bottleneck(epoch(work, hardware, 1, share)), 2
    while n <= most:
        now = bottleneck(epoch(work, hardware, n, share))
        if now != first:
            return n, now
        n *= 2
    return None


def measure(send: float, memory: float, users: int = 256, items: int = 16_384, width: int = 256) -> Hardware:
    """Return this machine, one thread of it for each process.

    Parameters
    ----------
    send : float
        Seconds for a byte that is added up; what `sums` returns.
    memory : float
        Bytes of a process.
    users, items, width : int
        Of the trials.
    """
    rng = np.random.default_rng(0)
    per_user = min(50, items)
    columns = np.concatenate([np.sort(rng.choice(items, per_user, replace=False)) for _ in range(users)])
    matrix = sp.csr_matrix(
        (np.ones(len(columns), np.float32), columns, np.arange(0, len(columns) + 1, per_user)), shape=(users, items)
    )
    batch = whole_batch(matrix, torch.device("cpu"))
    hidden = torch.randn(users, width, requires_grad=True)
    last, first = Linear(width, items), SparseLinear(items, width)
    for parameter in (last.weight, last.bias, first.weight, first.bias):
        torch.nn.init.normal_(parameter, std=0.01)
    optimizer = torch.optim.Adam([first.weight], fused=True)
    first.weight.grad = torch.randn_like(first.weight)
    softmax = _seconds(lambda: output_nll(hidden, last, batch).sum().backward()) / (users * items * width)
    rows = _seconds(lambda: _embedded(first, batch)) / (matrix.nnz * width)
    return Hardware(
        name="this machine, one core for each process (measured)",
        softmax=softmax,
        row=max(rows, 0.0),
        adam=_seconds(optimizer.step) / first.weight.numel(),
        read=_reading(matrix),
        send=send,
        memory=memory,
    )


def sampled_overhead(users: int = 256, items: int = 100_000, draws: int = 4096, width: int = 256) -> float:
    """Return how many times as long a sampled softmax takes as the whole one over as many items."""
    columns = np.arange(users, dtype=np.int32) % items
    matrix = sp.csr_matrix((np.ones(users, np.float32), columns, np.arange(users + 1)), shape=(users, items))
    batch, generator = whole_batch(matrix, torch.device("cpu")), torch.Generator().manual_seed(0)
    hidden, large, small = torch.randn(users, width, requires_grad=True), Linear(width, items), Linear(width, draws)
    for layer in (large, small):
        torch.nn.init.normal_(layer.weight, std=0.01)
        torch.nn.init.zeros_(layer.bias)
    few = whole_batch(matrix[:, :draws], torch.device("cpu"))
    drawn = ItemSampler(matrix, draws, "uniform", torch.device("cpu")).draw(generator)
    whole = _seconds(lambda: output_nll(hidden, small, few).sum().backward())

    def sampled() -> None:  # as with gradients by row: the dense gradient of the whole layer is no part of it
        def read(of: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            return of.detach()[at].requires_grad_()

        sampled_nll(hidden, large, batch, drawn, read=read).sum().backward()

    return _seconds(sampled) / whole


def _embedded(layer: SparseLinear, batch: object) -> None:
    rows = layer.weight.detach()[batch.items].requires_grad_()  # type: ignore[attr-defined]
    (rows * 1.0).sum().backward()


def _seconds(call: Callable[[], object], rounds: int = 5) -> float:
    """Return the median processor seconds of a call, after one that does not count."""
    taken = []
    for _ in range(rounds + 1):
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return float(np.median(taken[1:]))


def _reading(matrix: sp.csr_matrix) -> float:
    """Return seconds for a byte of mapped shards, read from the memory that keeps files, and copied."""
    with TemporaryDirectory() as folder:
        many = sp.vstack([matrix] * 200, format="csr")
        shards = write_matrix(Path(folder), "train", many)
        n_bytes = sum(shard.bytes for shard in shards.shards)
        return _seconds(lambda: [{k: np.array(v) for k, v in arrays.items()} for arrays in shards.arrays()]) / n_bytes


def sums(n: int = GATHERED) -> float:
    """Return seconds for a byte that two processes of this machine add up through gloo, by the clock."""
    with TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        found = context.Queue()
        both = [context.Process(target=_sum, args=(rank, f"file://{folder}/store", n, found)) for rank in range(2)]
        for one in both:
            one.start()
        taken = float(found.get(timeout=600))
        for one in both:
            one.join()
        return taken / (4 * n)


def _sum(rank: int, store: str, n: int, found: object) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    tensor, taken = torch.ones(n), []
    for _ in range(4):
        torch.distributed.barrier()
        started = time.perf_counter()
        torch.distributed.all_reduce(tensor)
        taken.append(time.perf_counter() - started)
    if rank == 0:
        found.put(float(np.median(taken[1:])))  # type: ignore[attr-defined]
    torch.distributed.destroy_process_group()


def h100(share: float) -> Hardware:
    """Return a GPU by its data sheet: NVIDIA H100 SXM, 989 TFLOP/s in bfloat16, 3.35 TB/s, 80 GB, 400 Gb/s for each.

    Parameters
    ----------
    share : float
        Of the peak that is assumed to be reached, in (0, 1].
    """
    memory, network = 3.35e12 * share, 50e9 * share
    return Hardware(
        name=f"NVIDIA H100 SXM with 400 Gb/s each (data sheet, {share:.0%} of the peak; not measured)",
        softmax=6 / (989e12 * share),
        row=12 / memory,  # the row, and its gradient read and written
        adam=28 / memory,  # weight, gradient and two moments read, three of them written
        read=1 / (5e9),
        send=2 / network,  # a ring sends each number nearly twice
        memory=80e9,
    )


def table(work: Workload, hardware: Hardware, counts: Sequence[int], share: str) -> list[str]:
    """Return rows of Markdown: one for each number of processes."""
    lines = []
    for n in counts:
        costs = epoch(work, hardware, n, share)
        total = sum(costs[name] for name in SPENT)
        fits = "" if costs["memory"] <= hardware.memory else " (too much)"
        lines.append(
            f"| {share} | {n:,} | {human(total)} | {bottleneck(costs)} {costs[bottleneck(costs)] / total:.0%} | "
            f"{costs['sent'] / 1e6:,.0f} MB | {costs['memory'] / 1e9:,.1f} GB{fits} |"
        )
    return lines


def human(seconds: float) -> str:
    """Return a time with a unit that suits it."""
    for name, size in (("years", 365 * 86400), ("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:,.1f} s"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, compute and print.

    Parameters
    ----------
    arguments : sequence of str, optional
        Options; by default those of the command.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--share", type=float, default=0.4, help="of a data sheet's peak that is assumed")
    parser.add_argument("--network", type=float, default=25, help="Gb/s between machines with CPUs")
    parser.add_argument("--memory", type=float, default=8, help="GB for each process on a CPU")
    parser.add_argument("--items", type=int, default=16_384, help="of the trials")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if not 0 < options.share <= 1 or min(options.network, options.memory, *options.processes) <= 0:
        parser.error("expected --share above 0 and up to 1, and the others above 0")
    torch.set_num_threads(1)
    local, overhead = sums(), sampled_overhead(items=6 * options.items, draws=options.items // 4)
    network = 2 / (options.network * 1e9 / 8)
    here = measure(max(local, network), options.memory * 1e9, items=options.items)
    print(machine_line())
    print(
        f"softmax {6e-9 / here.softmax:.0f} GFLOP/s (sampled {overhead:.2f} times as long), rows {8e-9 / here.row:.1f} "
        f"GB/s, Adam {28e-9 / here.adam:.1f} GB/s, reading {1e-9 / here.read:.1f} GB/s, sums of two processes here "
        f"{1e-9 / local:.2f} GB/s; between machines {1e-9 / network:.2f} GB/s ({options.network:g} Gb/s)"
    )
    found = []
    for users, items in ((10**8, 10**6), (10**9, 10**7)):
        for sampled in (0, 8192):
            work = Workload(users=users, items=items, sampled=sampled)
            for one in (here, h100(options.share)):
                hardware = replace(one, softmax=one.softmax * overhead) if sampled else one
                found.append(_section(work, hardware, options.processes))
    measured = {"here": asdict(here), "sampled": overhead, "local": local}
    write_results(options.json, "on_paper", {"processes": options.processes}, measured | {"epochs": found})


def _section(work: Workload, hardware: Hardware, counts: Sequence[int]) -> dict[str, Any]:
    """Print the table of one workload on one hardware, and return its figures."""
    softmax = f"softmax over {work.sampled:,} sampled items" if work.sampled else "softmax over all items"
    print(f"\n{work.users:.0e} users x {work.items:.0e} items, {softmax}, {hardware.name}:")
    print(
        f"data {work.stored / 1e9:,.0f} GB, weights {4 * work.weights / 1e9:,.0f} GB, {work.updates:,} updates of "
        f"{work.batch:,} users\n"
    )
    print("| shared | processes | epoch | most of it | added up in an update | memory of each |")
    print("|---|---:|---:|---|---:|---:|")
    moved = {}
    for share in ("users", "items"):
        print("\n".join(table(work, hardware, counts, share)))
        moved[share] = moves_at(work, hardware, share)
    for share, move in moved.items():
        if move:
            print(f"\nSharing {share}: from {move[0]:,} processes on, most of the time is {move[1]}.")
    epochs = {share: {n: epoch(work, hardware, n, share) for n in counts} for share in ("users", "items")}
    return {"work": asdict(work), "hardware": hardware.name, "moves_at": moved, "epochs": epochs}


if __name__ == "__main__":
    main()
