"""`recvae report`: one page about runs, for people who were not there."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli import comparison as shared
from recvae_cli.console import (
    DATA_DIR,
    DEVICE,
    RUNS_DIR,
    DataDir,
    Device,
    MaxMemory,
    OwnModels,
    RunsDir,
    command,
    memory_limit,
    say,
    say_next,
)
from recvae_cli.measuring import Kept
from recvae_cli.opening import names_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recvae.bundles.bundle import Bundle
    from recvae.evaluation.comparison import Comparison
    from recvae.reports.measuring import Measured


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Folders, DATA/NAME or NAME of runs; by default the newest."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Output file, ending in .html.", show_default=True)] = Path(
        "report.html"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    examples: Annotated[int, typer.Option(metavar="N", help="Users to show; 0 leaves all single users out.")] = 3,
    k: Annotated[int, typer.Option("-k", "--k", help="Recommendations that count in pictures of popularity.")] = 20,
    baselines: Annotated[
        str | None,
        typer.Option(metavar="MODELS", help=shared.BASELINES_HELP, show_default="als,ials, unless --to names another"),
    ] = None,
    to: shared.To = None,
    metrics: shared.Metrics = shared.DEFAULT_METRICS,
    split: shared.Split = "test",
    seeds: shared.Seeds = 1,
    data: shared.Data = None,
    own: OwnModels = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Write one HTML page about runs: data, results as `recvae compare` has them, pictures, users, failures.

    The page needs no network. With --seeds N, results are means over N seeds; pictures and users are those of the runs.

    \b
    Examples:
      recvae report
      recvae report multvae ease --output report.html
      recvae report multvae ease --to ease --examples 0 --output for-everyone.html
    """
    from recvae.reports.canvas import styled
    from recvae.reports.measuring import KS
    from recvae.runs.finding import find_runs

    request = shared.Request(
        to=to,
        baselines=baselines or (shared.BASELINES if to is None else "none"),
        metrics=metrics,
        split=split,
        by=None,
        seeds=seeds,
        form="json",  # nothing is printed; this passes the checks of the options that both verbs have
        output=None,
        per_user=None,
        as_json=False,
        data=data,
        max_memory=max_memory,
        own=own,
        device=device,
        data_dir=data_dir,
        runs_dir=runs_dir,
    )
    _check(request, output, overwrite, examples, k)
    with styled():  # a missing matplotlib is said before anything is measured
        pass
    folders = find_runs(runs_dir, runs, data)
    named = dict(zip(names_of(folders), folders, strict=True))
    typed = _as_typed(request, folders, baselines, examples, k, output)
    kept = Kept(max(k, *KS))
    found, home = shared.compare_runs(request, folders, "reporting on", kept)
    _write(request, named, found, kept, home, output, examples, k, typed)
    typer.echo(f"report: {output}")
    say_next(command("plot", *folders, "--picture", "all", "--output", "pictures.png"))


def _as_typed(
    request: shared.Request, folders: list[Path], baselines: str | None, examples: int, k: int, output: Path
) -> str:
    """Return the command that writes this report, for the page: without folders, which may be private."""
    words = ["recvae", "report", *(f"{folder.resolve().parent.name}/{folder.name}" for folder in folders)]
    words += [*(["--baselines", baselines] if baselines else []), *(["--to", request.to] if request.to else [])]
    words += [] if request.metrics == shared.DEFAULT_METRICS else ["--metrics", request.metrics]
    words += [] if request.split == "test" else ["--split", request.split]
    words += [] if request.seeds == 1 else ["--seeds", str(request.seeds)]
    words += [word for name in request.own or [] for word in ("--model", name)]
    words += [*([] if examples == 3 else ["--examples", str(examples)]), *([] if k == 20 else ["-k", str(k)])]
    return shlex.join([*words, "--output", output.name])


