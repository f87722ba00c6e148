"""From per-user values to a comparison: intervals, paired differences, who is left out, how baselines are tuned."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from recvae.datasets.dataset import Dataset
from recvae.errors import DataError, UsageError
from recvae.evaluation.baselines import cached_baseline, describe_choice, fit_baseline, strongest, validation_of
from recvae.evaluation.comparison import Comparison, comparison_of
from recvae.evaluation.contenders import Contender, measure
from recvae.evaluation.evaluate import Summary, evaluate, main_metric, summarise
from recvae.interactions import HeldOut
from recvae.metrics import parse_metrics
from recvae.models import ALS, IALS, MODELS, Popularity
from recvae.models.common.hyperparameters import grid_of
from recvae.runs.run import new_run, train
from recvae.training.records import NullMonitor

METRICS = parse_metrics("recall@3,recall_all@3,ndcg@10,precision@3,hit_rate@3,map@10,mrr@10,coverage@3")
GRID = {"factors": (2, 8), "regularization": (0.1, 50.0), "alpha": (10.0,)}
NAN = float("nan")


@pytest.fixture(scope="module")
def films(toy_data: Path) -> Dataset:
    return Dataset.load(toy_data)


def contender(name: str, baseline: bool = False, coverage: float = 0.5, **values: list[float]) -> Contender:
    per_user = {metric.replace("_at_", "@"): np.array(value) for metric, value in values.items()}
    return Contender(
        name=name,
        model="als",
        hyperparameters={},
        per_user=per_user,
        overall={"coverage@3": coverage},
        is_baseline=baseline,
        seed_means={metric: [0.5] for metric in (*per_user, "coverage@3")},
    )


def report(
    *contenders: Contender, metrics: tuple[str, ...] = ("ndcg@5", "coverage@3"), to: str | None = None
) -> Comparison:
    n_users = len(next(iter(contenders[0].per_user.values())))
    missing = int(np.isnan(next(iter(contenders[0].per_user.values()))).sum())
    manifest = {"name": "made up", "protocol": {"split": "none"}, "fingerprint": "0"}
    return Comparison(
        manifest=manifest,
        split="test",
        user_ids=np.arange(n_users),
        n_users=n_users - missing,
        metrics=list(metrics),
        contenders=list(contenders),
        baseline=to,
    )


@given(st.lists(st.floats(0, 1) | st.just(NAN), max_size=40))
def test_an_interval_is_student_s_over_the_users_that_have_a_value(values: list[float]) -> None:
    found = summarise(np.array(values))
    there = np.array([value for value in values if not np.isnan(value)])
    if len(there) < 2:
        assert found == Summary(there[0] if len(there) else None)
        return
    test = scipy.stats.ttest_1samp(there, 0) if there.std() else None
    assert found.mean == pytest.approx(there.mean()) and found.se == pytest.approx(scipy.stats.sem(there))
    if test is not None and np.isfinite(test.statistic):
        expected = test.confidence_interval(0.95)
        assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_an_interval_of_three_users_is_that_of_a_printed_table() -> None:
    found = summarise(np.array([0.1, 0.2, 0.6]))
    half = 4.302653 * np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom, 97.5 %
    assert (found.low, found.high) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))


def test_a_difference_is_paired_by_user() -> None:
    ours = contender("ours", ndcg_at_5=[0.5, 0.9, NAN, 0.4])
    theirs = contender("theirs", baseline=True, ndcg_at_5=[0.4, 0.7, NAN, 0.4])
    found = report(ours, theirs, to="theirs").tests("ndcg@5")["ours"].difference
    assert found.mean == pytest.approx(0.1)  # of 0.1, 0.2 and 0
    assert found.se == pytest.approx(0.1 / np.sqrt(3)), "and not that of two groups of users"
    assert report(ours, theirs, to="theirs").tests("coverage@3") == {}


def test_the_baseline_is_the_best_on_validation_whatever_it_reaches_on_test(films: Dataset) -> None:
    popular = fit_baseline("popularity", films)
    bundles = {
        name: replace(popular, metrics={"validation": {"ndcg@100": value}})
        for name, value in (("weak", 0.1), ("strong", 0.3), ("middling", 0.2))
    }
    values = "weak 0.1000, strong 0.3000, middling 0.2000"
    assert strongest(bundles) == ("strong", f"highest validation ndcg@100: {values}")
    assert strongest({"weak": bundles["weak"]}) == ("weak", "the only baseline")
    blind = {name: replace(bundle, metrics={}) for name, bundle in bundles.items()}
    said = "first of weak, strong, middling; none has a validation ndcg@100"
    assert strongest(blind) == ("weak", said)
    values = "weak none, strong none, middling none, late 0.1000"
    assert strongest({**blind, "late": bundles["weak"]}) == ("late", f"highest validation ndcg@100: {values}")


def test_without_a_baseline_there_is_no_difference(films: Dataset) -> None:
    ours = contender("ours", ndcg_at_5=[0.5, 0.9], coverage=0.1)
    other = contender("other", ndcg_at_5=[0.6, 0.6], coverage=0.2)
    for found in (report(ours), report(ours, other)):
        content = found.to_json()
        assert content["baseline"] is None and found.tests("ndcg@5") == {}
        assert not any("difference" in run for run in content["runs"])
        assert "difference" not in found.to_markdown() and "Holm" not in found.to_markdown()
    assert "**" not in report(ours).to_markdown().partition("|")[2], "alone, it is not the best of anything"
    differences = [run.get("difference", {}).get("to") for run in report(ours, other, to="other").to_json()["runs"]]
    assert differences == ["other", None]


def test_the_last_ndcg_decides_else_the_first_metric_with_values_per_user() -> None:
    one = contender("one", ndcg_at_5=[0.5, 0.9])
    for metrics, main in (
        (("recall@5", "ndcg@5", "ndcg@10", "map@5"), "ndcg@10"),
        (("coverage@3", "recall@5", "map@5"), "recall@5"),
        (("coverage@3",), "coverage@3"),
    ):
        assert report(one, metrics=metrics).main_metric == main_metric(metrics) == main


def test_a_metric_of_all_users_at_once_has_no_interval_and_no_difference() -> None:
    ours = contender("ours", ndcg_at_5=[0.5, 0.9])
    theirs = contender("theirs", baseline=True, ndcg_at_5=[0.1, 0.2])
    run = report(ours, theirs, to="theirs").to_json()["runs"][0]
    assert run["metrics"]["coverage@3"] == {"mean": 0.5, "se": None, "low": None, "high": None}
    assert set(run["difference"]["metrics"]) == {"ndcg@5"}


def test_users_without_a_target_are_left_out_and_counted(blocks: Dataset, tmp_path: Path) -> None:
    without = blocks.test.targets.toarray()
    without[[0, 5]] = 0
    test = HeldOut(fold_in=blocks.test.fold_in, targets=sp.csr_matrix(without))
    model = Popularity().fit(blocks.train)
    all_users, _ = evaluate(model, blocks.test, METRICS)
    per_user, overall = evaluate(model, test, METRICS)
    others = np.delete(np.arange(test.n_users), [0, 5])
    for metric, values in per_user.items():
        assert np.isnan(values[[0, 5]]).all(), metric
        np.testing.assert_array_equal(values[others], all_users[metric][others])
    assert list(overall) == ["coverage@3"] and len(per_user) == 7
    data = replace(blocks, test=test)
    found = comparison_of([measure("popularity", model, test, METRICS)], data, "test", [str(m) for m in METRICS])
    content = found.to_json()
    assert (content["n_users"], content["n_users_without_target"]) == (test.n_users - 2, 2)
    assert content["runs"][0]["metrics"]["ndcg@10"]["mean"] == pytest.approx(per_user["ndcg@10"][others].mean())
    found.write_per_user(tmp_path / "users.parquet")
    table = pq.read_table(tmp_path / "users.parquet")
    assert table["ndcg@10"].null_count == 2 and table["user"].to_pylist() == test.user_ids.tolist()


def test_the_command_says_how_many_users_are_left_out(workplace: Path, command: Callable[..., Any]) -> None:
    Path("train.txt").write_text("\n".join(f"{user} {user} {user + 1} {user + 2} 9" for user in range(8)))
    Path("test.txt").write_text("\n".join(f"{user} {user + 3}" for user in range(5)))
    command("preprocess", "--train", "train.txt", "--test", "test.txt", "--name", "pair")
    command("train", "--model", "popularity")
    said = command("evaluate", "--baselines", "none")
    assert "pair: 5 test users (3 users without a target are left out); split ready-made" in said.out
    report = json.loads(command("evaluate", "--baselines", "none", "--json").out)
    assert (report["n_users"], report["n_users_without_target"]) == (5, 3)


def test_the_best_of_each_metric_is_marked_in_the_table(
    toy: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ALS, "grid", {"factors": (8,)})
    monkeypatch.setattr(IALS, "grid", {"factors": (8,)})
    command("train", "--model", "als", "--set", "factors=2")
    metrics = ["recall@5", "ndcg@10", "coverage@5"]
    words = ("evaluate", "--metrics", ",".join(metrics))
    runs = json.loads(command(*words, "--json").out)["runs"]
    lines = command(*words).out.partition("difference")[0].splitlines()
    table = [line.split("│")[1:-1] for line in lines if line.startswith("│")]
    assert [row[0].strip() for row in table] == [run["name"] for run in runs]
    for column, metric in enumerate(metrics, start=1):
        means = [run["metrics"][metric]["mean"] for run in runs]
        assert ["*" in row[column] for row in table] == [mean == max(means) for mean in means]
        assert all(row[column].strip().startswith(f"{mean:.4f}") for row, mean in zip(table, means, strict=True))


def test_without_a_target_or_a_metric_there_is_nothing_to_measure(blocks: Dataset) -> None:
    model = Popularity().fit(blocks.train)
    nothing = sp.csr_matrix(np.zeros(blocks.test.targets.shape, dtype=np.float32))
    with pytest.raises(DataError, match="none of the held-out users has a target"):
        evaluate(model, HeldOut(fold_in=blocks.test.fold_in, targets=nothing), METRICS)
    with pytest.raises(UsageError, match="got no metric"):
        evaluate(model, blocks.test, [])


def test_the_size_of_a_block_never_changes_a_metric(
    model_name: str,
    make_model: Callable[..., Any],
    small_settings: Callable[[str], dict[str, Any]],
    films: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model(model_name, **small_settings(model_name)).fit(films.train, device="cpu")
    whole = evaluate(model, films.test, METRICS)
    for rows in (1, 7, films.test.n_users - 1):
        monkeypatch.setattr("recvae.evaluation.evaluate.block_rows", lambda _, rows=rows: rows)
        monkeypatch.setattr("recvae.models.common.scoring.block_rows", lambda _, rows=rows: -(-rows // 3))
        blockwise = evaluate(model, films.test, METRICS)
        assert blockwise[1] == whole[1]
        for metric, values in whole[0].items():
            np.testing.assert_array_equal(blockwise[0][metric], values, err_msg=f"{metric} in blocks of {rows}")


def test_a_baseline_is_the_point_of_its_grid_that_is_best_on_validation(
    films: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ALS, "grid", GRID)
    bundle = fit_baseline("als", films)
    reached = []
    for point in grid_of(ALS.grid):
        per_user, _ = evaluate(ALS(**point).fit(films.train), films.validation, parse_metrics("ndcg@100"))
        reached.append({**point, "ndcg@100": pytest.approx(float(np.nanmean(per_user["ndcg@100"])))})
    assert len(reached) == 4 and bundle.training.tried == reached
    assert isinstance(bundle.training.tried, list)
    best = max(bundle.training.tried, key=lambda tried: tried["ndcg@100"])
    assert {name: getattr(bundle.model, name) for name in GRID} == {name: best[name] for name in GRID}
    assert best is not bundle.training.tried[0], "the first one would be no choice"
    assert list(bundle.metrics) == ["validation"] and bundle.metrics["validation"]["ndcg@100"] == best["ndcg@100"]
    assert set(bundle.metrics["validation"]) == {"recall@20", "recall@50", "ndcg@100"}, "as every run has them"


@pytest.mark.parametrize("name", MODELS)
def test_a_baseline_is_tried_at_few_points(name: str) -> None:
    """Each is a fit, on large data of minutes; a search that is as long as one likes is `recvae tune`."""
    assert len(grid_of(MODELS[name].grid or MODELS[name].space)) <= 30


def test_a_baseline_without_a_grid_is_measured_on_validation_too(films: Dataset) -> None:
    bundle = fit_baseline("popularity", films)
    per_user, _ = evaluate(bundle.model, films.validation, parse_metrics("ndcg@100"))
    assert validation_of(bundle) == pytest.approx(float(np.nanmean(per_user["ndcg@100"]))) and not bundle.training.tried


@pytest.mark.slow
def test_tuning_and_training_never_look_at_test(
    films: Dataset,
    make_model: Callable[..., Any],
    small_settings: Callable[[str], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(ALS, "grid", GRID)
    blind = replace(films, test=None)  # type: ignore[arg-type]  # any look at it is an error
    for name in MODELS:
        bundles = []
        for place, dataset in (("seeing", films), ("blind", blind)):
            run = new_run(make_model(name, **small_settings(name)), tmp_path / place, name)
            bundles.append(train(run, dataset, device="cpu", monitor=NullMonitor())[0])
        for key, value in bundles[0].model.weights().items():
            np.testing.assert_array_equal(bundles[1].model.weights()[key], value)
        assert bundles[0].metrics == bundles[1].metrics
    seeing, blindly = fit_baseline("als", films), fit_baseline("als", blind)
    assert seeing.training == replace(blindly.training, seconds=seeing.training.seconds)
    for key, value in seeing.model.weights().items():
        np.testing.assert_array_equal(blindly.model.weights()[key], value)


def test_a_note_names_the_grid_and_what_was_chosen_of_it(films: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ALS, "grid", {"factors": (4,), "regularization": (1.0, 50.0)})
    bundle = fit_baseline("als", films)
    chosen = f"{bundle.model.regularization:g}"  # type: ignore[attr-defined]
    expected = f"als chosen on validation ndcg@100: factors 4 of 4, regularization {chosen} of 1/50"
    assert describe_choice(bundle) == expected
    assert describe_choice(fit_baseline("popularity", films)) == "", "there is nothing to choose"


def test_a_kept_baseline_is_used_only_for_the_same_data(films: Dataset, tmp_path: Path) -> None:
    told = []
    kept = cached_baseline("popularity", films, tmp_path, lambda *progress: told.append(progress))
    assert told == [(0, 1, "")]
    again = cached_baseline("popularity", films, tmp_path, lambda *progress: told.append(progress))
    np.testing.assert_array_equal(again.model.weights()["counts"], kept.model.weights()["counts"])
    assert len(told) == 1
    other = replace(films, train=films.train[:50], manifest=films.manifest | {"fingerprint": "1" * 64})
    changed = cached_baseline("popularity", other, tmp_path, lambda *progress: told.append(progress))
    assert len(told) == 2 and changed.model.weights()["counts"].sum() == other.train.nnz


def test_a_baseline_kept_by_an_earlier_version_is_read_or_fitted_again(films: Dataset, tmp_path: Path) -> None:
    fitted: list[float] = []

    def count(done: float, total: float | None, note: str) -> None:
        fitted.append(done)

    cached_baseline("popularity", films, tmp_path, count)
    card = tmp_path / "popularity" / "recommender.json"
    before = json.loads(card.read_text())
    earlier = {"seconds": 0.01, "chosen_on": "validation", "grid": {}, "tried": []}
    card.write_text(json.dumps(before | {"training": earlier}))
    assert cached_baseline("popularity", films, tmp_path, count).training.to_json() == earlier and len(fitted) == 1
    card.write_text(json.dumps(before | {"training": earlier, "metrics": {}}))  # which had none without a grid
    assert validation_of(cached_baseline("popularity", films, tmp_path, count)) and len(fitted) == 2
    for damage in ({"training": {"seconds": "long"}}, {"training": {"grid": 3}}, {"training": []}):
        card.write_text(json.dumps(before | damage))
        assert validation_of(cached_baseline("popularity", films, tmp_path, count))
    assert len(fitted) == 5


def test_a_model_tuned_as_a_baseline_chooses_its_epoch_on_validation(
    films: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS["multdae"]
    monkeypatch.setattr(
        model, "space", {"epochs": (6,), "patience": (1,), "learning_rate": (0.05,), "latent_dim": (4,)}
    )
    tuned: Any = fit_baseline("multdae", films).model
    assert tuned.history_.best_epoch == 1 + int(np.argmax([record.ndcg for record in tuned.log_]))
    assert all(record.ndcg is not None for record in tuned.log_)
