"""The models, one paper per file, and the one registry of them."""

from recvae.errors import UsageError
from recvae.models.als import ALS
from recvae.models.base import Model
from recvae.models.multdae import MultDAE
from recvae.models.multvae import MultVAE
from recvae.models.popularity import Popularity

MODELS: dict[str, type[Model]] = {model.name: model for model in (MultVAE, MultDAE, ALS, Popularity)}


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


__all__ = ["ALS", "MODELS", "Model", "MultDAE", "MultVAE", "Popularity", "model_class"]
