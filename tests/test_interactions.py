"""Matrices from outside: what is taken as it is, what is put right, what is refused."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recvae.errors import DataError
from recvae.interactions import LEAST_WEIGHT, MOST_WEIGHT, HeldOut, as_interactions, interactions
from recvae.models import MODELS

POSITIONS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), unique=True)


@given(POSITIONS)
def test_interactions_become_ones_in_sorted_rows(positions: list[tuple[int, int]]) -> None:
    rows, columns = np.array(positions, dtype=np.int64).reshape(-1, 2).T
    matrix = interactions(rows, columns, (4, 5))
    expected = np.zeros((4, 5))
    expected[rows, columns] = 1
    np.testing.assert_array_equal(matrix.toarray(), expected)
    assert (matrix.dtype, matrix.indices.dtype, matrix.has_sorted_indices) == (np.float32, np.int32, True)


@given(
    matrix=hnp.arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 3)),
    form=st.sampled_from([sp.csr_matrix, sp.csc_matrix, sp.coo_array, sp.lil_array, sp.dok_matrix]),
    dtype=st.sampled_from([np.float32, np.float64, np.int32, np.uint8]),
)
def test_any_sparse_format_and_type_becomes_canonical_float32_rows(matrix: np.ndarray, form: Any, dtype: Any) -> None:
    csr = as_interactions(form(matrix.astype(dtype)))
    np.testing.assert_array_equal(csr.toarray(), matrix)
    assert csr.has_canonical_format
    assert csr.data.all()
    assert csr.dtype == np.float32


def test_duplicates_are_added_up_and_stored_zeros_dropped_without_touching_the_argument() -> None:
    values = np.array([1, 2, 0, 4], dtype=np.float32)
    messy = sp.csr_matrix((values, np.array([1, 1, 0, 0]), np.array([0, 3, 4])), shape=(2, 3))
    csr = as_interactions(messy)
    assert csr.toarray().tolist() == [[0, 3, 0], [4, 0, 0]]
    assert csr.nnz == 2
    assert messy.data.tolist() == [1, 2, 0, 4]
    assert messy.indices.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("form", [sp.coo_matrix, sp.coo_array])
def test_duplicates_of_small_integers_are_added_up_as_numbers(form: Any) -> None:
    often = form((np.full(300, 1, dtype=np.uint8), (np.zeros(300, int), np.zeros(300, int))), shape=(1, 2))
    assert as_interactions(often).toarray().tolist() == [[300, 0]]


@pytest.mark.parametrize("weight", [LEAST_WEIGHT, MOST_WEIGHT])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "blend"])
def test_every_model_computes_with_the_least_and_the_greatest_weight(name: str, weight: float) -> None:
    train = sp.csr_matrix((np.random.default_rng(0).random((60, 25)) < 0.3) * weight)
    epochs: dict[str, Any] = {"epochs": 1} if "epochs" in {item.name for item in fields(MODELS[name])} else {}
    scores = MODELS[name](**epochs).fit(train).score(train[:5])
    assert np.isfinite(scores).all()
    assert scores.std(dtype=np.float64) > 0


def test_a_matrix_that_is_right_is_not_copied() -> None:
    matrix = sp.csr_matrix(np.eye(3, dtype=np.float32))
    assert np.shares_memory(as_interactions(matrix).data, matrix.data)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), r"got ndarray for the x, expected a scipy sparse matrix of users x items; wrap it with scipy"),
        ([[1]], "got list for the x"),
        (sp.csr_matrix((0, 3)), r"got no users \(rows\) in the x, expected at least one"),
        (sp.csr_matrix((2, 4)), r"got 4 items \(columns\) in the x, expected 3; use the item columns the model"),
        (sp.csr_matrix([[1, -1, 0]]), "the x hold negative, NaN or infinite values, expected weights > 0; drop those"),
        (sp.csr_matrix([[1, np.nan, 0]]), "the x hold negative, NaN or infinite values"),
        (sp.csr_matrix([[1, np.inf, 0]]), "the x hold negative, NaN or infinite values"),
        (sp.csr_matrix([[1, 1j, 0]]), "got values of type complex128 in the x, expected numbers; convert them"),
        (
            sp.csr_matrix([[1, 1.7e9, 0]]),
            r"got weights from 1 to 1\.7e\+09 in the x, expected 0, or 1e-09 to 1e\+09",
        ),
        (sp.csr_matrix([[1, 1_700_000_000, 0]]), r"got weights from 1 to 1\.7e\+09 in the x"),
        (sp.csr_matrix([[1, 1e300, 0]]), r"got weights from 1 to 1e\+300 in the x"),
        (
            sp.csr_matrix(([1, 1e-50, 0], ([0, 0, 0], [0, 1, 2]))),
            "got weights from 1e-50 to 1 in.*too small to 0",
        ),
    ],
    ids=[
        "dense",
        "list",
        "no users",
        "other items",
        "negative",
        "NaN",
        "infinite",
        "complex",
        "times",
        "whole times",
        "beyond float32",
        "0 in float32",
    ],
)
def test_a_matrix_that_is_wrong_is_refused(matrix: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_interactions(matrix, "the x", n_items=3)


def test_a_matrix_without_items_is_refused() -> None:
    with pytest.raises(DataError, match=r"got 0 items \(columns\) in the interactions, expected at least one"):
        as_interactions(sp.csr_matrix((3, 0)))


def test_held_out_users_are_numbered_where_they_have_no_ids_and_counted_where_they_have_no_target() -> None:
    fold_in, targets = sp.csr_matrix(np.eye(3)), sp.csr_matrix([[0, 1, 0], [0, 0, 0], [1, 0, 0]])
    plain = HeldOut.of((fold_in, targets), n_items=3)
    assert plain.user_ids.tolist() == [0, 1, 2]
    assert (plain.n_users, plain.n_without_target()) == (3, 1)
    named = HeldOut(fold_in=fold_in, targets=targets, user_ids=np.array([7, 8, 9]))
    assert HeldOut.of(named, n_items=3).user_ids.tolist() == [7, 8, 9]


def test_held_out_users_whose_matrices_do_not_fit_are_refused() -> None:
    fold_in, targets = sp.csr_matrix((3, 4)), sp.csr_matrix((2, 4))
    with pytest.raises(DataError, match=r"fold-in of shape \(3, 4\) and targets of shape \(2, 4\), expected the same"):
        HeldOut(fold_in=fold_in, targets=targets)
    with pytest.raises(DataError, match=r"got 4 items \(columns\) in the fold-in, expected 5"):
        HeldOut.of((fold_in, fold_in), n_items=5)
    with pytest.raises(DataError, match="got 2 user ids for 3 users, expected one for each"):
        HeldOut(fold_in=fold_in, targets=fold_in, user_ids=np.array([7, 8]))
    with pytest.raises(DataError, match="got ndarray for the targets"):
        HeldOut.of((fold_in, np.zeros((3, 4))), n_items=4)  # type: ignore[arg-type]
