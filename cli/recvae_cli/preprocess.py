"""`recvae preprocess`: from a log, or a known data set, to a data set that models train on."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli.console import DATA_DIR, DataDir, Json, memory_limit, say, say_next, show, show_json

if TYPE_CHECKING:
    from recvae.datasets.preparation import PreparedDataset
    from recvae.datasets.reading.options import LogFormat

_SYNTHETIC = "synthetic"
_OWN, _PAIR, _PARTS, _KNOWN, _MADE = (
    *("a log of your own", "a ready-made split", "a split with users of its own", "a known data set"),
    "the synthetic log",
)
_READ = (
    *("user_col", "item_col", "rating_col", "time_col", "sep", "header", "quote", "encoding", "null", "time_format"),
    *("no_rating", "no_time", "on_bad_row"),
)
_FILTERS = ("min_rating", "min_user_items", "min_item_users")
_PROTOCOL = ("split", "heldout_users", "target_share")
_SHAPE = ("users", "items", "events")
_HELD_OUT = ("valid_fold_in", "valid_targets", "test_fold_in", "test_targets")
_BELONGS_TO = {
    **dict.fromkeys(_READ, (_OWN, _PAIR, _PARTS)),
    **dict.fromkeys((*_FILTERS, *_PROTOCOL), (_KNOWN, _MADE, _OWN)),
    **dict.fromkeys(_SHAPE, (_MADE,)),
    **dict.fromkeys(("test", "valid"), (_PAIR,)),
    "train": (_PAIR, _PARTS),
    **dict.fromkeys(_HELD_OUT, (_PARTS,)),
    **dict.fromkeys(("source", "force"), (_KNOWN,)),
    **dict.fromkeys(("titles", "title_col", "id_col"), (_OWN,)),
    "max_memory": (_OWN, _PAIR, _PARTS, _KNOWN),
}
_ASKED_BY = {"heldout_users": ("strong",), "target_share": ("strong", "holdout")}  # splits that it has an effect on
_SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " "}
_READING, _FILES, _SPLIT = "How the log is read", "Splits made elsewhere", "Filters and split"


def preprocess(
    log: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|PATH...",
            help="A known data set (see `recvae datasets`); or files, folders, 'globs', or - for a pipe.",
        ),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="For a known data set: its folder or zip on disk, instead of a download.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the result; by default the name of the log.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set of that name.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="For a known data set: also with counts far from the published ones.")
    ] = False,
    titles: Annotated[Path | None, typer.Option(help="A file with item ids and titles, for your own log.")] = None,
    id_col: Annotated[str | None, typer.Option(help="Column of item ids in --titles.")] = None,
    title_col: Annotated[str | None, typer.Option(help="Column of titles in --titles.")] = None,
    user_col: Annotated[
        str | None, typer.Option(help="Column of user ids; by default found by name.", rich_help_panel=_READING)
    ] = None,
    item_col: Annotated[
        str | None, typer.Option(help="Column of item ids; by default found by name.", rich_help_panel=_READING)
    ] = None,
    rating_col: Annotated[
        str | None, typer.Option(help="Column of ratings, if any; by default found by name.", rich_help_panel=_READING)
    ] = None,
    time_col: Annotated[
        str | None, typer.Option(help="Column of times, if any; by default found by name.", rich_help_panel=_READING)
    ] = None,
    no_rating: Annotated[
        bool, typer.Option("--no-rating", help="Read no ratings: every row counts.", rich_help_panel=_READING)
    ] = False,
    no_time: Annotated[bool, typer.Option("--no-time", help="Read no times.", rich_help_panel=_READING)] = False,
    sep: Annotated[
        str | None,
        typer.Option(help="Separator: any character, :: tab or space; by default guessed.", rich_help_panel=_READING),
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option("--header/--no-header", help="Whether the first line names columns.", rich_help_panel=_READING),
    ] = None,
    quote: Annotated[
        str | None,
        typer.Option(help="Character around values, or none; by default guessed.", rich_help_panel=_READING),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of the text, e.g. latin-1.", show_default="utf-8", rich_help_panel=_READING),
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option(
            help="A word that means a missing id, besides NULL, NaN, ... (repeatable).", rich_help_panel=_READING
        ),
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(
            help="How times are written, e.g. '%d/%m/%Y %H:%M'; by default guessed.", rich_help_panel=_READING
        ),
    ] = None,
    on_bad_row: Annotated[
        str | None,
        typer.Option(
            help="A row with too many or too few columns: stop or skip.", show_default="stop", rich_help_panel=_READING
        ),
    ] = None,
    min_rating: Annotated[
        float | None,
        typer.Option(
            help="Lowest rating that counts; 0 keeps all.",
            show_default="4 for stars from 1 to 5",
            rich_help_panel=_SPLIT,
        ),
    ] = None,
    min_user_items: Annotated[
        int | None, typer.Option(help="Drop users with fewer items.", show_default="5", rich_help_panel=_SPLIT)
    ] = None,
    min_item_users: Annotated[
        int | None, typer.Option(help="Drop items with fewer users.", show_default="0", rich_help_panel=_SPLIT)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="strong, holdout, leave-last-out or time.", show_default="strong", rich_help_panel=_SPLIT),
    ] = None,
    heldout_users: Annotated[
        int | None,
        typer.Option(
            help="Users in each of validation and test (strong).",
            show_default="10 %, at most 10,000",
            rich_help_panel=_SPLIT,
        ),
    ] = None,
    target_share: Annotated[
        float | None,
        typer.Option(
            help="Share of a user's items that are targets (strong, holdout).",
            show_default="0.2",
            rich_help_panel=_SPLIT,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split; 98765 is the paper's.", rich_help_panel=_SPLIT)] = 98765,
    train: Annotated[
        Path | None, typer.Option(help="The training part of a split made elsewhere.", rich_help_panel=_FILES)
    ] = None,
    valid: Annotated[
        Path | None, typer.Option(help="The validation part, if there is one.", rich_help_panel=_FILES)
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="The test part of a split made elsewhere.", rich_help_panel=_FILES)
    ] = None,
    valid_fold_in: Annotated[
        Path | None,
        typer.Option(help="Known items of validation users who are not in --train.", rich_help_panel=_FILES),
    ] = None,
    valid_targets: Annotated[
        Path | None, typer.Option(help="Hidden items of these users.", rich_help_panel=_FILES)
    ] = None,
    test_fold_in: Annotated[
        Path | None, typer.Option(help="Known items of test users who are not in --train.", rich_help_panel=_FILES)
    ] = None,
    test_targets: Annotated[
        Path | None, typer.Option(help="Hidden items of these users.", rich_help_panel=_FILES)
    ] = None,
    users: Annotated[int | None, typer.Option(help="Users of the synthetic log.", show_default="3000")] = None,
    items: Annotated[int | None, typer.Option(help="Items of the synthetic log.", show_default="1200")] = None,
    events: Annotated[int | None, typer.Option(help="Events of the synthetic log.", show_default="150000")] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory that reading may take, e.g. 2GB.", show_default="1GB")
    ] = None,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Read a log, filter and split it, and write a data set to DATA_DIR/NAME.

    \b
    Examples:
      recvae preprocess ml-20m
      recvae preprocess ml-1m --source ~/downloads/ml-1m.zip --heldout-users 500
      recvae preprocess plays.parquet --user-col listener --item-col track
      recvae preprocess logs/2026-*.csv.gz --name plays --no-rating
      recvae preprocess --train train.txt --test test.txt --name gowalla
    """
    started = time.perf_counter()
    options = dict(locals())
    given = {
        key: options[key]
        for key in _BELONGS_TO
        if options[key] not in ([], ()) and options[key] is not None and options[key] is not False
    }
    if header is False:
        given["header"] = False
    kind = _kind(log or [], given)
    _refuse_misplaced(kind, given)
    prepared = _prepare(kind, log or [], name, given, seed, data_dir, overwrite)
    folder = data_dir / prepared.dataset.name
    say(f"{'replacing' if folder.exists() else 'writing'} {folder}")
    prepared.dataset.save(folder)
    report(prepared, folder, time.perf_counter() - started, as_json)


