"""`recvae preprocess`: a raw log, or a known data set, becomes one that models train on."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli.console import DataDir, Json, say, say_next, show, show_json

if TYPE_CHECKING:
    from recvae.log_format import LogFormat
    from recvae.preparation import Prepared, Protocol

_SYNTHETIC = "synthetic"
_SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " "}


def preprocess(
    log: Annotated[
        str | None, typer.Argument(metavar="NAME|PATH", help="A known data set (see `recvae datasets`), or a log file.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="For a known name: a folder or zip already on disk, instead of a download.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the result; by default the name of the log.")] = None,
    train: Annotated[Path | None, typer.Option(help="The training part of a split made elsewhere.")] = None,
    test: Annotated[Path | None, typer.Option(help="The test part of a split made elsewhere.")] = None,
    user_col: Annotated[str | None, typer.Option(help="Column of user ids; guessed when left out.")] = None,
    item_col: Annotated[str | None, typer.Option(help="Column of item ids; guessed when left out.")] = None,
    rating_col: Annotated[str | None, typer.Option(help="Column of ratings, where there is one.")] = None,
    time_col: Annotated[str | None, typer.Option(help="Column of times, where there is one.")] = None,
    sep: Annotated[str | None, typer.Option(help="Separator: , ; | :: tab or space; guessed when left out.")] = None,
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether the first line names the columns.")
    ] = None,
    titles: Annotated[Path | None, typer.Option(help="A file with item ids and titles, for your own log.")] = None,
    min_rating: Annotated[
        float | None,
        typer.Option(help="Lowest rating that counts; 4 where the log has ratings, 0 keeps all.", show_default="4"),
    ] = None,
    min_user_items: Annotated[int | None, typer.Option(help="Drop users with fewer items.", show_default="5")] = None,
    min_item_users: Annotated[int | None, typer.Option(help="Drop items with fewer users.", show_default="0")] = None,
    split: Annotated[
        str | None, typer.Option(help="strong, holdout, leave-last-out or time.", show_default="strong")
    ] = None,
    heldout_users: Annotated[
        int | None,
        typer.Option(help="Users in each of validation and test (strong).", show_default="10 %, at most 10,000"),
    ] = None,
    target_share: Annotated[
        float | None, typer.Option(help="Share of a user's items that are targets.", show_default="0.2")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split; 98765 is the paper's.")] = 98765,
    users: Annotated[int, typer.Option(help="Users of the synthetic log.")] = 3000,
    items: Annotated[int, typer.Option(help="Items of the synthetic log.")] = 1200,
    events: Annotated[int, typer.Option(help="Events of the synthetic log.")] = 150_000,
    data_dir: DataDir = Path("data"),
    as_json: Json = False,
) -> None:
    """Read a log, filter and split it, and write a data set to DATA_DIR/NAME.

    \b
    Examples:
      recvae preprocess ml-20m
      recvae preprocess ml-1m --source ~/downloads/ml-1m.zip --heldout-users 500
      recvae preprocess plays.parquet --user-col listener --item-col track
      recvae preprocess --train train.txt --test test.txt --name gowalla
    """
    from recvae.log_format import LogFormat
    from recvae.preparation import Protocol

    started = time.perf_counter()
    separator = _SEPARATORS.get(sep or "", sep)
    log_format = LogFormat(
        separator=separator, header=header, user=user_col, item=item_col, rating=rating_col, time=time_col
    )
    asked = {
        "min_rating": min_rating,
        "min_user_items": min_user_items,
        "min_item_users": min_item_users,
        "split": split,
        "heldout_users": heldout_users,
        "target_share": target_share,
    }
    asked = {key: value for key, value in asked.items() if value is not None}
    if train is not None or test is not None:
        prepared = _pair(log, train, test, name, seed, asked, log_format, data_dir)
    else:
        shape = {"n_users": users, "n_items": items, "n_events": events}
        prepared = _log(log, source, name, Protocol(seed=seed, **asked), log_format, titles, shape, data_dir)
    folder = data_dir / prepared.dataset.name
    say(f"writing {folder}")
    prepared.dataset.save(folder)
    report(prepared, folder, time.perf_counter() - started, as_json)


def _pair(
    log: str | None,
    train: Path | None,
    test: Path | None,
    name: str | None,
    seed: int,
    asked: dict[str, Any],
    log_format: "LogFormat",
    data_dir: Path,
) -> "Prepared":
    """Prepare a split made elsewhere; options that would change it are refused."""
    from recvae.errors import UsageError
    from recvae.home import check_new
    from recvae.preparation import prepare_pair

    if train is None or test is None or log is not None:
        raise UsageError("got only part of a ready-made split, expected --train FILE and --test FILE, and no NAME")
    if asked:
        options = ", ".join("--" + key.replace("_", "-") for key in asked)
        raise UsageError(f"got {options} with a ready-made split, which is taken as it is; leave them out")
    name = check_new(data_dir, name or train.absolute().parent.name)
    say(f"reading {train} and {test}")
    return prepare_pair(train, test, name=name, seed=seed, log_format=log_format)


def _log(
    log: str | None,
    source: Path | None,
    name: str | None,
    protocol: "Protocol",
    log_format: "LogFormat",
    titles: Path | None,
    shape: dict[str, int],
    data_dir: Path,
) -> "Prepared":
    """Prepare a known data set, the synthetic one, or a log of the user's own."""
    from recvae.catalog import CATALOG
    from recvae.errors import UsageError
    from recvae.home import check_new
    from recvae.monitors import ProgressBar
    from recvae.preparation import prepare_known, prepare_log, prepare_synthetic

    if log is None:
        raise UsageError("got no log, expected NAME or PATH, or --train FILE --test FILE; see `recvae datasets`")
    path = Path(log)
    if log == _SYNTHETIC:
        say(f"inventing {shape['n_events']:,} events")
        return prepare_synthetic(protocol, name=check_new(data_dir, name or log), **shape)
    if log not in CATALOG and source is None and (path.exists() or len(path.parts) > 1 or path.suffix):
        say(f"reading {path}")
        stem = check_new(data_dir, name or path.name.split(".")[0])
        return prepare_log(path, protocol, name=stem, log_format=log_format, titles=titles)
    say(f"reading {log} from {source}" if source else f"reading {log}")
    downloads = data_dir / "downloads"
    with ProgressBar(f"downloading {log}") as bar:
        return prepare_known(
            log,
            protocol,
            name=check_new(data_dir, name or log),
            source=source,
            downloads=downloads,
            progress=lambda done, total: bar(done, total, f"{done / 1e6:,.1f} MB"),
        )


