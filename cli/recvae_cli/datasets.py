"""`recvae datasets`: the data sets we know by name, and those prepared here."""

from pathlib import Path

import typer

from recvae_cli.console import DataDir, Json, say_next, show, show_json


def datasets(data_dir: DataDir = Path("data"), as_json: Json = False) -> None:
    """List the data sets known by name, with size, protocol and licence, and those already prepared.

    Example: recvae datasets
    """
    from recvae.catalog import CATALOG
    from recvae.home import prepared_datasets

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
            "description": "made up on the spot: tastes, a long tail, invented films; --users --items --events",
            "events": 150_000,
            "users": 3_000,
            "items": 1_200,
            "download_bytes": 0,
            "protocol": _protocol(None),
            "min_rating": 4.0,
            "expected": None,
            "licence": "none: invented",
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
    users = f"{heldout_users:,} users" if heldout_users else "10 % of users"
    return f"rating >= 4, 5+ items, strong, 2 x {users}"


def _tables(known: list[dict], prepared: dict[str, str]) -> None:
    from rich.table import Table

    table = Table(title="Known data sets", title_justify="left")
    for heading in ("name", "events", "users", "items", "download", "protocol", "after filters", "about"):
        table.add_column(heading, justify="right" if heading in ("events", "users", "items", "download") else "left")
    for entry in known:
        size = f"{entry['download_bytes'] / 1e6:,.0f} MB" if entry["download_bytes"] else "-"
        counts = [f"{entry[key]:,}" for key in ("events", "users", "items")]
        expected = ", ".join(f"{value:,} {key}" for key, value in (entry["expected"] or {}).items()) or "-"
        about = f"{entry['description']}\n[dim]{entry['licence']}[/dim]"
        table.add_row(entry["name"], *counts, size, entry["protocol"], expected.replace("_", " "), about)
    show(table)
    if prepared:
        show("Prepared here: " + ", ".join(prepared))
    else:
        typer.echo("None is prepared here yet.")
