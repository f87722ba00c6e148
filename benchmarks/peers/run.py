"""The same work on the same data in recvae and in other packages: RecBole, Cornac, implicit.

    python benchmarks/peers/run.py
    python benchmarks/peers/run.py --peer recbole --users 2000 --items 3000 --interactions 100000

Each peer is installed from the package index, in versions that are pinned, into an environment of its own; nothing
else is touched. Where that fails, the table says why and the others go on. With a machine's own PyTorch wheels, or
PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu, pip leaves the large GPU builds alone: all is on the CPU.

recvae and a peer are two processes with the same number of threads, asked by turns, so that whatever else the machine
does troubles both alike; ratios are taken round by round, after one round that does not count.

- One epoch of Mult-VAE (600-200, batches of 500, Adam 1e-3, dropout 0.5) against RecBole's MultiVAE and Cornac's VAECF:
  the updates alone, without building the network and reading the data. recvae multiplies the items' layer in
  bfloat16 where the processor has instructions for it, the others do not; so it is timed in float32 as well.
- The evaluation of all users (scores of all items, mask, top 100, recall@20, recall@50, NDCG@100) against RecBole's,
  of the same weights, so that both must find the same. Recall is over all targets, as RecBole has it.
- ALS of implicit (64 factors, 15 iterations) through recvae's `ALS` against implicit itself: fitting, and listing 100
  items for all users folded in.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from environments import NotInstalledError, environment, requirements  # noqa: E402
from epoch import made_up  # noqa: E402
from measuring import Times, machine_line, write_results  # noqa: E402
from recvae.errors import UsageError  # noqa: E402
from recvae.interactions import interactions  # noqa: E402
from side import Side, WorkerError  # noqa: E402
from work import Data  # noqa: E402

# What a peer is asked for: the jobs of recvae that it is compared with, and how the table calls them.
JOBS = {
    "train": {"train": "an epoch of Mult-VAE", "train_float32": "the same, float32 on both sides"},
    "evaluate": {"evaluate": "evaluation of all users"},
    "evaluate_by_default": {"evaluate": "the same in its default batches"},
    "als_fit": {"als_fit": "ALS, fitting"},
    "als_recommend": {"als_recommend": "ALS, top 100 of all users"},
}
PEERS = {
    "recbole": ("train", "evaluate", "evaluate_by_default"),
    "cornac": ("train",),
    "implicit": ("als_fit", "als_recommend"),
}


@dataclass(frozen=True)
class Comparison:
    """What one job took on both sides.

    Parameters
    ----------
    job : str
        That of recvae.
    label : str
        What it is called.
    ours, theirs : Times
        By round, of recvae and of the peer.
    found : tuple of two mappings of str to float
        What came out last, of recvae and of the peer.
    """

    job: str
    label: str
    ours: Times
    theirs: Times
    found: tuple[Mapping[str, float], Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        """Return all of it."""
        ratio, low, high = self.theirs.ratio(self.ours)
        return {
            "recvae": {**self.ours.to_json(), "found": dict(self.found[0])},
            self.theirs.name: {**self.theirs.to_json(), "found": dict(self.found[1])},
            "ratio": {"median": ratio, "low": low, "high": high},
        }


@dataclass(frozen=True)
class Outcome:
    """How it went with a peer.

    Parameters
    ----------
    package : str
        Name and version.
    comparisons : list of Comparison
        Of the jobs that were done.
    reason : str
        Why there are no more; empty if there are all.
    """

    package: str
    comparisons: list[Comparison]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return all of it."""
        jobs = {comparison.job: comparison.to_json() for comparison in self.comparisons}
        return {"package": self.package, "jobs": jobs, "reason": self.reason}


def made_up_data(n_users: int, n_items: int, n_interactions: int) -> Data:
    """Return so many interactions of made-up users to train on, and a quarter as many to be found.

    Parameters
    ----------
    n_users, n_items, n_interactions : int
        Within the limits of `recvae.synthetic_log`.
    """
    n_targets = n_interactions // 4
    both = made_up(n_users, n_items, n_interactions + n_targets)
    rows, columns = both.nonzero()
    hidden = np.random.default_rng(0).permutation(both.nnz) < n_targets
    train = interactions(rows[~hidden], columns[~hidden], (n_users, n_items))
    return Data(train, interactions(rows[hidden], columns[hidden], (n_users, n_items)))


