"""An existing train / test pair, e.g. those of LightGCN."""

import numpy as np
import pandas as pd

from recvae.datasets.events import Events
from recvae.datasets.splits.base import (
    LATER_SHARE,
    LIANG_SEED,
    Split,
    check_seed,
    check_share,
    rank_within_user,
    rows_of,
    vocabulary_of,
)
from recvae.errors import DataError
from recvae.interactions import HeldOut, interactions

# Letters in shape comments: E events, U users.


def ready_made(train: Events, test: Events, seed: int = LIANG_SEED, validation_share: float = LATER_SHARE) -> Split:
    """Use an existing train / test pair; the validation targets are taken from its training part.

    The items are those of the whole training file, so that metrics are comparable with published ones. For the test,
    a user's whole training history is the fold-in; test events that repeat it could never be hit, and are dropped and
    counted.

    Parameters
    ----------
    train, test : Events
        The two files.
    seed : int
        Seed of the draw of validation targets.
    validation_share : float
        Share of each user's training items that become validation targets, in (0, 1); rounded down.

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
    rank, size = rank_within_user(train, np.random.default_rng(seed).random(len(train)))
    is_validation = rank < (validation_share * size).astype(np.int64)
    n_users = len(train.user_ids)
    row = pd.Index(train.user_ids).get_indexer(pd.Index(test.user_ids))[test.users]  # (E,) -1 where unknown
    column = pd.Index(vocabulary.ids).get_indexer(pd.Index(test.item_ids))[test.items]
    known = (row >= 0) & (column >= 0)
    if not known.any():
        raise DataError(
            "no test event has a user and an item of the training file; check that both files use the same ids"
        )
    whole = rows_of(train, vocabulary, np.ones(len(train), dtype=bool), train.users, n_users)
    n_items = len(vocabulary.ids)
    trained = train.users.astype(np.int64) * n_items + vocabulary.column_of[train.items]  # (E,) each pair as one number
    is_old = known & np.isin(row.astype(np.int64) * n_items + column, trained)  # (E,)
    if not (known & ~is_old).any():
        raise DataError("every test event is also in the training file; check that the test file is the right one")
    targets = interactions(row[known & ~is_old], column[known & ~is_old], whole.shape)
    fold_in = rows_of(train, vocabulary, ~is_validation, train.users, n_users)
    validation_targets = rows_of(train, vocabulary, is_validation, train.users, n_users)
    dropped = {
        "test events of users not in training": int((row < 0).sum()),
        "test events on items not in training": int(((row >= 0) & (column < 0)).sum()),
        "test events already in training": int(is_old.sum()),
    }
    return Split(
        train=fold_in,
        validation=HeldOut(fold_in=fold_in, targets=validation_targets, user_ids=train.user_ids),
        test=HeldOut(fold_in=whole, targets=targets, user_ids=train.user_ids),
        item_ids=vocabulary.ids,
        protocol={"split": "ready-made", "seed": int(seed), "validation_share": float(validation_share)},
        dropped=dropped,
    )
