"""What the models share.

    hyperparameters   dataclass fields that know their meaning, type and range
    base              what every model is: how it is fitted, saved and loaded
    described         docstring with hyperparameters, one line at a prompt, a table in a notebook
    fitted_on         what a model keeps of the data set it was fitted on
    fit_options       how a model is fitted
    sharing           which models several processes can train, and that they have the same data
    streaming         which models are fitted to rows on disk, and what these take in memory
    scoring           what a fitted model can be asked: scores, lists, reasons, embeddings
    sparse_scores     sums of sparse item-item weights
    vectors           scores as inner products of users' and items' vectors
    learned           arrays that a model learns, kept by name
    codes             what an autoencoder says of users' codes
    draws             what is given to draw from codes, and the source of each user's draws
    mixtures          a mixture of normal distributions as the prior of codes
    densities         how probable it finds rows, and what is hidden of them
    autoencoder       a network trained by the one loop
    network_weights   the weights of an autoencoder: loaded, and brought together from several processes
    variational       a KL term whose weight follows a schedule
    likelihood        a likelihood over all items: precision, sampling, choice
    item_networks     what a network states of its items and its latent variables
    networks          layers on sparse rows, initialisation
    noise             dropout, draws of codes, corrupted inputs
    graphs            scoring as PyTorch modules, for export
    footprint         what a network takes in memory
    implicit_slim     item vectors made anew as a linear model would mix them
    penalties         how strong a penalty suits the size of the data
    similarity        cosines of item vectors
    factors           item factors, by which users are folded in
    row_parts         the rows that each of several processes solves for
    ridge             many small least-squares problems on shared vectors
    sparse_vectors    item vectors with few entries, of 4 bytes each

Importing this package imports none of them.
"""
