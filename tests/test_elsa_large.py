"""ELSA for large catalogues: the loss over sampled items, and item vectors with few entries, against float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.nn import functional

from recvae.bundles.bundle import read_bundle
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, UsageError
from recvae.evaluation.evaluate import evaluate
from recvae.exports.scorer import OnnxScorer
from recvae.exports.writing import export
from recvae.metrics import parse_metrics
from recvae.models import ELSA
from recvae.models.common.sparse_vectors import SparseItemVectors, keep_largest
from recvae.models.compressed_elsa import entries_after
from recvae.recommenders.recommender import Recommender
from recvae.training.batches import whole_batch
from recvae.training.checkpoints import Checkpoint
from recvae.training.item_samples import ItemSample, sample_items
from recvae.training.records import EpochRecord, NullMonitor

CPU = torch.device("cpu")
N_USERS, N_ITEMS, N_FACTORS = 17, 30, 6
OPTIONS: dict[str, dict[str, Any]] = {
    "sampled": {"sampling": "uniform", "sampled_items": 10},
    "sparse": {"entries": 3},
    "both": {"sampling": "uniform", "sampled_items": 10, "entries": 3},
    "averaged": {"entries": 3, "averaging": 0.7},
    "sampled averaged": {"sampling": "uniform", "sampled_items": 10, "averaging": 0.7},
}


def rows(seed: int = 3) -> sp.csr_matrix:
    """Return users with weighted items; the last one has none."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 4, (N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.15)
    dense[:, 0] = 1
    dense[-1] = 0
    return sp.csr_matrix(dense, dtype=np.float32)


def before_training(**changes: Any) -> ELSA:
    settings: dict[str, Any] = {"latent_dim": N_FACTORS} | changes
    model = ELSA(**settings)
    model.network_ = model._network(N_ITEMS)
    model._initialise(torch.Generator().manual_seed(0))
    return model


def small(**changes: Any) -> ELSA:
    settings: dict[str, Any] = {"latent_dim": 8, "epochs": 8, "batch_size": 30, "seed": 5} | changes
    return ELSA(**settings)


def fit(model: ELSA, data: Dataset, **arguments: Any) -> ELSA:
    return model.fit(data.train, data.validation, device="cpu", **arguments)


def same_weights(one: ELSA, other: ELSA) -> None:
    assert one.weights().keys() == other.weights().keys()
    for name, value in one.weights().items():
        np.testing.assert_array_equal(value, other.weights()[name], err_msg=name, strict=True)


# ---------------------------------------------------------------- sampled items


def sampled_loss(weight: torch.Tensor, x: torch.Tensor, items: list[int]) -> torch.Tensor:
    """Return the mean of | x/|x| - y/|y| |^2 with x and y = x A A^T - x at some items only, as it is written."""
    vectors = functional.normalize(weight[items], dim=1)  # (S, D)
    x = x[:, items]
    y = x @ vectors @ vectors.T - x
    return (functional.normalize(x, dim=1) - functional.normalize(y, dim=1)).square().sum(dim=1).mean()


@pytest.mark.parametrize("latent_dim", [2, 6, 40])  # with more users than factors, and with fewer
def test_the_sampled_loss_and_its_gradient_are_those_of_the_paper_on_these_items(latent_dim: int) -> None:
    x = rows()[:-1]
    model = before_training(latent_dim=latent_dim, sampling="uniform", sampled_items=4)
    batch = whole_batch(x, CPU)
    sample = sample_items(batch, N_ITEMS, 4, torch.Generator().manual_seed(7))
    loss = model._loss(batch, 0.0, torch.Generator().manual_seed(7)).total
    loss.backward()
    weight = model.network_.output.weight.detach().double().requires_grad_()
    expected = sampled_loss(weight, torch.from_numpy(x.toarray()).double(), sample.items.tolist())
    expected.backward()
    assert len(sample.items) < N_ITEMS and weight.grad is not None
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    gradient = model.network_.output.weight.grad
    assert gradient.is_sparse and gradient._nnz() == len(sample.items)
    torch.testing.assert_close(gradient.to_dense().double(), weight.grad, rtol=1e-3, atol=1e-6)


