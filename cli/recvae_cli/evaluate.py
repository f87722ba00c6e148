"""`recvae evaluate`: runs against tuned baselines on the test users, with intervals."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recvae_cli.console import DataDir, Device, RunsDir, say, say_next, show, show_json

if TYPE_CHECKING:
    from recvae.bundles import Bundle
    from recvae.dataset import Dataset
    from recvae.evaluation import Evaluation, Report, Summary
    from recvae.interactions import HeldOut
    from recvae.metrics import Metric

_BASELINES = "als,popularity"


def evaluate(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Folders, DATA/NAME or NAME of runs; by default the newest."),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Of recall, recall_all, ndcg, precision, hit_rate, map, mrr, coverage, each with @K.")
    ] = "recall@20,recall@50,ndcg@100",
    baselines: Annotated[
        str, typer.Option(help="Models fitted on the same data to compare with, or none.")
    ] = _BASELINES,
    data: Annotated[
        str | None, typer.Option(help="Name or path of the data set; by default the one the run names.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which users: test or validation.")] = "test",
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write the report as JSON; - prints it.")
    ] = None,
    per_user: Annotated[Path | None, typer.Option(help="Write one row per run and user to this Parquet file.")] = None,
    device: Device = "auto",
    data_dir: DataDir = Path("data"),
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure runs on held-out users, beside ALS (tuned on validation) and popularity.

    \b
    Examples:
      recvae evaluate
      recvae evaluate ml-1m/multvae ml-1m/multdae --metrics recall@10,ndcg@10,coverage@10
      recvae evaluate --json report.json --per-user users.parquet
    """
    from recvae.bundles import read_bundle
    from recvae.errors import UsageError
    from recvae.evaluation import Report
    from recvae.files import write_json
    from recvae.home import find_dataset
    from recvae.metrics import parse_metrics
    from recvae.runs import find_run

    wanted = parse_metrics(metrics)
    if per_user is not None and per_user.suffix not in (".parquet", ".pq"):
        raise UsageError(f"got --per-user {per_user}, expected a name ending in .parquet, which is what is written")
    names = _baseline_names(baselines)
    folders = list(dict.fromkeys(find_run(runs_dir, run) for run in runs or [None]))
    bundles = [read_bundle(folder, device) for folder in folders]
    home = find_dataset(data_dir, data or str(bundles[0].manifest.get("name")))
    dataset = _dataset_of(home, bundles, folders)
    held_out = dataset.part(split)
    say(f"evaluating {', '.join(map(str, folders))} on the {split} users of {home}")
    labels = _labels(folders)
    evaluations = [_measure(label, b, held_out, wanted) for label, b in zip(labels, bundles, strict=True)]
    evaluations += [_baseline(name, labels, dataset, held_out, wanted, home) for name in names]
    report = Report(
        manifest=dataset.manifest,
        split=split,
        user_ids=held_out.user_ids,
        n_users=held_out.n_users - held_out.n_without_target(),
        metrics=[str(metric) for metric in wanted],
        evaluations=evaluations,
    )
    if per_user is not None:
        report.write_per_user(per_user)
        say(f"per user: {per_user}")
    if json_file == "-":
        show_json(report.to_json())
        return
    if json_file is not None:
        write_json(Path(json_file), report.to_json())
        say(f"report: {json_file}")
    _print(report)
    known = bundles[0].items.ids[:2].tolist()
    load = f"from recvae import Recommender; r = Recommender.load({str(folders[0])!r})"
    say_next(f'python -c "{load}; print(r.recommend({known}, k=5).to_pandas())"')


def _baseline_names(text: str) -> list[str]:
    """Read the names of baselines, refusing unknown ones before anything is measured."""
    from recvae.models import model_class

    names = [] if text.strip() == "none" else [word.strip() for word in text.split(",") if word.strip()]
    return [model_class(name).name for name in dict.fromkeys(names)]


