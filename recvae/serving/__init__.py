"""Serving: the HTTP application with its page, and the runtime for exported models.

    settings   what the server allows and keeps to
    schemas    what requests and answers look like
    store      the recommenders being served, and how new versions take their place
    batching   requests that arrive together are scored together
    guards     what is refused before it is read: too large, too slow, too many, without the token
    telemetry  what the server counts, for Prometheus
    service    how questions are answered: models, batches, limits and counters together
    app        the application: one function per address
    server     processes and signals around it
    onnx       exported models without torch

Importing this package imports none of them.
"""
