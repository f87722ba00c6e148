"""What a comparison shows to people: a table of metrics, of seeds where there are several, and of differences and cost.

The forms (terminal, Markdown, LaTeX, HTML) are made from these by `tables`.
"""

from typing import TYPE_CHECKING

import numpy as np

from recvae.compute.memory import human_bytes
from recvae.display import plural
from recvae.evaluation.evaluate import Summary, better_of, summarise
from recvae.evaluation.significance import ALPHA
from recvae.evaluation.slices import title_of
from recvae.evaluation.tables import DAGGER, Cell, Page, Table, human_count, human_seconds
from recvae.metrics.metric import LOWER, NEITHER

if TYPE_CHECKING:
    from recvae.evaluation.comparison import Comparison


def page_of(comparison: "Comparison") -> Page:
    """Return the tables of a comparison, with its title and remarks.

    Parameters
    ----------
    comparison : Comparison
        The rows of all tables are its contenders, the best first.
    """
    manifest, n_without = comparison.manifest, comparison.n_users_without_target
    protocol = ", ".join(f"{key} {value}" for key, value in manifest.get("protocol", {}).items())
    name, fingerprint = manifest.get("name", "unnamed data"), str(manifest.get("fingerprint", ""))[:12]
    is_are = "is" if n_without == 1 else "are"
    left_out = f" ({plural(n_without, 'user')} without a target {is_are} left out)" if n_without else ""
    remarks = [contender.note for contender in comparison.ranking if contender.note]
    if comparison.choice:
        remarks.insert(0, f"baseline: {comparison.baseline} ({comparison.choice})")
    remarks += [
        f"{metric} is a mean over {n:,} of these {plural(comparison.n_users, 'user')}: no other has a value of it"
        if n
        else f"{metric}: no user has a value of it"
        for metric, n in fewer_users(comparison).items()
    ]
    if comparison.split == "validation":
        remarks.append("epochs and baselines were chosen on these users; use --split test for a fair comparison")
    if len({contender.trained_on for contender in comparison.contenders}) > 1:
        remarks.append("runs were trained on different parts of the data: a part of their differences comes from this")
    tables = [_metrics_table(comparison), _cost_table(comparison)]
    if any(len(contender.seeds) > 1 for contender in comparison.contenders):
        tables.insert(1, _seeds_table(comparison))
    if comparison.by is not None:
        tables.insert(1, _slices_table(comparison, comparison.by))
    return Page(
        title=f"{name}: {plural(comparison.n_users, f'{comparison.split} user')}{left_out}; {protocol}; "
        f"fingerprint {fingerprint}",
        tables=tables,
        remarks=remarks,
    )


def fewer_users(comparison: "Comparison") -> dict[str, int]:
    """Return over how many users a metric is a mean, of those that some users with a target have no value of.

    `tail_recall` is one: a user without a target in the tail has none.
    """
    found = {name: int((~np.isnan(values)).sum()) for name, values in comparison.contenders[0].per_user.items()}
    return {
        name: found[name] for name in comparison.metrics if found.get(name, comparison.n_users) < comparison.n_users
    }


def _metrics_table(comparison: "Comparison") -> Table:
    columns: list[list[Cell]] = []
    for metric in comparison.metrics:
        tests = comparison.tests(metric)
        summaries = {contender.name: contender.summary(metric) for contender in comparison.ranking}
        means = _best_first(metric, list(summaries.values()))
        columns.append(
            [
                _mean_cell(summary, means, name in tests and tests[name].significant)
                for name, summary in summaries.items()
            ]
        )
    differs = f"; {DAGGER} differs from {comparison.baseline} (paired t-test, Holm, p < {ALPHA:.2f})"
    shows_data = any(contender.trained_on != "train" for contender in comparison.contenders)
    data = [[Cell(contender.trained_on)] if shows_data else [] for contender in comparison.ranking]
    return Table(
        headers=["run", *(["trained on"] if shows_data else []), *comparison.metrics],
        rows=[[Cell(c.name), *on, *cells] for c, on, *cells in zip(comparison.ranking, data, *columns, strict=True)],
        note="mean ± half of its 95 % interval over users" + (differs if comparison.baseline is not None else ""),
    )


