"""`recvae plot`: pictures of runs, as files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from recvae_cli.opening import names_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recvae.bundles.bundle import Bundle
    from recvae.datasets.dataset import Dataset

PICTURE_NAMES = "curves, by-k, by-history, by-popularity, bias, coverage, map"  # a copy: --help imports no library


def plot(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Folders, DATA/NAME or NAME of runs; by default the newest."),
    ] = None,
    pictures: Annotated[
        str, typer.Option("--picture", help=f"Of {PICTURE_NAMES}, separated by commas; or all.")
    ] = "curves",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Output file; .png, .svg or .pdf chooses the format. Several pictures are written as NAME-PICTURE.",
            show_default="PICTURE.svg",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    metric: Annotated[
        str | None, typer.Option(help="Metric of by-k and by-history, without @K.", show_default="ndcg")
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("-k", "--k", help="Recommendations that count in the other pictures.", show_default="20"),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns user and label; it colours the map.", show_default="history length"
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which users: test or validation.", show_default="test")] = None,
    data: Annotated[
        str | None, typer.Option(help="Name or path of the data set; by default the one the run names.")
    ] = None,
    own: OwnModels = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Draw pictures of runs: training curves, accuracy, popularity, coverage, a map of users (needs matplotlib).

    \b
    Examples:
      recvae plot
      recvae plot multvae recvae --picture curves --output curves.svg
      recvae plot multvae ease --picture by-k,bias --output films.png
      recvae plot multvae --picture map --labels ages.csv --output map.pdf
    """
    from recvae.reports.canvas import styled
    from recvae.reports.pictures import CURVES, LISTED, METRIC, parse_names
    from recvae.runs.finding import find_runs

    wanted = parse_names(pictures)
    places = _places(wanted, output, overwrite)
    request = _Request(
        metric=METRIC if metric is None else metric,
        k=LISTED if k is None else k,
        labels=labels,
        split=split or "test",
        data=data,
        own=own,
        max_memory=max_memory,
        device=device,
        data_dir=data_dir,
    )
    _check(request)
    _check_used({"--metric": metric, "-k": k, "--labels": labels, "--split": split}, wanted)
    with styled():  # a missing matplotlib is said before anything is measured
        pass
    folders = find_runs(runs_dir, runs, data)
    drawn = _draw(request, dict(zip(names_of(folders), folders, strict=True)), wanted, pictures == "all")
    _write(drawn, places)
    others = [] if wanted != [CURVES] else ["--picture", "by-k,by-history,bias"]
    more = ["plot", *folders, *others] if others else ["report", *folders, "--output", "report.html"]
    say_next(command(*map(str, more), *(["--data", data] if data else []), *_own_words(own)))


@dataclass(frozen=True)
class _Request:
    """What was typed."""

    metric: str
    k: int
    labels: Path | None
    split: str
    data: str | None
    own: list[str] | None
    max_memory: str | None
    device: str
    data_dir: Path


def _own_words(own: list[str] | None) -> list[str]:
    return [word for name in own or [] for word in ("--model", name)]


def _places(wanted: list[str], output: Path | None, overwrite: bool) -> dict[str, Path]:
    """Return where each picture goes, and refuse what cannot be written."""
    from recvae.reports.canvas import check_ending
    from recvae.storage.files import check_new_file

    if output is None:
        places = {name: Path(f"{name}.svg") for name in wanted}
    elif len(wanted) == 1:
        places = {wanted[0]: output}
    else:
        places = {name: output.with_name(f"{output.stem}-{name}{output.suffix}") for name in wanted}
    for path in places.values():
        check_ending(path)
        check_new_file(path, overwrite)
    return places


def _check_used(typed: dict[str, object], wanted: list[str]) -> None:
    """Refuse an option that none of the pictures looks at."""
    from recvae.errors import UsageError
    from recvae.reports.pictures import CURVES, MAP, NAMES

    looking = {
        "--metric": ("by-k", "by-history"),
        "-k": ("by-popularity", "bias", "coverage"),
        "--labels": (MAP,),
        "--split": tuple(name for name in NAMES if name != CURVES),
    }
    for option, value in typed.items():
        if value is not None and not set(wanted) & set(looking[option]):
            raise UsageError(
                f"got {option} {value} without --picture {' or '.join(looking[option])}, which it is for; add that, or "
                f"leave {option} out"
            )


