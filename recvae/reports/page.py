"""A report: one page on data, protocol, results, pictures, single users, failures, and how to make it all again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from recvae.bundles.bundle import Bundle
from recvae.datasets.dataset import Dataset
from recvae.display import plural
from recvae.errors import UsageError
from recvae.evaluation.comparison import Comparison
from recvae.evaluation.documents import document
from recvae.evaluation.evaluate import better_of, main_metric
from recvae.evaluation.tables import table_as_html
from recvae.metrics.metric import HIGHER
from recvae.recommenders.recommender import Recommender
from recvae.reports.again import again
from recvae.reports.examples import Shown, examples, segments, worst_users
from recvae.reports.markup import STYLE, escaped, listed, paragraph, picture_of, section
from recvae.reports.measuring import Measured
from recvae.reports.popularity import share_text, times_recommended
from recvae.reports.words import data_words, metric_words, protocol_words
from recvae.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = {
    "curves": "What was logged in each epoch. The star is the epoch whose weights were kept.",
    "by-k": "The metric for short and long lists. Bands that overlap do not mean that two runs are alike: they are "
    "measured on the same users, so the paired differences in the table decide.",
    "by-history": "Each point is the mean over a fifth of the users. Left: users with few items, right: with many.",
    "by-popularity": "How many of the hidden items were found, for rare and for popular ones.",
    "bias": "Above the dotted line, users are recommended more popular items than those that they chose themselves.",
    "coverage": "Which share of all recommendations goes to which share of the catalogue (the Lorenz curve, read from "
    "its other end). Where a curve reaches the top, no further item is recommended to anyone.",
    "map": "Each point is a user. Near points are users whom the model takes to be alike.",
}
_SECTIONS = {
    "data": "The data",
    "protocol": "How it was measured",
    "results": "Results",
    "pictures": "Pictures",
    "examples": "Some users",
    "failures": "Where it fails",
    "again": "How to make it again",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report shows.

    Parameters
    ----------
    comparison : Comparison
        All runs, and baselines; its tables are the results.
    dataset : Dataset
        What all were measured on.
    runs : mapping of str to Bundle
        Those that the report is about, by the names that the comparison has.
    cards : mapping of str to mapping
        What each of them says of itself.
    measured : Measured
        Ranked items of the runs, and of others that pictures show.
    pictures : sequence of tuple of (str, Figure)
        In their order, each with its name in `CAPTIONS`.
    command : str
        What was typed.
    n_examples : int
        Users to show, >= 0.
    k : int
        Recommendations that count where a number is needed, at most as many as `measured` has.
    remarks : sequence of str
        What could not be shown, and why.
    max_memory : int, optional
        Bytes that scoring may take.
    """

    comparison: Comparison
    dataset: Dataset
    runs: Mapping[str, Bundle]
    cards: Mapping[str, Mapping[str, Any]]
    measured: Measured
    pictures: "Sequence[tuple[str, Figure]]"
    command: str
    n_examples: int = 3
    k: int = 20
    remarks: Sequence[str] = ()
    max_memory: int | None = None

    def __post_init__(self) -> None:
        """Refuse a number of recommendations that nobody has ranked: a share of fewer would be told as that of more.

        Also metrics of which none says who got good lists: the best and the worst would be told by the wrong end.
        """
        check_says_how_good(self.comparison.metrics)
        deep = min(ranked.shape[1] for ranked in self.measured.ranked.values())
        if self.k > deep:
            raise UsageError(
                f"got k={self.k} for lists of {deep} items, expected at most as many; rank more for each user"
            )

    @property
    def best(self) -> str:
        """The best of the runs by the main metric."""
        return next(one.name for one in self.comparison.ranking if one.name in self.runs)


def check_says_how_good(metrics: Sequence[str]) -> None:
    """Refuse metrics of which none has a value per user that is better the higher it is.

    Parameters
    ----------
    metrics : sequence of str
        Written `name@k`.

    Raises
    ------
    UsageError
        If so: the page tells of the best run, and of users with poor and with good results.
    """
    if better_of(main_metric(metrics)) != HIGHER:
        raise UsageError(
            f"got {', '.join(metrics)}, of which none says how good a user's list is, so that a report could not tell "
            "good results from poor ones; add one such as ndcg@100"
        )


