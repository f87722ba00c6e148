"""`recvae probe`: what the vectors of a run know of items or users that no model was told."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recvae_cli import completion
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
    OwnModels,
    RunsDir,
    command,
    model_words,
    say,
    say_next,
    show,
    show_json,
)

if TYPE_CHECKING:
    from recvae.datasets.dataset import Dataset
    from recvae.datasets.features import ItemFeatures
    from recvae.latent.labels import Labels
    from recvae.latent.probes import Probe
    from recvae.latent.vectors import Of
    from recvae_cli.opening import OpenedRuns

_NAMED = 5  # features that are left out and named


def probe(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Folders, DATA/NAME or NAME of runs on the same data; by default the newest.",
            autocompletion=completion.runs,
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option("--features", help="A table of items and what is known of them.", show_default="the data set's"),
    ] = None,
    users: Annotated[
        Path | None, typer.Option("--users", help="A table of users and their attributes: probe vectors of users.")
    ] = None,
    id_col: Annotated[str | None, typer.Option("--id-col", help="Its column of ids; by default found by name.")] = None,
    feature_col: Annotated[
        list[str] | None,
        typer.Option("--feature-col", help="A column to probe (repeatable).", show_default="all that can be used"),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option("--width", help="Numbers of a vector, of all kinds.", show_default="64, or the narrowest run's"),
    ] = None,
    folds: Annotated[int, typer.Option("--folds", help="Parts, each measured by a fit on the others.")] = 5,
    least: Annotated[
        int, typer.Option("--least", help="Items or users that must have a feature, and that must lack it.")
    ] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Seed of folds and resamples.")] = 0,
    data: ItsData = None,
    own: OwnModels = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """Measure what vectors of items, or of users, know of features that no model was told, such as genres or age.

    A logistic regression tells items with a feature from others by their vectors; ROC-AUC is taken on items that it was
    not fitted on: .5 is guessing, 1 is perfect. Beside the runs stand vectors by truncated SVD, popularity alone (of
    users: the length of the history), and random numbers. Numbers are probed as "above the median".

    \b
    Examples:
      recvae probe ml-100k/multvae ml-100k/ease
      recvae probe ml-1m/multvae --features movies.csv --feature-col genres
      recvae probe ml-1m/multvae --users users.dat --id-col 1
    """
    from recvae.errors import UsageError
    from recvae.latent.labels import labels_of
    from recvae.runs.finding import find_runs
    from recvae.training.monitors import ProgressBar
    from recvae_cli.opening import names_of, open_runs

    if features is not None and users is not None:
        raise UsageError("got --features and --users, expected one of them: a run has vectors of items and of users")
    table = users or features
    if table is None and id_col:
        raise UsageError("got --id-col without a table, where it has no effect; add --features or --users FILE")
    _check_numbers(folds, least, seed, width)
    folders = find_runs(runs_dir, runs, data)
    named = dict(zip(names_of(folders), folders, strict=True))
    opened = open_runs(named, data=data, own=own, max_memory=max_memory, device=device, data_dir=data_dir, split=None)
    of: Of = "items" if users is None else "users"
    told = labels_of(_told(opened.dataset, table, of, id_col, feature_col), of, are_chosen=bool(feature_col))
    with ProgressBar("probing vectors") as bar:
        heading = Heading(f"probing {of} of {opened.dataset.name}: {', '.join(map(str, folders))}", bar)
        found = _found(opened, told, of, width, (folds, least, seed), heading)
    for remark in told.remarks:
        say(remark)
    if as_json:
        how = {"data": opened.dataset.name, "runs": [str(folder) for folder in folders], "seed": seed, "folds": folds}
        show_json({**how, "least": least, **_for_json(found, told, of)})
        return
    show(_overview(found, of), _each(found, told, of))
    _say_left_out(next(iter(found.values())), of, least)
    first = next(iter(opened.bundles.values())).model
    verb = "segments" if first.has_embeddings else "evaluate"
    say_next(command(verb, folders[0], *model_words(type(first))))


def _check_numbers(folds: int, least: int, seed: int, width: int | None) -> None:
    from recvae.errors import UsageError
    from recvae.latent.probes import RESAMPLES, check_options, fewest

    check_options(folds, max(least, fewest(folds)), RESAMPLES, seed)
    if least < fewest(folds):
        raise UsageError(
            f"got --least {least} with --folds {folds}, expected --least {fewest(folds)} or more, so that each fold "
            "has some of both kinds; raise it, or ask for fewer folds"
        )
    if width is not None and width < 1:
        raise UsageError(f"got --width {width}, expected 1 or more")


def _told(
    dataset: "Dataset", table: Path | None, of: "Of", id_col: str | None, columns: list[str] | None
) -> "ItemFeatures":
    """Return what is known of the items or of the training users, and say what the table lacks."""
    from recvae.datasets.features import read_features
    from recvae.datasets.reading.options import LogFormat
    from recvae.errors import UsageError

    if table is None:
        if dataset.features is None:
            raise UsageError(
                f"{dataset.name} has no features of its items; give a table with --features FILE, or with --users FILE "
                "one of the users, or prepare the data set with `recvae preprocess --features`"
            )
        return dataset.features if columns is None else dataset.features.of_columns(columns)
    if of == "items":
        found, remarks = read_features(table, dataset.item_ids, LogFormat(item=id_col), columns)
    elif dataset.train_user_ids is not None:
        found, remarks = read_features(table, dataset.train_user_ids, LogFormat(user=id_col), columns, "user")
    else:
        raise UsageError(
            f"{dataset.name} has no ids of its training users, since an earlier version wrote it; prepare it again"
        )
    for remark in remarks:
        say(remark)
    return found


def _found(
    opened: "OpenedRuns", told: "Labels", of: "Of", width: int | None, how: tuple[int, int, int], heading: Heading
) -> "dict[str, Probe]":
    """Return the probe of each kind of vector, all of one width."""
    from recvae.errors import UsageError
    from recvae.latent.probes import probe as measure
    from recvae.latent.vectors import WIDTH, own_width, simple_vectors, vectors_of

    models = {name: bundle.model for name, bundle in opened.bundles.items()}
    train, (folds, least, seed) = opened.dataset.train, how
    widths = {name: own for name, model in models.items() if (own := own_width(model, of)) is not None}
    narrowest = min(widths, key=lambda name: widths[name], default=None)
    if width is None:
        width = min([*widths.values(), WIDTH, min(train.shape) - 1])
    if narrowest is not None and width > widths[narrowest]:  # a wider vector is easier to read
        raise UsageError(
            f"got --width {width}, but the vectors of {narrowest} have {widths[narrowest]} numbers, expected one width "
            f"for all; give --width {widths[narrowest]} or less, or leave it out"
        )
    if width >= min(train.shape):
        raise UsageError(f"got --width {width}, expected at most {min(train.shape) - 1} with these users and items")
    simple = simple_vectors(train, of, width, seed=seed)
    vectors = {  # a run may be called popularity
        f"{name} (run)" if name in simple else name: vectors_of(model, train, of, width, max_memory=opened.max_memory)
        for name, model in models.items()
    }
    vectors |= simple
    found = {}
    for number, (name, rows) in enumerate(vectors.items()):
        heading(number, len(vectors), name)
        found[name] = measure(rows[told.known], told.matrix, told.names, of=of, folds=folds, least=least, seed=seed)
    heading(len(vectors), len(vectors))
    return found


def _overview(found: "dict[str, Probe]", of: str) -> object:
    from rich.table import Table

    from recvae.latent.vectors import SVD

    first = found[SVD]
    table = Table(f"{of[:-1]} vectors", "width", "mean ROC-AUC", "95 % interval", f"minus {SVD}", "95 % interval")
    for name, one in found.items():
        low, high = one.interval
        above, least, most = one.difference(first)
        difference = ("-", "-") if one is first else (f"{above:+.3f}", f"{least:+.3f} to {most:+.3f}")
        table.add_row(name, str(one.width), f"{one.mean:.3f}", f"{low:.3f} to {high:.3f}", *difference)
    return table


def _each(found: "dict[str, Probe]", told: "Labels", of: str) -> object:
    from rich.table import Table

    from recvae.latent.vectors import SVD

    table, counts = Table("ROC-AUC of", of, *found), told.counts
    aucs = {name: dict(zip(one.names, one.aucs.tolist(), strict=True)) for name, one in found.items()}
    for feature in found[SVD].names:
        table.add_row(feature, f"{counts[feature]:,}", *(f"{one[feature]:.3f}" for one in aucs.values()))
    return table


def _say_left_out(found: "Probe", of: str, least: int) -> None:
    from recvae.display import plural

    say(
        f"mean of {plural(len(found.names), 'feature')}; intervals over {found.n_items:,} {of}, for these fits: other "
        "fits would vary too, see the random numbers"
    )
    if found.left_out:
        more = f" and {len(found.left_out) - _NAMED:,} more" if len(found.left_out) > _NAMED else ""
        shown = ", ".join(found.left_out[:_NAMED])
        say(f"left out: {shown}{more}, which fewer than {least} {of} have, or lack")


def _for_json(found: "dict[str, Probe]", told: "Labels", of: str) -> dict[str, object]:
    from recvae.latent.vectors import SVD

    first, counts = found[SVD], told.counts
    return {
        "of": of,
        "n": first.n_items,
        "left_out": list(first.left_out),
        "remarks": told.remarks,
        "features": {name: counts[name] for name in first.names},
        "vectors": {
            name: {
                "width": one.width,
                "mean": one.mean,
                "interval": list(one.interval),
                "above_svd": None if one is first else list(one.difference(first)),
                "aucs": dict(zip(one.names, one.aucs.tolist(), strict=True)),
            }
            for name, one in found.items()
        },
    }
