"""Item titles, from a known data set or from your own table: a column of item ids and a column of titles."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recvae.datasets.columns import TITLES
from recvae.datasets.reading.id_column import MISSING, IdColumn
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.datasets.reading.tables import Table
from recvae.errors import UsageError
from recvae.ids import plain_id, spellings


def read_titles(
    paths: Sequence[Source | Path | str], options: LogFormat | None = None, remarks: list[str] | None = None
) -> dict[str, str]:
    """Read titles from a table, by the rules of logs: a column of item ids, and one of titles.

    Parameters
    ----------
    paths : sequence of Source, Path or str
        Files in any form in which a log may be.
    options : LogFormat, optional
        What is known about them.
    remarks : list of str, optional
        What a person should know is added to it: items with several titles.

    Returns
    -------
    dict of str to str
        The title of each item id, written as text. Of several titles of an item, the last; rows without an id or a
        title are left out.

    Raises
    ------
    UsageError
        If there is no such file, or a named column is not in it.
    DataError
        If it cannot be read, or has no such columns.
    """
    with Table(paths, options, TITLES) as table:
        options = options or LogFormat()
        marks = (*options.null, *table.headings("item"))  # a header once more, as in files put together
        sink = _TitleSink(IdColumn(f"{table.name}: the column '{table.columns.item}'", marks, options.kept))
        table.read(sink)
    found = sink.finish()
    if sink.n_several and remarks is not None:
        remarks.append(f"{sink.n_several:,} items have several titles, of which the last one is kept")
    return found


class _TitleSink:
    """Collects ids and titles."""

    def __init__(self, ids: IdColumn) -> None:
        self._ids = ids
        self._titles: list[str | None] = []
        self.n_several = 0

    def __len__(self) -> int:
        return len(self._titles)

    def append(self, batch: pa.RecordBatch) -> None:
        self._ids.append(batch.column("item"))
        self._titles += batch.column("title").cast(pa.string()).to_pylist()

    def truncate(self, n_rows: int) -> None:
        self._ids.truncate(n_rows)
        del self._titles[n_rows:]

    def finish(self) -> dict[str, str]:
        found = self._ids.finish()
        ids = found.ids.tolist()
        titles: dict[str, str] = {}
        several = set()
        for code, title in zip(found.codes.tolist(), self._titles, strict=True):
            if code == MISSING or not title or not title.strip():
                continue
            if titles.get(str(ids[code]), title.strip()) != title.strip():
                several.add(code)
            titles[str(ids[code])] = title.strip()
        self.n_several = len(several)
        return titles


def titles_of(items: Iterable[Any], titles: Mapping[Any, str]) -> np.ndarray:
    """Return the title of each item, shape (n_items,), object (str or None).

    Parameters
    ----------
    items : iterable
        Item ids.
    titles : mapping
        Titles by item id, however the ids are written: 12, "12" and 12.0 are one id.

    Raises
    ------
    UsageError
        If it is a list or an array, which does not say whose title each is.
    """
    if not isinstance(titles, Mapping):
        raise UsageError(
            f"got titles as {type(titles).__name__}, expected a mapping from item id to title; "
            "write e.g. titles=dict(zip(ids, titles))"
        )
    by_id = {plain_id(item): title for item, title in titles.items()}
    known = ((by_id.get(one) for one in spellings(item) if one in by_id) for item in items)
    return np.array([next(titles, None) for titles in known], dtype=object)
