"""Who is trained to a mark, how that went, and the table of it; see quality.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from environments import requirements
from work import Answer

SHARE = 0.99  # of a best NDCG@100, the mark
MODELS = {"multvae": "Mult-VAE", "recvae": "RecVAE", "edlae": "EDLAE", "blend": "EDLAE + ALS"}
PEERS = ("recbole", "cornac")


@dataclass(frozen=True)
class Contender:
    """Who is trained, and how it goes.

    Parameters
    ----------
    label : str
        How the table calls it.
    worker : str
        "recvae" or a peer.
    settings : mapping
        Arguments of the worker's job "learn", without seed and limits.
    answers : list of Answer
        By round.
    """

    label: str
    worker: str
    settings: Mapping[str, Any]
    answers: list[Answer] = field(default_factory=list)

    def best(self) -> np.ndarray:
        """Return the best NDCG@100 of each round."""
        return np.array([max(answer.found["ndcg"]) for answer in self.answers])

    def tried(self, clock: str = "training") -> np.ndarray:
        """Return the seconds of each round, all told."""
        return np.array([answer.found[clock][-1] for answer in self.answers])

    def until(self, marks: np.ndarray | float, clock: str = "training") -> np.ndarray:
        """Return the seconds until a mark of each round, infinite where it was not reached.

        Parameters
        ----------
        marks : float or ndarray of shape (n_rounds,)
            The NDCG@100 to reach.
        clock : str
            "training", or "whole" with validations.
        """
        each = np.broadcast_to(marks, len(self.answers))
        return np.array([time_to(m, a.found["ndcg"], a.found[clock]) for m, a in zip(each, self.answers, strict=True)])

    def to_json(self, mark: float) -> dict[str, Any]:
        """Return all of it; a mark that was not reached has None for its seconds."""
        times = {"to_the_mark": self.until(mark), "to_its_own": self.until(SHARE * self.best())}
        finite = {name: [s if np.isfinite(s) else None for s in taken.tolist()] for name, taken in times.items()}
        return {
            "settings": dict(self.settings),
            "best": self.best().tolist(),
            **finite,
            "rounds": [{"seconds": answer.seconds, **answer.found} for answer in self.answers],
        }


def time_to(mark: float, ndcg: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the seconds up to the end of the first epoch whose NDCG is the mark or more; infinity without one."""
    return next((float(end) for value, end in zip(ndcg, seconds, strict=True) if value >= mark), float("inf"))


def spread(values: np.ndarray, least: np.ndarray, form: str = ".1f") -> str:
    """Return the median of the rounds, and with several the lowest and the highest.

    Parameters
    ----------
    values : ndarray of shape (n_rounds,)
        Infinite where something was not reached.
    least : ndarray of shape (n_rounds,)
        What is below a value that is infinite.
    form : str
        Of a number.
    """
    median = np.median(values)
    if np.isinf(median):
        return f">{np.median(np.minimum(values, least)):{form}}"
    highest = "never" if np.isinf(values.max()) else f"{values.max():{form}}"
    return f"{median:{form}}" + (f" ({values.min():{form}} - {highest})" if len(values) > 1 else "")


def contenders(only: Sequence[str], settings: Mapping[str, Any]) -> list[Contender]:
    """Return who is trained, in the order of a round.

    Parameters
    ----------
    only : sequence of str
        Of `MODELS` and `PEERS`.
    settings : mapping
        Hyperparameters of a Mult-VAE that is trained beside that with its defaults; empty for none.
    """
    found = []
    for name in dict.fromkeys(only):
        if name in PEERS:
            package = requirements(name)[0].replace("==", " ")
            found += [
                Contender(f"{package}, as the paper", name, {"own": False}),
                Contender(f"{package}, own defaults", name, {"own": True}),
            ]
            continue
        found.append(Contender(f"recvae {MODELS[name]}", "recvae", {"model": name, "values": {}}))
        if name == "multvae" and settings:
            values = ", ".join(f"{key}={value}" for key, value in settings.items())
            found.append(Contender(f"  {values}", "recvae", {"model": name, "values": dict(settings)}))
    return found


def table(among: Sequence[Contender], mark: float, reasons: Mapping[str, str]) -> str:
    """Return what was measured, a line for each contender.

    Parameters
    ----------
    among : sequence of Contender
        By line.
    mark : float
        The NDCG@100 to reach.
    reasons : mapping of str to str
        Why one did not come to its end, by its label.
    """
    ours = next((one for one in among if one.settings.get("model") == "multvae"), None)
    heads = ["", "best NDCG@100", "epochs", "s to the mark", "with validations", "s to 99 % of its own", "/ Mult-VAE"]
    rows = {one.label: _cells(one, mark, ours) for one in among if one.answers}
    widths = [max(map(len, column)) for column in zip(heads, *rows.values(), strict=True)]
    lines = [_line(heads, widths)]
    for one in among:
        if one.label in rows:
            lines.append(_line(rows[one.label], widths))
        if one.label in reasons:
            lines.append(f"{one.label}: {reasons[one.label]}")
    return "\n".join(lines)


def _cells(one: Contender, mark: float, ours: Contender | None) -> list[str]:
    """Return the line of a contender whose ratio is to `ours`."""
    found, best, taken, tried = one.answers[0].found, one.best(), one.until(mark), one.tried()
    batches = f", {found['batch_size']} x {found['learning_rate']:g}" if one.worker in PEERS else ""
    epochs = spread(np.array([len(answer.found["ndcg"]) for answer in one.answers]), best, ".0f")
    whole = spread(one.until(mark, "whole"), one.tried("whole")) if found["whole"] else ""
    ratio = ""
    n_rounds = min(len(one.answers), len(ours.answers)) if ours else 0  # of which both came to their end
    if ours and n_rounds and np.isfinite(of_ours := ours.until(mark)[:n_rounds]).all():
        ratio = spread(taken[:n_rounds] / of_ours, tried[:n_rounds] / of_ours, ".2f")
    return [
        one.label + batches,
        spread(best, best, ".4f"),
        epochs,
        spread(taken, tried),
        whole,
        spread(one.until(SHARE * best), tried),
        ratio,
    ]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    others = (f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "   ".join([f"{cells[0]:<{widths[0]}}", *others]).rstrip()
