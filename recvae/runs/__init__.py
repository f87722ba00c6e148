"""A training run on disk.

    run        made, trained, resumed
    sharing    a run that several processes train, also when torchrun starts them again
    state      what an unfinished run writes down of itself
    finding    the runs below a folder: by name, the newest, finished or not; without torch
    listing    a list of runs: model, validation figure, size, state; without torch
    parts      models made of other runs
    refitting  a run trained again on its held-out users too
    repeats    the same run with other seeds
    planning   what a run will need, before it begins
    sharing_plans  what each of several processes will need, and what they send

Importing this package imports none of them.
"""
