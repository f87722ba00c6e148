"""Adam on the rows that a batch touches: each row as if it had an Adam of its own."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.evaluation.evaluate import evaluate
from recvae.metrics import parse_metrics
from recvae.models import AE, MODELS, HVamp, MultDAE, MultVAE, RecVAE
from recvae.models.common.hyperparameters import build, hyperparameters_of
from recvae.training import row_adam
from recvae.training.batches import whole_batch
from recvae.training.checkpoints import FILE_NAME, Checkpoint
from recvae.training.records import EpochRecord, NullMonitor
from recvae.training.row_adam import RowAdam, sparse_rows
from recvae.training.sampled_softmax import sampled_nll

# Letters in shape comments: R rows, H width.

CPU = torch.device("cpu")
IDENTITY = {"model": "any", "fingerprint": "abc", "hyperparameters": {}}
SMALL: dict[Any, dict[str, Any]] = {
    MultVAE: {"hidden_dims": (16,), "latent_dim": 8},
    MultDAE: {"latent_dim": 8},
    AE: {"latent_dim": 8, "hidden_dims": (12,)},
    RecVAE: {"hidden_dim": 16, "latent_dim": 8, "depth": 2},
}
SAMPLED = {"sampling": "popularity", "sampled_items": 6}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def touching(gradient: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Return a sparse gradient with one row for each of `rows`, in their order."""
    return torch.sparse_coo_tensor(torch.tensor([rows]), gradient, (7, *gradient.shape[1:]), check_invariants=True)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(7, 3), (7,)], ids=["matrix", "bias"])
@pytest.mark.parametrize("part_bytes", [1, 1 << 20])
def test_each_row_goes_the_way_of_an_adam_of_its_own(
    shape: tuple[int, ...], decay: float, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_adam, "_PART_BYTES", part_bytes)
    rng = np.random.default_rng(0)
    ours = nn.Parameter(drawn(*shape))
    alone = [nn.Parameter(row.clone()) for row in ours.detach()]
    optimizer = RowAdam([ours], lr=0.1, weight_decay=decay)
    others = [torch.optim.Adam([row], lr=0.1, weight_decay=decay) for row in alone]
    for step in range(30):
        rows = rng.choice(6, size=rng.integers(1, 6)).tolist()  # some several times, the last row never
        gradient = drawn(len(rows), *shape[1:], seed=step)
        ours.grad = touching(gradient, rows)
        optimizer.step()
        for row in set(rows):
            alone[row].grad = sum((gradient[place] for place, other in enumerate(rows) if other == row))  # type: ignore
            others[row].step()
    torch.testing.assert_close(ours.detach(), torch.stack([row.detach() for row in alone]), rtol=1e-12, atol=1e-12)
    assert torch.equal(ours[6], drawn(*shape)[6]), "to the bit: what is not touched is not computed"


def test_with_gradients_for_every_row_it_is_adam() -> None:
    found = []
    for make in (RowAdam, torch.optim.Adam):
        parameters = [nn.Parameter(drawn(7, 3)), nn.Parameter(drawn(4))]
        optimizer = make([{"params": parameters[:1], "weight_decay": 0.01}, {"params": parameters[1:]}], lr=0.05)
        for step in range(40):
            for parameter in parameters:
                parameter.grad = drawn(*parameter.shape, seed=step)
            optimizer.step()
        found.append([parameter.detach() for parameter in parameters])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_it_is_not_adam_where_a_row_is_left_out() -> None:
    """Dense Adam moves such a row by its momentum; this says that the other test could fail."""
    ours, dense = nn.Parameter(drawn(7, 3)), nn.Parameter(drawn(7, 3))
    one, other = RowAdam([ours], lr=0.1), torch.optim.Adam([dense], lr=0.1)
    gradient = drawn(7, 3, seed=1)
    for rows in (range(7), range(3)):
        ours.grad = touching(gradient[: len(rows)], list(rows))
        dense.grad = torch.zeros(7, 3, dtype=torch.float64)
        dense.grad[: len(rows)] = gradient[: len(rows)]
        before = ours.detach().clone(), dense.detach().clone()
        one.step()
        other.step()
    torch.testing.assert_close(ours[:3], dense[:3], rtol=1e-12, atol=1e-12)
    assert torch.equal(ours[3:], before[0][3:]) and (dense[3:] != before[1][3:]).all()


