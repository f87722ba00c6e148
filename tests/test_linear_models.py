"""EASE and EDLAE: in the memory they promise, pruned to the weights that matter, refused where there is no answer."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch
from hypothesis import given
from hypothesis import strategies as st

from recvae.bundles.bundle import WEIGHTS, Bundle, read_bundle, write_bundle
from recvae.bundles.card import CARD
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, MemoryLimitError, TrainingError, UsageError
from recvae.evaluation.evaluate import evaluate
from recvae.metrics import parse_metrics
from recvae.models import EASE, EDLAE, ease
from recvae.models.ease import gram_matrix, prune

# Letters in shape comments: U users, I items.

BOTH = [EASE, EDLAE]
N_ITEMS = 1500
BLOCK = 4 * N_ITEMS**2  # bytes of an items x items block of float32


def random_users(seed: int, n_users: int, n_items: int, share: float = 0.3) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    return sp.csr_matrix(rng.random((n_users, n_items)) < share, dtype=np.float32)


def ndcg(model: EASE, data: Dataset) -> float:
    per_user, _ = evaluate(model, data.validation, parse_metrics("ndcg@100"))
    return float(np.nanmean(per_user["ndcg@100"]))


class Peak:
    """Most memory taken at once, in bytes."""

    n_bytes = 0


@contextmanager
def measured() -> Iterator[Peak]:
    """Measure what numpy and Python take in the block, above what there was before."""
    peak = Peak()
    tracemalloc.start()
    try:
        yield peak
        peak.n_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def many_items() -> sp.csr_matrix:
    return random_users(0, 400, N_ITEMS, 0.02)


@pytest.fixture
def thin_stripes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make stripes as thin against 1,500 items as they are against 30,000."""
    monkeypatch.setattr(ease, "_STRIPE_BYTES", (64 << 20) * N_ITEMS**2 // 30_000**2)


@pytest.mark.parametrize("model_class", BOTH)
def test_too_many_items_are_refused_before_anything_of_that_size_is_allocated(model_class: type[EASE]) -> None:
    train = sp.csr_matrix((2, 500_000))
    model = model_class()
    said = (
        rf"^{model.name} on 500,000 items needs 2\.0 TB of memory, 1\.0 GB is allowed by --max-memory; raise "
        r"--max-memory, leave out rare items \(recvae preprocess --min-item-users\), or use sansa, elsa, "
        r"multvae or als, which"
    )
    with measured() as peak, pytest.raises(MemoryLimitError, match=said):
        model.fit(train, max_memory=10**9)
    assert peak.n_bytes < 50e6


@pytest.mark.parametrize("model_class", BOTH)
@pytest.mark.parametrize("top_k", [None, 50])
def test_fitting_takes_no_more_than_two_blocks_whatever_the_stripes_come_to(
    model_class: type[EASE], top_k: int | None, many_items: sp.csr_matrix, thin_stripes: None
) -> None:
    """LAPACK works in place, and X^T X, the mirror and the pruning go stripe by stripe."""
    model = model_class(top_k=top_k)
    with measured() as peak:
        model.fit(many_items, max_memory=2 * BLOCK)
    assert BLOCK <= peak.n_bytes <= 1.5 * BLOCK


def test_fitting_takes_no_more_than_the_limit_it_was_given(many_items: sp.csr_matrix) -> None:
    with measured() as peak:
        EASE().fit(many_items, max_memory=2 * BLOCK)
    assert peak.n_bytes <= 2 * BLOCK


def test_pruning_to_many_weights_counts_them_too(many_items: sp.csr_matrix, thin_stripes: None) -> None:
    with pytest.raises(MemoryLimitError, match="ease on 1,500 items needs"):
        EASE(top_k=N_ITEMS // 2).fit(many_items, max_memory=2 * BLOCK)
    with measured() as peak:  # 8 bytes a weight, by column and then by row
        EASE(top_k=N_ITEMS // 2).fit(many_items, max_memory=3 * BLOCK)
    assert peak.n_bytes <= 3.05 * BLOCK  # and a stripe


def test_writing_and_reading_a_bundle_take_one_more_block(
    many_items: sp.csr_matrix, blocks: Dataset, tmp_path: Path
) -> None:
    ids = np.arange(N_ITEMS)
    data = Dataset(train=many_items, validation=blocks.validation, test=blocks.test, item_ids=ids)
    model = EASE().fit(many_items)
    with measured() as peak:  # the model's own block was there before
        write_bundle(tmp_path, Bundle(model=model, items=data.items))
    assert peak.n_bytes <= 1.1 * BLOCK
    with measured() as peak:
        copy = read_bundle(tmp_path).model
    assert peak.n_bytes <= 1.1 * BLOCK, "what torch holds is not seen here"
    np.testing.assert_array_equal(copy.weights()["similarity"], model.weights()["similarity"])


@given(seed=st.integers(0, 2**32 - 1), n_users=st.integers(1, 20), n_items=st.integers(1, 30), rows=st.integers(1, 31))
def test_the_gram_matrix_in_stripes_is_the_plain_product(seed: int, n_users: int, n_items: int, rows: int) -> None:
    train = random_users(seed, n_users, n_items)
    train.data[:] = np.random.default_rng(seed).integers(1, 6, train.nnz)
    dense = train.toarray().astype(np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ease, "_STRIPE_BYTES", 8 * n_items * rows)
        gram = gram_matrix(train)
    assert (gram.dtype, gram.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(gram, dense.T @ dense)


@pytest.mark.parametrize("ratio", [0, 160, 10**9], ids=["sparse", "both", "dense"])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_gram_matrix_is_the_same_however_many_items_are_made_dense(
    ratio: int, threads: int, many_items: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ease, "_SPARSE_TO_DENSE", ratio)
    monkeypatch.setattr(ease, "_CACHE_BYTES", 100_000)  # several batches of users
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    n_popular, n_there = len(ease._popular(many_items, sp.csr_matrix(many_items.T))), len(set(many_items.indices))
    lowest, highest = {0: (0, 0), 160: (n_there // 2, n_there - 100), 10**9: (n_there, n_there)}[ratio]
    assert lowest <= n_popular <= highest
    dense = many_items.toarray()
    np.testing.assert_array_equal(gram_matrix(many_items), dense.T @ dense)


def test_weights_of_more_items_than_a_square_are_those_of_a_plain_inverse(many_items: sp.csr_matrix) -> None:
    dense = many_items.toarray().astype(np.float64)
    precision = np.linalg.inv(dense.T @ dense + 5 * np.eye(N_ITEMS))
    expected = -precision / precision.diagonal()
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(EASE(l2=5.0).fit(many_items).weights()["similarity"], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model_class", BOTH)
@pytest.mark.parametrize("stripe", [1, 300, 5000])
def test_stripes_do_not_change_the_weights(
    model_class: type[EASE], stripe: int, monkeypatch: pytest.MonkeyPatch, blocks: Dataset
) -> None:
    for top_k in (None, 3):
        whole = model_class(top_k=top_k).fit(blocks.train).weights()
        with monkeypatch.context() as patch:
            patch.setattr(ease, "_STRIPE_BYTES", stripe)
            striped = model_class(top_k=top_k).fit(blocks.train).weights()
        for name, value in whole.items():
            np.testing.assert_array_equal(striped[name], value, err_msg=name)


@given(
    seed=st.integers(0, 2**32 - 1), n_items=st.integers(1, 25), top_k=st.integers(1, 30), stripe=st.integers(1, 10**4)
)
def test_pruning_keeps_of_each_column_the_largest_by_size_and_of_equal_ones_the_first(
    seed: int, n_items: int, top_k: int, stripe: int
) -> None:
    weights = np.random.default_rng(seed).integers(-3, 4, (n_items, n_items)).astype(np.float32)  # many are equal
    np.fill_diagonal(weights, 0.0)
    before = weights.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ease, "_STRIPE_BYTES", stripe)
        pruned = prune(weights, top_k)
    expected = np.zeros_like(weights)
    for column in range(n_items):
        rows = sorted(range(n_items), key=lambda row: (-abs(before[row, column]), row))[:top_k]
        expected[rows, column] = before[rows, column]
    assert (pruned.format, pruned.dtype, pruned.has_sorted_indices) == ("csr", np.float32, True)
    assert pruned.data.all(), "no zeros are stored"
    np.testing.assert_array_equal(pruned.toarray(), expected)
    np.testing.assert_array_equal(weights, before)


@pytest.mark.parametrize("model_class", BOTH)
def test_pruned_weights_are_those_of_the_whole_model(model_class: type[EASE], blocks: Dataset) -> None:
    whole, pruned = model_class().fit(blocks.train), model_class(top_k=4).fit(blocks.train)
    assert isinstance(whole.similarity_, np.ndarray)
    np.testing.assert_array_equal(prune(whole.similarity_, 4).toarray(), pruned.similarity_.toarray())  # type: ignore[union-attr]
    assert pruned.score(blocks.test.fold_in).shape == blocks.test.fold_in.shape
    all_kept = model_class(top_k=1000).fit(blocks.train)
    np.testing.assert_allclose(all_kept.score(blocks.test.fold_in), whole.score(blocks.test.fold_in), rtol=1e-5)


def test_the_summary_says_what_pruning_kept_and_what_it_cost(blocks: Dataset) -> None:
    whole = EASE(l2=5.0).fit(blocks.train, blocks.validation)
    assert set(whole.training_summary().to_json()) == {"seconds"} and whole.training_summary().seconds
    pruned = EASE(l2=5.0, top_k=1).fit(blocks.train, blocks.validation)
    said = pruned.training_summary().pruning
    assert said is not None
    assert said["kept"] == pruned.similarity_.nnz / 32**2 == 1 / 32  # type: ignore[union-attr]
    assert said["ndcg@100 before"] == pytest.approx(ndcg(whole, blocks))
    assert said["ndcg@100 after"] == pytest.approx(ndcg(pruned, blocks))
    assert said["ndcg@100 after"] < said["ndcg@100 before"]
    alone = EASE(top_k=1).fit(blocks.train).training_summary().pruning
    assert alone is not None
    assert (alone["ndcg@100 before"], alone["ndcg@100 after"]) == (None, None)


@pytest.mark.parametrize("model_class", BOTH)
@pytest.mark.parametrize("top_k", [None, 3, 1000])
def test_a_bundle_comes_back_to_the_bit_whole_or_pruned(
    model_class: type[EASE], top_k: int | None, blocks: Dataset, tmp_path: Path
) -> None:
    model = model_class(l2=5.0, top_k=top_k).fit(blocks.train, blocks.validation)
    write_bundle(tmp_path, Bundle(model=model, items=blocks.items, training=model.training_summary()))
    copy = read_bundle(tmp_path)
    assert copy.model == model and type(copy.model) is model_class
    assert copy.training == model.training_summary()
    for name, value in model.weights().items():
        np.testing.assert_array_equal(copy.model.weights()[name], value, strict=True)
    users = sp.csr_matrix(sp.vstack([blocks.test.fold_in, sp.csr_matrix((1, 32))]))
    np.testing.assert_array_equal(copy.model.score(users), model.score(users))


def test_a_pruned_bundle_is_small_and_is_not_read_as_a_whole_one(blocks: Dataset, tmp_path: Path) -> None:
    for folder, top_k in (("whole", None), ("pruned", 2)):
        model = EASE(top_k=top_k).fit(blocks.train)
        write_bundle(tmp_path / folder, Bundle(model=model, items=blocks.items))
    sizes = [(tmp_path / folder / WEIGHTS).stat().st_size for folder in ("pruned", "whole")]
    assert sizes[0] < sizes[1] / 3
    card = tmp_path / "pruned" / CARD
    content = json.loads(card.read_text())
    content["hyperparameters"]["top_k"] = None
    card.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"weights\.safetensors does not fit the hyperparameters: 'similarity'"):
        read_bundle(tmp_path / "pruned")


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3,), (3, 3, 1)])
def test_weights_that_are_not_items_x_items_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"weights of shape \(.*\) are not items x items"):
        EASE().load_weights({"similarity": np.zeros(shape, dtype=np.float32)})


def test_pruned_weights_that_fit_no_matrix_are_refused(blocks: Dataset) -> None:
    weights = EASE(top_k=3).fit(blocks.train).weights()
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "similarity.indices": lambda indices: indices + 40,
        "similarity.data": lambda data: data[:-1],
        "similarity.indptr": lambda indptr: indptr[:-1],
    }
    for name, change in changes.items():
        with pytest.raises(ValueError, match=r"ind(ices|ex|ptr)|data"):
            EASE(top_k=3).load_weights({**weights, name: change(weights[name])})
    with pytest.raises(KeyError, match="similarity"):
        EASE(top_k=3).load_weights({"similarity": np.zeros((3, 3), dtype=np.float32)})


