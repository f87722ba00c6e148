"""`recvae preprocess`: from a log, or a known data set, to a data set that models train on."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli.console import DATA_DIR, DataDir, Json, say, say_next, show, show_json

if TYPE_CHECKING:
    from recvae.datasets.preparation import PreparedDataset

_SYNTHETIC = "synthetic"
_COLUMNS = ("user_col", "item_col", "rating_col", "time_col", "sep", "header")
_FILTERS = ("min_rating", "min_user_items", "min_item_users")
_PROTOCOL = ("split", "heldout_users", "target_share")
_SHAPE = ("users", "items", "events")
_BELONGS_TO = {
    **dict.fromkeys(_COLUMNS, ("a log of your own", "a ready-made split")),
    **dict.fromkeys((*_FILTERS, *_PROTOCOL), ("a known data set", "the synthetic log", "a log of your own")),
    **dict.fromkeys(_SHAPE, ("the synthetic log",)),
    **dict.fromkeys(("train", "test"), ("a ready-made split",)),
    "source": ("a known data set",),
    "titles": ("a log of your own",),
}
_ASKED_BY = {"heldout_users": ("strong",), "target_share": ("strong", "holdout")}  # splits that it has an effect on
_TIES = {  # by key of the protocol
    "tied_users": "users have last items with equal times; --seed decides which of them are the targets",
    "tied_events": "events have the time at which a later part begins, and are in that part",
}
_SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " "}


def preprocess(
    log: Annotated[
        str | None, typer.Argument(metavar="NAME|PATH", help="A known data set (see `recvae datasets`), or a log file.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="For a known data set: its folder or zip on disk, instead of a download.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the result; by default the name of the log.")] = None,
    train: Annotated[Path | None, typer.Option(help="The training part of a split made elsewhere.")] = None,
    test: Annotated[Path | None, typer.Option(help="The test part of a split made elsewhere.")] = None,
    user_col: Annotated[str | None, typer.Option(help="Column of user ids; by default found by name.")] = None,
    item_col: Annotated[str | None, typer.Option(help="Column of item ids; by default found by name.")] = None,
    rating_col: Annotated[str | None, typer.Option(help="Column of ratings, if any; by default found by name.")] = None,
    time_col: Annotated[str | None, typer.Option(help="Column of times, if any; by default found by name.")] = None,
    sep: Annotated[str | None, typer.Option(help="Separator: , ; | :: tab or space; by default guessed.")] = None,
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether the first line names the columns.")
    ] = None,
    titles: Annotated[Path | None, typer.Option(help="A file with item ids and titles, for your own log.")] = None,
    min_rating: Annotated[
        float | None,
        typer.Option(help="Lowest rating that counts, if the log has ratings; 0 keeps all.", show_default="4"),
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
        float | None,
        typer.Option(help="Share of a user's items that are targets (strong, holdout).", show_default="0.2"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split; 98765 is the paper's.")] = 98765,
    users: Annotated[int | None, typer.Option(help="Users of the synthetic log.", show_default="3000")] = None,
    items: Annotated[int | None, typer.Option(help="Items of the synthetic log.", show_default="1200")] = None,
    events: Annotated[int | None, typer.Option(help="Events of the synthetic log.", show_default="150000")] = None,
    data_dir: DataDir = DATA_DIR,
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
    started = time.perf_counter()
    columns = {"user_col": user_col, "item_col": item_col, "rating_col": rating_col, "time_col": time_col}
    filters = {"min_rating": min_rating, "min_user_items": min_user_items, "min_item_users": min_item_users}
    protocol = {"split": split, "heldout_users": heldout_users, "target_share": target_share}
    shape = {"users": users, "items": items, "events": events}
    files = {"source": source, "train": train, "test": test, "titles": titles}
    options = {**columns, "sep": sep, "header": header, **filters, **protocol, **shape, **files}
    given = {key: value for key, value in options.items() if value is not None}
    kind = _kind(log, given)
    _refuse_misplaced(kind, given)
    prepared = _prepare(kind, log, name, given, seed, data_dir)
    folder = data_dir / prepared.dataset.name
    say(f"{'replacing' if folder.exists() else 'writing'} {folder}")
    prepared.dataset.save(folder)
    report(prepared, folder, time.perf_counter() - started, as_json)


def _kind(log: str | None, given: dict[str, Any]) -> str:
    """Return which kind of data is prepared: a pair, the synthetic log, a known data set, or the user's own log."""
    from recvae.datasets.catalog import CATALOG
    from recvae.errors import UsageError

    if "train" in given or "test" in given:
        if len({"train", "test"} & given.keys()) == 1 or log is not None:
            raise UsageError("got only part of a ready-made split, expected --train FILE and --test FILE, and no NAME")
        return "a ready-made split"
    if log is None:
        raise UsageError("got no log, expected NAME or PATH, or --train FILE --test FILE; see `recvae datasets`")
    if log == _SYNTHETIC:
        return "the synthetic log"
    path = Path(log)
    if log not in CATALOG and "source" not in given and (path.exists() or len(path.parts) > 1 or path.suffix):
        return "a log of your own"
    return "a known data set"


