"""Patterns such as `logs/*.parquet`, where Spark reads other files than the engine on one machine, or in another order.

marks in names   Spark takes `log[1].parquet` for a pattern although a file has this very name
**               is one folder to Spark, and any number of folders to the other engine
[^a]             is any sign but a to Spark, and ^ or a to the other engine
_names           a pattern finds them, and Spark leaves them out without a word, unless there is a = in them
.names           a pattern of Spark finds folders of such names, and one of the other engine does not
order            the paths that a pattern finds are in the order of their whole names, those in a folder part by part
"""

import glob
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from recvae.errors import DataError, UsageError

_MARKS = re.compile(r"[\\*?\[\]{}]")
_PLACE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:(//[^/]*)?")
_NO_DATA = ("_metadata", "_common_metadata")  # which Spark writes beside the files


def on_disk(path: str) -> str:
    """Return a path as this machine has it, without the scheme of files; other addresses as they are."""
    return path.removeprefix("file://") if path.startswith("file:///") else path


def is_pattern(path: str) -> bool:
    """Whether a path is a pattern, and no file or folder on this machine has this very name."""
    return bool(_MARKS.search(path)) and not Path(on_disk(path)).exists()


def as_named(path: str) -> str:
    """Return a path as Spark takes it: what has this very name on this machine is no pattern."""
    return path if is_pattern(path) else _MARKS.sub(r"\\\g<0>", path)


def refuse_other_files(path: str) -> None:
    """Refuse a path that Spark and the engine on one machine would find other files by.

    Parameters
    ----------
    path : str
        As it was given.

    Raises
    ------
    UsageError
        If so, with what to do.
    DataError
        If a link leads nowhere.
    """
    local = on_disk(path)
    is_here = not is_pattern(path)
    if not is_here:
        _refuse_signs(path, local)
    for one in map(Path, [local] if is_here else sorted(glob.glob(local))):  # noqa: PTH207
        is_left_out = one.name.startswith("_") and "=" not in one.name and one.name not in _NO_DATA
        if is_left_out and one.is_file() and one.stat().st_size:
            raise UsageError(
                f"got {path} with Spark, which leaves out {one}: its name begins with _; rename it, give a pattern "
                "without it, e.g. [!_]*, or leave out --engine spark"
            )
        for file in files_below(one):
            if file.is_symlink() and not file.exists():  # Spark passes over it
                raise DataError(f"{file} is a link to nothing; bring back what it leads to, or remove the link")
            if file.name.startswith("_") and file != one:
                raise UsageError(
                    f"got {path} with Spark, which reads {file}, although its name begins with _; rename it, or leave "
                    "out --engine spark"
                )
    if not is_here:
        _refuse_hidden(path, local)


def _refuse_signs(path: str, local: str) -> None:
    """Refuse a pattern whose signs mean something else to Spark."""
    if "**" in PurePosixPath(local).parts:
        raise UsageError(
            f"got {path} with Spark, to which ** is the folders of one level alone; give the folder above, whose "
            "sub-folders are read too, or leave out --engine spark"
        )
    if "[^" in local:
        raise UsageError(
            f"got {path} with Spark, to which [^ is the begin of signs that are left out; write [! for it, or leave "
            "out --engine spark"
        )


def _refuse_hidden(path: str, local: str) -> None:
    """Refuse a pattern that Spark matches with hidden folders too."""
    seen = {*glob.glob(local)}  # noqa: PTH207
    for one in sorted({*glob.glob(local, include_hidden=True)} - seen):  # noqa: PTH207
        if next((file for file in files_below(Path(one)) if not file.name.startswith(".")), None) is not None:
            raise UsageError(
                f"got {path} with Spark, which reads {one} too, although a name in it begins with a dot; give a "
                "pattern without it, e.g. [!.]*, or leave out --engine spark"
            )


def files_below(path: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield the files that Spark reads below a path, also through links, and links to nothing; or a file itself."""
    if not path.is_dir():
        yield path
        return
    above |= {path.resolve()}
    entries: list[Path] = []
    with suppress(OSError):  # Spark says why
        entries = sorted(path.iterdir())
    for one in entries:
        is_left_out = one.name.startswith(".") or (one.name.startswith("_") and "=" not in one.name)
        if is_left_out or (one.is_dir() and one.resolve() in above):  # a link to a folder above would never end
            continue
        yield from files_below(one, above)


def shown_file(name: str) -> str:
    """Return how messages call a file of Spark: a local one by its path."""
    text = unquote(name)  # Spark writes file:/a or file:///a
    return "/" + text.removeprefix("file:").lstrip("/") if text.startswith("file:/") else text


def parts_of(name: str) -> tuple[str, ...]:
    """Return the folders of a file as Spark calls it, and its name."""
    return PurePosixPath(unquote(name)).parts


def order_of(name: str, given: str) -> tuple[str, tuple[str, ...]]:
    """Return what sorts the files of a path as the engine on one machine does.

    Parameters
    ----------
    name : str
        A file as Spark calls it.
    given : str
        The path that it was found by.
    """
    parts = PurePosixPath(_PLACE.sub("", unquote(name))).parts
    depth = len(PurePosixPath(_PLACE.sub("", given)).parts) if is_pattern(given) else 0
    return "/".join(parts[:depth]) + "/" * given.endswith("/"), parts[depth:]
