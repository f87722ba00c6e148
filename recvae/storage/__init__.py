"""Files on disk: written completely or not at all, and checked when they are read.

    files       writing to a temporary file and renaming it, locks, free names
    integrity   sizes and checksums of files, errors of damaged files
    streams     named arrays as safetensors, written part by part
    arrays      named arrays as safetensors, whole
    weight_files  the same in one file or several, with an index
    mapped      the arrays of such a file, mapped without torch

Importing this package imports none of them.
"""
