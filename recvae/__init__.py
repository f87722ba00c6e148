"""Recommenders from autoencoders on sparse user-item data, with honest baselines."""

from recvae.dataset import Dataset
from recvae.events import Events, Filters
from recvae.interactions import HeldOut
from recvae.logs import read_events
from recvae.models import AE, ALS, EASE, EDLAE, VASP, Blend, HVamp, Model, MultDAE, MultVAE, Popularity, RecVAE
from recvae.recommender import Recommendations, Recommender
from recvae.version import __version__

__all__ = [
    "AE",
    "ALS",
    "EASE",
    "EDLAE",
    "VASP",
    "Blend",
    "Dataset",
    "Events",
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
