"""`recvae train` in several processes: one run, one voice, one exit code; and what torchrun does when one is lost."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from recvae.compute.ranks import current
from recvae.datasets.preparation import Protocol, prepare_synthetic
from recvae.models import MultVAE

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and forks as POSIX has them")

Several = Callable[..., list[Any]]
Command = Callable[..., Any]

NETWORK = ("--set", "hidden_dims=16", "--set", "latent_dim=8", "--set", "batch_size=40", "--seed", "3")
TRAIN = ("train", *NETWORK, "--set", "epochs=3")
SECONDS = 180  # until a process that does not get anywhere is given up
BUNDLE = {"README.md", "items.parquet", "log.jsonl", "recommender.json", "weights.safetensors"}


@pytest.fixture
def together(several: Several, command: Command, toy: Path) -> Callable[..., list[Any]]:
    """Return a function that types a command in n processes; each has ended as `command` says."""

    def run(n: int, *words: object, before: Callable[[int], None] = lambda _: None, **environment: str) -> list[Any]:
        def typed(rank: int) -> Any:
            before(rank)
            return command(*words)

        ended = several(n, typed, **environment)
        assert [one.code for one in ended] == [0] * n, ended
        return [one.found for one in ended]

    return run


def weights(name: str) -> dict[str, np.ndarray]:
    return load_file(f"runs/toy/{name}/weights.safetensors")


def check_near(name: str, other: str) -> None:
    """Check that two runs have the same weights to rounding, which Adam makes larger where a gradient is almost 0."""
    for key, value in weights(other).items():
        np.testing.assert_allclose(weights(name)[key], value, rtol=0, atol=5e-4 * np.abs(value).max(), err_msg=key)
    logs = [Path(f"runs/toy/{run}/log.jsonl").read_text().splitlines() for run in (name, other)]
    for one, two in ((json.loads(line), json.loads(wanted)) for line, wanted in zip(*logs, strict=True)):
        assert (one["epoch"], one["best"], one["beta"]) == (two["epoch"], two["best"], two["beta"])
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
        assert one["ndcg"] == pytest.approx(two["ndcg"], abs=1e-3)


def tree(folder: str = ".") -> set[str]:
    return {str(path) for path in Path(folder).rglob("*")}


def test_several_processes_leave_the_run_of_one_and_the_first_speaks(together: Any, command: Command) -> None:
    expected = command(*TRAIN, "--name", "one")
    first, *others = together(3, *TRAIN, "--name", "three")
    assert (first.code, expected.code) == (0, 0)
    assert first.err.splitlines()[0] == "training multvae on data/toy -> runs/toy/three"
    assert first.out.splitlines()[:2] == expected.out.splitlines()[:2]
    assert [(other.code, other.out, other.err) for other in others] == [(0, "", "")] * 2
    assert {path.name for path in Path("runs/toy/three").iterdir()} == BUNDLE
    assert {path.name for path in Path("runs/toy").iterdir()} == {"one", "three"}
    check_near("three", "one")


def test_it_finds_beta_resumes_and_refits_as_one_process_does(together: Any, command: Command) -> None:
    words = ("--find-beta", "--select-by", "recall@20")
    assert command(*TRAIN, *words, "--name", "one").code == 0
    assert [end.code for end in together(2, *TRAIN, *words, "--name", "two")] == [0, 0]
    check_near("two", "one")
    found = [json.loads(Path(f"runs/toy/{name}/recommender.json").read_text()) for name in ("one", "two")]
    assert found[0]["hyperparameters"]["beta"] == found[1]["hyperparameters"]["beta"] != 0.2
    assert found[1]["training"]["select_by"] == "recall@20"
    assert command("train", "--refit", "one").code == 0
    first, second = together(2, "train", "--refit", "two")
    assert (first.code, second, "saved to runs/toy/two-refit" in first.out) == (0, (0, "", ""), True)
    check_near("two-refit", "one-refit")


def test_processes_that_share_items_leave_the_run_of_one(together: Any, command: Command) -> None:
    words, items = ("--find-beta", "--select-by", "recall@20"), ("--share", "items")
    assert command(*TRAIN, *words, "--name", "one").code == 0
    first, *others = together(3, *TRAIN, *words, *items, "--name", "three")
    assert (first.code, others) == (0, [(0, "", "")] * 2)
    assert {path.name for path in Path("runs/toy/three").iterdir()} == BUNDLE
    check_near("three", "one")
    found = [json.loads(Path(f"runs/toy/{name}/recommender.json").read_text()) for name in ("one", "three")]
    assert found[0]["hyperparameters"] == found[1]["hyperparameters"]
    assert found[0]["metrics"]["validation"] == pytest.approx(found[1]["metrics"]["validation"], abs=1e-6)
    assert command("train", "--refit", "one").code == 0
    first, second = together(2, "train", "--refit", "three", *items, "--shard-size", "1MB")
    assert (first.code, second, "saved to runs/toy/three-refit" in first.out) == (0, (0, "", ""), True)
    folder = Path("runs/toy/three-refit")
    assert {path.name for path in folder.iterdir()} == BUNDLE - {"weights.safetensors"} | {
        "weights-00001-of-00001.safetensors",
        "weights.safetensors.index.json",
    }
    shutil.copy(folder / "weights-00001-of-00001.safetensors", folder / "weights.safetensors")
    check_near("three-refit", "one-refit")
    (folder / "weights.safetensors").unlink()
    shown = [command("recommend", f"runs/toy/{name}-refit", "--items", "1,2", "--json") for name in ("one", "three")]
    lists = [[item["id"] for item in json.loads(one.out)["items"]] for one in shown]
    assert [one.code for one in shown] == [0, 0] and lists[0] == lists[1]
    assert command("inspect", str(folder)).code == 0
    (folder / "weights-00001-of-00001.safetensors").unlink()
    damaged = command("recommend", str(folder), "--items", "1,2")
    assert damaged.code == 1 and "weights-00001-of-00001.safetensors should have" in damaged.err


def test_what_cannot_be_shared_by_items_is_refused_before_anything_is_written(together: Any, command: Command) -> None:
    before = tree()
    for words, message in (
        (("--share", "rows"), "got --share rows, expected one of users, items"),
        (("--share", "items"), "got --share items with one process, which has nobody to share with; start several "),
        (("--shard-size", "5"), "got --shard-size 5, which is 5 bytes, expected 1MB or more, such as 5GB"),
    ):
        refused = command(*TRAIN, *words)
        assert refused.code == 2 and message in refused.err and tree() == before
    for words, message in (
        (
            ("--model", "hvamp"),
            "got hvamp with 2 processes, which cannot share its items; train it with one process, or",
        ),
        (
            ("--set", "sampling=uniform"),
            "which cannot share its items with sampling=uniform; leave that out, ",
        ),
        (
            ("--shard-size", "5GB", "--tensorboard"),
            "with --share items and --shard-size, where no process ",
        ),
    ):
        first, second = together(2, "train", *words, "--share", "items")
        assert (first.code, first.out, second) == (2, "", (2, "", "")), first
        assert message in first.err and tree() == before


OWN = """
from typing import ClassVar

