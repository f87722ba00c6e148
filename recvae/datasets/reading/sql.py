"""Names and paths as SQL."""

from collections import Counter
from pathlib import Path

from recvae.datasets.reading.times import quoted


def identifier(name: str) -> str:
    """Return a column name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def sql_names(names: tuple[str, ...]) -> list[str]:
    """Return column names of which none is empty or occurs twice; a name that occurs once stays as it is."""
    found: list[str] = []
    counts = Counter(names)
    for place, name in enumerate(names):
        is_plain = bool(name) and counts[name] == 1
        found.append(name if is_plain else f"{name}\u2063{place}")  # no table has an invisible separator in a name
    return found


def sql_path(path: Path) -> str:
    """Return a path as SQL; DuckDB would take brackets, stars and question marks for a pattern of names."""
    return quoted("".join(f"[{letter}]" if letter in "[*?" else letter for letter in str(path)))
