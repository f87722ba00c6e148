"""A history has one score: wherever it stands, whoever is beside it, however often it is there."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae import MultVAE
from recvae.datasets.dataset import Dataset
from recvae.errors import DataError, UsageError
from recvae.latent.anomalies import SCORES, AnomalyDetector
from recvae.latent.familiar import familiar_users, in_training
from recvae.models.common.draws import content_keys, draws_for

N_USERS, N_ITEMS = 60, 25
RNG = np.random.default_rng(3)
ROWS = sp.csr_matrix((RNG.random((N_USERS, N_ITEMS)) < 0.3).astype(np.float32))
ROWS.data[::7] = 2.0
MODEL = MultVAE(hidden_dims=(8,), latent_dim=3, epochs=4, learning_rate=0.02, batch_size=20).fit(ROWS)
DETECTORS = {score: AnomalyDetector(MODEL, score=score, n_samples=3).fit(ROWS[:40]) for score in SCORES}
LAST_DIGITS: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}  # of float32, whose sums depend on the block


@pytest.mark.parametrize("score", SCORES)
@settings(max_examples=10, deadline=None)
@given(chosen=st.lists(st.integers(0, N_USERS - 1), min_size=1, max_size=25), seed=st.integers(0, 99))
def test_the_order_of_users_changes_no_bit_and_those_beside_no_digit(score: str, chosen: list[int], seed: int) -> None:
    detector, rows = DETECTORS[score], ROWS[chosen]
    found, shares = detector.scores_and_p_values(rows)
    order = np.random.default_rng(seed).permutation(len(chosen))
    again, shares_again = detector.scores_and_p_values(rows[order])
    np.testing.assert_array_equal(again, found[order])
    np.testing.assert_array_equal(shares_again, shares[order])
    for user, value in zip(chosen, found, strict=True):
        assert found[chosen.index(user)] == value, "the same history, the same score"
    alone, share = detector.scores_and_p_values(rows[:1])
    np.testing.assert_allclose(alone, found[:1], **LAST_DIGITS)
    assert share == shares[:1]


@pytest.mark.parametrize("score", SCORES)
def test_the_order_of_the_users_to_compare_with_changes_no_bit(score: str) -> None:
    order = np.random.default_rng(5).permutation(40)
    other = AnomalyDetector(MODEL, score=score, n_samples=3, neighbours=20).fit(ROWS[:40][order])
    one = AnomalyDetector(MODEL, score=score, n_samples=3, neighbours=20).fit(ROWS[:40])
    np.testing.assert_array_equal(other.decision_function(ROWS), one.decision_function(ROWS))
    assert other.threshold_ == one.threshold_


@pytest.mark.parametrize("ask", ["elbo", "log_likelihood", "reconstruction", "log_weights"])
def test_draws_follow_the_history(ask: str) -> None:
    method, least = getattr(MODEL, ask), MODEL.scoring_needs(N_ITEMS).scoring
    found, order = method(ROWS, 4, seed=2), np.random.default_rng(1).permutation(N_USERS)
    np.testing.assert_allclose(method(ROWS[order], 4, seed=2), found[order], **LAST_DIGITS)
    np.testing.assert_allclose(method(ROWS[7], 4, seed=2, max_memory=least), found[7:8], **LAST_DIGITS)
    other = method(ROWS, 4, seed=3)
    assert (np.abs(other - found).reshape(N_USERS, -1).max(axis=1) > 1e-3).all(), "another seed, other draws"


def test_keys_are_of_items_and_weights_alone() -> None:
    keys = content_keys(ROWS)
    assert len({*keys}) == len({row.toarray().tobytes() for row in ROWS})
    wide = sp.csr_matrix((ROWS.data, ROWS.indices.astype(np.int64), ROWS.indptr.astype(np.int64)), shape=ROWS.shape)
    assert content_keys(wide) == keys == content_keys(sp.hstack([ROWS, sp.csr_matrix((N_USERS, 3))]).tocsr())
    heavier = ROWS.copy()
    heavier.data *= 2
    assert not {*keys} & {*content_keys(heavier)}


def test_draws_of_users_and_seeds_and_purposes_are_independent() -> None:
    keys = content_keys(ROWS)
    drawn = np.array([draws_for(0, key).standard_normal(400) for key in keys])
    others = [draws_for(1, keys[0]).standard_normal(400), draws_for(0, keys[0], of="items").standard_normal(400)]
    correlation = np.asarray(np.corrcoef(np.vstack([drawn, *others])))[np.triu_indices(N_USERS + 2, 1)]
    assert np.abs(correlation).max() < 0.25 and abs(correlation.std() * np.sqrt(400) - 1) < 0.1
    assert abs(drawn.mean()) < 0.03 and abs(drawn.std() - 1) < 0.03


def test_users_of_training_are_found_by_id_and_by_items(blocks: Dataset) -> None:
    train = blocks.train
    once = sp.csr_matrix(np.eye(1, train.shape[1], dtype=np.float32))
    rows = sp.vstack([once, train[3] * 2, train[5], sp.csr_matrix((1, train.shape[1]))]).tocsr()
    dense = train.toarray()
    by_items = [bool((dense == row.toarray()).all(axis=1).any()) for row in (once, train[3], train[5])]
    assert by_items == [False, True, True]
    known = blocks.__class__(**{**vars(blocks), "train_user_ids": np.arange(train.shape[0])})
    found = familiar_users(["0.0", "no", " 5", 10**9], rows, known)
    assert found.by_id is not None and found.by_id.tolist() == [True, False, True, False]
    assert found.by_items.tolist() == [False, True, True, False]
    assert found.to_json() == {"by_id": 2, "by_items": 2, "any": 3}
    without = blocks.__class__(**{**vars(blocks), "train_user_ids": None})
    assert familiar_users([1, 2, 3, 4], rows, without).to_json() == {"by_id": None, "by_items": 2, "any": 2}
    assert not in_training([0], without).any()
    with pytest.raises(UsageError, match="got 1 ids for 4 histories, expected as many of each"):
        familiar_users([1], rows, known)
    with pytest.raises(DataError, match=r"got 2 items \(columns\) in the users"):
        familiar_users([1], sp.csr_matrix((1, 2)), known)
