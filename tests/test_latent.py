"""The inside of models by function: perplexity, odd users, made-up users, groups of users."""

import math
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recvae.datasets.dataset import Dataset
from recvae.errors import DataError, MemoryLimitError, NotFittedError, UsageError
from recvae.interactions import HeldOut
from recvae.latent.anomalies import SCORES, AnomalyDetector
from recvae.latent.generation import SOURCES, generate, realism
from recvae.latent.likelihood import Perplexity, likelihood
from recvae.latent.profiles import PROFILES, plant
from recvae.latent.projections import project
from recvae.latent.segments import find_segments
from recvae.models import AE, ALS, EASE, ELSA, HVamp, Model, MultDAE, MultVAE, Popularity

N_BLOCKS, BLOCK = 4, 15


def block_users(n: int, seed: int, length: int = 8) -> sp.csr_matrix:
    """Return users who each like items of one block, by turns, drawn evenly."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, N_BLOCKS * BLOCK), np.float32)
    for user in range(n):
        block = user % N_BLOCKS
        rows[user, block * BLOCK + rng.choice(BLOCK, length + user % 3, replace=False)] = 1
    return sp.csr_matrix(rows)


TRAIN, OTHERS = block_users(400, 1), block_users(120, 2)
NOBODY = HeldOut(fold_in=TRAIN[:0], targets=TRAIN[:0])
EMPTY = Dataset(train=TRAIN, validation=NOBODY, test=NOBODY, item_ids=np.arange(60))
RANDOM = sp.csr_matrix(np.random.default_rng(3).permuted(OTHERS.toarray(), axis=1))  # the same lengths
WIDTHS: dict[str, Any] = {"latent_dim": 8, "learning_rate": 0.01, "batch_size": 40, "epochs": 30, "seed": 1}


@pytest.fixture(scope="module")
def multvae() -> MultVAE:
    return MultVAE(hidden_dims=(32,), **WIDTHS).fit(TRAIN)


@pytest.fixture(scope="module")
def others() -> dict[str, Model]:
    return {
        "ae": AE(**WIDTHS).fit(TRAIN),
        "multdae": MultDAE(**WIDTHS).fit(TRAIN),
        "hvamp": HVamp(hidden_dim=32, pseudo_inputs=8, **{**WIDTHS, "epochs": 60}).fit(TRAIN),
    }


@pytest.fixture(scope="module")
def blocks() -> Dataset:
    """Return a data set whose held-out users have every other item of theirs hidden."""
    fold_in, targets = OTHERS.copy(), OTHERS.copy()
    hidden = np.arange(OTHERS.nnz) % 2 == 0
    fold_in.data[hidden], targets.data[~hidden] = 0, 0
    fold_in.eliminate_zeros()
    targets.eliminate_zeros()
    held_out = HeldOut(fold_in=fold_in, targets=targets)
    return Dataset(train=TRAIN, validation=held_out, test=held_out, item_ids=np.arange(TRAIN.shape[1]))


def auc(ordinary: np.ndarray, odd: np.ndarray) -> float:
    """Return the chance that an odd user has the higher score."""
    return float((odd[:, None] > ordinary).mean() + 0.5 * (odd[:, None] == ordinary).mean())


# Likelihood


def test_perplexity_of_even_guesses_is_the_number_of_items() -> None:
    counts = np.array([3, 5, 0, 9])
    found = Perplexity.of(-counts * math.log(70), counts)
    assert (found.value, found.low, found.high) == pytest.approx((70, 70, 70))
    assert found.nats == pytest.approx(math.log(70) * np.mean([3, 5, 9]))
    assert Perplexity.of(np.zeros(2), np.zeros(2)).to_json() == dict.fromkeys(("value", "low", "high", "nats"))
    assert math.isnan(Perplexity.of(np.array([-3.0]), np.array([2])).low)


def test_interval_of_perplexity_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        counts = rng.integers(1, 20, 60)
        costs = np.array([rng.gamma(4, 1, n).sum() for n in counts])  # 4 nats each on average
        found = Perplexity.of(-costs, counts)
        hits += found.low <= math.exp(4) <= found.high
    assert 0.91 < hits / 400 < 0.98


def test_targets_of_blocks_cost_what_is_left_of_their_block(multvae: MultVAE, blocks: Dataset) -> None:
    """A user's other items are among some ten of the block; popularity has to choose among nearly all sixty."""
    found = likelihood(multvae, blocks)
    assert 8 < found.targets["model"].value < 20
    assert 50 < found.targets["popularity"].value < 60
    bound, elbo, guess = (found.rows[name].value for name in ("bound of 100 draws", "ELBO", "popularity"))
    assert bound <= elbo * 1.001
    assert bound < 0.7 * guess
    assert guess == pytest.approx(60, rel=0.03)
    assert found.mutual_information is not None
    assert found.mutual_information <= found.most_information == math.log(120)
    assert found.latent_dim == 8


