"""Arrays of a safetensors file as they lie in the file: mapped, not read, and without torch."""

import json
from pathlib import Path

import numpy as np

from recvae.storage.streams import NAMES

_DTYPES = {kind: np.dtype(name).newbyteorder("<") for name, kind in NAMES.items()}
_PREFIX = 8  # bytes: the length of the header


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """Map the arrays of a file that `arrays.write_weights` has written; memory is taken when they are used.

    Parameters
    ----------
    path : Path
        The file; while it is mapped, it may be replaced by another file, but not overwritten in place.

    Returns
    -------
    dict of str to ndarray
        Arrays by name, which cannot be written to.

    Raises
    ------
    OSError, ValueError, KeyError, TypeError
        If it is missing or damaged.
    """
    whole = np.memmap(path, dtype=np.uint8, mode="r")
    n_header = int(np.frombuffer(whole[:_PREFIX].tobytes(), dtype="<u8")[0])
    header = json.loads(whole[_PREFIX : _PREFIX + n_header].tobytes())
    body = whole[_PREFIX + n_header :]
    found = {}
    for name, one in header.items():
        start, end = one["data_offsets"]
        if not 0 <= start <= end <= len(body):
            raise ValueError(f"the file ends before the array '{name}'")
        found[name] = np.asarray(body[start:end]).view(_DTYPES[one["dtype"]]).reshape(one["shape"])
    return found
