"""What each of several processes needs and sends: as it is really taken and sent, and `recvae plan --ranks`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from processes import DEEP, TRAIN, WIDE, Several, in_fresh_processes, make, memory_taken, needs_proc, ones

from recvae.compute.process_group import joined
from recvae.compute.ranks import Ranks, current, supposed
from recvae.errors import UsageError
from recvae.models import EASE, MODELS, MultVAE
from recvae.models.common.hyperparameters import hyperparameters_of
from recvae.runs.sharing_plans import fewer_bytes, plan_shares
from recvae.training.records import EpochRecord, NullMonitor

Command = Callable[..., Any]

COUNTED: list[tuple[str, dict[str, Any]]] = [
    ("multvae", {**DEEP, "free_bits": 0.02, "tied": True}),
    ("multdae", {"latent_dim": 8}),
    ("recvae", WIDE),
]


class Sent(NullMonitor):
    """Counts what is given to sums over processes, until the last update of an epoch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = torch.distributed.all_reduce
        self.so_far = self.n_bytes = self.updates = 0

        def counted(tensor: torch.Tensor, **how: Any) -> Any:
            self.so_far += tensor.numel() * tensor.element_size()
            return found(tensor, **how)

        monkeypatch.setattr(torch.distributed, "all_reduce", counted)

    def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002
        self.so_far = 0  # what came before is no update

    def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
        self.n_bytes, self.updates = self.so_far, self.updates + 1


