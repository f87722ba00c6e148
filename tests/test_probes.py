"""Linear probes of vectors: planted features are found, random vectors are worth .5, bad input is refused."""

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from recvae import EASE, MultDAE
from recvae.datasets.features import ItemFeatures
from recvae.errors import DataError, UsageError
from recvae.latent.probes import _pairs, narrowed, probe

pytestmark = pytest.mark.slow

N_ITEMS, WIDTH = 300, 8


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((N_ITEMS, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def planted(vectors: np.ndarray) -> np.ndarray:
    """Return two features that are on a line of the vectors, one of them with noise."""
    rng = np.random.default_rng(2)
    axes = rng.standard_normal((WIDTH, 2))
    return vectors @ axes + np.array([0, 4]) * rng.standard_normal((N_ITEMS, 2)) > 0.5


def test_planted_features_are_found_and_noise_lowers_them(vectors: np.ndarray, planted: np.ndarray) -> None:
    found = probe(vectors, planted, ["clear", "noisy"], resamples=200)
    assert found.names == ("clear", "noisy")
    assert found.aucs[0] > 0.98
    assert 0.6 < found.aucs[1] < 0.9
    low, high = found.interval
    assert low < found.mean < high < 1
    assert found.mean == pytest.approx(found.aucs.mean())
    assert (found.n_items, found.width) == (N_ITEMS, WIDTH)


def test_random_vectors_are_worth_a_guess(planted: np.ndarray) -> None:
    means, holds = [], 0
    for seed in range(6):
        noise = np.random.default_rng(100 + seed).standard_normal((N_ITEMS, WIDTH))
        found = probe(noise, planted, resamples=200, seed=seed)
        means.append(found.mean)
        low, high = found.interval
        holds += low <= 0.5 <= high
    assert np.mean(means) == pytest.approx(0.5, abs=0.03)
    assert holds >= 4


def test_a_vector_far_from_zero_and_one_of_no_variance_do_no_harm(vectors: np.ndarray, planted: np.ndarray) -> None:
    moved = np.hstack([1e4 + 1e3 * vectors.astype(np.float64), np.ones((N_ITEMS, 1))])
    found = probe(moved, planted, resamples=100)
    assert found.aucs == pytest.approx(probe(vectors, planted, resamples=100).aucs, abs=1e-3)


def test_the_figure_is_the_roc_auc_of_scikit_learn_also_with_weights_and_ties() -> None:
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 6, 80).astype(float), rng.random(80) < 0.3
    weights = np.vstack([np.ones(80), rng.multinomial(80, np.full(80, 1 / 80), size=70)])
    above, pairs = _pairs(scores, labels, weights)
    for row in (0, 1, 70):
        expected = roc_auc_score(labels, scores, sample_weight=weights[row])
        assert above[row] / pairs[row] == pytest.approx(expected, rel=1e-12)


def test_the_same_seed_gives_the_same_figures_and_another_seed_others(vectors: np.ndarray, planted: np.ndarray) -> None:
    first, again, other = (probe(vectors, planted, resamples=100, seed=seed) for seed in (4, 4, 5))
    assert np.array_equal(first.aucs, again.aucs)
    assert np.array_equal(first.resampled, again.resampled)
    assert not np.array_equal(first.aucs, other.aucs)


def test_differences_are_of_the_same_items(vectors: np.ndarray, planted: np.ndarray) -> None:
    whole = probe(vectors, planted, resamples=200)
    noise = probe(np.random.default_rng(9).standard_normal((N_ITEMS, 3)), planted, resamples=200)
    mean, low, high = whole.difference(noise)
    assert mean == pytest.approx(whole.mean - noise.mean)
    assert 0 < low < mean < high
    assert whole.difference(whole) == (0, 0, 0)
    with pytest.raises(UsageError, match="got probes of different features, folds or seeds, expected the same"):
        whole.difference(probe(vectors, planted, resamples=200, seed=1))
    with pytest.raises(UsageError, match="got probes of different features"):
        whole.difference(probe(vectors, ~planted, resamples=200))


def test_features_of_a_data_set_are_taken_by_name_and_rare_ones_are_left_out(
    vectors: np.ndarray, planted: np.ndarray
) -> None:
    rare = np.arange(N_ITEMS) < 19
    year = np.arange(N_ITEMS)
    matrix = np.column_stack([year, planted[:, 0], rare, ~rare]).astype(np.float32)
    names = ("year", "genre=A", "genre=B", "genre=C")
    for given in (matrix, sp.csr_matrix(matrix)):
        features = ItemFeatures(matrix=given, names=names)
        found = probe(vectors, features, ("genre=C", "genre=A", "genre=B"), resamples=100)
        assert found.names == ("genre=A",)
        assert found.left_out == ("genre=C", "genre=B")
        assert found.aucs[0] > 0.98
        with pytest.raises(UsageError, match=r"got unknown feature 'genre=Z', expected some of year, genre=A"):
            probe(vectors, features, ["genre=Z"])
        with pytest.raises(DataError, match="got features that are not 0 or 1, expected genres or the like"):
            probe(vectors, features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, r"got folds=1, expected a whole number >= 2"),
        ({"folds": True}, r"got folds=True"),
        ({"least": 9}, r"got least=9, expected a whole number >= 10"),
        ({"folds": 2, "least": 5}, r"got least=5, expected a whole number >= 6"),
        ({"resamples": 99}, r"got resamples=99, expected a whole number >= 100"),
        ({"seed": -1}, r"got seed=-1, expected a whole number >= 0"),
        ({"names": ["one"]}, r"got 1 names for 2 features, expected a name for each"),
    ],
)
def test_options_out_of_range_are_refused(
    vectors: np.ndarray, planted: np.ndarray, options: dict, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        probe(vectors, planted, **options)


def test_vectors_and_features_that_cannot_be_used_are_refused(vectors: np.ndarray, planted: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"got vectors of shape \(300,\), expected numbers of shape"):
        probe(vectors[:, 0], planted)
    with pytest.raises(DataError, match=r"got vectors of shape \(300, 0\)"):
        probe(vectors[:, :0], planted)
    broken = vectors.copy()
    broken[3, 2] = np.nan
    with pytest.raises(DataError, match="got item vectors that are not finite"):
        probe(broken, planted)
    with pytest.raises(DataError, match=r"got features of shape \(299, 2\), expected a row for each of the 300 items"):
        probe(vectors, planted[1:])
    with pytest.raises(DataError, match="got no feature that 20 items have and 20 lack"):
        probe(vectors, np.zeros((N_ITEMS, 2)))
    with pytest.raises(DataError, match="got features that are not 0 or 1"):
        probe(vectors, np.full((N_ITEMS, 1), np.nan))


def test_without_scikit_learn_it_says_how_to_install_it(
    vectors: np.ndarray, planted: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UsageError, match=r"probing item vectors needs .*'recvae\[latent\]'"):
        probe(vectors, planted)


def test_narrowed_rows_keep_the_inner_products_that_the_best_low_rank_does() -> None:
    matrix = np.random.default_rng(5).standard_normal((30, 20))
    left, values, _ = np.linalg.svd(matrix)
    for given in (matrix, sp.csr_matrix(matrix), sp.csr_matrix(matrix.astype(np.float32))):
        found = narrowed(given, 4)
        best = left[:, :4] * values[:4]
        assert found.shape == (30, 4)
        assert found @ found.T == pytest.approx(best @ best.T, abs=1e-4)
        assert (found**2).sum(axis=0) == pytest.approx(values[:4] ** 2, rel=1e-5)
    assert np.array_equal(narrowed(matrix, 4), narrowed(matrix, 4))


def test_the_weights_of_ease_tell_blocks_of_items_apart() -> None:
    rng = np.random.default_rng(6)
    kind = np.arange(60) % 2
    rows = rng.random((400, 60)) < np.where(kind == rng.integers(0, 2, (400, 1)), 0.3, 0.05)
    weights = EASE(l2=10.0).fit(sp.csr_matrix(rows, dtype=np.float32)).similarity_
    assert probe(narrowed(weights, 4), kind[:, None], resamples=100).mean > 0.95


def test_a_width_out_of_range_and_a_matrix_with_nan_are_refused() -> None:
    matrix = np.ones((5, 3))
    for width in (0, 3, 2.0, True):
        with pytest.raises(UsageError, match=r"expected 1 to 2"):
            narrowed(matrix, width)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="got a matrix that is not finite"):
        narrowed(np.where(np.eye(5, 3) > 0, np.nan, 1.0), 1)


