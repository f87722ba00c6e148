"""SANSA against EASE: NDCG@100 of held-out users by entries per item, and time and memory as the catalogue grows.

    python benchmarks/sansa.py --data DATA_SET ...               # data sets that `recvae preprocess` has prepared
    python benchmarks/sansa.py --shape 116677 20108 8500000      # made up, as large as MovieLens-20M
    python benchmarks/sansa.py --grow 50000 200000               # items; 20 interactions each, popularity by Zipf

EASE is fitted where its items x items blocks fit into memory. Made-up users are those of `recvae.synthetic_log`; the
last 1,000 are held out, with 20 % of their items as targets. Where items grow, each fit has a process of its own.
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
import scipy.sparse as sp

from epoch import made_up
from measuring import MemoryMeter, machine_line, write_results
from recvae import EASE, SANSA, Dataset
from recvae.errors import MemoryLimitError
from recvae.interactions import HeldOut
from recvae.models import Model
from recvae.training.validation import validation_ndcg

HELD_OUT, TARGETS = 1_000, 0.2  # made-up users, and the share of their items
PER_ITEM, PER_USER = 20, 40  # interactions where items grow
ZIPF = 0.8  # exponent of popularity
LONGEST = 5_000  # items of a user


def held_out_of(everyone: sp.csr_matrix, n_users: int) -> tuple[sp.csr_matrix, HeldOut]:
    """Return training users, and the last ones as held-out users.

    Parameters
    ----------
    everyone : csr_matrix of shape (n_users, n_items), float32
        All users.
    n_users : int
        How many are held out.
    """
    train, rest = everyone[:-n_users], everyone[-n_users:]
    chosen = np.random.default_rng(0).random(rest.nnz) < TARGETS
    targets = sp.csr_matrix(rest.multiply(sp.csr_matrix((chosen, rest.indices, rest.indptr), rest.shape)))
    targets.eliminate_zeros()
    return train, HeldOut.of((rest - targets, targets), everyone.shape[1])


def long_tail(n_items: int) -> sp.csr_matrix:
    """Return made-up interactions of many items: lengths of users log-normal, popularity by Zipf.

    Parameters
    ----------
    n_items : int
        Columns; there are half as many users.
    """
    rng = np.random.default_rng(0)
    n_users, n_interactions = n_items * PER_ITEM // PER_USER, n_items * PER_ITEM
    lengths = np.minimum(rng.lognormal(3.0, 1.0, n_users) + 1, LONGEST)
    lengths = (lengths * (n_interactions / lengths.sum())).astype(np.int64) + 1
    popularity = np.cumsum(np.arange(1, n_items + 1) ** -ZIPF)
    items = np.searchsorted(popularity, rng.random(lengths.sum()) * popularity[-1])
    users = np.repeat(np.arange(n_users), lengths)
    rows = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=(n_users, n_items))
    rows.data[:] = 1.0  # pairs drawn twice
    return rows


def fitted(model: Model, train: sp.csr_matrix, held_out: HeldOut | None = None) -> dict[str, Any]:
    """Fit a model and return what it took, and the NDCG@100 of the held-out users.

    Parameters
    ----------
    model : Model
        Not fitted.
    train : csr_matrix of shape (n_users, n_items), float32
        The interactions.
    held_out : HeldOut, optional
        Whom to measure by.
    """
    meter = MemoryMeter()
    meter.start()
    started, of_process = time.perf_counter(), time.process_time()
    model.fit(train)
    seconds, processor = time.perf_counter() - started, time.process_time() - of_process
    return {
        "model": model.name,
        "l2": (model.training_summary().from_data or {}).get("l2", getattr(model, "l2", None)),
        "entries": getattr(model, "entries", None),
        "ndcg@100": None if held_out is None else validation_ndcg(model._score_block, held_out),
        "seconds": seconds,
        "processor seconds": processor,
        "bytes": meter.growth(),
        "weights": sum(array.nbytes for array in model.weights().values()),
    }


def line(what: str, shape: tuple[int, ...], found: dict[str, Any]) -> str:
    """Return a row of a Markdown table.

    Parameters
    ----------
    what : str
        Which data.
    shape : tuple of int
        Users and items.
    found : dict
        Of `fitted`.
    """
    name = found["model"] + (f", {found['entries']} entries" if found["entries"] else "")
    quality = "-" if found["ndcg@100"] is None else f"{found['ndcg@100']:.4f}"
    memory = "unknown" if found["bytes"] is None else f"{found['bytes'] / 1e9:.2f} GB"
    return (
        f"| {what} | {shape[0]:,} x {shape[1]:,} | {name} | {found['l2']:g} | {quality} | {found['seconds']:.1f} s "
        f"({found['processor seconds']:.1f}) | {memory} | {found['weights'] / 1e6:.1f} MB |"
    )


def compared(train: sp.csr_matrix, held_out: HeldOut, what: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Fit SANSA with each number of entries and each l2, and EASE; print a row of each.

    Parameters
    ----------
    train, held_out : csr_matrix and HeldOut
        The data.
    what : str
        Its name.
    given : Namespace
        What the command line says.
    """
    models: list[Model] = [SANSA(l2=l2, entries=n) for n in given.entries for l2 in given.l2]
    models += [EASE(l2=l2) for l2 in given.l2 if not given.no_ease]
    results = []
    for model in models:
        try:
            results.append(fitted(model, train, held_out) | {"data": what})
        except MemoryLimitError as error:
            print(f"| {what} | {train.shape[0]:,} x {train.shape[1]:,} | {error} |", flush=True)
        else:
            print(line(what, train.shape, results[-1]), flush=True)
    return results


def measured_apart(n_items: int, entries: int) -> dict[str, Any]:
    """Have a process of its own fit SANSA to that many items, and return what it says."""
    command = [sys.executable, __file__, "--point", str(n_items), str(entries)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="SANSA against EASE, and as the catalogue grows.")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of prepared data sets")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("USERS", "ITEMS", "INTERACTIONS"), help="made up")
    parser.add_argument("--grow", type=int, nargs="*", default=[], help="numbers of items, made up")
    parser.add_argument("--entries", type=int, nargs="+", default=[10, 50, 200], help="entries per item")
    parser.add_argument("--l2", type=float, nargs="+", default=[50.0, 500.0], help="of both models")
    parser.add_argument("--no-ease", action="store_true", help="leave EASE out")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--point", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.point:
        train = long_tail(given.point[0])
        found = fitted(SANSA(entries=given.point[1]), train)
        print(json.dumps(found | {"shape": train.shape, "interactions": train.nnz, "peak": MemoryMeter().peak()}))
        return
    print(machine_line())
    print("\n| data | users x items | model | l2 | NDCG@100 | fit (processor) | memory grew by | weights |")
    print("|---|---|---|---|---|---|---|---|")
    results = []
    for folder in given.data:
        data = Dataset.load(folder)
        if data.validation is not None:
            results += compared(data.train, data.validation, folder.name, given)
    if given.shape:
        results += compared(*held_out_of(made_up(*given.shape), HELD_OUT), "made up", given)
    for n_items in given.grow:
        found = measured_apart(n_items, given.entries[0])
        print(line("long tail", tuple(found["shape"]), found), flush=True)
        results.append(found)
    write_results(given.json, "sansa", {"entries": given.entries, "l2": given.l2}, {"fits": results})


if __name__ == "__main__":
    main()
