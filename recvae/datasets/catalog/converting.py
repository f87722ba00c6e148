"""Files that are no tables -> a plain table that the reader of all logs reads. Nothing is held in memory.

A converter checks each line, so that an error names the file and the line of the file that the user has.
"""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source, file_errors
from recvae.errors import DataError
from recvae.storage.files import storage_errors

Converter = Callable[[Sequence[Source]], Iterator[bytes]]
"""Takes all files of one kind and yields the bytes of a CSV file in UTF-8, with a header and quotes."""

TITLES_TABLE = LogFormat(separator=",", header=True, quote='"', item="item", title="title")
"""What a converter of titles makes: see `titles_table`."""

_SHOWN = 80  # letters of a bad line in a message


def converted(sources: Sequence[Source], converter: Converter, target: Path) -> Source:
    """Write the table that a converter makes.

    Parameters
    ----------
    sources : sequence of Source
        The files, at least one.
    converter : Converter
        What reads them.
    target : Path
        Where the table is written.

    Returns
    -------
    Source
        The table; messages call it by the files that it is made of.

    Raises
    ------
    DataError
        If a file is damaged, or a line is not as expected.
    StorageError
        If the table cannot be written.
    """
    with storage_errors(target), target.open("wb") as file:
        for block in converter(sources):
            file.write(block)
    more = f" and {len(sources) - 1:,} more" if len(sources) > 1 else ""
    return Source(target, shown=f"{sources[0].name}{more}")


def open_each(sources: Sequence[Source]) -> Iterator[tuple[Source, BinaryIO]]:
    """Open one file after the other; a zip of thousands of files is opened once."""
    archives: dict[Path, zipfile.ZipFile] = {}
    with ExitStack() as stack:
        for source in sources:
            with ExitStack() as current, file_errors(source):
                if source.member is None:
                    stream = current.enter_context(source.open())
                else:
                    if source.path not in archives:
                        archives[source.path] = stack.enter_context(zipfile.ZipFile(source.path))
                    member = archives[source.path].open(source.member)
                    stream = cast(BinaryIO, current.enter_context(member))
                yield source, stream


def lines_of(sources: Sequence[Source], encoding: str = "utf-8") -> Iterator[tuple[Source, int, str]]:
    """Yield each line that is not blank: its file, its number counted from 1, and its text.

    Bytes that are not of that encoding become a mark: they are parts of titles, and no reason to stop.
    """
    for source, stream in open_each(sources):
        with file_errors(source):
            for number, line in enumerate(stream, start=1):
                text = line.decode(encoding, errors="replace").rstrip("\r\n")
                if text.strip():
                    yield source, number, text


def wrong_line(name: str, number: int, text: str, expected: str) -> DataError:
    """Return the error about a line that is not as expected."""
    return DataError(
        f"{name} line {number}: got {text[:_SHOWN]!r}, expected {expected}; download the file again, or repair the line"
    )


def row(*values: str) -> bytes:
    """Return one row of a table, each value in quotes."""
    return (",".join('"' + value.replace('"', '""') + '"' for value in values) + "\n").encode()


def titles_table(titles: Iterator[tuple[str, str]]) -> Iterator[bytes]:
    """Yield a table of titles from pairs of id and title; of several titles of an item, the first counts."""
    yield b"item,title\n"
    seen: set[str] = set()
    for item, title in titles:
        if item not in seen:
            seen.add(item)
            yield row(item, " ".join(title.split()))
