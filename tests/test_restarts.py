"""Processes that torchrun starts again: they find one another, and know what those before them have come to.

The test keeps the store, as torchrun does; where it says so, torchrun itself starts them.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from processes import Several
from torch._C._distributed_c10d import HashStore, TCPStore

from recvae.compute.process_group import joined
from recvae.compute.ranks import Ranks, current
from recvae.compute.restarts import meet
from recvae.models import MultVAE
from recvae.runs import run
from recvae_cli.processes import one_voice

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and forks as POSIX has them")

Command = Callable[..., Any]
NETWORK = ("--set", "hidden_dims=16", "--set", "latent_dim=8", "--set", "batch_size=40", "--seed", "3")
TRAIN = ("train", *NETWORK, "--set", "epochs=2")
SECONDS = 180


@pytest.fixture
def kept() -> Iterator[dict[str, str]]:
    """Yield the environment of processes for which this one keeps a store, as torchrun does."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield {
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RUN_ID": "mine",
    }


def test_processes_meet_those_that_are_there_whoever_was_before_them() -> None:
    store, waiting = HashStore(), timedelta(seconds=20)
    found: list[set[str]] = []
    for lost in (2, 0, 1):  # which one comes no further than to say that it is there
        store.set(f"recvae process {lost}", f"lost-{lost}")
        names: list[str] = []

        def come(rank: int, names: list[str] = names) -> None:
            time.sleep(0.05 * rank)  # so that the first ones see some of those before
            names.append(meet(store, rank, 3, waiting))

        threads = [threading.Thread(target=come, args=(rank,)) for rank in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(names) == 3 and len(set(names)) == 1
        found.append(set(names))
    assert len(set.union(*found)) == 3, "each round has a name of its own"


def test_processes_that_do_not_come_are_not_waited_for_without_end() -> None:
    store = HashStore()
    with pytest.raises(RuntimeError, match=r"^2 processes were to come within 0:00:00.1\d*, and some have not$"):
        meet(store, 0, 2, timedelta(seconds=0.1))


def test_machines_that_count_their_restarts_differently_start_again_together(
    several: Several, kept: dict[str, str]
) -> None:
    """Where one machine loses a process, another may start its own again without counting that."""

    def come(counts: tuple[int, int], rank: int) -> Any:
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(counts[rank])
        with joined() as ranks:
            return ranks.restarts.before, ranks.gather(rank)

    for counts, before in (((0, 0), False), ((0, 1), True), ((2, 1), True), ((0, 0), True)):
        ended = several(2, partial(come, counts), seconds=60, **kept)
        assert [end.found for end in ended] == [(before, [0, 1])] * 2


def loses(patched: pytest.MonkeyPatch, rank: int, owner: Any, name: str, call: int = 1) -> None:
    """Have a process killed after it has called a function some times."""
    known, calls = getattr(owner, name), [0]

    def killed(*given: Any, **named: Any) -> Any:
        result = known(*given, **named)
        calls[0] += 1
        if current().rank == rank and calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    patched.setattr(owner, name, killed)


@pytest.mark.slow
@pytest.mark.parametrize("first_counts", [0, 1])
def test_a_run_is_continued_whichever_machine_has_counted(
    first_counts: int,
    several: Several,
    command: Command,
    kept: dict[str, str],
    toy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        loses(patched, 1, MultVAE, "_loss", 6)  # of 4 in an epoch
        first, second = several(2, lambda _: command(*TRAIN), **kept)
    assert toy.is_dir() and (first.found.code, second.code) == (1, -signal.SIGKILL)
    assert re.search(r"error: lost contact with another of the 2 processes \([^)]*\); `recvae", first.found.err)
    assert "typically" not in first.found.err and "reporting an error" not in first.found.err

    def again(rank: int) -> Any:
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(first_counts if rank == 0 else 1 - first_counts)
        return command(*TRAIN)

    first, second = (end.found for end in several(2, again, **kept))
    assert (first.code, second.code) == (0, 0)
    assert first.err.startswith("resuming multvae on data/toy -> runs/toy/multvae\n")
    assert [path.name for path in Path("runs/toy").iterdir()] == ["multvae"]


KINDS = [TRAIN, (*TRAIN, "--share", "items", "--shard-size", "1MB"), ("train", "--model", "ials")]


@pytest.mark.slow
@pytest.mark.parametrize("words", KINDS, ids=["users", "items", "ials"])
def test_a_run_that_was_saved_is_not_trained_again_where_another_process_is_lost_later(
    words: tuple[str, ...],
    several: Several,
    command: Command,
    kept: dict[str, str],
    toy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither does the first process, which needs the others no longer, call it an error."""
    assert toy.is_dir()
    with monkeypatch.context() as patched:
        loses(patched, 1, Ranks, "end")
        first, second = several(2, lambda _: command(*words), **kept)
    assert (first.found.code, second.code) == (0, -signal.SIGKILL)
    assert "saved to runs/toy/" in first.found.out and "error:" not in first.found.err
    saved = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    ended = several(2, lambda _: command(*words), **kept, TORCHELASTIC_RESTART_COUNT="1")
    first, second = (end.found for end in ended)
    assert (first.code, first.out, second) == (0, "", (0, "", ""))
    assert first.err == ("started again by torchrun: the run was saved before, so there is nothing to try again\n")
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == saved


@pytest.mark.slow
def test_a_run_whose_first_process_is_lost_after_it_has_saved_all_is_not_trained_again(
    several: Several, command: Command, kept: dict[str, str], toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        from recvae_cli import train

        loses(patched, 0, train, "_trained")
        first, second = several(2, lambda _: command(*TRAIN), **kept)
    assert toy.is_dir() and (first.code, second.found.code) == (-signal.SIGKILL, 1)
    ended = several(2, lambda _: command(*TRAIN), **kept, TORCHELASTIC_RESTART_COUNT="1")
    assert [end.found.code for end in ended] == [0, 0]
    assert [path.name for path in Path("runs/toy").iterdir()] == ["multvae"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--model", "ease"), 2, "got ease with 2 processes, which cannot share its users"),
        (("--data", "toy", "--set", "batch_size=1"), 2, "got 2 processes for 1 users per update"),
        (("--data", "cut"), 1, "is damaged"),
    ],
    ids=["model", "batch", "data"],
)
def test_what_was_refused_is_not_tried_again(
    words: tuple[str, ...], code: int, message: str, several: Several, command: Command, kept: dict[str, str], toy: Path
) -> None:
    shutil.copytree(toy, toy.with_name("cut"))
    (toy.with_name("cut") / "train.npz").write_bytes(b"no arrays")
    first, second = (end.found for end in several(2, lambda _: command("train", *words), **kept))
    assert (first.code, second.code) == (code, code) and message in first.err
    ended = several(2, lambda _: command("train", *words), **kept, TORCHELASTIC_RESTART_COUNT="1")
    first, second = (end.found for end in ended)
    assert (first.code, second) == (code, (code, "", ""))
    assert first.err == (
        "started again by torchrun: what was asked for is refused, and there is nothing to try again\n"
    )


@pytest.mark.slow
def test_what_may_go_well_another_time_is_tried_again(
    several: Several, command: Command, kept: dict[str, str], toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **named: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(run, "write_bundle", full)
        ended = several(2, lambda _: command(*TRAIN), **kept)
    assert toy.is_dir() and 0 not in [end.code or end.found.code for end in ended]
    ended = several(2, lambda _: command(*TRAIN), **kept, TORCHELASTIC_RESTART_COUNT="1")
    assert [end.found.code for end in ended] == [0, 0]
    assert json.loads(Path("runs/toy/multvae/recommender.json").read_text())["interrupted"] is False


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_a_process_that_trains_alone_says_so_whatever_a_scheduler_has_set(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with one_voice():
        typer.echo("one of several")
    monkeypatch.delenv(missing)
    with one_voice():
        typer.echo("alone")
    assert capsys.readouterr().out == "alone\n"


LOSES_ONE = """
import os, signal

from recvae.training.trainer import Trainer
from recvae_cli.app import main

epoch = Trainer._epoch

def lost(self, number, monitor):
    if number == 2 and self.ranks.rank == 1 and not self.ranks.restarts.before:
        os.kill(os.getpid(), signal.SIGKILL)
    return epoch(self, number, monitor)

Trainer._epoch = lost
main()
"""


@pytest.mark.large
def test_two_machines_start_again_where_one_of_them_loses_a_process(toy: Path, command: Command) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Path("loses_one.py").write_text(LOSES_ONE)
    words = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "2", "--rdzv-backend", "c10d"]
    words += ["--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "films", "loses_one.py", *TRAIN]
    typed, pipes = [sys.executable, "-m", "torch.distributed.run", *words], {"stdout": subprocess.PIPE, "text": True}
    machines = []
    for _ in range(2):
        how: dict[str, Any] = {**pipes, "stderr": subprocess.PIPE, "env": os.environ | {"OMP_NUM_THREADS": "1"}}
        machines.append(subprocess.Popen(typed, start_new_session=True, **how))
    try:
        said = [machine.communicate(timeout=SECONDS) for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert sum("resuming multvae on data/toy -> runs/toy/multvae\n" in err for _, err in said) == 1, said
    assert toy.is_dir() and [path.name for path in Path("runs/toy").iterdir()] == ["multvae"]
    assert command("inspect", "runs/toy/multvae").code == 0


@pytest.mark.slow
def test_what_is_typed_wrong_is_said_once_on_each_machine(several: Several, command: Command) -> None:
    """Before the processes have met, where each of them sees it."""
    for words, code, said in (
        (("train", "--bogus"), 2, "No such option: --bogus"),
        (("train", "--seed", "x"), 2, "Invalid value for '--seed'"),
        (("trian",), 2, "No such command 'trian'"),
        (("--version",), 0, "recvae "),
        (("train", "--help"), 0, "Usage: recvae train"),
    ):
        first, second = (end.found for end in several(2, lambda _, words=words: command(*words)))
        assert (first.code, second) == (code, (code, "", "")) and said in first.out + first.err

    def on_its_own_machine(rank: int) -> Any:
        os.environ["LOCAL_RANK"] = "0"
        return command("train", "--bogus")

    assert ["No such option" in end.found.err for end in several(2, on_its_own_machine)] == [True, True]
