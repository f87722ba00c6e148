"""Every model, tuned on validation within a stated budget, on six data sets: makes benchmarks/leaderboard.md.

    python benchmarks/leaderboard.py --source ml-1m=path/to/ml-1m --source ml-100k=path/to/ml-100k ...

Everything is done by the commands a user has: `recvae preprocess`, `tune`, `train --model blend`, `compare`. Without
--source the data are downloaded. What was done before is not done again: an interrupted run goes on. Blends are chosen
on validation among the pairs of a network and a closed form; the strongest network is there with two and with three
seeds as well, blended evenly. Test users are looked at once, at the end.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measuring import processor
from recvae.models import MODELS
from recvae.models.common.autoencoder import Autoencoder

HERE = Path(__file__).parent
METRICS = "recall@20,recall@50,ndcg@100"
# Whatever is registered takes part: closed forms are searched whole, networks within the budget.
NETWORKS = tuple(name for name, model in MODELS.items() if issubclass(model, Autoencoder))
CLOSED = tuple(name for name, model in MODELS.items() if model.space and name not in NETWORKS)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a data set gets.

    Parameters
    ----------
    prepared : tuple of str
        Words of `recvae preprocess` behind the name; FOLDER is where --source says that the data are.
    users : str
        Which users are held out, for the reader.
    trials : int
        Trials per network, at most.
    timeouts : dict of str to str
        Time of a network's trials, after which none is begun or finished; of the others under "".
    closed : dict of str to str
        Time of the trials of a closed form that is too large to be searched whole.
    left_out : dict of str to str
        Models that are not there, and why.
    fixed : dict of str to list of str
        Settings of a model that are not searched, to keep its trials within the time.
    partners : int
        How many closed forms take part in blends, the best on validation; 0 for all.
    more_seeds : bool
        Whether the strongest network is there with two and with three seeds, too.
    """

    prepared: tuple[str, ...]
    users: str
    trials: int
    timeouts: dict[str, str]
    fixed: dict[str, list[str]]
    closed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    partners: int = 0
    more_seeds: bool = True


# Averages were better on validation for every network they were tried with; float32 is the same on all hardware.
AVERAGED = ["averaging=0.9", "precision=float32"]
SMALLER_HVAMP = ["hidden_dim=300", "pseudo_inputs=200", "latent_dim=100", "epochs=100", *AVERAGED]
SMALL_DATA = {
    "ae": AVERAGED,
    "multdae": AVERAGED,
    "multvae": AVERAGED,
    "recvae": AVERAGED,
    "hvamp": SMALLER_HVAMP,
    "vasp": ["hidden_dim=300", "epochs=100", *AVERAGED],
}

LARGE = ["sampling=popularity", "row_wise=true", *AVERAGED]

TOO_SLOW = {"vasp": "its items x items layer does not train within the time", "hvamp": "no trial ends within the time"}


def _strong(n_users: int) -> dict[str, Any]:
    """Return how a data set is prepared with so many held-out users in validation and in test."""
    return {"prepared": ("--heldout-users", str(n_users)), "users": f"{n_users} + {n_users} held-out users"}


