"""What is mistyped is told with what to write: models in any spelling, options, hyperparameters as options, verbs."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from recvae.errors import UsageError, did_you_mean
from recvae.models import EASE, MODELS, MultVAE, known_model, model_class
from recvae.models.common.hyperparameters import hyperparameters_of
from recvae_cli.app import app

Command = Callable[..., Any]
HYPERPARAMETERS = sorted({field for model in MODELS.values() for field in hyperparameters_of(model)})


def told(said: Any) -> str:
    """Return the message of a wrong use, without the box around it and its line breaks."""
    assert said.code == 2 and said.out == "" and "Traceback" not in said.err
    return " ".join(said.err.replace("│", " ").split())


@pytest.mark.parametrize("name", ["multvae", "Mult-VAE", "MultVAE", "mult_vae", "MULT VAE", "mult-Vae"])
def test_a_model_is_known_in_any_spelling(name: str) -> None:
    assert model_class(name) is MultVAE


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_every_model_is_known_by_its_name_and_its_class_name_and_by_no_other_models(model: Any) -> None:
    assert model_class(model.name) is model and model_class(model.__name__) is model
    assert model_class(model.__name__.upper()) is model


def test_a_file_gives_a_name_as_it_is_and_no_other_spelling() -> None:
    with pytest.raises(UsageError, match=r"^got model 'Mult-VAE', expected one of: multvae, "):
        known_model("Mult-VAE")


def test_a_spelling_is_never_ambiguous() -> None:
    @dataclass(kw_only=True)
    class One(EASE):
        name: ClassVar[str] = "my-knn"

    @dataclass(kw_only=True)
    class Two(EASE):
        name: ClassVar[str] = "my_knn"

    assert model_class("MyKNN", [One]) is One
    assert model_class("my_knn", [One, Two]) is Two and model_class("my-knn", [One, Two]) is One
    with pytest.raises(UsageError, match=r"^got model 'MyKNN', expected one of: "):
        model_class("MyKNN", [One, Two])


def test_a_model_that_is_close_is_asked_for() -> None:
    with pytest.raises(UsageError, match=r"for a model of your own; did you mean multvae\?$"):
        model_class("Mutl-VAE")
    with pytest.raises(UsageError, match=r"for a model of your own$"):
        model_class("xgboost")


def test_names_that_are_close() -> None:
    assert did_you_mean("EPOCH", ["epochs", "seed"]) == "; did you mean epochs?"
    assert did_you_mean("epoch", ["epochs"], "--{}") == "; did you mean --epochs?"
    assert did_you_mean("x", ["epochs"]) == did_you_mean("x", []) == ""


def test_the_command_takes_every_spelling(toy: Any, command: Command) -> None:
    assert json.loads(command("train", "--model", "Popularity", "--json").out)["folder"] == "runs/toy/popularity"
    assert list(json.loads(command("models", "Mult_VAE", "multvae", "EASE", "--json").out)) == ["multvae", "ease"]
    plans = json.loads(command("plan", "ease", "EASE", "--seconds", 0, "--json").out)
    assert [found["model"] for found in plans["models"]] == ["ease"]
    report = json.loads(command("evaluate", "--baselines", "Popularity,popularity", "--json").out)
    assert [run["name"] for run in report["runs"]] == ["popularity", "popularity (baseline)"]
    named = json.loads(command("compare", "popularity", "--to", "POPULARITY", "--json").out)
    assert named["baseline"] == "popularity (baseline)"
    refused = command("train", "--model", "Popularity", "--refit", "popularity")
    assert "got --model Popularity with --refit, but the model is that of popularity" in told(refused)


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_a_hyperparameter_as_an_option_is_told_as_a_setting(name: str, command: Command) -> None:
    model = next(model for model in MODELS.values() if name in hyperparameters_of(model))
    verb = next(one for one in app.registered_commands if one.name == "train")
    assert verb.name == "train"
    option = f"--{name}"
    if name in ("seed", "precision"):  # which are options of `train`
        return
    for words in ([option, "5"], [f"{option}=5"], [option.replace("_", "-"), "5"]):
        said = told(command("train", "--model", model.name, "--data", "x", *words))
        assert f"It is a hyperparameter: write --set {name}=5" in said, said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--epochs", "5"], "No such option: --epochs. It is a hyperparameter: write --set epochs=5"),
        (["train", "--epochs"], "It is a hyperparameter: write --set epochs=VALUE"),
        (["train", "--epochs", "--data", "x"], "write --set epochs=VALUE"),
        (["train", "--learning-rate", "-1"], "write --set learning_rate=-1"),
        (["train", "-m", "EASE", "--l2=5"], "write --set l2=5"),
        (["train", "--model", "mod:Mine", "--l2", "5"], "write --set l2=5"),
        (["train", "--model", "ease", "--epochs", "5"], "elsa; ease has: l2, top_k"),
        (["train", "--model", "popularity", "--l2", "5"], "popularity has: none"),
        (["plan", "--l2", "5"], "write --set l2=5"),
        (["plan", "ease", "--factors", "5"], "It is a hyperparameter of als, ials; ease has: l2, top_k"),
        (["tune", "--latent-dim", "5"], "write --set latent_dim=5"),
        (["evaluate", "--epochs", "5"], "which is set in training: recvae train --set epochs=5"),
        (["train", "--epoch", "5"], "No such option: --epoch. Did you mean --set epochs=5?"),
        (["train", "--modle", "x"], "No such option: --modle. Did you mean --model?"),
        (["train", "--max_memory", "8GB"], "Did you mean --max-memory?"),
        (["train", "--runsdir", "x"], "Did you mean --runs-dir?"),
        (["evaluate", "--metric", "ndcg@10"], "Did you mean --metrics?"),
        (["train", "multvae"], "(multvae). Write --model multvae"),
        (["train", "epochs=5"], "(epochs=5). Write --set epochs=5"),
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["run"], "Did you mean 'runs'?"),
    ],
)
def test_what_is_mistyped_is_told_with_what_to_write(words: list[str], message: str, command: Command) -> None:
    assert message in told(command(*words))


def test_where_nothing_is_close_nothing_is_proposed(command: Command) -> None:
    assert told(command("train", "--xyzzy", "5")).endswith("No such option: --xyzzy ╰" + "─" * 78 + "╯")
    assert "Write" not in told(command("train", "something"))
    assert "Possible" not in told(command("inspect", "--nothing-like-it"))


def test_runs_data_sets_and_settings_that_are_close_are_asked_for(toy: Any, command: Command) -> None:
    assert command("train", "--model", "popularity").code == 0
    for verb in ("evaluate", "inspect", "recommend"):
        assert told(command(verb, "popularty", *(["--items", "1"] if verb == "recommend" else []))).endswith(
            "there are: toy/popularity; did you mean popularity?"
        )
    assert told(command("inspect", "toi/popularity")).endswith("did you mean toy/popularity?")
    assert told(command("train", "--data", "toyy")).endswith("did you mean toy?")
    assert "did you mean latent_dim?" in told(command("train", "--set", "latentdim=3"))
    assert told(command("plan", "als", "ease", "--set", "factor=3")).endswith("has it; did you mean factors?")
