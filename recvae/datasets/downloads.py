"""Downloading the archive or the files of a known data set, and checking their published hashes."""

import logging
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pooch
import requests

from recvae.datasets.catalog.entry import BY_HAND, FILES, KnownDataset, RemoteFile
from recvae.errors import DownloadError, StorageError, UsageError
from recvae.progress import Progress

_SECONDS = 30  # without an answer or another byte until a server counts as unreachable
_CHUNK_BYTES = 1 << 18


def download(known: KnownDataset, folder: Path, progress: Progress | None = None) -> Path:
    """Download a data set, unless it exists and is verified.

    Parameters
    ----------
    known : KnownDataset
        The data set.
    folder : Path
        Folder of the archive `NAME.zip` or `NAME.tar.gz`, or of the folder `NAME` with the files; made if missing.
    progress : Progress, optional
        Called with the bytes of a file downloaded so far, the total or None if it is unknown, and a text.

    Returns
    -------
    Path
        The archive, or the folder of files; each has the published MD5, if there is one.

    Raises
    ------
    UsageError
        If a person has to download it; the message says where.
    DownloadError
        If a file cannot be downloaded, or is not the published one; then nothing of it is left.
    StorageError
        If it cannot be written.
    """
    if known.download == BY_HAND:
        raise UsageError(
            f"{known.name} cannot be downloaded without you: {known.by_hand}; get it from {known.url}, then give its "
            f"folder, zip or file: recvae preprocess {known.name} --source PATH"
        )
    pooch.get_logger().setLevel(logging.WARNING)  # it would announce every file on stderr
    place = folder / known.folder_name if known.download == FILES else folder
    try:
        if known.download == FILES:
            for file in known.files:
                _retrieve(known, file, place, progress)
            return place
        archive = RemoteFile(name=f"{known.folder_name}.{known.download}", url=known.url, md5=known.md5)
        return _retrieve(known, archive, place, progress)
    finally:
        for one in dict.fromkeys((place, folder)):
            with suppress(OSError):  # it is not empty if all went well
                one.rmdir()


def _retrieve(known: KnownDataset, file: RemoteFile, folder: Path, progress: Progress | None) -> Path:
    target = folder / file.name
    md5 = None if file.md5 is None else f"md5:{file.md5}"
    try:
        pooch.retrieve(file.url, md5, fname=target.name, path=folder.absolute(), downloader=_downloader(progress))
    except (requests.RequestException, ValueError) as error:  # pooch: ValueError where the hash differs
        raise _failed(known, file, _reason(error)) from error
    except OSError as error:
        raise StorageError(
            f"could not write {target}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    wrong = _wrong_kind(target) if file.md5 is None else None
    if wrong is not None:
        target.unlink()
        raise _failed(known, file, f"the downloaded file is {wrong}")
    return target


def _wrong_kind(path: Path) -> str | None:
    """Return what a file is that should be something else by its name; None if all is well."""
    if path.suffix == ".zip":
        return None if zipfile.is_zipfile(path) else "not a zip"
    if path.name.endswith(".tar.gz"):
        return None if tarfile.is_tarfile(path) else "not a tar"
    with path.open("rb") as file:
        head = file.read(100).lstrip().lower()
    return "a web page" if head.startswith((b"<!doctype", b"<html")) else None


def _downloader(progress: Progress | None) -> Any:  # pooch declares less than it documents
    bar: Any = False if progress is None else _Progress(progress)
    return pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK_BYTES, timeout=_SECONDS)


class _Progress:
    """The progress bar that pooch expects; it calls a callback."""

    def __init__(self, report: Progress) -> None:
        self.total = 0  # set by pooch; 0 if unknown
        self._report = report
        self._done = 0

    def update(self, n_bytes: int) -> None:
        """Count a chunk; pooch counts the last one as a full chunk."""
        self._done += n_bytes
        if self.total:
            self._done = min(self._done, self.total)
        self._report(self._done, self.total or None, f"{self._done / 1e6:,.1f} MB")

    def reset(self) -> None:
        """Start again at 0, as pooch does before it reports the total a second time."""
        if self.total:
            self._done = 0

    def close(self) -> None:
        """Do nothing: the callback needs no end."""


def _reason(error: Exception) -> str:
    """Return in plain words why a download failed."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was lost before the end"
    if isinstance(error, requests.Timeout):
        return f"the server did not answer within {_SECONDS} seconds"
    if isinstance(error, requests.ConnectionError):
        return "no connection to the server, or it was lost"
    return str(error).partition(". ")[0]


def _failed(known: KnownDataset, file: RemoteFile, reason: str) -> DownloadError:
    return DownloadError(
        f"could not download {known.name} from {file.url}: {reason}; try again later, or use a folder or zip on "
        f"disk: recvae preprocess {known.name} --source PATH"
    )