BUDGETS = {
    "ml-1m": Budget(
        **_strong(500),
        trials=24,
        timeouts={"": "8m", "multvae": "20m", "hvamp": "15m", "vasp": "15m", "recvae": "50m"},
        fixed=SMALL_DATA
        | {
            "vasp": ["epochs=80", *AVERAGED],
            "recvae": ["epochs=40", "patience=10", "batch_size=100", *AVERAGED],
        },
    ),
    "ml-100k": Budget(**_strong(200), trials=24, timeouts={"": "3m"}, fixed=SMALL_DATA),
    "ml-latest-small": Budget(**_strong(120), trials=24, timeouts={"": "3m"}, fixed=SMALL_DATA),
    "lastfm-2k": Budget(
        **_strong(190),
        trials=24,
        timeouts={"": "5m", "recvae": "8m"},
        fixed=SMALL_DATA,
        closed={"ease": "8m", "edlae": "10m", "sansa": "5m", "infae": "5m", "als": "5m", "ials": "5m"},
        left_out=TOO_SLOW,
    ),
    "citeulike-a": Budget(
        **_strong(555),
        trials=24,
        timeouts={"": "7m", "recvae": "12m"},
        fixed=SMALL_DATA
        | {name: ["epochs=60", "decay=cosine", *AVERAGED] for name in ("ae", "multdae")}
        | {"recvae": ["epochs=20", "decay=cosine", "batch_size=500", *AVERAGED]},
        closed={"ease": "10m", "edlae": "12m", "sansa": "6m", "infae": "6m", "als": "6m", "ials": "6m"},
        left_out=TOO_SLOW,
    ),
    "amazon-cds": Budget(
        prepared=("--train", "FOLDER/train.txt", "--test", "FOLDER/test.txt", "--name", "amazon-cds"),
        users="all 43,169 users, a part of whose training items is validation",
        trials=12,
        timeouts={"": "11m"},
        # An epoch of Mult-VAE takes one thread 70 s with the softmax over all items, and 37 s so, with more updates.
        fixed={name: ["epochs=10", "decay=cosine", "batch_size=200", *LARGE] for name in ("multvae", "multdae")}
        | {"recvae": ["epochs=6", "decay=cosine", "batch_size=500", *LARGE]},
        # One inverse of 35,648 items takes one thread some 20 minutes: EASE gets two trials, EDLAE its rule.
        closed={"ease": "45m", "edlae": "25m", "sansa": "7m", "als": "7m", "ials": "7m"},
        left_out=TOO_SLOW
        | {
            "infae": "its inverse of users x users takes 15 GB",
            "elsa": "no trial of 5 epochs ended within 11 minutes",
            "ae": "the time is the others'",
        },
        partners=2,
        more_seeds=False,
    ),
}


