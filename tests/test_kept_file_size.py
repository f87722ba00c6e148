"""`--shard-size` is kept with an unfinished run: it ends as it was asked for when it began, unless told otherwise."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recvae.bundles.card import RUN_STATE
from recvae.errors import BundleError
from recvae.runs.state import read_state
from recvae.training.monitors import LogFile

Command = Callable[..., Any]

TRAIN = ("train", "--set", "hidden_dims=16", "--set", "latent_dim=8", "--set", "batch_size=40", "--set", "epochs=3")
PARTS = {"weights-00001-of-00001.safetensors", "weights.safetensors.index.json"}


@pytest.fixture
def begun(toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run that was interrupted after its first epoch, with --shard-size."""

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LogFile, "epoch", stopped)
        command(*TRAIN, "--shard-size", "2MB")
    folder = toy.parent.parent / "runs/toy/multvae"
    assert json.loads((folder / RUN_STATE).read_text())["file_bytes"] == 2_000_000
    return folder


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("weights*")}


def test_a_resumed_run_writes_files_of_the_size_that_it_was_begun_with(begun: Path, command: Command) -> None:
    assert files(begun) == PARTS, "also of an interrupted one"
    assert command("train", "--resume").code == 0
    assert files(begun) == PARTS and not (begun / RUN_STATE).exists()


def test_another_size_counts_from_then_on(begun: Path, command: Command) -> None:
    state = json.loads((begun / RUN_STATE).read_text())
    (begun / RUN_STATE).write_text(json.dumps({key: value for key, value in state.items() if key != "file_bytes"}))
    assert read_state(begun / RUN_STATE)["file_bytes"] is None, "a run of an earlier version"
    assert command("train", "--resume").code == 0
    assert files(begun) == {"weights.safetensors"}


def test_a_size_that_is_no_number_is_damage(begun: Path) -> None:
    state = json.loads((begun / RUN_STATE).read_text())
    (begun / RUN_STATE).write_text(json.dumps({**state, "file_bytes": "2MB"}))
    with pytest.raises(BundleError, match="file_bytes is '2MB'"):
        read_state(begun / RUN_STATE)


def test_a_run_followed_from_its_beginning_is_not_resumed_where_no_process_could_show_it(
    begun: Path, command: Command, several: Any
) -> None:
    """As it would be refused at the beginning: else it would end with an error after all its epochs."""
    state = json.loads((begun / RUN_STATE).read_text())
    (begun / RUN_STATE).write_text(json.dumps({**state, "tracking": {"tensorboard": "curves"}}))
    before = {path: path.read_bytes() for path in begun.iterdir()}
    ended = several(2, lambda _: command("train", "--resume", "--share", "items"))
    assert [end.found.code for end in ended] == [2, 2], ended
    assert "with --share items and --shard-size, where no process has the whole model" in ended[0].found.err
    assert {path: path.read_bytes() for path in begun.iterdir()} == before
