"""Recommenders from autoencoders on sparse user-item data, with honest baselines.

Every model of `recvae.models` is here under its own name, without a line in this file; the other public names are in
the table below, each with the module that defines it. Modules are public too: `recvae.errors`, `recvae.metrics`,
`recvae.models`, `recvae.plots`. Nothing is imported before it is used, since torch takes a second or more, and reading
data does not need it.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from recvae.version import __version__ as __version__

if TYPE_CHECKING:  # for editors and type checkers; a test compares it with the table
    from recvae import errors as errors
    from recvae import metrics as metrics
    from recvae import models as models
    from recvae import plots as plots
    from recvae.bundles.bundle import read_bundle as read_bundle
    from recvae.datasets.dataset import Dataset as Dataset
    from recvae.datasets.events import Events as Events
    from recvae.datasets.events import Filters as Filters
    from recvae.datasets.logs import read_events as read_events
    from recvae.datasets.synthetic import synthetic_log as synthetic_log
    from recvae.evaluation.comparison import Comparison as Comparison
    from recvae.evaluation.comparison import compare as compare
    from recvae.evaluation.evaluate import evaluate as evaluate
    from recvae.exports.writing import export as export
    from recvae.interactions import HeldOut as HeldOut
    from recvae.latent.anomalies import AnomalyDetector as AnomalyDetector
    from recvae.latent.generation import generate as generate
    from recvae.latent.generation import realism as realism
    from recvae.latent.likelihood import likelihood as likelihood
    from recvae.latent.probes import probe as probe
    from recvae.latent.profiles import plant as plant
    from recvae.latent.segments import find_segments as find_segments
    from recvae.latent.units import latent_units as latent_units
    from recvae.models import *  # noqa: F403
    from recvae.recommenders.answers import BatchRecommendations as BatchRecommendations
    from recvae.recommenders.answers import Explanation as Explanation
    from recvae.recommenders.answers import Recommendations as Recommendations
    from recvae.recommenders.recommender import Recommender as Recommender
    from recvae.serving.app import create_app as create_app
    from recvae.tracking.mlflow import MLflowMonitor as MLflowMonitor
    from recvae.tracking.tensorboard import TensorBoardMonitor as TensorBoardMonitor
    from recvae.training.monitors import MonitorList as MonitorList
    from recvae.training.monitors import ProgressBar as ProgressBar
    from recvae.training.monitors import TrainingProgress as TrainingProgress
    from recvae.tuning import tune as tune

_HOMES = {
    "AnomalyDetector": "recvae.latent.anomalies",
    "BatchRecommendations": "recvae.recommenders.answers",
    "Comparison": "recvae.evaluation.comparison",
    "Dataset": "recvae.datasets.dataset",
    "Events": "recvae.datasets.events",
    "Explanation": "recvae.recommenders.answers",
    "Filters": "recvae.datasets.events",
    "HeldOut": "recvae.interactions",
    "MLflowMonitor": "recvae.tracking.mlflow",
    "MonitorList": "recvae.training.monitors",
    "ProgressBar": "recvae.training.monitors",
    "Recommendations": "recvae.recommenders.answers",
    "Recommender": "recvae.recommenders.recommender",
    "TensorBoardMonitor": "recvae.tracking.tensorboard",
    "TrainingProgress": "recvae.training.monitors",
    "compare": "recvae.evaluation.comparison",
    "create_app": "recvae.serving.app",
    "evaluate": "recvae.evaluation.evaluate",
    "export": "recvae.exports.writing",
    "find_segments": "recvae.latent.segments",
    "generate": "recvae.latent.generation",
    "latent_units": "recvae.latent.units",
    "likelihood": "recvae.latent.likelihood",
    "plant": "recvae.latent.profiles",
    "probe": "recvae.latent.probes",
    "read_bundle": "recvae.bundles.bundle",
    "read_events": "recvae.datasets.logs",
    "realism": "recvae.latent.generation",
    "synthetic_log": "recvae.datasets.synthetic",
    "tune": "recvae.tuning",
}
_MODULES = ("errors", "metrics", "models", "plots")
_EXTRAS = {"create_app": ("fastapi", "serve")}  # names that need an optional package, and the extra that installs it


def _models() -> dict[str, Any]:
    """Return the classes of `recvae.models` by name: the models, and what they derive from."""
    module = import_module("recvae.models")
    classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    return {name: value for name, value in classes.items() if issubclass(value, module.Model)}


def _names() -> list[str]:
    """Return the public names, without those whose extra is not installed: `from recvae import *` takes them all."""
    missing = {name for name, (package, _) in _EXTRAS.items() if find_spec(package) is None}
    return sorted({"__version__", *_HOMES, *_models()} - missing)


def _find(name: str) -> Any:
    """Import a public name, or a module such as `recvae.metrics`, when it is first used."""
    if name == "__all__":
        return _names()
    if name in _HOMES:
        if name not in _EXTRAS:
            return getattr(import_module(_HOMES[name]), name)
        from recvae.errors import requires_extra

        with requires_extra(_EXTRAS[name][1], f"recvae.{name}"):
            return getattr(import_module(_HOMES[name]), name)
    if not name.startswith("_"):
        if find_spec(f"recvae.{name}") is not None:
            return import_module(f"recvae.{name}")
        if (model := _models().get(name)) is not None:
            return model
    raise AttributeError(f"module 'recvae' has no attribute '{name}'")


if not TYPE_CHECKING:  # a type checker that knew of it would take any name for one of ours
    __getattr__ = _find


def __dir__() -> list[str]:
    return sorted({*_names(), *_MODULES})
