"""From scores to ranked items: exact order, ties by column, nothing seen, nothing made up."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recvae.errors import TrainingError, UsageError
from recvae.items import check_k
from recvae.ranking import block_rows, rank

# Letters in shape comments: U users, I items, k ranks.

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
# Few different whole numbers: nearly every place is tied.
TIED_SCORES = hnp.arrays(np.float32, SHAPES, elements=st.integers(-2, 2).map(float))
KS = st.integers(1, 15)


def brute_force(scores: np.ndarray, k: int, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank each user by falling score, then by column, with a plain sort."""
    items = np.full((len(scores), k), -1)
    values = np.full((len(scores), k), -np.inf, dtype=np.float32)
    for user, row in enumerate(scores):
        order = [item for item in np.lexsort((np.arange(len(row)), -row)) if not seen[user, item]][:k]
        items[user, : len(order)] = order
        values[user, : len(order)] = row[order]
    return items, values


@st.composite
def scores_and_seen(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    scores = draw(TIED_SCORES)
    return scores, draw(hnp.arrays(np.bool_, scores.shape))


@given(scores_and_seen(), KS)
def test_ranking_is_that_of_a_plain_sort_by_score_then_column(case: tuple[np.ndarray, np.ndarray], k: int) -> None:
    scores, seen = case
    items, values = rank(torch.from_numpy(scores.copy()), k, seen=sp.csr_matrix(seen))
    expected_items, expected_values = brute_force(scores, k, seen)
    np.testing.assert_array_equal(items, expected_items)
    np.testing.assert_array_equal(values, expected_values)
    assert (items.dtype, values.dtype) == (np.int64, np.float32)


def test_ties_go_to_the_lowest_columns_in_a_row_too_wide_for_an_insertion_sort() -> None:
    scores = np.random.default_rng(0).integers(0, 3, (20, 5000)).astype(np.float32)
    items, _ = rank(torch.from_numpy(scores.copy()), 700)
    np.testing.assert_array_equal(items, brute_force(scores, 700, np.zeros(scores.shape, bool))[0])


@given(scores_and_seen(), KS, st.integers(1, 5))
def test_ranking_does_not_depend_on_the_block_a_user_is_ranked_in(
    case: tuple[np.ndarray, np.ndarray], k: int, rows: int
) -> None:
    scores, seen = torch.from_numpy(case[0]), sp.csr_matrix(case[1])
    whole, _ = rank(scores.clone(), k, seen=seen)
    parts = [
        rank(scores[at : at + rows].clone(), k, seen=seen[at : at + rows])[0] for at in range(0, len(scores), rows)
    ]
    np.testing.assert_array_equal(np.vstack(parts), whole)


@given(TIED_SCORES, st.integers(1, 11))
def test_a_longer_list_begins_with_the_shorter_one(scores: np.ndarray, k: int) -> None:
    short, _ = rank(torch.from_numpy(scores.copy()), k)
    long, _ = rank(torch.from_numpy(scores.copy()), k + 1)
    np.testing.assert_array_equal(long[:, :k], short)


def test_seen_items_are_masked_with_minus_infinity_not_with_zero() -> None:
    """With 0 as mask, the seen item 1 would come before unseen items with negative scores."""
    items, scores = rank(torch.tensor([[-5.0, 3.0, -2000.0]]), 3, seen=sp.csr_matrix([[0, 1, 0]]))
    assert items.tolist() == [[0, 2, -1]]
    assert scores.tolist() == [[-5.0, -2000.0, -np.inf]]


def test_lists_are_padded_where_the_items_run_out() -> None:
    items, scores = rank(torch.tensor([[1.0, 2.0]]), 4)
    assert items.tolist() == [[1, 0, -1, -1]]
    assert scores.tolist() == [[2.0, 1.0, -np.inf, -np.inf]]


@given(
    hnp.arrays(np.float32, SHAPES, elements=st.sampled_from([0.0, 1.0, np.nan])).filter(lambda a: np.isnan(a).any()),
    KS,
)
def test_scores_that_are_not_numbers_are_refused_at_whatever_rank(scores: np.ndarray, k: int) -> None:
    with pytest.raises(TrainingError, match="not numbers; train it again with a lower learning rate"):
        rank(torch.from_numpy(scores), k)


@pytest.mark.parametrize("k", [0, -1, 1.5, 2.0, "3", True, None])
def test_k_must_be_a_whole_number_from_1(k: object) -> None:
    with pytest.raises(UsageError, match=r"got k=.*, expected a whole number of items, 1 or more"):
        check_k(k)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected a whole number of items"):
        rank(torch.zeros(1, 3), k)  # type: ignore[arg-type]


def test_k_may_be_a_numpy_integer() -> None:
    items, _ = rank(torch.tensor([[1.0, 2.0, 3.0]]), np.int64(2))  # type: ignore[arg-type]
    assert items.tolist() == [[2, 1]]


@given(st.integers(1, 10**9), st.integers(1, 1 << 30))
def test_a_block_fits_its_memory_but_has_at_least_one_user(n_items: int, block_bytes: int) -> None:
    rows = block_rows(n_items, block_bytes)
    assert rows == 1 or 4 * rows * n_items <= block_bytes < 4 * (rows + 1) * n_items
    assert rows >= 1
