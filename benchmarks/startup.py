"""How long a user waits before anything happens: `recvae --help` and `import recvae`, in fresh processes by turns.

    python benchmarks/startup.py --rounds 9

The floors are a Python that does nothing, and `import torch`. `import recvae` loads what is used when it is used, so
that taking all public names at once is measured too: that is where a script with models ends up.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from measuring import Times, by_turns, machine_line, write_results

PYTHON = "nothing"
SIDES = {
    PYTHON: "pass",
    "recvae --help": "import sys; sys.argv = ['recvae', '--help']; from recvae_cli.app import main; main()",
    "import torch": "import torch",
    "import recvae": "import recvae",
    "from recvae import *": "from recvae import *",
}
PROMISED_HELP, PROMISED_IMPORT = 0.3, 0.3  # seconds; the second beyond those of `import torch`


def start(code: str) -> None:
    """Run Python code in a process of its own."""
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)


def table(times: dict[str, Times]) -> str:
    """Return what was measured, one line per side, and both promises."""
    lines = [f"{'':<22}  min s   median s    max s"]
    lines += [
        f"{name:<22} {side.seconds.min():6.3f}   {side.median:8.3f}   {side.seconds.max():6.3f}"
        for name, side in times.items()
    ]
    help_, torch = times["recvae --help"], times["import torch"]
    lines.append(
        f"recvae --help takes {help_.median:.2f} s (promised: {PROMISED_HELP}), Python {times[PYTHON].median:.2f} s"
    )
    beyond = {name: times[name].median - torch.median for name in ("import recvae", "from recvae import *")}
    lines.append(
        f"beyond import torch: import recvae {beyond['import recvae']:+.2f} s (promised: {PROMISED_IMPORT:+} at most), "
        f"all its public names {beyond['from recvae import *']:+.2f} s"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="The start of recvae against that of Python and of torch.")
    parser.add_argument("--rounds", type=int, default=7, help="counted starts of each side")
    parser.add_argument("--warm-up", type=int, default=1, help="starts of each side before those")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    print(machine_line())
    times = by_turns({name: lambda code=code: start(code) for name, code in SIDES.items()}, given.rounds, given.warm_up)
    print(table(times))
    write_results(
        given.json, "startup", {"rounds": given.rounds}, {name: side.to_json() for name, side in times.items()}
    )


if __name__ == "__main__":
    main()
