"""Models on the same users: intervals, paired tests against a baseline with Holm's correction, cost.

contenders = models, each fitted once or with several seeds; its value for a user is the mean over its seeds
difference = contender - baseline, user by user; two-sided paired t-test of its mean being 0
Holm       = over all contenders but the baseline, for each metric by itself
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recvae.datasets.dataset import Dataset
from recvae.display import one_line, plural
from recvae.errors import UsageError
from recvae.evaluation.contenders import Contender, Fitted, check_names, fits_by_name, measure, over_seeds
from recvae.evaluation.documents import comparison_as_csv, comparison_as_html
from recvae.evaluation.evaluate import CONFIDENCE, DEFAULT_METRICS, better_of, main_metric, summarise
from recvae.evaluation.pages import fewer_users, page_of
from recvae.evaluation.same_data import check_fits
from recvae.evaluation.significance import PairedTest, paired_tests
from recvae.evaluation.slices import check_by, slices_of
from recvae.evaluation.tables import Page
from recvae.items import ids_to_arrow
from recvae.metrics import Background, Metric, parse_metrics
from recvae.metrics.metric import LOWER
from recvae.progress import Progress
from recvae.storage.files import write_file


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison:
    """Contenders on the same users, and the baseline that the others are tested against.

    Parameters
    ----------
    manifest : dict
        Of the data set.
    split : str
        "validation" or "test".
    user_ids : ndarray of shape (n_users + n_users_without_target,)
        External ids of all users, in the order of the values per user.
    n_users : int
        Users that have a target; the others are left out of means.
    metrics : list of str
        In the order of the columns.
    contenders : list of Contender
        In any order, at least one, with one value per user and metric each.
    baseline : str, optional
        Name of one of them; None for no differences.
    choice : str
        How the baseline was chosen, for the reader.
    by : str, optional
        What divides the slices that the contenders were measured on too; see `recvae.evaluation.slices`.

    Raises
    ------
    UsageError
        If there is none, two have the same name, there is no such baseline or nothing to compare it with, or they were
        measured on different users.
    """

    manifest: dict[str, Any]
    split: str
    user_ids: np.ndarray
    n_users: int
    metrics: list[str]
    contenders: list[Contender]
    baseline: str | None = None
    choice: str = ""
    by: str | None = None

    def __post_init__(self) -> None:
        names = [contender.name for contender in self.contenders]
        check_names(names, self.baseline)
        for metric in self.metrics:
            missing = [np.isnan(c.per_user[metric]).tolist() for c in self.contenders if metric in c.per_user]
            if len(missing) not in (0, len(names)) or any(other != missing[0] for other in missing):
                raise UsageError(f"got {metric} of different users; measure {', '.join(names)} on the same ones")

    @property
    def n_users_without_target(self) -> int:
        """The users that are left out of means."""
        return len(self.user_ids) - self.n_users

    @property
    def main_metric(self) -> str:
        """The metric that orders the rows; see `recvae.evaluation.evaluate.main_metric`."""
        return main_metric(self.metrics)

    @property
    def ranking(self) -> list[Contender]:
        """The contenders, the best by the main metric first; the highest, where no value is better."""
        sign = 1 if better_of(self.main_metric) == LOWER else -1
        return sorted(self.contenders, key=lambda c: sign * (c.summary(self.main_metric).mean or 0.0))

    def tests(self, metric: str) -> dict[str, PairedTest]:
        """Test every contender but the baseline against it.

        Parameters
        ----------
        metric : str
            One of `metrics`.

        Returns
        -------
        dict of str to PairedTest
            By name; empty without a baseline, and for a metric that has no values per user.
        """
        values = {c.name: c.per_user[metric] for c in self.contenders if metric in c.per_user}
        return paired_tests(values, self.baseline) if values and self.baseline is not None else {}

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON has it, the best first; see the README for its form."""
        tests = {metric: self.tests(metric) for metric in self.metrics}
        rows = []
        for contender in self.ranking:
            row: dict[str, Any] = {
                "name": contender.name,
                "model": contender.model,
                "hyperparameters": contender.hyperparameters,
                "baseline": contender.is_baseline,
                "trained_on": contender.trained_on,
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
            if self.by is not None:
                row["slices"] = {
                    name: {metric: asdict(summarise(found)) for metric, found in values.items()}
                    for name, values in contender.slices.items()
                }
            if contender.note:
                row["note"] = contender.note
            if self.baseline is not None and contender.name != self.baseline:
                found = {metric: by_name[contender.name] for metric, by_name in tests.items() if by_name}
                differences = {metric: _for_json(test) for metric, test in found.items()}
                row["difference"] = {"to": self.baseline, "metrics": differences}
            rows.append(row)
        return {
            "dataset": self.manifest.get("name"),
            "protocol": self.manifest.get("protocol"),
            "fingerprint": self.manifest.get("fingerprint"),
            "split": self.split,
            "n_users": self.n_users,
            "n_users_without_target": self.n_users_without_target,
            **({"n_users_of": fewer} if (fewer := fewer_users(self)) else {}),
            "confidence": CONFIDENCE,
            "test": "two-sided paired t-test over users, Holm over runs",
            "baseline": self.baseline,
            **({} if self.by is None else {"by": self.by, "slices": self.users_by_slice()}),
            "runs": rows,
        }

    def users_by_slice(self) -> dict[str, int]:
        """Return how many users have a target in each slice, in the order of the slices."""
        values = self.contenders[0].slices
        return {name: max(int((~np.isnan(v)).sum()) for v in found.values()) for name, found in values.items()}

    def write_per_user(self, path: Path) -> None:
        """Write one row per run and user as Parquet: run, user, and a column per metric (null without a target).

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        tables = []
        for contender in self.contenders:
            names = pa.array([contender.name] * len(self.user_ids), pa.string())
            columns = {"run": names, "user": ids_to_arrow(self.user_ids)}
            columns |= {name: pa.array(values, from_pandas=True) for name, values in contender.per_user.items()}
            tables.append(pa.table(columns))
        with write_file(path) as aside:
            pq.write_table(pa.concat_tables(tables), aside)

    def page(self) -> Page:
        """Return the tables for people: metrics, then the seeds where there are several, then tests and cost."""
        return page_of(self)

    def to_markdown(self) -> str:
        """Return the tables as Markdown; see `Page.to_markdown`."""
        return self.page().to_markdown()

    def to_latex(self) -> str:
        """Return the tables as LaTeX with booktabs; see `Page.to_latex`."""
        return self.page().to_latex()

    def to_html(self) -> str:
        """Return the tables as a whole page of HTML, which needs no other file and no network."""
        return comparison_as_html(self)

    def to_csv(self) -> str:
        """Return one row per run and metric as CSV, the best run first; see `documents.COLUMNS`."""
        return comparison_as_csv(self)

    def __str__(self) -> str:
        return self.to_markdown().rstrip()

    def __repr__(self) -> str:
        """Return it in one line, the best first; `print` shows the tables."""
        metric = self.main_metric
        means = [(contender.name, contender.summary(metric).mean) for contender in self.ranking]
        listed = ", ".join(f"{one_line(name)} {'-' if mean is None else f'{mean:.4f}'}" for name, mean in means)
        data = one_line(self.manifest.get("name", "unnamed data"))
        baseline = "" if self.baseline is None else f"; baseline {one_line(self.baseline)}"
        return f"<Comparison on {plural(self.n_users, f'{self.split} user')} of {data}, {metric}: {listed}{baseline}>"

    def _repr_html_(self) -> str:
        return self.page().to_html()


def compare(
    models: Mapping[str, Fitted | Sequence[Fitted]] | Sequence[Fitted | Sequence[Fitted]],
    dataset: Dataset,
    *,
    metrics: str | Sequence[str | Metric] = DEFAULT_METRICS,
    to: str | None = None,
    split: str = "test",
    by: str | None = None,
    progress: Progress | None = None,
    max_memory: int | None = None,
) -> Comparison:
    """Measure fitted models on the same users, and test them against one of them.

    Parameters
    ----------
    models : sequence of Model or Bundle, or mapping of str to these
        In a mapping by the name that tables show, otherwise named by model, and by hyperparameters where that is not
        enough. In place of one, a list holds fits of one model with different seeds. Bundles, as `read_bundle` returns
        them, also have their training time. What is known to be of other data is refused.
    dataset : Dataset
        Whose held-out users are asked.
    metrics : str or sequence of str and Metric
        Written `name@k`, separated by commas; your own is a `recvae.metrics.Metric`.
    to : str, optional
        Name of the baseline among `models`; by default the first. A single model is measured without differences.
    split : str
        "test" or "validation".
    by : str, optional
        Measure by "length" of the histories or by "popularity" of the targets too.
    progress : Progress, optional
        Called with the users done, the users in all, and the name of the model; such as a `ProgressBar`.
    max_memory : int, optional
        Bytes that scoring may take.

    Returns
    -------
    Comparison
        To print, to render, or to ask for its `tests`.

    Raises
    ------
    UsageError
        If a name, metric, split or slice is unknown, there is no model, one was made from other data or from these
        users, or a metric needs features that the items do not have.
    NotFittedError, DataError
        See `recvae.evaluation.evaluate.evaluate`.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from recvae import ALS, Popularity, Dataset, Events
    >>> from recvae.datasets.synthetic import synthetic_log
    >>> log, _ = synthetic_log(n_users=200, n_items=100, n_events=5000, seed=1)
    >>> data = Dataset.from_events(log, name="toy", heldout_users=20)
    >>> found = compare([Popularity().fit(data), ALS(factors=4).fit(data)], data, metrics="ndcg@10")
    >>> found.baseline, found.tests("ndcg@10")["als"].p_holm <= 1
    ('popularity', True)
    """
    wanted, held_out = parse_metrics(metrics), dataset.part(split)
    check_by(by, wanted)
    fits = fits_by_name(models)
    baseline = next(iter(fits)) if to is None and len(fits) > 1 else to
    check_names(list(fits), baseline)
    numbered = {f"{name} ({i})" if i else name: fit for name, made in fits.items() for i, fit in enumerate(made)}
    check_fits(numbered, dataset, split)
    background = background_of(dataset, split)
    slices = slices_of(by, held_out, background)
    measured: dict[str, list[Contender]] = {name: [] for name in fits}
    for place, (name, fit) in enumerate((name, fit) for name, made in fits.items() for fit in made):

        def tell(done: float, total: float | None, note: str, name: str = name, place: int = place) -> None:  # noqa: ARG001
            if progress is not None and total is not None:
                progress(place * total + done, len(numbered) * total, name)

        is_baseline = name == baseline
        measured[name].append(
            measure(
                name,
                fit,
                held_out,
                wanted,
                background=background,
                slices=slices,
                is_baseline=is_baseline,
                progress=tell,
                max_memory=max_memory,
            )
        )
    contenders = [over_seeds(fitted) for fitted in measured.values()]
    choice = "" if baseline is None else "the first model" if to is None else "as named"
    return comparison_of(contenders, dataset, split, [str(metric) for metric in wanted], baseline, choice, by)


def background_of(dataset: Dataset, split: str) -> Background:
    """Return what metrics beyond accuracy know of a data set and of its "validation" or "test" users."""
    features = None if dataset.features is None else dataset.features.matrix
    return Background(train=dataset.train, fold_in=dataset.part(split).fold_in, features=features)


def comparison_of(
    contenders: list[Contender],
    dataset: Dataset,
    split: str,
    metrics: list[str],
    baseline: str | None = None,
    choice: str = "",
    by: str | None = None,
) -> Comparison:
    """Put contenders together that were measured on one part of a data set; see `Comparison`."""
    held_out = dataset.part(split)
    return Comparison(
        manifest=dataset.manifest,
        split=split,
        user_ids=held_out.user_ids,
        n_users=held_out.n_users - held_out.n_without_target(),
        metrics=metrics,
        contenders=contenders,
        baseline=baseline,
        choice=choice,
        by=by,
    )


def _for_json(test: PairedTest) -> dict[str, Any]:
    numbers = {"p": test.p, "p_holm": test.p_holm}
    known = {name: None if np.isnan(value) else value for name, value in numbers.items()}
    return {**asdict(test.difference), **known, "significant": test.significant}
