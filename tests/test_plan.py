"""What a run will need: memory as it is really taken, times, `recvae plan`, --max-memory, and memory that runs out."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from processes import needs_proc

from recvae.bundles.bundle import read_bundle
from recvae.bundles.card import read_card
from recvae.compute import memory
from recvae.compute.memory import Needs, enough_bytes, in_blocks, parse_bytes, parse_limit, rows_within
from recvae.datasets.dataset import Dataset
from recvae.datasets.joining import join
from recvae.errors import MemoryLimitError, NotFittedError, OutOfMemoryError, UsageError
from recvae.models import ALS, EASE, MODELS, Blend, HVamp, Model, MultVAE, Popularity, model_class
from recvae.models.common.autoencoder import Autoencoder
from recvae.runs import planning
from recvae.runs.planning import plan
from recvae.training.checkpoints import FILE_NAME
from recvae.training.records import StopTraining
from recvae.training.refits import Refit
from recvae.training.task import Losses

Command = Callable[..., Any]
RUN = Path("runs/toy/multvae")
SMALL = ("train", "--set", "hidden_dims=16", "--set", "latent_dim=8", "--set", "batch_size=50", "--set", "epochs=4")
WEIGHTS = {"first": "ease", "second": "popularity"}

# What middle sizes take, measured in a process that forks for each: by how much the most memory it had grew in `fit`.
MEASURE = """
import json, os, sys
import torch
from processes import memory_taken, ones
from recvae.models import model_class
torch.set_num_threads(1)
for name, small in (("multvae", {"epochs": 1}), ("als", {}), ("ials", {})):  # loads what has to be loaded
    model_class(name)(**small).fit(ones(20, 50, 5), device="cpu")
for case, (settings, n_users, n_items) in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        train = ones(n_users, n_items, 30)
        settings = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
        model = model_class(case.split()[0])(**settings)
        expected = model.needs(*train.shape, train.nnz).training
        took = memory_taken(lambda: model.fit(train, device="cpu"))
        print(json.dumps([case, expected, took]), flush=True)
        os._exit(0)
    os.wait()
