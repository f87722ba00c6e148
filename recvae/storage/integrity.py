"""Whether files are intact: sizes and SHA-256 hashes, listed in a card next to the files.

Importing this needs only the standard library.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNREADABLE = (OSError, KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading damaged JSON, or using what it holds, can raise."""

UNREADABLE_ARCHIVE = (*UNREADABLE, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged folder of JSON, .npz and Parquet files can raise."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class FileState:
    """The size of a file (0 if missing), and what is wrong with it, if anything."""

    n_bytes: int
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return both as JSON values."""
        return {"bytes": self.n_bytes, "problem": self.problem}


def described(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the sizes and hashes of files, for a card.

    Parameters
    ----------
    folder : Path
        Their folder.
    names : iterable of str
        Their names.

    Returns
    -------
    dict of str to dict
        `bytes` and `sha256` by name.
    """
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}


def states_of(folder: Path, names: Iterable[str], card: Mapping[str, Any], card_name: str) -> dict[str, FileState]:
    """Return the state of each file, compared with its card.

    Parameters
    ----------
    folder : Path
        Their folder.
    names : iterable of str
        Their names; never taken from the card, which is not trusted.
    card : mapping
        Its `files` are what `described` returned.
    card_name : str
        What messages call the card.

    Returns
    -------
    dict of str to FileState
        By name.
    """
    return {name: _state_of(folder / name, card, card_name) for name in names}


def _state_of(path: Path, card: Mapping[str, Any], card_name: str) -> FileState:
    n_bytes = path.stat().st_size if path.is_file() else 0
    try:
        expected = card["files"][path.name]
        wanted, digest = expected["bytes"], expected["sha256"]
    except UNREADABLE:
        return FileState(n_bytes, f"{card_name} does not list {path.name}")
    if not path.is_file() or n_bytes != wanted:
        found = n_bytes if path.is_file() else "no file"
        return FileState(n_bytes, f"{path.name} should have {wanted} bytes, found {found}")
    if sha256_of(path) != digest:
        return FileState(n_bytes, f"{path.name} was changed after it was written")
    return FileState(n_bytes)
