"""What every registered model promises; a new one joins by being listed in `recvae.models.MODELS`."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recvae.datasets.dataset import Dataset
from recvae.errors import DataError, NotFittedError, TrainingError, UsageError
from recvae.interactions import HeldOut
from recvae.models import ALS, MODELS, Model, model_class
from recvae.models.common import scoring
from recvae.models.common.hyperparameters import Range, hyperparameters_of, values_of
from recvae.models.common.penalties import two_digits
from recvae.training.records import EpochRecord, NullMonitor

# Letters in shape comments: U users, I items, k ranks.

PERSONAL = [name for name in MODELS if name != "popularity"]
SEEDED = [name for name in MODELS if "seed" in hyperparameters_of(MODELS[name])]

Make = Callable[..., Model]
Fitted = Callable[[str], Model]


def assert_same_weights(one: Model, other: Model) -> None:
    """Check that two models learned the same, to the bit."""
    assert one.weights().keys() == other.weights().keys()
    for name, value in one.weights().items():
        np.testing.assert_array_equal(value, other.weights()[name], err_msg=name, strict=True)


def few_epochs(name: str) -> dict[str, Any]:
    """Return hyperparameters for a test that does not ask how well a model learned."""
    return {"epochs": 2} if "epochs" in hyperparameters_of(MODELS[name]) else {}


@pytest.fixture(scope="module")
def quick(make_model: Make, blocks: Dataset) -> Fitted:
    """Return a function from a model's name to that model fitted for few epochs, once; do not change it."""
    return functools.cache(
        lambda name: make_model(name, **few_epochs(name)).fit(blocks.train, blocks.validation, device="cpu")
    )


def histories(blocks: Dataset) -> sp.csr_matrix:
    return blocks.validation.fold_in


def weighted(blocks: Dataset) -> sp.csr_matrix:
    """Return histories with weights 1 to 5 instead of ones."""
    matrix = histories(blocks).copy()
    matrix.data[:] = np.arange(matrix.nnz) % 5 + 1
    return matrix


@contextmanager
def global_generators_untouched() -> Iterator[None]:
    """Check that the block neither draws from the global generators nor seeds them."""
    np.random.seed(20_180_423)  # noqa: NPY002  (a state that no seed of a model leads to)
    torch.manual_seed(20_180_423)
    before = str(np.random.get_state(legacy=False)), torch.get_rng_state()  # noqa: NPY002
    yield
    assert str(np.random.get_state(legacy=False)) == before[0]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_constructor_only_stores(model_name: str) -> None:
    chosen: Any = MODELS[model_name]
    values = {name: object() for name in hyperparameters_of(chosen)}
    model = chosen(**values)
    assert all(getattr(model, name) is value for name, value in values.items())


def test_fit_returns_the_model_and_leaves_its_hyperparameters_alone(
    model_name: str, make_model: Make, blocks: Dataset
) -> None:
    model = make_model(model_name, **few_epochs(model_name))
    before = values_of(model)
    assert model.fit(blocks.train, blocks.validation) is model
    assert values_of(model) == before
    assert model.n_items_ == blocks.train.shape[1]


def test_whoever_watches_a_fit_hears_of_its_start_and_its_end(
    model_name: str, make_model: Make, blocks: Dataset
) -> None:
    told: list[float] = []

    class Watch(NullMonitor):
        def start(self, epochs: int, done: list[EpochRecord]) -> None:
            told.extend([epochs, len(done)])

        def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
            told.append(epochs_done)

    make_model(model_name, **few_epochs(model_name)).fit(blocks.train, monitor=Watch())
    if told:  # a model that only counts has nothing to tell
        epochs, done, *progress = told
        assert done == 0
        assert progress == sorted(progress)
        assert progress[-1] == pytest.approx(epochs)
    assert bool(told) == (model_name != "popularity")


def test_fit_leaves_the_data_alone(model_name: str, make_model: Make, blocks: Dataset) -> None:
    parts = (blocks.train, blocks.validation.fold_in, blocks.validation.targets)
    before = [part.copy() for part in parts]
    model = make_model(model_name, **few_epochs(model_name))
    model.fit(blocks.train, blocks.validation).recommend(histories(blocks), 3)
    for part, copy in zip(parts, before, strict=True):
        for name in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(part, name), getattr(copy, name))


def test_fitting_twice_is_fitting_once(model_name: str, make_model: Make, quick: Fitted, blocks: Dataset) -> None:
    model = make_model(model_name, **few_epochs(model_name)).fit(blocks.train[:, ::-1], blocks.validation)
    assert_same_weights(model.fit(blocks.train, blocks.validation, device="cpu"), quick(model_name))


