"""Writing files so that an interruption never leaves an incomplete file that looks complete.

A file or folder is written next to its place under a temporary name, flushed to the disk, and renamed.
"""

import errno
import itertools
import json
import os
import re
import shutil
import tempfile
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
    """Turn the errors of a failed write into a `StorageError` about `path`."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"could not write {path}: {reason}") from error
    except SafetensorError as error:  # safetensors writes files itself and wraps the system's message
        reason = next((text for code, text in _REASONS.items() if f"os error {code}" in str(error)), str(error))
        raise StorageError(f"could not write {path}: {reason}") from error


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _remove_leftovers(path: Path, ending: str) -> None:
    """Remove temporary files of processes that were killed while writing `path`."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.{ending}")
    with suppress(OSError):  # cleaning up must not prevent writing
        for entry in list(path.parent.iterdir()):
            found = pattern.fullmatch(entry.name)
            if found and not _is_running(int(found[1])):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name != "posix":  # elsewhere there is no signal that only tests
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        return True
    return True


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and move it to `path` when the block has succeeded.

    Parameters
    ----------
    path : Path
        The finished file; missing parent folders are made.

    Yields
    ------
    Path
        A path in the same folder; it is removed if the block raises.

    Raises
    ------
    StorageError
        If writing fails, with the reason and what to do. An existing file at `path` is untouched.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path, "tmp")
            aside.touch()
            mode = aside.stat().st_mode  # by the user's umask: some writers make files that only their owner can read
            yield aside
            aside.chmod(mode)
            _sync(aside)
            aside.replace(path)
    finally:
        with suppress(OSError):  # an error here must not hide the first one
            aside.unlink(missing_ok=True)


def check_room(path: Path, n_bytes: int) -> None:
    """Refuse to write what the disk has no room for.

    Parameters
    ----------
    path : Path
        What is to be written; its folder need not exist yet.
    n_bytes : int
        Its size, at least.

    Raises
    ------
    StorageError
        With both numbers.
    """
    folder = next((one for one in path.absolute().parents if one.is_dir()), None)
    free = n_bytes if folder is None else shutil.disk_usage(folder).free
    if n_bytes > free:
        raise StorageError(
            f"{path} needs {n_bytes / 1e9:.1f} GB of disk, where {free / 1e9:.1f} GB are free; free some space or "
            "choose another folder"
        )


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work that it is for.

    Parameters
    ----------
    path : Path
        What is to be written; its folder need not exist yet, and nothing is left behind.

    Raises
    ------
    StorageError
        With the reason and what to do.
    """
    with storage_errors(path):
        folder = next(one for one in path.absolute().parents if one.exists())
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        with tempfile.TemporaryFile(dir=folder):
            pass


def check_new_file(path: Path, overwrite: bool) -> None:
    """Refuse a file that exists, unless it may be replaced, or that could not be written; see `check_writable`.

    Raises
    ------
    UsageError
        If it exists, or is a folder.
    StorageError
        If it could not be written.
    """
    if path.is_dir():
        raise UsageError(f"got {path}, which is a folder; expected a file in it")
    if not overwrite and path.exists():
        raise UsageError(f"{path} exists already; give --overwrite to replace it, or choose another name")
    check_writable(path)


def check_name(name: str) -> str:
    """Return a name that can be the name of a folder, and is no path.

    Raises
    ------
    UsageError
        If it has anything but letters, digits, dots, dashes and underscores, or begins with a dot.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise UsageError(f"got name '{name}', expected letters, digits, . _ - only; choose another with --name")
    return name


def check_replaceable(path: Path, *markers: str) -> None:
    """Refuse to replace a folder that has files, but none of those that recvae writes.

    Parameters
    ----------
    path : Path
        The folder that would be replaced; it need not exist.
    markers : str
        Names of files, one of which must be in the folder.

    Raises
    ------
    UsageError
        If the folder has other files, which would be lost.
    """
    if path.is_dir() and any(path.iterdir()) and not any((path / marker).is_file() for marker in markers):
        raise UsageError(
            f"{path} holds files of another kind (no {' or '.join(markers)}), which would be lost; "
            "choose another name or folder"
        )


@contextmanager
def write_folder(path: Path, *markers: str) -> Iterator[Path]:
    """Yield a temporary folder to fill, and move it to `path` when the block has succeeded.

    Parameters
    ----------
    path : Path
        The finished folder; an existing folder is replaced as a whole, a link is followed.
    markers : str
        Files, one of which an existing folder must have to be replaced; see `check_replaceable`.

    Yields
    ------
    Path
        An empty folder next to `path`; it is removed if the block raises.

    Raises
    ------
    StorageError
        If writing fails. An existing folder or file at `path` is untouched.
    UsageError
        If `path` is a folder of another kind.
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
            _remove_leftovers(place, "old")  # not before: after a kill between two renames, it may be the only copy
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def move_folder(source: Path, target: Path) -> None:
    """Rename a finished folder to `target`, replacing an existing folder.

    The old folder is renamed first and removed last, so that `target` is missing only between two renames.
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
    """Lock a file for this process; the system releases the lock when the process ends, also if it is killed.

    Parameters
    ----------
    path : Path
        The file, made if missing; it stays afterwards.
    refusal : str
        The message if another process holds the lock.

    Raises
    ------
    UsageError
        If another process holds the lock.
    StorageError
        If it cannot be made.
    """
    import fcntl  # imported here: not every system has it

    with storage_errors(path):
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(refusal) from None
        yield


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as indented UTF-8 JSON, completely or not at all."""
    with write_file(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text, completely or not at all."""
    with write_file(path) as aside:
        aside.write_text(content, encoding="utf-8")


def taken_names(parent: Path, name: str) -> list[Path]:
    """Return the existing folders called `name`, `name`-2, `name`-3 and so on, up to the first gap."""
    numbered = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return list(itertools.takewhile(Path.exists, (parent / one for one in numbered)))
