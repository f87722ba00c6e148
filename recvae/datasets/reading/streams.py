"""Compressed files to their very end: Python's own readers of bzip2 and xz drop what follows the first stream."""

import bz2
import io
import lzma
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20
_PADDING = b"\0"  # xz files may be filled up with it


class WholeFile(io.RawIOBase):
    """The content of all streams of a bzip2 or xz file; whatever is not a stream is an error.

    Parameters
    ----------
    path : Path
        The file.
    packing : str
        "bzip2" or "xz".
    """

    def __init__(self, path: Path, packing: str) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._is_xz = packing == "xz"
        self._left = b""
        self._decompressor = self._new()

    def _new(self) -> Any:
        return lzma.LZMADecompressor() if self._is_xz else bz2.BZ2Decompressor()

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what comes next.

        Raises
        ------
        EOFError
            If the last stream is cut.
        OSError, lzma.LZMAError
            If a stream is damaged, or what follows the last one is no stream.
        """
        while True:
            if self._decompressor.eof:
                self._left = self._decompressor.unused_data
                while True:
                    self._left = self._left.lstrip(_PADDING) if self._is_xz else self._left
                    if self._left:
                        break
                    self._left = self._file.read(_CHUNK)
                    if not self._left:
                        return 0
                self._decompressor = self._new()
            given = self._left
            if not given and self._decompressor.needs_input:
                given = self._file.read(_CHUNK)
                if not given:
                    raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            self._left = b""
            found = self._decompressor.decompress(given, max_length=len(buffer))
            if found:
                buffer[: len(found)] = found
                return len(found)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