NO_ANSWER = "^the weights of the items have no unique answer; raise l2$"
UNSOLVABLE = {
    "an item nobody has": sp.csr_matrix([[1, 0, 0], [0, 1, 0], [1, 1, 0]]),
    "no interaction at all": sp.csr_matrix((4, 3)),
    "a single user": sp.csr_matrix([[1, 1, 1]]),
    "fewer users than items": random_users(1, 20, 40),
}


@pytest.mark.parametrize("case", UNSOLVABLE)
def test_without_a_penalty_data_of_no_unique_answer_are_refused(case: str) -> None:
    model = EASE(l2=5.0).fit(UNSOLVABLE[case])
    model.l2 = 0.0
    with pytest.raises(TrainingError, match=NO_ANSWER):
        model.fit(UNSOLVABLE[case])
    assert model.n_items_ == 0, "nothing half done is scored with"


def test_a_penalty_too_small_for_float32_is_refused_too() -> None:
    with pytest.raises(TrainingError, match=NO_ANSWER):
        EASE(l2=1e-40).fit(UNSOLVABLE["an item nobody has"])


@pytest.mark.parametrize("n_users", [2, 6])
def test_two_items_that_all_users_have_together_have_no_unique_answer_without_a_penalty(n_users: int) -> None:
    with pytest.raises(TrainingError, match=NO_ANSWER):
        EASE(l2=0.0).fit(sp.csr_matrix(np.ones((n_users, 2))))


