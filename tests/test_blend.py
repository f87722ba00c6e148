"""Blends: of fitted models or of runs on the same data, kept whole, never refitted, refused where they do not fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recvae.bundles.bundle import Bundle, read_bundle, write_bundle
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, DataError, UsageError
from recvae.evaluation.evaluate import evaluate
from recvae.metrics import parse_metrics
from recvae.models import ALS, EASE, Blend, Model, MultDAE, Popularity
from recvae.models.blend import WEIGHTS
from recvae.recommenders.recommender import Recommender
from recvae.training.records import EpochRecord, NullMonitor

# Letters in shape comments: U users, I items.

Command = Callable[..., Any]
EASY = ("train", "--model", "ease", "--set", "l2=20")
POPULAR = ("train", "--model", "popularity")
BLEND = ("train", "--model", "blend")
BOTH = ("--set", "first=ease", "--set", "second=popularity")
OTHER_DATA = ("preprocess", "synthetic", "--users", 100, "--items", 80, "--events", 2000, "--name", "other")
RUN = Path("runs/toy/blend")


def small_dae() -> MultDAE:
    return MultDAE(latent_dim=4, epochs=3, batch_size=30, learning_rate=0.02)


def standardised(model: Model, users: sp.csr_matrix) -> np.ndarray:
    """Return scores (U, I) of mean 0 and standard deviation 1 for each user."""
    scores = model.score(users).astype(np.float64)
    spread = scores.std(axis=1, keepdims=True)
    return (scores - scores.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)


def ndcg(model: Model, data: Dataset) -> float:
    per_user, _ = evaluate(model, data.validation, parse_metrics("ndcg@100"))
    return float(np.nanmean(per_user["ndcg@100"]))


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("a fitted part must not be fitted again")


def card_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "recommender.json").read_text())


def test_scores_are_the_weighted_sum_of_the_standardised_scores_of_both(blocks: Dataset) -> None:
    first, second = EASE(l2=5.0).fit(blocks.train), small_dae().fit(blocks.train)
    users = sp.csr_matrix(sp.vstack([blocks.test.fold_in, sp.csr_matrix((2, 32))]))  # without history too
    for weight in (0.0, 0.3, 1.0):
        blend = Blend.of(first, second, weight=weight).fit(blocks.train)
        expected = weight * standardised(first, users) + (1 - weight) * standardised(second, users)
        np.testing.assert_allclose(blend.score(users), expected, atol=1e-4)


def test_fitted_parts_are_left_alone_and_never_fitted_again(blocks: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = EASE(l2=5.0).fit(blocks.train), small_dae().fit(blocks.train)
    before = {name: value.copy() for part in (first, second) for name, value in part.weights().items()}
    scores = first.score(blocks.test.fold_in)
    monkeypatch.setattr(EASE, "fit", refuse)
    monkeypatch.setattr(MultDAE, "fit", refuse)
    blend = Blend.of(first, second)
    for _ in range(2):
        blend.fit(blocks.train, blocks.validation)
    assert blend.parts_["first"] is first and blend.parts_["second"] is second
    for name, value in (first.weights() | second.weights()).items():
        np.testing.assert_array_equal(value, before[name])
    np.testing.assert_array_equal(first.score(blocks.test.fold_in), scores)


def test_parts_that_are_not_fitted_are_fitted_as_copies_on_the_same_users(blocks: Dataset) -> None:
    first, second = EASE(l2=5.0), small_dae()
    blend = Blend.of(first, second, weight=0.5).fit(blocks.train, blocks.validation, device="cpu")
    assert (first.n_items_, second.n_items_) == (0, 0), "what was given stays as it was"
    alone = small_dae().fit(blocks.train, blocks.validation, device="cpu")
    for name, value in alone.weights().items():
        np.testing.assert_array_equal(blend.weights()[f"second/{name}"], value)
    one_fitted = Blend.of(EASE(l2=5.0).fit(blocks.train), second, weight=0.5).fit(blocks.train, blocks.validation)
    np.testing.assert_array_equal(one_fitted.score(blocks.test.fold_in), blend.score(blocks.test.fold_in))


def test_the_weight_is_the_best_on_validation_and_all_that_were_tried_are_told(blocks: Dataset) -> None:
    told: list[float] = []

    class Watch(NullMonitor):
        def start(self, epochs: int, done: list[EpochRecord]) -> None:
            told.extend([epochs, len(done)])

        def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
            told.append(epochs_done)

    first, second = Popularity().fit(blocks.train), EASE(l2=5.0).fit(blocks.train)
    blend = Blend.of(first, second).fit(blocks.train, blocks.validation, monitor=Watch())
    tried = blend.training_summary().tried
    assert isinstance(tried, dict)
    assert [float(weight) for weight in tried] == list(WEIGHTS) == pytest.approx(np.arange(21) / 20)
    for weight in (0.0, 0.5, 0.95, 1.0):
        alone = Blend.of(first, second, weight=weight).fit(blocks.train)
        assert tried[str(weight)] == pytest.approx(ndcg(alone, blocks))
    assert tried[str(blend.weight_)] == max(tried.values()) == pytest.approx(ndcg(blend, blocks))
    assert blend.training_summary().weight == blend.weight_ < 1.0 and blend.weight is None
    assert told == [n_users := blocks.validation.n_users, 0, n_users]


def test_a_weight_that_is_set_is_taken_with_and_without_validation(blocks: Dataset) -> None:
    parts = EASE(l2=5.0).fit(blocks.train), Popularity().fit(blocks.train)
    alone = Blend.of(*parts, weight=0.35).fit(blocks.train)
    assert alone.training_summary().to_json() == {"weight": 0.35}
    measured = Blend.of(*parts, weight=0.35).fit(blocks.train, blocks.validation)
    assert measured.training_summary().to_json() == {"weight": 0.35}


@pytest.mark.parametrize("targets", ["no validation users", "no targets"])
def test_without_validation_targets_a_weight_must_be_set(targets: str, blocks: Dataset) -> None:
    held_out = None if targets == "no validation users" else (blocks.test.fold_in, 0 * blocks.test.targets)
    blend = Blend.of(EASE(l2=5.0).fit(blocks.train), Popularity().fit(blocks.train))
    with pytest.raises(UsageError, match=r"got weight=None and no validation user with a target .*; set a weight in"):
        blend.fit(blocks.train, held_out)
    assert blend.n_items_ == 0


@pytest.mark.parametrize("roles", [(), ("first",), ("second",), ("first", "second", "third")])
def test_a_blend_of_anything_but_two_models_is_refused(roles: tuple[str, ...], blocks: Dataset) -> None:
    blend = Blend(weight=0.5, parts={role: Popularity() for role in roles})
    with pytest.raises(UsageError, match=r"got a blend without two runs, .* --set second=RUN, or Blend.of\(model, mod"):
        blend.fit(blocks.train)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_that_is_no_share_is_refused(weight: float, blocks: Dataset) -> None:
    with pytest.raises(UsageError, match=r"expected a number, at least 0 and at most 1 \(or none\)"):
        Blend.of(EASE(), Popularity(), weight=weight).fit(blocks.train)


def test_parts_of_other_numbers_of_items_are_refused(blocks: Dataset) -> None:
    other = Popularity().fit(blocks.train[:, :-1])
    for place, parts in (("first", (other, EASE())), ("second", (EASE(), other))):
        said = rf"the {place} part of the blend has 31 items, the training data have 32; blend models of the same"
        with pytest.raises(DataError, match=said):
            Blend.of(*parts, weight=0.5).fit(blocks.train)


def nested(blocks: Dataset, weight: float = 0.7) -> Blend:
    """Return a blend of a blend and ALS, not fitted yet."""
    inner = Blend.of(EASE(l2=5.0, top_k=9), small_dae(), weight=0.25)
    return Blend.of(inner, ALS(factors=4, iterations=3, regularization=0.1), weight=weight)


def test_blends_may_be_parts_of_blends(blocks: Dataset) -> None:
    outer = nested(blocks).fit(blocks.train, device="cpu")
    inner, als = outer.parts_["first"], outer.parts_["second"]
    users = blocks.test.fold_in
    expected = 0.7 * standardised(inner, users) + 0.3 * standardised(als, users)
    np.testing.assert_allclose(outer.score(users), expected, atol=1e-4)
    owners = {name.rpartition("/")[0] for name in outer.weights()}
    assert owners == {"", "first", "first/first", "first/second", "second"}


@pytest.mark.parametrize("kind", ["chosen", "set", "nested"])
def test_a_bundle_comes_back_with_its_parts_and_scores_to_the_bit(kind: str, blocks: Dataset, tmp_path: Path) -> None:
    makers: dict[str, Callable[[], Blend]] = {
        "chosen": lambda: Blend.of(Popularity(), small_dae()),
        "set": lambda: Blend.of(EASE(l2=5.0), small_dae(), weight=0.85),
        "nested": lambda: nested(blocks),
    }
    model = makers[kind]().fit(blocks.train, blocks.validation, device="cpu")
    write_bundle(tmp_path, Bundle(model=model, items=blocks.items, training=model.training_summary()))
    copy = read_bundle(tmp_path).model
    assert isinstance(copy, Blend)
    assert (copy, copy.weight_, copy.parts) == (model, model.weight_, model.parts), "hyperparameters, of parts too"
    assert card_of(tmp_path)["parts"]["second"]["model"] == ("als" if kind == "nested" else "multdae")
    users = sp.csr_matrix(sp.vstack([blocks.test.fold_in, sp.csr_matrix((1, 32))]))
    np.testing.assert_array_equal(copy.score(users), model.score(users))
    write_bundle(
        tmp_path / "again",
        Bundle(model=copy, items=blocks.items, training=model.training_summary()),
    )
    for name in ("weights.safetensors", "items.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_any_weight_comes_back_to_the_bit(blocks: Dataset) -> None:
    model = Blend.of(EASE(l2=5.0), Popularity(), weight=1 / 3).fit(blocks.train)
    copy = Blend.of(EASE(), Popularity(), weight=1 / 3).load_weights(model.weights())
    assert copy.weight_ == model.weight_
    np.testing.assert_array_equal(copy.score(blocks.test.fold_in), model.score(blocks.test.fold_in))


def test_weights_that_are_not_those_of_a_blend_are_refused(blocks: Dataset, tmp_path: Path) -> None:
    model = Blend.of(EASE(l2=5.0), Popularity(), weight=0.5).fit(blocks.train)
    with pytest.raises(ValueError, match=r"a weight of shape \(2,\) is not one number"):
        model.load_weights({**model.weights(), "weight": np.zeros(2, dtype=np.float32)})
    write_bundle(tmp_path, Bundle(model=model, items=blocks.items))
    unknown = {"first": {"model": "gpt", "hyperparameters": {}}}
    for parts, message in (({}, "is damaged"), ({"first": 5}, "is damaged"), (unknown, "holds a model 'gpt', which")):
        (tmp_path / "recommender.json").write_text(json.dumps(card_of(tmp_path) | {"parts": parts}))
        with pytest.raises(BundleError, match=message):
            read_bundle(tmp_path)


def test_a_bundle_that_lacks_a_part_is_damaged(blocks: Dataset, tmp_path: Path) -> None:
    model = Blend.of(EASE(l2=5.0), Popularity(), weight=0.5).fit(blocks.train)
    write_bundle(tmp_path, Bundle(model=model, items=blocks.items))
    parts = {"first": card_of(tmp_path)["parts"]["first"]}
    (tmp_path / "recommender.json").write_text(json.dumps(card_of(tmp_path) | {"parts": parts}))
    with pytest.raises(BundleError, match="is damaged"):
        read_bundle(tmp_path)


@pytest.fixture
def runs(toy: Path, command: Command) -> Path:
    """Return `runs`, with runs of two models on the data set `toy`."""
    for words in (EASY, POPULAR):
        assert command(*words).code == 0
    return Path("runs")


def test_two_runs_are_blended_measured_and_loaded(runs: Path, command: Command) -> None:
    said = command(*BLEND, *BOTH)
    assert said.code == 0 and "saved to runs/toy/blend after" in said.out, said.err
    card = card_of(RUN)
    assert (card["hyperparameters"]["first"], card["hyperparameters"]["second"]) == ("ease", "popularity")
    assert card["parts"]["first"]["hyperparameters"]["l2"] == 20 and card["interrupted"] is False
    tried = card["training"]["tried"]
    assert card["training"]["weight"] == float(max(tried, key=tried.__getitem__))
    assert f"weight {card['training']['weight']:g} for the first run" in said.out and "chosen on validation" in said.out
    report = command("evaluate", "toy/blend", "toy/ease", "--baselines", "none", "--split", "validation", "--json")
    reached = {run["model"]: run["metrics"]["ndcg@100"]["mean"] for run in json.loads(report.out)["runs"]}
    assert reached["blend"] == pytest.approx(card["metrics"]["validation"]["ndcg@100"])
    assert reached["blend"] == pytest.approx(max(tried.values())) and reached["blend"] >= reached["ease"]
    recommender = Recommender.load(RUN)
    dataset = Dataset.load("data/toy")
    parts = Recommender.load(runs / "toy/ease").model, Recommender.load(runs / "toy/popularity").model
    by_hand = Blend.of(*parts, weight=card["training"]["weight"]).fit(dataset.train)
    np.testing.assert_array_equal(recommender.model.score(dataset.test.fold_in), by_hand.score(dataset.test.fold_in))
    assert len(recommender.recommend(recommender.item_ids[:3], k=5)) == 5


def test_a_blend_stays_usable_when_the_runs_it_was_made_of_are_gone(runs: Path, command: Command) -> None:
    assert command(*BLEND, *BOTH).code == 0
    for name in ("ease", "popularity"):
        (runs / "toy" / name).rename(Path(f"elsewhere-{name}"))
    assert command("evaluate", "--baselines", "none").code == 0


def test_a_weight_and_a_blend_may_be_named_on_the_command_line(runs: Path, command: Command) -> None:
    assert command(*BLEND, *BOTH, "--set", "weight=0.3").code == 0
    assert card_of(RUN)["training"]["weight"] == card_of(RUN)["hyperparameters"]["weight"] == 0.3
    words = ("--set", "first=toy/blend", "--set", "second=runs/toy/ease", "--name", "outer", "--json")
    said = command(*BLEND, *words)
    assert said.code == 0 and json.loads(said.out)["folder"] == "runs/toy/outer", said.err
    assert card_of(runs / "toy/outer")["parts"]["first"]["parts"]["first"]["model"] == "ease"
    assert command("evaluate", "outer", "--baselines", "none").code == 0


def test_a_weight_that_was_set_is_not_said_to_be_chosen(runs: Path, command: Command) -> None:
    said = command(*BLEND, *BOTH, "--set", "weight=0.3")
    assert said.code == 0 and "weight 0.3" in said.out and "chosen on validation" not in said.out
    assert "Made of two runs, 0.3 of the first and 0.7 of the second" in (RUN / "README.md").read_text()
    assert "adds nothing" not in said.err


@pytest.mark.parametrize(("weight", "which"), [(0, "second"), (1, "first")])
def test_a_weight_that_leaves_one_run_out_is_remarked_on(weight: int, which: str, runs: Path, command: Command) -> None:
    said = command(*BLEND, *BOTH, "--set", f"weight={weight}")
    assert f"the {which} run alone ranks the same: the other one adds nothing" in said.err


def test_a_part_may_be_named_by_the_whole_path_of_its_folder(runs: Path, command: Command) -> None:
    said = command(*BLEND, "--set", f"first={(runs / 'toy/ease').resolve()}", "--set", "second=popularity")
    assert said.code == 0, said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "got no first run for blend, expected the name of one; say --set first=RUN"),
        (["first=ease"], "got no second run for blend, expected the name of one; say --set second=RUN"),
        (["second=ease", "first="], "got no first run for blend"),
        (["first=ease", "second=svd"], "no run 'svd' in runs; there are: toy/ease, toy/popularity"),
        (["first=ease", "second=popularity", "weight=2"], "got weight=2.0, expected a number, at least 0 and at most"),
        (["first=ease", "second=popularity", "third=ease"], "unknown hyperparameter 'third'"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_a_blend_that_names_the_wrong_runs_is_refused(
    words: list[str], said: str, runs: Path, command: Command
) -> None:
    ended = command(*BLEND, *(word for setting in words for word in ("--set", setting)))
    assert (ended.code, ended.out, ended.err.count("error: ")) == (2, "", 1)
    assert said in ended.err and sorted(path.name for path in (runs / "toy").iterdir()) == ["ease", "popularity"]


def test_a_run_on_other_data_is_refused_with_both_fingerprints(runs: Path, command: Command) -> None:
    assert command(*OTHER_DATA).code == 0
    assert command(*EASY, "--data", "other", "--name", "foreign").code == 0
    said = command(*BLEND, "--data", "toy", "--set", "first=ease", "--set", "second=foreign")
    assert (said.code, said.out) == (2, "")
    assert "error: runs/other/foreign was not trained on toy as it is now: fingerprints" in said.err
    assert "say --data other to take the data it was trained on" in said.err
    for name in ("toy", "other"):
        assert Dataset.load(f"data/{name}").fingerprint[:12] in said.err
    assert not RUN.exists()


def test_of_two_runs_of_one_name_that_on_the_same_data_is_taken(runs: Path, command: Command) -> None:
    assert command(*OTHER_DATA).code == 0
    assert command(*EASY, "--data", "other").code == 0
    assert command(*BLEND, *BOTH, "--data", "toy").code == 0
    assert card_of(RUN)["dataset"]["name"] == "toy"


def test_a_run_that_was_interrupted_is_blended_with_a_remark(runs: Path, command: Command) -> None:
    assert "before its time" not in command(*BLEND, *BOTH).err
    card = card_of(runs / "toy/ease") | {"interrupted": True}
    (runs / "toy/ease/recommender.json").write_text(json.dumps(card))
    said = command(*BLEND, *BOTH)
    assert said.code == 0 and "warning: runs/toy/ease was interrupted; its best weights so far are blended" in said.err


def test_an_unfinished_or_damaged_run_is_not_blended(runs: Path, command: Command) -> None:
    (runs / "toy/popularity/recommender.json").rename(runs / "toy/popularity/run.json")
    said = command(*BLEND, *BOTH)
    assert said.code == 1 and "is a run that has not finished" in said.err
    (runs / "toy/ease/weights.safetensors").write_bytes(b"")
    said = command(*BLEND, *BOTH)
    assert said.code == 1 and "is damaged" in said.err and not RUN.exists()