def report(prepared: "Prepared", folder: Path, seconds: float, as_json: bool) -> None:
    """Print counts after each filter, split sizes, checks, time and place."""
    manifest = prepared.dataset.manifest
    for warning in prepared.warnings:
        say(f"warning: {warning}")
    if as_json:
        show_json({**manifest, "folder": str(folder), "seconds": round(seconds, 2), "warnings": prepared.warnings})
        return
    from rich.table import Table

    steps = manifest["filters"].get("steps", [])
    if steps:
        table = Table()
        for heading in ("filter", "events", "users", "items", "density"):
            table.add_column(heading, justify="left" if heading == "filter" else "right")
        for step in steps:
            density = step["events"] / max(1, step["users"] * step["items"])
            counts = [f"{step[key]:,}" for key in ("events", "users", "items")]
            table.add_row(step["name"], *counts, f"{density:.3%}")
        show(f"{manifest['name']}: events after each filter", table)
    counts = manifest["counts"]
    split, *others = manifest["protocol"].items()
    protocol = ", ".join([split[1], *(f"{key.replace('_', ' ')} {value}" for key, value in others)])
    table = Table()
    for heading in ("part", "users", "fold-in", "targets", "without target"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    table.add_row("train", f"{counts['train_users']:,}", f"{counts['train_interactions']:,}", "-", "-")
    for part in ("validation", "test"):
        values = [counts[f"{part}_{what}"] for what in ("users", "fold_in", "targets", "users_without_target")]
        table.add_row(part, *[f"{value:,}" for value in values])
    show(f"Split: {protocol}", table)
    size = counts["train_users"] * counts["items"]
    show(f"{counts['items']:,} items in training, density {counts['train_interactions'] / size:.3%}")
    for reason, count in manifest["dropped"].items():
        if count:
            show(f"dropped: {count:,} {reason}")
    for line in prepared.confirmed:
        show(f"as published: {line}")
    show(f"written to {folder} in {seconds:.1f} s, fingerprint {manifest['fingerprint'][:12]}")
    say_next(f"recvae train --model multvae --data {manifest['name']}")