def _check(request: _Request) -> None:
    """Refuse what is wrong in itself, before anything is looked for."""
    from recvae.errors import UsageError
    from recvae.items import check_k
    from recvae.metrics import Metric

    check_k(request.k)
    memory_limit(request.max_memory)
    if not Metric(request.metric, request.k).is_per_user:
        raise UsageError(f"got --metric {request.metric}, which has no value per user; expected one such as ndcg")


def _draw(request: _Request, folders: dict[str, Path], wanted: list[str], lenient: bool) -> "dict[str, Figure]":
    """Draw the pictures by name; if lenient, those that the runs cannot have are left out with a remark."""
    from recvae.bundles.card import read_card
    from recvae.errors import UsageError
    from recvae.plots import training_curves
    from recvae.reports.logs import check_one_data, read_log
    from recvae.reports.pictures import CURVES

    check_one_data({name: read_card(folder)["dataset"] for name, folder in folders.items()})
    drawn: dict[str, Figure] = {}
    logs = {}
    for name, folder in folders.items() if CURVES in wanted else ():
        try:
            logs[name] = read_log(folder)
        except UsageError as error:
            if not lenient:
                raise
            say(f"not in the curves: {error}")
    if logs:
        drawn[CURVES] = training_curves(logs)
    rest = [name for name in wanted if name != CURVES]
    return drawn | _draw_measured(request, folders, rest, lenient) if rest else drawn


def _draw_measured(
    request: _Request, folders: dict[str, Path], wanted: list[str], lenient: bool
) -> "dict[str, Figure]":
    """Draw the pictures that need the data set and the models."""
    from recvae.errors import DataError
    from recvae.reports.measuring import KS, Measured, rank_users
    from recvae.reports.pictures import MAP, MEASURED, draw
    from recvae.training.monitors import ProgressBar
    from recvae_cli.opening import open_runs

    opened = open_runs(
        folders,
        data=request.data,
        own=request.own,
        max_memory=request.max_memory,
        device=request.device,
        data_dir=request.data_dir,
        split=request.split,
    )
    bundles, dataset = opened.bundles, opened.dataset
    held_out, drawn = dataset.part(request.split), {}
    if MAP in wanted:
        drawn |= _map(request, bundles, dataset, lenient)
    measured = [name for name in MEASURED if name in wanted]
    if measured:
        say(f"ranking for the {request.split} users of {opened.home}")
        ranked = {}
        for name, bundle in bundles.items():
            with ProgressBar(f"ranking for {name}") as bar:
                most = max(request.k, *KS)
                ranked[name] = rank_users(bundle.model, held_out, most, bar, max_memory=opened.max_memory)
        known = Measured(
            ranked=ranked,
            held_out=held_out,
            train_counts=dataset.items.train_counts,
            n_train_users=dataset.train.shape[0],
        )
        for name in measured:
            try:
                drawn[name] = draw(name, known, request.metric, request.k)
            except DataError as error:
                if not lenient:
                    raise
                say(f"no picture {name}: {error}")
    return drawn


def _map(request: _Request, bundles: "dict[str, Bundle]", dataset: "Dataset", lenient: bool) -> "dict[str, Figure]":
    """Draw the map of users, of those runs that have one if lenient."""
    import numpy as np

    from recvae.errors import DataError, UsageError
    from recvae.plots import latent_map
    from recvae.reports.labels import read_labels
    from recvae.reports.pictures import MAP, check_has_map

    held_out, able = dataset.part(request.split), {}
    for name, bundle in bundles.items():
        try:
            check_has_map(name, bundle.model)
            able[name] = bundle.model
        except UsageError as error:
            if not lenient:
                raise
            say(f"not in the map: {error}")
    if not able:
        return {}
    labels = None if request.labels is None else read_labels(request.labels, held_out.user_ids)
    limit = memory_limit(request.max_memory)
    embeddings = {name: model.embed(held_out.fold_in, max_memory=limit) for name, model in able.items()}
    try:
        return {MAP: latent_map(embeddings, np.diff(held_out.fold_in.indptr), labels)}
    except DataError as error:  # too few users, say
        if not lenient:
            raise
        say(f"no map: {error}")
        return {}


def _write(drawn: "dict[str, Figure]", places: dict[str, Path]) -> None:
    """Write the pictures, and print where each of them is."""
    from recvae.errors import UsageError
    from recvae.reports.canvas import save

    if not drawn:
        raise UsageError("none of these pictures can be drawn of these runs; name others")
    for name, figure in drawn.items():
        save(figure, places[name])
        typer.echo(f"{name}: {places[name]}")
