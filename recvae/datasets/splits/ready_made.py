"""Splits made elsewhere: a train / test pair, e.g. those of LightGCN, or fold-in and targets of other users."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from recvae.datasets.events import Events
from recvae.datasets.splits.base import (
    LATER_SHARE,
    LIANG_SEED,
    Split,
    Vocabulary,
    check_seed,
    check_share,
    rank_within_user,
    rows_of,
    vocabulary_of,
)
from recvae.errors import DataError
from recvae.interactions import HeldOut, interactions

# Letters in shape comments: E events, U users.


def ready_made(
    train: Events,
    test: Events,
    seed: int = LIANG_SEED,
    validation_share: float = LATER_SHARE,
    validation: Events | None = None,
) -> Split:
    """Use an existing train / test pair of the same users.

    The items are those of the whole training file, so that metrics are comparable with published ones. For the test,
    a user's whole history, training and validation, is the fold-in; test events that repeat it could never be hit, and
    are dropped and counted.

    Parameters
    ----------
    train, test : Events
        The two files.
    seed : int
        Seed of the draw of validation targets.
    validation_share : float
        Share of each user's training items that become validation targets, in (0, 1); rounded down.
    validation : Events, optional
        The validation targets; by default they are drawn from the training file.

    Returns
    -------
    Split
        One row per training user, in ascending order of user id.

    Raises
    ------
    UsageError
        If `seed` or `validation_share` is out of range.
    DataError
        If the files share no user or no item, or every test event is also in the training file.
    """
    check_seed(seed)
    check_share(validation_share, "validation share", LATER_SHARE)
    vocabulary = vocabulary_of(train, np.ones(len(train), dtype=bool))
    n_users, users = len(train.user_ids), train.user_ids
    whole = rows_of(train, vocabulary, np.ones(len(train), dtype=bool), train.users, n_users)
    trained = _pairs(train.users, vocabulary.column_of[train.items], vocabulary)
    if validation is None:
        rank, size = rank_within_user(train, np.random.default_rng(seed).random(len(train)))
        is_validation = rank < (validation_share * size).astype(np.int64)
        fold_in = rows_of(train, vocabulary, ~is_validation, train.users, n_users)
        targets = rows_of(train, vocabulary, is_validation, train.users, n_users)
        protocol = {"split": "ready-made", "seed": int(seed), "validation_share": float(validation_share)}
        dropped = {}
    else:
        later = _later(validation, users, vocabulary, trained, "validation")
        fold_in, targets = whole, interactions(later.rows, later.columns, whole.shape)
        whole = (whole + targets).tocsr()
        whole.sort_indices()
        trained = np.concatenate([trained, _pairs(later.rows, later.columns, vocabulary)])
        protocol, dropped = {"split": "ready-made"}, later.dropped
    later = _later(test, users, vocabulary, trained, "test")
    return Split(
        train=fold_in,
        validation=HeldOut(fold_in=fold_in, targets=targets, user_ids=users),
        test=HeldOut(fold_in=whole, targets=interactions(later.rows, later.columns, whole.shape), user_ids=users),
        item_ids=vocabulary.ids,
        protocol=protocol,
        dropped=dropped | later.dropped,
        train_user_ids=users,
    )


def other_users(train: Events, validation: tuple[Events, Events], test: tuple[Events, Events]) -> Split:
    """Use fold-in and targets of users who are not trained on, as the code of Liang et al. (2018) writes them.

    Parameters
    ----------
    train : Events
        The training interactions; they decide which items there are.
    validation, test : tuple of Events
        Fold-in and targets of the held-out users.

    Returns
    -------
    Split
        Rows in ascending order of user id. Events on items that are not in training are dropped and counted.

    Raises
    ------
    DataError
        If a part has no event on an item of the training file.
    """
    vocabulary = vocabulary_of(train, np.ones(len(train), dtype=bool))
    whole = rows_of(train, vocabulary, np.ones(len(train), dtype=bool), train.users, len(train.user_ids))
    dropped: dict[str, int] = {}
    parts = {}
    for name, (fold_in, targets) in {"validation": validation, "test": test}.items():
        users = np.unique(np.concatenate([fold_in.user_ids, targets.user_ids]))
        known = _later(fold_in, users, vocabulary, np.empty(0, dtype=np.int64), f"{name} fold-in")
        given = _pairs(known.rows, known.columns, vocabulary)
        later = _later(targets, users, vocabulary, given, f"{name} targets")
        shape = (len(users), len(vocabulary.ids))
        dropped |= known.dropped | later.dropped
        parts[name] = HeldOut(
            fold_in=interactions(known.rows, known.columns, shape),
            targets=interactions(later.rows, later.columns, shape),
            user_ids=users,
        )
    return Split(
        train=whole,
        validation=parts["validation"],
        test=parts["test"],
        item_ids=vocabulary.ids,
        protocol={"split": "ready-made", "users": "others"},
        dropped={reason: count for reason, count in dropped.items() if count},
        train_user_ids=train.user_ids,
    )


@dataclass(frozen=True)
class _Later:
    """Events of a further file on known users and items that are new to these users, and how many were not."""

    rows: np.ndarray
    columns: np.ndarray
    dropped: dict[str, int]


def _pairs(rows: np.ndarray, columns: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Return each pair of user and item as one number (E,), int64."""
    return rows.astype(np.int64) * len(vocabulary.ids) + columns


def _later(events: Events, users: np.ndarray, vocabulary: Vocabulary, before: np.ndarray, name: str) -> _Later:
    """Look up the events of a further file; `before` (E,) are the pairs that are known already."""
    row = pd.Index(users).get_indexer(pd.Index(events.user_ids))[events.users]  # (E,) -1 where unknown
    column = pd.Index(vocabulary.ids).get_indexer(pd.Index(events.item_ids))[events.items]
    known = (row >= 0) & (column >= 0)
    if not known.any():
        raise DataError(
            f"no {name} event has a user and an item of the training file; check that both files use the same ids"
        )
    is_old = known & np.isin(_pairs(row, column, vocabulary), before)  # (E,)
    if not (known & ~is_old).any():
        raise DataError(f"every {name} event is also in the training file; check that the {name} file is the right one")
    dropped = {
        f"{name} events of users not in training": int((row < 0).sum()),
        f"{name} events on items not in training": int(((row >= 0) & (column < 0)).sum()),
        f"{name} events already in training": int(is_old.sum()),
    }
    return _Later(row[known & ~is_old], column[known & ~is_old], dropped)
