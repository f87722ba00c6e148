"""A column of ids -> codes: what an id is, `IdColumn` decides on the driver, over the distinct values of the column."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from recvae.datasets.reading.id_column import MISSING, IdColumn, Ids
from recvae.datasets.reading.options import LogFormat
from recvae.errors import DataError
from recvae.ids import plain_id
from recvae.spark.frames import frame_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The ids of a column, and the code of each value that is one.

    Parameters
    ----------
    ids : Ids
        The sorted ids; `missing` and `doubtful` count rows.
    values : pyarrow.Array
        The distinct values of the column that are ids.
    codes : ndarray of shape (n_values,), int32
        The position of each in the ids: two ways of writing an id have one.
    missing : list
        The distinct values that mean "no id".
    """

    ids: Ids
    values: pa.Array
    codes: np.ndarray
    missing: list[Any]

    @property
    def has_missing(self) -> bool:
        """Whether some rows have no id."""
        return bool(self.ids.missing)

    def coded(self, rows: "DataFrame", role: str) -> "DataFrame":
        """Return the rows that have an id, with its code as `user_code` or `item_code` in the place of `role`."""
        table = frame_of(rows.sparkSession, {role: self.values, f"{role}_code": self.codes})
        return rows.join(table, role).drop(role)


def keys_of(rows: "DataFrame", role: str, where: str, name: str, options: LogFormat) -> Keys:
    """Decide what the ids of a column are.

    Parameters
    ----------
    rows : DataFrame
        With a column `role`.
    role : str
        "user" or "item".
    where, name : str
        What messages call the table and the column.
    options : LogFormat
        Further words that mean a missing id.

    Raises
    ------
    DataError
        If the ids cannot be used; see `IdColumn`.
    """
    found = rows.groupBy(role).count().toArrow()
    values = found[role].combine_chunks()
    n_rows = found["count"].to_numpy()
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: the {role} column '{name}' holds texts that are not UTF-8; repair them") from error
    column = IdColumn(f"{where}: the {role} column '{name}'", options.null, options.kept)
    column.append(values)
    ids = column.finish()
    is_id = ids.codes != MISSING
    missing: Counter[str] = Counter()
    for place in np.flatnonzero(~is_id).tolist():
        text = values[place].as_py()
        missing["empty" if text is None else plain_id(text) or "empty"] += int(n_rows[place])
    doubtful = {}
    for word in ids.doubtful:
        code = np.searchsorted(ids.ids, int(word) if ids.ids.dtype != object else word)
        doubtful[word] = int(n_rows[ids.codes == code].sum())
    return Keys(
        ids=Ids(ids.codes, ids.ids, dict(missing), doubtful),
        values=values.filter(pa.array(is_id)),
        codes=ids.codes[is_id],
        missing=values.filter(pa.array(~is_id)).to_pylist(),
    )
