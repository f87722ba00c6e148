"""Comparing models: Holm's correction and paired tests, repeats with other seeds, tables, and what is refused."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from recvae.bundles.bundle import read_bundle
from recvae.bundles.card import read_card
from recvae.compute.memory import human_bytes
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, UsageError
from recvae.evaluation.baselines import fit_baseline
from recvae.evaluation.comparison import Comparison, compare, comparison_of
from recvae.evaluation.contenders import Contender, measure, over_seeds
from recvae.evaluation.same_data import check_same_data
from recvae.evaluation.significance import holm, paired_p_value, paired_tests
from recvae.evaluation.tables import Cell, Page, Table, human_count, human_seconds, latex_escape
from recvae.metrics import parse_metrics
from recvae.models import ALS, IALS, MultDAE, Popularity
from recvae.runs import repeats
from recvae.runs.finding import finished_runs
from recvae.runs.repeats import repeat, seeds_for
from recvae.runs.run import new_run, train
from recvae.training.records import NullMonitor

Command = Callable[..., Any]

NAN = float("nan")
QUICK = ("--model", "als", "--set", "factors=4", "--set", "regularization=0.1")
METRICS = ["recall@5", "ndcg@10", "coverage@5"]


@pytest.fixture(scope="module")
def films(toy_data: Path) -> Dataset:
    return Dataset.load(toy_data)


@pytest.fixture(autouse=True)
def _small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ALS, "grid", {"factors": (4, 8), "regularization": (1.0,)})
    monkeypatch.setattr(IALS, "grid", {"factors": (2,), "regularization": (0.5,)})


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the seed of each repeat that is trained."""
    seeds: list[int] = []

    def counted(run: Any, *rest: Any, **options: Any) -> Any:
        seeds.append(run.model.seed)
        return train(run, *rest, **options)

    monkeypatch.setattr(repeats, "train", counted)
    return seeds


def contender(name: str, values: list[float], **changes: Any) -> Contender:
    array = np.array(values)
    means = {"ndcg@10": [float(np.nanmean(array))], "coverage@5": [0.5]}
    given = {"model": "als", "hyperparameters": {"seed": 0}, "seeds": [0], "seconds": 1.0, "n_bytes": 2048}
    made: dict[str, Any] = {"per_user": {"ndcg@10": array}, "overall": {"coverage@5": 0.5}, "seed_means": means}
    return Contender(name=name, **given | made | changes)


def comparison(*contenders: Contender, **changes: Any) -> Comparison:
    given: dict[str, Any] = {
        "manifest": {"name": "made up", "protocol": {"split": "strong"}, "fingerprint": "0" * 64},
        "split": "test",
        "user_ids": np.arange(4),
        "n_users": 4,
        "metrics": ["ndcg@10", "coverage@5"],
        "baseline": contenders[0].name,
    }
    return Comparison(contenders=list(contenders), **given | changes)


# ---------------------------------------------------------------- statistics


def test_holm_of_a_printed_example() -> None:
    # Four tests: .005 x 4, .011 x 3, .02 x 2 and .04 x 1, none below the one before it.
    np.testing.assert_allclose(holm([0.02, 0.04, 0.011, 0.005]), [0.04, 0.04, 0.033, 0.02])
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])


P_VALUES = st.lists(st.floats(0, 1), max_size=12)


@given(P_VALUES, st.randoms(use_true_random=False))
def test_holm_never_lowers_a_p_value_keeps_their_order_and_minds_no_other(values: list[float], random: Any) -> None:
    adjusted = holm(values)
    assert (adjusted >= values).all() and (adjusted <= 1).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted <= np.minimum(1, np.array(values) * len(values)) + 1e-15).all(), "never above Bonferroni's"
    shuffled = random.sample(range(len(values)), len(values))
    np.testing.assert_array_equal(holm([values[i] for i in shuffled]), adjusted[shuffled])


@given(P_VALUES)
def test_holm_rejects_what_its_step_down_procedure_rejects(values: list[float]) -> None:
    alpha, rejected = 0.05, set()
    for step, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if values[i] * (len(values) - step) > alpha:
            break
        rejected.add(i)
    assert set(np.flatnonzero(holm(values) <= alpha)) == rejected


def test_holm_does_not_count_a_test_that_could_not_be_made() -> None:
    np.testing.assert_array_equal(holm([0.01, NAN, 0.04]), [0.02, NAN, 0.04])
    assert holm([]).shape == (0,)
    with pytest.raises(UsageError, match=r"got p-values .* expected numbers from 0 to 1"):
        holm([0.5, 1.5])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=40))
