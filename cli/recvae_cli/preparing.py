"""Which kind of data `recvae preprocess` is given, which options belong to it, and how it is prepared."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae_cli.console import memory_limit, say

if TYPE_CHECKING:
    from recvae.datasets.protocol import PreparedDataset, Protocol
    from recvae.datasets.reading.options import LogFormat


_SYNTHETIC = "synthetic"


_OWN, _PAIR, _PARTS, _KNOWN, _KNOWN_PAIR, _MADE = (
    *("a log of your own", "a ready-made split", "a split with users of its own", "a known data set"),
    *("a known data set that is split already", "the synthetic log"),
)


_READ = (
    *("user_col", "item_col", "rating_col", "time_col", "sep", "header", "quote", "encoding", "null", "time_format"),
    *("no_rating", "no_time", "on_bad_row"),
)


_FILTERS = ("min_rating", "min_user_items", "min_item_users")


_PROTOCOL = ("split", "heldout_users", "target_share")


_SHAPE = ("users", "items", "events")


_HELD_OUT = ("valid_fold_in", "valid_targets", "test_fold_in", "test_targets")


BELONGS_TO = {
    **dict.fromkeys(_READ, (_OWN, _PAIR, _PARTS)),
    **dict.fromkeys((*_FILTERS, *_PROTOCOL), (_KNOWN, _MADE, _OWN)),
    **dict.fromkeys(_SHAPE, (_MADE,)),
    **dict.fromkeys(("test", "valid"), (_PAIR,)),
    "train": (_PAIR, _PARTS),
    **dict.fromkeys(_HELD_OUT, (_PARTS,)),
    **dict.fromkeys(("source", "force"), (_KNOWN, _KNOWN_PAIR)),
    **dict.fromkeys(("titles", "title_col"), (_OWN,)),
    **dict.fromkeys(("features", "feature_col", "id_col"), (_OWN, _PAIR, _PARTS, _KNOWN, _KNOWN_PAIR, _MADE)),
    "max_memory": (_OWN, _PAIR, _PARTS, _KNOWN, _KNOWN_PAIR),
}


_ASKED_BY = {"heldout_users": ("strong",), "target_share": ("strong", "holdout")}  # splits that it has an effect on


_SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " "}


def not_left_out(key: str, value: object) -> bool:
    """Whether an option was given: 0 is a value, and --no-header too."""
    return value is not None and value != [] and (value is not False or key == "header")


def kind_of(log: list[str], given: dict[str, Any]) -> str:
    """Return which kind of data is prepared: a pair, the synthetic log, a known data set, or the user's own log."""
    from recvae.datasets.catalog.known import CATALOG
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
    return _KNOWN_PAIR if log[0] in CATALOG and CATALOG[log[0]].is_pair else _KNOWN


def refuse_misplaced(kind: str, given: dict[str, Any]) -> None:
    """Refuse options that have no effect on this kind of data."""
    from recvae.errors import UsageError

    misplaced = ["--" + key.replace("_", "-") for key in given if kind not in BELONGS_TO[key]]
    if misplaced:
        raise UsageError(f"got {', '.join(misplaced)} with {kind}, where it has no effect; leave it out")


def prepared_by(
    kind: str, log: list[str], name: str | None, given: dict[str, Any], seed: int, data_dir: Path, overwrite: bool
) -> "PreparedDataset":
    """Prepare a data set: read the log, filter and split it; nothing is written."""
    from recvae.datasets import synthetic
    from recvae.datasets.home import check_new
    from recvae.datasets.preparation import prepare_known, prepare_log, prepare_pair, prepare_parts, prepare_synthetic
    from recvae.datasets.reading.options import LogFormat
    from recvae.training.monitors import ProgressBar

    reading: dict[str, Any] = {"max_memory": memory_limit(given.get("max_memory"))}
    if kind in (_PAIR, _PARTS):
        files = {key: given[key] for key in ("train", "valid", "test", *_HELD_OUT) if key in given}
        name = check_new(data_dir, name or files["train"].absolute().parent.name, overwrite)
        say(f"reading {' and '.join(map(str, files.values()))}")
        prepare = prepare_pair if kind == _PAIR else prepare_parts
        with ProgressBar("reading") as bar:
            return prepare(**files, name=name, seed=seed, log_format=log_format(given), progress=bar, **reading)
    protocol = _protocol(kind, log[0], given, seed)
    name = check_new(data_dir, name or _usual_name(kind, log[0]), overwrite)
    if kind == _MADE:
        usual = {"users": synthetic.N_USERS, "items": synthetic.N_ITEMS, "events": synthetic.N_EVENTS}
        shape = {f"n_{key}": given.get(key, default) for key, default in usual.items()}
        say(f"generating {shape['n_events']:,} events")
        return prepare_synthetic(protocol, name=name, **shape)
    if kind == _OWN:
        say(f"reading {' '.join(log)}")
        id_col = given.get("id_col")
        titles_format = LogFormat(item=id_col, title=given.get("title_col"))
        if id_col and "features" in given:  # the other file must have it, this one need not
            titles_format = LogFormat(title=given.get("title_col"), usual=(("item", id_col),))
        with ProgressBar("reading") as bar:
            return prepare_log(
                log,
                protocol,
                name=name,
                log_format=log_format(given),
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


def _protocol(kind: str, log: str, given: dict[str, Any], seed: int) -> "Protocol":
    """Return the protocol that was asked for, else that of the data set or of all logs."""
    from recvae.datasets.catalog.known import known_dataset
    from recvae.datasets.protocol import Protocol, usual_protocol

    chosen = {"seed": seed, **{key: given[key] for key in (*_FILTERS, *_PROTOCOL) if key in given}}
    is_known = kind in (_KNOWN, _KNOWN_PAIR)
    return _warned(usual_protocol(known_dataset(log), **chosen) if is_known else Protocol(**chosen), given)


def protocol_for(given: dict[str, Any], seed: int) -> "Protocol":
    """Return the protocol that was asked for, of a log of one's own."""
    from recvae.datasets.protocol import Protocol

    return _warned(Protocol(seed=seed, **{key: given[key] for key in (*_FILTERS, *_PROTOCOL) if key in given}), given)


def _warned(protocol: "Protocol", given: dict[str, Any]) -> "Protocol":
    """Return a protocol, with a warning about options that have no effect on it."""
    for key, splits in _ASKED_BY.items():
        if key in given and protocol.split not in splits:
            say(f"warning: --{key.replace('_', '-')} has no effect with --split {protocol.split}")
    return protocol


def _usual_name(kind: str, log: str) -> str:
    """Return the name of a data set that was given none: its known one, that of the file without endings or folder."""
    from recvae.datasets.catalog.known import known_dataset
    from recvae.errors import UsageError

    if kind in (_KNOWN, _KNOWN_PAIR):
        return known_dataset(log).folder_name
    name = Path(log).absolute().name.split(".")[0] if log != "-" else ""
    if not name or any(letter in name for letter in "*?["):
        raise UsageError(f"got {log}, which gives the data set no name, expected --name NAME; add it")
    return name


def log_format(given: dict[str, Any]) -> "LogFormat":
    """Return what the options say about how a file is written."""
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
    """Return the archive or folder of a known data set, downloaded unless it is there already."""
    from recvae.datasets.catalog.known import known_dataset
    from recvae.datasets.downloads import download
    from recvae.training.monitors import ProgressBar

    known = known_dataset(name)
    with ProgressBar(f"downloading {name}") as bar:
        return download(known, downloads, bar)