def test_a_parameter_without_a_gradient_is_left_alone_and_a_closure_is_called() -> None:
    parameter = nn.Parameter(drawn(7, 3))
    optimizer = RowAdam([parameter], lr=0.1)
    assert optimizer.step() is None and not optimizer.state[parameter]

    def closure() -> float:
        loss = sparse_rows(parameter, torch.tensor([2])).square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == pytest.approx(float(drawn(7, 3)[2].square().sum()))
    assert (parameter != drawn(7, 3)).any(dim=1).tolist() == [False, False, True, False, False, False, False]


@pytest.mark.parametrize("shape", [(7, 3), (7,)])
def test_rows_and_their_gradient_are_those_of_indexing(shape: tuple[int, ...]) -> None:
    ours, dense, rows = nn.Parameter(drawn(*shape)), nn.Parameter(drawn(*shape)), torch.tensor([4, 0, 4, 6])
    counts = drawn(4, *shape[1:], seed=3)
    (sparse_rows(ours, rows) * counts).sum().backward()
    (dense[rows] * counts).sum().backward()
    assert ours.grad is not None and ours.grad.is_sparse and ours.grad._nnz() == 4
    torch.testing.assert_close(ours.grad.to_dense(), dense.grad)


def test_the_sampled_softmax_has_the_same_gradient_sparse_or_not() -> None:
    x = sp.csr_matrix([[1, 0, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 3, 1, 0, 0, 0]], dtype=np.float32)
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, 4, 6, dtype=torch.float64)  # type: ignore[assignment]
    layer.weight.data, layer.bias.data = drawn(6, 4), drawn(6, seed=1)
    hidden, items = drawn(3, 4, seed=2), (torch.tensor([0, 4]), torch.zeros(2))
    found = []
    for row_wise in (False, True):
        loss = sampled_nll(hidden, layer, whole_batch(x, CPU), items, row_wise=row_wise)
        found.append((loss.detach(), *torch.autograd.grad(loss.sum(), [layer.weight, layer.bias])))
    assert torch.equal(found[0][0], found[1][0])
    for dense, sparse in zip(found[0][1:], found[1][1:], strict=True):
        assert sparse.is_sparse and not sparse.to_dense()[[3, 5]].any()
        torch.testing.assert_close(sparse.to_dense(), dense)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.name)
def test_a_model_changes_only_the_rows_of_items_that_were_there(kind: Any, tied: bool, blocks: Dataset) -> None:
    if tied and kind is RecVAE:
        pytest.skip("its first and last layer are of different phases")
    # Beside the 32 items that everybody has, 300 that nobody has: of these, only what was drawn.
    train = sp.csr_matrix(sp.hstack([blocks.train, sp.csr_matrix((blocks.train.shape[0], 300))]))
    settings = {"epochs": 1, "batch_size": 50, "row_wise": True, **SAMPLED, **SMALL[kind]}
    settings |= {"tied": True} if tied else {}
    model = kind(**settings)
    fresh = kind(**settings | {"learning_rate": 0.0}).fit(train, device="cpu").weights()
    fitted = model.fit(train, device="cpu").weights()
    of_items = [name for name, value in fitted.items() if len(value) == train.shape[1]]
    assert len(of_items) == (2 if tied else 3)
    for name in of_items:
        changed = (fitted[name] != fresh[name]).reshape(train.shape[1], -1).any(axis=1)
        assert changed[:32].all(), name
        assert changed[32:].sum() <= 2 * 6, "no more than were drawn in two updates"


@pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.name)
def test_models_learn_nearly_as_well_by_it(kind: Any, blocks: Dataset) -> None:
    settings = {"epochs": 20, "batch_size": 20, "learning_rate": 0.01, **SAMPLED, **SMALL[kind]}
    found = []
    for row_wise in (False, True):
        model = kind(**settings, row_wise=row_wise).fit(blocks.train, device="cpu")
        per_user, _ = evaluate(model, blocks.test, parse_metrics("ndcg@10"))
        found.append(float(np.nanmean(per_user["ndcg@10"])))
    assert found[1] > found[0] - 0.1


