"""Tables and pictures of `ae_dae_vae.py`: aggregate figures only."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

Found = dict[str, list[tuple[str, str, list[dict[str, Any]]]]]
"""By part: side, setting, and the figures of each seed."""

COLORS = {"AE": "#8a919e", "DAE": "#1f6f9f", "VAE": "#d9683c", "VAE, beta chosen": "#e0a458", "Mult-VAE": "#7a4f9d"}
BASELINE = "#444444"


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and half of the 95 % interval (Student's t) of the mean over seeds, NaN for one seed."""
    n = len(values)
    half = stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / n**0.5 if n > 1 else float("nan")
    return float(np.mean(values)), float(half)


def cell(values: Sequence[float | None], digits: int) -> str:
    """Return mean ± half of the interval, "-" where there is no figure."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean, half = over_seeds(known)
    text = [f"{number:,.{digits}f}" for number in (mean, half)]
    if digits == 4:
        text = [number.removeprefix("0") for number in text]
    return text[0] if np.isnan(half) else f"{text[0]} ± {text[1]}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(found: Found, baselines: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield title and Markdown of each table."""
    if "sides" in found:
        yield "Side by side", _sides(found["sides"], baselines)
        yield "Noise in the input", _robustness(found["sides"], baselines)
    for part, title in (("noise", "Noise of training"), ("latent", "Latent units"), ("hidden", "Hidden units")):
        if part in found:
            head = [
                "side",
                "setting",
                "seeds",
                "NDCG@100",
                "targets",
                "own row",
                "own row, training users",
                "active units",
            ]
            rows = [
                [
                    *(side, label, str(len(figures))),
                    cell([one["ndcg"] for one in figures], 4),
                    *(cell([one[name] for one in figures], 0) for name in ("targets", "copied", "copied_train")),
                    cell([one["active_units"] for one in figures], 1),
                ]
                for side, label, figures in found[part]
            ]
            yield title, table(head, rows)
    if "beta" in found:
        yield "The price of a code", _prices(found["beta"])
    if "probes" in baselines:
        yield "Genres from item vectors, mean ROC-AUC", _probes(found.get("probes", []), baselines["probes"])


def _sides(rows: list[tuple[str, str, list[dict[str, Any]]]], baselines: dict[str, Any]) -> str:
    columns = ["", *(side if not label else f"{side}: {label}" for side, label, _ in rows)]
    lines: list[tuple[str, Any, int]] = [
        ("NDCG@100", lambda one: one["ndcg"], 4),
        ("NDCG@100, validation", lambda one: one["validation"], 4),
        ("perplexity of the targets given the fold-in", lambda one: one["targets"], 1),
        ("perplexity of a row given its own code", lambda one: one["copied"], 1),
        ("the same, training users", lambda one: one["copied_train"], 1),
        ("perplexity of a row, ELBO", lambda one: one["rows"].get("ELBO"), 1),
        ("perplexity of a row, bound of 100 draws", lambda one: one["rows"].get("bound of 100 draws"), 1),
        ("active units", lambda one: one["active_units"], 1),
        ("KL of a user, nats", lambda one: one["kl"], 1),
        ("mutual information, nats", lambda one: one["information"], 2),
        ("best epoch", lambda one: one["best_epoch"], 1),
    ]
    body = [[name, *(cell([value(one) for one in figures], n) for _, _, figures in rows)] for name, value, n in lines]
    first = rows[0][2][0]
    guess = first["targets_popularity"]
    whole = next((one["rows"]["popularity"] for _, _, figures in rows for one in figures if one["rows"]), None)
    ease, popular = (f"{baselines[name]['ndcg']:.4f}".removeprefix("0") for name in ("ease", "popularity"))
    note = (
        f"NDCG@100 of EASE {ease}, of popularity {popular}. Perplexity by popularity: of targets {guess:.1f}"
        f"{'' if whole is None else f', of rows {whole:.1f}'}. Most mutual information: "
        f"{first['most_information']:.2f} nats."
    )
    return f"{table(columns, body)}\n\n{note}"