def test_a_sample_has_the_items_of_the_batch_first_then_others_and_none_twice() -> None:
    batch = whole_batch(rows(), CPU)
    own = sorted(set(batch.items.tolist()))
    sample = sample_items(batch, N_ITEMS, 12, torch.Generator().manual_seed(1))
    items = sample.items.tolist()
    assert items[: len(own)] == own and len(set(items)) == len(items)
    assert sample.items[sample.positions.long()].tolist() == batch.items.tolist()
    nobody = sample_items(whole_batch(rows()[-1:], CPU), N_ITEMS, 12, torch.Generator().manual_seed(1))
    assert 1 < len(nobody.items) <= 12 and len(nobody.positions) == 0


def test_every_item_that_is_not_of_the_batch_is_drawn_equally_often() -> None:
    batch, generator = whole_batch(rows()[:2], CPU), torch.Generator().manual_seed(2)
    own, counts = set(batch.items.tolist()), np.zeros(N_ITEMS)
    for _ in range(4000):
        counts[sample_items(batch, N_ITEMS, 6, generator).items.numpy()] += 1
    others = np.array([item not in own for item in range(N_ITEMS)])
    assert (counts[~others] == 4000).all()
    share = 1 - (1 - 1 / N_ITEMS) ** 6
    np.testing.assert_allclose(counts[others] / 4000, share, atol=4.5 * (share * (1 - share) / 4000) ** 0.5)


def test_with_as_many_draws_as_items_it_is_the_full_loss_and_nothing_is_drawn() -> None:
    batch = whole_batch(rows(), CPU)
    full, all_drawn = before_training(), before_training(sampling="uniform", sampled_items=N_ITEMS)
    losses = []
    for model in (full, all_drawn):
        generator = torch.Generator().manual_seed(0)
        loss = model._loss(batch, 0.0, generator).total
        loss.backward()
        losses.append(loss.detach())
        assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())
    torch.testing.assert_close(losses[0], losses[1])
    gradient = all_drawn.network_.output.weight.grad.to_dense()
    torch.testing.assert_close(gradient, full.network_.output.weight.grad, rtol=1e-4, atol=1e-7)


def test_training_on_all_items_by_rows_is_training_as_ever(blocks: Dataset) -> None:
    ever = fit(small(epochs=3), blocks)
    by_rows = fit(small(epochs=3, sampling="uniform", sampled_items=32), blocks)
    np.testing.assert_allclose(by_rows.weights()["items.weight"], ever.weights()["items.weight"], atol=2e-3)
    assert [record.loss for record in by_rows.log_] == pytest.approx([record.loss for record in ever.log_], rel=1e-3)


def test_rows_of_items_that_were_not_in_a_batch_stay_to_the_bit() -> None:
    train = sp.csr_matrix(np.eye(3, 2000, dtype=np.float32) + np.eye(3, 2000, 1, dtype=np.float32))
    model = ELSA(latent_dim=4, epochs=1, batch_size=3, sampling="uniform", sampled_items=5, seed=1)
    before = model._network(2000)
    model.network_ = before
    model._initialise(torch.Generator().manual_seed(1))
    start = functional.normalize(before.output.weight.detach()).numpy()
    learned = model.fit(train, device="cpu").weights()["items.weight"]
    moved = (np.abs(learned - start) > 1e-5).any(axis=1)
    assert np.flatnonzero(moved)[:4].tolist() == [0, 1, 2, 3] and moved.sum() <= 4 + 5
    np.testing.assert_array_equal(learned[~moved], start[~moved])


