"""`recvae serve` as a process: what it says, what signals do, and clients that break off or take their time."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from recvae.datasets.dataset import Dataset
from recvae.exports.writing import export
from recvae.models import Model
from recvae.recommenders.recommender import Recommender
from recvae.serving.server import _listen

HISTORY = {"items": [1000, 990, 980], "k": 3}
PATIENCE = 60  # seconds until a test gives up


class Server(NamedTuple):
    """A server of its own process."""

    process: "subprocess.Popen[str]"
    address: str
    said: str

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def ask(self, path: str = "/recommend", body: Any = HISTORY, token: str = "secret") -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.address + path, data, headers), timeout=30) as got:
                return got.status, json.load(got)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def version(self) -> str:
        return self.ask()[1]["version"]


@pytest.fixture(scope="module")
def start(program: list[str], warm_program: list[str]) -> Callable[..., Any]:
    """Return a function that starts a server and ends it after the block; one that starts processes does so itself."""

    @contextmanager
    def run(*arguments: object) -> Iterator[Server]:
        words = [*(program if "--workers" in arguments else warm_program), "serve", *map(str, arguments)]
        words += ["--port", "0", "--token", "secret"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)
        assert process.stderr is not None
        try:
            said = ""
            while "Application startup complete" not in said and "curl" not in said:
                line = process.stderr.readline()
                assert line, f"it ended with {process.wait()}: {said}"
                said += line
            found = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert found
            server = Server(process, found[0], said)
            deadline = time.monotonic() + PATIENCE
            while not _is_ready(server):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
            yield server
        finally:
            process.terminate()  # killed, it could not end its own processes, which hold the pipe open
            process.communicate(timeout=PATIENCE)

    return run


def _is_ready(server: Server) -> bool:
    try:
        return server.ask("/ready", None)[0] == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def run(fitted: Callable[[str], Model], blocks: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "toy" / "ease"
    Recommender(fitted("ease"), blocks).save(folder)
    return folder


@pytest.fixture(scope="module")
def server(start: Callable[..., Any], run: Path) -> Iterator[Server]:
    """Return a running server; do not end it."""
    with start(run, "--limit", "seconds=0.5") as server:
        yield server


def test_it_says_where_it_listens_and_what_to_do(server: Server, run: Path) -> None:
    assert f"serving {run} at {server.address} (stop with Ctrl-C)" in server.said
    assert f"open {server.address} in a browser" in server.said
    start = server.said.index(f"curl {server.address}/recommend -H 'Authorization: Bearer ...' --json '") + 1
    example = json.loads(server.said[start:].partition("--json '")[2].partition("'")[0])
    assert server.ask(body=example)[1]["unknown"] == []
    assert server.ask()[0] == 200 and server.ask(token="wrong")[0] == 401


def _exchange(server: Server, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send bytes as they are, and return what comes back until the other side ends."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass  # as it may be where more was sent than was read
        return answer


HEAD = b"POST /recommend HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Type: application/json\r\n"


def test_a_request_cut_off_half_way_harms_no_one(server: Server) -> None:
    for cut in (HEAD[:30], HEAD, HEAD + b"Content-Length: 100\r\n\r\n{", b"\x00\xff" * 50, b"GET /"):
        _exchange(server, cut)
    assert server.ask()[0] == 200


def test_a_request_that_trickles_in_is_given_up(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408") and server.ask()[0] == 200


@pytest.mark.parametrize("said", [b"Content-Length: 10000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_ten_megabytes_are_not_read(server: Server, said: bytes) -> None:
    chunk = b"F4240\r\n" + b"x" * 1_000_000 + b"\r\n" if b"chunked" in said else b"x" * 1_000_000
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(HEAD + said)
        try:
            for _ in range(10):
                connection.sendall(chunk)
        except OSError:
            pass  # it has hung up
        answer = b""
        try:
            answer = connection.recv(65536)
        except ConnectionResetError:
            pytest.skip("the answer was lost with the connection, as TCP has it")
    assert answer.startswith(b"HTTP/1.1 413") and server.ask()[0] == 200


def test_a_hangup_takes_up_the_new_version_and_refuses_a_broken_one(
    start: Callable[..., Any], run: Path, fitted: Callable[[str], Model], blocks: Dataset, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(run, tmp_path / "ease"))
    with start(own) as server:
        before = server.version()
        Recommender(fitted("multdae"), blocks).save(own)
        server.process.send_signal(signal.SIGHUP)
        after = _until_changed(server, before)
        (own / "weights.safetensors").write_bytes(b"broken")
        server.process.send_signal(signal.SIGHUP)
        assert server.ask("/reload", {})[0] == 409
        assert server.version() == after


def test_a_hangup_before_it_listens_does_not_end_it(warm_program: list[str], run: Path) -> None:
    with subprocess.Popen(
        [*warm_program, "serve", str(run), "--port", "0"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "serving" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)  # at once after the address was said
        assert any("startup complete" in line for line in process.stderr)
        process.terminate()
        process.communicate()


def _until_changed(server: Server, before: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while (version := server.version()) == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return version


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_before_it_ends(
    start: Callable[..., Any], run: Path, sign: signal.Signals
) -> None:
    with start(run, "--limit", "window_ms=700") as server, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.ask) for _ in range(4)]
        time.sleep(0.4)  # they are in the window, waiting for company
        server.process.send_signal(sign)
        assert [answer.result()[0] for answer in asked] == [200] * 4
        assert server.process.wait(PATIENCE) in (0, -sign, 130)
        said = server.process.stderr.read() if server.process.stderr else ""
        assert "Traceback" not in said


@pytest.mark.slow
def test_several_processes_answer_reload_and_count_as_one(
    start: Callable[..., Any], run: Path, fitted: Callable[[str], Model], blocks: Dataset, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(run, tmp_path / "ease"))
    with start(own, "--workers", 2) as server:
        before = server.version()
        Recommender(fitted("multdae"), blocks).save(own)
        assert server.ask("/reload", {})[0] == 200
        deadline = time.monotonic() + PATIENCE
        while {server.version() for _ in range(20)} & {before}:  # of whichever process answers
            assert time.monotonic() < deadline
            time.sleep(0.05)
        n_asked = 0
        request = urllib.request.Request(server.address + "/metrics", headers={"authorization": "Bearer secret"})
        for line in urllib.request.urlopen(request, timeout=30).read().decode().splitlines():
            if line.startswith('recvae_requests_total{path="/recommend",status="200"}'):
                n_asked = float(line.split()[-1])
        assert n_asked >= 21
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) in (0, -signal.SIGTERM)


@pytest.mark.slow
def test_a_process_that_cannot_serve_what_is_there_now_says_so_in_one_line(
    start: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(run, tmp_path / "ease"))
    with start(own, "--workers", 2) as server:
        assert server.process.stderr is not None
        said = server.said
        while said.count("startup complete") < 2:  # both have read what was whole
            said += server.process.stderr.readline()
        (own / "weights.safetensors").write_bytes(b"broken")
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        if not children.exists():
            pytest.skip("this system does not list a process's children")
        pids = [int(pid) for pid in children.read_text().split()]
        served = [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(served[-1], signal.SIGKILL)
        said = ""
        while "this process could not start" not in said:
            line = server.process.stderr.readline()
            assert line
            said += line
        assert "Traceback" not in said and "is damaged" in said
        assert server.ask()[0] == 200  # of the process that is left


def test_an_export_is_served_without_torch(fitted: Callable[[str], Model], blocks: Dataset, tmp_path: Path) -> None:
    Recommender(fitted("multvae"), blocks).save(tmp_path / "run")
    export(tmp_path / "run")
    code = (
        "import sys; sys.modules |= dict.fromkeys(['torch', 'scipy', 'pandas', 'pyarrow', 'implicit', 'safetensors'])\n"
        "sys.argv[1:] = ['serve', sys.argv[1], '--format', 'onnx', '--port', '0']\n"
        "from recvae_cli.app import main; main()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("startup complete" in line for line in process.stderr)
        process.terminate()
        process.communicate()


def test_mistakes_are_said_in_one_line(command: Callable[..., Any], run: Path, workplace: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = command("serve", run, "--port", taken.getsockname()[1])
    assert said.code == 2 and said.err.endswith(" is in use; choose another with --port\n")
    for words, expected in [
        (("none",), "none"),
        ((run, "--format", "tflite"), "got format 'tflite', expected one of torch, onnx, onnx-int8"),
        ((run, "--limit", "k"), "got --limit 'k', expected a number such as k=1000"),
        ((run, "--limit", "size=5"), "got --limit 'size=5', expected NAME=VALUE with one of window_ms, batch_users"),
        ((run, "--limit", "k=many"), "got --limit 'k=many', expected a number such as k=1000"),
        ((run, run), "twice, expected each run once"),
        ((run, "--host", "256.1.1.1"), "cannot listen on 256.1.1.1:"),
    ]:
        said = command("serve", *words)
        assert said.code == 2 and said.err.startswith("error: ") and expected in said.err, said.err
        assert said.err.count("\n") == 1


def test_without_its_libraries_it_says_what_to_install(run: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv = ['recvae', 'serve', sys.argv[1]]\n"
        "from recvae_cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'recvae[serve]'" in done.stderr and "Traceback" not in done.stderr


def test_who_connects_once_the_address_is_printed_is_not_refused() -> None:
    """The application starts after that, and uvicorn accepts connections after the application has started."""
    with (
        _listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname(), timeout=PATIENCE),
    ):
        pass
