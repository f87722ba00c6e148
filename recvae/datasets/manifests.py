"""The manifest of a data set in memory: made of its split, and held against its content before that is written."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from recvae.datasets.folder import counts_of_parts, fingerprint_of, manifest_of
from recvae.datasets.splits.base import Split
from recvae.errors import UsageError
from recvae.interactions import HeldOut


def manifest_of_split(
    split: Split, name: str, filters: dict[str, Any] | None, source: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the manifest of a new data set; see `manifest_of`.

    Raises
    ------
    UsageError
        If the name cannot be the name of a folder.
    """
    return manifest_of(
        name,
        source=source or {},
        filters=filters or {},
        protocol=split.protocol,
        counts=counts_of_parts(split),
        dropped=split.dropped,
        fingerprint=fingerprint_of(split.train, split.validation, split.test, split.item_ids),
    )


def check_content(
    manifest: Mapping[str, Any], train: sp.csr_matrix, validation: HeldOut, test: HeldOut, item_ids: np.ndarray
) -> None:
    """Refuse to write content that the manifest is not of: it would be called damaged when it is read.

    Raises
    ------
    UsageError
        If a matrix or an id was replaced, or there is no manifest.
    """
    told = str(manifest.get("fingerprint", ""))
    if told != fingerprint_of(train, validation, test, item_ids):
        what = f"its manifest is of others (fingerprint {told[:12]})" if told else "it has no manifest"
        raise UsageError(
            f"got a data set to save whose matrices and item ids were put together by hand: {what}, so that it could "
            "not be read again; make it with Dataset.from_split(Split(...), name=NAME), which writes a manifest"
        )
