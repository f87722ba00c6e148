"""The parts of an item-sharded network, against the unsharded ones: sums, layers, loss, first weights, ranking.

The processes are real, forked from this one; `test_item_sharing.py` trains whole networks in them.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import processes
import pytest
import scipy.sparse as sp
import torch
from processes import Several
from torch import nn

from recvae.compute.collectives import replicated, summed
from recvae.compute.process_group import joined
from recvae.compute.ranks import ALONE, Ranks, current
from recvae.errors import UsageError
from recvae.models.common.networks import Linear, SparseLinear
from recvae.models.common.noise import dropout
from recvae.ranking import rank, rank_candidates
from recvae.training import batch_parts
from recvae.training.batches import SparseBatch, whole_batch
from recvae.training.losses import output_nll
from recvae.training.sharded_softmax import sharded_nll
from recvae.training.shards import Shard, merged

ends = functools.partial(processes.ends, share="items")

N_ITEMS, WIDTH = 11, 3


def rows(n_users: int = 6, seed: int = 0) -> sp.csr_matrix:
    """Return users with weights; the last has nothing, the first only the last item, and item 0 has nobody."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 4, (n_users, N_ITEMS)) * (rng.random((n_users, N_ITEMS)) < 0.3)
    dense[:, 0] = dense[-1] = dense[0] = 0
    dense[0, -1] = 2
    return sp.csr_matrix(dense, dtype=np.float32)


