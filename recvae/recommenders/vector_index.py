"""An index of item vectors: finds items with high inner products without multiplying with all of them.

Items are divided into lists by k-means on their vectors, and a search looks into the lists that promise most. For a
list with centre c and spread s (root mean square distance of its items from c), that is the highest q . c + 0.2 s |q|.
Distances of vectors decide who shares a list, inner products which lists are searched: lists made by inner products or
by angles, as an inverted index of inner products has them by default, need many times as many items for the same
recall, since vectors of popular items are longer (docs/performance.md has figures). In the lists, vectors are kept
with 8 bits for each number.

faiss makes the lists and searches them. What it reads from a file are numbers; it executes nothing.

Letters in shape comments: I items, L lists, W width of a vector, A width in the lists, B rows of a block.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from recvae.errors import TrainingError, requires_extra
from recvae.progress import Progress

if TYPE_CHECKING:
    import faiss

_SPREAD = 0.2
_LISTS_PER_ROOT = 4  # lists for each square root of the items
_LEAST_IN_LIST = 10  # items of a list on average
_ITERATIONS = 8  # of k-means
_SAMPLED = 40  # items for each list that k-means is given
_BLOCK = 50_000  # items added at a time
_STEP = 16  # numbers of 8 bits that a processor multiplies at a time: other widths take five times as long


def check_faiss() -> None:
    """Refuse to continue without faiss.

    Raises
    ------
    UsageError
        If it is not installed, with the command that installs it.
    """
    with requires_extra("retrieval", "an index of item vectors"):
        import faiss  # noqa: F401


class VectorIndex:
    """An index in memory, or mapped from its file; searching is thread-safe, and uses one thread.

    Parameters
    ----------
    index : faiss.IndexIVFScalarQuantizer
        Made by `build` or `read`.
    width : int
        Of its queries.
    """

    def __init__(self, index: "faiss.IndexIVFScalarQuantizer", width: int) -> None:
        import faiss

        self.width = width
        """Numbers of a query: the width of a vector, and one more where there is a bias."""
        self._index: Any = index
        self._parameters: Any = faiss.SearchParametersIVF
        self._selector: Any = faiss.IDSelectorBitmap
        self.n_items, self.n_lists = int(index.ntotal), int(index.nlist)
        """Number of items, and of lists."""

    @classmethod
    def build(
        cls, vectors: np.ndarray, bias: np.ndarray | None = None, *, seed: int = 0, progress: Progress | None = None
    ) -> Self:
        """Divide items into lists.

        Parameters
        ----------
        vectors : ndarray of shape (n_items, width), float32
            One per item.
        bias : ndarray of shape (n_items,), float32, optional
            What is added to each item's inner product.
        seed : int
            Of k-means; the same seed, items and number of threads give the same index.
        progress : Progress, optional
            Called with the items done, the items in all, and what is done now.

        Returns
        -------
        VectorIndex

        Raises
        ------
        UsageError
            If faiss is missing.
        TrainingError
            If a vector or a bias is not finite.
        """
        check_faiss()
        import faiss

        if not all(np.isfinite(one).all() for one in (vectors, bias) if one is not None):
            raise TrainingError(
                "the model has item vectors that are not numbers; train it again with a lower learning rate"
            )
        tell, n_items = progress or _silent, len(vectors)
        tell(0, 2 * n_items, "dividing the items into lists")
        centres = _centres(vectors, bias, seed)  # (L, W)
        of_items, spreads = _divided(vectors, bias, centres, tell)  # (I,), (L,)
        found = _empty(_widened(centres, _SPREAD * spreads), _widened(_ranges(vectors, bias), 0.0))  # (L, A), (2, A)
        for start, block in _blocks(vectors, bias):
            end = start + len(block)
            wide, numbers = _widened(block, 0.0), np.arange(start, end, dtype=np.int64)  # (B, A), (B,)
            pointers = [faiss.swig_ptr(one) for one in (wide, numbers, np.ascontiguousarray(of_items[start:end]))]
            cast(Any, found).add_core(len(wide), *pointers)
            tell(n_items + end, 2 * n_items, "keeping their vectors with 8 bits")
        return cls(found, centres.shape[1])

    @classmethod
    def read(cls, path: Path, width: int, mapped: bool = True) -> Self:
        """Read an index.

        Parameters
        ----------
        path : Path
            Written by `write`.
        width : int
            Of its queries.
        mapped : bool
            Whether the vectors stay in their file, which is then read where it is searched; the file may be replaced
            by another one, but not overwritten in place.

        Returns
        -------
        VectorIndex

        Raises
        ------
        UsageError
            If faiss is missing.
        ValueError
            If the file holds no such index.
        """
        check_faiss()
        import faiss

        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if mapped else 0)
        except (RuntimeError, MemoryError) as error:  # what faiss raises ends with where in its code it was raised
            raise ValueError(str(error).rpartition(": ")[2]) from error
        kinds = (faiss.IndexIVFScalarQuantizer, faiss.IndexFlatIP)
        if not isinstance(index, kinds[0]) or index.metric_type != faiss.METRIC_INNER_PRODUCT or index.by_residual:
            raise ValueError("it is an index of another kind")
        centres = faiss.downcast_index(index.quantizer)
        if not isinstance(centres, kinds[1]) or (centres.ntotal, centres.d) != (index.nlist, index.d):
            raise ValueError("it has no centre for each list")
        if index.d != _width_in_lists(width):
            raise ValueError(f"its vectors have {index.d} numbers, expected {_width_in_lists(width)}")
        lists: Any = faiss.downcast_InvertedLists(cast(Any, index.invlists))
        if mapped:
            lists.prefetch_nthread = 0  # it would start 32 threads for each search
        sizes = [lists.list_size(number) for number in range(index.nlist)]  # (L,)
        if sum(sizes) != index.ntotal:
            raise ValueError("its lists have not the items that it says")
        columns = [faiss.rev_swig_ptr(lists.get_ids(number), size) for number, size in enumerate(sizes) if size]
        if not np.array_equal(np.sort(np.concatenate([[], *columns])), np.arange(index.ntotal)):
            raise ValueError("it has not each item once")
        return cls(index, width)

    def write(self, path: Path) -> None:
        """Write it to a file, for `read`.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        import faiss

        try:
            faiss.write_index(self._index, str(path))
        except RuntimeError as error:
            raise OSError(str(error)) from error

    def search(self, query: np.ndarray, n: int, lists: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """Return items with high inner products with a user's vector.

        Parameters
        ----------
        query : ndarray of shape (width,), float32
            With a 1 at its end if the index was built with a bias.
        n : int
            Number of items, >= 1.
        lists : int
            Number of lists to look into, from 1 to `n_lists`.
        allowed : ndarray of shape (n_items / 8,), uint8, optional
            One bit for each item that may be found, the first the lowest; by default all.

        Returns
        -------
        ndarray of shape (n_found,), int64
            Their columns, ascending; fewer than n if these lists have no more.
        """
        wide = _widened(query[None], np.sqrt(np.dot(query, query)))  # (W,) -> (1, A)
        chosen = {} if allowed is None else {"sel": self._selector(allowed)}
        _, columns = self._index.search(wide, n, params=self._parameters(nprobe=lists, **chosen))  # (1, n)
        return np.sort(columns[columns >= 0])


def _silent(done: float, total: float | None, note: str) -> None:
    """Show no progress."""


def _blocks(vectors: np.ndarray, bias: np.ndarray | None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the vectors block by block, each with its bias at the end, (B, W), and where each block starts."""
    for start in range(0, len(vectors), _BLOCK):
        yield start, _joined(vectors[start : start + _BLOCK], None if bias is None else bias[start : start + _BLOCK])


def _joined(vectors: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    whole = vectors if bias is None else np.column_stack([vectors, bias])  # (B, W)
    return np.ascontiguousarray(whole, dtype=np.float32)


def _width_in_lists(width: int) -> int:
    """Return how many numbers a vector has in the lists: the spread is one more, zeros fill it up to whole steps."""
    return -(-(width + 1) // _STEP) * _STEP


def _widened(vectors: np.ndarray, spread: np.ndarray | float) -> np.ndarray:
    """Return vectors (B, A) as the lists have them."""
    n_rows, width = vectors.shape
    wide = np.zeros((n_rows, _width_in_lists(width)), dtype=np.float32)
    wide[:, :width], wide[:, width] = vectors, spread
    return wide


def _centres(vectors: np.ndarray, bias: np.ndarray | None, seed: int) -> np.ndarray:
    """Return the centres of the lists (L, W): k-means on a sample of the items."""
    import faiss

    n_items = len(vectors)
    n_lists = max(1, min(round(_LISTS_PER_ROOT * n_items**0.5), n_items // _LEAST_IN_LIST))
    some = np.arange(n_items)
    if n_items > _SAMPLED * n_lists:
        some = np.sort(np.random.default_rng(seed).choice(n_items, _SAMPLED * n_lists, replace=False))
    sample = _joined(vectors[some], None if bias is None else bias[some])
    kmeans = faiss.Kmeans(
        sample.shape[1],
        n_lists,
        niter=_ITERATIONS,
        seed=seed,
        min_points_per_centroid=1,  # with fewer than 39 it would print a warning
        max_points_per_centroid=_SAMPLED + 1,
    )
    kmeans.train(sample)
    assert kmeans.centroids is not None
    return kmeans.centroids


def _divided(
    vectors: np.ndarray, bias: np.ndarray | None, centres: np.ndarray, tell: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Return the list of each item (I,), that of the nearest centre, and the spread of each list (L,)."""
    import faiss

    nearest = faiss.IndexFlatL2(centres.shape[1])
    nearest.add(cast(Any, centres))
    of_items, squares = np.empty(len(vectors), dtype=np.int64), np.empty(len(vectors))
    for start, block in _blocks(vectors, bias):
        here = slice(start, start + len(block))
        found, lists = cast(Any, nearest).search(block, 1)  # (B, 1), (B, 1)
        of_items[here], squares[here] = lists[:, 0], found[:, 0]
        tell(here.stop, 2 * len(vectors), "dividing the items into lists")
    sizes = np.bincount(of_items, minlength=len(centres))  # (L,)
    sums = np.bincount(of_items, weights=np.maximum(squares, 0), minlength=len(centres))  # (L,)
    return of_items, np.sqrt(sums / np.maximum(sizes, 1))


def _ranges(vectors: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Return the lowest value of each number of a vector, and how far it is to the highest, (2, W).

    Of all vectors: of a sample, those of popular items would lie beyond it, and these must be found first.
    """
    low = np.min([block.min(axis=0) for _, block in _blocks(vectors, bias)], axis=0)  # (W,)
    high = np.max([block.max(axis=0) for _, block in _blocks(vectors, bias)], axis=0)  # (W,)
    return np.stack([low, high - low])


def _empty(centres: np.ndarray, ranges: np.ndarray) -> "faiss.IndexIVFScalarQuantizer":
    """Return an index without items, with these centres (L, A) and ranges (2, A)."""
    import faiss

    n_lists, width = centres.shape
    quantizer = faiss.IndexFlatIP(width)
    cast(Any, quantizer).add(np.ascontiguousarray(centres))
    bits = faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexIVFScalarQuantizer(quantizer, width, n_lists, bits, faiss.METRIC_INNER_PRODUCT, False)
    index.own_fields = True  # so that it frees the quantizer,
    cast(Any, quantizer).this.disown()  # which Python must then not free
    faiss.copy_array_to_vector(ranges.ravel(), index.sq.trained)
    index.is_trained = True
    return index
