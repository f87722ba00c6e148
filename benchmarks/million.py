"""A catalogue of a million items: what an epoch, scoring and the model's memory are there, for any model.

    python benchmarks/million.py --model elsa --set latent_dim=128 --set batch_size=1024 --set sampling=uniform

The interactions are made up: 20 per item on average, items by a Zipf law, users of equal length. They have no
structure, so that only time and memory mean anything. The model is fitted in a process of its own, which says how long
an epoch took and how much memory it had at most, all told: interpreter, libraries, data, weights. `--updates` ends
training after some updates and counts the rest of the epoch as taking as long; then there is nothing to score with.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from measuring import MemoryMeter, machine_line, write_results
from recvae.models import model_class
from recvae.models.common.hyperparameters import build, parse_settings
from recvae.training.records import NullMonitor, StopTraining

PER_ITEM = 20  # interactions
K = 100  # items recommended
_ZIPF, _SHIFT = 0.8, 10.0  # an item's share falls with its rank r as (r + shift)^-zipf
_BLOCK = 1 << 20  # interactions drawn at a time


@dataclass
class Watch(NullMonitor):
    """A monitor that keeps when training began and how far it is, and may end it.

    Parameters
    ----------
    updates : int
        After how many calls training ends; 0: never.
    """

    updates: int = 0
    calls: int = 0
    epochs_done: float = 0.0
    began: float = 0.0
    last: float = 0.0
    processor: float = 0.0

    def start(self, epochs: int, done: list[Any]) -> None:  # noqa: ARG002  (every monitor's signature)
        """Get ready for the first update."""
        self.began = self.last = time.perf_counter()
        self._before = time.process_time()

    def advance(self, epochs_done: float, beta: float | None) -> StopTraining | None:  # noqa: ARG002
        """Note how far training is."""
        self.calls += 1
        self.epochs_done, self.last = epochs_done, time.perf_counter()
        self.processor = time.process_time() - self._before
        return StopTraining("enough updates") if self.updates and self.calls >= self.updates else None


def made_up(n_users: int, n_items: int, per_item: int, seed: int = 0) -> sp.csr_matrix:
    """Return interactions of users of equal length with items of Zipf popularity, a pair at most once.

    Parameters
    ----------
    n_users, n_items : int
        Its shape.
    per_item : int
        Draws per item; pairs drawn twice count once, so that it has a little less.
    seed : int
        Of the draws.
    """
    generator = np.random.default_rng(seed)
    shares = (np.arange(n_items) + _SHIFT) ** -_ZIPF
    cumulative = np.cumsum(generator.permutation(shares / shares.sum()))
    n = n_items * per_item // n_users * n_users
    items = np.empty(n, dtype=np.int32)
    for start in range(0, n, _BLOCK):
        draws = generator.random(min(_BLOCK, n - start))
        items[start : start + _BLOCK] = np.minimum(np.searchsorted(cumulative, draws), n_items - 1)
    starts = np.arange(0, n + 1, n // n_users, dtype=np.int32)
    matrix = sp.csr_matrix((np.ones(n, dtype=np.float32), items, starts), shape=(n_users, n_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def measure(model_name: str, settings: list[str], train: sp.csr_matrix, updates: int, n_scored: int) -> dict[str, Any]:
    """Fit a model in this process, recommend, and return what both took.

    Parameters
    ----------
    model_name : str
        Of the model.
    settings : list of str
        "name=value" each.
    train : csr_matrix of shape (n_users, n_items), float32
        The interactions.
    updates : int
        After how many updates to end; 0: never.
    n_scored : int
        Users to recommend to.

    Returns
    -------
    dict
        "epoch" and "processor": seconds, and those of the processor, which other programs change less; "peak": bytes
        while training, None where the system does not tell; "needs": bytes that the model expected; "bytes_per_item"
        of what it learned; "users_per_second" and "scoring_peak" of recommending.
    """
    chosen = model_class(model_name)
    model = build(chosen, parse_settings(chosen, settings))
    watch, meter = Watch(updates=updates), MemoryMeter()
    meter.start()
    model.fit(train, device="cpu", monitor=watch)
    seconds = watch.last - watch.began
    found: dict[str, Any] = {
        "epoch": seconds / (watch.epochs_done or 1),
        "processor": watch.processor / (watch.epochs_done or 1),
        "epochs_done": watch.epochs_done,
        "peak": meter.peak(),
        "needs": model.needs(*train.shape, train.nnz).training,
    }
    if not model.n_items_:
        return found
    found["bytes_per_item"] = sum(array.nbytes for array in model.weights().values()) / train.shape[1]
    meter.start()
    began = time.perf_counter()
    model.recommend(train[:n_scored], K)
    found["users_per_second"] = n_scored / (time.perf_counter() - began)
    return found | {"scoring_peak": meter.peak()}


def measured_apart(given: argparse.Namespace) -> dict[str, Any]:
    """Have a process of its own measure it, and return what that says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.npz"
        sp.save_npz(path, made_up(given.users, given.items, given.per_item), compressed=False)
        command = [sys.executable, __file__, "--model", given.model, "--train", str(path)]
        command += ["--updates", str(given.updates), "--score", str(given.score)]
        command += [word for setting in given.set for word in ("--set", setting)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout)


def table(model_name: str, settings: Sequence[str], found: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""

    def gigabytes(name: str) -> str:
        return "unknown" if found.get(name) is None else f"{found[name] / 1e9:.2f} GB"

    scored = found.get("users_per_second")
    timed = f"{found['epochs_done']:.2f} timed"
    cells = {
        "model": " ".join([model_name, *settings]),
        "an epoch": f"{found['epoch']:,.0f} s, {found['processor']:,.0f} s of a processor ({timed})",
        "memory at most": gigabytes("peak"),
        "expected, without program and data": gigabytes("needs"),
        "an item": "-" if scored is None else f"{found['bytes_per_item']:,.0f} B",
        "users scored": "-" if scored is None else f"{scored:,.1f} a second, {gigabytes('scoring_peak')}",
    }
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells, ["---"] * len(cells), cells.values()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="Time and memory of a model on a very large catalogue.")
    parser.add_argument("--model", default="elsa", help="name of the model, or MODULE:CLASS")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--per-item", type=int, default=PER_ITEM, help="interactions per item")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a hyperparameter")
    parser.add_argument("--updates", type=int, default=0, help="end training after so many updates; 0: never")
    parser.add_argument("--score", type=int, default=60, help="users to recommend to")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.train is not None:
        train = sp.csr_matrix(sp.load_npz(given.train))
        print(json.dumps(measure(given.model, given.set, train, given.updates, given.score)))
        return
    if not 1 <= given.users <= given.items * given.per_item:
        parser.error(f"--users: got {given.users:,}, expected 1 to as many as there are interactions")
    print(machine_line())
    found = measured_apart(given)
    print(f"\n{given.users:,} users x {given.items:,} items, {given.per_item} interactions per item:\n")
    print(table(given.model, given.set, found))
    shape = {name: getattr(given, name) for name in ("model", "set", "users", "items", "per_item", "updates")}
    write_results(given.json, "million", shape, found)


if __name__ == "__main__":
    main()