"""
MIDDLE: dict[str, tuple[dict[str, Any], int, int]] = {
    "multvae": ({"epochs": 2, "batch_size": 1000, "hidden_dims": (100,), "latent_dim": 50}, 2000, 12000),
    "multvae float32": (
        {"epochs": 2, "batch_size": 1000, "hidden_dims": [100], "latent_dim": 50, "precision": "float32"},
        2000,
        12000,
    ),
    "multvae sampled": (
        {"epochs": 2, "batch_size": 1000, "latent_dim": 50, "sampling": "uniform", "sampled_items": 2000},
        2000,
        20000,
    ),
    "multdae in parts": (
        {"epochs": 1, "batch_size": 2000, "latent_dim": 20, "items_at_a_time": 500, "precision": "float32"},
        4000,
        60000,
    ),
    "multdae tied": ({"epochs": 2, "batch_size": 100, "latent_dim": 300, "tied": True}, 300, 40000),
    "multdae by row": (
        {
            "epochs": 2,
            "batch_size": 200,
            "latent_dim": 50,
            "sampling": "uniform",
            "sampled_items": 500,
            "row_wise": True,
        },
        400,
        200000,
    ),
    "multvae averaged": ({"epochs": 2, "batch_size": 100, "averaging": 0.5}, 300, 10000),
    "multvae gaussian": (
        {"epochs": 2, "batch_size": 1000, "hidden_dims": (50,), "latent_dim": 20, "likelihood": "gaussian"},
        2000,
        10000,
    ),
    "multdae": ({"epochs": 2, "batch_size": 1000, "latent_dim": 100, "noise": "gaussian"}, 2000, 12000),
    "ae": ({"epochs": 2, "batch_size": 200, "latent_dim": 300}, 400, 12000),
    "recvae": (
        {"epochs": 1, "batch_size": 500, "hidden_dim": 200, "encoder_passes": 1, "decoder_passes": 1},
        1000,
        16000,
    ),
    "hvamp": ({"epochs": 1, "batch_size": 300, "hidden_dim": 50, "latent_dim": 20}, 600, 10000),
    "vasp": ({"epochs": 1, "batch_size": 300, "hidden_dim": 50, "latent_dim": 20}, 900, 3000),
    "elsa": ({"epochs": 2, "latent_dim": 100}, 1000, 20000),
    "elsa sampled": (
        {"epochs": 2, "latent_dim": 100, "sampling": "uniform", "sampled_items": 2000},
        1000,
        100000,
    ),
    "elsa sampled wide": (
        {"epochs": 2, "latent_dim": 200, "batch_size": 1000, "sampling": "uniform", "sampled_items": 20000},
        2000,
        50000,
    ),
    "elsa sparse whole": ({"epochs": 2, "latent_dim": 200, "entries": 20, "batch_size": 64}, 1000, 20000),
    "elsa sparse": (
        {"epochs": 2, "latent_dim": 100, "sampling": "uniform", "sampled_items": 2000, "entries": 50},
        1000,
        100000,
    ),
    "ease": ({"top_k": 500}, 1000, 3000),
    "infae": ({}, 4000, 3000),
    "als": ({"factors": 100, "iterations": 1}, 50000, 20000),
    "ials": ({"factors": 100, "iterations": 2}, 50000, 20000),
    "ials blocks": ({"factors": 100, "iterations": 2, "block_size": 20}, 50000, 20000),
}


@pytest.fixture(scope="module")
def taken() -> dict[str, tuple[int, int]]:
    """Return how many bytes each of the middle sizes was expected to take, and how many it took."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]  # the first for processes.py
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    words = [sys.executable, "-c", MEASURE, json.dumps(MIDDLE)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    return {case: (expected, took) for case, expected, took in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("case", MIDDLE)
def test_what_a_model_says_it_needs_is_what_it_takes(case: str, taken: dict[str, tuple[int, int]]) -> None:
    """Between half of it and one and a half times as much."""
    expected, took = taken[case]
    assert 0.5 <= expected / took <= 1.5, f"expected {expected:,}, took {took:,}"


def test_counting_a_network_allocates_nothing(blocks: Dataset) -> None:
    state = torch.random.get_rng_state()
    found = MultVAE().needs(10, 100_000_000, 100)  # some 300 GB of weights
    assert found.parameters == 2 * 600 * 10**8 + 10**8 + 600 + 600 * 400 + 400 + 200 * 600 + 600
    assert torch.equal(torch.random.get_rng_state(), state)


def test_every_model_states_what_it_needs_and_counts_its_parameters(
    make_model: Callable[..., Any], fitted: Callable[[str], Any], blocks: Dataset, model_name: str
) -> None:
    model = fitted(model_name)
    needs = model.needs(*blocks.train.shape, blocks.train.nnz)
    taken = model.count_parameters()
    assert needs.parameters >= taken if model_name == "sansa" else needs.parameters == taken  # at most, for each row
    assert needs.weights >= 4 * needs.parameters and needs.per_user >= 4 * 32
    assert needs.training > 0 and needs.reading >= needs.scoring > needs.weights
    assert type(model).needs is not Model.needs


def test_settings_and_weights_of_a_blend_are_no_parameters(fitted: Callable[[str], Any], blocks: Dataset) -> None:
    als, ials, ease = fitted("als"), fitted("ials"), fitted("ease")
    assert als.count_parameters() == als.item_factors_.size == als.needs(*blocks.train.shape, 1).parameters
    assert ials.count_parameters() == ials.item_factors_.size
    blend = Blend.of(als, ease, weight=0.5).fit(blocks.train)
    assert blend.count_parameters() == als.item_factors_.size + 32 * 32
    with pytest.raises(NotFittedError, match="this ALS is not fitted"):
        ALS().count_parameters()
    with pytest.raises(NotFittedError, match="this Blend is not fitted"):
        Blend.of(als, ease).count_parameters()


def test_a_model_that_states_nothing_is_asked_for_nothing() -> None:
    class Plain(Popularity):
        needs = Model.needs

    assert Plain().needs(5, 10, 20).training == 0


def test_on_a_gpu_the_best_weights_lie_on_the_host() -> None:
    size = (1000, 2000, 30_000)
    here, there = MultVAE().needs(*size), MultVAE().needs(*size, on_gpu=True)
    assert here.host == 0 < there.host and there.training < here.training
    assert there.host >= 2 * there.weights


def test_more_of_anything_needs_more() -> None:
    least = HVamp(batch_size=10, hidden_dim=10, latent_dim=5, pseudo_inputs=10)
    base = least.needs(1000, 2000, 30_000).training
    for change in ({"batch_size": 500}, {"hidden_dim": 100}, {"pseudo_inputs": 500}, {"averaging": 0.9}):
        assert replace(least, **change).needs(1000, 2000, 30_000).training > base, change
    assert least.needs(1000, 4000, 30_000).training > base < least.needs(1000, 2000, 300_000).training


@pytest.mark.parametrize("n_bytes", [1, 999, 1000, 1001, 999_999, 1_234_567, 10**9 - 1, 123_456_789_012, 5 * 10**15])
def test_enough_is_read_back_as_no_less_and_hardly_more(n_bytes: int) -> None:
    assert n_bytes <= parse_bytes(enough_bytes(n_bytes)) <= 1.011 * n_bytes


def test_rows_are_as_many_as_fit_and_at_least_one() -> None:
    assert rows_within(None, 100, 10, 7) == 7
    assert [rows_within(limit, 100, 10, 7) for limit in (100, 109, 120, 10**6)] == [1, 1, 2, 7]


@pytest.mark.parametrize(("text", "unit"), [("8", "8GB"), (" 16 ", "16GB"), ("8.5", "8.5GB"), ("500", "500GB")])
def test_a_forgotten_unit_is_told(text: str, unit: str) -> None:
    said = rf"got --max-memory {text.strip()}, which is {int(float(text))} bytes; write {unit}$"
    with pytest.raises(UsageError, match=said):
        parse_limit(text)


def test_an_amount_with_its_unit_or_as_many_bytes_as_one_could_mean_is_taken() -> None:
    with pytest.raises(UsageError, match="which is 4,000 bytes; write 4000MB"):
        parse_limit("4000")
    assert (parse_limit("1kB"), parse_limit("8 B"), parse_limit("123456")) == (1000, 8, 123456)


# Blocks


def test_a_block_that_memory_runs_out_in_is_halved_and_work_goes_on() -> None:
    done: list[tuple[int, int]] = []

    def work(start: int, end: int) -> None:
        if end - start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        done.append((start, end))

    in_blocks(10, 8, work)
    assert done == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("another"), MemoryLimitError("refused"), torch.OutOfMemoryError("CUDA out of memory")],
    ids=lambda error: type(error).__name__,
)
def test_what_smaller_blocks_do_not_help_is_passed_on(error: Exception) -> None:
    calls = []

    def work(start: int, end: int) -> None:
        calls.append((start, end))
        raise error

    with pytest.raises(type(error), match=str(error)):
        in_blocks(4, 4, work)
    assert len(calls) == (3 if isinstance(error, torch.OutOfMemoryError) else 1)


