"""iALS in several processes: each solves for a part of the users and items, and all have what one process finds.

The processes are real, forked from this one, as in `test_ranks.py`.
"""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from processes import Several, ends, in_fresh_processes, memory_taken, needs_proc, ones

from recvae.compute.ranks import Ranks, current
from recvae.datasets.dataset import Dataset
from recvae.errors import TrainingError, UsageError
from recvae.models import IALS, ials
from recvae.models.common import ridge, row_parts
from recvae.models.common.row_parts import RowPart, most_of_part, row_weights
from recvae.runs.planning import plan
from recvae.runs.sharing_plans import plan_shares
from recvae.training.records import NullMonitor, StopTraining

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and forks as POSIX has them")

Command = Callable[..., Any]


def rows(n_users: int = 61, n_items: int = 37, seed: int = 0, weighted: bool = True) -> sp.csr_matrix:
    """Return histories of every length; one user has all items but the last, which nobody has, and one has none."""
    rng = np.random.default_rng(seed)
    dense = (rng.random((n_users, n_items)) < np.linspace(0.02, 0.9, n_users)[:, None]).astype(np.float32)
    if weighted:
        dense *= rng.integers(1, 5, dense.shape)
    dense[-1], dense[0] = 1.5, 0
    dense[:, -1] = 0
    return sp.csr_matrix(dense)


CASES: list[tuple[sp.csr_matrix, dict[str, Any]]] = [
    (rows(), {"factors": 6}),
    (rows(weighted=False), {"factors": 6, "unobserved_ratio": 1.0, "regularization_power": 0.5}),
    (rows(), {"factors": 13, "block_size": 4}),
    (rows(), {"factors": 50, "regularization": 0.2}),  # more than any history has
    (rows(3, 37, 1), {"factors": 5}),  # fewer users than processes
    (rows(40, 2, 2), {"factors": 2}),  # and fewer items: of two, one is nobody's
    (rows(), {"factors": 4, "unobserved_ratio": 0.0, "seed": 5}),
    (sp.csr_matrix(np.zeros((4, 6), np.float32)), {"factors": 3}),  # no interactions at all
]


def fitted(train: sp.csr_matrix | None = None, **settings: Any) -> IALS:
    return IALS(**{"factors": 6, "iterations": 3, **settings}).fit(rows() if train is None else train, device="cpu")


def all_cases() -> list[dict[str, np.ndarray]]:
    return [fitted(train, **settings).weights() for train, settings in CASES]


@pytest.mark.parametrize("n", [2, 4])
def test_several_processes_find_what_one_finds_to_the_bit(n: int, several: Several) -> None:
    expected = all_cases()
    for found in ends(several, n, all_cases):
        for case, own, alone in zip(CASES, found, expected, strict=True):
            for name, value in alone.items():
                np.testing.assert_array_equal(own[name], value, err_msg=f"{case[1]} {name}")