def report_page(report: Report) -> str:
    """Write a report as one HTML page, which needs no other file and no network.

    Everything that comes from data is escaped.

    Parameters
    ----------
    report : Report
        What it shows.

    Raises
    ------
    UsageError, DataError, MemoryLimitError
        If a model cannot recommend or explain; see `Recommender`.
    """
    found = report.comparison
    title = f"Recommenders on {report.dataset.name}"
    shown = _shown(report)
    contents = {
        "results": _results(report),
        "pictures": "\n".join(picture_of(figure, name, CAPTIONS[name]) for name, figure in report.pictures)
        + "".join(paragraph(remark, "note") for remark in report.remarks),
        "examples": _examples(report, shown),
        "failures": _failures(report, shown),
        "data": data_words(report.dataset),
        "protocol": protocol_words(
            report.dataset.manifest.get("protocol") or {}, found.split, found.n_users, len(report.dataset.item_ids)
        )
        + metric_words(found.metrics),
        "again": again(report.dataset.manifest, report.runs, report.cards, report.command),
    }
    written = datetime.now(UTC).strftime("%d %B %Y").lstrip("0")
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in _SECTIONS.items() if contents[name])
    parts = [
        f"<h1>{escaped(title)}</h1>",
        paragraph(f"{', '.join(report.runs)}; written on {written} by recvae {__version__}", "note"),
        listed(in_short(report), "lead"),
        f"<nav>{links}</nav>",
        *(section(name, title, contents[name]) for name, title in _SECTIONS.items() if contents[name]),
    ]
    return document(title, "\n".join(parts), STYLE)


def in_short(report: Report) -> list[str]:
    """Return the main results in a few sentences."""
    found, best = report.comparison, report.best
    metric = found.main_metric
    contenders = {one.name: one for one in found.contenders}
    summary = contenders[best].summary(metric)
    half = "" if summary.low is None or summary.mean is None else f" ± {summary.mean - summary.low:.4f}"
    first = f"The best of these runs is {best}" if len(report.runs) > 1 else f"The run {best} was measured"
    sentences = [f"{first}: {metric} {summary.mean or 0:.4f}{half} on {plural(found.n_users, f'{found.split} user')}."]
    test = found.tests(metric).get(best)
    if test is not None and test.difference.low is not None and test.difference.high is not None:
        mean, low, high = test.difference.mean or 0.0, test.difference.low, test.difference.high
        word = "above" if mean >= 0 else "below"
        told = "more than chance explains" if test.significant else "no more than chance may explain"
        sentences.append(
            f"It is {abs(mean):.4f} {word} the baseline {found.baseline} (95 % interval {low:+.4f} to {high:+.4f}, "
            f"p = {test.p_holm:.2g} after Holm's correction): {told}."
        )
    elif best == found.baseline:
        sentences.append("It is the baseline itself: none of the other runs is better.")
    counts = times_recommended(report.measured.ranked[best][:, : report.k], len(report.dataset.item_ids))
    share = np.count_nonzero(counts) / len(counts)
    sentences.append(
        f"The first {report.k} recommendations of all these users have {share_text(share)} of the catalogue in them."
    )
    return sentences


def _shown(report: Report) -> Shown:
    contenders = {one.name: one for one in report.comparison.contenders}
    metric = _metric_per_user(report.comparison)
    return Shown(
        name=report.best,
        recommender=Recommender(report.runs[report.best].model, report.dataset, max_memory=report.max_memory),
        metric=metric,
        values=contenders[report.best].per_user[metric],
        measured=report.measured,
    )


def _metric_per_user(comparison: Comparison) -> str:
    """Return the main metric, or the first that has values per user; the command refuses a report without one."""
    first = comparison.contenders[0].per_user
    return comparison.main_metric if comparison.main_metric in first else next(iter(first))


def _results(report: Report) -> str:
    page = report.comparison.page()
    if any(len(one.seeds) > 1 for one in report.comparison.contenders):
        remark = "Numbers are means over seeds; pictures and lists of recommendations are those of the run itself."
        page = replace(page, remarks=[*page.remarks, remark])
    parts = [table_as_html(table) for table in page.tables]
    return "\n".join([*parts, *(paragraph(remark, "note") for remark in page.remarks)])


def _examples(report: Report, shown: Shown) -> str:
    if not report.n_examples:
        return ""
    remark = (
        f"These are some of the {report.comparison.split} users, from a poor to a good result of {shown.name}. Reasons "
        "are the items of the history that raised the score most. Where the data are real, so are these histories: do "
        "not pass the page on where that is not allowed (--examples 0 leaves single users out)."
    )
    return paragraph(remark) + examples(shown, report.n_examples)


def _failures(report: Report, shown: Shown) -> str:
    found = report.comparison
    others = {one.name: one.per_user[shown.metric] for one in found.ranking if one.name != shown.name}
    parts = ["<h3>Groups of users with the lowest accuracy</h3>", segments(shown, others)]
    if report.n_examples:
        parts += ["<h3>Users with the worst results</h3>", worst_users(shown, report.k)]
    return "\n".join(parts)
