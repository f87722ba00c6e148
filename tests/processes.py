"""What tests of several processes share: small data, models fitted to it, and what each process has found.

The processes are real, forked from this one (`several`, in conftest).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recvae.compute.process_group import joined
from recvae.interactions import HeldOut
from recvae.models import MODELS
from recvae.training.records import NullMonitor, StopTraining

Several = Callable[..., list[Any]]

N_ITEMS = 40
DEEP = {"hidden_dims": (16,), "latent_dim": 8}
WIDE = {"hidden_dim": 16, "latent_dim": 8}


def rows(n_users: int, seed: int) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    dense = (rng.random((n_users, N_ITEMS)) < 0.2) * rng.integers(1, 4, (n_users, N_ITEMS))
    dense[np.arange(n_users), rng.integers(0, N_ITEMS, n_users)] = 1
    return sp.csr_matrix(dense, dtype=np.float32)


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
