import errno
import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recvae.datasets import downloads
from recvae.datasets.catalog.known import CATALOG, KnownDataset
from recvae.datasets.downloads import download
from recvae.errors import DownloadError, StorageError


def made_up_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("ml-1m/ratings.dat"), b"1::30::5::1000\n" * 50_000)  # of a fixed date
    return buffer.getvalue()


BODY = made_up_zip()
MD5 = hashlib.md5(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.requests.append(self.path)
        if self.path == "/absent.zip":
            self.send_error(404)
        elif self.path == "/silent.zip":
            server.quitting.wait(10)
        else:
            body = b"<html>please log in</html>" if self.path == "/login.zip" else BODY
            self.send_response(200)
            if self.path != "/unsized.zip":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if self.path == "/truncated.zip" else body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests clean."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.quitting = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing where a client hung up, as some tests do on purpose."""

    def dataset(self, path: str = "/whole.zip", md5: str | None = MD5) -> KnownDataset:
        return replace(CATALOG["ml-1m"], url=f"http://127.0.0.1:{self.server_port}{path}", md5=md5)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running
        finally:
            running.quitting.set()
            running.shutdown()
            thread.join(timeout=10)


def test_success(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = download(server.dataset(), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "ml-1m.zip"
    assert path.read_bytes() == BODY
    assert [entry.name for entry in path.parent.iterdir()] == ["ml-1m.zip"]
    assert capfd.readouterr() == ("", "")


def test_progress_ends_at_the_total_and_never_goes_back(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[float, float | None]] = []
    download(server.dataset(), tmp_path, lambda done, total, _: seen.append((done, total)))
    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert seen[-1] == (len(BODY), len(BODY))
    assert {total for _, total in seen} == {len(BODY)}


def test_progress_without_a_known_total(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[float, float | None]] = []
    download(server.dataset("/unsized.zip"), tmp_path, lambda done, total, _: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] >= len(BODY)
    assert {total for _, total in seen} == {None}


@pytest.mark.parametrize("md5", [MD5, None], ids=["with its md5", "without"])
def test_finished_file_is_used_again_without_a_request(md5: str | None, server: Server, tmp_path: Path) -> None:
    first = download(server.dataset(md5=md5), tmp_path)
    assert download(server.dataset(md5=md5), tmp_path) == first
    assert server.requests == ["/whole.zip"]


def test_damaged_file_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "ml-1m.zip").write_bytes(BODY[:1000])
    assert download(server.dataset(), tmp_path).read_bytes() == BODY


def test_folder_with_a_tilde_is_taken_as_it_is(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert download(server.dataset(), Path("~")).is_file()
    assert (tmp_path / "~" / "ml-1m.zip").is_file()


def test_not_found(server: Server, tmp_path: Path) -> None:
    expected = (
        r"could not download ml-1m from http://127\.0\.0\.1:\d+/absent\.zip: the server answered 404 Not Found; "
        "try again later, or .*: recvae preprocess ml-1m --source PATH"
    )
    with pytest.raises(DownloadError, match=expected):
        download(server.dataset("/absent.zip"), tmp_path)
    assert not tmp_path.exists()


def test_wrong_hash_names_both_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    wrong = "0123456789abcdef" * 2
    with pytest.raises(DownloadError, match=rf"expected md5:{wrong} but got {MD5}; try again.*--source PATH"):
        download(server.dataset(md5=wrong), tmp_path)
    assert not tmp_path.exists()


def test_without_a_hash_it_must_at_least_be_a_zip(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="the downloaded file is not a zip; try again"):
        download(server.dataset("/login.zip", md5=None), tmp_path)
    assert not tmp_path.exists()


def test_connection_refused(server: Server, tmp_path: Path) -> None:
    with socket.socket() as deaf:  # bound but not listening, so that nobody else can answer on its port
        deaf.bind(("127.0.0.1", 0))
        known = replace(server.dataset(), url=f"http://127.0.0.1:{deaf.getsockname()[1]}/whole.zip")
        with pytest.raises(DownloadError, match="no connection to the server, or it was lost; try again"):
            download(known, tmp_path)
    assert not tmp_path.exists()


def test_truncated_body(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="the connection was lost before the end; try again"):
        download(server.dataset("/truncated.zip"), tmp_path)
    assert not tmp_path.exists()


def test_silent_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_SECONDS", 0.2)
    with pytest.raises(DownloadError, match=r"the server did not answer within 0\.2 seconds; try again"):
        download(server.dataset("/silent.zip"), tmp_path)
    assert not tmp_path.exists()


def test_interrupted(server: Server, tmp_path: Path) -> None:
    def interrupt(done: float, total: float | None, note: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.dataset(), tmp_path, interrupt)
    assert not tmp_path.exists()


def test_disk_full(server: Server, tmp_path: Path) -> None:
    def fill_the_disk(done: float, total: float | None, note: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=r"could not write .*ml-1m\.zip: No space left on device; free some space"):
        download(server.dataset(), tmp_path, fill_the_disk)
    assert not tmp_path.exists()


def test_folder_is_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match=r"could not write .*ml-1m\.zip: .*; free some space or choose another"):
        download(server.dataset(), tmp_path / "file")
