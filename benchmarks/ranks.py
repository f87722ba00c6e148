"""An epoch in 1, 2 and 4 processes of one machine, one thread each, started by torchrun: what sharing users saves.

    python benchmarks/ranks.py --data-dir data --data ml-1m --processes 1 2 4 --rounds 3

Numbers of processes take turns, round by round, so that whatever else the machine does troubles all alike; the first
epoch of each is a warm-up. "epoch" is the clock's time for training alone, "meeting" the part of it in sums over
processes, waiting included. "processor" is what the first process took of a core, which other programs change less: an
epoch on a free machine, without waiting. With more processes than cores, the clock says nothing. What is added up in an
update is counted where it is sent. Of `ials`, an epoch is an iteration, and an update half of one.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from measuring import machine_line, write_results
from recvae.compute.process_group import joined
from recvae.compute.ranks import SHARES, Ranks
from recvae.datasets.dataset import Dataset
from recvae.models import model_class
from recvae.models.common.hyperparameters import build, parse_settings


class Meetings:
    """Counts what is added up over processes, and how long that takes."""

    def __init__(self) -> None:
        self.seconds, self.n_bytes = 0.0, 0
        for name in ("sum", "highest", "gather_rows", "check"):
            setattr(Ranks, name, self._timed(getattr(Ranks, name), counted=name != "check"))

    def _timed(self, method: Any, counted: bool) -> Any:
        def call(ranks: Ranks, *tensors: torch.Tensor, **how: Any) -> Any:
            started = time.perf_counter()
            found = method(ranks, *tensors, **how)
            if ranks.several:
                self.seconds += time.perf_counter() - started
                self.n_bytes += sum(one.numel() * one.element_size() for one in tensors) if counted else 0
            return found

        return call


class Clock:
    """A monitor that notes how much of the processor's time and of meetings each epoch took, in its updates.

    Of a model without epochs, it notes each iteration.
    """

    def __init__(self, meetings: Meetings, has_epochs: bool) -> None:
        self.meetings, self.epochs, self._n, self._has_epochs = meetings, list[dict[str, float]](), 0, has_epochs

    def start(self, epochs: int, done: list[Any]) -> None:  # noqa: ARG002  (every monitor's signature)
        """Get ready."""
        self._begin()

    def _begin(self) -> None:
        self._n, self._began = 0, time.perf_counter()
        self._before = time.process_time(), self.meetings.seconds, self.meetings.n_bytes

    def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
        """Note the last update so far."""
        self._n += 1
        now = (time.process_time(), self.meetings.seconds, self.meetings.n_bytes)
        self._last = [after - before for after, before in zip(now, self._before, strict=True)]
        if not self._has_epochs and epochs_done == int(epochs_done):
            self._keep(time.perf_counter() - self._began)

    def epoch(self, record: Any) -> None:
        """Keep what an epoch took."""
        self._keep(record.seconds, loss=record.loss, ndcg=record.ndcg)

    def _keep(self, seconds: float, **reached: Any) -> None:
        processor, meeting, n_bytes = self._last
        figures = {"seconds": seconds, "processor": processor, "meeting": meeting, "bytes": n_bytes / self._n}
        self.epochs.append({**figures, **reached})
        self._begin()


def work(given: argparse.Namespace) -> None:
    """Train in one of the processes; the first one prints what each epoch took."""
    meetings, dataset = Meetings(), Dataset.load(given.data_dir / given.data)
    chosen = model_class(given.model)
    has_epochs = hasattr(chosen, "epochs")
    length = [f"epochs={given.epochs + 1}", "patience=0"] if has_epochs else [f"iterations={given.epochs + 1}"]
    settings = [*given.set, *length]
    with joined(share=given.share) as ranks:
        clock = Clock(meetings, has_epochs)
        build(chosen, parse_settings(chosen, settings)).fit(
            dataset.train, dataset.validation, device="cpu", monitor=clock
        )
        if ranks.leads:
            print(json.dumps(clock.epochs[1:]))


def measured(n: int, given: argparse.Namespace) -> list[dict[str, float]]:
    """Have torchrun start so many processes, and return what each counted epoch took in the first one."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n), __file__]
    words += ["--work", "--data-dir", str(given.data_dir), "--data", given.data, "--model", given.model]
    settings = [*given.set, *([f"batch_size={n * given.users_each}"] if given.users_each else [])]
    words += ["--epochs", str(given.epochs), *(word for setting in settings for word in ("--set", setting))]
    words += ["--share", given.share]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)


def table(found: dict[int, list[dict[str, float]]]) -> str:
    """Return the figures as a Markdown table, medians over epochs."""
    lines = [
        "| processes | epoch | meeting | processor | as fast, by the clock | by the processor | added up in an update |"
    ]
    lines.append("|---:|---:|---:|---:|---:|---:|---:|")
    shown = ("seconds", "meeting", "processor", "bytes")
    middle = {n: {key: float(np.median([one[key] for one in epochs])) for key in shown} for n, epochs in found.items()}
    first = middle[min(middle)]
    for n, one in middle.items():
        ratios = [first[key] / one[key] for key in ("seconds", "processor")]
        lines.append(
            f"| {n} | {one['seconds']:.2f} s | {one['meeting']:.2f} s | {one['processor']:.2f} s | {ratios[0]:.2f} | "
            f"{ratios[1]:.2f} | {one['bytes'] / 1e6:.1f} MB |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="An epoch in several processes.")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder of data sets")
    parser.add_argument("--data", default="ml-1m", help="name of a prepared data set")
    parser.add_argument("--model", default="multvae")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a hyperparameter")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="how many, each in turn")
    parser.add_argument("--epochs", type=int, default=2, help="epochs that count, of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", choices=SHARES, default="users", help="what each process has a part of")
    parser.add_argument("--users-each", type=int, help="of a batch in each process, so that more have larger batches")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        work(given)
        return
    if min(*given.processes, given.epochs, given.rounds) < 1:
        parser.error("got 0 processes, epochs or rounds, expected 1 or more")
    torch.set_num_threads(1)  # as torchrun has it
    print(machine_line())
    found: dict[int, list[dict[str, float]]] = {n: [] for n in given.processes}
    for _ in range(given.rounds):
        for n in given.processes:
            found[n] += measured(n, given)
    losses = {n: epochs[-1]["loss"] for n, epochs in found.items() if "loss" in epochs[-1]}
    print(f"\n{given.model} on {given.data}, {given.rounds} rounds of {given.epochs} epochs:\n\n{table(found)}\n")
    if losses:
        print("loss of the last epoch: " + ", ".join(f"{loss:.6f} with {n}" for n, loss in losses.items()))
    shape = {name: getattr(given, name) for name in ("model", "set", "data", "epochs", "rounds", "share")}
    write_results(given.json, "ranks", shape, {str(n): epochs for n, epochs in found.items()})


if __name__ == "__main__":
    main()
