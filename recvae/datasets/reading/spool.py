"""A plain copy of a text file, in UTF-8, with line feeds: for what DuckDB cannot read as it lies on the disk."""

import codecs
import zipfile
from pathlib import Path

from recvae.datasets.reading.separators import SPACES
from recvae.datasets.reading.sources import Source, file_errors
from recvae.errors import StorageError
from recvae.storage.files import check_room, storage_errors

_CHUNK = 1 << 22
PLAIN_SEPARATOR = "\t"
"""What separates the columns of the copy if they were aligned by spaces."""


def copied(source: Source, target: Path, encoding: str, separator: str, *, ends: bool) -> Path:
    """Copy a text file, decompressed and decoded.

    Parameters
    ----------
    source : Source
        The file.
    target : Path
        Where the copy is written; removed with its folder.
    encoding : str
        Encoding of the file.
    separator : str
        If `SPACES`, runs of spaces and tabs become one tab; this needs `ends`.
    ends : bool
        Whether all line ends, also a CR alone, become line feeds.

    Returns
    -------
    Path
        The copy.

    Raises
    ------
    DataError
        If the file is damaged, or is not text of that encoding.
    StorageError
        If there is no room for the copy.
    """
    _check_room(source, target)
    is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    decoder = codecs.getincrementaldecoder(encoding)(errors="strict")
    rest = b""
    with storage_errors(target), target.open("wb") as file, file_errors(source), source.open() as stream:
        while True:
            raw = stream.read(_CHUNK)
            whole = rest + (raw if is_utf8 else decoder.decode(raw, final=not raw).encode())
            rest = b""
            if raw and ends:  # cut after the last whole line
                cut = max(whole.rfind(b"\n"), whole.rfind(b"\r", 0, -1)) + 1
                whole, rest = whole[:cut], whole[cut:]
            if ends:
                whole = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            if separator == SPACES:
                lines = whole.split(b"\n")
                whole = b"\n".join(PLAIN_SEPARATOR.encode().join(line.split()) for line in lines)
            file.write(whole)
            if not raw:
                return target


def _check_room(source: Source, target: Path) -> None:
    """Refuse before writing what certainly does not fit."""
    needed = source.path.stat().st_size
    if source.packing() == "zip":
        with file_errors(source), zipfile.ZipFile(source.path) as archive:
            members = [entry for entry in archive.infolist() if source.member in (None, entry.filename)]
            needed = sum(entry.file_size for entry in members)
    try:
        check_room(target, needed)
    except StorageError as error:
        raise StorageError(f"a plain copy of {source.name}: {error} with TMPDIR") from error
