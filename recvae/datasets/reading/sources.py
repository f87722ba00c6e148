"""What a user names, files to read from: a file, several, a folder, a glob, a pipe, a member of a zip.

The kind of a file is recognised by its first bytes, not by its name. What cannot be read is named, with the way out.
"""

import glob
import gzip
import io
import lzma
import re
import stat
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import unquote

import pyarrow as pa

from recvae.datasets.reading.streams import WholeFile
from recvae.errors import DataError, UsageError
from recvae.storage.files import storage_errors

STDIN = "-"
_ZIP, _GZIP, _BZIP2, _XZ, _ZSTD = b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_PACKINGS = {_ZIP: "zip", _GZIP: "gzip", _BZIP2: "bzip2", _XZ: "xz", _ZSTD: "zstd"}
_BZIP2_NEXT = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")  # after its first four bytes: a block, or the end of nothing
_PARQUET = b"PAR1"
_FOREIGN = (  # first bytes, what it is, and what to do
    (b"PK\x05\x06", "an empty zip", "make it again"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and give the log itself"),
    (b"Rar!", "a rar archive", "unpack it and give the log itself"),
    (b"ARROW1", "an Arrow (Feather) file", "write it as Parquet, e.g. pyarrow.parquet.write_table"),
    (b"FEA1", "a Feather file", "write it as Parquet"),
    (b"ORC", "an ORC file", "write it as Parquet"),
    (b"Obj\x01", "an Avro file", "write it as Parquet"),
    (b"\x89HDF", "an HDF5 file", "write it as Parquet"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV: sqlite3 -header -csv FILE 'select ...'"),
    (b"\x93NUMPY", "a NumPy array", "write the columns user, item as CSV or Parquet"),
    (b"\x80\x02", "a pickle, which could run any code", "write it as Parquet, e.g. DataFrame.to_parquet"),
    (b"\x80\x03", "a pickle, which could run any code", "write it as Parquet, e.g. DataFrame.to_parquet"),
    (b"\x80\x04", "a pickle, which could run any code", "write it as Parquet, e.g. DataFrame.to_parquet"),
    (b"\x80\x05", "a pickle, which could run any code", "write it as Parquet, e.g. DataFrame.to_parquet"),
    (b"\x04\x22\x4d\x18", "an lz4 file", "unpack it, or compress it with gzip or zstd"),
    (b"\x1f\x9d", "a file of `compress`", "unpack it, or compress it with gzip or zstd"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", "save the sheet as CSV"),
    (b"%PDF", "a PDF", "give the log as CSV or Parquet"),
    (b"RDX", "an R data file", "write it as CSV or Parquet"),
    (b"%%MatrixMarket", "a Matrix Market file", "write the pairs user, item as CSV"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch it with `git lfs pull`"),
)
_TEXTS = (b"%PDF", b"%%MatrixMarket", b"version https://git-lfs")  # of those, what is or may begin as text
_NEVER_TEXT = re.compile(rb"[\x00-\x08\x0e-\x19\x1c-\x1f]")
_PAGES = (b"<!doctype html", b"<html", b"<?xml")
_WORKBOOKS = {"xl/": "an Excel workbook", "content.xml": "an OpenDocument sheet", "word/": "a Word document"}
_IGNORED = ("__MACOSX/", ".DS_Store")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # the folder of the rows without a value


class EmptyFileError(DataError):
    """Raised when a file holds no row, which is no fault where others beside it do.

    Parameters
    ----------
    message : str
        What is wrong.
    names : tuple of str
        The columns that its header names, if it has one.
    """

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names

    @classmethod
    def of(cls, name: str) -> "EmptyFileError":
        """Return the error about a file of that name without any content."""
        return cls(f"{name} is empty; expected a log with one row per event")


@dataclass(frozen=True)
class Source:
    """A file to read from.

    Parameters
    ----------
    path : Path
        A plain or compressed text file, Parquet, or a zip.
    member : str, optional
        The file inside a zip; not needed if the zip holds a single file.
    shown : str, optional
        What messages call it instead of its path, e.g. "-" for what came through a pipe.
    """

    path: Path
    member: str | None = None
    shown: str | None = None

    @property
    def name(self) -> str:
        """What messages call it: the path, and the member of a zip after a colon."""
        name = self.shown or str(self.path)
        return name if self.member is None else f"{name}:{self.member}"

    @property
    def partition(self) -> dict[str, str | None]:
        """The columns that the folders right above it hold, such as `day=3/part-0.parquet`; None for no value."""
        found: dict[str, str | None] = {}
        for part in reversed(self.path.parts[:-1]):
            name, equals, value = part.partition("=")
            if not equals or not name:
                break
            found[unquote(name)] = None if value == _NO_VALUE else unquote(value)
        return dict(reversed(found.items()))

    def packing(self) -> str | None:
        """Return how the file is compressed: "zip", "gzip", "bzip2", "xz" or "zstd"; None if it is not.

        Raises
        ------
        UsageError
            If there is no such file, or it is a folder.
        DataError
            If it is empty.
        """
        magic = self._magic()
        if magic.startswith(_BZIP2) and len(magic) >= 10 and magic[4:10] not in _BZIP2_NEXT:
            return None  # the text of a user BZhang
        return next((name for start, name in _PACKINGS.items() if magic.startswith(start)), None)

    def is_parquet(self) -> bool:
        """Whether the file is a Parquet file, and not a text whose first id is PAR1."""
        magic = self._magic()
        return magic.startswith(_PARQUET) and (magic == _PARQUET or not _may_be_text(magic))

    def open(self) -> BinaryIO:
        """Open the content for reading, decompressed.

        Returns
        -------
        BinaryIO
            A stream of the bytes of the file or member.

        Raises
        ------
        UsageError
            If there is no such file, or it is a folder.
        DataError
            If it is empty, a damaged or ambiguous archive, or of a kind that is not read.
        """
        packing = self.packing()
        with file_errors(self):
            if packing == "zip":
                archive = zipfile.ZipFile(self.path)
                return cast(BinaryIO, archive.open(self._member_of(archive)))
            if packing == "gzip":
                return cast(BinaryIO, gzip.open(self.path))
            if packing in ("bzip2", "xz"):
                return cast(BinaryIO, io.BufferedReader(WholeFile(self.path, packing), 1 << 20))
            if packing == "zstd":
                return cast(BinaryIO, pa.CompressedInputStream(pa.OSFile(str(self.path)), "zstd"))
            return self.path.open("rb")

    def refuse_foreign(self, head: bytes) -> None:
        """Refuse content of a kind that is not read, by its first bytes after decompression.

        Raises
        ------
        DataError
            The message says what it is, and the way out.
        """
        for start, what, way_out in _FOREIGN:
            is_word = start.isascii() and start not in _TEXTS
            if head.startswith(start) and not (is_word and _may_be_text(head)):
                raise DataError(f"{self.name} is {what}, expected text or Parquet; {way_out}")
        if head[257:262] == b"ustar":
            raise DataError(
                f"{self.name} is a tar archive, expected text or Parquet; unpack it and give the log itself"
            )
        if head.lstrip()[:20].lower().startswith(_PAGES):
            raise DataError(f"{self.name} is a web page or XML, expected text or Parquet; download the file itself")

    def _magic(self) -> bytes:
        if not self.path.exists():
            raise UsageError(f"no file at {self.path}; check the path")
        if self.path.is_dir():
            raise UsageError(
                f"{self.path} is a folder, expected a file; give the log inside it, "
                "or NAME --source FOLDER for a known data set (see `recvae datasets`)"
            )
        with file_errors(self), self.path.open("rb") as file:
            magic = file.read(16)
        if not magic:
            raise EmptyFileError.of(self.name)
        return magic

    def _member_of(self, archive: zipfile.ZipFile) -> str:
        members = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        for start, what in _WORKBOOKS.items():
            if any(member.startswith(start) for member in members):
                raise DataError(f"{self.path} is {what}, expected text or Parquet; save the sheet as CSV")
        if self.member is not None:
            if self.member not in members:
                raise DataError(f"{self.path} holds no file {self.member}; download it again")
            return self.member
        members = [member for member in members if not member.startswith(_IGNORED) and not member.endswith(_IGNORED)]
        if len(members) != 1:
            listed = ", ".join(members[:5]) or "nothing"
            raise DataError(
                f"{self.path} holds {len(members)} files ({listed}), expected one; unpack it and give the log itself"
            )
        return members[0]


def _may_be_text(head: bytes) -> bool:
    """Whether first bytes have nothing that no text has: an id may be spelled as the mark of a file of another kind."""
    return _NEVER_TEXT.search(head) is None


@contextmanager
def file_errors(source: Source) -> Iterator[None]:
    """Turn errors of damaged archives, wrong encodings and the system into a `DataError` that names `source`."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise DataError(f"{source.name} is truncated or damaged ({error}); download or compress it again") from error
    except RuntimeError as error:  # encrypted, or compressed in a way that Python does not support
        raise DataError(f"could not unpack {source.name} ({error}); unpack it and give the log itself") from error
    except UnicodeError as error:
        raise DataError(f"{source.name} could not be decoded ({error}); say its encoding with --encoding") from error
    except OSError as error:
        if error.errno is None and source.packing() is not None:
            raise DataError(
                f"{source.name} is truncated or damaged ({error}); download or compress it again"
            ) from error
        raise DataError(f"could not read {source.name}: {error.strerror or error}; check the file") from error


def find_sources(paths: Sequence[Path | str], scratch: Path) -> list[Source]:
    """Return the files behind what a user named, in the order given, those of a folder or glob sorted by name.

    Parameters
    ----------
    paths : sequence of Path or str
        Files, folders, quoted globs, pipes, or "-" for the standard input.
    scratch : Path
        A folder for what comes through a pipe, which can be read only once.

    Returns
    -------
    list of Source
        At least one file.

    Raises
    ------
    UsageError
        If there is no such file, a folder or glob holds none, or it is an address.
    DataError
        If a folder holds files of several kinds, or cannot be read.
    StorageError
        If what came through a pipe cannot be kept.
    """
    found: list[Source] = []
    for path in paths:
        text = str(path)
        if "://" in text or text.startswith(("http:/", "https:/", "s3:/", "gs:/")):
            raise UsageError(f"got the address {text}, expected a file; download it first, e.g. with curl -O")
        if text == STDIN or _is_pipe(Path(text)):
            found.append(_spooled_pipe(text, scratch / f"pipe-{len(found)}"))
        elif Path(text).is_dir():
            found += _in_folder(Path(text))
        elif not Path(text).exists() and any(letter in text for letter in "*?["):
            matching = [Path(name) for name in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207
            if "**" in text:  # which matches a folder and what is in it
                matching = [path for path in matching if not path.is_dir()]
            if not matching:
                raise UsageError(f"no file matches {text}; check the pattern")
            for path in matching:
                found += _in_folder(path) if path.is_dir() else [Source(path)]
        else:
            found.append(Source(Path(text)))
    return found


def _in_folder(folder: Path) -> list[Source]:
    """Return the files of a folder and its sub-folders, without what systems and engines leave beside them."""
    paths = sorted(_files_below(folder, frozenset()))
    if not paths:
        raise UsageError(f"{folder} holds no file, expected the files of a log; give the folder with the log")
    endings = Counter(path.suffix for path in paths)
    if len({ending.lower() for ending in endings}) > 1:
        listed = ", ".join(str(path.relative_to(folder)) for path in paths[:5]) + (", ..." if len(paths) > 5 else "")
        raise DataError(
            f"{folder} holds files of several kinds ({listed}), expected the files of one log; give the log inside it, "
            f"a glob such as '{folder}/*{endings.most_common(1)[0][0]}', or NAME --source FOLDER for a known data set"
        )
    return [Source(path) for path in paths]


def _files_below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Yield the files of a folder, also through links: nothing that is listed there may be left out without a word."""
    above |= {folder.resolve()}
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise DataError(f"could not read the folder {folder} ({error.strerror}); change its permissions") from error
    for path in entries:
        if path.name.startswith((".", "_")):
            continue
        if path.is_symlink() and not path.exists():
            raise DataError(f"{path} is a link to nothing; bring back what it leads to, or remove the link")
        if not path.is_dir():
            yield path
        elif path.resolve() not in above:  # a link to a folder above would never end
            yield from _files_below(path, above)


def _is_pipe(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def _spooled_pipe(name: str, target: Path) -> Source:
    """Copy what comes through a pipe to a file: it can be read only once, and is looked at several times."""
    if name == STDIN and sys.stdin.isatty():
        raise UsageError("got - for the log, but nothing is piped into this command; e.g. cat log.csv | ... -")
    opened = nullcontext(sys.stdin.buffer) if name == STDIN else Path(name).open("rb")  # noqa: SIM115  (closed below)
    with storage_errors(target), target.open("wb") as file, opened as stream:
        while chunk := stream.read(1 << 20):
            file.write(chunk)
    return replace(Source(target), shown=name)
