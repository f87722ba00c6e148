"""What computing takes: memory, fast products, the device.

    memory      how much is free, what fits, work in blocks
    allocator   freed memory that is kept between batches
    matmul      products of float32 matrices, by the fastest library there is
    devices     CPU or GPU, float32 or bfloat16

Importing this package imports none of them.
"""
