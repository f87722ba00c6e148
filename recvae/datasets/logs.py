"""Reading a log: files in any form, or a table in memory, to events.

What is guessed, and how to say otherwise, is in docs/data.md; the reader itself is in `reading/`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recvae.datasets.events import Events
from recvae.datasets.reading.log import read_columns
from recvae.datasets.reading.memory import arrow_table
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.errors import UsageError
from recvae.progress import Progress


def read_events(
    source: Source | Path | str | Sequence[Source | Path | str],
    log_format: LogFormat | None = None,
    *,
    progress: Progress | None = None,
    max_memory: int | None = None,
    **known: Any,
) -> Events:
    """Read a log into canonical events, in the order of its rows.

    Parameters
    ----------
    source : Source, Path or str, or a sequence of these
        Text (CSV, TSV, any separator, JSON lines, lists of items) or Parquet, plain or compressed; a file, several,
        a folder, a glob, or "-" for the standard input.
    log_format : LogFormat, optional
        What is known about the files; the rest is guessed, and `Events.reading` says how.
    progress : callable, optional
        Called with the number of rows so far.
    max_memory : int, optional
        Bytes that reading, filtering and splitting may take.
    known : Any
        Fields of `LogFormat` instead of one: user, item, rating, time, separator, header, quote, encoding, null,
        time_format, on_bad_row, without.

    Returns
    -------
    Events
        One event per row that has a user and an item; `Events.reading` counts the others. If all ids are integers they
        become int64, otherwise they stay strings.

    Raises
    ------
    UsageError
        If there is no such file, or a named column is not in it.
    DataError
        If the content cannot be used; the message names file, line and column.
    MemoryLimitError
        If it needs more memory than is allowed.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
    >>> _ = path.write_text("user_id,item_id\\nann,film-7\\nbob,film-7\\n")
    >>> read_events(path).counts()
    {'events': 2, 'users': 2, 'items': 1}
    """
    if known:
        log_format = replace(log_format or LogFormat(), **known)
    paths = [source] if isinstance(source, Source | Path | str) else list(source)
    if not paths:
        raise UsageError("got no file, expected at least one")
    return Events.of(read_columns(paths, log_format, progress=progress, max_memory=max_memory))


def events_of(table: Any, log_format: LogFormat | None = None, name: str = "the table") -> Events:
    """Read a table in memory (pandas, polars, Arrow) into events, by the rules of files.

    Parameters
    ----------
    table : pandas.DataFrame, polars.DataFrame or pyarrow.Table
        One row per event.
    log_format : LogFormat, optional
        The names of the columns; by default they are found by their usual names.
    name : str
        What messages call the table.

    Raises
    ------
    UsageError
        If it is no table, or a named column is not in it.
    DataError
        If the content cannot be used.
    """
    return Events.of(read_columns(arrow_table(table), log_format, name=name))
