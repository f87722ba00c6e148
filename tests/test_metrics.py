"""The metrics: worked out by hand, by a plain loop over users, and by scikit-learn where the definitions meet."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from recvae import metrics as functions
from recvae.errors import DataError, UsageError
from recvae.metrics import METRICS, NAMES, Metric, coverage_at_k, measure, parse_metrics
from recvae.ranked_lists import look_up

# Letters in shape comments: U users, I items, k ranks.

PER_USER: dict[str, Callable[[np.ndarray, Any, int], np.ndarray]] = {
    "recall": functions.recall_at_k,
    "recall_all": functions.recall_all_at_k,
    "ndcg": functions.ndcg_at_k,
    "precision": functions.precision_at_k,
    "hit_rate": functions.hit_rate_at_k,
    "map": functions.average_precision_at_k,
    "mrr": functions.reciprocal_rank_at_k,
}

OF_LISTS = [*PER_USER, "coverage"]  # gini and what needs a background is in test_beyond_accuracy.py

LOG2_3 = math.log2(3)  # the discount of rank 2; that of rank 1 is 1, of rank 3 is 2

# Three users, five items.  User 0 has hits at ranks 1 and 3 of 3 targets, user 1 one hit at rank 2 of 1 target and a
# list that ends after two, user 2 no target.
RANKED = np.array([[4, 0, 1, 3], [2, 3, -1, -1], [0, 1, 2, 3]])
TARGETS = sp.csr_matrix([[0, 1, 1, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]])

GOLDEN = {
    # k = 2: user 0 has 1 hit, and 2 are reachable; user 1 has 1 of 1
    ("recall", 2): [1 / 2, 1],
    ("recall_all", 2): [1 / 3, 1],
    ("precision", 2): [1 / 2, 1 / 2],
    ("hit_rate", 2): [1, 1],
    ("ndcg", 2): [1 / (1 + 1 / LOG2_3), (1 / LOG2_3) / 1],
    ("map", 2): [(1 / 1) / 2, (1 / 2) / 1],
    ("mrr", 2): [1, 1 / 2],
    # k = 4: user 0 has 2 hits of 3 targets, at ranks 1 and 3
    ("recall", 4): [2 / 3, 1],
    ("recall_all", 4): [2 / 3, 1],
    ("precision", 4): [2 / 4, 1 / 4],
    ("hit_rate", 4): [1, 1],
    ("ndcg", 4): [(1 + 1 / 2) / (1 + 1 / LOG2_3 + 1 / 2), 1 / LOG2_3],
    ("map", 4): [(1 / 1 + 2 / 3) / 3, 1 / 2],
    ("mrr", 4): [1, 1 / 2],
    # k = 1: user 1 has missed
    ("recall", 1): [1, 0],
    ("recall_all", 1): [1 / 3, 0],
    ("precision", 1): [1, 0],
    ("hit_rate", 1): [1, 0],
    ("ndcg", 1): [1, 0],
    ("map", 1): [1, 0],
    ("mrr", 1): [1, 0],
}


@pytest.mark.parametrize(("name", "k"), GOLDEN)
def test_values_are_those_worked_out_by_hand(name: str, k: int) -> None:
    values = PER_USER[name](RANKED, TARGETS, k)
    np.testing.assert_allclose(values[:2], GOLDEN[name, k], rtol=1e-12)
    assert math.isnan(values[2])
    assert values.dtype == np.float64


def test_every_metric_has_a_value_worked_out_by_hand() -> None:
    assert {name for name, _ in GOLDEN} == set(PER_USER)
    others = set(NAMES) - set(PER_USER)
    assert {name for name in others if METRICS[name].per_user is None} == {"coverage", "gini"}
    assert {name for name in others if METRICS[name].needs} == others - {"coverage", "gini"}, "in test_beyond_accuracy"


def test_coverage_is_the_share_of_items_in_any_list() -> None:
    assert coverage_at_k(RANKED, TARGETS, 1) == 3 / 5  # items 4, 2, 0
    assert coverage_at_k(RANKED, TARGETS, 2) == 5 / 5  # and 0, 3, 1
    assert coverage_at_k(np.array([[-1, -1]] * 3), TARGETS, 2) == 0


def test_measured_together_each_metric_is_what_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = [Metric(name, k) for k in (2, 4, 1) for name in OF_LISTS]
    looked_up = []
    monkeypatch.setattr("recvae.metrics.metric.look_up", lambda *given: looked_up.append(given[2]) or look_up(*given))
    per_user, overall = measure(metrics, RANKED, TARGETS)
    assert looked_up == [4], "once for all, as deep as the deepest"
    assert [*per_user, *overall] == [str(m) for m in sorted(metrics, key=lambda m: not m.is_per_user)]
    for name, k in ((metric.name, metric.k) for metric in metrics):
        if name == "coverage":
            assert overall[f"{name}@{k}"] == coverage_at_k(RANKED, TARGETS, k)
        else:
            np.testing.assert_array_equal(per_user[f"{name}@{k}"], PER_USER[name](RANKED, TARGETS, k))


@st.composite
def lists_and_targets(draw: st.DrawFn) -> tuple[np.ndarray, sp.csr_matrix, int]:
    """Draw lists of different items that may end early, any targets, and a cut-off."""
    n_users, n_items = draw(st.integers(1, 5)), draw(st.integers(1, 10))
    ranks = draw(st.integers(1, n_items + 2))
    ranked = np.full((n_users, ranks), -1)
    for row in ranked:
        length = draw(st.integers(0, min(ranks, n_items)))
        row[:length] = draw(st.permutations(range(n_items)))[:length]
    dense = [[draw(st.booleans()) for _ in range(n_items)] for _ in range(n_users)]
    return ranked, sp.csr_matrix(np.array(dense, dtype=np.float32)), draw(st.integers(1, ranks))


def one_user(name: str, ranked: list[int], wanted: set[int], k: int) -> float:
    """Return a metric of one user from its definition."""
    if not wanted:
        return math.nan
    hit = [item in wanted for item in ranked[:k]]
    reachable = min(k, len(wanted))
    precision_at = [sum(hit[: rank + 1]) / (rank + 1) for rank in range(k)]
    by_definition = {
        "recall": sum(hit) / reachable,
        "recall_all": sum(hit) / len(wanted),
        "ndcg": sum(h / math.log2(j + 2) for j, h in enumerate(hit))
        / sum(1 / math.log2(j + 2) for j in range(reachable)),
        "precision": sum(hit) / k,
        "hit_rate": float(any(hit)),
        "map": sum(p for p, h in zip(precision_at, hit, strict=True) if h) / reachable,
        "mrr": 1 / (hit.index(True) + 1) if any(hit) else 0.0,
    }
    return by_definition[name]


@pytest.mark.parametrize("name", PER_USER)
@given(case=lists_and_targets())
def test_values_are_those_of_a_plain_loop_over_users(name: str, case: tuple[np.ndarray, sp.csr_matrix, int]) -> None:
    ranked, targets, k = case
    wanted = [set(row.indices.tolist()) for row in targets]
    expected = [one_user(name, row, items, k) for row, items in zip(ranked.tolist(), wanted, strict=True)]
    np.testing.assert_allclose(PER_USER[name](ranked, targets, k), expected, rtol=1e-12)


@pytest.mark.parametrize("name", OF_LISTS)
@given(case=lists_and_targets())
def test_values_lie_between_0_and_1(name: str, case: tuple[np.ndarray, sp.csr_matrix, int]) -> None:
    ranked, targets, k = case
    values = np.atleast_1d(coverage_at_k(*case) if name == "coverage" else PER_USER[name](ranked, targets, k))
    values = values[~np.isnan(values)]
    assert ((values >= 0) & (values <= 1 + 1e-12)).all()


@pytest.mark.parametrize("name", OF_LISTS)
@given(ranked=st.lists(st.integers(-1, 4), min_size=1, max_size=7), wanted=st.sets(st.integers(0, 4)), data=st.data())
def test_a_value_is_between_0_and_1_or_the_list_is_refused(
    name: str, ranked: list[int], wanted: set[int], data: st.DataObject
) -> None:
    """Whatever columns are ranked: an item twice is refused if it is among the first k, and only then."""
    k = data.draw(st.integers(1, len(ranked)))
    targets = sp.csr_matrix([[float(item in wanted) for item in range(5)]])
    metric = coverage_at_k if name == "coverage" else PER_USER[name]
    items = [item for item in ranked[:k] if item >= 0]
    if len(set(items)) < len(items):
        with pytest.raises(UsageError, match="more than once in the list of row 0"):
            metric(np.array([ranked]), targets, k)
    else:
        values = np.atleast_1d(metric(np.array([ranked]), targets, k))
        assert (np.isnan(values) | ((values >= 0) & (values <= 1 + 1e-12))).all()


@given(st.integers(2, 12), st.data())
def test_ndcg_is_that_of_scikit_learn(n_items: int, data: st.DataObject) -> None:
    ranked = np.array([data.draw(st.permutations(range(n_items)))])
    relevant = np.array([data.draw(st.lists(st.booleans(), min_size=n_items, max_size=n_items).filter(any))])
    scores = np.empty((1, n_items))
    scores[0, ranked[0]] = np.arange(n_items, 0, -1)
    k = data.draw(st.integers(1, n_items))
    ours = PER_USER["ndcg"](ranked, sp.csr_matrix(relevant, dtype=np.float32), k)
    np.testing.assert_allclose(ours, ndcg_score(relevant, scores, k=k), rtol=1e-12)


def test_the_best_list_has_recall_and_ndcg_1_however_many_targets_there_are() -> None:
    targets = sp.csr_matrix(np.ones((1, 6)))
    for name in ("recall", "ndcg", "map", "precision"):
        assert PER_USER[name](np.array([[3, 1, 2]]), targets, 3).tolist() == [1.0]
    assert PER_USER["recall_all"](np.array([[3, 1, 2]]), targets, 3).tolist() == [0.5]


def test_a_list_that_ended_is_never_a_hit() -> None:
    """-1 must not reach around to the last item of the user before."""
    targets = sp.csr_matrix([[0, 0, 1], [1, 0, 0]])
    for name in PER_USER:
        assert PER_USER[name](np.array([[-1, -1], [-1, -1]]), targets, 2).tolist() == [0.0, 0.0]


def test_metrics_are_read_in_order_each_once() -> None:
    metrics = parse_metrics(" NDCG@100, recall@20,ndcg@100,recall@020 ")
    assert metrics == [Metric("ndcg", 100), Metric("recall", 20)]
    assert parse_metrics(["coverage@5"]) == [Metric("coverage", 5)]
    assert [metric.is_per_user for metric in parse_metrics("coverage@5,mrr@5")] == [False, True]
    np.testing.assert_array_equal(Metric("mrr", 2).per_user(RANKED, TARGETS), [1, 0.5, np.nan])
    per_user, overall = measure("mrr@2, coverage@1", RANKED, TARGETS)
    assert (per_user["mrr@2"].tolist()[:2], overall) == ([1, 0.5], {"coverage@1": 3 / 5})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recal@20", r"got metric 'recal@20', expected NAME@K.*did you mean recall@20\?"),
        ("ndgc", r"did you mean ndcg@10\?"),
        ("zzz@5", "known: recall, recall_all, ndcg, precision, hit_rate, map, mrr, coverage"),
        ("", r"got metric '', expected NAME@K"),
        ("recall@", r"got metric 'recall@', expected a whole number after the @, such as recall@20"),
        ("recall", "expected a whole number after the @"),
        ("recall@0", "expected a whole number after the @"),
        ("recall@-3", "expected a whole number after the @"),
        ("recall@1.5", "expected a whole number after the @"),
        ("recall@20,ndcg@x", "got metric 'ndcg@x', expected a whole number after the @"),
    ],
)
def test_metrics_that_cannot_be_read_are_refused_with_a_hint(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_metrics(text)


def test_no_metric_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^got no metric, expected at least one, such as recall@20$"):
        measure([], RANKED, TARGETS)


@pytest.mark.parametrize("name", OF_LISTS)
@pytest.mark.parametrize(
    ("ranked", "k", "message"),
    [
        (RANKED, 0, "got k=0, expected a whole number of items, 1 or more"),
        (RANKED, 2.0, "got k=2.0, expected a whole number of items, 1 or more"),
        (RANKED, 5, r"shape \(3, 4\) for 3 users and k=5, expected shape \(3, 5 or more\); rank more items or lower k"),
        (RANKED[:2], 2, r"shape \(2, 4\) for 3 users"),
        (RANKED[0], 2, r"shape \(4,\) for 3 users"),
        (RANKED + 1, 4, r"from 0 to 5, expected item columns from 0 to 4, or -1 where a list ended"),
        (RANKED - 1, 4, r"from -2 to 3, expected item columns from 0 to 4"),
        (np.full((3, 2), 2**64 - 1, dtype=np.uint64), 2, r"from 18446744073709551615 to 18446744073709551615"),
        (RANKED + 0.5, 4, r"got ranked items of type float64, expected whole numbers: item columns, best first"),
        (np.full((3, 2), np.nan), 2, r"of type float64, expected whole numbers.*; scores have to be ranked first$"),
        (RANKED > 0, 4, "got ranked items of type bool, expected whole numbers"),
        (RANKED.astype(object), 4, "got ranked items of type object, expected whole numbers"),
        ([[4, 0], [2], [0, 1]], 1, r"got ranked items that are no array \(.*as many for each user; fill shorter lists"),
        (
            np.array([[4, 0, 1], [2, 3, 2], [0, 1, 1]]),
            3,
            "^got item column 2 more than once in the list of row 1, expected each item once; remove repetitions, and "
            "fill shorter lists with -1$",
        ),
    ],
    ids=[
        "k below 1",
        "k not whole",
        "k above the ranks",
        "other users",
        "one list",
        "column too high",
        "column too low",
        "column that would wrap to -1",
        "fractions",
        "NaN where a list ended",
        "a mask",
        "objects",
        "lists of different lengths",
        "an item twice",
    ],
)
def test_lists_that_do_not_fit_the_targets_are_refused(name: str, ranked: Any, k: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        coverage_at_k(ranked, TARGETS, k) if name == "coverage" else PER_USER[name](ranked, TARGETS, k)


def with_a_stored_zero(targets: sp.csr_matrix) -> sp.csr_matrix:
    """Return the same targets with a zero stored at user 2, who has none."""
    rows, columns = targets.nonzero()
    entries = (np.append(np.ones(len(rows)), 0), (np.append(rows, 2), np.append(columns, 0)))
    return sp.csr_matrix(entries, shape=targets.shape)


@pytest.mark.parametrize("name", OF_LISTS)
@pytest.mark.parametrize("given_as", [sp.csc_matrix, sp.coo_matrix, sp.csr_array, with_a_stored_zero])
def test_targets_of_any_sparse_format_give_the_same_values(name: str, given_as: Callable[..., Any]) -> None:
    metric = coverage_at_k if name == "coverage" else PER_USER[name]
    np.testing.assert_array_equal(metric(RANKED, given_as(TARGETS), 2), metric(RANKED, TARGETS, 2))


@pytest.mark.parametrize("name", OF_LISTS)
def test_nobody_to_rank_for_has_no_values(name: str) -> None:
    metric = coverage_at_k if name == "coverage" else PER_USER[name]
    values = metric(np.empty((0, 4), dtype=np.int64), sp.csr_matrix((0, 5)), 2)
    assert values == 0 if name == "coverage" else np.shape(values) == (0,)


@pytest.mark.parametrize("name", OF_LISTS)
def test_targets_that_are_no_interactions_are_refused(name: str) -> None:
    metric = coverage_at_k if name == "coverage" else PER_USER[name]
    with pytest.raises(DataError, match=r"^got ndarray for the targets, expected a scipy sparse matrix"):
        metric(RANKED, TARGETS.toarray(), 2)
    with pytest.raises(DataError, match=r"^the targets hold negative, NaN or infinite values"):
        metric(RANKED, -TARGETS, 2)


# ---------------------------------------------------------------- metrics of one's own


def reach(ranked: np.ndarray, targets: sp.csr_matrix, k: int) -> np.ndarray:
    """Return the share of the first k items that are not the most popular one, as an example."""
    assert ranked.shape == (targets.shape[0], k) and ranked.dtype == np.int64
    ranked[ranked == 0] = -1  # what is handed over may be changed
    targets.data[:] = 0
    return (ranked >= 0).sum(axis=1) / k


def test_a_metric_of_your_own_is_measured_beside_the_others() -> None:
    wanted = parse_metrics(["ndcg@2", Metric("reach", 3, reach), "ndcg@4"])
    per_user, overall = measure(wanted, RANKED, TARGETS)
    assert list(per_user) == ["ndcg@2", "reach@3", "ndcg@4"] and not overall
    np.testing.assert_allclose(per_user["reach@3"], [2 / 3, 2 / 3, np.nan])
    np.testing.assert_array_equal(per_user["ndcg@4"], functions.ndcg_at_k(RANKED, TARGETS, 4))
    np.testing.assert_array_equal(Metric("reach", 3, reach).per_user(RANKED, TARGETS), per_user["reach@3"])
    assert Metric("reach", 3, reach).is_per_user


def fails(*_: Any) -> Any:
    return 1 / 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (fails, r"the metric own@2 failed with ZeroDivisionError: .*ranked items of shape \(3, 2\), targets of shape"),
        (lambda *_: 0.5, r"got values of shape \(\) from the metric own@2, expected \(3,\), one float per user"),
        (lambda *_: None, r"got values of shape \(\) from the metric own@2"),
        (lambda *_: np.ones((3, 2)), r"got values of shape \(3, 2\) from the metric own@2"),
        (lambda *_: ["a", "b", "c"], r"the metric own@2 failed with ValueError"),
        (lambda *_: [1, np.nan, 1], "got NaN or infinity from the metric own@2 for 1 users who have a target"),
        (lambda *_: [np.inf, np.nan, 1], "for 2 users who have a target, expected numbers; return 0"),
    ],
    ids=["raises", "one number", "nothing", "one per rank", "texts", "nan", "infinity"],
)
def test_what_your_own_metric_does_wrong_is_said(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measure([Metric("own", 2, function)], RANKED, TARGETS)


def test_a_metric_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(UsageError, match=r"got metric 'own', expected one of: recall, .*; or pass its function"):
        Metric("own", 5)
    with pytest.raises(UsageError, match="got your own metric called ndcg, a name that recvae uses; choose another"):
        Metric("ndcg", 5, reach)
    with pytest.raises(UsageError, match="got a int for the metric own@5, expected a function"):
        Metric("own", 5, 3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="got k=0, expected a whole number"):
        Metric("recall", 0)
    with pytest.raises(
        UsageError, match=r"got a function among the metrics, expected a text such as 'ndcg@10', or Metr"
    ):
        parse_metrics([reach])  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"got two metrics called reach@3, expected a name of its own for each"):
        parse_metrics([Metric("reach", 3, reach), Metric("reach", 3, fails)])
    assert len(parse_metrics([Metric("reach", 3, reach), Metric("reach", 3, reach)])) == 1


def test_a_metric_is_imported_from_the_current_folder(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("shelf.py").write_text(
        "def Variety(ranked, targets, k):\n    return [len(set(row)) / k for row in ranked]\nn = 1\n"
    )
    Path("broken_shelf.py").write_text("import nothing_of_the_kind\n")
    Path("leaving_shelf.py").write_text("raise SystemExit(3)\n")
    metrics = parse_metrics("ndcg@2, shelf:Variety@2")
    per_user, _ = measure(metrics, RANKED, TARGETS)
    assert per_user["Variety@2"][:2].tolist() == [1, 1]
    for text, message in (
        ("shelf:Variety", "got metric 'shelf:Variety', expected a whole number after the @"),
        ("shelf:variety@2", "but shelf has no 'variety'; it has: Variety, n"),
        ("shelf:n@2", "got a int for the metric n@2, expected a function"),
        ("no_shelf:n@2", r"there is no module no_shelf; expected no_shelf\.py in /"),
        ("shelf.py:n@2", "but importing shelf.py failed|there is no module shelf.py"),
        ("my shelf:n@2", "got metric 'my shelf:n', expected MODULE:NAME such as my_module:my_metric"),
        ("shelf:@2", "expected MODULE:NAME"),
        ("broken_shelf:n@2", "but importing broken_shelf failed with ModuleNotFoundError: No module named 'nothing_of"),
        ("leaving_shelf:n@2", "but importing leaving_shelf failed with SystemExit: 3; make `python -c"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_metrics(text)


class CountsHits:
    """A metric that is an object, with no name of its own."""

    def __call__(self, ranked: np.ndarray, targets: sp.csr_matrix, k: int) -> np.ndarray:  # noqa: ARG002
        return np.ones(len(ranked))


def test_a_metric_says_how_it_is_written(workplace: Path) -> None:
    (workplace / "my_objects.py").write_text(
        "import functools\n\ndef ones(ranked, targets, k, value=1):\n    return [value] * len(ranked)\n\n"
        "twos = functools.partial(ones, value=2)\n"
    )
    for text in ("ndcg@10", "coverage@5", "my_objects:ones@3", "my_objects:twos@3"):
        (metric,) = parse_metrics(text)
        assert metric.path == text and parse_metrics(metric.path) == [metric]
    assert Metric("reach", 3, reach).path == f"{__name__}:reach@3"
    assert Metric("hits", 3, CountsHits()).path == "hits@3", "which nobody can import"
    sys.modules.pop("my_objects", None)
