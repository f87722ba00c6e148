"""How fast recommendations are served: one user in process, and 64 clients over HTTP, batched against one at a time.

    python benchmarks/serving.py
    python benchmarks/serving.py --requests 10000 --rounds 5

The model is Mult-VAE with 20,108 items, as many as MovieLens 20M leaves, with weights drawn at random: speed does not
depend on what they are. The floor of one user is reading the decoder's weights once from memory. The clients run in a
process of their own and share the cores with the server.
"""

import argparse
import asyncio
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from measuring import Times, by_turns, machine_line, random_run, write_results
from recvae.recommenders.recommender import Recommender

N_ITEMS, HISTORY = 20_108, 60  # items, and the mean length of a history
K = 10
SIDES = {"one at a time": ("batch_users=1", "window_ms=0"), "batched": ()}
PROMISED_RATIO, PROMISED_LOAD, PROMISED_GAIN = 2.0, 0.5, 3.0
_LOADING = """
import sys, time, torch
start = time.perf_counter()
from recvae.recommenders.recommender import Recommender
Recommender.load(sys.argv[1])
print(time.perf_counter() - start)
"""


def histories(n: int, n_items: int = N_ITEMS, seed: int = 0) -> list[list[int]]:
    """Return made-up histories: lengths as long-tailed as real ones, few items popular."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(HISTORY) - 0.5, 1, n).astype(int), 5, 1000)
    return [np.unique((n_items * rng.random(length) ** 2).astype(int)).tolist() for length in lengths]


def one_user(folder: Path, rounds: int) -> dict[str, Times]:
    """Time one user in process against reading the decoder's weights, and loading in fresh processes."""
    recommender = Recommender.load(folder)
    decoder: Any = recommender.model
    weight = decoder.network_.output.weight
    asked: Iterator[list[int]] = iter(histories(10_000))
    times = by_turns(
        {
            "decoder read by one core": lambda: np.add.reduce(weight.numpy(), axis=None),
            "decoder read by all": lambda: torch.sum(weight),
            "one user": lambda: recommender.recommend(next(asked), K),
        },
        20 * rounds,
        5,
    )
    loads = [float(subprocess.check_output([sys.executable, "-c", _LOADING, str(folder)])) for _ in range(rounds)]
    return {**times, "Recommender.load": Times("Recommender.load", np.array(loads))}


