"""The comparison of AE, DAE and VAE: it runs, continues, gives all sides the same input, and measures what it says."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.sparse as sp

from recvae import MultDAE, MultVAE, evaluate, synthetic_log
from recvae.datasets.dataset import Dataset
from recvae.datasets.features import ItemFeatures

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def sides() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return importlib.import_module("ae_dae_vae")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    events, _ = synthetic_log(n_users=400, n_items=120, n_events=9000, seed=1)
    return Dataset.from_events(events, name="toy", heldout_users=60)


def test_inputs_lose_or_gain_what_they_should(sides: ModuleType, dataset: Dataset) -> None:
    test = dataset.test
    own, targets = test.fold_in.toarray() > 0, test.targets.toarray() > 0
    inputs = {name: [part.toarray() > 0 for part in parts] for name, parts in sides.noisy_inputs(test)}
    assert len(inputs) == len(sides.DROPPED) + len(sides.ADDED)
    lengths = own.sum(axis=1)
    for share in sides.DROPPED:
        rows, hidden = inputs[f"dropped {share}"]
        assert not (rows & ~own).any()
        assert np.array_equal(hidden, own)
        assert np.array_equal(rows.sum(axis=1), lengths - np.minimum(np.round(share * lengths), lengths - 1))
    for share in sides.ADDED:
        rows, hidden = inputs[f"added {share}"]
        assert (rows >= own).all()
        assert np.array_equal((rows & ~own).sum(axis=1), np.round(share * lengths))
        assert not (rows & targets).any()
        assert (hidden >= rows).all()  # the same for all shares
        assert np.array_equal(hidden, inputs[f"added {max(sides.ADDED)}"][0])


def test_ranking_and_perplexity_are_those_of_the_package(sides: ModuleType, dataset: Dataset) -> None:
    model = MultDAE(hidden_dims=(8,), latent_dim=4, epochs=3, seed=1).fit(dataset.train)
    test = dataset.test
    per_user, _ = evaluate(model, test, "ndcg@100")
    assert sides.ranked_with(model, test.fold_in, test.fold_in, test) == pytest.approx(
        np.nanmean(per_user["ndcg@100"]), abs=1e-6
    )
    rows = sp.csr_matrix(test.fold_in + test.targets)
    expected = np.exp(-model.reconstruction(rows).sum() / rows.sum())
    assert sides.perplexity(model, rows) == pytest.approx(expected, rel=1e-5)
    spread = MultVAE(hidden_dims=(8,), latent_dim=4, epochs=3, seed=1).fit(dataset.train)
    assert sides.perplexity(spread, rows) < np.exp(-spread.reconstruction(rows).sum() / rows.sum())


def test_it_runs_continues_and_refuses_figures_of_other_data(
    sides: ModuleType,
    dataset: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sides, "genres_of", lambda _, data: _genres(data))
    monkeypatch.setattr(sides, "HIDDEN", 10)
    monkeypatch.setitem(sides.NETWORK, "hidden_dims", (10,))
    monkeypatch.setitem(sides.NETWORK, "latent_dim", 5)
    monkeypatch.setattr(sides, "WIDTHS", {"latent": (3,), "hidden": (6,)})
    monkeypatch.setattr(sides, "LATENT", 5)
    monkeypatch.setattr(sides, "NOISES", sides.NOISES[::3])
    monkeypatch.setattr(sides, "PRICES", sides.PRICES[::6])
    monkeypatch.setattr(sides, "FEW", 1)
    dataset.save(tmp_path / "toy")
    call = [f"--data={tmp_path / 'toy'}", "--genres=x", "--seeds=2", "--epochs=2", f"--results={tmp_path / 'r.json'}"]
    sides.main([*call, f"--plots={tmp_path}"])
    said = capsys.readouterr().out
    for title in (
        "Side by side",
        "Noise in the input",
        "Noise of training",
        "Latent units",
        "Genres from item vectors",
    ):
        assert f"### {title}" in said
    assert {path.name for path in tmp_path.glob("*.png")} == {
        f"ae-dae-vae-{name}.png" for name in ("sides", "noise", "collapse", "widths", "probes")
    }
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(sides.Bench, "_figures", None)  # what was measured is not measured again
    sides.main(call)
    again = capsys.readouterr().out
    assert again.split("### Side by side")[1] == said.split("### Side by side")[1].partition("wrote ")[0]
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == found

    found["data"] = "other"
    (tmp_path / "r.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(SystemExit, match="has figures of other data; give another --results"):
        sides.main(call)


def _genres(dataset: Dataset) -> ItemFeatures:
    flags = np.random.default_rng(0).random((dataset.train.shape[1], 2)) < 0.4
    return ItemFeatures(matrix=flags.astype(np.float32), names=("A", "B"))
