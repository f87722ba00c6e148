"""`recvae compare`: runs side by side with intervals, paired tests against a baseline, training time and size."""

import io
import json
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli.console import DataDir, Device, MaxMemory, RunsDir, memory_limit, say, say_next, show
from recvae_cli.measuring import dataset_of, label_of_baseline, labels_of, measured, measured_baseline

if TYPE_CHECKING:
    from recvae.datasets.dataset import Dataset
    from recvae.evaluation.comparison import Comparison
    from recvae.evaluation.contenders import Contender

_BASELINE = "als"
_FORMATS = {"table": "", "markdown": ".md", "latex": ".tex", "json": ".json"}
_WIDTH = 100  # columns, where the output is not a terminal that could tell


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Folders, DATA/NAME or NAME of runs; by default all on --data, or on the newest run's data.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|MODEL",
            help="The baseline: one of the runs, or a model, fitted as by `recvae evaluate --baselines`.",
            show_default="als, tuned",
        ),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Of recall, recall_all, ndcg, precision, hit_rate, map, mrr, coverage, each with @K.")
    ] = "recall@20,recall@50,ndcg@100",
    split: Annotated[str, typer.Option(help="Which users: test or validation.")] = "test",
    seeds: Annotated[int, typer.Option(help="Train each run with so many seeds, its own and the next ones.")] = 1,
    form: Annotated[
        str | None,
        typer.Option("--format", help="table, markdown, latex or json.", show_default="table, or by --output"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write to this file: .md, .tex and .json choose the format.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Name or path of the data set; by default the one the run names.")
    ] = None,
    max_memory: MaxMemory = None,
    device: Device = "auto",
    data_dir: DataDir = Path("data"),
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Compare runs on the same users: intervals, paired tests against a baseline (Holm), training time and size.

    With --seeds N, each run is trained with N - 1 further seeds, kept beside it as NAME-seed-K, and used again.

    \b
    Examples:
      recvae compare
      recvae compare multvae multdae als --to als --seeds 5
      recvae compare --format latex --output comparison.tex
    """
    from recvae.bundles.bundle import read_bundle
    from recvae.bundles.card import read_card
    from recvae.datasets.home import find_dataset
    from recvae.evaluation.comparison import check_names, comparison_of
    from recvae.evaluation.contenders import over_seeds
    from recvae.metrics import parse_metrics
    from recvae.runs.repeats import seeds_for

    wanted, form, limit = parse_metrics(metrics), _format(form, output), memory_limit(max_memory)
    folders = _folders(runs_dir, runs or [], data)
    labels, seeds_of = labels_of(folders), [seeds_for(folder, seeds) for folder in folders]
    baseline, tuned = _baseline(to, labels, folders, runs_dir)
    check_names([*labels, *([baseline] if tuned else [])], baseline)
    manifests = {str(folder): read_card(folder).get("dataset", {}) for folder in folders}
    home = find_dataset(data_dir, data or str(manifests[str(folders[0])].get("name")))
    dataset = dataset_of(home, manifests)
    held_out = dataset.part(split)
    say(f"comparing {', '.join(map(str, folders))} on the {split} users of {home}")

    def measure(label: str, folder: Path) -> "Contender":
        bundle = read_bundle(folder, device, limit)
        found = measured(label, bundle, held_out, wanted, folder)
        why = bundle.training.failure or "stopped by hand"
        note = f"{label} ended before its time ({why}): measured with its best weights until then"
        return replace(found, note=note) if bundle.interrupted else found

    # All that is there comes before anything is trained: a damaged run shows at once.
    contenders = [measure(label, folder) for label, folder in zip(labels, folders, strict=True)]
    if tuned:
        contenders.append(measured_baseline(tuned, labels, dataset, held_out, wanted, home, device, limit))
    for place, (label, folder) in enumerate(zip(labels, folders, strict=True)):
        further = [measure(label, _repeat(folder, seed, dataset, device, limit)) for seed in seeds_of[place][1:]]
        contenders[place] = over_seeds([contenders[place], *further])
    once = [one.name for one in contenders if seeds > 1 and len(one.seeds) < 2]
    if once:
        say(f"taken once: {', '.join(once)}, since only runs whose model has a seed are repeated")
    comparison = comparison_of(contenders, dataset, split, baseline, [str(metric) for metric in wanted])
    _write(comparison, form, output)
    words = ["recvae", "compare", *map(str, folders), *(["--to", to] if to else []), "--data", str(home)]
    more = ["--seeds", "3"] if seeds == 1 and any(seeds_of) else ["--format", "latex", "--output", "comparison.tex"]
    say_next(shlex.join([*words, *(["--seeds", str(seeds)] if seeds > 1 else []), *more]))


def _format(form: str | None, output: Path | None) -> str:
    """Choose a format by name, by the ending of the file, or the table; refuse what cannot be written later."""
    from recvae.errors import UsageError

    if form is None:
        endings = {ending: name for name, ending in _FORMATS.items() if ending}
        form = endings.get(output.suffix, "table") if output is not None else "table"
    if form not in _FORMATS:
        raise UsageError(f"got --format {form}, expected one of: {', '.join(_FORMATS)}")
    if output is not None and output.is_dir():
        raise UsageError(f"got --output {output}, which is a folder; expected a file such as {output}/comparison.md")
    return form


def _folders(runs_dir: Path, runs: list[str], data: str | None) -> list[Path]:
    """Find the runs that are named, or all finished ones beside the newest, without their repeats."""
    from recvae.runs.finding import find_run, finished_runs

    if runs:
        return list(dict.fromkeys(find_run(runs_dir, run, data) for run in runs))
    newest = find_run(runs_dir, None, data)
    folders, repeats = finished_runs(newest.parent)
    if repeats:
        say(f"left out, being repeats with other seeds: {', '.join(folder.name for folder in repeats)}")
    return folders or [newest]


def _baseline(to: str | None, labels: list[str], folders: list[Path], runs_dir: Path) -> tuple[str, str]:
    """Return what the baseline is called, and which model to tune for it: none where it is one of the runs."""
    from recvae.errors import UsageError
    from recvae.models import MODELS

    for label, folder in zip(labels, folders, strict=True):
        if to is not None and (to == label or folder in (Path(to), runs_dir / to)):
            return label, ""
    model = _BASELINE if to is None else to
    if model not in MODELS:
        raise UsageError(
            f"got --to {to}, expected one of the runs compared ({', '.join(labels)}) or a model to fit as baseline "
            f"({', '.join(MODELS)}); to test against another run, name it among those to compare too"
        )
    return label_of_baseline(model, labels), model


def _repeat(folder: Path, seed: int, dataset: "Dataset", device: str, max_memory: int | None) -> Path:
    """Take or train the run that is another one with another seed."""
    from recvae.runs.repeats import repeat
    from recvae.training.monitors import ProgressBar, TrainingProgress

    try:
        with ProgressBar(f"{folder.name}, seed {seed}") as bar:
            watch = TrainingProgress(bar)
            return repeat(folder, seed, dataset, device=device, max_memory=max_memory, monitor=watch)
    except KeyboardInterrupt:
        say("interrupted: typed again, the same command takes what is there and goes on")
        raise


def _write(comparison: "Comparison", form: str, output: Path | None) -> None:
    """Print a comparison, or write it to a file."""
    from recvae.storage.files import write_text

    if form == "table":
        if output is None:
            show(*_printable(comparison, shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH))
            return
        text = _as_text(_printable(comparison, _WIDTH))
    elif form == "json":
        text = json.dumps(comparison.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    else:
        text = comparison.to_markdown() if form == "markdown" else comparison.to_latex()
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)
        say(f"comparison: {output}")


def _printable(comparison: "Comparison", width: int) -> list[Any]:
    """Return titles, tables and notes for a terminal of so many columns."""
    from rich.table import Table

    page = comparison.page()
    things: list[Any] = [page.title]
    for whole in page.tables:
        for part in whole.narrow(width):
            table = Table()
            for place, header in enumerate(part.headers):
                table.add_column(header, justify="right" if place and not part.is_ranked(place) else "left")
            for row in part.rows:
                table.add_row(*(cell.plain() for cell in row))
            things.append(table)
        things += [("* the best; " if whole.has_best else "") + whole.note, ""]
    return [*things, *page.remarks]


def _as_text(things: list[Any]) -> str:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=_WIDTH, highlight=False, markup=False, emoji=False)
    for thing in things:
        console.print(thing, soft_wrap=isinstance(thing, str))
    return stream.getvalue()
