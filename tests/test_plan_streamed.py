"""`recvae plan --stream`: what training needs when its rows stay on disk, without ever having them all in memory."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_streaming import numbered, stored

from recvae.datasets import shards
from recvae.datasets.dataset import Dataset
from recvae.datasets.streams import StreamedMatrix, spread_users
from recvae.models import EASE, MODELS, MultVAE
from recvae.models.common.autoencoder import Autoencoder
from recvae.runs.planning import plan
from recvae.runs.sharing_plans import plan_shares

Command = Callable[..., Any]

STREAM = ("--stream", "--buffer", "10kB")
NETWORK = MultVAE(hidden_dims=(8,), latent_dim=4, batch_size=16)


@pytest.fixture
def sharded(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the data set `toy` in many shards."""
    monkeypatch.setattr(shards, "EVENTS_PER_SHARD", 300)
    Dataset.load(toy).save(toy, shards=True)
    return toy


def test_every_model_is_planned_as_it_would_be_trained_or_refused(sharded: Path, command: Command) -> None:
    said = command("plan", *STREAM, "--seconds", "0.01", "--json")
    assert said.code == 0, said.err
    found = {one["model"]: one for one in json.loads(said.out)["models"]}
    assert sorted(found) == sorted(name for name in MODELS if name != "blend")
    for name, one in found.items():
        assert one["fits"] == MODELS[name].streams
        if not one["fits"]:
            assert one["obstacle"].startswith(f"got {name} for training rows that stay on disk, but it works on")
        assert (one["seconds"] is not None) == issubclass(MODELS[name], Autoencoder)
    assert re.search(r"^training rows stay on disk in 7 shards; 10.0 kB hold \d+% of them at a time\n", said.err)


def test_the_next_command_trains_what_was_planned(sharded: Path, command: Command) -> None:
    said = command("plan", "elsa", "--set", "epochs=1", *STREAM, "--seconds", "0.01")
    assert said.code == 0 and "times leave out reading" in said.out, said.err
    words = shlex.split(said.err.splitlines()[-1].removeprefix("next: "))
    assert words[-3:] == ["--stream", "--buffer", "10000B"]
    assert command(*words[1:]).code == 0
    card = json.loads(Path("runs/toy/elsa/recommender.json").read_text())
    assert card["training"]["stream"]["buffer"] == 10_000


def test_no_more_than_the_buffer_is_read_and_needed(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, before = list[int](), StreamedMatrix.in_memory

    def noted(self: StreamedMatrix, chosen: np.ndarray) -> Any:
        rows = before(self, chosen)
        read.append(rows.shape[0])
        return rows

    monkeypatch.setattr(StreamedMatrix, "in_memory", noted)
    whole = plan(NETWORK, Dataset.load(sharded), seconds=0)
    held = Dataset.load(sharded, stream=True, buffer=10_000)
    part = plan(NETWORK, held, seconds=0.01)
    assert part.needs.training < whole.needs.training and part.needs.parameters == whole.needs.parameters
    assert read and max(read) < held.train.shape[0] and part.seconds is not None
    every = plan(NETWORK, Dataset.load(sharded, stream=True), seconds=0)
    assert every.needs == whole.needs  # a buffer of 1 GB holds all


@pytest.mark.parametrize("limit", [10_000, 100_000, 10_000_000])
def test_a_plan_says_what_training_says(limit: int, sharded: Path, command: Command) -> None:
    data = Dataset.load(sharded, stream=True, buffer=10_000)
    found = plan(NETWORK, data, seconds=0, max_memory=limit)
    kinds = ("hidden_dims=8", "latent_dim=4", "batch_size=16", "epochs=1")
    words = [word for kind in kinds for word in ("--set", kind)]
    trained = command("train", "--model", "multvae", *words, *STREAM, "--max-memory", f"{limit}B")
    assert found.fits == (trained.code == 0) and (found.obstacle in trained.err)


def test_each_of_several_processes_has_a_buffer(sharded: Path) -> None:
    whole, part = (
        plan_shares(NETWORK, data, 2, max_memory=10**9)[0]
        for data in (Dataset.load(sharded), Dataset.load(sharded, stream=True, buffer=10_000))
    )
    assert whole.needs is not None and part.needs is not None
    assert part.needs.training < whole.needs.training and part.added_up == whole.added_up


def test_the_whole_matrix_is_not_asked_for_where_a_closed_form_is_planned(sharded: Path) -> None:
    found = plan(EASE(), Dataset.load(sharded, stream=True, buffer=10_000), seconds=1)
    assert found.fits and found.seconds is None and found.epoch_seconds is None


@pytest.mark.parametrize("n_users", [1, 7, 40, 10_000])
def test_users_are_taken_from_all_over_the_data(n_users: int, tmp_path: Path) -> None:
    train = stored(tmp_path, numbered([1 + user % 5 for user in range(400)]), (90, 91, 300), 4_000)
    found = spread_users(train, n_users)
    users = found.data[found.indptr[:-1]].astype(int) - 1
    assert len(users) >= min(n_users, 400) and (np.diff(users) > 0).all()
    assert (np.diff(found.indptr) == 1 + users % 5).all()
    assert users[0] < 100 and users[-1] >= 300
    assert spread_users(found, n_users) is found


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--refit", "any", "--stream"), "got --stream with --refit, which puts train and held-out users together"),
        (("--buffer", "1GB"), "got --buffer 1GB without --stream, where it has no effect"),
        (("--stream", "--buffer", "much"), "got 'much' for an amount of memory"),
    ],
)
def test_what_cannot_be_streamed_is_refused(words: tuple[str, ...], told: str, toy: Path, command: Command) -> None:
    said = command("plan", *words)
    assert said.code == 2 and said.err.startswith(f"error: {told}"), said.err
