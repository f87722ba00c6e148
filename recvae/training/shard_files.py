"""Weights and checkpoints of a network whose items several processes share: files of the whole, which none ever has.

The first process writes and reads; it has one part of another process at a time. The files are those of one process, so
that a run continues with any number of processes.

Letters in shape comments: I items, R rows at a time.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from recvae.compute.ranks import Ranks
from recvae.errors import BundleError
from recvae.storage.streams import Stream, take_part, write_streams
from recvae.storage.weight_files import write_weight_files
from recvae.training.checkpoints import Checkpoint, TrainingState, state_from, tensors_of
from recvae.training.shards import Shard

_PART = 1 << 24  # numbers that are sent at a time


def streams_of(tensors: Mapping[str, torch.Tensor], of_items: set[str], shard: Shard) -> dict[str, Stream]:
    """Return tensors as streams of the whole; all processes go through them, and only the first one gets parts.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        What this process has, with the same names in all.
    of_items : set of str
        Names of those that have a row for each of its items; the others are the same in all processes.
    shard : Shard
        Which items are its own.
    """
    found = {}
    for name, tensor in tensors.items():
        own, dtype = tensor.detach(), str(tensor.dtype).removeprefix("torch.")
        if name in of_items:
            shape = (shard.n_items, *own.shape[1:])
            found[name] = Stream(dtype, shape, lambda own=own: _gathered(own, shard))
        else:
            found[name] = Stream(dtype, tuple(own.shape), lambda own=own: [own.cpu().numpy()])
    return found


def _parts(shard: Shard, width: int) -> Iterator[tuple[int, int, int]]:
    """Yield the process, first row and row after the last, of all rows from first to last."""
    step = max(1, _PART // max(width, 1))
    for rank in range(shard.ranks.size):
        first, last = shard.ranks.part_of(shard.n_items, rank)
        for start in range(first, last, step):
            yield rank, start, min(start + step, last)


def _gathered(own: torch.Tensor, shard: Shard) -> Iterator[np.ndarray]:
    """Yield the rows of all processes, in the first one; empty rows in the others, which send theirs."""
    ranks = shard.ranks
    for rank, start, end in _parts(shard, own[0].numel()):
        if rank == ranks.rank:
            rows = own[start - shard.first : end - shard.first].cpu().contiguous()
        else:
            rows = own.new_empty((end - start if ranks.leads else 0, *own.shape[1:]), device="cpu")
        if rank:
            ranks.check()
            ranks.hand(rows, rank, 0)
        yield rows.numpy()  # (R, ...)


def write_whole(path: Path | None, streams: Mapping[str, Stream], ranks: Ranks, file_bytes: int | None = None) -> None:
    """Write weights, of which the first process has the path, and the others send their parts.

    Parameters
    ----------
    path : Path, optional
        The file, in the first process; None in the others.
    streams : mapping of str to Stream
        From `streams_of`.
    ranks : Ranks
        Which of the processes this one is.
    file_bytes : int, optional
        See `recvae.storage.weight_files.write_weight_files`.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    if path is None:
        take_part(streams)
    else:
        write_weight_files(path, streams, file_bytes)
    ranks.check()


def save_shards(checkpoint: Checkpoint | None, state: TrainingState, shard: Shard, of_items: set[str]) -> None:
    """Write the state of all processes as that of one.

    Parameters
    ----------
    checkpoint : Checkpoint, optional
        Where, in the first process.
    state : TrainingState
        Of this process.
    shard : Shard
        Its items.
    of_items : set of str
        What in a checkpoint has a row for each item, by name.

    Raises
    ------
    StorageError
        If it cannot be written; the checkpoint before it is untouched.
    """
    ranks = shard.ranks
    ranks.check()
    if not ranks.from_first(checkpoint is not None):
        return
    streams = streams_of(tensors_of(state), of_items, shard)
    if checkpoint is None:
        take_part(streams)
    else:
        write_streams(checkpoint.path, streams, checkpoint.header(state))
    ranks.check()


def load_shards(checkpoint: Checkpoint | None, shard: Shard, of_items: set[str]) -> TrainingState | None:
    """Return what this process needs of a checkpoint that the first one reads; None where it has none.

    Parameters
    ----------
    checkpoint, shard, of_items
        See `save_shards`.

    Raises
    ------
    BundleError
        If the file is missing or damaged, belongs to another run, or is of other items.
    """
    ranks = shard.ranks
    told = None if checkpoint is None else checkpoint.described()
    ranks.check()
    told = ranks.from_first(told)
    if told is None:
        return None
    kinds, progress = told
    tensors: dict[str, torch.Tensor] = {}
    for name, (dtype, shape) in kinds.items():
        if name not in of_items:
            same = {} if checkpoint is None else {name: checkpoint.rows(name)}
            ranks.check()
            tensors |= ranks.tensors_from_first(same)
            continue
        if shape[:1] != [shard.n_items]:
            raise BundleError(
                f"the checkpoint does not fit this run ({name} has shape {shape}, expected {shard.n_items:,} rows); "
                "train again without --resume"
            )
        tensors[name] = torch.empty((shard.n_own, *shape[1:]), dtype=getattr(torch, dtype))
        _hand_out(checkpoint, name, tensors[name], shard)
    return state_from(tensors, progress)


def _hand_out(checkpoint: Checkpoint | None, name: str, own: torch.Tensor, shard: Shard) -> None:
    """Fill the rows of this process with what the first one reads."""
    ranks = shard.ranks
    for rank, start, end in _parts(shard, own[0].numel()):
        rows = own[start - shard.first : end - shard.first] if rank == ranks.rank else own[:0]
        if checkpoint is not None:
            read = checkpoint.rows(name, start, end)  # (R, ...)
            rows = rows.copy_(read) if rank == ranks.rank else read
        if rank:
            ranks.check()
            ranks.hand(rows, 0, rank)
