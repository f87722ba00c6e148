"""Training, tuning and blending by another metric than NDCG@100, also your own: what is kept, said and refused."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recvae.bundles.bundle import read_bundle
from recvae.bundles.card import read_card
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, UsageError
from recvae.evaluation.evaluate import evaluate, summarise
from recvae.interactions import HeldOut
from recvae.metrics import Background, Metric, parse_metrics
from recvae.models import ALS, EASE, Blend, MultDAE, Popularity
from recvae.runs.refitting import chosen_by
from recvae.runs.repeats import repeat, seeds_for
from recvae.runs.run import new_run, train
from recvae.training.checkpoints import Checkpoint
from recvae.training.records import EpochRecord, NullMonitor, StopTraining
from recvae.training.validation import objective, validation_means, validation_ndcg
from recvae.tuning import tune

Command = Callable[..., Any]
QUICK = ("--model", "multdae", "--set", "epochs=4", "--set", "latent_dim=8", "--set", "batch_size=50")


def worst(ranked: np.ndarray, targets: sp.csr_matrix, k: int) -> np.ndarray:
    """Return minus the number of hits, so that the worst epoch is the best; always below 0 or 0."""
    return -np.array([targets[user, items[items >= 0]].sum() for user, items in enumerate(ranked)])


WORST = Metric("worst", 4, worst)
OWN = '''
import numpy as np

def spread(ranked, targets, k):
    """Return the share of different tens among the columns shown."""
    return [len({item // 10 for item in items if item >= 0}) / k for items in ranked]

def text(ranked, targets, k):
    return ["a"] * len(ranked)

number = 3
'''


@pytest.fixture
def own(workplace: Path) -> Iterator[Path]:
    """Write metrics of one's own into the current folder."""
    (workplace / "my_choice.py").write_text(OWN)
    yield workplace
    sys.modules.pop("my_choice", None)


def dae(**changes: Any) -> MultDAE:
    return MultDAE(**({"latent_dim": 8, "epochs": 8, "batch_size": 10, "learning_rate": 0.01, "seed": 3} | changes))


def records_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---------------------------------------------------------------- in Python


def test_the_epoch_that_is_kept_is_the_best_by_the_metric(blocks: Dataset) -> None:
    usual = dae().fit(blocks.train, blocks.validation, device="cpu")
    model = dae().fit(blocks.train, blocks.validation, device="cpu", select_by="recall@4")
    reached: list[float] = []

    class Watch(NullMonitor):
        """Measures after each epoch as `evaluate` does."""

        def epoch(self, record: EpochRecord) -> None:  # noqa: ARG002
            watched.n_items_ = blocks.train.shape[1]
            per_user, _ = evaluate(watched, blocks.validation, "recall@4")
            reached.append(summarise(per_user["recall@4"]).mean or 0.0)
            watched.n_items_ = 0

    watched = dae()
    watched.fit(blocks.train, blocks.validation, device="cpu", select_by=Metric("recall", 4), monitor=Watch())
    values = [record.value for record in model.log_]
    assert values == pytest.approx(reached) and {record.metric for record in model.log_} == {"recall@4"}
    assert [record.ndcg for record in model.log_] == [record.ndcg for record in usual.log_], "NDCG@100 stays in the log"
    assert model.history_.best_epoch == 1 + int(np.argmax(reached)) and model.history_.best_value == max(reached)
    assert model.training_summary().select_by == "recall@4"
    assert usual.training_summary().select_by == "ndcg@100" == usual.history_.metric
    assert [record.value for record in usual.log_] == [record.ndcg for record in usual.log_]


def test_a_metric_of_your_own_chooses_even_below_0_and_stops_early(blocks: Dataset) -> None:
    model = dae(epochs=12, patience=2).fit(blocks.train, blocks.validation, device="cpu", select_by=WORST)
    values = [record.value or 0.0 for record in model.log_]
    assert max(values) <= 0 and min(values) < 0
    assert model.history_.best_epoch == 1 + int(np.argmax(values)) == next(r.epoch for r in model.log_[::-1] if r.best)
    assert model.history_.stopped_early and len(model.log_) == model.history_.best_epoch + 2
    assert model.history_.metric == f"{__name__}:worst@4"
    best = dae(epochs=12).fit(blocks.train, blocks.validation, device="cpu")
    assert best.history_.best_epoch != model.history_.best_epoch


