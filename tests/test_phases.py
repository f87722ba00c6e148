"""Epochs of several phases: who learns when, what is counted, and that a killed run goes on to the bit."""

import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from recvae.bundles.bundle import Bundle, write_bundle
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError
from recvae.models import AE, VASP, HVamp, RecVAE
from recvae.models.common.autoencoder import Autoencoder
from recvae.training.batches import SparseBatch
from recvae.training.checkpoints import FILE_NAME, Checkpoint
from recvae.training.records import EpochRecord, NullMonitor
from recvae.training.schedules import Schedule, linear
from recvae.training.task import Losses, Phase, Task
from recvae.training.trainer import Trainer

IDENTITY = {"model": "any", "fingerprint": "abc", "hyperparameters": {}}
CPU = torch.device("cpu")
EPOCHS, BATCHES = 4, 3  # of 40 users each, the blocks have 100: the last batch has 20
NEW: dict[str, tuple[type[Autoencoder], dict[str, Any]]] = {
    "recvae": (RecVAE, {"hidden_dim": 8, "latent_dim": 4, "depth": 2, "anneal": "cosine", "gamma": 0.01}),
    "hvamp": (HVamp, {"hidden_dim": 8, "latent_dim": 4, "pseudo_inputs": 3}),
    "vasp": (VASP, {"hidden_dim": 8, "latent_dim": 4, "depth": 2, "shallow_decay": 0.01}),
    "ae": (AE, {"latent_dim": 4}),
}


class Killed(Exception):
    """Ends a run as a kill would: nothing after it is done."""


class Tells(NullMonitor):
    """Keeps what it is told, and raises once so many epochs are over."""

    def __init__(self, after: float = np.inf) -> None:
        self.after = after
        self.progress: list[float] = []
        self.betas: list[float | None] = []

    def advance(self, epochs_done: float, beta: float | None) -> None:
        self.progress.append(epochs_done)
        self.betas.append(beta)
        if epochs_done > self.after:
            raise Killed

    def epoch(self, record: EpochRecord) -> None:
        if record.epoch == self.after:
            raise Killed