def test_fitting_again_on_other_items_forgets_the_first(model_name: str, make_model: Make, blocks: Dataset) -> None:
    other = sp.csr_matrix(blocks.train[:30, :11])
    model, fresh = (make_model(model_name, **few_epochs(model_name)) for _ in range(2))
    assert_same_weights(model.fit(blocks.train).fit(other, device="cpu"), fresh.fit(other, device="cpu"))
    assert model.score(other[:2]).shape == (2, 11)


def test_nothing_is_scored_or_kept_before_fit(model_name: str, make_model: Make, blocks: Dataset) -> None:
    model = make_model(model_name)
    message = f"this {type(model).__name__} is not fitted yet; call fit"
    for call in (
        lambda: model.score(histories(blocks)),
        lambda: model.recommend(histories(blocks)),
        model.weights,
        model.check_fitted,
    ):
        with pytest.raises(NotFittedError, match=message):
            call()


def test_scores_are_finite_float32_for_every_user_and_item(model_name: str, fitted: Fitted, blocks: Dataset) -> None:
    scores = fitted(model_name).score(histories(blocks))
    assert (scores.shape, scores.dtype) == (histories(blocks).shape, np.float32)
    assert np.isfinite(scores).all()


def test_recommendations_are_the_best_unseen_items_in_order(model_name: str, fitted: Fitted, blocks: Dataset) -> None:
    user_items = histories(blocks)
    items, scores = fitted(model_name).recommend(user_items, k=12)
    assert (items.shape, items.dtype, scores.dtype) == ((user_items.shape[0], 12), np.int64, np.float32)
    expected = np.where(user_items.toarray() > 0, -np.inf, fitted(model_name).score(user_items))
    order = np.argsort(-expected, axis=1, kind="stable")[:, :12]
    np.testing.assert_array_equal(items, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(expected, order, axis=1))


def test_short_lists_are_padded(model_name: str, fitted: Fitted, blocks: Dataset) -> None:
    n_items = blocks.train.shape[1]
    nearly_all = sp.csr_matrix([[0, 0] + [1] * (n_items - 2), [1] * n_items])
    items, scores = fitted(model_name).recommend(nearly_all, k=n_items + 5)
    assert sorted(items[0, :2].tolist()) == [0, 1]
    assert np.isfinite(scores[0, :2]).all()
    assert (items[0, 2:] == -1).all()
    assert np.isneginf(scores[0, 2:]).all()
    assert (items[1] == -1).all()


def test_a_batch_of_users_is_scored_like_each_of_them_alone(model_name: str, fitted: Fitted, blocks: Dataset) -> None:
    users = weighted(blocks)
    alone = np.vstack([fitted(model_name).score(row) for row in users])
    np.testing.assert_allclose(fitted(model_name).score(users), alone, rtol=1e-5, atol=1e-5)


