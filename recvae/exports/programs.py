"""From a model's scorer to a PyTorch program, to an ONNX graph, to a graph with 8-bit integers.

A `.pt2` archive can hold pickles, of example inputs and of special tensors. Ours has neither: everything in it is JSON
and raw numbers.

Letters in shape comments: B users, N interactions of all of them, I items, k ranks.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shapes

from recvae.bundles.exported import ONNX_DATA
from recvae.errors import UsageError, requires_extra
from recvae.exports.format import INPUTS, K_INPUT, OUTPUTS, TOP_OUTPUTS
from recvae.exports.scorer import check_onnxruntime
from recvae.version import __version__

_INLINE_BYTES = 1 << 30  # larger weights are a file of their own: a protobuf message holds at most 2 GB
_TORCH = (2, 9)
_MULTIPLY_INT8 = 4  # one of the accuracy levels of ONNX Runtime
_EXAMPLE = ([0, 0], [0, 1, 1, 2], [1.0, 1.0])  # items, offsets and weights of three users, one without history
_MEANINGS = {**INPUTS, **K_INPUT, **OUTPUTS, **TOP_OUTPUTS}
_ABOUT = (
    "Scores of all items, and the top items, for rows of interactions (CSR); see the inputs. Memory grows with users "
    "times interactions: use batches of a few hundred users."
)
_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir", "root")


class _RankedScores(nn.Module):
    """Scores, and the top items outside the history, for a graph that is used without this package."""

    def __init__(self, scorer: nn.Module, n_items: int) -> None:
        super().__init__()
        self.scorer, self._n_items = scorer, n_items

    def forward(
        self, items: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor, k: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scores = self.scorer(items, offsets, weights)  # (B, I)
        position = torch.arange(items.shape[0])
        rows = (position >= offsets[1:, None]).sum(dim=0)  # (B, N) -> (N,)
        unseen = scores.index_put((rows, items), torch.tensor(-torch.inf))  # (B, I)
        best, columns = unseen.topk(torch.sym_min(k.item(), self._n_items), dim=1)  # (B, k)
        return scores, torch.where(torch.isneginf(best), -1, columns), best


def check_onnx() -> None:
    """Refuse to continue without the libraries that write ONNX graphs.

    Raises
    ------
    UsageError
        If it is not installed, with the command that installs it.
    """
    check_onnxruntime()
    with requires_extra("onnx", "exporting to ONNX"):
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401


def check_torch() -> None:
    """Refuse to continue with a PyTorch that cannot trace for any number of users.

    Raises
    ------
    UsageError
        If it is too old, with the command that updates it.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _TORCH:
        needed = ".".join(map(str, _TORCH))
        raise UsageError(
            f"exporting needs PyTorch {needed} or newer, this is {torch.__version__}; "
            f"update it with: pip install 'torch>={needed}'"
        )


