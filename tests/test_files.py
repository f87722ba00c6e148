"""Writing is whole or nothing, and a failure says what to do about it."""

import errno
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from recvae.errors import StorageError, UsageError
from recvae.storage.files import (
    check_writable,
    move_folder,
    storage_errors,
    write_file,
    write_folder,
    write_json,
    write_text,
)
from recvae.storage.integrity import sha256_of

FAILURES = [RuntimeError("the block failed"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]


@contextmanager
def files_limited_to(n_bytes: int) -> Iterator[None]:
    """Let the system itself refuse to write larger files."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content_of(folder: Path) -> dict[str, str]:
    """Return the text of every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_file_appears_only_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "log.txt"
    with write_file(path) as aside:
        aside.write_text("half")
        assert not path.exists()
        aside.write_text("whole")
    assert content_of(tmp_path) == {"new/folders/log.txt": "whole"}


def test_until_the_new_file_is_whole_the_old_one_stands(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    write_text(path, "old")
    with write_file(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
    assert content_of(tmp_path) == {"log.txt": "new"}


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize("old", [{}, {"log.txt": "old"}], ids=["nothing before", "a file before"])
def test_a_file_that_fails_leaves_what_was_there_and_nothing_beside_it(
    tmp_path: Path, failure: BaseException, old: dict[str, str]
) -> None:
    for name, text in old.items():
        write_text(tmp_path / name, text)
    with pytest.raises((type(failure), StorageError)), write_file(tmp_path / "log.txt") as aside:
        aside.write_text("half")
        raise failure
    assert content_of(tmp_path) == old


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for names in (["one", "two"], ["three"]):
        with write_folder(tmp_path / "data", "one") as aside:
            assert list(aside.iterdir()) == []
            for name in names:
                (aside / name).write_text(name)
    assert content_of(tmp_path) == {"data/three": "three"}


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize("old", [{}, {"data/one": "old", "data/in/two": "old"}], ids=["nothing before", "one before"])
def test_a_folder_that_fails_leaves_what_was_there_and_nothing_beside_it(
    tmp_path: Path, failure: BaseException, old: dict[str, str]
) -> None:
    for name, text in old.items():
        write_text(tmp_path / name, text)
    with pytest.raises((type(failure), StorageError)), write_folder(tmp_path / "data", "one") as aside:
        (aside / "one").write_text("half")
        raise failure
    assert content_of(tmp_path) == old
    assert list(tmp_path.iterdir()) == ([tmp_path / "data"] if old else [])


def test_a_folder_of_another_kind_is_never_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "data" / "thesis.tex", "years of work")
    message = r"of another kind \(no one\), which would be lost; choose another name"
    with pytest.raises(UsageError, match=message), write_folder(tmp_path / "data", "one"):
        pytest.fail("nothing should be computed for a place that cannot be written")
    assert content_of(tmp_path) == {"data/thesis.tex": "years of work"}


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk" / "data").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "data")
    with write_folder(tmp_path / "link") as aside:
        (aside / "one").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert content_of(tmp_path / "disk") == {"data/one": "new"}


def test_the_working_folder_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    with write_folder(Path()) as aside:
        (aside / "one").write_text("new")
    assert content_of(tmp_path) == {"data/one": "new"}


def test_a_file_is_never_replaced_by_a_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "thesis.txt", "years of work")
    message = f"could not write {tmp_path / 'thesis.txt'}: a file stands where a folder is needed"
    with pytest.raises(StorageError, match=message), write_folder(tmp_path / "thesis.txt"):
        pytest.fail("nothing should be computed for a place that cannot be written")
    assert content_of(tmp_path) == {"thesis.txt": "years of work"}


def test_a_folder_that_cannot_be_moved_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "data" / "one", "old")
    with pytest.raises(OSError, match="absent"):
        move_folder(tmp_path / "absent", tmp_path / "data")
    assert content_of(tmp_path) == {"data/one": "old"}


def test_what_is_written_reaches_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[bool] = []  # at each call of fsync, whether the name stood already
    monkeypatch.setattr(os, "fsync", lambda _: there.append((tmp_path / "new").exists()))
    with write_folder(tmp_path / "new") as aside:
        (aside / "in").mkdir()
        (aside / "one").write_text("1")
        (aside / "in" / "two").write_text("2")
    assert there == [False, False]
    write_text(tmp_path / "new" / "three", "3")
    assert there == [False, False, True]