def _prices(rows: list[tuple[str, str, list[dict[str, Any]]]]) -> str:
    head = [
        "beta",
        "NDCG@100",
        "targets",
        "rows, ELBO",
        "KL, nats",
        "mutual information",
        "active units",
        "KL above .01",
    ]
    body = [
        [
            label,
            cell([one["ndcg"] for one in figures], 4),
            cell([one["targets"] for one in figures], 0),
            cell([one["rows"]["ELBO"] for one in figures], 0),
            cell([one["kl"] for one in figures], 1),
            cell([one["information"] for one in figures], 2),
            cell([one["active_units"] for one in figures], 1),
            cell([sum(value > 0.01 for value in one["kl_per_dimension"]) for one in figures], 1),
        ]
        for _, label, figures in rows
    ]
    return table(head, body)


def _robustness(rows: list[tuple[str, str, list[dict[str, Any]]]], baselines: dict[str, Any]) -> str:
    parts = []
    for kind, word in (("dropped", "hidden"), ("added", "added")):
        names = [name for name in rows[0][2][0]["noisy"] if name.startswith(kind)]
        body = [
            [side, *(cell([one["noisy"][name] for one in figures], 4) for name in names)] for side, _, figures in rows
        ]
        body.append(["EASE", *(cell([baselines["ease"]["noisy"][name]], 4) for name in names)])
        parts.append(table(["", *(f"{100 * float(name.split()[1]):.0f} % {word}" for name in names)], body))
    return "\n\n".join(parts)