@pytest.mark.parametrize("model_class", BOTH)
def test_with_a_penalty_empty_users_and_items_are_no_problem(model_class: type[EASE]) -> None:
    train = sp.csr_matrix(sp.block_diag([np.zeros((3, 2)), np.kron(np.eye(2), np.ones((5, 3)))]), dtype=np.float32)
    model = model_class(l2=1.0).fit(train)
    scores = model.score(sp.csr_matrix([[0, 0, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], [0] * 8]))
    assert np.isfinite(scores).all()
    assert scores[0, 4] > scores[0, 5:].max(), "the rest of the group before the other group"
    assert not scores[0, :2].any() and not scores[1:].any(), "an item nobody has says nothing of any other"
    nothing = model_class(l2=1.0).fit(sp.csr_matrix((4, 3)))
    assert not nothing.score(sp.csr_matrix([[1, 1, 0]])).any()


def test_edlae_without_dropout_is_ease_to_the_bit(blocks: Dataset) -> None:
    one, other = EASE(l2=7.0).fit(blocks.train), EDLAE(l2=7.0, dropout=0.0).fit(blocks.train)
    np.testing.assert_array_equal(one.weights()["similarity"], other.weights()["similarity"])


@pytest.mark.parametrize(
    ("model_class", "values", "said"),
    [
        (EASE, {"l2": -1.0}, r"got l2=-1.0, expected a number, 0 or more"),
        (EASE, {"top_k": 0}, r"got top_k=0, expected a whole number, 1 or more \(or none\)"),
        (EDLAE, {"dropout": 1.0}, r"got dropout=1.0, expected a number, at least 0 and below 1"),
        (EDLAE, {"dropout": -0.1}, r"got dropout=-0.1, expected a number, at least 0 and below 1"),
    ],
)
def test_what_makes_no_sense_is_refused(
    model_class: type[EASE], values: dict[str, Any], said: str, blocks: Dataset
) -> None:
    with pytest.raises(UsageError, match=said):
        model_class(**values).fit(blocks.train)


