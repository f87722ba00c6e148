"""Files on disk: written whole or not at all, and checked when they are read.

    files       writing aside and renaming, locks, free names
    integrity   sizes and checksums of the files of a bundle
    arrays      named arrays as safetensors

Importing this package imports none of them.
"""
