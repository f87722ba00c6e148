"""What the models share.

    hyperparameters   dataclass fields that know their meaning, type and range
    base              what every model is
    autoencoder       a network trained by the one loop
    variational       a KL term whose weight follows a schedule
    networks          layers on sparse rows, initialisation, noise
    scorers           scoring as PyTorch modules, for export
    footprint         what a network takes in memory
    similarity        cosines of item vectors

Importing this package imports none of them.
"""
