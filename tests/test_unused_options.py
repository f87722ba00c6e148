"""Options that would change nothing are refused or named; words that belong to no option are told as what they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.latent.generation import generate
from recvae.models import AE
from recvae.runs.finding import find_run

Command = Callable[..., Any]
SMALL = ("--set", "hidden_dims=8", "--set", "latent_dim=4", "--set", "epochs=1")


def told(said: Any) -> str:
    """Return the message of a wrong use, without the box around it and its line breaks."""
    assert said.code in (1, 2) and said.out == "" and "Traceback" not in said.err
    return " ".join(said.err.replace("│", " ").split())


@pytest.fixture
def runs(toy: Path, command: Command) -> Path:
    """Return the folder of runs `multvae` and `ae` on data of the same name as the folder."""
    for model in ("multvae", "ae"):
        assert command("train", "--model", model, *SMALL).code == 0
    return Path("runs/toy")


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--metric", "recall"), "got --metric recall without --picture by-k or by-history, which it is for"),
        (
            ("-k", "5"),
            "got -k 5 without --picture by-popularity or bias or coverage, which it is for; add that, or leave",
        ),
        (("--split", "validation"), "got --split validation without --picture by-k or by-history or"),
        (("--picture", "map", "--metric", "recall"), "got --metric recall without --picture by-k"),
        (("--picture", "by-k", "-k", "5"), "got -k 5 without --picture"),
        (("--picture", "curves,bias", "--labels", "a.csv"), "got --labels a.csv without --picture map"),
    ],
)
def test_a_picture_option_without_its_picture_is_refused(words: Any, message: str, command: Command) -> None:
    assert message in told(command("plot", *words))


def test_picture_options_with_their_pictures_are_used(runs: Path, command: Command) -> None:
    words = ("--picture", "by-k,bias,map", "--metric", "recall", "-k", "5", "--split", "validation")
    said = command("plot", "ae", *words, "--output", "x.svg")
    assert said.code == 0 and "for the validation users" in said.err
    assert "Recall" in Path("x-by-k.svg").read_text() or "recall" in Path("x-by-k.svg").read_text()
    assert "first 5 recommendations" in Path("x-bias.svg").read_text()


def test_every_way_is_measured_so_none_can_be_chosen_but_for_a_file(runs: Path, command: Command) -> None:
    refused = told(command("generate", "multvae", "--compare", "--from", "prior"))
    assert "got --from prior with --compare, which measures every way; leave one out, or add --output" in refused
    said = command(
        "generate", "multvae", "--compare", "--from", "prior", "--users", 60, "--output", "made.csv", "--json"
    )
    assert said.code == 0 and Path("made.csv").is_file(), said.err
    assert list(json.loads(said.out)["figures"]) == ["real users", "mixture", "prior", "interpolation"]


def test_draws_of_points_are_said_to_have_no_effect(runs: Path, command: Command) -> None:
    said = command("likelihood", "ae", "--samples", 5)
    assert said.code == 0 and "codes of ae are points: --samples 5 had no effect" in said.err
    for words in (("ae",), ("multvae", "--samples", 5)):
        assert "no effect" not in command("likelihood", *words).err


def test_who_has_no_prior_is_told_why_and_what_else_there_is(runs: Path, command: Command) -> None:
    message = "got source 'prior' for ae, whose codes are points without a prior; use mixture or interpolation"
    assert message in told(command("generate", "ae", "--from", "prior"))
    said = command("generate", "ae", "--compare", "--users", 60)
    assert said.code == 0 and "no users from the prior: codes of ae are points" in said.err
    train = Dataset.load("data/toy").train
    with pytest.raises(UsageError, match=r"got source 'prior' for ae, .* or a run of multvae, recvae or hvamp$"):
        generate(AE(hidden_dims=(), latent_dim=3, epochs=1).fit(train), train, 5, "prior")


# ---------------------------------------------------------------- words


@pytest.mark.parametrize("verb", ["train", "tune"])
def test_a_data_set_a_run_or_a_file_without_its_option_is_told_as_what_it_is(
    verb: str, runs: Path, command: Command
) -> None:
    Path("log.csv").write_text("user,item\n")
    for words, message in (
        (["toy"], "toy is a data set: write --data toy"),
        (["data/toy"], "data/toy is a data set: write --data data/toy"),
        (["ml-1m"], "ml-1m is a data set that is not prepared: first recvae preprocess ml-1m, then --data"),
        (["amazon-2023:Video_Games"], "is a data set that is not prepared: first recvae preprocess amazon-2023:Video_"),
        (["log.csv"], "log.csv is a file: recvae preprocess log.csv makes a data set of it, for --data"),
        (["toy/ae"], "toy/ae is a run: recvae evaluate toy/ae measures it"),
        (["Mult-VAE"], "Write --model multvae"),
        (["multvae", "toy"], "Write --model multvae. toy is a data set: write --data toy"),
        (["--data", "toy", "ae"], "Write --model ae"),
    ):
        said = told(command(verb, *words))
        assert message in said, said
    assert "--data" not in told(command(verb, "--data", "toy", "ae"))
    assert ("recvae train --refit toy/ae" in told(command(verb, "toy/ae"))) == (verb == "train")


def test_a_data_set_elsewhere_is_found_where_data_sets_are_kept(
    toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.parent.rename("kept")
    assert "--data toy" not in told(command("train", "toy"))
    assert "toy is a data set: write --data toy" in told(command("train", "toy", "--data-dir", "kept")).replace(
        "T", "t"
    )
    monkeypatch.setenv("RECVAE_DATA", "kept")
    assert "--data toy" in told(command("train", "toy"))


def test_a_data_set_in_place_of_a_model_is_told(toy: Path, command: Command) -> None:
    said = told(command("plan", "toy"))
    assert "got model 'toy', expected one of" in said and said.endswith("toy is a data set: write --data toy")


@pytest.mark.parametrize(
    "verb", ["evaluate", "compare", "segments", "likelihood", "anomalies", "plot", "report", "inspect"]
)
def test_the_runs_of_a_data_set_are_named_where_one_run_is_expected(verb: str, runs: Path, command: Command) -> None:
    said = told(command(verb, "toy"))
    assert "got 'toy', which holds the runs of a data set, expected one; name one of: toy/multvae, toy/ae" in said
    Path("log.csv").write_text("user,item\n")
    assert "log.csv is a file, of which `recvae preprocess` makes a data set and `recvae train` a run" in told(
        command(verb, "log.csv")
    )


def test_a_folder_of_runs_is_no_run(runs: Path) -> None:
    with pytest.raises(UsageError, match="got 'runs/toy', which holds the runs of a data set, expected one; name"):
        find_run(Path("runs"), "runs/toy")