def _best_first(metric: str, summaries: list[Summary]) -> list[float]:
    """Return the means of several runs, the best first; none where none is the best."""
    better = better_of(metric)
    if len(summaries) < 2 or better == NEITHER:  # alone, it is neither the best nor the worst
        return []
    return sorted({s.mean for s in summaries if s.mean is not None}, reverse=better != LOWER)


def _slices_table(comparison: "Comparison", by: str) -> Table:
    """Return a row for each slice and run; runs that can be compared stand together."""
    metrics = [metric for metric in comparison.metrics if metric in comparison.contenders[0].per_user]
    rows = []
    for part, n_users in comparison.users_by_slice().items():
        summaries = {
            metric: [summarise(contender.slices[part][metric]) for contender in comparison.ranking]
            for metric in metrics
        }
        for place, contender in enumerate(comparison.ranking):
            cells = [_mean_cell(found[place], _best_first(metric, found), False) for metric, found in summaries.items()]
            rows.append([Cell(f"{part}: {contender.name}"), Cell(f"{n_users:,}"), *cells])
    return Table(headers=[by, "users", *metrics], rows=rows, note=f"{title_of(by)}; runs are compared within a part")


def _seeds_table(comparison: "Comparison") -> Table:
    rows = []
    for contender in comparison.ranking:
        deviations = [contender.seed_sd(metric) for metric in comparison.metrics]
        seeds = ", ".join(map(str, contender.seeds)) or "has none"
        rows.append([Cell(contender.name), Cell(seeds), *(Cell(_number(value)) for value in deviations)])
    return Table(
        headers=["run", "seeds", *(f"sd of {metric}" for metric in comparison.metrics)],
        rows=rows,
        note="standard deviation over seeds of a run's mean; all other numbers are of the mean over seeds",
    )


def _cost_table(comparison: "Comparison") -> Table:
    """Return the differences of the main metric to the baseline, where there is one, and what each run cost."""
    tests = comparison.tests(comparison.main_metric)
    rows = []
    for contender in comparison.ranking:
        test = tests.get(contender.name)
        is_baseline = contender.name == comparison.baseline
        difference = [
            Cell("baseline" if is_baseline else _interval(test.difference if test else Summary(None))),
            Cell("-" if is_baseline else _p(test.p_holm if test else float("nan"))),
        ]
        cost = [
            Cell(human_seconds(contender.seconds)),
            Cell(human_bytes(contender.n_bytes)),
            Cell(human_count(contender.n_parameters)),
        ]
        rows.append([Cell(contender.name), *(difference if comparison.baseline is not None else []), *cost])
    if comparison.baseline is None:
        headers, note = ["run"], "training time of one fit, size of the weights"
    else:
        headers = ["run", f"{comparison.main_metric} difference", "p (Holm)"]
        note = f"difference to {comparison.baseline}, paired by user, with its 95 % interval; training time of one fit"
    return Table(headers=[*headers, "training", "size", "parameters"], rows=rows, note=note)


def _mean_cell(summary: Summary, means: list[float], marked: bool) -> Cell:
    if summary.mean is None:
        return Cell("-")
    rank = means.index(summary.mean) + 1 if means else 0
    half = "" if summary.low is None else f"± {summary.mean - summary.low:.4f}"
    return Cell(f"{summary.mean:.4f}", half, rank if rank < 3 else 0, marked)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(difference: Summary) -> str:
    if difference.mean is None or difference.low is None or difference.high is None:
        return _number(difference.mean)
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def _p(p: float) -> str:
    if np.isnan(p):
        return "-"
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"