@pytest.fixture
def ended() -> int:
    """Return the id of a process that no longer runs."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_beside_a_folder_is_removed_on_the_next_write(tmp_path: Path, ended: int) -> None:
    alive = os.getppid()
    kept = {f".data.{alive}.tmp/one": "x", f".other.{ended}.tmp/one": "x", f".data.{ended}.txt": "x", ".data.tmp": "x"}
    left = {f".data.{ended}.tmp/one": "x", f".data.{ended}.old/one": "x"}
    for name, text in (kept | left).items():
        write_text(tmp_path / name, text)
    with write_folder(tmp_path / "data") as aside:
        (aside / "one").write_text("new")
    assert content_of(tmp_path) == kept | {"data/one": "new"}


def test_the_old_folder_of_a_killed_process_stays_until_the_new_one_is_whole(tmp_path: Path, ended: int) -> None:
    write_text(tmp_path / f".data.{ended}.old" / "one", "the only copy")
    with pytest.raises(RuntimeError, match="the block failed"), write_folder(tmp_path / "data"):
        raise RuntimeError("the block failed")
    assert content_of(tmp_path) == {f".data.{ended}.old/one": "the only copy"}


def test_what_a_killed_process_left_beside_a_file_is_removed_on_the_next_write(tmp_path: Path, ended: int) -> None:
    write_text(tmp_path / f".log.txt.{ended}.tmp", "half")
    write_text(tmp_path / f".log.txt.{os.getppid()}.tmp", "somebody's")
    write_text(tmp_path / "log.txt", "new")
    assert content_of(tmp_path) == {f".log.txt.{os.getppid()}.tmp": "somebody's", "log.txt": "new"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, ""), "the disk is full; free some space or choose another folder"),
        (OSError(errno.EDQUOT, ""), "the disk quota is used up; free some space or choose another folder"),
        (OSError(errno.EACCES, ""), "permission denied; choose a folder that you may write to"),
        (OSError(errno.EROFS, ""), "the file system is read-only; choose another folder"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError("Arrow gave no number"), "Arrow gave no number"),
        (SafetensorError("Error while serializing: I/O error: (os error 28)"), "the disk is full; free some space"),
        (SafetensorError("tensor 'x' is odd"), "tensor 'x' is odd"),
    ],
    ids=str,
)
def test_a_storage_error_names_the_file_and_a_way_out(error: Exception, reason: str) -> None:
    message = f"^could not write data/train.npz: {reason}"
    with pytest.raises(StorageError, match=message) as caught, storage_errors(Path("data/train.npz")):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("kind", ["text", "safetensors", "parquet"])
def test_a_file_beyond_the_systems_limit_is_a_storage_error(tmp_path: Path, kind: str) -> None:
    write_text(tmp_path / "big", "old")
    numbers = np.random.default_rng(0).random(10_000)
    with (
        pytest.raises(StorageError, match=r"the file is larger than this system allows; raise the limit \(ulimit -f\)"),
        files_limited_to(5_000),
        write_file(tmp_path / "big") as aside,
    ):
        if kind == "text":
            aside.write_text("x" * 10_000)
        elif kind == "safetensors":
            save_file({"x": numbers}, aside)
        else:
            pq.write_table(pa.table({"x": numbers}), aside)
    assert content_of(tmp_path) == {"big": "old"}


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_a_file_where_a_folder_is_needed_is_a_storage_error(
    tmp_path: Path, write: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"), write(tmp_path / "file" / "new"):
        pytest.fail("nothing should be computed for a place that cannot be written")
    assert content_of(tmp_path) == {"file": "old"}


def test_safetensors_own_words_for_a_failed_write_are_understood(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"), storage_errors(tmp_path / "file"):
        save_file({"x": np.zeros(3)}, tmp_path / "file" / "weights.safetensors")


def test_json_is_indented_utf8_and_without_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"title": "Amélie", "counts": {"items": 3}})
    assert (tmp_path / "a.json").read_bytes() == (
        '{\n  "title": "Amélie",\n  "counts": {\n    "items": 3\n  }\n}\n'.encode()
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": math.nan})
    assert json.loads((tmp_path / "a.json").read_text())["title"] == "Amélie"


def test_the_checksum_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 1000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(bytes(range(256)) * 1000).hexdigest()


def test_what_could_not_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a thesis", encoding="utf-8")
    check_writable(tmp_path / "new" / "folder" / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for path in (tmp_path / "file" / "page.html", tmp_path / "file" / "further" / "page.html"):
        with pytest.raises(StorageError, match=rf"could not write {path}: a file stands where a folder is needed"):
            check_writable(path)
    with pytest.raises(StorageError, match=r"could not write /proc/page\.html: "):
        check_writable(Path("/proc/page.html"))
