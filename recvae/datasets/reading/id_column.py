"""A column of ids, however long, turned into codes and a table of distinct ids.

Batches come one after the other. What their ids are, integers or words, is decided once, over all of them.

Letters in shape comments: E rows, D distinct values.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recvae.datasets.reading.growing import Growing
from recvae.errors import DataError
from recvae.ids import BLANKS, MARKERS, MARKERS_AMONG_INTEGERS, MOST_EXACT, REMARKS, most_exact, plain_id, spellings
from recvae.interactions import in_chunks

MISSING = -1
"""The code of a row without an id."""

_INTEGER = r"^(0|-?[1-9][0-9]*)$"  # "007", "+7" and "-0" are words: as numbers they would be written differently
_WHOLE = r"^(0|-?[1-9][0-9]*)(\.0*)?$|^-?[0-9](\.[0-9]*)?[eE][+]?[0-9]{1,3}$"
_LIST = r"^\[.*[,; ].*\]$|^[^| ]+(\|[^| ]+){2,}$"
_REMARK = f"^({'|'.join(REMARKS)})"
_RULE = r"^(-{3,}|={3,})$"  # what databases write below a header
_NUMBERS, _MANY_NUMBERS = r"^\d+([,; ] ?\d+)+$", r"^\d+([,; ] ?\d+){2,}$"
_MOST_ODD, _ODD_SHARE = 3, 0.1  # words among so many integers are shown: one may be a line that is no row
_MOST_BYTES = 1 << 30
_PENDING = 1 << 18  # distinct values that wait until they are merged into the known ones


@dataclass(frozen=True)
class Ids:
    """A finished column of ids.

    Parameters
    ----------
    codes : ndarray of shape (n_rows,), int32
        Position of each row's id in `ids`; `MISSING` where there is none.
    ids : ndarray of shape (n_ids,), int64 or object (str)
        The distinct ids, ascending.
    missing : dict of str to int
        Rows without an id, by what stands there instead.
    doubtful : dict of str to int
        Rows by an id that is a word for "missing" elsewhere, and was kept.
    """

    codes: np.ndarray
    ids: np.ndarray
    missing: dict[str, int]
    doubtful: dict[str, int]

    def ids_named(self, names: Sequence[str]) -> np.ndarray:
        """Return which ids (D,) are one of these names, without regard to case and separators."""
        if self.ids.dtype != object:
            return np.zeros(len(self.ids), dtype=bool)
        texts = pc.call_function("utf8_lower", [pa.array(self.ids, pa.large_string())])
        plain = pc.call_function("replace_substring_regex", [texts], pc.ReplaceSubstringOptions("[^a-z0-9]", ""))
        return _is_in(plain, names)


class IdColumn:
    """Collects a column of ids, batch by batch.

    Parameters
    ----------
    name : str
        What messages call the column.
    markers : sequence of str
        Further words that mean a missing id, in every spelling: "-1" also as the integer -1, or as -1.0.
    kept : sequence of str
        Words that are ids here, whatever they mean elsewhere.
    """

    def __init__(self, name: str, markers: Sequence[str] = (), kept: Sequence[str] = ()) -> None:
        self._name = name
        self._kept = frozenset(kept)
        self._markers = {one for marker in markers if marker not in self._kept for one in spellings(marker)}
        self._numbers = [int(one) for one in self._markers if _integers(pa.array([one])) is not None]
        self._codes = Growing(np.dtype(np.int32))
        self._known: pa.Array | None = None
        self._pending: list[pa.DictionaryArray] = []
        self._n_pending = 0
        self._n_rows = 0

    def __len__(self) -> int:
        """Return the number of rows so far."""
        return self._n_rows

    def append(self, batch: pa.Array) -> None:
        """Add a batch of integers, floats or texts (E,)."""
        encoded = batch if isinstance(batch, pa.DictionaryArray) else batch.dictionary_encode()
        self._pending.append(encoded)
        self._n_pending += len(encoded.dictionary)
        self._n_rows += len(encoded)
        if self._n_pending > max(_PENDING, 0 if self._known is None else len(self._known)):
            self._merge()

    def truncate(self, n_rows: int) -> None:
        """Forget all rows but the first `n_rows`; their ids may stay known, without a row."""
        self._merge()
        self._codes.truncate(n_rows)
        self._n_rows = n_rows

    def finish(self, chosen: np.ndarray | None = None) -> Ids:
        """Decide what the ids are, and return codes in the order of rows.

        Parameters
        ----------
        chosen : ndarray of shape (n_rows,), bool, optional
            The rows that decide; the others have no id, and are not counted.

        Returns
        -------
        Ids
            Integers if every id is one, or a whole float that is exact; else texts without blanks around them.

        Raises
        ------
        DataError
            If the ids are floats that are not whole or not exact.
        """
        self._merge()
        codes = self._codes.finish()  # (E,) positions in the known values
        known = pa.array([], pa.string()) if self._known is None else self._known
        occurs = np.zeros(len(known) + 1, dtype=bool)  # (D + 1,), the last for null, whose code is -1
        for part in in_chunks(len(codes)):
            occurs[codes[part] if chosen is None else codes[part][chosen[part]]] = True
        used = np.flatnonzero(occurs[:-1])  # what only other rows had is not an id of this column
        values = known if len(used) == len(known) else known.take(pa.array(used))
        ids, position, missing = self._decide(values)  # (U,), (used,), marks
        new_code = np.full(len(known) + 1, MISSING, dtype=np.int32)  # the last stands for null
        new_code[used] = position
        unsure = {str(ids[code]): code for code in self._odd(ids)}
        reasons: Counter[str] = Counter()
        doubtful: dict[str, int] = {}
        if occurs[-1] or missing.any() or unsure:
            counts = _counts(codes, chosen, len(known))  # (D + 1,)
            reasons["empty"] = int(counts[-1])
            for place in np.flatnonzero(missing).tolist():
                reasons[plain_id(values[place].as_py()) or "empty"] += int(counts[used[place]])
            doubtful = {word: int(counts[used[position == code]].sum()) for word, code in unsure.items()}
        for part in in_chunks(len(codes)):
            codes[part] = new_code[codes[part]]
            if chosen is not None:
                codes[part][~chosen[part]] = MISSING
        return Ids(codes, ids, {reason: count for reason, count in reasons.items() if count}, doubtful)

    def _merge(self) -> None:
        """Give every pending row the code of its value among all values known so far."""
        if not self._pending:
            return
        parts = [piece.dictionary for piece in self._pending]
        if self._known is not None:
            parts = [self._known, *parts]
        if len({part.type for part in parts}) > 1:  # one file has integers, the other texts
            parts = [_as_text(self._exact(part)) for part in parts]
        is_large = any(pa.types.is_large_string(part.type) for part in parts)
        if is_large or sum(part.nbytes for part in parts) > _MOST_BYTES:  # an array of texts holds no more than 2 GiB
            parts = [part.cast(pa.large_string()) if pa.types.is_string(part.type) else part for part in parts]
        ends = np.cumsum([len(part) for part in parts])
        encoded = pa.chunked_array(parts).combine_chunks().dictionary_encode()
        positions = np.split(encoded.indices.fill_null(MISSING).to_numpy(zero_copy_only=False), ends[:-1])
        if self._known is not None:
            del positions[0]
        self._known = encoded.dictionary
        for piece, position in zip(self._pending, positions, strict=True):
            code_of = np.append(position, MISSING).astype(np.int32)  # the last stands for null
            self._codes.append(code_of[piece.indices.fill_null(-1).to_numpy(zero_copy_only=False)])
        self._pending, self._n_pending = [], 0

    def _decide(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the ascending ids, the place of each value (D,) among them or `MISSING`, and which are missing."""
        if pa.types.is_floating(values.type):
            return self._of_numbers(*self._whole_floats(values))
        if pa.types.is_integer(values.type) and values.type != pa.uint64():
            return self._of_numbers(values.cast(pa.int64()).to_numpy(), np.zeros(len(values), dtype=bool))
        return self._from_texts(_as_text(values))

    def _of_numbers(self, numbers: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what `_decide` returns, of integers (D,) that are ids but for some that are missing (D,)."""
        missing = missing | np.isin(numbers, self._numbers)
        position = np.full(len(numbers), MISSING, dtype=np.int64)
        ids, position[~missing] = np.unique(numbers[~missing], return_inverse=True)
        return ids, position, missing

    def _exact(self, values: pa.Array) -> pa.Array:
        """Return floats as integers, if they are whole and exact; other values as they are."""
        if not pa.types.is_floating(values.type):
            return values
        numbers, missing = self._whole_floats(values)
        return pa.array(numbers, mask=missing)

    def _whole_floats(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Return floats (D,) as int64, and which of them are missing; refuse what is not whole or not exact."""
        numbers = values.to_numpy(zero_copy_only=False)
        missing = np.isnan(numbers)
        present = numbers[~missing].astype(np.float64)
        most = most_exact(values)
        wrong = present[~(np.isfinite(present) & (present == np.floor(present)))]
        if len(wrong):
            raise DataError(
                f"{self._name} holds the number {wrong[0]:g}, expected whole numbers or texts as ids; "
                "choose another column, or write the ids as texts"
            )
        large = present[np.abs(present) > most]
        if len(large):
            raise DataError(
                f"{self._name} holds {values.type} numbers up to {np.abs(large).max():.0f}, which are exact only up to "
                f"{most}: different ids may have become one; write the ids as integers or texts"
            )
        whole = np.zeros(len(numbers), dtype=np.int64)
        whole[~missing] = present
        return whole, missing

    def _from_texts(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        texts = pc.call_function("utf8_trim", [values], pc.TrimOptions(characters=BLANKS))
        markers = [one for one in ("", *MARKERS, *self._markers) if one not in self._kept]
        missing = _is_in(texts, markers) | _match(texts, _RULE)
        present = texts.filter(pa.array(~missing))
        numbers = _integers(present)
        if numbers is None:
            unsure = _is_in(texts, [one for one in MARKERS_AMONG_INTEGERS if one not in self._kept])
            remarks = _match(texts, _REMARK) & ~_is_in(texts, list(self._kept))  # comments with as many columns
            if 2 * np.count_nonzero(remarks) <= np.count_nonzero(~(missing | unsure)):  # else they are tags
                unsure |= remarks
            others = texts.filter(pa.array(~(missing | unsure)))
            if unsure.any() and len(others):
                numbers = self._whole(others)
                if numbers is not None:
                    missing |= unsure
        if numbers is None:
            numbers = self._whole(present)
        self._refuse_lists(present)
        position = np.full(len(texts), MISSING, dtype=np.int64)
        if numbers is not None:
            position[~missing] = numbers
            return self._of_numbers(position, missing)
        encoded = _without_point(present).dictionary_encode()  # blanks are gone: " a" and "a" are one value now
        order = pc.call_function("array_sort_indices", [encoded.dictionary]).to_numpy()  # UTF-8 sorts as str does
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        position[~missing] = rank[encoded.indices.to_numpy()]
        return np.array(encoded.dictionary.take(pa.array(order)).to_pylist(), dtype=object), position, missing

    def _odd(self, ids: np.ndarray) -> list[int]:
        """Return the codes of ids that may be none: words for missing, remarks, and a few words among integers."""
        if ids.dtype != object or not len(ids):
            return []
        texts = pa.array(ids, pa.large_string())
        is_odd = _is_in(texts, [*MARKERS_AMONG_INTEGERS])
        is_word = ~_match(texts, _INTEGER)
        for doubtful in (is_word, _match(texts, _REMARK + r"\s")):
            if np.count_nonzero(doubtful) <= min(_MOST_ODD, _ODD_SHARE * len(ids)):
                is_odd |= doubtful
        return [code for code in np.flatnonzero(is_odd).tolist() if ids[code] not in self._kept]

    def _refuse_lists(self, texts: pa.Array) -> None:
        """Refuse a column whose cells hold lists of items: each would become one item."""
        is_list = _match(texts, _LIST)
        if _match(texts, _MANY_NUMBERS).any():
            is_list |= _match(texts, _NUMBERS)
        if is_list.any() and 2 * int(is_list.sum()) > len(texts):
            shown = texts[int(is_list.argmax())].as_py()
            raise DataError(
                f"{self._name} holds lists such as {shown[:60]!r}, expected one id per row; write one row per user and "
                "item, or lists in JSON lines or Parquet"
            )

    def _whole(self, texts: pa.Array) -> np.ndarray | None:
        """Return texts (D,) as int64 if all are integers or whole floats, e.g. "12" and "12.0"; else None.

        Raises
        ------
        DataError
            If all are, but one was rounded when it was written.
        """
        numbers = _integers(texts)
        if numbers is not None or not len(texts) or not _all_match(texts, _WHOLE):
            return numbers
        found = np.empty(len(texts), dtype=np.int64)
        for place, text in enumerate(texts.to_pylist()):
            exact = Decimal(text)
            was_float = "." in text or "e" in text.lower()
            shown_digits = "e" not in text.lower() or int(exact.as_tuple().exponent) <= 0
            if exact != exact.to_integral_value():
                return None
            if was_float and (abs(exact) > MOST_EXACT or not shown_digits):
                raise DataError(
                    f"{self._name} holds {text!r}, a rounded number: different ids may have become one; "
                    "write the ids as whole numbers or as texts"
                )
            if not -(2**63) <= exact < 2**63:
                return None
            found[place] = int(exact)
        return found


def _counts(codes: np.ndarray, chosen: np.ndarray | None, n_known: int) -> np.ndarray:
    """Return how often each of the known values occurs in the chosen rows (D + 1,), int64, the last for null."""
    counts = np.zeros(n_known + 1, dtype=np.int64)
    for part in in_chunks(len(codes)):
        here = codes[part] if chosen is None else codes[part][chosen[part]]
        counts += np.bincount(np.where(here < 0, n_known, here), minlength=len(counts))
    return counts


def _without_point(texts: pa.Array) -> pa.Array:
    """Return texts in which a whole float is the integer that occurs beside it: "100.0" and "100" are one id."""
    is_float = _match(texts, r"^(0|-?[1-9][0-9]*)\.0+$")
    if not is_float.any():
        return texts
    shorter = pc.call_function("replace_substring_regex", [texts], pc.ReplaceSubstringOptions(r"\.0+$", ""))
    occurs = pc.call_function("is_in", [shorter], pc.SetLookupOptions(value_set=texts))
    both = np.logical_and(is_float, occurs.to_numpy(zero_copy_only=False))
    return pc.call_function("if_else", [pa.array(both), shorter, texts])


def _as_text(values: pa.Array) -> pa.Array:
    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    return values if is_text else values.cast(pa.string())


def _is_in(texts: pa.Array, words: Sequence[str]) -> np.ndarray:
    options = pc.SetLookupOptions(value_set=pa.array(list(words), texts.type))
    return pc.call_function("is_in", [texts], options).to_numpy(zero_copy_only=False)


def _all_match(texts: pa.Array, pattern: str) -> bool:
    return bool(_match(texts, pattern).all())


def _match(texts: pa.Array, pattern: str) -> np.ndarray:
    matches = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(pattern))
    return matches.to_numpy(zero_copy_only=False)


def _integers(texts: pa.Array) -> np.ndarray | None:
    """Return texts (D,) as int64 if each is written as a plain integer of 64 bits; else None."""
    if not _all_match(texts, _INTEGER):
        return None
    try:
        return texts.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:  # longer than 64 bits
        return None