def _check(request: shared.Request, output: Path, overwrite: bool, examples: int, k: int) -> None:
    """Refuse what is wrong in itself, before anything is looked for."""
    from recvae.errors import UsageError
    from recvae.items import check_k
    from recvae.metrics import parse_metrics
    from recvae.reports.page import check_says_how_good
    from recvae.storage.files import check_new_file

    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"got --output {output}, expected a name ending in .html; for pictures use `recvae plot`")
    check_new_file(output, overwrite)
    shared.check_request(request, [])
    check_k(k)
    if examples < 0:
        raise UsageError(f"got --examples {examples}, expected 0 or more users")
    if not any(metric.is_per_user for metric in parse_metrics(request.metrics)):
        raise UsageError(f"got --metrics {request.metrics}, which have no values per user; add one such as ndcg@100")
    check_says_how_good([str(metric) for metric in parse_metrics(request.metrics)])


def _write(
    request: shared.Request,
    named: dict[str, Path],
    found: "Comparison",
    kept: Kept,
    home: Path,
    output: Path,
    examples: int,
    k: int,
    typed: str,
) -> None:
    """Draw the pictures and write the page."""
    from recvae.bundles.card import read_card
    from recvae.datasets.dataset import Dataset
    from recvae.reports.canvas import COLORS
    from recvae.reports.measuring import Measured
    from recvae.reports.page import Report, report_page
    from recvae.storage.files import write_text

    dataset, bundles, drawn = Dataset.load(home), {name: kept.bundles[name] for name in named}, list(named)
    if found.baseline is not None and found.baseline not in drawn and len(drawn) < len(COLORS):
        drawn.append(found.baseline)
    measured = Measured(
        ranked={name: kept.ranked[name] for name in drawn},
        held_out=dataset.part(request.split),
        train_counts=dataset.items.train_counts,
        n_train_users=dataset.train.shape[0],
    )
    figures, remarks = _pictures(request, named, bundles, measured, found, k)
    page = report_page(
        Report(
            comparison=found,
            dataset=dataset,
            runs=bundles,
            cards={name: read_card(folder) for name, folder in named.items()},
            measured=measured,
            pictures=figures,
            command=typed,
            n_examples=examples,
            k=min(k, len(dataset.item_ids)),
            remarks=remarks,
            max_memory=memory_limit(request.max_memory),
        )
    )
    write_text(output, page)


def _pictures(
    request: shared.Request,
    named: dict[str, Path],
    bundles: "dict[str, Bundle]",
    measured: "Measured",
    found: "Comparison",
    k: int,
) -> "tuple[list[tuple[str, Figure]], list[str]]":
    """Draw every picture that the runs can have, and say which ones they cannot."""
    from recvae.errors import DataError, UsageError
    from recvae.plots import latent_map, read_log, training_curves
    from recvae.reports.pictures import CURVES, MAP, MEASURED, check_has_map, draw

    remarks, logs, figures = [], {}, []

    def attempt(what: str, work: Any) -> None:
        try:
            figures.append((what, work()))
        except (UsageError, DataError) as error:
            remarks.append(f"no picture '{what}': {error}")

    metric = found.main_metric.partition("@")[0]
    for name in MEASURED:
        attempt(name, lambda name=name: draw(name, measured, _known_metric(metric), k))
    for name, folder in named.items():
        try:
            logs[name] = read_log(folder)
        except UsageError:
            say(f"no training curves of {name}: it has no log")
    if logs:
        attempt(CURVES, lambda: training_curves(logs))
    able = {}
    for name, bundle in bundles.items():
        try:
            check_has_map(name, bundle.model)
        except UsageError as error:
            say(f"not in the map: {error}")
            continue
        limit = memory_limit(request.max_memory)
        able[name] = bundle.model.embed(measured.held_out.fold_in, max_memory=limit)
    if able:
        attempt(MAP, lambda: latent_map(able, measured.lengths))
    return figures, remarks


def _known_metric(name: str) -> str:
    """Return a metric that can be drawn at any K: the one that was named, or NDCG for one of your own."""
    from recvae.metrics import METRICS

    return name if name in METRICS and METRICS[name].per_user is not None and not METRICS[name].needs else "ndcg"
