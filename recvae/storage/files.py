"""Writing files so that an interruption never leaves something half-written that looks whole.

A file or folder is written beside its place under a temporary name, flushed to the disk, and renamed.
"""

import errno
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from recvae.errors import StorageError, UsageError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file is larger than this system allows; raise the limit (ulimit -f) or choose another folder",
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another folder",
    errno.EEXIST: "a file stands where a folder is needed; choose another folder",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a failed write into a `StorageError` about `path`."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"could not write {path}: {reason}") from error
    except SafetensorError as error:  # safetensors writes by itself and wraps the system's words
        reason = next((text for code, text in _REASONS.items() if f"os error {code}" in str(error)), str(error))
        raise StorageError(f"could not write {path}: {reason}") from error


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _remove_leftovers(path: Path, ending: str) -> None:
    """Remove what processes that were killed while writing `path` have left beside it."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.{ending}")
    with suppress(OSError):  # tidying up must not keep anybody from writing
        for entry in list(path.parent.iterdir()):
            found = pattern.fullmatch(entry.name)
            if found and not _is_running(int(found[1])):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name != "posix":  # elsewhere there is no signal that only asks
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and move it to `path` once the block has succeeded.

    Parameters
    ----------
    path : Path
        Where the finished file shall stand; missing folders above it are made.

    Yields
    ------
    Path
        A path in the same folder; it is removed if the block raises.

    Raises
    ------
    StorageError
        If writing fails, with the reason and a way out. A file that stood at `path` before is untouched.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path, "tmp")
            aside.touch()
            mode = aside.stat().st_mode  # as the user's umask has it: some writers make files for their owner alone
            yield aside
            aside.chmod(mode)
            _sync(aside)
            aside.replace(path)
    finally:
        with suppress(OSError):  # what went wrong before must not be hidden by what goes wrong here
            aside.unlink(missing_ok=True)


def check_name(name: str) -> str:
    """Return a name that may become a folder of its own, and never a path.

    Raises
    ------
    UsageError
        If it has anything but letters, digits, dots, dashes and underscores, or begins with a dot.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise UsageError(f"got name '{name}', expected letters, digits, . _ - only; choose another with --name")
    return name


def check_replaceable(path: Path, *markers: str) -> None:
    """Refuse to replace a folder that holds something, but none of the files that would make it ours.

    Parameters
    ----------
    path : Path
        What would be replaced; it need not exist.
    markers : str
        Names of files of which one must be there.

    Raises
    ------
    UsageError
        If the folder holds files of another kind, which would be lost.
    """
    if path.is_dir() and any(path.iterdir()) and not any((path / marker).is_file() for marker in markers):
        raise UsageError(
            f"{path} holds files of another kind (no {' or '.join(markers)}), which would be lost; "
            "choose another name or folder"
        )


@contextmanager
def write_folder(path: Path, *markers: str) -> Iterator[Path]:
    """Give a temporary folder to fill, and put it in the place of `path` once the block has succeeded.

    Parameters
    ----------
    path : Path
        Where the finished folder shall stand; a folder already there is replaced as a whole, a link followed.
    markers : str
        Files of which a folder must hold one to be replaced; see `check_replaceable`.

    Yields
    ------
    Path
        An empty folder beside `path`; it is removed if the block raises.

    Raises
    ------
    StorageError
        If writing fails. A folder that stood at `path` before is untouched, and so is a file.
    UsageError
        If a folder of another kind stands at `path`.
    """
    place = path.resolve()
    aside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        check_replaceable(place, *markers)
        with storage_errors(path):
            if place.is_file():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            _remove_leftovers(place, "tmp")
            yield aside
            for file in aside.rglob("*"):
                if file.is_file():
                    _sync(file)
            move_folder(aside, place)
            _remove_leftovers(place, "old")  # not before: one may be all that a kill between two renames has left
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def move_folder(source: Path, target: Path) -> None:
    """Rename a finished folder to `target`, replacing a folder that stands there.

    The old folder is moved aside first and removed last, so that `target` is missing only between two renames.
    """
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    try:
        source.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Keep a file for this process; the system lets go of it when the process ends, however it ends.

    Parameters
    ----------
    path : Path
        The file, made if missing; it stays afterwards.
    refusal : str
        What to say where another process has it.

    Raises
    ------
    UsageError
        If another process has it.
    StorageError
        If it cannot be made.
    """
    import fcntl  # only where there is a lock to take: not every system has it

    with storage_errors(path):
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(refusal) from None
        yield


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as indented UTF-8 JSON, whole or not at all."""
    with write_file(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text, whole or not at all."""
    with write_file(path) as aside:
        aside.write_text(content, encoding="utf-8")


def taken_names(parent: Path, name: str) -> list[Path]:
    """Return the folders of a name, and of that with "-2", "-3" and so on, as far as they are there."""
    numbered = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return list(itertools.takewhile(Path.exists, (parent / one for one in numbered)))
