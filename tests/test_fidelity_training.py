"""What training is for every autoencoder of the registry: its users, its noise, its KL weight, what it keeps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.metrics import ndcg_at_k
from recvae.models import MODELS, HVamp, MultVAE
from recvae.models.common.autoencoder import Autoencoder
from recvae.models.common.hyperparameters import hyperparameters_of
from recvae.models.common.likelihood import ItemLikelihood
from recvae.models.common.variational import VariationalAutoencoder, find_beta
from recvae.training.batches import SparseBatch, whole_batch
from recvae.training.records import EpochRecord, NullMonitor
from recvae.training.task import Losses, Phase

Make = Callable[..., Any]
NETWORKS = [name for name, model in MODELS.items() if issubclass(model, Autoencoder)]
VARIATIONAL = [name for name, model in MODELS.items() if issubclass(model, VariationalAutoencoder)]
WITH_BETA = [name for name in VARIATIONAL if "beta" in hyperparameters_of(MODELS[name])]
WITH_DROPOUT = [name for name in NETWORKS if "dropout" in hyperparameters_of(MODELS[name])]
N_USERS, N_ITEMS = 23, 11


def rows() -> sp.csr_matrix:
    """Return users with weighted items, no two alike."""
    rng = np.random.default_rng(1)
    dense = rng.integers(1, 4, (N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.5)
    assert len(np.unique(dense, axis=0)) == N_USERS
    return sp.csr_matrix(dense, dtype=np.float32)


def passes_of(model: Any) -> int:
    """Return how often an epoch sees every user."""
    return model.encoder_passes + model.decoder_passes if model.name == "recvae" else 1


def with_phases(model: Autoencoder, change: Callable[[Phase], Phase], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the model, whose phases will be changed at the start of its next fit."""
    phases = model._phases
    monkeypatch.setattr(model, "_phases", lambda: [change(phase) for phase in phases()])
    return model


