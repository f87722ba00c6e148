"""Scores of an exported model with ONNX Runtime: no torch, no training data, only the graph is executed.

Importing this needs only numpy; `load` also needs ONNX Runtime.

Letters in shape comments: B users, N interactions of all of them, I items, k ranks.
"""

import ctypes
import math
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from recvae.bundles.exported import MODEL_FILES, ONNX, ONNX_DATA, damaged, read_export
from recvae.errors import BundleError, DataError, UsageError, requires_extra
from recvae.exports.format import INPUTS, K_INPUT, OUTPUTS, SCORES, TOP_ITEMS, TOP_OUTPUTS, TOP_SCORES
from recvae.items import check_k
from recvae.recommenders.weights import EXPECTED_WEIGHT, are_weights

if TYPE_CHECKING:
    import onnxruntime

_BLOCK_BYTES = 64 << 20  # at most, of scores, of interactions, and of users x interactions of a block


class OnnxScorer:
    """The scores of an exported model with ONNX Runtime; thread-safe.

    Histories are given as the indices, indptr and data of a scipy CSR matrix.

    Parameters
    ----------
    path : Path
        The graph, written by `recvae export`.
    threads : int, optional
        Threads per call, >= 1; by default the number of cores. A service that answers many requests at the same time is
        faster with 1.

    Raises
    ------
    UsageError
        If ONNX Runtime is missing, or `threads` is not a whole number >= 1.
    BundleError
        If it is not a graph of scores.
    """

    _all: ClassVar["weakref.WeakSet[OnnxScorer]"] = weakref.WeakSet()

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise UsageError(f"got threads={threads!r}, expected a whole number, 1 or more")
        self._path, self._threads, self._files = path.absolute(), threads, _state_of(path)
        self._session: onnxruntime.InferenceSession | None = _session(path, threads)
        self._all.add(self)
        named = ({one.name for one in ends()} for ends in (self._session.get_inputs, self._session.get_outputs))
        wanted = ({*INPUTS, *K_INPUT}, {*OUTPUTS, *TOP_OUTPUTS})
        if tuple(named) != wanted:
            raise damaged(path.parent, f"{path.name} is not a graph of scores")
        shapes = {one.name: one.shape for one in self._session.get_outputs()}
        self.n_items = int(shapes[SCORES][1])
        """Number of items."""
        self.card: dict[str, Any] = {}
        """The content of export.json, after `load`."""

    @classmethod
    def load(cls, folder: Path | str, threads: int | None = None) -> Self:
        """Load an export written by `recvae export --format onnx`.

        Parameters
        ----------
        folder : Path or str
            The export.
        threads : int, optional
            See `OnnxScorer`.

        Returns
        -------
        OnnxScorer
            Ready to score.

        Raises
        ------
        UsageError
            If there is no export, or ONNX Runtime is missing.
        BundleError
            If it is damaged, or of a newer format.
        """
        folder = Path(folder)
        card = read_export(folder)
        scorer = cls(folder / MODEL_FILES[ONNX], threads)
        scorer.card = card
        return scorer

    def score(self, items: np.ndarray, offsets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Score every item for each user, also the items of the history.

        Parameters
        ----------
        items : ndarray of shape (n_interactions,), int
            Item column of each interaction, user by user; each item once per user.
        offsets : ndarray of shape (n_users + 1,), int
            Start of each user's interactions, and the end of the last user's.
        weights : ndarray of shape (n_interactions,)
            Weight of each interaction, > 0.

        Returns
        -------
        ndarray of shape (n_users, n_items), float32
            Higher is better.

        Raises
        ------
        DataError
            If the arrays are not valid histories of the model's items.
        """
        return self.score_some(items, offsets, weights, slice(None))

    def score_some(
        self, items: np.ndarray, offsets: np.ndarray, weights: np.ndarray, columns: np.ndarray | slice
    ) -> np.ndarray:
        """Score some items for each user; all are computed, but block by block.

        Parameters
        ----------
        items, offsets, weights : ndarray
            See `score`.
        columns : ndarray of shape (n_columns,), int, or slice
            Which items.

        Returns
        -------
        ndarray of shape (n_users, n_columns), float32

        Raises
        ------
        DataError
            See `score`.
        """
        rows = self._checked(items, offsets, weights)
        found = [self._run([SCORES], feed, 1)[0][:, columns] for _, _, feed in self._blocks(*rows)]
        width = len(np.arange(self.n_items)[columns])
        return np.concatenate(found) if found else np.empty((0, width), dtype=np.float32)  # (B, C)

    def top_k(
        self, items: np.ndarray, offsets: np.ndarray, weights: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best items of each user outside the history.

        Parameters
        ----------
        items, offsets, weights : ndarray
            See `score`.
        k : int
            How many, >= 1; more than there are items are not returned.

        Returns
        -------
        items : ndarray of shape (n_users, k), int64
            Item columns, best first, equal scores by ascending column; -1 where the items ran out.
        scores : ndarray of shape (n_users, k), float32
            Their scores; -inf after the last item.

        Raises
        ------
        UsageError
            If k is not a whole number >= 1.
        DataError
            See `score`.
        """
        check_k(k)
        rows = self._checked(items, offsets, weights)
        k = min(int(k), self.n_items)
        best = np.empty((len(rows[1]) - 1, k), dtype=np.int64)  # (B, k)
        scores = np.empty(best.shape, dtype=np.float32)  # (B, k)
        for start, end, feed in self._blocks(*rows):
            best[start:end], scores[start:end] = self._run([TOP_ITEMS, TOP_SCORES], feed, k)
        return best, scores

    def _run(self, names: list[str], feed: dict[str, np.ndarray], k: int) -> list[np.ndarray]:
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = True
        found = self._opened().run(names, {**feed, "k": np.array([k], dtype=np.int64)}, options)
        return [np.asarray(one) for one in found]

    def _opened(self) -> "onnxruntime.InferenceSession":
        """Return the session; in a process that was forked, one with threads of its own."""
        session = self._session
        if session is None:
            if _state_of(self._path) != self._files:
                raise BundleError(
                    f"{self._path} was changed after it was loaded, and this process was forked since; load the export "
                    "again after the fork"
                )
            session = self._session = _session(self._path, self._threads)
        return session

    def _leave_to_parent(self) -> None:
        """Give up the session in a process that was forked: the threads it would wait for are not there."""
        if self._session is not None and self._threads != 1:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))  # never freed, which would wait for them too
            self._session = None

    @classmethod
    def _leave_all_to_parent(cls) -> None:
        for scorer in list(cls._all):
            scorer._leave_to_parent()

    def _checked(
        self, items: np.ndarray, offsets: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return checked arrays in the graph's types; the graph would read a column -1 as the last item."""
        items, offsets, weights = np.asarray(items), np.asarray(offsets), np.asarray(weights)
        if items.ndim != 1 or items.shape != weights.shape or offsets.ndim != 1 or not len(offsets):
            raise DataError(
                f"got items, offsets and weights of shapes {items.shape}, {offsets.shape} and {weights.shape}, "
                "expected as many items as weights, and one offset more than users"
            )
        if (
            offsets.dtype.kind not in "iu"
            or offsets[0] != 0
            or offsets[-1] != len(items)
            or (np.diff(offsets) < 0).any()
        ):
            raise DataError(
                f"got offsets that are not integers ascending from 0 to {len(items)}, the number of given items"
            )
        if len(items) and not (items.dtype.kind in "iu" and 0 <= items.min() <= items.max() < self.n_items):
            raise DataError(f"got items that are not columns from 0 to {self.n_items - 1}")
        if weights.dtype.kind not in "biuf" or not are_weights(weights).all():
            raise DataError(f"got invalid weights, {EXPECTED_WEIGHT}; remove these interactions")
        return items.astype(np.int64), offsets.astype(np.int64), weights.astype(np.float32)

    def _blocks(
        self, items: np.ndarray, offsets: np.ndarray, weights: np.ndarray
    ) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
        """Yield blocks of users (start, end) with their inputs, small enough for the graph's temporary arrays."""
        most = max(1, min(_BLOCK_BYTES // (4 * self.n_items), math.isqrt(_BLOCK_BYTES // 4)))  # users, interactions
        start, n_users = 0, len(offsets) - 1
        while start < n_users:
            fitting = int(np.searchsorted(offsets, offsets[start] + most, side="right")) - 1
            end = min(max(fitting, start + 1), start + most, n_users)
            here = slice(offsets[start], offsets[end])
            feed = {
                "items": items[here],
                "offsets": offsets[start : end + 1] - offsets[start],
                "weights": weights[here],
            }
            yield start, end, feed
            start = end


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=OnnxScorer._leave_all_to_parent)


def _state_of(path: Path) -> list[tuple[int, int, int]]:
    """Return what tells whether a graph's files are still the same."""
    states = [file.stat() for file in (path, path.parent / ONNX_DATA) if file.is_file()]
    return [(state.st_ino, state.st_size, state.st_mtime_ns) for state in states]


def check_onnxruntime() -> None:
    """Refuse to continue without ONNX Runtime.

    Raises
    ------
    UsageError
        If it is not installed, with the command that installs it.
    """
    # From 1.29 on, it would report to its maker, from a thread that a forked process waits for at its end.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with requires_extra("onnx", "an exported model"):
        import onnxruntime  # noqa: F401


def _session(path: Path, threads: int | None) -> "onnxruntime.InferenceSession":
    check_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; warnings would bypass every logger
    options.intra_op_num_threads = threads or 0
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes differ between versions of ONNX Runtime
        raise damaged(path.parent, f"{path.name} cannot be read: {error}") from error
