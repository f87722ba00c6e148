"""The card of a bundle: what a run on disk says of itself, read without what trains or scores.

Importing this takes the standard library alone, so that a service without torch finds its runs too.
"""

import json
from pathlib import Path
from typing import Any

from recvae.errors import BundleError, UsageError
from recvae.storage.integrity import UNREADABLE

CARD = "recommender.json"
"""The file of a bundle that is written last, and says what it is."""

FORMAT_VERSION = 1
RUN_STATE = "run.json"  # these two show a run that has no bundle yet
RUN_LOG = "log.jsonl"
RUN_LOCK = "run.lock"  # held by who trains it
_KINDS = {  # of what a card says
    "model": (str, "a text"),
    "hyperparameters": (dict, "an object"),
    "interrupted": (bool, "true or false"),
    "metrics": (dict, "an object"),
    "training": (dict, "an object"),
    "dataset": (dict, "an object"),
    "created": (str, "a text"),
    "versions": (dict, "an object"),
    "files": (dict, "an object"),
}


def read_card(folder: Path) -> dict[str, Any]:
    """Read what a bundle says of itself.

    Parameters
    ----------
    folder : Path
        A bundle.

    Returns
    -------
    dict
        The content of recommender.json.

    Raises
    ------
    UsageError
        If there is no such folder, or it is no bundle.
    BundleError
        If training is not finished, or the bundle is damaged or of a newer format.
    """
    if not folder.is_dir():
        raise UsageError(f"no bundle at {folder}; expected the folder of a run, see `recvae train`")
    if not (folder / CARD).is_file():
        if (folder / RUN_STATE).exists() or (folder / RUN_LOG).exists():
            raise BundleError(f"{folder} is a run that has not finished; continue it with `recvae train --resume`")
        raise UsageError(f"{folder} has no {CARD}: not a bundle; expected the folder of a run, see `recvae train`")
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        newer = int(card["format"]) > FORMAT_VERSION
    except UNREADABLE as error:
        raise damaged(folder, f"{CARD} cannot be read: {error!r}") from error
    if newer:
        raise BundleError(
            f"{folder} has bundle format {card['format']}, this version reads up to {FORMAT_VERSION}; upgrade recvae"
        )
    try:
        _check_card(card)
    except UNREADABLE as error:
        raise damaged(folder, f"{CARD}: {error}") from error
    return card


def _check_card(card: dict[str, Any]) -> None:
    """Refuse a card that is not of the shape that is written, so that nobody who reads one has to look again."""
    for name, (kind, wanted) in _KINDS.items():
        if not isinstance(card.get(name), kind):
            raise TypeError(f"got {name} {card.get(name)!r:.60}, expected {wanted}")
    for part, values in card["metrics"].items():
        if not isinstance(values, dict):
            raise TypeError(f"got metrics of {part} {values!r:.60}, expected an object")
        for metric, mean in values.items():
            if isinstance(mean, bool) or not isinstance(mean, int | float):
                raise TypeError(f"got {metric} {mean!r:.60}, expected a number")
            float(mean)  # not every whole number is one
    json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False).encode()  # no NaN, nothing that is not UTF-8


def damaged(folder: Path, what: str) -> BundleError:
    """Return what to raise of a bundle that is not what was written."""
    return BundleError(f"the bundle {folder} is damaged: {what}; copy it again, or train again")