def test_the_test_is_scipy_s_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    one, other = np.array(pairs).T
    differences = one - other
    if differences.std() < 1e-9:
        return  # there is nothing to divide by, see below
    expected = scipy.stats.ttest_rel(one, other)
    assert paired_p_value(differences) == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-300)
    found = paired_tests({"a": np.append(other, NAN), "b": np.append(one, NAN)}, "a")["b"]
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert found.difference.low == pytest.approx(interval.low, abs=1e-9)
    assert found.difference.high == pytest.approx(interval.high, abs=1e-9)


def test_differences_that_do_not_vary() -> None:
    assert paired_p_value(np.zeros(5)) == 1
    assert paired_p_value(np.full(5, 0.25)) == 0
    assert np.isnan(paired_p_value(np.array([0.2, NAN])))
    values = np.array([0.1, 0.3, 0.7])
    found = paired_tests({"a": values, "b": (values + values + values) / 3}, "a")["b"]
    assert (found.difference.mean, found.p, found.p_holm, found.significant) == (0, 1, 1, False)


def test_the_correction_is_over_all_others_for_each_metric_by_itself() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(30)
    values = {"base": base} | {f"m{i}": base + rng.normal(0.02 * i, 0.1, 30) for i in range(5)}
    found = paired_tests(values, "base")
    p_values = [scipy.stats.ttest_rel(values[name], base).pvalue for name in found]
    assert list(found) == [f"m{i}" for i in range(5)]
    np.testing.assert_allclose([test.p for test in found.values()], p_values, rtol=1e-9)
    np.testing.assert_allclose([test.p_holm for test in found.values()], holm(p_values), rtol=1e-9)
    assert [test.significant for test in found.values()] == [p < 0.05 for p in holm(p_values)]
    assert {test.significant for test in found.values()} == {True, False}, "else this tests nothing"


# ---------------------------------------------------------------- in Python


def test_models_are_compared_in_one_call(films: Dataset) -> None:
    tuned = fit_baseline("als", films)
    popular = Popularity().fit(films.train)
    told: list[tuple[float, float | None, str]] = []
    found = compare(
        {"als": tuned, "popular": popular, "again": popular},
        films,
        metrics=METRICS,
        to="popular",
        progress=lambda *words: told.append(words),
    )
    users = films.test.n_users
    assert told == [((n + 1) * users, 3 * users, name) for n, name in enumerate(("als", "popular", "again"))]
    assert found.main_metric == "ndcg@10"
    means = [one.summary("ndcg@10").mean or 0 for one in found.ranking]
    assert means == sorted(means, reverse=True)
    tests = found.tests("ndcg@10")
    assert list(tests) == ["als", "again"]
    assert (tests["again"].difference.mean, tests["again"].p, tests["again"].p_holm) == (0, 1, 1)
    als, plain = found.contenders[0], found.contenders[1]
    pair = scipy.stats.ttest_rel(als.per_user["ndcg@10"], plain.per_user["ndcg@10"], nan_policy="omit")
    assert tests["als"].p == pytest.approx(pair.pvalue)
    assert found.tests("coverage@5") == {}, "one number for all users cannot be tested"
    assert als.seconds == (tuned.training.seconds or 0) >= 0 and plain.seconds is None
    arrays = tuned.model.weights().values()
    factors = tuned.model.weights()["item_factors"]  # the regularisation next to it is a setting
    assert (als.n_parameters, als.n_bytes) == (factors.size, sum(a.nbytes for a in arrays))
    assert compare({"a": popular, "b": popular}, films).baseline == "a", "the first, where none is named"


def test_several_fits_of_a_model_count_as_their_mean(films: Dataset) -> None:
    models = [ALS(factors=4, regularization=0.1, seed=seed).fit(films.train) for seed in (3, 1, 2)]
    popular = Popularity().fit(films.train)
    found = compare({"als": models, "popular": popular}, films, metrics=METRICS, to="popular", split="validation")
    single = [measure("als", model, films.validation, parse_metrics(METRICS)) for model in models]
    als = found.contenders[0]
    assert als.seeds == [3, 1, 2] and found.contenders[1].seeds == []
    for metric in ("recall@5", "ndcg@10"):
        np.testing.assert_allclose(als.per_user[metric], np.mean([one.per_user[metric] for one in single], axis=0))
        assert als.seed_means[metric] == [one.summary(metric).mean for one in single]
        assert als.seed_sd(metric) == pytest.approx(np.std(als.seed_means[metric], ddof=1))
        pair = scipy.stats.ttest_rel(als.per_user[metric], found.contenders[1].per_user[metric], nan_policy="omit")
        assert found.tests(metric)["als"].p == pytest.approx(pair.pvalue)
    assert als.overall["coverage@5"] == pytest.approx(np.mean([one.overall["coverage@5"] for one in single]))
    assert als.seed_sd("coverage@5") is not None and found.contenders[1].seed_sd("ndcg@10") is None
    assert "were chosen on these users" in found.to_markdown(), "validation is no fair ground"


