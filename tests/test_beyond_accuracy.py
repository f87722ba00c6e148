"""Metrics beyond accuracy: by hand, by plain loops over users, as RecBole defines them, their ranges, and refusals."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import ndtri

from recvae import Dataset, compare, evaluate
from recvae.errors import DataError, UsageError
from recvae.evaluation.evaluate import main_metric, summarise
from recvae.evaluation.slices import slices_of
from recvae.interactions import HeldOut
from recvae.metrics import METRICS, Background, Metric, coverage_at_k, gini_at_k, measure
from recvae.metrics.beyond import GROUPS, group_of_items, is_tail
from recvae.metrics.exposure import coverage, gini, resampled
from recvae.metrics.metric import resample
from recvae.models import EASE, Popularity
from recvae.ranked_lists import look_up

Command = Callable[..., Any]

# Four training users, five items that have 4, 2, 2, 1 and 1 of them: the head is item 0 alone, 20 % of the items. Of 10
# interactions, items that begin before the 2nd are popular (item 0), before the 8th medium (1 and 2), the others rare.
TRAIN = sp.csr_matrix([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 1, 0], [1, 0, 1, 0, 1]])
FOLD_IN = sp.csr_matrix([[0, 1, 0, 0, 0], [1, 0, 0, 1, 0], [0, 0, 1, 0, 0]])
RANKED = np.array([[0, 2, 4], [1, 2, -1], [0, 1, 3]])
TARGETS = sp.csr_matrix([[1, 0, 0, 1, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])  # user 2 has none
FEATURES = sp.csr_matrix([[1, 0, 1980], [1, 1, 1990], [0, 1, 0], [0, 0, 2000], [0, 1, 1970]])  # two genres and a year
KNOWN = Background(train=TRAIN, fold_in=FOLD_IN, features=FEATURES)
BEYOND = [name for name in METRICS if METRICS[name].needs]

GOLDEN = {
    "novelty": [(0 + 1 + 2) / 3, (1 + 1) / 2],
    "average_popularity": [(4 + 2 + 1) / 3, (2 + 2) / 2],
    "relative_popularity": [(4 + 2 + 1) / 12, 4 / 8],
    "tail_share": [2 / 3, 1],
    "tail_recall": [1 / 2, 1],  # user 0 has 3 and 4 in the tail, and 4 in the list; a head target counts for neither
    # cosines of columns: 0 with 2 is 2 / sqrt(8), 0 with 4 is 1 / 2, 2 with 4 is 1 / sqrt(2); 1 with 2 have nobody
    "diversity": [1 - (2 / math.sqrt(8) + 1 / 2 + 1 / math.sqrt(2)) / 3, 1.0],
    # genres alone, no years: 0 with 2 and with 4 have none in common, 2 with 4 are alike; 1 with 2 is 1 / sqrt(2)
    "feature_diversity": [1 - (0 + 0 + 1) / 3, 1 - 1 / math.sqrt(2)],
    # popular, medium, rare: user 0 has (0, 1, 0) and is shown (1, 1, 1) / 3, the middle is (1, 4, 1) / 6;
    # user 1 has (1, 0, 1) / 2 and is shown (0, 1, 0), nothing in common
    "popularity_miscalibration": [(math.log2(6 / 4) + 2 / 3 * math.log2(2) + 1 / 3 * math.log2(2 / 4)) / 2, 1.0],
    # user 0 has (1/2, 1/2) of the genres and is shown (1/3, 2/3); user 1 has (1, 0), since item 3 has no genre, and is
    # shown (1/4, 3/4)
    "feature_miscalibration": [
        1 / 2 * math.log((1 / 2) / (0.99 / 3 + 0.01 / 2)) + 1 / 2 * math.log((1 / 2) / (0.99 * 2 / 3 + 0.01 / 2)),
        math.log(1 / (0.99 / 4 + 0.01)),
    ],
}


@pytest.mark.parametrize("name", BEYOND)
def test_values_are_those_worked_out_by_hand(name: str) -> None:
    values = Metric(name, 3).per_user(RANKED, TARGETS, KNOWN)
    np.testing.assert_allclose(values[:2], GOLDEN[name], rtol=1e-12)
    assert math.isnan(values[2]) and values.dtype == np.float64, "a user without a target is left out"


def test_every_metric_has_a_value_worked_out_by_hand() -> None:
    assert set(GOLDEN) == set(BEYOND)


def test_the_head_the_tail_and_the_groups_of_items() -> None:
    assert is_tail(KNOWN).tolist() == [False, True, True, True, True]
    assert group_of_items(KNOWN).tolist() == [0, 1, 1, 2, 2]
    counts = np.array([1, 5, 3, 1, 0, 10, 0, 0, 0, 0])  # column 5 begins at 0 of 20, 1 at 10, 2 at 15, 0 at 18, 3 at 19
    rows = np.repeat(np.arange(10), counts)
    train = sp.csr_matrix((np.ones(20), (np.concatenate([np.arange(n) for n in counts]), rows)), shape=(10, 10))
    known = Background(train=train, fold_in=sp.csr_matrix((1, 10)))
    assert known.counts.tolist() == counts.tolist() and known.by_popularity.tolist() == [5, 1, 2, 0, 3, 4, 6, 7, 8, 9]
    assert np.flatnonzero(~is_tail(known)).tolist() == [1, 5]
    assert group_of_items(known).tolist() == [2, 1, 1, 2, 2, 0, 2, 2, 2, 2]
    assert sum(GROUPS.values()) == 1


def test_weights_of_interactions_do_not_count_and_stored_zeros_are_none() -> None:
    rows, columns = TRAIN.nonzero()
    values = np.append(np.arange(1.0, TRAIN.nnz + 1), 0.0)
    weighted = sp.csr_matrix((values, (np.append(rows, 0), np.append(columns, 4))), shape=TRAIN.shape)
    assert weighted.nnz == TRAIN.nnz + 1
    known = Background(train=weighted, fold_in=3 * FOLD_IN, features=FEATURES)
    for name in BEYOND:
        ours, theirs = (Metric(name, 3).per_user(RANKED, TARGETS, one) for one in (known, KNOWN))
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, sp.csr_matrix, Background, int]:
    """Draw lists of different items that may end early, targets, a log, histories, features, and a cut-off."""
    n_users, n_items = draw(st.integers(1, 5)), draw(st.integers(2, 9))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ranks = draw(st.integers(2, n_items))
    ranked = np.array([generator.permutation(n_items)[:ranks] for _ in range(n_users)])
    for row in ranked:
        row[generator.integers(0, ranks + 1) :] = -1
    train = generator.random((draw(st.integers(1, 8)), n_items)) < generator.random()
    fold_in, targets = generator.random((2, n_users, n_items)) < 0.4
    features = generator.random((n_items, 4)) < 0.4
    features[0, 0] = True
    known = Background(
        train=sp.csr_matrix(train.astype(float)),
        fold_in=sp.csr_matrix(fold_in.astype(float)),
        features=draw(st.sampled_from([np.asarray, sp.csr_matrix]))(features.astype(float)),
    )
    return ranked, sp.csr_matrix(targets.astype(float)), known, draw(st.integers(2, ranks))


def one_user(name: str, listed: list[int], history: list[int], wanted: list[int], k: int, known: Background) -> float:
    """Return a metric of one user from its definition, on dense arrays."""
    train = known.train.toarray() > 0
    features = sp.csr_matrix(known.features).toarray()
    counts, n_users = train.sum(axis=0), len(train)
    order = sorted(range(len(counts)), key=lambda item: (-counts[item], item))
    tail = set(order[round(0.2 * len(order)) :])
    if name == "tail_recall":
        reachable = [item for item in wanted if item in tail]
        hits = [item for item in listed if item in reachable]
        return len(hits) / min(k, len(reachable)) if reachable and wanted else math.nan
    if not listed or not wanted:
        return math.nan
    if name.endswith("diversity"):
        vectors = train.T.astype(float) if name == "diversity" else features
        rows = [vectors[item] / np.linalg.norm(vectors[item]) for item in listed if vectors[item].any()]
        cosines = [one @ other for place, one in enumerate(rows) for other in rows[:place]]
        return 1 - float(np.mean(cosines)) if cosines else 0.0
    if name == "popularity_miscalibration":
        before, total, group = 0, counts.sum(), {}
        for item in order:
            group[item] = 0 if before < 0.2 * total else 1 if before < 0.8 * total else 2
            before += counts[item]
        p, q = ([sum(group[i] == g for i in items) for g in range(3)] for items in (history, listed))
        return float(jensenshannon(p, q, base=2)) ** 2 if history else math.nan
    if name == "feature_miscalibration":
        shares = [features[i] / features[i].sum() if features[i].any() else features[i] for i in range(len(counts))]
        p, q = (np.sum([shares[i] for i in items], axis=0) for items in (history, listed))
        if not history or not p.any():
            return math.nan
        p, q = p / p.sum(), q / (q.sum() or 1.0)
        q = 0.99 * q + 0.01 * p
        return float(sum(one * math.log(one / other) for one, other in zip(p, q, strict=True) if one > 0))
    value: Callable[[int], float] = {
        "novelty": lambda item: -math.log2(max(counts[item], 1) / n_users),
        "average_popularity": lambda item: counts[item],
        "relative_popularity": lambda item: counts[item] / n_users,
        "tail_share": lambda item: item in tail,
    }[name]
    return float(np.mean([value(item) for item in listed]))


@pytest.mark.parametrize("name", BEYOND)
@given(case=cases())
def test_values_are_those_of_a_plain_loop_over_users(name: str, case: Any) -> None:
    ranked, targets, known, k = case
    expected = [
        one_user(name, [i for i in row[:k] if i >= 0], fold.indices.tolist(), wanted.indices.tolist(), k, known)
        for row, fold, wanted in zip(ranked.tolist(), known.fold_in, targets, strict=True)
    ]
    np.testing.assert_allclose(Metric(name, k).per_user(ranked, targets, known), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [*BEYOND, "gini", "coverage"])
@given(case=cases(), data=st.data())
def test_values_lie_in_their_range_and_do_not_depend_on_the_order_of_users_and_items(
    name: str, case: Any, data: st.DataObject
) -> None:
    ranked, targets, known, k = case
    values = np.atleast_1d(Metric(name, k).per_user(ranked, targets, known))
    seen = values[~np.isnan(values)]
    n_users = known.n_train_users
    high = {"novelty": math.log2(n_users), "average_popularity": n_users, "feature_miscalibration": math.log(100)}
    assert ((seen >= 0) & (seen <= high.get(name, 1.0) + 1e-9)).all()
    order = np.array(data.draw(st.permutations(range(len(ranked)))))
    moved = Background(train=known.train, fold_in=known.fold_in[order], features=known.features)
    found = np.atleast_1d(Metric(name, k).per_user(ranked[order], targets[order], moved))
    np.testing.assert_allclose(found, values if name in ("gini", "coverage") else values[order], rtol=1e-9, atol=1e-12)
    swapped = ranked.copy()
    swapped[:, :k] = swapped[:, :k][:, np.array(data.draw(st.permutations(range(k))))]
    np.testing.assert_allclose(
        np.atleast_1d(Metric(name, k).per_user(swapped, targets, known)), values, rtol=1e-9, atol=1e-12
    )


# ---------------------------------------------------------------- of all lists


def test_gini_of_exposure_by_hand() -> None:
    nobody = sp.csr_matrix((2, 4))
    assert gini_at_k(np.array([[0, 1], [2, 3]]), nobody, 2) == 0, "each item once"
    assert gini_at_k(np.array([[2], [2]]), nobody, 1) == pytest.approx(3 / 4), "one item has all: (n - 1) / n"
    # 0, 1, 1 and 2 times: (-3 * 0 - 1 * 1 + 1 * 1 + 3 * 2) / (4 * 4)
    assert gini_at_k(np.array([[0, 1], [0, 3]]), nobody, 2) == pytest.approx(6 / 16)
    assert gini_at_k(np.full((2, 2), -1), nobody, 2) == 0


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any))
def test_gini_is_the_mean_difference_of_two_items_over_twice_the_mean(counts: list[int]) -> None:
    shown = np.array(counts, dtype=float)
    expected = np.abs(shown[:, None] - shown).mean() / (2 * shown.mean())
    assert gini(shown[:, None])[0] == pytest.approx(expected, abs=1e-12)
    assert 0 <= gini(shown[:, None])[0] <= (len(counts) - 1) / len(counts) + 1e-12


@given(n_users=st.integers(1, 6), n_items=st.integers(2, 9), data=st.data())
def test_what_recbole_has_too_is_the_same_there(n_users: int, n_items: int, data: st.DataObject) -> None:
    """As its documentation defines averagepopularity, giniindex, itemcoverage and tailpercentage, for full lists."""
    k = data.draw(st.integers(1, n_items))
    generator = np.random.default_rng(data.draw(st.integers(0, 999)))
    lists = np.array([generator.permutation(n_items)[:k] for _ in range(n_users)])
    counts = generator.permutation(np.arange(1, n_items + 1))  # no two alike: which of equals is the tail, differs
    train = sp.csr_matrix((np.arange(n_items)[:, None] < counts).astype(float))
    known = Background(train=train, fold_in=sp.csr_matrix((n_users, n_items)))
    targets = sp.csr_matrix(np.ones((n_users, n_items)))

    def ours(name: str) -> float:
        return float(np.mean(Metric(name, k).per_user(lists, targets, known)))

    assert ours("average_popularity") == pytest.approx(np.mean(counts[lists]))
    shown = Counter(lists.ravel().tolist())
    assert coverage_at_k(lists, targets, k) == pytest.approx(len(shown) / n_items)
    ascending = sorted(shown.get(item, 0) for item in range(n_items))
    weighted = sum((2 * place - n_items - 1) * count for place, count in enumerate(ascending, start=1))
    assert gini_at_k(lists, targets, k) == pytest.approx(weighted / (n_items * sum(ascending)), abs=1e-12)
    tail = np.argsort(counts)[: n_items - round(0.2 * n_items)]  # its tail_ratio, where that is not a fraction
    assert ours("tail_share") == pytest.approx(np.isin(lists, tail).mean())


def test_the_interval_of_a_value_of_all_lists_is_a_bootstrap_over_users() -> None:
    generator = np.random.default_rng(3)
    ranked = np.array([generator.permutation(40)[:3] for _ in range(30)])
    lists = look_up(ranked, sp.csr_matrix((30, 40)), 3)
    for function in (coverage, gini):
        found = resampled(function, lists, 400)
        again = np.random.default_rng(0)
        for value in found[:5]:  # by a plain loop over the lists of the users drawn
            users = again.integers(30, size=30)
            shown = np.bincount(ranked[users].ravel(), minlength=40).astype(float)
            assert value == pytest.approx(function(shown[:, None])[0], abs=1e-12)
        np.testing.assert_array_equal(found, resampled(function, lists, 400), "seeded")
    same = resample([Metric("gini", 2), Metric("ndcg", 3)], np.tile([4, 2, 1], (9, 1)), sp.csr_matrix((9, 40)))
    assert list(same) == ["gini@2"] and np.ptp(same["gini@2"]) == 0, "lists all alike leave nothing to chance"


def test_the_size_of_a_block_never_changes_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = [Metric(name, 3) for name in METRICS]
    whole = measure(metrics, RANKED, TARGETS, KNOWN), resample(metrics, RANKED, TARGETS)
    for module in ("beyond", "exposure"):
        monkeypatch.setattr(f"recvae.metrics.{module}.BLOCK_BYTES", 1)
    parts = measure(metrics, RANKED, TARGETS, KNOWN), resample(metrics, RANKED, TARGETS)
    for one, other in ((whole[0][0], parts[0][0]), (whole[0][1], parts[0][1]), (whole[1], parts[1])):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("metric", "known", "message"),
    [
        (Metric("novelty", 2), None, r"^got novelty@2 without the training interactions, .* pass train=dataset.train"),
        (Metric("feature_diversity", 2), None, r"^got feature_diversity@2 without the training interactions"),
        (
            Metric("feature_diversity", 2),
            Background(train=TRAIN, fold_in=FOLD_IN),
            r"^got feature_diversity@2 for items without features, .* --features, .* \(diversity needs none\)$",
        ),
        (Metric("novelty", 6), KNOWN, r"^got novelty@6 for 5 items, expected a K of 5 or less; lower it$"),
        (Metric("gini", 6), KNOWN, r"^got gini@6 for 5 items"),
        (Metric("diversity", 1), KNOWN, r"^got diversity@1, expected a K of 2 or more: one item alone is not diverse$"),
        (
            Metric("feature_miscalibration", 2),
            Background(train=TRAIN, fold_in=FOLD_IN, features=FEATURES[:, 2:]),
            r"^got no feature that is 0 or 1 for feature_miscalibration, expected words such as genres",
        ),
        (
            Metric("novelty", 2),
            Background(train=TRAIN, fold_in=FOLD_IN[:2]),
            r"^got a background of 2 users and 5 items for targets of 3 and 5",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(metric: Metric, known: Background | None, message: str) -> None:
    ranked = np.hstack([RANKED, np.full((3, 3), -1)])
    with pytest.raises(UsageError, match=message):
        metric.per_user(ranked, TARGETS, known)


def test_a_background_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match=r"^got 4 items \(columns\) in the fold-in, expected 5"):
        Background(train=TRAIN, fold_in=FOLD_IN[:, :4])
    with pytest.raises(DataError, match=r"^got ndarray for the training interactions, expected a scipy sparse matrix"):
        Background(train=TRAIN.toarray(), fold_in=FOLD_IN)
    with pytest.raises(UsageError, match=r"^got features of 4 items, expected a row for each of the 5 items"):
        Background(train=TRAIN, fold_in=FOLD_IN, features=FEATURES[:4])


def test_embeddings_are_compared_where_no_feature_is_a_word() -> None:
    known = Background(train=TRAIN, fold_in=FOLD_IN, features=np.array([[2.0, 0], [0, 3], [-4, 0], [1, 1], [0, 0]]))
    values = Metric("feature_diversity", 3).per_user(RANKED, TARGETS, known)
    np.testing.assert_allclose(values[:2], [1 - (-1), 1 - 0], err_msg="item 4 has none, and counts in no pair")


# ---------------------------------------------------------------- evaluate, compare, the command


def test_evaluate_needs_the_training_data_for_them(blocks: Dataset) -> None:
    model = Popularity().fit(blocks.train)
    with pytest.raises(UsageError, match=r"^got novelty@5 without the training interactions"):
        evaluate(model, blocks.test, "ndcg@5,novelty@5")
    per_user, _ = evaluate(model, blocks.test, "novelty@5,feature_diversity@2", train=blocks.train, features=np.eye(32))
    counts = np.bincount(blocks.train.indices)
    ranked, _ = model.recommend(blocks.test.fold_in, 5)
    np.testing.assert_allclose(per_user["novelty@5"], -np.log2(counts[ranked] / blocks.train.shape[0]).mean(axis=1))
    assert (per_user["feature_diversity@2"] == 1).all()


def test_lists_are_ordered_by_a_metric_that_says_how_good_they_are(blocks: Dataset) -> None:
    assert main_metric(["novelty@5", "recall@5"]) == "recall@5"
    assert main_metric(["gini@5", "novelty@5", "popularity_miscalibration@5"]) == "novelty@5"
    models = {"ease": EASE(l2=5.0).fit(blocks.train), "popular": Popularity().fit(blocks.train)}
    found = compare(models, blocks, metrics="popularity_miscalibration@5,novelty@5,gini@5")
    metric = "popularity_miscalibration@5"
    means = [one.summary(metric).mean for one in compare(models, blocks, metrics=metric).ranking]
    assert means[0] is not None and means[1] is not None and means[0] < means[1], "the lowest is the best"
    header, best = [
        next(line.split("|") for line in found.to_markdown().splitlines() if line.startswith(start))
        for start in ("| run ", "| ease ")
    ]
    marked = {name.strip() for name, cell in zip(header, best, strict=True) if "**" in cell}
    assert marked == {metric, "gini@5"}, "less is better of both; more novel is only other"


def test_a_value_of_all_lists_has_an_interval(blocks: Dataset) -> None:
    models = {"ease": EASE(l2=5.0).fit(blocks.train)}
    (one,) = compare(models, blocks, metrics="coverage@3,ndcg@3").contenders
    summary = one.summary("coverage@3")
    ranked, _ = models["ease"].recommend(blocks.test.fold_in, 3)
    deviation = resampled(coverage, look_up(ranked, blocks.test.targets, 3)).std(ddof=1)
    assert summary.mean == coverage_at_k(ranked, blocks.test.targets, 3)
    assert summary.se == pytest.approx(deviation) and deviation > 0
    assert summary.mean is not None and summary.high == pytest.approx(summary.mean + ndtri(0.975) * deviation)


def test_slices_by_length_are_parts_of_the_users() -> None:
    lengths = [1, 1, 2, 3, 3, 3, 4, 9, 5]
    fold_in = sp.csr_matrix((np.arange(12) < np.array(lengths)[:, None]).astype(float))
    targets = sp.csr_matrix(np.eye(9, 12, k=2))
    targets = sp.csr_matrix(sp.diags([1.0] * 8 + [0.0]) @ targets)  # the last user has none
    targets.eliminate_zeros()
    held_out = HeldOut(fold_in=fold_in, targets=targets)
    found = slices_of("length", held_out, Background(train=fold_in, fold_in=fold_in))
    assert [(one.name, one.n_users) for one in found] == [("1 item", 2), ("2-3 items", 4), ("4-9 items", 2)]
    total = sum((one.targets for one in found), sp.csr_matrix(targets.shape))
    np.testing.assert_array_equal(total.toarray(), targets.toarray())
    assert slices_of(None, held_out, Background(train=fold_in, fold_in=fold_in)) == []


def test_by_length_a_mean_is_that_of_its_users_and_by_popularity_that_of_its_targets(blocks: Dataset) -> None:
    models = {"ease": EASE(l2=5.0).fit(blocks.train), "popular": Popularity().fit(blocks.train)}
    found = compare(models, blocks, metrics="recall@4,coverage@4", by="popularity")
    groups = group_of_items(Background(train=blocks.train, fold_in=blocks.test.fold_in))
    for contender in found.contenders:
        ranked, _ = models[contender.name].recommend(blocks.test.fold_in, 4)
        for place, name in enumerate(GROUPS):
            only = sp.csr_matrix(blocks.test.targets.multiply(groups == place))
            expected = summarise(Metric("recall", 4).per_user(ranked, only))
            assert summarise(contender.slices[name]["recall@4"]) == expected
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["by"] == "popularity" and list(content["slices"]) == list(GROUPS)
    assert set(content["runs"][0]["slices"]["rare"]) == {"recall@4"}, "coverage is of all lists"
    assert "| rare: popular " in found.to_markdown() and "60% medium" in found.to_markdown()
    plain = compare(models, blocks, metrics="recall@4,coverage@4").to_json()
    assert "by" not in plain and "slices" not in plain["runs"][0]
    several = compare({"ease": [models["ease"]], "popular": models["popular"]}, blocks, metrics="recall@4", by="length")
    (name,) = several.contenders[0].slices
    assert name == "3 items" and several.users_by_slice() == {"3 items": blocks.test.n_users}


@pytest.mark.parametrize(
    ("by", "metrics", "message"),
    [
        ("age", "recall@4", r"^got slices by 'age', expected one of: length, popularity$"),
        ("popularity", "recall@4,novelty@4", r"^got novelty@4 by popularity, which divides the targets"),
        ("length", "coverage@4", r"^got coverage@4 by length, expected a metric that has a value per user too"),
    ],
)
def test_slices_that_say_nothing_are_refused(blocks: Dataset, by: str, metrics: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compare({"p": Popularity().fit(blocks.train)}, blocks, metrics=metrics, by=by)


def test_a_metric_of_fewer_users_than_the_others_says_of_how_many(blocks: Dataset) -> None:
    models = {"ease": EASE(l2=5.0).fit(blocks.train), "popular": Popularity().fit(blocks.train)}
    targets = blocks.test.targets.toarray()
    head = np.flatnonzero(~is_tail(Background(train=blocks.train, fold_in=blocks.test.fold_in)))
    targets[::2] = np.isin(np.arange(32), head)  # of every other user
    hidden = sp.csr_matrix(targets * (blocks.test.fold_in.toarray() == 0), dtype=np.float32)
    blocks = replace(blocks, test=HeldOut(fold_in=blocks.test.fold_in, targets=hidden))
    found = compare(models, blocks, metrics="ndcg@5,tail_recall@5,coverage@5")
    counts = {name: np.count_nonzero(~np.isnan(values)) for name, values in found.contenders[0].per_user.items()}
    assert 0 < counts["tail_recall@5"] < counts["ndcg@5"] == found.n_users
    remark = f"tail_recall@5 is a mean over {counts['tail_recall@5']} of these {found.n_users} users: no other has"
    for text in (found.to_html(), found.to_latex().replace("\\_", "_"), " ".join(found.page().remarks)):
        assert remark in text
    assert found.to_json()["n_users_of"] == {"tail_recall@5": counts["tail_recall@5"]}
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert {row["metric"]: int(row["n_users"]) for row in rows} == {**counts, "coverage@5": found.n_users}
    nobody = replace(
        blocks, test=replace(blocks.test, targets=sp.csr_matrix(hidden.multiply(np.isin(np.arange(32), head))))
    )
    for row in compare(models, nobody, metrics="ndcg@5,tail_recall@5").to_json()["runs"]:
        assert row["metrics"]["tail_recall@5"]["mean"] is None, "which is not 0"
        assert row["over_seeds"]["tail_recall@5"] == {"means": [], "sd": None}
    usual = compare(models, blocks, metrics="ndcg@5,recall@5")
    assert not usual.page().remarks[1:] and "n_users_of" not in usual.to_json()


def test_the_command_measures_them_by_length_and_by_popularity(toy: Path, command: Command) -> None:
    assert command("train", "--model", "ease", "--set", "l2=20").code == 0
    names = "gini@5,coverage@5,novelty@5,tail_recall@5,diversity@5,popularity_miscalibration@5"
    words = ("evaluate", "ease", "--baselines", "popularity", "--metrics", f"recall@5,{names}")
    done = command(*words, "--by", "length")
    assert done.code == 0 and "length" in done.out and " items: ease" in done.out
    found = json.loads(command(*words, "--by", "length", "--json").out)
    assert sum(found["slices"].values()) == found["n_users"]
    for run in found["runs"]:
        assert set(run["slices"]) == set(found["slices"])
        assert all(run["metrics"][name]["low"] is not None for name in names.split(","))
    refused = command(*words, "--by", "popularity")
    assert refused.code == 2 and "which divides the targets" in refused.err
    assert "rare: ease" in command("compare", "ease", "--baselines", "none", "--by", "popularity").out
    for metrics, message in (
        ("feature_diversity@5", "got feature_diversity@5 for items without features, which it needs; prepare the data"),
        ("gini@5000", "got gini@5000 for "),
        ("diversity@1", "got diversity@1, expected a K of 2 or more"),
        ("novelti@5", "did you mean novelty@5?"),
    ):
        refused = command("evaluate", "ease", "--metrics", metrics)
        assert refused.code == 2 and message in refused.err and not refused.out
    refused = command("evaluate", "ease", "--by", "age")
    assert refused.code == 2 and "got slices by 'age', expected one of: length, popularity" in refused.err
