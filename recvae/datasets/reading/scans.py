"""One file, or a table in memory, as DuckDB reads it: what stands after FROM, and what is selected for each role."""

import re
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from recvae.datasets.columns import Columns
from recvae.datasets.reading import times
from recvae.datasets.reading.dialects import JSON_ARRAY, JSON_LINES, LISTS, TABLE, Dialect
from recvae.datasets.reading.relations import (
    json_relation,
    lists_relation,
    objects_relation,
    table_relation,
)
from recvae.datasets.reading.sources import Source
from recvae.datasets.reading.sql import identifier, sql_path
from recvae.datasets.reading.times import quoted
from recvae.errors import DataError

PARQUET, MEMORY = "Parquet", "a table in memory"
MEMORY_RELATION = "memory_table"

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_WIDE = ("UBIGINT", "HUGEINT", "UHUGEINT", "BIGNUM", "UUID")  # exact as texts
_FLOATS = ("FLOAT", "DOUBLE")
_WRITTEN = ("ENUM", "DATE", "TIME", '"NULL"', "UUID")  # the first letters of types whose values are read as texts
_LIST = re.compile(r"(.+)\[\d*\]")  # of any length, or of a fixed one
_WHOLE_COMMA = re.compile(r"-?\d+(,0{1,2})?")
_DECIMAL_COMMA, _THOUSANDS = re.compile(r"[+-]?\d+,\d+"), re.compile(r"\d{1,3}(,\d{3})+")


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One file, or a table in memory.

    Parameters
    ----------
    source : Source, optional
        The file; None for a table in memory.
    name : str
        What messages call it.
    form : str
        The form of a text file as in `Dialect`, `PARQUET` or `MEMORY`.
    kinds : dict of str to str
        The DuckDB type of each column, in order.
    columns : Columns
        Which of them are read.
    dialect : Dialect, optional
        Of a text file.
    path : Path, optional
        The file that DuckDB opens: the source or a copy of it.
    time_form : str, optional
        How times that are texts are written.
    time_format : str, optional
        A format of `strptime` that the user gave.
    are_bytes_uuids : frozenset of str
        Columns of 16 bytes.
    constants : tuple of (str, str or None)
        Columns that the names of folders hold, after those of the file.
    only : tuple of (str, tuple of str)
        Columns and the values that they must have.
    unquoted : str
        The quote of which ids lose a pair around them, where quotes had to be taken for letters; empty otherwise.
    """

    source: Source | None
    name: str
    form: str
    kinds: dict[str, str]
    columns: Columns
    dialect: Dialect | None = None
    path: Path | None = None
    time_form: str | None = None
    time_format: str | None = None
    are_bytes_uuids: frozenset[str] = frozenset()
    constants: tuple[tuple[str, str | None], ...] = ()
    only: tuple[tuple[str, tuple[str, ...]], ...] = ()
    unquoted: str = ""

    @property
    def kept(self) -> str:
        """The SQL that tells which rows have the values that they must have."""
        tests = []
        for name, values in self.only:
            column = self.column(name)
            value = self._bare(column) if self.kinds[name] == "VARCHAR" else f"{column}::VARCHAR"
            tests.append(f"{value} IN ({', '.join(map(quoted, values))})")
        return f"coalesce({' AND '.join(tests)}, false)" if tests else "true"

    @property
    def relation(self) -> str:
        """What stands after FROM; all values of text files are texts."""
        if self.form == MEMORY:
            return MEMORY_RELATION
        extra = "".join(f", {_literal(value)} AS {self.column(name)}" for name, value in self.constants)
        return f"(SELECT *{extra} FROM {self._file})" if extra else self._file

    @property
    def _file(self) -> str:
        """What stands after FROM for the file alone."""
        assert self.path is not None
        if self.form == PARQUET:
            return f"read_parquet({sql_path(self.path)}, hive_partitioning = false)"
        assert self.dialect is not None
        if self.form == TABLE:
            return table_relation(self.path, self.dialect)
        if self.form == LISTS:
            return lists_relation(self.path)
        objects = objects_relation(self.path, self.form)
        ids = (self.columns.user, self.columns.item)
        return json_relation(objects, self.dialect.names, ids, self.columns.item if self.has_json_items else None)

    @property
    def has_header(self) -> bool:
        """Whether the file names its columns itself."""
        return self.dialect is not None and self.dialect.header

    @property
    def is_list(self) -> bool:
        """Whether a row is a user with a list of items."""
        return self.form == LISTS or self.kinds.get(self.columns.item, "").endswith("[]") or self.has_json_items

    @property
    def has_json_items(self) -> bool:
        """Whether the items are a JSON array, or an object of items and weights."""
        if self.form not in (JSON_LINES, JSON_ARRAY) or self.dialect is None:
            return False
        return self.columns.item in self.dialect.nested

    def column(self, name: str) -> str:
        """Return a column as SQL. DuckDB takes names that differ only in case for one: columns are numbered."""
        if self.form in (PARQUET, LISTS):
            return identifier(name)
        return f"c{list(self.kinds).index(name)}"

    def select(self, role: str) -> str:
        """Return the SQL of the value that a role has.

        Raises
        ------
        DataError
            If the column is of a type that the role cannot have.
        """
        if role == "weight" and self.has_json_items:
            weights = f"{self.column(self.columns.item)}.weights"
            numbers = f"list_transform({weights}, lambda one: coalesce(try_cast(one AS FLOAT), 'nan'::FLOAT))"
            return f"unnest(CASE WHEN len({weights}) > 0 THEN {numbers} ELSE [NULL::FLOAT] END)"
        name = getattr(self.columns, role)
        kind = self.kinds[name]
        column = self.column(name)
        if role in ("user", "item", "title"):
            return self._identifier(role, name, column, kind)
        if role == "time":
            if kind == "FLOAT":
                raise self._refused(name, "32-bit floats, which cannot tell seconds apart", "64 bits", "time")
            if not self.is_time(kind):
                raise self._refused(name, kind, "times: numbers, dates or texts", "time")
            return times.sql_of(column, kind, self.time_form, self.time_format)
        return self._number(role, name, column, kind)

    def other(self, name: str) -> str | None:
        """Return the SQL of a column without a role: texts, doubles, or lists of these; None for other types."""
        kind, column = self.kinds[name], self.column(name)
        if kind == "VARCHAR":
            return self._identifier("item", name, column, kind)
        is_list = _LIST.fullmatch(kind)
        element = is_list[1] if is_list else kind
        if element == "BOOLEAN":
            whole = "[]" if is_list else ""
            return f"{column}::INTEGER{whole}::DOUBLE{whole}"
        if element in (*_INTEGERS, *_FLOATS, *_WIDE[:4]) or element.startswith("DECIMAL"):
            target = "DOUBLE"
        elif element == "VARCHAR" or element.startswith(_WRITTEN):
            target = "VARCHAR"
        else:
            return None
        return f"{column}::{target}" + ("[]" if is_list else "")

    @staticmethod
    def is_time(kind: str) -> bool:
        """Whether a DuckDB type can hold times."""
        return kind in ("VARCHAR", "DATE", *_INTEGERS, *_FLOATS, *_WIDE[:4]) or kind.startswith(
            ("TIMESTAMP", "DECIMAL", '"NULL"')
        )

    def _identifier(self, role: str, name: str, column: str, kind: str) -> str:
        if self.has_json_items and role == "item":
            return f"unnest({_or_null(f'{column}.items')})"
        if kind.endswith("[]") and role == "item":
            element = kind.removesuffix("[]")
            if element in _WIDE or element.startswith(("DECIMAL", "ENUM", '"NULL"')):
                column = f"{column}::VARCHAR[]"
            elif element not in ("VARCHAR", *_INTEGERS, *_FLOATS):
                raise self._refused(name, kind, f"integers or texts for the {role}, or lists of them", role)
            return f"unnest({_or_null(column)})"
        if kind == "VARCHAR":
            return f"replace({column}, ',', '.')" if self._has_whole_commas(name) else self._bare(column)
        if kind in _INTEGERS:
            return f"{column}::BIGINT"
        if kind in _FLOATS:
            return column
        if kind in _WIDE or kind.startswith(("DECIMAL", "ENUM", '"NULL"')):
            return f"{column}::VARCHAR"
        if name in self.are_bytes_uuids:
            pattern = "'(.{8})(.{4})(.{4})(.{4})(.{12})', '\\1-\\2-\\3-\\4-\\5'"
            return f"regexp_replace(lower(hex({column})), {pattern})"
        raise self._refused(name, kind, f"integers or texts for the {role}", role)

    def _bare(self, column: str) -> str:
        """Return the SQL of a text without a pair of quotes around it, where quotes had to be taken for letters."""
        if not self.unquoted:
            return column
        text, quote = f"trim({column})", quoted(self.unquoted)
        bare = f"replace(substr({text}, 2, length({text}) - 2), {quoted(2 * self.unquoted)}, {quote})"
        is_quoted = f"starts_with({text}, {quote}) AND ends_with({text}, {quote}) AND length({text}) > 1"
        return f"CASE WHEN {is_quoted} THEN {bare} ELSE {column} END"

    def _number(self, role: str, name: str, column: str, kind: str) -> str:
        if kind == "VARCHAR":
            if self._has_decimal_comma(name):
                column = f"replace({column}, ',', '.')"
            # DuckDB would read 1_000 as a thousand.
            return f"CASE WHEN contains({column}, '_') THEN NULL ELSE try_cast({column} AS FLOAT) END"
        if kind == "BOOLEAN":
            return f"{column}::INTEGER::FLOAT"
        if kind in (*_INTEGERS, *_FLOATS, *_WIDE[:4]) or kind.startswith(("DECIMAL", '"NULL"')):
            return f"try_cast({column} AS FLOAT)"
        raise self._refused(name, kind, f"numbers for the {role}", role)

    def _has_whole_commas(self, name: str) -> bool:
        """Whether integers are written as 1,0: as floats of a country with a decimal comma."""
        if self.dialect is None or self.form != TABLE or name not in self.dialect.names:
            return False
        values = [value.strip() for value in self.dialect.column(name)]
        return any("," in value for value in values) and all(map(_WHOLE_COMMA.fullmatch, values))

    def _has_decimal_comma(self, name: str) -> bool:
        """Whether numbers are written as 4,5 and not as 4.5; 1,000 alone could be either, and is refused when read."""
        if self.dialect is None or self.form != TABLE or name not in self.dialect.names:
            return False
        values = [value.strip() for value in self.dialect.column(name)]
        commas = [value for value in values if _DECIMAL_COMMA.fullmatch(value)]
        return (
            bool(commas)
            and not any("." in value for value in values)
            and not all(_THOUSANDS.fullmatch(value) for value in commas)
        )

    def _refused(self, name: str, kind: str, expected: str, role: str) -> DataError:
        switch = f", or leave it out with --no-{role}" if role in ("rating", "time") else ""
        hint = "; cast it to text first" if kind == "BLOB" else ""
        if self.form == MEMORY:
            return DataError(f"{self.name}: column '{name}' holds {kind}, expected {expected}; convert it first")
        option = "id" if role in ("user", "item") and not self.columns.are_of_a_log else role
        return DataError(
            f"{self.name}: column '{name}' holds {kind}, expected {expected}{hint}; "
            f"name another column with --{option}-col{switch}"
        )


def is_integer(kind: str) -> bool:
    """Whether a DuckDB type holds whole numbers."""
    return kind in (*_INTEGERS, *_WIDE[:4])


def is_number(kind: str) -> bool:
    """Whether a DuckDB type holds numbers."""
    return is_integer(kind) or kind == "DOUBLE" or kind.startswith("DECIMAL")


def _literal(value: str | None) -> str:
    return "NULL::VARCHAR" if value is None else quoted(value)


def _or_null(items: str) -> str:
    """Return the SQL of a list that has at least one element, so that a user without items is counted."""
    return f"CASE WHEN len({items}) > 0 THEN {items} ELSE [NULL] END"


def parquet_names(source: Source) -> list[str]:
    """Return the names of the columns of a Parquet file, also of those that have the same name.

    Raises
    ------
    DataError
        If it is damaged.
    """
    try:
        return pq.read_schema(source.path).names
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{source.name} is damaged or not a Parquet file ({reason}); write or fetch it again"
        ) from error


def kinds_of(connection: duckdb.DuckDBPyConnection, scan: Scan) -> dict[str, str]:
    """Return the DuckDB type of each column of a scan."""
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {scan.relation}").fetchall()}


def uuid_columns(connection: duckdb.DuckDBPyConnection, path: Path) -> frozenset[str]:
    """Return the columns of a Parquet file that hold 16 bytes in each row."""
    query = f"SELECT name FROM parquet_schema({sql_path(path)}) WHERE type_length = '16'"
    return frozenset(row[0] for row in connection.execute(query).fetchall())
