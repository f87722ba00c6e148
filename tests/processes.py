"""What tests of several processes share: small data, models fitted to it, and what each process has found.

The processes are real, forked from this one (`several`, in conftest).
"""

import dataclasses
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recvae.compute.process_group import joined
from recvae.interactions import HeldOut
from recvae.models import MODELS
from recvae.training.records import NullMonitor, StopTraining

Several = Callable[..., list[Any]]
_MOST = Path("/proc/self/clear_refs")
needs_proc = pytest.mark.skipif(not _MOST.exists(), reason="only Linux tells how much memory was used")

N_ITEMS = 40
DEEP = {"hidden_dims": (16,), "latent_dim": 8}
WIDE = {"hidden_dim": 16, "latent_dim": 8}


def rows(n_users: int, seed: int) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    dense = (rng.random((n_users, N_ITEMS)) < 0.2) * rng.integers(1, 4, (n_users, N_ITEMS))
    dense[np.arange(n_users), rng.integers(0, N_ITEMS, n_users)] = 1
    return sp.csr_matrix(dense, dtype=np.float32)


def ones(n_users: int, n_items: int, each: int) -> sp.csr_matrix:
    """Return rows of many items, of which some are drawn for each user: what is large enough to be measured."""
    items = np.sort(np.random.default_rng(0).integers(0, n_items, (n_users, each)), axis=1).ravel()
    starts = np.arange(0, len(items) + 1, each)
    found = sp.csr_matrix((np.ones(len(items), np.float32), items, starts), shape=(n_users, n_items))
    found.sum_duplicates()
    return found


# The last batch of an epoch has 3 users: with 4 processes, one of them has none. The same for a validation user.
TRAIN, FOLD_IN = rows(53, 0), rows(17, 1)
TARGETS = sp.csr_matrix(rows(17, 2) - rows(17, 2).multiply(FOLD_IN > 0))
TARGETS.eliminate_zeros()
HELD_OUT = HeldOut(fold_in=FOLD_IN, targets=TARGETS)


def make(name: str = "multvae", **changes: Any) -> Any:
    settings = {"epochs": 3, "batch_size": 10, "learning_rate": 0.01, "seed": 1, **(DEEP if name == "multvae" else {})}
    return MODELS[name](**{**settings, **changes})


def fitted(name: str = "multvae", train: sp.csr_matrix = TRAIN, how: dict[str, Any] | None = None, **changes: Any):
    return make(name, **changes).fit(train, HELD_OUT, device="cpu", **(how or {}))


def figures(model: Any) -> dict[str, Any]:
    """Return what a model has learned, and its log without what is of the clock."""
    log = [dataclasses.asdict(record) for record in model.log_]
    timeless = [{k: v for k, v in record.items() if k not in ("seconds", "users_per_second")} for record in log]
    return {"weights": model.weights(), "log": timeless, "best": model.history_.best_epoch}


def check_same(found: dict[str, Any], expected: dict[str, Any], of: float = 1e-4) -> None:
    """Check that two results differ by rounding alone: of the largest weight, of the losses."""
    scale = max(np.abs(value.astype(np.float64)).max() for value in expected["weights"].values())
    for name, value in expected["weights"].items():
        np.testing.assert_allclose(found["weights"][name], value, rtol=0, atol=of * scale, err_msg=name)
    for one, other in zip(found["log"], expected["log"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=of)
        assert one["ndcg"] == pytest.approx(other["ndcg"], abs=1e-3)
        assert one["active_units"] == other["active_units"]
    assert found["best"] == expected["best"]


def ends(several: Several, n: int, work: Callable[[], Any], share: str = "users", **how: Any) -> list[Any]:
    """Return what each of n processes found, or the error that it ended with, as its class and its words."""

    def end(rank: int) -> Any:
        try:
            with joined(share=share):
                return work()
        except BaseException as error:
            return type(error).__name__, str(error)

    return [ended.found for ended in several(n, end, **how)]


class Stops(NullMonitor):
    """Ends training after some updates or epochs."""

    def __init__(self, update: int = 0, epoch: int = 0) -> None:
        self.update, self.last, self.updates = update, epoch, 0

    def advance(self, epochs_done: float, beta: float | None) -> StopTraining | None:  # noqa: ARG002
        self.updates += 1
        return StopTraining("enough") if self.updates == self.update else None

    def epoch(self, record: Any) -> StopTraining | None:
        return StopTraining("enough") if record.epoch == self.last else None


def known_to(n: int) -> list[dict[str, str]]:
    """Return what each of n processes knows of the others: the environment that torchrun would give it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = {"WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{name: str(value) for name, value in {**known, "RANK": i, "LOCAL_RANK": i}.items()} for i in range(n)]


def in_fresh_processes(n: int, python: str, work: Callable[[], Any], share: str = "users") -> list[Any]:
    """Return what a function of a test module returns in each of n processes that have done nothing before.

    What others have freed is used again, so that a process forked from this one would seem to take less memory.
    """
    code = (
        f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from recvae.compute.process_group import joined\nfrom {work.__module__} import {work.__name__} as work\n"
        f"with joined(share={share!r}):\n    found = work()\nprint(json.dumps(found))"
    )
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True, env=one_thread | own)
        for own in known_to(n)
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [process.returncode for process in started] == [0] * n
    return [json.loads(one) for one in said]


def memory_taken(work: Callable[[], object]) -> int:
    """Return how many bytes more than before this process had at most while it worked."""
    _MOST.write_text("5")  # the most memory counts from here
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    found = re.search(key + r":\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])