class Killed(Exception):
    """Ends a run as a kill would."""


class EndsAfter(NullMonitor):
    """Raises once so many epochs are over."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def epoch(self, record: EpochRecord) -> None:
        if record.epoch == self.epochs:
            raise Killed


@pytest.mark.parametrize("averaging", [0.0, 0.5])
@pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "option",
    [{"items_at_a_time": 7}, {"tied": True}, {"row_wise": True}, {"row_wise": True, "tied": True}],
    ids=lambda option: "-".join(option),
)
def test_a_killed_run_goes_on_to_the_bit(
    option: dict[str, Any], kind: Any, averaging: float, blocks: Dataset, tmp_path: Any
) -> None:
    if "tied" in option and kind is RecVAE:
        pytest.skip("its first and last layer are of different phases")
    settings = {"epochs": 4, "batch_size": 40, "learning_rate": 0.01, "averaging": averaging, **SMALL[kind], **option}
    settings |= SAMPLED if "row_wise" in option else {}
    path = tmp_path / FILE_NAME
    with pytest.raises(Killed):
        checkpoint = Checkpoint(path, IDENTITY)
        kind(**settings).fit(blocks.train, blocks.validation, device="cpu", checkpoint=checkpoint, monitor=EndsAfter(2))
    checkpoint = Checkpoint(path, IDENTITY, resumes=True)
    resumed = kind(**settings).fit(blocks.train, blocks.validation, device="cpu", checkpoint=checkpoint)
    straight = kind(**settings).fit(blocks.train, blocks.validation, device="cpu")
    assert [record.loss for record in resumed.log_] == [record.loss for record in straight.log_]
    for name, value in straight.weights().items():
        np.testing.assert_array_equal(resumed.weights()[name], value, err_msg=name)


def test_another_kind_of_optimiser_state_is_refused(blocks: Dataset, tmp_path: Any) -> None:
    """Nothing of Adam's state fits; it must not be taken for a fresh one without a word."""
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 40, "latent_dim": 4, **SAMPLED}
    path = tmp_path / FILE_NAME
    AE(**settings).fit(
        blocks.train, device="cpu", checkpoint=Checkpoint(path, {"hyperparameters": {"row_wise": False}})
    )
    other = Checkpoint(path, {"hyperparameters": {"row_wise": True}}, resumes=True)
    with pytest.raises(Exception, match="belongs to another run"):
        AE(**settings, row_wise=True).fit(blocks.train, device="cpu", checkpoint=other)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            MultVAE,
            {"row_wise": True},
            "got row_wise=True with sampling=none, where it has no effect; leave it out, or set sampling=uniform or",
        ),
        (
            MultDAE,
            {"row_wise": True, "sampling": "uniform", "noise": "gaussian"},
            "got row_wise=True with noise='gaussian', which gives every item's row a gradient; set noise=masking, or",
        ),
        (HVamp, {"row_wise": True}, "got unknown hyperparameter 'row_wise'"),
    ],
)
def test_what_touches_every_row_is_refused(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(kind, settings)


def test_a_step_needs_no_gradient_of_all_rows() -> None:
    size = (1000, 1_000_000, 20_000)
    for on_gpu, share in ((True, 0.9), (False, 0.1)):  # on a CPU the most is taken when weights are copied
        dense, by_row = (
            MultDAE(latent_dim=64, sampling="uniform", row_wise=row_wise).needs(*size, on_gpu=on_gpu)
            for row_wise in (False, True)
        )
        assert dense.training - by_row.training > share * dense.weights
    assert by_row.held == dense.held and by_row.weights == dense.weights


def test_the_models_that_have_it_are_these() -> None:
    having = {name for name, model in MODELS.items() if "row_wise" in hyperparameters_of(model)}
    assert having == {kind.name for kind in SMALL}
