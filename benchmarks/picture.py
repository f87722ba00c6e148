"""Draw the README's picture from the tables of the leaderboard: NDCG@100 by model, and the difference to EASE.

    python benchmarks/picture.py            # or `make docs`; reads benchmarks/leaderboard.md, writes docs/results.svg

Needs matplotlib, which comes with `pip install 'recvae[plot]'`.
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

ROOT = Path(__file__).parent.parent
LEADERBOARD = ROOT / "benchmarks" / "leaderboard.md"
PICTURE = ROOT / "docs" / "results.svg"

COLORS = {"blend": "#d9683c", "network": "#1f6f9f", "linear model": "#3f9b6a", "baseline": "#8a919e"}
NAMES = {
    "recvae": "RecVAE",
    "multvae": "Mult-VAE",
    "multdae": "Mult-DAE",
    "hvamp": "H+Vamp",
    "vasp": "VASP",
    "ae": "AE",
    "elsa": "ELSA",
    "ease": "EASE",
    "edlae": "EDLAE",
    "sansa": "SANSA",
    "infae": "∞-AE",
    "als": "ALS",
    "ials": "iALS",
    "popularity": "popularity",
}
LINEAR, BASELINES = ("ease", "edlae", "elsa", "sansa", "infae"), ("als", "ials", "popularity")
SEEDS = {"twice": "two seeds", "thrice": "three seeds"}
DOT: dict[str, Any] = {"fmt": "o", "capsize": 3, "elinewidth": 1.6, "markersize": 6}
FARTHEST = 0.045  # of a difference on the axis: popularity is far beyond


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run of the leaderboard: its NDCG@100 and the difference to the baseline, None for the baseline itself."""

    run: str
    ndcg: float
    half: float
    difference: tuple[float, float, float] | None  # mean, low, high

    @property
    def kind(self) -> str:
        """Key of `COLORS`."""
        if "-" in self.run:
            return "blend"
        return "linear model" if self.run in LINEAR else "baseline" if self.run in BASELINES else "network"

    @property
    def label(self) -> str:
        """The run's name for people, e.g. `RecVAE (three seeds) + EASE`."""
        words: list[str] = []
        for part in self.run.split("-"):
            if part in SEEDS:
                words[-1] += f" ({SEEDS[part]})"
            else:
                words.append(NAMES.get(part, part))
        return " + ".join(words)


def rows_of(page: str, dataset: str) -> list[Row]:
    """Read the runs of one data set from the leaderboard's two tables, the best first.

    Parameters
    ----------
    page : str
        The text of `leaderboard.md`.
    dataset : str
        Its section, e.g. "ml-1m".

    Returns
    -------
    list of Row
        In the order of the page.
    """
    section = page.split(f"\n## {dataset}\n")[1].split("\n## ")[0]
    means = re.findall(r"^\| ([\w-]+) +\|.*\| +\**([\d.]+)\** ± ([\d.]+)†? \|$", section, flags=re.MULTILINE)
    number = r"([+-][\d.]+)"
    found = re.findall(rf"^\| ([\w-]+) +\| +{number} \[{number}, {number}\]", section, flags=re.MULTILINE)
    differences = {run: (float(mean), float(low), float(high)) for run, mean, low, high in found}
    return [
        Row(run=run, ndcg=float(mean), half=float(half), difference=differences.get(run)) for run, mean, half in means
    ]


def described(rows: list[Row]) -> str:
    """Return the figures in words; the picture carries them, so that a test can compare it with the leaderboard."""
    return "NDCG@100 on MovieLens-1M: " + ", ".join(f"{row.label} {row.ndcg:.4f}" for row in rows)


def draw(rows: list[Row], path: Path) -> None:
    """Draw the rows from top to bottom: means with their intervals, and paired differences with theirs."""
    plt.rcParams.update({"font.size": 10, "svg.hashsalt": "recvae", "axes.grid": True, "grid.alpha": 0.2})
    fig, (means, pairs) = plt.subplots(1, 2, figsize=(9.6, 5.2), sharey=True, layout="constrained")
    for place, row in enumerate(rows):
        color = COLORS[row.kind]
        means.errorbar(row.ndcg, place, xerr=row.half, color=color, **DOT)
        if row.difference is None:
            pairs.plot(0, place, "|", color=color, markersize=14, markeredgewidth=2)
            continue
        mean, low, high = row.difference
        if high < -FARTHEST:
            pairs.annotate(
                f"{mean:+.3f}".replace("-", "−"),
                xy=(-FARTHEST, place),
                xytext=(-0.6 * FARTHEST, place),
                arrowprops={"arrowstyle": "->", "color": color},
                va="center",
                color=color,
            )
            continue
        pairs.errorbar(
            mean,
            place,
            xerr=[[mean - low], [high - mean]],
            fmt="o",
            color=color,
            capsize=3,
            elinewidth=1.6,
            markersize=6,
        )
    baseline = next(row.label for row in rows if row.difference is None)
    means.set_yticks(range(len(rows)), [row.label for row in rows])
    for label, row in zip(means.get_yticklabels(), rows, strict=True):
        label.set_color(COLORS[row.kind])
    means.set_ylim(len(rows) - 0.4, -0.6)
    means.set_title("NDCG@100 of users never seen in training", loc="left", fontsize=11)
    pairs.set_title(f"Difference to {baseline}, user by user", loc="left", fontsize=11)
    pairs.axvline(0, color="#444", linewidth=1)
    pairs.set_xlim(-FARTHEST, FARTHEST)
    for ax in (means, pairs):
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(left=False)
    handles = [Line2D([], [], marker="o", linestyle="", color=color, label=kind) for kind, color in COLORS.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    fig.savefig(path, metadata={"Date": None, "Description": described(rows)})
    plt.close(fig)


def main() -> None:
    """Read the leaderboard and draw the picture."""
    parser = argparse.ArgumentParser(description="Draw the picture of the README from the leaderboard.")
    parser.add_argument("--output", type=Path, default=PICTURE, help="file to write (.svg)")
    args = parser.parse_args()
    draw(rows_of(LEADERBOARD.read_text(encoding="utf-8"), "ml-1m"), args.output)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
