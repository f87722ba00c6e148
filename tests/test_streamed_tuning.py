"""`recvae tune --stream`: trials on training rows that stay on disk, in one order for all trials of a study."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recvae.datasets import shards
from recvae.datasets.dataset import Dataset

pytest.importorskip("optuna", reason="optuna is not installed (extra tune)")

Command = Callable[..., Any]

TUNE = ("tune", "--model", "elsa", "--set", "epochs=2", "--set", "batch_size=16", "--stream", "--buffer", "10kB")


@pytest.fixture
def place(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the data set `toy` in many shards."""
    monkeypatch.setattr(shards, "EVENTS_PER_SHARD", 300)
    Dataset.load(toy).save(toy, shards=True)
    return toy.parent.parent


def test_the_best_trial_is_what_its_command_trains(place: Path, command: Command) -> None:
    said = command(*TUNE, "--trials", "2", "--json")
    assert said.code == 0, said.err
    words = shlex.split(json.loads(said.out)["train"])
    assert words[-3:] == ["--stream", "--buffer", "10000B"]
    card = json.loads((place / "runs/toy/elsa-tuned/recommender.json").read_text())
    assert card["training"]["stream"]["buffer"] == 10_000
    again = command(*words[1:], "--name", "again")
    assert again.code == 0, again.err
    one, other = ((place / f"runs/toy/{name}/weights.safetensors").read_bytes() for name in ("elsa-tuned", "again"))
    assert one == other


def test_a_study_is_not_continued_with_users_in_another_order(
    place: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*TUNE, "--trials", "1").code == 0
    for words, message in (
        ((*TUNE[:-1], "20kB"), "stream: 10000, now 20000"),
        (TUNE[:-3], "stream: 10000, now all in memory"),
    ):
        refused = command(*words, "--trials", "2")
        assert refused.code == 2 and message in refused.err, refused
    monkeypatch.setattr(shards, "EVENTS_PER_SHARD", 200)
    toy = place / "data/toy"
    (toy / "studies").rename(place / "studies")
    Dataset.load(toy).save(toy, shards=True)
    (place / "studies").rename(toy / "studies")
    refused = command(*TUNE, "--trials", "2")
    assert refused.code == 2 and "holds a study of something else (shards: " in refused.err, refused


def test_a_model_that_needs_all_rows_is_refused_before_they_are_looked_for(workplace: Path, command: Command) -> None:
    refused = command("tune", "--model", "als", "--stream")
    assert refused.code == 2 and "got als for training rows that stay on disk" in refused.err
    refused = command("tune", "--buffer", "1GB")
    assert refused.code == 2 and "got --buffer 1GB without --stream, where it has no effect" in refused.err
    assert not list(workplace.iterdir())
