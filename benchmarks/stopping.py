"""Would a curve fitted to the validation values have stopped training earlier than patience did, and at what price?

    python benchmarks/stopping.py runs/ml-1m sides.json

Each argument is a folder with runs (log.jsonl beside recommender.json) or a file of figures of `ae_dae_vae.py` or
`schedules.py`. Nothing is trained: each rule reads the logs of runs that are done, epoch by epoch.

    curve      y(t) = a - b t^-c, or a - b exp(-c t), b >= 0, by least squares on the epochs so far or on the later half
               of them; a run is stopped when the curve at the last planned epoch is less than .1 % above the best value
               so far, maybe only where that is also so many epochs old
    patience   a run is stopped after so many epochs without a better value

Letters in shape comments: T epochs so far, C exponents.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ae_dae_vae_pages import table

GAIN = 0.001  # of the best value so far
SHORTEST = 5  # epochs of a run that is looked at
LEAST = (5, 20)  # epochs before a curve is fitted
EXPONENTS = np.geomspace(0.1, 4.0, 30)  # of t
RATES = np.geomspace(0.005, 2.0, 40)  # per epoch
PATIENCES = (3, 5, 10, 15, 20)
DEFAULTS: dict[str, dict[str, Any]] = {"multvae": {"epochs": 30, "decay": "cosine"}, "recvae": {"epochs": 50}}
"""What files of figures leave out."""
Rule = Callable[[np.ndarray, int], bool]
"""Values of the epochs so far, of shape (n_epochs,), and planned epochs -> whether to stop."""


@dataclass(frozen=True)
class Curve:
    """The validation values of a run.

    Parameters
    ----------
    values : ndarray of shape (n_epochs,)
        Of each epoch.
    planned : int
        Epochs that the run was to have.
    decays : bool
        Whether its step size falls to 0.
    """

    values: np.ndarray
    planned: int
    decays: bool


def curves(paths: Sequence[Path]) -> Iterator[Curve]:
    """Yield the curves of runs below folders, and of files of figures."""
    for path in paths:
        for log in sorted(path.rglob("log.jsonl")) if path.is_dir() else ():
            card = log.with_name("recommender.json")
            if card.exists():
                settings = json.loads(card.read_text(encoding="utf-8"))["hyperparameters"]
                records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
                yield from _curve(records, settings)
        if path.is_file():
            fits = json.loads(path.read_text(encoding="utf-8"))["fits"]
            for key, figures in fits.items():
                if "epochs" in figures:
                    name, settings = json.loads(key)
                    yield from _curve(figures["epochs"], {**DEFAULTS.get(name, {}), **settings})


def _curve(records: list[dict[str, Any]], settings: dict[str, Any]) -> Iterator[Curve]:
    values = [record.get("ndcg") for record in records]
    if len(values) > SHORTEST and None not in values and "epochs" in settings:
        decays = settings.get("decay") not in (None, "none")
        yield Curve(np.array(values, dtype=np.float64), settings["epochs"], decays)


def foreseen(values: np.ndarray, planned: int, powers: bool, first: int = 0) -> float:
    """Return what the fitted curve is at the last planned epoch.

    Parameters
    ----------
    values : ndarray of shape (n_epochs,)
        So far.
    planned : int
        The last epoch.
    powers : bool
        Whether the curve is a - b t^-c, instead of a - b exp(-c t).
    first : int
        Epochs at the beginning that are left out.
    """
    epochs, values = np.arange(first + 1, len(values) + 1), values[first:]
    free = EXPONENTS if powers else RATES  # (C,)

    def basis(at: np.ndarray) -> np.ndarray:
        return at[None] ** -free[:, None] if powers else np.exp(-free[:, None] * at[None])  # (C, T)

    shape = basis(epochs)
    middle, mean = shape.mean(axis=1, keepdims=True), values.mean()
    slope = ((shape - middle) * (values - mean)).sum(axis=1) / np.square(shape - middle).sum(axis=1)  # (C,)
    slope = np.minimum(slope, 0)  # a curve that rises
    offset = mean - slope * middle[:, 0]
    errors = np.square(offset[:, None] + slope[:, None] * shape - values).sum(axis=1)
    best = int(np.argmin(errors))
    return float(offset[best] + slope[best] * basis(np.array([planned]))[best, 0])


def by_curve(powers: bool, least: int, half: bool = False, patience: int = 0) -> Rule:
    """Return the rule that stops when a fitted curve promises too little."""

    def stops(values: np.ndarray, planned: int) -> bool:
        n = len(values)
        if n < least or n - 1 - int(np.argmax(values)) < patience:
            return False
        return foreseen(values, planned, powers, n // 2 if half else 0) < (1 + GAIN) * values.max()

    return stops


def by_patience(epochs: int) -> Rule:
    """Return the rule that stops after so many epochs without a better value."""
    return lambda values, _: len(values) - 1 - int(np.argmax(values)) >= epochs


def rules() -> dict[str, Rule]:
    """Return all rules by name."""
    found: dict[str, Rule] = {}
    for name, powers in (("a - b t^-c", True), ("a - b exp(-c t)", False)):
        for epoch in LEAST:
            found[f"{name}, from epoch {epoch}"] = by_curve(powers, epoch)
        later, patience = f"{name}, from epoch {LEAST[-1]}, later half", PATIENCES[1]
        found[later] = by_curve(powers, LEAST[-1], half=True)
        found[f"{later}, and patience {patience}"] = by_curve(powers, LEAST[-1], half=True, patience=patience)
    return {**found, **{f"patience {epochs}": by_patience(epochs) for epochs in PATIENCES}}


def stopped(curve: Curve, rule: Rule) -> tuple[float, float]:
    """Return the share of the run's epochs that a rule takes, and the share of its best value that it loses."""
    n = len(curve.values)
    end = next((epoch for epoch in range(1, n) if rule(curve.values[:epoch], curve.planned)), n)
    return end / n, 1 - curve.values[:end].max() / curve.values.max()


