"""Several models on the same users: intervals, paired tests against a baseline with Holm's correction, cost.

contenders = models, each fitted once or with several seeds; its value for a user is the mean over its seeds
difference = contender - baseline, user by user; two-sided paired t-test of its mean being 0
Holm       = over all contenders but the baseline, for each metric by itself
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recvae.bundles.bundle import Bundle
from recvae.compute.memory import human_bytes
from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.evaluation.contenders import Contender, Fitted, check_same_data, fits_of, measure, over_seeds
from recvae.evaluation.evaluate import CONFIDENCE, DEFAULT_METRICS, Summary, main_metric
from recvae.evaluation.significance import ALPHA, PairedTest, paired_tests
from recvae.evaluation.tables import DAGGER, Cell, Page, Table, human_count, human_seconds
from recvae.metrics import parse_metrics


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison:
    """Several contenders on the same users, and the one that the others are tested against.

    Parameters
    ----------
    manifest : dict
        Of the data set.
    split : str
        "validation" or "test".
    n_users, n_users_without_target : int
        Users that count, and those left out.
    metrics : list of str
        In the order of the columns.
    contenders : list of Contender
        In any order, at least two, one value per user and metric each.
    baseline : str
        Name of one of them.

    Raises
    ------
    UsageError
        If there are fewer than two, two of one name, no such baseline, or they were measured on different users.
    """

    manifest: dict[str, Any]
    split: str
    n_users: int
    n_users_without_target: int
    metrics: list[str]
    contenders: list[Contender]
    baseline: str

    def __post_init__(self) -> None:
        names = [contender.name for contender in self.contenders]
        check_names(names, self.baseline)
        for metric in self.metrics:
            missing = [np.isnan(c.per_user[metric]).tolist() for c in self.contenders if metric in c.per_user]
            if len(missing) not in (0, len(names)) or any(other != missing[0] for other in missing):
                raise UsageError(f"got {metric} of different users; measure {', '.join(names)} on the same ones")

    @property
    def main_metric(self) -> str:
        """The metric that orders the rows; see `recvae.evaluation.evaluate.main_metric`."""
        return main_metric(self.metrics)

    @property
    def ranking(self) -> list[Contender]:
        """The contenders, the best by the main metric first."""
        return sorted(self.contenders, key=lambda c: -(c.summary(self.main_metric).mean or 0.0))

    def tests(self, metric: str) -> dict[str, PairedTest]:
        """Test every contender but the baseline against it.

        Parameters
        ----------
        metric : str
            One of `metrics`.

        Returns
        -------
        dict of str to PairedTest
            By name; empty for a metric that has no values per user.
        """
        values = {c.name: c.per_user[metric] for c in self.contenders if metric in c.per_user}
        return paired_tests(values, self.baseline) if values else {}

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON has it, the best first; see the README for its form."""
        tests = {metric: self.tests(metric) for metric in self.metrics}
        rows = []
        for contender in self.ranking:
            row: dict[str, Any] = {
                "name": contender.name,
                "model": contender.model,
                "hyperparameters": contender.hyperparameters,
                "seeds": contender.seeds,
                "metrics": {metric: asdict(contender.summary(metric)) for metric in self.metrics},
                "over_seeds": {
                    metric: {"means": contender.seed_means[metric], "sd": contender.seed_sd(metric)}
                    for metric in self.metrics
                },
                "training_seconds": contender.seconds,
                "weights_bytes": contender.n_bytes,
                "parameters": contender.n_parameters,
            }
            if contender.note:
                row["note"] = contender.note
            if contender.name != self.baseline:
                found = {metric: by_name[contender.name] for metric, by_name in tests.items() if by_name}
                row["difference"] = {metric: _for_json(test) for metric, test in found.items()}
            rows.append(row)
        return {
            "dataset": self.manifest.get("name"),
            "protocol": self.manifest.get("protocol"),
            "fingerprint": self.manifest.get("fingerprint"),
            "split": self.split,
            "n_users": self.n_users,
            "n_users_without_target": self.n_users_without_target,
            "confidence": CONFIDENCE,
            "test": "two-sided paired t-test over users, Holm over contenders",
            "baseline": self.baseline,
            "contenders": rows,
        }

    def page(self) -> Page:
        """Return the tables for people: metrics, then the seeds where there are several, then tests and cost."""
        protocol = ", ".join(f"{key} {value}" for key, value in self.manifest.get("protocol", {}).items())
        name, fingerprint = self.manifest.get("name", "unnamed data"), str(self.manifest.get("fingerprint", ""))[:12]
        without = f", {self.n_users_without_target:,} without a target left out" if self.n_users_without_target else ""
        remarks = [contender.note for contender in self.ranking if contender.note]
        if self.split == "validation":
            remarks.append("epochs and baselines are chosen on these users: take --split test for a fair comparison")
        tables = [self._metrics_table(), self._cost_table()]
        if any(len(contender.seeds) > 1 for contender in self.contenders):
            tables.insert(1, self._seeds_table())
        return Page(
            title=f"{name}: {self.n_users:,} {self.split} users{without}; {protocol}; fingerprint {fingerprint}",
            tables=tables,
            remarks=remarks,
        )

    def _metrics_table(self) -> Table:
        columns: list[list[Cell]] = []
        for metric in self.metrics:
            tests = self.tests(metric)
            summaries = {contender.name: contender.summary(metric) for contender in self.ranking}
            means = sorted({s.mean for s in summaries.values() if s.mean is not None}, reverse=True)
            columns.append(
                [
                    _mean_cell(summary, means, name in tests and tests[name].significant)
                    for name, summary in summaries.items()
                ]
            )
        return Table(
            headers=["run", *self.metrics],
            rows=[[Cell(c.name), *cells] for c, *cells in zip(self.ranking, *columns, strict=True)],
            note=f"mean ± half of its 95 % interval over users; {DAGGER} differs from {self.baseline} (paired t-test, "
            f"Holm, p < {ALPHA:.2f})",
        )

    def _seeds_table(self) -> Table:
        rows = []
        for contender in self.ranking:
            deviations = [contender.seed_sd(metric) for metric in self.metrics]
            seeds = ", ".join(map(str, contender.seeds)) or "has none"
            rows.append([Cell(contender.name), Cell(seeds), *(Cell(_number(value)) for value in deviations)])
        return Table(
            headers=["run", "seeds", *(f"sd of {metric}" for metric in self.metrics)],
            rows=rows,
            note="standard deviation over seeds of a run's mean; all other numbers are of the mean over seeds",
        )

    def _cost_table(self) -> Table:
        tests = self.tests(self.main_metric)
        rows = []
        for contender in self.ranking:
            test = tests.get(contender.name)
            is_baseline = contender.name == self.baseline
            rows.append(
                [
                    Cell(contender.name),
                    Cell("baseline" if is_baseline else _interval(test.difference if test else Summary(None))),
                    Cell("-" if is_baseline else _p(test.p_holm if test else float("nan"))),
                    Cell(human_seconds(contender.seconds)),
                    Cell(human_bytes(contender.n_bytes)),
                    Cell(human_count(contender.n_parameters)),
                ]
            )
        return Table(
            headers=["run", f"{self.main_metric} difference", "p (Holm)", "training", "size", "parameters"],
            rows=rows,
            note=f"difference to {self.baseline}, paired by user, with its 95 % interval; training time of one fit",
        )

    def to_markdown(self) -> str:
        """Return the tables as Markdown; see `Page.to_markdown`."""
        return self.page().to_markdown()

    def to_latex(self) -> str:
        """Return the tables as LaTeX with booktabs; see `Page.to_latex`."""
        return self.page().to_latex()

    def __repr__(self) -> str:
        return self.to_markdown().rstrip()

    def _repr_html_(self) -> str:
        return self.page().to_html()


