"""Mult-DAE: the denoising autoencoder of Liang et al., WWW 2018, section 2.3.

    L_u = log p(x_u | g(x_u)),  with dropout on the L2-normalised input and weight decay instead of a KL term

The released best is one hidden layer of 200 with tanh (vae_cf notebook). Their penalty lambda ||W||^2 with
lambda = 2e-5 on the weights, not the biases, is Adam's L2 weight decay of 2 lambda = 4e-5.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from recvae.compute.ranks import current
from recvae.errors import UsageError
from recvae.models.ae import AE
from recvae.models.common.footprint import BatchFootprint
from recvae.models.common.hyperparameters import Range, Space, hyperparameter
from recvae.models.common.item_networks import ItemNetwork
from recvae.models.common.noise import NOISES, NoisyInput, corrupt
from recvae.training.batches import SparseBatch


@dataclass(kw_only=True)
class MultDAE(AE):
    """The denoising autoencoder with a multinomial likelihood; defaults are the paper's for MovieLens-20M.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = MultDAE(latent_dim=4, epochs=40, batch_size=10, learning_rate=0.01, seed=1).fit(train)
    >>> items, scores = model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)
    >>> sorted(items[0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "multdae"
    shares_users: ClassVar[bool] = True
    shares_items: ClassVar[bool] = True
    paper: ClassVar[str] = "Liang et al.: Variational Autoencoders for Collaborative Filtering (WWW 2018), section 2.3"
    space: ClassVar[Space] = {
        "learning_rate": Range(3e-4, 3e-3, log=True),
        "batch_size": (None, 50, 100, 200),
        "latent_dim": (100, 200, 400),
        "dropout": Range(0.3, 0.8),
        "weight_decay": Range(1e-5, 1e-3, log=True),
    }

    noise: str = hyperparameter("masking", "noise on the input during training", choices=NOISES)
    dropout: float = hyperparameter(
        0.5,
        "masking: share of a user's items hidden from the encoder",
        low=0,
        high=1,
        below_high=True,
        only_with=("noise", "masking"),
    )
    noise_level: float = hyperparameter(
        0.01,
        "gaussian: standard deviation; salt-and-pepper: share of all items replaced",
        low=0,
        high=1,
        only_with=("noise", "gaussian", "salt-and-pepper"),
    )

    def check_together(self) -> None:
        """Refuse updates by row with noise on all items, which touches all rows; see `Model.check_together`."""
        super().check_together()
        if self.row_wise and self.noise != "masking":
            raise UsageError(
                f"got row_wise=True with noise={self.noise!r}, which gives every item's row a gradient; set "
                "noise=masking, or leave row_wise out"
            )

    @property
    def needs_all_items(self) -> str | None:
        """Which of its settings needs all items in one process; see `Model.needs_all_items`."""
        return super().needs_all_items if self.noise == "masking" else f"noise={self.noise}"

    def _footprint(self, network: ItemNetwork, n_users: int, n_interactions: int, *, on_gpu: bool) -> BatchFootprint:
        batch = super()._footprint(network, n_users, n_interactions, on_gpu=on_gpu)
        if self.noise == "masking":
            return batch
        drawn = 6 * network.n_items * n_users  # noise on all items
        if current().by_users:  # each draws that of the whole batch, and takes its part, before it has other blocks
            whole = 4 * network.n_items * (n_users * current().size + n_users)
            drawn = max(drawn, whole - int(4 * batch.blocks * network.n_items * n_users))
        return replace(batch, more=batch.more + drawn)

    def _noisy(self, batch: SparseBatch, generator: torch.Generator) -> NoisyInput:
        return corrupt(batch, self.network_.n_items, self.noise, self.dropout, self.noise_level, generator)
