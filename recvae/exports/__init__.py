"""Export: the scores of a bundle as ONNX or as a program of PyTorch, checked, with all that serving them needs."""

from recvae.exports.checking import Check, drawn_histories
from recvae.exports.writing import FORMATS, QUANTIZATIONS, Exported, check_exportable, export

__all__ = ["FORMATS", "QUANTIZATIONS", "Check", "Exported", "check_exportable", "drawn_histories", "export"]