def test_without_validation_users_nothing_is_chosen(blocks: Dataset) -> None:
    nobody = HeldOut(fold_in=blocks.validation.fold_in, targets=sp.csr_matrix(blocks.validation.targets.shape))
    for held_out in (None, nobody):
        model = dae(epochs=2).fit(blocks.train, held_out, device="cpu", select_by="recall@4")
        assert model.history_.best_epoch == 2 and model.training_summary().select_by is None
        assert [record.value for record in model.log_] == [None, None]


def test_validation_means_are_those_of_evaluate_whatever_the_block(blocks: Dataset) -> None:
    model = EASE(l2=5.0).fit(blocks.train)
    metrics = parse_metrics("ndcg@100,tail_recall@5,hit_rate@1")
    known = Background(train=blocks.train, fold_in=blocks.validation.fold_in)
    expected = evaluate(model, blocks.validation, metrics, train=blocks.train)[0]
    for rows in (None, 1, 7):
        found = validation_means(model.scores_of, blocks.validation, metrics, rows, known)
        assert found == pytest.approx({name: float(np.nanmean(values)) for name, values in expected.items()})
    assert validation_ndcg(model.scores_of, blocks.validation) == pytest.approx(np.nanmean(expected["ndcg@100"]))


def test_a_blend_chooses_its_weight_by_it_and_its_parts_their_epochs(blocks: Dataset) -> None:
    for metric in ("tail_recall@4", WORST, "hit_rate@1"):
        model = Blend.of(dae(epochs=2), EASE(l2=5.0)).fit(
            blocks.train, blocks.validation, device="cpu", select_by=metric
        )
        (wanted,) = parse_metrics([metric])
        tried = model.training_summary().tried
        assert isinstance(tried, dict) and model.training_summary().select_by == wanted.path
        assert model.parts_["first"].history_.metric == wanted.path  # type: ignore[attr-defined]
        assert tried[str(model.weight_)] == max(tried.values())
        per_user, _ = evaluate(model, blocks.validation, [metric], train=blocks.train)
        assert tried[str(model.weight_)] == pytest.approx(float(np.nanmean(per_user[str(wanted)])))
    fixed = Blend.of(dae(epochs=1), EASE(l2=5.0), weight=0.5).fit(blocks.train, blocks.validation, select_by="recall@4")
    assert fixed.training_summary().select_by is None, "nothing was left to choose"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ndgc@10", r"^got metric 'ndgc@10', expected NAME@K .*; did you mean ndcg@10\?$"),
        ("ndcg", r"^got metric 'ndcg', expected a whole number after the @"),
        (
            "ndcg@10,recall@20",
            r"^got 2 metrics to choose by \(ndcg@10,recall@20\), expected one; choose by ndcg@10",
        ),
        (
            "coverage@10",
            r"^got coverage@10 to choose by, which is of all lists at once, expected a metric with",
        ),
        ("gini@10", r"^got gini@10 to choose by, which is of all lists at once"),
        ("novelty@10", r"^got novelty@10 to choose by, but a list with more of it is not better, expected one of: rec"),
        ("popularity_miscalibration@10", r"^got popularity_miscalibration@10 to choose by, but a list with more of it"),
        ("ndcg@33", r"^got ndcg@33 to choose by, expected a K of 32 or less: there are 32 items$"),
        (Metric("text", 3, lambda *_: ["a"] * 20), r"^the metric text@3 failed with ValueError"),
        (Metric("one", 3, lambda *_: 0.5), r"^got values of shape \(\) from the metric one@3, expected \(20,\)"),
    ],
)
def test_what_cannot_choose_is_refused_before_training(blocks: Dataset, given: Any, message: str) -> None:
    class Never(NullMonitor):
        def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002
            raise AssertionError("training has begun")

    with pytest.raises(UsageError, match=message):
        dae().fit(blocks.train, blocks.validation, device="cpu", select_by=given, monitor=Never())


