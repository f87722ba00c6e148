"""What autoencoders are for beyond ranking.

    likelihood   how probable a model finds users, as perplexity
    anomalies    histories that a model finds improbable
    familiar     users of a file whom a model knows from training
    profiles     made-up odd users, to see whether they are found
    generation   made-up histories, and how like real ones they are
    segments     groups of users in the latent space, and what sets them apart
    units        what a latent unit stands for: items that rise and fall when it moves
    projections  vectors in two dimensions, for a map
    vectors      the vectors that a model has of items and users, at one width
    labels       features as 0 and 1, for a probe
    probes       what vectors of items and users know of genres, gender and other features

Importing this package imports none of them.
"""
