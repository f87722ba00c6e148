"""A refit that torchrun starts again, after a process was lost, is the same run, continued."""

import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from recvae.compute.ranks import current
from recvae.models import MultVAE

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and forks as POSIX has them")

Command = Callable[..., Any]

SETTINGS = "--set hidden_dims=16 --set latent_dim=8 --set batch_size=40 --seed 3 --set epochs=3 --set averaging=0.5"
TRAIN = ("train", *shlex.split(SETTINGS))


def test_a_refit_that_is_started_again_is_continued(
    several: Any, command: Command, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*TRAIN, "--name", "one").code == 0
    assert command("train", "--refit", "one", "--name", "whole").code == 0
    loss, calls = MultVAE._loss, [0]

    def lost(*of_batch: Any) -> Any:
        calls[0] += 1
        if current().rank == 1 and calls[0] == 6:  # of about 5 in an epoch
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(*of_batch)

    words, job = ("train", "--refit", "one"), {"TORCHELASTIC_RUN_ID": "mine"}
    with monkeypatch.context() as patched:
        patched.setattr(MultVAE, "_loss", lost)
        first, second = several(2, lambda _: command(*words), **job)
    assert (first.found.code, second.code) == (1, -signal.SIGKILL)
    runs = toy.parent.parent / "runs/toy"
    assert (runs / "one-refit/run.json").exists()
    ended = several(2, lambda _: command(*words), **job, TORCHELASTIC_RESTART_COUNT="1")
    assert [end.found.code for end in ended] == [0, 0], ended
    assert {path.name for path in runs.iterdir()} == {"one", "whole", "one-refit"}
    assert not (runs / "one-refit/run.json").exists()
    found, expected = (load_file(runs / name / "weights.safetensors") for name in ("one-refit", "whole"))
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=5e-4 * np.abs(value).max(), err_msg=key)
