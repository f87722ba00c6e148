"""Files on disk: written completely or not at all, and checked when they are read.

    files       writing to a temporary file and renaming it, locks, free names
    integrity   sizes and checksums of files, errors of damaged files
    arrays      named arrays as safetensors

Importing this package imports none of them.
"""
