"""From a file or a table in memory to a scan: how it is written, which columns it has, and how DuckDB reads it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from recvae.datasets.columns import Columns, find_columns, plain_name, usual_names, what_rows_are
from recvae.datasets.reading import scans, times
from recvae.datasets.reading.by_position import by_position, refuse_named_folders
from recvae.datasets.reading.dialects import JSON_ARRAY, JSON_LINES, LISTS, TABLE, Dialect, dialect_of
from recvae.datasets.reading.json_ids import lists_in
from recvae.datasets.reading.memory import readable
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.relations import array_relation, objects_relation
from recvae.datasets.reading.scans import MEMORY, PARQUET, Scan
from recvae.datasets.reading.separators import SPACES
from recvae.datasets.reading.sources import Source
from recvae.datasets.reading.spool import copied
from recvae.datasets.reading.sql import sql_names
from recvae.errors import DataError, UsageError

_SAMPLE_ROWS = 1000


@dataclass(frozen=True)
class Opener:
    """Opens files and tables for one read.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        What reads them.
    scratch : Path
        A folder for copies.
    options : LogFormat
        What the user says about them.
    roles : sequence of str
        The columns that are looked for.
    others : bool
        Whether all other columns are read too.
    """

    connection: duckdb.DuckDBPyConnection
    scratch: Path
    options: LogFormat
    roles: Sequence[str]
    others: bool = False

    def memory(self, table: pa.Table, name: str) -> Scan:
        """Open a table in memory, which messages call `name`."""
        columns = find_columns(
            table.column_names, self.roles, name, "rename it to '{role}'", self.options.named_in(table.column_names)
        )
        chosen = list(dict.fromkeys(column for column in vars(columns).values() if column))
        chosen += [column for column, _ in self.options.only]
        used = [place for place, one in enumerate(table.column_names) if self.others or one in chosen]
        names = sql_names(tuple(table.column_names[place] for place in used))
        numbered = table.select(used).rename_columns([f"c{place}" for place in range(len(used))])
        self.connection.register(scans.MEMORY_RELATION, readable(numbered, name, [table.column_names[i] for i in used]))
        bytes_16 = frozenset(one.name for one in table.schema if one.type == pa.binary(16))
        scan = Scan(source=None, name=name, form=MEMORY, kinds={}, columns=columns, are_bytes_uuids=bytes_16)
        kinds = scans.kinds_of(self.connection, scan).values()
        return self._with_times(replace(scan, kinds=dict(zip(names, kinds, strict=True))))

    def file(self, source: Source, first_names: tuple[str, ...] = ()) -> Scan:
        """Open a file.

        Parameters
        ----------
        source : Source
            The file.
        first_names : tuple of str
            The columns of a file of the same log with a header: this one may be a part without a header of its own.

        Raises
        ------
        EmptyFileError
            If it holds no row.
        UsageError, DataError
            If it cannot be read, or lacks a column that is needed.
        """
        if source.is_parquet():
            return self._parquet(source)
        given = self.options.without_names(list(source.partition))  # the header does not have to name them
        dialect = dialect_of(source, given, self.roles, self.connection, self.scratch, first_names)
        path = self._plain(source, dialect)
        if dialect.form == JSON_ARRAY:
            dialect = dialect.of_objects(self._first_objects(source, path))
        if dialect.form in (JSON_LINES, JSON_ARRAY) and (self.others or self._lacks_a_role(dialect)):
            try:
                names = self._all_names(source, dialect, path)
            except MixedEndsError:
                path = self._copied(source, dialect, ends=True)
                names = self._all_names(source, dialect, path)
            dialect = replace(dialect, names=names)
        is_lists = dialect.form == LISTS
        extra = {} if is_lists else {n: value for n, value in source.partition.items() if n not in dialect.names}
        kinds = dict.fromkeys((*sql_names(dialect.names), *extra), "VARCHAR")
        columns = Columns(user="user", item="item") if is_lists else self._columns(source, dialect, tuple(extra))
        if dialect.form in (JSON_LINES, JSON_ARRAY):
            dialect = self._with_lists(source, dialect, path, columns)
        scan = Scan(
            source=source,
            name=source.name,
            form=dialect.form,
            kinds={"user": "VARCHAR", "item": "VARCHAR[]"} if is_lists else kinds,
            columns=columns,
            dialect=dialect,
            path=path,
            constants=tuple(extra.items()),
        )
        return self._with_times(scan)

    def _with_lists(self, source: Source, dialect: Dialect, path: Path, columns: Columns) -> Dialect:
        """Return the dialect of JSON that knows whether items are lists, in any row; ids and titles are checked."""
        user, item = (name if name in dialect.names else "" for name in columns.ids)
        objects = objects_relation(path, dialect.form)
        try:
            is_list, has_weights = (
                lists_in(self.connection, objects, user, item, source.name) if item else (False, False)
            )
        except duckdb.Error as error:
            raise unread(source.name, error) from error
        nested = dialect.nested - {item} | ({item} if is_list else set())
        if columns.title in nested:
            raise DataError(
                f"{source.name}: the column '{columns.title}' holds objects or arrays, expected one title per object; "
                "write them flat, e.g. with jq"
            )
        return replace(dialect, nested=frozenset(nested), has_weights=has_weights)

    def with_plain_ends(self, scan: Scan) -> Scan:
        """Return the same scan, read from a copy in which all lines end in the same way."""
        assert scan.source is not None and scan.dialect is not None
        return replace(scan, path=self._copied(scan.source, scan.dialect, ends=True))

    def _copied(self, source: Source, dialect: Dialect, *, ends: bool) -> Path:
        target = self.scratch / f"{len(list(self.scratch.iterdir()))}.txt"
        separator = dialect.separator if dialect.form == TABLE else ""
        return copied(source, target, dialect.encoding, separator, ends=ends)

    def _plain(self, source: Source, dialect: Dialect) -> Path:
        """Return the file itself if DuckDB can read it as it is, or a plain copy."""
        is_utf8 = dialect.encoding.replace("_", "-").lower() in ("utf-8", "utf8", "utf-8-sig")
        is_aligned = dialect.form == TABLE and dialect.separator == SPACES
        if is_utf8 and source.packing() in (None, "gzip", "zstd") and not is_aligned:
            return source.path
        return self._copied(source, dialect, ends=is_aligned)

    def _parquet(self, source: Source) -> Scan:
        names = scans.parquet_names(source)
        extra = {name: value for name, value in source.partition.items() if name not in names}
        way_out = self._way_out()
        columns = find_columns(
            [*names, *extra],
            self.roles,
            source.name,
            way_out,
            self.options.named_in([*names, *extra]),
        )
        _refuse_twins(source, [*names, *extra], columns)
        scan = Scan(
            source=source,
            name=source.name,
            form=PARQUET,
            kinds={},
            columns=columns,
            path=source.path,
            constants=tuple(extra.items()),
        )
        try:
            kinds = scans.kinds_of(self.connection, scan)
            uuids = scans.uuid_columns(self.connection, source.path)
        except duckdb.Error as error:
            raise damaged(source.name, error) from error
        return self._with_times(replace(scan, kinds=kinds, are_bytes_uuids=uuids))

    def _first_objects(self, source: Source, path: Path) -> list[dict[str, Any]]:
        """Return the first objects of a JSON array."""
        query = f"SELECT line::VARCHAR FROM {array_relation(path)} LIMIT {_SAMPLE_ROWS}"
        try:
            rows = [json.loads(line) for (line,) in self.connection.execute(query).fetchall()]
        except duckdb.Error as error:
            raise damaged(source.name, error) from error
        return [row for row in rows if isinstance(row, dict)]

    def _lacks_a_role(self, dialect: Dialect) -> bool:
        """Whether the first objects have no column for a role: a later one may have it."""
        named = self.options.named_in(dialect.names)
        found = {plain_name(name) for name in dialect.names}
        return any(named.get(role) is None and found.isdisjoint(usual_names(role, self.roles)) for role in self.roles)

    def _all_names(self, source: Source, dialect: Dialect, path: Path) -> tuple[str, ...]:
        """Return the names in all JSON objects, also of those that none of the first objects has."""
        objects = objects_relation(path, dialect.form)
        is_object = "json_valid(line) AND json_type(line) = 'OBJECT'"
        query = f"SELECT DISTINCT unnest(json_keys(CASE WHEN {is_object} THEN line END)) FROM {objects}"
        try:
            found = {name for (name,) in self.connection.execute(query).fetchall()}
        except duckdb.Error as error:
            raise unread(source.name, error) from error
        return (*dialect.names, *sorted(found - set(dialect.names)))

    def _columns(self, source: Source, dialect: Dialect, extra: tuple[str, ...]) -> Columns:
        """Choose the columns of a text file and its folders: by name, or without a header by position."""
        names = (*dialect.names, *extra)
        named = self.options.named_in(names if dialect.is_named else extra)
        if not dialect.is_named and all(name is None for name in named.values()):
            refuse_named_folders(source, extra, self.roles)
            named = by_position(source, dialect, self.roles, dict(self.options.usual).get("rating"))
        way_out = self._way_out()
        if what_rows_are(self.roles) is None and dialect.form == TABLE:
            way_out += ", or give --no-header if the first line is data already"
        return find_columns(names, self.roles, source.name, way_out, named)

    def _way_out(self) -> str:
        """Return what messages propose about a column, with {role} in the place of the role."""
        if what_rows_are(self.roles) is None:
            return "name it with --{role}-col"
        return "name it with --id-col" + (" or --title-col" if "title" in self.roles else "")

    def _with_times(self, scan: Scan) -> Scan:
        """Decide how times are written, where they are texts; check the columns whose values are asked for."""
        for wanted, _ in self.options.only:
            if wanted not in scan.kinds:
                raise UsageError(f"{scan.name} has no column '{wanted}'; it has: {', '.join(scan.kinds)}; choose one")
        scan = replace(scan, only=self.options.only)
        name = scan.columns.time
        kind = scan.kinds.get(name or "", "")
        is_integer = scans.is_integer(kind)
        may_be_told = kind == "VARCHAR" or is_integer or (bool(self.options.time_format) and scans.is_number(kind))
        if name is None or not may_be_told:
            return scan
        if self.options.time_format is not None:
            self._check_time_format(self.options.time_format)
            return replace(scan, time_format=self.options.time_format)
        where = f"{scan.name}: column '{name}'"
        if scan.dialect is not None and name in scan.dialect.names:
            values = scan.dialect.column(name)
        else:
            text = f"{scan.column(name)}::VARCHAR"
            query = f"SELECT {text} FROM {scan.relation} WHERE trim({text}) <> '' LIMIT {_SAMPLE_ROWS}"
            values = [value for (value,) in self.connection.execute(query).fetchall()]
        if not values:
            return replace(scan, time_form=times.UNSEEN)
        return replace(scan, time_form=times.form_of_integers(values) if is_integer else times.form_of(values, where))

    def _check_time_format(self, time_format: str) -> None:
        try:
            self.connection.execute("SELECT try_strptime('', ?)", [time_format])
            is_known = "%" in time_format
        except duckdb.Error:
            is_known = False
        if not is_known:
            raise UsageError(
                f"got the time format {time_format!r}, expected letters of strptime, e.g. --time-format "
                "'%d/%m/%Y %H:%M'; mend it"
            )


def _refuse_twins(source: Source, names: Sequence[str], columns: Columns) -> None:
    """Refuse a Parquet column whose name differs from another one only in case: DuckDB would mix them up."""
    for chosen in filter(None, vars(columns).values()):
        twins = [name for name in names if name.casefold() == chosen.casefold()]
        if len(twins) > 1:
            raise DataError(
                f"{source.name}: the columns {' and '.join(map(repr, twins))} differ only in case; rename one of them"
            )


class MixedEndsError(DataError):
    """Raised where DuckDB stumbled over lines that end in different ways."""


def unread(name: str, error: Exception) -> DataError:
    """Return the error about a text file that DuckDB could not read: its lines may end in different ways."""
    if "state machine" in str(error):
        return MixedEndsError(str(damaged(name, error)))
    return damaged(name, error)


def damaged(name: str, error: Exception) -> DataError:
    """Return the error about a file that DuckDB could not read."""
    reason = " ".join(str(error).split("\n")[0].split())
    if isinstance(error, duckdb.OutOfMemoryException):
        return DataError(
            f"{name} could not be read ({reason}); free memory, or space for temporary files (TMPDIR), or allow more "
            "with --max-memory"
        )
    return DataError(f"{name} could not be read ({reason}); write or fetch it again")