def test_scoring_goes_on_in_smaller_blocks(
    fitted: Callable[[str], Any], blocks: Dataset, monkeypatch: pytest.MonkeyPatch, model_name: str
) -> None:
    model = fitted(model_name)
    items, scores = model.recommend(blocks.test.fold_in, 5)
    original, sizes = type(model)._score_block, []

    def scarce(self: Any, user_items: sp.csr_matrix) -> torch.Tensor:
        sizes.append(user_items.shape[0])
        if user_items.shape[0] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, user_items)

    monkeypatch.setattr(type(model), "_score_block", scarce)
    again, values = model.recommend(blocks.test.fold_in, 5)
    np.testing.assert_array_equal(again, items)
    np.testing.assert_allclose(values, scores, rtol=1e-5, atol=1e-6)
    assert sizes[0] == 12 and max(sizes[2:]) <= 4
    assert model.score(blocks.test.fold_in).shape == (12, 32)


def test_a_limit_makes_blocks_small_and_lists_stay_the_same(
    fitted: Callable[[str], Any], blocks: Dataset, monkeypatch: pytest.MonkeyPatch, model_name: str
) -> None:
    model = replace(fitted(model_name)).load_weights(fitted(model_name).weights())
    items, _ = model.recommend(blocks.test.fold_in, 5)
    needs = model.scoring_needs(32)
    limit = needs.weights + 2 * needs.per_user
    sizes, original = [], type(model)._score_block
    monkeypatch.setattr(
        type(model), "_score_block", lambda self, rows: (sizes.append(rows.shape[0]), original(self, rows))[1]
    )
    np.testing.assert_array_equal(model.recommend(blocks.test.fold_in, 5, max_memory=limit)[0], items)
    assert 2 in sizes and max(sizes) <= 2
    with pytest.raises(
        MemoryLimitError, match=rf"^scoring with {model.name}, one user at a time, needs .* --max-memory; ra"
    ):
        model.recommend(blocks.test.fold_in, 5, max_memory=needs.scoring - 1)


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if issubclass(model, Autoencoder)])
def test_validation_while_training_keeps_within_the_limit(
    name: str, make_model: Callable[..., Any], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(name, epochs=2, batch_size=2)
    free = make_model(name, epochs=2, batch_size=2).fit(blocks.train, blocks.validation, device="cpu")
    needs = model.needs(*blocks.train.shape, blocks.train.nnz)
    sizes, original = [], type(model)._score_block
    monkeypatch.setattr(
        type(model), "_score_block", lambda self, rows: (sizes.append(rows.shape[0]), original(self, rows))[1]
    )
    model.fit(blocks.train, blocks.validation, device="cpu", max_memory=needs.training)
    most = max(1, (needs.training - needs.held) // needs.per_user)
    assert max(sizes) == min(most, blocks.validation.n_users)
    assert model.history_.best_ndcg == pytest.approx(free.history_.best_ndcg)


# Refused


def test_a_network_that_does_not_fit_is_refused_with_what_would(blocks: Dataset) -> None:
    model = MultVAE(hidden_dims=(16,), latent_dim=4, batch_size=80, epochs=1)
    size = (*blocks.train.shape, blocks.train.nnz)
    limit = replace(model, batch_size=33).needs(*size).training
    said = r"^multvae on 32 items in batches of 80 users needs .* kB is allowed by --max-memory; raise --max-memory to "
    with pytest.raises(MemoryLimitError, match=said) as caught:
        model.fit(blocks.train, device="cpu", max_memory=limit)
    assert not model.n_items_
    found = re.search(r"raise --max-memory to (\S+), or set batch_size=(\d+)$", str(caught.value))
    assert found is not None and int(found[2]) == 33
    replace(model, batch_size=33).fit(blocks.train, device="cpu")
    model.fit(blocks.train, device="cpu", max_memory=parse_bytes(found[1]))


def test_a_network_that_is_too_large_in_itself_is_told_to_be_narrower(blocks: Dataset) -> None:
    model = MultVAE(batch_size=80)
    said = r"raise --max-memory to \S+, or even batch_size=1 takes \S+: set a smaller hidden_dims or latent_dim, or lea"
    with pytest.raises(MemoryLimitError, match=said):
        model.check_memory(*blocks.train.shape, blocks.train.nnz, max_memory=20_000)


def test_without_a_limit_what_is_free_counts(blocks: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 20_000)
    with pytest.raises(MemoryLimitError, match=r"20\.0 kB this machine has free; even batch_size=1 takes"):
        MultVAE().fit(blocks.train, device="cpu")
    with pytest.raises(MemoryLimitError, match=r"^als on 32 items with factors=64 needs .* leave out rare items"):
        model_class("als")().fit(blocks.train, max_memory=100)


def test_on_a_gpu_host_and_gpu_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    size, free = (1000, 2000, 30_000), {"cuda": 10**12, "cpu": 10**12}
    monkeypatch.setattr(memory, "free_on", lambda device: free[device.type])
    MultVAE().check_memory(*size, "cuda")
    free["cuda"] = 10**7
    with pytest.raises(MemoryLimitError, match=r"10\.0 MB cuda has free; "):
        MultVAE().check_memory(*size, "cuda")
    with pytest.raises(MemoryLimitError, match=r"10\.0 MB cuda has free; raise"):
        MultVAE().check_memory(*size, "cuda", max_memory=10**11)
    free |= {"cuda": 10**12, "cpu": 10**6}
    with pytest.raises(MemoryLimitError, match=r"1\.0 MB this machine has free; "):
        MultVAE().check_memory(*size, "cuda")


def test_the_command_refuses_before_anything_is_written(toy: Path, command: Command) -> None:
    assert command(*SMALL).code == 0
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    for words in ((), ("--overwrite",), ("--find-beta",)):
        said = command(*SMALL, "--max-memory", "20kB", *words)
        assert (said.code, said.out, said.err.count("error: ")) == (1, "", 1) and "Traceback" not in said.err
        assert "error: multvae on 118 items in batches of 50 users needs" in said.err, said.err
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before
    least = re.search(r"raise --max-memory to (\S+),", said.err)
    assert least is not None
    assert command(*SMALL, "--max-memory", least[1], "--name", "enough").code == 0
    assert (RUN.with_name("enough") / "weights.safetensors").read_bytes() == (RUN / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("verb", ["plan", "train", "tune", "evaluate", "compare"])
def test_a_number_without_a_unit_is_refused_by_every_verb(verb: str, toy: Path, command: Command) -> None:
    said = command(verb, "--max-memory", "8")
    assert said.code == 2 and "error: got --max-memory 8, which is 8 bytes; write 8GB" in said.err


def test_evaluation_takes_a_limit_and_says_the_least(toy: Path, command: Command) -> None:
    assert command(*SMALL).code == 0
    free = command("evaluate", "--baselines", "popularity", "--json")
    refused = command("evaluate", "--baselines", "popularity", "--max-memory", "10kB")
    assert refused.code == 1 and f"reading {RUN} needs" in refused.err and "Traceback" not in refused.err
    least = re.search(r"raise it to (\S+), the least it can be read and used with", refused.err)
    assert least is not None
    tight = command("evaluate", "--baselines", "popularity", "--json", "--max-memory", least[1])
    assert tight.code == 0 and json.loads(tight.out) == json.loads(free.out), tight.err
    said = command("compare", "--to", "popularity", "--max-memory", "10kB")
    assert said.code == 1 and "error: reading" in said.err
    assert command("compare", "--to", "popularity", "--max-memory", least[1], "--format", "json").code == 0


def test_baselines_and_repeats_are_given_device_and_limit(
    toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*SMALL).code == 0
    said = command("evaluate", "--baselines", "multdae", "--device", "cuda:99")
    assert said.code == 2 and "got device 'cuda:99'" in said.err
    given: list[tuple[Any, int | None]] = []
    original = Autoencoder.fit

    def fit(self: Any, *arguments: Any, **options: Any) -> Any:
        given.append((options["device"], options["max_memory"]))
        self.epochs = min(self.epochs, 4)  # a baseline has the defaults
        return original(self, *arguments, **options)

    monkeypatch.setattr(Autoencoder, "fit", fit)
    options = ("--device", "cpu", "--max-memory", "1GB")
    assert command("evaluate", "--baselines", "ae", *options).code == 0
    assert command("compare", "multvae", "--to", "popularity", "--seeds", 2, *options).code == 0
    assert given == [("cpu", 10**9)] * 2


# Plans


def test_a_plan_says_what_a_model_needs_and_leaves_it_as_it_is(make_model: Callable[..., Any], blocks: Dataset) -> None:
    for name in MODELS:
        model = make_model(name)
        before = repr(model)
        found = plan(model, blocks, device="cpu", seconds=0.01)
        assert found.fits and not model.n_items_ and repr(model) == before
        assert found.on_host >= found.needs.training and not found.on_gpu
        assert found.seconds is not None and found.seconds > 0
        assert (found.epoch_seconds is not None) == bool(found.epochs)
        if found.epoch_seconds is not None:
            assert found.seconds == pytest.approx(found.epoch_seconds * model.epochs)


def test_without_time_nothing_is_tried_out(blocks: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultVAE, "_loss", lambda *_: pytest.fail("it was trained"))
    found = plan(MultVAE(), blocks, device="cpu", seconds=0)
    assert found.fits and found.seconds is None and found.epoch_seconds is None and found.needs.parameters


def test_what_does_not_fit_is_not_tried_out(blocks: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultVAE, "_loss", lambda *_: pytest.fail("it was trained"))
    found = plan(MultVAE(), blocks, device="cpu", max_memory=1000)
    assert not found.fits and "is allowed by --max-memory" in found.obstacle and found.seconds is None


def test_a_try_that_fails_is_told(blocks: Dataset) -> None:
    found = plan(MultVAE(learning_rate=1e38), blocks, device="cpu")
    assert not found.fits and found.obstacle.startswith(
        "multvae could not be tried out: the loss is no longer a number"
    )


def test_a_batch_larger_than_the_data_is_an_epoch(blocks: Dataset) -> None:
    one = plan(MultVAE(hidden_dims=(16,), batch_size=10**6), blocks, device="cpu", seconds=0.01)
    same = MultVAE(hidden_dims=(16,), batch_size=100).needs(*blocks.train.shape, blocks.train.nnz)
    assert one.needs == same and one.epoch_seconds


@pytest.mark.parametrize("at", [3, 60])
def test_ctrl_c_ends_a_plan(at: int, blocks: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = MultVAE._loss, 0

    def typed(self: MultVAE, *arguments: Any) -> Losses:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(MultVAE, "_loss", typed)
    with pytest.raises(KeyboardInterrupt):
        plan(MultVAE(hidden_dims=(16,)), blocks, device="cpu", seconds=60)


def test_a_batch_of_typical_users_is_what_a_network_is_tried_out_on() -> None:
    lengths = np.array([1] * 50 + [10] * 40 + [90] * 10)
    starts = np.concatenate([[0], lengths.cumsum()])
    items = np.concatenate([np.arange(n) for n in lengths])
    matrix = sp.csr_matrix((np.ones(len(items)), items, starts), shape=(100, 90))
    chosen = planning._typical(matrix, 10)
    assert sorted(lengths[chosen]) == [1] * 5 + [10] * 4 + [90]
    np.testing.assert_array_equal(planning._typical(matrix, 100), np.arange(100))


@pytest.mark.parametrize(
    ("tried", "powers", "whole"),
    [
        ([(0.25, 3.0), (0.5, 5.0)], (0, 1), 9.0),
        ([(0.25, 6 / 64), (0.5, 8 / 16)], (2, 3), 3.0),
        ([(0.25, 4.0), (0.5, 3.0)], (0, 1), 3.0),
        ([(0.25, 1.0), (0.5, 4.0)], (0, 1), 8.0),
    ],
)
def test_times_are_carried_on_from_the_last_two_tries(
    tried: list[tuple[float, float]], powers: tuple[int, int], whole: float
) -> None:
    assert planning._extrapolated(tried, powers) == pytest.approx(whole)


def test_steps_of_a_closed_form_are_counted_until_the_time_is_over() -> None:
    steps = planning._StepTimer(0.0)
    steps.start(10, [])
    steps.advance(1, None)
    assert isinstance(steps.advance(2, None), StopTraining)
    assert steps.whole is not None and 0 < steps.whole < 10


def test_the_command_plans_all_models_and_writes_nothing(toy: Path, command: Command) -> None:
    before = sorted(Path().rglob("*"))
    said = command("plan", "--seconds", "0.01", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert [one["model"] for one in found["models"]] == [name for name in MODELS if name != "blend"]
    assert (found["dataset"], found["n_items"], found["max_memory"]) == ("toy", 118, None)
    for one in found["models"]:
        assert one["fits"] and not one["obstacle"] and one["host_bytes"] > 0 and one["seconds"] > 0
        assert (one["seconds_per_epoch"] is None) == (not one["epochs"]) and one["device_bytes"] == 0
    assert said.err.splitlines()[-1] == "next: recvae train --model multvae --data toy"
    assert sorted(Path().rglob("*")) == before


def test_the_table_says_what_does_not_fit_and_why(toy: Path, command: Command) -> None:
    words = (
        "plan",
        "multvae",
        "ease",
        "popularity",
        "--seconds",
        "0",
        "--set",
        "hidden_dims=7",
        "--max-memory",
        "200kB",
    )
    said = command(*words)
    assert said.code == 0 and "toy: " in said.out and "200.0 kB allowed" in said.out
    rows = {line.split()[1]: line for line in said.out.splitlines() if line.startswith("│")}
    assert [rows[name].split()[-2] for name in ("multvae", "ease", "popularity")] == ["no", "yes", "yes"]
    assert "\nmultvae on 118 items in batches of" in said.out
    assert said.err.splitlines()[-1] == "next: recvae train --model ease --data toy --max-memory 200kB"
    none = command("plan", "ease", "--max-memory", "10kB")
    assert none.code == 0 and none.err == "no model fits; allow more memory or use smaller dimensions\n"


def test_settings_go_to_the_models_that_have_them(toy: Path, command: Command) -> None:
    said = command("plan", "multvae", "ease", "--set", "latent_dim=3", "--set", "l2=7", "--seconds", "0", "--json")
    settings = {one["model"]: one["hyperparameters"] for one in json.loads(said.out)["models"]}
    assert settings["multvae"]["latent_dim"] == 3 and settings["ease"]["l2"] == 7
    assert said.err == "next: recvae train --model multvae --data toy --set latent_dim=3\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nothing",), "got model 'nothing', expected one of: multvae"),
        (("--data", "nowhere"), "no data set 'nowhere'"),
        (("blend",), "got no first run for blend, expected the name of one; say --set first=RUN"),
        (("--set", "nonsense=1"), "got unknown hyperparameter 'nonsense'; none of multvae, "),
        (("ease", "--set", "latent_dim=1"), "got unknown hyperparameter 'latent_dim'"),
        (("--set", "latent_dim"), "got --set 'latent_dim', expected name=value"),
        (("--set", "batch_size=0"), "got batch_size=0, expected a whole number, 1 or more"),
        (("--max-memory", "much"), "got 'much' for an amount of memory"),
        (("--seconds", "-1"), "got --seconds -1.0, expected a number of seconds, 0 or more"),
        (("--seconds", "nan"), "got --seconds nan, expected"),
        (("--device", "cuda:99"), "got device 'cuda:99'"),
    ],
)
def test_bad_input_is_refused(words: tuple[str, ...], told: str, toy: Path, command: Command) -> None:
    said = command("plan", *words)
    assert (said.code, said.out) == (2, "") and "Traceback" not in said.err
    assert said.err.startswith(f"error: {told}"), said.err


def test_without_data_there_is_nothing_to_plan_on(workplace: Path, command: Command) -> None:
    said = command("plan")
    assert said.code == 2 and "no data set in data; make one with" in said.err


def test_a_blend_is_the_sum_of_its_parts(toy: Path, command: Command) -> None:
    for name in WEIGHTS.values():
        assert command("train", "--model", name).code == 0
    named = [word for role, run in WEIGHTS.items() for word in ("--set", f"{role}={run}")]
    said = command("plan", "blend", *named, "--json")
    (found,) = json.loads(said.out)["models"]
    assert found["parameters"] == 118**2 + 118 and found["seconds"] > 0
    assert said.err.endswith("--set first=ease --set second=popularity\n")


def test_a_blend_of_what_is_still_to_be_fitted_counts_its_training(blocks: Dataset) -> None:
    size = (*blocks.train.shape, blocks.train.nnz)
    parts = EASE(), MultVAE(hidden_dims=(16,))
    whole = Blend.of(*parts).needs(*size)
    assert whole.training >= sum(part.needs(*size).training for part in parts)
    assert isinstance(whole, Needs) and whole.parameters == sum(part.needs(*size).parameters for part in parts)
    with pytest.raises(MemoryLimitError, match="blend on 32 items needs"):
        Blend.of(*parts).fit(blocks.train, blocks.validation, max_memory=1000)


# Memory that runs out on the way


def run_out(patch: pytest.MonkeyPatch, update: int) -> None:
    """Let memory run out in an update of MultVAE, counted from 1."""
    original, calls = MultVAE._loss, 0

    def scarce(model: MultVAE, *arguments: Any) -> Losses:
        nonlocal calls
        calls += 1
        if calls >= update:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 79 GiB")
        return original(model, *arguments)

    patch.setattr(MultVAE, "_loss", scarce)


def test_a_fit_that_runs_out_of_memory_keeps_its_best_weights(blocks: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"hidden_dims": (8,), "latent_dim": 4, "batch_size": 40, "anneal": "constant"}
    settings |= {"decay": "none", "warmup": 0.0}  # so that the shorter run is the beginning of the longer one
    straight = MultVAE(epochs=2, **settings).fit(blocks.train, blocks.validation, device="cpu")
    run_out(monkeypatch, 8)
    model = MultVAE(epochs=5, **settings)
    said = r"^memory ran out at update 8 \(epoch 3\); use a batch_size below 40 and train again; the weights of "
    with pytest.raises(OutOfMemoryError, match=said):
        model.fit(blocks.train, blocks.validation, device="cpu")
    assert model.n_items_ == 32 and len(model.log_) == 2
    for name, value in straight.weights().items():
        np.testing.assert_array_equal(model.weights()[name], value)


def test_in_the_first_epoch_nothing_is_kept_and_the_error_is_named(
    blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_out(monkeypatch, 2)
    with pytest.raises(OutOfMemoryError, match=r"at update 2 \(epoch 1\); use a batch_size below.*Tried to allocate"):
        MultVAE(hidden_dims=(8,), batch_size=40).fit(blocks.train, device="cpu")


def test_the_command_keeps_a_bundle_that_says_why_and_goes_on(
    toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*SMALL, "--name", "straight").code == 0
    updates = -(-Dataset.load(toy).train.shape[0] // 50)
    with monkeypatch.context() as patch:
        run_out(patch, 2 * updates + 1)
        said = command(*SMALL)
    assert (said.code, said.out) == (1, "") and "Traceback" not in said.err
    assert "use a batch_size below 50 and train again; the weights of epoch" in said.err.splitlines()[-1]
    assert said.err.endswith(f"are kept in {RUN}; where more memory is free, run `recvae train --resume` to continue\n")
    card = read_card(RUN)
    assert card["interrupted"] and card["training"]["failure"].startswith("memory ran out at update")
    assert "memory ran out at update" in (RUN / "README.md").read_text() and (RUN / FILE_NAME).exists()
    assert read_bundle(RUN).interrupted and command("evaluate", "multvae", "--baselines", "none").code == 0
    assert command("train", "--resume").code == 0
    weights = [(RUN.with_name(name) / "weights.safetensors").read_bytes() for name in ("multvae", "straight")]
    assert weights[0] == weights[1] and not read_bundle(RUN).interrupted and not (RUN / FILE_NAME).exists()


def test_a_run_that_never_fitted_leaves_nothing(toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    run_out(monkeypatch, 1)
    said = command(*SMALL)
    assert said.code == 1 and "memory ran out at update 1 (epoch 1); use a batch_size below 50" in said.err
    assert not RUN.exists()


SMALL_NETWORK = ("--set", "hidden_dims=16", "--set", "latent_dim=8", "--set", "batch_size=40", "--set", "epochs=4")


@pytest.mark.parametrize("on", ["train+validation", "all"])
def test_a_refit_is_planned_on_its_users_and_for_its_epochs(on: str, toy: Path, command: Command) -> None:
    command("train", "--model", "multvae", *SMALL_NETWORK, "--set", "patience=1")
    epochs = read_bundle(Path("runs/toy/multvae")).training.best_epoch
    more = () if on == "train+validation" else ("--on", on)
    before = sorted(Path().rglob("*"))
    said = command("plan", "--refit", "multvae", *more, "--seconds", "0.01", "--json")
    assert said.code == 0, said.err
    found, joined = json.loads(said.out), join(Dataset.load(toy), on)
    [one] = found["models"]
    assert (found["n_users"], found["n_interactions"]) == (joined.shape[0], joined.nnz)
    assert one["epochs"] == epochs and one["seconds"] == pytest.approx(epochs * one["seconds_per_epoch"])
    model = MultVAE(hidden_dims=(16,), latent_dim=8, batch_size=40)
    assert one["host_bytes"] == model.needs(*joined.shape, joined.nnz).training
    assert sorted(Path().rglob("*")) == before
    line = said.err.splitlines()[-1].removeprefix("next: recvae ").split()
    assert line == ["train", "--refit", "multvae", *more] and command(*line).code == 0


def test_the_refit_of_a_blend_is_planned_run_by_run(toy: Path, command: Command) -> None:
    for words in (["multvae", *SMALL_NETWORK], ["ease"], ["blend", "--set", "first=multvae", "--set", "second=ease"]):
        assert command("train", "--model", *words).code == 0
    found = json.loads(command("plan", "--refit", "blend", "--json", "--seconds", "0.01").out)
    assert [one["model"] for one in found["models"]] == ["multvae", "ease", "blend"]
    assert all(one["fits"] and one["seconds"] for one in found["models"])
    said = command("plan", "--refit", "blend", "--seconds", "0", "--max-memory", "100kB")
    assert said.code == 0 and "allow more memory" in said.err and "next:" not in said.err


def test_a_refit_is_planned_without_looks_at_validation_users(blocks: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> float:
        raise AssertionError("no look")

    monkeypatch.setattr(planning, "_validation_seconds", refused)
    refit = Refit(run="one", made="", on="train+validation", n_users=100, epochs=7)
    found = plan(MultVAE(hidden_dims=(4,), latent_dim=2, epochs=50), blocks, seconds=0.01, refit=refit, device="cpu")
    assert found.epochs == 7 and found.seconds == pytest.approx(7 * (found.epoch_seconds or 0))
    assert found.on_host == found.needs.training == found.model.needs(100, 32, blocks.train.nnz).training
    with pytest.raises(AssertionError, match="no look"):
        plan(MultVAE(hidden_dims=(4,), latent_dim=2, epochs=50), blocks, seconds=0.01, device="cpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--on", "all"), "got --on all without --refit"),
        (("ease", "--refit", "ease"), "got ease with --refit, but model and settings are those of ease"),
        (("--set", "l2=3", "--refit", "ease"), "got --set l2=3 with --refit"),
        (("--refit", "ease", "--on", "test"), "got --on 'test', expected one of: train+validation, all"),
        (("--refit", "nosuch"), "no run 'nosuch'"),
    ],
)
def test_what_does_not_go_with_the_plan_of_a_refit_is_refused(
    words: tuple[str, ...], message: str, toy: Path, command: Command
) -> None:
    command("train", "--model", "ease")
    said = command("plan", *words)
    assert (said.code, said.out, message in said.err) == (2, "", True), said.err