@contextmanager
def served(folder: Path, limits: Sequence[str]) -> Iterator[int]:
    """Start `recvae serve`, and give its port."""
    words = [word for limit in limits for word in ("--limit", limit)]
    code = "from recvae_cli.app import main; main()"
    command = [sys.executable, "-c", code, "serve", str(folder), "--port", "0", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "startup complete" not in said:
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the server did not start: {said}")
            said += line
        found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
        assert found
        try:
            yield int(found[1])
        finally:
            process.terminate()
            process.communicate()


@dataclass(frozen=True)
class Load:
    """What clients saw: seconds of each request and of all together, and how many were not answered well."""

    latencies: np.ndarray
    seconds: float
    n_failed: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """Return the milliseconds within which so many percent were answered."""
        return 1000 * float(np.percentile(self.latencies, percent))


def ask(port: int, n_requests: int, n_clients: int) -> Load:
    """Have clients ask one request after the other, each on a connection that it keeps."""
    bodies = [json.dumps({"items": history, "k": K}).encode() for history in histories(n_requests, seed=1)]
    return asyncio.run(_ask(port, bodies, n_clients))


async def _ask(port: int, bodies: list[bytes], n_clients: int) -> Load:
    latencies: list[float] = []
    n_failed = 0

    async def client() -> None:
        nonlocal n_failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while bodies:
            body = bodies.pop()
            start = time.perf_counter()
            head = (
                f"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            )
            writer.write(head.encode() + b"\r\n\r\n" + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            content = await reader.readexactly(length)
            latencies.append(time.perf_counter() - start)
            n_failed += not (answer.startswith(b"HTTP/1.1 200") and content.count(b'"score"') == K)
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(n_clients)))
    return Load(np.array(latencies), time.perf_counter() - start, n_failed)


def over_http(folder: Path, rounds: int, n_requests: int, n_clients: int) -> dict[str, list[Load]]:
    """Ask servers with batches and without, by turns; one at a time, a tenth of the requests is enough."""
    loads: dict[str, list[Load]] = {name: [] for name in SIDES}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as clients:
        for _ in range(rounds):
            for name, limits in SIDES.items():
                with served(folder, limits) as port:
                    clients.submit(ask, port, 2 * n_clients, n_clients).result()  # warm-up
                    n = n_requests if name == "batched" else max(n_requests // 10, n_clients)
                    loads[name].append(clients.submit(ask, port, n, n_clients).result())
    return loads


def table(times: dict[str, Times], loads: dict[str, list[Load]], n_clients: int) -> str:
    """Return what was measured, and the promises."""
    user, load = times["one user"], times["Recommender.load"]
    one, all_ = times["decoder read by one core"], times["decoder read by all"]
    milliseconds = [1000 * side.median for side in (user, one, all_)]
    ratios = [user.median / floor.median for floor in (one, all_)]
    lines = [
        "one user {:.2f} ms; the decoder's weights read once by one core {:.2f} ms, by all {:.2f} ms: ".format(
            *milliseconds
        )
        + "{:.2f} and {:.2f} times (promised: {:g} at most)".format(*ratios, PROMISED_RATIO),
        f"Recommender.load {load.median:.2f} s ({load.seconds.min():.2f} - {load.seconds.max():.2f}) "
        f"once torch is imported (promised: {PROMISED_LOAD:g})",
        f"\n{n_clients} clients      requests/s      p50 ms   p99 ms   requests  failed",
    ]
    for name, rounds in loads.items():
        middle = sorted(rounds, key=lambda load: load.rate)[len(rounds) // 2]
        spread = f"({min(r.rate for r in rounds):.0f} - {max(r.rate for r in rounds):.0f})"
        lines.append(
            f"{name:<14} {middle.rate:7.0f} {spread:<15} {middle.percentile(50):6.0f} {middle.percentile(99):8.0f} "
            f"{sum(len(r.latencies) for r in rounds):10,} {sum(r.n_failed for r in rounds):7}"
        )
    single, batched = loads.values()
    gains = [of_batched.rate / of_single.rate for of_batched, of_single in zip(batched, single, strict=True)]
    lines.append(
        f"batched answers {np.median(gains):.1f} times as many ({min(gains):.1f} - {max(gains):.1f}; "
        f"promised: {PROMISED_GAIN:g})"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="Recommendations in process and over HTTP.")
    parser.add_argument("--rounds", type=int, default=3, help="servers of each kind, by turns")
    parser.add_argument("--requests", type=int, default=10_000, help="requests to each batching server")
    parser.add_argument("--clients", type=int, default=64, help="clients asking at a time")
    parser.add_argument("--items", type=int, default=N_ITEMS, help="items of the catalogue")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args(arguments)
    if min(given.rounds, given.requests, given.clients) < 1:
        parser.error("--rounds, --requests and --clients must be 1 or more")
    print(machine_line())
    with tempfile.TemporaryDirectory() as folder:
        random_run(Path(folder), given.items)
        times = one_user(Path(folder), given.rounds)
        loads = over_http(Path(folder), given.rounds, given.requests, given.clients)
    print(table(times, loads, given.clients))
    results: dict[str, Any] = {name: side.to_json() for name, side in times.items()}
    for name, rounds in loads.items():
        results[name] = [
            {"requests": len(r.latencies), "failed": r.n_failed, "rate": r.rate, "p50": r.percentile(50)}
            | {"p99": r.percentile(99)}
            for r in rounds
        ]
    shape = {"items": given.items, "clients": given.clients, "rounds": given.rounds}
    write_results(given.json, "serving", shape, results)


if __name__ == "__main__":
    main()
