"""The time to a quality against other packages, without any of them: the measure, the limits, the sides, the table."""

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recvae import ALS, EDLAE, Blend, Dataset, HeldOut, MultVAE, Popularity, evaluate
from recvae.datasets.splits.base import Split
from recvae.metrics import ndcg_at_k
from recvae.ranking import rank

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = ["--users=100", "--items=100", "--interactions=2500", f"--threads={torch.get_num_threads()}"]
LIMITS = {"epochs": 5, "seconds": 1e9, "patience": 5}
TINY = {"hidden_dims": [8], "latent_dim": 4, "batch_size": 40, "epochs": 4}

# It reaches the mark of 0.99 x 0.5 in epoch 2, a peer of its seed's number of seconds an epoch in epoch 1 or never.
WORKER = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS / "peers")!r})
import work

def learn(seed, limits, own=None, model="", values=None):
    course = work.Course(work.Limits(**limits))
    if model == "edlae":
        raise MemoryError("no room")
    if own is None:
        _ = course.add(1.0, 0.1, 2.0) and course.add(1.0, 0.5, 5.0)
    else:
        course.add(4.0 * seed, 0.1 if own else 0.6)
    return course.answer(batch_size=7, learning_rate=0.25)

work.serve(lambda data: {{"learn": learn}})
"""


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.syspath_prepend(BENCHMARKS / "peers")  # as if it were run as a script
    return importlib.import_module("quality")


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)  # beside `quality`, once its fixture has made the folder known


def _rows(rng: np.random.Generator, n_users: int, n_items: int, share: float) -> sp.csr_matrix:
    return sp.csr_matrix(rng.random((n_users, n_items)) < share, dtype=np.float32)


def _held_out(n_users: int, n_items: int, seed: int = 0) -> HeldOut:
    """Return users with and without fold-in and targets."""
    rng = np.random.default_rng(seed)
    known, wanted = rng.random((2, n_users, n_items)) < 0.3
    known[1] = wanted[0] = False
    fold_in, targets = (sp.csr_matrix(one, dtype=np.float32) for one in (known, wanted & ~known))
    return HeldOut(fold_in=fold_in, targets=targets)


@pytest.mark.parametrize(("n_items", "k"), [(300, 100), (300, 5), (110, 100), (40, 100)])
def test_the_ndcg_of_peers_is_that_of_recvae(quality: ModuleType, n_items: int, k: int) -> None:
    held_out = _held_out(60, n_items)
    scores = np.random.default_rng(1).standard_normal((60, n_items)).astype(np.float32)
    ranked, _ = rank(torch.from_numpy(scores.copy()), min(k, n_items), seen=held_out.fold_in)
    padded = np.pad(ranked, ((0, 0), (0, k - ranked.shape[1])), constant_values=-1)
    expected = ndcg_at_k(padded, held_out.targets, k)
    found = _module("work").ndcg(scores, held_out.fold_in, held_out.targets, k)
    assert np.isnan(found[0]) and np.isfinite(found[1:]).all()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_target_that_the_model_knows_is_no_hit_as_in_recvae(quality: ModuleType) -> None:
    both = sp.csr_matrix(np.array([[1, 1, 0]], dtype=np.float32))
    ranked, _ = rank(torch.tensor([[3.0, 2.0, 1.0]]), 3, seen=both)
    assert ndcg_at_k(ranked, both, 3) == _module("work").ndcg(np.array([[3.0, 2.0, 1.0]]), both, both, 3) == 0


def test_peers_are_validated_on_all_users_block_by_block(quality: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    work = _module("work")
    monkeypatch.setattr(work, "USERS_AT_ONCE", 7)
    train, held_out = _rows(np.random.default_rng(2), 80, 150, 0.1), _held_out(33, 150)
    model = EDLAE().fit(train)
    blocks: list[int] = []

    def score(rows: sp.csr_matrix) -> np.ndarray:
        blocks.append(rows.shape[0])
        return model.scores_of(rows).numpy()

    found = work.validated(score, work.Data(train, held_out.targets, held_out.fold_in))
    per_user, _ = evaluate(model, held_out, "ndcg@100")
    assert found == pytest.approx(float(np.nanmean(per_user["ndcg@100"])), rel=1e-12)
    assert blocks == [7, 7, 7, 7, 5]


def test_scores_that_are_no_numbers_are_refused(quality: ModuleType) -> None:
    held_out, scores = _held_out(4, 20), np.zeros((4, 20))
    scores[2, 3] = np.nan
    with pytest.raises(ValueError, match="scores that are no numbers, expected a model that has not diverged"):
        _module("work").ndcg(scores, held_out.fold_in, held_out.targets, 10)


@pytest.mark.parametrize(
    ("limits", "n_epochs"),
    [  # the second epoch is the best
        ({"epochs": 3}, 3),
        ({"seconds": 7.0}, 4),
        ({"patience": 2}, 4),
        ({"mark": 0.4}, 2),
        ({"mark": 0.41}, 6),
        ({}, 6),
    ],
)
def test_a_training_ends_at_the_first_of_its_limits(
    quality: ModuleType, limits: dict[str, float], n_epochs: int
) -> None:
    work = _module("work")
    course = work.Course(work.Limits(**{"epochs": 6, "seconds": 1e9, "patience": 9} | limits))
    ndcg = iter([0.1, 0.4, 0.4, 0.3, 0.2, 0.1, 0.9])
    while course.add(2.0, next(ndcg)):
        pass
    assert course.training == [2.0 * (1 + n) for n in range(n_epochs)]
    answer = course.answer(batch_size=5)
    assert (answer.seconds, answer.found["batch_size"]) == (2.0 * n_epochs, 5)
    assert answer.found["ndcg"] == [0.1, 0.4, 0.4, 0.3, 0.2, 0.1][:n_epochs]


def test_validation_users_come_back_from_the_folder(quality: ModuleType, tmp_path: Path) -> None:
    work, held_out = _module("work"), _held_out(9, 30)
    data = work.Data(_rows(np.random.default_rng(0), 20, 30, 0.2), held_out.targets, held_out.fold_in)
    data.write(tmp_path)
    again = work.Data.read(tmp_path)
    for name in ("train", "targets", "fold_in"):
        np.testing.assert_array_equal(getattr(data, name).toarray(), getattr(again, name).toarray())


def test_made_up_users_are_split_and_can_be_learned(quality: ModuleType) -> None:
    dataset = quality.made_up(1000, 400, 40_000)
    assert dataset.train.shape[0] == 1000
    assert (dataset.validation.n_users, dataset.test.n_users) == (100, 100)
    assert dataset.train.nnz == pytest.approx(40_000, rel=0.05)
    assert dataset.validation.fold_in.multiply(dataset.validation.targets).nnz == 0
    found = [evaluate(model.fit(dataset.train), dataset.validation, "ndcg@100") for model in (EDLAE(), Popularity())]
    edlae, popularity = (float(np.nanmean(per_user["ndcg@100"])) for per_user, _ in found)
    assert edlae > 1.2 * popularity


def test_the_peers_settings_are_those_of_the_paper_of_mult_vae(quality: ModuleType) -> None:
    work, ours = _module("work"), MultVAE()
    assert (ours.hidden_dims, ours.latent_dim, ours.dropout) == ((work.HIDDEN,), work.LATENT, work.DROPOUT)
    assert ours.beta == work.BETA and (work.LEARNING_RATE, work.BATCH_SIZE) == (1e-3, 500)
    assert ours.anneal == "linear"
    assert ours.anneal_fraction * 200 == pytest.approx(work.ANNEAL_EPOCHS)  # the paper trains 200 epochs


@pytest.fixture
def small(quality: ModuleType) -> tuple[Any, Dataset]:
    dataset = quality.made_up(100, 100, 2500)
    held_out = dataset.validation
    return _module("work").Data(dataset.train, held_out.targets, held_out.fold_in), dataset


def test_a_network_of_recvae_is_followed_epoch_by_epoch(small: tuple[Any, Dataset]) -> None:
    data, dataset = small
    learn = _module("recvae_worker").jobs(data)["learn"]
    answer = learn(model="multvae", values=TINY, seed=3, limits=LIMITS)
    values: Any = TINY | {"hidden_dims": (8,)}
    usual = MultVAE(**values, seed=3).fit(dataset.train, dataset.validation, device="cpu")
    assert answer.found["ndcg"] == [record.ndcg for record in usual.log_]
    assert answer.found["batch_size"] == 40
    for clock in ("training", "whole"):
        assert len(answer.found[clock]) == 4 and all(np.diff(answer.found[clock]) > 0)
    assert all(
        whole > training for whole, training in zip(answer.found["whole"], answer.found["training"], strict=True)
    )
    stopped = learn(model="multvae", values=TINY, seed=3, limits=LIMITS | {"epochs": 2})
    assert stopped.found["ndcg"] == answer.found["ndcg"][:2]


def test_models_without_epochs_are_validated_once(small: tuple[Any, Dataset]) -> None:
    data, dataset = small
    learn = _module("recvae_worker").jobs(data)["learn"]
    blend = Blend.of(EDLAE(), ALS(seed=2)).fit(dataset.train, dataset.validation)
    for name, usual in (("edlae", EDLAE().fit(dataset.train)), ("blend", blend)):
        answer = learn(model=name, values={}, seed=2, limits=LIMITS)
        per_user, _ = evaluate(usual, dataset.validation, "ndcg@100")
        assert answer.found["ndcg"] == [float(np.nanmean(per_user["ndcg@100"]))]
        assert answer.found["training"] == answer.found["whole"] == [answer.seconds]


def test_the_time_is_that_of_the_first_epoch_at_the_mark(quality: ModuleType) -> None:
    time_to = _module("contenders").time_to
    ndcg, seconds = [0.1, 0.3, 0.2, 0.4], [1.0, 2.0, 3.0, 4.0]
    assert [time_to(mark, ndcg, seconds) for mark in (0.05, 0.3, 0.31, 0.5)] == [1.0, 2.0, 4.0, np.inf]


def test_what_was_not_reached_has_a_lower_bound(quality: ModuleType) -> None:
    spread, never = _module("contenders").spread, np.inf
    bounds = np.array([9.0, 7.0, 8.0])
    assert spread(np.array([2.0]), bounds[:1]) == "2.0"
    assert spread(np.array([2.0, 1.0, 4.0]), bounds) == "2.0 (1.0 - 4.0)"
    assert spread(np.array([2.0, never, 4.0]), bounds) == "4.0 (2.0 - never)"
    assert spread(np.array([2.0, never, never]), bounds) == ">7.0"
    assert spread(np.array([never]), bounds[:1]) == ">9.0"


@pytest.fixture
def workers(quality: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_module("side"), "HERE", tmp_path)
    monkeypatch.setattr(quality, "environment", lambda *_: Path(sys.executable))
    for name in ("recvae", *quality.PEERS):
        (tmp_path / f"{name}_worker.py").write_text(WORKER, encoding="utf-8")


@pytest.mark.usefixtures("workers")
def test_all_are_trained_round_by_round_and_compared_with_mult_vae(
    quality: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    words = ["--only=multvae", "--only=recbole", "--set=batch_size=200", "--rounds=2", f"--json={results}"]
    quality.main([*SMALL, *words])
    printed, progress = capsys.readouterr()
    turns = [re.split(r"  +", line.strip())[0] for line in progress.splitlines()]
    each = ["recvae Mult-VAE", "batch_size=200", "recbole 1.2.1, as the paper", "recbole 1.2.1, own defaults"]
    assert turns == ["recvae Mult-VAE, for the mark", "round 1", *each, "round 2", *each]
    assert "the mark is an NDCG@100 of 0.4950: of Mult-VAE in 2 epochs, best in 2" in printed
    lines = [re.split(r"  +", line.strip()) for line in printed.splitlines()[-4:]]
    ours = ["0.5000 (0.5000 - 0.5000)", "2 (2 - 2)", *["2.0 (2.0 - 2.0)", "5.0 (5.0 - 5.0)", "2.0 (2.0 - 2.0)"]]
    assert lines[0] == ["recvae Mult-VAE", *ours, "1.00 (1.00 - 1.00)"]
    assert lines[1][0] == "batch_size=200"
    reached = ["6.0 (4.0 - 8.0)"] * 2
    assert lines[2] == [f"{each[2]}, 7 x 0.25", "0.6000 (0.6000 - 0.6000)", "1 (1 - 1)", *reached, "3.00 (2.00 - 4.00)"]
    assert lines[3][3:] == [">6.0", "6.0 (4.0 - 8.0)", ">3.00"]
    found = json.loads(results.read_text(encoding="utf-8"))
    assert found["shape"]["mark"] == pytest.approx(0.495)
    assert found["results"][each[2]]["to_the_mark"] == [4.0, 8.0]
    assert found["results"][each[3]]["to_the_mark"] == [None, None]
    assert found["results"]["batch_size=200"]["settings"]["values"] == {"batch_size": 200}


@pytest.mark.usefixtures("workers")
def test_a_training_may_end_at_the_mark_and_own_defaults_be_left_out(
    quality: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    words = ["--only=multvae", "--only=recbole", "--mark=0.1", "--no-own", f"--json={results}"]
    for stop, n_epochs in ([], 2), (["--stop"], 1):
        quality.main([*SMALL, *words, *stop])
        assert "own defaults" not in capsys.readouterr().out
        found = json.loads(results.read_text(encoding="utf-8"))
        assert found["shape"]["stop"] == bool(stop)
        assert len(found["results"]["recvae Mult-VAE"]["rounds"][0]["ndcg"]) == n_epochs


@pytest.mark.usefixtures("workers")
def test_who_fails_is_told_and_the_others_go_on(quality: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        quality.main([*SMALL, "--only=edlae", "--only=cornac", "--mark=0.3", "--rounds=2"])
    printed, progress = capsys.readouterr()
    assert "recvae EDLAE: failed: recvae's worker: MemoryError: no room" in printed
    assert progress.count("Traceback") == 1  # it is not asked again
    line = next(line for line in printed.splitlines() if line.startswith("cornac 3.0.1, as the paper"))
    assert re.split(r"  +", line)[3:] == ["6.0 (4.0 - 8.0)"] * 2  # no ratio without Mult-VAE


def test_a_peer_without_environment_is_told(
    quality: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--only=cornac", "--mark=0.3", "--no-install", f"--environments={tmp_path}"]
    quality.main([*SMALL, *words])
    printed = capsys.readouterr().out
    assert printed.count("not installed: no environment of cornac==") == 2


@pytest.mark.usefixtures("workers")
def test_without_a_mark_there_is_no_comparison(
    quality: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recvae_worker.py").write_text("raise SystemExit('no torch')", encoding="utf-8")
    with pytest.raises(SystemExit, match="failed: recvae's worker: no torch"):
        quality.main([*SMALL, "--only=multvae"])
    assert "NDCG" not in capsys.readouterr().out


def test_a_prepared_data_set_is_used(quality: ModuleType, tmp_path: Path) -> None:
    dataset = quality.made_up(100, 100, 2500)
    dataset.save(tmp_path / "mine")
    _, found = quality.parse([f"--data={tmp_path / 'mine'}"])
    assert found.fingerprint == dataset.fingerprint


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epochs=0"], "1 or more"),
        (["--limit=0"], "--limit above 0"),
        (["--mark=1.5"], "at most 1"),
        (["--rounds=0"], "1 or more"),
        (["--set=batchsize=2"], "did you mean batch_size"),
        (["--set=batch_size=0"], "batch_size"),
        (["--items=10"], "expected"),
        (["--data=/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_wrong_use_is_refused(
    quality: ModuleType, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        quality.main([*SMALL, *words])
    assert said in capsys.readouterr().err


def test_data_without_targets_are_refused(
    quality: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = quality.made_up(100, 100, 2500)
    held_out = dataset.validation
    nothing = HeldOut(fold_in=held_out.fold_in, targets=sp.csr_matrix(held_out.targets.shape, dtype=np.float32))
    split = Split(train=dataset.train, validation=nothing, test=dataset.test, item_ids=dataset.item_ids)
    Dataset.from_split(split, name="mine").save(tmp_path / "mine")
    with pytest.raises(SystemExit):
        quality.parse([f"--data={tmp_path / 'mine'}"])
    assert "no validation user has a target; hold out more users" in capsys.readouterr().err
