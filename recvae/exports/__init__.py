"""Export: the scores of a bundle as ONNX or as a PyTorch program, checked, with everything that serving needs.

    writing    from a bundle to the folder of an export
    programs   the scores as an ONNX graph or as a program of `torch.export`
    indexing   an index of item vectors, with the share of the exact lists that it finds
    checking   compares an export with its run before it is written
    format     the files of an export, and reading them
    scorer     scores of an ONNX export, without torch

Importing this package imports none of them.
"""
