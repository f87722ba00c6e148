"""Ids that look alike: texts that differ only in their Unicode form, in invisible signs or in the width of blanks.

A file put together from several sources may have "Björk" in two forms, with the same look. They stay two ids, since a
file may mean it so; the reader is told.

Letters in shape comments: D distinct ids.
"""

import unicodedata
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_INVISIBLE = r"[\x{AD}\x{200B}-\x{200F}\x{2060}\x{FEFF}]+"
_BLANKS = r"[\s\p{Z}]+"
_ODD = r"[^\x{00}-\x{7F}]|[\s]{2}|[\t\n\r\f\v]"  # what a text needs to look like another


class Twins(NamedTuple):
    """Ids that look like another id of the same column.

    Parameters
    ----------
    n_ids : int
        How many there are, the ones that they look like not counted.
    first, second : str
        Two that look alike.
    """

    n_ids: int
    first: str
    second: str

    @property
    def as_one(self) -> str:
        """How the two would be written as one id, as advice."""
        if unicodedata.normalize("NFC", self.first) == unicodedata.normalize("NFC", self.second):
            return "in one form, in Python unicodedata.normalize('NFC', text)"
        return "without invisible signs, and with single blanks of one kind"


def twins_of(ids: np.ndarray) -> Twins | None:
    """Return which ids look like another one.

    Parameters
    ----------
    ids : ndarray of shape (n_ids,), int64 or object (str)
        Distinct ids.

    Returns
    -------
    Twins or None
        None if all look different, as integers do.
    """
    if ids.dtype != object or not len(ids):
        return None
    texts = pa.array(ids, pa.large_string())
    if not _call("match_substring_regex", texts, pc.MatchSubstringOptions(_ODD)).to_numpy(zero_copy_only=False).any():
        return None
    seen = _call("utf8_normalize", texts, pc.Utf8NormalizeOptions("NFC"))
    for pattern, instead in ((_INVISIBLE, ""), (_BLANKS, " ")):
        seen = _call("replace_substring_regex", seen, pc.ReplaceSubstringOptions(pattern, instead))
    looks = seen.dictionary_encode().indices.to_numpy()  # (D,)
    _, first, inverse = np.unique(looks, return_index=True, return_inverse=True)
    others = np.flatnonzero(first[inverse] != np.arange(len(ids)))
    if not len(others):
        return None
    second = int(others[0])
    return Twins(len(others), str(ids[first[inverse[second]]]), str(ids[second]))


def _call(name: str, texts: pa.Array, options: pc.FunctionOptions) -> pa.Array:
    return pc.call_function(name, [texts], options)
