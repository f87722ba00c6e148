"""Export: the scores of a bundle as ONNX or as a program of PyTorch, checked, with all that serving them needs.

    writing    from a bundle to the folder of an export
    programs   scores as an ONNX graph or as a program of `torch.export`
    checking   an export is held against its run on real rows before it is left on disk

Importing this package imports none of them.
"""