def test_validation_while_rows_have_any_length_scores_as_with_length_1(blocks: Dataset) -> None:
    model = small(sampling="uniform", sampled_items=5)
    model.network_ = model._network(32)
    model._initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.network_.items.weight *= torch.linspace(0.1, 9, 32)[:, None]
    history = blocks.validation.fold_in
    for _ in range(2):  # also after the weights have changed
        vectors = functional.normalize(model.network_.items.weight.detach().double()).numpy()
        expected = history @ (vectors @ vectors.T - np.eye(32))
        np.testing.assert_allclose(model._score_block(history), expected, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            model.network_.items.weight += 0.3


# ---------------------------------------------------------------- few entries


def vectors_and_reference(n_entries: int = 3) -> tuple[SparseItemVectors, np.ndarray]:
    """Return a sparse matrix, and the same made from the definition in float64."""
    weight = torch.randn(50, 9, generator=torch.Generator().manual_seed(4))
    dense = weight.double().numpy()
    least = np.sort(np.abs(dense), axis=1)[:, -n_entries]
    kept = np.where(np.abs(dense) >= least[:, None], dense, 0)
    return SparseItemVectors.of(weight, n_entries), kept / np.linalg.norm(kept, axis=1, keepdims=True)


@pytest.mark.parametrize("chunk", [1, 40, 1 << 21])
def test_the_largest_entries_are_kept_and_scaled_and_all_products_are_theirs(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recvae.models.common.sparse_vectors._CHUNK_ENTRIES", chunk)
    vectors, expected = vectors_and_reference()
    stored = vectors.rows(torch.arange(50)).numpy()
    np.testing.assert_allclose(stored, expected, rtol=2**-10, atol=1e-7)
    assert (np.diff(vectors.columns.numpy(), axis=1) > 0).all(), "ascending, so no column comes twice"
    x = sp.csr_matrix(sp.random(7, 50, 0.2, dtype=np.float32, rng=1))
    codes = x.toarray() @ stored.astype(np.float64)
    np.testing.assert_allclose(vectors.code(whole_batch(x, CPU)), codes, rtol=1e-5, atol=1e-6)
    found = vectors.products(torch.from_numpy(codes.astype(np.float32)))
    np.testing.assert_allclose(found, codes @ stored.T.astype(np.float64), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vectors.lengths(), np.linalg.norm(stored.astype(np.float64), axis=1), rtol=1e-6)


def test_pruning_takes_the_same_places_of_the_moments_and_what_is_0_stays_0() -> None:
    weight = torch.tensor([[3.0, -4.0, 1.0, 2.0], [0.0, 0.0, 5.0, 0.0]])
    moment = torch.ones(2, 4)
    keep_largest(weight, 2, (moment,))
    assert weight.tolist() == [[3, -4, 0, 0], [0, 0, 5, 0]]
    assert (moment * weight == weight).all() and moment[0].tolist() == [1, 1, 0, 0]


def test_entries_fall_by_the_same_factor_and_stay_for_the_last_quarter() -> None:
    kept = [entries_after(epoch, 16, 1024, 16) for epoch in range(17)]
    assert kept[0] == 1024 and kept[12:] == [16] * 5
    np.testing.assert_allclose(np.array(kept[1:13]) / kept[:12], (16 / 1024) ** (1 / 12), rtol=0.03)
    assert entries_after(1, 1, 100, 5) == 5, "one epoch is pruned at its end"
    assert {entries_after(epoch, 10, 7, 7) for epoch in range(11)} == {7}


@pytest.mark.parametrize("name", ["sparse", "both"])
def test_while_it_learns_rows_have_as_many_entries_as_the_schedule_says(name: str, blocks: Dataset) -> None:
    counts: list[int] = []

    class Counts(NullMonitor):
        def epoch(self, record: EpochRecord) -> None:  # noqa: ARG002
            counts.append(int((model.network_.items.weight != 0).sum(dim=1).max()))

    model = small(**OPTIONS[name])
    fit(model, blocks, monitor=Counts())
    assert counts == [entries_after(epoch, 8, 8, 3) for epoch in range(1, 9)]
    columns = model.weights()["items.columns"]
    assert columns.shape == (32, 3) and columns.dtype == np.int16


def test_an_entry_that_was_pruned_never_comes_back_and_the_others_learn() -> None:
    model = before_training(entries=3, sampling="none")
    weight, x = model.network_.output.weight, whole_batch(rows()[:-1], CPU)
    keep_largest(weight, 3)
    model._loss(x, 0.0, torch.Generator()).total.backward()
    reference = weight.detach().double().requires_grad_()
    dense = torch.from_numpy(rows()[:-1].toarray()).double()
    sampled_loss(reference, dense, list(range(N_ITEMS))).backward()
    assert reference.grad is not None and reference.grad[weight == 0].any(), "without a mask they would"
    assert not weight.grad[weight == 0].any()  # type: ignore[index]
    torch.testing.assert_close(
        weight.grad.double(),
        reference.grad * (weight != 0),
        rtol=1e-3,
        atol=1e-6,  # type: ignore[union-attr]
    )


@pytest.mark.parametrize("name", ["sparse", "both", "averaged"])
def test_an_epoch_is_validated_with_what_would_be_kept(name: str, blocks: Dataset) -> None:
    """So that the best epoch is the best of sparse vectors, and its figure that of the fitted model."""
    model = fit(small(**OPTIONS[name]), blocks)
    per_user, _ = evaluate(model, blocks.validation, parse_metrics("ndcg@100"))
    assert float(np.nanmean(per_user["ndcg@100"])) == pytest.approx(model.history_.best_ndcg, abs=1e-9)


@pytest.mark.parametrize("name", ["sparse", "both"])
def test_scores_reasons_codes_and_similarities_are_those_of_the_stored_entries(name: str, blocks: Dataset) -> None:
    model = fit(small(**OPTIONS[name]), blocks)
    columns, values = (model.weights()[f"items.{part}"] for part in ("columns", "values"))
    dense = np.zeros((32, 8))
    np.put_along_axis(dense, columns.astype(np.int64), values.astype(np.float64), axis=1)
    history = blocks.test.fold_in * 2
    np.testing.assert_allclose(model.embed(history), history @ dense, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.score(history), history @ (dense @ dense.T - np.eye(32)), rtol=1e-4, atol=1e-5)
    every = np.arange(32)
    np.testing.assert_allclose(
        model.contributions(history[0], every).sum(axis=0), model.score(history[0])[0], atol=1e-4
    )
    unit = dense / np.linalg.norm(dense, axis=1, keepdims=True)
    np.testing.assert_allclose(model.similarities(every), unit @ unit.T, atol=1e-5)
    np.testing.assert_allclose(model.similarities(every[:4], every[3:9]), unit[:4] @ unit[3:9].T, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(dense, axis=1), 1, atol=1e-3)
    with pytest.raises(UsageError, match=r"got a compressed ELSA, whose item vectors are sparse; read them from `wei"):
        model.network_.output  # noqa: B018


@pytest.mark.parametrize("name", OPTIONS)
def test_it_still_finds_the_rest_of_a_group(name: str, blocks: Dataset) -> None:
    model = fit(small(epochs=25, batch_size=10, **OPTIONS[name]), blocks)
    items, _ = model.recommend(blocks.test.fold_in, k=5)
    assert [set(row) for row in items.tolist()] == [set(row.indices.tolist()) for row in blocks.test.targets]


# ---------------------------------------------------------------- kept, resumed, exported, refused


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("after", [1, 5])
def test_a_killed_run_goes_on_to_the_bit(name: str, after: int, blocks: Dataset, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Kills(NullMonitor):
        def epoch(self, record: EpochRecord) -> None:
            if record.epoch == after:
                raise Killed

    path, identity = tmp_path / "checkpoint.safetensors", {"model": "elsa"}
    with pytest.raises(Killed):
        fit(small(**OPTIONS[name]), blocks, monitor=Kills(), checkpoint=Checkpoint(path, identity))
    resumed = fit(small(**OPTIONS[name]), blocks, checkpoint=Checkpoint(path, identity, resumes=True))
    straight = fit(small(**OPTIONS[name]), blocks)
    same_weights(resumed, straight)
    assert [record.ndcg for record in resumed.log_] == [record.ndcg for record in straight.log_]


@pytest.mark.parametrize("name", OPTIONS)
def test_fitting_twice_is_fitting_once(name: str, blocks: Dataset) -> None:
    model = fit(small(**OPTIONS[name]), blocks)
    first = {key: value.copy() for key, value in model.weights().items()}
    for key, value in fit(model, blocks).weights().items():
        np.testing.assert_array_equal(value, first[key])
    other = fit(small(**OPTIONS[name] | {"seed": 6}), blocks)
    assert any((value != other.weights()[key]).any() for key, value in first.items())


@pytest.mark.parametrize("entries", [3, 5])
def test_a_bundle_has_4_bytes_an_entry_and_scores_the_same(entries: int, blocks: Dataset, tmp_path: Path) -> None:
    model = fit(small(entries=entries), blocks)
    Recommender(model, blocks).save(tmp_path / "run")
    read = read_bundle(tmp_path / "run").model
    assert sum(array.nbytes for array in read.weights().values()) == 4 * entries * 32
    assert read.needs(10, 32, 50).parameters == 32 * entries
    history = blocks.test.fold_in
    np.testing.assert_array_equal(read.score(history), model.score(history))
    np.testing.assert_array_equal(read.recommend(history, 5)[0], model.recommend(history, 5)[0])


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_it_is_exported(format: str, blocks: Dataset, tmp_path: Path) -> None:
    model = fit(small(entries=3), blocks)
    Recommender(model, blocks).save(tmp_path / "run")
    folder = export(tmp_path / "run", format=format, held_out=blocks.validation).folder
    if format == "onnx":
        x = blocks.test.fold_in
        found = OnnxScorer.load(folder).score(x.indices, x.indptr, x.data)
        np.testing.assert_allclose(found, model.score(x), rtol=1e-5, atol=2e-6)
        with pytest.raises(UsageError, match="elsa has no dense layer to quantise; export it without --quantize"):
            export(tmp_path / "run", quantize="int8", held_out=blocks.validation)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"entries": 9},
            "got entries=9 with latent_dim=8, expected at most as many; lower entries or raise",
        ),
        ({"entries": 0}, r"got entries=0, expected a whole number, 1 or more \(or none\)"),
        (
            {"entries": 5, "latent_dim": 40_000},
            "got latent_dim=40000 with entries=5, expected at most 32,768",
        ),
        ({"sampling": "uniform", "sampled_items": 0}, "got sampled_items=0, expected a whole number, 1 or more"),
        (
            {"sampled_items": 5},
            "got sampled_items=5 with sampling=none, where it has no effect",
        ),
        ({"sampling": "popularity"}, "got sampling='popularity', expected one of none, uniform"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str, blocks: Dataset) -> None:
    model = small(**settings)
    with pytest.raises(UsageError, match=message):
        fit(model, blocks)
    assert not model.n_items_


def test_vectors_that_do_not_fit_are_refused(blocks: Dataset, tmp_path: Path) -> None:
    model = fit(small(entries=3), blocks)
    weights = model.weights()
    for changed, message in (
        ({"items.columns": weights["items.columns"] + np.int16(8)}, r"columns from \d+ to \d+, expected 0 to 7"),
        ({"items.columns": weights["items.columns"].astype(np.int32)}, "columns of type int32 and shape .* int16 and"),
        (
            {"items.values": weights["items.values"][:-1]},
            r"values of type float16 and shape \(31, 3\), expected",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            small(entries=3).load_weights(weights | changed)
    with pytest.raises(ValueError, match=r"shape \(32, 3\), expected int16 and \(32, 4\)"):
        small(entries=4).load_weights(weights)
    with pytest.raises(KeyError):
        small(entries=3).load_weights(fit(small(), blocks).weights())
    Recommender(model, blocks).save(tmp_path / "run")
    card = tmp_path / "run" / "recommender.json"
    card.write_text(card.read_text().replace('"entries": 3', '"entries": 4'))
    with pytest.raises(BundleError, match="does not fit the hyperparameters"):
        read_bundle(tmp_path / "run")


def test_a_step_needs_no_more_for_more_items() -> None:
    model, steps = ELSA(latent_dim=16, batch_size=100, sampling="uniform", sampled_items=1000), []
    for n_items in (10**6, 10**7):
        with torch.device("meta"):
            steps.append(model._footprint(model._network(n_items), 100, 2000, on_gpu=False))
    assert steps[0] == steps[1] and steps[0].more > 4 * 16 * 3000 and steps[0].blocks == 0


def test_the_sample_is_a_pair_of_tensors() -> None:
    sample = ItemSample(torch.tensor([4, 2]), torch.tensor([1, 0, 0], dtype=torch.int32))
    model = before_training(sampling="uniform")
    x = whole_batch(sp.csr_matrix(([1.0, 1.0, 1.0], [2, 4, 4], [0, 2, 3]), shape=(2, N_ITEMS), dtype=np.float32), CPU)
    cosine = model.network_.cosine(x, sample)
    weight = model.network_.output.weight.detach().double()
    dense = torch.zeros(2, N_ITEMS, dtype=torch.float64)
    dense[0, [2, 4]], dense[1, 4] = 1, 1
    assert (2 - 2 * cosine).mean().item() == pytest.approx(sampled_loss(weight, dense, [4, 2]).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["sampled", "both"])
def test_the_command_trains_evaluates_and_resumes_it(name: str, toy: Path, command: Callable[..., Any]) -> None:
    words = [word for key, value in OPTIONS[name].items() for word in ("--set", f"{key}={value}")]
    said = command("train", "--model", "elsa", "--set", "latent_dim=8", "--set", "epochs=2", *words)
    assert said.code == 0, said.err
    assert command("evaluate", "--baselines", "none").code == 0
    refused = command("train", "--model", "elsa", "--set", "latent_dim=8", "--set", "entries=9", "--overwrite")
    assert refused.code == 2 and "got entries=9 with latent_dim=8" in refused.err and "Traceback" not in refused.err
    assert Path("runs/toy/elsa/weights.safetensors").is_file(), "what was there stays"
