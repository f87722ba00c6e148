"""What a user may name as a log: files, folders, globs, pipes; anything else is refused by what it is."""

import io
import os
import re
import sqlite3
import subprocess
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from recvae.datasets.events import Events
from recvae.datasets.logs import events_of, read_events
from recvae.datasets.reading.options import LogFormat
from recvae.errors import DataError, UsageError

HEADER, FIRST, SECOND = "user,item\n", "ann,1\nbob,2\n", "ann,3\neve,1\n"
ROWS = [("ann", 1), ("bob", 2), ("ann", 3), ("eve", 1)]


def rows_of(events: Events) -> list[tuple[Any, Any]]:
    users, items = events.user_ids[events.users], events.item_ids[events.items]
    return list(zip(users.tolist(), items.tolist(), strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a log in two files."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "b.csv").write_text(HEADER + SECOND)
    (tmp_path / "logs" / "a.csv").write_text(HEADER + FIRST)
    return tmp_path / "logs"


# What is read


def test_the_files_of_a_folder_are_one_log_in_the_order_of_their_names(folder: Path) -> None:
    (folder / "_SUCCESS").touch()
    (folder / ".a.csv.crc").write_bytes(b"crc")
    events = read_events(folder)
    assert rows_of(events) == ROWS
    assert events.reading is not None
    assert [(Path(file.name).name, file.rows) for file in events.reading.files] == [("a.csv", 2), ("b.csv", 2)]


def test_a_glob_names_the_files_that_match(folder: Path) -> None:
    (folder / "notes.txt").write_text("no log")
    assert rows_of(read_events(f"{folder}/*.csv")) == ROWS
    assert rows_of(read_events(f"{folder.parent}/**/[ab].csv")) == ROWS


def test_a_file_may_have_the_letters_of_a_glob_in_its_name(folder: Path) -> None:
    (folder / "log [1].csv").write_text(HEADER + FIRST)
    assert rows_of(read_events(folder / "log [1].csv")) == ROWS[:2]


def test_several_paths_are_read_in_the_order_given(folder: Path) -> None:
    assert rows_of(read_events([folder / "b.csv", str(folder / "a.csv")])) == ROWS[2:] + ROWS[:2]


def test_files_of_one_log_may_be_written_in_different_ways(folder: Path) -> None:
    (folder / "b.csv").write_bytes("item;user\n3;ann\n1;eve\n".encode("utf-16"))
    assert rows_of(read_events(folder)) == ROWS


def test_ids_are_integers_only_if_they_are_in_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item\n1,7\n")
    (tmp_path / "b.csv").write_text("user,item\nann,7.0\n")
    assert rows_of(read_events([tmp_path / "a.csv", tmp_path / "b.csv"])) == [("1", 7), ("ann", 7)]


def test_the_folders_of_a_partitioned_table_are_columns(tmp_path: Path) -> None:
    for user, items in (("ann", [1, 2]), ("bob", [3])):
        (tmp_path / f"user={user}").mkdir()
        pq.write_table(pa.table({"item": items}), tmp_path / f"user={user}" / "part-0.parquet")
    assert rows_of(read_events(tmp_path)) == [("ann", 1), ("ann", 2), ("bob", 3)]


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(HEADER + FIRST + SECOND,))
    writer.start()
    try:
        assert rows_of(read_events(pipe)) == ROWS
    finally:
        writer.join(timeout=10)


CODE = "import sys\nfrom recvae import read_events\nevents = read_events('-')\nprint(len(events), *events.user_ids)"


@pytest.mark.parametrize("content", [(HEADER + FIRST).encode(), (HEADER + FIRST).encode("utf-16")])
def test_a_dash_is_the_standard_input(content: bytes, warm_python: str) -> None:
    done = subprocess.run([warm_python, "-c", CODE], input=content, capture_output=True, check=True)
    assert done.stdout.decode() == "2 ann bob\n"


def test_an_empty_standard_input_is_refused_as_such(warm_python: str) -> None:
    done = subprocess.run([warm_python, "-c", CODE], input=b"", capture_output=True, check=False)
    assert b"Error: - is empty; expected a log with one row per event" in done.stderr


def test_of_a_zip_made_by_macos_the_log_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.writestr("log.csv", HEADER + FIRST)
        archive.writestr("__MACOSX/._log.csv", b"\0\5\26\7")
        archive.writestr(".DS_Store", b"\0\0\0\1")
    assert rows_of(read_events(tmp_path / "log.zip")) == ROWS[:2]


def test_nothing_is_left_of_what_was_copied(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (folder / "a.csv").write_bytes((HEADER + FIRST).encode("utf-16"))
    assert rows_of(read_events(folder)) == ROWS
    (folder / "b.csv").write_text(HEADER + "1\n")
    with pytest.raises(DataError):
        read_events(folder)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("kind", ["TINYINT", "BIGINT", "UBIGINT", "VARCHAR"])
def test_a_table_of_duckdb_is_read_like_one_of_arrow(kind: str) -> None:
    import duckdb

    with duckdb.connect() as connection:
        table = connection.sql(f"SELECT 7::{kind} AS user, 'x' AS item").to_arrow_table()
    assert rows_of(events_of(table)) == [(7, "x")]


# What is refused by what it is


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("log.csv")
        entry.size = len(FIRST)
        archive.addfile(entry, io.BytesIO(FIRST.encode()))
    return stream.getvalue()


def zipped(*members: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member in members:
            archive.writestr(member, HEADER + FIRST)
    return stream.getvalue()


def written(write: Any) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def sqlite(path: Path) -> bytes:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE log (user, item)")
    connection.close()
    return path.read_bytes()


TABLE = pa.table({"user": ["ann"], "item": [1]})
PICKLE = "a pickle, which could run any code, expected text or Parquet; write it as Parquet, e.g. DataFrame.to_parquet"
WORKBOOK = "an Excel workbook, expected text or Parquet; save the sheet as CSV"
FOREIGN: dict[str, tuple[bytes, str]] = {
    "tar": (tar(), "a tar archive, expected text or Parquet; unpack it and give the log itself"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive, expected text or Parquet; unpack it and give the log itself"),
    "rar": (b"Rar!\x1a\7\1\0", "a rar archive, expected text or Parquet; unpack it and give the log itself"),
    "empty zip": (zipped(), "an empty zip, expected text or Parquet; make it again"),
    "xlsx": (zipped("[Content_Types].xml", "xl/workbook.xml"), WORKBOOK),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), WORKBOOK),
    "ods": (
        zipped("mimetype", "content.xml"),
        "an OpenDocument sheet, expected text or Parquet; save the sheet as CSV",
    ),
    "feather": (
        written(lambda stream: feather.write_feather(TABLE, stream)),
        "an Arrow (Feather) file, expected text or Parquet; write it as Parquet, e.g. pyarrow.parquet.write_table",
    ),
    "orc": (
        written(lambda stream: orc.write_table(TABLE, stream)),
        "an ORC file, expected text or Parquet; write it as",
    ),
    "avro": (b"Obj\x01\4", "an Avro file, expected text or Parquet; write it as Parquet"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file, expected text or Parquet; write it as Parquet"),
    "numpy": (
        written(lambda stream: np.save(stream, np.eye(2))),
        "a NumPy array, expected text or Parquet; write the columns user, item as CSV or Parquet",
    ),
    **{f"pickle {version}": (bytes([0x80, version]) + b"}q\0.", PICKLE) for version in (2, 3, 4, 5)},
    "pdf": (b"%PDF-1.7\n", "a PDF, expected text or Parquet; give the log as CSV or Parquet"),
    "a web page": (
        b"\n<!DOCTYPE html>\n<html><body>Not found</body></html>",
        "a web page or XML, expected text or Parquet; download the file itself",
    ),
    "xml": (b'<?xml version="1.0"?><Error/>', "a web page or XML, expected text or Parquet; download the file itself"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "a pointer of Git LFS, not the file itself, expected text or Parquet; fetch it with `git lfs pull`",
    ),
    "matrix market": (
        b"%%MatrixMarket matrix coordinate\n2 2 1\n1 1 1\n",
        "a Matrix Market file, expected text or Parquet; write the pairs user, item as CSV",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_another_kind_is_refused_by_what_it_is(tmp_path: Path, kind: str) -> None:
    content, message = FOREIGN[kind]
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(f'{tmp_path}/log.csv is {message}')}"):
        read_events(tmp_path / "log.csv")


@pytest.mark.parametrize("mark", ["PAR1", "ORC", "ORCID-7", "ARROW1", "FEA1", "RDX2", "Rar!", "BZhang", "7zip", "Obj"])
def test_an_id_may_be_spelled_as_a_file_of_another_kind_begins(tmp_path: Path, mark: str) -> None:
    text = "".join(f"{user},{item},5,1\n" for user in (mark, "b") for item in ("x", "y", "z"))
    (tmp_path / "log.csv").write_text(text, encoding="utf-8")
    expected = [(user, item) for user in (mark, "b") for item in ("x", "y", "z")]
    assert sorted(rows_of(read_events(tmp_path / "log.csv"))) == sorted(expected)


def test_a_database_is_refused_with_the_way_out(tmp_path: Path) -> None:
    sqlite(tmp_path / "log.db")
    message = (
        f"{tmp_path}/log.db is an SQLite database, expected text or Parquet; export the table as CSV: "
        "sqlite3 -header -csv FILE 'select ...'"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_events(tmp_path / "log.db")


def test_a_tar_is_refused_in_its_packing_too(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "log.tar.gz").write_bytes(gzip.compress(tar()))
    with pytest.raises(DataError, match=r"log\.tar\.gz is a tar archive, expected text or Parquet; unpack it and give"):
        read_events(tmp_path / "log.tar.gz")


@pytest.mark.parametrize(
    "address", ["https://example.org/log.csv", "s3://bucket/log.parquet", "http://example.org/log", "gs://b/log.csv"]
)
@pytest.mark.parametrize("kind", [str, Path])
def test_an_address_is_refused_with_the_way_out(address: str, kind: Any) -> None:
    with pytest.raises(
        UsageError, match=r"^got the address .*, expected a file; download it first, e.g. with curl -O$"
    ):
        read_events(kind(address))


def test_a_zip_of_several_files_is_refused_with_their_names(tmp_path: Path) -> None:
    (tmp_path / "log.zip").write_bytes(zipped("a.csv", "b.csv"))
    message = f"{tmp_path}/log.zip holds 2 files (a.csv, b.csv), expected one; unpack it and give the log itself"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_events(tmp_path / "log.zip")


def test_a_glob_that_matches_nothing_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(f'no file matches {tmp_path}/*.csv; check the pattern')}$"):
        read_events(tmp_path / "*.csv")


def test_a_folder_without_files_or_with_several_kinds_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = f"{tmp_path}/empty holds no file, expected the files of a log; give the folder with the log"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        read_events(tmp_path / "empty")
    (folder / "README.md").write_text("about")
    message = (
        f"{folder} holds files of several kinds (README.md, a.csv, b.csv), expected the files of one log; "
        f"give the log inside it, a glob such as '{folder}/*.csv', or NAME --source FOLDER for a known data set"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_events(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "user,item,note",
            "{a} has the columns user, item, but {b} has user, item, note; expected the files of one log",
        ),
        ("user,item,rating", "{a} has no column for the rating, but {b} has rating; expected the files of one log"),
    ],
)
def test_files_of_different_logs_are_refused(folder: Path, header: str, message: str) -> None:
    (folder / "b.csv").write_text(f"{header}\nann,3,5\n")
    message = message.format(a=folder / "a.csv", b=folder / "b.csv")
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        read_events(folder)


def test_the_file_is_named_in_which_something_is_wrong(folder: Path) -> None:
    (folder / "b.csv").write_text(HEADER + "ann,3\neve\n")
    message = f"{folder}/b.csv line 3: got 1 column, expected 2 as in the first line: 'eve'; repair the line"
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        read_events(folder)
    (folder / "a.csv").write_text("user,item,rating\nann,1,5\nbob,2,5\n")
    (folder / "b.csv").write_text("user,item,rating\n\nann,3,5\neve,1,good\n")
    with pytest.raises(
        DataError, match=f"^{re.escape(f'{folder}/b.csv line 4: column')} 'rating' holds 'good', expected"
    ):
        read_events(folder)


def test_rows_without_an_id_are_counted_over_all_files(folder: Path) -> None:
    (folder / "c.csv").write_text(HEADER + ",5\nNULL,5\n")  # no user at all
    events = read_events(folder, LogFormat(separator=","))
    assert rows_of(events) == ROWS
    assert events.reading is not None
    assert events.reading.dropped == {"rows without a user id": 2}