def test_popularity_is_what_an_independent_computation_gives(multvae: MultVAE, blocks: Dataset) -> None:
    counts = TRAIN.toarray().sum(axis=0) + 1
    p = counts / counts.sum()
    costs, n = 0.0, 0
    for seen, wanted in zip(blocks.test.fold_in.toarray(), blocks.test.targets.toarray(), strict=True):
        left = p * (seen == 0)
        costs -= float((wanted * np.log(left / left.sum(), where=wanted > 0, out=np.zeros_like(p))).sum())
        n += int(wanted.sum())
    found = likelihood(multvae, blocks, n_samples=1).targets["popularity"]
    assert found.value == pytest.approx(math.exp(costs / n), rel=1e-6)


@pytest.mark.parametrize("name", ["ae", "multdae"])
def test_models_whose_rows_have_no_probability_still_foresee_targets(
    others: dict[str, Model], blocks: Dataset, name: str
) -> None:
    found = likelihood(others[name], blocks, n_samples=5)
    assert found.rows == {}
    assert found.targets["model"].value < 0.6 * found.targets["popularity"].value
    assert (found.n_samples, found.kl is None) == (1, True)


# Anomalies


@pytest.mark.parametrize("score", SCORES)
def test_users_without_taste_are_odd(multvae: MultVAE, score: str) -> None:
    detector = AnomalyDetector(multvae, contamination=0.05, score=score).fit(block_users(100, 9))
    ordinary, odd = detector.decision_function(OTHERS), detector.decision_function(RANDOM)
    assert auc(ordinary, odd) > 0.99
    assert detector.predict(RANDOM).mean() > 0.95
    assert detector.predict(OTHERS).mean() < 0.3
    assert detector.p_values(RANDOM).mean() < 0.03
    assert 0.3 < detector.p_values(OTHERS).mean() < 0.7


@pytest.mark.parametrize("name", ["ae", "multdae", "hvamp"])
def test_any_autoencoder_finds_them(others: dict[str, Model], name: str) -> None:
    detector = AnomalyDetector(others[name]).fit(block_users(100, 9))
    assert auc(detector.decision_function(OTHERS), detector.decision_function(RANDOM)) > 0.95


def test_conventions_are_those_of_pyod(multvae: MultVAE) -> None:
    users = block_users(100, 9)
    detector = AnomalyDetector(multvae, contamination=0.2).fit(users, None)
    np.testing.assert_allclose(detector.decision_scores_, detector.decision_function(users))
    np.testing.assert_array_equal(detector.labels_, detector.predict(users))
    assert detector.labels_.sum() == 20
    assert detector.threshold_ == pytest.approx(np.quantile(detector.decision_scores_, 0.8))
    assert repr(detector) == "AnomalyDetector(multvae, contamination=0.2, score='reconstruction')"


def test_scores_do_not_depend_on_length_or_on_the_users_beside(multvae: MultVAE) -> None:
    users = sp.vstack([block_users(150, 5, length=2), block_users(150, 6, length=12)]).tocsr()
    detector = AnomalyDetector(multvae, neighbours=60).fit(users)
    short, long = detector.decision_scores_[:150], detector.decision_scores_[150:]
    assert abs(np.median(short) - np.median(long)) < 0.3
    assert 0.35 < auc(short, long) < 0.65
    assert np.median(np.abs(short - np.median(short))) == pytest.approx(1 / 1.4826, rel=0.4)
    np.testing.assert_allclose(detector.decision_function(users[:7]), short[:7], atol=1e-3)


def test_users_of_whom_nothing_is_known_are_not_odd(multvae: MultVAE) -> None:
    detector = AnomalyDetector(multvae).fit(sp.vstack([block_users(50, 9), sp.csr_matrix((3, 60))]).tocsr())
    nobody = sp.csr_matrix((2, 60))
    assert detector.decision_function(nobody).tolist() == [0, 0]
    assert detector.p_values(nobody).tolist() == [1, 1]
    assert len(detector.decision_scores_) == 53


def test_what_stands_out_is_what_was_planted(multvae: MultVAE) -> None:
    users = block_users(8, 4).toarray()
    for user in range(8):
        users[user, ((user + 2) % N_BLOCKS) * BLOCK] = 1  # one item of another block
    found = AnomalyDetector(multvae).surprises(sp.csr_matrix(users)).toarray()
    assert found.argmax(axis=1).tolist() == [((user + 2) % N_BLOCKS) * BLOCK for user in range(8)]
    assert ((found > 0) == (users > 0)).all()


