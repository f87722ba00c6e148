"""The pictures by name, from what was measured of some runs."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from recvae.errors import UsageError
from recvae.models import MODELS
from recvae.models.common.scoring import ScoringModel
from recvae.reports.accuracy import accuracy_by_history, accuracy_by_popularity, metric_by_k
from recvae.reports.measuring import Measured
from recvae.reports.popularity import (
    coverage_curve,
    popularity_bias,
    popularity_of_histories,
    popularity_of_lists,
    times_recommended,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES, MAP = "curves", "map"
METRIC, LISTED = "ndcg", 20
"""What accuracy is measured by, and recommendations that count in the other pictures, unless others are named."""

MEASURED = ("by-k", "by-history", "by-popularity", "bias", "coverage")
"""Those that need the ranked items of held-out users, and nothing else."""

NAMES = (CURVES, *MEASURED, MAP)
"""All pictures."""


def parse_names(text: str) -> list[str]:
    """Return the pictures that were named, separated by commas; "all" stands for all of them.

    Raises
    ------
    UsageError
        If one is unknown, or none is named.
    """
    names = [word.strip() for word in text.split(",") if word.strip()]
    for name in names:
        if name not in (*NAMES, "all"):
            raise UsageError(f"got picture '{name}', expected one or more of: {', '.join(NAMES)}; or all")
    if not names:
        raise UsageError(f"got no picture, expected one or more of: {', '.join(NAMES)}; or all")
    return list(NAMES) if "all" in names else list(dict.fromkeys(names))


def draw(name: str, measured: Measured, metric: str = METRIC, k: int = LISTED) -> "Figure":
    """Draw one of the pictures in `MEASURED`.

    Parameters
    ----------
    name : str
        Which.
    measured : Measured
        Of the runs to draw, in their order.
    metric : str
        Of `by-k` and `by-history`.
    k : int
        Recommendations that count in the other pictures.

    Raises
    ------
    UsageError, DataError
        See the functions of `recvae.plots`.
    """
    k = min(k, *(ranked.shape[1] for ranked in measured.ranked.values()))
    drawn: dict[str, Callable[[], Figure]] = {
        "by-k": lambda: metric_by_k(measured.values(metric, measured.ks), measured.ks, metric),
        "by-history": lambda: _by_history(measured, metric),
        "by-popularity": lambda: _by_popularity(measured, k),
        "bias": lambda: _bias(measured, k),
        "coverage": lambda: _coverage(measured, k),
    }
    return drawn[name]()


def _by_history(measured: Measured, metric: str) -> "Figure":
    most = measured.ks[-1]
    values = {name: found[:, 0] for name, found in measured.values(metric, [most]).items()}
    return accuracy_by_history(values, measured.lengths, f"{metric}@{most}")


def _by_popularity(measured: Measured, k: int) -> "Figure":
    found, columns, users = measured.targets_found(k)
    return accuracy_by_popularity(found, measured.train_counts[columns], users, k)


def _bias(measured: Measured, k: int) -> "Figure":
    popularity = measured.popularity
    recommended = {name: popularity_of_lists(ranked, popularity) for name, ranked in measured.first(k).items()}
    return popularity_bias(recommended, popularity_of_histories(measured.held_out.fold_in, popularity), k)


def _coverage(measured: Measured, k: int) -> "Figure":
    n_items = len(measured.train_counts)
    counts = {name: times_recommended(ranked, n_items) for name, ranked in measured.first(k).items()}
    return coverage_curve(counts, k, measured.train_counts)


def check_has_map(run: str, model: ScoringModel) -> None:
    """Refuse a map of a model that makes no vector of a user.

    Raises
    ------
    UsageError
        With the models that do.
    """
    if not model.has_embeddings:
        able = [name for name, one in MODELS.items() if one._embed_block is not ScoringModel._embed_block]
        raise UsageError(
            f"the run {run} holds {model.name}, which has no user embeddings to draw a map of; leave it out, or name a "
            f"run of one of: {', '.join(able)}"
        )