def test_fits_of_one_name_differ_in_their_seed_alone(films: Dataset) -> None:
    one = contender("als", [0.1, 0.2])
    with pytest.raises(UsageError, match="expected fits that differ in their seed and in nothing else"):
        over_seeds([one, replace(one, hyperparameters={"seed": 1, "factors": 2}, seeds=[1])])
    with pytest.raises(UsageError, match="differ in their seed"):
        over_seeds([one, one])
    with pytest.raises(UsageError, match="differ in their seed"):
        over_seeds([replace(one, hyperparameters={}, seeds=[])] * 2)
    again = replace(one, hyperparameters={"seed": 1}, seeds=[1])
    with pytest.raises(UsageError, match=r"'seed': 0} trained on train; als {'seed': 1} trained on all, expected fits"):
        over_seeds([one, replace(again, trained_on="all")])
    assert over_seeds([one]) is one
    assert over_seeds([one, replace(again, note="als was interrupted")]).note == "als was interrupted"
    times = [replace(one, hyperparameters={"seed": s}, seeds=[s], seconds=t) for s, t in enumerate((1.0, None, 3.0))]
    assert over_seeds(times).seconds == 2


def test_a_comparison_that_makes_no_sense_is_refused(films: Dataset) -> None:
    one, other = contender("one", [0.1, 0.2]), contender("other", [0.2, 0.1])
    with pytest.raises(UsageError, match="got baseline 'none', expected one of: one, other"):
        comparison(one, other, baseline="none")
    with pytest.raises(UsageError, match="got one alone, expected two or more"):
        comparison(one)
    assert comparison(one, baseline=None).tests("ndcg@10") == {}
    with pytest.raises(UsageError, match="got 'one' twice"):
        comparison(one, one)
    with pytest.raises(UsageError, match="got ndcg@10 of different users"):
        comparison(one, contender("other", [0.2, NAN]))
    model = Popularity().fit(films.train)
    with pytest.raises(UsageError, match="got baseline 'ease', expected one of: a, b"):
        compare({"a": model, "b": model}, films, to="ease")
    with pytest.raises(UsageError, match="got no model for 'b'"):
        compare({"a": model, "b": []}, films)
    with pytest.raises(UsageError, match="got no model, expected one or more"):
        compare({}, films)
    with pytest.raises(UsageError, match="got a alone, expected two or more"):
        compare({"a": model}, films, to="a")
    assert compare({"a": model}, films).baseline is None, "a model alone is measured"
    with pytest.raises(UsageError, match="got a PosixPath for 'b', expected a fitted model or a bundle"):
        compare({"a": model, "b": Path("runs/films/b")}, films)  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="got two models popularity with the same settings, expected names"):
        compare([model, model], films)  # type: ignore[arg-type]


def test_bundles_of_other_data_are_shown_side_by_side(films: Dataset) -> None:
    mine = fit_baseline("popularity", films)
    protocol = {"split": "time", "seed": 5}
    other = replace(mine, manifest={"name": "shop", "fingerprint": "f" * 64, "protocol": protocol})
    with pytest.raises(UsageError, match="b was not trained on toy as it is now") as caught:
        compare({"a": mine, "b": other}, films)
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["a", "b", "toy"]
    assert f"fingerprint {films.fingerprint[:12]}  toy: split strong" in lines[1]
    assert "fingerprint ffffffffffff  shop: split time, seed 5" in lines[2]
    assert lines[4].startswith("leave out b, or train it again on toy")
    with pytest.raises(UsageError, match="unknown protocol"):
        check_same_data({"bare": {}}, films)


# ---------------------------------------------------------------- forms


def made_up() -> Comparison:
    """Return three contenders whose order, best and significance are plain."""
    rng = np.random.default_rng(1)
    base = rng.random(50)
    good, level = np.clip(base + 0.1 + rng.normal(0, 0.05, 50), 0, 2), base + rng.normal(0, 0.05, 50)
    seeds = {"seeds": [0, 1], "seed_means": {"ndcg@10": [0.5, 0.6], "coverage@5": [0.5, 0.5]}}
    return comparison(
        contender("my_base & co", base.tolist(), seconds=None),
        contender("100 % | _new_", good.tolist(), seconds=83.4, n_bytes=3 << 20, n_parameters=2_900_000, **seeds),
        contender("level", level.tolist(), seeds=[], note="level is level_"),
        user_ids=np.arange(52),
        n_users=50,
    )


