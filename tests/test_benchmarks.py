"""The benchmarks run, and compare like with like."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from recvae import Dataset, MultVAE, Recommender, synthetic_log
from recvae.models.multvae import MultVAENetwork
from recvae.training.batches import whole_batch

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "benchmarks"
BETA = 0.3


@pytest.fixture(autouse=True)
def as_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the benchmarks find one another, as when they are run as scripts."""
    monkeypatch.syspath_prepend(FOLDER)


@pytest.fixture
def warm_starts(warm_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes that a benchmark starts be there in a moment."""
    monkeypatch.setattr(sys, "executable", warm_python)


@pytest.fixture(params=["ease", "evaluation"])
def by_turns(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


@pytest.fixture
def epoch() -> ModuleType:
    return importlib.import_module("epoch")


@pytest.fixture
def preprocess() -> ModuleType:
    return importlib.import_module("preprocess")


@pytest.fixture
def startup() -> ModuleType:
    return importlib.import_module("startup")


@pytest.fixture
def dense() -> ModuleType:
    return importlib.import_module("dense")


def _ours() -> MultVAE:
    train = sp.csr_matrix(np.random.default_rng(3).random((30, 40)) < 0.2, dtype=np.float32)
    model = MultVAE(hidden_dims=(12,), latent_dim=5, epochs=2, batch_size=10, dropout=0.0, seed=4)
    return model.fit(train, device="cpu")


def _pairs(ours: MultVAENetwork, dense: Any) -> list[tuple[nn.Parameter, nn.Parameter, Callable[..., torch.Tensor]]]:
    """Return (ours, dense, from our layout to the dense one) of each weight and bias."""
    layers = zip([*ours.encoder, *ours.decoder], [*dense.encoder[::2], *dense.decoder[::2]], strict=True)
    pairs = []
    for number, (first, second) in enumerate(layers):
        turn = torch.t if number == 0 else torch.clone  # the sparse layer has a row per item, nn.Linear a column
        pairs += [(first.weight, second.weight, turn), (first.bias, second.bias, torch.clone)]
    return pairs


def test_both_sides_compute_the_same_loss_and_gradients(dense: ModuleType) -> None:
    model = _ours()
    ours = cast(MultVAENetwork, model.network_)
    other = dense.DenseMultVAE(40, hidden=12, latent=5, dropout=0.0)
    pairs = _pairs(ours, other)
    assert len(pairs) == len(list(other.parameters())) == len(list(ours.parameters()))
    for first, second, turn in pairs:
        second.data = turn(first.data).contiguous()
    rng = np.random.default_rng(5)
    rows = sp.csr_matrix((rng.random((8, 40)) < 0.3) * rng.uniform(0.5, 2, (8, 40)), dtype=np.float32)
    ours.zero_grad()
    losses = model._loss(whole_batch(rows, torch.device("cpu")), BETA, torch.Generator().manual_seed(6))
    losses.total.backward()
    with torch.random.fork_rng():
        torch.manual_seed(6)  # the same noise: without dropout, it is all that either side draws
        loss = other.loss(torch.from_numpy(rows.toarray()), BETA)
    loss.backward()
    assert losses.kl is not None
    assert losses.kl.item() > 0.01  # so that a KL term left out would be seen
    torch.testing.assert_close(loss, losses.total, rtol=1e-5, atol=1e-5)
    for first, second, turn in pairs:
        assert first.grad is not None and second.grad is not None
        torch.testing.assert_close(turn(first.grad), second.grad, rtol=1e-4, atol=1e-5)


def test_the_interactions_are_as_many_as_asked_for(epoch: ModuleType) -> None:
    train = epoch.made_up(50, 100, 1200)
    assert train.shape == (50, 100)
    assert train.nnz == 1200
    assert train.dtype == np.float32


@pytest.mark.usefixtures("warm_starts")
@pytest.mark.parametrize("model", ["multvae", "multdae", "recvae"])
def test_an_epoch_is_measured_on_both_sides(
    model: str, epoch: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ["--users=60", "--items=100", "--interactions=1500", "--batch-size=25", "--repeats=2"]
    epoch.main([f"--model={model}", *shape, f"--json={tmp_path / 'epoch.json'}"])
    printed = capsys.readouterr().out
    assert "60 users x 100 items, 1,500 interactions" in printed
    assert [printed.count(word) for word in ("warm-up", "epoch 1", "epoch 2", "epoch 3")] == [2, 2, 2, 0]
    assert re.search(r"the dense loop takes \d+\.\d\d times as long as recvae", printed) and "floor 0." in printed
    written = json.loads((tmp_path / "epoch.json").read_text())
    assert written["shape"]["model"] == model and len(written["results"]["dense"]["rounds"]) == 2
    assert written["machine"]["torch"] == torch.__version__ and written["results"]["floor"] > 0


@pytest.mark.parametrize("model", ["multvae", "multdae", "recvae"])
def test_the_dense_loops_learn(model: str, dense: ModuleType) -> None:
    train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 15))), dtype=np.float32)
    state = torch.random.get_rng_state()
    losses = dense.batches(train, 20, dense.passes_of(model, 30))
    found = [next(losses) for _ in range(80)]
    torch.random.set_rng_state(state)
    assert np.mean(found[-8:]) < 0.95 * np.mean(found[:4])


def test_the_script_refuses_no_epochs(epoch: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        epoch.main(["--repeats", "0"])
    assert "1 or more" in capsys.readouterr().err


def test_all_small_benchmarks_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = importlib.import_module("all")
    monkeypatch.setattr(everything, "HERE", tmp_path)
    for name, last in (("epoch", ""), ("startup", "sys.exit(3)"), ("ease", "")):
        code = f"import sys\nopen(sys.argv[2], 'w').write(sys.argv[1] + ' {name}')\n{last}"
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    with pytest.raises(SystemExit, match="failed: startup"):
        everything.main(["--results", str(tmp_path / "results")])
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "results").iterdir()}
    assert written == {f"{name}.json": f"--json {name}" for name in ("epoch", "ease", "startup")}
    with pytest.raises(SystemExit, match="2"):
        everything.main(["evaluation"])
    with pytest.raises(SystemExit, match="2"):
        everything.main(["--results", str(tmp_path / "epoch.py")])


def test_preparing_is_measured_against_reading_alone(
    preprocess: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--rows=3000", "--rounds=1", f"--folder={tmp_path}", f"--json={tmp_path / 'figures.json'}"]
    preprocess.main(arguments)
    printed = capsys.readouterr().out
    assert "3,000 rows" in printed and "round 1" in printed and "round 2" not in printed
    assert re.search(r"recvae preprocess takes \d+\.\d\d times as long as reading alone", printed)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["shape"]["rows"] == len((tmp_path / "ratings-3000.csv").read_text().splitlines()) - 1
    assert {"recvae preprocess", "reading alone", "ratio"} == figures["results"].keys()
    assert figures["results"]["recvae preprocess"]["peak_bytes"] > 1e7


def test_a_process_that_fails_is_not_measured(preprocess: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=r"got exit code 1, expected 0:\s*no such log"):
        preprocess.run("raise SystemExit('no such log')")
    with pytest.raises(SystemExit):
        preprocess.main(["--rows", "10"])


def test_starts_are_measured_against_python_and_torch(startup: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    startup.main(["--rounds=1", "--warm-up=0"])
    printed = capsys.readouterr().out
    assert re.search(r"recvae --help takes \d+\.\d\d s", printed)
    assert re.search(r"beyond import torch: import recvae [+-]\d+\.\d\d s", printed)
    with pytest.raises(SystemExit):
        startup.main(["--rounds", "0"])


@pytest.mark.usefixtures("warm_starts")
def test_servers_are_measured_with_batches_and_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serving = importlib.import_module("serving")
    results = tmp_path / "results.json"
    serving.main(["--rounds=1", "--requests=40", "--clients=4", "--items=2000", "--json", str(results)])
    printed = capsys.readouterr().out
    assert re.search(r"one user \d+\.\d\d ms; the decoder's weights read once by one core", printed)
    assert re.search(r"batched answers \d+\.\d times as many", printed)
    content = json.loads(results.read_text())["results"]
    assert [(content[side][0]["requests"], content[side][0]["failed"]) for side in serving.SIDES] == [(4, 0), (40, 0)]
    with pytest.raises(SystemExit):
        serving.main(["--clients", "0"])


def test_a_benchmark_by_turns_prints_and_writes_all_sides_and_the_ratio_to_the_floor(
    by_turns: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    sizes = ("--users=60", "--items=110", "--interactions=1500", "--rounds=2")
    by_turns.main([*sizes, "--json", str(results)])
    printed = capsys.readouterr().out
    content = json.loads(results.read_text())
    assert content["benchmark"] == by_turns.__name__ and content["machine"]["threads"] >= 1
    assert content["shape"] == {"users": 60, "items": 110, "interactions": 1500}
    ours = {"ease": "fit", "evaluation": "evaluate"}[by_turns.__name__]
    assert [len(content["results"][side]["rounds"]) for side in (ours, "floor")] == [2, 2]
    ratio = content["results"][f"{ours} / floor"]
    assert re.search(
        rf"^{ours} .* {ratio['median']:.2f}, {ratio['low']:.2f} to {ratio['high']:.2f} round", printed, re.M
    )
    assert "memory" in printed and "floor: " in printed


def test_a_benchmark_by_turns_refuses_no_rounds(by_turns: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        by_turns.main(["--rounds", "0"])
    assert "--rounds must be 1 or more" in capsys.readouterr().err


def test_evaluation_splits_every_interaction_into_given_and_wanted(epoch: ModuleType) -> None:
    users = epoch.made_up(50, 100, 1200)
    held_out = importlib.import_module("evaluation").fold(users)
    np.testing.assert_array_equal((held_out.fold_in + held_out.targets).toarray(), users.toarray())
    assert held_out.fold_in.nnz + held_out.targets.nnz == users.nnz
    assert 0.75 < held_out.fold_in.nnz / users.nnz < 0.85


def test_beyond_what_lapack_is_called_for_the_floor_of_ease_is_products(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ease = importlib.import_module("ease")
    monkeypatch.setattr(ease, "_LAPACKS", 50)
    ease.main(["--users", "500", "--items", "90", "--interactions", "10000", "--rounds", "1", "--warm-up", "0"])
    assert "floor: n^3 operations in products of tiles; memory" in capsys.readouterr().out
    assert ease.Products(33_000).times == round(33_000**3 / 40 / (2048 * 512 * 2048))


def test_the_floor_of_ease_is_the_inverse_round_after_round(epoch: ModuleType) -> None:
    floor = importlib.import_module("ease").Floor(30)
    before = np.tril(floor.block)
    floor()
    inverse = np.tril(floor.block) + np.tril(floor.block, -1).T
    np.testing.assert_allclose(inverse @ (before + np.tril(before, -1).T), np.eye(30), atol=1e-5)
    floor()
    np.testing.assert_allclose(np.tril(floor.block), before, rtol=1e-4, atol=1e-5)


@pytest.mark.large
def test_growth_is_measured_for_users_items_and_batch_sizes_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    growth = importlib.import_module("growth")
    monkeypatch.setattr(growth, "TINY", ((60,), (80, 120), (20,)))
    growth.main(["--quick", "--json", str(tmp_path / "growth.json"), "--plot", str(tmp_path / "growth.png")])
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "growth.json").read_text())["results"]["points"]
    assert [point["what"] for point in found] == ["users", *["items"] * 6, "batch size"]
    assert {point["sampling"] for point in found} == {"none", "popularity"}
    assert all(0 < point["low"] <= point["batch"] <= point["high"] and point["peak"] > 1e7 for point in found)
    assert printed.count("\n| ") - 1 == len(found)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("warm_starts")
def test_a_large_catalogue_is_measured_in_every_way_that_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = importlib.import_module("catalogue")
    ways = ["parts", "sampled, by row"]
    every = catalogue.points([3000], ways, 16, 1, "float32")
    needed = [point.model.needs(point.users, 3000, 20 * point.users).training for point in every]
    limit = f"--max-gb={sorted(needed)[-2] / 1e9}"
    sizes = ("--items=3000", "--width=16", "--batches=1", "--softmax", *ways)
    catalogue.main([*sizes, limit, "--json", str(tmp_path / "figures.json")])
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "figures.json").read_text())["results"]["points"]
    assert [(point["softmax"], point["tied"]) for point in found] == [
        (softmax, tied) for softmax in ways for tied in (False, True)
    ]
    assert ["batch" in point for point in found] == [True, True, False, True] and printed.count("left out") == 1
    assert all(point["batch"] > 0 < point["scoring"] for point in found if "batch" in point)
    train = catalogue.made_up(50, 400)
    assert train.shape == (50, 400) and set(train.data) == {1.0} and 500 < train.nnz <= 1000
    with pytest.raises(SystemExit):
        catalogue.main(["--batches", "0"])


def test_training_on_a_device_is_measured_by_epoch_and_batch_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = importlib.import_module("gpu")
    shape = ["--users=60", "--items=100", "--interactions=1500", "--batch-sizes", "20", "30", "--epochs=2"]
    gpu.main([*shape, "--device=cpu", "--json", str(tmp_path / "gpu.json")])
    assert "Mult-VAE 600-200 in auto on cpu: 60 users x 100 items" in capsys.readouterr().out
    results = json.loads((tmp_path / "gpu.json").read_text())["results"]
    assert {size: len(found["rounds"]) for size, found in results.items()} == {"20": 2, "30": 2}
    assert all(found["floor"] > 0 for found in results.values())


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--epochs=0"], "must be 1 or more"), (["--device=tpu"], "got device 'tpu'")]
)
def test_the_gpu_benchmark_refuses_what_it_cannot_do(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module("gpu").main(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("warm_starts")
def test_one_users_scores_are_measured_by_torch_onnx_and_8_bits(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Dataset.load(toy_data)
    Recommender(MultVAE(hidden_dims=(16,), latent_dim=8, epochs=2).fit(data.train), data).save(tmp_path / "run")
    exported = importlib.import_module("exported")
    real = [f"--run={tmp_path / 'run'}", f"--data={toy_data}"]
    exported.main(
        ["--items=300", "--history=20", "--rounds=2", "--starts=1", *real, f"--json={tmp_path / 'figures.json'}"]
    )
    printed = capsys.readouterr().out
    assert re.search(r"^onnx-int8 from nothing: \d\.\d\d s", printed, re.M) and "8 bits cost" in printed
    results = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert {"torch", "onnx", "onnx-int8", "floor", "starts", "ndcg@100"} == set(results)
    assert len(results["onnx"]["rounds"]) == 2 and results["ndcg@100"]["onnx"] == results["ndcg@100"]["torch"]


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--rounds=0"], "must be 1 or more"), (["--run=runs"], "--run and --data go together")]
)
def test_the_benchmark_of_exports_refuses_what_it_cannot_do(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module("exported").main(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("warm_starts")
def test_a_catalogue_is_measured_for_any_model_in_a_process_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    million = importlib.import_module("million")
    shape = ["--items=300", "--users=60", "--per-item=5", "--score=7", "--json", str(tmp_path / "million.json")]
    settings = ["latent_dim=8", "epochs=2", "batch_size=20", "entries=4", "sampling=uniform", "sampled_items=50"]
    million.main([*shape, *(word for setting in settings for word in ("--set", setting))])
    results = json.loads((tmp_path / "million.json").read_text())["results"]
    assert results["epochs_done"] == 2 and results["processor"] > 0 and results["epoch"] > 0
    assert results["bytes_per_item"] == 16 and results["users_per_second"] > 0 and results["needs"] > 0
    assert "| 16 B |" in capsys.readouterr().out
    million.main([*shape, "--updates=2", "--set=latent_dim=8", "--set=batch_size=20"])
    results = json.loads((tmp_path / "million.json").read_text())["results"]
    assert results["epochs_done"] == pytest.approx(2 / 3) and "bytes_per_item" not in results
    with pytest.raises(SystemExit):
        million.main(["--items=10", "--users=1000"])
    assert "--users: got 1,000, expected 1 to as many as there are interactions" in capsys.readouterr().err


def test_made_up_interactions_are_a_pair_at_most_once_with_a_few_popular_items() -> None:
    matrix = importlib.import_module("million").made_up(500, 1000, 20)
    assert matrix.shape == (500, 1000) and (matrix.data == 1).all() and 12_000 < matrix.nnz <= 20_000
    counts = np.sort(np.bincount(matrix.indices, minlength=1000))[::-1]
    assert counts[:10].mean() > 10 * counts[500:].mean() and np.diff(matrix.indptr).max() <= 40


@pytest.mark.usefixtures("warm_starts")
def test_sansa_is_measured_against_ease_and_on_a_long_tail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = importlib.import_module("sansa")
    path = tmp_path / "sansa.json"
    shape = ["--shape", "1500", "90", "31000", "--grow", "400"]
    benchmark.main([*shape, "--entries", "3", "--l2", "5", "--json", str(path)])
    said = capsys.readouterr().out
    assert "| made up | 500 x 90 | sansa, 3 entries | 5 |" in said and "| ease | 5 |" in said
    assert "| long tail | 200 x 400 | sansa, 3 entries | " in said
    fits = json.loads(path.read_text(encoding="utf-8"))["results"]["fits"]
    assert [found["model"] for found in fits] == ["sansa", "ease", "sansa"]
    assert 0.1 < fits[0]["ndcg@100"] <= 1 and fits[0]["weights"] < fits[1]["weights"]
    assert fits[2]["shape"] == [200, 400] and 0 < fits[2]["interactions"] < 9000


def test_lists_from_an_index_are_measured_against_all_scores(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Dataset.load(toy_data)
    Recommender(MultVAE(hidden_dims=(16,), latent_dim=8, epochs=2).fit(data.train), data).save(tmp_path / "run")
    retrieval = importlib.import_module("retrieval")
    run, written = tmp_path / "run", tmp_path / "out.json"
    retrieval.main([f"--run={run}", f"--data={toy_data}", "--times=3", "--rounds=2", f"--json={written}"])
    assert re.search(r"of the top 10, .* of the top 100 of \d+ users", capsys.readouterr().out)
    results = json.loads(written.read_text())["results"]
    assert results["items"] == 3 * data.train.shape[1] and len(results["one user"]["index"]["rounds"]) == 2
    larger = retrieval.enlarged(Recommender.load(tmp_path / "run").model, 2)
    rows = data.test.fold_in
    wide = sp.csr_matrix((rows.data, rows.indices, rows.indptr), shape=(rows.shape[0], 2 * rows.shape[1]))
    own = Recommender.load(tmp_path / "run").model.score(rows)
    np.testing.assert_allclose(larger.score(wide)[:, : rows.shape[1]], own, rtol=1e-5, atol=1e-6)


def test_the_benchmark_of_retrieval_refuses_what_it_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module("retrieval").main(["--run=x", "--data=y", "--times=0"])
    assert "must be 1 or more" in capsys.readouterr().err


@pytest.fixture
def anomalies(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = importlib.import_module("anomalies")
    monkeypatch.setattr(module, "_pyod", lambda _: lambda rows: rows.getnnz(axis=1).astype(float))  # not installed
    for name, value in {"_PLANTED": 20, "_RESAMPLES": 5, "_WIDTH": 5}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_odd_users_are_looked_for_by_length_among_all_users_and_among_those_of_similar_length(
    anomalies: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events, _ = synthetic_log(n_users=300, n_items=100, n_events=6000, seed=1)
    data = Dataset.from_events(events, name="odd", heldout_users=40)
    data.save(tmp_path / "odd")
    run = tmp_path / "run"
    Recommender(MultVAE(hidden_dims=(16,), latent_dim=8, epochs=2).fit(data.train), data).save(run)
    given = [str(run), f"--data={tmp_path / 'odd'}", "--lengths"]
    anomalies.main([*given, "5", "9"])
    drawn, near, every = capsys.readouterr().out.split("\n\n")[1:]
    assert "random | average | bandwagon | copied" in drawn and len(drawn.splitlines()) == 2 + 7
    own = (data.test.fold_in + data.test.targets).getnnz(axis=1)
    close = own[(own >= 7) & (own <= 12)]  # 9 x 3/4 = 6.75
    assert f"| 9 ({len(close)} users, {close.min()} to {close.max()}) | length | " in near
    assert len(near.splitlines()) == len(every.splitlines()) == 2 + 2 * 7
    area = np.mean((own > 9) + (own == 9) / 2)  # a shorter user is taken for odder
    assert re.search(rf"^\| 9 \| length \| {area:.3f} ± ", every, re.M)
    anomalies.main(given)
    assert capsys.readouterr().out.rstrip().endswith(drawn.rstrip())
    for length in ("5000", "0", "-3"):
        with pytest.raises(SystemExit):
            anomalies.main([*given, length])
        assert f"got --lengths {length}, expected a length that at least two" in capsys.readouterr().err


def test_average_precision_of_odd_users_is_for_one_share_of_them_whatever_the_numbers(anomalies: ModuleType) -> None:
    rng = np.random.default_rng(0)
    for n_ordinary, n_odd in ((50, 200), (400, 100)):
        same = anomalies.figures(np.ones(n_ordinary), np.ones(n_odd), 2.5)[0]
        np.testing.assert_allclose(same, [0.5, 1 / 3.5])
        (area, precision), half = anomalies.figures(rng.random(n_ordinary), 2 + rng.random(n_odd), 2.5)
        assert area == precision == 1 and (half == 0).all()
    ordinary, odd = rng.integers(0, 30, 60).astype(float), rng.integers(10, 40, 25).astype(float)  # with ties
    truth, weights = np.repeat([0, 1], [60, 25]), np.repeat([2.5 * 25 / 60, 1.0], [60, 25])
    expected = [
        roc_auc_score(truth, np.r_[ordinary, odd]),
        average_precision_score(truth, np.r_[ordinary, odd], sample_weight=weights),
    ]
    found, half = anomalies.figures(ordinary, odd, 2.5)
    np.testing.assert_allclose(found, expected)
    assert (half > 0.01).all()
    mixed = anomalies.figures(np.array([0.0, 2.0]), np.array([1.0, 3.0]), 3.0)[0]
    np.testing.assert_allclose(mixed, [0.75, 0.5 * 1 + 0.5 * 2 / (2 + 3)])


def test_users_of_similar_length_are_those_within_a_ratio(anomalies: ModuleType) -> None:
    lengths = np.array([1, 8, 9, 12, 15, 16, 17, 1000])
    assert lengths[anomalies.similar(lengths, 12)].tolist() == [9, 12, 15, 16]


def test_numbers_of_processes_are_measured_by_turns(
    toy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranks, started = importlib.import_module("ranks"), []
    for name in ("sum", "highest", "gather_rows", "check"):
        monkeypatch.setattr(ranks.Ranks, name, getattr(ranks.Ranks, name))  # given back after the test

    def run(words: list[str], **_: object) -> Any:
        started.append(words[words.index("--nproc-per-node") + 1])
        ranks.main(words[words.index(str(ranks.__file__)) + 1 :])
        return subprocess.CompletedProcess(words, 0, stdout=capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setattr(ranks.subprocess, "run", run)
    shape = ["--data=toy", "--processes", "1", "2", "--rounds=2", "--epochs=1", "--set=hidden_dims=8"]
    ranks.main([*shape, "--set=latent_dim=4", "--users-each=8", f"--json={tmp_path / 'figures.json'}"])
    assert started == ["1", "2", "1", "2"]
    assert re.search(r"\| 2 \| \d+\.\d\d s \| 0\.00 s \| \d", capsys.readouterr().out)
    written = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert [len(written[n]) for n in ("1", "2")] == [2, 2] and written["1"][0]["seconds"] > 0
    ranks.main(["--data=toy", "--processes", "1", "--rounds=1", "--epochs=2", "--model=ials", "--set=factors=4"])
    said = capsys.readouterr().out
    assert (
        "ials on toy, 1 rounds of 2 epochs" in said and "loss" not in said and re.search(r"\| 1 \| \d+\.\d\d s", said)
    )
    with pytest.raises(SystemExit):
        ranks.main(["--processes", "0"])


def test_large_workloads_are_computed_from_what_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paper = importlib.import_module("on_paper")
    target = tmp_path / "figures.json"
    paper.main(["--processes", "1", "4", "--items", "64", f"--json={target}"])
    written = json.loads(target.read_text())["results"]
    assert min(written["here"][name] for name in ("softmax", "adam", "read", "send")) > 0
    assert len(written["epochs"]) == 8 and "| items | 4 | " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        paper.main(["--share", "1.5"])


def test_what_processes_share_is_what_they_save() -> None:
    paper = importlib.import_module("on_paper")
    work = paper.Workload(users=1000, items=100, per_user=2, width=3, batch=10)
    one = paper.Hardware(name="", softmax=1, row=1, adam=1, read=1, send=1, memory=10**9)
    alone, users, items = (paper.epoch(work, one, n, share) for n, share in ((1, "users"), (4, "users"), (4, "items")))
    assert alone["softmax"] == 1000 * 100 * 3 and users["softmax"] == items["softmax"] == alone["softmax"] / 4
    assert alone["adam"] == users["adam"] == 100 * 600 and items["adam"] == users["adam"] / 4
    assert alone["sending"] == 0 and users["sent"] == 4 * 600 and items["sent"] == 4 * (4 * 10 * 3 + 3 * 10)
    assert users["memory"] == 16 * 600 and items["memory"] == users["memory"] / 4
    assert paper.moves_at(work, one, "items") == (8, "sending")
    sampled = paper.Workload(users=1000, items=10**6, per_user=2, width=3, batch=10, sampled=50)
    assert sampled.scored == 70 and paper.epoch(sampled, one, 4, "users")["sent"] == 4 * 2 * 70 * 3


def test_training_from_disk_and_in_memory_take_turns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    streaming, sides = importlib.import_module("streaming"), []

    def run(words: list[str], **_: object) -> Any:
        sides.append(words[-1])
        streaming.main(words[2:])
        return subprocess.CompletedProcess(words, 0, stdout=capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setattr(streaming.subprocess, "run", run)
    shape = ["--users=1200", "--items=150", "--buffer=100kB", "--max-memory=20GB", "--rounds=2"]
    streaming.main([*shape, f"--json={tmp_path / 'figures.json'}"])
    assert sides == ["in memory", "streamed"] * 2
    written = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert written["bytes"] > 500_000 and all(one["clock"] > 0 for one in written["rounds"]["streamed"])


def test_orders_of_users_are_compared_over_seeds(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streaming = importlib.import_module("streaming")
    streaming.main(["--data=toy", "--seeds=2", "--set=hidden_dims=8", "--set=latent_dim=4", "--set=epochs=1"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(lines) == 9 and lines[4].startswith("| by length, buffer of 5% | 0.")
    matrix = Dataset.load("data/toy").train
    by_length, by_item = (streaming.orders_of(matrix)[name] for name in ("by length", "by first item"))
    assert (np.diff(np.diff(matrix.indptr)[by_length]) >= 0).all()
    assert (np.diff([matrix[user].indices[0] for user in by_item]) >= 0).all()
