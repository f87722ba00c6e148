"""The engines beside each other: `recvae preprocess` and `recvae recommend` with and without Spark, by turns.

    python benchmarks/spark.py --data ml-1m.parquet --folder /tmp/spark

Each command runs in a process of its own, so that the start of the session counts. Two times are given: on the clock,
and of the cores, summed over all processes (Python, Java and the workers of Spark). On a busy machine only the second
one says something. The fingerprints and the rows of the engines are compared.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

ENGINES = {"local": [], "spark, 1 core": ["local[1]"], "spark, 2 cores": ["local[2]"]}
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run all engines by turns, and print a table and the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a log as Parquet")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for what is made")
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True)
    rows = []
    for number in range(asked.rounds):
        for engine, master in ENGINES.items():
            rows.append(("preprocess", engine, *measured(preprocess(asked.data, asked.folder, engine, number, master))))
    name = f"{slug('local')}-0"
    command("train", "--model", "ease", "--data", name, "--data-dir", asked.folder, "--runs-dir", asked.folder / "runs")
    for number in range(asked.rounds):
        for engine, master in ENGINES.items():
            rows.append(("recommend", engine, *measured(recommend(asked.data, asked.folder, engine, number, master))))
    for what, engine, wall, cores in rows:
        print(f"| {what} | {engine} | {wall:.0f} s | {cores:.0f} s |")
    prints = {read(asked.folder / f"{slug(engine)}-0") for engine in ENGINES}
    tables = [answers(asked.folder / f"{slug(engine)}-0.parquet") for engine in ENGINES]
    print(f"one fingerprint: {len(prints) == 1}; the same rows: {all(one == tables[0] for one in tables)}")


def slug(engine: str) -> str:
    """Return the name of a folder."""
    return engine.replace(", ", "-").replace(" ", "-")


def preprocess(data: Path, folder: Path, engine: str, number: int, master: list[str]) -> list[str]:
    """Return the command that prepares the data."""
    options = ["--heldout-users", "500", "--name", f"{slug(engine)}-{number}", "--data-dir", str(folder)]
    return ["preprocess", str(data), *options, *_spark(master)]


def recommend(data: Path, folder: Path, engine: str, number: int, master: list[str]) -> list[str]:
    """Return the command that answers all users."""
    files = ["--input", str(data), "--output", str(folder / f"{slug(engine)}-{number}.parquet")]
    return ["recommend", *files, "-k", "100", "--runs-dir", str(folder / "runs"), *_spark(master)]


def _spark(master: list[str]) -> list[str]:
    memory = ["--spark-conf", "spark.driver.memory=1g"]
    return ["--engine", "spark", "--spark-conf", f"spark.master={master[0]}", *memory] if master else []


def command(*words: object) -> None:
    """Run the command."""
    subprocess.run([sys.executable, "-m", "recvae", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def measured(words: list[str]) -> tuple[float, float]:
    """Run the command, and return its seconds on the clock, and those of all cores."""
    started, seconds = time.perf_counter(), dict[int, float]()
    running = subprocess.Popen(
        [sys.executable, "-m", "recvae", *words], start_new_session=True, stdout=subprocess.DEVNULL
    )
    while running.poll() is None:
        for process, used in of_session(running.pid).items():
            seconds[process] = max(used, seconds.get(process, 0.0))
        time.sleep(0.1)
    if running.returncode:
        raise SystemExit(running.returncode)
    return time.perf_counter() - started, sum(seconds.values())


def of_session(session: int) -> dict[int, float]:
    """Return the seconds of the cores of each process of a session."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == session:
            found[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def read(folder: Path) -> str:
    """Return the fingerprint of a data set."""
    return json.loads((folder / "manifest.json").read_text())["fingerprint"]


def answers(path: Path) -> list[dict[str, object]]:
    """Return the recommendations in order."""
    return pq.read_table(path).sort_by([("user", "ascending"), ("rank", "ascending")]).to_pylist()


if __name__ == "__main__":
    if shutil.which("java") is None:
        raise SystemExit("there is no Java")
    main()
