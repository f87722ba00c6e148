"""The whole of `recvae preprocess` on a log as long as MovieLens-20M's, against reading that file with pyarrow alone.

    python benchmarks/preprocess.py --rounds 5
    python benchmarks/preprocess.py --folder logs      # keeps the log for another time

The log is made up by `recvae.datasets.synthetic` as the `ratings.csv` of ML-20M: as many users and films.
The sides take turns, each in a fresh process. Of the floor only the call of `pyarrow.csv.read_csv` counts, of the
command all from the start of Python to its end. A first round, after which the file is in the system's cache, is not
counted. Both sides use as many threads as pyarrow takes by itself; OMP_NUM_THREADS sets another number.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow

from measuring import Times, machine_line, write_results

ROWS, USERS, ITEMS = 20_000_000, 138_493, 26_744
ROWS_PER_USER = ROWS // USERS
PROMISED_RATIO, PROMISED_BYTES = 4, 3e9

# What the processes run. The log is made in one of its own too: a new process inherits its maker's peak of memory.
MAKE = """
import sys
from pathlib import Path
from recvae.datasets.synthetic import synthetic_log, write_ratings_csv
path, *shape = sys.argv[1:]
n_users, n_items, n_events = map(int, shape)
write_ratings_csv(synthetic_log(n_users=n_users, n_items=n_items, n_events=n_events)[0], Path(path))
"""
READ = """
import sys, time
import pyarrow.csv
started = time.perf_counter()
table = pyarrow.csv.read_csv(sys.argv[1])
print(time.perf_counter() - started)
"""
COMMAND = "from recvae_cli.app import main; main()"  # what the installed script runs


@dataclass(frozen=True)
class Process:
    """What a finished process took.

    Parameters
    ----------
    seconds, processor_seconds : float
        From its start to its end, and on all cores together.
    peak : int
        Most bytes in memory; never less than what the process that started it has had.
    printed : str
        Its standard output.
    """

    seconds: float
    processor_seconds: float
    peak: int
    printed: str


def run(code: str, *arguments: object) -> Process:
    """Run Python code in a process of its own.

    Raises
    ------
    RuntimeError
        If it fails, with what it printed to its standard error.
    """
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)  # the one call that tells what a single child took
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"got exit code {process.returncode}, expected 0:\n{errors.read().decode()}")
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Process(seconds, usage.ru_utime + usage.ru_stime, peak, output.read().decode())


def made_up(folder: Path, rows: int) -> Path:
    """Return a log of so many rows in a folder, made there if it is not."""
    path = folder / f"ratings-{rows}.csv"
    if not path.exists():
        print(f"making up {rows:,} rows: {path}", flush=True)
        run(MAKE, path, max(1, rows // ROWS_PER_USER), ITEMS, rows)
    return path


@dataclass(frozen=True)
class Side:
    """What the counted rounds of one side took.

    Parameters
    ----------
    times : Times
        Seconds by round.
    processor_seconds : float
        On all cores together, the middle one of the rounds; the start of Python included.
    peak : int
        Most bytes in memory in any round.
    """

    times: Times
    processor_seconds: float
    peak: int


def side_of(name: str, seconds: Sequence[float], processes: Sequence[Process]) -> Side:
    """Sum up the rounds of a side."""
    processor = float(np.median([process.processor_seconds for process in processes]))
    return Side(Times(name, np.array(seconds)), processor, max(process.peak for process in processes))


def measure(path: Path, data_dir: Path, rounds: int) -> tuple[Side, Side]:
    """Return what the command took, and what reading alone did.

    Parameters
    ----------
    path : Path
        The log.
    data_dir : Path
        Where the command writes.
    rounds : int
        Of each side, after one that does not count.
    """
    pairs = []
    for turn in range(1 + rounds):
        floor = run(READ, path)
        ours = run(COMMAND, "preprocess", path, "--name", "log", "--data-dir", data_dir)
        if turn:
            pairs.append((ours, floor))
            print(
                f"  round {turn}: read_csv {float(floor.printed):6.2f} s   preprocess {ours.seconds:6.2f} s", flush=True
            )
    all_ours, all_floors = zip(*pairs, strict=True)
    return (
        side_of("recvae preprocess", [process.seconds for process in all_ours], all_ours),
        side_of("pyarrow read_csv", [float(process.printed) for process in all_floors], all_floors),
    )


def table(ours: Side, floor: Side) -> str:
    """Return what was measured, one line per side, and the ratio."""
    lines = [f"{'':<18}  min s   median s    max s   processor s   peak memory"]
    for side in (ours, floor):
        seconds = side.times.seconds
        times = f"{seconds.min():6.2f}   {side.times.median:8.2f}   {seconds.max():6.2f}"
        lines.append(f"{side.times.name:<18} {times}   {side.processor_seconds:11.2f}   {side.peak / 1e9:8.2f} GB")
    median, low, high = ours.times.ratio(floor.times)
    lines.append(
        f"recvae preprocess takes {median:.2f} times as long as read_csv alone, {low:.2f} to {high:.2f} round by round "
        f"(promised: {PROMISED_RATIO}), and {ours.peak / 1e9:.2f} GB (promised: {PROMISED_BYTES / 1e9:g})"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="recvae preprocess against pyarrow.csv.read_csv of the same file.")
    parser.add_argument("--rows", type=int, default=ROWS, help="of the log, 1,000 or more")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds of each side, after one warm-up")
    parser.add_argument(
        "--folder", type=Path, help="where the log is kept, and looked for; by default it is thrown away"
    )
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.rows < 1000:
        parser.error("--rounds must be 1 or more, --rows 1,000 or more")
    print(f"{machine_line()}; pyarrow {pyarrow.__version__} with {pyarrow.cpu_count()} threads")
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        path = made_up(folder, given.rows)
        shape = {"rows": given.rows, "bytes": path.stat().st_size, "threads": pyarrow.cpu_count()}
        print(f"{shape['rows']:,} rows, {shape['bytes'] / 1e6:,.0f} MB")
        ours, floor = measure(path, Path(scratch) / "data", given.rounds)
    print(table(ours, floor))
    results = {
        side.times.name: {**side.times.to_json(), "processor_seconds": side.processor_seconds, "peak_bytes": side.peak}
        for side in (ours, floor)
    }
    write_results(given.json, "preprocess", shape, {**results, "ratio": ours.times.ratio(floor.times)})


if __name__ == "__main__":
    main()