def test_relaxed_and_normalised_weights_are_pruned_like_others() -> None:
    train = random_users(0, 200, 30)
    model = EDLAE(l2=5.0, relax=0.3, user_power=0.2, item_power=0.2).fit(train)
    whole = model.weights()["similarity"]
    pruned = EDLAE(l2=5.0, relax=0.3, user_power=0.2, item_power=0.2, top_k=5).fit(train)
    assert sp.issparse(pruned.similarity_)
    np.testing.assert_array_equal(sp.csr_matrix(pruned.similarity_).toarray(), prune(whole, 5).toarray())


# Catalogues beyond 26,000 items, where LAPACK's Cholesky on several threads ends the process


def conjugate_gradients(train: sp.csr_matrix, l2: float, item: int) -> np.ndarray:
    """Return a column of (X^T X + l2 I)^-1, solved in double precision without any block."""
    x = sp.csr_matrix(train, dtype=np.float64)
    target = np.zeros(train.shape[1])
    target[item] = 1.0
    operator = spla.LinearOperator((len(target), len(target)), matvec=lambda v: x.T @ (x @ v) + l2 * v)
    column, failed = spla.cg(operator, target, rtol=1e-12, maxiter=5000)
    assert not failed
    return column


@pytest.mark.large
@pytest.mark.parametrize("n_items", [33_000, 41_000])
def test_many_items_are_solved_rightly(n_items: int) -> None:
    if psutil.virtual_memory().available < 3 * 4 * n_items**2:
        pytest.skip(f"{n_items:,} items need {3 * 4 * n_items**2 / 1e9:.0f} GB of free memory")
    rng = np.random.default_rng(0)
    items = np.minimum(rng.zipf(1.3, 3_000_000) - 1, n_items - 1)
    train = sp.csr_matrix((np.ones(len(items), np.float32), (rng.integers(0, 60_000, len(items)), items)))
    train.data[:] = 1.0
    weights = EASE(l2=100.0).fit(sp.csr_matrix(train, shape=(60_000, n_items))).similarity_
    assert isinstance(weights, np.ndarray)
    for item in (0, 1, 77, n_items // 2, n_items - 1):
        column = conjugate_gradients(train, 100.0, item)
        expected = -column / column[item]
        expected[item] = 0.0
        np.testing.assert_allclose(weights[:, item], expected, atol=1e-5 + 1e-4 * np.abs(expected).max(), rtol=0)


def test_offsets_of_a_product_are_as_wide_as_the_positions_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns fit 32 bits where the places of more than two billion interactions do not."""
    left = sp.csr_matrix(np.ones((3, 2), dtype=np.float32))
    left.indptr = np.array([0, 2**31 + 1, 2**31 + 2, 2**31 + 4], dtype=np.int64)  # pyright: ignore[reportAttributeAccessIssue]
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(ease.functional, "embedding_bag", lambda items, _, offsets, **__: seen.extend([items, offsets]))
    ease._sparse_times_dense(left, torch.ones(2, 1))
    assert [part.dtype for part in seen] == [torch.int64] * 2 and seen[1].tolist() == [0, 2**31 + 1, 2**31 + 2]


def test_weights_of_more_than_2_to_the_31_entries_are_found_by_row() -> None:
    n_items = 50_000  # 10 GB of zeros, of which the system only makes the few rows that are written
    weights = np.zeros((n_items, n_items), dtype=np.float32)
    weights[43_000], weights[-1] = 1, np.arange(n_items)
    history = sp.csr_matrix((np.ones(3, np.float32), ([0, 1, 1], [n_items - 1, n_items - 1, 43_000])), (2, n_items))
    model = EASE().load_weights({"similarity": weights})
    np.testing.assert_array_equal(model.score(history), [weights[-1], weights[-1] + 1])
    assert model.recommend(history, k=1)[0].tolist() == [[49_998], [49_998]]
    np.testing.assert_array_equal(model.similarities(np.array([n_items - 1]))[0], weights[-1])
