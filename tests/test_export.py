"""What is exported gives the scores of the model, says what it is, and is there whole or not at all."""

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.sparse as sp
import torch

from recvae.bundles.card import CARD
from recvae.bundles.exported import EXPORT_CARD, ITEMS, MODEL_FILES, NEIGHBOURS
from recvae.datasets.dataset import Dataset
from recvae.errors import ExportError, NotFittedError, UsageError
from recvae.exports import programs
from recvae.exports.checking import Check, drawn_histories, refuse_if_wrong
from recvae.exports.format import INPUTS, OUTPUTS, TOP_OUTPUTS
from recvae.exports.scorer import OnnxScorer
from recvae.exports.writing import export
from recvae.models import EASE, MODELS, Model, Popularity
from recvae.recommenders.recommender import Recommender
from recvae.storage.integrity import sha256_of

NOT_EXPORTABLE = ("als", "ials", "infae")
EXPORTABLE = [name for name in MODELS if name not in NOT_EXPORTABLE]
QUICK = ("multvae", "ease", "als")  # a network, a matrix, factors
QUANTIZABLE = [name for name in EXPORTABLE if name not in ("ease", "edlae", "sansa", "popularity")]

Folder = Callable[..., Path]


@pytest.fixture
def rows(blocks: Dataset) -> sp.csr_matrix:
    """Return weighted histories; the first, the last and one between are empty."""
    rows = sp.csr_matrix(sp.vstack([blocks.test.fold_in[number] * (number not in (0, 3, 6)) for number in range(7)]))
    rows.eliminate_zeros()
    rows.data[:] = np.arange(rows.nnz) % 5 + 0.5
    return rows


def tensors(rows: sp.csr_matrix) -> tuple[torch.Tensor, ...]:
    items, offsets = (torch.from_numpy(part.astype(np.int64)) for part in (rows.indices, rows.indptr))
    return items, offsets, torch.from_numpy(rows.data)


def assert_scores(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in EXPORTABLE]
)
def test_the_graph_scores_as_the_model_any_users_with_any_history(
    name: str, exported: Folder, fitted: Callable[[str], Model], rows: sp.csr_matrix
) -> None:
    scorer = OnnxScorer.load(exported(name))
    expected = fitted(name).score(rows)
    assert_scores(scorer.score(rows.indices, rows.indptr, rows.data), expected)
    for number, row in enumerate(rows):
        assert_scores(scorer.score(row.indices, row.indptr, row.data)[0], expected[number])


@pytest.mark.parametrize("name", EXPORTABLE)
def test_the_program_scores_as_the_model_any_users_with_any_history(
    name: str, exported: Folder, fitted: Callable[[str], Model], rows: sp.csr_matrix
) -> None:
    program = torch.export.load(exported(name, "torch") / MODEL_FILES["torch"]).module()
    expected = fitted(name).score(rows)
    assert_scores(program(*tensors(rows)), expected)
    for number, row in enumerate(rows):
        assert_scores(program(*tensors(row))[0], expected[number])
    assert program(*tensors(rows[:0])).shape == (0, 32)


def test_the_scorer_of_a_model_is_a_module_of_its_own(
    model_name: str, fitted: Callable[[str], Model], rows: sp.csr_matrix
) -> None:
    if model_name in NOT_EXPORTABLE:
        with pytest.raises(UsageError, match=f"{model_name} cannot be exported; use ease or a network"):
            fitted(model_name).scorer()
        return
    with torch.no_grad():
        assert_scores(fitted(model_name).scorer()(*tensors(rows)), fitted(model_name).score(rows))


@pytest.mark.parametrize("name", EXPORTABLE)
def test_only_a_fitted_model_has_a_scorer(name: str, make_model: Callable[..., Model]) -> None:
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        make_model(name).scorer()


@pytest.mark.parametrize("top_k", [1, 3, 40])
def test_a_pruned_ease_is_exported_too(top_k: int, blocks: Dataset, rows: sp.csr_matrix, tmp_path: Path) -> None:
    model = EASE(l2=5.0, top_k=top_k).fit(blocks.train)
    Recommender(model, blocks).save(tmp_path / "run")
    scorer = OnnxScorer.load(export(tmp_path / "run").folder)
    assert_scores(scorer.score(rows.indices, rows.indptr, rows.data), model.score(rows))


def test_a_model_without_any_weight_is_exported(blocks: Dataset, rows: sp.csr_matrix, tmp_path: Path) -> None:
    empty = EASE(top_k=2).load_weights(
        {f"similarity.{part}": np.zeros(n, dtype=np.int32) for part, n in (("data", 0), ("indices", 0), ("indptr", 33))}
    )
    with torch.no_grad():
        assert not empty.scorer()(*tensors(rows)).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTIZABLE)
