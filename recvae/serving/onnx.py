"""A recommender without torch: an exported model with ONNX Runtime, with the methods and results of `Recommender`.

Importing this needs only numpy; `load` also needs ONNX Runtime.

Letters in shape comments: U users, I items, N items of a history, C candidates, k ranks, n neighbours.
"""

from pathlib import Path
from typing import Any, Self

import numpy as np

from recvae.bundles.exported import damaged
from recvae.errors import TrainingError, UsageError
from recvae.exports.format import read_items, read_neighbours
from recvae.exports.scorer import OnnxScorer
from recvae.items import ItemIndex
from recvae.recommenders.base import BaseRecommender
from recvae.recommenders.histories import Histories

__all__ = ["OnnxRecommender", "OnnxScorer"]

_BLOCK_BYTES = 24 << 20  # scores of the users that are ranked at a time
_ROWS = 200  # histories without one item, scored at a time


class OnnxRecommender(BaseRecommender):
    """An exported model with its item index; it is thread-safe.

    Parameters
    ----------
    scorer : OnnxScorer
        The scores of the exported model.
    items : ItemIndex
        Its items.
    neighbours : tuple of ndarray of shape (n_items, n_neighbours), optional
        Columns and similarities of the items most similar to each item; None if the model has no similarities.
    """

    def __init__(
        self, scorer: OnnxScorer, items: ItemIndex, neighbours: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        self.scorer, self.items = scorer, items
        self._neighbours = neighbours

    @classmethod
    def load(cls, folder: Path | str, threads: int | None = None) -> Self:
        """Load an export written by `recvae export --format onnx`; this needs no torch, training data or network.

        Parameters
        ----------
        folder : Path or str
            The export.
        threads : int, optional
            Threads per call, >= 1; by default the number of cores.

        Returns
        -------
        OnnxRecommender
            Ready to recommend.

        Raises
        ------
        UsageError
            If there is no export, or ONNX Runtime is missing.
        BundleError
            If it is damaged, or of a newer format.
        """
        folder = Path(folder)
        scorer = OnnxScorer.load(folder, threads)
        items = read_items(folder)
        if len(items) != scorer.n_items:
            raise damaged(folder, f"the graph has {scorer.n_items:,} items, the index {len(items):,}")
        return cls(scorer, items, read_neighbours(folder, scorer.card, len(items)))

    @property
    def model_name(self) -> str:
        """Name of the model in the registry."""
        return str(self.scorer.card.get("model", "onnx"))

    @property
    def manifest(self) -> dict[str, Any]:
        """Name and fingerprint of the data the model was trained on."""
        return self.scorer.card.get("dataset", {})

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Mean of each metric by part, measured after training."""
        return self.scorer.card.get("metrics", {})

    def _ranked(
        self, histories: Histories, k: int, hidden: Histories, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if allowed is None and hidden is histories:  # the graph itself does this
            return self.scorer.top_k(histories.columns, histories.offsets, histories.weights, k)
        n_users, rows = len(histories.users), max(1, _BLOCK_BYTES // (4 * len(self.items)))
        columns = np.full((n_users, k), -1, dtype=np.int64)
        values = np.full((n_users, k), -np.inf, dtype=np.float32)
        for start in range(0, n_users, rows):
            end = min(start + rows, n_users)
            scores = self._scores(histories, start, end)  # (B, I)
            unseen = hidden.offsets[start : end + 1]
            lines = np.repeat(np.arange(end - start), np.diff(unseen))  # (N,)
            scores[lines, hidden.columns[unseen[0] : unseen[-1]]] = -np.inf
            if allowed is not None:
                scores[~np.broadcast_to(allowed if allowed.ndim == 1 else allowed[start:end], scores.shape)] = -np.inf
            columns[start:end], values[start:end] = _best(scores, k)
        return columns, values

    def _scores(self, histories: Histories, start: int, end: int) -> np.ndarray:
        """Return the scores (B, I) of users from start to end."""
        offsets = histories.offsets[start : end + 1]
        here = slice(offsets[0], offsets[-1])
        return self.scorer.score(histories.columns[here], offsets - offsets[0], histories.weights[here])

    def _nearest(self, column: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self._neighbours is None:
            raise UsageError(f"{self.model_name} has no item similarities; use ease, als or a network")
        columns, similarities = self._neighbours
        if k > columns.shape[1]:
            raise UsageError(
                f"got a k above {columns.shape[1]}, as many similar items as an exported model knows of each item; "
                "lower it, or use the run itself"
            )
        return columns[column, :k].astype(np.int64), similarities[column, :k]

    def _similarities(self, columns: np.ndarray) -> np.ndarray:  # noqa: ARG002  (every recommender's signature)
        raise UsageError(
            "got diversify above 0, but an exported model has no similarities between all items; omit diversify, or "
            "serve the run itself"
        )

    def _contributions(self, history: Histories, columns: np.ndarray) -> np.ndarray:
        n, found = len(history.columns), []
        for start in range(0, 1 + n, _ROWS):  # the whole history, then the history without each item
            stays = np.arange(start, min(start + _ROWS, 1 + n))[:, None] != 1 + np.arange(n)  # (B, N)
            items, weights = (np.broadcast_to(one, stays.shape)[stays] for one in (history.columns, history.weights))
            offsets = np.append(0, stays.sum(axis=1).cumsum())  # (B + 1,)
            found.append(self.scorer.score_some(items, offsets, weights, columns))  # (B, C)
        scores = np.concatenate(found)  # (1 + N, C)
        return scores[0] - scores[1:]


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return columns and scores (B, k) of the best items, equal scores by ascending column; see `ranking.rank`."""
    if np.isnan(scores).any():
        raise TrainingError("the model gives scores that are not numbers; train it again with a lower learning rate")
    n_users, n_items = scores.shape
    columns = np.full((n_users, k), -1, dtype=np.int64)
    values = np.full((n_users, k), -np.inf, dtype=np.float32)
    there = min(k, n_items)
    for user, row in enumerate(scores):
        last = np.partition(row, n_items - there)[n_items - there]  # the k-th best score
        above = np.flatnonzero(row > last)
        chosen = np.append(above, np.flatnonzero(row == last)[: there - len(above)])
        order = chosen[np.lexsort((chosen, -row[chosen]))]
        order = order[row[order] > -np.inf]
        columns[user, : len(order)], values[user, : len(order)] = order, row[order]
    return columns, values