from recvae.models import MultVAE

def less(ranked, targets, k):
    return [-targets[user, items[items >= 0]].sum() for user, items in enumerate(ranked)]

class Mine(MultVAE):
    name: ClassVar[str] = "mine"
    shares_users: ClassVar[bool] = True

class NotMine(MultVAE):
    name: ClassVar[str] = "notmine"
"""


@pytest.fixture
def own(workplace: Path) -> Iterator[None]:
    (workplace / "my_code.py").write_text(OWN)
    yield
    sys.modules.pop("my_code", None)


@pytest.mark.usefixtures("own")
def test_a_model_and_a_metric_of_your_own_are_those_of_one_process(together: Any, command: Command) -> None:
    words = ("train", "--model", "my_code:Mine", *NETWORK, "--set", "epochs=3", "--select-by", "my_code:less@5")
    assert command(*words, "--name", "one").code == 0
    assert [(end.code, end.err) for end in together(2, *words, "--name", "two")][1] == (0, "")
    check_near("two", "one")
    cards = [json.loads(Path(f"runs/toy/{name}/recommender.json").read_text()) for name in ("one", "two")]
    assert [card["training"]["select_by"] for card in cards] == ["my_code:less@5"] * 2
    first, second = together(2, *words[:2], "my_code:NotMine", *words[3:])
    assert (first.code, second) == (2, (2, "", "")) and "got notmine with 2 processes, which cannot share" in first.err
    first, second = together(2, "train", "--set", "batch_size=1")
    assert (first.code, second) == (2, (2, "", "")) and "got 2 processes for 1 users per update" in first.err


def test_what_is_refused_is_refused_by_all_with_one_message(together: Any, command: Command) -> None:
    shutil.copytree("data/toy", "elsewhere/toy")
    shutil.copytree("data/toy", "data/other")
    assert command("train", "--model", "ease", "--set", "l2=5", "--name", "done").code == 0
    before = tree()
    for n, code, words, message in (
        (2, 2, ("train", "--model", "ease"), "got ease with 2 processes, which cannot share its users; train it with "),
        (2, 2, ("train", "--refit", "done"), "got ease with 2 processes, which cannot share its users; "),
        (3, 2, ("train", "--set", "batch_size=2"), "got 3 processes for 2 users per update, expected at most one for "),
        (2, 2, ("train", "--set", "latent_dim=0"), "got latent_dim=0, expected "),
        (2, 2, ("train", "--data", "nothing"), "no data set 'nothing' in data"),
        (2, 2, ("train", "--resume"), "no unfinished run in runs; train without --resume"),
        (2, 1, (*TRAIN, "--max-memory", "100kB"), "multvae on 1"),
        (2, 2, ("evaluate",), "got 2 processes for `recvae evaluate`, expected one: only `recvae train` shares its wo"),
        (2, 2, ("tune", "--trials", "1"), "got 2 processes for `recvae tune`, expected one: only `recvae train` "),
    ):
        first, *others = together(n, *words)
        assert (first.code, first.out, first.err.count("error: ")) == (code, "", 1), first
        assert message in first.err and "Traceback" not in first.err
        assert [(other.code, other.out, other.err) for other in others] == [(code, "", "")] * (n - 1)
        assert tree() == before


def test_a_process_without_the_data_is_named(together: Any) -> None:
    def move(rank: int) -> None:
        if rank == 1:
            Path("empty").mkdir()
            os.chdir("empty")

    first, second = together(2, *TRAIN, before=move)
    assert (first.code, second) == (2, (2, "", ""))
    assert "error: no data set" in first.err and " (in process 1 of 2, on " in first.err
    assert not Path("runs").exists() or not list(Path("runs").rglob("*.json"))


def test_a_disk_that_is_full_for_the_first_process_ends_all(together: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from recvae.errors import StorageError
    from recvae.training.checkpoints import Checkpoint

    def full(*_: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(Checkpoint, "save", full)
    first, second = together(2, *TRAIN)
    assert (first.code, second) == (1, (1, "", ""))
    assert first.err.splitlines()[-1] == "error: the disk is full"


def test_a_bug_in_one_process_shows_where_it_is_and_ends_all(
    several: Several, command: Command, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = MultVAE._loss

    def loss(*of_batch: Any) -> Any:
        if current().rank == 1:
            raise ZeroDivisionError("a bug")
        return found(*of_batch)

    monkeypatch.setattr(MultVAE, "_loss", loss)
    first, second = several(2, lambda _: command(*TRAIN))
    assert (first.code, first.found.code) == (0, 1)
    assert "error: a process of 2 has failed with ZeroDivisionError: a bug (in process 1 of 2, on " in first.found.err
    assert second.code == 1 and "ZeroDivisionError: a bug" in second.err and "Traceback" in second.err


def test_memory_that_runs_out_leaves_the_best_weights_and_an_interruption_too(
    together: Any, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, calls = MultVAE._loss, [0]

    def acts(act: Callable[[], None]) -> Callable[..., Any]:
        def loss(*of_batch: Any) -> Any:
            calls[0] += 1
            if current().rank == 1 and calls[0] == 6:  # of 4 in an epoch
                act()
            return found(*of_batch)

        return loss

    def shortage() -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(MultVAE, "_loss", acts(shortage))
        first, second = together(2, *TRAIN, "--name", "short")
    assert (first.code, second) == (1, (1, "", ""))
    assert "error: memory ran out at update 6 (epoch 2); use a batch_size below 40 and train again; the " in first.err
    assert "run `recvae train --resume` to continue" in first.err
    with monkeypatch.context() as patched:
        patched.setattr(MultVAE, "_loss", acts(lambda: os.kill(os.getpid(), signal.SIGINT)))
        first, second = together(2, *TRAIN, "--name", "stopped")
    assert (first.code, second) == (0, (0, "", ""))
    assert "interrupted: the best weights so far are kept; run `recvae train --resume` to continue" in first.out
    assert command(*TRAIN, "--name", "whole").code == 0
    assert command("train", "--resume", "--name", "short").code == 0
    check_near("short", "whole")
    assert [end.code for end in together(3, "train", "--resume", "--name", "stopped")] == [0, 0, 0]
    check_near("stopped", "whole")
    assert not [path for path in tree("runs") if "checkpoint" in path or "run.json" in path]


def test_a_resumed_run_keeps_the_size_of_its_files(
    together: Any, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recvae.training.monitors import LogFile

    write = LogFile.epoch

    def stopped(self: LogFile, record: Any) -> Any:
        if record.epoch == 2:
            raise KeyboardInterrupt
        return write(self, record)

    with monkeypatch.context() as patched:
        patched.setattr(LogFile, "epoch", stopped)
        for name in ("typed", "kept", "other", "shown"):
            command(*TRAIN, "--name", name, "--shard-size", "1MB")
    state = Path("runs/toy/kept/run.json")
    assert json.loads(state.read_text())["file_bytes"] == 1_000_000
    assert command("train", "--resume", "--name", "kept").code == 0
    assert command("train", "--resume", "--name", "typed", "--shard-size", "2MB").code == 0
    assert [end.code for end in together(2, "train", "--resume", "--name", "other", "--share", "items")] == [0, 0]
    for name in ("typed", "kept", "other"):
        files = {path.name for path in Path("runs/toy", name).iterdir()} - BUNDLE
        assert files == {"weights-00001-of-00001.safetensors", "weights.safetensors.index.json"}
        assert not Path("runs/toy", name, "weights.safetensors").exists()
    state = Path("runs/toy/shown/run.json")
    state.write_text(json.dumps(json.loads(state.read_text()) | {"tracking": {"tensorboard": "tb"}}))
    first, second = together(2, "train", "--resume", "--name", "shown", "--share", "items")
    assert (first.code, second) == (
        2,
        (2, "", ""),
    ) and "or one of the others where the run was begun with it" in first.err
    state.write_text(json.dumps(json.loads(state.read_text()) | {"file_bytes": "much"}))
    refused = command("train", "--resume", "--name", "shown")
    assert refused.code == 1 and "is damaged (TypeError(\"file_bytes is 'much'\"))" in refused.err


def test_a_restart_continues_the_run_of_the_same_call_and_no_other(
    several: Several, together: Any, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, calls = MultVAE._loss, [0]

    def loss(*of_batch: Any) -> Any:
        calls[0] += 1
        if current().rank == lost and calls[0] == 6:  # of 4 in an epoch
            os.kill(os.getpid(), signal.SIGKILL)
        return found(*of_batch)

    with monkeypatch.context() as patched:
        patched.setattr(MultVAE, "_loss", loss)
        lost = 1
        first, second = several(2, lambda _: command(*TRAIN), TORCHELASTIC_RUN_ID="mine")
        assert (first.found.code, second.code) == (1, -signal.SIGKILL)
        assert "error: lost contact with another of the 2 processes (" in first.found.err
        lost = 0
        first, second = several(2, lambda _: command(*TRAIN), TORCHELASTIC_RUN_ID="another")
        assert (first.code, second.found) == (-signal.SIGKILL, (1, "", ""))
    again = {"TORCHELASTIC_RUN_ID": "mine", "TORCHELASTIC_RESTART_COUNT": "1"}
    first, second, _ = together(3, *TRAIN, **again)
    assert (first.code, second) == (0, (0, "", ""))
    assert first.err.startswith("resuming multvae on data/toy -> runs/toy/multvae\n")
    assert command(*TRAIN, "--name", "whole").code == 0
    check_near("multvae", "whole")
    for words in ((*TRAIN, "--seed", "4"), TRAIN):  # another run, and one that is finished: nothing to continue
        first, _ = together(2, *words, **again)
        assert first.code == 0 and first.err.startswith("training multvae on data/toy -> runs/toy/multvae-")
    assert json.loads(Path("runs/toy/multvae-2/run.json").read_text())["job"] == "another"


# What torchrun itself does


def torchrun(*words: str, n: int = 2, **how: Any) -> subprocess.Popen[str]:
    """Start `recvae` by torchrun in this folder."""
    typed = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n), *words]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(typed, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes, **how)


def wait_for_epochs(process: subprocess.Popen[str], log: Path, n: int) -> None:
    deadline = time.monotonic() + SECONDS
    while not log.exists() or log.read_text().count("\n") < n:
        assert process.poll() is None, f"it ended by itself: {process.communicate()}"
        assert time.monotonic() < deadline, f"no epoch {n} within {SECONDS} s"
        time.sleep(0.01)


def process_of(rank: int, parent: int) -> int:
    """Return the process id of a rank that torchrun has started."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_child = folder.name.isdigit() and f"\nPPid:\t{parent}\n" in (folder / "status").read_text()
            if is_child and f"\0RANK={rank}\0" in f"\0{(folder / 'environ').read_text()}":
                return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.fixture
