"""How often do the intervals of a probe hold the truth where nothing can be read: .5?

    python benchmarks/probe_intervals.py

Vectors and features are random, so that the ROC-AUC of each probe is .5 but for chance. An interval that counts all
that varies would hold .5 in 95 % of the draws.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from measuring import machine_line
from recvae.latent.probes import probe


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print it.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="Coverage of the intervals of probes.")
    parser.add_argument("--draws", type=int, default=200, help="pairs of probes")
    parser.add_argument("--users", type=int, default=700)
    parser.add_argument("--width", type=int, default=32, help="numbers of a vector")
    parser.add_argument("--features", type=int, default=1, help="features of which the mean is taken")
    given = parser.parse_args(arguments)
    print(machine_line())
    found = []
    for draw in range(given.draws):
        rng = np.random.default_rng(draw)
        both = rng.standard_normal((2, given.users, given.width))
        told = rng.random((given.users, given.features)) < 0.5
        one, other = (probe(vectors, told, of="users", resamples=200, seed=draw) for vectors in both)
        _, least, most = one.difference(other)
        low, high = one.interval
        found.append((low <= 0.5 <= high, low > 0.5, least <= 0 <= most))
    holds, above, same = np.mean(found, axis=0)
    print(f"intervals hold .5 in {holds:.0%}, lie above .5 in {above:.0%}; those of a difference hold 0 in {same:.0%}")


if __name__ == "__main__":
    main()
