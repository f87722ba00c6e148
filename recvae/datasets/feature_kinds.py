"""What a column of items' features holds: numbers, words, lists of words, or vectors; decided over the whole column.

Letters in shape comments: R rows of the table, I items, P pairs of a row and a word, W words, V rows with a vector,
D dimensions of a vector.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from recvae.datasets.columns import plain_name
from recvae.datasets.feature_texts import (
    BETWEEN,
    NO_NUMBER,
    NO_WORDS,
    are_arrays,
    are_objects,
    array_of,
    is_number,
    numbers_in,
)
from recvae.errors import DataError
from recvae.ids import BLANKS

NUMBERS, WORDS, LISTS, VECTORS = "numbers", "words", "lists", "vectors"

_TYPED = {"token": WORDS, "token_seq": LISTS, "float": NUMBERS, "float_seq": VECTORS}  # RecBole: genre:token_seq
_OWN_SHARE = 0.8  # a column is left out if it has more distinct words than this share of its pairs of item and word
_FEWEST = 20  # pairs or values; in a smaller table it says nothing that all differ
_FEW_MISTAKES = 0.05  # up to this share, what is no number in a column of numbers is a mistake


@dataclass(frozen=True)
class FeatureColumn:
    """What one column of a table has become.

    Parameters
    ----------
    name : str
        Its name in the table.
    kind : str
        "numbers", "words", "lists" or "vectors".
    n_features : int
        Number of columns of the matrix.
    n_without : int
        Items for which the column holds nothing.
    """

    name: str
    kind: str
    n_features: int
    n_without: int

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Block:
    """The features that one column makes.

    Parameters
    ----------
    column : FeatureColumn
        What the column is.
    names : tuple of str
        The name of each feature, e.g. `genre=Drama`.
    matrix : ndarray or csr_matrix of shape (n_items, n_features), float32
        Sparse for words and lists, dense for numbers and vectors.
    has : ndarray of shape (n_items,), bool
        The items for which the column holds something.
    """

    column: FeatureColumn
    names: tuple[str, ...]
    matrix: np.ndarray | sp.csr_matrix
    has: np.ndarray


class LeftOutError(Exception):
    """Raised about a column that is no use as a feature; the text says why."""


@dataclass(frozen=True)
class Values:
    """One column of a table, as it was read.

    Parameters
    ----------
    name : str
        Its name in the table.
    where : str
        How messages call it: the file and the column.
    values : Array of shape (n_rows,)
        Texts, float64, or lists of one of these.
    rows : ndarray of shape (n_rows,), int64
        The item of each row, as a place in `item_ids`.
    item_ids : ndarray of shape (n_items,), int64 or object (str)
        Ids of the items of the data set.
    null : frozenset of str
        Further words that mean a missing value.
    what : {"item", "user"}
        What a row is, for messages.
    """

    name: str
    where: str
    values: pa.Array
    rows: np.ndarray
    item_ids: np.ndarray
    null: frozenset[str] = frozenset()
    what: str = "item"

    @property
    def label(self) -> str:
        """The name without the type that RecBole writes behind it."""
        start, _, kind = self.name.rpartition(":")
        return start if start and kind in _TYPED else self.name

    @property
    def asked(self) -> str | None:
        """The kind that RecBole writes behind the name; None where there is none."""
        return _TYPED.get(self.name.rpartition(":")[2]) if ":" in self.name else None

    def block(self, is_chosen: bool = False) -> Block:
        """Decide what the column holds, and return its features.

        Parameters
        ----------
        is_chosen : bool
            Whether the user named the column: it is then not left out because nearly every item has its own word.

        Returns
        -------
        Block
            The features.

        Raises
        ------
        LeftOutError
            If it holds nothing, or nearly every item has a word of its own.
        DataError
            If a value cannot be used, or two rows of an item contradict each other.
        """
        kind = self.values.type
        if pa.types.is_floating(kind):
            numbers = self.values.to_numpy(zero_copy_only=False)
            null = [float(word) for word in self.null if is_number(word)]
            return self._numbers(np.where(np.isin(numbers, null), np.nan, numbers), is_chosen)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return self._lists(self.values, is_chosen)
        return self._texts(is_chosen)

    def _item(self, row: Any) -> str:
        return f"{self.what} {self.item_ids[int(self.rows[row])]}"

    def _numbers(self, numbers: np.ndarray, is_chosen: bool) -> Block:
        """Return the feature of numbers (R,), of which NaN is missing."""
        present = ~np.isnan(numbers)
        items, found = self.rows[present], numbers[present]
        if not len(found):
            raise LeftOutError(f"{self.where} is empty, and left out")
        with np.errstate(over="ignore"):
            wrong = np.flatnonzero(present & ~np.isfinite(numbers.astype(np.float32)))
        if len(wrong):
            raise DataError(
                f"{self.where}: {self._item(wrong[0])} has {numbers[wrong[0]]:g}, expected finite numbers; "
                "repair or empty the value"
            )
        least, most = np.full(len(self.item_ids), np.inf), np.full(len(self.item_ids), -np.inf)  # (I,)
        np.minimum.at(least, items, found)
        np.maximum.at(most, items, found)
        twice = np.flatnonzero(most > least)
        if len(twice):
            item = twice[0]
            raise DataError(
                f"{self.where}: {self.what} {self.item_ids[item]} has {least[item]:g} and {most[item]:g} in several "
                "rows, expected one number; keep one row"
            )
        has = np.isfinite(least)
        n_distinct, n_items = len(np.unique(found)), int(has.sum())
        is_id = plain_name(self.label).endswith("id") and bool((found == np.floor(found)).all())
        if is_id and not is_chosen and n_items >= _FEWEST and n_distinct > _OWN_SHARE * n_items:
            raise LeftOutError(f"{self.where} looks like another id, and is left out; take it with {self._switch}")
        column = FeatureColumn(self.name, NUMBERS, 1, len(has) - n_items)
        matrix = np.where(has, least, 0).astype(np.float32)[:, None]  # (I, 1)
        return Block(column, (self.label,), matrix, has)

    @property
    def _switch(self) -> str:
        return f"--feature-col '{self.name}'"

    def _lists(self, lists: pa.Array, is_chosen: bool) -> Block:
        """Return the features of lists (R,) of texts or numbers."""
        rows = pc.call_function("list_parent_indices", [lists]).to_numpy(zero_copy_only=False)  # (P,)
        flat = pc.call_function("list_flatten", [lists])  # (P,)
        if not pa.types.is_floating(flat.type):
            return self._words(LISTS, rows, flat, is_chosen)
        numbers = flat.to_numpy(zero_copy_only=False).astype(np.float64)  # (P,)
        lengths = np.bincount(rows, minlength=len(lists))  # (R,)
        present = np.flatnonzero(lengths)
        if not len(present):
            raise LeftOutError(f"{self.where} is empty, and left out")
        if len(np.unique(lengths[present])) == 1 and self.asked in (None, VECTORS):
            return self._vectors(present, numbers.reshape(len(present), -1))
        if np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all() and self.asked in (None, LISTS):
            return self._words(LISTS, rows, pa.array([str(int(number)) for number in numbers]), is_chosen)
        first = present[0]
        other = next((row for row in present if lengths[row] != lengths[first]), first)
        raise DataError(
            f"{self.where}: {self._item(first)} has {lengths[first]} numbers and {self._item(other)} has "
            f"{lengths[other]}, expected vectors of the same length; repair the rows"
        )

    def _vectors(self, places: np.ndarray, vectors: np.ndarray) -> Block:
        """Return the features of vectors (V, D), which stand in these rows (V,)."""
        with np.errstate(over="ignore"):
            narrow = vectors.astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(narrow).all(axis=1))
        if len(wrong):
            row, place = wrong[0], int(np.flatnonzero(~np.isfinite(narrow[wrong[0]]))[0])
            raise DataError(
                f"{self.where}: the vector of {self._item(places[row])} holds {vectors[row, place]:g} at place "
                f"{place}, expected finite numbers; repair it"
            )
        items, first, inverse = np.unique(self.rows[places], return_index=True, return_inverse=True)
        twice = np.flatnonzero((narrow != narrow[first[inverse]]).any(axis=1))
        if len(twice):
            raise DataError(
                f"{self.where}: {self._item(places[twice[0]])} has several rows with different vectors, expected one "
                "vector; keep one row"
            )
        matrix = np.zeros((len(self.item_ids), narrow.shape[1]), dtype=np.float32)  # (I, D)
        matrix[items] = narrow[first]
        column = FeatureColumn(self.name, VECTORS, matrix.shape[1], len(matrix) - len(items))
        names = tuple(f"{self.label}[{place}]" for place in range(matrix.shape[1]))
        return Block(column, names, matrix, np.isin(np.arange(len(matrix)), items))

    def _words(self, kind: str, places: np.ndarray, words: pa.Array, is_chosen: bool) -> Block:
        """Return the features of words (P,), which stand in these rows (P,)."""
        encoded = words.dictionary_encode()
        texts = [(text or "").strip(BLANKS) for text in encoded.dictionary.to_pylist()]
        known = sorted({text for text in texts if text not in NO_WORDS and text not in self.null})
        code_of = {text: code for code, text in enumerate(known)}
        code = np.array([*(code_of.get(text, -1) for text in texts), -1], dtype=np.int64)  # the last stands for null
        codes = code[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]  # (P,)
        items = self.rows[places][codes >= 0]
        if not len(items):
            raise LeftOutError(f"{self.where} is empty, and left out")
        shape = (len(self.item_ids), len(known))  # (I, W)
        matrix = sp.csr_matrix((np.ones(len(items), dtype=np.float32), (items, codes[codes >= 0])), shape=shape)
        matrix.sum_duplicates()
        matrix.data[:] = 1
        if not is_chosen and matrix.nnz >= _FEWEST and len(known) > _OWN_SHARE * matrix.nnz:
            raise LeftOutError(
                f"{self.where} holds {len(known):,} different words for {matrix.nnz:,} values, so nearly every "
                f"{self.what} has its own, and is left out; take it with {self._switch}"
            )
        has = np.diff(matrix.indptr) > 0  # (I,)
        column = FeatureColumn(self.name, kind, len(known), int((~has).sum()))
        return Block(column, tuple(f"{self.label}={word}" for word in known), matrix, has)

    def _texts(self, is_chosen: bool) -> Block:
        """Decide what texts (R,) are, and return their features."""
        encoded = self.values.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)  # (R,)
        texts = [text.strip(BLANKS) for text in encoded.dictionary.to_pylist()]
        present = {text for text in texts if text not in NO_NUMBER and text not in self.null}
        if are_objects(present):
            raise LeftOutError(f"{self.where} holds JSON objects, expected texts, numbers or lists, and is left out")
        if self.asked == VECTORS or (self.asked is None and are_arrays(present)):
            return self._lists(self._arrays(texts, codes), is_chosen)
        if self.asked in (None, NUMBERS):
            numbers = numbers_in(present, self.where, is_sure=self.asked == NUMBERS)
            if numbers is not None:
                values = np.array([*(numbers.get(text, np.nan) for text in texts), np.nan])  # the last stands for null
                return self._numbers(values[codes], is_chosen)
            self._refuse_mistakes(texts, present, codes)
        between = None if self.asked == LISTS else BETWEEN  # None splits at any blanks
        if self.asked == LISTS or (self.asked is None and any(BETWEEN in text for text in present)):
            lists = pa.array([text.split(between) for text in texts], pa.list_(pa.string()))
            return self._lists(lists.take(pa.array(codes, mask=codes < 0)), is_chosen)
        return self._words(WORDS, np.arange(len(codes)), self.values, is_chosen)

    def _refuse_mistakes(self, texts: list[str], present: set[str], codes: np.ndarray) -> None:
        """Refuse words in a column of numbers: all but a few of the rows are numbers, or the column is called so."""
        wrong = {text for text in present if not is_number(text)}
        counts = np.bincount(codes[codes >= 0], minlength=len(texts)).tolist()  # rows of each text
        n_rows = sum(count for text, count in zip(texts, counts, strict=True) if text in present)
        n_wrong = sum(count for text, count in zip(texts, counts, strict=True) if text in wrong)
        if not n_wrong or (self.asked != NUMBERS and (n_rows < _FEWEST or n_wrong > _FEW_MISTAKES * n_rows)):
            return
        place = next(place for place, text in enumerate(texts) if text in wrong)
        raise DataError(
            f"{self.where}: {self._item(int(np.flatnonzero(codes == place)[0]))} has {texts[place][:60]!r}, but "
            f"{n_rows - n_wrong:,} of {n_rows:,} values are numbers; repair or empty the value, call the column "
            f"'{self.label}:token' if it holds words, or choose other columns with --feature-col"
        )

    def _arrays(self, texts: list[str], codes: np.ndarray) -> pa.Array:
        """Return texts (R,) that are JSON arrays as lists (R,) of numbers, or of words."""
        parsed: list[list[Any] | None] = []
        for place, text in enumerate(texts):
            found = array_of(text, split=self.asked == VECTORS)
            if found is None and text not in NO_NUMBER and text not in self.null:
                row = int(np.flatnonzero(codes == place)[0])
                raise DataError(
                    f"{self.where}: {self._item(row)} has {text[:60]!r}, expected a list of texts or of numbers as in "
                    "the other rows; repair it"
                )
            parsed.append(found)
        are_numbers = all(isinstance(one, int | float | None) for found in parsed for one in found or ())
        if are_numbers:
            rows = [
                None if found is None else [float("nan") if one is None else float(one) for one in found]
                for found in parsed
            ]
            lists = pa.array(rows, pa.list_(pa.float64()))
        else:
            rows = [None if found is None else [None if one is None else str(one) for one in found] for found in parsed]
            lists = pa.array(rows, pa.list_(pa.string()))
        return lists.take(pa.array(codes, mask=codes < 0))
