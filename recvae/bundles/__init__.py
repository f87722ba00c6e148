"""The bundle: what training writes and serving loads.

    card      what a run says of itself in `recommender.json`, read without torch
    bundle    a fitted model with its items, manifest and metrics: written and read
    exported  the card of an export of it in `export.json`
    readme    the page about a bundle for people, `README.md`

Importing this package imports none of them.
"""