def report(found: Sequence[Curve]) -> str:
    """Return the table of all rules over some runs."""
    body = []
    for name, rule in rules().items():
        shares, lost = np.array([stopped(curve, rule) for curve in found]).T
        body.append(
            [
                *(name, f"{100 * shares.mean():.0f} %", f"{100 * lost.mean():.2f} %", f"{100 * lost.max():.1f} %"),
                f"{(lost > GAIN).sum()} of {len(found)}",
            ]
        )
    return table(["rule", "epochs, of those done", "loss, mean", "loss, most", f"runs that lose {GAIN:.1%}"], body)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for runs with a constant step size, and one for those where it falls to 0.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the command line.
    """
    parser = argparse.ArgumentParser(description="Would a fitted curve have stopped training earlier?")
    parser.add_argument("paths", type=Path, nargs="+", help="folders of runs, or files of figures")
    given = parser.parse_args(arguments)
    found = list({curve.values.tobytes(): curve for curve in curves(given.paths)}.values())  # each once
    if not found:
        parser.error(f"got no run of more than {SHORTEST} epochs with validation users; train some")
    for decays in (False, True):
        some = [curve for curve in found if curve.decays == decays]
        if some:
            how = "falls to 0" if decays else "stays"
            done = np.mean([len(curve.values) for curve in some])
            print(f"\n{len(some)} runs whose step size {how}, {done:.0f} epochs on average\n\n{report(some)}")
            for part in (0.5, 0.75) if decays else ():
                left = [1 - c.values[: round(part * len(c.values))].max() / c.values.max() for c in some]
                print(
                    f"\nThe best of the first {part:.0%} of epochs is {np.mean(left):.1%} below the best, on average."
                )


if __name__ == "__main__":
    main()
