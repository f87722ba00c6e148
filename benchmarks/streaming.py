"""Training from shards on disk against training in memory: memory and time, and what the order of users costs.

    python benchmarks/streaming.py --users 300000 --items 2000 --buffer 20MB --rounds 3
    python benchmarks/streaming.py --data-dir data --data ml-1m --seeds 3 --set epochs=10

Without --data, interactions are made up and written in shards; each side then is a process of its own, by turns, that
says how much memory it had at most, all told, and how long an epoch took, by the clock and by the processor. Made-up
interactions have no structure, so that only these figures mean anything.

With --data, the training users of that data set are put into 20 shards in three orders: as they lie, sorted by the
length of their history, and sorted by their first item. The same model is trained on each through buffers of 5 and 20 %
of the users, and in memory, and NDCG@100 of the validation users is compared over seeds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from measuring import MemoryMeter, machine_line, write_results
from recvae.compute.memory import human_bytes, parse_bytes
from recvae.datasets.dataset import Dataset
from recvae.datasets.shards import Shard, ShardedMatrix, shard_name, write_shard
from recvae.datasets.splits.base import Split
from recvae.datasets.streams import StreamedMatrix
from recvae.errors import MemoryLimitError
from recvae.interactions import HeldOut
from recvae.models import model_class
from recvae.models.common.hyperparameters import build, parse_settings
from recvae.training.batches import SparseRows
from recvae.training.records import NullMonitor, StopTraining

SHARDS = 20
SHARES = (0.05, 0.2)  # of the users in the buffer
PER_USER = 60  # interactions
_HELD_OUT = 500
_SMALL = ["hidden_dims=32", "latent_dim=16", "epochs=2"]  # so that reading counts as much as it can


class Watch(NullMonitor):
    """A monitor that keeps when each epoch ended, by the clock and by the processor."""

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.processor: list[float] = []

    def start(self, epochs: int, done: list[Any]) -> None:  # noqa: ARG002  (every monitor's signature)
        """Note when training begins."""
        self.epoch(None)

    def epoch(self, record: Any) -> StopTraining | None:  # noqa: ARG002
        """Note when an epoch has ended."""
        self.clock.append(time.perf_counter())
        self.processor.append(time.process_time())
        return None


def made_up(n_users: int, n_items: int) -> Dataset:
    """Return users with `PER_USER` draws of items by a Zipf law, each item once."""
    rng = np.random.default_rng(0)
    share = 1.0 / np.arange(1, n_items + 1) ** 0.8
    columns = np.searchsorted(np.cumsum(share / share.sum()), rng.random((n_users, PER_USER))).clip(max=n_items - 1)
    rows = np.repeat(np.arange(n_users), PER_USER)
    matrix = sp.csr_matrix((np.ones(columns.size, dtype=np.float32), (rows, columns.ravel())), (n_users, n_items))
    matrix.data[:] = 1.0  # draws of one item were added up
    fold_in, targets = matrix[:_HELD_OUT], matrix[_HELD_OUT : 2 * _HELD_OUT]
    held_out = HeldOut(fold_in=fold_in, targets=sp.csr_matrix(targets - targets.multiply(fold_in)))
    split = Split(train=matrix, validation=held_out, test=held_out, item_ids=np.arange(n_items))
    return Dataset.from_split(split, name="made-up")


def work(given: argparse.Namespace) -> None:
    """Train in this process, and print what it took."""
    meter, started = MemoryMeter(), time.perf_counter()
    stream = given.work == "streamed"
    options = {"stream": True, "buffer": parse_bytes(given.buffer)} if stream else {}
    dataset = Dataset.load(given.data_dir, **options)
    loaded, of_data, watch = time.perf_counter() - started, meter.peak(), Watch()
    limit = parse_bytes(given.max_memory) if stream and given.max_memory else None
    _model(given).fit(dataset, device="cpu", monitor=watch, max_memory=limit)
    found = {"loading": loaded, "peak_of_loading": of_data, "peak": meter.peak()}
    found |= {name: times[-1] - times[-2] for name, times in (("clock", watch.clock), ("processor", watch.processor))}
    print(json.dumps(found))


_TIMES = ("clock", "processor")


def _model(given: argparse.Namespace, *more: str) -> Any:
    kind = model_class(given.model)
    return build(kind, parse_settings(kind, [*given.set, *more]))


def compare_costs(given: argparse.Namespace) -> dict[str, Any]:
    """Return what each side took in each round."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "made-up"
        dataset = made_up(given.users, given.items)
        size = SparseRows.bytes_of(dataset.train)
        dataset.save(home, shards=True)
        try:
            if given.max_memory:
                _model(given).fit(dataset, device="cpu", max_memory=parse_bytes(given.max_memory))
        except MemoryLimitError as error:
            print(f"in memory, with --max-memory {given.max_memory}: {error}")
        del dataset
        rounds: dict[str, list[dict[str, float]]] = {"in memory": [], "streamed": []}
        words = [sys.executable, __file__, "--data-dir", str(home), "--buffer", given.buffer, "--model", given.model]
        words += [word for setting in given.set for word in ("--set", setting)]
        words += ["--max-memory", given.max_memory] if given.max_memory else []
        for _ in range(given.rounds):
            for side, found in rounds.items():
                done = subprocess.run([*words, "--work", side], check=True, capture_output=True, text=True)
                found.append(json.loads(done.stdout))
    print(f"training rows: {human_bytes(size)} to cut batches from; buffer {given.buffer}")
    print("| | memory of the process | while loading | loading | epoch, by the clock | epoch, processor |")
    print("|---|---:|---:|---:|---:|---:|")
    for side, found in rounds.items():
        middle = {name: float(np.median([one[name] for one in found])) for name in found[0]}
        sizes = " | ".join(human_bytes(middle[name]) for name in ("peak", "peak_of_loading"))
        print(f"| {side} | {sizes} | " + " | ".join(f"{middle[n]:.1f} s" for n in ("loading", *_TIMES)) + " |")
    return {"bytes": size, "rounds": rounds}


