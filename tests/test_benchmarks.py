"""The benchmark compares like with like: both sides compute the same loss and gradients."""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from recvae import MultVAE
from recvae.batches import whole_batch
from recvae.models.multvae import MultVAENetwork

FOLDER = Path(__file__).parent.parent / "benchmarks"
BETA = 0.3


@pytest.fixture(params=["ease", "evaluation"])
def by_turns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module(request.param)


@pytest.fixture
def epoch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)  # as if it were run as a script
    return importlib.import_module("epoch")


def _ours() -> MultVAE:
    train = sp.csr_matrix(np.random.default_rng(3).random((30, 40)) < 0.2, dtype=np.float32)
    model = MultVAE(hidden_dims=(12,), latent_dim=5, epochs=2, batch_size=10, dropout=0.0, seed=4)
    return model.fit(train, device="cpu")


def _pairs(ours: MultVAENetwork, dense: Any) -> list[tuple[nn.Parameter, nn.Parameter, Callable[..., torch.Tensor]]]:
    """Return (ours, dense, from our layout to the dense one) of each weight and bias."""
    layers = zip([*ours.encoder, *ours.decoder], [*dense.encoder[::2], *dense.decoder[::2]], strict=True)
    pairs = []
    for number, (first, second) in enumerate(layers):
        turn = torch.t if number == 0 else torch.clone  # the sparse layer has a row per item, nn.Linear a column
        pairs += [(first.weight, second.weight, turn), (first.bias, second.bias, torch.clone)]
    return pairs


def test_both_sides_compute_the_same_loss_and_gradients(epoch: ModuleType) -> None:
    model = _ours()
    ours = cast(MultVAENetwork, model.network_)
    dense = epoch.DenseMultVAE(40, hidden=12, latent=5, dropout=0.0)
    pairs = _pairs(ours, dense)
    assert len(pairs) == len(list(dense.parameters())) == len(list(ours.parameters()))
    for first, second, turn in pairs:
        second.data = turn(first.data).contiguous()
    rng = np.random.default_rng(5)
    rows = sp.csr_matrix((rng.random((8, 40)) < 0.3) * rng.uniform(0.5, 2, (8, 40)), dtype=np.float32)
    ours.zero_grad()
    losses = model._loss(whole_batch(rows, torch.device("cpu")), BETA, torch.Generator().manual_seed(6))
    losses.total.backward()
    with torch.random.fork_rng():
        torch.manual_seed(6)  # the same noise: without dropout, it is all that either side draws
        loss = epoch.dense_loss(dense, torch.from_numpy(rows.toarray()), BETA)
    loss.backward()
    assert losses.kl.item() > 0.01  # so that a KL term left out would be seen
    torch.testing.assert_close(loss, losses.total, rtol=1e-5, atol=1e-5)
    for first, second, turn in pairs:
        assert first.grad is not None and second.grad is not None
        torch.testing.assert_close(turn(first.grad), second.grad, rtol=1e-4, atol=1e-5)


def test_the_interactions_are_as_many_as_asked_for(epoch: ModuleType) -> None:
    train = epoch.made_up(50, 100, 1200)
    assert train.shape == (50, 100)
    assert train.nnz == 1200
    assert train.dtype == np.float32


def test_the_script_runs_and_counts_its_epochs(epoch: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.random.get_rng_state()
    epoch.main(["--users=60", "--items=100", "--interactions=1500", "--batch-size=25", "--repeats=2"])
    torch.random.set_rng_state(state)
    printed = capsys.readouterr().out
    assert "60 users x 100 items, 1,500 interactions" in printed
    assert [printed.count(word) for word in ("warm-up", "epoch 1", "epoch 2", "epoch 3")] == [2, 2, 2, 0]
    assert re.search(r"recvae takes \d+\.\d\d of the dense loop's time", printed)


def test_the_script_refuses_no_epochs(epoch: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        epoch.main(["--repeats", "0"])
    assert "1 or more" in capsys.readouterr().err


def test_a_benchmark_by_turns_prints_and_writes_all_sides_and_the_ratio_to_the_floor(
    by_turns: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    sizes = ("--users=60", "--items=110", "--interactions=1500", "--rounds=2")
    by_turns.main([*sizes, "--json", str(results)])
    printed = capsys.readouterr().out
    content = json.loads(results.read_text())
    assert content["benchmark"] == by_turns.__name__ and content["machine"]["threads"] >= 1
    assert content["shape"] == {"users": 60, "items": 110, "interactions": 1500}
    ours = {"ease": "fit", "evaluation": "evaluate"}[by_turns.__name__]
    assert [len(content["results"][side]["rounds"]) for side in (ours, "floor")] == [2, 2]
    ratio = content["results"][f"{ours} / floor"]
    assert re.search(
        rf"^{ours} .* {ratio['median']:.2f}, {ratio['low']:.2f} to {ratio['high']:.2f} round", printed, re.M
    )
    assert "memory" in printed and "floor: " in printed


def test_a_benchmark_by_turns_refuses_no_rounds(by_turns: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        by_turns.main(["--rounds", "0"])
    assert "--rounds must be 1 or more" in capsys.readouterr().err


def test_evaluation_splits_every_interaction_into_given_and_wanted(epoch: ModuleType) -> None:
    users = epoch.made_up(50, 100, 1200)
    held_out = importlib.import_module("evaluation").fold(users)
    np.testing.assert_array_equal((held_out.fold_in + held_out.targets).toarray(), users.toarray())
    assert held_out.fold_in.nnz + held_out.targets.nnz == users.nnz
    assert 0.75 < held_out.fold_in.nnz / users.nnz < 0.85


def test_the_floor_of_ease_is_the_inverse_round_after_round(epoch: ModuleType) -> None:
    floor = importlib.import_module("ease").Floor(30)
    before = np.tril(floor.block)
    floor()
    inverse = np.tril(floor.block) + np.tril(floor.block, -1).T
    np.testing.assert_allclose(inverse @ (before + np.tril(before, -1).T), np.eye(30), atol=1e-5)
    floor()
    np.testing.assert_allclose(np.tril(floor.block), before, rtol=1e-4, atol=1e-5)
