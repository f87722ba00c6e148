"""The card of an export: what `export.json` says, and whether the files next to it are what was written.

Importing this needs only the standard library.
"""

import json
from pathlib import Path
from typing import Any

from recvae.bundles.card import CARD
from recvae.errors import BundleError, UsageError
from recvae.storage.integrity import UNREADABLE_ARCHIVE, sha256_of, states_of

FORMAT_VERSION = 1
EXPORT_CARD = "export.json"
ITEMS = "items.json"
NEIGHBOURS = "neighbours.npz"
ONNX, TORCH, INDEX = "onnx", "torch", "index"
ONNX_DATA = "model.onnx.data"
MODEL_FILES = {ONNX: "model.onnx", TORCH: "model.pt2", INDEX: "index.faiss"}
_FURTHER_FILES = {ONNX: {ONNX_DATA, ITEMS, NEIGHBOURS}, TORCH: {ITEMS, NEIGHBOURS}, INDEX: set()}
_NEEDED_FILES = {ONNX: {ITEMS}, TORCH: {ITEMS}, INDEX: set()}  # with the model's own


def read_export(folder: Path, wanted: str = ONNX) -> dict[str, Any]:
    """Read the card of an export, and check that its files are intact.

    Parameters
    ----------
    folder : Path
        An export written by `recvae export`.
    wanted : str
        "onnx", "torch" or "index".

    Returns
    -------
    dict
        The content of export.json.

    Raises
    ------
    UsageError
        If there is no export of that format.
    BundleError
        If it is damaged, or of a newer format.
    """
    how = f"make it with `recvae export RUN --format {wanted}`"
    if not (folder / EXPORT_CARD).is_file():
        raise UsageError(f"{folder} has no {EXPORT_CARD}, expected an exported model; {how}")
    try:
        card = json.loads((folder / EXPORT_CARD).read_text(encoding="utf-8"))
        newer = int(card["version"]) > FORMAT_VERSION
        names, found = set(card["files"]), card["format"]
    except UNREADABLE_ARCHIVE as error:
        raise damaged(folder, f"{EXPORT_CARD} cannot be read: {error!r}") from error
    if newer:
        raise BundleError(
            f"{folder} has export format {card['version']}, this version reads up to {FORMAT_VERSION}; upgrade recvae"
        )
    if found != wanted:
        raise UsageError(f"{folder} holds a model in format {found}, expected {wanted}; {how}")
    strangers = names - {MODEL_FILES[wanted], *_FURTHER_FILES[wanted]}  # a path would lead elsewhere
    if strangers:
        raise damaged(folder, f"{EXPORT_CARD} lists {min(map(str, strangers))!r}, which is not a file of an export")
    for state in states_of(folder, {*names, MODEL_FILES[wanted], *_NEEDED_FILES[wanted]}, card, EXPORT_CARD).values():
        if state.problem is not None:
            raise damaged(folder, state.problem)
    return card


def is_of_run(card: dict[str, Any], run: Path) -> bool:
    """Return whether an export was made from the current version of a run."""
    return (run / CARD).is_file() and card.get("bundle") == sha256_of(run / CARD)


def damaged(folder: Path, what: str) -> BundleError:
    """Return the error of a damaged export."""
    return BundleError(f"the export {folder} is damaged: {what}; copy it again, or export again")