def check_names(names: Sequence[str], baseline: str) -> None:
    """Refuse a comparison of fewer than two, of two with one name, or with a baseline that takes no part.

    Raises
    ------
    UsageError
        If so.
    """
    if baseline not in names:
        raise UsageError(f"got baseline '{baseline}', expected one of: {', '.join(names) or 'none'}")
    if len(names) < 2:
        raise UsageError(f"got {names[0]} alone, expected two or more to compare; name another run or baseline")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"got '{twice[0]}' twice, expected a name of its own for each")


def compare(
    models: Mapping[str, Fitted | Sequence[Fitted]],
    dataset: Dataset,
    *,
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    to: str | None = None,
    split: str = "test",
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Measure fitted models on the same users and test them against one of them.

    Parameters
    ----------
    models : mapping of str to Model, Bundle or a sequence of these
        By the name that tables shall show; several are fits of one model with different seeds. Bundles, such as
        `fit_baseline` returns, tell their training time, and must be of the same data.
    dataset : Dataset
        Whose held-out users are asked.
    metrics : str or sequence of str
        Written `name@k`, separated by commas.
    to : str, optional
        Name of the baseline among `models`; by default the first.
    split : str
        "test" or "validation".
    progress : callable, optional
        Called with a name, the users done and the users in all.

    Returns
    -------
    Comparison
        To print, to render, or to ask for its `tests`.

    Raises
    ------
    UsageError
        If a name, metric or split is unknown, there are fewer than two models, or one was made from other data.
    NotFittedError, DataError
        See `recvae.evaluation.evaluate.evaluate`.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from recvae import ALS, Popularity, Dataset, Events
    >>> from recvae.datasets.synthetic import synthetic_log
    >>> log, _ = synthetic_log(n_users=200, n_items=100, n_events=5000, seed=1)
    >>> data = Dataset.from_events(log, name="toy", heldout_users=20)
    >>> fitted = {"popular": Popularity().fit(data.train), "als": ALS(factors=4).fit(data.train)}
    >>> compare(fitted, data, metrics="ndcg@10").tests("ndcg@10")["als"].p_holm <= 1
    True
    """
    wanted, held_out = parse_metrics(metrics), dataset.part(split)
    if not isinstance(models, Mapping):
        raise UsageError(f"got a {type(models).__name__} of models, expected a dictionary: name -> fitted model")
    fits = {name: fits_of(name, made) for name, made in models.items()}
    baseline = next(iter(fits), "") if to is None else to
    check_names(list(fits), baseline)
    numbered = {f"{name} ({i})" if i else name: fit for name, made in fits.items() for i, fit in enumerate(made)}
    check_same_data({name: fit.manifest for name, fit in numbered.items() if isinstance(fit, Bundle)}, dataset)
    contenders = []
    for name, made in fits.items():

        def tell(done: int, total: int, name: str = name) -> None:
            if progress is not None:
                progress(name, done, total)

        measured = [measure(name, f, held_out, wanted, is_baseline=name == baseline, progress=tell) for f in made]
        contenders.append(over_seeds(measured))
    return comparison_of(contenders, dataset, split, baseline, [str(metric) for metric in wanted])


def comparison_of(
    contenders: list[Contender], dataset: Dataset, split: str, baseline: str, metrics: list[str]
) -> Comparison:
    """Put contenders together that were measured on one part of a data set; see `Comparison`."""
    held_out = dataset.part(split)
    return Comparison(
        manifest=dataset.manifest,
        split=split,
        n_users=held_out.n_users - held_out.n_without_target(),
        n_users_without_target=held_out.n_without_target(),
        metrics=metrics,
        contenders=contenders,
        baseline=baseline,
    )


def _mean_cell(summary: Summary, means: list[float], marked: bool) -> Cell:
    if summary.mean is None:
        return Cell("-")
    rank = means.index(summary.mean) + 1
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


def _for_json(test: PairedTest) -> dict[str, Any]:
    numbers = {"p": test.p, "p_holm": test.p_holm}
    known = {name: None if np.isnan(value) else value for name, value in numbers.items()}
    return {**asdict(test.difference), **known, "significant": test.significant}