def test_each_process_solves_for_its_own_rows_alone_and_holds_its_own_columns(
    several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, solve = rows(), IALS._solve

    def look() -> Any:
        seen: list[tuple[int, int, list[int]]] = []

        def watch(model: IALS, matrix: sp.csr_matrix, *how: Any) -> Any:
            found = solve(model, matrix, *how)
            if found.any():
                seen.append((matrix.shape[0], matrix.nnz, found.any(dim=1).nonzero().ravel().tolist()))
            return found

        monkeypatch.setattr(IALS, "_solve", watch)
        model = fitted(train, iterations=1)
        monkeypatch.setattr(IALS, "_solve", solve)
        return seen, model.score(train).tolist()  # scoring meets nobody

    expected = fitted(train, iterations=1).score(train).tolist()
    found = ends(several, 4, look)
    assert [scores for _, scores in found] == [expected] * 4
    halves = [[seen[half] for seen, _ in found] for half in (0, 1)]
    for half, lengths in zip(halves, (np.diff(train.indptr), np.diff(train.tocsc().indptr)), strict=True):
        assert sorted(row for _, _, solved in half for row in solved) == np.flatnonzero(lengths).tolist()
    by_item = [n_interactions for _, n_interactions, _ in halves[1]]
    assert sum(by_item) == train.nnz and max(by_item) < 0.4 * train.nnz


def parts_of(lengths: np.ndarray, n: int, factors: int = 6, block: int = 6) -> list[RowPart]:
    return [RowPart(Ranks(rank, n), lengths, factors, block) for rank in range(n)]


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_rows_are_dealt_out_by_what_they_take(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "BATCH_BYTES", 10_000)  # of 10 rows of length 40 with 6 factors
    rng = np.random.default_rng(n)
    for lengths in (rng.zipf(1.5, 2000).clip(max=3000), np.arange(5), np.zeros(4, dtype=int), np.array([9])):
        batches = list(ridge.batches_of(lengths, 6, 6))
        parts = parts_of(lengths, n)
        dealt = sorted(row for part in parts for batch, _ in part.batches for row in batch.tolist())
        assert dealt == np.flatnonzero(lengths).tolist(), "each row with an interaction is one process's"
        np.testing.assert_array_equal(np.sum([part.lengths for part in parts], axis=0), lengths)
        for power in (1, 2, 3):  # what a row takes for its interactions, if a longer one takes more
            taken = lengths.astype(np.float64) ** power
            of_each = [sum(taken[batch].sum() for batch, _ in part.batches) for part in parts]
            most = max((lengths[batch].sum() for batch, _ in batches), default=0)
            assert max(of_each) - min(of_each) <= most * float(lengths.max()) ** (power - 1)


def test_batches_are_those_of_one_process() -> None:
    """A row's solution depends in its last bits on who else is in its batch."""
    lengths = np.diff(rows(400, 90).indptr)
    whole = [(batch.tolist(), length) for batch, length in ridge.batches_of(lengths, 6, 6)]
    dealt = [(batch.tolist(), length) for part in parts_of(lengths, 3) for batch, length in part.batches]
    assert sorted(dealt) == sorted(whole)


def test_the_part_of_a_process_has_the_columns_of_the_whole_in_their_order() -> None:
    train = rows()
    lengths = np.diff(train.tocsc().indptr)
    for n in (1, 2, 3, 40):  # of 40 processes, some have no item
        matrices = [part.columns_as_rows(train) for part in parts_of(lengths, n)]
        assert sum(matrix.nnz for matrix in matrices) == train.nnz
        assert any(matrix.nnz == 0 for matrix in matrices) == (n == 40)
        for part, matrix in zip(parts_of(lengths, n), matrices, strict=True):
            assert matrix.shape == (train.shape[1], train.shape[0]) and matrix.has_sorted_indices
            expected = train.T.toarray() * (part.lengths > 0)[:, None]
            np.testing.assert_array_equal(matrix.toarray(), expected)
            np.testing.assert_array_equal(np.diff(matrix.indptr), part.lengths)


def test_row_weights_are_sums_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    train = rows()
    expected = train.toarray().astype(np.float64).sum(axis=1)
    for at_a_time in (1, 5, 40, 1 << 20):
        monkeypatch.setattr("recvae.models.common.row_parts._SUMMED", at_a_time)
        np.testing.assert_array_equal(row_weights(train), expected)
    assert row_weights(rows()[:0]).shape == (0,)


MANY = (30_000, 20_000, 60)  # users, items, and interactions of each user


def take_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that interactions are most of what is taken."""
    for module in (ials, ridge, row_parts):
        monkeypatch.setattr(module, "BATCH_BYTES", 1 << 20)


def take_a_part() -> tuple[int, int, int, int]:
    take_small_batches(pytest.MonkeyPatch())
    train = ones(*MANY)
    fitted(rows(), iterations=1)  # loads what has to be loaded
    model = IALS(factors=8, iterations=1)
    expected = model.needs(*train.shape, train.nnz)
    took = memory_taken(lambda: model.fit(train, device="cpu"))
    return expected.training, took, expected.weights, most_of_part(train.nnz, 10, 8, 128)


@needs_proc
def test_a_process_takes_its_part_of_the_interactions(warm_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted is half to one and a half times what a process takes, as in `test_plan.py`."""
    take_small_batches(monkeypatch)
    train = ones(*MANY)
    counted = IALS(factors=8).needs(*train.shape, train.nnz).training
    for training, took, weights, most in in_fresh_processes(4, warm_python, take_a_part):
        assert 0.5 <= training / took <= 1.5, f"expected {training:,}, took {took:,}"
        assert training < 0.5 * counted and weights == IALS(factors=8).needs(*train.shape, train.nnz).weights
        assert most == train.nnz // 4 + 2**20 // (4 * 8)


def test_what_is_added_up_is_what_is_planned(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    def sent() -> int:
        added, send = [0], Ranks.sum

        def note(ranks: Ranks, *tensors: Any) -> None:
            added[0] += sum(one.numel() * one.element_size() for one in tensors)
            send(ranks, *tensors)

        monkeypatch.setattr(Ranks, "sum", note)
        fitted(iterations=3)
        return added[0]

    start = 4 * 6 * rows().shape[1]  # the first item vectors
    vectors, in_half = IALS(factors=6).bytes_shared(*rows().shape)
    assert ends(several, 2, sent) == [start + 6 * in_half] * 2 and vectors == 4 * 6 * sum(rows().shape)


def test_of_several_processes_memory_alone_is_planned(several: Several, blocks: Dataset) -> None:
    model, one = IALS(factors=4), plan(IALS(factors=4), blocks, device="cpu", seconds=0)

    def planned() -> Any:
        with pytest.raises(UsageError, match=r"^got 2 processes to try out ials, expected one: they .*; set seconds=0"):
            plan(model, blocks, device="cpu")
        found = plan(model, blocks, device="cpu", seconds=0)
        return found.needs.training, found.seconds, found.fits

    by_users, by_items = plan_shares(model, blocks, 4, device="cpu")
    assert (by_users.weights, by_users.added_up) == model.bytes_shared(*blocks.train.shape) and by_users.fits
    assert by_users.moments == 0 and "got ials with 4 processes, which cannot share its items" in by_items.obstacle
    needed = ends(several, 2, planned)
    assert needed == [(needed[0][0], None, True)] * 2 and needed[0][0] <= one.needs.training


class Breaks:
    """The systems of a batch, which do something in one process, at one of its batches."""

    def __init__(self, monkeypatch: Any, rank: int, batch: int, act: Callable[[], None]) -> None:
        found, self.calls = ridge.by_history, 0

        def by_history(histories: Any) -> Any:
            self.calls += 1
            if current().rank == rank and self.calls == batch:
                act()
            return found(histories)

        monkeypatch.setattr("recvae.models.ials.by_history", by_history)


def shortage() -> None:
    raise MemoryError("can't allocate memory")


def no_answer() -> None:
    raise TrainingError(ridge.NO_ANSWER)


def interruption() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def loss() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(
    ("act", "kind", "words"),
    [
        (no_answer, "TrainingError", "the least-squares problems have no answer in float32; raise regularization"),
        (shortage, "MemoryError", "can't allocate memory"),
        (interruption, "KeyboardInterrupt", ""),
    ],
)
def test_what_ends_one_process_ends_all(
    act: Callable[[], None], kind: str, words: str, rank: int, several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    Breaks(monkeypatch, rank, 5, act)

    def fit() -> tuple[str, str, int]:
        model = IALS(factors=40, iterations=3)
        with pytest.raises(BaseException, match=re.escape(words) or "$") as error:
            model.fit(rows(), device="cpu")
        return type(error.value).__name__, str(error.value), model.n_items_

    found = ends(several, 3, fit)
    assert [(name, n_items) for name, _, n_items in found] == [(kind, 0)] * 3
    assert found[rank][1] == words
    if kind != "KeyboardInterrupt":
        of_which = f" (in process {rank} of 3, on " if rank else ""
        assert all(text.startswith(words + of_which) for other, (_, text, _) in enumerate(found) if other != rank)


def test_a_lost_process_ends_the_others(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    Breaks(monkeypatch, 1, 5, loss)
    first, lost, last = ends(several, 3, lambda: fitted(factors=40))
    assert lost is None
    for kind, text in (first, last):
        assert kind == "TrainingError" and text.startswith("lost contact with another of the 3 processes (")
        assert text.endswith(
            "`recvae train --resume` continues from the last whole epoch, with any number of "
            "processes; where there is none, train again"
        )


def test_what_all_find_wrong_has_the_words_of_one_process(several: Several) -> None:
    words = "all factors became 0; lower regularization"
    assert ends(several, 2, lambda: fitted(regularization=1e30)) == [("TrainingError", words)] * 2
    words = "the least-squares problems have no answer in float32; raise regularization"
    for kind, text in ends(several, 2, lambda: fitted(factors=37, regularization=0.0)):
        assert kind == "TrainingError" and text.startswith(words)


def test_other_data_or_settings_are_refused(several: Several) -> None:
    for changes, words in (
        ({"seed": 2}, "got seed 2 in process 1 and 0 in process 0, expected the same model and settings"),
        ({"train": rows(seed=9)}, "got fingerprint "),
        ({"train": rows()[:-1]}, "got shape [60, 37] in process 1 and [61, 37] in process 0"),
    ):

        def fit(changes: dict[str, Any] = changes) -> None:
            fitted(**(changes if current().rank == 1 else {}))

        for kind, text in ends(several, 2, fit):
            assert kind == "UsageError" and text.startswith(words)


def test_what_is_derived_from_it_says_for_itself_whether_it_can_be_shared(several: Several) -> None:
    class Mine(IALS):
        """Which may alternate over something else."""

    def fit() -> None:
        with pytest.raises(UsageError, match="got ials with 2 processes, which cannot share its users; train it with"):
            Mine().fit(rows())

    assert ends(several, 2, fit) == [None, None]


class Stops(NullMonitor):
    """Ends after an iteration, or in its middle."""

    def __init__(self, after: float) -> None:
        self.after, self.told = after, list[float]()

    def advance(self, epochs_done: float, beta: float | None) -> StopTraining | None:  # noqa: ARG002
        self.told.append(epochs_done)
        return StopTraining("enough") if epochs_done >= self.after else None


@pytest.mark.parametrize("after", [0.5, 2.0, 2.5])
def test_the_monitor_of_the_first_process_ends_all(after: float, several: Several) -> None:
    def fit() -> Any:
        monitor = Stops(after if current().leads else 0.0)
        model = IALS(factors=4, iterations=9).fit(rows(), device="cpu", monitor=monitor)
        weights = model.item_factors_.tolist() if model.n_items_ else None
        return (weights, model.stop_, model.training_summary().stopped, model.training_summary().epochs), monitor.told

    (expected, told), (first, of_first), (second, of_second) = fit(), *ends(several, 2, fit)
    assert first == second == expected
    assert (of_first, of_second) == (told, [])


# As a command

SETTINGS = ("--set", "factors=4", "--set", "iterations=4", "--seed", "3")
TRAIN = ("train", "--model", "ials", *SETTINGS)


@pytest.fixture
def together(several: Several, command: Command, toy: Path) -> Callable[..., list[Any]]:
    """Return a function that types a command in n processes."""

    def run(n: int, *words: object, **environment: str) -> list[Any]:
        return several(n, lambda _: command(*words), **environment)

    return run


def factors_of(name: str) -> np.ndarray:
    from safetensors.numpy import load_file

    return load_file(f"runs/toy/{name}/weights.safetensors")["item_factors"]


def test_the_command_leaves_the_run_of_one_process_and_the_first_speaks(together: Any, command: Command) -> None:
    expected = command(*TRAIN, "--name", "one")
    first, *others = [ended.found for ended in together(3, *TRAIN, "--name", "three")]
    assert (first.code, expected.code) == (0, 0) and first.out.splitlines()[0] == expected.out.splitlines()[0]
    assert [(other.code, other.out, other.err) for other in others] == [(0, "", "")] * 2
    assert {path.name for path in Path("runs/toy").iterdir()} == {"one", "three"}
    np.testing.assert_array_equal(factors_of("three"), factors_of("one"))
    cards = [json.loads(Path(f"runs/toy/{name}/recommender.json").read_text()) for name in ("one", "three")]
    assert cards[0]["metrics"] == cards[1]["metrics"]
    assert command("train", "--refit", "one").code == 0
    first, second = [ended.found for ended in together(2, "train", "--refit", "three")]
    assert (first.code, second) == (0, (0, "", "")) and "saved to runs/toy/three-refit" in first.out
    np.testing.assert_array_equal(factors_of("three-refit"), factors_of("one-refit"))


def test_ended_before_it_has_ended_well_it_leaves_nothing_and_one_message(
    together: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for act, code, words in (
        (interruption, 130, "interrupted; no epoch was finished, nothing is kept"),
        (shortage, 1, "error: not enough memory (can't allocate memory (in process 1 of 2, on "),
    ):
        with monkeypatch.context() as patched:
            Breaks(patched, 1, 2, act)
            first, second = together(2, *TRAIN)
        codes = [(ended.found.code if ended.found else ended.code) for ended in (first, second)]
        said = first.found.err if first.found else first.err
        assert codes == [code, code] and words in said and "Traceback" not in said, (codes, said)
        assert not list(Path("runs/toy").glob("*"))
    first, second = [ended.found for ended in together(2, "tune", "--model", "ials", "--trials", "1")]
    assert (first.code, second) == (2, (2, "", "")) and "got 2 processes for `recvae tune`" in first.err


@pytest.mark.parametrize("rank", [0, 1])
def test_started_again_it_begins_anew_in_the_same_place(
    rank: int, together: Any, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        Breaks(patched, rank, 3, loss)
        ended = together(2, *TRAIN, TORCHELASTIC_RUN_ID="mine")
    assert (ended[rank].code, ended[1 - rank].found.code) == (-signal.SIGKILL, 1)
    again = {"TORCHELASTIC_RUN_ID": "mine", "TORCHELASTIC_RESTART_COUNT": "1"}
    first, second = [one.found for one in together(2, *TRAIN, **again)]
    assert (first.code, second) == (0, (0, "", ""))
    assert command(*TRAIN, "--name", "whole").code == 0
    assert {path.name for path in Path("runs/toy").iterdir()} == {"ials", "whole"}
    np.testing.assert_array_equal(factors_of("ials"), factors_of("whole"))
