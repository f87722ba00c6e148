"""What earlier versions wrote is read, and gives what it gave: a data set, a bundle of each model, an export.

The files in `earlier/` were written by the commands of that version on its invented log; never write them again.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recvae import Dataset, Recommender, read_bundle
from recvae.models import MODELS

EARLIER = sorted((Path(__file__).parent / "earlier").iterdir())
RUNS = [run for version in EARLIER for run in sorted((version / "runs").iterdir())]

Command = Callable[..., Any]


def expected(version: Path) -> dict[str, Any]:
    """Return what that version said of its files."""
    return json.loads((version / "expected.json").read_text(encoding="utf-8"))


def short_hash(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("version", EARLIER, ids=lambda path: path.name)
def test_a_data_set_is_read_with_its_fingerprint(version: Path) -> None:
    dataset = Dataset.load(version / "dataset")
    assert dataset.fingerprint == expected(version)["fingerprint"]
    assert dataset.train.shape == (71, 77) and dataset.titles is not None


@pytest.mark.parametrize("run", RUNS, ids=lambda path: f"{path.parent.parent.name}-{path.name}")
def test_a_bundle_has_the_same_weights_to_the_bit_and_recommends_the_same(run: Path) -> None:
    told = expected(run.parent.parent)
    wanted = told["runs"][run.name]
    recommender = Recommender.load(run)
    assert recommender.model.name == wanted["model"]
    found = {name: short_hash(array) for name, array in recommender.model.weights().items()}
    assert {name: found[name] for name in wanted["weights"]} == wanted["weights"]
    assert found.keys() - wanted["weights"].keys() <= {"regularization"}  # was a hyperparameter alone
    found = recommender.recommend_batch(told["histories"], k=5)
    assert [[int(item) for item in row.ids] for row in found] == wanted["items"]
    for row, scores in zip(found, wanted["scores"], strict=True):
        # Another processor may add up in another order.
        np.testing.assert_allclose(row.scores, scores, rtol=1e-4, atol=1e-6)


def test_every_model_of_that_version_is_among_them() -> None:
    models = {told["model"] for version in EARLIER for told in expected(version)["runs"].values()}
    assert models == set(MODELS) - {"elsa", "sansa", "infae", "ials"}


@pytest.mark.parametrize("run", RUNS, ids=lambda path: f"{path.parent.parent.name}-{path.name}")
def test_its_card_says_how_training_went_and_is_written_again_with_the_same_keys(run: Path, tmp_path: Path) -> None:
    bundle = read_bundle(run)
    written = json.loads((run / "recommender.json").read_text(encoding="utf-8"))
    assert bundle.training.to_json() == written["training"]
    Recommender.load(run).save(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "recommender.json").read_text(encoding="utf-8"))
    assert again.keys() == written.keys()
    assert again["training"] == written["training"] and again["metrics"] == written["metrics"]
    for name, value in again["hyperparameters"].items():  # one that is newer than the run is what the run did
        newer = bundle.model.earlier.get(name, getattr(type(bundle.model), name, None))
        before = written["hyperparameters"].get(name, newer)
        assert value == before, name


@pytest.mark.parametrize("version", EARLIER, ids=lambda path: path.name)
def test_an_export_answers_as_its_run(version: Path) -> None:
    pytest.importorskip("onnxruntime")
    from recvae.serving.onnx import OnnxRecommender

    told = expected(version)
    service = OnnxRecommender.load(version / "runs" / "multvae" / "onnx")
    found = [service.recommend(history, k=5) for history in told["histories"]]
    assert [[int(item) for item in row.ids] for row in found] == told["runs"]["multvae"]["items"]


@pytest.mark.parametrize("version", EARLIER, ids=lambda path: path.name)
def test_the_commands_use_both(version: Path, workplace: Path, command: Command) -> None:
    shutil.copytree(version / "dataset", workplace / "data" / "synthetic")
    shutil.copytree(version / "runs", workplace / "runs" / "synthetic")
    said = command("compare", "--to", "popularity", "--json")
    assert said.code == 0, said.err
    assert len(json.loads(said.out)["runs"]) == len(RUNS)
    assert command("inspect", "vasp").code == 0
    assert command("train", "--model", "blend", "--set", "first=recvae", "--set", "second=edlae").code == 0


@pytest.mark.parametrize("run", RUNS, ids=lambda path: f"{path.parent.parent.name}-{path.name}")
def test_a_model_has_none_of_what_came_later_also_where_it_is_a_default_now(run: Path) -> None:
    """So a run that is repeated with other seeds, or trained again on more users, is trained as it was."""
    model = read_bundle(run).model
    assert (getattr(model, "decay", "none"), getattr(model, "warmup", 0.0)) == ("none", 0.0)