class Watch(NullMonitor):
    """Keeps the KL weights that a run tells, and the network after each epoch."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.betas: list[float | None] = []
        self.weights: list[dict[str, np.ndarray]] = []

    def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
        self.betas.append(beta)

    def epoch(self, record: EpochRecord) -> None:  # noqa: ARG002
        network: nn.Module = self.model.network_
        self.weights.append({name: value.numpy().copy() for name, value in network.state_dict().items()})


@pytest.mark.parametrize("name", NETWORKS)
def test_every_pass_sees_every_user_once_the_last_smaller_batch_too(
    name: str, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVIDIA's fast variant drops the last batch; a loop over shuffled rows of shuffled rows, as Microsoft's, repeats
    some users and leaves out others."""
    seen: list[list[tuple[float, ...]]] = []

    def look(phase: Phase) -> Phase:
        def loss(batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:
            dense = torch.zeros(len(batch), N_ITEMS)
            dense[batch.rows, batch.items.long()] = batch.values
            seen.append([tuple(row) for row in dense.tolist()])
            return phase.loss(batch, beta, generator)

        return replace(phase, loss=loss)

    model = with_phases(make_model(name, epochs=2, batch_size=8), look, monkeypatch)
    model.fit(rows(), device="cpu")
    everyone = sorted(tuple(row) for row in rows().toarray().tolist())
    orders = [[user for batch in seen[i : i + 3] for user in batch] for i in range(0, len(seen), 3)]
    assert [len(batch) for batch in seen] == [8, 8, 7] * 2 * passes_of(model)
    assert all(sorted(order) == everyone for order in orders)
    assert len({tuple(order) for order in orders}) == len(orders)  # shuffled anew; Cornac's never are


def expected_betas(anneal: str, cap: float, updates: int) -> list[float]:
    """Return the schedule of a whole run, written down once more: half of the run, or of each of 2 cycles, rises."""
    period = updates // 2 if anneal == "cyclical" else updates
    rising = period // 2
    betas = []
    for update in range(updates):
        share = min(1.0, (update % period) / rising)
        of_cap = {"constant": 1.0, "cosine": 0.5 - 0.5 * math.cos(math.pi * share)}.get(anneal, share)
        betas.append(cap * of_cap)
    return betas


@pytest.mark.parametrize("anneal", ["linear", "constant", "cosine", "cyclical"])
@pytest.mark.parametrize("name", VARIATIONAL)
def test_the_weight_of_the_kl_term_follows_its_schedule_and_never_exceeds_its_cap(
    name: str, anneal: str, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """recpack lets beta grow to 1 before it falls back to the cap; RePlay and Cornac have no schedule."""
    used: list[float] = []

    def look(phase: Phase) -> Phase:
        def loss(batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:
            used.append(beta)
            return phase.loss(batch, beta, generator)

        return replace(phase, loss=loss)

    cap = {"gamma" if name == "recvae" else "beta": 0.3}
    schedule = {"anneal": anneal, "anneal_fraction": 0.5, **({"anneal_cycles": 2} if anneal == "cyclical" else {})}
    model = with_phases(make_model(name, epochs=8, batch_size=8, **cap, **schedule), look, monkeypatch)
    watch = Watch(model)
    model.fit(rows(), monitor=watch, device="cpu")
    per_epoch = 3 * passes_of(model)
    assert watch.betas == used == pytest.approx(expected_betas(anneal, 0.3, 8 * per_epoch), abs=1e-12)
    assert max(used) == pytest.approx(0.3)
    assert max(used) <= 0.3
    assert [record.beta for record in model.log_] == used[per_epoch - 1 :: per_epoch]


@pytest.mark.parametrize("name", WITH_BETA)
def test_beta_multiplies_the_kl_term_once(name: str, make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HVamp, "_finish", lambda _: None)  # its prior stays, for the loss to be computed once more
    model = make_model(name, epochs=1, learning_rate=0.0).fit(rows(), device="cpu")
    batch = whole_batch(rows(), torch.device("cpu"))
    for beta in (0.0, 0.2, 1.0):
        losses = cast(Losses, model._loss(batch, beta, torch.Generator().manual_seed(0)))
        assert losses.kl is not None
        expected = losses.reconstruction + beta * losses.kl
        assert losses.total.item() == pytest.approx(expected.item(), rel=1e-6)
        assert losses.kl.abs().item() > 1e-4


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_dropout_changes_training_and_no_score(name: str, make_model: Make) -> None:
    """Cornac's has none; Microsoft's adds one to the decoder."""
    some = make_model(name, dropout=0.5, epochs=2).fit(rows(), device="cpu")
    none = make_model(name, dropout=0.0).load_weights(some.weights())
    np.testing.assert_array_equal(some.score(rows()), none.score(rows()))
    without = make_model(name, dropout=0.0, epochs=2).fit(rows(), device="cpu")
    assert [record.loss for record in some.log_] != [record.loss for record in without.log_]


@pytest.mark.parametrize("name", [name for name in NETWORKS if issubclass(MODELS[name], ItemLikelihood)])
def test_the_input_is_normalised_and_the_target_is_not(
    name: str, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doubled weights are the same user to the encoder, and twice the evidence to the likelihood; Cornac's encoder
    sees them as they are."""
    monkeypatch.setattr(HVamp, "_finish", lambda _: None)  # its prior stays, for the loss to be computed once more
    model = make_model(name, epochs=1, learning_rate=0.0).fit(rows(), device="cpu")
    np.testing.assert_allclose(model.score(2 * rows()), model.score(rows()), rtol=1e-5, atol=1e-6)
    phases: Sequence[Phase] = model._phases() if name != "recvae" else [model._phases()[1]]
    for phase in phases:
        once, twice = (
            phase.loss(whole_batch(sp.csr_matrix(x), torch.device("cpu")), 0.0, torch.Generator().manual_seed(0))
            for x in (rows(), 2 * rows())
        )
        assert twice.reconstruction.item() == pytest.approx(2 * once.reconstruction.item(), rel=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_validation_users_choose_the_epoch_that_is_kept_and_nothing_else(
    name: str, make_model: Make, blocks: Dataset
) -> None:
    """Published code on the LightGCN splits chooses by test users; here they are not even given."""
    fold_in = blocks.test.fold_in
    unwanted = sp.csr_matrix(1 - blocks.test.targets.toarray() - fold_in.toarray())
    logs = []
    for targets in (blocks.test.targets, unwanted):
        model = make_model(name, epochs=6, patience=0)
        watch = Watch(model)
        model.fit(blocks.train, (fold_in, targets), monitor=watch, device="cpu")
        values = []
        for weights in watch.weights:
            kept = {key: value for key, value in weights.items() if not key.startswith("prior")}
            ranked, _ = make_model(name).load_weights(kept).recommend(fold_in, 100)
            values.append(float(ndcg_at_k(ranked, targets, 100).mean()))
        assert [record.ndcg for record in model.log_] == pytest.approx(values, rel=1e-6)
        best = int(np.argmax(values))
        assert model.history_.best_epoch == 1 + best
        kept = {key: value for key, value in watch.weights[best].items() if not key.startswith("prior")}
        for key, value in make_model(name).load_weights(kept).weights().items():
            np.testing.assert_array_equal(model.weights()[key], value)
        logs.append([record.loss for record in model.log_])
    alone = make_model(name, epochs=6, patience=0).fit(blocks.train, device="cpu")
    assert logs == 2 * [[record.loss for record in alone.log_]]


@pytest.mark.parametrize("settings", [{}, {"anneal_steps": 150}, {"anneal_fraction": 0.4}])
@pytest.mark.parametrize("name", WITH_BETA)
def test_the_beta_found_is_that_of_the_pilots_best_epoch_reached_on_the_same_slope(
    name: str, settings: dict[str, Any], make_model: Make, blocks: Dataset
) -> None:
    """Annealing to the cap in another number of updates would be another schedule than the one it was found on."""
    model = make_model(name, epochs=6, beta=0.07, anneal="cosine", patience=0, **settings)
    found = find_beta(model, blocks.train, blocks.validation, device="cpu")
    assert model.beta == 0.07
    assert model.n_items_ == 0  # a copy was trained

    pilot = replace(model, beta=1.0, anneal="linear", decay="none")  # else validation rises as the steps get smaller
    watch, again = Watch(pilot), replace(model, **found)
    pilot.fit(blocks.train, blocks.validation, monitor=watch, device="cpu")
    updates = pilot.history_.best_epoch * 10  # 100 users in batches of 10
    assert found["beta"] == watch.betas[updates - 1]
    assert found["anneal"] == "linear"
    second = Watch(again)
    again.fit(blocks.train, blocks.validation, monitor=second, device="cpu")
    assert second.betas[:updates] == pytest.approx(watch.betas[:updates], rel=1e-9, abs=1e-9)
    assert set(second.betas[updates:]) <= {found["beta"]}


def test_there_is_no_beta_to_find_without_one_or_without_anybody_to_ask(make_model: Make, blocks: Dataset) -> None:
    for name in ("ae", "recvae", "ease"):
        with pytest.raises(UsageError, match=f"got {name}, which has no beta to find"):
            find_beta(make_model(name), blocks.train, blocks.validation, device="cpu")
    nobody = (blocks.test.fold_in, sp.csr_matrix(blocks.test.targets.shape))
    with pytest.raises(UsageError, match="no validation user with a target"):
        find_beta(MultVAE(hidden_dims=(4,), latent_dim=2, epochs=1), blocks.train, nobody, device="cpu")
