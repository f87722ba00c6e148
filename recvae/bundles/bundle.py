"""The bundle on disk: what training writes and serving loads. No pickle, no training data, nothing executed.

    recommender.json      format, model, hyperparameters, manifest of the data, metrics, versions, file sizes
    weights.safetensors   what the model learned; or several files and an index, see `recvae.storage.weight_files`
    items.parquet         id, title and training count of each column
    README.md             a model card for people

`recommender.json` is written last: a folder without it is not a bundle.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError

from recvae.bundles.card import CARD, FORMAT_VERSION, damaged, read_card
from recvae.bundles.readme import model_card
from recvae.compute.memory import check_amount, check_memory, enough_bytes
from recvae.display import one_line
from recvae.errors import BundleError, UsageError
from recvae.items import ItemIndex
from recvae.models import MODELS, is_own, known_model
from recvae.models.common.base import Model
from recvae.models.common.hyperparameters import build, values_of
from recvae.storage.arrays import streams_of
from recvae.storage.files import storage_errors, write_file, write_json, write_text
from recvae.storage.integrity import UNREADABLE_ARCHIVE, FileState, described, states_of
from recvae.storage.weight_files import is_of_weights, names_of_weights, read_weight_files, write_weight_files
from recvae.training.records import TrainingSummary
from recvae.version import __version__

WEIGHTS = "weights.safetensors"
ITEMS = "items.parquet"
README = "README.md"
_UNREADABLE = (*UNREADABLE_ARCHIVE, SafetensorError, pa.ArrowException)
_LIBRARIES = ("torch", "numpy", "scipy", "implicit", "safetensors")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A fitted model with everything needed to recommend.

    Parameters
    ----------
    model : Model
        Fitted.
    items : ItemIndex
        Of the model's columns.
    manifest : dict
        Manifest of the data it was trained on.
    metrics : dict
        Mean of each metric by part, such as {"validation": {"ndcg@100": 0.4}}.
    training : TrainingSummary
        How training went: epochs, best epoch, seconds; of a tuned baseline, the grid.
    """

    model: Model
    items: ItemIndex
    manifest: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    training: TrainingSummary = field(default_factory=TrainingSummary)

    @property
    def interrupted(self) -> bool:
        """Whether training was ended by hand or by a failure; the model has the best weights so far."""
        return self.training.interrupted

    def __repr__(self) -> str:
        """Return it in one line: its model and its data."""
        return f"<Bundle: {self.model!r} on {one_line(self.manifest.get('name', 'unnamed data'))}>"


def write_bundle(folder: Path, bundle: Bundle, *, file_bytes: int | None = None, has_weights: bool = False) -> None:
    """Write a bundle into a folder, made if missing; the card comes last and makes it valid.

    Parameters
    ----------
    folder : Path
        Where.
    bundle : Bundle
        What.
    file_bytes : int, optional
        The most that a file of weights holds; None for one file.
    has_weights : bool
        Whether the weights are there already; see `gather_weights`.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    StorageError
        If it cannot be written.
    """
    weights = {} if has_weights else bundle.model.weights()
    with storage_errors(folder):
        (folder / CARD).unlink(missing_ok=True)  # an older card must not speak for newer weights
    if not has_weights:
        write_weight_files(folder / WEIGHTS, streams_of(weights), file_bytes)
    names = sorted(one.name for one in folder.iterdir() if is_of_weights(WEIGHTS, one.name))
    with write_file(folder / ITEMS) as aside:
        bundle.items.write(aside)
    card = {
        "format": FORMAT_VERSION,
        "model": bundle.model.name,
        "hyperparameters": values_of(bundle.model),
        **_describe_parts(bundle.model),
        "interrupted": bundle.interrupted,
        "metrics": bundle.metrics,
        "training": bundle.training.to_json(),
        "dataset": bundle.manifest,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "recvae": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _LIBRARIES},
        },
        "files": described(folder, (*names, ITEMS)),
    }
    write_text(folder / README, model_card(card, bundle.model.paper, is_own(type(bundle.model))))
    write_json(folder / CARD, card)