def _dataset_of(home: Path, bundles: "list[Bundle]", folders: list[Path]) -> "Dataset":
    """Load a data set; all runs must have been trained on it as it is now."""
    from recvae.dataset import Dataset
    from recvae.errors import UsageError

    dataset = Dataset.load(home)
    for folder, bundle in zip(folders, bundles, strict=True):
        found = str(bundle.manifest.get("fingerprint"))
        if found != dataset.fingerprint:
            raise UsageError(
                f"{folder} was not trained on {dataset.name} as it is now (fingerprint {found[:12]}, expected "
                f"{dataset.fingerprint[:12]}), and numbers on different data cannot be compared; train it again, or "
                "prepare the data as it was"
            )
    return dataset


def _labels(folders: list[Path]) -> list[str]:
    """Name runs by their folder, by the path where two folders have the same name."""
    names = [folder.name for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]


def _measure(
    label: str, bundle: "Bundle", held_out: "HeldOut", metrics: "list[Metric]", is_baseline: bool = False
) -> "Evaluation":
    from recvae.baselines import describe_choice
    from recvae.evaluation import Evaluation
    from recvae.evaluation import evaluate as measure
    from recvae.hyperparameters import values_of
    from recvae.monitors import ProgressBar

    with ProgressBar(f"ranking for {label}") as bar:
        per_user, overall = measure(bundle.model, held_out, metrics, lambda done, total: bar(done, total, "users"))
    return Evaluation(
        name=label,
        model=bundle.model.name,
        hyperparameters=values_of(bundle.model),
        per_user=per_user,
        overall=overall,
        is_baseline=is_baseline,
        note=describe_choice(bundle) if is_baseline else "",
    )


def _baseline(
    name: str, labels: list[str], dataset: "Dataset", held_out: "HeldOut", metrics: "list[Metric]", home: Path
) -> "Evaluation":
    """Take a tuned baseline from the cache beside the data set, or fit it."""
    from recvae.baselines import cached_baseline
    from recvae.monitors import ProgressBar

    with ProgressBar(f"tuning {name} on validation") as bar:
        bundle = cached_baseline(name, dataset, home / "baselines", lambda done, total, note: bar(done, total, note))
    return _measure(f"{name} (baseline)" if name in labels else name, bundle, held_out, metrics, is_baseline=True)


def _print(report: "Report") -> None:
    """Print the table: mean and half interval, the best marked, and the difference to the strongest baseline."""
    from rich.table import Table

    baseline = report.strongest_baseline()
    protocol = report.manifest.get("protocol", {}).get("split", "unknown")
    users = f"{report.n_users:,} {report.split} users"
    width = max(len(evaluation.name) for evaluation in report.evaluations)
    table = Table()
    table.add_column("run")
    for metric in report.metrics:
        table.add_column(metric, justify="right")
    for evaluation in report.evaluations:
        cells = [_cell(evaluation.summary(metric), report.best(metric)) for metric in report.metrics]
        table.add_row(evaluation.name, *cells)
    show(f"{report.manifest.get('name')}: {users}, split {protocol}", table)
    missing = len(report.user_ids) - report.n_users
    left_out = f"; {missing:,} users without a target are left out" if missing else ""
    show("mean ± half of its 95 % interval over users, * the best" + left_out)
    if baseline is not None and len(report.evaluations) > 1:
        show("", f"{report.main_metric} minus {baseline.name}'s, paired by user, with its 95 % interval")
        for evaluation in report.evaluations:
            pair = report.difference(evaluation, baseline, report.main_metric)
            if evaluation is not baseline and pair is not None:
                show(f"  {evaluation.name:<{width}}  {_difference(pair)}")
    show("")
    for evaluation in report.evaluations:
        if evaluation.note:
            show(evaluation.note)


def _cell(summary: "Summary", best: float) -> str:
    if summary.mean is None:
        return "-"
    mark = "*" if summary.mean == best else " "
    if summary.low is None:
        return f"{summary.mean:.4f}{mark}"
    return f"{summary.mean:.4f}{mark}± {summary.mean - summary.low:.4f}"


def _difference(pair: "Summary") -> str:
    if pair.mean is None or pair.low is None or pair.high is None:
        return "-"
    return f"{pair.mean:+.4f} [{pair.low:+.4f}, {pair.high:+.4f}]"
