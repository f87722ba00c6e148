"""Batches of users: everyone once per epoch, in an order that a seed fixes, as sparse as the data."""

from collections.abc import Iterator
from dataclasses import fields
from itertools import chain

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from recvae.compute.devices import resolve_device
from recvae.errors import UsageError
from recvae.training.batches import SparseBatch, SparseBatches, SparseRows, whole_batch
from recvae.training.draws import of_interactions, of_users

# Letters in shape comments: U users, I items, B users of a batch, N interactions stored in it.

CPU = torch.device("cpu")
N_ITEMS = 9


@st.composite
def matrices(draw: st.DrawFn) -> sp.csr_matrix:
    """Draw users with any weights, some of them without any item."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dense = rng.integers(1, 6, (draw(st.integers(1, 23)), N_ITEMS)) * (rng.random((1, N_ITEMS)) < draw(st.floats(0, 1)))
    dense[rng.random(len(dense)) < 0.2] = 0
    return sp.csr_matrix(dense, dtype=np.float32)


def numbered(n_users: int) -> sp.csr_matrix:
    """Return users who can be told apart by the weight of their one item, user + 1."""
    return sp.csr_matrix(np.arange(1, n_users + 1, dtype=np.float32)[:, None])


def epoch(batches: SparseBatches, generator: torch.Generator) -> list[list[int]]:
    """Return the users of each batch of an epoch of `numbered` users."""
    return [(batch.totals.int() - 1).tolist() for batch in batches.epoch(generator)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense(batch: SparseBatch, values: torch.Tensor) -> np.ndarray:
    """Return a batch as rows of all items (B, I)."""
    rows = np.zeros((len(batch), N_ITEMS), dtype=np.float32)
    rows[batch.rows.numpy(), batch.items.numpy()] = values.numpy()
    return rows


@given(n_users=st.integers(1, 60), batch_size=st.integers(1, 70), seed=st.integers(0, 99))
def test_an_epoch_has_every_user_exactly_once_and_keeps_the_last_smaller_batch(
    n_users: int, batch_size: int, seed: int
) -> None:
    batches = SparseBatches(numbered(n_users), batch_size, CPU)
    parts = epoch(batches, seeded(seed))
    assert sorted(chain(*parts)) == list(range(n_users))
    assert [len(part) for part in parts[:-1]] == [batch_size] * (len(parts) - 1)
    assert len(parts[-1]) == n_users - batch_size * (len(parts) - 1)
    assert len(batches) == len(parts)


def test_order_depends_on_the_seed_alone_and_differs_between_epochs() -> None:
    batches = SparseBatches(numbered(50), 8, CPU)
    generator = seeded(3)
    first, second = epoch(batches, generator), epoch(batches, generator)
    assert first != second
    assert sorted(chain(*first)) != list(chain(*first))
    torch.manual_seed(0)  # the global generator has no say
    again = seeded(3)
    assert [epoch(batches, again), epoch(batches, again)] == [first, second]
    assert epoch(batches, seeded(4)) != first


@given(n_users=st.integers(1, 40), world_size=st.integers(1, 5), seed=st.integers(0, 99))
def test_processes_share_out_the_users_without_gap_or_overlap(n_users: int, world_size: int, seed: int) -> None:
    alone = epoch(SparseBatches(numbered(n_users), 4, CPU), seeded(seed))
    shares = [SparseBatches(numbered(n_users), 4, CPU, rank=rank, world_size=world_size) for rank in range(world_size)]
    parts = [list(share.epoch(seeded(seed))) for share in shares]
    assert {len(batches) for batches in parts} == {len(alone)}, "all make the same number of updates"
    if world_size == 1:
        assert [batch.share for batch in parts[0]] == [None] * len(alone)
        return
    for users, batches in zip(alone, zip(*parts, strict=True), strict=True):
        found = {}
        for batch in batches:
            assert batch.share is not None and batch.share.n_users == len(users)
            own = dict(zip(batch.share.users.tolist(), (batch.totals.int() - 1).tolist(), strict=True))
            assert len(batch) == max(batch.share.counted, 1), "without a user left, one looks on"
            assert own == {place: users[place] for place in own}
            found |= own if batch.share.counted else {}
        assert found == dict(enumerate(users))
        counted = [batch.share.counted for batch in batches if batch.share]
        assert max(counted) - min(counted) <= 1
        assert sum(batch.share.weight for batch in batches if batch.share) == pytest.approx(1)


@given(matrix=matrices(), world_size=st.integers(2, 5), ahead=st.booleans(), seed=st.integers(0, 99))
def test_a_share_knows_its_place_among_the_interactions_of_the_whole_batch(
    matrix: sp.csr_matrix, world_size: int, ahead: bool, seed: int
) -> None:
    whole = list(SparseBatches(matrix, 6, CPU).epoch(seeded(seed)))
    for rank in range(world_size):
        batches = SparseBatches(matrix, 6, CPU, rank=rank, world_size=world_size)
        batches.prepares_ahead = ahead
        for of_all, batch in zip(whole, batches.epoch(seeded(seed)), strict=True):
            share = batch.share
            assert share is not None and share.n_interactions == len(of_all.items)
            for name in ("items", "values", "inputs"):
                assert torch.equal(getattr(of_all, name)[share.interactions], getattr(batch, name)), name
            assert torch.equal(of_all.rows[share.interactions], share.users[batch.rows])
            assert torch.equal(share.whole_items(), of_all.items)


@given(matrix=matrices(), world_size=st.integers(2, 4), seed=st.integers(0, 99))
def test_a_share_has_the_noise_that_its_users_have_in_the_whole_batch(
    matrix: sp.csr_matrix, world_size: int, seed: int
) -> None:
    whole = list(SparseBatches(matrix, 6, CPU).epoch(seeded(seed)))
    generator = seeded(7)
    noise = [(of_interactions(torch.rand, b, generator), of_users(torch.randn, b, 3, generator)) for b in whole]
    assert torch.equal(noise[0][0], torch.rand(len(whole[0].items), generator=seeded(7)))
    for rank in range(world_size):
        generator = seeded(7)
        batches = SparseBatches(matrix, 6, CPU, rank=rank, world_size=world_size)
        for batch, (by_interaction, by_user) in zip(batches.epoch(seeded(seed)), noise, strict=True):
            share = batch.share
            assert share is not None
            assert torch.equal(of_interactions(torch.rand, batch, generator), by_interaction[share.interactions])
            assert torch.equal(of_users(torch.randn, batch, 3, generator), by_user[share.users])


@given(matrix=matrices(), batch_size=st.integers(1, 9), seed=st.integers(0, 99))
def test_batches_prepared_ahead_are_those_cut_on_the_device(matrix: sp.csr_matrix, batch_size: int, seed: int) -> None:
    resident, ahead = SparseBatches(matrix, batch_size, CPU), SparseBatches(matrix, batch_size, CPU)
    ahead.prepares_ahead = True
    pairs = list(zip(resident.epoch(seeded(seed)), ahead.epoch(seeded(seed)), strict=True))
    assert len(pairs) == len(resident)
    for one, other in pairs:
        assert one.share is None and other.share is None
        for field in fields(SparseBatch)[:-2]:
            assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name


def test_an_error_while_preparing_ahead_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = SparseBatches(numbered(5), 2, CPU)
    batches.prepares_ahead = True
    monkeypatch.delattr(SparseRows, "batch")
    with pytest.raises(AttributeError, match="batch"):
        list(batches.epoch(seeded(0)))


def test_only_a_matrix_above_the_budget_is_prepared_ahead_and_only_for_a_gpu() -> None:
    matrix = numbered(5)
    needed = SparseRows.bytes_of(matrix)
    elsewhere = torch.device("meta")  # stands for any device but the CPU
    assert not SparseBatches(matrix, 2, CPU, resident_bytes=0).prepares_ahead
    assert not SparseBatches(matrix, 2, elsewhere, resident_bytes=needed).prepares_ahead
    assert SparseBatches(matrix, 2, elsewhere, resident_bytes=needed - 1).prepares_ahead


@given(matrices())
def test_the_budget_counts_every_byte(matrix: sp.csr_matrix) -> None:
    tensors = [value for value in vars(SparseRows(matrix, CPU)).values() if isinstance(value, torch.Tensor)]
    by_place = {tensor.data_ptr(): tensor.nbytes for tensor in tensors}  # the host's lengths are here the device's
    assert sum(by_place.values()) == SparseRows.bytes_of(matrix)


@given(matrix=matrices(), data=st.data())
def test_a_batch_holds_the_rows_asked_for_in_their_order(matrix: sp.csr_matrix, data: st.DataObject) -> None:
    users = data.draw(st.lists(st.integers(0, matrix.shape[0] - 1), min_size=1, max_size=8))
    batch = SparseRows(matrix, CPU).batch(torch.tensor(users))
    wanted = matrix[users].toarray()
    np.testing.assert_array_equal(dense(batch, batch.values), wanted)
    np.testing.assert_array_equal(batch.totals, wanted.sum(axis=1))
    np.testing.assert_array_equal(np.append(batch.offsets, len(batch.items)), matrix[users].indptr)
    assert (len(batch), batch.device) == (len(users), CPU)


@given(matrices())
def test_inputs_have_norm_1_while_targets_stay_as_they_are(matrix: sp.csr_matrix) -> None:
    batch = whole_batch(matrix, CPU)
    norms = np.linalg.norm(dense(batch, batch.inputs), axis=1)
    has_items = np.diff(matrix.indptr) > 0
    np.testing.assert_allclose(norms[has_items], 1, rtol=1e-6)
    assert (norms[~has_items] == 0).all()  # and not 0 / 0
    np.testing.assert_array_equal(dense(batch, batch.values), matrix.toarray())


def test_nothing_is_as_large_as_users_times_items() -> None:
    n_users, n_items, nnz = 1000, 2_000_000_000, 3000  # dense rows would take 8 TB
    rng = np.random.default_rng(0)
    columns, rows = np.sort(rng.choice(n_items, nnz, replace=False)), np.sort(rng.integers(0, n_users, nnz))
    matrix = sp.csr_matrix((np.ones(nnz, dtype=np.float32), (rows, columns)), shape=(n_users, n_items))

    def sizes() -> Iterator[int]:
        for batch in SparseBatches(matrix, 100, CPU).epoch(seeded(0)):
            for field in fields(SparseBatch)[:-2]:
                tensor = getattr(batch, field.name)
                assert tensor.numel() in (len(batch), len(batch.items)), field.name
            yield len(batch.items)

    assert sum(sizes()) == nnz


@pytest.mark.parametrize("device", ["nonsense", "mps", "meta", "cuda:x", torch.device("meta")])
def test_unknown_devices_are_refused(device: str | torch.device) -> None:
    with pytest.raises(UsageError, match=rf"got device '{device}', expected auto, cpu, cuda or cuda:N"):
        resolve_device(device)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda")])
def test_a_gpu_that_is_not_there_is_refused(device: str | torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match=r"PyTorch sees 0 CUDA devices; use --device cpu, or install a CUDA build"):
        resolve_device(device)
    assert resolve_device("auto") == CPU


def test_a_gpu_is_taken_where_there_is_one_and_only_up_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("cpu") == resolve_device(CPU) == CPU
    with pytest.raises(UsageError, match="got device 'cuda:2', but PyTorch sees 2 CUDA devices"):
        resolve_device("cuda:2")


def test_offsets_beyond_two_billion_interactions_are_not_cut_to_32_bits() -> None:
    n = 2**31 + 10  # tensors without memory: only shapes and types are worked out
    rows = SparseRows(sp.csr_matrix(np.ones((2, 3), dtype=np.float32)), torch.device("cpu"))
    rows._items = torch.empty(n, dtype=torch.int32, device="meta")
    rows._values = rows._inputs = torch.empty(n, device="meta")
    rows._starts, rows._lengths, rows._totals = (
        part.to("meta") for part in (rows._starts, rows._lengths, rows._totals)
    )
    rows._lengths_on_host = torch.tensor([n - 5, 5])
    for batch in (rows.whole(), rows.batch(torch.tensor([1, 0]))):
        assert (len(batch.items), batch.items.dtype, batch.offsets.dtype) == (n, torch.int64, torch.int64)
    assert rows.batch(torch.tensor([1])).offsets.dtype == torch.int32  # few of many
