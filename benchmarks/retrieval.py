"""One user's list from an index of item vectors and from the scores of all items, by turns in one process.

    python benchmarks/retrieval.py --run runs/amazon-cds/multdae --data data/amazon-cds --times 28

The vectors are those of a trained run. `--times` makes the catalogue as many times as large: each new item lies between
an item and one of its ten nearest, in item layer and bias, with noise of a twentieth of the standard deviation; the
encoder has the weights of the item itself. So queries and the way vectors lie together are those of the trained model.
What is timed is `Recommender.recommend`, from ids to ids, with the encoder. Recall and the number of lists are those
that `recvae export --format index` measures and chooses, on users of the data set.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import scipy.sparse as sp

from measuring import MemoryMeter, by_turns, machine_line, write_results
from recvae import Dataset, HeldOut, Model, Recommender, export, read_bundle
from recvae.bundles.bundle import Bundle, write_bundle
from recvae.items import ItemIndex

_NEAREST, _NOISE = 10, 0.05
_K = 10

# Letters in shape comments: I items, M items made of them, W width of a vector, U users.


def enlarged(model: Model, times: int) -> Model:
    """Return a model like another one with more items.

    Parameters
    ----------
    model : Model
        Fitted, with item vectors.
    times : int
        As many times as many items, >= 1; the first ones are the model's own.
    """
    if times == 1:
        return model
    vectors, bias = model.item_vectors()  # (I, W), (I,)
    whole = vectors if bias is None else np.column_stack([vectors, bias])  # (I, W)
    whole = np.ascontiguousarray(whole, dtype=np.float32)
    n_items, generator = len(whole), np.random.default_rng(0)
    nearest: Any = faiss.index_factory(whole.shape[1], f"IVF{max(1, n_items // 100)},Flat")
    nearest.train(whole)
    nearest.add(whole)
    nearest.nprobe = 4
    others = nearest.search(whole, _NEAREST + 1)[1][:, 1:]  # (I, 10)
    parents = np.tile(np.arange(n_items), times - 1)  # (M,)
    partners = others[parents, generator.integers(0, _NEAREST, len(parents))]  # (M,)
    partners = np.where(partners < 0, parents, partners)
    share = generator.random((len(parents), 1), dtype=np.float32)
    made = whole[parents] + share * (whole[partners] - whole[parents])  # (M, W)
    made += _NOISE * whole.std(axis=0) * generator.standard_normal(made.shape, dtype=np.float32)
    of_items = np.concatenate([whole, made])
    new = {}
    for name, array in model.weights().items():
        if array is bias or np.shares_memory(array, vectors) or np.array_equal(array, vectors):
            new[name] = of_items[:, : vectors.shape[1]] if array.ndim == 2 else of_items[:, -1]
        elif bias is not None and array.shape == bias.shape and np.array_equal(array, bias):
            new[name] = of_items[:, -1]
        else:
            new[name] = np.concatenate([array, array[parents]]) if len(array) == n_items else array
    return replace(model).load_weights({name: np.ascontiguousarray(array) for name, array in new.items()})


def widened(held_out: HeldOut, n_items: int) -> HeldOut:
    """Return the same users with more items, which they have not."""
    users = held_out.n_users
    fold_in, targets = (
        sp.csr_matrix((one.data, one.indices, one.indptr), shape=(users, n_items))
        for one in (held_out.fold_in, held_out.targets)
    )
    return HeldOut(fold_in=fold_in, targets=targets)


def measured(run: Path, data: Path, times: int, rounds: int, place: Path) -> dict[str, Any]:
    """Return recall, sizes and times of a run's index."""
    bundle, dataset = read_bundle(run), Dataset.load(data)
    model = enlarged(bundle.model, times)
    n_items = model.n_items_
    counts = np.tile(bundle.items.train_counts, times)
    items = ItemIndex(ids=np.arange(n_items), titles=None, train_counts=counts)
    write_bundle(place, Bundle(model=model, items=items, manifest={"name": "enlarged"}))
    held_out = widened(dataset.validation, n_items)
    width = model.item_vectors()[0].shape[1]
    del model, bundle
    started = time.perf_counter()
    made = export(place, format="index", min_recall=0.0, held_out=held_out)
    seconds = time.perf_counter() - started
    exact = Recommender.load(place)
    memory = MemoryMeter()
    memory.start()
    started = time.perf_counter()
    by_index = Recommender.load(place, retrieval=True)
    loading = time.perf_counter() - started
    lengths = np.diff(held_out.fold_in.indptr)
    users = np.flatnonzero(lengths)[: rounds + 20]
    histories = [held_out.fold_in.indices[slice(*held_out.fold_in.indptr[user : user + 2])].tolist() for user in users]

    def answer(recommender: Recommender) -> Any:
        turns = iter(histories * 3)
        return lambda: recommender.recommend(next(turns), k=_K)

    found = by_turns({"all items": answer(exact), "index": answer(by_index)}, rounds, warm_up=20)
    batch = {
        "all items": lambda: exact.recommend_batch(histories[:64], k=_K),
        "index": lambda: by_index.recommend_batch(histories[:64], k=_K),
    }
    of_batch = by_turns(batch, 3)
    return {
        "items": n_items,
        "width": width,
        "history": float(np.median(lengths[users])),
        "lists": made.card["lists"],
        "n_lists": made.card["n_lists"],
        "check": made.card["check"],
        "bytes": made.n_bytes,
        "export seconds": seconds,
        "load seconds": loading,
        "one user": {name: side.to_json() for name, side in found.items()},
        "64 users": {name: side.to_json() for name, side in of_batch.items()},
    }


def table(found: dict[str, Any]) -> str:
    """Return what was measured."""
    recall = ", ".join(f"{share:.2%} of the top {k}" for k, share in found["check"]["overlap"].items())
    lines = [
        f"{found['items']:,} items, vectors of {found['width']} numbers: index of {found['bytes'] / 1e6:,.0f} MB, "
        f"exported in {found['export seconds']:.0f} s, loaded with its run in {found['load seconds']:.2f} s",
        f"{found['lists']:,} of {found['n_lists']:,} lists: {recall} of {found['check']['rows']} users",
        f"{'':<10}  {'one user: median, least ms':>26}  {'64 users: median ms':>19}",
    ]
    for name, side in found["one user"].items():
        batch = found["64 users"][name]["median"]
        lines.append(f"{name:<10}  {1e3 * side['median']:17.3f} {1e3 * side['low']:8.3f}  {1e3 * batch:19.1f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="One user's list from an index and from all scores.")
    parser.add_argument("--run", type=Path, required=True, help="a trained bundle")
    parser.add_argument("--data", type=Path, required=True, help="its data set")
    parser.add_argument("--times", type=int, default=1, help="make the catalogue as many times as large")
    parser.add_argument("--rounds", type=int, default=200, help="counted rounds")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args(arguments)
    if min(given.rounds, given.times) < 1:
        parser.error("--rounds and --times must be 1 or more")
    print(machine_line())
    with tempfile.TemporaryDirectory() as name:
        found = measured(given.run, given.data, given.times, given.rounds, Path(name) / "run")
    print(table(found))
    write_results(given.json, "retrieval", {"times": given.times, "run": str(given.run)}, found)


if __name__ == "__main__":
    main()
