"""Fitting EASE on the CPU against the least that an inverse of that size takes. Sides go by turns.

Up to 20,480 items this is LAPACK's own Cholesky factor and inverse (spotrf, spotri); what EASE takes beyond them is
X^T X, the mirrored triangle and the division by the diagonal. Beyond, where LAPACK may end the process, it is as many
operations as an inverse of a symmetric matrix has, n^3 (half of them multiplications), in products of tiles: a
twentieth of them is timed.

    python benchmarks/ease.py --rounds 3 --json ease.json
    python benchmarks/ease.py --users 60000 --items 33000 --interactions 1500000 --rounds 1 --warm-up 0

The interactions are made up by `recvae.synthetic_log`; by default as many users, items and interactions as the
training matrix of MovieLens-20M has after the filters of Liang et al. (2018).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from scipy.linalg.lapack import spotrf, spotri

from epoch import made_up
from measuring import MemoryMeter, Times, by_turns, machine_line, write_results
from recvae import EASE
from recvae.compute.inverse import _LAPACKS, _SIDE, _TILE
from recvae.compute.matmul import product
from recvae.models.ease import gram_matrix

USERS, ITEMS, INTERACTIONS = 116_677, 20_108, 8_500_000
SCORED = 1_000  # users

# Letters in shape comments: I items.


class Floor:
    """A symmetric positive definite block, inverted in place: so is the inverse, which the next round begins with.

    Parameters
    ----------
    n_items : int
        Rows and columns.
    """

    def __init__(self, n_items: int) -> None:
        self.block = np.full((n_items, n_items), 0.5 / n_items, dtype=np.float32, order="F")  # (I, I)
        self.block[np.diag_indices_from(self.block)] += 1

    def __call__(self) -> None:
        """Factor and invert."""
        factor, failed = spotrf(self.block, lower=True, clean=False, overwrite_a=True)
        self.block, failed_too = spotri(factor, lower=True, overwrite_c=True)
        assert not failed and not failed_too


class Products:
    """A share of the n^3 operations of an inverse, half of them multiplications, in products of tiles in the cache.

    Parameters
    ----------
    n_items : int
        Rows and columns of what would be inverted.
    """

    SHARE = 1 / 20

    def __init__(self, n_items: int) -> None:
        self.left, self.right = torch.randn(_TILE, _SIDE), torch.randn(_SIDE, _TILE)
        self.times = max(1, round(self.SHARE * n_items**3 / 2 / (_TILE * _SIDE * _TILE)))

    def __call__(self) -> None:
        """Multiply."""
        for _ in range(self.times):
            product(self.left, self.right)


def measure(train: sp.csr_matrix, rounds: int, warm_up: int) -> tuple[dict[str, Times], int | None]:
    """Return what fitting, the floor, X^T X alone and ranking took, and by how much memory grew while fitting.

    Parameters
    ----------
    train : csr_matrix of shape (n_users, n_items), float32
        The interactions.
    rounds, warm_up : int
        Rounds that count, and rounds before that do not.
    """
    meter = MemoryMeter()
    meter.start()
    fitted = EASE().fit(train)
    growth = meter.growth()
    n_items = train.shape[1]
    sides = {
        "fit": lambda: EASE().fit(train),
        "floor": Floor(n_items) if n_items <= _LAPACKS else Products(n_items),
        "X^T X": lambda: gram_matrix(train),
        "ranking": lambda: fitted.recommend(train[:SCORED], k=100),
    }
    times = by_turns(sides, rounds, warm_up)
    if n_items > _LAPACKS:
        times["floor"] = Times("floor", times["floor"].seconds / Products.SHARE)
    return times, growth


def table(times: dict[str, Times], growth: int | None, n_items: int) -> str:
    """Return what was measured, one line per side, with the ratio to the floor.

    Parameters
    ----------
    times : dict of str to Times
        What each side took.
    growth : int or None
        Bytes that memory grew by while fitting, where the system tells.
    n_items : int
        Of the block.
    """
    lines = [f"{'':<8} median s    min s    max s   of the floor"]
    for name, side in times.items():
        median, low, high = side.ratio(times["floor"])
        seconds = f"{side.median:8.2f} {side.seconds.min():8.2f} {side.seconds.max():8.2f}"
        lines.append(f"{name:<8} {seconds}   {median:.2f}, {low:.2f} to {high:.2f} round by round")
    memory = "unknown" if growth is None else f"{growth / 1e9:.2f} GB, {growth / (4 * n_items**2):.2f} blocks"
    floor = "spotrf and spotri in place" if n_items <= _LAPACKS else "n^3 operations in products of tiles"
    lines.append(f"floor: {floor}; memory grew by {memory} while fitting")
    lines.append(f"ranking: the best 100 items of {SCORED:,} users at most")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="Fitting EASE: recvae against LAPACK's factor and inverse alone.")
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--interactions", type=int, default=INTERACTIONS, help="at least 20 per user")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds")
    parser.add_argument("--warm-up", type=int, default=1, help="rounds before that do not count")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    print(machine_line())
    train = made_up(given.users, given.items, given.interactions)
    shape = {"users": train.shape[0], "items": train.shape[1], "interactions": train.nnz}
    print(f"EASE: {shape['users']:,} users x {shape['items']:,} items, {shape['interactions']:,} interactions")
    times, growth = measure(train, given.rounds, given.warm_up)
    print(table(times, growth, train.shape[1]))
    results = {name: side.to_json() for name, side in times.items()}
    ratio = dict(zip(("median", "low", "high"), times["fit"].ratio(times["floor"]), strict=True))
    write_results(given.json, "ease", shape, results | {"fit / floor": ratio, "bytes while fitting": growth})


if __name__ == "__main__":
    main()
