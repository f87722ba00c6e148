"""All small benchmarks one after the other, each in a process of its own; their figures go into benchmarks/results.

    python benchmarks/all.py
    python benchmarks/all.py epoch startup

`growth` and `gpu` are run when they are named. Those that take hours or install other packages are not among them:
`make leaderboard`, `make bench-peers`.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("epoch", "ease", "evaluation", "preprocess", "startup", "exported", "serving")
LARGE = ("growth", "gpu")  # only when asked for by name: the first wants 8 GB and five minutes, the other a GPU


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks; the exit status is 1 if one of them failed.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    present = [name for name in (*NAMES, *LARGE) if (HERE / f"{name}.py").is_file()]
    parser = argparse.ArgumentParser(description="All small benchmarks, one after the other.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these; by default {', '.join(NAMES)}")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the JSON files")
    given = parser.parse_args(arguments)
    for name in given.names:
        if name not in present:
            parser.error(f"got {name}, expected one of {', '.join(present)}")
    try:
        given.results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--results: {error}")
    failed = []
    for name in given.names or [name for name in present if name in NAMES]:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(given.results / f"{name}.json")]
        if subprocess.run(command).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