class Workshop:
    """Runs commands on one data set, and reads what they left.

    Parameters
    ----------
    data : str
        Name of the data set.
    data_dir, runs_dir : Path
        Where everything is kept.
    """

    def __init__(self, data: str, data_dir: Path, runs_dir: Path) -> None:
        self.data, self.data_dir, self.runs_dir = data, data_dir, runs_dir
        self.budget = BUDGETS[data]
        self.lines: list[str] = []

    def recvae(self, *words: str, told: bool = True) -> str:
        """Run a command and return what it printed; remember its line for the report."""
        line = ["recvae", *words]
        if told:
            self.lines.append(" ".join(line))
        where = ["--data-dir", str(self.data_dir)]
        where += [] if words[0] == "preprocess" else ["--runs-dir", str(self.runs_dir)]
        print("$", *line, file=sys.stderr, flush=True)
        program = [sys.executable, "-c", "from recvae_cli.app import main; main()"]
        return subprocess.run([*program, *words, *where], check=True, stdout=subprocess.PIPE, text=True).stdout

    def card(self, run: str) -> dict[str, Any]:
        """Return what a finished run says of itself, empty where there is none."""
        path = self.runs_dir / self.data / run / "recommender.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def validation(self, run: str) -> float:
        """Return the validation NDCG@100 of a run."""
        return float(self.card(run)["metrics"]["validation"]["ndcg@100"])

    def prepare(self, source: str | None) -> None:
        """Make the data set, unless it is there."""
        options = self.budget.prepared
        is_named = "--name" not in options  # otherwise its files are named
        words = ["preprocess", *([self.data] if is_named else []), *options]
        self.lines.append(" ".join(["recvae", *words]))
        if (self.data_dir / self.data / "manifest.json").exists():
            return
        if is_named:
            words += ["--source", source] if source else []
        elif source is None:
            sys.exit(f"got no folder of {self.data}, expected --source {self.data}=FOLDER")
        self.recvae(*(word.replace("FOLDER", source or "") for word in words), told=False)

    def tune(self, model: str) -> dict[str, Any]:
        """Search for a model's hyperparameters, or go on with that; return what the command reports."""
        words = ["tune", "--model", model, "--data", self.data, "--name", model, "--overwrite"]
        words += [word for setting in self.budget.fixed.get(model, []) for word in ("--set", setting)]
        words += ["--trials", str(self.budget.trials if model in NETWORKS else 50)]
        timeouts = self.budget.timeouts
        timeout = timeouts.get(model, timeouts[""]) if model in NETWORKS else self.budget.closed.get(model)
        words += ["--timeout", timeout] if timeout else []
        line = " ".join(["recvae", *words])
        self.lines.append(line)
        kept = self.runs_dir / self.data / f"{model}.tuned.json"
        if kept.exists() and self.card(model):
            done = json.loads(kept.read_text(encoding="utf-8"))
            if done.get("line") == line:  # the same search, ended before
                return done
        report = {"line": line, **json.loads(self.recvae(*words, "--json", told=False))}
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(report, indent=2), encoding="utf-8")
        return report

    def train(self, model: str, name: str, settings: list[str]) -> str:
        """Train a run, unless it is there, and return its name."""
        words = ["train", "--model", model, "--data", self.data, "--name", name]
        words += [word for setting in settings for word in ("--set", setting)]
        if not self.card(name):
            self.recvae(*words, told=False)
        self.lines.append(" ".join(["recvae", *words]))
        return name

    def blend(self, first: str, second: str) -> str:
        """Blend two runs, the weight chosen on validation, and return the name of the result."""
        return self.train("blend", f"{first}-{second}", [f"first={first}", f"second={second}"])

    def drop_weights(self, runs: Iterable[str]) -> None:
        """Remove what blends that are not shown take on the disk: each has the weights of both its runs."""
        for run in runs:
            (self.runs_dir / self.data / run / "weights.safetensors").unlink(missing_ok=True)

    def with_more_seeds(self, model: str, report: dict[str, Any]) -> list[str]:
        """Train a tuned network with two more seeds, and return the names of the even blends of two and of three."""
        settings = self.settings(model, report)
        again, third = (self.train(model, f"{model}-{seed}", [*settings, f"seed={seed}"]) for seed in (1, 2))
        twice = self.train("blend", f"{model}-twice", [f"first={model}", f"second={again}", "weight=0.5"])
        thrice = self.train("blend", f"{model}-thrice", [f"first={twice}", f"second={third}", f"weight={2 / 3:.3f}"])
        return [twice, thrice]

    def settings(self, model: str, report: dict[str, Any]) -> list[str]:
        """Return what was fixed and what was found of a model, name=value each."""
        found = report["top"][0]["settings"]
        return [*self.budget.fixed.get(model, []), *(f"{name}={value}" for name, value in found.items())]


def measure(shop: Workshop, source: str | None, seeds: int) -> str:
    """Tune, blend and compare on one data set; return its part of the page."""
    shop.prepare(source)
    closed, networks = ([name for name in names if name not in shop.budget.left_out] for names in (CLOSED, NETWORKS))
    reports = {model: shop.tune(model) for model in (*closed, *networks)}
    if not shop.card("popularity"):
        shop.recvae("train", "--model", "popularity", "--data", shop.data, told=False)
    strongest = max(networks, key=shop.validation)
    several = shop.with_more_seeds(strongest, reports[strongest]) if shop.budget.more_seeds else []
    partners = sorted(closed, key=shop.validation)[::-1][: shop.budget.partners or None]
    candidates = [*itertools.product((*networks, *several), partners), ("edlae", "als")]
    reached: dict[str, float] = {}  # on validation, by blend
    best = single = ""
    for first, second in candidates:
        pair = shop.blend(first, second)
        reached[pair] = shop.validation(pair)
        best = max(reached, key=reached.__getitem__)
        single = max((one for one in reached if not one.startswith(tuple(several))), key=reached.__getitem__)
        shop.drop_weights({*reached} - {best, single, "edlae-als"})
    runs = list(dict.fromkeys([*networks, *closed, "popularity", *several, "edlae-als", single, best]))
    names = [f"{shop.data}/{run}" for run in runs]
    words = ["compare", *names, "--to", f"{shop.data}/ease", "--metrics", METRICS, "--format", "markdown"]
    words += ["--seeds", str(seeds)] if seeds > 1 else []
    table = shop.recvae(*words)
    return "\n\n".join(
        [
            f"## {shop.data}",
            table.strip(),
            "Chosen on validation (NDCG@100), what is not named being the default:",
            _settings(shop, reports, [*several, "edlae-als", single, best]),
            "The blends tried, by validation NDCG@100: "
            + ", ".join(f"{name} {reached[name]:.4f}" for name in sorted(reached, key=reached.__getitem__)[::-1])
            + ".",
            "Made by\n\n```console\n" + "\n".join(shop.lines) + "\n```",
        ]
    )


