"""Item titles, from a known data set or from your own table: a column of item ids and a column of titles."""

import csv
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from recvae.datasets.columns import find_title_columns
from recvae.datasets.log_format import QUOTED, guess_separator, head_lines
from recvae.datasets.sources import Source, file_errors
from recvae.errors import DataError

Row = tuple[str, list[str]]  # what messages call the row, and its values


def read_titles_column(source: Source) -> dict[str, str]:
    """Read titles from a table with a header: a column of item ids, and one called title or name.

    Parameters
    ----------
    source : Source
        Parquet; or CSV or TSV, plain, gzip or zip.

    Returns
    -------
    dict of str to str
        The title of each item id.

    Raises
    ------
    UsageError
        If there is no such file.
    DataError
        If it cannot be read, or has no such columns; if a line has more or fewer columns than the first one.
    """
    if source.is_parquet():
        return titles_by_id(_parquet_rows(source), item=0, title=1)
    rows = text_rows(source, guess_separator(head_lines(source)))
    _, header = next(rows)
    item, title = find_title_columns(header, source.name)
    return titles_by_id(rows, item, title)


def text_rows(source: Source, separator: str, encoding: str = "utf-8-sig") -> Iterator[Row]:
    """Yield the rows of a small text table, without blank lines.

    Parameters
    ----------
    source : Source
        Plain, gzip or zip.
    separator : str
        Separator of columns.
    encoding : str
        Encoding; "utf-8-sig" is UTF-8 with or without a byte order mark.

    Yields
    ------
    (str, list of str)
        File and line, and the values.

    Raises
    ------
    DataError
        If a line cannot be read, or has more or fewer columns than the first one.
    """
    n_columns = 0
    with file_errors(source), source.open() as stream:
        for number, line in enumerate(stream, start=1):
            place = f"{source.name} line {number}"
            try:
                text = line.decode(encoding).strip("\r\n")
                columns = _split(text, separator)
            except (UnicodeDecodeError, csv.Error) as error:
                raise DataError(f"{place}: {error}; repair the line") from error
            if not text.strip():
                continue
            n_columns = n_columns or len(columns)
            if len(columns) != n_columns:
                quotes = "; put a title with a comma in double quotes" if separator == "," else ""
                raise DataError(
                    f"{place}: got {len(columns)} columns, expected {n_columns} as in the first line: {text[:80]!r}; "
                    f"repair the line{quotes}"
                )
            yield place, columns


def titles_by_id(rows: Iterable[Row], item: int, title: int) -> dict[str, str]:
    """Return the title of each item id, from these positions of the rows.

    Raises
    ------
    DataError
        If a row has no id, or no column of that position.
    """
    titles = {}
    for place, columns in rows:
        if len(columns) <= max(item, title) or not columns[item].strip():
            raise DataError(f"{place}: got {columns}, expected an item id and a title; repair the line")
        titles[columns[item].strip()] = columns[title].strip()
    return titles


def _split(text: str, separator: str) -> list[str]:
    if separator not in QUOTED:
        return text.split(separator)
    return next(csv.reader([text], delimiter=separator, strict=True), [])


def _parquet_rows(source: Source) -> Iterator[Row]:
    """Yield the id and title of each row of a Parquet file, where the title is not null."""
    try:
        with file_errors(source):
            names = pq.read_schema(source.path).names
            found = [names[position] for position in find_title_columns(names, source.name)]
            table = pq.read_table(source.path, columns=found)
        ids, titles = (table[name].cast(pa.string()).to_pylist() for name in found)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{source.name}: could not read ids and titles ({error}); write or fetch it again") from error
    for number, (item, title) in enumerate(zip(ids, titles, strict=True), start=1):
        if title is not None:
            yield f"{source.name} row {number}", [item or "", title]
