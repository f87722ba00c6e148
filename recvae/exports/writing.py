"""Writing the folder of an exported model with everything that serving needs, checked, completely or not at all.

Letters in shape comments: I items, B items of a block, n neighbours.
"""

import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recvae.bundles.bundle import Bundle, read_bundle
from recvae.bundles.card import CARD
from recvae.bundles.exported import EXPORT_CARD, FORMAT_VERSION, INDEX, ITEMS, MODEL_FILES, NEIGHBOURS, ONNX, TORCH
from recvae.errors import ExportError, UsageError
from recvae.exports.checking import Check, compare, drawn_histories, ndcg_of_both, refuse_if_wrong
from recvae.exports.format import INPUTS, K_INPUT, OUTPUTS, TOP_OUTPUTS, write_items
from recvae.exports.indexing import MIN_RECALL, write_index
from recvae.exports.programs import check_onnx, check_torch, quantize_graph, save_program, traced, write_graph
from recvae.exports.scorer import OnnxScorer
from recvae.interactions import HeldOut
from recvae.models.common.base import Model
from recvae.progress import Progress
from recvae.ranking import block_rows, rank
from recvae.recommenders.vector_index import check_faiss
from recvae.storage.files import check_replaceable, write_file, write_folder, write_json
from recvae.storage.integrity import described, sha256_of

FORMATS = (ONNX, TORCH, INDEX)
QUANTIZATIONS = ("int8",)

_NEIGHBOURS = 100  # per item at most
_CHECKED_ROWS = 200
_LIBRARIES = ("torch", "numpy", "onnx", "onnxruntime", "onnxscript", "faiss-cpu")


@dataclass(frozen=True, kw_only=True)
class ModelExport:
    """An export on disk.

    Parameters
    ----------
    folder : Path
        Its folder.
    card : dict
        The content of export.json.
    """

    folder: Path
    card: dict[str, Any]

    @property
    def n_bytes(self) -> int:
        """Size of all its files."""
        return sum(file["bytes"] for file in self.card["files"].values())


def check_exportable(format: str, quantize: str | None = None, min_recall: float | None = None) -> None:
    """Refuse an unknown format, or one whose libraries are missing, before anything is read.

    Raises
    ------
    UsageError
        If the format or quantisation is unknown, an option is of another format, or a library is missing.
    """
    if format not in FORMATS:
        raise UsageError(f"got format '{format}', expected one of: {', '.join(FORMATS)}")
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise UsageError(f"got quantize '{quantize}', expected {' or '.join(QUANTIZATIONS)}, or none for float32")
    if quantize is not None and format != ONNX:
        kind = "has 8 bits always" if format == INDEX else "is float32 only"
        raise UsageError(f"got --quantize with format {format}, which {kind}; use --format {ONNX}")
    if min_recall is not None and format != INDEX:
        raise UsageError(f"got --min-recall with format {format}, whose lists are exact; use --format {INDEX}")
    if min_recall is not None and not 0 <= min_recall <= 1:
        raise UsageError(f"got --min-recall {min_recall}, expected a share from 0 to 1, e.g. {MIN_RECALL}")
    if format == INDEX:
        check_faiss()
        return
    check_torch()
    if format == ONNX:
        check_onnx()


def export(
    run: Path | str,
    *,
    format: str = ONNX,
    quantize: str | None = None,
    min_recall: float | None = None,
    output: Path | str | None = None,
    held_out: HeldOut | None = None,
    progress: Progress | None = None,
    models: Sequence[type[Model]] = (),
) -> ModelExport:
    """Export a bundle's scores, or an index of its item vectors, checked on histories, with what serving needs.

    Parameters
    ----------
    run : Path or str
        A bundle.
    format : str
        "onnx"; "torch" for a program of `torch.export`; or "index", with which the run itself finds its best items
        without scoring all.
    quantize : str, optional
        "int8" quantises dense layers; ONNX only.
    min_recall : float, optional
        Share of the exact lists that an index must find, from 0 to 1; by default .95.
    output : Path or str, optional
        Output folder; by default `onnx`, `onnx-int8`, `torch` or `index` in the bundle. An existing export is replaced.
    held_out : HeldOut, optional
        Users whose histories are used for the check; by default generated histories.
    progress : Progress, optional
        Called with the steps done, the steps in all, and what is done now.
    models : sequence of type of Model
        Models of your own that the bundle may hold.

    Returns
    -------
    ModelExport
        Its folder and its card, which holds the check.

    Raises
    ------
    UsageError
        If there is no bundle or no such format, the model cannot be exported or quantised, a library is missing, or
        `output` is a folder that is not an export.
    BundleError
        If the bundle is damaged.
    ExportError
        If the exported scores are not those of the model, or an index finds too little; then nothing is written.
    StorageError
        If it cannot be written.
    """
    check_exportable(format, quantize, min_recall)
    run, tell = Path(run), progress or _silent
    folder = Path(output) if output is not None else run / "-".join([format, *([quantize] if quantize else [])])
    check_replaceable(folder.resolve(), EXPORT_CARD)
    bundle = read_bundle(run, models=models)
    card = _card(run, bundle, format, quantize)
    scorer = None if format == INDEX else bundle.model.scorer()
    with write_folder(folder, EXPORT_CARD) as aside:
        if scorer is None:
            least = MIN_RECALL if min_recall is None else min_recall
            card |= write_index(aside / MODEL_FILES[INDEX], bundle, held_out, least, tell)
        else:
            _write_scores(aside, bundle, scorer, card, held_out, tell)
        card["files"] = described(aside, sorted(entry.name for entry in aside.iterdir()))
        write_json(aside / EXPORT_CARD, card)
    return ModelExport(folder=folder, card=card)