class TwoNumbers(nn.Module):
    """The smallest network of two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(2.0))


class Watched:
    """A task of two phases, left twice and then right once, that notes what happens."""

    def __init__(self, steps: int = 0, passes: tuple[int, int] = (2, 1)) -> None:
        self.network = TwoNumbers()
        self.seen: list[dict[str, Any]] = []
        self.totals: list[int] = []
        self.steps = steps
        self.passes = passes

    def _loss_of(self, name: str) -> Callable[[SparseBatch, float, torch.Generator], Losses]:
        def loss(batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:
            left, right = self.network.left, self.network.right
            self.seen.append(
                {
                    "phase": name,
                    "users": len(batch),
                    "beta": beta,
                    "learns": {key: value.requires_grad for key, value in self.network.named_parameters()},
                    "values": (left.item(), right.item()),
                }
            )
            total = (left - right).square() + (100.0 if name == "right" else 0.0) + len(self.seen)
            return Losses(total, total.detach() + 1, total.detach() + 2)

        return loss

    def _schedule(self, total: int) -> Schedule | None:
        self.totals.append(total)
        return linear(1.0, self.steps) if self.steps else None

    def trainer(self, data: Dataset, epochs: int = EPOCHS) -> Trainer:
        network = self.network

        def phase(name: str, parameter: nn.Parameter, passes: int) -> Phase:
            return Phase(
                name=name,
                optimizer=torch.optim.Adam([parameter], lr=0.1),
                loss=self._loss_of(name),
                passes=passes,
                after=lambda: self.seen.append({"phase": f"after {name}"}),
            )

        task = Task(
            network=network,
            phases=[phase("left", network.left, self.passes[0]), phase("right", network.right, self.passes[1])],
            schedule=self._schedule,
            score=lambda users: torch.zeros(users.shape),
        )
        return Trainer(task, data.train, None, epochs=epochs, batch_size=40, patience=0, seed=0, device=CPU)

    def updates(self) -> list[dict[str, Any]]:
        return [seen for seen in self.seen if "users" in seen]


def test_every_epoch_goes_through_all_passes_of_all_phases_in_order(blocks: Dataset) -> None:
    watched = Watched()
    watched.trainer(blocks).run(NullMonitor())
    an_epoch = ["left"] * 2 * BATCHES + ["after left"] + ["right"] * BATCHES + ["after right"]
    assert [seen["phase"] for seen in watched.seen] == an_epoch * EPOCHS
    users = [update["users"] for update in watched.updates()]
    assert users == [40, 40, 20] * 3 * EPOCHS, "every pass sees every user once"


def test_progress_and_the_schedule_count_the_updates_of_all_passes(blocks: Dataset) -> None:
    watched, tells = Watched(steps=20), Tells()
    history = watched.trainer(blocks).run(tells)
    n_updates = EPOCHS * 3 * BATCHES
    assert watched.totals == [n_updates]
    np.testing.assert_allclose(tells.progress, np.arange(1, n_updates + 1) / (3 * BATCHES))
    expected = [min(1.0, update / 20) for update in range(n_updates)]
    assert tells.betas == [update["beta"] for update in watched.updates()] == expected
    assert [record.beta for record in history.records] == [expected[3 * BATCHES * e - 1] for e in range(1, EPOCHS + 1)]
    for record in history.records:
        assert record.users_per_second == pytest.approx(3 * 100 / record.seconds)


def test_in_each_phase_only_its_own_parameters_have_gradients_and_move(blocks: Dataset) -> None:
    watched = Watched()
    watched.trainer(blocks).run(NullMonitor())
    updates = watched.updates()
    for update in updates:
        assert update["learns"] == {"left": update["phase"] == "left", "right": update["phase"] == "right"}
    for now, then in pairwise(updates):
        moved = [before != after for before, after in zip(now["values"], then["values"], strict=True)]
        assert moved == [now["phase"] == "left", now["phase"] == "right"]


def test_records_have_the_means_over_the_users_of_all_passes_of_the_first_phase(blocks: Dataset) -> None:
    watched = Watched()
    totals: list[float] = []
    history = watched.trainer(blocks, epochs=2).run(NullMonitor())
    for number, seen in enumerate(watched.seen, start=1):
        left, right = seen.get("values", (0.0, 0.0))
        totals.append((left - right) ** 2 + number if seen["phase"] == "left" else np.nan)
    weights = np.array([seen.get("users", 0.0) for seen in watched.seen])
    for record, start in zip(history.records, (0, len(totals) // 2), strict=True):
        of_epoch = slice(start, start + 2 * BATCHES)
        expected = np.average(totals[of_epoch], weights=weights[of_epoch])
        assert record.loss == pytest.approx(expected)
        assert (record.reconstruction, record.kl) == pytest.approx((expected + 1, expected + 2))


def small(name: str, **changes: Any) -> Autoencoder:
    model_class, settings = NEW[name]
    return model_class(**{"epochs": 5, "batch_size": 40, "learning_rate": 0.01, "patience": 0} | settings | changes)


def fit(model: Autoencoder, data: Dataset, **arguments: Any) -> Autoencoder:
    return model.fit(data.train, data.validation, device="cpu", **arguments)


def without_times(model: Autoencoder) -> list[dict[str, Any]]:
    return [asdict(record) | {"seconds": 0, "users_per_second": 0} for record in model.log_]


@pytest.mark.parametrize("name", NEW)
def test_keeping_checkpoints_does_not_change_a_run(name: str, blocks: Dataset, tmp_path: Path) -> None:
    kept = fit(small(name), blocks, checkpoint=Checkpoint(tmp_path / FILE_NAME, IDENTITY))
    straight = fit(small(name), blocks)
    assert without_times(kept) == without_times(straight)
    for key, value in straight.weights().items():
        np.testing.assert_array_equal(kept.weights()[key], value)


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("after", [1, 3, 3.4])
def test_a_killed_run_of_several_phases_ends_with_the_bytes_of_one_that_never_was(
    name: str, after: float, blocks: Dataset, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tmp_path / FILE_NAME, IDENTITY)
    with pytest.raises(Killed):
        fit(small(name), blocks, monitor=Tells(after), checkpoint=checkpoint)
    resumed = small(name)
    fit(resumed, blocks, checkpoint=Checkpoint(tmp_path / FILE_NAME, IDENTITY, resumes=True))
    straight = fit(small(name), blocks)
    assert without_times(resumed) == without_times(straight) and len(straight.log_) == 5
    for folder, model in (("resumed", resumed), ("straight", straight)):
        write_bundle(tmp_path / folder, Bundle(model=model, items=blocks.items))
    one, other = ((tmp_path / folder / "weights.safetensors").read_bytes() for folder in ("resumed", "straight"))
    assert one == other


def test_a_checkpoint_keeps_the_optimisers_of_the_phases_apart(blocks: Dataset, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / FILE_NAME, IDENTITY)
    model = small("recvae", epochs=2, encoder_passes=3, decoder_passes=2)
    fit(model, blocks, checkpoint=checkpoint)
    optimizers = checkpoint.load().optimizers
    assert set(optimizers) == {"encoder", "decoder"}
    n_encoder = sum(name.startswith("encoder.") for name in model.weights())
    assert (len(optimizers["encoder"]), len(optimizers["decoder"])) == (n_encoder, 2)
    for name, passes in (("encoder", 3), ("decoder", 2)):
        steps = {state["step"].item() for state in optimizers[name].values()}
        assert steps == {2 * passes * BATCHES}, "each counts its own updates"


def test_recvae_learns_encoder_and_decoder_in_turn_and_the_prior_follows_in_between(
    blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[tuple[str, dict[str, torch.Tensor], dict[str, bool]]] = []

    def watch(name: str, phase: str) -> None:
        original = getattr(RecVAE, name)

        def note(model: Any, *arguments: Any) -> Any:
            network = model.network_
            weights = {key: value.clone() for key, value in network.state_dict().items()}
            states.append((phase, weights, {key: value.requires_grad for key, value in network.named_parameters()}))
            return original(model, *arguments)

        monkeypatch.setattr(RecVAE, name, note)

    watch("_loss", "encoder")
    watch("_decoder_loss", "decoder")
    model = fit(small("recvae", epochs=2), blocks)
    assert [phase for phase, _, _ in states] == (["encoder"] * 3 * BATCHES + ["decoder"] * BATCHES) * 2
    for (phase, before, learns), (_, after, _) in pairwise(states):
        assert all(learns[name] == name.startswith(f"{phase}.") for name in learns)
        changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert changed - {"prior"} == {phase}
    in_decoder = [weights for phase, weights, _ in states if phase == "decoder"]
    for weights in in_decoder:  # the prior became the encoder just before, and both stand still
        for name, value in weights.items():
            if name.startswith("encoder."):
                assert torch.equal(weights[name.replace("encoder.", "prior.", 1)], value)
    in_encoder = [weights for phase, weights, _ in states if phase == "encoder"]
    for first, later in pairwise(in_encoder[: 3 * BATCHES]):
        assert all(torch.equal(first[name], later[name]) for name in first if name.startswith("prior."))
    assert not [name for name in model.weights() if name.startswith("prior.")], "no bundle holds the prior"


@pytest.mark.parametrize("passes", [(1, 1), (3, 2)])
def test_recvae_counts_the_passes_it_was_told(passes: tuple[int, int], blocks: Dataset) -> None:
    tells = Tells()
    encoder, decoder = passes
    model = fit(
        small("recvae", anneal="linear", anneal_fraction=1.0, encoder_passes=encoder, decoder_passes=decoder),
        blocks,
        monitor=tells,
    )
    n_updates = 5 * BATCHES * (encoder + decoder)
    assert tells.betas == pytest.approx([0.01 * update / n_updates for update in range(n_updates)])
    assert tells.progress[-1] == pytest.approx(5)
    assert json.loads(json.dumps(model.training_summary().to_json()))["epochs"] == 5


def test_a_checkpoint_of_the_one_phase_does_not_fit_a_model_of_two(blocks: Dataset, tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    for name, other in (("ae", "recvae"), ("recvae", "ae")):
        fit(small(name), blocks, checkpoint=Checkpoint(path, IDENTITY))
        with pytest.raises(BundleError, match="does not fit this run"):
            fit(small(other), blocks, checkpoint=Checkpoint(path, IDENTITY, resumes=True))
