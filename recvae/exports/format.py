"""An exported model on disk: what `recvae export` writes, and what a service without torch loads.

    export.json           format, model, data, names and meanings of inputs and outputs, the check, hashes
    model.onnx            the scores and the top items; a very large model has its weights in model.onnx.data
    model.pt2             instead, the scores as a PyTorch program (torch.export.load)
    index.faiss           instead, an index of the item vectors, used with the run itself; nothing else is next to it
    items.json            ids, titles (null if unknown) and training counts of the columns
    neighbours.npz        the items most similar to each item, if the model has similarities

`export.json` is written last: a folder without it is not an export. Importing this needs only numpy.

Letters in shape comments: I items, n neighbours.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from recvae.bundles.exported import (
    EXPORT_CARD,
    INDEX,
    ITEMS,
    NEIGHBOURS,
    ONNX,
    TORCH,
    damaged,
    is_of_run,
    read_export,
)
from recvae.errors import BundleError, UsageError
from recvae.items import ItemIndex, json_id
from recvae.storage.integrity import UNREADABLE_ARCHIVE

FOLDERS = {"onnx": ONNX, "onnx-int8": ONNX, "torch": TORCH, "index": INDEX}
"""The default folder of an export in its run, and the format of each."""

SCORES, TOP_ITEMS, TOP_SCORES = "scores", "top_items", "top_scores"
INPUTS = {
    "items": "int64 (interactions): item column of each interaction, user by user; each item once per user",
    "offsets": "int64 (users + 1): start of each user's interactions in items; the first is 0, the last their number",
    "weights": "float32 (interactions): weight of each interaction, from 1e-6 to 1e6; 1 by default",
}
K_INPUT = {"k": "int64 (1): number of items, 1 or more"}
OUTPUTS = {SCORES: "float32 (users, columns): the score of every item, also of the history; higher is better"}
TOP_OUTPUTS = {
    TOP_ITEMS: "int64 (users, k): columns of the top items outside the history, best first, equal scores by column; "
    "-1 after the last item; k is at most the number of items",
    TOP_SCORES: "float32 (users, k): their scores; -inf after the last item",
}


def problems_of_exports(run: Path) -> dict[str, str | None]:
    """Return what is wrong with each export in a run's folder; None if nothing is.

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
                _check_of(run / name)
            except (BundleError, UsageError) as error:
                problems[name] = str(error)
            else:
                problems[name] = None if is_of_run(card, run) else "older than the run; export it again"
    return problems


def checks_of_exports(run: Path, problems: dict[str, str | None]) -> dict[str, dict[str, Any]]:
    """Return how well each intact export agrees with its model, as it was measured when it was made.

    Parameters
    ----------
    run : Path
        A bundle.
    problems : dict of str to str or None
        From `problems_of_exports`.

    Returns
    -------
    dict of str to dict
        The check by the name of the export's folder: see `exports.checking.Check`.
    """
    return {name: _check_of(run / name) for name, problem in problems.items() if problem is None}


def _check_of(folder: Path) -> dict[str, Any]:
    """Return what the card of an export says of its check, if it says all that is shown of it."""
    try:
        check = json.loads((folder / EXPORT_CARD).read_text(encoding="utf-8"))["check"]
        shown = [check["rows"], *check["overlap"].values()]
        if isinstance(check["on"], str) and all(isinstance(one, int | float) for one in shown):
            return check
    except UNREADABLE_ARCHIVE:
        pass
    raise damaged(folder, f"{EXPORT_CARD} has no check")


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
    """Write an item index as JSON; integers that JavaScript would round become strings."""
    content = {
        "ids": [json_id(one) for one in items.ids.tolist()],
        "integers": items.ids.dtype.kind in "iu",
        "titles": None if items.titles is None else items.titles.tolist(),
        "train_counts": items.train_counts.tolist(),
    }
    path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_neighbours(folder: Path, card: dict[str, Any], n_items: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Read the items most similar to each item.

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
        Columns, nearest first, and similarities; None if the model has no similarities.

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
            raise ValueError("columns that are not items")
    except UNREADABLE_ARCHIVE as error:
        raise damaged(folder, f"{NEIGHBOURS} cannot be read: {error!r}") from error
    return columns, similarities


def _are_whole(ids: list[Any]) -> bool:
    """Return whether ids are integers, of which large ones are strings."""
    return all(type(one) is int or (isinstance(one, str) and one.lstrip("-").isdecimal()) for one in ids)