def traced(scorer: nn.Module) -> ExportedProgram:
    """Return a model's scores as a PyTorch program, for any number of users and interactions.

    Parameters
    ----------
    scorer : Module
        From `Model.scorer`.

    Returns
    -------
    ExportedProgram
        From items, offsets and weights to scores; see `models.common.graphs`.
    """
    return _traced(scorer, ())


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write a program for `torch.export.load`, without pickles."""
    with _quietly():
        torch.export.save(program, path)


def write_graph(scorer: nn.Module, n_items: int, facts: dict[str, str], path: Path) -> int:
    """Write scores and ranking as an ONNX graph, with descriptions of its inputs and outputs.

    Parameters
    ----------
    scorer : Module
        From `Model.scorer`.
    n_items : int
        Number of items.
    facts : dict of str to str
        For the graph's metadata.
    path : Path
        The file; large weights go into a second file next to it.

    Returns
    -------
    int
        Version of the ONNX operator set.
    """
    program = _traced(_RankedScores(scorer, n_items), (torch.tensor([1]),))
    with _quietly():
        made = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=[*INPUTS, *K_INPUT],
            output_names=[*OUTPUTS, *TOP_OUTPUTS],
            dynamic_shapes=({0: "interactions"}, {0: "users_and_end"}, None, None),  # names of the axes
        )
        assert made is not None  # None only if a path is given
        model: Any = made.model
        model.doc_string = _ABOUT
        model.producer_name, model.producer_version = "recvae", __version__
        model.metadata_props.update(facts | _MEANINGS)
        for end, meaning in zip([*model.graph.inputs, *model.graph.outputs], _MEANINGS.values(), strict=True):
            end.doc_string = meaning
        made.save(path, external_data=_n_bytes(scorer) > _INLINE_BYTES)
    return int(model.opset_imports[""])


def quantize_graph(path: Path, model: str) -> None:
    """Quantise the dense layers of a graph to 8-bit integers, with one scale for every 128 weights.

    Activations are rounded to 8 bits for each user. ONNX's own operators would round for a whole batch: with them, one
    user in ten of MovieLens-1M got other items in a batch than alone. The operator is that of ONNX Runtime
    (com.microsoft.MatMulNBits). The first layer stays as it is, because its rows are only looked up.

    Parameters
    ----------
    path : Path
        A graph from `write_graph`, which is replaced.
    model : str
        Name of the model, for messages.

    Raises
    ------
    UsageError
        If the model has no dense layer.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.onnx_model import ONNXModel

    graph = ONNXModel(onnx.load(path))
    _set_dense_weights_apart(graph.model.graph)
    graph.replace_gemm_with_matmul()
    constants = {one.name for one in graph.model.graph.initializer}
    if not any(node.op_type == "MatMul" and node.input[1] in constants for node in graph.model.graph.node):
        raise UsageError(f"{model} has no dense layer to quantise; export it without --quantize")
    del graph.model.graph.value_info[:]  # shapes of weights that are transposed now
    is_large = path.with_name(ONNX_DATA).exists()
    path.with_name(ONNX_DATA).unlink(missing_ok=True)
    with _quietly():
        quantizer = MatMulNBitsQuantizer(
            graph.model, bits=8, block_size=128, is_symmetric=True, accuracy_level=_MULTIPLY_INT8
        )
        quantizer.process()
    onnx.save(cast(Any, quantizer.model).model, path, save_as_external_data=is_large, location=ONNX_DATA)


def _set_dense_weights_apart(graph: Any) -> None:
    """Give dense layers weights of their own, which will be transposed: tied ones are looked up by row as well."""
    used = Counter(name for node in graph.node for name in node.input)
    constants = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Gemm" and used[node.input[1]] > 1 and node.input[1] in constants:
            own = graph.initializer.add()
            own.CopyFrom(constants[node.input[1]])
            own.name = node.input[1] = f"{node.output[0]}.weight"


def _n_bytes(scorer: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*scorer.parameters(), *scorer.buffers()))


def _traced(module: nn.Module, others: tuple[torch.Tensor, ...]) -> ExportedProgram:
    items, offsets, weights = (torch.tensor(values) for values in _EXAMPLE)
    # Otherwise a program would refuse one user, or none: the exporter treats sizes 0 and 1 as special.
    with _quietly(), torch.no_grad(), cast(Any, shapes).patch(backed_size_oblivious=True):
        program = torch.export.export(module, (items, offsets, weights, *others), dynamic_shapes=_sizes(len(others)))
    program._example_inputs = None  # they would be pickled
    return program


def _sizes(n_others: int) -> tuple[dict[int, Any] | None, ...]:
    """Return the dynamic axes: the number of offsets (users + 1) and of interactions."""
    offsets, interactions = Dim("users_and_end", min=1), Dim("interactions", min=0)
    return ({0: interactions}, {0: offsets}, {0: interactions}, *(None for _ in range(n_others)))


@contextmanager
def _quietly() -> Iterator[None]:
    """Hide messages of PyTorch and its exporter about their internals."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
