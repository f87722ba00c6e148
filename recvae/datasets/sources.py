"""Files to read from: a plain file, a gzip file, or a member of a zip, as a stream of bytes.

The kind of a file is recognised by its first bytes, not by its name.
"""

import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from recvae.errors import DataError, UsageError


@dataclass(frozen=True)
class Source:
    """A file to read from.

    Parameters
    ----------
    path : Path
        A plain, gzip, Parquet or zip file.
    member : str, optional
        The file inside a zip; not needed if the zip holds a single file.
    """

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """What messages call it: the path, and the member of a zip after a colon."""
        return str(self.path) if self.member is None else f"{self.path}:{self.member}"

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
            If it is empty, or a damaged or ambiguous archive.
        """
        magic = self._magic()
        with file_errors(self):
            if magic.startswith(b"PK\x03\x04"):
                archive = zipfile.ZipFile(self.path)
                member = self.member or self._only_member(archive)
                if member not in archive.namelist():
                    raise DataError(f"{self.path} holds no file {member}; download it again")
                return cast(BinaryIO, archive.open(member))
            if magic.startswith(b"\x1f\x8b"):
                return cast(BinaryIO, gzip.open(self.path))
            return self.path.open("rb")

    def is_plain(self) -> bool:
        """Whether the file is neither a zip nor a gzip file."""
        return not self._magic().startswith((b"PK\x03\x04", b"\x1f\x8b"))

    def is_parquet(self) -> bool:
        """Whether the file is a Parquet file."""
        return self._magic() == b"PAR1"

    def _magic(self) -> bytes:
        if not self.path.exists():
            raise UsageError(f"no file at {self.path}; check the path")
        if self.path.is_dir():
            raise UsageError(
                f"{self.path} is a folder, expected a file; give the log inside it, "
                "or NAME --source FOLDER for a known data set (see `recvae datasets`)"
            )
        with file_errors(self), self.path.open("rb") as file:
            magic = file.read(4)
        if not magic:
            raise DataError(f"{self.path} is empty; expected a log with one row per event")
        return magic

    def _only_member(self, archive: zipfile.ZipFile) -> str:
        members = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        if len(members) != 1:
            raise DataError(f"{self.path} holds {len(members)} files, expected one; unpack it and give the log itself")
        return members[0]


@contextmanager
def file_errors(source: Source) -> Iterator[None]:
    """Turn errors of damaged archives, wrong encodings and the system into a `DataError` that names `source`."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise DataError(f"{source.name} is truncated or damaged ({error}); download or compress it again") from error
    except RuntimeError as error:  # encrypted, or compressed in a way that Python or Arrow does not support
        raise DataError(f"could not unpack {source.name} ({error}); unpack it and give the log itself") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source.name} is not UTF-8 text ({error}); convert it first") from error
    except OSError as error:
        raise DataError(f"could not read {source.name}: {error.strerror or error}; check the file") from error


class OneByteSeparator(io.RawIOBase):
    """A stream in which every `::` is one unit separator, because pyarrow splits only at single bytes."""

    SEPARATOR = "\x1f"

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        """Return True: this stream is for reading."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes with the separators replaced; a `::` is never cut in two."""
        chunk = self._stream.read(size - 1 if size > 1 else size)
        if (len(chunk) - len(chunk.rstrip(b":"))) % 2:
            chunk += self._stream.read(1)
        return chunk.replace(b"::", self.SEPARATOR.encode())

    def close(self) -> None:
        """Close the stream underneath as well."""
        self._stream.close()
        super().close()
