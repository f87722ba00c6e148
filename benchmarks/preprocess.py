"""The whole of `recvae preprocess` on a log as long as MovieLens-20M's, against reading that file with pyarrow alone.

    python benchmarks/preprocess.py --rounds 5
    python benchmarks/preprocess.py --folder logs             # keeps the log for another time
    python benchmarks/preprocess.py --old ../before           # by turns with another checkout of recvae
    python benchmarks/preprocess.py --max-memory 1GB          # what the command is allowed to take
    python benchmarks/preprocess.py --rows 200000000 --parquet --rounds 1

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
ROWS_AT_ONCE = 20_000_000  # a longer log is made of several, each with users of its own
PROMISED_RATIO, PROMISED_BYTES = 4, 1.5e9
PROMISED_PARQUET_BYTES = 6e9

# What the processes run. The log is made in one of its own too: a new process inherits its maker's peak of memory.
MAKE = """
import sys
from pathlib import Path
from recvae.datasets.synthetic import synthetic_log, write_ratings_csv
path, *shape = sys.argv[1:]
n_users, n_items, n_events = map(int, shape)
write_ratings_csv(synthetic_log(n_users=n_users, n_items=n_items, n_events=n_events)[0], Path(path))
"""
MAKE_PARQUET = """
import sys
import pyarrow as pa, pyarrow.parquet as pq
from recvae.datasets.synthetic import synthetic_log
path, rows, at_once, rows_per_user, n_items = sys.argv[1], *map(int, sys.argv[2:])
writer, first_user = None, 0
for seed, start in enumerate(range(0, rows, at_once)):
    n_events = min(at_once, rows - start)
    n_users = max(1, n_events // rows_per_user)
    log, _ = synthetic_log(n_users=n_users, n_items=n_items, n_events=n_events, seed=seed)
    columns = {"userId": log.user_ids[log.users] + first_user, "movieId": log.item_ids[log.items]}
    table = pa.table({**columns, "rating": log.ratings, "timestamp": log.timestamps})
    writer = writer or pq.ParquetWriter(path, table.schema)
    writer.write_table(table, row_group_size=1 << 20)
    first_user += int(log.user_ids.max()) + 1
writer.close()
"""
READ = """
import sys, time
import pyarrow.csv
started = time.perf_counter()
table = pyarrow.csv.read_csv(sys.argv[1])
print(time.perf_counter() - started)
"""
READ_PARQUET = """
import sys, time
import pyarrow.parquet as pq
started = time.perf_counter()
for batch in pq.ParquetFile(sys.argv[1]).iter_batches(1 << 20):
    pass
print(time.perf_counter() - started)
"""
OURS, FLOOR, OLD = "recvae preprocess", "reading alone", "before"
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


def run(code: str, *arguments: object, checkout: Path | None = None) -> Process:
    """Run Python code in a process of its own, with the recvae of another checkout if one is given.

    Raises
    ------
    RuntimeError
        If it fails, with what it printed to its standard error.
    """
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        paths = None if checkout is None else f"{checkout}:{checkout / 'cli'}"
        environment = os.environ if paths is None else {**os.environ, "PYTHONPATH": paths}
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment, cwd=checkout)
        _, status, usage = os.wait4(process.pid, 0)  # the one call that tells what a single child took
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"got exit code {process.returncode}, expected 0:\n{errors.read().decode()}")
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Process(seconds, usage.ru_utime + usage.ru_stime, peak, output.read().decode())


def made_up(folder: Path, rows: int, parquet: bool = False) -> Path:
    """Return a log of so many rows in a folder, made there if it is not."""
    path = folder / f"ratings-{rows}.{'parquet' if parquet else 'csv'}"
    if not path.exists():
        print(f"making up {rows:,} rows: {path}", flush=True)
        if parquet:
            run(MAKE_PARQUET, path, rows, ROWS_AT_ONCE, ROWS_PER_USER, ITEMS)
        else:
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


def measure(
    path: Path, data_dir: Path, rounds: int, old: Path | None = None, max_memory: str | None = None
) -> dict[str, Side]:
    """Return what the command took, what reading alone did, and what the command of another checkout took.

    Parameters
    ----------
    path : Path
        The log.
    data_dir : Path
        Where the command writes.
    rounds : int
        Of each side, after one that does not count.
    old : Path, optional
        Another checkout.
    max_memory : str, optional
        What the command is given as --max-memory.
    """
    read = READ_PARQUET if path.suffix == ".parquet" else READ
    words = ("preprocess", path, "--data-dir", data_dir)
    limit = () if max_memory is None else ("--max-memory", max_memory)
    found: dict[str, list[tuple[float, Process]]] = {}
    for turn in range(1 + rounds):
        floor = run(read, path)
        ours = run(COMMAND, *words, "--name", "log", "--overwrite", *limit)
        sides = {OURS: (ours.seconds, ours), FLOOR: (float(floor.printed), floor)}
        if old is not None:
            before = run(COMMAND, *words, "--name", "before", checkout=old)
            sides[OLD] = (before.seconds, before)
        if turn:
            for name, side in sides.items():
                found.setdefault(name, []).append(side)
            shown = "   ".join(f"{name} {seconds:6.2f} s" for name, (seconds, _) in sides.items())
            print(f"  round {turn}: {shown}", flush=True)
    return {
        name: side_of(name, [seconds for seconds, _ in took], [process for _, process in took])
        for name, took in found.items()
    }


def table(sides: dict[str, Side], promised_bytes: float) -> str:
    """Return what was measured, one line per side, and the ratios."""
    lines = [f"{'':<18}  min s   median s    max s   processor s   peak memory"]
    for side in sides.values():
        seconds = side.times.seconds
        times = f"{seconds.min():6.2f}   {side.times.median:8.2f}   {seconds.max():6.2f}"
        lines.append(f"{side.times.name:<18} {times}   {side.processor_seconds:11.2f}   {side.peak / 1e9:8.2f} GB")
    ours = sides[OURS]
    median, low, high = ours.times.ratio(sides[FLOOR].times)
    lines.append(
        f"recvae preprocess takes {median:.2f} times as long as reading alone, {low:.2f} to {high:.2f} round by round "
        f"(promised for CSV: {PROMISED_RATIO}), and {ours.peak / 1e9:.2f} GB (promised: {promised_bytes / 1e9:g})"
    )
    if OLD in sides:
        median, low, high = ours.times.ratio(sides[OLD].times)
        lines.append(f"it takes {median:.2f} times as long as before, {low:.2f} to {high:.2f} round by round")
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
    parser.add_argument("--parquet", action="store_true", help="a log in Parquet instead of CSV")
    parser.add_argument("--old", type=Path, help="another checkout of recvae, whose command takes turns with this one")
    parser.add_argument("--max-memory", help="what the command is allowed to take, e.g. 1GB")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.rows < 1000:
        parser.error("--rounds must be 1 or more, --rows 1,000 or more")
    print(f"{machine_line()}; pyarrow {pyarrow.__version__} with {pyarrow.cpu_count()} threads")
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        path = made_up(folder, given.rows, given.parquet)
        shape = {"rows": given.rows, "bytes": path.stat().st_size, "threads": pyarrow.cpu_count()}
        print(f"{shape['rows']:,} rows, {shape['bytes'] / 1e6:,.0f} MB")
        sides = measure(path, Path(scratch) / "data", given.rounds, given.old, given.max_memory)
    print(table(sides, PROMISED_PARQUET_BYTES if given.parquet else PROMISED_BYTES))
    results = {
        name: {**side.times.to_json(), "processor_seconds": side.processor_seconds, "peak_bytes": side.peak}
        for name, side in sides.items()
    }
    ratio = sides[OURS].times.ratio(sides[FLOOR].times)
    write_results(given.json, "preprocess", shape, {**results, "ratio": ratio})


if __name__ == "__main__":
    main()