@pytest.mark.parametrize("share", ["users", "items"])
def test_what_is_said_to_be_sent_is_what_is_sent(share: str, several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    train = sp.csr_matrix(sp.vstack([TRAIN] * 2))[:100]  # 10 batches of 10, all of one size

    def work(_: int) -> list[float]:
        found = []
        with joined(share=share):
            for name, settings in COUNTED:
                sent = Sent(monkeypatch)
                make(name, **settings, epochs=1).fit(train, device="cpu", monitor=sent)
                found.append(sent.n_bytes / max(sent.updates, 1))
        return found

    measured = several(2, work)[0].found
    for (name, settings), n_bytes in zip(COUNTED, measured, strict=True):
        data: Any = type("Data", (), {"train": train})  # all that is looked at
        plans = plan_shares(make(name, **settings), data, 2, device="cpu")
        (found,) = (one for one in plans if one.share == share)
        assert found.added_up == pytest.approx(n_bytes, abs=45), name  # of a meeting at the end of each pass


def wide() -> tuple[MultVAE, sp.csr_matrix]:
    model = MultVAE(epochs=2, batch_size=300, hidden_dims=(100,), latent_dim=50, precision="float32")
    return model, ones(600, 60_000, 30)


def train_a_share() -> tuple[int, int]:
    model, train = wide()
    make().fit(TRAIN, device="cpu")  # loads what has to be loaded
    expected = model.needs(*train.shape, train.nnz).training
    return expected, memory_taken(lambda: model.fit(train, device="cpu"))


@needs_proc
@pytest.mark.parametrize("n", [2, 3])
def test_what_a_process_is_said_to_need_is_what_it_takes(n: int, warm_python: str) -> None:
    model, train = wide()
    whole = model.needs(*train.shape, train.nnz).training
    for expected, took in in_fresh_processes(n, warm_python, train_a_share, share="items"):
        assert 0.5 <= expected / took <= 1.5, f"expected {expected:,}, took {took:,}"
        assert expected < 1.1 * whole / n


def test_a_plan_of_both_ways_to_share() -> None:
    model, n_items = MultVAE(hidden_dims=(16,), latent_dim=8, batch_size=20), 20_000
    train = sp.csr_matrix((np.ones(100, np.float32), np.arange(100), np.arange(101)), shape=(100, n_items))
    blocks: Any = type("Data", (), {"train": train})
    users, items = plan_shares(model, blocks, 4)
    assert not current().several
    assert (users.share, items.share, users.ranks, users.fits, items.fits) == ("users", "items", 4, True, True)
    every = model.needs(100, n_items, train.nnz).parameters
    assert users.weights == 4 * every and users.moments == 8 * every
    assert users.weights - items.weights == 4 * (2 * 16 + 1) * (n_items - n_items // 4)
    assert users.added_up is not None and items.added_up is not None
    assert abs(users.added_up - 4 * every) < 500
    # B x H there and back, three numbers of each user; all meet twice there, once on the way back, and at the end.
    assert items.added_up == 4 * (2 * 20 * 16 + 3 * 20) + 24 * 4
    assert fewer_bytes([users, items]) == "both fit; sharing items sends less"
    few = plan_shares(model, blocks, 4, max_memory=items.needs.training + 1 if items.needs else 0)
    assert [one.fits for one in few] == [False, True] and fewer_bytes(few) == "only sharing items is possible"
    assert "multvae on" in few[0].obstacle and "raise --max-memory" in few[0].obstacle
    none = plan_shares(EASE(l2=1.0), blocks, 2)
    assert [one.fits for one in none] == [False, False] and fewer_bytes(none) == "neither way is possible"
    assert none[1].obstacle.startswith("got ease with 2 processes, which cannot share its items; ")
    by_row = plan_shares(
        model.__class__(**{**DEEP, "sampling": "uniform", "sampled_items": 4, "row_wise": True}), blocks, 2
    )
    assert by_row[0].added_up is None and by_row[0].fits and not by_row[1].fits
    with pytest.raises(UsageError, match=r"^got 1 processes, expected 2 or more"):
        plan_shares(model, blocks, 1)


@pytest.mark.parametrize("name", [one for one, model in MODELS.items() if "sampling" in hyperparameters_of(model)])
def test_every_model_that_samples_items_is_planned_and_what_sends_rows_says_no_number(name: str) -> None:
    train = sp.csr_matrix((np.ones(100, np.float32), np.arange(100) % 40, np.arange(101)), shape=(100, 40))
    blocks: Any = type("Data", (), {"train": train})
    has_choice = "row_wise" in hyperparameters_of(MODELS[name])
    for by_row in (False, True) if has_choice else (name == "elsa",):
        settings: dict[str, Any] = {"sampling": "uniform", "sampled_items": 4, "batch_size": 20}
        settings |= {"row_wise": by_row} if has_choice else {}
        users, items = plan_shares(MODELS[name](**settings), blocks, 4)
        assert users.fits and (users.added_up is None) == by_row
        assert not items.fits and "cannot share its items" in items.obstacle


@pytest.mark.parametrize(
    ("name", "settings", "sends_rows"),
    [
        ("elsa", {"latent_dim": 8}, False),
        ("elsa", {"latent_dim": 8, "entries": 4}, False),
        ("elsa", {"latent_dim": 8, "sampling": "uniform"}, True),
        ("multvae", {**DEEP, "sampling": "uniform", "sampled_items": 4}, False),
        ("multvae", {**DEEP, "sampling": "popularity", "sampled_items": 4, "row_wise": True}, True),
        ("multdae", {"latent_dim": 8, "noise": "gaussian"}, False),
    ],
)
def test_what_sends_rows_is_planned_without_a_figure_of_them(
    name: str, settings: dict[str, Any], sends_rows: bool
) -> None:
    model = MODELS[name](**{**settings, "batch_size": 20})
    data: Any = type("Data", (), {"train": TRAIN})
    users, _ = plan_shares(model, data, 2, device="cpu")
    assert users.fits and (users.added_up is None) == sends_rows


def test_memory_is_counted_for_a_supposed_process() -> None:
    with supposed(Ranks(size=4, share="items")):
        assert current().by_items
    assert not current().several


def test_the_command_plans_several_processes(toy: Path, command: Command) -> None:
    words = ("plan", "multvae", "hvamp", "ease", "--seconds", "0", "--ranks", "3")
    shown = command(*words)
    assert shown.code == 0
    assert "each of 3 processes (recvae train --share users, or items)" in shown.out
    assert "multvae with 3 processes: both fit; sharing " in shown.out
    assert "hvamp with 3 processes: only sharing users is possible" in shown.out
    assert "ease with 3" not in shown.out
    assert "torchrun --nproc-per-node 3 -m recvae train --model multvae --data toy" in shown.err.splitlines()[-1]
    found = json.loads(command(*words, "--json").out)["shares"]
    assert [(one["model"], one["share"], one["fits"]) for one in found] == [
        ("multvae", "users", True),
        ("multvae", "items", True),
        ("hvamp", "users", True),
        ("hvamp", "items", False),
        ("ease", "users", False),
        ("ease", "items", False),
    ]
    assert found[1]["weights_bytes"] < found[0]["weights_bytes"] and found[5]["training_bytes"] is None
    alone = command("plan", "ease", "--seconds", "0", "--ranks", "2")
    assert "got ease with 2 processes, which cannot share its items; train it with one process, or one of " in alone.out
    assert alone.err.splitlines()[-1] == "next: recvae train --model ease --data toy"
    refused = command("plan", "--ranks", "1")
    assert refused.code == 2 and "got --ranks 1, expected 2 or more processes; leave it out for one" in refused.err