def _settings(shop: Workshop, reports: dict[str, dict[str, Any]], blends: list[str]) -> str:
    rows = ["| run | validation | trials: complete, pruned, failed | hyperparameters |", "|---|---|---|---|"]
    for model, report in reports.items():
        settings = shop.settings(model, report)
        counts = ", ".join(str(report["trials"][state]) for state in ("complete", "pruned", "failed"))
        rows.append(f"| {model} | {shop.validation(model):.4f} | {counts} | {', '.join(settings)} |")
    for blend in dict.fromkeys(blends):
        weight = shop.card(blend)["training"]["weight"]
        rows.append(f"| {blend} | {shop.validation(blend):.4f} | - | weight {weight:g} |")
    return "\n".join(rows)


def page(names: list[str], parts: list[str], seeds: int) -> str:
    """Return the whole page: what was done, the tables, and what others published."""
    budgets = "\n".join(
        f"- {name}: {b.users}; up to {b.trials} trials or {b.timeouts['']} per network"
        + "".join(f" ({model}: {time})" for model, time in b.timeouts.items() if model)
        + "".join(f", {model}: {time}" for model, time in b.closed.items())
        + "".join(f"; without {model}: {why}" for model, why in b.left_out.items())
        + "".join(f"; {model} with {', '.join(fixed)}" for model, fixed in b.fixed.items())
        + (f"; blends only with the {b.partners} best closed forms" if b.partners else "")
        + ("; one seed" if not b.more_seeds else "")
        for name, b in ((name, BUDGETS[name]) for name in names)
    )
    head = (HERE / "leaderboard.head.md").read_text(encoding="utf-8")
    tail = (HERE / "leaderboard.published.md").read_text(encoding="utf-8")
    filled = head.format(
        machine=f"{processor()}, {os.environ.get('OMP_NUM_THREADS', os.cpu_count())} thread(s) per fit",
        versions=f"Python {platform.python_version()}, torch {version('torch')}, numpy {version('numpy')}",
        seeds="seed 0" if seeds == 1 else f"{seeds} seeds, the tuned one and the next",
        date=date.today().isoformat(),
        budgets=budgets,
    )
    return "\n\n".join([filled.strip(), *parts, tail.strip()]) + "\n"


def main() -> None:
    """Read the options and make the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", choices=BUDGETS, help="only this data set (repeat for several)")
    parser.add_argument("--source", action="append", default=[], metavar="NAME=FOLDER", help="raw data on the disk")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, default=1, help="seeds per network")
    parser.add_argument("--output", type=Path, default=HERE / "leaderboard.md")
    options = parser.parse_args()
    sources = dict(source.split("=", 1) for source in options.source)
    parts = []
    names = options.data or list(BUDGETS)
    for data in names:
        shop = Workshop(data, options.data_dir, options.runs_dir)
        parts.append(measure(shop, sources.get(data), options.seeds))
    options.output.write_text(page(names, parts, options.seeds), encoding="utf-8")
    print(f"written to {options.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
