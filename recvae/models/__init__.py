"""The models, one paper per file, and the one registry of them.

A new model is one file and one line here: it is then known to the command, the tests, the tables and the docs.
"""

import dataclasses
import re
from collections.abc import Sequence

# ruff: noqa: I001  (models are listed in this order)
from recvae.errors import UsageError, did_you_mean
from recvae.user_code import import_object
from recvae.models.common.base import Model as Model
from recvae.models.common.fit_options import FitOptions as FitOptions
from recvae.models.common.hyperparameters import Range as Range, hyperparameter as hyperparameter
from recvae.models.common.learned import learned as learned

from recvae.models.multvae import MultVAE as MultVAE
from recvae.models.multdae import MultDAE as MultDAE
from recvae.models.recvae import RecVAE as RecVAE
from recvae.models.hvamp import HVamp as HVamp
from recvae.models.vasp import VASP as VASP
from recvae.models.ae import AE as AE
from recvae.models.elsa import ELSA as ELSA
from recvae.models.ease import EASE as EASE
from recvae.models.edlae import EDLAE as EDLAE
from recvae.models.sansa import SANSA as SANSA
from recvae.models.infae import InfAE as InfAE
from recvae.models.blend import Blend as Blend
from recvae.models.als import ALS as ALS
from recvae.models.ials import IALS as IALS
from recvae.models.popularity import Popularity as Popularity

MODELS: dict[str, type[Model]] = {
    model.name: model
    for model in tuple(globals().values())
    if isinstance(model, type) and issubclass(model, Model) and model is not Model
}
"""The models of this package by name."""


def model_class(name: str | type[Model], models: Sequence[type[Model]] = ()) -> type[Model]:
    """Return the model of that name, or import one of your own.

    Parameters
    ----------
    name : str or type of Model
        Name of a registered model or of one of `models`, as people write it: Mult-VAE, MultVAE and mult_vae are
        multvae. Or `MODULE:CLASS` for a subclass of `Model`: that module is imported. A class is returned as it is.
    models : sequence of type of Model
        Models of your own that are known too.

    Returns
    -------
    type of Model

    Raises
    ------
    UsageError
        If there is no such model, or what is imported is none; with what was expected.
    """
    if isinstance(name, type):
        return name if name in MODELS.values() else check_own_model(name)
    if ":" in name:
        return check_own_model(import_object(name, "model"), name)
    known = dict.fromkeys([*MODELS, *(model.name for model in models)])
    alike = [other for other in known if _letters(other) == _letters(name)]
    return known_model(alike[0] if name not in known and len(alike) == 1 else name, models)


def _letters(name: str) -> str:
    """Return what makes two spellings one name: no case, no dashes, underscores and spaces."""
    return re.sub(r"[-_\s]", "", name).casefold()


def known_model(name: str, models: Sequence[type[Model]] = ()) -> type[Model]:
    """Return a registered model, or one of yours, by its name; nothing is imported, so a file may give the name.

    Parameters
    ----------
    name : str
        As in a bundle.
    models : sequence of type of Model
        Models of your own.

    Raises
    ------
    UsageError
        If there is none of that name, or two of `models` have one name.
    """
    known = dict(MODELS)
    for model in dict.fromkeys(models):
        if known.setdefault(check_own_model(model).name, model) is not model:
            raise UsageError(f"got two models of your own with name '{model.name}', expected a different name for each")
    if name not in known:
        raise UsageError(
            f"got model '{name}', expected one of: {', '.join(known)} (see `recvae models`), "
            f"or MODULE:CLASS for a model of your own{did_you_mean(name, known)}"
        )
    return known[name]


def is_own(model: type[Model]) -> bool:
    """Whether a model is one of your own: not in the registry."""
    return MODELS.get(model.name) is not model


def import_path(model: type[Model]) -> str:
    """Return how the command is given a model: its name, or `MODULE:CLASS` for one of your own."""
    return f"{model.__module__}:{model.__qualname__}" if is_own(model) else model.name


def check_own_model(found: object, source: str | None = None) -> type[Model]:
    """Refuse what cannot take part as a model of your own.

    Parameters
    ----------
    found : object
        What should be a subclass of `Model`.
    source : str, optional
        How messages call it; by default its own name.

    Returns
    -------
    type of Model

    Raises
    ------
    UsageError
        If it is no concrete subclass of `Model`, has no name, or the name of a registered model.
    """
    source = source or str(getattr(found, "__name__", repr(found)))
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise UsageError(f"got {source}, which is not a subclass of recvae.Model; write `class MyModel(Model)`")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise UsageError(f"got {source}, which does not define {', '.join(missing)}; see recvae.Model for what they do")
    for known in ("name", "paper"):
        if not isinstance(getattr(found, known, None), str):
            raise UsageError(f'got {source} without a {known}, expected a class attribute such as {known} = "itemknn"')
    if any(isinstance(value, dataclasses.Field) for kind in found.__mro__ for value in vars(kind).values()):
        raise UsageError(f"got {source}, whose fields are not read; put @dataclass(kw_only=True) above the class")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", found.name):
        raise UsageError(
            f"got {source} with name '{found.name}', expected letters, digits, '_', '-' or '.', e.g. itemknn"
        )
    if MODELS.get(found.name, found) is not found:
        raise UsageError(f"got {source} with name '{found.name}', which is a model of recvae; choose another name")
    return found
