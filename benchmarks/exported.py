"""One user's scores by PyTorch, ONNX and ONNX in 8 bits, by turns in one process; and a service from nothing.

    python benchmarks/exported.py --rounds 200
    python benchmarks/exported.py --run runs/ml-1m/multvae --data data/ml-1m

The model is a Mult-VAE of random weights: speed does not depend on them. The floor is the product of the last layer
alone, in numpy. "From nothing" is a process that imports `recvae.serving.onnx`, loads and answers. With a run and its
data set, the validation NDCG@100 of all three is measured too.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from measuring import RANDOM_WIDTHS, Times, by_turns, machine_line, random_run, write_results
from recvae import Dataset, MultVAE, Recommender
from recvae.exports.scorer import OnnxScorer
from recvae.exports.writing import export
from recvae.metrics import ndcg_at_k

HIDDEN, LATENT = RANDOM_WIDTHS
PROMISED_RATIO, PROMISED_START, PROMISED_NDCG = 1.5, 2.0, 0.002  # at least, seconds at most, at most
_START = """
from recvae.serving.onnx import OnnxRecommender
recommender = OnnxRecommender.load({folder!r})
assert len(recommender.recommend(recommender.item_ids[:20].tolist(), k=10)) == 10
"""


def sides_of(model: MultVAE, folders: dict[str, Path], n_history: int) -> dict[str, Callable[[], object]]:
    """Return what scores one user, by name."""
    n_items = model.n_items_
    items = np.sort(np.random.default_rng(2).choice(n_items, n_history, replace=False)).astype(np.int64)
    csr = (items, np.array([0, n_history]), np.ones(n_history, dtype=np.float32))
    row = sp.csr_matrix((csr[2], csr[0], csr[1]), shape=(1, n_items))
    scorers = {name: OnnxScorer.load(folder, torch.get_num_threads()) for name, folder in folders.items()}
    weight = np.random.default_rng(3).random((n_items, HIDDEN), dtype=np.float32)
    hidden = np.ones(HIDDEN, dtype=np.float32)
    return {
        "torch": lambda: model.score(row),
        **{name: lambda scorer=scorer: scorer.score(*csr) for name, scorer in scorers.items()},
        "floor": lambda: weight @ hidden,
    }


def start(folder: Path) -> None:
    """Load an export and answer, in a process of its own."""
    subprocess.run([sys.executable, "-c", _START.format(folder=str(folder))], check=True)


def quality(run: Path, data: Path, place: Path) -> dict[str, float]:
    """Return the validation NDCG@100 of a run by PyTorch, ONNX and ONNX in 8 bits."""
    users = Dataset.load(data).validation
    rows = users.fold_in
    found = {"torch": Recommender.load(run).model.recommend(rows, 100)[0]}
    for name, quantize in (("onnx", None), ("onnx-int8", "int8")):
        scorer = OnnxScorer.load(export(run, quantize=quantize, output=place / f"quality-{name}").folder)
        found[name] = scorer.top_k(rows.indices, rows.indptr, rows.data, 100)[0]
    return {name: float(np.nanmean(ndcg_at_k(ranked, users.targets, 100))) for name, ranked in found.items()}


def table(times: dict[str, Times], starts: dict[str, Times], ndcg: dict[str, float]) -> str:
    """Return what was measured, and the promises."""
    lines = [f"{'one user':<12}  median ms   min ms   times float32 ONNX is slower"]
    for name, side in times.items():
        ratio, low, high = times["onnx"].ratio(side)
        speed = f"{ratio:.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"{name:<12}  {1e3 * side.median:9.3f}  {1e3 * side.seconds.min():7.3f}   {speed}")
    lines.append(f"promised for 8 bits: {PROMISED_RATIO} times as fast at least")
    lines += [f"{name} from nothing: {side.median:.2f} s (promised: {PROMISED_START})" for name, side in starts.items()]
    lines += [f"validation ndcg@100 by {name}: {value:.4f}" for name, value in ndcg.items()]
    if ndcg:
        lost = ndcg["torch"] - ndcg["onnx-int8"]
        lines.append(f"8 bits cost {lost:+.4f} (promised: {PROMISED_NDCG} at most)")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="One user's scores by PyTorch, ONNX, and ONNX in 8 bits.")
    parser.add_argument("--items", type=int, default=20_108)
    parser.add_argument("--history", type=int, default=100, help="items of the user")
    parser.add_argument("--rounds", type=int, default=200, help="counted rounds")
    parser.add_argument("--starts", type=int, default=5, help="counted processes of each side")
    parser.add_argument("--run", type=Path, help="a bundle whose NDCG is measured, with --data")
    parser.add_argument("--data", type=Path, help="its data set")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args(arguments)
    if min(given.rounds, given.starts, given.history) < 1 or given.items <= given.history:
        parser.error("--rounds, --starts and --history must be 1 or more, --items more than --history")
    if (given.run is None) != (given.data is None):
        parser.error("--run and --data go together")
    print(machine_line())
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = random_run(place / "run", given.items)
        exports = {"onnx": export(place / "run"), "onnx-int8": export(place / "run", quantize="int8")}
        folders = {name: made.folder for name, made in exports.items()}
        times = by_turns(sides_of(model, folders, given.history), given.rounds, warm_up=min(20, given.rounds))
        starts = by_turns({name: lambda at=at: start(at) for name, at in folders.items()}, given.starts)
        ndcg = {} if given.run is None else quality(given.run, given.data, place)
    print(table(times, starts, ndcg))
    shape = {"items": given.items, "hidden": HIDDEN, "latent": LATENT, "history": given.history}
    results: dict[str, Any] = {name: side.to_json() for name, side in times.items()}
    results["starts"] = {name: side.to_json() for name, side in starts.items()}
    write_results(given.json, "exported", shape, {**results, "ndcg@100": ndcg})


if __name__ == "__main__":
    main()
