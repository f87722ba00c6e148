"""Several processes that train one model: the result of one process, and one end for all of them.

The processes are real, forked from this one; `test_torchrun.py` starts some by torchrun.
"""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from processes import (
    DEEP,
    FOLD_IN,
    HELD_OUT,
    N_ITEMS,
    TARGETS,
    TRAIN,
    WIDE,
    Several,
    Stops,
    check_same,
    ends,
    figures,
    fitted,
    make,
)

from recvae.compute import memory, process_group
from recvae.compute.devices import resolve_device
from recvae.compute.process_group import joined
from recvae.compute.ranks import ALONE, Ranks, current, of_environment, supposed
from recvae.errors import BundleError, DataError, OutOfMemoryError, TrainingError, UsageError
from recvae.interactions import HeldOut
from recvae.metrics import Metric
from recvae.models import EASE, MODELS, MultVAE
from recvae.training.checkpoints import Checkpoint
from recvae.training.records import NullMonitor
from recvae.training.validation import validation_means

BY_ROW = {"sampling": "popularity", "sampled_items": 12, "row_wise": True}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("multvae", DEEP),
    ("multvae", {**DEEP, "free_bits": 0.02, "beta": 2.0, "tied": True}),
    ("multvae", {**DEEP, **BY_ROW}),
    ("multvae", {**DEEP, "items_at_a_time": 7, "averaging": 0.5}),
    ("multdae", {"latent_dim": 8}),
    ("multdae", {"latent_dim": 8, "noise": "gaussian", "likelihood": "gaussian", "noise_level": 0.1}),
    ("multdae", {"latent_dim": 8, "noise": "salt-and-pepper", "noise_level": 0.1, "likelihood": "bernoulli"}),
    ("ae", {"latent_dim": 8, "weight_decay": 0.1}),
    ("ae", {"latent_dim": 8, "sampling": "uniform", "sampled_items": 12}),
    ("recvae", WIDE),
    ("recvae", {**WIDE, **BY_ROW}),
    ("hvamp", {**WIDE, "pseudo_inputs": 6}),
    ("vasp", WIDE),
    ("vasp", {**WIDE, "joint": "product", "shallow_decay": 0.1}),
    ("elsa", {"latent_dim": 8}),
    ("elsa", {"latent_dim": 8, "sampling": "uniform", "sampled_items": 5}),
    ("elsa", {"latent_dim": 8, "entries": 3}),
]
NAMES = [f"{name}-{number}" for number, (name, _) in enumerate(CASES)]


def all_cases() -> list[dict[str, Any]]:
    return [figures(fitted(name, epochs=2, **changes)) for name, changes in CASES]


@pytest.fixture(scope="module")
def alone() -> list[dict[str, Any]]:
    return all_cases()


@pytest.fixture(scope="module", params=[2, 4])
def shared(request: pytest.FixtureRequest, several: Several) -> list[list[dict[str, Any]]]:
    """Return the results of each process, for all cases."""
    return ends(several, request.param, all_cases)


def test_every_model_that_can_be_shared_is_tried() -> None:
    tried = {name for name, _ in CASES} | {"ials"}  # which has no epochs: test_ranks_ials.py
    assert tried == {name for name, model in MODELS.items() if model.shares_users}


@pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)
def test_several_processes_learn_what_one_learns(case: int, shared: list[Any], alone: list[Any]) -> None:
    check_same(shared[0][case], alone[case])
    assert shared[0][case]["log"] == shared[-1][case]["log"], "all have the record of the first"
    for name, value in shared[0][case]["weights"].items():
        for other in shared[1:]:
            np.testing.assert_array_equal(other[case]["weights"][name], value)


def test_half_precision_gives_the_result_of_one_process_to_its_rounding(several: Several) -> None:
    """Products round to 8 bits, sums over users are of other parts: losses agree, and all processes have one result."""
    how = {"precision": "bfloat16", "epochs": 2}
    expected = figures(fitted(**how))
    for found in (shared := ends(several, 2, lambda: figures(fitted(**how)))):
        for one, other in zip(found["log"], expected["log"], strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=2e-3)
        for name, value in shared[0]["weights"].items():
            np.testing.assert_array_equal(found["weights"][name], value)
    assert figures(fitted(epochs=2))["log"][0]["loss"] != expected["log"][0]["loss"], "it is used"