def test_features_may_be_nested_lists_or_sparse(vectors: np.ndarray, planted: np.ndarray) -> None:
    expected = probe(vectors, planted, resamples=100)
    sparse: Any = sp.coo_matrix(planted.astype(np.float32))
    for given in (planted.astype(int).tolist(), sparse, sp.csr_matrix(planted)):
        found = probe(vectors, given, resamples=100)
        np.testing.assert_array_equal(found.aucs, expected.aucs)
        assert found.key == expected.key
    with pytest.raises(DataError, match=r"got features that are no array .*, expected a row of numbers for each item"):
        probe(vectors, [[1], [0, 1]])
    with pytest.raises(DataError, match=r"got features of shape \(3,\), expected a row for each of the 300 items"):
        probe(vectors, [1, 0, 1])  # type: ignore[list-item]
    twice = sp.csr_matrix((np.ones(2), np.zeros(2, int), [0, 2, *[2] * (N_ITEMS - 1)]), shape=(N_ITEMS, 1))
    with pytest.raises(DataError, match="got features that are not 0 or 1"):
        probe(vectors, twice)


def test_a_feature_that_six_items_have_is_probed_in_two_folds(vectors: np.ndarray) -> None:
    few = (np.argsort(np.argsort(vectors[:, 0])) < 6)[:, None]
    found = probe(vectors, few, folds=2, least=6, resamples=100)
    assert np.isfinite(found.aucs).all() and found.aucs[0] > 0.8


