"""An index of item vectors on disk, as `recvae export --format index` writes it, next to the run whose vectors it has.

index.faiss    the lists of items, see `vector_index`
export.json    of which model and weights it is, how many lists are searched, how much it finds; hashes
"""

from pathlib import Path

from recvae.bundles.exported import EXPORT_CARD, INDEX, MODEL_FILES, damaged, is_of_run, read_export
from recvae.errors import UsageError
from recvae.models.common.base import Model
from recvae.recommenders.retrieval import Retriever, hash_of, width_of
from recvae.recommenders.vector_index import VectorIndex, check_faiss


def read_retriever(folder: Path, model: Model, run: Path | None = None, *, mapped: bool = True) -> Retriever:
    """Read an index and put it to the model whose vectors it has.

    Parameters
    ----------
    folder : Path
        Written by `recvae export --format index`.
    model : Model
        Fitted.
    run : Path, optional
        The bundle the model was read from, which saves hashing its vectors.
    mapped : bool
        Whether the index stays in its file; see `VectorIndex.read`.

    Returns
    -------
    Retriever

    Raises
    ------
    UsageError
        If there is no index, faiss is missing, the model has no item vectors, or the index is of other vectors.
    BundleError
        If the index is damaged, or of a newer format.
    """
    check_faiss()
    vectors, bias = model.item_vectors()
    card = read_export(folder, INDEX)
    if not (run is not None and is_of_run(card, run)) and card.get("vectors") != hash_of(vectors, bias):
        whose = model.name if run is None else str(run)
        raise UsageError(
            f"{folder} is an index of other weights than those of {whose}, e.g. of an earlier training; "
            f"make a new one with `recvae export {run or 'RUN'} --format index`"
        )
    try:
        index = VectorIndex.read(folder / MODEL_FILES[INDEX], width_of(vectors, bias), mapped)
    except ValueError as error:
        raise damaged(folder, f"{MODEL_FILES[INDEX]} cannot be used: {error}") from error
    lists = card.get("lists")
    if isinstance(lists, bool) or not isinstance(lists, int) or not 1 <= lists <= index.n_lists:
        raise damaged(folder, f"{EXPORT_CARD} says lists {lists!r:.40}, expected 1 to {index.n_lists:,}")
    if index.n_items != len(vectors):
        raise damaged(folder, f"{MODEL_FILES[INDEX]} has {index.n_items:,} items, expected {len(vectors):,}")
    return Retriever(model, index, lists)