def by_turns(job: str, ours: Side, theirs: Side, rounds: int) -> list[Comparison]:
    """Have both sides do a job, by turns; one round more than counts.

    Parameters
    ----------
    job : str
        That of the peer.
    ours, theirs : Side
        At work.
    rounds : int
        Rounds that count.
    """
    asked = [*((ours, name) for name in JOBS[job]), (theirs, job)]
    seconds: dict[tuple[Side, str], list[float]] = {one: [] for one in asked}
    found = {}
    for turn in range(1 + rounds):
        for side, name in asked:
            answer = side.ask(name)
            seconds[side, name].append(answer.seconds)
            found[side, name] = answer.found
            which = f"round {turn}" if turn else "warm-up"
            print(f"  {which:<8} {side.name:<8} {name:<14} {answer.seconds:8.2f} s", file=sys.stderr, flush=True)
    times = {one: Times(one[0].name, np.array(taken[1:])) for one, taken in seconds.items()}
    *of_ours, of_theirs = asked
    return [
        Comparison(one[1], JOBS[job][one[1]], times[one], times[of_theirs], (found[one], found[of_theirs]))
        for one in of_ours
    ]


def compare(peer: str, data: Path, given: argparse.Namespace) -> Outcome:
    """Return how it went with a peer; what goes wrong is told there.

    Parameters
    ----------
    peer : str
        Which one.
    data : Path
        The folder of the data; workers run in folders of their own there.
    given : Namespace
        The command line.
    """
    package, _ = requirements(peer)
    comparisons: list[Comparison] = []
    try:
        python = environment(peer, given.environments, given.install)
        with tempfile.TemporaryDirectory(dir=data) as name:
            folder = Path(name)
            with (
                Side("recvae", Path(sys.executable), data, folder, given.threads) as ours,
                Side(peer, python, data, folder, given.threads) as theirs,
            ):
                ours.wait_until_ready()
                theirs.wait_until_ready()
                for job in PEERS[peer]:
                    comparisons += by_turns(job, ours, theirs, given.rounds)
    except NotInstalledError as error:
        return Outcome(package, comparisons, f"not installed: {error}")
    except WorkerError as error:
        return Outcome(package, comparisons, f"failed: {error}")
    return Outcome(package, comparisons)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return what was measured, a line per job, and below it what came out on both sides.

    Parameters
    ----------
    outcomes : sequence of Outcome
        By peer.
    """
    lines = [_row("median (least - most) of the rounds", "recvae, s", "peer, s", "peer / recvae")]
    for outcome in outcomes:
        package = outcome.package.replace("==", " ")
        for one in outcome.comparisons:
            ours, theirs = (_spread(t.median, t.seconds.min(), t.seconds.max()) for t in (one.ours, one.theirs))
            lines.append(_row(f"{package}: {one.label}", ours, theirs, _spread(*one.theirs.ratio(one.ours))))
            lines += [_row(f"  {what}", *(f"{found[what]:.9g}" for found in one.found)) for what in one.found[0]]
        if outcome.reason:
            lines.append(f"{package}: {outcome.reason}")
    return "\n".join(lines)


def _spread(median: float, low: float, high: float) -> str:
    return f"{median:.2f} ({low:.2f} - {high:.2f})"


def _row(what: str, ours: str, theirs: str, ratio: str = "") -> str:
    return f"{what:<46} {ours:>24} {theirs:>26} {ratio:>22}".rstrip()


def parser_of(description: str) -> argparse.ArgumentParser:
    """Return a parser of what the comparisons with peers have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=20_108)
    parser.add_argument("--interactions", type=int, default=1_540_000, help="to train on; at least 16 per user")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every side; by default all cores")
    parser.add_argument("--environments", type=Path, default=HERE / ".peers", help="folder to install peers into")
    parser.add_argument("--no-install", dest="install", action="store_false", help="take only what is installed there")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what a command line says, and refuse what no comparison can do; `rounds` is an option of each."""
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.threads < 1:
        parser.error("--rounds and --threads must be 1 or more")
    if given.json and not given.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {given.json.absolute().parent}")
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparisons and print them.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = parser_of("The same work in recvae and in other packages.")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this one; may be given again")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds of each job, after one warm-up")
    given = parsed(parser, arguments)
    try:
        data = made_up_data(given.users, given.items, given.interactions)
    except UsageError as error:
        parser.error(str(error))
    torch.set_num_threads(given.threads)  # so that the machine is told as its sides are run
    shape = {name: getattr(given, name) for name in ("users", "items", "interactions", "rounds", "threads")}
    shape |= {"targets": data.targets.nnz, "longest": int(np.diff(data.train.indptr).max())}
    print(machine_line())
    print(
        f"{given.users:,} users x {given.items:,} items, {data.train.nnz:,} interactions (of one user, up to "
        f"{shape['longest']:,}), {data.targets.nnz:,} targets; {given.rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as folder:
        data.write(Path(folder))
        outcomes = {peer: compare(peer, Path(folder), given) for peer in given.peer or PEERS}
    print(table(list(outcomes.values())))
    write_results(given.json, "peers", shape, {peer: outcome.to_json() for peer, outcome in outcomes.items()})
    if any(outcome.reason.startswith("failed") for outcome in outcomes.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
