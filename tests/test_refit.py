"""`recvae train --refit` as a user types it: what it leaves, what is said of it elsewhere, and what is refused."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recvae.bundles.bundle import read_bundle
from recvae.datasets.dataset import Dataset
from recvae.datasets.joining import join
from recvae.errors import UsageError
from recvae.evaluation.comparison import compare
from recvae.models import EASE
from recvae.runs import refitting
from recvae.training.trainer import Trainer

Command = Callable[..., Any]
RUNS = Path("runs/toy")
EASY = ("train", "--model", "ease", "--set", "l2=20")
SHORT = ("--set", "hidden_dims=16", "--set", "latent_dim=8", "--set", "batch_size=40", "--set", "learning_rate=0.02")
NETWORK = ("train", "--model", "multvae", *SHORT, "--set", "epochs=30", "--set", "patience=3", "--seed", 1)
OTHER_DATA = ("preprocess", "synthetic", "--users", 100, "--items", 80, "--events", 2000, "--name", "toy")


def card_of(name: str) -> dict[str, Any]:
    return json.loads((RUNS / name / "recommender.json").read_text())


def weights_of(name: str) -> dict[str, np.ndarray]:
    return dict(read_bundle(RUNS / name).model.weights())


def same_weights(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture
def refused(command: Command) -> Callable[..., str]:
    """Return a function that types a command, which must end with exit code 2 and leave nothing."""

    def run(*words: Any) -> str:
        before = set(RUNS.parent.rglob("*"))
        said = command(*words)
        assert said.code == 2 and not said.out and set(RUNS.parent.rglob("*")) == before, said
        return " ".join(said.err.split())

    return run


@pytest.mark.parametrize("on", ["train+validation", "all"])
def test_a_closed_form_is_solved_on_all_these_users_and_says_so(on: str, toy: Path, command: Command) -> None:
    command(*EASY)
    name = "ease-refit-all" if on == "all" else "ease-refit"
    said = command("train", "--refit", "ease", *(["--on", "all"] if on == "all" else []))
    assert said.code == 0, said.err
    expected = EASE(l2=20.0).fit(join(Dataset.load(toy), on)).weights()
    assert same_weights(weights_of(name), dict(expected))
    chosen, card = card_of("ease"), card_of(name)
    assert card["metrics"] == {} and card["hyperparameters"] == chosen["hyperparameters"]
    assert card["dataset"] == chosen["dataset"] and card["training"]["refit"] == {
        "run": "ease",
        "made": chosen["created"],
        "on": on,
        "n_users": Dataset.load(toy).train.shape[0],
        "epochs": None,
        "metrics": chosen["metrics"]["validation"],
    }
    text = f"settings chosen by ease on validation; trained on {on}"
    assert text in said.out and "validation: " not in said.out
    assert (said.out + said.err).count("chosen by") == 1 and f"training ease on {on} of data/toy\n" in said.err
    assert f"recvae {'serve' if on == 'all' else 'evaluate'} runs/toy/{name}" in said.err
    shown, page = command("inspect", name), (RUNS / name / "README.md").read_text()
    ndcg = f"{chosen['metrics']['validation']['ndcg@100']:.4f}"
    assert shown.code == 0 and f"refit: {text}" in shown.out and "validation, of ease" in shown.out
    assert ("evaluate" in shown.err) == (on != "all")
    assert f"S{text[1:]}.\nThe validation " in page and f"| validation, of ease | ndcg@100 | {ndcg} |" in page
    assert "model-index" not in page and "model-index" in (RUNS / "ease" / "README.md").read_text()
    assert command("recommend", name, "--items", Dataset.load(toy).item_ids[0], "-k", 3).code == 0


def test_a_network_trains_the_epochs_that_were_chosen_and_no_more(toy: Path, command: Command) -> None:
    command(*NETWORK)
    chosen = card_of("multvae")["training"]
    said = command("train", "--refit", "toy/multvae", "--name", "again", "--json")
    assert said.code == 0, said.err
    training = json.loads(said.out)["training"]
    epochs = chosen["best_epoch"]
    assert chosen["stopped_early"] and epochs < chosen["epochs"] < 30
    assert training["epochs"] == training["best_epoch"] == training["refit"]["epochs"] == epochs
    assert not training["stopped_early"] and card_of("again")["hyperparameters"]["epochs"] == 30
    lines = [json.loads(line) for line in (RUNS / "again" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, epochs + 1)) and {line["ndcg"] for line in lines} == {
        None
    }
    assert "training longer may help" not in said.err
    told = command("train", "--refit", "multvae")
    assert f"settings and epochs ({epochs}) chosen by multvae on validation" in told.out
    assert same_weights(weights_of("again"), weights_of("multvae-refit"))
    assert command("train", "--refit", "multvae").code == 0 and (RUNS / "multvae-refit-2").is_dir()
    assert command("train", "--refit", "multvae", "--on", "all").code == 0
    assert card_of("multvae-refit-all")["training"]["refit"]["on"] == "all"


def test_an_interrupted_refit_is_continued_as_if_nothing_had_happened(
    toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(*NETWORK)
    command("train", "--refit", "multvae", "--name", "whole")
    epoch = Trainer._epoch

    def stops(self: Trainer, number: int, monitor: Any) -> Any:
        if number == 3:
            raise KeyboardInterrupt
        return epoch(self, number, monitor)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_epoch", stops)
        command("train", "--refit", "multvae")
    assert card_of("multvae-refit")["interrupted"]
    state = json.loads((RUNS / "multvae-refit" / "run.json").read_text())
    assert state["refit"] == card_of("whole")["training"]["refit"]
    said = command("train", "--resume", "--set", "epochs=50")
    assert said.code == 2 and "multvae-refit repeats multvae, which has chosen settings and epochs" in said.err
    assert command("train", "--resume").code == 0
    assert same_weights(weights_of("multvae-refit"), weights_of("whole"))
    assert card_of("multvae-refit")["training"]["refit"] == card_of("whole")["training"]["refit"]
    assert not card_of("multvae-refit")["interrupted"] and card_of("multvae-refit")["metrics"] == {}


def test_what_does_not_go_with_it_is_refused(toy: Path, command: Command, refused: Callable[..., str]) -> None:
    command(*EASY)
    refit = ("train", "--refit", "ease")
    assert "got --resume with --refit" in refused(*refit, "--resume")
    assert "got --set l2=3 with --refit, but the settings are those of ease" in refused(*refit, "--set", "l2=3")
    assert "got --set seed=3 with --refit" in refused(*refit, "--seed", 3)
    assert "got --set precision=float32 with --refit" in refused(*refit, "--precision", "float32")
    assert "got --find-beta with --refit" in refused(*refit, "--find-beta")
    assert "got --model ease with --refit, but the model is that of ease" in refused(*refit, "--model", "ease")
    assert "got --on 'test', expected one of: train+validation, all" in refused(*refit, "--on", "test")
    assert "got --on all without --refit" in refused("train", "--on", "all")
    assert "no run 'eas'" in refused("train", "--refit", "eas")
    command(*refit)
    said = refused("train", "--refit", "ease-refit")
    assert "is a refit already, of ease; name the run that has chosen: --refit ease" in said


def test_other_data_interrupted_runs_and_runs_without_epochs_are_refused(
    toy: Path, command: Command, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(*NETWORK)
    path = RUNS / "multvae" / "recommender.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"interrupted": True}))
    assert "was interrupted (stopped by hand), so its best epoch may be still to come; finish it with" in refused(
        "train", "--refit", "multvae"
    )
    failed = card["training"] | {"failure": "the loss is no longer a number"}
    path.write_text(json.dumps(card | {"interrupted": True, "training": failed}))
    assert "(the loss is no longer a number), so its best epoch may be still to come; train it again" in refused(
        "train", "--refit", "multvae"
    )
    without = {name: value for name, value in card["training"].items() if name != "best_epoch"}
    path.write_text(json.dumps(card | {"training": without}))
    assert "does not say its best epoch" in refused("train", "--refit", "multvae")
    path.write_text(json.dumps(card | {"training": card["training"] | {"refit": {"on": "some"}}}))
    assert command("train", "--refit", "multvae").code == 1  # damaged
    path.write_text(json.dumps(card))
    shutil.rmtree(toy)
    assert command(*OTHER_DATA).code == 0
    said = refused("train", "--refit", "multvae")
    assert "was not trained on toy as it is now: fingerprints" in said and "or train it again" in said


def test_it_is_measured_on_users_it_has_not_seen_and_on_no_others(
    toy: Path, command: Command, refused: Callable[..., str]
) -> None:
    command(*EASY)
    command("train", "--refit", "ease")
    command("train", "--refit", "ease", "--on", "all", "--name", "served")
    told = command("evaluate", "ease-refit", "ease", "--baselines", "popularity")
    assert told.code == 0 and "trained on" in told.out and "train+validation" in told.out
    assert "ease-refit: settings chosen by ease on validation; trained on train+validation" in told.out
    assert "runs were trained on different parts of the data" in told.out
    said = refused("evaluate", "ease-refit", "--split", "validation")
    assert "has seen the targets of the validation users" in said and "use --split test" in said
    assert "served was trained on all, so it has seen the targets of the test users" in refused("evaluate", "served")
    listed = command("compare", "--baselines", "none", "--to", "ease", "--json")
    rows = {row["name"]: row["trained_on"] for row in json.loads(listed.out)["runs"]}
    assert rows == {"ease": "train", "ease-refit": "train+validation"}
    assert "left out, since they were trained on the test users: served" in listed.err
    alone = command("evaluate", "ease", "--baselines", "none")
    assert "trained on" not in alone.out
    data, bundles = Dataset.load(toy), {name: read_bundle(RUNS / name) for name in ("ease", "ease-refit", "served")}
    with pytest.raises(UsageError, match="served was trained on all"):
        compare(bundles, data)
    with pytest.raises(UsageError, match=r"ease-refit was trained on train\+validation"):
        compare({"ease": bundles["ease"], "ease-refit": bundles["ease-refit"]}, data, split="validation")


def test_it_is_not_repeated_with_other_seeds_on_fewer_users(
    toy: Path, command: Command, refused: Callable[..., str]
) -> None:
    command(*NETWORK, "--set", "epochs=2")
    command("train", "--refit", "multvae")
    for names in (["multvae-refit"], ["multvae", "multvae-refit"]):
        said = command("compare", *names, "--baselines", "popularity")
        line = shlex.split(said.err.rpartition("next: ")[2])
        assert "--seeds" not in line and command(*line[1:]).code == 0
    assert "--seeds 3" in command("compare", "multvae", "--baselines", "popularity").err
    assert "got 2 seeds for runs/toy/multvae-refit, a refit of multvae" in refused(
        "compare", "multvae-refit", "--seeds", 2, "--baselines", "popularity"
    )
    command("train", "--refit", "multvae", "--name", "multvae-seed-2")  # which only looks like a repeat
    again = command("compare", "multvae", "--seeds", 2, "--baselines", "popularity")
    assert again.code == 0 and card_of("multvae-seed-2-2")["metrics"]["validation"]


def test_what_is_removed_with_the_run_that_is_replaced_is_named(toy: Path, command: Command) -> None:
    command(*EASY)
    command("train", "--refit", "ease")
    for name in ("ease", "ease-refit"):
        folder = RUNS / name
        assert command("export", name, "--format", "torch").code == 0
        (folder / "notes.txt").write_text("mine")
        line = f"warning: replacing {folder} also removes notes.txt, torch/; copy what you need, or export again\n"
        words = EASY if name == "ease" else ("train", "--refit", "ease")
        kept = command(*words)
        assert kept.code == 0 and "warning" not in kept.err and (folder / "torch").is_dir()
        assert line in command(*words, "--overwrite").err and not (folder / "torch").exists()
        assert "warning" not in command(*words, "--overwrite").err


def test_what_is_removed_with_a_tuned_run_is_named(toy: Path, command: Command) -> None:
    pytest.importorskip("optuna")
    words, folder = ("tune", "--model", "ease", "--trials"), RUNS / "ease-tuned"
    assert "warning" not in command(*words, 1).err
    for trials, more in ((2, ()), (3, ("--overwrite",))):  # more trials replace what an earlier call has left
        (folder / "index").mkdir()
        assert f"warning: replacing {folder} also removes index/; copy" in command(*words, trials, *more).err
        assert not (folder / "index").exists()


BLEND = ("train", "--model", "blend", "--set", "first=multvae", "--set", "second=ease")


def test_a_blend_is_made_of_refitted_runs_with_the_weight_that_was_chosen(
    toy: Path, command: Command, refused: Callable[..., str]
) -> None:
    for words in (NETWORK, EASY, BLEND):
        assert command(*words).code == 0
    said = command("train", "--refit", "blend")
    assert said.code == 0, said.err
    lines = [line for line in said.err.splitlines() if "run of the blend" in line]
    places = ["first run of the blend: runs/toy/multvae-refit", "second run of the blend: runs/toy/ease-refit"]
    assert lines == places
    weight = card_of("blend")["training"]["weight"]
    card = card_of("blend-refit")
    assert card["training"]["weight"] == weight == card["hyperparameters"]["weight"] and card["metrics"] == {}
    assert [card["hyperparameters"][role] for role in ("first", "second")] == ["toy/multvae-refit", "toy/ease-refit"]
    parts = read_bundle(RUNS / "blend-refit").model.parts_  # type: ignore[attr-defined]
    for role, part in (("first", "multvae"), ("second", "ease")):
        assert same_weights(dict(parts[role].weights()), weights_of(f"{part}-refit"))
        assert card_of(f"{part}-refit")["training"]["refit"]["run"] == part
    made = card_of("multvae-refit")["created"]
    again = command("train", "--refit", "blend")
    assert again.code == 0 and card_of("multvae-refit")["created"] == made
    assert all(f"{place}, which exists already\n" in again.err for place in places)
    assert not (RUNS / "multvae-refit-2").exists() and (RUNS / "blend-refit-2").is_dir()  # the parts are used again
    said = refused("train", "--model", "blend", "--set", "first=ease-refit", "--set", "second=multvae")
    assert "which was trained on train+validation: validation users cannot choose" in said and "blend ease" in said
    assert command("evaluate", "blend-refit", "blend", "--baselines", "none").code == 0
    shutil.rmtree(RUNS / "ease")
    command("train", "--model", "ease", "--set", "l2=99")
    assert "runs/toy/ease has changed since" in refused("train", "--refit", "blend")


def test_what_was_chosen_is_read_once_for_each_run(
    toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (EASY, ("train", "--model", "popularity")):
        command(*words)
    command("train", "--model", "blend", "--set", "first=ease", "--set", "second=popularity")
    read: list[str] = []

    def counting(folder: Path, **options: Any) -> Any:
        read.append(folder.name)
        return read_bundle(folder, **options)

    monkeypatch.setattr(refitting, "read_bundle", counting)
    chosen = refitting.chosen_by(RUNS / "blend", Dataset.load(toy), RUNS.parent)
    assert sorted(read) == ["blend", "ease", "popularity"]
    assert {role: part.refit.run for role, part in chosen.parts.items()} == {"first": "ease", "second": "popularity"}


def test_the_run_of_a_blend_that_was_interrupted_is_continued_and_not_begun_again(
    toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (NETWORK, EASY, BLEND):
        command(*words)
    epoch = Trainer._epoch
    trained: list[int] = []

    def stops(self: Trainer, number: int, monitor: Any) -> Any:
        trained.append(number)
        if number == 2 and len(trained) == 2:
            raise KeyboardInterrupt
        return epoch(self, number, monitor)

    monkeypatch.setattr(Trainer, "_epoch", stops)
    stopped = command("train", "--refit", "blend")
    assert stopped.code != 0 and "run the same command again, if an epoch was finished" in stopped.err
    assert card_of("multvae-refit")["interrupted"] and not (RUNS / "blend-refit").exists()
    assert command("train", "--refit", "blend").code == 0
    epochs = card_of("multvae")["training"]["best_epoch"]
    assert trained == [1, 2, *range(2, epochs + 1)] and not card_of("multvae-refit")["interrupted"]


@pytest.mark.parametrize("model", ["als", "popularity"])
def test_models_without_epochs_are_fitted_again(model: str, toy: Path, command: Command) -> None:
    command("train", "--model", model)
    assert command("train", "--refit", model, "--on", "all").code == 0
    refit = card_of(f"{model}-refit-all")["training"]["refit"]
    assert refit["epochs"] is None and refit["on"] == "all"
    counts = read_bundle(RUNS / f"{model}-refit-all").items.train_counts
    assert np.array_equal(counts, np.bincount(join(Dataset.load(toy), "all").indices, minlength=len(counts)))


def test_a_tuned_run_is_trained_again_with_what_was_found(toy: Path, command: Command) -> None:
    pytest.importorskip("optuna")
    assert command("tune", "--model", "ease", "--trials", 2).code == 0
    assert command("train", "--refit", "ease-tuned").code == 0
    tuned, again = card_of("ease-tuned"), card_of("ease-tuned-refit")
    assert again["hyperparameters"] == tuned["hyperparameters"] and "searched" not in again["training"]
    assert again["training"]["refit"]["metrics"] == tuned["metrics"]["validation"]


@pytest.mark.parametrize("split", ["holdout", "leave-last-out", "time"])
def test_it_works_under_every_protocol(split: str, workplace: Path, command: Command) -> None:
    words = ("preprocess", "synthetic", "--users", 200, "--items", 120, "--events", 6000, "--name", "toy")
    assert command(*words, "--split", split).code == 0
    command(*EASY)
    for on in ("train+validation", "all"):
        assert command("train", "--refit", "ease", "--on", on, "--name", on.partition("+")[0]).code == 0
        expected = EASE(l2=20.0).fit(join(Dataset.load(Path("data/toy")), on)).weights()
        assert same_weights(weights_of(on.partition("+")[0]), dict(expected))
    assert command("evaluate", "train", "ease", "--baselines", "none").code == 0


OWN = """
from dataclasses import dataclass, field
from typing import ClassVar
from recvae.models import Popularity, MultVAE, hyperparameter
from recvae.training.records import TrainingSummary