def test_with_8_bits_a_model_finds_nearly_the_same(name: str, exported: Folder, fitted: Callable[[str], Model]) -> None:
    folder = exported(name, "onnx", "int8")
    assert folder.name == "onnx-int8"
    check = json.loads((folder / EXPORT_CARD).read_text())["check"]
    assert check["on"] == "validation users" and check["rows"] == 20
    assert 1e-6 < check["difference"] < 0.5 and check["overlap"]["10"] > 0.8
    assert check["ndcg"]["exported"] == pytest.approx(check["ndcg"]["float32"], abs=0.05)
    used = {node.op_type for node in onnx.load(folder / "model.onnx").graph.node}
    assert "MatMulNBits" in used and "Gemm" not in used


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPORTABLE if name not in QUANTIZABLE])
def test_a_model_without_dense_layers_is_not_quantized(name: str, bundle_folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{name} has no dense layer to quantise; export it without --quantize"):
        export(bundle_folder(name), quantize="int8", output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_card_says_what_it_is_and_the_graph_too(exported: Folder, bundle_folder: Folder, blocks: Dataset) -> None:
    folder = exported("multvae")
    card = json.loads((folder / EXPORT_CARD).read_text())
    assert (card["version"], card["format"], card["quantize"], card["model"]) == (1, "onnx", None, "multvae")
    assert card["dataset"] == {"name": "blocks", "fingerprint": "0" * 64} and card["n_items"] == 32
    assert card["bundle"] == sha256_of(bundle_folder("multvae") / CARD)
    assert (card["check"]["rows"], card["check"]["overlap"]) == (20, {"10": 1.0, "100": 1.0})
    assert set(card["files"]) == {"model.onnx", ITEMS, NEIGHBOURS}
    assert {"recvae", "torch", "onnx", "onnxruntime"} <= set(card["versions"])
    assert list(card["inputs"]) == [*INPUTS, "k"] and list(card["outputs"]) == [*OUTPUTS, *TOP_OUTPUTS]
    model = onnx.load(folder / "model.onnx")
    assert {end.name: end.doc_string for end in [*model.graph.input, *model.graph.output]} == {
        **card["inputs"],
        **card["outputs"],
    }
    facts = {fact.key: fact.value for fact in model.metadata_props}
    assert (facts["model"], facts["dataset"], facts["bundle"]) == ("multvae", "blocks", card["bundle"])
    assert model.opset_import[0].version == card["opset"]


def test_neighbours_are_the_most_similar_items_of_models_that_know(
    exported: Folder, fitted: Callable[[str], Model]
) -> None:
    arrays = np.load(exported("ease") / NEIGHBOURS)
    similarities = fitted("ease").similarities(np.arange(32))
    np.fill_diagonal(similarities, -np.inf)
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :31]
    np.testing.assert_array_equal(arrays["columns"], order)
    np.testing.assert_array_equal(arrays["similarities"], np.take_along_axis(similarities, order, axis=1))
    assert not (exported("popularity") / NEIGHBOURS).exists()


def test_a_program_holds_nothing_that_would_be_unpickled(exported: Folder) -> None:
    with zipfile.ZipFile(exported("multvae", "torch") / "model.pt2") as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert not content.startswith((b"PK", b"\x80")), name
            assert "pkl" not in name and (not name.endswith(".pt") or not content)


@pytest.mark.slow
def test_large_weights_lie_beside_the_graph(
    bundle_folder: Folder, exported: Folder, tmp_path: Path, rows: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_INLINE_BYTES", 100)
    csr = (rows.indices, rows.indptr, rows.data)
    for quantize in (None, "int8"):
        made = export(bundle_folder("multvae"), quantize=quantize, output=tmp_path / f"large-{quantize}")
        assert "model.onnx.data" in made.card["files"]
        expected = OnnxScorer.load(exported("multvae", "onnx", quantize)).score(*csr)
        assert_scores(OnnxScorer.load(made.folder).score(*csr), expected)


def test_where_no_data_is_at_hand_made_up_histories_are_scored(bundle_folder: Folder, tmp_path: Path) -> None:
    made = export(bundle_folder("ease"), output=tmp_path / "out")
    assert (made.card["check"]["on"], made.card["check"]["rows"]) == ("generated histories", 200)
    assert made.n_bytes == sum(path.stat().st_size for path in made.folder.iterdir() if path.name != EXPORT_CARD)


def test_made_up_histories_are_of_popular_items_and_always_the_same() -> None:
    counts = np.array([1000, 10, 10, 10, 0])
    drawn = drawn_histories(counts, 300)
    np.testing.assert_array_equal(drawn.toarray(), drawn_histories(counts, 300).toarray())
    lengths = np.diff(drawn.indptr)
    assert drawn.shape == (300, 5) and lengths.min() == 1 and lengths.max() == 5 and (drawn.data == 1).all()
    singles = drawn[lengths == 1].indices
    assert np.mean(singles == 0) > 0.8


class _Wrong(torch.nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, items: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return torch.full((32,), self.value).repeat(offsets.shape[0] - 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch"])
@pytest.mark.parametrize("value", [3.0, float("nan")])
def test_scores_that_are_not_the_models_are_refused_and_leave_nothing(
    format: str, value: float, bundle_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = export(bundle_folder("popularity"), format=format, output=tmp_path / "out")
    before = (made.folder / EXPORT_CARD).read_bytes()
    monkeypatch.setattr(Popularity, "scorer", lambda _: _Wrong(value))
    with pytest.raises(ExportError, match=r"the exported scores differ from the model's by .* nothing was written"):
        export(bundle_folder("popularity"), format=format, output=tmp_path / "out")
    assert (made.folder / EXPORT_CARD).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_quantized_model_that_finds_other_items_is_refused() -> None:
    check = Check(on="users", rows=5, difference=0.4, overlap={"10": 0.4, "100": 0.9})
    with pytest.raises(ExportError, match="after int8 quantization only 40% of the top items are unchanged"):
        refuse_if_wrong(check, "int8")
    refuse_if_wrong(Check(on="users", rows=5, difference=0.4, overlap={"10": 0.6, "100": 0.9}), "int8")
    with pytest.raises(ExportError, match="the exported scores differ from the model's by nan of their range"):
        refuse_if_wrong(Check(on="users", rows=5, difference=float("nan"), overlap={"10": 1.0}), "int8")


def test_a_graph_that_ranks_otherwise_is_refused(
    bundle_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = OnnxScorer.top_k
    monkeypatch.setattr(OnnxScorer, "top_k", lambda *given: [part[:, ::-1] for part in right(*given)])
    with pytest.raises(ExportError, match="the exported graph does not rank by its scores"):
        export(bundle_folder("ease"), output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "got format 'tflite', expected one of: onnx, torch"),
        ({"quantize": "int4"}, "got quantize 'int4', expected int8, or none for float32"),
        ({"format": "torch", "quantize": "int8"}, "got --quantize with format torch, which is float32 only"),
    ],
)
def test_what_there_is_not_is_refused(options: dict[str, Any], message: str, bundle_folder: Folder) -> None:
    with pytest.raises(UsageError, match=message):
        export(bundle_folder("ease"), **options)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            "onnxruntime",
            r"^an exported model needs a library that .*onnxruntime.* pip install 'recvae\[onnx\]'$",
        ),
        (
            "onnxscript",
            r"^exporting to ONNX needs a library that .*onnxscript.* pip install 'recvae\[onnx\]'$",
        ),
    ],
)
def test_a_missing_library_is_named_with_what_installs_it(
    module: str, message: str, bundle_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=message):
        export(bundle_folder("ease"), output=tmp_path / "out")
    assert export(bundle_folder("ease"), format="torch", output=tmp_path / "out").folder.is_dir()


def test_an_old_pytorch_is_refused(bundle_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.1")
    with pytest.raises(UsageError, match=r"exporting needs PyTorch 2\.9 or newer, this is 2\.6\.1; update it with"):
        export(bundle_folder("ease"), format="torch")


def test_als_is_refused_before_anything_is_written(bundle_folder: Folder) -> None:
    with pytest.raises(UsageError, match="als cannot be exported"):
        export(bundle_folder("als"))
    assert not [path for path in bundle_folder("als").iterdir() if path.is_dir()]


@pytest.mark.slow
def test_only_an_export_is_replaced(bundle_folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds files of another kind \(no export\.json\)"):
        export(bundle_folder("popularity"), output=tmp_path / "out")
    run = Path(shutil.copytree(bundle_folder("popularity"), tmp_path / "run"))
    with pytest.raises(UsageError, match="holds files of another kind"):
        export(run, output=run)
    first = export(run)
    (first.folder / "leftover").touch()
    assert export(run).folder == run / "onnx" and not (run / "onnx" / "leftover").exists()