def _kind(log: list[str], given: dict[str, Any]) -> str:
    """Return which kind of data is prepared: a pair, the synthetic log, a known data set, or the user's own log."""
    from recvae.datasets.catalog import CATALOG
    from recvae.errors import UsageError

    if any(key in given for key in _HELD_OUT):
        missing = ["--" + key.replace("_", "-") for key in ("train", *_HELD_OUT) if key not in given]
        if missing or log or {"test", "valid"} & given.keys():
            raise UsageError(
                "got only part of a split with users of its own, expected --train, --valid-fold-in, --valid-targets, "
                f"--test-fold-in and --test-targets, and no NAME; missing: {', '.join(missing) or 'nothing'}"
            )
        return _PARTS
    if {"train", "test", "valid"} & given.keys():
        if len({"train", "test"} & given.keys()) == 1 or log or "train" not in given:
            raise UsageError("got only part of a ready-made split, expected --train FILE and --test FILE, and no NAME")
        return _PAIR
    if not log:
        raise UsageError("got no log, expected NAME or PATH, or --train FILE --test FILE; see `recvae datasets`")
    if len(log) > 1:
        return _OWN
    if log[0] == _SYNTHETIC:
        return _MADE
    path = Path(log[0])
    looks_like_path = path.exists() or len(path.parts) > 1 or path.suffix or any(letter in log[0] for letter in "*?[")
    if log[0] not in CATALOG and "source" not in given and (looks_like_path or log[0] == "-"):
        return _OWN
    return _KNOWN