def test_the_tolerance_tells_another_noise_or_a_lost_user_from_rounding(alone: list[Any]) -> None:
    others: tuple[dict[str, Any], ...] = ({"seed": 2}, {"train": TRAIN[:-1]}, {"learning_rate": 0.0102})
    for changes in others:
        with pytest.raises(AssertionError):
            check_same(figures(fitted(epochs=2, **changes)), alone[0], of=1e-3)
    for free in (0.0, 1e-5, 10.0):  # in the case, free bits count for some units, and not for others
        with pytest.raises(AssertionError):
            check_same(figures(fitted(epochs=2, tied=True, beta=2.0, free_bits=free)), alone[1], of=1e-4)


def test_the_same_number_of_processes_gives_the_same_to_the_bit(several: Several) -> None:
    first, second = (ends(several, 2, lambda: figures(fitted()))[0] for _ in range(2))
    assert first["log"] == second["log"]
    for name, value in first["weights"].items():
        np.testing.assert_array_equal(second["weights"][name], value)


@pytest.mark.parametrize("n_users", [17, 5, 2, 1])
def test_each_validation_user_is_scored_once_and_the_mean_is_that_of_one_process(
    n_users: int, several: Several
) -> None:
    held_out = HeldOut(fold_in=FOLD_IN[:n_users], targets=TARGETS[:n_users])
    metrics = [Metric("ndcg", 10), Metric("recall", 5)]
    table = torch.rand(17, N_ITEMS, generator=torch.Generator().manual_seed(0))
    places = {FOLD_IN[user].toarray().tobytes(): user for user in range(17)}

    def means() -> tuple[list[int], dict[str, float]]:
        scored: list[int] = []

        def score(block: sp.csr_matrix) -> torch.Tensor:
            users = [places[row.toarray().tobytes()] for row in block]
            scored.extend(users)
            return table[users]

        return scored, validation_means(score, held_out, metrics, rows=2, ranks=current())

    everyone, expected = means()
    assert everyone == list(range(n_users))
    found = ends(several, 4, means)
    assert [user for scored, _ in found for user in scored] == everyone
    assert [mean for _, mean in found] == [expected] * 4


def test_a_process_knows_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (current(), ALONE.several, ALONE.leads, ALONE.check(), ALONE.gather("a")) == (
        ALONE,
        False,
        True,
        False,
        ["a"],
    )
    assert {Ranks(rank, 3).part_of(7) for rank in range(3)} == {(0, 2), (2, 4), (4, 7)}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert not of_environment().several
    monkeypatch.setenv("WORLD_SIZE", "2")  # as some schedulers set it for their own
    assert not of_environment().several
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UsageError, match=r"^got RANK=1, WORLD_SIZE=2, LOCAL_RANK=, .* expected whole numbers and an"):
        of_environment()
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    found = of_environment()
    assert (found.rank, found.size, found.local_rank, found.local_size, found.leads) == (1, 2, 1, 1, False)
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UsageError, match=r"^got RANK=first, "):
        of_environment()


def test_what_processes_tell_one_another_arrives_as_it_was(several: Several) -> None:
    def talk() -> Any:
        ranks = current()
        tensor = torch.full((2,), float(ranks.rank))
        ranks.sum(tensor)
        own = {"a": torch.arange(3) + 10 * ranks.rank, "b": torch.tensor(0.5 + ranks.rank)}
        told = ranks.tensors_from_first(own if ranks.leads else {})
        return (
            ranks.gather({"rank": ranks.rank, "text": "\u00e9" * ranks.rank}),
            ranks.from_first([0.1, None, ranks.rank]),
            tensor.tolist(),
            ranks.gather_rows(torch.full((ranks.rank, 2), ranks.rank)).tolist(),
            {name: value.tolist() for name, value in told.items()},
            ranks.check(wish=ranks.rank == 1),
            ranks.check(),
        )

    expected = (
        [{"rank": 0, "text": ""}, {"rank": 1, "text": "\u00e9"}, {"rank": 2, "text": "\u00e9\u00e9"}],
        [0.1, None, 0],
        [3.0, 3.0],
        [[1, 1], [2, 2], [2, 2]],
        {"a": [0, 1, 2], "b": 0.5},
        True,
        False,
    )
    assert ends(several, 3, talk) == [expected] * 3


