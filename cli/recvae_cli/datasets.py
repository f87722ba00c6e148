"""`recvae datasets`: the data sets known by name, and those already prepared."""

from typing import Any

from recvae_cli.console import DATA_DIR, DataDir, Json, say_next, show, show_json


def datasets(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """List the data sets known by name (size, protocol, licence), and those already prepared.

    Example: recvae datasets
    """
    from recvae.datasets import synthetic
    from recvae.datasets.catalog import CATALOG
    from recvae.datasets.home import prepared_datasets
    from recvae.datasets.reading.ratings import STARS_MIN_RATING

    prepared = {path.name: str(path) for path in prepared_datasets(data_dir)}
    known = [
        {
            "name": entry.name,
            "description": entry.description,
            "events": entry.n_events,
            "users": entry.n_users,
            "items": entry.n_items,
            "download_bytes": entry.archive_bytes,
            "protocol": _protocol(entry.heldout_users),
            "min_rating": entry.min_rating,
            "expected": entry.expected,
            "licence": entry.licence,
            "url": entry.url,
            "prepared": prepared.get(entry.name),
        }
        for entry in CATALOG.values()
    ]
    known.append(
        {
            "name": "synthetic",
            "description": "generated, no download: tastes, a long tail, invented films; --users --items --events",
            "events": synthetic.N_EVENTS,
            "users": synthetic.N_USERS,
            "items": synthetic.N_ITEMS,
            "download_bytes": 0,
            "protocol": _protocol(None),
            "min_rating": STARS_MIN_RATING,
            "expected": None,
            "licence": "none: generated",
            "url": None,
            "prepared": prepared.get("synthetic"),
        }
    )
    if as_json:
        show_json({"known": known, "prepared": prepared})
        return
    _tables(known, prepared)
    say_next("recvae preprocess ml-1m", "recvae preprocess my-log.csv --user-col USER --item-col ITEM")


def _protocol(heldout_users: int | None) -> str:
    users = f"{heldout_users:,}" if heldout_users else "10 % of the"
    return f"strong, {users} users each in validation and test"


def _tables(known: list[dict[str, Any]], prepared: dict[str, str]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "events", "users", "items", "download", "about"):
        table.add_column(
            heading, justify="left" if heading in ("name", "about") else "right", no_wrap=heading == "name"
        )
    for entry in known:
        size = f"{entry['download_bytes'] / 1e6:,.0f} MB" if entry["download_bytes"] else "-"
        counts = [f"{entry[key]:,}" for key in ("events", "users", "items")]
        table.add_row(entry["name"], *counts, size, entry["description"])
    show("Data sets known by name, all filtered to rating >= 4 and users with 5 or more items", table, "")
    for heading, key in (
        ("Protocol", "protocol"),
        ("After the filters, as published", "expected"),
        ("Licence", "licence"),
    ):
        show(heading)
        for text, names in _grouped(known, key).items():
            show(f"  {', '.join(names)}: {text}")
    show("", "Already prepared: " + (", ".join(prepared) or "none yet"))


def _grouped(known: list[dict[str, Any]], key: str) -> dict[str, list[str]]:
    """Return the names of the data sets by what they have in common under `key`."""
    groups: dict[str, list[str]] = {}
    for entry in known:
        value = entry[key]
        if isinstance(value, dict):
            value = ", ".join(f"{count:,} {what.replace('train_', 'training ')}" for what, count in value.items())
        if value:
            groups.setdefault(value, []).append(entry["name"])
    return groups