def _refuse_misplaced(kind: str, given: dict[str, Any]) -> None:
    """Refuse options that have no effect on this kind of data."""
    from recvae.errors import UsageError

    misplaced = ["--" + key.replace("_", "-") for key in given if kind not in _BELONGS_TO[key]]
    if misplaced:
        raise UsageError(f"got {', '.join(misplaced)} with {kind}, where it has no effect; leave it out")


def _prepare(
    kind: str, log: str | None, name: str | None, given: dict[str, Any], seed: int, data_dir: Path
) -> "PreparedDataset":
    from recvae.datasets import synthetic
    from recvae.datasets.home import check_new
    from recvae.datasets.log_format import LogFormat
    from recvae.datasets.preparation import Protocol, prepare_known, prepare_log, prepare_pair, prepare_synthetic

    log_format = LogFormat(
        separator=_SEPARATORS.get(given.get("sep", ""), given.get("sep")),
        header=given.get("header"),
        user=given.get("user_col"),
        item=given.get("item_col"),
        rating=given.get("rating_col"),
        time=given.get("time_col"),
    )
    if kind == "a ready-made split":
        pair = given["train"], given["test"]
        name = check_new(data_dir, name or pair[0].absolute().parent.name)
        say(f"reading {pair[0]} and {pair[1]}")
        return prepare_pair(*pair, name=name, seed=seed, log_format=log_format)
    protocol = Protocol(seed=seed, **{key: given[key] for key in (*_FILTERS, *_PROTOCOL) if key in given})
    for key, splits in _ASKED_BY.items():
        if key in given and protocol.split not in splits:
            say(f"warning: --{key.replace('_', '-')} has no effect with --split {protocol.split}")
    name = check_new(data_dir, name or Path(str(log)).name.split(".")[0])
    if kind == "the synthetic log":
        usual = {"users": synthetic.N_USERS, "items": synthetic.N_ITEMS, "events": synthetic.N_EVENTS}
        shape = {f"n_{key}": given.get(key, default) for key, default in usual.items()}
        say(f"generating {shape['n_events']:,} events")
        return prepare_synthetic(protocol, name=name, **shape)
    if kind == "a log of your own":
        say(f"reading {log}")
        return prepare_log(Path(str(log)), protocol, name=name, log_format=log_format, titles=given.get("titles"))
    source = given["source"] if "source" in given else _fetch(str(log), data_dir / "downloads")
    say(f"reading {log} from {source}")
    return prepare_known(str(log), protocol, source=source, name=name)


def _fetch(name: str, downloads: Path) -> Path:
    """Return the zip of a known data set, downloaded unless it is there already."""
    from recvae.datasets.catalog import known_dataset
    from recvae.datasets.downloads import download
    from recvae.training.monitors import ProgressBar

    known = known_dataset(name)
    with ProgressBar(f"downloading {name}") as bar:
        return download(known, downloads, bar)


def report(prepared: "PreparedDataset", folder: Path, seconds: float, as_json: bool) -> None:
    """Print counts after each filter, split sizes, checks, time and place."""
    manifest = prepared.dataset.manifest
    counts = manifest["counts"]
    empty = [part for part in ("validation", "test") if not counts[f"{part}_targets"]]
    for warning in [*prepared.warnings, *(f"no {part} user has a target; hold out more" for part in empty)]:
        say(f"warning: {warning}")
    if as_json:
        show_json({**manifest, "folder": str(folder), "seconds": round(seconds, 2), "warnings": prepared.warnings})
        return
    from rich.table import Table

    columns = manifest["source"].get("columns")
    if columns:
        show("columns: " + ", ".join(f"{role} = {name or 'none'}" for role, name in columns.items()))
    steps = manifest["filters"].get("steps", [])
    if steps:
        table = Table()
        for heading in ("filter", "events", "users", "items", "density"):
            table.add_column(heading, justify="left" if heading == "filter" else "right")
        for step in steps:
            density = step["events"] / max(1, step["users"] * step["items"])
            cells = [f"{step[key]:,}" for key in ("events", "users", "items")]
            table.add_row(step["name"], *cells, f"{density:.3%}")
        show(f"{manifest['name']}: events after each filter", table)
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
    for key, text in _TIES.items():
        if key in manifest["protocol"]:
            show(f"ties: {manifest['protocol'][key]:,} {text}")
    for reason, count in manifest["dropped"].items():
        if count:
            show(f"dropped: {count:,} {reason}")
    for line in prepared.confirmed:
        show(f"as published: {line}")
    show(f"written to {folder} in {seconds:.1f} s, fingerprint {manifest['fingerprint'][:12]}")
    say_next(f"recvae train --model multvae --data {manifest['name']}")