def test_a_metric_that_no_validation_user_has_a_value_of_is_refused(blocks: Dataset) -> None:
    head = np.argsort(-np.bincount(blocks.train.indices), kind="stable")[:6]
    mask = np.zeros(32)
    mask[head] = 1
    targets = sp.csr_matrix(blocks.validation.targets.multiply(mask))
    held_out = HeldOut(fold_in=blocks.validation.fold_in, targets=targets)
    with pytest.raises(UsageError, match=r"^got tail_recall@4 to choose by, but no validation user has a value of it"):
        dae().fit(blocks.train, held_out, device="cpu", select_by="tail_recall@4")


def test_ndcg_at_100_may_choose_among_fewer_items(blocks: Dataset) -> None:
    assert dae(epochs=1).fit(blocks.train, blocks.validation, device="cpu", select_by="ndcg@100").log_[0].value
    assert objective("NDCG@100") == Metric("ndcg", 100)


# ---------------------------------------------------------------- resumed, repeated, refitted


def interrupted(path: Path, blocks: Dataset, select_by: Any) -> MultDAE:
    """Train 3 of 8 epochs and leave a checkpoint."""

    class Stop(NullMonitor):
        def epoch(self, record: EpochRecord) -> StopTraining | None:
            return StopTraining("enough") if record.epoch == 3 else None

    return dae().fit(
        blocks.train,
        blocks.validation,
        device="cpu",
        monitor=Stop(),
        checkpoint=Checkpoint(path, {}),
        select_by=select_by,
    )


def test_a_resumed_run_chooses_by_the_same_metric_as_in_one_go(blocks: Dataset, tmp_path: Path) -> None:
    interrupted(tmp_path / "state", blocks, WORST)
    resumes = Checkpoint(tmp_path / "state", {}, resumes=True)
    how: dict[str, Any] = {"device": "cpu"}
    for other in ("recall@4", "ndcg@100"):
        with pytest.raises(
            BundleError,
            match=rf"has chosen its epochs by [\w.]+:worst@4, this run chooses by {other}; resume",
        ):
            dae().fit(blocks.train, blocks.validation, checkpoint=resumes, select_by=other, **how)
    resumed = dae().fit(blocks.train, blocks.validation, checkpoint=resumes, select_by=WORST, **how)
    straight = dae().fit(blocks.train, blocks.validation, select_by=WORST, **how)
    assert [(r.value, r.ndcg, r.best) for r in resumed.log_] == [(r.value, r.ndcg, r.best) for r in straight.log_]
    assert resumed.history_.best_epoch == straight.history_.best_epoch
    for name, value in straight.weights().items():
        np.testing.assert_array_equal(resumed.weights()[name], value)


def test_a_checkpoint_of_an_earlier_version_has_chosen_by_ndcg(blocks: Dataset, tmp_path: Path) -> None:
    interrupted(tmp_path / "state", blocks, "ndcg@100")
    checkpoint = Checkpoint(tmp_path / "state", {}, resumes=True)
    state = checkpoint.load()
    progress = {key: value for key, value in state.progress.items() if key not in ("metric", "best_value")}
    progress["records"] = [
        {key: value for key, value in record.items() if key not in ("metric", "value")}
        for record in progress["records"]
    ]
    checkpoint.save(replace(state, progress=progress))
    resumed = dae().fit(blocks.train, blocks.validation, device="cpu", checkpoint=checkpoint)
    straight = dae().fit(blocks.train, blocks.validation, device="cpu")
    assert [(r.value, r.best) for r in resumed.log_] == [(r.value, r.best) for r in straight.log_]


def finished(dataset: Dataset, name: str, metric: Metric, **changes: Any) -> Path:
    run = new_run(dae(epochs=2, **changes), Path("runs/toy"), name, select_by=metric)
    return train(run, dataset, device="cpu", monitor=NullMonitor())[1]


