"""Raw ids in, raw ids out.

    base            what every recommender does, with numpy alone
    recommender     a fitted model and its items
    histories       what users have: lists, matrices, tables
    history_files   files of histories, block by block
    answers         what a user is recommended, and why
    answer_files    files of recommendations, resumable
    diversity       lists that repeat themselves less

Importing this package imports none of them.
"""
