"""A loss that is no longer a number: told with its update, the best weights kept, nothing left that would repeat it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recvae.bundles.bundle import Bundle, read_bundle
from recvae.bundles.card import read_card
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, NotFittedError, TrainingError
from recvae.models import AE, VASP, HVamp, MultDAE, MultVAE, RecVAE
from recvae.models.common.autoencoder import Autoencoder
from recvae.recommenders.recommender import Recommender
from recvae.training.checkpoints import FILE_NAME, Checkpoint
from recvae.training.records import EpochRecord, NullMonitor
from recvae.training.task import Losses

Command = Callable[..., Any]
NAN, INF = math.nan, math.inf
RUN = Path("runs/toy/multvae")
SMALL = ("train", "--set", "hidden_dims=16", "--set", "latent_dim=8", "--set", "batch_size=50", "--set", "epochs=4")
SMALL += ("--set", "decay=none", "--set", "warmup=0")  # so that a shorter run is the beginning of a longer one
FINISHED = {"README.md", "items.parquet", "log.jsonl", "recommender.json", "weights.safetensors"}
IDENTITY = {"model": "any", "fingerprint": "abc", "hyperparameters": {}}
NETWORKS: dict[type[Autoencoder], dict[str, Any]] = {
    MultVAE: {"hidden_dims": (8,), "latent_dim": 4},
    MultDAE: {"latent_dim": 4},
    AE: {"latent_dim": 4},
    RecVAE: {"hidden_dim": 8, "latent_dim": 4, "depth": 2, "encoder_passes": 1, "decoder_passes": 1},
    HVamp: {"hidden_dim": 8, "latent_dim": 4, "pseudo_inputs": 3},
    VASP: {"hidden_dim": 8, "latent_dim": 4, "depth": 2},
}
UPDATES = 3  # of 40 users each in an epoch of the blocks, which have 100


STEADY: dict[str, Any] = {"decay": "none", "warmup": 0.0}


def small(model_class: type[Autoencoder] = MultVAE, **changes: Any) -> Autoencoder:
    settings = {"epochs": 5, "batch_size": 40, "learning_rate": 0.01, "patience": 0}
    return model_class(**settings | NETWORKS[model_class] | changes)


def fit(model: Autoencoder, data: Dataset, **arguments: Any) -> Autoencoder:
    return model.fit(data.train, data.validation, device="cpu", **arguments)


def diverge(
    patch: pytest.MonkeyPatch, model_class: type[Autoencoder], update: int, value: float = NAN, loss: str = "_loss"
) -> None:
    """Make a model's loss that value from an update on, counted from 1 over the calls of that loss."""
    original, calls = getattr(model_class, loss), 0

    def broken(model: Any, *arguments: Any) -> Losses:
        nonlocal calls
        calls += 1
        losses = original(model, *arguments)
        return losses if calls < update else Losses(losses.total * value, losses.reconstruction, losses.kl)

    patch.setattr(model_class, loss, broken)


@pytest.mark.parametrize("model_class", [model for model in NETWORKS if model is not RecVAE], ids=lambda m: m.name)
def test_a_run_that_diverges_says_where_and_keeps_its_best_weights(
    model_class: type[Autoencoder], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"anneal": "constant"} if issubclass(model_class, MultVAE | HVamp | VASP) else {}
    options |= STEADY  # so that a shorter run is the beginning of a longer one
    straight = fit(small(model_class, epochs=2, **options), blocks)
    diverge(monkeypatch, model_class, 2 * UPDATES + 2)
    model = small(model_class, **options)
    best = straight.history_.best_epoch
    said = (
        r"^the loss is no longer a number at update 8 \(epoch 3\); lower learning_rate, or raise batch_size, and train "
        rf"again; the weights of epoch {best} are kept$"
    )
    with pytest.raises(TrainingError, match=said):
        fit(model, blocks)
    assert model.n_items_ == 32 and [record.epoch for record in model.log_] == [1, 2]
    assert (model.history_.diverged_at, model.history_.best_epoch) == (8, best)
    assert not model.history_.interrupted and not model.history_.stopped_early
    for name, value in straight.weights().items():
        np.testing.assert_array_equal(model.weights()[name], value, err_msg=name)
    assert np.isfinite(model.score(blocks.test.fold_in)).all()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("update", [UPDATES + 1, 2 * UPDATES])
