"""What is given to draw from codes, checked; and the source of each user's draws.

Users who are given draw by what their history holds (`draws_for`), so that it gets one score wherever it stands and
whoever is beside it. Those of different histories are independent, as an interval of a mean over users takes them to
be; users with the same history share them, and have one value, which a mean counts as often as there are such users.
Made-up users have no history yet, and draw by their number (`draws_of`).
"""

from hashlib import blake2b
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from recvae.errors import UsageError


def check_seed(seed: int) -> int:
    """Return a seed of draws; refuse (UsageError) what is no whole number from 0 to 2^31 - 1, as libraries take."""
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise UsageError(f"got seed={seed!r}, expected a whole number, 0 or more and below 2^31; give one such as 0")
    return int(seed)


def draws_of(seed: int, row: int, of: str = "codes") -> np.random.Generator:
    """Return the source of a made-up user's draws, the same whatever users are beside it."""
    check_seed(seed)
    return np.random.Generator(np.random.Philox(key=[seed, 2 * row + (of == "items")]))


def content_keys(rows: sp.csr_matrix) -> list[bytes]:
    """Return what stands for each user's items and weights: the same 16 bytes for the same history, wherever it is.

    Parameters
    ----------
    rows : csr_matrix of shape (n_users, n_items)
        Sorted, without stored zeros.
    """
    items, weights = rows.indices.astype("<i8", copy=False), rows.data.astype("<f4", copy=False)  # (N,), (N,)
    ends = rows.indptr.tolist()
    return [
        blake2b(items[start:end].tobytes() + weights[start:end].tobytes(), digest_size=16).digest()
        for start, end in pairwise(ends)
    ]


def draws_for(seed: int, key: bytes, of: str = "codes") -> np.random.Generator:
    """Return the source of a user's draws, given the history's key (see `content_keys`)."""
    salt = check_seed(seed).to_bytes(8, "little")
    words = np.frombuffer(blake2b(key, digest_size=16, salt=salt, person=of.encode()).digest(), "<u8")
    return np.random.Generator(np.random.Philox(key=words))


def standard_normal(n: int, width: int, seed: int) -> np.ndarray:
    """Return a draw for each of so many users, shape (n, width), float64; each from the user's own source."""
    drawn = [draws_of(seed, row).standard_normal(width) for row in range(n)]
    return np.array(drawn).reshape(-1, width)


def check_lengths(lengths: np.ndarray, n_items: int) -> np.ndarray:
    """Return how many items each made-up history shall have, int64; refuse (UsageError) what is out of range."""
    wanted = np.asarray(lengths)
    if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer):
        raise UsageError(
            f"got lengths of shape {wanted.shape}, {wanted.dtype}, expected whole numbers, one for each history"
        )
    if len(wanted) and not 0 <= wanted.min() <= wanted.max() <= n_items:
        raise UsageError(f"got lengths from {wanted.min()} to {wanted.max()}, expected 0 to {n_items:,}, the items")
    return wanted.astype(np.int64)


def check_samples(n_samples: int) -> int:
    """Return a number of draws; refuse (UsageError) what is no whole number, 1 or more."""
    if not isinstance(n_samples, int | np.integer) or isinstance(n_samples, bool) or n_samples < 1:
        raise UsageError(f"got n_samples={n_samples!r}, expected a whole number >= 1; give one such as 100")
    return int(n_samples)


def as_codes(codes: np.ndarray) -> np.ndarray:
    """Return codes as float32; refuse (UsageError) what holds no numbers. What is too large becomes infinite."""
    try:
        given = np.asarray(codes)
    except ValueError as error:
        raise UsageError(
            f"got codes that are no array ({error}), expected numbers; give a row for each user"
        ) from error
    if given.dtype.kind not in "biuf":
        raise UsageError(f"got codes of type {given.dtype}, expected numbers; give an array of float32")
    with np.errstate(over="ignore"):
        return given.astype(np.float32)


def check_apart(fold_in: sp.csr_matrix, targets: sp.csr_matrix) -> None:
    """Refuse (UsageError) targets of another shape than the fold-in, and those that are in it."""
    if fold_in.shape != targets.shape:
        raise UsageError(f"got targets of shape {targets.shape}, expected {fold_in.shape}, that of the fold-in")
    both = fold_in.multiply(targets).nnz
    if both:
        raise UsageError(f"got {both:,} targets that are in the fold-in, expected none; leave them out of one")