def in_shards(folder: Path, matrix: sp.csr_matrix) -> ShardedMatrix:
    """Write rows in `SHARDS` files of as many users each."""
    shards = []
    for number, rows in enumerate(np.array_split(np.arange(matrix.shape[0]), SHARDS)):
        part, name = matrix[rows], shard_name("train", number)
        found: dict[str, Any] = write_shard(folder / name, part.indptr.astype(np.int64), part.indices, part.data)
        shards.append(Shard(file=name, **found))
    return ShardedMatrix(folder, tuple(shards), matrix.shape[1])


def orders_of(matrix: sp.csr_matrix) -> dict[str, np.ndarray]:
    """Return orders of users (U,): as they lie, and two that put alike users together."""
    first = np.full(matrix.shape[0], matrix.shape[1])
    filled = np.diff(matrix.indptr) > 0
    first[filled] = matrix.indices[matrix.indptr[:-1][filled]]
    return {
        "as they lie": np.arange(matrix.shape[0]),
        "by length": np.argsort(np.diff(matrix.indptr), kind="stable"),
        "by first item": np.argsort(first, kind="stable"),
    }


def _ways(matrix: sp.csr_matrix, folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield each way to read the users, by name."""
    for name, order in orders_of(matrix).items():
        rows = sp.csr_matrix(matrix[order])
        yield f"{name}, in memory", rows
        shards = in_shards(folder / name, rows)
        for share in SHARES:
            yield f"{name}, buffer of {share:.0%}", StreamedMatrix(shards, round(share * SparseRows.bytes_of(rows)))


def compare_quality(given: argparse.Namespace) -> dict[str, Any]:
    """Return validation NDCG@100 of each way by seed."""
    dataset, found = Dataset.load(given.data_dir / given.data), dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as folder:
        for name, train in _ways(dataset.train, Path(folder)):
            found[name] = []
            for seed in range(given.seeds):
                model = _model(given, f"seed={seed}").fit(train, dataset.validation, device="cpu")
                found[name].append(max(record.ndcg for record in model.log_))
            print(f"| {name} | {np.mean(found[name]):.4f} | {' '.join(f'{value:.4f}' for value in found[name])} |")
    return {"ndcg@100": found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder of data sets")
    parser.add_argument("--data", help="name of a prepared data set, to compare orders of its users")
    parser.add_argument("--users", type=int, default=300_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--buffer", default="20MB", help="training rows in memory at a time")
    parser.add_argument("--max-memory", help="that the streamed side may take, and the other one could not")
    parser.add_argument("--model", default="multvae")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a hyperparameter")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        work(given)
        return
    if not given.data:
        given.set = given.set or _SMALL
    print(machine_line())
    found = compare_quality(given) if given.data else compare_costs(given)
    if given.json is not None:
        shape = {key: str(value) for key, value in vars(given).items() if key not in ("json", "work")}
        write_results(given.json, "streaming", shape, found)


if __name__ == "__main__":
    main()
