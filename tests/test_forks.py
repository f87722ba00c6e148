"""A process that has recommended is forked, as by gunicorn --preload: both processes recommend, and end."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")]

# The child ends as a server's workers do; os._exit would leave everything as it is.
FORK = """
import os, signal, sys
import numpy as np
{make}
def answers():
    ids, n_items = recommender.item_ids, len(recommender.items)
    histories = ids[np.random.default_rng(1).integers(0, n_items, (2000, 4))].tolist()
    return recommender.recommend_batch(histories, k=5).to_pandas()
before = answers()
def idle():
    pass
def child():
    {then}
for do in {children}:
    forked = os.fork()
    if not forked:
        signal.alarm(60)  # ends a child that hangs
        do()
        sys.exit()
    ended = os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])
    assert answers().equals(before)
    print("child ended with", ended)
"""
FITTED = """
import torch
from recvae import ALS, EASE, IALS, Dataset, Events, MultVAE, Recommender
torch.set_num_threads(4)  # whatever this machine has
pairs = [(user, item) for user in range(1500) for item in np.random.default_rng(user).choice(700, 8, replace=False)]
dataset = Dataset.from_events(Events.from_columns(*map(list, zip(*pairs))), name="x")
recommender = Recommender({model}.fit(dataset.train, device="cpu"), dataset)
"""
MODELS = {
    "ease": "EASE(l2=5.0)",
    "multvae": "MultVAE(hidden_dims=(64,), latent_dim=32, epochs=1)",
    "als": "ALS(factors=8, iterations=2)",
    "ials": "IALS(factors=8, iterations=2)",
}
EXPORTED = """
from recvae.serving.onnx import OnnxRecommender
recommender = OnnxRecommender.load(folder, threads={threads})
"""
SAME = "assert answers().equals(before)"
WELL = "child ended with 0\n"


def forked(make: str, then: str, children: str = "[child]") -> str:
    """Return what was printed and said, both."""
    code = FORK.format(make=make, then=then, children=children)
    return subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout


@pytest.mark.parametrize("name", MODELS)
def test_both_processes_recommend_and_the_child_also_trains(name: str) -> None:
    then = f"{SAME}; assert torch.get_num_threads() == 4; {MODELS[name]}.fit(dataset.train, device='cpu')"
    assert forked(FITTED.format(model=MODELS[name]), then) == WELL


def test_where_threads_cannot_be_let_go_the_child_has_one() -> None:
    old = 'from recvae.compute import forks; forks._LET_GO = "in_no_library_before_gcc_9"'
    then = f"{SAME}; assert torch.get_num_threads() == 1"
    assert forked(f"{old}\n{FITTED.format(model=MODELS['ease'])}", then) == WELL


@pytest.mark.parametrize("threads", [1, 4, None])
@pytest.mark.parametrize("name", ["ease", "multvae"])
def test_both_processes_recommend_with_an_exported_model(
    name: str, threads: int | None, exported: Callable[..., Path]
) -> None:
    make = f"folder = {str(exported(name))!r}{EXPORTED.format(threads=threads)}"
    assert forked(make, SAME, "[idle, child]") == 2 * WELL


def test_a_child_refuses_an_export_that_was_changed(exported: Callable[..., Path], tmp_path: Path) -> None:
    copy = f"import shutil; folder = shutil.copytree({str(exported('ease'))!r}, {str(tmp_path / 'onnx')!r})"
    then = "os.utime(folder + '/model.onnx', (1, 1)); answers()"
    said = forked(f"{copy}{EXPORTED.format(threads=4)}", then)
    assert "model.onnx was changed after it was loaded, and this process was forked since; load the export" in said
    assert said.endswith("child ended with 1\n")


def test_onnx_runtime_reports_to_nobody_unless_that_is_wished(exported: Callable[..., Path]) -> None:
    code = f"import os, numpy as np\nfolder = {str(exported('ease'))!r}{EXPORTED.format(threads=1)}"
    code += "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for wish in ({}, {"ORT_DISABLE_TELEMETRY": "0"}):
        environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"} | wish
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.stdout == wish.get("ORT_DISABLE_TELEMETRY", "1") + "\n", done.stderr