def _probe_rows(rows: list[tuple[str, str, list[dict[str, Any]]]], others: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield name, mean, low and high; of a network the mean over seeds, with the interval over items."""
    for side, _, figures in rows:
        resampled = np.mean([one["probe"]["resampled"] for one in figures], axis=0)  # (R,)
        yield (
            side,
            (np.mean([one["probe"]["mean"] for one in figures]), *np.percentile(resampled, (2.5, 97.5)), resampled),
        )
    for name, one in others.items():
        yield name, (one["mean"], one["low"], one["high"], np.array(one["resampled"]))


def _probes(rows: list[tuple[str, str, list[dict[str, Any]]]], others: dict[str, Any]) -> str:
    body, known = [], dict(_probe_rows(rows, others))
    mean_of, resampled_of = known["truncated SVD"][0], known["truncated SVD"][3]
    for name, (mean, low, high, resampled) in known.items():
        less, more = np.percentile(resampled - resampled_of, (2.5, 97.5))
        gap = "-" if name == "truncated SVD" else f"{mean - mean_of:+.3f} [{less:+.3f}, {more:+.3f}]"
        body.append([name, f"{mean:.3f} [{low:.3f}, {high:.3f}]".replace("0.", "."), gap.replace("0.", ".")])
    n = len(next(iter(others.values()))["aucs"])
    return table(["item vectors", f"mean ROC-AUC of {n} genres", "minus that of truncated SVD"], body)


def draw(found: Found, baselines: dict[str, Any], folder: Path) -> Iterator[Path]:
    """Draw what was measured and yield the pictures."""
    pictures = {
        "sides": (_draw_sides, "sides"),
        "noise": (_draw_robustness, "sides"),
        "collapse": (_draw_collapse, "beta"),
        "widths": (_draw_widths, "latent"),
        "probes": (_draw_probes, "probes"),
    }
    for name, (function, part) in pictures.items():
        if part in found and (part != "probes" or "probes" in baselines):
            path = folder / f"ae-dae-vae-{name}.png"
            figure = function(found, baselines)
            for axis in figure.axes:
                axis.spines[["top", "right"]].set_visible(False)
                axis.grid(alpha=0.2)
            figure.savefig(path, dpi=110, metadata={"Software": None})
            yield path


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_sides(found: Found, baselines: dict[str, Any]) -> Any:
    figure = _figure(10, 2.8)
    axes = figure.subplots(1, 4, sharey=True)
    titles = {
        "ndcg": "NDCG@100\n(higher is better)",
        "targets": "perplexity of targets\n(lower is better)",
        "copied": "perplexity of a row\ngiven its own code",
        "active_units": "active units",
    }
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for place, (side, _, figures) in enumerate(found["sides"]):
            mean, half = over_seeds([one[name] for one in figures])
            axis.errorbar(mean, place, xerr=half, fmt="o", color=COLORS[side], capsize=3)
        axis.set_title(title, loc="left", fontsize=10)
    axes[0].axvline(baselines["ease"]["ndcg"], color=BASELINE, linestyle=":", label="EASE")
    axes[0].legend(frameon=False, fontsize=8)
    axes[0].set_yticks(range(len(found["sides"])), [side for side, _, _ in found["sides"]])
    axes[0].set_ylim(len(found["sides"]) - 0.5, -0.5)
    return figure


def _draw_robustness(found: Found, baselines: dict[str, Any]) -> Any:
    figure = _figure(10, 3.6)
    for axis, kind in zip(figure.subplots(1, 2, sharey=True), ("dropped", "added"), strict=True):
        names = [name for name in baselines["ease"]["noisy"] if name.startswith(kind)]
        shares = [float(name.split()[1]) for name in names]
        for side, _, figures in found["sides"]:
            pairs = [over_seeds([one["noisy"][name] for one in figures]) for name in names]
            means, halves = zip(*pairs, strict=True)
            axis.errorbar(shares, means, yerr=halves, color=COLORS[side], fmt="o-", capsize=2, label=side)
        ease = [baselines["ease"]["noisy"][name] for name in names]
        axis.plot(shares, ease, ":", color=BASELINE, label="EASE")
        what = (
            "share of the fold-in that is hidden" if kind == "dropped" else "random items added, share of the fold-in"
        )
        axis.set_xlabel(what)
    measured = [baselines["ease"], *(one for _, _, figures in found["sides"] for one in figures)]
    highest = max(max(one["noisy"].values()) for one in measured)
    figure.axes[0].set(ylabel="NDCG@100", ylim=(0, 1.05 * highest))
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def _draw_collapse(found: Found, baselines: dict[str, Any]) -> Any:  # noqa: ARG001  (networks only)
    from matplotlib import colormaps

    figure = _figure(10, 3.2)
    sizes, active, told = figure.subplots(1, 3)
    for place, (_, label, figures) in enumerate(found["beta"]):
        first, color = figures[0], colormaps["viridis"](0.9 * place / max(len(found["beta"]) - 1, 1))
        epochs = range(1, len(first["epochs"]) + 1)
        kl = sorted(first["kl_per_dimension"], reverse=True)
        sizes.plot(range(1, len(kl) + 1), np.maximum(kl, 1e-5), color=color, label=f"beta {label}")
        active.plot(epochs, [one["active_units"] for one in first["epochs"]], color=color)
        told.plot(epochs, [one["mutual_information"] for one in first["epochs"]], color=color)
    sizes.set(xlabel="latent unit, in order", ylabel="KL, nats", yscale="log")
    active.set(xlabel="epoch", ylabel="active units", ylim=(0, None))
    told.set(xlabel="epoch", ylabel="mutual information, nats", ylim=(0, None))
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure


def _draw_widths(found: Found, baselines: dict[str, Any]) -> Any:  # noqa: ARG001  (networks only)
    figure = _figure(10, 5.4)
    axes = figure.subplots(2, 2, sharex="col")
    for column, part in enumerate(("latent", "hidden")):
        for side in dict.fromkeys(side for side, _, _ in found.get(part, [])):
            rows = [(int(label), figures) for name, label, figures in found[part] if name == side]
            places = [width for width, _ in rows]
            for axis, name in zip(axes[:, column], ("ndcg", "active_units"), strict=True):
                pairs = [over_seeds([one[name] for one in figures]) for _, figures in rows]
                means, halves = zip(*pairs, strict=True)
                axis.errorbar(places, means, yerr=halves, fmt="o-", capsize=2, color=COLORS[side], label=side)
        axes[0, column].set(xscale="log", ylabel="NDCG@100")
        axes[1, column].set(xscale="log", ylabel="active units", xlabel=f"{part} units")
        ticks = sorted({int(label) for _, label, _ in found.get(part, [])})
        axes[1, column].set_xticks(ticks, [str(tick) for tick in ticks])
        axes[1, column].minorticks_off()
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure


def _draw_probes(found: Found, baselines: dict[str, Any]) -> Any:
    figure = _figure(8, 3.2)
    axis = figure.subplots()
    names = []
    for place, (name, (mean, low, high, _)) in enumerate(_probe_rows(found["probes"], baselines["probes"])):
        axis.errorbar(
            mean, place, xerr=[[mean - low], [high - mean]], fmt="o", capsize=3, color=COLORS.get(name, BASELINE)
        )
        names.append(name)
    axis.axvline(0.5, color=BASELINE, linestyle=":")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("mean ROC-AUC over genres, 95 % interval over items")
    return figure
