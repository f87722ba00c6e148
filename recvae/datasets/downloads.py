"""Downloading the zip of a known data set and checking its published hash."""

import logging
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pooch
import requests

from recvae.datasets.catalog import KnownDataset
from recvae.errors import DownloadError, StorageError
from recvae.progress import Progress

_SECONDS = 30  # without an answer or another byte until a server counts as unreachable
_CHUNK_BYTES = 1 << 18


def download(known: KnownDataset, folder: Path, progress: Progress | None = None) -> Path:
    """Download the zip of a data set, unless it exists and is verified.

    Parameters
    ----------
    known : KnownDataset
        The data set.
    folder : Path
        Folder of the zip `NAME.zip`; made if missing.
    progress : Progress, optional
        Called with the bytes downloaded so far, the total or None if it is unknown, and a text.

    Returns
    -------
    Path
        The zip; its MD5 is the published one, if there is one.

    Raises
    ------
    DownloadError
        If the zip cannot be downloaded, or is not the published one; then nothing is left.
    StorageError
        If it cannot be written.
    """
    target = folder / f"{known.name}.zip"
    pooch.get_logger().setLevel(logging.WARNING)  # it would announce every file on stderr
    try:
        _retrieve(known, target, progress)
    finally:
        with suppress(OSError):  # it is not empty if all went well
            folder.rmdir()
    return target


def _retrieve(known: KnownDataset, target: Path, progress: Progress | None) -> None:
    md5 = None if known.md5 is None else f"md5:{known.md5}"
    folder = target.parent.absolute()
    try:
        pooch.retrieve(known.url, md5, fname=target.name, path=folder, downloader=_downloader(progress))
    except (requests.RequestException, ValueError) as error:  # pooch: ValueError where the hash differs
        raise _failed(known, _reason(error)) from error
    except OSError as error:
        raise StorageError(
            f"could not write {target}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    if known.md5 is None and not zipfile.is_zipfile(target):
        target.unlink()
        raise _failed(known, "the downloaded file is not a zip")


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


def _failed(known: KnownDataset, reason: str) -> DownloadError:
    return DownloadError(
        f"could not download {known.name} from {known.url}: {reason}; try again later, or use a folder or zip on "
        f"disk: recvae preprocess {known.name} --source PATH"
    )