@dataclass(kw_only=True)
class Mine(MultVAE):
    name: ClassVar[str] = "mine"

@dataclass(kw_only=True)
class Loop(Popularity):
    name: ClassVar[str] = "loop"
    epochs: int = hyperparameter(9, "passes", low=1)

    def training_summary(self):
        return TrainingSummary(epochs=self.epochs, best_epoch=min(4, self.epochs))

@dataclass(kw_only=True)
class Fixed(Popularity):
    name: ClassVar[str] = "fixed"

    def training_summary(self):
        return TrainingSummary(epochs=9, best_epoch=4)
"""


def test_models_of_your_own_are_trained_again(
    toy: Path, command: Command, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("my_refits.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    mine = ("--model", "my_refits:Mine")
    assert command("train", *mine, *SHORT, "--set", "epochs=4").code == 0
    assert command("train", "--refit", "mine").code == 1  # loading imports nothing by itself
    said = command("train", "--refit", "mine", *mine)
    assert said.code == 0 and card_of("mine-refit")["training"]["epochs"] == card_of("mine")["training"]["best_epoch"]
    assert "evaluate runs/toy/mine-refit --model my_refits:Mine" in said.err
    for name in ("Loop", "Fixed"):
        command("train", "--model", f"my_refits:{name}")
    assert command("train", "--refit", "loop", "--model", "my_refits:Loop").code == 0
    loop = card_of("loop-refit")
    assert loop["hyperparameters"]["epochs"] == loop["training"]["refit"]["epochs"] == 4
    said = refused("train", "--refit", "fixed", "--model", "my_refits:Fixed")
    assert "has kept epoch 4 of 9, and Fixed has no hyperparameter epochs" in said
