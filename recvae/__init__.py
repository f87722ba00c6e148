"""Recommenders from autoencoders on sparse user-item data, with honest baselines."""

from recvae.dataset import Dataset
from recvae.events import Events, Filters
from recvae.interactions import HeldOut
from recvae.logs import read_events
from recvae.models import ALS, Model, MultDAE, MultVAE, Popularity
from recvae.recommender import Recommendations, Recommender
from recvae.version import __version__

__all__ = [
    "ALS",
    "Dataset",
    "Events",
    "Filters",
    "HeldOut",
    "Model",
    "MultDAE",
    "MultVAE",
    "Popularity",
    "Recommendations",
    "Recommender",
    "__version__",
    "read_events",
]
