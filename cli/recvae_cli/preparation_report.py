"""What `recvae preprocess` says of a data set that it has prepared."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae_cli.console import command, say, say_next, show, show_json
from recvae_cli.item_features import show_features

if TYPE_CHECKING:
    from recvae.datasets.protocol import PreparedDataset
    from recvae.spark.preparation import WrittenDataset


_TIES = {  # by key of the protocol
    "tied_users": "users have last items with equal times; --seed decides which of them are the targets "
    "(times are kept in whole seconds)",
    "tied_events": "events have the time at which a later part begins, and are in that part",
}


def report(
    prepared: "PreparedDataset | WrittenDataset", manifest: dict[str, Any], folder: Path, seconds: float, as_json: bool
) -> None:
    """Print counts after each filter, split sizes, checks, time and place."""
    counts = manifest["counts"]
    empty = [part for part in ("validation", "test") if not counts[f"{part}_targets"]]
    for warning in [*prepared.warnings, *(f"no {part} user has a target; hold out more" for part in empty)]:
        say(f"warning: {warning}")
    if as_json:
        shown = {key: value for key, value in manifest.items() if key != "shards"}  # as many as a cluster has written
        show_json({**shown, "folder": str(folder), "seconds": round(seconds, 2), "warnings": prepared.warnings})
        return
    from rich.table import Table

    for line in [] if prepared.reading is None else prepared.reading.lines():
        show(line)
    for role, reading in getattr(prepared, "others", {}).items():
        for line in reading.lines():
            show(f"{role.replace('_', ' ')}: {line}")
    if prepared.reading is not None and prepared.reading.ratings is not None and not manifest["filters"].get("steps"):
        show("every row counts, whatever its rating: a split made elsewhere is taken as it is")
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
    _show_remarks(manifest)
    _show_more(prepared)
    show(f"written to {folder} in {seconds:.1f} s, fingerprint {manifest['fingerprint'][:12]}")
    say_next(command("train", "--model", "multvae", "--data", manifest["name"]))


def _show_remarks(manifest: dict[str, Any]) -> None:
    """Print the density, and which events were moved or dropped."""
    from recvae.display import plural

    counts = manifest["counts"]
    size = counts["train_users"] * counts["items"]
    show(f"{plural(counts['items'], 'item')} in training, density {counts['train_interactions'] / size:.3%}")
    for key, text in _TIES.items():
        if key in manifest["protocol"]:
            show(f"ties: {manifest['protocol'][key]:,} {text}")
    for reason, count in manifest["dropped"].items():
        if count:
            show(f"dropped: {count:,} {reason}")


def _show_more(prepared: "PreparedDataset | WrittenDataset") -> None:
    """Print what is known of a data set in memory, and not of one that a cluster has written."""
    dataset = getattr(prepared, "dataset", None)
    if dataset is not None:
        show_features(dataset)
    for line in getattr(prepared, "confirmed", ()):
        show(f"as published: {line}")
