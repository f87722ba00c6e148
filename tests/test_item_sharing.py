"""Networks whose items several processes share: the result of one process, which none of them has whole.

The processes are real, forked from this one; the parts they are made of are in `test_shards.py`.
"""

from collections.abc import Callable
from typing import Any

import pytest

from recvae.compute.process_group import joined
from recvae.models import MODELS
from tests.test_ranks import DEEP, N_ITEMS, WIDE, check_same, figures, fitted

Several = Callable[..., list[Any]]

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
]
NAMES = [f"{name}-{number}" for number, (name, _) in enumerate(CASES)]


def ends(several: Several, n: int, work: Callable[[], Any], **how: Any) -> list[Any]:
    """Return what each of n processes found, or the error that it ended with, as its class and its words."""

    def end(rank: int) -> Any:
        try:
            with joined(share="items"):
                return work()
        except BaseException as error:
            return type(error).__name__, str(error)

    return [ended.found for ended in several(n, end, **how)]


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


@pytest.fixture(scope="module", params=[2, 3, 4])
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
