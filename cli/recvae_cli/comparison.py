"""What `recvae evaluate` and `recvae compare` share: their options, and runs and baselines measured side by side."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recvae_cli import completion
from recvae_cli.console import imported_models, memory_limit, say, show, show_json
from recvae_cli.measuring import Kept, MeasureRuns, Request
from recvae_cli.opening import names_of
from recvae_cli.pages import WIDTH, as_text, printable
from recvae_cli.streaming import load_to_measure

if TYPE_CHECKING:
    from recvae.evaluation.comparison import Comparison
    from recvae.models import Model

METRIC_NAMES = (  # a copy: --help imports no library
    "recall, recall_all, ndcg, precision, hit_rate, map, mrr, coverage, gini, novelty, average_popularity, "
    "relative_popularity, tail_share, tail_recall, diversity, feature_diversity, popularity_miscalibration, "
    "feature_miscalibration"
)
DEFAULT_METRICS = "recall@20,recall@50,ndcg@100"
FORMATS = {"table": ".txt", "markdown": ".md", "latex": ".tex", "html": ".html", "csv": ".csv", "json": ".json"}

Runs = list[str] | None
Metrics = Annotated[str, typer.Option(help=f"Of {METRIC_NAMES}, each with @K; your own function as MODULE:FUNCTION@K.")]
BASELINES, EVALUATED = "als,ials", "als,ials,popularity"  # by default of compare, and of evaluate
BASELINES_HELP = "Models to fit and tune on the same data, e.g. als,ease; or none."
To = Annotated[
    str | None,
    typer.Option(
        metavar="RUN|MODEL",
        help="Baseline for the differences: one of the runs compared, or a model to fit and tune.",
        show_default="the baseline with the best validation NDCG@100",
        autocompletion=completion.runs_and_models,
    ),
]
Split = Annotated[str, typer.Option(help="Which users: test or validation.")]
By = Annotated[
    str | None,
    typer.Option(help="Also by parts: length (users by length of history) or popularity (targets by popularity)."),
]
Seeds = Annotated[int, typer.Option(metavar="N", help="Repeat each run with N seeds in total.")]
Format = Annotated[
    str | None,
    typer.Option("--format", help="table, markdown, latex, html, csv or json.", show_default="table, or by --output"),
]
Output = Annotated[
    Path | None,
    typer.Option(help="Write to this file; .md, .tex, .html, .csv, .json and .txt choose the format."),
]
PerUser = Annotated[Path | None, typer.Option(help="Write one row per run and user to this Parquet file.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="Name or path of the data set; by default the one the run names.", autocompletion=completion.datasets
    ),
]


def check_request(request: Request, runs: list[str]) -> None:
    """Refuse what is wrong in itself, before anything is looked for."""
    from recvae.errors import UsageError
    from recvae.evaluation.slices import check_by
    from recvae.metrics import parse_metrics
    from recvae.storage.files import check_writable

    memory_limit(request.max_memory)
    check_by(request.by, parse_metrics(request.metrics))
    for run in runs if request.as_json else []:
        if run == "-" or (Path(run).suffix in FORMATS.values() and not Path(run).is_dir()):
            instead = "leave out the -" if run == "-" else f"to write a file, use --output {run}"
            raise UsageError(f"got --json {run}, but --json takes no file, it prints to the standard output; {instead}")
    if request.per_user is not None and request.per_user.suffix not in (".parquet", ".pq"):
        raise UsageError(f"got --per-user {request.per_user}, expected a name ending in .parquet, which is written")
    _format(request)
    for path in (request.output, request.per_user):
        if path is not None:
            check_writable(path)


def _format(request: Request) -> str:
    """Choose a format by name, by the ending of the file, or the table."""
    from recvae.errors import UsageError

    form, output = request.form, request.output
    if form is not None and form not in FORMATS:
        raise UsageError(f"got --format {form}, expected one of: {', '.join(FORMATS)}")
    if output is None:
        if request.as_json and form not in (None, "json"):
            raise UsageError(f"got --json with --format {form}; leave one out, or write a file with --output")
        return "json" if request.as_json else form or "table"
    if output.is_dir():
        raise UsageError(f"got --output {output}, which is a folder; expected a file such as {output}/comparison.md")
    by_ending = {ending: name for name, ending in FORMATS.items()}
    if form is None and output.suffix not in by_ending:
        raise UsageError(
            f"got --output {output}, expected a name ending in {', '.join(by_ending)}; or say which with --format"
        )
    return form or by_ending[output.suffix]


def compare_runs(
    request: Request, folders: list[Path], doing: str, kept: Kept | None = None
) -> tuple["Comparison", Path]:
    """Measure runs and baselines on the same users, and return the comparison and the folder of the data set."""
    from recvae.bundles.bundle import training_of
    from recvae.bundles.card import read_card
    from recvae.datasets.home import find_dataset
    from recvae.evaluation.baselines import strongest
    from recvae.evaluation.comparison import background_of, comparison_of
    from recvae.evaluation.contenders import check_names
    from recvae.evaluation.evaluate import check_needs
    from recvae.evaluation.same_data import check_same_data, check_unseen
    from recvae.metrics import parse_metrics
    from recvae.runs.repeats import seeds_for

    wanted, labels = parse_metrics(request.metrics), names_of(folders)
    seeds_of = [seeds_for(folder, request.seeds, imported_models(request.own)) for folder in folders]
    models, to = _baselines(request, labels, folders)
    check_names([*labels, *models], to)
    manifests = {str(folder): read_card(folder).get("dataset", {}) for folder in folders}
    home = find_dataset(request.data_dir, request.data or str(manifests[str(folders[0])].get("name")))
    dataset = load_to_measure(home, models.values())
    check_same_data(manifests, dataset)
    held_out, background = dataset.part(request.split), background_of(dataset, request.split)
    check_needs(wanted, held_out, background)
    measure = MeasureRuns(request, dataset, home, wanted, to, background, kept)
    check_unseen({str(folder): training_of(folder, read_card(folder)).refit for folder in folders}, request.split)
    say(f"{doing} {', '.join(map(str, folders))} on the {request.split} users of {home}")
    # All existing runs come before anything is trained: a damaged one shows at once.
    contenders = [measure.run(label, folder) for label, folder in zip(labels, folders, strict=True)]
    bundles = {label: measure.fit_baseline(label, model) for label, model in models.items()}
    contenders += [measure.baseline(label, bundle) for label, bundle in bundles.items()]
    for place, (label, folder) in enumerate(zip(labels, folders, strict=True)):
        contenders[place] = measure.over_seeds(contenders[place], label, folder, seeds_of[place][1:])
    once = [one.name for one in contenders if request.seeds > 1 and len(one.seeds) < 2]
    if once:
        say(f"measured once: {', '.join(once)} (no seed to vary)")
    baseline, choice = (to, "named with --to") if to else strongest(bundles) if bundles else (None, "")
    names = [str(metric) for metric in wanted]
    return comparison_of(contenders, dataset, request.split, names, baseline, choice, request.by), home


def _baselines(request: Request, labels: list[str], folders: list[Path]) -> tuple[dict[str, "type[Model]"], str | None]:
    """Return the models to fit by their label in tables, and the label of what --to names."""
    from recvae.errors import UsageError
    from recvae.models import MODELS, model_class

    text, to = request.baselines.strip(), request.to
    names = [] if text == "none" else [word.strip() for word in text.split(",") if word.strip()]
    chosen = list(dict.fromkeys(model_class(name) for name in names))
    named = next(
        (
            label
            for label, folder in zip(labels, folders, strict=True)
            if to is not None and (to == label or folder in (Path(to), request.runs_dir / to))
        ),
        None,
    )
    if to is not None and named is None:
        try:
            model_class(to)
        except UsageError:
            if ":" in to:
                raise
            raise UsageError(
                f"got --to {to}, expected one of the runs compared ({', '.join(labels)}) or a model to fit as baseline "
                f"({', '.join(MODELS)}); to test against another run, name it among those to compare too"
            ) from None
        chosen = list(dict.fromkeys([*chosen, model_class(to)]))
    _check_libraries(chosen, to)
    twice = [model.name for model in chosen if [other.name for other in chosen].count(model.name) > 1]
    if twice:
        raise UsageError(f"got two baselines with name '{twice[0]}', expected a different name for each")
    called = {f"{model.name} (baseline)" if model.name in labels else model.name: model for model in chosen}
    if to is None or named is not None:
        return called, named
    return called, next(label for label, model in called.items() if model is model_class(to))


def _check_libraries(baselines: "list[type[Model]]", to: str | None) -> None:
    """Refuse a baseline whose library is missing, before anything is measured: without it, differences are others."""
    from recvae.errors import UsageError
    from recvae.models import import_path

    for model in baselines:
        try:
            model.check_libraries()
        except UsageError as error:
            others = ",".join(import_path(other) for other in baselines if other is not model) or "none"
            instead = f"name another model with --to than {to}" if to == model.name else f"use --baselines {others}"
            raise UsageError(f"{error}; or {instead}") from error


def report(request: Request, comparison: "Comparison") -> None:
    """Print a comparison, or write what was asked for to files."""
    from recvae.storage.files import write_text

    if request.per_user is not None:
        comparison.write_per_user(request.per_user)
        say(f"per user: {request.per_user}")
    form = _format(request)
    texts: dict[str, Callable[[], str]] = {
        "table": lambda: as_text(printable(comparison, WIDTH), WIDTH),
        "markdown": comparison.to_markdown,
        "latex": comparison.to_latex,
        "html": comparison.to_html,
        "csv": comparison.to_csv,
        "json": lambda: json.dumps(comparison.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    if request.output is not None:
        write_text(request.output, texts[form]())
        say(f"comparison: {request.output}")
    if request.as_json:
        show_json(comparison.to_json())
    elif request.output is None and form == "table":
        show(*printable(comparison, shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH))
    elif request.output is None:
        typer.echo(texts[form](), nl=False)
