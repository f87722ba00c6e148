"""Serving: the HTTP application with its page, and recommenders from exported models.

    settings   how a server runs, and its limits
    schemas    requests and responses in JSON
    store      the loaded recommenders, and reloading new versions
    batching   scores requests that arrive together in one batch
    guards     refuses requests that are too large, too slow, too many, or without the token
    telemetry  counters for Prometheus
    service    answers requests: models, batches, limits and counters together
    app        the HTTP application: one function per path
    server     processes and signals
    onnx       recommenders from exported models, without torch

Importing this package imports none of them.
"""
