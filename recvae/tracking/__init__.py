"""Training followed in other programs: extra `track`.

    figures        the figures of an epoch and of a run, and the vectors of items, by one name everywhere
    tensorboard    curves, histograms and item vectors for TensorBoard
    mlflow         parameters, metrics and the bundle for MLflow
    pyfunc         what MLflow loads: a recommender that takes a table of histories

Importing this package imports none of them.
"""