def _refuse_misplaced(kind: str, given: dict[str, Any]) -> None:
    """Refuse options that have no effect on this kind of data."""
    from recvae.errors import UsageError

    misplaced = ["--" + key.replace("_", "-") for key in given if kind not in _BELONGS_TO[key]]
    if misplaced:
        raise UsageError(f"got {', '.join(misplaced)} with {kind}, where it has no effect; leave it out")


def _prepare(
    kind: str, log: list[str], name: str | None, given: dict[str, Any], seed: int, data_dir: Path, overwrite: bool
) -> "PreparedDataset":
    from recvae.datasets import synthetic
    from recvae.datasets.home import check_new
    from recvae.datasets.preparation import (
        Protocol,
        prepare_known,
        prepare_log,
        prepare_pair,
        prepare_parts,
        prepare_synthetic,
    )
    from recvae.datasets.reading.options import LogFormat
    from recvae.training.monitors import ProgressBar

    reading: dict[str, Any] = {"max_memory": memory_limit(given.get("max_memory"))}
    if kind in (_PAIR, _PARTS):
        files = {key: given[key] for key in ("train", "valid", "test", *_HELD_OUT) if key in given}
        name = check_new(data_dir, name or files["train"].absolute().parent.name, overwrite)
        say(f"reading {' and '.join(map(str, files.values()))}")
        prepare = prepare_pair if kind == _PAIR else prepare_parts
        with ProgressBar("reading") as bar:
            return prepare(**files, name=name, seed=seed, log_format=_log_format(given), progress=bar, **reading)
    protocol = Protocol(seed=seed, **{key: given[key] for key in (*_FILTERS, *_PROTOCOL) if key in given})
    for key, splits in _ASKED_BY.items():
        if key in given and protocol.split not in splits:
            say(f"warning: --{key.replace('_', '-')} has no effect with --split {protocol.split}")
    name = check_new(data_dir, name or _usual_name(log[0]), overwrite)
    if kind == _MADE:
        usual = {"users": synthetic.N_USERS, "items": synthetic.N_ITEMS, "events": synthetic.N_EVENTS}
        shape = {f"n_{key}": given.get(key, default) for key, default in usual.items()}
        say(f"generating {shape['n_events']:,} events")
        return prepare_synthetic(protocol, name=name, **shape)
    if kind == _OWN:
        say(f"reading {' '.join(log)}")
        titles_format = LogFormat(item=given.get("id_col"), title=given.get("title_col"))
        with ProgressBar("reading") as bar:
            return prepare_log(
                log,
                protocol,
                name=name,
                log_format=_log_format(given),
                titles=given.get("titles"),
                titles_format=titles_format,
                progress=bar,
                **reading,
            )
    source = given["source"] if "source" in given else _fetch(log[0], data_dir / "downloads")
    say(f"reading {log[0]} from {source}")
    with ProgressBar("reading") as bar:
        return prepare_known(
            log[0], protocol, source=source, name=name, force="force" in given, progress=bar, **reading
        )


def _usual_name(log: str) -> str:
    """Return the name of a data set that was given none: that of the file without endings, or of the folder."""
    from recvae.errors import UsageError

    name = Path(log).absolute().name.split(".")[0] if log != "-" else ""
    if not name or any(letter in name for letter in "*?["):
        raise UsageError(f"got {log}, which gives the data set no name, expected --name NAME; add it")
    return name


def _log_format(given: dict[str, Any]) -> "LogFormat":
    from recvae.datasets.reading.options import LogFormat

    quote = given.get("quote")
    return LogFormat(
        separator=_SEPARATORS.get(given.get("sep", ""), given.get("sep")),
        header=given.get("header"),
        quote="" if quote == "none" else quote,
        encoding=given.get("encoding"),
        user=given.get("user_col"),
        item=given.get("item_col"),
        rating=given.get("rating_col"),
        time=given.get("time_col"),
        without=tuple(role for role in ("rating", "time") if f"no_{role}" in given),
        null=tuple(given.get("null", ())),
        time_format=given.get("time_format"),
        on_bad_row=given.get("on_bad_row", "stop"),
    )


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

    for line in [] if prepared.reading is None else prepared.reading.lines():
        show(line)
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
    for reason, count in manifest["dropped"].items():
        if count:
            show(f"dropped: {count:,} {reason}")
    for line in prepared.confirmed:
        show(f"as published: {line}")
    show(f"written to {folder} in {seconds:.1f} s, fingerprint {manifest['fingerprint'][:12]}")
    say_next(f"recvae train --model multvae --data {manifest['name']}")
