"""Tuning: what is tried, what is stopped early, what survives a stop or a kill, and what comes of it."""

import itertools
import json
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import optuna
import pytest

from recvae.bundles.bundle import read_bundle
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, DataError, MemoryLimitError, StorageError, TrainingError, UsageError
from recvae.interactions import HeldOut
from recvae.models import MODELS, Popularity
from recvae.models.common.hyperparameters import Range, Space, hyperparameter, hyperparameters_of
from recvae.storage.files import locked
from recvae.training.records import EpochRecord, TrainingSummary
from recvae.tuning import (
    ALL_DONE,
    COMPLETE,
    EXHAUSTED,
    FAILED,
    INTERRUPTED,
    OUT_OF_TIME,
    PRUNED,
    Search,
    Trial,
    Tuning,
    deliver,
    setting_text,
    settings_of,
    tune,
)
from recvae.tuning.study import OpenTrial, Study

Command = Callable[..., Any]
STUDY = Path("study")
EPOCHS = 6


@dataclass(kw_only=True)
class Rigged(Popularity):
    """A model that says how good it is, and is so after its last epoch."""

    name: ClassVar[str] = "rigged"
    space: ClassVar[Space] = {"quality": Range(0.0, 1.0), "layers": ((), (5,), (7, 5)), "kind": ("a", "b", None)}
    fitted: ClassVar[list["Rigged"]] = []
    limits: ClassVar[list[int | None]] = []

    quality: float = hyperparameter(0.5, "what it reaches", low=0, high=1)
    layers: tuple[int, ...] = hyperparameter((5,), "of no effect", low=1)
    kind: str | None = hyperparameter("a", "of no effect")
    epochs: int = hyperparameter(EPOCHS, "passes", low=1)
    seed: int = hyperparameter(0, "of no effect", low=0)

    def fit(self, train: Any, validation: Any = None, **rest: Any) -> "Rigged":  # noqa: ARG002
        monitor = rest["monitor"]
        if monitor is not None:
            monitor.start(self.epochs, [])
        for epoch in range(1, self.epochs + 1):
            self.happens(epoch)
            if monitor is not None:
                ndcg = self.quality * epoch / self.epochs
                record = EpochRecord(epoch, 1.0, 1.0, 0.0, None, ndcg, True, 0.1, 10.0)
                if monitor.advance(epoch, None) or monitor.epoch(record):
                    return self
        self.fitted.append(self)
        self.limits.append(rest["max_memory"])
        super().fit(train)
        return self

    def happens(self, epoch: int) -> None:
        """Do nothing, unless a test has something else in mind."""


@pytest.fixture
def rigged(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> type[Rigged]:
    """Register that model, in an empty folder to work in."""

    def measure(model: Rigged, *rest: Any, **more: Any) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        return {"recall@20": np.array([0.1]), "ndcg@100": np.array([model.quality])}, {}

    connect = sqlite3.connect

    def connect_without_waiting(*where: Any, **how: Any) -> sqlite3.Connection:
        connection = connect(*where, **how)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_without_waiting)  # for the disk: nobody pulls the plug here
    monkeypatch.setattr(os, "fsync", abs)
    monkeypatch.setitem(MODELS, "rigged", Rigged)
    monkeypatch.setattr("recvae.evaluation.fitting.evaluate", measure)
    monkeypatch.setattr(Rigged, "fitted", [])
    return Rigged


def outcomes(found: Tuning) -> list[tuple[Any, ...]]:
    return [(trial.number, trial.state, trial.ndcg, trial.epochs, trial.settings) for trial in found.trials]


def at_trial(number: int, error: BaseException, epoch: int = 5) -> Callable[[Rigged, int], None]:
    """Return what happens to raise an error in an epoch of the n-th fit of all."""
    begun = itertools.count(1)
    now = [0]

    def happens(model: Rigged, at: int) -> None:
        if at == 1:
            now[0] = next(begun)
        if now[0] == number and at == epoch:
            raise error

    return happens