def columns(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def test_markdown_has_a_cell_for_each_column_and_marks_the_best() -> None:
    text = made_up().to_markdown()
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(columns(table[0])) for table in tables] == [3, 4, 6]
    for table in tables:
        assert {len(columns(line)) for line in table} == {len(columns(table[0]))}
        assert len({len(line) for line in table}) == 1, "aligned for reading as plain text"
        assert len(table) == 2 + 3
    rows = [columns(line) for line in tables[0][2:]]
    assert [row[0] for row in rows] == [r"100 % \| \_new\_", "my_base & co", "level"]
    assert re.fullmatch(r"\*\*0\.\d{4}\*\* ± 0\.\d{4}†", rows[0][1]) and "†" not in rows[1][1] + rows[2][1]
    assert rows[0][2] == "**0.5000**", "no interval, no test"
    assert [columns(line)[1] for line in tables[1][2:]] == ["0, 1", "0", "has none"]
    assert columns(tables[1][2])[2] == f"{np.std([0.5, 0.6], ddof=1):.4f}"
    cost = [columns(line) for line in tables[2][2:]]
    assert cost[0][2:] == ["<0.0001", "1 min 23 s", "3.1 MB", "2.9 M"]
    assert cost[1][1:4] == ["baseline", "-", "-"]
    assert re.fullmatch(r"[+-]0\.\d{4} \[[+-]0\.\d{4}, [+-]0\.\d{4}\]", cost[2][1])
    assert "50 test users (2 users without a target are left out)" in text and "- level is level\\_" in text
    assert "over users" in text and "standard deviation over seeds" in text