def test_a_repeat_chooses_by_the_metric_of_its_run(workplace: Path, toy_data: Path) -> None:
    dataset = Dataset.load(toy_data)
    by_recall = finished(dataset, "one", Metric("recall", 5))
    finished(dataset, "one-seed-4", Metric("ndcg", 100), seed=4)  # the same model and seed, chosen by another metric
    place = repeat(by_recall, 4, dataset, device="cpu", monitor=NullMonitor())
    assert place.name == "one-seed-4-2" and read_card(place)["training"]["select_by"] == "recall@5"
    assert repeat(by_recall, 4, dataset, device="cpu", monitor=NullMonitor()) == place, "used again"
    als = train(new_run(ALS(factors=4), Path("runs/toy"), "als"), dataset, monitor=NullMonitor())[1]
    card = read_card(als)
    card["training"]["select_by"] = "recall@5"  # as `tune` writes it; the fit itself chooses nothing
    (als / "recommender.json").write_text(json.dumps(card))
    place = repeat(als, 1, dataset, monitor=NullMonitor())
    assert repeat(als, 1, dataset, monitor=NullMonitor()) == place, "used again"
    own_metric = finished(dataset, "own", WORST)
    assert seeds_for(own_metric, 1) == [3]
    with pytest.raises(UsageError, match=r"own, which was chosen by [\w.]+:worst@4, a metric of your own; use one"):
        seeds_for(own_metric, 2)


def test_a_refit_says_by_what_its_epochs_were_chosen(workplace: Path, toy_data: Path) -> None:
    dataset = Dataset.load(toy_data)
    chosen = chosen_by(finished(dataset, "one", Metric("recall", 5)), dataset, Path("runs"))
    assert chosen.refit.select_by == "recall@5" and chosen.refit.metrics["recall@5"] >= 0
    assert chosen.refit.describe().endswith("chosen by one on validation recall@5; trained on train+validation")
    older = {key: value for key, value in chosen.refit.to_json().items() if key != "select_by"}
    assert type(chosen.refit).from_json(older).describe().endswith("by one on validation; trained on train+validation")
    with pytest.raises(TypeError, match=r"^got select_by 3 of a refit$"):
        type(chosen.refit).from_json({**older, "select_by": 3})


# ---------------------------------------------------------------- tuning


def test_a_search_by_another_metric_is_another_study(workplace: Path, toy_data: Path) -> None:
    dataset, how = Dataset.load(toy_data), {"trials": 3, "device": "cpu"}
    found = tune("ease", dataset, Path("study"), select_by="recall@5", **how)
    for trial in found.trials:
        model = EASE(**trial.settings).fit(dataset.train)
        per_user, _ = evaluate(model, dataset.validation, "recall@5")
        assert trial.metric == "recall@5" and trial.value == pytest.approx(np.nanmean(per_user["recall@5"]))
        assert trial.ndcg is None
    assert found.best.value == max(trial.value or 0.0 for trial in found.trials)
    kept = read_bundle(found.bundle)
    assert kept.training.select_by == "recall@5" and kept.metrics["validation"]["recall@5"] == found.best.value
    with pytest.raises(UsageError, match=r"study of something else \(select_by: recall@5, now ndcg@100\)"):
        tune("ease", dataset, Path("study"), **how)
    with pytest.raises(UsageError, match=r"study of something else \(select_by: recall@5, now recall@6\)"):
        tune("ease", dataset, Path("study"), select_by="recall@6", **how)
    again = tune("ease", dataset, Path("study"), select_by="recall@5", **how)
    assert again.trials == found.trials
    assert tune("ease", dataset, Path("study"), fresh=True, **how).best.metric == "ndcg@100"
    with pytest.raises(UsageError, match=r"^got gini@5 to choose by, which is of all lists at once"):
        tune("ease", dataset, Path("other"), select_by="gini@5", **how)
    assert not Path("other").exists()


# ---------------------------------------------------------------- the command


