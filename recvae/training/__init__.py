"""The one training loop and what goes through it.

    batch_parts       what one of several processes has of a batch
    batches           sparse rows of users on the device
    buffers       the order of users whose rows stay on disk
    draws             noise for the users of a batch, the same for any number of processes
    gradients         those of a batch that several processes share, added up
    shards            the items of one process, where several share those of a network
    losses            likelihoods and KL divergences
    latents           how much of a latent space is used
    sampled_softmax   the softmax over drawn items, for large catalogues
    row_nadam         NAdam that updates only rows with a gradient
    item_samples      the items that the loss of a batch sees, where not all
    chunked_softmax   the softmax over all items, some at a time, for large catalogues
    sharded_softmax   the softmax over all items, where several processes share them
    row_adam          Adam on only the rows that a batch touches
    schedules         how the weight of the KL term grows
    step_sizes        how large the steps of the optimisers are
    averaging         a running mean of the weights over epochs
    refits            training again what a run has chosen: for how long, on which users
    records           a record per epoch, the summary of a run, and what a monitor is
    details           monitors that are told more: codes, how training ended, the bundle
    monitors          progress on a terminal, `log.jsonl`
    checkpoints       the state after an epoch, to resume from
    validation        what validation users choose by
    shard_files       weights and checkpoints whose items several processes share, as one file
    sharing           what several processes do together in the course of training
    task              what a model states about its training
    trainer           the loop

Importing this package imports none of them.
"""
