"""The `recvae` command: a client of the library like any other."""
