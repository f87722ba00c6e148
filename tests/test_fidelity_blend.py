"""The blend: standardised scores of two models, weighed as validation users want it."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recvae.datasets.dataset import Dataset
from recvae.interactions import HeldOut
from recvae.metrics import ndcg_at_k
from recvae.models import EASE, Blend, Popularity
from recvae.models.blend import WEIGHTS, standardise

# Letters in shape comments: U users, I items.


def parts(train: sp.csr_matrix) -> tuple[EASE, Popularity]:
    return EASE(l2=5.0).fit(train), Popularity().fit(train)


def z_scores(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    return (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)


def mixed_targets(blocks: Dataset) -> HeldOut:
    """Return users who want the rest of their group or whatever is popular, so that neither part is best alone."""
    popular = np.argsort(-np.asarray(blocks.train.sum(axis=0)).ravel(), kind="stable")[:6]
    targets = blocks.validation.targets.toarray()
    targets[::2] = 0
    targets[::2, popular] = 1
    targets[blocks.validation.fold_in.toarray() > 0] = 0
    return HeldOut(fold_in=blocks.validation.fold_in, targets=sp.csr_matrix(targets, dtype=np.float32))


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1000.0, 50.0), (-3.0, 1e-4)])
def test_standardised_scores_have_mean_0_and_deviation_1_for_each_user(offset: float, scale: float) -> None:
    """Over all users at once, or over none, one model's scale would drown the other's for some of them."""
    rng = np.random.default_rng(0)
    scores = offset + scale * rng.normal(0, 1, (7, 300)) * np.arange(1, 8)[:, None]
    ours = standardise(torch.from_numpy(scores))
    torch.testing.assert_close(ours.mean(dim=1), torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(ours.std(dim=1, correction=0), torch.ones(7, dtype=torch.float64))
    np.testing.assert_allclose(ours, z_scores(scores), rtol=1e-6, atol=1e-6)


def test_a_model_that_scores_all_items_alike_adds_nothing() -> None:
    assert standardise(torch.full((2, 5), 3.0)).tolist() == [[0.0] * 5] * 2


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_scores_are_the_weighted_sum_of_the_standardised_ones(weight: float, blocks: Dataset) -> None:
    first, second = parts(blocks.train)
    model = Blend.of(first, second, weight=weight).fit(blocks.train)
    users = blocks.test.fold_in
    expected = weight * z_scores(first.score(users)) + (1 - weight) * z_scores(second.score(users))
    np.testing.assert_allclose(model.score(users), expected, rtol=1e-4, atol=1e-5)


def test_weight_1_ranks_like_the_first_part_and_weight_0_like_the_second(blocks: Dataset) -> None:
    first, second = parts(blocks.train)
    n_items = blocks.train.shape[1]
    for weight, part in ((1.0, first), (0.0, second)):
        model = Blend.of(first, second, weight=weight).fit(blocks.train)
        ranked, _ = model.recommend(blocks.test.fold_in, n_items)
        np.testing.assert_array_equal(ranked, part.recommend(blocks.test.fold_in, n_items)[0])


def test_the_weight_is_the_best_of_those_tried_on_validation(blocks: Dataset) -> None:
    validation = mixed_targets(blocks)
    first, second = parts(blocks.train)
    model = Blend.of(first, second).fit(blocks.train, validation)
    by_hand = {}
    for weight in WEIGHTS:
        ranked, _ = Blend.of(first, second, weight=weight).fit(blocks.train).recommend(validation.fold_in, 100)
        by_hand[weight] = float(np.nanmean(ndcg_at_k(ranked, validation.targets, 100)))
    tried = model.training_summary().tried
    assert tried == pytest.approx({str(weight): ndcg for weight, ndcg in by_hand.items()})
    assert model.weight_ == model.training_summary().weight == max(by_hand, key=by_hand.__getitem__)
    assert 0 < model.weight_ < 1
    assert by_hand[model.weight_] > max(by_hand[0.0], by_hand[1.0])
    assert (WEIGHTS[0], WEIGHTS[-1], len(WEIGHTS)) == (0.0, 1.0, 21)


def test_other_validation_users_choose_another_weight_and_leave_the_parts_alone(blocks: Dataset) -> None:
    """The weight is chosen on validation, never on test users nor on those the parts were trained on."""
    first, second = parts(blocks.train)
    weights = {name: value.copy() for name, value in first.weights().items()}
    one = Blend.of(first, second).fit(blocks.train, mixed_targets(blocks))
    unwanted = sp.csr_matrix(1 - blocks.validation.targets.toarray() - blocks.validation.fold_in.toarray())
    other = Blend.of(first, second).fit(blocks.train, (blocks.validation.fold_in, unwanted))
    assert other.weight_ < one.weight_
    for name, value in first.weights().items():
        np.testing.assert_array_equal(value, weights[name])


def test_a_given_weight_is_not_overruled_by_validation(blocks: Dataset) -> None:
    model = Blend.of(*parts(blocks.train), weight=0.15).fit(blocks.train, mixed_targets(blocks))
    assert model.weight_ == 0.15
