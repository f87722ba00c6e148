"""Whether an exported model gives the scores of the original model, on histories of real users.

Letters in shape comments: U users, I items, k ranks.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recvae.errors import ExportError
from recvae.interactions import HeldOut
from recvae.metrics import ndcg_at_k
from recvae.models.common.base import Model
from recvae.ranking import block_rows, rank

TOLERANCE = 1e-4
"""Largest difference allowed, as a share of the range of a user's scores. Another order of summation changes scores by
about 1e-6, more for long histories; a wrong graph changes the second digit."""

QUANTIZED_TOLERANCE = 0.5
"""The same for a quantised model, for which a few hundredths are usual."""

LEAST_OVERLAP = 0.5
"""Share of the top items that a quantised model must still find."""

_DEPTHS = (10, 100)
_NDCG_USERS = 2000
_WEIGHTED_ROWS = 20
_ITEMS_OF_A_USER = 50  # at most, in generated histories

Scores = Callable[[sp.csr_matrix], np.ndarray]
"""From rows (U, I) to scores (U, I)."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """How an exported model compares with the original model.

    Parameters
    ----------
    on : str
        Whose histories were scored.
    rows : int
        Number of histories.
    difference : float
        Largest difference of a score, as a share of the range of a user's scores.
    overlap : dict of str to float
        Share of the top items that both have, by the number of top items.
    ndcg : dict of str to float, optional
        For quantised models, if there are targets: NDCG@100 of both ("float32", "exported") and the number of
        "users".
    """

    on: str
    rows: int
    difference: float
    overlap: dict[str, float]
    ndcg: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        return asdict(self)


def compare(model: Model, scores: Scores, rows: sp.csr_matrix, on: str) -> Check:
    """Score the same rows with both models; some rows with weights and an empty row are added.

    Parameters
    ----------
    model : Model
        The original model.
    scores : callable
        The scores of the exported model.
    rows : csr_matrix of shape (n_users, n_items)
        Histories.
    on : str
        Whose histories they are.

    Returns
    -------
    Check
        The difference is NaN if the exported scores are not numbers.
    """
    n_rows = rows.shape[0]
    weighted = rows[:_WEIGHTED_ROWS].copy()
    weighted.data = np.random.default_rng(0).lognormal(0, 1, weighted.nnz).astype(np.float32)
    rows = sp.csr_matrix(sp.vstack([rows, weighted, rows[:1] * np.float32(0)]))
    rows.eliminate_zeros()
    differences, ranges = [], []
    shared: dict[int, list[np.ndarray]] = {depth: [] for depth in _DEPTHS}
    for block in _blocks(rows):
        expected, found = model.score(block), scores(block)  # (B, I), (B, I)
        differences.append(np.abs(found - expected).max())
        ranges.append(np.ptp(expected, axis=1).max())
        if not np.isfinite(found).all():
            continue
        for depth, of_users in shared.items():
            best = [rank(torch.from_numpy(of.copy()), depth, seen=block)[0] for of in (expected, found)]  # (B, k)
            of_users.append(overlap(*best))
    spread = float(np.max(ranges)) or 1.0
    return Check(
        on=on,
        rows=n_rows,
        difference=float(np.max(differences)) / spread,
        overlap={str(depth): float(np.concatenate([*found, []]).mean()) for depth, found in shared.items() if found},
    )


def ndcg_of_both(model: Model, best: Callable[[sp.csr_matrix, int], np.ndarray], held_out: HeldOut) -> dict[str, float]:
    """Return NDCG@100 of the original and the exported model, on the first held-out users.

    Parameters
    ----------
    model : Model
        The original model.
    best : callable
        From rows and k to the top columns (U, k) of the exported model.
    held_out : HeldOut
        Users with targets.

    Returns
    -------
    dict of str to float
        "float32", "exported" and "users".
    """
    k, n = max(_DEPTHS), min(held_out.n_users, _NDCG_USERS)
    fold_in, targets = held_out.fold_in[:n], held_out.targets[:n]
    found = {"float32": model.recommend(fold_in, k)[0], "exported": best(fold_in, k)}
    return {name: float(np.nanmean(ndcg_at_k(of, targets, k))) for name, of in found.items()} | {"users": n}


def refuse_if_wrong(check: Check, quantize: str | None) -> None:
    """Refuse an exported model whose scores are not those of the original.

    Raises
    ------
    ExportError
        If its scores differ by more than rounding; if quantised, if more than half of its top items differ.
    """
    tolerance = TOLERANCE if quantize is None else QUANTIZED_TOLERANCE
    if not check.difference <= tolerance:  # nor is NaN
        raise ExportError(
            f"the exported scores differ from the model's by {check.difference:.2g} of their range, "
            f"expected at most {tolerance:g}; nothing was written: report this with the versions of torch and ONNX"
        )
    overlap = min(check.overlap.values(), default=0.0)
    if quantize is not None and not overlap >= LEAST_OVERLAP:
        raise ExportError(
            f"after {quantize} quantization only {overlap:.0%} of the top items are unchanged, "
            f"expected {LEAST_OVERLAP:.0%} or more; nothing was written: export it without --quantize"
        )


def drawn_histories(counts: np.ndarray, n_users: int = 200) -> sp.csr_matrix:
    """Generate histories, for use without a data set: items are drawn by popularity.

    Parameters
    ----------
    counts : ndarray of shape (n_items,)
        Training users of each item.
    n_users : int
        Number of histories.

    Returns
    -------
    csr_matrix of shape (n_users, n_items), float32
        The same for the same counts.
    """
    generator = np.random.default_rng(0)
    probabilities = (counts + 1.0) / (counts + 1.0).sum()  # (I,)
    most = min(_ITEMS_OF_A_USER, len(counts))
    rows = [
        generator.choice(len(counts), generator.integers(1, most, endpoint=True), replace=False, p=probabilities)
        for _ in range(n_users)
    ]
    starts = np.append(0, np.cumsum([len(row) for row in rows]))
    matrix = sp.csr_matrix(
        (np.ones(starts[-1], dtype=np.float32), np.concatenate(rows), starts), shape=(n_users, len(counts))
    )
    matrix.sort_indices()
    return matrix


def _blocks(rows: sp.csr_matrix) -> Iterator[sp.csr_matrix]:
    size = block_rows(rows.shape[1])
    return (rows[start : start + size] for start in range(0, rows.shape[0], size))


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the share of each user's first items that are among the second ones.

    Parameters
    ----------
    first, second : ndarray of shape (n_users, k), int
        Item columns; -1 is no item.

    Returns
    -------
    ndarray of shape (n_users,), float64
        1 for a user without first items.
    """
    shares = [
        len(np.intersect1d(one[one >= 0], other)) / int((one >= 0).sum()) if (one >= 0).any() else 1.0
        for one, other in zip(first, second, strict=True)
    ]
    return np.array(shares)