def test_the_command_names_the_metric_everywhere(toy: Path, command: Command) -> None:
    said = command("train", *QUICK, "--select-by", "recall@5")
    assert said.code == 0 and "training multdae on data/toy by recall@5 -> runs/toy/multdae" in said.err
    card = read_card(Path("runs/toy/multdae"))
    assert card["training"]["select_by"] == "recall@5"
    records = records_of(Path("runs/toy/multdae/log.jsonl"))
    values = [record["value"] for record in records]
    assert {record["metric"] for record in records} == {"recall@5"}
    best = 1 + int(np.argmax(values))
    assert f"best epoch {best} of 4 by validation recall@5" in said.out and f"recall@5 {max(values):.4f}" in said.out
    assert card["metrics"]["validation"]["recall@5"] == pytest.approx(max(values))
    assert "select by recall@5" in command("inspect", "multdae").out
    page = Path("runs/toy/multdae/README.md").read_text()
    assert "\nChosen by the highest recall@5 of the validation users.\nMade on " in page
    said = command("train", "--refit", "multdae")
    assert said.code == 0 and f"epochs ({best}) chosen by multdae on validation recall@5" in said.out
    usual = command("train", *QUICK, "--name", "usual")
    assert "by validation ndcg@100" in usual.out and " by " not in usual.err.splitlines()[0]
    none = command("train", "--model", "ease", "--set", "l2=20", "--select-by", "recall@5")
    assert none.code == 0 and "nothing was chosen on validation users: --select-by recall@5 had no effect" in none.err


def test_a_run_that_was_stopped_keeps_its_metric(own: Path, toy: Path, command: Command, monkeypatch: Any) -> None:
    def stopped(self: Any, record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    for metric, again in (("recall@5", ()), ("my_choice:spread@5", ("--select-by", "my_choice:spread@5"))):
        with monkeypatch.context() as patch:
            patch.setattr("recvae.training.monitors.TrainingProgress.epoch", stopped)
            assert command("train", *QUICK, "--select-by", metric, "--name", metric[:2]).code in (0, 130)
        refused = command("train", "--resume", "--select-by", "ndcg@100")
        assert refused.code == 2 and f"chooses by {metric}, which cannot change" in refused.err
        if again:
            refused = command("train", "--resume")
            assert refused.code == 2 and f"your own metric; add --select-by {metric}" in refused.err
        said = command("train", "--resume", *again)
        assert said.code == 0 and f"of 4 by validation {metric}" in said.out
        records = records_of(Path("runs/toy", metric[:2], "log.jsonl"))
        assert [record["metric"] for record in records] == [metric] * 4


def test_the_command_tunes_by_it(own: Path, toy: Path, command: Command) -> None:
    words = ("tune", "--model", "ease", "--trials", "2")
    said = command(*words, "--select-by", "my_choice:spread@5")
    assert (
        said.code == 0
        and "by my_choice:spread@5, its study is in data/toy/studies/ease-by-my_choice-spread-5" in said.err
    )
    assert "the best by validation my_choice:spread@5:" in said.out and "--select-by my_choice:spread@5" in said.out
    assert command(*words).code == 0 and Path("data/toy/studies/ease").is_dir(), "another study"
    found = json.loads(command(*words, "--select-by", "recall@5", "--json").out)
    assert all(trial["metric"] == "recall@5" and trial["ndcg"] is None for trial in found["top"])
    assert found["train"].endswith("--select-by recall@5")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--select-by", "coverage@5"), "got coverage@5 to choose by, which is of all lists at once"),
        (("--select-by", "ndcg@5000"), "got ndcg@5000 to choose by, expected a K of"),
        (("--select-by", "ndcg"), "got metric 'ndcg', expected a whole number after the @"),
        (("--select-by", "my_choice:text@5"), "the metric text@5 failed with ValueError"),
        (("--select-by", "my_choice:number@5"), "got a int for the metric number@5, expected a function"),
        (("--select-by", "my_choice:nobody@5"), "but my_choice has no 'nobody'"),
        (
            ("--refit", "one", "--select-by", "ndcg@5"),
            "got --select-by ndcg@5 with --refit, but the settings",
        ),
    ],
)
def test_the_command_refuses_what_cannot_choose(
    own: Path, toy: Path, command: Command, words: tuple[str, ...], message: str
) -> None:
    said = command("train", *(QUICK if "--refit" not in words else ()), *words)
    assert said.code == 2 and message in said.err and "Traceback" not in said.err
    assert not list(Path("runs").glob("*/*")), "nothing is left behind"


def test_a_model_that_chooses_nothing_says_nothing(blocks: Dataset) -> None:
    model = Popularity().fit(blocks.train, blocks.validation, select_by="recall@4")
    assert model.training_summary().select_by is None
