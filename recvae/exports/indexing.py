"""An index of a run's item vectors: made, set to find nearly all of the exact lists, and measured on users.

Letters in shape comments: U users, k ranks.
"""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from recvae.bundles.bundle import Bundle
from recvae.errors import ExportError
from recvae.exports.checking import TOLERANCE, Check, drawn_histories, overlap
from recvae.interactions import HeldOut
from recvae.progress import Progress
from recvae.recommenders.retrieval import Retriever, hash_of
from recvae.recommenders.vector_index import VectorIndex

MIN_RECALL = 0.95
"""Share of the exact list that an index must find, by default."""

_AIM = 0.99  # of the exact list; with it, answers are hardly told from exact ones
_ROWS = 400  # one half to choose the number of lists by, the other to measure
_SCORED = 20  # rows whose range of scores is taken
_FIRST = 8  # lists
_SMALL = 256  # lists, of some 4,000 items
_DEPTHS = (10, 100)


def write_index(
    path: Path, bundle: Bundle, held_out: HeldOut | None, min_recall: float, tell: Progress
) -> dict[str, Any]:
    """Make the index of a bundle and write it.

    Parameters
    ----------
    path : Path
        The file.
    bundle : Bundle
        Of a model with item vectors.
    held_out : HeldOut, optional
        Users whose lists are compared; by default generated histories.
    min_recall : float
        Share of the exact lists that must be found, from 0 to 1.
    tell : Progress
        Called with the progress.

    Returns
    -------
    dict
        For the card: `lists` that are searched of `n_lists`, the hash of the `vectors`, and the `check`.

    Raises
    ------
    UsageError
        If the model has no item vectors.
    ExportError
        If the index finds less than `min_recall` of the exact lists, or gives other scores.
    """
    vectors, bias = bundle.model.item_vectors()
    index = VectorIndex.build(vectors, bias, progress=tell)
    rows, on = _histories(bundle, held_out)
    tell(0, 1, "comparing its lists with the exact ones")
    exact = bundle.model.recommend(rows, max(_DEPTHS))  # (U, k), (U, k)
    of_rows = np.arange(rows.shape[0])
    choosing, measuring = of_rows[::2], (of_rows[1::2] if len(of_rows) > 1 else of_rows)
    # With more than a quarter it would save too little; in a small catalogue nothing is to be saved.
    most = index.n_lists if index.n_lists <= _SMALL else index.n_lists // 4
    lists = min(_FIRST, most)
    while True:
        retriever = Retriever(bundle.model, index, lists)
        found = _recall(retriever, rows[choosing], exact[0][choosing])
        if min(found.values()) >= max(_AIM, min_recall) or lists == most:
            break
        lists = min(2 * lists, most)
    check = Check(
        on=on,
        rows=len(measuring),
        difference=_difference(retriever, rows[measuring], [one[measuring] for one in exact]),
        overlap={
            str(depth): share for depth, share in _recall(retriever, rows[measuring], exact[0][measuring]).items()
        },
    )
    _refuse_if_poor(check, min_recall)
    index.write(path)
    return {"lists": lists, "n_lists": index.n_lists, "vectors": hash_of(vectors, bias), "check": check.to_json()}


def _histories(bundle: Bundle, held_out: HeldOut | None) -> tuple[sp.csr_matrix, str]:
    """Return histories with at least one item, and whose they are."""
    if held_out is not None:
        rows = held_out.fold_in[np.flatnonzero(np.diff(held_out.fold_in.indptr))[:_ROWS]]
        if rows.shape[0]:
            return rows, "validation users"
    return drawn_histories(bundle.items.train_counts, _ROWS), "generated histories"


def _recall(retriever: Retriever, rows: sp.csr_matrix, exact: np.ndarray) -> dict[int, float]:
    """Return the share of the exact lists that is found, by their length."""
    return {k: float(overlap(exact[:, :k], retriever.recommend(rows, k)[0]).mean()) for k in _DEPTHS}


def _difference(retriever: Retriever, rows: sp.csr_matrix, exact: list[np.ndarray]) -> float:
    """Return the largest difference of an item's score in both lists, as a share of the range of a user's scores."""
    items, scores = retriever.recommend(rows, max(_DEPTHS))  # (U, k), (U, k)
    largest = 0.0
    for found, values, expected, wanted in zip(items, scores, *exact, strict=True):
        _, here, there = np.intersect1d(found[found >= 0], expected[expected >= 0], return_indices=True)
        largest = max(largest, float(np.abs(values[here] - wanted[there]).max(initial=0)))
    return largest / (float(np.ptp(retriever.model.score(rows[:_SCORED]), axis=1).max()) or 1.0)


def _refuse_if_poor(check: Check, min_recall: float) -> None:
    """Refuse an index whose scores are not those of the model, or that finds too little of the exact lists."""
    if not check.difference <= TOLERANCE:  # nor is NaN
        raise ExportError(
            f"the index gives scores that differ from the model's by {check.difference:.2g} of their range, expected "
            f"at most {TOLERANCE:g}; nothing was written: item_vectors and query_vectors do not make the model's scores"
        )
    k, share = min(check.overlap.items(), key=lambda one: one[1])
    if not share >= min_recall:
        raise ExportError(
            f"the index finds {share:.1%} of the top {k} of {check.rows:,} {check.on}, expected {min_recall:.1%} or "
            "more; nothing was written: serve the run as it is, or allow less with --min-recall"
        )
