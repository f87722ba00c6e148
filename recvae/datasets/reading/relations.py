"""What stands after FROM for a text file: a table, lines, lists or JSON objects; all values are texts."""

from pathlib import Path

from recvae.datasets.reading.dialects import JSON_ARRAY, Dialect
from recvae.datasets.reading.separators import SPACES
from recvae.datasets.reading.sources import Source
from recvae.datasets.reading.spool import PLAIN_SEPARATOR
from recvae.datasets.reading.sql import json_path, sql_path
from recvae.datasets.reading.times import quoted

LONGEST_LINE = 1 << 25
"""Bytes of a line that is read whole: a list of a user's items, or a JSON object."""

_NO_SEPARATOR = "\x01"  # a line that is read whole has none; JSON cannot hold it
_BLANKS = "' ' || chr(9) || chr(11) || chr(12) || chr(13)"


def table_relation(path: Path, dialect: Dialect) -> str:
    """Return the SQL that reads a text file as rows of texts."""
    separator = PLAIN_SEPARATOR if dialect.separator == SPACES else dialect.separator
    names = ", ".join(f"{quoted(f'c{place}')}: 'VARCHAR'" for place in range(len(dialect.names)))
    options = [
        f"delim = {quoted(separator)}",
        f"quote = {quoted(dialect.quote)}",
        f"escape = {quoted(dialect.escape)}",
        f"skip = {dialect.skip}",
        f"columns = {{{names}}}",
    ]
    return f"(SELECT * FROM {_read_csv(path, options)})"


def _read_csv(path: Path, options: list[str]) -> str:
    """Return the SQL of a call; lines that it refuses go to the table `reject_errors`."""
    fixed = ["header = false", "auto_detect = false", _compression(path), "store_rejects = true"]
    return f"read_csv({sql_path(path)}, {', '.join([*options, *fixed])})"


def _compression(path: Path) -> str:
    """Return the option that says how a file is compressed: DuckDB would ask its name."""
    packing = Source(path).packing()
    return f"compression = '{packing if packing in ('gzip', 'zstd') else 'none'}'"


def lines_relation(path: Path) -> str:
    """Return the SQL that reads a text file as lines, without the blank ones."""
    options = [
        f"delim = {quoted(_NO_SEPARATOR)}",
        "quote = ''",
        "escape = ''",
        "columns = {'line': 'VARCHAR'}",
        f"max_line_size = {LONGEST_LINE}",
        f"buffer_size = {2 * LONGEST_LINE}",
    ]
    return f"(SELECT line FROM {_read_csv(path, options)} WHERE trim(line, {_BLANKS}) <> '')"


def lists_relation(path: Path) -> str:
    """Return the SQL that reads lines of `user item item ...`."""
    words = "regexp_extract_all(line, '\\S+')"
    lines = lines_relation(path)
    return f"(SELECT words[1] AS user, words[2:] AS item FROM (SELECT {words} AS words FROM {lines}))"


def array_relation(path: Path) -> str:
    """Return the SQL that reads the objects of a JSON array."""
    return f"(SELECT json AS line FROM read_json_objects({sql_path(path)}, format = 'array', {_compression(path)}))"


def objects_relation(path: Path, form: str) -> str:
    """Return the SQL that reads JSON objects, one per row, of either form."""
    return array_relation(path) if form == JSON_ARRAY else lines_relation(path)


def json_relation(objects: str, names: tuple[str, ...], ids: tuple[str, ...], item: str | None) -> str:
    """Return the SQL that takes columns from JSON objects, as texts; `item` is a column of arrays or objects."""
    selected = []
    for place, name in enumerate(names):
        key = json_path(name)
        path = quoted(key)
        if name == item:
            array = f"json_extract_string(line, {quoted(key + '[*]')})"
            values = f"json_extract_string(line, {quoted(key + '.*')})"
            kind = f"json_type(line, {path})"
            single = f"[json_extract_string(line, {path})]"
            items = (
                f"CASE {kind} WHEN 'ARRAY' THEN {array} WHEN 'OBJECT' THEN json_keys(line, {path}) ELSE {single} END"
            )
            weights = f"CASE {kind} WHEN 'OBJECT' THEN {values} ELSE [] END"
            selected.append(f"{{'items': {items}, 'weights': {weights}}} AS c{place}")
        else:
            value = f"json_extract_string(line, {path})"
            if name in ids:  # an array or an object is no id
                value = f"CASE WHEN json_type(line, {path}) NOT IN ('ARRAY', 'OBJECT') THEN {value} END"
            selected.append(f"{value} AS c{place}")
    return f"(SELECT {', '.join(selected)} FROM {objects} WHERE json_valid(line))"