@pytest.mark.parametrize("kind", PROFILES)
def test_planted_profiles_have_their_lengths_and_their_nature(kind: str) -> None:
    popularity = np.arange(60, 0, -1.0) ** 2
    lengths = np.array([1, 2, 7, 10] * 50)
    rows = plant(kind, lengths, popularity, OTHERS, seed=4)
    np.testing.assert_array_equal(rows.getnnz(axis=1), lengths)
    assert rows.has_canonical_format
    np.testing.assert_array_equal(plant(kind, lengths, popularity, OTHERS, seed=4).toarray(), rows.toarray())
    share_of_top = rows[:, :10].nnz / rows.nnz
    low, high = {"random": (0.1, 0.25), "average": (0.35, 0.6), "bandwagon": (0.5, 0.7), "copied": (0.1, 0.25)}[kind]
    assert low < share_of_top < high
    if kind == "copied":  # all but a fifth is of one block
        most = rows.toarray().reshape(200, N_BLOCKS, BLOCK).sum(axis=2).max(axis=1)
        assert (most >= lengths - np.maximum(1, lengths // 5)).all()


# Generation


@pytest.mark.parametrize("source", SOURCES)
def test_made_up_users_have_the_lengths_that_real_ones_have(multvae: MultVAE, source: str) -> None:
    made = generate(multvae, TRAIN, 300, source, seed=2)
    assert made.shape == (300, 60)
    assert 5 <= made.getnnz(axis=1).min() <= made.getnnz(axis=1).max() <= 14
    np.testing.assert_array_equal(generate(multvae, TRAIN, 300, source, seed=2).toarray(), made.toarray())
    assert (generate(multvae, TRAIN, 300, source, seed=3).toarray() != made.toarray()).any()
    figures = realism(made, TRAIN, TRAIN)
    assert figures.popularity < 0.25
    assert figures.ndcg is None


def test_a_mixture_makes_users_of_one_block_and_real_ones_are_as_real_as_can_be(
    multvae: MultVAE, blocks: Dataset
) -> None:
    made = generate(multvae, TRAIN, 400, components=8)
    most = made.toarray().reshape(400, N_BLOCKS, BLOCK).sum(axis=2).max(axis=1) / made.getnnz(axis=1)
    assert most.mean() > 0.7
    of_made = realism(made, OTHERS, TRAIN, blocks.test)
    of_real = realism(block_users(400, 8), OTHERS, TRAIN, blocks.test)
    of_noise = realism(RANDOM, OTHERS, TRAIN, blocks.test)
    for better, worse in ((of_real, of_made), (of_made, of_noise)):
        assert better.co_occurrence > worse.co_occurrence
        assert better.ndcg is not None
        assert worse.ndcg is not None
        assert better.ndcg >= worse.ndcg - 0.02


def test_measures_of_known_sets() -> None:
    same = realism(TRAIN, TRAIN, TRAIN)
    assert (same.popularity, same.lengths, same.copies) == (0, 0, 1)
    assert same.co_occurrence == pytest.approx(1)
    one, other = sp.csr_matrix([[1, 1, 0, 0]]), sp.csr_matrix([[0, 0, 1, 0]])
    apart = realism(one, other, other)
    assert (apart.popularity, apart.lengths, apart.copies) == (1, 1, 0)
    half = realism(sp.vstack([one, other]).tocsr(), sp.vstack([one, one]).tocsr(), one)
    assert (half.popularity, half.lengths, half.copies) == pytest.approx((1 / 3, 0.5, 0.5))


# Segments


def test_blocks_are_found_and_named_by_their_items(multvae: MultVAE) -> None:
    found = find_segments(multvae, TRAIN, N_BLOCKS, named_by=4)
    truth = np.arange(400) % N_BLOCKS
    for label in range(N_BLOCKS):
        members = truth[found.labels == label]
        assert (members == members[0]).all()
        assert set(found.segments[label].items // BLOCK) == {members[0]}
        assert found.segments[label].lifts == pytest.approx(4, rel=0.01)
    assert found.stability == pytest.approx(1)
    assert sum(one.n_users for one in found.segments) == 400
    assert sorted((one.n_users for one in found.segments), reverse=True) == [one.n_users for one in found.segments]


def test_groups_that_are_not_in_the_data_are_not_stable() -> None:
    noise = sp.csr_matrix((np.random.default_rng(0).random((300, 60)) < 0.2).astype(np.float32))
    model = AE(**{**WIDTHS, "epochs": 3}).fit(noise)
    assert find_segments(model, noise, 6).stability < 0.7


def test_maps_keep_what_differs_most() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) * [10, 3]
    turned = plane @ np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    found = project(turned)
    distances = [np.linalg.norm(points[:, None] - points[None], axis=2) for points in (plane, found)]
    np.testing.assert_allclose(distances[0], distances[1], atol=1e-9)


# What is refused


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (lambda m: AnomalyDetector(m, contamination=0), UsageError, "got contamination=0, expected a share above 0"),
        (lambda m: AnomalyDetector(m, contamination=0.6), UsageError, "got contamination=0.6, expected a share"),
        (lambda m: AnomalyDetector(m, score="oddness"), UsageError, "got score='oddness', expected one of recon"),
        (lambda m: AnomalyDetector(m, neighbours=3), UsageError, "got neighbours=3, expected 20 or more"),
        (lambda m: AnomalyDetector(m).decision_function(OTHERS), NotFittedError, "AnomalyDetector is not fitted yet"),
        (lambda m: AnomalyDetector(m).fit(OTHERS[:5]), DataError, "got 5 users with an interaction, expected 20"),
        (lambda _: AnomalyDetector(Popularity()), UsageError, "got popularity, which has no likelihood"),
        (
            lambda _: likelihood(EASE(), EMPTY),
            UsageError,
            "got ease, which has no likelihood; use multvae",
        ),
        (lambda m: generate(m, TRAIN, 0), UsageError, "got 0 histories to make, expected a whole number >= 1"),
        (lambda m: generate(m, TRAIN, 5, "thin air"), UsageError, "got source 'thin air', expected one of mixture"),
        (lambda m: generate(m, TRAIN, 5, components=41), UsageError, "got components=41, expected 1 to 40"),
        (lambda m: generate(m, TRAIN, 5, components=True), UsageError, "got components=True, expected 1 to 40"),
        (lambda m: generate(m, TRAIN, 5, "prior", components=3), UsageError, "got components=3 for 'prior', expected"),
        (lambda m: AnomalyDetector(m, n_samples=0), UsageError, "got n_samples=0, expected a whole number >= 1"),
        (lambda m: generate(m, TRAIN[:9], 5), DataError, "got 9 users with an interaction, expected 50 or more"),
        (lambda _: generate(ALS(), TRAIN, 5), UsageError, "got als, which has no codes to draw"),
        (lambda _: generate(ELSA(), TRAIN, 5), UsageError, "got elsa, which has no codes to draw"),
        (lambda _: generate(MultVAE(), TRAIN, 5), NotFittedError, "not fitted yet"),
        (lambda _: realism(sp.csr_matrix((3, 60)), TRAIN, TRAIN), DataError, "got no interactions to compare"),
        (lambda _: find_segments(Popularity(), TRAIN), UsageError, "got popularity, which has no vectors of users"),
        (lambda m: find_segments(m, TRAIN, 1), UsageError, "got groups=1, expected a whole number >= 2"),
        (lambda m: find_segments(m, TRAIN, 3, seeds=0), UsageError, "got seeds=0, expected a whole number >= 1"),
        (lambda m: find_segments(m, TRAIN[:20], 3), DataError, "got 20 users for 3 groups, expected 30 or more"),
        (lambda _: project(np.zeros((5, 3)), "tsne"), UsageError, "got projection 'tsne', expected one of pca, umap"),
        (lambda _: project(np.zeros((2, 3))), DataError, r"got embeddings of shape \(2, 3\), expected 3 rows"),
        (lambda _: plant("copied", np.array([2]), np.ones(9)), UsageError, "got profile 'copied' without donors"),
        (lambda _: plant("sly", np.array([2]), np.ones(9)), UsageError, "got profile 'sly', expected one of random"),
        (
            lambda _: plant("random", np.array([10]), np.ones(9)),
            UsageError,
            "got lengths from 10 to 10, expected 1 to 9",
        ),
        (lambda _: plant("copied", np.array([40]), np.ones(60), OTHERS), DataError, "got no history of 40 items"),
    ],
)
def test_bad_input_is_refused(multvae: MultVAE, work: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        work(multvae)


def test_a_missing_library_is_named_with_its_extra(multvae: MultVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn.mixture", "sklearn.metrics", "umap"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"recvae\[latent\]"):
        generate(multvae, TRAIN, 5)
    with pytest.raises(UsageError, match=r"recvae\[latent\]"):
        find_segments(multvae, TRAIN)
    with pytest.raises(UsageError, match=r"recvae\[umap\]"):
        project(np.eye(5), "umap")


@pytest.mark.slow
def test_what_a_detector_holds_follows_its_limit_and_the_numbers_are_the_same(multvae: MultVAE) -> None:
    least = multvae.scoring_needs(multvae.n_items_).scoring
    reference = block_users(100, 9)
    for score in ("reconstruction", "prediction"):
        usual = AnomalyDetector(multvae, score=score, n_samples=3).fit(reference)
        small = AnomalyDetector(multvae, score=score, n_samples=3, max_memory=least).fit(reference)
        assert 1 <= small._block() < len(reference.indptr) < usual._block()
        found, expected = (one.decision_function(OTHERS) for one in (small, usual))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(small.p_values(OTHERS), usual.p_values(OTHERS), atol=0.021)
    np.testing.assert_allclose(small.surprises(OTHERS).data, usual.surprises(OTHERS).data, rtol=1e-4)
    made = [generate(multvae, TRAIN, 20, seed=4, max_memory=limit) for limit in (None, least)]
    np.testing.assert_array_equal(made[0].toarray(), made[1].toarray())
    with pytest.raises(MemoryLimitError, match="ease"):
        realism(TRAIN, TRAIN, TRAIN, HeldOut(fold_in=TRAIN, targets=TRAIN), max_memory=1000)


def test_lengths_are_compared_by_the_statistic_of_kolmogorov_and_smirnov() -> None:
    rng = np.random.default_rng(4)
    made, real = (
        sp.csr_matrix((rng.random((n, 60)) < share).astype(np.float32)) for n, share in ((80, 0.2), (50, 0.3))
    )
    lengths = [rows.getnnz(axis=1) for rows in (made, real)]
    at = np.arange(61)
    cdf = [(values[:, None] <= at).mean(axis=0) for values in lengths]
    assert realism(made, real, real).lengths == pytest.approx(np.abs(cdf[0] - cdf[1]).max())


def test_stored_zeros_and_unsorted_columns_change_nothing(multvae: MultVAE) -> None:
    """A stored zero is no interaction: neither in lengths, nor in what stands out, nor where rows are compared."""
    detector = AnomalyDetector(multvae).fit(block_users(100, 9))
    padded = OTHERS.copy()
    dense = padded.toarray()
    extra = sp.coo_matrix((np.zeros(len(dense)), (np.arange(len(dense)), (dense == 0).argmax(axis=1))), dense.shape)
    rows = np.append(np.repeat(np.arange(len(dense)), np.diff(padded.indptr)), extra.row)[::-1]
    columns, values = np.append(padded.indices, extra.col)[::-1], np.append(padded.data, extra.data)[::-1]
    order = np.argsort(rows, kind="stable")
    given = sp.csr_matrix((values[order], columns[order], np.append(0, np.cumsum(np.bincount(rows)))), dense.shape)
    assert given.nnz == padded.nnz + len(dense)
    np.testing.assert_allclose(detector.decision_function(given), detector.decision_function(padded), atol=1e-4)
    np.testing.assert_allclose(detector.p_values(given), detector.p_values(padded))
    assert detector.surprises(given).nnz == padded.nnz
    assert realism(given, OTHERS, OTHERS).copies == realism(OTHERS, given, given).copies == 1


def test_copied_profiles_replace_items_by_ones_the_donor_does_not_have() -> None:
    donor = sp.csr_matrix(np.eye(1, 60, dtype=np.float32) * 0 + (np.arange(60) < 40))
    rows = plant("copied", np.full(20, 10), np.ones(60), donor, seed=1)
    assert (rows[:, 40:].getnnz(axis=1) == 2).all()


def test_figures_without_a_number_are_null() -> None:
    one = sp.csr_matrix(np.eye(4, dtype=np.float32))
    assert realism(one, one, one).to_json()["co_occurrence"] is None


@pytest.mark.parametrize("seed", [-1, 2**40, True, 0.5])
def test_seeds_that_libraries_do_not_take_are_refused(multvae: MultVAE, seed: Any) -> None:
    for ask in (
        lambda: generate(multvae, TRAIN, 5, seed=seed),
        lambda: find_segments(multvae, TRAIN, seed=seed),
        lambda: multvae.mutual_information(TRAIN, seed=seed),
        lambda: AnomalyDetector(multvae, seed=seed),
        lambda: plant("random", np.array([2]), np.ones(9), seed=seed),
    ):
        with pytest.raises(UsageError, match=f"got seed={seed}, expected a whole number, 0 or more and below"):
            ask()