def test_the_defaults_come_first_and_numbers_are_short_and_the_best_is_kept(
    rigged: type[Rigged], blocks: Dataset
) -> None:
    found = tune("rigged", blocks, STUDY, trials=8)
    assert found.ended == ALL_DONE and found.begun_with == 0 and len(found.trials) == 8
    assert found.trials[0].settings == {"quality": 0.5, "layers": (5,), "kind": "a"}
    for trial in found.trials:
        quality = trial.settings["quality"]
        assert quality == float(f"{quality:.3g}") and 0 <= quality <= 1
        assert trial.settings["layers"] in Rigged.space["layers"] and trial.settings["kind"] in ("a", "b", None)  # type: ignore[operator]
    complete = [trial for trial in found.trials if trial.state == COMPLETE]
    assert found.best == max(complete, key=lambda trial: trial.ndcg or 0) and found.best.ndcg == found.model.quality  # type: ignore[attr-defined]
    assert [trial.ndcg for trial in found.top(3)] == sorted((t.ndcg for t in complete), reverse=True)[:3]  # type: ignore[type-var]
    kept = read_bundle(found.bundle)
    assert kept.model == found.model and kept.metrics["validation"]["ndcg@100"] == found.best.ndcg
    assert kept.training.trial == found.best.key and not kept.interrupted
    log = [json.loads(line) for line in (found.bundle / "log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in log] == list(range(1, EPOCHS + 1))


def test_a_study_made_in_parts_is_the_same_as_in_one_go(rigged: type[Rigged], blocks: Dataset) -> None:
    whole = tune("rigged", blocks, Path("whole"), trials=12)
    parts = [tune("rigged", blocks, STUDY, trials=trials) for trials in (2, 11, 12, 5)]
    assert [part.begun_with for part in parts] == [0, 2, 11, 12]
    assert outcomes(parts[-1]) == outcomes(parts[-2]) == outcomes(whole)
    assert outcomes(tune("rigged", blocks, Path("other"), trials=3, seed=1))[1:] != outcomes(whole)[1:3]
    assert len(Rigged.fitted) == 2 * whole.count(COMPLETE) + 3


def test_what_is_fixed_is_not_searched(rigged: type[Rigged], blocks: Dataset) -> None:
    found = tune("rigged", blocks, STUDY, trials=3, fixed={"kind": "b", "epochs": 4})
    assert {tuple(trial.settings) for trial in found.trials} == {("quality", "layers")}
    assert {(model.kind, model.epochs) for model in Rigged.fitted} == {("b", 4)}
    assert settings_of(found.model)[-2:] == ["kind=b", "epochs=4"]


def test_hopeless_trials_are_ended_early_and_others_are_not(rigged: type[Rigged], blocks: Dataset) -> None:
    trials = tune("rigged", blocks, STUDY, trials=16).trials
    pruned = [trial for trial in trials if trial.state == PRUNED]
    assert len(pruned) >= 3 and len(Rigged.fitted) == 16 - len(pruned)
    for trial in trials:
        before = [other.settings["quality"] for other in trials[: trial.number - 1] if other.state == COMPLETE]
        if trial.state == PRUNED:
            assert len(before) >= 4 and trial.settings["quality"] < median(before)
            assert EPOCHS / 5 <= trial.epochs < EPOCHS
            assert trial.ndcg == pytest.approx(trial.settings["quality"] * trial.epochs / EPOCHS)
        else:
            assert len(before) < 4 or trial.settings["quality"] >= median(before)


def test_a_trial_is_judged_by_its_best_until_then_after_a_warm_up_and_not_in_its_last_epoch() -> None:
    study = optuna.create_study(direction="maximize")
    for _ in range(4):
        other = OpenTrial(study, study.ask())
        other.start(10)
        assert not any(other.is_hopeless(epoch, 0.5) for epoch in range(1, 9)), "too few to compare with"
        study.tell(other.key, 0.5)
    for curve, expected in {
        (0.6, 0.1, 0.1, 0.1): [False] * 4,
        (0.1, 0.4, 0.5, 0.5): [False, True, False, False],
        (0.4, 0.4, 0.4, 0.4): [False, True, True, True],
    }.items():
        running = OpenTrial(study, study.ask())
        running.start(10)
        assert [running.is_hopeless(epoch, ndcg) for epoch, ndcg in enumerate(curve, start=1)] == expected
        assert not running.is_hopeless(9, 0.0), "nobody has come so far"
        assert not running.is_hopeless(10, 0.0)


@pytest.mark.parametrize("space", [{"layers": ((), (5,)), "kind": ("a", None)}, {"seed": Range(0, 3)}], ids=str)
def test_no_point_of_a_grid_is_tried_twice_and_the_end_is_seen(
    space: Space, rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rigged, "space", space)
    assert tune("rigged", blocks, STUDY, trials=3).ended == ALL_DONE
    found = tune("rigged", blocks, STUDY, trials=30)
    assert found.ended == EXHAUSTED and len(found.trials) == 4
    assert len({str(trial.settings) for trial in found.trials}) == 4
    assert tune("rigged", blocks, STUDY, trials=4).ended == EXHAUSTED


def test_a_range_without_another_short_number_ends_the_search(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rigged, "space", {"quality": Range(0.2, 0.202, log=True)})
    found = tune("rigged", blocks, STUDY, trials=30)
    assert found.ended == EXHAUSTED
    assert {trial.settings["quality"] for trial in found.trials} == {0.2, 0.201, 0.202}


def test_defaults_outside_the_space_are_not_tried(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for space in ({"quality": Range(0.6, 0.9)}, {"kind": ("b", None), "quality": Range(0.0, 1.0)}):
        monkeypatch.setattr(Rigged, "space", space)
        assert Search(Rigged, {}).default() is None
        assert tune("rigged", blocks, STUDY, trials=1, fresh=True).best.settings != {"quality": 0.5}


@pytest.mark.parametrize(
    "error",
    [TrainingError("the loss became nan"), RuntimeError("CUDA out of memory"), MemoryError("no 9 TB")],
    ids=repr,
)
def test_a_trial_that_comes_to_nothing_counts_as_failed_and_the_study_goes_on(
    error: Exception, rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rigged, "happens", at_trial(2, error))
    found = tune("rigged", blocks, STUDY, trials=4)
    assert [trial.state for trial in found.trials] == [COMPLETE, FAILED, COMPLETE, COMPLETE]
    assert (found.trials[1].error, found.trials[1].ndcg, found.count(FAILED)) == (str(error), None, 1)
    assert found.trials[1].settings not in [trial.settings for trial in found.trials[2:]]


def test_a_limit_on_memory_ends_the_call_and_leaves_no_trial(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is free now says nothing of the point: with a higher limit the same command goes on."""
    with monkeypatch.context() as patch:
        patch.setattr(Rigged, "happens", at_trial(2, MemoryLimitError("rigged needs 9 TB; raise --max-memory")))
        with pytest.raises(MemoryLimitError, match="raise --max-memory"):
            tune("rigged", blocks, STUDY, trials=3)
    assert [trial.state for trial in tune("rigged", blocks, STUDY, trials=3).trials] == [COMPLETE] * 3


def test_where_every_trial_fails_the_last_error_is_told(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def happens(model: Rigged, epoch: int) -> None:
        raise TrainingError(f"nan in epoch {epoch} of {model.name}")

    monkeypatch.setattr(Rigged, "happens", happens)
    for _ in range(2):
        with pytest.raises(TrainingError, match="all 3 trials failed; last error: nan in epoch 1 of rig"):
            tune("rigged", blocks, STUDY, trials=3)


def test_an_interrupted_trial_does_not_count_and_is_tried_again(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune("rigged", blocks, Path("whole"), trials=6)
    with monkeypatch.context() as patch:
        patch.setattr(Rigged, "happens", at_trial(3, KeyboardInterrupt()))
        found = tune("rigged", blocks, STUDY, trials=6)
        assert (found.ended, len(found.trials)) == (INTERRUPTED, 2)
        assert read_bundle(found.bundle).metrics["validation"]["ndcg@100"] == found.best.ndcg
    with monkeypatch.context() as patch:  # as the autoencoders do, which keep their best weights
        fits = itertools.count(1)
        patch.setattr(
            Rigged, "training_summary", lambda self: TrainingSummary(interrupted=next(fits) == 2 and bool(self))
        )
        found = tune("rigged", blocks, STUDY, trials=6)
        assert (found.ended, len(found.trials)) == (INTERRUPTED, 3)
    assert outcomes(tune("rigged", blocks, STUDY, trials=6)) == outcomes(whole)


@pytest.mark.parametrize(
    ("owner", "name", "finished"),
    [(Study, "complete", 2), (Study, "begin", 1), (Study, "propose", 1), (OpenTrial, "is_hopeless", 1)],
)
def test_ctrl_c_waits_until_what_is_being_written_is_whole(
    owner: Any, name: str, finished: int, rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune("rigged", blocks, Path("whole"), trials=4)
    as_it_is = getattr(owner, name)

    def pressed(self: Any, *rest: Any) -> Any:
        if len(Rigged.fitted) == 4 + (2 if name == "complete" else 1):
            signal.raise_signal(signal.SIGINT)
        return as_it_is(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, pressed)
        found = tune("rigged", blocks, STUDY, trials=4)
        assert (found.ended, len(found.trials)) == (INTERRUPTED, finished)
    assert outcomes(tune("rigged", blocks, STUDY, trials=4)) == outcomes(whole)


def test_ctrl_c_after_the_last_trial_is_passed_on_and_another_thread_needs_no_care(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(self: Study, *rest: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        complete(self, *rest)

    complete = Study.complete
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Study, "complete", pressed)
        tune("rigged", blocks, STUDY, trials=1)
    found = []
    thread = threading.Thread(target=lambda: found.append(tune("rigged", blocks, STUDY, trials=2)))
    thread.start()
    thread.join()
    assert [len(tuning.trials) for tuning in found] == [2] and found[0].begun_with == 1


def test_an_interruption_before_anything_is_finished_is_passed_on(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Rigged, "happens", at_trial(1, KeyboardInterrupt()))
        tune("rigged", blocks, STUDY, trials=2)
    assert tune("rigged", blocks, STUDY, trials=2, fixed={"epochs": 3}).begun_with == 0, "nothing to be lost"


def test_an_error_of_another_kind_is_passed_on_and_the_trial_does_not_count(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Rigged, "happens", at_trial(2, ZeroDivisionError()))
        tune("rigged", blocks, STUDY, trials=3)
    assert outcomes(tune("rigged", blocks, STUDY, trials=3)) == outcomes(tune("rigged", blocks, Path("b"), trials=3))


def test_a_call_ends_when_its_time_is_over(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    fake = SimpleNamespace(monotonic=lambda: clock[0], perf_counter=time.perf_counter)
    monkeypatch.setattr("recvae.tuning.loop.time", fake)

    def happens(*rest: Any) -> None:
        clock[0] += 1

    monkeypatch.setattr(Rigged, "happens", happens)
    with pytest.raises(TrainingError, match="no trial finished within --timeout; allow more time or fewer epochs"):
        tune("rigged", blocks, STUDY, trials=5, timeout=EPOCHS - 1)
    found = tune("rigged", blocks, STUDY, trials=5, timeout=2 * EPOCHS + 5)
    assert (found.ended, len(found.trials)) == (OUT_OF_TIME, 2) and found.trials[0].seconds == EPOCHS
    assert tune("rigged", blocks, STUDY, trials=5, timeout=1000).ended == ALL_DONE


def test_a_kill_between_the_bundle_and_the_database_loses_nothing(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("recvae.tuning.study.Study.complete", lambda *rest: sys.exit(len(rest)))
        tune("rigged", blocks, STUDY, trials=2)
    found = tune("rigged", blocks, STUDY, trials=2)
    assert found.begun_with == 1 and len(Rigged.fitted) == 2
    assert outcomes(found) == outcomes(tune("rigged", blocks, Path("whole"), trials=2))


def test_a_point_written_down_but_not_begun_is_not_left_over(rigged: type[Rigged], blocks: Dataset) -> None:
    tune("rigged", blocks, STUDY, trials=1)
    storage = optuna.storages.RDBStorage(f"sqlite:///{STUDY}/study.db")
    optuna.load_study(study_name="recvae", storage=storage).enqueue_trial({"quality": 0.123})
    storage.engine.dispose()
    assert outcomes(tune("rigged", blocks, STUDY, trials=4)) == outcomes(tune("rigged", blocks, Path("b"), trials=4))


def test_a_kill_in_the_middle_of_writing_is_undone(rigged: type[Rigged], blocks: Dataset) -> None:
    found = tune("rigged", blocks, STUDY, trials=2)
    with closing(sqlite3.connect(STUDY / "study.db")) as connection:
        connection.execute("PRAGMA cache_size = 1")  # what is written goes to the disk before it is committed
        connection.execute("DELETE FROM trials")
        for number in range(100):
            connection.execute(
                "INSERT INTO study_user_attributes VALUES (?, 1, ?, ?)", (99 + number, number, "x" * 999)
            )
        shutil.copytree(STUDY, "killed")
        connection.rollback()
    assert Path("killed/study.db-journal").stat().st_size and not (STUDY / "study.db-journal").exists()
    shutil.copytree("killed", "forgotten")
    assert outcomes(tune("rigged", blocks, Path("killed"), trials=2)) == outcomes(found)
    assert tune("rigged", blocks, Path("forgotten"), trials=1, fresh=True).begun_with == 0
    assert len(tune("rigged", blocks, Path("forgotten"), trials=2).trials) == 2


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda best: (best / "weights.safetensors").write_bytes(b"12")])
def test_a_best_that_was_removed_or_damaged_is_fitted_again(
    damage: Callable[[Path], Any], rigged: type[Rigged], blocks: Dataset
) -> None:
    found = tune("rigged", blocks, STUDY, trials=3)
    before = (found.bundle / "weights.safetensors").read_bytes()
    damage(found.bundle)
    again = tune("rigged", blocks, STUDY, trials=3)
    assert outcomes(again) == outcomes(found) and len(Rigged.fitted) == 4
    assert (again.bundle / "weights.safetensors").read_bytes() == before and read_bundle(again.bundle)


def test_a_study_of_other_data_or_settings_is_refused_unless_it_shall_be_forgotten(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune("rigged", blocks, STUDY, trials=2)
    before = (STUDY / "study.db").read_bytes()
    other = replace(blocks, manifest={**blocks.manifest, "fingerprint": "1" * 64})
    with pytest.raises(UsageError, match=r"something else \(data: 0{12}, now 1{12}\).*--fresh, which forgets its 2 tr"):
        tune("rigged", other, STUDY, trials=3)
    with pytest.raises(UsageError, match=r"\(epochs: 6, now 4\)"):
        tune("rigged", blocks, STUDY, trials=3, fixed={"epochs": 4})
    with pytest.raises(UsageError, match=r"\(quality: searched from 0 to 1, now 0\.3; kind: searched in a / b / none"):
        tune("rigged", blocks, STUDY, trials=3, fixed={"quality": 0.3, "kind": "b"})
    assert (STUDY / "study.db").read_bytes() == before
    monkeypatch.setattr(Rigged, "space", {"quality": Range(0.1, 1.0, log=True)})
    with pytest.raises(UsageError, match=r"now searched from 0\.1 to 1 by factors"):
        tune("rigged", blocks, STUDY, trials=3)
    found = tune("rigged", blocks, STUDY, trials=3, fresh=True)
    assert found.begun_with == 0 and len(found.trials) == 3


def test_a_study_of_a_newer_version_is_refused(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("recvae.tuning.database.FORMAT_VERSION", 99)
        tune("rigged", blocks, STUDY, trials=1)
    with pytest.raises(BundleError, match="has format 99, this version reads up to 1; upgrade recvae"):
        tune("rigged", blocks, STUDY, trials=1)


def _foreign(path: Path, *statements: str) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def _changed(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no database": (lambda path: path.write_text("the only copy of a thesis\n" * 100), "file is not a database"),
    "empty": (lambda path: path.write_bytes(b""), "its tables are none"),
    "foreign": (lambda path: _foreign(path, "CREATE TABLE thesis (page TEXT)"), "its tables are thesis"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:40_000]), "malformed|disk image"),
    "no study": (lambda path: _changed(path, "DELETE FROM studies"), "Record does not exist"),
    "no identity": (lambda path: _changed(path, "DELETE FROM study_user_attributes"), "does not say what it searches"),
    "newer tables": (lambda path: _changed(path, "UPDATE alembic_version SET version_num = 'v99'"), "no longer compat"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_study_is_refused_and_left_as_it_is(
    damage: str, rigged: type[Rigged], blocks: Dataset
) -> None:
    tune("rigged", blocks, STUDY, trials=2)
    act, said = DAMAGES[damage]
    act(STUDY / "study.db")
    before = (STUDY / "study.db").read_bytes()
    with pytest.raises(BundleError, match=rf"study\.db is damaged or not a study of recvae: .*({said})"):
        tune("rigged", blocks, STUDY, trials=3)
    assert (STUDY / "study.db").read_bytes() == before
    assert tune("rigged", blocks, STUDY, trials=1, fresh=True).begun_with == 0


def test_a_study_that_cannot_be_written_is_told(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").write_text("")
    with pytest.raises(StorageError, match="could not write file/study: a file stands where a folder is needed"):
        tune("rigged", blocks, Path("file/study"), trials=1)

    def fail(*rest: Any, **more: Any) -> None:
        raise optuna.exceptions.StorageInternalError("commit") from sqlite3.OperationalError("disk is full")

    tune("rigged", blocks, STUDY, trials=1)
    monkeypatch.setattr(optuna.storages.RDBStorage, "_create_new_trial", fail)
    with pytest.raises(StorageError, match=r"could not write study/study\.db: disk is full; see that there is space"):
        tune("rigged", blocks, STUDY, trials=2)


def test_two_cannot_tune_the_same_study(rigged: type[Rigged], blocks: Dataset) -> None:
    tune("rigged", blocks, STUDY, trials=1)
    with locked(STUDY / "study.lock", ""), pytest.raises(UsageError, match="study is being tuned by another process"):
        tune("rigged", blocks, STUDY, trials=2, fresh=True)
    assert tune("rigged", blocks, STUDY, trials=1).begun_with == 1


def test_without_optuna_the_command_that_installs_it_is_named(
    rigged: type[Rigged], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setitem(sys.modules, "optuna.storages", None)
    with pytest.raises(UsageError, match=r"^tuning needs a library .*optuna.* pip install 'recvae\[tune\]'$"):
        tune("rigged", blocks, STUDY)
    assert not STUDY.exists()


def without_targets(dataset: Dataset) -> Dataset:
    targets = 0 * dataset.validation.targets
    targets.eliminate_zeros()
    return replace(dataset, validation=HeldOut(fold_in=dataset.validation.fold_in, targets=targets))


def test_what_cannot_be_tuned_is_refused_and_leaves_nothing(rigged: type[Rigged], blocks: Dataset) -> None:
    for match, words in {
        "got model 'svd', expected one of": {"name": "svd"},
        "popularity has nothing to tune: it states no search space; models that do: .*als": {"name": "popularity"},
        "got a fixed value for each of quality, layers, kind": {"fixed": {"quality": 0.1, "layers": (), "kind": "b"}},
        "got unknown hyperparameter 'qualty'; did you mean quality": {"fixed": {"qualty": 1}},
        "got quality=2, expected a number": {"fixed": {"quality": 2}},
        "got trials 0, expected a whole number, 1 or more": {"trials": 0},
        "got trials 1.5, expected": {"trials": 1.5},
        "got timeout 0, expected a number of seconds above 0": {"timeout": 0},
        "got timeout nan, expected": {"timeout": float("nan")},
        "got seed -1, expected a whole number": {"seed": -1},
        "got device 'gpu', expected auto": {"device": "gpu"},
    }.items():
        with pytest.raises(UsageError, match=match):
            tune(**{"name": "rigged", "dataset": blocks, "folder": STUDY, **words})
    with pytest.raises(DataError, match="no validation user of blocks has a target, so there is nothing to tune by"):
        tune("rigged", without_targets(blocks), STUDY)
    assert not STUDY.exists()


def test_optuna_is_silent_here_and_as_before_elsewhere(
    rigged: type[Rigged], blocks: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    level = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tune("rigged", blocks, Path("a b?c=d%20#e"), trials=12, fixed={"epochs": 1})
    assert capfd.readouterr() == ("", "") and optuna.logging.get_verbosity() == level
    assert sorted(path.name for path in Path("a b?c=d%20#e").iterdir()) == ["best", "study.db", "study.lock"]


def test_the_memory_limit_reaches_every_model(rigged: type[Rigged], blocks: Dataset) -> None:
    tune("rigged", blocks, STUDY, trials=2, max_memory=12345)
    assert Rigged.limits[-2:] == [12345, 12345]


def test_a_watcher_sees_every_trial_and_the_best_so_far(rigged: type[Rigged], blocks: Dataset) -> None:
    class Watcher:
        shares: ClassVar[list[float]] = []
        seen: ClassVar[list[tuple[Trial, int, Trial | None]]] = []

        def advance(self, done: float, total: int, best: Trial | None) -> None:  # noqa: ARG002
            self.shares.append(done)

        def trial(self, trial: Trial, total: int, best: Trial | None) -> None:
            self.seen.append((trial, total, best))

    found = tune("rigged", blocks, STUDY, trials=4, monitor=Watcher())
    assert [trial for trial, _, _ in Watcher.seen] == found.trials and {total for _, total, _ in Watcher.seen} == {4}
    assert Watcher.seen[-1][2] == found.best and Watcher.seen[0][2] == found.trials[0]
    assert Watcher.shares == sorted(Watcher.shares) and 0.5 in Watcher.shares and Watcher.shares[-1] == 4


def test_the_best_is_delivered_beside_the_runs_there_are(rigged: type[Rigged], blocks: Dataset) -> None:
    found = tune("rigged", blocks, STUDY, trials=1)
    other = tune("rigged", blocks, Path("other-study"), trials=1, fixed={"epochs": 3})
    places = [deliver(search, Path("runs"), "best") for search in (found, found, other, other, found)]
    assert [place.name for place in places] == ["best", "best", "best-2", "best-2", "best"], "each renews its own run"
    assert read_bundle(places[1]).model == found.model and read_bundle(places[2]).model == other.model
    fresh = tune("rigged", blocks, Path("begun-anew"), trials=1)
    assert deliver(fresh, Path("runs"), "best").name == "best-3", "the same search in another study is another one"
    assert deliver(other, Path("runs"), "best", overwrite=True) == Path("runs/best")
    assert read_bundle(Path("runs/best")).model == other.model
    assert places[0].joinpath("recommender.json").stat().st_mtime > (STUDY / "best/recommender.json").stat().st_mtime
    Path("runs/mine").mkdir()
    Path("runs/mine/thesis.tex").write_text("the only copy")
    with pytest.raises(UsageError, match="holds files of another kind"):
        deliver(found, Path("runs"), "mine", overwrite=True)


def test_every_space_holds_values_that_the_model_allows(model_name: str) -> None:
    known = hyperparameters_of(MODELS[model_name])
    for name, domain in MODELS[model_name].space.items():
        if isinstance(domain, Range):
            assert known[name].type in (int, float) and domain.low < domain.high
            assert known[name].allows(known[name].type(domain.low)) and known[name].allows(
                known[name].type(domain.high)
            )
            assert domain.low > 0 or not domain.log
        else:
            assert len(set(domain)) == len(domain) > 1 and all(known[name].allows(value) for value in domain), name


def test_the_defaults_are_in_every_space_so_that_they_are_tried_first(model_name: str) -> None:
    model = MODELS[model_name]()
    for name, domain in model.space.items():
        value = getattr(model, name)
        assert domain.low <= value <= domain.high if isinstance(domain, Range) else value in domain, name


def test_a_setting_reads_back_as_the_value_it_was_written_from(model_name: str) -> None:
    for name, known in hyperparameters_of(MODELS[model_name]).items():
        domain = MODELS[model_name].space.get(name, ())
        numbers = [domain.low, domain.high, 0.1 + 0.2] if isinstance(domain, Range) else [*domain]
        for value in (known.default, *(known.type(v) if v is not None else None for v in numbers)):
            assert known.parse(setting_text(value)) == value


# The command.
