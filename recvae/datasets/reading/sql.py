"""Names and paths as SQL."""

from collections import Counter
from pathlib import Path

from recvae.datasets.reading.times import quoted

_INVISIBLE = "\u2063"


def identifier(name: str) -> str:
    """Return a column name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def sql_names(names: tuple[str, ...]) -> list[str]:
    """Return column names of which none is empty or occurs twice; a name that occurs once stays as it is."""
    found: list[str] = []
    counts = Counter(names)
    for place, name in enumerate(names):
        is_plain = bool(name) and counts[name] == 1
        found.append(name if is_plain else f"{name}{_INVISIBLE}{place}")  # no table has it in a name
    return found


def shown_name(name: str) -> str:
    """Return a name of `sql_names` as it is in the file."""
    return name.split(_INVISIBLE)[0]


def json_path(key: str) -> str:
    """Return the path of a key of a JSON object."""
    return '$."' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


def sql_path(path: Path) -> str:
    """Return a path as SQL; DuckDB would take brackets, stars and question marks for a pattern of names."""
    return quoted("".join(f"[{letter}]" if letter in "[*?" else letter for letter in str(path)))
