"""`recvae datasets`: the data sets known by name, and those already prepared."""

from typing import TYPE_CHECKING, Any

from recvae_cli.console import DATA_DIR, DataDir, Json, command, say_next, show, show_json

if TYPE_CHECKING:
    from recvae.datasets.catalog.entry import KnownDataset


def datasets(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """List the data sets known by name (size, protocol, licence), and those already prepared.

    Example: recvae datasets
    """
    from recvae.datasets.catalog.known import CATALOG
    from recvae.datasets.home import prepared_datasets

    prepared = {path.name: str(path) for path in prepared_datasets(data_dir)}
    known = [_row(entry, prepared) for entry in CATALOG.values()]
    known.append(_synthetic(prepared))
    if as_json:
        show_json({"known": known, "prepared": prepared})
        return
    _sizes(known)
    _protocols(known)
    for heading, key in (("Parts", "parts"), ("After the filters, as published", "expected"), ("Licence", "licence")):
        show("", heading)
        for text, names in _grouped(known, key).items():
            show(f"  {', '.join(names)}: {text}")
    show("", "Already prepared: " + (", ".join(prepared) or "none yet"))
    own = command("preprocess", "my-log.csv", "--user-col", "USER", "--item-col", "ITEM")
    say_next(command("preprocess", "ml-1m"), own)


def _row(entry: "KnownDataset", prepared: dict[str, str]) -> dict[str, Any]:
    from recvae.datasets.catalog.entry import BY_HAND

    return {
        "name": entry.name,
        "about": entry.subject,
        "description": entry.description,
        "events": entry.n_events,
        "users": entry.n_users,
        "items": entry.n_items,
        "download_bytes": entry.archive_bytes,
        "by_hand": entry.by_hand if entry.download == BY_HAND else None,
        "protocol": "ready-made" if entry.is_pair else _split(entry.split, entry.heldout_users),
        "protocol_of": entry.protocol_of or None,
        "min_rating": entry.min_rating,
        "min_user_items": entry.min_user_items,
        "min_item_users": entry.min_item_users,
        "expected": entry.expected,
        "licence": entry.licence,
        "url": entry.url,
        "parts": {part: _row(one, prepared) for part, one in entry.parts.items()},
        "prepared": prepared.get(entry.folder_name),
    }


def _synthetic(prepared: dict[str, str]) -> dict[str, Any]:
    from recvae.datasets import synthetic
    from recvae.datasets.catalog.entry import KnownDataset

    entry = KnownDataset(
        name="synthetic",
        description="generated, no download: tastes, a long tail, invented films; --users --items --events",
        subject="films",
        url="",
        licence="none: generated",
        ratings={},
        n_events=synthetic.N_EVENTS,
        n_users=synthetic.N_USERS,
        n_items=synthetic.N_ITEMS,
    )
    return {**_row(entry, prepared), "about": "generated", "url": None}


def _split(split: str, heldout_users: int | None) -> str:
    if split != "strong":
        return split
    users = f"{heldout_users:,} users" if heldout_users else "10 % of the users"
    return f"strong, {users} each in validation and test"


def _sizes(known: list[dict[str, Any]]) -> None:
    """Show a table of all data sets, by what they are about."""
    from rich.table import Table
    from rich.text import Text

    from recvae.datasets.catalog.entry import SUBJECTS

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "events", "users", "items", "download", "about"):
        is_text = heading in ("name", "about")
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=heading != "about")
    for subject in (*SUBJECTS, "generated"):
        table.add_row(Text(subject, style="bold"))
        for entry in known:
            if entry["about"] == subject:
                counts = ["-" if entry[key] is None else f"{entry[key]:,}" for key in ("events", "users", "items")]
                name = f"  {entry['name']}" + (":PART" if entry["parts"] else "")
                table.add_row(name, *counts, _size(entry), entry["description"])
    show("Data sets known by name", table, "")
    show("* you have to download it, e.g. after a login, and give --source PATH; sizes are approximate", "")


def _size(entry: dict[str, Any]) -> str:
    mark = "*" if entry["by_hand"] else ""
    return (f"{max(1, entry['download_bytes'] / 1e6):,.0f} MB" if entry["download_bytes"] else "-") + mark


def _protocols(known: list[dict[str, Any]]) -> None:
    """Show a table of the filters and the split that data sets have in common."""
    from rich.table import Table

    keys = ("min_rating", "min_user_items", "min_item_users", "protocol", "protocol_of")
    groups: dict[tuple[Any, ...], list[str]] = {}
    for entry in known:
        groups.setdefault(tuple(entry[key] for key in keys), []).append(entry["name"])
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("rating", "items", "users", "split", "as in", "data sets"):
        table.add_column(heading, no_wrap=heading in ("rating", "items", "users", "split"))
    for (rating, items, users, split, paper), names in groups.items():
        least = ["-" if rating is None else f">= {rating:g}", *(f">= {one}" if one else "-" for one in (items, users))]
        table.add_row(*least, split.removesuffix(" each in validation and test"), paper or "-", ", ".join(names))
    show("Usual filters (rating, items of a user, users of an item)")
    show("and split (with the number of users in each of validation and test)", table)


def _grouped(known: list[dict[str, Any]], key: str) -> dict[str, list[str]]:
    """Return the names of the data sets by what they have in common under `key`."""
    groups: dict[str, list[str]] = {}
    for entry in known:
        value = entry[key]
        if key == "expected" and value:
            value = ", ".join(f"{count:,} {what.replace('train_', 'training ')}" for what, count in value.items())
        if key == "parts":
            value = ", ".join(value)
        if value:
            groups.setdefault(value, []).append(entry["name"])
    return groups