def test_latex_is_ascii_balanced_and_escaped() -> None:
    text = made_up().to_latex()
    assert text.isascii()
    assert r"my\_base \& co" in text and r"100 \% \textbar{} \_new\_" in text
    body = re.sub(r"\\[&%$#_{}]", "", re.sub(r"(?m)^\s*%.*$", "", text))
    assert body.count("{") == body.count("}") and body.count("$") % 2 == 0
    assert "%" not in body and "#" not in body
    math = "".join(re.findall(r"\$[^$]*\$", body))
    assert not {"_", "^"} & set(re.sub(r"\$[^$]*\$", "", body)) and math.count("^") == math.count(r"^{\dagger}")
    for begin in ("table", "tabular"):
        assert text.count(f"\\begin{{{begin}}}") == text.count(f"\\end{{{begin}}}")
    for tabular in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        width = len(re.findall("[lr]", tabular.partition("\n")[0]))
        rows = [line for line in tabular.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 4 and {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {width}
        assert [rule in tabular for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [True] * 3
    assert re.search(r"\\textbf\{0\.\d{4}\} \$\\pm\$ 0\.\d{4}\$\^\{\\dagger\}\$", text)
    assert r"\underline{" in text and "underlined: the second" in text


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [
        ("a_b & 5 % of $x #1 {y}", r"a\_b \& 5 \% of \$x \#1 \{y\}"),
        ("\\ ~ ^", r"\textbackslash{} \textasciitilde{} \textasciicircum{}"),
        ("Ångström é ç Š", r"?ngstr\"{o}m \'{e} \c {c} \v {S}"),
        ("± † – <0.1", r"$\pm$ $^{\dagger}$ -- $<$0.1"),
        ("-0.1 [-0.2] als-2 a\nb 日", "$-$0.1 [$-$0.2] als-2 a b ?"),
    ],
)
def test_what_latex_would_stumble_over_is_escaped(plain: str, escaped: str) -> None:
    assert latex_escape(plain) == escaped


def test_a_row_that_begins_with_a_bracket_is_no_argument_of_the_line_before() -> None:
    page = Page(title="t", tables=[Table(headers=["run", "x"], rows=[[Cell("[a]"), Cell("1")]])])
    assert "    {}[a] & 1" in page.to_latex()


def test_html_and_repr_show_the_same_for_notebooks() -> None:
    found = made_up()
    assert str(found) == found.to_markdown().rstrip()
    page = found._repr_html_()
    assert page.count("<table>") == 3 and page.count("<tr>") == 3 * 4
    assert "my_base &amp; co" in page and "<strong>0." in page and "<sup>†</sup>" in page


def test_a_wide_table_is_split_by_columns() -> None:
    cells = [Cell("name"), *(Cell("0.1234", "± 0.1234") for _ in range(5))]
    table = Table(headers=["run", *"abcde"], rows=[cells], note="note")
    parts = table.narrow(50)
    assert [list(part.headers) for part in parts] == [["run", "a", "b"], ["run", "c", "d"], ["run", "e"]]
    assert [part.note for part in parts] == ["", "", "note"]
    wide = Table(headers=["run", *"abcdefgh"], rows=[[*cells, *cells[1:4]]])
    assert Page(title="wide", tables=[wide]).to_latex().count(r"\begin{tabular}") == 2
    assert [list(part.headers) for part in table.narrow(1)] == [["run", letter] for letter in "abcde"]
    assert table.narrow(200) == [replace(table, headers=list(table.headers), rows=[cells])]


def test_numbers_as_people_read_them() -> None:
    assert [human_bytes(n) for n in (0, 1023, 1536, 5 << 20, 3 << 40)] == [
        *("0 B", "1.0 kB", "1.5 kB", "5.2 MB", "3.3 TB")
    ]
    assert [human_seconds(s) for s in (None, 0.04, 59.94, 59.97, 83.4, 3599.7, 4800)] == [
        *("-", "0.0 s", "59.9 s", "1 min 00 s", "1 min 23 s", "1 h 00 min", "1 h 20 min")
    ]
    assert [human_count(n) for n in (7, 9_999, 12_345, 999_960, 2_900_000, 5 * 10**9)] == [
        *("7", "9,999", "12.3 k", "1.0 M", "2.9 M", "5.0 G")
    ]


def test_json_has_the_promised_form() -> None:
    found = json.loads(json.dumps(made_up().to_json(), allow_nan=False))
    rows = found.pop("runs")
    assert found == {
        "dataset": "made up",
        "protocol": {"split": "strong"},
        "fingerprint": "0" * 64,
        "split": "test",
        "n_users": 50,
        "n_users_without_target": 2,
        "confidence": 0.95,
        "test": "two-sided paired t-test over users, Holm over runs",
        "baseline": "my_base & co",
    }
    best, base, level = rows
    assert (best["name"], base["name"], level["name"]) == ("100 % | _new_", "my_base & co", "level")
    assert set(best["metrics"]) == {"ndcg@10", "coverage@5"}
    assert set(best["metrics"]["ndcg@10"]) == {"mean", "se", "low", "high"}
    assert best["over_seeds"]["ndcg@10"] == {"means": [0.5, 0.6], "sd": pytest.approx(np.std([0.5, 0.6], ddof=1))}
    assert base["over_seeds"]["ndcg@10"]["sd"] is None
    assert best["difference"]["to"] == "my_base & co" and "difference" not in base
    assert list(best["difference"]["metrics"]) == ["ndcg@10"]
    assert set(best["difference"]["metrics"]["ndcg@10"]) == {"mean", "se", "low", "high", "p", "p_holm", "significant"}
    assert best["difference"]["metrics"]["ndcg@10"]["significant"] is True
    assert (best["training_seconds"], best["weights_bytes"], best["parameters"]) == (83.4, 3 << 20, 2_900_000)
    assert base["training_seconds"] is None and level["note"] == "level is level_"
    one_user = comparison(contender("a", [0.5, NAN]), contender("b", [0.25, NAN])).to_json()["runs"]
    assert one_user[1]["difference"]["metrics"]["ndcg@10"]["p"] is None


# ---------------------------------------------------------------- seeds


def finished(dataset: Dataset, model: Any, name: str) -> Path:
    return train(new_run(model, Path("runs/toy"), name), dataset, device="cpu", monitor=NullMonitor())[1]


def test_the_seeds_of_a_run_are_its_own_and_the_next(workplace: Path, films: Dataset) -> None:
    als = finished(films, ALS(factors=4, iterations=1, seed=7), "als")
    assert seeds_for(als, 1) == [7] and seeds_for(als, 3) == [7, 8, 9]
    assert seeds_for(finished(films, Popularity(), "popularity"), 3) == []
    last = finished(films, ALS(factors=4, iterations=1, seed=2**32 - 1), "last")
    with pytest.raises(UsageError, match="got seed=4294967296"):
        seeds_for(last, 2)
    with pytest.raises(UsageError, match="got 0 seeds, expected 1 or more"):
        seeds_for(als, 0)
    card = read_card(als)
    (als / "recommender.json").write_text(json.dumps(card | {"interrupted": True}))
    assert seeds_for(als, 1) == [7]
    with pytest.raises(UsageError, match=r"\(stopped by hand\); finish it with `recvae train --resume`"):
        seeds_for(als, 2)
    (als / "recommender.json").write_text(json.dumps(card | {"parts": {"first": {}}}))
    assert seeds_for(als, 3) == [], "what is made of other runs cannot be repeated by itself"
    (als / "recommender.json").write_text(json.dumps(card | {"hyperparameters": {"a": 1}}))
    with pytest.raises(BundleError, match="is damaged"):
        seeds_for(als, 2)


def test_a_repeat_is_the_same_model_with_another_seed_and_kept(
    workplace: Path, films: Dataset, fits: list[int]
) -> None:
    run = finished(films, MultDAE(latent_dim=4, epochs=2, batch_size=50, seed=1), "dae")
    again = repeat(run, 2, films, device="cpu", monitor=NullMonitor())
    assert again == Path("runs/toy/dae-seed-2") and fits == [2]
    fresh = MultDAE(latent_dim=4, epochs=2, batch_size=50, seed=2).fit(films.train, films.validation, device="cpu")
    model: Any = read_bundle(again).model
    assert (model.seed, model.latent_dim, model.epochs) == (2, 4, 2)
    for name, value in fresh.weights().items():
        np.testing.assert_array_equal(model.weights()[name], value)
    assert repeat(run, 2, films, device="cpu", monitor=NullMonitor()) == again and fits == [2]
    assert finished_runs(Path("runs/toy")) == ([run], [again])


def test_a_repeat_of_other_settings_or_data_is_no_repeat(workplace: Path, films: Dataset, fits: list[int]) -> None:
    run = finished(films, ALS(factors=4, iterations=1), "als")
    finished(films, ALS(factors=8, iterations=1, seed=1), "als-seed-1")
    made = repeat(run, 1, films, device="cpu", monitor=NullMonitor())
    assert made.name == "als-seed-1-2" and fits == [1], "what was there stays"
    assert repeat(run, 1, films, device="cpu", monitor=NullMonitor()) == made and fits == [1]
    changed = replace(films, manifest=films.manifest | {"fingerprint": "1" * 64})
    assert repeat(run, 1, changed, device="cpu", monitor=NullMonitor()).name == "als-seed-1-3" and fits == [1, 1]
    (made / "recommender.json").write_text("{")
    assert repeat(run, 1, films, device="cpu", monitor=NullMonitor()).name == "als-seed-1-4"


class Impatient(NullMonitor):
    """Stops a run by hand after its second epoch."""

    def epoch(self, record: Any) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt


def test_a_repeat_that_was_stopped_is_gone_on_with(workplace: Path, films: Dataset, fits: list[int]) -> None:
    settings: dict[str, Any] = {"latent_dim": 4, "epochs": 5, "batch_size": 50, "patience": 0}
    run = finished(films, MultDAE(**settings), "dae")
    with pytest.raises(KeyboardInterrupt):
        repeat(run, 1, films, device="cpu", monitor=Impatient())
    stopped = Path("runs/toy/dae-seed-1")
    assert read_card(stopped)["interrupted"] and finished_runs(stopped.parent) == ([run], [])
    seen: list[int] = []

    class Watching(NullMonitor):
        def epoch(self, record: Any) -> None:
            seen.append(record.epoch)

    assert repeat(run, 1, films, device="cpu", monitor=Watching()) == stopped
    assert seen == [3, 4, 5] and not read_card(stopped)["interrupted"]
    whole = MultDAE(**settings, seed=1).fit(films.train, films.validation, device="cpu")
    for name, value in whole.weights().items():
        np.testing.assert_array_equal(read_bundle(stopped).model.weights()[name], value)


# ---------------------------------------------------------------- the command


def compared(command: Command, *words: object) -> dict[str, Any]:
    said = command("compare", *words, "--metrics", ",".join(METRICS), "--format", "json")
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_the_command_compares_all_finished_runs_with_the_stronger_tuned_baseline(toy: Path, command: Command) -> None:
    command("train", *QUICK)
    command("train", "--model", "popularity")
    command("train", "--model", "popularity", "--name", "again")
    found = compared(command)
    rows = {row["name"]: row for row in found["runs"]}
    assert set(rows) == {"als", "popularity", "again", "als (baseline)", "ials"}
    reached = {
        label: read_card(Path("data/toy/baselines", model))["metrics"]["validation"]["ndcg@100"]
        for label, model in (("als (baseline)", "als"), ("ials", "ials"))
    }
    assert found["baseline"] == max(reached, key=reached.__getitem__)
    assert "of 4/8" in rows["als (baseline)"]["note"]
    assert all(
        "p_holm" in row["difference"]["metrics"]["ndcg@10"] for name, row in rows.items() if name != found["baseline"]
    )
    means = [row["metrics"]["ndcg@10"]["mean"] for row in found["runs"]]
    assert means == sorted(means, reverse=True)
    assert rows["als (baseline)"]["training_seconds"] >= 0
    for name, folder in (("als", "runs/toy/als"), ("als (baseline)", "data/toy/baselines/als")):
        assert rows[name]["weights_bytes"] == Path(folder, "weights.safetensors").stat().st_size
    assert rows["als"]["training_seconds"] == read_card(Path("runs/toy/als"))["training"]["seconds"]
    alone = compared(command, "again", "popularity", "--to", "popularity")
    assert [row["name"] for row in alone["runs"]] == ["again", "popularity"]
    assert alone["runs"][0]["difference"]["metrics"]["ndcg@10"]["p_holm"] == 1
    assert compared(command, "again", "als", "--to", "toy/als")["baseline"] == "als"
    assert compared(command, "again", "--to", "popularity")["baseline"] == "popularity", "the model, not compared yet"


def test_seeds_are_repeated_used_again_and_told(toy: Path, command: Command, fits: list[int]) -> None:
    command("train", *QUICK, "--seed", 5)
    command("train", "--model", "popularity")
    words = ("compare", "als", "popularity", "--to", "popularity", "--seeds", 3, "--metrics", "ndcg@10")
    said = command(*words)
    assert said.code == 0 and fits == [6, 7], said.err
    assert (
        "measured once: popularity (no seed to vary)" in said.err
        and "5, 6, 7" in said.out
        and "sd of ndcg@10" in said.out
    )
    assert command(*words).out == said.out and fits == [6, 7]
    found = compared(command, "als", "popularity", "--to", "popularity", "--seeds", 2)
    als = found["runs"][0]
    single = compared(command, "als", "als-seed-6", "--to", "als")["runs"]
    means = {row["name"]: row["metrics"]["ndcg@10"]["mean"] for row in single}
    assert als["seeds"] == [5, 6]
    assert als["over_seeds"]["ndcg@10"]["means"] == [means["als"], means["als-seed-6"]]
    assert als["metrics"]["ndcg@10"]["mean"] == pytest.approx(np.mean([*means.values()]))
    default = command("compare", "--to", "als")
    assert "left out, since these repeat a run with other seeds: als-seed-6, als-seed-7" in default.err
    assert "als-seed" not in default.out
    shutil.rmtree("runs/toy/als-seed-7")
    assert command(*words).code == 0 and fits == [6, 7, 7]


def test_stopping_a_comparison_says_how_to_go_on(toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    command("train", *QUICK)
    monkeypatch.setattr(repeats, "train", stop)
    said = command("compare", "als", "--to", "popularity", "--seeds", 2)
    assert (said.code, said.out) == (130, "") and "interrupted; run the same command again to continue" in said.err


def test_a_run_that_was_stopped_is_compared_only_by_name_and_with_a_remark(toy: Path, command: Command) -> None:
    command("train", *QUICK)
    command("train", "--model", "popularity")
    card = Path("runs/toy/als/recommender.json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"interrupted": True}))
    default = command("compare", "--to", "popularity")
    assert default.code == 2 and "got popularity alone" in default.err
    assert "left out, since they were interrupted: als; to include them, name all runs" in default.err
    named = command("compare", "als", "popularity", "--to", "popularity")
    said = "als was interrupted (stopped by hand): measured with its best weights so far"
    assert said in named.out
    models = {name: read_bundle(Path("runs/toy", name)) for name in ("als", "popularity")}
    assert said in compare(models, Dataset.load(Path("data/toy"))).to_markdown(), "in Python as well"
    assert "--seeds" not in named.err  # which would be refused


def test_each_format_is_printed_or_written(toy: Path, command: Command) -> None:
    command("train", "--model", "popularity")
    command("train", *QUICK)
    words = ("compare", "--to", "als", "--metrics", ",".join(METRICS))
    table = command(*words)
    assert table.out.startswith("toy: 18 test users; split strong") and "┃ run" in table.out
    assert max(map(len, [line for line in table.out.splitlines() if "│" in line])) <= 100
    assert "*± 0." in table.out and "p (Holm)" in table.out
    for form, ending, start in (("markdown", "md", "**toy"), ("latex", "tex", "% needs"), ("json", "json", "{")):
        printed = command(*words, "--format", form)
        assert printed.code == 0 and printed.out.startswith(start), printed.err
        written = command(*words, "--output", f"out/comparison.{ending}")
        assert written.out == "" and f"comparison: out/comparison.{ending}" in written.err
        assert Path(f"out/comparison.{ending}").read_text() == printed.out
    command(*words, "--output", "table.txt")
    assert Path("table.txt").read_text().split() == table.out.split()
    assert command(*words, "--format", "json", "--output", "odd.txt").code == 0 and json.loads(
        Path("odd.txt").read_text()
    )


def test_a_table_of_many_metrics_stays_readable_at_100_columns(toy: Path, command: Command) -> None:
    command("train", "--model", "popularity", "--name", "a-name-of-some-length")
    metrics = ",".join(f"{name}@{k}" for name in ("recall", "ndcg", "map") for k in (5, 10, 20))
    said = command("compare", "--to", "popularity", "--metrics", metrics)
    lines = said.out.splitlines()
    assert max(len(line) for line in lines if line[:1] in "┏┃│└") <= 100
    heads = [line for line in lines if line.startswith("┃")]
    assert len(heads) > 2 and all(metric in "".join(heads) for metric in metrics.split(","))
    assert "…" not in said.out


def test_the_command_named_as_the_next_one_can_be_typed(toy: Path, command: Command) -> None:
    command("train", *QUICK)
    said = command("compare", "--to", "popularity")
    line = said.err.rpartition("next: ")[2].strip()
    assert line == "recvae compare runs/toy/als --to popularity --data data/toy --seeds 3"
    said = command(*shlex.split(line)[1:])
    assert said.code == 0, said.err
    line = said.err.rpartition("next: ")[2].strip()
    assert command(*shlex.split(line)[1:]).code == 0 and Path("comparison.tex").is_file()


def test_runs_on_different_data_are_refused_with_their_fingerprints_side_by_side(toy: Path, command: Command) -> None:
    small = (
        "preprocess",
        "synthetic",
        "--users",
        100,
        "--items",
        80,
        "--events",
        2000,
        "--name",
        "other",
        "--overwrite",
    )
    command("train", "--model", "popularity")
    command(*small, "--split", "leave-last-out")
    command("train", "--model", "popularity", "--data", "other")
    said = command("compare", "toy/popularity", "other/popularity")
    fingerprints = [Dataset.load(Path("data") / name).fingerprint[:12] for name in ("toy", "other")]
    lines = said.err.partition("error: ")[2].splitlines()
    assert (said.code, said.out) == (2, "")
    assert lines[0].startswith("runs/other/popularity was not trained on toy as it is now")
    assert lines[1].split()[:4] == ["runs/toy/popularity", "fingerprint", fingerprints[0], "toy:"]
    assert lines[2].split()[:4] == ["runs/other/popularity", "fingerprint", fingerprints[1], "other:"]
    assert "split strong" in lines[1] and "split leave-last-out" in lines[2] and "toy as it is now" in lines[3]
    assert "leave out runs/other/popularity, or train it again on toy" in lines[4]
    ambiguous = command("compare", "popularity")
    assert ambiguous.code == 2 and "several data sets; name one of: toy/popularity, other/popularity" in ambiguous.err
    for words in (["popularity"], []):  # --data tells which run is meant
        said = command("compare", *words, "--data", "toy", "--to", "als")
        assert said.code == 0 and "comparing runs/toy/popularity on" in said.err, said.err
    assert "none" in (refused := command("compare", "--data", "none")).err and refused.code == 2
    command(*small, "--seed", 1)
    said = command("compare", "other/popularity")
    assert said.code == 2 and fingerprints[1] in said.err and "prepare the data as it was" in said.err


def test_the_help_shows_examples(command: Command) -> None:
    said = command("compare", "--help")
    assert said.code == 0 and "recvae compare --output comparison.tex" in said.out.partition("Options")[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "pdf"], "got --format pdf, expected one of: table, markdown, latex, html, csv, json"),
        (["--seeds", "0"], "got 0 seeds, expected 1 or more"),
        (["--to", "nobody"], "got --to nobody, expected one of the runs compared (popularity) or a model"),
        (["--to", "popularity"], "got popularity alone, expected two or more to compare"),
        (["--metrics", "recal@20"], "did you mean recall@20?"),
        (["--split", "train"], "got split 'train', expected one of: validation, test"),
        (["--output", "data"], "got --output data, which is a folder"),
        (["nothing"], "no run 'nothing' in runs"),
        (["--runs-dir", "none"], "no run in none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_comparison_is_refused_before_anything_is_done(
    words: list[str], said: str, toy: Path, command: Command
) -> None:
    command("train", "--model", "popularity")
    before = sorted(str(path) for path in Path().rglob("*"))
    found = command("compare", *words)
    assert (found.code, found.out) == (2, "") and said in found.err, found.err
    assert found.err.count("error: ") == 1 and "comparing" not in found.err
    assert sorted(str(path) for path in Path().rglob("*")) == before


def test_a_damaged_run_is_refused_before_anything_is_trained(toy: Path, command: Command, fits: list[int]) -> None:
    command("train", *QUICK)
    command("train", "--model", "popularity")
    Path("runs/toy/popularity/weights.safetensors").write_bytes(b"12")
    said = command("compare", "als", "popularity", "--to", "als", "--seeds", 2)
    assert said.code == 1 and "should have" in said.err and fits == []


def test_contenders_measured_by_hand_make_a_comparison(films: Dataset) -> None:
    wanted = parse_metrics("ndcg@10")
    rows = [measure(name, Popularity().fit(films.train), films.test, wanted) for name in ("one", "two")]
    found = comparison_of(rows, films, "test", ["ndcg@10"], "two")
    assert found.n_users == films.test.n_users - films.test.n_without_target()
    assert found.tests("ndcg@10")["one"].p == 1 and "Example" in (compare.__doc__ or "")
