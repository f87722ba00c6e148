"""What models say of their vectors, and what their sparse scores are: the scores themselves, by another way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from recvae.datasets.dataset import Dataset
from recvae.errors import NotFittedError, TrainingError, UsageError
from recvae.models import EASE, Model
from recvae.models.common.sparse_scores import sparse_scores
from recvae.ranking import rank, rank_candidates, rank_sparse
from recvae.recommenders.recommender import Recommender

WITH_VECTORS = ["multvae", "multdae", "recvae", "hvamp", "ae", "elsa", "als", "ials"]
WITHOUT = ["vasp", "ease", "edlae", "sansa", "infae", "blend", "popularity"]


def nothing_of(shape: tuple[int, int]) -> sp.csr_matrix:
    return sp.csr_matrix(np.zeros(shape, dtype=np.float32))


@pytest.fixture
def rows(blocks: Dataset) -> sp.csr_matrix:
    """Return histories with weights, one of them empty."""
    rows = sp.csr_matrix(blocks.test.fold_in[:6])
    rows = sp.csr_matrix(sp.vstack([rows[:2], rows[:1] * np.float32(0), rows[2:]]))
    rows.eliminate_zeros()
    rows.data[:] = np.arange(rows.nnz) % 4 + 0.5
    return rows


@pytest.mark.parametrize("name", WITH_VECTORS)
def test_scores_are_products_of_the_vectors_plus_bias_and_terms_of_own_items(
    name: str, fitted: Callable[[str], Model], rows: sp.csr_matrix
) -> None:
    model = fitted(name)
    vectors, bias = model.item_vectors()
    queries = model.query_vectors(rows)
    assert model.has_item_vectors and len(vectors) == 32 and queries.shape == (7, vectors.shape[1])
    assert vectors.dtype == queries.dtype == np.float32
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    if bias is not None:
        scores += bias
    terms = model.own_item_terms(rows.data)
    if terms is not None:
        assert (terms <= 0).all()  # else a search could miss them
        scores[rows.nonzero()] += terms
    np.testing.assert_allclose(model.score(rows), scores, rtol=1e-5, atol=1e-6 * np.abs(scores).max())


@pytest.mark.parametrize("name", WITHOUT)
def test_models_without_vectors_say_so_and_name_models_that_have_them(
    name: str, fitted: Callable[[str], Model], rows: sp.csr_matrix
) -> None:
    model = fitted(name)
    assert not model.has_item_vectors
    for ask in (model.item_vectors, lambda: model.query_vectors(rows)):
        with pytest.raises(
            UsageError,
            match=f"{name} has no item vectors to search by.*use als, ials, elsa without",
        ):
            ask()


def test_every_model_is_in_one_of_the_two_lists_and_knows_it_before_it_is_fitted(
    model_name: str, make_model: Callable[..., Model]
) -> None:
    model = make_model(model_name)
    assert model.has_item_vectors == (model_name in WITH_VECTORS) != (model_name in WITHOUT)
    if model.has_item_vectors:
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            model.item_vectors()


SHARES = st.floats(0, 1)


@given(seed=st.integers(0, 2**32 - 1), stored=SHARES, hidden=SHARES, kept=SHARES, k=st.integers(1, 24))
def test_sparse_scores_are_ranked_as_dense_ones(seed: int, stored: float, hidden: float, kept: float, k: int) -> None:
    generator = np.random.default_rng(seed)
    n_users, n_items = int(generator.integers(1, 4)), int(generator.integers(1, 20))
    shape = (n_users, n_items)
    dense = generator.integers(-2, 3, shape).astype(np.float32)  # many ties, negative ones too
    cells = generator.random(shape) < stored
    places: Any = np.nonzero(cells)
    sparse = sp.csr_matrix((dense[cells], places), shape=shape)  # stored zeros stay
    dense[~cells] = 0
    seen = sp.csr_matrix((generator.random(shape) < hidden).astype(np.float32))
    masks = [None, generator.random(n_items) < kept, generator.random(shape) < kept]
    for allowed in masks:
        expected = rank(torch.from_numpy(dense.copy()), k, seen, allowed)
        found = rank_sparse(sparse, k, seen, allowed)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_a_sparse_score_that_is_no_number_is_refused() -> None:
    scores = sp.csr_matrix(np.array([[0, np.nan, 1]], dtype=np.float32))
    with pytest.raises(TrainingError, match="scores that are not numbers"):
        rank_sparse(scores, 2, nothing_of((1, 3)))


def test_candidates_are_ranked_by_score_then_column_and_end_where_they_end() -> None:
    columns = np.array([[2, 5, 7, 9], [4, 6, -1, -1], [-1, -1, -1, -1]])
    scores = np.array([[1, 3, 3, 0], [1, 1, 9, 9], [9, 9, 9, 9]], dtype=np.float32)
    items, values = rank_candidates(columns, scores, 3)
    assert items.tolist() == [[5, 7, 2], [4, 6, -1], [-1, -1, -1]]
    assert values.tolist() == [[3, 3, 1], [1, 1, -np.inf], [-np.inf] * 3]
    nothing = np.empty((2, 0), dtype=np.int64)
    assert rank_candidates(nothing, nothing.astype(np.float32), 2)[0].tolist() == [[-1, -1], [-1, -1]]


@pytest.mark.parametrize("top_k", [1, 3, 32])
def test_a_pruned_ease_recommends_what_its_scores_say(
    top_k: int, blocks: Dataset, rows: sp.csr_matrix, tmp_path: Path
) -> None:
    model = EASE(l2=5.0, top_k=top_k).fit(blocks.train)
    weights: Any = model.similarity_
    whole = (rows.astype(np.float64) @ weights.astype(np.float64)).toarray()
    np.testing.assert_allclose(model.score(rows), whole, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(sparse_scores(rows, sp.csr_matrix(model.similarity_)).toarray(), model.score(rows))
    for hidden in (None, nothing_of(rows.shape)):
        masked = rows if hidden is None else hidden
        items, scores = model.recommend(rows, 32, hidden=hidden)
        expected = rank(torch.from_numpy(model.score(rows)), 32, masked)
        np.testing.assert_array_equal(items, expected[0])
        np.testing.assert_array_equal(scores, expected[1])
    assert len(Recommender(model, blocks).recommend(blocks.item_ids[:3], k=29).ids) == 29


@pytest.mark.parametrize("most", [1, 7, 60])
def test_sparse_scores_are_the_same_however_few_weights_are_looked_at_together(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(most)
    weights = sp.csr_matrix(rng.normal(size=(30, 30)) * (rng.random((30, 30)) < 0.3), dtype=np.float32)
    dense = rng.integers(1, 4, (12, 30)) * (rng.random((12, 30)) < 0.2)
    dense[[3, 11]] = 0  # users without a history
    users = sp.csr_matrix(dense, dtype=np.float32)
    whole = sparse_scores(users, weights)
    monkeypatch.setattr("recvae.models.common.sparse_scores._MOST", most)
    parts = sparse_scores(users, weights)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    assert sparse_scores(users[:0], weights).shape == (0, 30)
