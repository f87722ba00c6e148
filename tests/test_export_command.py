"""`recvae export`, as a user types it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recvae.recommenders.recommender import Recommender
from recvae.serving.onnx import OnnxRecommender

Command = Callable[..., Any]
RUN = Path("runs/toy/multvae")
SMALL = ("--set", "hidden_dims=16", "--set", "latent_dim=8", "--set", "epochs=2", "--set", "batch_size=50")


@pytest.fixture
def run(toy: Path, command: Command) -> Recommender:
    """Return the recommender of a run of Mult-VAE in this folder."""
    said = command("train", *SMALL)
    assert said.code == 0, said.err
    return Recommender.load(RUN)


def test_a_run_is_exported_and_says_how_it_was_checked_and_what_comes_next(run: Recommender, command: Command) -> None:
    said = command("export")
    assert said.code == 0, said.err
    assert f"{RUN}/onnx: multvae as onnx float32" in said.out and f"from {RUN}" in said.out
    assert "validation users: scores differ by at most" in said.out and "100.0% of the top 10" in said.out
    assert f"next: recvae serve {RUN} --format onnx\n" in said.err
    load = said.err.rpartition("python -c ")[2].strip().strip('"')
    exec(compile(load, "next", "exec"), {})
    history = run.item_ids[:3].tolist()
    assert OnnxRecommender.load(RUN / "onnx").recommend(history).ids == run.recommend(history).ids


def test_with_8_bits_it_says_what_that_costs(run: Recommender, command: Command) -> None:
    said = command("export", "toy/multvae", "--quantize", "int8", "--output", "small")
    assert said.code == 0, said.err
    assert "small: multvae as onnx int8" in said.out and "ndcg@100 of" in said.out
    assert "recvae serve" not in said.err  # which looks for it in the run


def test_json_is_the_card_and_torch_is_a_program(run: Recommender, command: Command) -> None:
    card = json.loads(command("export", RUN, "--format", "torch", "--json").out)
    assert card["folder"] == str(RUN / "torch") and card["format"] == "torch"
    assert card["check"]["difference"] < 1e-4
    assert "torch.export.load('runs/toy/multvae/torch/model.pt2')" in command("export", RUN, "--format", "torch").err


@pytest.mark.slow
def test_without_its_data_a_run_is_checked_on_made_up_histories(run: Recommender, command: Command) -> None:
    said = command("export", "--data-dir", "nowhere")
    assert (said.code, "200 generated histories" in said.out) == (0, True)
    assert "checking on generated histories: no data set 'toy' in nowhere" in said.err
    manifest = Path("data/toy/manifest.json")
    manifest.write_text(manifest.read_text().replace(run.manifest["fingerprint"], "1" * 64))
    assert "checking on generated histories: " in command("export").err
    card = json.loads((RUN / "recommender.json").read_text())
    card["dataset"]["name"] = "x" * 5000  # no file can have that name
    (RUN / "recommender.json").write_text(json.dumps(card))
    said = command("export")
    assert said.code == 0 and "checking on generated histories: " in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "tflite"), "got format 'tflite', expected one of: onnx, torch"),
        (("--quantize", "int4"), "got quantize 'int4'"),
        (("--format", "torch", "--quantize", "int8"), "got --quantize with format torch"),
        (("nosuch",), "no run 'nosuch'"),
        (("--output", "runs"), "holds files of another kind"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    words: tuple[str, ...], message: str, run: Recommender, command: Command
) -> None:
    said = command("export", *words)
    assert (said.code, said.out, message in said.err) == (2, "", True), said.err
    assert not (RUN / "onnx").exists()


@pytest.mark.slow
def test_inspect_says_whether_an_export_is_whole_and_of_the_run_as_it_is_now(
    run: Recommender, command: Command
) -> None:
    assert command("export", RUN).code == 0
    assert re.search(r"onnx/ .*ok, up to date", command("inspect", RUN).out)
    card = json.loads((RUN / "recommender.json").read_text())
    (RUN / "recommender.json").write_text(json.dumps(card | {"created": "later"}))  # as copied over it
    older = command("inspect", RUN)
    assert older.code == 1 and re.search(r"onnx/ .*older than the run; export it again", older.out)
    assert command("export", RUN).code == 0
    (RUN / "onnx" / "model.onnx").write_bytes(b"")
    damaged = command("inspect", RUN, "--json")
    assert damaged.code == 1 and "model.onnx should have" in json.loads(damaged.out)["exports"]["onnx"]
