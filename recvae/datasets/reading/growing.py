"""An array whose length is not known yet, in pieces, so that it never needs twice its memory."""

import numpy as np

_ROWS = 1 << 25  # a piece is mapped on its own, and what is not filled yet takes no memory


class Growing:
    """Collects values of one type; `finish` returns them as one array.

    Parameters
    ----------
    dtype : numpy.dtype
        The type.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._pieces: list[np.ndarray] = []
        self._free = 0  # rows left in the last piece

    def __len__(self) -> int:
        """Return the number of values so far."""
        return len(self._pieces) * _ROWS - self._free

    def append(self, values: np.ndarray) -> None:
        """Add values (E,) at the end."""
        while len(values):
            if not self._free:
                self._pieces.append(np.empty(_ROWS, dtype=self._dtype))
                self._free = _ROWS
            start = _ROWS - self._free
            fitting = values[: self._free]
            self._pieces[-1][start : start + len(fitting)] = fitting
            self._free -= len(fitting)
            values = values[len(fitting) :]

    def truncate(self, length: int) -> None:
        """Keep only the first values."""
        n_pieces = -(-length // _ROWS)
        del self._pieces[n_pieces:]
        self._free = n_pieces * _ROWS - length

    def finish(self) -> np.ndarray:
        """Return all values (E,), and forget them; each piece is freed as soon as it is copied."""
        if len(self._pieces) == 1:
            return self._pieces.pop()[: _ROWS - self._free]
        values = np.empty(len(self), dtype=self._dtype)
        self._pieces.reverse()
        for start in range(0, len(values), _ROWS):
            piece = self._pieces.pop()
            values[start : start + _ROWS] = piece[: len(values) - start]
        self._free = 0
        return values
