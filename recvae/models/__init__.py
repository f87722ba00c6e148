"""The models, one paper per file, and the one registry of them."""

from recvae.errors import UsageError
from recvae.models.ae import AE
from recvae.models.als import ALS
from recvae.models.blend import Blend
from recvae.models.common.base import Model
from recvae.models.ease import EASE
from recvae.models.edlae import EDLAE
from recvae.models.hvamp import HVamp
from recvae.models.multdae import MultDAE
from recvae.models.multvae import MultVAE
from recvae.models.popularity import Popularity
from recvae.models.recvae import RecVAE
from recvae.models.vasp import VASP

MODELS: dict[str, type[Model]] = {
    model.name: model for model in (MultVAE, MultDAE, RecVAE, HVamp, VASP, AE, EASE, EDLAE, Blend, ALS, Popularity)
}


def model_class(name: str) -> type[Model]:
    """Return the model of that name.

    Raises
    ------
    UsageError
        If there is none, with the list of those there are.
    """
    if name not in MODELS:
        raise UsageError(f"got model '{name}', expected one of: {', '.join(MODELS)} (see `recvae models`)")
    return MODELS[name]


__all__ = [
    "AE",
    "ALS",
    "EASE",
    "EDLAE",
    "MODELS",
    "VASP",
    "Blend",
    "HVamp",
    "Model",
    "MultDAE",
    "MultVAE",
    "Popularity",
    "RecVAE",
    "model_class",
]
