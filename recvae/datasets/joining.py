"""Training on held-out users too: train and validation, or all parts, as one matrix with each interaction once.

In some protocols held-out users are others than those of training (strong), in some they are the same (holdout,
leave-last-out, ready-made), and in some both (time, ready-made with users of its own). Rows are therefore joined by
user id, which a data set keeps of its training users too. Earlier versions did not keep them; where the protocol does
not say whose row it is, such a data set is refused.
"""

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from recvae.datasets.dataset import Dataset
from recvae.datasets.parts import ALL, VALIDATION_TOO, check_on
from recvae.datasets.streams import check_in_memory
from recvae.errors import DataError
from recvae.interactions import HeldOut

_SAME_USERS = ("holdout", "leave-last-out")

# Letters in shape comments: T training users, H users of a held-out part, J users of the joined matrix, I items.


def join(dataset: Dataset, on: str = VALIDATION_TOO) -> sp.csr_matrix:
    """Return the training matrix of several parts together; rows of one user are one row, interactions are there once.

    Parameters
    ----------
    dataset : Dataset
        Its items stay as they are.
    on : str
        "train+validation", or "all" for the test users too.

    Returns
    -------
    csr_matrix of shape (n_users, n_items), float32
        The training users in their order, then the other users of validation, then those of test, without users who
        have no interaction. Weights are those of the parts. What only the fold-in of test users has (new users between
        the two moments of a split by time) is left out of "train+validation".

    Raises
    ------
    UsageError
        If `on` is neither.
    DataError
        If it cannot be known which rows belong to one user, a user is there twice in a part, a weight differs between
        parts, or a test target would be trained on without the test users being asked for.

    Examples
    --------
    >>> from recvae.datasets.synthetic import synthetic_log
    >>> events, _ = synthetic_log(n_users=200, n_items=100, n_events=5000, seed=1)
    >>> dataset = Dataset.from_events(events, name="toy", heldout_users=20)
    >>> dataset.train.shape[0], join(dataset).shape[0], join(dataset, "all").shape[0]
    (146, 166, 186)
    """
    check_in_memory(dataset.train, "train on held-out users too")
    parts = [dataset.validation, dataset.test][: 1 + (check_on(on) == ALL)]
    rows, test_rows, n_rows = _rows_by_user(dataset, parts)
    n_train = dataset.train.shape[0]
    joined = _placed(dataset.train, np.arange(n_train), n_rows)  # (J, I)
    for part, row in zip(parts, rows, strict=True):
        for matrix in (part.fold_in, part.targets):
            joined = _union(joined, _placed(matrix, row, n_rows), dataset.name)
    if on != ALL:
        _check_unseen(joined, dataset, test_rows)
    there = (np.diff(joined.indptr) > 0) | (np.arange(n_rows) < n_train)  # (J,)
    return joined if there.all() else sp.csr_matrix(joined[there])


def _rows_by_user(dataset: Dataset, parts: list[HeldOut]) -> tuple[list[np.ndarray], np.ndarray, int]:
    """Return the row of each user of each part (H,), of the test users (H,) with -1 for none, and how many there are.

    Training users keep their rows; others follow in the order in which they come.
    """
    train_ids, n_train = _train_ids(dataset), dataset.train.shape[0]
    blocks = [part.user_ids for part in parts]
    for name, ids in zip(("train", "validation", "test"), [train_ids, *blocks], strict=False):
        if ids is not None and pd.Index(ids).has_duplicates:
            raise DataError(f"{dataset.name} has a user twice in its {name} part, expected each once; preprocess again")
    before = [] if train_ids is None else [train_ids]
    codes, users = pd.factorize(np.concatenate([*before, *blocks]))  # in the order of first appearance
    start = 0 if train_ids is not None else n_train
    rows, place = list[np.ndarray](), len(codes) - sum(map(len, blocks))
    for ids in blocks:
        rows.append(codes[place : place + len(ids)] + start)
        place += len(ids)
    known = pd.Index(users).get_indexer(pd.Index(dataset.test.user_ids))  # (H,)
    shared = len(users) < len(codes) or (len(parts) == 1 and (known >= 0).any())
    if shared and dataset.manifest.get("protocol", {}).get("split") == "strong":
        raise DataError(
            f"{dataset.name} has the same user in two of its parts, expected other users in each with the split "
            "strong; give held-out users their ids, or preprocess again"
        )
    return rows, np.where(known >= 0, known + start, -1), len(users) + start


def _train_ids(dataset: Dataset) -> np.ndarray | None:
    """Return the ids (T,) of the training users, None where no held-out user is one of them.

    Raises
    ------
    DataError
        If it cannot be known.
    """
    ids, train, validation = dataset.train_user_ids, dataset.train, dataset.validation
    if ids is not None:
        if len(ids) != train.shape[0]:
            raise DataError(
                f"got {len(ids):,} ids of {train.shape[0]:,} training users; preprocess {dataset.name} again"
            )
        return ids
    protocol = dataset.manifest.get("protocol", {})
    split = protocol.get("split")
    if split == "strong":
        return None
    if split in _SAME_USERS or (split == "ready-made" and "users" not in protocol):
        if validation.fold_in.shape == train.shape and _is_same(validation.fold_in, train):
            return validation.user_ids
        split = f"{split}, with other rows in validation than in training"
    raise DataError(
        f"{dataset.name} does not say which of its held-out users were trained on (split: {split or 'unknown'}), so "
        "their rows cannot be joined. Earlier versions did not keep the ids of training users: run the same `recvae "
        "preprocess` again. The fingerprint stays the same, so runs on it stay valid."
    )


def _is_same(one: Any, other: Any) -> bool:
    return (one != other).nnz == 0  # scipy's types do not know that this is a matrix


def _placed(matrix: sp.csr_matrix, rows: np.ndarray, n_rows: int) -> sp.csr_matrix:
    """Return a matrix of n_rows that has the rows of another one (H, I) at given places (H,)."""
    counts = np.zeros(n_rows, dtype=np.int64)
    counts[rows] = np.diff(matrix.indptr)
    order = np.argsort(rows, kind="stable")  # (H,)
    ordered = matrix if (order == np.arange(len(order))).all() else sp.csr_matrix(matrix[order])
    starts = np.concatenate([[0], np.cumsum(counts)])  # (J + 1,)
    placed = sp.csr_matrix((ordered.data, ordered.indices, starts), shape=(n_rows, matrix.shape[1]))
    placed.sort_indices()
    return placed


def _union(left: sp.csr_matrix, right: sp.csr_matrix, name: str) -> sp.csr_matrix:
    """Return what is in either; a weight that is in both must be the same."""
    both = sp.csr_matrix(left.minimum(right))  # 0, and so not stored, where one of them has nothing
    if both.nnz and not all(_is_same(one.multiply(both.sign()), both) for one in (left, right)):
        raise DataError(
            f"{name} has an interaction with another weight in training than among the held-out users, expected the "
            "same; give both the same weights"
        )
    joined = sp.csr_matrix(left.maximum(right))
    joined.sort_indices()
    return joined


def _check_unseen(joined: sp.csr_matrix, dataset: Dataset, rows: np.ndarray) -> None:
    """Refuse a training matrix that has a target of a test user in the row (H,) of this user."""
    known = np.flatnonzero(rows >= 0)
    n_seen = joined[rows[known]].multiply(dataset.test.targets[known]).nnz
    if n_seen:
        raise DataError(
            f"{n_seen:,} test targets of {dataset.name} are also interactions of the same users in training or "
            "validation, so a test would ask for what was trained on; prepare the data without them"
        )
