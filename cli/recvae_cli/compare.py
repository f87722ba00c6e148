"""`recvae compare`: runs side by side with intervals, paired tests against a baseline, training time and size."""

from pathlib import Path
from typing import Annotated

import typer

from recvae_cli import comparison as shared
from recvae_cli import completion
from recvae_cli.console import (
    DATA_DIR,
    DEVICE,
    RUNS_DIR,
    DataDir,
    Device,
    Json,
    MaxMemory,
    OwnModels,
    RunsDir,
    command,
    imported_models,
    say,
    say_next,
)

_MORE_SEEDS = 3  # that are proposed where there is one


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Folders, DATA/NAME or NAME of runs; by default all on --data, or on the newest run's data.",
            autocompletion=completion.runs,
        ),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            metavar="MODELS",
            help=shared.BASELINES_HELP,
            show_default="als,ials, unless --to names another",
            autocompletion=completion.model_lists,
        ),
    ] = None,
    to: shared.To = None,
    metrics: shared.Metrics = shared.DEFAULT_METRICS,
    split: shared.Split = "test",
    by: shared.By = None,
    seeds: shared.Seeds = 1,
    form: shared.Format = None,
    output: shared.Output = None,
    per_user: shared.PerUser = None,
    data: shared.Data = None,
    own: OwnModels = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """Compare runs on the same users: intervals, paired tests against a baseline (Holm), training time and size.

    With --seeds N, each run is trained with N - 1 more seeds. These are kept next to it as NAME-seed-K, and used again.

    \b
    Examples:
      recvae compare
      recvae compare multvae multdae als --to als --seeds 5
      recvae compare --output comparison.tex
    """
    request = shared.Request(
        to=to,
        baselines=baselines or (shared.BASELINES if to is None else "none"),
        metrics=metrics,
        split=split,
        by=by,
        seeds=seeds,
        form=form,
        output=output,
        per_user=per_user,
        as_json=as_json,
        data=data,
        max_memory=max_memory,
        own=own,
        device=device,
        data_dir=data_dir,
        runs_dir=runs_dir,
    )
    shared.check_request(request, runs or [])
    folders = _folders(runs_dir, runs or [], data, own, split)
    found, home = shared.compare_runs(request, folders, "comparing")
    shared.report(request, found)
    words = [*map(str, folders), *(["--baselines", baselines] if baselines else [])]
    words += [*(["--to", to] if to else []), "--data", str(home)]
    words += [word for name in own or [] for word in ("--model", name)]
    words += [] if metrics == shared.DEFAULT_METRICS else ["--metrics", metrics]
    words += [] if split == "test" else ["--split", split]
    words += [] if by is None else ["--by", by]
    repeated = seeds == 1 and _can_be_repeated(folders, _MORE_SEEDS, own)
    more = ["--seeds", str(_MORE_SEEDS)] if repeated else ["--output", "comparison.tex"]
    say_next(command("compare", *words, *(["--seeds", str(seeds)] if seeds > 1 else []), *more))


def _can_be_repeated(folders: list[Path], n: int, own: list[str] | None) -> bool:
    """Whether all these runs may be compared with n seeds, and one of them has a seed: refits cannot be repeated."""
    from recvae.errors import UsageError
    from recvae.runs.repeats import seeds_for

    try:
        seeds = [seeds_for(folder, n, imported_models(own)) for folder in folders]
    except UsageError:
        return False
    return any(seeds)


def _folders(runs_dir: Path, runs: list[str], data: str | None, own: list[str] | None, split: str) -> list[Path]:
    """Find the runs that are named, or all finished ones next to the newest, without their repeats."""
    from recvae.bundles.bundle import training_of
    from recvae.bundles.card import read_card
    from recvae.models import MODELS
    from recvae.runs.finding import INTERRUPTED, find_run, find_runs, finished_runs, list_runs

    if runs:
        return find_runs(runs_dir, runs, data)
    newest = find_run(runs_dir, None, data)
    folders, repeats = finished_runs(newest.parent)
    if repeats:
        say(f"left out, since these repeat a run with other seeds: {', '.join(folder.name for folder in repeats)}")
    bundles = [run for run in list_runs(newest.parent, ".") if run.is_bundle and not run.is_hidden]
    stopped = [run.path for run in bundles if run.state() == INTERRUPTED and run.path not in (folders or [newest])]
    if stopped:
        names = ", ".join(folder.name for folder in stopped)
        say(f"left out, since they were interrupted: {names}; to include them, name all runs that shall be compared")
    refits = {folder: training_of(folder, read_card(folder)).refit for folder in folders}
    seen = [folder for folder, refit in refits.items() if refit is not None and refit.has_seen(split)]
    if seen and len(seen) < len(folders):
        say(f"left out, since they were trained on the {split} users: {', '.join(folder.name for folder in seen)}")
        folders = [folder for folder in folders if folder not in seen]
    known = [*MODELS, *(model.name for model in imported_models(own))]
    unknown = [folder for folder in folders if read_card(folder)["model"] not in known]
    if unknown and len(unknown) < len(folders):
        names = ", ".join(folder.name for folder in unknown)
        say(f"left out, since they hold models of your own: {names}; to include them, add --model MODULE:CLASS")
        folders = [folder for folder in folders if folder not in unknown]
    return folders or [newest]