def test_what_vectors_of_users_know_of_the_users() -> None:
    """Users who like one half of the catalogue or the other: read from their codes, and not from shuffled ones."""
    rng = np.random.default_rng(6)
    side = rng.random(240) < 0.4
    liked = rng.random((240, 40)) < np.where(side[:, None] == (np.arange(40) < 20), 0.4, 0.1)
    train = sp.csr_matrix(liked, dtype=np.float32)
    codes = MultDAE(hidden_dims=(16,), latent_dim=4, epochs=15, batch_size=40).fit(train).embed(train)
    people = pd.DataFrame({"first half": side, "born in May": rng.random(240) < 0.5}, index=np.arange(240) + 7)
    found = probe(codes, people, of="users", resamples=100)
    assert found.names == ("first half", "born in May")
    assert found.aucs[0] > 0.95
    assert found.aucs[1] == pytest.approx(0.5, abs=0.12)
    assert found.aucs.tolist() == probe(codes, people.to_numpy(), resamples=100).aucs.tolist()
    assert probe(codes, people, ["first half"], of="users", resamples=100).aucs == found.aucs[:1]
    shuffled = probe(codes[rng.permutation(240)], people, ["first half"], of="users", resamples=100)
    assert shuffled.aucs[0] == pytest.approx(0.5, abs=0.15)


def test_messages_about_users_name_users(vectors: np.ndarray, planted: np.ndarray) -> None:
    people = pd.DataFrame(planted, columns=["woman", "young"])
    with pytest.raises(UsageError, match="got unknown feature 'old', expected some of woman, young"):
        probe(vectors, people, ["old"], of="users")
    with pytest.raises(UsageError, match="got features with the same name, 'woman'; rename one"):
        probe(vectors, pd.DataFrame(planted, columns=["woman", "woman"]), of="users")
    with pytest.raises(DataError, match=r"got features of shape \(299, 2\), expected a row for each of the 300 users"):
        probe(vectors, people.iloc[1:], of="users")
    with pytest.raises(DataError, match="got user vectors that are not finite"):
        probe(vectors * np.inf, people, of="users")
    with pytest.raises(DataError, match="got no feature that 20 users have and 20 lack"):
        probe(vectors, people.to_numpy() & False, of="users")
    with pytest.raises(DataError, match=r"got vectors of shape \(300,\), expected numbers of shape \(n_users, width\)"):
        probe(vectors[:, 0], people, of="users")
    with pytest.raises(DataError, match=r"got features that are no array .*, expected a row of numbers for each user"):
        probe(vectors, [[1], [1, 2]], of="users")
    with pytest.raises(DataError, match="not 0 or 1 but missing for some users, expected a row with numbers"):
        probe(vectors, people.reindex(np.arange(1, 301)), of="users")
    with pytest.raises(DataError, match="not 0 or 1 but missing for some users"):
        probe(vectors, people.astype("boolean").reindex(np.arange(1, 301)), of="users")
    with pytest.raises(DataError, match="got features that are not 0 or 1, expected genres or the like"):
        probe(vectors, people.astype(str), of="users")
    with pytest.raises(UsageError, match="got of='user', expected 'items' or 'users'"):
        probe(vectors, people, of="user")  # type: ignore[arg-type]


def test_a_column_that_is_called_names_is_a_feature(vectors: np.ndarray, planted: np.ndarray) -> None:
    people = pd.DataFrame(planted, columns=["names", "columns"])
    assert probe(vectors, people, resamples=100).names == ("names", "columns")


@pytest.mark.parametrize("n_features", [1, 3])
def test_a_rare_feature_that_is_not_drawn_in_a_resample_leaves_an_interval(
    vectors: np.ndarray, n_features: int
) -> None:
    """Of 6 items with it, none is among those that are drawn once in 400 times: nothing divided by nothing."""
    rare = np.arange(6 * n_features)[:, None] // 6 == np.arange(n_features)
    told = np.pad(rare, ((0, N_ITEMS - len(rare)), (0, 0)))
    one, other = (probe(rows, told, least=6, folds=3, resamples=2000) for rows in (vectors, vectors[::-1]))
    assert (len(one.resampled) == 2000) == (n_features > 1)
    for figures in (one.interval, one.difference(other)):
        assert np.isfinite(figures).all()
    low, high = one.interval
    assert low < one.mean < high
