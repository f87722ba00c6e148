"""`recvae evaluate`: runs against tuned baselines on the test users, with intervals."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recvae_cli.console import DataDir, Device, MaxMemory, RunsDir, memory_limit, say, say_next, show, show_json
from recvae_cli.measuring import dataset_of, labels_of, measured, measured_baseline

if TYPE_CHECKING:
    from recvae.evaluation.evaluate import Evaluation, Report, Summary

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
    max_memory: MaxMemory = None,
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
    from recvae.bundles.bundle import read_bundle
    from recvae.datasets.home import find_dataset
    from recvae.errors import UsageError
    from recvae.evaluation.evaluate import Report
    from recvae.metrics import parse_metrics
    from recvae.runs.finding import find_run
    from recvae.storage.files import write_json

    wanted, limit = parse_metrics(metrics), memory_limit(max_memory)
    if per_user is not None and per_user.suffix not in (".parquet", ".pq"):
        raise UsageError(f"got --per-user {per_user}, expected a name ending in .parquet, which is what is written")
    names = _baseline_names(baselines)
    folders = list(dict.fromkeys(find_run(runs_dir, run, data) for run in runs or [None]))
    bundles = [read_bundle(folder, device, limit) for folder in folders]
    home = find_dataset(data_dir, data or str(bundles[0].manifest.get("name")))
    dataset = dataset_of(home, {str(f): bundle.manifest for f, bundle in zip(folders, bundles, strict=True)})
    held_out = dataset.part(split)
    say(f"evaluating {', '.join(map(str, folders))} on the {split} users of {home}")
    labels = labels_of(folders)
    evaluations: list[Evaluation] = [
        measured(label, bundle, held_out, wanted, folder)
        for label, bundle, folder in zip(labels, bundles, folders, strict=True)
    ]
    evaluations += [measured_baseline(name, labels, dataset, held_out, wanted, home, device, limit) for name in names]
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
