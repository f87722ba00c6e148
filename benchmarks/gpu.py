"""Training Mult-VAE 600-200 on a GPU, on the shape of MovieLens-20M: users per second, all told.

    python benchmarks/gpu.py --json gpu.json

An epoch is taken as a user has it: batches are cut on the GPU from the interactions in its memory, losses are read once
at the end of the epoch. The interactions are made up by `recvae.synthetic_log`. The floor is what the products of
the last layer, by PyTorch, and Adam's memory take, at rates measured on the way. With `--device cpu` it runs too, for
a trial with fewer users.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from dense import HIDDEN, LATENT
from epoch import made_up
from measuring import Times, by_turns, machine_line, write_results
from recvae import MultVAE
from recvae.compute.devices import resolve_device
from recvae.errors import RecvaeError
from recvae.training.records import EpochRecord, NullMonitor

# Letters in shape comments: B users of a batch, I items, H width of the hidden layer.


class Speeds(NullMonitor):
    """A monitor that keeps the seconds of each epoch but the first."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def epoch(self, record: EpochRecord) -> None:
        """Note an epoch."""
        if record.epoch > 1:
            self.seconds.append(record.seconds)


def floor(n_items: int, batch_size: int, dtype: torch.dtype, device: torch.device) -> float:
    """Return the seconds that a batch's products with the items' layer and Adam's memory take.

    Parameters
    ----------
    n_items, batch_size : int
        Shape of a batch.
    dtype : torch.dtype
        Of the products.
    device : torch.device
        Where they are made.
    """
    shapes = ((batch_size, HIDDEN), (n_items, HIDDEN), (batch_size, n_items))
    # Of random numbers: a GPU multiplies zeros faster.
    h, w, g = (torch.randn(shape, device=device).to(dtype) for shape in shapes)
    from_, to = (torch.randn(7, n_items * HIDDEN, device=device) for _ in range(2))
    times = 20 if device.type == "cuda" else 1  # so that waiting for the GPU does not count

    def timed(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return run

    sides = {
        "products": timed(lambda: (h @ w.t(), g @ w, g.t() @ h)),
        "memory": timed(lambda: to.copy_(from_)),
    }
    taken = by_turns(sides, rounds=9)
    # Adam reads four floats of each weight of the two layers with items and writes three; the copy reads and
    # writes seven of one layer, which is as much.
    return sum(side.median for side in taken.values()) / times


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="Training Mult-VAE on a GPU: users per second.")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--users", type=int, default=116_677)
    parser.add_argument("--items", type=int, default=20_108)
    parser.add_argument("--interactions", type=int, default=8_500_000, help="at least 20 per user")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[500, 1_000])
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--epochs", type=int, default=5, help="counted epochs, after one warm-up")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args(arguments)
    if given.epochs < 1 or min(given.batch_sizes) < 1:
        parser.error("--epochs and --batch-sizes must be 1 or more")
    try:
        device = resolve_device(given.device)
    except RecvaeError as error:
        parser.error(str(error))
    print(machine_line())
    train = made_up(given.users, given.items, given.interactions)
    print(
        f"Mult-VAE {HIDDEN}-{LATENT} in {given.precision} on {device}: {train.shape[0]:,} users x "
        f"{train.shape[1]:,} items, {train.nnz:,} interactions\n"
    )
    print("batch size   epoch, median (range)      users/s   of the floor   200 epochs")
    results = {}
    for batch_size in given.batch_sizes:
        speeds = Speeds()
        model = MultVAE(
            hidden_dims=(HIDDEN,),
            latent_dim=LATENT,
            epochs=1 + given.epochs,
            batch_size=batch_size,
            precision=given.precision,
        )
        model.fit(train, device=device, monitor=speeds)
        times = Times(str(batch_size), np.array(speeds.seconds))
        least = floor(train.shape[1], batch_size, model.dtype_, device) * train.shape[0] / batch_size
        spread = f"{times.median:.3f} s ({times.seconds.min():.3f} - {times.seconds.max():.3f})"
        print(
            f"{batch_size:>10,}   {spread:<24} {train.shape[0] / times.median:>9,.0f}   "
            f"{times.median / least:>12.2f}   {200 * times.median:>8.1f} s",
            flush=True,
        )
        results[str(batch_size)] = times.to_json() | {"floor": least, "users_per_second": given.users / times.median}
    shape = {name: getattr(given, name) for name in ("device", "users", "items", "interactions", "precision")}
    write_results(given.json, "gpu", shape, results)


if __name__ == "__main__":
    main()
