"""Item titles from a table of one's own: a column of item ids, and one of titles."""

from collections.abc import Sequence

from recvae.errors import DataError
from recvae.log_format import KNOWN_NAMES, LogFormat, guess_separator, head_lines, plain_name
from recvae.log_lines import data_lines
from recvae.sources import Source, file_errors

_TITLE_NAMES = ("title", "name", "itemname", "movietitle")


def read_titles_column(source: Source) -> dict[str, str]:
    """Read titles from a text file with a header: a column of item ids and one called title or name.

    Parameters
    ----------
    source : Source
        CSV or TSV, plain, gzip or zip.

    Returns
    -------
    dict of str to str
        The title of each item id.

    Raises
    ------
    UsageError
        If there is no such file.
    DataError
        If it cannot be read, or has no such columns.
    """
    names, rows = _text_rows(source)
    item, title = _find_title_columns(names, source)
    return {row[item].strip(): row[title].strip() for row in rows if len(row) > max(item, title)}


def _text_rows(source: Source) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a small text table whose separator is guessed.

    Raises
    ------
    UsageError, DataError
        If there is no such file, or it is not UTF-8 text.
    """
    log_format = LogFormat(separator=guess_separator(head_lines(source)), header=True)
    header = log_format.split(head_lines(source)[0])
    with file_errors(source):
        rows = [log_format.split(line.decode("utf-8")) for _, line in data_lines(source, log_format)]
    return header, rows


def _find_title_columns(names: Sequence[str], source: Source) -> tuple[int, int]:
    """Return the positions of the item ids and of the titles in a table of titles.

    Raises
    ------
    DataError
        If either cannot be recognised.
    """
    plain = [plain_name(name) for name in names]
    items = [plain.index(usual) for usual in (*KNOWN_NAMES["item"], "id") if usual in plain]
    titles = [plain.index(usual) for usual in _TITLE_NAMES if usual in plain]
    if not items or not titles:
        raise DataError(
            f"{source.name}: expected a column item_id and a column title, it has: {', '.join(names)}; rename them"
        )
    return items[0], titles[0]
