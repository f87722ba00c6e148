"""Memory, threads, devices and fast matrix products.

    memory          how much is free, what fits, work in blocks
    allocator       keeps freed memory for the next batch
    forks           computing on in a process that was forked
    inverse         the inverse of a symmetric matrix in its own memory
    lapack          the same by one call of LAPACK, in a process of its own where that may end it
    sparse_inverse  a sparse factor of the inverse of X^T X plus a diagonal
    matmul          float32 matrix products with the faster of two libraries
    devices         CPU or GPU, float32 or bfloat16
    ranks           several processes that train one model: which one this is, where they meet
    rank_errors     errors that one of them tells the others of
    collectives     sums over processes that gradients pass through
    restarts        processes that torchrun starts again: where they meet, what they know of those before them
    process_group   the group of PyTorch in which they do

Importing this package imports none of them.
"""
