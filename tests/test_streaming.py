"""Training rows on disk: each user once an epoch, in an order of the seed, with no more in memory than the buffer."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from recvae import EASE, Dataset, Recommender
from recvae.datasets.shards import Shard, ShardedMatrix, shard_name, write_matrix, write_shard
from recvae.datasets.streams import INTERACTION_BYTES, StreamedMatrix, block_bytes, first_users, parts_of
from recvae.errors import DataError, UsageError
from recvae.interactions import as_interactions, item_counts_of
from recvae.storage.arrays import write_weights
from recvae.training.batches import PIECE, SparseBatch, SparseBatches, SparseRows, rows_of
from recvae.training.buffers import fills_of

# Letters in shape comments: U users, I items, B users of a batch, N interactions.

CPU = torch.device("cpu")


def stored(folder: Path, matrix: sp.csr_matrix, cuts: Sequence[int], buffer: int) -> StreamedMatrix:
    """Write rows in shards that end at given rows, and return them as training reads them."""
    shards = []
    for number, (first, end) in enumerate(pairwise([0, *sorted(set(cuts)), matrix.shape[0]])):
        rows = matrix[first:end]
        name = shard_name("train", number)
        found: dict[str, Any] = write_shard(folder / name, rows.indptr.astype(np.int64), rows.indices, rows.data)
        shards.append(Shard(file=name, **found))
    return StreamedMatrix(ShardedMatrix(folder, tuple(shards), matrix.shape[1]), buffer)


def numbered(lengths: Sequence[int], n_items: int = 12) -> sp.csr_matrix:
    """Return users of given lengths who can be told apart: each weight of user u is u + 1."""
    starts = np.append(0, np.cumsum(lengths))
    columns = np.concatenate([np.arange(n) for n in lengths]) if len(lengths) else np.empty(0)
    weights = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.float32), lengths)
    return sp.csr_matrix((weights, columns.astype(np.int32), starts), shape=(len(lengths), n_items))


def users_of(batch: SparseBatch) -> list[int]:
    """Return the users of a batch of `numbered` ones; -1 where one has no interaction."""
    found = np.full(len(batch), -1)
    found[batch.rows.numpy()] = batch.values.numpy() - 1
    return found.tolist()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_equal(one: SparseBatch, other: SparseBatch) -> None:
    assert one.own is None and other.own is None
    for field in fields(SparseBatch)[:-2]:
        left, right = getattr(one, field.name), getattr(other, field.name)
        assert left.dtype == right.dtype and torch.equal(left, right), field.name


LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=40)


@given(
    lengths=LENGTHS,
    cuts=st.lists(st.integers(1, 39), max_size=6),
    buffer=st.integers(1, 8000),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_an_epoch_has_every_user_once_in_batches_of_the_sizes_in_memory(
    lengths: list[int], cuts: list[int], buffer: int, batch_size: int, seed: int
) -> None:
    matrix = numbered(lengths)
    with TemporaryDirectory() as folder:
        rows = stored(Path(folder), matrix, [cut for cut in cuts if cut < len(lengths)], buffer).checked()
        streamed, whole = SparseBatches(rows, batch_size, CPU), SparseBatches(matrix, batch_size, CPU)
        generator = seeded(seed)
        epochs = [list(streamed.epoch(generator)) for _ in range(2)]
        again = list(streamed.epoch(seeded(seed)))
    expected = [len(batch) for batch in whole.epoch(seeded(seed))]
    for batches in epochs:
        assert [len(batch) for batch in batches] == expected
        found = sorted(chain.from_iterable(map(users_of, batches)))
        assert found == sorted(user if length else -1 for user, length in enumerate(lengths))
        assert sorted(chain.from_iterable(batch.lengths.tolist() for batch in batches)) == sorted(lengths)
    assert len(streamed) == len(expected)
    for one, other in zip(epochs[0], again, strict=True):
        assert_equal(one, other)


@given(lengths=LENGTHS, cuts=st.lists(st.integers(1, 39), max_size=6), seed=st.integers(0, 99))
def test_where_the_buffer_holds_all_batches_are_those_of_a_matrix_in_memory(
    lengths: list[int], cuts: list[int], seed: int
) -> None:
    matrix = numbered(lengths)
    with TemporaryDirectory() as folder:
        exactly = SparseRows.bytes_of(matrix)
        rows = stored(Path(folder), matrix, [cut for cut in cuts if cut < len(lengths)], exactly).checked()
        assert rows.fits and not StreamedMatrix(rows.shards, exactly - 1).fits
        streamed, whole = SparseBatches(rows, 7, CPU), SparseBatches(matrix, 7, CPU)
        one, other = seeded(seed), seeded(seed)
        for _ in range(2):
            for left, right in zip(streamed.epoch(one), whole.epoch(other), strict=True):
                assert_equal(left, right)
        assert torch.equal(one.get_state(), other.get_state())


@given(lengths=LENGTHS, buffer=st.integers(1, 8000), world_size=st.integers(2, 4), seed=st.integers(0, 99))
def test_processes_share_the_batches_of_one(lengths: list[int], buffer: int, world_size: int, seed: int) -> None:
    with TemporaryDirectory() as folder:
        rows = stored(Path(folder), numbered(lengths), [], buffer).checked()
        alone = list(SparseBatches(rows, 6, CPU).epoch(seeded(seed)))
        for rank in range(world_size):
            own = list(SparseBatches(rows, 6, CPU, rank=rank, world_size=world_size).epoch(seeded(seed)))
            for whole, batch in zip(alone, own, strict=True):
                share = batch.share
                assert share is not None and share.n_users == len(whole)
                assert [users_of(whole)[place] for place in share.users.tolist()] == users_of(batch)
                assert torch.equal(whole.values[share.interactions], batch.values)
                assert torch.equal(share.whole_items(), whole.items), "also once other rows are in the buffer"


@given(lengths=LENGTHS, buffer=st.integers(1, 8000), seed=st.integers(0, 99))
def test_batches_prepared_ahead_are_the_same(lengths: list[int], buffer: int, seed: int) -> None:
    with TemporaryDirectory() as folder:
        rows = stored(Path(folder), numbered(lengths), [], buffer).checked()
        here, ahead = SparseBatches(rows, 5, CPU), SparseBatches(rows, 5, CPU)
        ahead.prepares_ahead = True
        for one, other in zip(here.epoch(seeded(seed)), ahead.epoch(seeded(seed)), strict=True):
            assert_equal(one, other)


def test_on_a_gpu_what_passes_through_a_buffer_is_prepared_ahead(tmp_path: Path) -> None:
    rows = stored(tmp_path, numbered([3] * 50), [20], 500).checked()
    assert SparseBatches(rows, 5, torch.device("meta")).prepares_ahead  # stands for any device but the CPU
    assert not SparseBatches(StreamedMatrix(rows.shards).checked(), 5, torch.device("meta")).prepares_ahead


def test_no_fill_is_larger_than_the_buffer_and_each_has_users_of_many_places(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 13, 20_000).tolist()
    matrix = numbered(lengths)
    rows = stored(tmp_path, matrix, range(1000, 20_000, 1000), 200_000).checked()
    fills = fills_of(rows, seeded(1))
    blocks = rows.blocks
    assert sorted(np.concatenate(fills).tolist()) == list(range(len(blocks)))
    sizes = [SparseRows.bytes_for(*(int(n.sum()) for n in _sizes(blocks[fill]))) for fill in fills]
    assert max(sizes) <= 200_000
    assert min(sizes) > 0.7 * max(sizes), "no last fill of a few users from one place"
    assert min(len(set(blocks[fill][:, 0].tolist())) for fill in fills) >= 6, "of 20 shards"
    assert block_bytes(200_000) == 16_384 and block_bytes(64_000_000) == 1_000_000 and block_bytes(80) == 10
    assert block_bytes(10**9) == INTERACTION_BYTES * PIECE, "no larger than what memory is counted for"
    assert [fill.tolist() for fill in fills_of(rows, seeded(1))] == [fill.tolist() for fill in fills]
    assert [fill.tolist() for fill in fills_of(rows, seeded(2))] != [fill.tolist() for fill in fills]


def _sizes(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return blocks[:, 2] - blocks[:, 1], blocks[:, 3]


def test_rows_are_let_go_of_before_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = stored(tmp_path, numbered([12] * 300), [100], 10_000).checked()
    alive, most = set[int](), 0
    hold = SparseRows._hold

    def counted(self: SparseRows, *args: Any) -> None:
        nonlocal most
        alive.add(id(self))
        most = max(most, len(alive))
        hold(self, *args)

    monkeypatch.setattr(SparseRows, "_hold", counted)
    monkeypatch.setattr(SparseRows, "__del__", lambda self: alive.discard(id(self)), raising=False)
    for rank, world_size in ((0, 1), (1, 2)):
        kept = list(SparseBatches(rows, 7, CPU, rank=rank, world_size=world_size).epoch(seeded(0)))
        assert len(kept) == 43
    assert most == 1


@given(lengths=LENGTHS, buffer=st.integers(1, 8000))
def test_parts_are_all_rows_in_their_order(lengths: list[int], buffer: int) -> None:
    matrix = numbered(lengths)
    with TemporaryDirectory() as folder:
        rows = stored(Path(folder), matrix, [1] if len(lengths) > 1 else [], buffer).checked()
        joined = sp.csr_matrix(sp.vstack(list(parts_of(rows))))
        assert (joined.shape, abs(joined - matrix).nnz) == (matrix.shape, 0)
        assert rows.item_counts.tolist() == item_counts_of(matrix).tolist()
        assert (rows.n_users_with_items, rows.squares) == (np.count_nonzero(lengths), float((matrix.data**2).sum()))
        for n in (1, 3, 100):
            assert abs(first_users(rows, n) - matrix[:n]).nnz == 0
    (same,) = parts_of(matrix)
    assert same is matrix and abs(first_users(matrix, 3) - matrix[:3]).nnz == 0


def test_rows_in_memory_are_made_ready_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = numbered(np.random.default_rng(1).integers(0, 13, 200).tolist())
    assert matrix.nnz < PIECE
    whole = SparseRows(matrix, CPU).whole()
    monkeypatch.setattr("recvae.training.batches.PIECE", 20)
    assert max(len(columns) for _, columns, _ in rows_of(matrix)) < 40
    assert_equal(SparseRows(matrix, CPU).whole(), whole)


def test_weights_are_kept_in_shards(tmp_path: Path) -> None:
    matrix = numbered([2, 0, 3])
    again = write_matrix(tmp_path, "train", matrix).matrix()
    assert again.data.tolist() == matrix.data.tolist()


def test_more_than_two_billion_interactions_are_counted_in_64_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = StreamedMatrix(ShardedMatrix(tmp_path, tuple(_large(n) for n in range(3)), 5), 10**9)
    zeros = np.broadcast_to(np.zeros(1, dtype=np.int32), (2**30,))  # of one number in memory
    arrays = {"indptr": np.arange(5, dtype=np.int64) * 2**28, "indices": zeros, "data": zeros}
    monkeypatch.setattr(Shard, "arrays", lambda self, folder: arrays)  # noqa: ARG005
    monkeypatch.setattr("recvae.datasets.streams._check_rows", lambda *_: None)
    monkeypatch.setattr("recvae.datasets.streams._mark", lambda _: (0, 0, 0))
    monkeypatch.setattr("recvae.datasets.streams.counts_of", lambda _, n: np.full(n, 2**30))
    monkeypatch.setattr("recvae.datasets.streams.in_chunks", lambda _: iter(()))
    assert rows.checked().nnz == 3 * 2**30
    assert rows.blocks[:, 3].sum() == 3 * 2**30 and rows.blocks[-1].tolist() == [2, 3, 4, 2**28]
    assert rows.item_counts.tolist() == [3 * 2**30] * 5
    assert len(fills_of(rows, seeded(0))) == 12, "each user is larger than the buffer"
    (lengths, columns, _) = next(iter(rows.read(np.array([3]))))
    assert (lengths.tolist(), len(columns)) == ([2**28], 2**28)


def _large(number: int) -> Shard:
    return Shard(file=f"train/{number}", rows=4, nnz=2**30, bytes=0, sha256="")


def rewritten(rows: StreamedMatrix, number: int, **arrays: Any) -> StreamedMatrix:
    """Replace arrays of a shard by others of the same shape, as a faulty writer would have."""
    shard = rows.shards.shards[number]
    path = rows.shards.folder / shard.file
    old = {name: array.copy() for name, array in shard.arrays(rows.shards.folder).items()}
    write_weights(path, old | {name: np.asarray(value, dtype=old[name].dtype) for name, value in arrays.items()})
    return StreamedMatrix(rows.shards, rows.buffer)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "beyond": ({"indptr": [0, 2, 6]}, r"part-00001.safetensors has rows that overlap or end beyond its interactions"),
    "later": ({"indptr": [1, 2, 4]}, "has rows that overlap or end beyond its interactions; preprocess again"),
    "falling": ({"indptr": [0, 5, 4]}, "has rows that overlap or end beyond its interactions; preprocess again"),
    "column": ({"indices": [0, 1, 0, 9]}, r"has item columns from 0 to 9, expected 0 to 4; preprocess again"),
    "negative": ({"indices": [-1, 1, 0, 1]}, r"has item columns from -1 to 1, expected 0 to 4; preprocess again"),
    "unsorted": ({"indices": [1, 0, 0, 1]}, "has a row whose items are not in order, each once; preprocess again"),
    "twice": ({"indices": [0, 1, 2, 2]}, "has a row whose items are not in order, each once; preprocess again"),
    "nan": ({"data": [1, 1, np.nan, 1]}, "has weights from nan to nan, expected 1e-09 to 1e[+]09; preprocess again"),
    "zero": ({"data": [1, 0, 1, 1]}, "has weights from 0 to 1, expected"),
    "negative weight": ({"data": [1, -1, 1, 1]}, "has weights from -1 to 1, expected"),
    "infinite": ({"data": [1, 1, 1, np.inf]}, "has weights from 1 to inf, expected"),
}


@pytest.mark.parametrize("name", BAD)
def test_rows_that_no_shard_may_have_are_refused_before_training(name: str, tmp_path: Path) -> None:
    changes, message = BAD[name]
    rows = stored(tmp_path, numbered([2, 2, 2, 2], n_items=5), [2], 1000)
    with pytest.raises(DataError, match=message):
        rewritten(rows, 1, **changes).checked()


def test_a_border_between_pieces_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pieces(n: int) -> Iterator[slice]:
        return (slice(start, min(start + 2, n)) for start in range(0, n, 2))

    monkeypatch.setattr("recvae.datasets.streams.in_chunks", pieces)
    rows = stored(tmp_path, numbered([4, 3, 0, 1, 2], n_items=5), [], 1000)
    assert rows.checked().item_counts.tolist() == [4, 3, 2, 1, 0]
    with pytest.raises(DataError, match="not in order"):
        rewritten(rows, 0, indices=[0, 2, 1, 3, 0, 1, 2, 0, 0, 1]).checked()


def test_rows_without_users_or_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^got no users \(rows\) in the shards of .*, expected at least one$"):
        StreamedMatrix(ShardedMatrix(tmp_path, (), 5)).checked()
    with pytest.raises(DataError, match=r"^got no items \(columns\) in the shards of .*, expected at least one$"):
        stored(tmp_path, sp.csr_matrix((3, 0)).astype(np.float32), [], 10).checked()
    with pytest.raises(UsageError, match=r"^got a buffer of 0 bytes, expected 1 or more$"):
        StreamedMatrix(ShardedMatrix(tmp_path, (), 5), 0)


def test_a_shard_without_users_has_nothing_to_read(tmp_path: Path) -> None:
    rows = stored(tmp_path, numbered([2, 3]), [], 10)
    found: dict[str, Any] = write_shard(tmp_path / "train/none", np.zeros(1, dtype=np.int64), np.empty(0))
    shards = ShardedMatrix(tmp_path, (Shard(file="train/none", **found), *rows.shards.shards), 12)
    batches = SparseBatches(StreamedMatrix(shards, 10).checked(), 1, CPU).epoch(seeded(0))
    assert sorted(chain(*map(users_of, batches))) == [0, 1]


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(path.read_bytes()), lambda path: path.unlink()])
def test_a_shard_that_changes_during_training_is_named(change: Callable[[Path], object], tmp_path: Path) -> None:
    rows = stored(tmp_path, numbered([5] * 30), [10, 20], 600).checked()
    batches = SparseBatches(rows, 4, CPU)
    list(batches.epoch(seeded(0)))
    change(tmp_path / "train/part-00001.safetensors")
    message = "part-00001.safetensors (was changed after it was checked; leave a data set|is missing, expected)"
    with pytest.raises(DataError, match=message):
        list(batches.epoch(seeded(0)))


def test_what_needs_a_matrix_in_memory_says_so(tmp_path: Path) -> None:
    rows = stored(tmp_path, numbered([5] * 30), [], 600).checked()
    with pytest.raises(
        DataError, match=r"^got rows that lie on disk \(stream=True\) for it, expected a matrix in memory"
    ):
        as_interactions(rows, "it")


def test_what_is_no_number_of_bytes_is_not_called_a_damaged_file(toy: Path, command: Any) -> None:
    for name, value in (("buffer", "1MB"), ("buffer", 0), ("buffer", 1e6), ("max_memory", "8GB"), ("max_memory", True)):
        with pytest.raises(UsageError, match=rf"^got {name}={re.escape(repr(value))}, expected a number of bytes, "):
            wrong: Any = {name: value}
            Dataset.load("data/toy", stream=True, **wrong)
    with pytest.raises(UsageError, match=r"^got buffer=1000 without stream=True, where it has no effect; add that or "):
        Dataset.load("data/toy", buffer=1000)
    data = Dataset.load("data/toy", max_memory=8e9)  # type: ignore[arg-type]  # nobody is told to round
    with pytest.raises(UsageError, match=r"^got max_memory='8GB', expected a number of bytes, 0 or more, such as"):
        EASE(l2=1.0).fit(data, max_memory="8GB")  # type: ignore[arg-type]
    assert command("train", "--model", "popularity").code == 0
    with pytest.raises(UsageError, match=r"^got max_memory='8GB', expected a number of bytes, 0 or more, such as"):
        Recommender.load("runs/toy/popularity", max_memory="8GB")  # type: ignore[arg-type]