ERRORS = {
    "usage": (UsageError("got 1, expected 2; do 3"), ("UsageError", "got 1, expected 2; do 3 (in process 1 of 3, on ")),
    "bundle": (BundleError("damaged"), ("BundleError", "damaged (in process 1 of 3, on ")),
    "memory": (MemoryError("none left"), ("MemoryError", "none left (in process 1 of 3, on ")),
    "bug": (
        ZeroDivisionError("by 0"),
        ("TrainingError", "a process of 3 has failed with ZeroDivisionError: by 0 (in "),
    ),
    "ctrl-c": (KeyboardInterrupt(), ("KeyboardInterrupt", "")),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_of_one_process_ends_all(kind: str, several: Several) -> None:
    error, (name, text) = ERRORS[kind]

    def fail() -> None:
        if current().rank == 1:
            raise error
        current().check()

    first, own, last = ends(several, 3, fail)
    assert own == (type(error).__name__, str(error))
    assert first == last and first[0] == name and first[1].startswith(text)


def test_of_two_different_errors_all_have_the_first_and_one_that_all_have_stays_as_it_is(several: Several) -> None:
    def fail() -> None:
        if current().rank:
            raise UsageError(f"of {current().rank}")
        current().check()

    def fail_alike() -> None:
        raise DataError("the same")

    found = ends(several, 3, fail)
    assert found[1] == ("UsageError", "of 1")
    assert [end[1].split(",")[0] for end in (found[0], found[2])] == ["of 1 (in process 1 of 3"] * 2
    assert ends(several, 3, fail_alike) == [("DataError", "the same")] * 3


def test_processes_that_would_add_up_different_things_are_refused(several: Several) -> None:
    words = "the 2 processes have from 4 to 5 numbers to add up, expected as many in each"
    for kind, text in ends(several, 2, lambda: current().check(same=4 + current().rank)):
        assert kind == "TrainingError" and text.startswith(words)


def test_a_taken_port_is_named(several: Several) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        def join(rank: int) -> Any:
            if rank == 0:
                with (
                    pytest.raises(UsageError, match=r"^process 0 of 2 cannot meet the others \(.*--master-port"),
                    joined(),
                ):
                    pass

        assert several(2, join, MASTER_PORT=str(port))[0].code == 0


def test_another_version_is_refused(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    def join(rank: int) -> str:
        if rank == 1:
            process_group.__version__ = "9.9"
        with pytest.raises(UsageError, match=r"\w") as error, joined():
            pass
        return str(error.value)

    version = process_group.__version__
    words = f"got recvae 9.9 in process 1 and {version} in process 0, expected the same version in all 2 processes; "
    assert [ended.found for ended in several(2, join)] == [words + "install the same on all machines"] * 2


def test_other_data_or_settings_are_refused(several: Several) -> None:
    def words(**other: Any) -> str:
        def fit() -> None:
            fitted(**(other if current().rank == 1 else {}))

        first, second = ends(several, 2, fit)
        assert first == second and first[0] == "UsageError"
        return first[1]

    same = "expected the same training and validation users in all 2 processes; copy the data set to all machines"
    assert words(train=TRAIN[:-1]).startswith("got shape [52, 40] in process 1 and [53, 40] in process 0, " + same)
    other = TRAIN.copy()
    other.data[-1] += 1
    assert words(train=other).startswith("got fingerprint ") and same in words(train=other)
    assert words(seed=2).startswith("got seed 2 in process 1 and 1 in process 0, expected the same model and settings")
    assert "got select_by recall@5 in process 1 and ndcg@100" in words(how={"select_by": "recall@5"})


def test_weights_that_are_not_the_same_any_more_are_noticed(several: Several) -> None:
    class Cosmic(NullMonitor):
        def epoch(self, record: Any) -> None:
            if record.epoch == 1:
                model.network_.decoder[0].bias.data[0] += 1e-3

    model = make()

    def fit() -> None:
        model.fit(TRAIN, HELD_OUT, device="cpu", monitor=Cosmic())  # the monitor of the first process alone is called

    for kind, text in ends(several, 2, fit):
        assert kind == "TrainingError" and "sums of bytes" in text and "weights and noise after epoch 2" in text


class MyVAE(MultVAE):
    """Whose loss may be anything."""


class MySharedVAE(MultVAE):
    """Which says that it can."""

    shares_users = True


def test_what_cannot_be_shared_is_refused_with_what_can(several: Several) -> None:
    def fit() -> list[str]:
        refused = []
        for model in (EASE(l2=5.0), MyVAE(**DEEP), make(batch_size=3), make(batch_size=100)):
            with pytest.raises(UsageError, match=r"\w") as error:
                model.fit(TRAIN[:3] if make(batch_size=100) == model else TRAIN, device="cpu")
            refused.append(str(error.value))
        MySharedVAE(**DEEP, epochs=1).fit(TRAIN, device="cpu")
        with pytest.raises(UsageError, match=r"^got device 'cuda:9' with 4 processes, each of which has a GPU of its"):
            resolve_device("cuda:9")
        with pytest.raises(UsageError, match=f"^got device 'cuda:{current().rank}', but PyTorch sees 0 CUDA devices"):
            resolve_device("cuda")
        return refused

    able = "multvae, multdae, recvae, hvamp, vasp, ae, elsa, ials"
    few = "got 4 processes for 3 users per update, expected at most one for each; start fewer (torchrun "
    few += "--nproc-per-node), or raise batch_size"
    expected = [
        f"got {name} with 4 processes, which cannot share its users; train it with one process, or one of {able}"
        for name in ("ease", "multvae")
    ]
    assert ends(several, 4, fit) == [[*expected, few, few]] * 4


def test_processes_of_one_machine_share_its_memory(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", Path("/nowhere"))
    monkeypatch.setattr(memory, "_CGROUP", Path("/nowhere"))
    monkeypatch.setattr(memory, "_total_bytes", lambda: 10**9)
    users, model = 10_000, make(batch_size=500)

    def free() -> tuple[int, int]:
        return memory.available_bytes(), model.needs(users, 20_000, 100_000).training

    whole = free()
    free_part, needed = ends(several, 2, free)[0]
    assert (whole[0], free_part) == (10**9, 5 * 10**8)
    assert needed < whole[1], "a process has half of the users of a batch"


def test_noise_on_all_items_is_drawn_for_the_whole_batch_and_counted() -> None:
    """Each process draws that of all users of a batch, and copies that of its own."""
    users, n_items, n = 1000, 20_000, 8
    for noise in ("gaussian", "salt-and-pepper"):
        dense = make("multdae", latent_dim=8, noise=noise, batch_size=users)
        masking = make("multdae", latent_dim=8, batch_size=users)
        with supposed(Ranks(size=n)):
            needed, other = (model.needs(users, n_items, 10 * users).training for model in (dense, masking))
        assert needed >= 4 * n_items * (users + users // n) > other
        assert needed < dense.needs(users, n_items, 10 * users).training, "its part of the products is smaller"


@pytest.mark.parametrize("when", [{"update": 3}, {"update": 6}, {"update": 8}, {"update": 12}, {"epoch": 2}], ids=str)
def test_the_monitor_of_the_first_process_ends_all(when: dict[str, int], several: Several) -> None:
    def fit() -> Any:
        model = fitted(how={"monitor": Stops(**when) if current().leads else NullMonitor()})
        return model.n_items_, model.history_.stop, len(model.history_.records), model.history_.best_epoch

    assert ends(several, 2, fit) == [fit()] * 2


def test_a_loss_that_is_no_number_ends_all_at_the_update_of_one_process(several: Several) -> None:
    train = TRAIN.copy()

    def fit() -> tuple[str, int]:
        with pytest.raises(TrainingError, match="no longer a number") as error:
            make(learning_rate=1e30, epochs=2).fit(train, HELD_OUT, device="cpu")
        return str(error.value), current().size

    expected, _ = fit()
    assert ends(several, 2, fit) == [(expected, 2)] * 2


class Breaks:
    """A loss that does something in one process at one update."""

    def __init__(self, monkeypatch: Any, rank: int, update: int, act: Callable[[], None]) -> None:
        found, self.calls = MultVAE._loss, 0

        def loss(model: Any, *of_batch: Any) -> Any:
            self.calls += 1
            if current().rank == rank and self.calls == update:
                act()
            return found(model, *of_batch)

        monkeypatch.setattr(MultVAE, "_loss", loss)


def shortage() -> None:
    raise MemoryError("can't allocate memory")


@pytest.mark.parametrize("rank", [0, 1])
def test_memory_that_runs_out_in_one_process_ends_all_with_the_best_weights(
    rank: int, several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    Breaks(monkeypatch, rank, 9, shortage)

    def fit() -> Any:
        model = make()
        with pytest.raises(OutOfMemoryError, match=r"\w") as error:
            model.fit(TRAIN, HELD_OUT, device="cpu")
        return str(error.value), model.weights(), model.history_.out_of_memory_at

    found = ends(several, 2, fit)
    words = (
        "memory ran out at update 9 (epoch 2); use a batch_size below 10 and train again; the weights of epoch 1 are"
    )
    assert [(text, update) for text, _, update in found] == [(words + " kept", 9)] * 2
    monkeypatch.undo()
    best = fitted(how={"monitor": Stops(epoch=1)}).weights()
    for _, weights, _ in found:
        for name, value in best.items():
            np.testing.assert_allclose(weights[name], value, rtol=0, atol=1e-5)


def test_memory_that_runs_out_before_there_is_anything_to_keep(
    several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    Breaks(monkeypatch, 1, 2, shortage)
    first, own = ends(several, 2, fitted)
    words = "memory ran out at update 2 (epoch 1); use a batch_size below 10 and train again (can't allocate memory"
    assert first[0] == own[0] == "OutOfMemoryError"
    assert first[1].startswith(words + " (in process 1 of 2, on ") and own[1].startswith(words)


def test_memory_that_runs_out_before_the_meeting_within_a_loss(
    several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    Breaks(monkeypatch, 1, 2, shortage)
    assert [kind for kind, _ in ends(several, 2, lambda: fitted(free_bits=0.1))] == ["OutOfMemoryError"] * 2


def test_an_interruption_of_one_process_ends_all_at_one_update(
    several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    Breaks(monkeypatch, 1, 9, lambda: os.kill(os.getpid(), signal.SIGTERM))

    def fit() -> Any:
        model = fitted()
        return model.history_.interrupted, model.training_summary().interrupted, len(model.log_), model.weights()

    one, other = ends(several, 2, fit)
    assert one[:3] == other[:3] == (True, True, 1)
    for name, value in one[3].items():
        np.testing.assert_array_equal(other[3][name], value)
    Breaks(monkeypatch, 0, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert ends(several, 2, fit) == [("KeyboardInterrupt", "")] * 2


def test_a_lost_process_ends_the_others(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    Breaks(monkeypatch, 1, 9, lambda: os.kill(os.getpid(), signal.SIGKILL))
    first, lost, last = ends(several, 3, fitted)
    assert lost is None
    for kind, text in (first, last):
        assert kind == "TrainingError"
        assert text.startswith("lost contact with another of the 3 processes (") and "`recvae train --resume`" in text


def test_a_run_is_continued_by_any_number_of_processes(several: Several, tmp_path: Path) -> None:
    expected = figures(fitted(epochs=4))
    path = tmp_path / "checkpoint.safetensors"

    def train(resumes: bool, last: int) -> Callable[[], Any]:
        def fit() -> Any:
            kept = Checkpoint(path, {"of": "test"}, resumes=resumes) if current().leads else None
            return figures(fitted(epochs=4, how={"checkpoint": kept, "monitor": Stops(epoch=last)}))

        return fit

    ends(several, 2, train(resumes=False, last=1))
    three = ends(several, 3, train(resumes=True, last=3))
    assert [len(found["log"]) for found in three] == [3] * 3
    check_same(train(resumes=True, last=0)(), expected)
    ends(several, 2, train(resumes=False, last=1))
    check_same(ends(several, 4, train(resumes=True, last=0))[2], expected)


def test_a_checkpoint_that_only_the_first_process_can_read_and_does_not_fit_ends_all(
    several: Several, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    fitted(epochs=1, how={"checkpoint": Checkpoint(path, {})})

    def fit(identity: dict[str, Any], **changes: Any) -> Callable[[], None]:
        def go_on() -> None:
            fitted(epochs=2, how={"checkpoint": Checkpoint(path, identity, resumes=True)}, **changes)

        return go_on

    for (kind, text), words in (
        (ends(several, 2, fit({"of": "another"}))[1], "belongs to another run"),
        (ends(several, 2, fit({}, latent_dim=9))[1], "does not fit this run"),
    ):
        assert kind == "BundleError" and words in text
