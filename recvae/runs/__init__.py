"""A training run on disk.

    run        made, trained, resumed
    finding    by name, the newest, all that are finished; without torch
    parts      models made of other runs
    repeats    the same run with other seeds
    planning   what a run will need, before it begins

Importing this package imports none of them.
"""
