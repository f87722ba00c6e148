"""`recvae tune` as a user types it: what it prints, what it refuses, and how it stops and goes on."""

import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recvae.bundles.bundle import read_bundle
from recvae.bundles.card import read_card
from recvae.models import ALS, MultDAE
from recvae.models.common.hyperparameters import Range, Space
from recvae.tuning import (
    COMPLETE,
    FAILED,
    PRUNED,
    Trial,
)
from recvae_cli.tune import _Progress

Command = Callable[..., Any]


TINY: dict[str, Space] = {
    "multdae": {"hidden_dims": ((), (12, 8)), "learning_rate": Range(1e-3, 3e-2, log=True), "latent_dim": Range(4, 16)},
    "als": {"factors": (4, 8), "alpha": (2.0, 12.345678901234567)},
}
FAST = ("--set", "epochs=3", "--set", "batch_size=40")


@pytest.fixture
def tiny(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a data set, to work in; spaces are small."""
    monkeypatch.setattr(MultDAE, "space", TINY["multdae"])
    monkeypatch.setattr(ALS, "space", TINY["als"])
    return toy


@pytest.mark.parametrize(
    ("model", "words"), [("multdae", (*FAST, "--seed", 3)), ("als", ("--set", "iterations=4"))], ids=["multdae", "als"]
)
def test_the_printed_line_makes_the_same_weights_again(
    model: str, words: tuple[str, ...], tiny: Path, command: Command
) -> None:
    said = command("tune", "--model", model, "--trials", 4, *words)
    assert said.code == 0, said.err
    line = next(line for line in said.out.splitlines() if line.startswith("  recvae train"))
    assert all(f"{word}" in line for word in words if "=" in str(word)) and ("seed=3" in line) == (model == "multdae")
    trained = command(*shlex.split(line)[1:])
    assert trained.code == 0, trained.err
    first, again = (Path("runs/toy") / name for name in (f"{model}-tuned", model))
    assert (first / "weights.safetensors").read_bytes() == (again / "weights.safetensors").read_bytes()
    cards = [json.loads((folder / "recommender.json").read_text()) for folder in (first, again)]
    for same in ("hyperparameters", "metrics", "interrupted"):
        assert cards[0][same] == cards[1][same]
    evaluate = shlex.split(said.err.rpartition("next: ")[2])
    assert evaluate == ["recvae", "evaluate", f"runs/toy/{model}-tuned"]
    assert command(*evaluate[1:], "--baselines", "none").code == 0


def test_the_command_goes_on_and_says_how_it_stands(tiny: Path, command: Command) -> None:
    words = ("tune", "--model", "multdae", *FAST, "--data", "toy", "--runs-dir", "my runs")
    first = command(*words, "--trials", 2)
    assert "trials: 2 complete; the best by validation ndcg@100:" in first.out
    assert "trial 2/2: ndcg@100 0." in first.err and "best so far 0." in first.err
    assert "tuning multdae on data/toy, its study is in data/toy/studies/multdae" in first.err
    assert "all 2 trials were done; increase --trials to continue" in first.err and "Traceback" not in first.err
    assert "--runs-dir 'my runs'" in first.out and "saved to my runs/toy/multdae-tuned" in first.out
    more = json.loads(command(*words, "--trials", 3, "--json", "--name", "mine").out)
    assert more["trials"] == {"complete": 3, "pruned": 0, "failed": 0} and more["folder"] == "my runs/toy/mine"
    assert more["ended"] == "all done" and more["train"].startswith("recvae train --model multdae --data toy --set ")
    assert [trial["ndcg"] for trial in more["top"]] == sorted((t["ndcg"] for t in more["top"]), reverse=True)
    again = command(*words, "--trials", 3)
    assert "trial 3/3" not in again.err and "all 3 trials were done before" in again.err
    assert sorted(path.name for path in Path("my runs/toy").iterdir()) == ["mine", "multdae-tuned"]
    best = [read_card(Path("my runs/toy") / name)["hyperparameters"] for name in ("mine", "multdae-tuned")]
    assert best[0] == best[1]  # the run of the first two trials was renewed
    fresh = command(*words, "--trials", 1, "--fresh", "--set", "latent_dim=5")
    assert "trial 1/1" in fresh.err and "saved to my runs/toy/multdae-tuned-2" in fresh.out
    assert "latent_dim=5" in fresh.out and "│ latent_dim" not in fresh.out
    said = command("tune", "--model", "als", "--trials", 30)
    assert "every point of the search space was tried" in said.err and "trial 4/4" in said.err


def test_on_a_terminal_the_bar_has_the_best_so_far_and_elsewhere_each_trial_has_a_line() -> None:
    said: list[Any] = []

    class Bar:
        def __call__(self, *words: Any) -> None:
            said.append(words)

        def line(self, text: str) -> None:
            said.append(text)

    best = Trial(number=1, key=0, state=COMPLETE, value=0.25, settings={"layers": (7, 5), "kind": None}, seconds=2.0)
    pruned = replace(best, number=2, state=PRUNED, value=0.125, epochs=3)
    failed = replace(best, number=3, state=FAILED, value=None, error="the loss became nan")
    for live in (True, False):
        progress = _Progress(Bar())  # type: ignore[arg-type]
        progress._live = live
        progress.advance(0.5, 3, None)
        progress.advance(1.5, 3, best)
        for trial in (best, pruned, failed):
            progress.trial(trial, 3, best)
    settings = "layers=7,5 kind=none"
    assert said == [
        (0.5, 3, "trial 1/3"),
        (1.5, 3, f"trial 2/3  best ndcg@100 0.2500  {settings}"),
        f"trial 1/3: ndcg@100 0.2500  {settings} (2.0 s); best so far 0.2500, trial 1",
        f"trial 2/3: ndcg@100 0.1250, pruned after epoch 3  {settings} (2.0 s); best so far 0.2500, trial 1",
        f"trial 3/3: nothing  {settings} (2.0 s), failed: the loss became nan; best so far 0.2500, trial 1",
    ]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "svd"], "got model 'svd', expected one of"),
        (["--model", "popularity"], "popularity has nothing to tune"),
        (["--trials", "0"], "got trials 0, expected a whole number, 1 or more"),
        (["--timeout", "soon"], "got --timeout 'soon', expected a time above 0 such as 90, 90s, 10m, 2h or 1d"),
        (["--timeout", "0"], "got --timeout '0', expected"),
        (["--timeout", "-5m"], "got --timeout '-5m', expected"),
        (["--timeout", "nan"], "got --timeout 'nan', expected"),
        (["--set", "latnt_dim=8"], "did you mean latent_dim?"),
        (["--set", "latent_dim"], "expected name=value"),
        (["--seed", "-1"], "got seed=-1"),
        (["--data", "none"], "no data set 'none'"),
        (["--name", "a/b"], "got name 'a/b'"),
        (["--device", "gpu"], "got device 'gpu'"),
        (["--name", "taken", "--overwrite"], "holds files of another kind (no recommender.json)"),
        (["--set", "epochs=5"], "holds a study of something else (epochs: 3, now 5)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_tuning_is_refused_and_changes_nothing(
    words: list[str], said: str, tiny: Path, command: Command
) -> None:
    Path("runs/toy/taken").mkdir(parents=True)
    Path("runs/toy/taken/thesis.tex").write_text("the only copy")
    if "epochs=5" in words:
        assert command("tune", "--model", "multdae", *FAST, "--trials", 1).code == 0
    before = tree(Path())
    given = words if "--model" in words else ["--model", "multdae", *FAST, *words]
    found = command("tune", *given)
    assert (found.code, found.out) == (2, "") and said in found.err and found.err.count("error: ") == 1
    assert tree(Path()) == before


def test_a_time_may_have_a_unit(tiny: Path, command: Command) -> None:
    for text in ("90", "90s", "10m", "1.5h", " 2H ", "1d"):
        assert command("tune", "--model", "als", "--trials", 1, "--timeout", text, "--overwrite").code == 0, text
    said = command("tune", "--model", "multdae", "--timeout", "0.000001s", *FAST)
    assert said.code == 1 and "no trial finished within --timeout" in said.err
    command("tune", "--model", "multdae", "--trials", 1, *FAST)
    said = command("tune", "--model", "multdae", "--timeout", "0.000001s", "--fresh", "--set", "epochs=1")
    assert said.code == 1, "nothing was kept of the older study"


def test_the_help_has_examples_and_needs_no_library() -> None:
    code = (
        "import sys\nfrom recvae_cli.app import app\n"
        "try:\n    app(['tune', '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(sorted({'torch', 'optuna', 'recvae'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "[]") and "Examples:" in done.stdout


def finished_trials(database: Path) -> int:
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT COUNT(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')").fetchone()[0]


REAL = ("tune", "--model", "multdae", "--trials", "5", "--set", "epochs=10", "--set", "batch_size=10")


def story(command: Command, name: str) -> tuple[dict[str, Any], bytes]:
    """Tune to the end; return what is said, without the seconds, and the weights of the best."""
    said = json.loads(command(*REAL, "--json", "--name", name).out)
    for trial in said["top"]:
        trial.pop("seconds")
    return {key: said[key] for key in ("trials", "top", "train")}, Path(
        f"runs/toy/{name}/weights.safetensors"
    ).read_bytes()


@pytest.fixture(scope="module")
def straight(
    toy_data: Path, command: Command, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], bytes]:
    """Return what comes of tuning without a stop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("straight"))
        patch.delenv("RECVAE_DATA", raising=False)
        shutil.copytree(toy_data, "data/toy")
        return story(command, "straight")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_a_real_process_that_is_stopped_goes_on_where_it_was(
    number: signal.Signals, straight: tuple[dict[str, Any], bytes], toy: Path, warm_program: list[str], command: Command
) -> None:
    database = Path("data/toy/studies/multdae/study.db")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*warm_program, *REAL], env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes) as process:
        try:
            deadline = time.monotonic() + 120
            while finished_trials(database) < 2:
                assert process.poll() is None and time.monotonic() < deadline, process.communicate()
                time.sleep(0.01)
            time.sleep(0.05)  # into the next trial
            process.send_signal(number)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert 2 <= finished_trials(database) < 5
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL and not Path("runs").exists()
    else:
        assert process.returncode == 0 and f"continue with: recvae {shlex.join(REAL)}" in err
        assert "recvae train" in out and read_bundle(Path("runs/toy/multdae-tuned"))
    assert story(command, "end") == straight and finished_trials(database) == 5


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_scheduler_that_ends_the_process_is_like_ctrl_c(
    tiny: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*rest: Any, **more: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("recvae.tuning.tune", end)
    said = command("tune", "--model", "multdae", *FAST)
    assert (said.code, said.out) == (130, "") and "interrupted; run the same command again to continue" in said.err
