"""Processes of one training wait for whoever reads or writes a large file, longer than for one that hangs."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from processes import Several

from recvae.compute import process_group
from recvae.compute.ranks import current
from recvae.datasets.dataset import Dataset
from recvae.errors import DataError
from recvae.runs import run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks as POSIX has them")

Command = Callable[..., Any]
TRAIN = ("train", "--set", "hidden_dims=16", "--set", "latent_dim=8", "--set", "epochs=1", "--set", "batch_size=40")
# Training itself is not that long.
WAITING = 6  # seconds until one that hangs is given up
LONG = 1.5 * WAITING


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "_WAITING", timedelta(seconds=WAITING))


def slow(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, rank: int, ends_with: Exception | None = None) -> None:
    """Have one process take long for something."""
    known = getattr(owner, name)

    def slowly(*given: Any, **named: Any) -> Any:
        if current().rank == rank and current().several:
            time.sleep(LONG)
            if ends_with is not None:
                raise ends_with
        return known(*given, **named)

    monkeypatch.setattr(owner, name, slowly)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("words", [TRAIN, ("train", "--refit", "one")], ids=["train", "refit"])
def test_data_that_one_process_reads_for_long_are_waited_for(
    words: tuple[str, ...], rank: int, several: Several, command: Command, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert toy.is_dir() and command(*TRAIN, "--name", "one").code == 0
    slow(monkeypatch, Dataset, "load", rank)
    first, second = (end.found for end in several(2, lambda _: command(*words)))
    assert (first.code, second) == (0, (0, "", "")), first
    assert "saved to runs/toy/" in first.out


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_data_that_turn_out_damaged_after_long_end_all(
    rank: int, several: Several, command: Command, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, Dataset, "load", rank, DataError("a shard is missing"))
    first, second = (end.found for end in several(2, lambda _: command(*TRAIN)))
    assert toy.is_dir() and (first.code, second) == (1, (1, "", ""))
    assert first.err.splitlines()[-1].startswith("error: a shard is missing")


@pytest.mark.slow
def test_a_bundle_that_is_written_for_long_is_waited_for(
    several: Several, command: Command, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, run, "write_bundle", 0)
    first, second = (end.found for end in several(2, lambda _: command(*TRAIN)))
    assert toy.is_dir() and (first.code, second) == (0, (0, "", "")), first
