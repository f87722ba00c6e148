"""What a large catalogue costs, by the way the item layers are computed: processor time and memory, as a table.

    python benchmarks/catalogue.py --json catalogue.json

Mult-VAE with one hidden layer on 100,000 and 1,000,000 items: the softmax over all items at once, in parts, or over
sampled items; with Adam on all rows or on those of a batch; with a vector of an item in each layer, or one in both.
Each point is measured in a process of its own, which makes up its interactions (`PER_USER` a user, items by Zipf's
law), trains some batches, recommends to some users, and says what that took. Times are seconds of the processor on one
thread, which another program on the machine lengthens less than it does those of the clock; the JSON has both.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from measuring import MemoryMeter, machine_line, write_results
from recvae import MultVAE
from recvae.compute.memory import human_bytes
from recvae.training.records import NullMonitor

PER_USER = 20  # interactions
BATCH = 500  # users per update
WARM_UP = 1  # batches that do not count
SCORED = 60  # users who are recommended something
PER = 10_000  # users that times are given for

SOFTMAXES: dict[str, dict[str, Any]] = {
    "whole": {},
    "parts": {"items_at_a_time": 4096},
    "sampled": {"sampling": "popularity"},
    "sampled, by row": {"sampling": "popularity", "row_wise": True},
}
WIDTHS = {100_000: 256, 1_000_000: 128}  # of the hidden layer, by items


@dataclass(frozen=True)
class Point:
    """What to measure.

    Parameters
    ----------
    items, width : int
        Of the catalogue, and of the hidden layer.
    softmax : str
        One of `SOFTMAXES`.
    tied : bool
        Whether an item has one vector for both layers.
    precision : str
        Of the products with the item layer.
    batches : int
        Counted ones.
    """

    items: int
    width: int
    softmax: str
    tied: bool
    precision: str = "float32"
    batches: int = 4

    @property
    def model(self) -> MultVAE:
        """The model, not fitted."""
        return MultVAE(
            hidden_dims=(self.width,),
            latent_dim=self.width // 2,
            epochs=1,
            batch_size=BATCH,
            precision=self.precision,
            tied=self.tied,
            **SOFTMAXES[self.softmax],
        )

    @property
    def users(self) -> int:
        """Users to train on."""
        return BATCH * (WARM_UP + self.batches)


class Stopwatch(NullMonitor):
    """A monitor that takes the time of each batch, by the processor and by the clock."""

    def __init__(self) -> None:
        self.processor: list[float] = []
        self.clock: list[float] = []
        self._last = (time.process_time(), time.perf_counter())

    def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
        """Note a batch."""
        now = (time.process_time(), time.perf_counter())
        self.processor.append(now[0] - self._last[0])
        self.clock.append(now[1] - self._last[1])
        self._last = now


def made_up(n_users: int, n_items: int) -> sp.csr_matrix:
    """Return interactions of made-up users, shape (n_users, n_items): an item's share is 1 over its rank, as Zipf's."""
    rng = np.random.default_rng(0)
    cumulative = np.cumsum(1 / np.arange(1, n_items + 1))
    ranks = np.searchsorted(cumulative, rng.random(n_users * PER_USER) * cumulative[-1])
    columns = rng.permutation(n_items)[np.minimum(ranks, n_items - 1)]
    rows = np.repeat(np.arange(n_users), PER_USER)
    matrix = sp.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(n_users, n_items))
    matrix.data[:] = 1  # an item drawn twice counts once
    return matrix


def measure(point: Point) -> dict[str, Any]:
    """Train and recommend in this process, and return what it took.

    Parameters
    ----------
    point : Point
        What to measure.

    Returns
    -------
    dict
        "batch" and "scoring": median processor seconds for `PER` users; "clock": the same of batches by the clock;
        "training" and "recommending": bytes that memory grew by at most, None where the system does not tell.
    """
    train, watch, meter, model = made_up(point.users, point.items), Stopwatch(), MemoryMeter(), point.model
    MultVAE(hidden_dims=(2,), latent_dim=2, epochs=1).fit(made_up(4, 9), device="cpu")  # loads what has to be loaded
    meter.start()
    model.fit(train, device="cpu", monitor=watch)
    training = meter.growth()
    users = train[:SCORED]
    model.recommend(users[:2], 100)
    meter.start()
    started = time.process_time()
    model.recommend(users, 100)
    scoring = time.process_time() - started
    return {
        "batch": float(np.median(watch.processor[WARM_UP:])) * PER / BATCH,
        "clock": float(np.median(watch.clock[WARM_UP:])) * PER / BATCH,
        "scoring": scoring * PER / users.shape[0],
        "training": training,
        "recommending": meter.growth(),
        "loss": model.log_[-1].loss,
    }


def measured_apart(point: Point) -> dict[str, Any]:
    """Have a process of its own measure a point on one thread, and return what it says."""
    command = [sys.executable, __file__, "--point", json.dumps(asdict(point))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(answer.stdout)


def line(point: Point, found: dict[str, Any] | None, needs: int) -> str:
    """Return a row of the table: a Markdown one, to be put into a page as it is.

    Parameters
    ----------
    point : Point
        Which one.
    found : dict, optional
        What was measured; None if it needs too much memory.
    needs : int
        Bytes that training takes, as planned.
    """
    way = f"| {point.items:,} | {point.width} | {point.softmax} | {'one' if point.tied else 'two'} |"
    if found is None:
        return f"{way} left out | {human_bytes(needs)} | | | |"
    memory, recommending = (
        "unknown" if found[what] is None else human_bytes(found[what]) for what in ("training", "recommending")
    )
    return (
        f"{way} {found['batch']:.1f} s | {human_bytes(needs)} | {memory} | {found['scoring']:.0f} s | {recommending} |"
    )


def points(
    items: Sequence[int], softmaxes: Sequence[str], width: int | None, batches: int, precision: str
) -> list[Point]:
    """Return the points of each size, with the width that goes with it where none is given."""
    return [
        Point(n, width or WIDTHS.get(n, 128), softmax, tied, precision, batches)
        for n in items
        for softmax in softmaxes
        for tied in (False, True)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="What a large catalogue costs, by the way it is computed.")
    parser.add_argument("--items", type=int, nargs="+", default=list(WIDTHS), help="sizes of the catalogue")
    parser.add_argument("--softmax", choices=SOFTMAXES, nargs="+", default=list(SOFTMAXES), help="only these ways")
    parser.add_argument("--width", type=int, help="of the hidden layer (default: 256, from a million items on 128)")
    parser.add_argument("--batches", type=int, default=4, help="counted batches of 500 users each")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"), help="of the products")
    parser.add_argument("--max-gb", type=float, default=9.0, help="leave out what needs more memory")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.point:
        print(json.dumps(measure(Point(**json.loads(given.point)))))
        return
    if min(given.batches, *given.items, given.width or 2) < 1 or (given.width or 2) < 2:
        parser.error("--items and --batches must be 1 or more, --width 2 or more")
    print(f"{machine_line()}\n\nMult-VAE, {PER_USER} interactions per user, batches of {BATCH}, {given.precision}.")
    print(f"Processor seconds on one thread, for {PER:,} users:\n")
    print("| items | width | softmax | vectors of an item | training | planned memory | memory | top 100 | memory |")
    print("|---|---|---|---|---|---|---|---|---|")
    results = []
    for point in points(given.items, given.softmax, given.width, given.batches, given.precision):
        needs = point.model.needs(point.users, point.items, point.users * PER_USER).training
        found = measured_apart(point) if needs <= given.max_gb * 1e9 else None
        results.append(asdict(point) | (found or {}) | {"needs": needs})
        print(line(point, found, needs), flush=True)
    shape = {"per_user": PER_USER, "batch": BATCH, "per": PER}
    write_results(given.json, "catalogue", shape, {"points": results})


if __name__ == "__main__":
    main()