def batch_of(matrix: sp.csr_matrix, dtype: torch.dtype = torch.float64) -> SparseBatch:
    batch = whole_batch(matrix, torch.device("cpu"))
    return batch.map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def parameters(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    shapes = {"first": (N_ITEMS, WIDTH), "bias": (WIDTH,), "last": (N_ITEMS, WIDTH), "last bias": (N_ITEMS,)}
    return {name: 3 * torch.randn(shape, generator=rng, dtype=dtype) for name, shape in shapes.items()}


def network_results(shard: Shard | None, dtype: torch.dtype, counts: torch.Tensor) -> dict[str, np.ndarray]:
    """Return losses of the users, and gradients, of a first and a last layer, or of the shard of these."""
    whole, batch = parameters(dtype), batch_of(rows(), dtype)
    of_items = {
        name: value if shard is None or name == "bias" else shard.rows_of(value) for name, value in whole.items()
    }
    first, last = SparseLinear(len(of_items["first"]), WIDTH), Linear(WIDTH, len(of_items["last"]))
    first.weight, first.bias = nn.Parameter(of_items["first"].clone()), nn.Parameter(of_items["bias"].clone())
    last.weight, last.bias = nn.Parameter(of_items["last"].clone()), nn.Parameter(of_items["last bias"].clone())
    if shard is not None:
        batch = shard.of_batch(batch)
    inputs = dropout(batch.inputs, 0.4, torch.Generator().manual_seed(1), batch)
    hidden = torch.tanh(first(batch, inputs))
    loss = output_nll(hidden, last, batch) if shard is None else sharded_nll(hidden, last, batch)
    (loss * counts.to(dtype)).sum().backward()
    found = {"loss": loss, "first": first.weight.grad, "bias": first.bias.grad, "last": last.weight.grad}
    found["last bias"] = last.bias.grad
    return {name: value.detach().numpy() for name, value in found.items() if value is not None}


@pytest.mark.parametrize("n", [2, 4])
def test_layers_and_loss_of_shards_are_those_of_the_whole(n: int, several: Several) -> None:
    counts = torch.arange(1.0, 7.0) / 7  # each user counts differently

    def both() -> list[dict[str, np.ndarray]]:
        shard = Shard(N_ITEMS, current()) if current().several else None
        found = [network_results(shard, dtype, counts) for dtype in (torch.float64, torch.float32)]
        batch_parts._CHUNK_BYTES, before = 8, batch_parts._CHUNK_BYTES  # one user at a time
        try:
            return [*found, network_results(shard, torch.float64, counts)]
        finally:
            batch_parts._CHUNK_BYTES = before

    whole, parts = both(), ends(several, n, both)
    for number, tolerance in enumerate((1e-12, 2e-5, 1e-12)):
        for name in ("loss", "bias"):
            for part in parts:
                np.testing.assert_allclose(part[number][name], whole[number][name], atol=tolerance, rtol=tolerance)
                np.testing.assert_array_equal(part[number][name], parts[0][number][name], err_msg="the same to the bit")
        for name in ("first", "last", "last bias"):
            found = np.concatenate([part[number][name] for part in parts])
            np.testing.assert_allclose(found, whole[number][name], atol=tolerance, rtol=tolerance, err_msg=name)


def test_a_batch_whose_items_one_process_has_alone_and_logits_that_are_far_apart(several: Several) -> None:
    matrix = sp.csr_matrix(np.eye(1, N_ITEMS, 1) + 3 * np.eye(1, N_ITEMS, 2), dtype=np.float32)
    bias = torch.zeros(N_ITEMS)
    bias[-1], bias[0] = 2e4, -2e4  # exp of the difference of two shards is 0

    def loss(shard: Shard | None) -> tuple[list[float], np.ndarray]:
        batch = batch_of(matrix, torch.float32)
        batch = batch if shard is None else shard.of_batch(batch)
        layer = Linear(WIDTH, N_ITEMS if shard is None else shard.n_own)
        layer.weight, layer.bias = nn.Parameter(torch.zeros(layer.out_features, WIDTH)), nn.Parameter(bias.clone())
        if shard is not None:
            layer.bias = nn.Parameter(shard.rows_of(bias).clone())
        hidden = torch.ones(1, WIDTH, requires_grad=True)
        found = (output_nll if shard is None else sharded_nll)(hidden, layer, batch)
        found.sum().backward()
        assert layer.bias.grad is not None
        return found.tolist(), layer.bias.grad.numpy()

    expected = loss(None)
    found = ends(several, 4, lambda: loss(Shard(N_ITEMS, current())))
    assert [one[0] for one in found] == [expected[0]] * 4 == [[8e4]] * 4
    np.testing.assert_allclose(np.concatenate([one[1] for one in found]), expected[1], atol=1e-6)


def test_sums_have_the_gradient_of_one_process(several: Several) -> None:
    def work() -> tuple[list[float], list[float], list[float]]:
        own = torch.full((2,), 1.0 + current().rank, requires_grad=True)
        same = torch.full((2,), 3.0, requires_grad=True)
        total = summed(own, current())
        (total * torch.tensor([1.0, 5.0]) + (1.0 + current().rank) * replicated(same, current())).sum().backward()
        assert own.grad is not None and same.grad is not None
        return total.tolist(), own.grad.tolist(), same.grad.tolist()

    assert ends(several, 3, work) == [([6.0, 6.0], [1.0, 5.0], [6.0, 6.0])] * 3
    tensor = torch.ones(2)
    assert summed(tensor, ALONE) is tensor and replicated(tensor, ALONE) is tensor


def test_a_sum_of_different_shapes_or_with_a_process_that_fails_ends_all(several: Several) -> None:
    def uneven() -> None:
        summed(torch.zeros(2 + current().rank), current())

    def fails() -> None:
        if current().rank == 1:
            raise MemoryError("none left")
        same = replicated(torch.ones(2, requires_grad=True), current())
        same.sum().backward()

    words = "the 2 processes have from 2 to 3 numbers to add up, expected as many in each"
    assert all(text.startswith(words) for _, text in ends(several, 2, uneven))
    first, second = ends(several, 2, fails)
    assert first[0] == second[0] == "MemoryError" and first[1].startswith("none left (in process 1 of 2")


@pytest.mark.parametrize("n_items", [1, 15, 16, 17, 40, 1000])
@pytest.mark.parametrize("width", [1, 7])
def test_first_weights_of_shards_are_rows_of_the_whole(
    n_items: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recvae.training.shards._DRAWN", 40)
    draws: list[Callable[..., Any]] = [
        lambda tensor, rng: tensor.uniform_(-0.3, 0.2, generator=rng),
        lambda tensor, rng: tensor.normal_(0, 0.2, generator=rng),
    ]
    for draw in draws:
        whole_source = torch.Generator().manual_seed(5)
        whole = draw(torch.empty(n_items, width), whole_source)
        after = torch.rand(3, generator=whole_source)
        for size in (1, 3):
            for number in range(min(size, n_items)):
                shard = Shard(n_items, Ranks(number, min(size, n_items)))
                own, source = torch.empty(shard.n_own, width), torch.Generator().manual_seed(5)
                shard.fill(own, lambda block, draw=draw, source=source: draw(block, source))
                assert torch.equal(own, shard.rows_of(whole))
                assert torch.equal(torch.rand(3, generator=source), after), "the source has given as many"


@pytest.mark.parametrize("k", [1, 3, 30])
def test_merged_lists_of_shards_are_those_of_all_items(k: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (9, N_ITEMS)).astype(np.float32)  # many are equal
    hidden = rng.random((9, N_ITEMS)) < 0.4
    hidden[0] = True  # nothing is left
    seen = sp.csr_matrix(hidden, dtype=np.float32)
    expected = rank(torch.from_numpy(scores.copy()), k, seen)
    for size in (1, 2, 4, N_ITEMS):
        columns, values = [], []
        for number in range(size):
            shard = Shard(N_ITEMS, Ranks(number, size))
            found, of_these = rank(torch.from_numpy(scores[:, shard.first : shard.last].copy()), k, shard.of_rows(seen))
            columns.append(np.where(found >= 0, found + shard.first, -1))
            values.append(of_these)
        items, best = rank_candidates(*merged(np.stack(columns), np.stack(values)), k)
        np.testing.assert_array_equal(items, expected[0])
        np.testing.assert_array_equal(best, expected[1])


def test_what_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^got share='rows', expected one of users, items"), joined(share="rows"):
        pass
    with joined(share="items") as ranks:  # alone there is nothing to share
        assert not ranks.by_items and not ranks.by_users and not current().several
