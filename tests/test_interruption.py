"""Runs that are interrupted, ended by a scheduler or killed, as real processes, and how they go on."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recvae.datasets.preparation import Protocol, prepare_synthetic
from recvae.errors import BundleError
from recvae.recommenders.recommender import Recommender

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

SECONDS = 120  # until a process that does not get anywhere is given up
NETWORK = ("--set", "hidden_dims=64", "--set", "latent_dim=16", "--set", "patience=0", "--seed", "3")
EPOCHS = 25
# Steps this long make an early epoch the best: what is lost of it in a kill shows at the end.
SHORT = (*NETWORK, "--set", "batch_size=20", "--set", "learning_rate=0.01", "--set", f"epochs={EPOCHS}")
ENDLESS = (*NETWORK, "--set", "batch_size=20", "--set", "epochs=100000")
FINISHED = {"README.md", "items.parquet", "log.jsonl", "recommender.json", "weights.safetensors"}
RUN = Path("runs/films/multvae")

Command = Callable[..., Any]


def epochs_in(log: Path) -> list[int]:
    """Return the epochs of the whole lines of a log."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line)["epoch"] for line in lines if line.endswith("\n")]


def card() -> dict[str, Any]:
    return json.loads((RUN / "recommender.json").read_text())


def stopped(
    program: list[str], folder: Path, number: int, epochs: int, *words: str, run: Path = RUN
) -> tuple[int, str, str]:
    """Train in a folder until so many epochs are logged, then send a signal; return what the process said."""
    log = folder / run / "log.jsonl"
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*program, "train", *words], cwd=folder, env=one_thread, **pipes) as process:
        try:
            deadline = time.monotonic() + SECONDS
            while not log.exists() or len(epochs_in(log)) < epochs:
                assert process.poll() is None, f"it ended by itself: {process.communicate()}"
                assert time.monotonic() < deadline, f"no epoch {epochs} within {SECONDS} s"
                time.sleep(0.005)
            process.send_signal(number)
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    return process.returncode, out, err


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set on which an epoch takes about a tenth of a second."""
    folder = tmp_path_factory.mktemp("films")
    dataset = prepare_synthetic(Protocol(), name="films", n_users=1200, n_items=500, n_events=40_000).dataset
    dataset.save(folder / "data" / "films")
    return folder


@pytest.fixture
def here(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to work in, with the data set and no run."""
    monkeypatch.delenv("RECVAE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(films / "data", "data")
    return tmp_path


@pytest.fixture(scope="module")
def killed_once(films: Path, warm_program: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    shutil.copytree(films / "data", folder / "data")
    code, out, _ = stopped(warm_program, folder, signal.SIGKILL, 3, *SHORT)
    assert (code, out) == (-signal.SIGKILL, "")
    return folder


@pytest.fixture
def killed(killed_once: Path, here: Path) -> Path:
    """Return a folder to work in, with a run that was killed after some epochs."""
    shutil.copytree(killed_once / "runs", "runs")
    return here


@pytest.fixture(scope="module", params=[signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def interrupted_once(
    request: pytest.FixtureRequest, films: Path, warm_program: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[int, str, str]]:
    folder = tmp_path_factory.mktemp("interrupted")
    shutil.copytree(films / "data", folder / "data")
    return folder, stopped(warm_program, folder, request.param, 3, *ENDLESS)


@pytest.fixture
def interrupted(interrupted_once: tuple[Path, tuple[int, str, str]], here: Path) -> tuple[int, str, str]:
    """Go to a folder with a run that was interrupted after some epochs; return what it said."""
    shutil.copytree(interrupted_once[0] / "runs", "runs")
    return interrupted_once[1]


def test_an_interrupted_run_leaves_a_finished_bundle_that_says_so(
    interrupted: tuple[int, str, str], command: Command
) -> None:
    code, out, err = interrupted
    assert code == 0 and "Traceback" not in err
    assert "interrupted: the best weights so far are kept" in out and "saved to runs/films/multvae" in out
    assert card()["interrupted"] is True and "stopped by hand" in (RUN / "README.md").read_text()
    assert card()["training"]["epochs"] >= 3 and set(card()["metrics"]["validation"]) >= {"ndcg@100"}
    assert len(Recommender.load(RUN).recommend([], k=3)) == 3
    assert command("evaluate", "--baselines", "none").code == 0


def test_an_interrupted_run_goes_on_from_its_last_epoch(interrupted: tuple[int, str, str], command: Command) -> None:
    done = epochs_in(RUN / "log.jsonl")
    lines = (RUN / "log.jsonl").read_text().splitlines()
    said = command("train", "--resume", "--set", f"epochs={len(done) + 3}")
    assert said.code == 0 and "resuming multvae on data/films -> runs/films/multvae" in said.err
    assert card()["interrupted"] is False and card()["training"]["epochs"] == len(done) + 3
    assert {path.name for path in RUN.iterdir()} == FINISHED
    assert (RUN / "log.jsonl").read_text().splitlines()[: len(done)] == lines
    assert epochs_in(RUN / "log.jsonl") == list(range(1, len(done) + 4))
    assert command("train", "--resume").code == 2, "finished by now"


def test_an_interruption_before_the_first_epoch_is_over_leaves_nothing_and_says_so(
    here: Path, warm_program: list[str], command: Command
) -> None:
    code, out, err = stopped(warm_program, here, signal.SIGINT, 0, *NETWORK, "--set", "batch_size=1")
    assert (code, out) == (130, "") and "Traceback" not in err
    assert "interrupted; no epoch was finished, nothing is kept" in err
    assert not [path for path in here.rglob("runs/**/*") if path.is_file()]
    assert command("train", "--resume").code == 2


def test_a_killed_replacement_leaves_the_old_run_as_it_was_until_it_is_resumed(
    here: Path, warm_program: list[str], command: Command
) -> None:
    command("train", *NETWORK, "--set", "epochs=1")
    before = {path.name: path.read_bytes() for path in RUN.iterdir()}
    work = RUN.with_name(".multvae.new")
    code, _, _ = stopped(warm_program, here, signal.SIGKILL, 2, *ENDLESS, "--overwrite", run=work)
    assert code == -signal.SIGKILL and not (work / "recommender.json").exists()
    assert {path.name: path.read_bytes() for path in RUN.iterdir()} == before
    assert command("evaluate", "--baselines", "none").code == 0, "the old one is still found"
    done = len(epochs_in(work / "log.jsonl"))
    assert command("train", "--resume", "--set", f"epochs={done + 1}").code == 0
    assert not work.exists() and card()["training"]["epochs"] >= done + 1
    assert {path.name for path in RUN.iterdir()} == FINISHED


def test_a_killed_run_is_refused_with_a_way_out(killed: Path, command: Command) -> None:
    assert not (RUN / "recommender.json").exists() and (RUN / "checkpoint.safetensors").exists()
    for name in ("films/multvae", "runs/films/multvae"):
        said = command("evaluate", name)
        assert said.code == 1 and "continue it with `recvae train --resume`" in said.err and said.out == ""
    said = command("evaluate")
    assert said.code == 2 and "no run in runs" in said.err
    with pytest.raises(BundleError, match="has not finished; continue it with `recvae train --resume`"):
        Recommender.load(RUN)


@pytest.mark.slow
def test_a_run_killed_twice_ends_with_the_bytes_of_one_that_never_was(
    killed: Path, warm_program: list[str], shell: Command
) -> None:
    (RUN / ".checkpoint.safetensors.1.tmp").write_bytes(b"half of it")  # as if killed in the middle of writing
    code, _, _ = stopped(warm_program, killed, signal.SIGKILL, len(epochs_in(RUN / "log.jsonl")) + 5, "--resume")
    assert code == -signal.SIGKILL and len(epochs_in(RUN / "log.jsonl")) < EPOCHS
    assert shell("train", "--resume").code == 0  # a process that has nothing in common with the others
    assert subprocess.run([*warm_program, "train", *SHORT, "--name", "whole"], capture_output=True).returncode == 0
    whole = RUN.with_name("whole")
    for name in ("weights.safetensors", "items.parquet"):
        assert (RUN / name).read_bytes() == (whole / name).read_bytes(), name
    assert {path.name for path in RUN.iterdir()} == FINISHED
    assert epochs_in(RUN / "log.jsonl") == epochs_in(whole / "log.jsonl") == list(range(1, EPOCHS + 1))
    logs = [map(json.loads, (folder / "log.jsonl").read_text().splitlines()) for folder in (RUN, whole)]
    for ours, theirs in zip(*logs, strict=True):
        for timing in ("seconds", "users_per_second"):
            del ours[timing], theirs[timing]
        assert ours == theirs


def test_a_run_is_not_resumed_on_other_data(killed: Path, command: Command) -> None:
    before = {path.name: path.read_bytes() for path in RUN.iterdir()}
    shape = ("--users", 1200, "--items", 500, "--events", 40_000, "--name", "films")
    assert command("preprocess", "synthetic", *shape, "--seed", 1, "--overwrite").code == 0
    said = command("train", "--resume")
    assert said.code == 1 and "was started on data with fingerprint" in said.err and said.out == ""
    assert {path.name: path.read_bytes() for path in RUN.iterdir()} == before


@pytest.mark.parametrize("change", ["latent_dim=4", "seed=4", "batch_size=10", "nonsense=1"])
def test_a_run_is_not_resumed_with_other_hyperparameters(change: str, killed: Path, command: Command) -> None:
    before = {path.name: path.read_bytes() for path in RUN.iterdir()}
    said = command("train", "--resume", "--set", change)
    assert said.code == 2 and "only epochs and patience may change" in said.err
    assert change.partition("=")[0] in said.err
    assert {path.name: path.read_bytes() for path in RUN.iterdir()} == before


def test_a_run_may_be_resumed_with_more_epochs(killed: Path, command: Command) -> None:
    assert command("train", "--resume", "--set", f"epochs={EPOCHS + 2}", "--set", "patience=500").code == 0
    assert epochs_in(RUN / "log.jsonl") == list(range(1, EPOCHS + 3))
    assert (card()["hyperparameters"]["epochs"], card()["hyperparameters"]["patience"]) == (EPOCHS + 2, 500)
    assert card()["hyperparameters"]["latent_dim"] == 16, "as it was started"


def test_a_change_that_is_refused_is_not_kept(killed: Path, command: Command) -> None:
    before = json.loads((killed / RUN / "run.json").read_text())
    said = command("train", "--resume", "--set", "epochs=1")
    assert said.code == 2 and "but" in said.err and "are done already; expected" in said.err
    assert json.loads((killed / RUN / "run.json").read_text()) == before


def test_only_a_run_of_the_model_asked_for_is_resumed(killed: Path, command: Command) -> None:
    said = command("train", "--resume", "--model", "multdae")
    assert said.code == 2 and "no unfinished multdae run" in said.err


def test_a_resumed_run_keeps_its_place(killed: Path, command: Command) -> None:
    said = command("train", "--resume", "--overwrite")
    assert said.code == 2 and "a resumed run keeps its place" in said.err


def test_a_run_to_resume_may_be_named(killed: Path, command: Command) -> None:
    said = command("train", "--resume", "--name", "other")
    assert said.code == 2 and "no unfinished run other in runs" in said.err
    more = len(epochs_in(RUN / "log.jsonl")) + 1
    said = command("train", "--resume", "--name", "multvae", "--set", f"epochs={more}")
    assert said.code == 0 and epochs_in(RUN / "log.jsonl") == list(range(1, more + 1))


def test_fewer_epochs_than_are_done_are_refused(killed: Path, command: Command) -> None:
    said = command("train", "--resume", "--set", "epochs=1")
    assert said.code == 2 and "are done already" in said.err


def test_a_run_that_still_trains_is_left_alone(killed: Path, command: Command) -> None:
    import fcntl

    with (RUN / "run.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = command("train", "--resume")
        assert said.code == 2 and "no unfinished run" in said.err
        said = command("train", "--overwrite", *SHORT)
        assert said.code == 2 and "is being trained by another process" in said.err
    assert command("train", "--resume", "--set", f"epochs={len(epochs_in(RUN / 'log.jsonl')) + 1}").code == 0


def test_an_interrupted_run_does_not_replace_a_finished_one(
    warm_program: list[str], here: Path, command: Command
) -> None:
    assert command("train", *NETWORK, "--set", "epochs=2").code == 0
    whole = (RUN / "weights.safetensors").read_bytes()
    new = Path("runs/films/.multvae.new")
    code, out, _ = stopped(warm_program, here, signal.SIGINT, 2, "--overwrite", *ENDLESS, run=new)
    assert code == 0 and "saved to runs/films/multvae-2" in out
    assert (RUN / "weights.safetensors").read_bytes() == whole and not new.exists()
    more = len(epochs_in(RUN.with_name("multvae-2") / "log.jsonl")) + 1
    said = command("train", "--resume", "--name", "multvae-2", "--set", f"epochs={more}")
    assert said.code == 0 and "saved to runs/films/multvae-2" in said.out


def test_a_damaged_checkpoint_is_refused_with_a_way_out(killed: Path, command: Command) -> None:
    checkpoint = RUN / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    said = command("train", "--resume")
    assert said.code == 1 and "is damaged" in said.err and "train again without --resume" in said.err
    (RUN / "run.json").write_text("{}")
    said = command("train", "--resume")
    assert said.code == 1 and "run.json is damaged" in said.err


def test_there_may_be_nothing_to_resume(here: Path, command: Command) -> None:
    said = command("train", "--resume")
    assert said.code == 2 and "no unfinished run" in said.err and "without --resume" in said.err
    assert not Path("runs").exists()
