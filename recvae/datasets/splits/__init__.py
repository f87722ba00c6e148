"""Evaluation protocols: who is trained on, who is asked, what they are given and what they should find.

    strong           unseen users: part of their items is folded in, the rest are targets (Liang et al. 2018)
    holdout          the same users: a random share of each user's items are targets
    leave-last-out   the same users: the last item of each is the test target, the one before for validation
    time             one global moment: nothing after it is known in training
    ready-made       a train / test pair made elsewhere

In every protocol the items are those of the training part, in order of first appearance there, as in the
paper's own code. Events on other items are dropped from the held-out parts and counted. What ran is told by
`Split.protocol`: the settings that had a say, and no others.
"""
