"""The loaded recommenders, and reloading new versions without failing requests."""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recvae.bundles.card import CARD
from recvae.bundles.exported import EXPORT_CARD, INDEX, is_of_run
from recvae.errors import UsageError
from recvae.recommenders.base import BaseRecommender
from recvae.serving.settings import Settings
from recvae.storage.integrity import sha256_of


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A loaded recommender with its name and version."""

    name: str
    version: str
    format: str
    recommender: BaseRecommender
    diversifies: bool

    def describe(self) -> dict[str, Any]:
        """Return its type, data and metrics as JSON values."""
        manifest, parts = self.recommender.manifest, self.recommender.metrics
        finite = {part: {name: x for name, x in values.items() if math.isfinite(x)} for part, values in parts.items()}
        return {
            "name": self.name,
            "version": self.version,
            "model": self.recommender.model_name,
            "format": self.format,
            "n_items": len(self.recommender.items),
            "data": manifest.get("name"),
            "fingerprint": manifest.get("fingerprint"),
            "metrics": finite,  # JSON has no NaN
            "diversifies": self.diversifies,
        }


class ModelStore:
    """All loaded recommenders; they are replaced together or not at all.

    Parameters
    ----------
    runs : sequence of Path
        Folders of runs; the first is the default.
    settings : Settings
        Format, device and threads.

    Raises
    ------
    UsageError
        If there is none, or one is not a run.
    BundleError
        If one is damaged.
    """

    def __init__(self, runs: Sequence[Path], settings: Settings) -> None:
        if not runs:
            raise UsageError("got no run to serve, expected at least one")
        self._runs = dict(zip(names_of(runs), runs, strict=True))
        self._settings = settings
        self._models = self._read()

    def reload(self) -> None:
        """Load all runs again and serve them from now on; if that fails, the old ones stay.

        Raises
        ------
        UsageError, BundleError
            If a run is missing or damaged.
        """
        self._models = self._read()  # one assignment: a request sees only old or only new models

    def is_current(self) -> bool:
        """Return whether the served versions are those on disk."""
        return all(self._version(run) == self._models[name].version for name, run in self._runs.items())

    def _version(self, run: Path) -> str:
        """Return what changes with the run, and with its export: one of them may be replaced without the other."""
        format_ = self._settings.format
        cards = [run / CARD, *([] if format_ == "torch" else [run / format_ / EXPORT_CARD])]
        found = "".join(sha256_of(card) for card in cards if card.is_file())
        return (found if len(cards) == 1 else hashlib.sha256(found.encode()).hexdigest())[:12]

    def models(self) -> list[StoredModel]:
        """Return the models that are served now."""
        return list(self._models.values())

    def find(self, name: str | None) -> StoredModel | None:
        """Return the model with a name, or a longer part of its path; the first for None; None if there is none."""
        models = self._models
        if name is None:
            return next(iter(models.values()))
        found = [
            models[known]
            for known, run in self._runs.items()
            if any(f"/{place}".endswith(f"/{name}") for place in (_place_of(run), run.resolve().as_posix()))
        ]
        return models.get(name) or (found[0] if len(found) == 1 else None)

    def _read(self) -> dict[str, StoredModel]:
        return {name: self._model(name, run) for name, run in self._runs.items()}

    def _model(self, name: str, run: Path) -> StoredModel:
        load = _load_torch if self._settings.format in ("torch", INDEX) else _load_onnx
        version = self._version(run)  # before loading: a run that changes meanwhile must not count as current
        recommender = load(run, self._settings)
        # One request before serving: it does the set-up of a first call, and shows that the model works.
        history = recommender.item_ids[:1].tolist()
        recommender.recommend(history, k=1)
        return StoredModel(
            name=name,
            version=version,
            format=self._settings.format,
            recommender=recommender,
            diversifies=recommender.can_diversify,
        )


def _load_torch(run: Path, settings: Settings) -> BaseRecommender:
    from recvae.models import model_class
    from recvae.recommenders.recommender import Recommender

    # Copied: writing into the files of a running server must not change what it serves, or crash it.
    own = [model_class(name) for name in settings.models]
    return Recommender.load(run, settings.device, mapped=False, models=own, retrieval=settings.format == INDEX)


def _load_onnx(run: Path, settings: Settings) -> BaseRecommender:
    from recvae.serving.onnx import OnnxRecommender

    recommender = OnnxRecommender.load(run / settings.format, threads=settings.threads)
    if not is_of_run(recommender.scorer.card, run):
        raise UsageError(
            f"{run} was retrained after this export; export it again with `recvae export {run}"
            f"{' --quantize int8' if settings.format == 'onnx-int8' else ''}`"
        )
    return recommender


def _place_of(run: Path) -> str:
    """Return the whole path of a run, without following links."""
    return Path(os.path.abspath(run)).as_posix()  # noqa: PTH100  (which has no `..`, and keeps links)


def names_of(runs: Sequence[Path]) -> list[str]:
    """Name each run by its folder, with as many parent folders as needed for distinct names.

    A link has its own name: it may lead to another folder after the next deployment.

    Raises
    ------
    UsageError
        If a run is given twice.
    """
    places = [run.resolve() for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"got {run} twice, expected each run once")
    parts = [Path(_place_of(run)).parts for run in runs]
    names = []
    for path in parts:
        length = next(n for n in range(1, len(path) + 1) if sum(other[-n:] == path[-n:] for other in parts) == 1)
        names.append("/".join(path[-length:]))
    return names
