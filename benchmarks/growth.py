"""How an epoch of Mult-VAE 600-200 grows with users, items and batch size, in time and memory, as a table and a plot.

    python benchmarks/growth.py --json growth.json --plot growth.png

Each point is measured in a process of its own, which reads its interactions, trains one epoch of them and says what
its batches took and how much memory it had at most, all told: interpreter, libraries, data, weights. The interactions
are made up by `recvae.synthetic_log`, 77 per user or as many as fit. Items and batch sizes grow on a few thousand
users, for what they change is the time of a batch; an epoch of more users is more of the same batches.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from dense import HIDDEN, LATENT
from epoch import made_up
from measuring import MemoryMeter, machine_line, write_results
from recvae import MultVAE
from recvae.training.records import NullMonitor

PER_USER = 77  # interactions, as in the training matrix of MovieLens-20M
WARM_UP = 2  # batches that do not count

USERS = (10_000, 20_000, 40_000, 80_000, 116_677, 140_000)
ITEMS = (5_000, 10_000, 20_108, 50_000, 100_000, 200_000)
BATCHES = (50, 100, 200, 500, 1_000, 2_000)
TINY = ((60, 90), (80, 120), (10, 20))


@dataclass(frozen=True)
class Point:
    """A shape to measure.

    Parameters
    ----------
    what : str
        Which of the three grows: "users", "items" or "batch size".
    users, items, batch_size : int
        The shape.
    precision, sampling : str
        Hyperparameters of the model.
    """

    what: str
    users: int = 20_000
    items: int = 20_108
    batch_size: int = 500
    precision: str = "auto"
    sampling: str = "none"

    @property
    def way(self) -> str:
        """How the last layer is computed, for the legend."""
        return self.precision if self.sampling == "none" else f"{self.precision}, sampled"

    @property
    def place(self) -> int:
        """Where it stands on the axis of what grows."""
        return {"users": self.users, "items": self.items, "batch size": self.batch_size}[self.what]


class Stopwatch(NullMonitor):
    """A monitor that takes the time of each batch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = time.perf_counter()

    def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
        """Note a batch."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now


def points(quick: bool) -> Iterator[Point]:
    """Yield the shapes to measure, tiny ones for a trial."""
    users, items, batches = TINY if quick else (USERS, ITEMS, BATCHES)
    few, usual, width = (60, 20, 90) if quick else (6_000, 500, 20_108)
    for n in users:
        yield Point("users", users=n, items=width, batch_size=usual)
    for precision, sampling in (("auto", "none"), ("float32", "none"), ("auto", "popularity")):
        for n in items:
            yield Point("items", few, n, usual, precision, sampling)
    for n in batches:
        yield Point("batch size", max(few, 8 * n), width, n)


def measure(point: Point, train: sp.csr_matrix) -> dict[str, Any]:
    """Train an epoch in this process and return what it took.

    Parameters
    ----------
    point : Point
        The shape.
    train : csr_matrix of shape (n_users, n_items), float32
        The interactions.

    Returns
    -------
    dict
        "batch": median seconds of a full batch, "low" and "high" the fastest and slowest, "epoch": seconds of an
        epoch at their mean, "peak": bytes, None where the system does not tell.
    """
    watch = Stopwatch()
    model = MultVAE(
        hidden_dims=(HIDDEN,),
        latent_dim=LATENT,
        epochs=1,
        batch_size=point.batch_size,
        precision=point.precision,
        sampling=point.sampling,
    )
    model.fit(train, device="cpu", monitor=watch)
    full = watch.seconds[: point.users // point.batch_size]  # the last batch may be a smaller one
    counted = np.array(full[WARM_UP:] or watch.seconds)
    return {
        "batch": float(np.median(counted)),
        "low": float(counted.min()),
        "high": float(counted.max()),
        "epoch": float(counted.mean()) * point.users / point.batch_size,
        "peak": MemoryMeter().peak(),
    }


def measured_apart(point: Point, folder: Path) -> dict[str, Any]:
    """Have a process of its own measure a point, and return what it says.

    Parameters
    ----------
    point : Point
        The shape.
    folder : Path
        Where interactions are kept for points of the same shape.
    """
    path = folder / f"{point.users}-{point.items}.npz"
    if not path.exists():
        per_user = min(PER_USER, point.items // 4)
        sp.save_npz(path, made_up(point.users, point.items, per_user * point.users), compressed=False)
    command = [sys.executable, __file__, "--point", json.dumps(asdict(point)), str(path)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout)


def line(point: Point, found: dict[str, Any]) -> str:
    """Return a row of the table: a Markdown one, to be put into a page as it is."""
    memory = "unknown" if found["peak"] is None else f"{found['peak'] / 2**20:,.0f} MiB"
    return (
        f"| {point.users:,} | {point.items:,} | {point.batch_size:,} | {point.way} | {1e3 * found['batch']:.1f} ms "
        f"({1e3 * found['low']:.1f} - {1e3 * found['high']:.1f}) | {found['epoch']:.2f} s | "
        f"{point.users / found['epoch']:,.0f} | {memory} |"
    )


def plot(results: list[tuple[Point, dict[str, Any]]], path: Path) -> None:
    """Draw seconds against what grows, and memory below.

    Parameters
    ----------
    results : list of tuple of (Point, dict)
        What was measured, and how it went.
    path : Path
        Of a picture, by its ending.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.5), layout="constrained")
    panels = {
        "users": ("seconds per epoch", lambda _, found: found["epoch"]),
        "items": ("milliseconds per batch of users", lambda _, found: 1e3 * found["batch"]),
        "batch size": ("users per second", lambda point, found: point.users / found["epoch"]),
    }
    axes = figure.subplots(2, len(panels), sharex="col", height_ratios=(3, 2))
    for column, (what, (label, value)) in enumerate(panels.items()):
        of_kind = [(point, found) for point, found in results if point.what == what]
        for way in dict.fromkeys(point.way for point, _ in of_kind):
            rows = [(point, found) for point, found in of_kind if point.way == way]
            places = [point.place for point, _ in rows]
            memory = [np.nan if found["peak"] is None else found["peak"] / 2**30 for _, found in rows]
            axes[0, column].plot(places, [value(*row) for row in rows], "o-", label=way, clip_on=False)
            axes[1, column].plot(places, memory, "o-", clip_on=False)
        axes[0, column].set(ylabel=label, ylim=(0, None), xlim=(0, None))
        axes[1, column].set(xlabel=what, ylabel="resident, GiB", ylim=(0, None))
        axes[1, column].xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}")
        axes[0, column].legend(frameon=False)
        for axis in axes[:, column]:
            axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="An epoch of Mult-VAE against users, items and batch size.")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that it runs")
    parser.add_argument("--only", choices=("users", "items", "batch size"), help="only what grows with this")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw them into this file (needs matplotlib)")
    parser.add_argument("--point", nargs=2, metavar=("SHAPE", "TRAIN.npz"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.point:
        shape, path = given.point
        print(json.dumps(measure(Point(**json.loads(shape)), sp.csr_matrix(sp.load_npz(path)))))
        return
    if given.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install matplotlib")
    print(machine_line())
    print(f"\nMult-VAE {HIDDEN}-{LATENT}, {PER_USER} interactions per user, on the CPU:\n")
    print("| users | items | batch size | products | a batch, median (range) | an epoch | users/s | resident |")
    print("|---|---|---|---|---|---|---|---|")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for point in points(given.quick):
            if given.only in (None, point.what):
                results.append((point, measured_apart(point, Path(folder))))
                print(line(*results[-1]), flush=True)
    write_results(
        given.json,
        "growth",
        {"per_user": PER_USER, "quick": given.quick},
        {"points": [asdict(point) | found for point, found in results]},
    )
    if given.plot:
        plot(results, given.plot)


if __name__ == "__main__":
    main()
