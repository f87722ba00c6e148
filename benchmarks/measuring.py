"""What the benchmarks have in common: taking times by turns, saying on which machine, writing JSON.

Sides are timed one after the other, round by round, in one process: whatever else the machine does troubles all alike,
and ratios are taken within a round.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recvae.bundles.bundle import Bundle, write_bundle
from recvae.items import ItemIndex
from recvae.models import MultVAE
from recvae.models.common.networks import initialise

RANDOM_WIDTHS = (600, 200)  # of the hidden layer and the latent variables, as in Liang et al.


@dataclass(frozen=True)
class Times:
    """Seconds that one side took.

    Parameters
    ----------
    name : str
        Which side it is.
    seconds : ndarray of shape (n_rounds,)
        Of each counted round.
    """

    name: str
    seconds: np.ndarray

    @property
    def median(self) -> float:
        """The middle one."""
        return float(np.median(self.seconds))

    def ratio(self, other: "Times") -> tuple[float, float, float]:
        """Return how many times as long as the other this one took: median, least and most, round by round."""
        ratios = self.seconds / other.seconds
        return float(np.median(ratios)), float(ratios.min()), float(ratios.max())

    def to_json(self) -> dict[str, Any]:
        """Return median, least and most, and all rounds."""
        return {
            "median": self.median,
            "low": float(self.seconds.min()),
            "high": float(self.seconds.max()),
            "rounds": self.seconds.tolist(),
        }


class MemoryMeter:
    """Resident memory of this process since the last `start`, where Linux tells."""

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
        highest = self.peak()
        return None if highest is None or self._before is None else highest - self._before

    def peak(self) -> int | None:
        """Return the highest in bytes, all told."""
        return self._bytes("VmHWM")

    @staticmethod
    def _bytes(field: str) -> int | None:
        try:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def by_turns(sides: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, Times]:
    """Call each side once per round and time it.

    Parameters
    ----------
    sides : mapping of str to callable
        What to call, by name.
    rounds, warm_up : int
        Rounds that count, >= 1, and rounds before that do not.

    Returns
    -------
    dict of str to Times
        By name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warm_up + rounds):
        for name, call in sides.items():
            started = time.perf_counter()
            call()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return {name: Times(name, np.array(taken)) for name, taken in seconds.items()}


def machine() -> dict[str, Any]:
    """Say what the figures are taken on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine_line() -> str:
    """Say it in one line."""
    known = machine()
    gpu = f", {known['gpu']}" if known["gpu"] else ""
    load = "" if known["load"] is None else f", load {known['load']:.1f} at the start"
    return (
        f"{known['processor']}, {known['cores']} cores{gpu}{load}; Python {known['python']}, "
        f"PyTorch {known['torch']} with {known['threads']} threads"
    )


def random_run(folder: Path, n_items: int) -> MultVAE:
    """Leave a bundle of a Mult-VAE with weights drawn at random, and return the model.

    Neither speed nor memory depend on what they are.
    """
    model = MultVAE(hidden_dims=RANDOM_WIDTHS[:1], latent_dim=RANDOM_WIDTHS[1])
    network = model._network(n_items)
    initialise(network, torch.Generator().manual_seed(1))
    model.load_weights({name: value.numpy() for name, value in network.state_dict().items()})
    titles = np.array([f"Item {column}" for column in range(n_items)], dtype=object)
    items = ItemIndex(ids=np.arange(n_items), titles=titles, train_counts=np.arange(n_items)[::-1].copy())
    write_bundle(folder, Bundle(model=model, items=items, manifest={"name": "random"}))
    return model


def write_results(path: Path | None, benchmark: str, shape: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write what was measured as JSON; nothing where there is no path."""
    if path is None:
        return
    content = {
        "benchmark": benchmark,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "shape": dict(shape),
        "results": dict(results),
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
