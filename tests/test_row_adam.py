"""Adam on the rows that a batch holds: what has not been done to the others is done when they are read."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
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


def added_up(gradient: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Return the same gradient with all rows, 0 where there is none."""
    return gradient.new_zeros(7, *gradient.shape[1:]).index_add(0, torch.tensor(rows), gradient)


@pytest.mark.parametrize("shape", [(7, 3), (7,)], ids=["matrix", "bias"])
@pytest.mark.parametrize(("rare", "part_bytes"), [(0, 1 << 20), (1, 1), (150, 1 << 20), (800, 1)])
@pytest.mark.parametrize("decays", [False, True])
def test_rows_are_where_adam_has_them_whenever_they_are_read(
    shape: tuple[int, ...], part_bytes: int, rare: int, decays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 5 gets a gradient in few steps, row 6 never; the others in any, some several times."""
    monkeypatch.setattr(row_adam, "_PART_BYTES", part_bytes)
    rng = np.random.default_rng(0)
    ours, dense = nn.Parameter(drawn(*shape)), nn.Parameter(drawn(*shape))
    one, other = RowAdam([ours], lr=0.01), torch.optim.Adam([dense], lr=0.01)
    for step in range(1300 if rare > 500 else 400):
        rows = rng.choice(5, size=rng.integers(1, 4)).tolist() + ([5] if rare and step % rare == rare // 2 else [])
        for optimizer in (one, other) if decays else ():
            optimizer.param_groups[0]["lr"] = 0.01 * (1 + np.cos(step / 50))
        read = one.read(ours, torch.tensor(rows)).detach()
        torch.testing.assert_close(read, dense[rows].detach(), rtol=1e-6, atol=1e-6)
        gradient = drawn(len(rows), *shape[1:], seed=step)
        ours.grad, dense.grad = touching(gradient, rows), added_up(gradient, rows)
        one.step()
        other.step()
    assert not torch.allclose(ours, dense, rtol=1e-3, atol=1e-3), "some are behind"
    one.catch_up()
    torch.testing.assert_close(ours, dense, rtol=1e-6, atol=1e-6)
    assert torch.equal(ours[6], drawn(*shape)[6])


def test_the_steps_that_are_missed_are_added_up_term_by_term() -> None:
    """W(s) with a step size that changes, also of steps further back than the sum goes."""
    optimizer = RowAdam([parameter := nn.Parameter(drawn(7, 3))], lr=1.0)
    sizes = [0.0, *(0.5 + 0.4 * np.cos(np.arange(500) / 30))]  # by step, from 1
    for size in sizes[1:]:
        optimizer.param_groups[0]["lr"] = size
        parameter.grad = touching(drawn(1, 3), [0])
        optimizer.step()
    found, ratio = optimizer.state[parameter]["ways"], 0.9 / 0.999**0.5
    for s in (1, 7, 250, 480, 499):
        terms = (
            sizes[s + k] * ratio**k * (1 - 0.999 ** (s + k)) ** 0.5 / (1 - 0.9 ** (s + k)) for k in range(1, 501 - s)
        )
        assert float(found[s]) == pytest.approx(sum(terms), rel=1e-6)


def test_a_step_that_nobody_read_for_is_right_as_well() -> None:
    """The gradient is then of older weights, but moments and weights are those of Adam with that gradient."""
    ours, dense = nn.Parameter(drawn(7, 3)), nn.Parameter(drawn(7, 3))
    one, other = RowAdam([ours], lr=0.1), torch.optim.Adam([dense], lr=0.1)
    for step, rows in enumerate(([0, 1], [2], [2], [0], [1, 2])):
        gradient = drawn(len(rows), 3, seed=step)
        ours.grad, dense.grad = touching(gradient, rows), added_up(gradient, rows)
        one.step()
        other.step()
    one.catch_up()
    torch.testing.assert_close(ours, dense, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_dense", [1, 30, 500])
def test_dense_gradients_may_come_first(n_dense: int) -> None:
    ours, dense = nn.Parameter(drawn(7, 3)), nn.Parameter(drawn(7, 3))
    one, other = RowAdam([ours], lr=0.05), torch.optim.Adam([dense], lr=0.05)
    for step in range(n_dense + 20):
        rows = [step % 3, 4]
        gradient = drawn(7, 3, seed=step) if step < n_dense else drawn(2, 3, seed=step)
        ours.grad = gradient if step < n_dense else touching(gradient, rows)
        dense.grad = gradient.clone() if step < n_dense else added_up(gradient, rows)
        one.read(ours, torch.tensor(rows))
        one.step()
        other.step()
    one.catch_up()
    torch.testing.assert_close(ours, dense, rtol=1e-5, atol=1e-5)


def test_dense_gradients_are_adams_also_between_sparse_ones() -> None:
    ours, dense = nn.Parameter(drawn(7, 3)), nn.Parameter(drawn(7, 3))
    one, other = RowAdam([ours], lr=0.05), torch.optim.Adam([dense], lr=0.05)
    for step in range(30):
        rows = [step % 3, 4]
        gradient = drawn(7, 3, seed=step) if step % 5 == 4 else drawn(2, 3, seed=step)
        ours.grad = gradient if step % 5 == 4 else touching(gradient, rows)
        dense.grad = gradient if step % 5 == 4 else added_up(gradient, rows)
        one.step()
        other.step()
    one.catch_up()
    torch.testing.assert_close(ours, dense, rtol=1e-6, atol=1e-6)


def test_with_dense_gradients_alone_it_is_adam_with_weight_decay() -> None:
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


def test_weight_decay_is_of_rows_with_a_gradient() -> None:
    ours, dense = nn.Parameter(drawn(7, 3)), nn.Parameter(drawn(7, 3))
    one, other = RowAdam([ours], 0.1, weight_decay=0.5), torch.optim.Adam([dense], 0.1, weight_decay=0.5)
    gradient = drawn(3, 3, seed=1)
    ours.grad, dense.grad = touching(gradient, [0, 1, 2]), added_up(gradient, [0, 1, 2])
    one.step()
    other.step()
    torch.testing.assert_close(ours[:3], dense[:3], rtol=1e-12, atol=1e-12)
    assert torch.equal(ours[3:], drawn(7, 3)[3:]) and (dense[3:] != drawn(7, 3)[3:]).all()


def test_only_rows_that_are_asked_for_are_changed() -> None:
    ours = nn.Parameter(drawn(7, 3))
    optimizer = RowAdam([ours, nn.Parameter(drawn(2))], lr=0.1)
    optimizer.catch_up()  # nothing has happened yet
    for rows in ([0, 1, 2], [3]):
        ours.grad = touching(drawn(len(rows), 3), rows)
        optimizer.step()
    before = ours.detach().clone()
    optimizer.catch_up(ours, torch.tensor([1, 3, 1, 5]))
    assert (ours != before).any(dim=1).tolist() == [False, True, False, False, False, False, False]


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
    for read in (None, sparse_rows):
        loss = sampled_nll(hidden, layer, whole_batch(x, CPU), items, read=read)
        found.append((loss.detach(), *torch.autograd.grad(loss.sum(), [layer.weight, layer.bias])))
    assert torch.equal(found[0][0], found[1][0])
    for dense, sparse in zip(found[0][1:], found[1][1:], strict=True):
        assert sparse.is_sparse and not sparse.to_dense()[[3, 5]].any()
        torch.testing.assert_close(sparse.to_dense(), dense)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.name)
def test_a_model_learns_the_same_to_rounding_and_untouched_rows_stay(kind: Any, tied: bool, blocks: Dataset) -> None:
    if tied and kind is RecVAE:
        pytest.skip("its first and last layer are of different phases")
    # Beside the 32 items that everybody has, 300 that nobody has: of these, only what is drawn has a gradient.
    train = sp.csr_matrix(sp.hstack([blocks.train, sp.csr_matrix((blocks.train.shape[0], 300))]))
    settings = {"epochs": 3, "batch_size": 20, "learning_rate": 0.01, "precision": "float32", **SAMPLED, **SMALL[kind]}
    settings |= {"tied": True} if tied else {}
    settings |= {"weight_decay": 0.0} if "weight_decay" in hyperparameters_of(kind) else {}
    dense, by_row, again = (
        kind(**settings, row_wise=row_wise).fit(train, device="cpu") for row_wise in (False, True, True)
    )
    fresh = kind(**settings | {"learning_rate": 0.0}).fit(train, device="cpu").weights()
    for record, other in zip(by_row.log_, dense.log_, strict=True):
        assert record.loss == pytest.approx(other.loss, rel=1e-4)
    of_items = [name for name, value in fresh.items() if len(value) == train.shape[1]]
    assert len(of_items) == (2 if tied else 3)
    for name, value in by_row.weights().items():
        np.testing.assert_array_equal(value, again.weights()[name])
        np.testing.assert_allclose(value, dense.weights()[name], atol=2e-3, err_msg=name)
        if name in of_items:
            changed = (value != fresh[name]).reshape(train.shape[1], -1).any(axis=1)
            assert changed[:32].all() and not changed.all(), name
    assert by_row.read_ is None, "what only training needs is let go"


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
            MultDAE(latent_dim=64, batch_size=500, sampling="uniform", row_wise=row_wise).needs(*size, on_gpu=on_gpu)
            for row_wise in (False, True)
        )
        assert dense.training - by_row.training > share * dense.weights
    assert by_row.held == dense.held and by_row.weights == dense.weights


def test_the_models_that_have_it_are_these() -> None:
    having = {name for name, model in MODELS.items() if "row_wise" in hyperparameters_of(model)}
    assert having == {kind.name for kind in SMALL}