def test_infinite_losses_and_the_first_and_last_update_of_an_epoch_count_too(
    value: float, update: int, blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge(monkeypatch, MultVAE, update, value)
    with pytest.raises(TrainingError, match=rf"at update {update} \(epoch 2\).*; the weights of epoch 1 are kept"):
        fit(small(), blocks)


def test_in_a_later_phase_updates_are_counted_over_all_phases(blocks: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    diverge(monkeypatch, RecVAE, UPDATES + 2, loss="_decoder_loss")
    model = small(RecVAE)
    with pytest.raises(TrainingError, match=rf"at update {3 * UPDATES + 2} \(epoch 2\).*; the weights of epoch 1 are"):
        fit(model, blocks)
    assert not [name for name in model.weights() if name.startswith("old_")], "also then the prior is let go of"


def test_in_the_first_epoch_nothing_is_kept(blocks: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = fit(small(epochs=1), blocks)
    diverge(monkeypatch, MultVAE, UPDATES)
    said = r"^the loss is no longer a number at update 3 \(epoch 1\); lower learning_rate, or raise batch_size, and "
    with pytest.raises(TrainingError, match=said) as caught:
        fit(model, blocks, checkpoint=Checkpoint(tmp_path / FILE_NAME, IDENTITY))
    assert "kept" not in str(caught.value) and not list(tmp_path.iterdir())
    with pytest.raises(NotFittedError, match="this MultVAE is not fitted yet"):
        model.score(blocks.train)


def test_without_validation_users_the_weights_of_the_last_whole_epoch_are_kept(
    blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = small(epochs=3, anneal="constant", **STEADY).fit(blocks.train, device="cpu")
    diverge(monkeypatch, MultVAE, 3 * UPDATES + 1)
    model = small(anneal="constant", **STEADY)
    with pytest.raises(TrainingError, match=r"\(epoch 4\).*; the weights of epoch 3 are kept"):
        model.fit(blocks.train, device="cpu")
    for name, value in straight.weights().items():
        np.testing.assert_array_equal(model.weights()[name], value)


def step_too_long(patch: pytest.MonkeyPatch, update: int) -> None:
    """Make the gradient of MultVAE's loss NaN at an update, but not the loss: the weights are NaN after it."""
    original, calls = MultVAE._loss, 0

    def broken(model: MultVAE, *arguments: Any) -> Losses:
        nonlocal calls
        calls += 1
        losses = original(model, *arguments)
        zero = sum((parameter * 0).sum() for parameter in model.network_.parameters())
        assert isinstance(zero, torch.Tensor)
        return losses if calls != update else Losses(losses.total + zero.sqrt(), losses.reconstruction, losses.kl)

    patch.setattr(MultVAE, "_loss", broken)


def test_weights_that_diverge_in_the_last_update_of_an_epoch_are_told_alike(
    blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses of the epoch were all numbers; with batch_size >= users this is the only way to diverge."""
    step_too_long(monkeypatch, 3 * UPDATES)
    model = small()
    with pytest.raises(TrainingError, match=r"no longer a number .*epoch [34]\).*; the weights of epoch \d are kept"):
        fit(model, blocks)
    assert model.n_items_ == 32


def test_weights_that_are_kept_are_numbers(blocks: Dataset) -> None:
    model = small(batch_size=500, learning_rate=1e38)  # the first step is too long already
    with pytest.raises(TrainingError, match="no longer a number"):
        model.fit(blocks.train, device="cpu")
    assert not model.n_items_ or all(np.isfinite(value).all() for value in model.weights().values())


def test_a_resumed_run_that_diverges_keeps_the_weights_from_before(
    blocks: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Killed(NullMonitor):
        def epoch(self, record: EpochRecord) -> None:
            if record.epoch == 2:
                raise ZeroDivisionError

    path = tmp_path / FILE_NAME
    with pytest.raises(ZeroDivisionError):
        fit(small(), blocks, monitor=Killed(), checkpoint=Checkpoint(path, IDENTITY))
    diverge(monkeypatch, MultVAE, 1)
    model = small()
    with pytest.raises(TrainingError, match=r"at update 7 \(epoch 3\).*; the weights of epoch \d are kept"):
        fit(model, blocks, checkpoint=Checkpoint(path, IDENTITY, resumes=True))
    assert len(model.log_) == 2 and model.n_items_ == 32


@pytest.fixture
def updates(toy: Path) -> int:
    """Return the number of updates of an epoch on the data set `toy`, in batches of 50."""
    return -(-Dataset.load(toy).train.shape[0] // 50)


def files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}


def test_the_command_ends_with_one_line_and_leaves_a_bundle_that_says_so(
    updates: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge(monkeypatch, MultVAE, 2 * updates + 1)
    said = command(*SMALL)
    assert (said.code, said.out) == (1, "")
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert errors == [said.err.splitlines()[-1]] and "Traceback" not in said.err
    best = read_card(RUN)["training"]["best_epoch"]
    told = f"the loss is no longer a number at update {2 * updates + 1} (epoch 3); lower learning_rate, or raise batch_"
    assert told in errors[0] and errors[0].endswith(f"the weights of epoch {best} are kept in {RUN}")
    assert {path.name for path in RUN.iterdir()} == FINISHED, "no checkpoint, no run.json, no lock"
    assert [json.loads(line)["epoch"] for line in (RUN / "log.jsonl").read_text().splitlines()] == [1, 2]


@pytest.fixture
def diverged(updates: int, command: Command) -> Path:
    """Return the folder of a run that diverged in its third epoch."""
    with pytest.MonkeyPatch.context() as patch:
        diverge(patch, MultVAE, 2 * updates + 1)
        assert command(*SMALL).code == 1
    return RUN


def test_the_bundle_of_a_diverged_run_is_marked_loaded_and_measured(diverged: Path, command: Command) -> None:
    bundle: Bundle = read_bundle(diverged)
    assert bundle.interrupted and bundle.training.epochs == 2
    assert "the loss is no longer a number at update" in str(bundle.training.failure)
    assert "interrupted" not in bundle.training.to_json() and set(bundle.metrics["validation"]) >= {"ndcg@100"}
    page = (diverged / "README.md").read_text()
    assert "the loss is no longer a number at update" in page and "best weights so far" in page
    assert "stopped by hand" not in page
    recommender = Recommender.load(diverged)
    assert len(recommender.recommend(recommender.item_ids[:3], k=5)) == 5
    report = command("evaluate", "--baselines", "none", "--split", "validation", "--json")
    reached = json.loads(report.out)["runs"][0]["metrics"]["ndcg@100"]["mean"]
    assert reached == pytest.approx(bundle.metrics["validation"]["ndcg@100"])


def test_the_bundle_of_a_diverged_run_has_the_weights_of_one_that_ended_there(diverged: Path, command: Command) -> None:
    steps = round(0.85 * 4 * -(-Dataset.load("data/toy").train.shape[0] // 50))
    said = command(*SMALL, "--set", "epochs=2", "--set", f"anneal_steps={steps}", "--name", "short")
    assert said.code == 0
    short = diverged.with_name("short")
    assert (short / "weights.safetensors").read_bytes() == (diverged / "weights.safetensors").read_bytes()


def test_a_diverged_run_is_not_gone_on_with(diverged: Path, command: Command) -> None:
    before = files()
    said = command("train", "--resume")
    assert said.code == 2 and "no unfinished run in runs" in said.err
    assert files() == before


def test_a_diverged_run_does_not_replace_a_finished_one(
    updates: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*SMALL).code == 0
    before = files()
    diverge(monkeypatch, MultVAE, 2 * updates + 1)
    said = command(*SMALL, "--overwrite")
    assert said.code == 1 and "are kept in runs/toy/multvae-2" in said.err
    now = files()
    assert {path: now[path] for path in before} == before
    assert {path.name for path in RUN.parent.iterdir()} == {"multvae", "multvae-2"}
    assert {path.name for path in RUN.with_name("multvae-2").iterdir()} == FINISHED
    assert read_bundle(RUN.with_name("multvae-2")).interrupted and not read_bundle(RUN).interrupted


def test_a_finished_run_replaces_a_diverged_one(diverged: Path, command: Command) -> None:
    assert command(*SMALL, "--overwrite").code == 0
    assert [path.name for path in diverged.parent.iterdir()] == ["multvae"] and not read_bundle(diverged).interrupted


def test_a_run_that_diverges_in_its_first_epoch_leaves_nothing(
    updates: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge(monkeypatch, MultVAE, 1)
    for words in ((), ("--overwrite",), ("--json",)):
        said = command(*SMALL, *words)
        assert (said.code, said.out, said.err.count("error: ")) == (1, "", 1)
        assert "at update 1 (epoch 1); lower learning_rate" in said.err and "kept" not in said.err
        assert not files() and not RUN.exists()
    assert command("train", "--resume").code == 2


def test_a_killed_run_that_diverges_when_it_goes_on_is_not_gone_on_with_again(
    updates: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dies(Exception):
        pass

    with monkeypatch.context() as patch:
        original = MultVAE._loss
        calls = 0

        def die(model: MultVAE, *arguments: Any) -> Losses:
            nonlocal calls
            calls += 1
            if calls > updates:
                raise Dies
            return original(model, *arguments)

        patch.setattr(MultVAE, "_loss", die)
        with pytest.raises(Dies):
            command(*SMALL)
    assert (RUN / FILE_NAME).exists()
    with pytest.raises(BundleError, match="continue it with `recvae train --resume`"):
        read_bundle(RUN)
    diverge(monkeypatch, MultVAE, 1)
    said = command("train", "--resume")
    assert said.code == 1 and f"at update {updates + 1} (epoch 2)" in said.err
    assert f"the weights of epoch 1 are kept in {RUN}" in said.err
    assert {path.name for path in RUN.iterdir()} == FINISHED and read_bundle(RUN).interrupted
    assert command("train", "--resume").code == 2


def test_weights_that_diverge_in_the_last_update_of_an_epoch_leave_a_bundle_too(
    updates: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_too_long(monkeypatch, 3 * updates)
    said = command(*SMALL)
    assert said.code == 1 and "error: " in said.err
    assert {path.name for path in RUN.iterdir()} == FINISHED
