"""Comparisons of AE, DAE and VAE, of schedules, and of what codes know: they run, continue, measure what they say."""

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from recvae import MultDAE, MultVAE, evaluate, synthetic_log
from recvae.datasets.dataset import Dataset
from recvae.datasets.features import ItemFeatures

pytestmark = pytest.mark.slow

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


def test_attributes_of_users_are_read_and_stand_in_the_order_of_the_vectors(
    sides: ModuleType,
    dataset: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    attributes = importlib.import_module("attributes")
    (tmp_path / "users.dat").write_text("7::F::18::4::01234\n9::M::50::0::2\n8::F::45::4::N\n", encoding="utf-8")
    (tmp_path / "u.user").write_text("7|24|F|artist|01234\n9|53|M|doctor|2\n8|45|F|artist|N\n", encoding="utf-8")
    for name, job in (("users.dat", "4"), ("u.user", "artist")):
        told = attributes.attributes(tmp_path / name)
        assert told.loc[[9, 7, 8], ["woman", "under 25", "over 44", f"occupation={job}"]].to_numpy().tolist() == [
            [False, False, True, False],
            [True, True, False, True],
            [True, False, True, True],
        ]
    hours = [(1, 3, 17), (1, 5, 20), (2, 2, 18), (3, 1, 30), (3, 1, 31), (3, 1, 42), (4, 5, 60)]  # user, rating, hour
    lines = [f"{user}\t10\t{rating}\t{hour * 3600}" for user, rating, hour in hours]
    (tmp_path / "u.data").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "ratings.dat").write_text("\n".join(lines).replace("\t", "::"), encoding="utf-8")
    for name in ("u.data", "ratings.dat"):
        told = attributes.habits(tmp_path / name)
        assert {name: told.index[told[name]].tolist() for name in told} == {
            "generous": [1, 4],  # means 4, 2, 1, 5
            "came late": [3, 4],
            "in the evening": [1, 2],  # 17 and 20; 18; 6, 7 and 18; 12
        }

    # who is generous follows from the ids, and what they like from who is: a table in another order would show nothing
    n_items = dataset.train.shape[1]
    likes = np.asarray(dataset.train[:, : n_items // 2].sum(axis=1)).ravel() / np.diff(dataset.train.indptr)
    assert dataset.train_user_ids is not None
    users = pd.DataFrame({"userId": dataset.train_user_ids, "movieId": 0, "rating": 1 + (likes > np.median(likes))})
    users.sample(frac=1, random_state=0).to_csv(tmp_path / "ratings.csv", index=False)
    monkeypatch.setitem(sides.NETWORK, "hidden_dims", (10,))
    monkeypatch.setitem(sides.NETWORK, "latent_dim", 5)
    monkeypatch.setattr(sides, "SIDES", sides.SIDES[1:3])
    dataset.save(tmp_path / "toy")
    attributes.main([f"--data={tmp_path / 'toy'}", f"--ratings={tmp_path / 'ratings.csv'}", "--seeds=2", "--epochs=9"])
    said = capsys.readouterr().out
    table = [line.strip("| ").split(" | ") for line in said.split("\n\n")[2].splitlines()]
    assert table[0] == ["user vectors", "generous", "mean", "minus that of truncated SVD"]
    means = {row[0].partition(":")[0]: float(row[2].split()[0]) for row in table[2:]}
    assert list(means) == [
        *("DAE", "VAE", "ALS", "EASE, sum over items", "truncated SVD", "length of the history", "random numbers")
    ]
    assert means["truncated SVD"] > 0.7 > 0.6 > means["random numbers"]
    with pytest.raises(SystemExit):
        attributes.main([f"--data={tmp_path / 'toy'}"])
    assert "got neither --ratings nor --attributes, expected one of them" in capsys.readouterr().err


def test_what_the_intervals_of_a_probe_hold_is_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    intervals = importlib.import_module("probe_intervals")
    intervals.main(["--draws=4", "--users=120", "--width=3"])
    shares = [int(share) / 100 for share in re.findall(r"in (\d+)%", capsys.readouterr().out)]
    assert len(shares) == 3 and all(share in (0, 0.25, 0.5, 0.75, 1) for share in shares)
    assert shares[0] + shares[1] <= 1


def test_schedules_are_compared_one_thing_at_a_time_and_figures_are_kept(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    schedules = importlib.import_module("schedules")
    assert [len(list(schedules.cells("multvae", full))) for full in (False, True)] == [18, 36]
    assert len(list(schedules.cells("recvae", full=True))) == 8  # which has no free bits
    monkeypatch.setitem(schedules.WEIGHTS, "multvae", (0.4,))
    dataset.save(tmp_path / "toy")
    results = tmp_path / "r.json"
    call = [f"--data={tmp_path / 'toy'}", "--seeds=2", "--epochs=2", f"--results={results}"]
    schedules.main(call)
    said = capsys.readouterr().out
    table = said.split("\n\n")[2]
    assert [line.split(" | ")[:3] for line in table.splitlines()[2:]] == [
        ["| 0.4", "linear", "0"],
        ["| 0.4", "linear", "0.1"],
        ["| 0.4", "linear", "0.5"],
        ["| 0.4", "constant", "0"],
        ["| 0.4", "cosine", "0"],
        ["| 0.4", "cyclical", "0"],
    ]
    fits = json.loads(results.read_text(encoding="utf-8"))["fits"]
    assert len(fits) == 12
    for key, figures in fits.items():
        settings = json.loads(key)[1]
        assert settings["anneal"] != "constant" or figures["weight"] == 0.4
        if settings["seed"] == 0:
            model = MultVAE(**settings).fit(dataset.train, dataset.validation, device="cpu")
            per_user, _ = evaluate(model, dataset.test, "ndcg@100")
            assert figures["ndcg"] == pytest.approx(np.nanmean(per_user["ndcg@100"]))
            assert figures["weight"] == model.log_[figures["best_epoch"] - 1].beta
    monkeypatch.setattr(schedules, "likelihood", None)  # what was measured is not measured again
    schedules.main(call)
    assert table in capsys.readouterr().out
    with pytest.raises(SystemExit):
        schedules.main([*call, "--seeds=0"])
    assert "--seeds must be 1 or more" in capsys.readouterr().err


def test_rules_of_stopping_read_logs_and_a_fitted_curve_is_that_of_exact_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    stopping = importlib.import_module("stopping")
    epochs = np.arange(1, 31)
    power, rate = stopping.EXPONENTS[10], stopping.RATES[15]
    for values, powers in ((0.4 - 0.3 * epochs**-power, True), (0.4 - 0.3 * np.exp(-rate * epochs), False)):
        assert stopping.foreseen(values[:12], 30, powers) == pytest.approx(values[-1], abs=1e-9)
        assert stopping.foreseen(values[:12], 30, powers, first=6) == pytest.approx(values[-1], abs=1e-9)
    assert stopping.foreseen(-epochs / 100, 40, powers=True) == pytest.approx(-epochs.mean() / 100)  # never falls

    late = np.array([0.1, 0.3, 0.2, 0.2, 0.2, 0.2, 0.4, 0.2])
    assert stopping.stopped(stopping.Curve(late, 8, False), stopping.by_patience(3)) == pytest.approx((5 / 8, 0.25))
    assert stopping.stopped(stopping.Curve(late, 8, False), stopping.by_patience(5)) == (1, 0)
    risen = stopping.Curve(0.4 - 0.3 * np.exp(-2.0 * epochs), 30, False)
    share, lost = stopping.stopped(risen, stopping.by_curve(powers=False, least=5))
    assert share == 5 / 30 and 0 < lost < 0.001
    assert stopping.stopped(risen, stopping.by_curve(powers=False, least=5, patience=30)) == (1, 0)

    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "log.jsonl").write_text("\n".join(json.dumps({"ndcg": value}) for value in late), encoding="utf-8")
    (run / "recommender.json").write_text(json.dumps({"hyperparameters": {"epochs": 9, "decay": "cosine"}}))
    figures = {
        "fits": {'["ae", {"epochs": 8}]': {"epochs": [{"ndcg": value} for value in late + 0.01]}, "baselines": {}}
    }
    (tmp_path / "sides.json").write_text(json.dumps(figures), encoding="utf-8")
    assert [(one.planned, one.decays) for one in stopping.curves([run.parent, tmp_path / "sides.json"])] == [
        (9, True),
        (8, False),
    ]
    stopping.main([str(run.parent), str(run), str(tmp_path / "sides.json")])
    said = capsys.readouterr().out
    assert "1 runs whose step size stays, 8 epochs" in said and "1 runs whose step size falls to 0" in said
    assert "| patience 3 | 62 % | 25.00 % | 25.0 % | 1 of 1 |" in said
    assert "The best of the first 50% of epochs is 25.0% below the best, on average." in said
    with pytest.raises(SystemExit):
        stopping.main([str(tmp_path / "nothing")])
    assert "got no run of more than 5 epochs" in capsys.readouterr().err


def _genres(dataset: Dataset) -> ItemFeatures:
    flags = np.random.default_rng(0).random((dataset.train.shape[1], 2)) < 0.4
    return ItemFeatures(matrix=flags.astype(np.float32), names=("A", "B"))
