"""Cornac's side: VAECF; `serve` says how it is asked.

It has no dropout and does not scale its rows, which is less work than in recvae; its epochs go through the users in
their order.
"""
# pyright: reportMissingImports=false
# Cornac is not installed where this package is checked.

import warnings

import numpy as np
from cornac.data import Dataset
from cornac.models import VAECF

import work
from work import Answer, Data, Jobs, serve, timed


def jobs(data: Data) -> Jobs:
    """Return what Cornac can be asked for."""
    n_users, n_items = data.train.shape
    rows, columns = data.train.nonzero()
    names = {"uid_map": {n: n for n in range(n_users)}, "iid_map": {n: n for n in range(n_items)}}
    dataset = Dataset(n_users, n_items, uir_tuple=(rows, columns, np.ones(len(rows), np.float32)), **names)
    model = VAECF(
        k=work.LATENT,
        autoencoder_structure=[work.HIDDEN],
        act_fn="tanh",
        likelihood="mult",
        n_epochs=1,
        batch_size=work.BATCH_SIZE,
        learning_rate=work.LEARNING_RATE,
        beta=work.BETA,
        seed=0,
    )
    warnings.filterwarnings("ignore", "Model is already fitted")  # it goes on with the same weights

    def train() -> Answer:
        seconds, _ = timed(lambda: model.fit(dataset))
        return Answer(
            seconds,
            {"parameters": sum(values.numel() for values in model.vae.parameters()), "bits of the products": 32},
        )

    return {"train": train}


if __name__ == "__main__":
    serve(jobs)
