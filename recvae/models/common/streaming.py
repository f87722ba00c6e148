"""Which models can be fitted to rows that lie on disk, and what these take in memory meanwhile."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import scipy.sparse as sp
import torch

from recvae.compute.memory import check_amount, enough_bytes, rows_within
from recvae.datasets.streams import BUFFER_BYTES, INTERACTION_BYTES, USER_BYTES, StreamedMatrix
from recvae.errors import MemoryLimitError, UsageError
from recvae.interactions import StoredRows, as_interactions
from recvae.ranking import block_rows

if TYPE_CHECKING:
    from recvae.models.common.base import Model

_LEAST_BUFFER = 1_000_000  # bytes: smaller ones are not proposed


def checked_rows(model: "type[Model]", train: Any) -> sp.csr_matrix:
    """Return training rows that a model can be fitted to: a matrix in memory, or one that is streamed.

    Raises
    ------
    UsageError
        If the model needs the whole matrix; with the models that do not.
    DataError
        If they are no interactions, or a shard is missing or damaged.
    """
    if not isinstance(train, StreamedMatrix):
        return as_interactions(train, "the training interactions")
    check_can_stream(model)
    return cast(Any, train.checked())  # models with `streams` ask it only for what both have


def check_can_stream(model: "type[Model]") -> None:
    """Refuse a model that needs all training rows in memory; see `checked_rows`."""
    if not model.streams:
        from recvae.models import MODELS  # the registry imports this package

        able = ", ".join(name for name, known in MODELS.items() if known.streams)
        raise UsageError(
            f"got {model.name} for training rows that stay on disk, but it works on the whole training matrix, "
            f"expected one of {able}; or leave out --stream (in Python: load the data set without stream=True)"
        )


def as_held(model: "Model", train: sp.csr_matrix | StoredRows, buffer: int | None) -> tuple[Any, tuple[int, int, int]]:
    """Return a model, and users, items and interactions that are in memory at a time, for `Model.needs`.

    Parameters
    ----------
    model : Model
        Not fitted.
    train : csr_matrix or StoredRows of shape (n_users, n_items)
        Training rows.
    buffer : int or None
        Bytes of them that are held; None for all.

    Returns
    -------
    model : Model
        With the batches that it has for all rows.
    size : tuple of int
        Beside the buffer, the users who wait for a batch count.
    """
    (n_users, n_items), nnz = train.shape, train.nnz
    n_bytes = INTERACTION_BYTES * nnz + USER_BYTES * n_users
    if buffer is None or buffer >= n_bytes:
        return model, (n_users, n_items, nnz)
    batch = model.users_per_update(n_users) if isinstance(model, HasBatches) else 0
    held = min(n_users, -(-n_users * buffer // n_bytes) + batch)
    size = held, n_items, -(-nnz * held // max(n_users, 1))
    return (replace(cast(Any, model), batch_size=batch) if batch else model), size


@runtime_checkable
class HasBatches(Protocol):
    """A model that is trained in batches of users; `Autoencoder` is."""

    def users_per_update(self, n_users: int) -> int:
        """Return users of a batch, for so many training users."""
        ...


def rows_while_training(
    model: "Model", train: sp.csr_matrix | StoredRows, device: torch.device, max_memory: int | None
) -> int:
    """Return how many validation users to score at a time, given what training holds in memory."""
    held, size = as_held(model, train, buffer_of(train))
    needs = held.needs(*size, on_gpu=device.type == "cuda")
    return rows_within(max_memory, needs.held, needs.per_user, block_rows(train.shape[1]))


def buffer_of(train: Any) -> int | None:
    """Return the bytes of training rows that are held at a time; None for a matrix in memory."""
    return train.buffer if isinstance(train, StreamedMatrix) else None


def layout_of(train: Any) -> str | None:
    """Return what tells one way to cut training rows into shards from another; None where the order is the same."""
    return train.layout if isinstance(train, StreamedMatrix) else None


def order_of(train: Any) -> dict[str, Any]:
    """Return what the order of streamed users depends on, beside the seed; nothing for rows in memory."""
    found = {"stream": buffer_of(train), "shards": layout_of(train)}
    return {name: value for name, value in found.items() if value is not None}


def stream_of(train: Any) -> dict[str, Any] | None:
    """Return what a card says of training rows on disk; None for a matrix in memory."""
    return {"buffer": train.buffer, "share": min(1.0, train.share)} if isinstance(train, StreamedMatrix) else None


def check_fits(model: "Model", train: sp.csr_matrix | StoredRows, device: torch.device, max_memory: int | None) -> None:
    """Refuse to fit what does not fit into memory; see `Model.check_memory`.

    Raises
    ------
    UsageError
        If it needs all training rows, and these are streamed; if `max_memory` is no number.
    MemoryLimitError
        Also with the buffer that would fit, if one does.
    """

    def check(buffer: int | None) -> None:
        held, size = as_held(model, train, buffer)
        held.check_memory(*size, device, max_memory=max_memory)

    check_amount(max_memory, "max_memory")
    buffer = buffer_of(train)
    if buffer is not None:
        check_can_stream(type(model))
    try:
        check(buffer)
    except MemoryLimitError as error:
        smaller = min(buffer // 2 if buffer else BUFFER_BYTES, INTERACTION_BYTES * train.nnz)
        while type(model).streams and smaller >= _LEAST_BUFFER:
            try:
                check(smaller)
            except MemoryLimitError:
                smaller //= 2
                continue
            size = enough_bytes(smaller)
            way = f"use --buffer {size}" if buffer else f"train from disk with --stream --buffer {size}"
            raise MemoryLimitError(f"{error}, or {way}") from error
        raise
