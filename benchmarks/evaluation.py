"""Evaluating Mult-VAE 600-200 on the CPU against the two steps that no full ranking can do without.

These are the matrix product of the decoder's last layer, in blocks of 500 users, and `torch.topk` of 100 items: with
PyTorch's own product ("pytorch"), and with the fastest that we know ("floor", recvae/compute/matmul.py). Ours
is `evaluate` from sparse rows to the values of every metric: encoder, decoder, mask, ranking, hits, metrics; and
`validation_ndcg`, what training does after each epoch. Sides go by turns.

    python benchmarks/evaluation.py --rounds 5 --json evaluation.json

The users are made up by `recvae.synthetic_log`, 80 % of each one's items are given and the others are targets. The
network has its initial weights, which takes no less time than trained ones.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import scipy.sparse as sp
import torch

from dense import HIDDEN, LATENT
from epoch import made_up
from measuring import MemoryMeter, Times, by_turns, machine_line, write_results
from recvae import MultVAE
from recvae.compute.matmul import linear_product
from recvae.evaluation.evaluate import evaluate
from recvae.interactions import HeldOut
from recvae.metrics import METRICS, NAMES, parse_metrics
from recvae.models.common.networks import initialise
from recvae.models.multvae import MultVAENetwork
from recvae.training.validation import validation_ndcg

K = 100
BLOCK = 500  # users of a block of the floor
CUTOFFS = (20, 50, K)

# Letters in shape comments: U users, B of a block, I items, H width of the hidden layer.


def fold(users: sp.csr_matrix, share: float = 0.8) -> HeldOut:
    """Return users of whom some interactions, drawn at random, are given, and the others wanted.

    Parameters
    ----------
    users : csr_matrix of shape (n_users, n_items), float32
        Their interactions.
    share : float
        Of the interactions that are given.
    """
    given = (np.random.default_rng(0).random(users.nnz) < share).astype(np.float32)
    parts = (sp.csr_matrix((kept, users.indices, users.indptr), shape=users.shape) for kept in (given, 1 - given))
    return HeldOut.of(tuple(parts), users.shape[1])  # type: ignore[arg-type]


def untrained(n_items: int) -> MultVAE:
    """Return a Mult-VAE that scores with its initial weights.

    Parameters
    ----------
    n_items : int
        Width of input and output.
    """
    model = MultVAE(hidden_dims=(HIDDEN,), latent_dim=LATENT)
    network = model._network(n_items)
    initialise(network, torch.Generator().manual_seed(0))
    return model.load_weights({name: value.numpy() for name, value in network.state_dict().items()})


def floor(model: MultVAE, n_users: int, k: int, layer: Callable[..., torch.Tensor]) -> Callable[[], None]:
    """Return what does the last layer's product and topk for so many users, block by block, and nothing else.

    Parameters
    ----------
    model : MultVAE
        Fitted.
    n_users, k : int
        Users, and items to find of each.
    layer : callable
        (x, W, b) -> x W^T + b.
    """
    last = cast(MultVAENetwork, model.network_).output
    hidden = torch.randn(n_users, HIDDEN, generator=torch.Generator().manual_seed(0)).tanh()  # (U, H)

    @torch.no_grad()
    def run() -> None:
        for block in hidden.split(BLOCK):
            layer(block, last.weight, last.bias).topk(k, dim=1)  # (B, H) -> (B, I) -> (B, k)

    return run


def measure(held_out: HeldOut, rounds: int, warm_up: int) -> tuple[dict[str, Times], dict[str, int | None]]:
    """Return what each side took, and by how many bytes memory grew meanwhile.

    Parameters
    ----------
    held_out : HeldOut
        Users to rank for.
    rounds, warm_up : int
        Rounds that count, and rounds before that do not.
    """
    n_items = held_out.fold_in.shape[1]
    model = untrained(n_items)
    metrics = parse_metrics([f"{name}@{min(k, n_items)}" for name in NAMES if not METRICS[name].needs for k in CUTOFFS])
    sides: dict[str, Callable[[], object]] = {
        "evaluate": lambda: evaluate(model, held_out, metrics),
        "validation": lambda: validation_ndcg(model._score_block, held_out),
        "pytorch": floor(model, held_out.n_users, min(K, n_items), torch.nn.functional.linear),
        "floor": floor(model, held_out.n_users, min(K, n_items), linear_product),
    }
    times = by_turns(sides, rounds, warm_up)
    meter, growth = MemoryMeter(), {}
    for name, call in sides.items():  # not while time is taken
        meter.start()
        call()
        growth[name] = meter.growth()
    return times, growth


def table(times: dict[str, Times], growth: dict[str, int | None], n_users: int) -> str:
    """Return what was measured, one line per side, with the ratio to the floor.

    Parameters
    ----------
    times : dict of str to Times
        What each side took.
    growth : dict of str to int or None
        Bytes that memory grew by, where the system tells.
    n_users : int
        Users of a round.
    """
    lines = [f"{'':<10} median s    min s    max s   users/s     memory   of the floor"]
    for name, side in times.items():
        median, low, high = side.ratio(times["floor"])
        seconds = f"{side.median:8.2f} {side.seconds.min():8.2f} {side.seconds.max():8.2f}"
        more = growth[name]
        memory = "unknown" if more is None else f"{more / 2**20:,.0f} MiB"
        ratios = f"{median:.2f}, {low:.2f} to {high:.2f} round by round"
        lines.append(f"{name:<10} {seconds}   {n_users / side.median:7,.0f}   {memory:>8}   {ratios}")
    median, low, high = times["evaluate"].ratio(times["pytorch"])
    lines.append(
        f"floor: the last layer's product in blocks of {BLOCK} users, and topk of {K}; pytorch: by its own product"
    )
    lines.append(f"evaluate takes {median:.2f} ({low:.2f} to {high:.2f}) times what they take by PyTorch's own product")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="Evaluating Mult-VAE: recvae against matrix product and topk alone.")
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=20_108)
    parser.add_argument("--interactions", type=int, default=770_000, help="at least 20 per user")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--warm-up", type=int, default=1, help="rounds before that do not count")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    print(machine_line())
    held_out = fold(made_up(given.users, given.items, given.interactions))
    shape = {"users": held_out.n_users, "items": held_out.fold_in.shape[1], "interactions": given.interactions}
    print(
        f"Mult-VAE {HIDDEN}-{LATENT}, {len(NAMES) * len(CUTOFFS)} metrics: {shape['users']:,} users x "
        f"{shape['items']:,} items, {shape['interactions']:,} interactions"
    )
    times, growth = measure(held_out, given.rounds, given.warm_up)
    print(table(times, growth, held_out.n_users))
    results = {name: side.to_json() | {"bytes": growth[name]} for name, side in times.items()}
    for other in ("floor", "pytorch"):
        ratio = times["evaluate"].ratio(times[other])
        results[f"evaluate / {other}"] = dict(zip(("median", "low", "high"), ratio, strict=True))
    write_results(given.json, "evaluation", shape, results)


if __name__ == "__main__":
    main()
