"""`recvae generate`: made-up histories from a run, and how like real ones they are."""

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli.console import (
    DATA_DIR,
    DEVICE,
    RUNS_DIR,
    DataDir,
    Device,
    Heading,
    ItsData,
    Json,
    MaxMemory,
    OneRun,
    OwnModels,
    RunsDir,
    command,
    say,
    say_next,
    show,
    show_json,
)

if TYPE_CHECKING:
    from recvae.latent.generation import Realism
    from recvae_cli.opening import Opened

MEANINGS = (
    "popularity off by: the part of the interactions that would have to be of other items; 0% is like real users",
    "lengths off by: the largest gap between the shares of users with so many items or fewer; 0% is like real users",
    "co-occurrence: correlation of which items go together; 1 is like real users",
    "copies: users whose history is exactly that of a training user",
)
"""What the columns of the table are; see `recvae.latent.generation.Realism`."""


def generate(
    run: OneRun = None,
    users: Annotated[int, typer.Option("--users", help="How many users to make up.")] = 1000,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WAY",
            help="Where codes come from: mixture, prior or interpolation.",
            show_default="mixture",
        ),
    ] = None,
    components: Annotated[
        int | None, typer.Option("--components", help="Of the mixture.", show_default="from the number of users")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Table with a row for each interaction: .csv or .parquet.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Measure every way; EASE is trained on the users of each.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all draws.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    data: ItsData = None,
    own: OwnModels = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """Make up users with histories like those of the training data, and say how like them they are.

    A mixture fitted to users' codes makes the most real ones. The plain prior is poor where the KL term had a weight
    below 1, as it has by default: codes of real users are then not spread like the prior.

    \b
    Examples:
      recvae generate ml-1m/multvae --users 5000 --output made.parquet
      recvae generate ml-1m/multvae --compare
    """
    from recvae.display import plural
    from recvae.latent.generation import generate as make
    from recvae.latent.generation import realism
    from recvae.training.monitors import ProgressBar
    from recvae_cli.opening import open_run
    from recvae_cli.tables_out import check_table

    if output is not None:
        check_table(output, overwrite)
    source = _check(source, components, compare, output)
    opened = open_run(
        run,
        data=data,
        own=own,
        max_memory=max_memory,
        device=device,
        data_dir=data_dir,
        runs_dir=runs_dir,
        split="validation" if compare else None,  # whom EASE is asked about
        is_reference=True,
    )
    model, train = opened.bundle.model, _trained_on(opened)
    of_source = components if source == "mixture" else None
    limit = opened.max_memory
    many = plural(users, "user")
    with ProgressBar("making up users") as bar:
        heading = Heading(f"making up {many} like those of {opened.dataset.name}, by {opened.folder}", bar)
        made = make(model, train, users, source, components=of_source, seed=seed, max_memory=limit, progress=heading)
    if output is not None:
        _write(output, made, opened)
    if compare:
        figures = _all_ways(opened, users, components, seed, {source: made})
    else:
        figures = {source: realism(made, train, train)}
    if as_json:
        found = {name: figure.to_json() for name, figure in figures.items()}
        show_json({"folder": str(opened.folder), "users": users, "interactions": int(made.nnz), "figures": found})
        return
    show(_table(figures), *MEANINGS)
    if output is not None:
        say_next(command("preprocess", output, "--name", f"{opened.dataset.name}-made-up", "--no-rating"))
    elif not compare:
        say_next(command("generate", opened.folder, "--compare"))
    else:
        say_next(command("generate", opened.folder, "--output", "made.parquet"))


def _trained_on(opened: "Opened") -> Any:
    """Return the users that a run was trained on: of a refit, the held-out ones too, who could be copied as well."""
    from recvae.datasets.joining import join

    refit = opened.bundle.training.refit
    return opened.dataset.train if refit is None else join(opened.dataset, refit.on)


def _write(output: Path, made: Any, opened: "Opened") -> None:
    from recvae.display import plural
    from recvae_cli.tables_out import write_table

    ids, of_rows = opened.dataset.items.ids, made.nonzero()
    write_table(output, {"user": [f"made-up-{row + 1}" for row in of_rows[0]], "item": ids[of_rows[1]].tolist()})
    say(f"{output}: {plural(made.shape[0], 'user')}, {plural(made.nnz, 'interaction')}")


def _check(source: str | None, components: int | None, compare: bool, output: Path | None) -> str:
    """Return where codes come from, and refuse what is wrong in itself, before anything is looked for."""
    from recvae.errors import UsageError
    from recvae.latent.generation import SOURCES

    if source not in (None, *SOURCES):
        raise UsageError(f"got --from {source}, expected one of {', '.join(SOURCES)}")
    if source is not None and compare and output is None:
        raise UsageError(
            f"got --from {source} with --compare, which measures every way; leave one out, or add --output, for users "
            "of this way"
        )
    if components is not None and source not in (None, "mixture") and not compare:
        raise UsageError(
            f"got --components {components} with --from {source}, expected them of a mixture; leave them out"
        )
    return source or "mixture"


def _all_ways(
    opened: "Opened", n: int, components: int | None, seed: int, made: dict[str, Any]
) -> "dict[str, Realism]":
    """Measure users of every way, and for comparison real ones: one part of training against the other."""
    import numpy as np

    from recvae.latent.generation import SOURCES, realism
    from recvae.latent.generation import generate as make
    from recvae.progress import part_of
    from recvae.training.monitors import ProgressBar

    train, held_out = opened.dataset.train, opened.dataset.part("validation")
    n_real = min(n, train.shape[0] // 2)
    order = np.random.default_rng(seed).permutation(train.shape[0])
    some, others = train[order[:n_real]], train[order[n_real:]]
    model, limit = opened.bundle.model, opened.max_memory
    has_prior = getattr(model, "has_prior", False)
    ways = [way for way in SOURCES if way != "prior" or has_prior]
    if not has_prior:
        has_points = not getattr(model, "has_distribution", False)
        why = f"codes of {model.name} are points" if has_points else f"this run of {model.name} does not hold one"
        say(f"no users from the prior: {why}")
    with ProgressBar("comparing with real users") as bar:
        bar(0, 1 + len(ways), "real users")
        figures = {"real users": realism(some, others, others, held_out, max_memory=limit)}
        for place, way in enumerate(ways, 1):
            rows, step = made.get(way), part_of(bar, place / (1 + len(ways)), (place + 0.5) / (1 + len(ways)), way)
            if rows is None:
                options = {"components": components if way == "mixture" else None, "seed": seed}
                rows = make(model, train, n, way, **options, max_memory=limit, progress=step)
            bar(place + 0.5, 1 + len(ways), f"{way}, training EASE")
            figures[way] = realism(rows[:n_real], others, train, held_out, max_memory=limit)  # as many as real ones
    return figures


def _table(figures: "dict[str, Realism]") -> object:
    from rich.table import Table

    table = Table("users", "popularity off by", "lengths off by", "co-occurrence", "copies of training users")
    measured = any(figure.ndcg is not None for figure in figures.values())
    if measured:
        table.add_column("EASE trained on them: ndcg@100 of real users")
    for name, one in figures.items():
        together = "-" if isnan(one.co_occurrence) else f"{one.co_occurrence:.3f}"
        row = [f"{one.popularity:.1%}", f"{one.lengths:.1%}", together, f"{one.copies:.1%}"]
        reached = "-" if one.ndcg is None or isnan(one.ndcg) else f"{one.ndcg:.4f}"
        table.add_row(name, *row, *([reached] if measured else []))
    return table
