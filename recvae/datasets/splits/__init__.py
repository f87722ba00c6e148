"""Evaluation protocols: training users, held-out users, their fold-in and their targets.

    base         what the protocols share
    protocols    the protocols by name, and the one function that splits events by any of them
    strong       unseen users: part of their items is folded in, the rest are targets (Liang et al. 2018)
    same_users   holdout: a random share of each user's items are targets; leave-last-out: the last item of each user is
                 the test target, the one before for validation
    time         one global moment: nothing after it is known in training
    ready_made   a train / test pair made elsewhere

In every protocol the items are those of the training part, in order of first appearance there, as in the
paper's own code. Events on other items are dropped from the held-out parts and counted. `Split.protocol` holds the
protocol and the settings that it used.
"""
