"""One vector for each item in the first and the last layer: learned from both, kept once, served like any other."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recvae.bundles.bundle import read_bundle
from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.evaluation.evaluate import evaluate
from recvae.exports.scorer import OnnxScorer
from recvae.exports.writing import export
from recvae.metrics import parse_metrics
from recvae.models import AE, MODELS, MultDAE, MultVAE
from recvae.models.ae import AENetwork
from recvae.models.common.hyperparameters import build, hyperparameters_of
from recvae.models.common.networks import initialise
from recvae.models.common.noise import NoisyInput
from recvae.models.multvae import MultVAENetwork
from recvae.recommenders.recommender import Recommender
from recvae.training.batches import whole_batch
from recvae.training.losses import output_nll

# Letters in shape comments: B users, I items.

CPU = torch.device("cpu")
SMALL: dict[Any, dict[str, Any]] = {
    MultVAE: {"hidden_dims": (16,), "latent_dim": 8},
    MultDAE: {"latent_dim": 8},
    AE: {"latent_dim": 8, "hidden_dims": (12, 10)},
}
KINDS = pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.name)


def fit(kind: Any, data: Dataset, **changes: Any) -> Any:
    settings = {"epochs": 20, "batch_size": 20, "learning_rate": 0.01, "tied": True, **SMALL[kind]} | changes
    return kind(**settings).fit(data.train, data.validation, device="cpu")


@pytest.mark.parametrize("hidden_dims", [(), (6,), (6, 4)])
def test_the_gradient_of_the_vectors_is_that_of_both_layers_added_up(hidden_dims: tuple[int, ...]) -> None:
    x = sp.csr_matrix(np.random.default_rng(0).random((5, 9)) < 0.4, dtype=np.float32)
    tied, apart = AENetwork(9, hidden_dims, 3, tied=True), AENetwork(9, hidden_dims, 3)
    initialise(tied, torch.Generator().manual_seed(0))
    values = dict(tied.state_dict())
    apart.load_state_dict({**values, f"decoder.{len(apart.decoder) - 1}.weight": tied.output.weight.detach()})
    batch = whole_batch(x, CPU)
    for network in (tied, apart):
        hidden = network.decode(network.encode(batch, NoisyInput(batch.inputs)))
        output_nll(hidden, network.output, batch).sum().backward()
    first, last = cast(torch.Tensor, apart.encoder[0].weight).grad, apart.output.weight.grad
    assert first is not None and last is not None and first.abs().max() > 1e-4 < last.abs().max()
    torch.testing.assert_close(tied.output.weight.grad, first + last)
    torch.testing.assert_close(tied.output.bias.grad, apart.output.bias.grad)
    torch.testing.assert_close(tied(batch), apart(batch))


@KINDS
def test_it_has_one_weight_of_all_items_and_half_as_many_parameters(kind: Any, blocks: Dataset) -> None:
    tied, apart = fit(kind, blocks, epochs=1), fit(kind, blocks, epochs=1, tied=False)
    shapes = [value.shape for value in tied.weights().values()]
    assert sum(shape[0] == 32 and len(shape) == 2 for shape in shapes) == 1
    width = tied.network_.output.in_features
    of_all = [sum(value.size for value in model.weights().values()) for model in (tied, apart)]
    assert of_all[1] - of_all[0] == 32 * width
    assert tied.network_.output.weight is tied.network_.encoder[0].weight
    size = (*blocks.train.shape, blocks.train.nnz)
    assert tied.needs(*size).parameters == of_all[0]


@KINDS
def test_it_learns(kind: Any, blocks: Dataset) -> None:
    per_user, _ = evaluate(fit(kind, blocks), blocks.test, parse_metrics("ndcg@10"))
    assert np.nanmean(per_user["ndcg@10"]) > 0.9


def test_a_copy_of_a_network_is_tied_to_its_own_first_layer() -> None:
    network = MultVAENetwork(9, (4,), 2, tied=True)
    other = copy.deepcopy(network)
    cast(torch.Tensor, other.encoder[0].weight).data.fill_(3)
    assert (other.output.weight == 3).all() and not (network.output.weight == 3).all()
    assert other.output.weight is other.encoder[0].weight and len(list(other.output.parameters())) == 1


@pytest.mark.slow
@KINDS
def test_a_bundle_and_every_export_give_its_scores(kind: Any, blocks: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = fit(kind, blocks, averaging=0.5)
    Recommender(model, blocks).save(tmp_path / "run")
    loaded = read_bundle(tmp_path / "run").model
    rows = blocks.test.fold_in
    assert loaded == model
    np.testing.assert_array_equal(loaded.score(rows), model.score(rows))
    np.testing.assert_array_equal(loaded.similarities(np.arange(3)), model.similarities(np.arange(3)))
    scorer = OnnxScorer.load(export(tmp_path / "run").folder)
    np.testing.assert_allclose(scorer.score(rows.indices, rows.indptr, rows.data), model.score(rows), atol=1e-5)
    folder = export(tmp_path / "run", format="torch").folder
    program = torch.export.load(next(folder.glob("*.pt2"))).module()
    tensors = [torch.from_numpy(part.astype(np.int64)) for part in (rows.indices, rows.indptr)]
    np.testing.assert_allclose(program(*tensors, torch.from_numpy(rows.data)), model.score(rows), atol=1e-5)
    small = OnnxScorer.load(export(tmp_path / "run", quantize="int8").folder)
    found = small.score(rows.indices, rows.indptr, rows.data)
    assert np.corrcoef(found.ravel(), model.score(rows).ravel())[0, 1] > 0.99


@KINDS
def test_a_bundle_from_before_there_was_a_choice_is_not_tied(kind: Any, blocks: Dataset, tmp_path: Path) -> None:
    model = fit(kind, blocks, epochs=1, tied=False)
    Recommender(model, blocks).save(tmp_path / "run")
    card = tmp_path / "run" / "recommender.json"
    content = json.loads(card.read_text())
    for name in ("tied", "items_at_a_time", "row_wise"):
        del content["hyperparameters"][name]
    card.write_text(json.dumps(content))
    loaded = read_bundle(tmp_path / "run").model
    assert loaded == model and not loaded.tied  # type: ignore[attr-defined]
    np.testing.assert_array_equal(loaded.score(blocks.test.fold_in), model.score(blocks.test.fold_in))


@KINDS
def test_weights_of_the_other_kind_are_refused(kind: Any, blocks: Dataset) -> None:
    tied, apart = fit(kind, blocks, epochs=1), fit(kind, blocks, epochs=1, tied=False)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*decoder"):
        kind(**SMALL[kind], tied=True).load_weights(apart.weights())
    with pytest.raises((KeyError, RuntimeError), match="decoder"):
        kind(**SMALL[kind]).load_weights(tied.weights())


def test_what_cannot_be_tied_is_refused(blocks: Dataset) -> None:
    said = (
        r"got tied=True without hidden_dims, where the first layer is 16 wide \(means and log-variances\) and the last "
        "8; set hidden_dims, e.g. hidden_dims=600"
    )
    with pytest.raises(UsageError, match=said):
        build(MultVAE, {"tied": True, "hidden_dims": (), "latent_dim": 8})
    with pytest.raises(UsageError, match=said):
        MultVAE(tied=True, hidden_dims=(), latent_dim=8).fit(blocks.train)
    MultVAE(hidden_dims=(), latent_dim=8, epochs=1).fit(blocks.train, device="cpu")
    for name in ("recvae", "hvamp"):
        with pytest.raises(UsageError, match="got unknown hyperparameter 'tied'"):
            build(MODELS[name], {"tied": True})
    assert {name for name, model in MODELS.items() if "tied" in hyperparameters_of(model)} == {
        "ae",
        "multdae",
        "multvae",
    }


def test_the_command_trains_exports_and_serves_it(toy: Path, command: Callable[..., Any]) -> None:
    pytest.importorskip("onnxruntime")
    words = ("train", "--model", "multdae", "--set", "epochs=1", "--set", "latent_dim=4")
    assert command(*words, "--set", "tied=true").code == 0
    assert command("export").code == 0
    assert command("evaluate", "--baselines", "none").code == 0