def gather_weights(model: Model, folder: Path | None = None, file_bytes: int | None = None) -> None:
    """Write the weights of a model whose items several processes share into the folder of its bundle; all call it.

    Parameters
    ----------
    model : Model
        As its fit has left it; nothing is done with one that was stopped before it had learned anything.
    folder : Path, optional
        In the first process, which has the whole model then, used from its file.
    file_bytes : int, optional
        The most that a file holds; None for one file. Of several files, no process has the whole model.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    if not model.n_items_:
        return
    if folder is not None:
        with storage_errors(folder):
            (folder / CARD).unlink(missing_ok=True)  # an older card must not speak for newer weights
    model.gather(None if folder is None else folder / WEIGHTS, file_bytes)


def _describe_parts(model: Model) -> dict[str, Any]:
    """Return what a card says of the models that a model is made of; nothing for most."""
    parts = {
        role: {"model": part.name, "hyperparameters": values_of(part), **_describe_parts(part)}
        for role, part in model.parts.items()
    }
    return {"parts": parts} if parts else {}


def read_bundle(
    folder: Path | str,
    device: str = "cpu",
    max_memory: int | None = None,
    *,
    mapped: bool = True,
    models: Sequence[type[Model]] | type[Model] = (),
) -> Bundle:
    """Load a bundle: no training data, no network, nothing executed, nothing imported by itself.

    Parameters
    ----------
    folder : Path or str
        A bundle.
    device : str
        Where a network scores: "auto", "cpu" or "cuda".
    max_memory : int, optional
        Bytes that reading may take, and scoring one user.
    mapped : bool
        Whether the weights may stay in their file; see `read_weights`.
    models : sequence of type of Model
        Models of your own that the bundle may hold.

    Returns
    -------
    Bundle
        With the model ready to recommend.

    Raises
    ------
    UsageError
        If there is no bundle, or no such device.
    BundleError
        If it is damaged, unfinished, of a newer format, or of a model this version does not know.
    MemoryLimitError
        If `max_memory` is too little for it, before the weights are read.
    """
    folder, models = Path(folder), [models] if isinstance(models, type) else models
    check_amount(max_memory, "max_memory")
    card = read_card(folder)
    for name in names_of(card):
        if name not in MODELS and name not in [model.name for model in models]:
            raise unknown_model(folder, name)
    for state in check_files(folder, card).values():
        if state.problem is not None:
            raise damaged(folder, state.problem)
    model = _build(folder, card, models)
    try:
        items = ItemIndex.read(folder / ITEMS)
        if max_memory is not None:
            needed = model.scoring_needs(len(items)).reading
            ways = f"raise it to {enough_bytes(needed)}, the least it can be read and used with"
            check_memory(needed, max_memory, f"reading {folder}", ways)
        weights = read_weight_files(folder, names_of_weights(WEIGHTS, card["files"]), mapped)
    except _UNREADABLE as error:
        raise damaged(folder, str(error)) from error
    try:
        model.load_weights(weights, device)
    except UsageError:
        raise
    except _UNREADABLE as error:
        raise damaged(folder, f"{WEIGHTS} does not fit the hyperparameters: {error}") from error
    if model.n_items_ != len(items):
        raise damaged(folder, f"{WEIGHTS} has {model.n_items_:,} items, {ITEMS} has {len(items):,}")
    return Bundle(
        model=model,
        items=items,
        manifest=card["dataset"],
        metrics=card["metrics"],
        training=training_of(folder, card),
    )


def unknown_model(folder: Path, name: str) -> BundleError:
    """Return what to raise of a run whose model is neither in the registry nor among those given."""
    return BundleError(
        f"{folder} holds a model '{name}', which recvae does not have. If it is your own, add --model MODULE:CLASS "
        "(in Python models=[MyModel]; to blend it, --model blend --model MODULE:CLASS). "
        "If it comes from a newer version, upgrade recvae."
    )


def training_of(folder: Path, card: dict[str, Any]) -> TrainingSummary:
    """Return how the training of a bundle went, as its card has it.

    Raises
    ------
    BundleError
        If the card does not say it as it is written.
    """
    try:
        return TrainingSummary.from_json({**card["training"], "interrupted": card["interrupted"]})
    except TypeError as error:
        raise damaged(folder, f"{CARD}: {error}") from error


def names_of(card: dict[str, Any]) -> list[str]:
    """Return the names of the models that a card speaks of: its own, and those it is made of."""
    parts = card.get("parts")
    nested = [part for part in parts.values() if isinstance(part, dict)] if isinstance(parts, dict) else []
    return [str(card.get("model")), *(name for part in nested for name in names_of(part))]


def _build(folder: Path, card: dict[str, Any], models: Sequence[type[Model]]) -> Model:
    try:
        return _model_of(card, models)
    except UsageError as error:
        versions = card.get("versions")
        written = versions.get("recvae") if isinstance(versions, dict) else None
        if written == __version__:
            raise damaged(folder, str(error)) from error
        raise BundleError(
            f"{folder} cannot be used: {error}; it was written by recvae {written}, this is {__version__}: "
            "load it with that version"
        ) from error
    except _UNREADABLE as error:
        raise damaged(folder, str(error)) from error


def _model_of(card: dict[str, Any], models: Sequence[type[Model]]) -> Model:
    model = build(known_model(card["model"], models), card["hyperparameters"], effects=False)
    model.parts = {role: _model_of(part, models) for role, part in card.get("parts", {}).items()}
    return model


def check_files(folder: Path, card: dict[str, Any]) -> dict[str, FileState]:
    """Say of each file of a bundle whether it is what was written, as the card has it."""
    return states_of(folder, (*names_of_weights(WEIGHTS, card["files"]), ITEMS), card, CARD)
