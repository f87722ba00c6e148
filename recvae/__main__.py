"""`python -m recvae` is the command `recvae`."""

from recvae_cli.app import main

main()
