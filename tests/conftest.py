"""What several test modules share."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pytest
import scipy.sparse as sp

from recvae.dataset import Dataset
from recvae.interactions import HeldOut
from recvae.models import MODELS

# The same examples in every run; a model's first call may take longer than hypothesis likes.
hypothesis.settings.register_profile("recvae", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("recvae")

BLOCKS, BLOCK_ITEMS = 4, 8
SMALL: dict[str, dict[str, Any]] = {  # a model not listed is tested with its defaults
    "multvae": {"hidden_dims": (16,), "latent_dim": 8, "epochs": 25, "batch_size": 10, "learning_rate": 0.01},
    "multdae": {"latent_dim": 8, "epochs": 25, "batch_size": 10, "learning_rate": 0.01},
    "als": {"factors": 4, "regularization": 0.1, "iterations": 8},
}


class Blocks(NamedTuple):
    """Users of whom it is known what they should be recommended: the rest of their block."""

    train: sp.csr_matrix
    heldout: HeldOut


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real MovieLens data, which may not be passed on with this project, or skip."""
    checkout = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("RECVAE_TEST_DATA") or checkout.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real MovieLens data at {folder}; set RECVAE_TEST_DATA to a folder with ml-1m/ and so on")
    return folder


@pytest.fixture(scope="session", params=MODELS)
def model_name(request: pytest.FixtureRequest) -> str:
    """Return the name of each registered model in turn: whatever is listed is tested."""
    return request.param


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """Return a function from a model's name to a model that is small enough to fit in a moment."""

    def make(name: str, **changes: Any) -> Any:
        return MODELS[name](**SMALL.get(name, {}) | changes)

    return make


@pytest.fixture(scope="session")
def blocks() -> Blocks:
    """Return 4 groups of 8 items; every user has 5 or 6 items of one group and none of the others."""
    rng = np.random.default_rng(7)
    n_items = BLOCKS * BLOCK_ITEMS

    def users(per_block: int, n: int) -> sp.csr_matrix:
        dense = np.zeros((BLOCKS * per_block, n_items))
        for user, row in enumerate(dense):
            row[user % BLOCKS * BLOCK_ITEMS + rng.choice(BLOCK_ITEMS, n, replace=False)] = 1
        return sp.csr_matrix(dense, dtype=np.float32)

    train = sp.csr_matrix(sp.vstack([users(12, 5), users(13, 6)]))
    fold_in = users(5, 3)
    block_of_user = np.arange(fold_in.shape[0]) % BLOCKS
    rest = np.kron(np.eye(BLOCKS), np.ones(BLOCK_ITEMS))[block_of_user] - fold_in.toarray()
    return Blocks(train, HeldOut(fold_in=fold_in, targets=sp.csr_matrix(rest, dtype=np.float32)))


@pytest.fixture(scope="session")
def fitted(make_model: Callable[..., Any], blocks: Blocks) -> Callable[[str], Any]:
    """Return a function from a model's name to that model fitted on the blocks, once; do not change it."""
    return functools.cache(lambda name: make_model(name).fit(blocks.train, blocks.heldout, device="cpu"))


@pytest.fixture(scope="session")
def block_dataset(blocks: Blocks) -> Dataset:
    """Return the blocks as a data set with whole numbers as ids, and no title for every fifth item."""
    n_items = blocks.train.shape[1]
    titles = [None if column % 5 == 0 else f"Title {column}" for column in range(n_items)]
    return Dataset(
        train=blocks.train,
        validation=blocks.heldout,
        test=blocks.heldout,
        item_ids=1000 - 10 * np.arange(n_items),  # neither ascending nor near the columns
        titles=np.array(titles, dtype=object),
        manifest={"name": "blocks", "fingerprint": "0" * 64, "protocol": {"split": "none"}},
    )
