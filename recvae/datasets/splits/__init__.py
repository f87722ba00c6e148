"""Evaluation protocols: training users, held-out users, their fold-in and their targets.

    strong           unseen users: part of their items is the fold-in, the rest are targets (Liang et al. 2018)
    holdout          the same users: a random share of each user's items are targets
    leave-last-out   the same users: the last item of each is the test target, the one before the validation target
    time             global points in time: nothing after them is known in training
    ready-made       an existing train / test pair

In every protocol the items are those of the training part, in order of first appearance there, as in the
paper's own code. Events on other items are dropped from the held-out parts and counted. `Split.protocol` holds the
protocol and the settings that it used.
"""