def _write_scores(
    folder: Path, bundle: Bundle, scorer: nn.Module, card: dict[str, Any], held_out: HeldOut | None, tell: Progress
) -> None:
    """Write the scores with ids and similar items, and note in the card what was found."""
    for parameter in scorer.parameters():
        parameter.requires_grad_(False)
    path = folder / MODEL_FILES[card["format"]]
    tell(0, 1, "tracing the scores")
    if card["format"] == ONNX:
        card["opset"] = write_graph(scorer, bundle.model.n_items_, _facts(card), path)
    else:
        save_program(traced(scorer), path)
    if card["quantize"] is not None:
        quantize_graph(path, bundle.model.name)
    tell(0, 1, "checking the scores")
    card["check"] = _checked(bundle, path, card["format"], card["quantize"], held_out).to_json()
    with write_file(folder / ITEMS) as file:
        write_items(file, bundle.items)
    write_neighbours(folder / NEIGHBOURS, bundle.model, tell)


def _silent(done: float, total: float | None, note: str) -> None:
    """Show no progress."""


def _card(run: Path, bundle: Bundle, format: str, quantize: str | None) -> dict[str, Any]:
    data = bundle.manifest
    return {
        "version": FORMAT_VERSION,
        "format": format,
        "quantize": quantize,
        "model": bundle.model.name,
        "n_items": bundle.model.n_items_,
        "dataset": {"name": data.get("name"), "fingerprint": data.get("fingerprint")},
        "metrics": bundle.metrics,
        "bundle": sha256_of(run / CARD),
        "inputs": {} if format == INDEX else {**INPUTS, **(K_INPUT if format == ONNX else {})},
        "outputs": {} if format == INDEX else {**OUTPUTS, **(TOP_OUTPUTS if format == ONNX else {})},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"recvae": version("recvae"), "python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):  # the ONNX libraries may be missing for the format torch
            found[name] = version(name)
    return found


def _facts(card: dict[str, Any]) -> dict[str, str]:
    """Return the metadata of a graph, for those who have only the file."""
    return {
        "model": card["model"],
        "dataset": str(card["dataset"]["name"]),
        "bundle": card["bundle"],
        "format_version": str(FORMAT_VERSION),
    }


def _checked(bundle: Bundle, path: Path, format: str, quantize: str | None, held_out: HeldOut | None) -> Check:
    """Load the export as a service would, and compare it with the model."""
    rows, on = drawn_histories(bundle.items.train_counts, _CHECKED_ROWS), "generated histories"
    if held_out is not None:
        rows, on = held_out.fold_in[:_CHECKED_ROWS], "validation users"
    if format == TORCH:
        program = torch.export.load(path).module()
        check = compare(bundle.model, lambda block: _by_torch(program, block), rows, on)
        refuse_if_wrong(check, quantize)
        return check
    scorer = OnnxScorer(path)

    def best(block: sp.csr_matrix, k: int) -> np.ndarray:
        found, _ = scorer.top_k(block.indices, block.indptr, block.data, k)  # (U, min(k, I))
        return np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=-1)  # (U, k)

    check = compare(bundle.model, lambda block: scorer.score(block.indices, block.indptr, block.data), rows, on)
    refuse_if_wrong(check, quantize)
    _check_ranking(scorer, rows)
    if quantize is not None and held_out is not None and held_out.has_targets:
        check = replace(check, ndcg=ndcg_of_both(bundle.model, best, held_out))
    return check


def _check_ranking(scorer: OnnxScorer, rows: sp.csr_matrix) -> None:
    """Refuse a graph that does not rank like `ranking.rank`."""
    some = rows[:20]
    csr = (some.indices, some.indptr, some.data)
    k = min(100, scorer.n_items)
    expected, _ = rank(torch.from_numpy(scorer.score(*csr)), k, seen=some)
    if not np.array_equal(scorer.top_k(*csr, k)[0], expected):
        raise ExportError(
            "the exported graph does not rank by its scores; nothing was written: report this with the versions of "
            "torch and ONNX"
        )


def _by_torch(program: nn.Module, block: sp.csr_matrix) -> np.ndarray:
    items, offsets = (torch.from_numpy(part.astype(np.int64)) for part in (block.indices, block.indptr))
    with torch.no_grad():
        return program(items, offsets, torch.from_numpy(block.data)).numpy()


def write_neighbours(path: Path, model: Model, tell: Progress = _silent) -> None:
    """Write the items most similar to each item, nearest first; nothing if the model has no similarities.

    Parameters
    ----------
    path : Path
        The file: `columns` and `similarities`, each of shape (n_items, n_neighbours).
    model : Model
        Fitted.
    tell : callable
        Called with the progress.
    """
    n_items, n = model.n_items_, min(_NEIGHBOURS, model.n_items_ - 1)
    if n < 1 or not model.has_similarities:
        return
    columns = np.empty((n_items, n), dtype=np.int32)
    similarities = np.empty((n_items, n), dtype=np.float32)
    size = block_rows(n_items)
    for start in range(0, n_items, size):
        block = np.arange(start, min(start + size, n_items))  # (B,)
        scores = torch.tensor(model.similarities(block))  # (B, I)
        scores[torch.arange(len(block)), torch.from_numpy(block)] = -torch.inf  # itself
        columns[block], similarities[block] = rank(scores, n)  # (B, n)
        tell(block[-1] + 1, n_items, "finding similar items")
    with write_file(path) as aside, aside.open("wb") as file:
        np.savez(file, columns=columns, similarities=similarities)
