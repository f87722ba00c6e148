"""The weights of an autoencoder: read, loaded, and brought together where several processes have them by items."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.devices import resolve_device
from recvae.errors import UsageError
from recvae.models.common.densities import DensityModel
from recvae.storage.arrays import read_weights
from recvae.training.batches import SparseBatch, whole_batch
from recvae.training.shard_files import streams_of, write_whole
from recvae.training.shards import Shard


@dataclass(kw_only=True)
class NetworkWeights(DensityModel):
    """The part of an autoencoder that keeps its weights, or those of the items of this process."""

    shard_: Shard | None = field(default=None, init=False, repr=False, compare=False)
    """Which items this process has of a network that several share; None: it has all."""

    def weights(self) -> dict[str, np.ndarray]:
        """Return the network's weights; see `Model.weights`."""
        self.check_fitted()
        return {name: value.detach().cpu().numpy() for name, value in self.network_.state_dict().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> Self:
        """Load a network's weights; see `Model.load_weights`."""
        self.device_ = resolve_device(device)
        n_items = len(weights[self._item_weight()])
        self.network_, self.shard_ = self._network(n_items), None
        tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()}
        self.network_.load_state_dict(tensors, assign=True)
        self.network_.requires_grad_(False).to(self.device_)
        self.n_items_ = n_items
        return self

    def _item_weight(self) -> str:
        """Return the name of the item layer's weight, which has a row for each item."""
        with torch.device("meta"):
            network = self._network(1)
        weight = network.output.weight
        return next(name for name, parameter in network.named_parameters() if parameter is weight)

    def check_fitted(self) -> None:
        """Refuse to answer before `fit`, and in a process that has the items of a part of the network.

        Raises
        ------
        NotFittedError
            If nothing was learned yet.
        UsageError
            If it has a part of the items.
        """
        super().check_fitted()
        if self.shard_ is not None:
            raise UsageError(
                f"got {self.name} with items {self.shard_.first:,} to {self.shard_.last - 1:,} of "
                f"{self.shard_.n_items:,} in this process, expected all; call gather() in all processes, after which "
                "the first one has the whole model"
            )

    def gather(self, path: Path | None = None, file_bytes: int | None = None) -> bool:
        """Bring together what processes that share the items have learned; all of them call it, in `joined`.

        Parameters
        ----------
        path : Path, optional
            A file for the weights, in the first process: it then uses them from there, and never has all in memory.
        file_bytes : int, optional
            With a path: write files of at most so many bytes beside it, with an index, and use none of them.

        Returns
        -------
        bool
            Whether this process has the whole model now: the first one, unless the weights lie in several files, or any
            of a model that is not shared.

        Raises
        ------
        NotFittedError
            Before `fit`.
        StorageError
            If the file cannot be written.
        """
        super().check_fitted()
        if self.shard_ is None:
            return True
        ranks, network = self.shard_.ranks, self.network_
        streams = streams_of(dict(network.state_dict()), set(network.item_parameters()), self.shard_)
        ranks.check()
        if ranks.from_first(path is not None):
            write_whole(path, streams, ranks, file_bytes)
            if path is None or file_bytes is not None:
                return False
            whole = read_weights(path)
        else:
            parts = {name: list(stream.parts()) for name, stream in streams.items()}
            ranks.check()
            whole = {name: np.concatenate(rows) if rows[0].ndim else rows[0] for name, rows in parts.items()}
        if not ranks.leads:
            return False
        self.load_weights(whole, "cpu")
        return True

    def _batch(self, rows: sp.csr_matrix) -> SparseBatch:
        batch = whole_batch(rows, self.device_)
        return batch if self.shard_ is None else self.shard_.of_batch(batch)
