"""Networks whose items several processes share: the result of one process, which none of them has whole.

The processes are real, forked from this one; the parts they are made of are in `test_item_shards.py`.
"""

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import scipy.sparse as sp
import torch
from processes import DEEP, HELD_OUT, N_ITEMS, TRAIN, WIDE, Several, Stops, check_same, figures, fitted, make
from safetensors.numpy import load_file

from recvae.compute.process_group import joined
from recvae.compute.ranks import Ranks, current, supposed
from recvae.errors import OutOfMemoryError, UsageError
from recvae.metrics import Metric
from recvae.models import MODELS
from recvae.storage.arrays import write_weights
from recvae.training import shard_files, sharded_softmax
from recvae.training.checkpoints import Checkpoint
from recvae.training.records import NullMonitor
from recvae.training.validation import OBJECTIVE, validation_means

ends = functools.partial(processes.ends, share="items")

CASES: list[tuple[str, dict[str, Any]]] = [
    ("multvae", DEEP),
    ("multvae", {**DEEP, "free_bits": 0.02, "beta": 2.0, "tied": True}),
    ("multvae", {**DEEP, "averaging": 0.5, "decay": "cosine", "warmup": 0.3}),
    ("multvae", {**DEEP, "hidden_dims": ()}),
    ("multdae", {"latent_dim": 8}),
    ("multdae", {"latent_dim": 8, "tied": True, "hidden_dims": (6,)}),
    ("ae", {"latent_dim": 8, "weight_decay": 0.1}),
    ("recvae", WIDE),
    ("recvae", {**WIDE, "averaging": 0.5}),
    ("elsa", {"latent_dim": 8}),  # fewer numbers than users in a batch
    ("elsa", {"latent_dim": 12, "averaging": 0.5, "decay": "cosine"}),  # more
    ("elsa", {"latent_dim": 8, "entries": 3}),
]
NAMES = [f"{name}-{number}" for number, (name, _) in enumerate(CASES)]


def gathered(model: Any) -> dict[str, Any]:
    """Return figures of a model, the weights in the first process alone."""
    own = {name: value.shape for name, value in model.network_.state_dict().items()}
    if model.gather():
        return {**figures(model), "own": own}
    log = figures_without_weights(model)
    return {**log, "own": own}


def figures_without_weights(model: Any) -> dict[str, Any]:
    kept, model.weights = model.weights, dict
    try:
        return figures(model)
    finally:
        model.weights = kept


def all_cases() -> list[dict[str, Any]]:
    return [gathered(fitted(name, epochs=2, **changes)) for name, changes in CASES]


@pytest.fixture(scope="module")
def alone() -> list[dict[str, Any]]:
    return all_cases()


@pytest.fixture(scope="module", params=[2, 3])
def shared(request: pytest.FixtureRequest, several: Several) -> list[list[dict[str, Any]]]:
    return ends(several, request.param, all_cases)


def test_every_model_that_shares_items_is_tried() -> None:
    assert {name for name, _ in CASES} == {name for name, model in MODELS.items() if model.shares_items}


@pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)
def test_processes_that_share_items_learn_what_one_learns(case: int, shared: list[Any], alone: list[Any]) -> None:
    for process in shared:
        assert isinstance(process, list), process
    check_same(shared[0][case], alone[case])
    for process in shared[1:]:
        assert process[case]["log"] == shared[0][case]["log"], "all have the record of the first"
    whole, n = alone[case]["own"], len(shared)
    for name, shape in whole.items():
        parts = [process[case]["own"][name] for process in shared]
        if shape[0] == N_ITEMS:
            assert sum(part[0] for part in parts) == N_ITEMS and max(part[0] for part in parts) <= -(-N_ITEMS // n)
        else:
            assert parts == [shape] * n


def test_products_in_bfloat16_are_near_those_of_one_process(several: Several) -> None:
    changes: dict[str, Any] = {"precision": "bfloat16", "epochs": 2}
    expected = figures(fitted(**changes))
    with pytest.raises(AssertionError):
        check_same(figures(fitted(epochs=2)), expected, of=1e-6)
    check_same(ends(several, 2, lambda: gathered(fitted(**changes)))[0], expected, of=2e-2)


def test_a_file_of_the_whole_is_that_of_one_process_and_parts_answer_nothing(several: Several, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"

    def work() -> Any:
        model = fitted(epochs=1)
        with pytest.raises(UsageError, match=r"^got multvae with items \d+ to \d+ of 40 in this process, expected all"):
            model.recommend(TRAIN, 3)
        with pytest.raises(UsageError, match=r"call gather\(\) in all processes"):
            model.weights()
        shard_files._PART = 7  # numbers at a time
        whole = model.gather(path if current().leads else None)
        return model.recommend(TRAIN, 3) if whole else None

    expected = fitted(epochs=1)
    first, *others = ends(several, 3, work)
    assert others == [None, None]
    write_weights(tmp_path / "alone.safetensors", expected.weights())
    found, wanted = (one.read_bytes() for one in (path, tmp_path / "alone.safetensors"))
    n_header = 8 + int.from_bytes(wanted[:8], "little")
    assert len(found) == len(wanted) and found[:n_header] == wanted[:n_header]
    for name, value in load_file(tmp_path / "alone.safetensors").items():
        np.testing.assert_allclose(load_file(path)[name], value, atol=1e-5)
    np.testing.assert_array_equal(first[0], expected.recommend(TRAIN, 3)[0])
    assert expected.gather() and isinstance(first[1], np.ndarray)


@pytest.mark.slow
def test_a_run_is_continued_by_any_number_of_processes_and_either_way(several: Several, tmp_path: Path) -> None:
    how: dict[str, Any] = {"epochs": 4, "averaging": 0.5}
    expected, path = figures(fitted(**how)), tmp_path / "checkpoint.safetensors"

    def train(resumes: bool, last: int) -> Callable[[], Any]:
        def fit() -> Any:
            kept = Checkpoint(path, {"of": "test"}, resumes=resumes) if current().leads else None
            model = fitted(how={"checkpoint": kept, "monitor": Stops(epoch=last)}, **how)
            return figures(model) if model.gather() else figures_without_weights(model)

        return fit

    train(resumes=False, last=1)()
    alone = load_file(path)
    items = ends(several, 2, train(resumes=False, last=1))
    together = load_file(path)
    assert {name: (value.shape, value.dtype) for name, value in together.items()} == {
        name: (value.shape, value.dtype) for name, value in alone.items()
    }
    assert [len(found["log"]) for found in items] == [1, 1]
    assert len(ends(several, 3, train(resumes=True, last=2))[2]["log"]) == 2
    assert len(ends(several, 2, train(resumes=True, last=3), share="users")[1]["log"]) == 3
    check_same(ends(several, 4, train(resumes=True, last=0))[0], expected)
    ends(several, 4, train(resumes=False, last=3))
    check_same(train(resumes=True, last=0)(), expected)


def test_elsa_by_rows_goes_on_with_other_processes_and_with_one_that_has_no_interaction(
    several: Several, tmp_path: Path
) -> None:
    path, how = tmp_path / "checkpoint.safetensors", {"epochs": 3, "latent_dim": 8}
    train = TRAIN.toarray()
    train[:, :20] = 0  # items of the first of two processes, which nobody has
    train[5] = 0  # a user without any
    matrix = sp.csr_matrix(train)

    def fit(resumes: bool, last: int) -> Callable[[], Any]:
        def work() -> Any:
            kept = Checkpoint(path, {"of": "test"}, resumes=resumes) if current().leads else None
            model = fitted("elsa", matrix, {"checkpoint": kept, "monitor": Stops(epoch=last)}, **how)
            return figures(model) if model.gather() else figures_without_weights(model)

        return work

    expected = fit(resumes=False, last=0)()
    for found in (ends(several, 2, fit(resumes=False, last=1)), ends(several, 3, fit(resumes=True, last=2))):
        assert [len(one["log"]) for one in found] == [len(found) - 1] * len(found), found
    check_same(ends(several, 2, fit(resumes=True, last=0))[0], expected)
    ends(several, 2, fit(resumes=False, last=1))
    check_same(ends(several, 2, fit(resumes=True, last=0), share="users")[0], expected)


def test_elsa_by_rows_needs_its_part() -> None:
    size = (10_000, 100_000, 1_000_000)
    for changes in ({}, {"entries": 50}):
        model = make("elsa", latent_dim=200, batch_size=100, **changes)
        whole = model.needs(*size)
        with supposed(Ranks(size=4, share="items")):
            part = model.needs(*size)
        assert whole.parameters == 4 * part.parameters and part.training < 0.4 * whole.training


def test_a_checkpoint_that_does_not_fit_or_is_damaged_ends_all(several: Several, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    fitted(epochs=1, how={"checkpoint": Checkpoint(path, {})})

    def fit(identity: dict[str, Any], n_items: int = N_ITEMS, **changes: Any) -> Callable[[], None]:
        def go_on() -> None:
            kept = Checkpoint(path, identity, resumes=True) if current().leads else None
            make(epochs=2, **changes).fit(TRAIN[:, :n_items], device="cpu", checkpoint=kept)

        return go_on

    def damage() -> None:
        path.write_bytes(path.read_bytes()[:-100])

    for prepare, work, words in (
        (lambda: None, fit({"of": "another"}), "belongs to another run"),
        (lambda: None, fit({}, latent_dim=9), "does not fit this run"),
        (lambda: None, fit({}, n_items=30), "has shape [40], expected 30 rows); train again without"),
        (damage, fit({}), "is damaged"),
        (path.unlink, fit({}), "no checkpoint at"),
    ):
        prepare()
        for kind, text in ends(several, 2, work):
            assert kind == "BundleError" and words in text


def breaks(monkeypatch: Any, rank: int, call: int, act: Callable[[], None]) -> None:
    """Have something happen in one process, after all have met in the loss for the `call`-th time."""
    found, calls = sharded_softmax._to_gradient, [0]

    def broken(*of_block: Any) -> None:
        calls[0] += 1
        if current().rank == rank and calls[0] == call:
            act()
        found(*of_block)

    monkeypatch.setattr(sharded_softmax, "_to_gradient", broken)


def shortage() -> None:
    raise MemoryError("can't allocate memory")


@pytest.mark.parametrize("rank", [0, 1])
def test_memory_that_runs_out_in_one_process_ends_all_with_the_best_weights(
    rank: int, several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch, rank, 9, shortage)

    def fit() -> Any:
        model = make()
        with pytest.raises(OutOfMemoryError, match=r"^memory ran out at update 9 \(epoch 2\); .* of epoch 1 are kept"):
            model.fit(TRAIN, HELD_OUT, device="cpu")
        return model.weights() if model.gather() else None

    found = ends(several, 2, fit)
    monkeypatch.undo()
    for name, value in fitted(how={"monitor": Stops(epoch=1)}).weights().items():
        np.testing.assert_allclose(found[0][name], value, rtol=0, atol=1e-5)


def test_an_interruption_or_a_loss_of_one_process_ends_all(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit() -> Any:
        model = fitted()
        return model.history_.interrupted, len(model.log_), model.gather()

    with monkeypatch.context() as patched:
        breaks(patched, 1, 9, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert ends(several, 2, fit) == [(True, 1, True), (True, 1, False)]
    with monkeypatch.context() as patched:
        breaks(patched, 1, 9, lambda: os.kill(os.getpid(), signal.SIGKILL))
        first, lost, last = ends(several, 3, fit)
    assert lost is None
    for kind, text in (first, last):
        assert kind == "TrainingError" and text.startswith("lost contact with another of the 3 processes (")


def test_a_loss_or_a_weight_of_one_process_that_is_no_number_ends_all(
    several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit() -> None:
        make(learning_rate=1e30, epochs=2).fit(TRAIN, HELD_OUT, device="cpu")

    for kind, text in ends(several, 2, fit):
        assert kind == "TrainingError" and "no longer a number" in text

    class Cosmic(NullMonitor):
        def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
            if epochs_done == 1 / 3:
                model.network_.decoder[-1].bias.data[0] = float("nan")  # after the last update of the first epoch

    model = make()
    for kind, text in ends(several, 2, lambda: model.fit(TRAIN, HELD_OUT, device="cpu", monitor=Cosmic())):
        assert kind == "TrainingError" and "no longer a number" in text


def test_memory_that_runs_out_in_validation_makes_all_go_on_with_fewer_users(several: Several) -> None:
    table = np.random.default_rng(0).random((17, N_ITEMS)).astype(np.float32)
    rows = {HELD_OUT.fold_in[user].toarray().tobytes(): user for user in range(17)}

    def means() -> tuple[list[int], dict[str, float]]:
        sizes = []

        def score(block: Any) -> Any:
            sizes.append(block.shape[0])
            if current().rank == 1 and block.shape[0] > 4:
                raise MemoryError("none left")
            users = [rows[row.toarray().tobytes()] for row in block]
            first, last = current().part_of(N_ITEMS) if current().by_items else (0, N_ITEMS)
            return torch.from_numpy(table[users, first:last].copy())

        return sizes, validation_means(score, HELD_OUT, [OBJECTIVE, Metric("recall", 5)], 9, ranks=current())

    _, expected = means()
    assert ends(several, 3, means) == [([9, 4, 4, 4, 4, 1], expected)] * 3


def test_what_cannot_be_shared_by_items_is_refused_with_what_can(several: Several) -> None:
    def fit() -> list[str]:
        refused = []
        models = [
            make("vasp"),
            make("hvamp"),
            make("multdae", noise="gaussian"),
            make("ae", likelihood="bernoulli"),
            make(sampling="uniform", sampled_items=4),
            make(items_at_a_time=8),
            make("elsa", sampling="uniform", sampled_items=4),
        ]
        for model in models:
            with pytest.raises(UsageError, match=r"\w") as error:
                model.fit(TRAIN, HELD_OUT, device="cpu")
            refused.append(str(error.value))
        with pytest.raises(UsageError, match=r"^got 4 processes for 3 items, expected at most one for each; "):
            make().fit(TRAIN[:, :3], device="cpu")
        return refused

    what = "with 4 processes, which cannot share its items"
    end = "; train it with one process, or one of multvae, multdae, recvae, ae, elsa"
    other = "; leave that out, share users (--share users), or train with one"
    expected = [
        f"got vasp {what}{end}",
        f"got hvamp {what}{end}",
        f"got multdae {what} with noise=gaussian{other}",
        f"got ae {what} with likelihood=bernoulli{other}",
        f"got multvae {what} with sampling=uniform{other}",
        f"got multvae {what} with items_at_a_time=8{other}",
        f"got elsa {what} with sampling=uniform{other}",
    ]
    assert ends(several, 4, fit) == [expected] * 4
    first, second = ends(several, 2, lambda: fitted(seed=1 + current().rank))
    assert first == second and first[1].startswith("got seed 2 in process 1 and 1 in process 0, expected the same")


def test_users_shared_here_and_items_there_are_refused(several: Several) -> None:
    def end(rank: int) -> str:
        with pytest.raises(UsageError, match=r"\w") as error, joined(share="items" if rank else "users"):
            fitted()
        return str(error.value)

    words = (
        "got share items in process 1 and users in process 0, expected the same model and settings in all 2 processes"
    )
    assert all(ended.found.startswith(words) for ended in several(2, end))
