"""An exported model on disk: what `recvae export` writes, and what a service without torch loads.

    export.json           format, model, data, how inputs and outputs are called and what they mean, the check, hashes
    model.onnx            the scores and the best items, with model.onnx.data beside it where it is very large
    model.pt2             the scores, as a program of PyTorch (torch.export.load) instead
    items.json            ids, titles (null where unknown) and training counts of the columns
    neighbours.npz        the items most similar to each, of models that know

`export.json` is written last: a folder without it is not an export. Importing this takes numpy alone.

Letters in shape comments: I items, n neighbours.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from recvae.bundles.card import CARD
from recvae.errors import BundleError, UsageError
from recvae.items import ItemIndex, json_id
from recvae.storage.integrity import UNREADABLE_ARCHIVE, sha256_of, states_of

FORMAT_VERSION = 1
EXPORT_CARD = "export.json"
ITEMS = "items.json"
NEIGHBOURS = "neighbours.npz"
ONNX, TORCH = "onnx", "torch"
ONNX_DATA = "model.onnx.data"
MODEL_FILES = {ONNX: "model.onnx", TORCH: "model.pt2"}
FOLDERS = {"onnx": ONNX, "onnx-int8": ONNX, "torch": TORCH}
"""Where in a run's folder an export stands unless told otherwise, and in which format."""

SCORES, TOP_ITEMS, TOP_SCORES = "scores", "top_items", "top_scores"
INPUTS = {
    "items": "int64 (interactions): item column of each interaction, user after user; no item twice of a user",
    "offsets": "int64 (users + 1): where each user's interactions begin in items; first 0, last their number",
    "weights": "float32 (interactions): weight of each interaction, from 1e-6 to 1e6; 1 where there is none",
}
K_INPUT = {"k": "int64 (1): how many items are wanted, 1 or more"}
OUTPUTS = {SCORES: "float32 (users, columns): the score of every item, those of the history too; higher is better"}
TOP_OUTPUTS = {
    TOP_ITEMS: "int64 (users, k): columns of the best items outside the history, best first, equal scores by column; "
    "-1 where the items ran out; k is at most the number of items",
    TOP_SCORES: "float32 (users, k): their scores; -inf where the items ran out",
}


def read_export(folder: Path, wanted: str = ONNX) -> dict[str, Any]:
    """Read what an export says of itself, and check that its files are what was written.

    Parameters
    ----------
    folder : Path
        What `recvae export` wrote.
    wanted : str
        "onnx" or "torch".

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
        raise UsageError(f"{folder} holds a model as {found}, expected {wanted}; {how}")
    strangers = names - {MODEL_FILES[wanted], ONNX_DATA, ITEMS, NEIGHBOURS}  # a path would lead elsewhere
    if strangers:
        raise damaged(folder, f"{EXPORT_CARD} lists {min(map(str, strangers))!r}, which is no file of an export")
    for state in states_of(folder, {*names, MODEL_FILES[wanted], ITEMS}, card, EXPORT_CARD).values():
        if state.problem is not None:
            raise damaged(folder, state.problem)
    return card


def is_of_run(card: dict[str, Any], run: Path) -> bool:
    """Say whether an export was made of a run as it is now."""
    return (run / CARD).is_file() and card.get("bundle") == sha256_of(run / CARD)


def problems_of_exports(run: Path) -> dict[str, str | None]:
    """Say what is wrong with each export that stands in a run's folder; None where nothing is.

    Parameters
    ----------
    run : Path
        A bundle.

    Returns
    -------
    dict of str to str or None
        By the name of the export's folder.
    """
    problems: dict[str, str | None] = {}
    for name, wanted in FOLDERS.items():
        if (run / name / EXPORT_CARD).is_file():
            try:
                card = read_export(run / name, wanted)
            except (BundleError, UsageError) as error:
                problems[name] = str(error)
            else:
                problems[name] = None if is_of_run(card, run) else "older than the run; export it again"
    return problems


def read_items(folder: Path) -> ItemIndex:
    """Read the item index of an export.

    Raises
    ------
    BundleError
        If it is damaged.
    """
    try:
        content = json.loads((folder / ITEMS).read_text(encoding="utf-8"))
        ids, titles = content["ids"], content["titles"]
        counts = np.array(content["train_counts"], dtype=np.int64)  # (I,)
        if not len(ids) == len(counts) == len(ids if titles is None else titles):
            raise ValueError("ids, titles and counts of different lengths")
        return ItemIndex(
            ids=np.array(ids, dtype=np.int64 if content.get("integers", True) and _are_whole(ids) else object),
            titles=None if titles is None else np.array(titles, dtype=object),
            train_counts=counts,
        )
    except UNREADABLE_ARCHIVE as error:
        raise damaged(folder, f"{ITEMS} cannot be read: {error!r}") from error


def write_items(path: Path, items: ItemIndex) -> None:
    """Write an item index as JSON; whole numbers that JavaScript would take for others, as texts."""
    content = {
        "ids": [json_id(one) for one in items.ids.tolist()],
        "integers": items.ids.dtype.kind in "iu",
        "titles": None if items.titles is None else items.titles.tolist(),
        "train_counts": items.train_counts.tolist(),
    }
    path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_neighbours(folder: Path, card: dict[str, Any], n_items: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Read the items most similar to each.

    Parameters
    ----------
    folder : Path
        An export.
    card : dict
        From `read_export`.
    n_items : int
        Number of items.

    Returns
    -------
    tuple of ndarray of shape (n_items, n_neighbours), int32 and float32, or None
        Their columns, nearest first, and similarities; None of a model that does not know.

    Raises
    ------
    BundleError
        If they are damaged.
    """
    if NEIGHBOURS not in card["files"]:
        return None
    try:
        with np.load(folder / NEIGHBOURS, allow_pickle=False) as arrays:
            columns, similarities = arrays["columns"], arrays["similarities"]  # (I, n), (I, n)
        if columns.shape != similarities.shape or columns.ndim != 2 or len(columns) != n_items:
            raise ValueError(f"arrays of shapes {columns.shape} and {similarities.shape} for {n_items:,} items")
        if columns.size and not 0 <= columns.min() <= columns.max() < n_items:
            raise ValueError("columns that are none of the items")
    except UNREADABLE_ARCHIVE as error:
        raise damaged(folder, f"{NEIGHBOURS} cannot be read: {error!r}") from error
    return columns, similarities


def _are_whole(ids: list[Any]) -> bool:
    """Say whether ids are whole numbers, those that are large as texts."""
    return all(type(one) is int or (isinstance(one, str) and one.lstrip("-").isdecimal()) for one in ids)


def damaged(folder: Path, what: str) -> BundleError:
    """Return what to raise of an export that is not what was written."""
    return BundleError(f"the export {folder} is damaged: {what}; copy it again, or export again")
