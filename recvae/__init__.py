"""Recommenders from autoencoders on sparse user-item data, with honest baselines."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from recvae.version import __version__

if TYPE_CHECKING:
    from recvae.datasets.dataset import Dataset
    from recvae.datasets.events import Events, Filters
    from recvae.datasets.logs import read_events
    from recvae.interactions import HeldOut
    from recvae.models import AE, ALS, EASE, EDLAE, VASP, Blend, HVamp, Model, MultDAE, MultVAE, Popularity, RecVAE
    from recvae.recommenders.answers import BatchRecommendations, Explanation, Recommendations
    from recvae.recommenders.recommender import Recommender

__all__ = [
    "AE",
    "ALS",
    "EASE",
    "EDLAE",
    "VASP",
    "BatchRecommendations",
    "Blend",
    "Dataset",
    "Events",
    "Explanation",
    "Filters",
    "HVamp",
    "HeldOut",
    "Model",
    "MultDAE",
    "MultVAE",
    "Popularity",
    "RecVAE",
    "Recommendations",
    "Recommender",
    "__version__",
    "read_events",
]

_HOMES = {
    "Dataset": "recvae.datasets.dataset",
    "Events": "recvae.datasets.events",
    "Filters": "recvae.datasets.events",
    "HeldOut": "recvae.interactions",
    "BatchRecommendations": "recvae.recommenders.answers",
    "Explanation": "recvae.recommenders.answers",
    "Recommendations": "recvae.recommenders.answers",
    "Recommender": "recvae.recommenders.recommender",
    "read_events": "recvae.datasets.logs",
}


def __getattr__(name: str) -> Any:
    """Import a public name, or a module such as `recvae.bundles.bundle`, where it is first used.

    Torch takes a second or more to import, and reading and preparing data has no use for it.
    """
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "recvae.models")), name)
    if find_spec(f"recvae.{name}") is not None:
        return import_module(f"recvae.{name}")
    raise AttributeError(f"module 'recvae' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
