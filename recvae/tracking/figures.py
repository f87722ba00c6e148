"""What is tracked of an epoch and of a run, by names that every program takes."""

from typing import Any

import numpy as np

from recvae.bundles.bundle import Bundle
from recvae.errors import UsageError
from recvae.items import ItemIndex
from recvae.training.details import EpochDetails
from recvae.training.records import EpochRecord, TrainingSummary
from recvae.training.validation import OBJECTIVE

# Letters in shape comments: I items, C chosen items, D width of the vectors.

EVERY_EPOCH = "training/loss"
"""A figure that every epoch has: epochs with it are tracked already."""


def figures_of(record: EpochRecord) -> dict[str, float]:
    """Return the figures of an epoch that it has, such as `training/loss` and `validation/ndcg_at_100`.

    Parameters
    ----------
    record : EpochRecord
        Of any model with epochs.
    """
    values = {
        EVERY_EPOCH: record.loss,
        "training/reconstruction": record.reconstruction,
        "training/kl": record.kl,
        "training/beta": record.beta,
        f"validation/{plain(str(OBJECTIVE))}": record.ndcg,
        "latent/active_units": record.active_units,
        "latent/mutual_information": record.mutual_information,
        "speed/seconds": record.seconds,
        "speed/users_per_second": record.users_per_second,
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def step_sizes_of(details: EpochDetails) -> dict[str, float]:
    """Return the step size of the last update; of several phases each, with its name."""
    sizes = details.step_sizes
    return {"training/step_size" + (f"_{name}" if len(sizes) > 1 else ""): size for name, size in sizes.items()}


def final_figures(bundle: Bundle) -> dict[str, float]:
    """Return what the model that is kept reached: `final/ndcg_at_100` and so on of the validation users."""
    training, metrics = bundle.training, bundle.metrics.get("validation", {})
    values: dict[str, Any] = {plain(name): value for name, value in metrics.items()}
    values |= {"epochs": training.epochs, "best_epoch": training.best_epoch, "seconds": training.seconds}
    return {f"final/{name}": float(value) for name, value in values.items() if value is not None}


def plain(metric: str) -> str:
    """Return the name of a metric as every program takes it: `ndcg_at_100` for `ndcg@100`."""
    return metric.replace("@", "_at_")


def outcome(summary: TrainingSummary) -> str:
    """Say in one word how training ended: finished, interrupted or failed."""
    if summary.failure is not None:
        return "failed"
    return "interrupted" if summary.interrupted else "finished"


def outcome_text(summary: TrainingSummary) -> str:
    """Say how training ended, and why."""
    why = summary.failure or summary.stopped or ("no better epoch for a while" if summary.stopped_early else None)
    return outcome(summary) + (f": {why}" if why else "")


def item_vectors(model: Any) -> np.ndarray | None:
    """Return a vector for each item, shape (n_items, width), None for a model that has none.

    Parameters
    ----------
    model : Model
        Fitted. Of most autoencoders, they are the weights of the last layer.
    """
    if model.has_item_vectors:
        return model.item_vectors()[0]
    try:
        return model.item_embeddings() if hasattr(model, "item_embeddings") else None
    except UsageError:  # there are vectors, and they are no matrix
        return None


def chosen_items(items: ItemIndex, n: int) -> np.ndarray:
    """Return the columns of the n items with the most training users, all where they are fewer, ascending.

    Parameters
    ----------
    items : ItemIndex
        With training counts.
    n : int
        How many at most.
    """
    return np.sort(np.argsort(-items.train_counts, kind="stable")[:n])  # (I,) -> (C,)
