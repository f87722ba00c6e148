"""The comparison with other packages, without any of them: the data, recvae's side, the workers' talk, the table."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recvae.metrics import recall_all_at_k

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = ["--users=60", "--items=100", "--interactions=1200", f"--threads={torch.get_num_threads()}"]

WORKER = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS / "peers")!r})
import work

def jobs(data):
    print("a package greets")
    answer = work.Answer(1.5, {{"users": data.train.shape[0]}})
    return {{"train": lambda: answer, "train_float32": lambda: answer, "evaluate": lambda: 1 / 0}}

work.serve(jobs)
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.syspath_prepend(BENCHMARKS / "peers")  # as if it were run as a script
    return importlib.import_module("run")


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)  # beside `run`, once its fixture has made the folder known


def test_the_data_are_as_many_as_asked_for_and_come_back(run: ModuleType, tmp_path: Path) -> None:
    data = run.made_up_data(60, 100, 1200)
    assert (data.train.nnz, data.targets.nnz) == (1200, 300)
    assert data.train.multiply(data.targets).nnz == 0
    data.write(tmp_path)
    again = run.Data.read(tmp_path)
    for before, after in ((data.train, again.train), (data.targets, again.targets)):
        assert isinstance(after, sp.csr_matrix) and after.dtype == np.float32
        np.testing.assert_array_equal(before.toarray(), after.toarray())


def test_recvae_does_all_that_it_is_asked_for(run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    work = _module("work")
    monkeypatch.setattr(work, "HIDDEN", 20)
    monkeypatch.setattr(work, "LATENT", 5)
    jobs = _module("recvae_worker").jobs(run.made_up_data(60, 200, 1200))
    asked = [name for peer in run.PEERS.values() for job in peer for name in run.JOBS[job]]
    assert set(jobs) == set(asked)
    answers = {name: call() for name, call in jobs.items()}
    assert all(answer.seconds > 0 for answer in answers.values())
    n_weights = sum(inputs * outputs + outputs for inputs, outputs in ((200, 20), (20, 10), (5, 20), (20, 200)))
    assert answers["train_float32"].found == {"parameters": n_weights, "bits of the products": 32}
    assert set(answers["evaluate"].found) == {"recall_all@20", "recall_all@50", "ndcg@100"}
    with np.load(work.WEIGHTS) as file:
        assert sum(file[name].size for name in file.files) == n_weights


def test_the_recall_of_workers_is_that_of_recvae(run: ModuleType) -> None:
    rng = np.random.default_rng(0)
    wanted = rng.random((8, 30)) < 0.1
    wanted[0] = False
    targets = sp.csr_matrix(wanted, dtype=np.float32)
    items = rng.permuted(np.tile(np.arange(30), (8, 1)), axis=1)
    expected = float(np.nanmean(recall_all_at_k(items, targets, 10)))
    assert _module("work").recall(items, targets, 10) == pytest.approx(expected)


@pytest.fixture
def workers(run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    side = _module("side")
    monkeypatch.setattr(side, "HERE", tmp_path)
    for name in ("recvae", "recbole"):
        (tmp_path / f"{name}_worker.py").write_text(WORKER, encoding="utf-8")
    return side


def test_a_worker_answers_until_it_breaks_and_then_its_last_words_are_told(
    run: ModuleType, workers: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.made_up_data(60, 100, 1200).write(tmp_path)
    with workers.Side("recbole", Path(sys.executable), tmp_path, tmp_path, 1) as side:
        side.wait_until_ready()
        answer = side.ask("train")
        assert (answer.seconds, answer.found) == (1.5, {"users": 60})
        with pytest.raises(workers.WorkerError, match="recbole's worker: ZeroDivisionError"):
            side.ask("evaluate")
        with pytest.raises(workers.WorkerError, match="ZeroDivisionError"):
            side.ask("train")
    assert "Traceback" in capsys.readouterr().err


def test_sides_are_asked_by_turns_and_what_was_done_before_a_failure_is_told(
    run: ModuleType, workers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "environment", lambda *_: Path(sys.executable))
    with pytest.raises(SystemExit, match="1"):
        run.main([*SMALL, "--peer=recbole", "--rounds=2"])
    printed, progress = capsys.readouterr()
    asked = [line.split()[-4:-2] for line in progress.splitlines() if line.endswith(" s")]
    assert asked == [["recvae", "train"], ["recvae", "train_float32"], ["recbole", "train"]] * 3
    assert "an epoch of Mult-VAE" in printed
    assert "recbole 1.2.1: failed: recvae's worker: ZeroDivisionError" in printed


def test_peers_without_environment_are_told_in_the_table(
    run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    run.main([*SMALL, "--no-install", f"--environments={tmp_path}", f"--json={results}"])
    printed = capsys.readouterr().out
    assert "60 users x 100 items, 1,200 interactions" in printed
    for peer in run.PEERS:
        assert f"{peer} {run.requirements(peer)[0].partition('==')[2]}: not installed: no environment" in printed
        assert f"{tmp_path / peer}; leave out --no-install" in printed
    assert '"not installed: no environment of recbole==' in results.read_text(encoding="utf-8")


def test_an_environment_is_made_once_and_the_peer_itself_comes_last(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments = _module("environments")
    commands: list[tuple[str, ...]] = []

    def note(*command: str) -> None:
        commands.append(command)
        python = tmp_path / "recbole" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()

    monkeypatch.setattr(environments, "_run", note)
    own, others = environments.requirements("recbole")
    for _ in range(2):
        assert environments.environment("recbole", tmp_path) == tmp_path / "recbole" / "bin" / "python"
    assert len(commands) == 3
    assert "venv" in commands[0]
    assert commands[1][-len(others) :] == (*others,)
    assert commands[2][-2:] == ("--no-deps", own)


def test_why_something_cannot_be_installed_is_told(run: ModuleType) -> None:
    environments = _module("environments")
    code = "print('ERROR: No matching distribution'); print('and more'); raise SystemExit(1)"
    with pytest.raises(environments.NotInstalledError, match=r"^No matching distribution$"):
        environments._run(sys.executable, "-c", code)
    with pytest.raises(environments.NotInstalledError, match="No such file"):
        environments._run("/nowhere/python")


def test_the_peers_compute_with_the_same_libraries(run: ModuleType) -> None:
    locked = (BENCHMARKS.parent / "requirements.lock").read_text(encoding="utf-8").splitlines()
    for peer in run.PEERS:
        own, others = run.requirements(peer)
        assert own.startswith(f"{peer}==")
        for pin in others:
            if pin.partition("==")[0] in ("torch", "numpy", "scipy"):
                assert pin in locked


def test_the_table_has_both_sides_their_spread_and_the_ratio(run: ModuleType) -> None:
    ours, theirs = run.Times("recvae", np.array([2.0, 1.0, 4.0])), run.Times("p", np.array([4.0, 3.0, 6.0]))
    done = run.Comparison("evaluate", "all users", ours, theirs, ({"ndcg@100": 0.25}, {"ndcg@100": 0.125}))
    printed = run.table([run.Outcome("p==1.0", [done]), run.Outcome("q==2.0", [], "failed: q's worker: no memory")])
    lines = [re.split(r"  +", line.strip()) for line in printed.splitlines()]
    assert lines[1:] == [
        ["p 1.0: all users", "2.00 (1.00 - 4.00)", "4.00 (3.00 - 6.00)", "2.00 (1.50 - 3.00)"],
        ["ndcg@100", "0.25", "0.125"],
        ["q 2.0: failed: q's worker: no memory"],
    ]
    assert done.to_json()["ratio"] == {"median": 2.0, "low": 1.5, "high": 3.0}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds=0"], "1 or more"),
        (["--json=/nowhere/at/all.json"], "there is no folder /nowhere/at"),
        (["--items=10"], "expected"),
    ],
)
def test_wrong_use_is_refused(run: ModuleType, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main([*SMALL, *words])
    assert said in capsys.readouterr().err
