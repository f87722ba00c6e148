"""What a user downloaded, as files: a folder, a zip, a tar, or one file; also zips in a folder."""

import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from recvae.datasets.catalog.entry import KnownDataset
from recvae.datasets.reading.sources import Source, file_errors
from recvae.errors import DataError, UsageError
from recvae.storage.files import storage_errors

Files = Mapping[PurePosixPath, Source | None]
"""Files by their paths inside of what was given; None for one inside a tar that is not unpacked."""


def matches(path: PurePosixPath, patterns: Iterable[str]) -> str | None:
    """Return the first of the patterns that a path matches, None if there is none."""
    return next((pattern for pattern in patterns if path.match(pattern)), None)


def files_of(known: KnownDataset, source: Path, scratch: Path | None) -> Files:
    """List the files of a folder and its sub-folders, a zip or a tar, or one file and its titles.

    Parameters
    ----------
    known : KnownDataset
        The data set, whose files are looked for.
    source : Path
        What the user has.
    scratch : Path, optional
        A folder for what has to be unpacked from a tar.

    Returns
    -------
    mapping of PurePosixPath to (Source or None)
        Each file by its path inside.

    Raises
    ------
    UsageError
        If `source` does not exist, or is of another kind.
    DataError
        If it is damaged.
    StorageError
        If a file cannot be unpacked.
    """
    if not source.exists():
        raise UsageError(f"no file or folder {source}, expected a folder or zip of {known.name}; check the path")
    with file_errors(Source(source)):
        if source.is_dir():
            return _in_folder(known, source)
        if known.is_file and matches(PurePosixPath(source.name), {**known.ratings, **known.test}):
            return _with_titles(known, source)
        if source.suffix.lower() == ".zip" or zipfile.is_zipfile(source):
            return _in_zip(source)
        if scratch is not None and tarfile.is_tarfile(source):
            return _in_tar(known, source, scratch)
    others = f", or {' or '.join(known.ratings)}" if known.is_file else ""
    raise UsageError(f"{source} is neither a folder nor a zip; give the folder of {known.name}, or its zip{others}")


def unpacked(source: Source, scratch: Path | None) -> Source:
    """Return a file that can be read: what is packed a second time inside a zip, and Parquet, leave the zip."""
    is_plain = source.member is None or not source.member.endswith((".gz", ".parquet"))
    if is_plain or scratch is None:
        return source
    target = scratch / f"unpacked-{len(list(scratch.iterdir()))}"
    with storage_errors(target), target.open("wb") as file, file_errors(source), source.open() as stream:
        shutil.copyfileobj(stream, file, 1 << 20)
    return Source(target, shown=source.name)


def _in_folder(known: KnownDataset, folder: Path) -> Files:
    # Deeper files are found by their names alone: there may be many others.
    named = [f"*/*/{pattern}" for pattern in (*known.ratings, *known.test, *known.titles)]
    paths = sorted({path for pattern in ("*", "*/*", *named) for path in folder.glob(pattern) if path.is_file()})
    found = {PurePosixPath(path.relative_to(folder).as_posix()): Source(path) for path in paths}
    for path in list(found):
        if matches(path, known.archives):
            with file_errors(found[path]):
                found |= {path.with_suffix("") / member: inner for member, inner in _in_zip(folder / path).items()}
    return found


def _with_titles(known: KnownDataset, source: Path) -> Files:
    """Return one file, and the files of titles in the same folder."""
    names = [source, *(path for pattern in known.titles for path in source.parent.glob(pattern) if path.is_file())]
    return {PurePosixPath(path.name): Source(path) for path in names}


def _in_zip(source: Path) -> dict[PurePosixPath, Source]:
    with zipfile.ZipFile(source) as archive:
        members = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    return {PurePosixPath(member): Source(source, member) for member in members}


def _in_tar(known: KnownDataset, source: Path, scratch: Path) -> Files:
    """Unpack from a tar what is looked for, in one pass: a compressed tar has no index."""
    patterns = (*known.ratings, *known.test, *known.titles)
    found: dict[PurePosixPath, Source | None] = {}
    try:
        with tarfile.open(source, "r|*") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if not member.isfile():
                    continue
                found[path] = None
                stream = archive.extractfile(member) if matches(path, patterns) else None
                if stream is not None:
                    target = scratch / f"unpacked-{len(found)}"  # never by a path that the archive chooses
                    with storage_errors(target), target.open("wb") as file:
                        shutil.copyfileobj(stream, file, 1 << 20)
                    found[path] = Source(target, shown=f"{source}:{path}")
    except tarfile.TarError as error:
        raise DataError(f"{source} is truncated or damaged ({error}); download it again") from error
    return found
