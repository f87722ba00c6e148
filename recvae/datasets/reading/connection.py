"""A connection to DuckDB, which reads all files: in this process, without extensions, within a limit of memory."""

import os
from contextlib import suppress
from pathlib import Path

import duckdb

_LEAST_MEMORY = 150 << 20  # bytes with which DuckDB still reads any file
_USUAL_MEMORY = 1 << 30
_PER_THREAD = 128 << 20  # bytes of buffers


def connect(scratch: Path, max_memory: int | None = None) -> duckdb.DuckDBPyConnection:
    """Connect to a database in memory that lasts as long as the connection.

    Parameters
    ----------
    scratch : Path
        A folder for what does not fit in memory.
    max_memory : int, optional
        Bytes for the whole command, of which DuckDB takes a quarter; by default DuckDB takes 1 GiB.

    Returns
    -------
    duckdb.DuckDBPyConnection
        It never loads an extension, from the disk or from the network. Times without a zone are UTC.
    """
    limit = _USUAL_MEMORY if max_memory is None else max(_LEAST_MEMORY, max_memory // 4)
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "temp_directory": str(scratch / "spill"),
            "memory_limit": f"{limit >> 20}MiB",
            "threads": max(1, min(os.cpu_count() or 1, limit // _PER_THREAD)),
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    with suppress(duckdb.InvalidInputException):  # in a notebook without ipywidgets; such a notebook has no bar anyway
        connection.execute("SET enable_progress_bar = false")
    return connection