def films(workplace: Path) -> Path:
    """Return a folder with data on which an epoch takes long enough to be interrupted."""
    dataset = prepare_synthetic(Protocol(), name="films", n_users=1200, n_items=500, n_events=40_000).dataset
    dataset.save(workplace / "data" / "films")
    return workplace


LONGER = (*NETWORK, "--set", "epochs=12", "--set", "patience=0")
pytest_linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")


@pytest.mark.slow
@pytest_linux
def test_torchrun_starts_again_where_a_process_is_lost_and_the_run_continues(films: Path, command: Command) -> None:
    with torchrun("--max-restarts", "1", "-m", "recvae", "train", *LONGER) as process:
        try:
            wait_for_epochs(process, Path("runs/films/multvae/log.jsonl"), 2)
            os.kill(process_of(1, process.pid), signal.SIGKILL)
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert "error: lost contact with another of the 2 processes (" in err
    assert "resuming multvae on data/films -> runs/films/multvae" in err
    assert "best epoch " in out and [path.name for path in Path("runs/films").iterdir()] == ["multvae"]
    assert command("train", *LONGER, "--name", "whole").code == 0
    shutil.move("runs/films", "runs/toy")
    check_near("multvae", "whole")


@pytest.mark.large
@pytest_linux
def test_ctrl_c_at_torchrun_keeps_the_best_weights(films: Path, command: Command) -> None:
    endless = (*NETWORK, "--set", "epochs=100000", "--set", "patience=0")
    with torchrun("-m", "recvae", "train", *endless) as process:
        try:
            wait_for_epochs(process, Path("runs/films/multvae/log.jsonl"), 2)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert "interrupted: the best weights so far are kept; run `recvae train --resume` to continue" in out
    card = json.loads(Path("runs/films/multvae/recommender.json").read_text())
    assert card["interrupted"] and card["training"]["epochs"] >= 2
    assert command("inspect", "runs/films/multvae").code == 0


THREADS = """
from pathlib import Path

import torch

from recvae.compute.process_group import joined

with joined() as ranks:
    weight = torch.nn.Parameter(torch.ones(3))
    torch.optim.Adam([weight])  # which imports what takes the group as a default
    ranks.check()
names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in names if "gloo" in name], names
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux tells the threads of a process")
def test_no_thread_of_the_group_is_left_to_abort_a_process_that_has_ended_well() -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*words, "--no-python", sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