def test_block_size_does_not_matter(
    model_name: str, fitted: Fitted, blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, users = fitted(model_name), histories(blocks)
    scores, (items, _) = model.score(users), model.recommend(users, 5)
    monkeypatch.setattr(scoring, "block_rows", lambda _: 3)  # 20 users: the last block is smaller
    np.testing.assert_allclose(model.score(users), scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.recommend(users, 5)[0], items)


def test_permuting_users_permutes_their_scores(model_name: str, fitted: Fitted, blocks: Dataset) -> None:
    order = np.random.default_rng(0).permutation(histories(blocks).shape[0])
    scores = fitted(model_name).score(histories(blocks))
    shuffled = fitted(model_name).score(histories(blocks)[order])
    np.testing.assert_allclose(shuffled, scores[order], rtol=1e-5, atol=1e-5)


def test_scoring_twice_gives_the_same_to_the_bit(model_name: str, fitted: Fitted, blocks: Dataset) -> None:
    model = fitted(model_name)
    np.testing.assert_array_equal(model.score(histories(blocks)), model.score(histories(blocks)))


def test_a_user_without_history_is_scored(model_name: str, fitted: Fitted, blocks: Dataset) -> None:
    empty = sp.csr_matrix((2, blocks.train.shape[1]))
    scores = fitted(model_name).score(empty)
    assert np.isfinite(scores).all()
    assert (fitted(model_name).recommend(empty, 3)[0] >= 0).all()
    beside = fitted(model_name).score(sp.csr_matrix(sp.vstack([empty, histories(blocks)[:1]])))
    np.testing.assert_allclose(beside[:2], scores, rtol=1e-5, atol=1e-5)


def test_users_without_items_may_be_among_the_training_users(
    model_name: str, make_model: Make, blocks: Dataset
) -> None:
    train = sp.csr_matrix(sp.vstack([sp.csr_matrix((15, blocks.train.shape[1])), blocks.train]))
    model = make_model(model_name, **few_epochs(model_name)).fit(train)
    assert np.isfinite(model.score(histories(blocks))).all()


@pytest.mark.parametrize(
    "as_given",
    [sp.csc_matrix, sp.coo_matrix, sp.lil_matrix, sp.csr_array, sp.coo_array, "int64", "bool", "float64", "zeros"],
)
def test_any_sparse_matrix_will_do(
    model_name: str, make_model: Make, quick: Fitted, blocks: Dataset, as_given: Any
) -> None:
    def given(matrix: sp.csr_matrix) -> Any:
        if as_given == "zeros":  # stored, but no interaction
            matrix = matrix.copy()
            matrix.data[::4] = 0
            return matrix
        return matrix.astype(as_given) if isinstance(as_given, str) else as_given(matrix)

    def plain(matrix: sp.csr_matrix) -> sp.csr_matrix:
        return sp.csr_matrix(given(matrix).toarray().astype(np.float32))

    one, other = make_model(model_name, **few_epochs(model_name)), quick(model_name)
    heldout = blocks.validation
    one.fit(given(blocks.train), (given(heldout.fold_in), given(heldout.targets)), device="cpu")
    if as_given == "zeros":  # fewer interactions than those that the other model was fitted on
        other = make_model(model_name, **few_epochs(model_name))
        other.fit(plain(blocks.train), (plain(heldout.fold_in), plain(heldout.targets)), device="cpu")
    assert_same_weights(one, other)
    np.testing.assert_array_equal(one.score(given(histories(blocks))), other.score(plain(histories(blocks))))


@pytest.mark.parametrize("name", SEEDED)
def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_does_not(
    name: str, make_model: Make, blocks: Dataset
) -> None:
    one, two = (make_model(name, seed=5, **few_epochs(name)).fit(blocks.train, device="cpu") for _ in range(2))
    assert_same_weights(one, two)
    other = make_model(name, seed=6, **few_epochs(name)).fit(blocks.train, device="cpu")
    assert any((value != other.weights()[key]).any() for key, value in one.weights().items())


def test_global_generators_are_neither_used_nor_seeded(model_name: str, make_model: Make, blocks: Dataset) -> None:
    with global_generators_untouched():
        model = make_model(model_name, **few_epochs(model_name)).fit(blocks.train, blocks.validation)
        model.score(histories(blocks))
        model.recommend(histories(blocks))
        make_model(model_name).load_weights(model.weights())


def test_weights_taken_over_give_the_same_scores(
    model_name: str, make_model: Make, fitted: Fitted, blocks: Dataset
) -> None:
    weights = {name: value.copy() for name, value in fitted(model_name).weights().items()}
    copy = make_model(model_name)
    assert copy.load_weights(weights) is copy
    assert_same_weights(copy, fitted(model_name))
    np.testing.assert_array_equal(copy.score(weighted(blocks)), fitted(model_name).score(weighted(blocks)))


def test_weights_that_are_missing_or_of_another_shape_are_refused(
    model_name: str, make_model: Make, fitted: Fitted
) -> None:
    with pytest.raises((KeyError, ValueError, RuntimeError)):
        make_model(model_name).load_weights({})
    for name, value in fitted(model_name).weights().items():
        with pytest.raises((KeyError, ValueError, RuntimeError), match="shape"):
            make_model(model_name).load_weights({**fitted(model_name).weights(), name: np.stack([value, value], -1)})


@pytest.mark.parametrize("name", PERSONAL)
def test_unseen_users_get_the_rest_of_their_group(name: str, fitted: Fitted, blocks: Dataset) -> None:
    test = blocks.test
    items, _ = fitted(name).recommend(test.fold_in, k=5)
    wanted = [set(row.indices.tolist()) for row in test.targets]
    assert [set(row) for row in items.tolist()] == wanted


def test_popularity_counts_training_users_whatever_the_weights() -> None:
    train = sp.csr_matrix([[5, 0, 1], [0, 0, 1], [0, 0, 1]])
    assert MODELS["popularity"]().fit(train).score(sp.csr_matrix([[1, 0, 0]])).tolist() == [[1, 0, 3]]


def test_als_folds_a_user_in_by_solving_his_least_squares_problem(fitted: Fitted, blocks: Dataset) -> None:
    """Hu, Koren and Volinsky, eq. 4, with confidence alpha * weight where there is an interaction."""
    model, users = fitted("als"), weighted(blocks)
    assert isinstance(model, ALS)
    factors = model.item_factors_.astype(np.float64)  # (I, F)
    scores = []
    for row in users.toarray():
        confidence = np.where(row > 0, model.alpha * row, 1.0)  # (I,)
        left = factors.T @ (confidence[:, None] * factors) + model.regularization_ * np.eye(model.factors)
        scores.append(factors @ np.linalg.solve(left, factors.T @ (confidence * (row > 0))))
    np.testing.assert_allclose(model.score(users), scores, rtol=1e-3, atol=1e-4)


def test_als_says_when_its_problems_have_no_answer(blocks: Dataset) -> None:
    with pytest.raises(TrainingError, match=r"NaN encountered in factors.*raise regularization"):
        ALS(factors=4, regularization=0.0, alpha=1e30).fit(blocks.train)
    no_answer = ALS(factors=2, regularization=0.0).load_weights({"item_factors": np.zeros((3, 2))})
    with pytest.raises(TrainingError, match="least-squares problems have no answer"):
        no_answer.score(sp.csr_matrix([[1, 0, 1]]))


def test_als_takes_its_regularization_from_the_size_of_the_data_and_folds_in_by_it(blocks: Dataset) -> None:
    left = ALS(factors=4, alpha=4.0).fit(blocks.train)
    size = blocks.train.nnz / np.sqrt(np.prod(blocks.train.shape))
    chosen = two_digits(0.12 * two_digits(10 * size**0.7))  # .06 sqrt(alpha) times the typical l2
    assert left.training_summary().from_data == {"regularization": pytest.approx(chosen, rel=1e-12)}
    given = ALS(factors=4, alpha=4.0, regularization=chosen).fit(blocks.train)
    assert given.training_summary().from_data is None
    loaded = ALS(factors=4, alpha=4.0).load_weights(left.weights())
    for model in (given, loaded):
        np.testing.assert_array_equal(model.score(blocks.train), left.score(blocks.train))


def test_als_of_an_earlier_version_has_its_regularization_among_the_hyperparameters(blocks: Dataset) -> None:
    model = ALS(factors=4, regularization=2.0).fit(blocks.train)
    factors = {"item_factors": model.weights()["item_factors"]}
    loaded = ALS(factors=4, regularization=2.0).load_weights(factors)
    np.testing.assert_array_equal(loaded.score(blocks.train), model.score(blocks.train))
    with pytest.raises(ValueError, match="neither the weights nor the hyperparameters say the regularization"):
        ALS(factors=4).load_weights(factors)
    for wrong in ([], [1.0, 2.0], [-1.0], [np.nan]):
        with pytest.raises(ValueError, match="is no number >= 0"):
            ALS(factors=4).load_weights(factors | {"regularization": np.array(wrong)})


def test_data_that_cannot_be_learned_from_is_refused(model_name: str, make_model: Make, blocks: Dataset) -> None:
    model = make_model(model_name)
    bad: Any
    for bad, message in (
        (blocks.train.toarray(), r"got ndarray for the training interactions, expected a scipy sparse matrix"),
        (blocks.train * np.nan, "the training interactions hold negative, NaN or infinite values"),
        (blocks.train[:0], r"got no users \(rows\) in the training interactions"),
    ):
        with pytest.raises(DataError, match=message):
            model.fit(bad)
    with pytest.raises(NotFittedError):
        model.weights()


def test_validation_users_of_other_items_are_refused(blocks: Dataset, make_model: Make) -> None:
    for name in ("multvae", "multdae"):
        with pytest.raises(DataError, match=r"got 31 items \(columns\) in the targets, expected 32"):
            make_model(name).fit(blocks.train, (blocks.test.fold_in, blocks.test.targets[:, :-1]))
        with pytest.raises(DataError, match="expected the same users and items in both"):
            make_model(name).fit(blocks.train, HeldOut.of((blocks.test.fold_in, blocks.test.targets[:2]), 32))


def test_histories_of_other_items_are_refused(model_name: str, fitted: Fitted, blocks: Dataset) -> None:
    for bad in (blocks.test.fold_in[:, :-1], sp.csr_matrix(sp.hstack([blocks.test.fold_in] * 2))):
        for ask in (fitted(model_name).score, fitted(model_name).recommend):
            with pytest.raises(DataError, match=r"items \(columns\) in the histories, expected 32; use the item col"):
                ask(bad)


@pytest.mark.parametrize("k", [0, -1, 2.5, "3", True, None])
def test_k_must_be_a_whole_number_from_1(model_name: str, fitted: Fitted, blocks: Dataset, k: Any) -> None:
    with pytest.raises(UsageError, match="expected a whole number of items, 1 or more"):
        fitted(model_name).recommend(blocks.test.fold_in, k)


def test_models_are_found_by_name_and_say_where_they_come_from(model_name: str) -> None:
    model = model_class(model_name)
    assert model is MODELS[model_name]
    assert model.name == model_name
    assert model.paper
    hyperparameters = hyperparameters_of(model)
    assert all(known.meaning and known.allows(known.default) for known in hyperparameters.values())
    for name, values in model.space.items():
        ends = (values.low, values.high) if isinstance(values, Range) else values
        kind = hyperparameters[name].type if isinstance(values, Range) else None
        assert all(hyperparameters[name].allows(kind(value) if kind else value) for value in ends)


def test_an_unknown_model_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match=f"got model 'nope', expected one of: {', '.join(MODELS)}"):
        model_class("nope")
