"""What was exported answers as the run it was made from, without torch, and notices damage."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from recvae.bundles.exported import EXPORT_CARD, ITEMS, NEIGHBOURS
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, DataError, TrainingError, UsageError
from recvae.exports import scorer
from recvae.exports.format import read_items, write_items
from recvae.items import ItemIndex
from recvae.models import MODELS, Model
from recvae.recommenders.recommender import Recommender
from recvae.serving import onnx as serving
from recvae.serving.onnx import OnnxRecommender, OnnxScorer
from recvae.storage.integrity import described

EXPORTABLE = [name for name in MODELS if name not in ("als", "ials", "infae")]
IDS = [1000 - 10 * column for column in range(32)]  # those of the blocks
HEAVY = sorted({"torch", "scipy", "pandas", "pyarrow", "safetensors", "onnx", "onnxscript"})

Folder = Callable[..., Path]


@pytest.fixture(scope="session", params=EXPORTABLE)
def pair(request: pytest.FixtureRequest, exported: Folder, bundle_folder: Folder) -> tuple[Any, Any]:
    """Return the recommender of what was exported of each model, and that of its run."""
    return OnnxRecommender.load(exported(request.param), threads=1), Recommender.load(bundle_folder(request.param))


@pytest.fixture(scope="session")
def ease(exported: Folder) -> OnnxRecommender:
    return OnnxRecommender.load(exported("ease"), threads=1)


@pytest.fixture
def copy(exported: Folder, tmp_path: Path) -> Path:
    """Return a copy of an export to damage."""
    return Path(shutil.copytree(exported("ease"), tmp_path / "onnx"))


def put_down(folder: Path, **changes: Any) -> None:
    """Put down the hashes of the files as they are now, and change the card."""
    card = json.loads((folder / EXPORT_CARD).read_text()) | changes
    card["files"] = described(folder, [name for name in card["files"] if (folder / name).is_file()])
    (folder / EXPORT_CARD).write_text(json.dumps(card))


def assert_alike(found: Any, expected: Any) -> None:
    """Check that two answers are the same, but for items whose scores are the same but for rounding."""
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
    assert (found.unknown, found.fallback, len(found.ids)) == (expected.unknown, expected.fallback, len(expected.ids))
    of_expected = dict(zip(expected.ids, expected.scores, strict=True))
    for item, score in zip(found.ids, found.scores, strict=True):
        assert of_expected.get(item, expected.scores[-1]) == pytest.approx(score, rel=1e-4, abs=1e-5)


HISTORIES = st.lists(st.sampled_from([*IDS, 5, "x"]), max_size=31, unique=True)


@settings(max_examples=25)
@given(
    history=HISTORIES | st.dictionaries(st.sampled_from(IDS), st.floats(0.5, 5), max_size=8),
    k=st.integers(1, 40) | st.just(10**9),
    exclude=st.lists(st.sampled_from(IDS), max_size=3),
    allow=st.none() | st.lists(st.sampled_from(IDS), max_size=20),
    filter_seen=st.booleans(),
)
def test_a_user_is_recommended_what_the_run_recommends(
    pair: tuple[Any, Any], history: Any, k: int, exclude: list[int], allow: list[int] | None, filter_seen: bool
) -> None:
    wishes: dict[str, Any] = {"exclude": exclude, "allow": allow, "filter_seen": filter_seen}
    found, expected = (one.recommend(history, k, **wishes) for one in pair)
    assert_alike(found, expected)


def test_many_users_are_recommended_what_the_run_recommends(
    pair: tuple[Any, Any], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = blocks.test.fold_in
    expected = pair[1].recommend_batch(users, 6)
    for n_bytes in (serving._BLOCK_BYTES, 4 * 32 * 5):
        monkeypatch.setattr(scorer, "_BLOCK_BYTES", n_bytes)
        monkeypatch.setattr(serving, "_BLOCK_BYTES", n_bytes)
        for options in ({}, {"exclude": IDS[:2]}):
            expected = pair[1].recommend_batch(users, 6, **options)
            found = pair[0].recommend_batch(users, 6, **options)
            assert len(found) == len(expected) == users.shape[0]
            for one, other in zip(found, expected, strict=True):
                assert_alike(one, other)


def test_reasons_are_those_of_the_run(pair: tuple[Any, Any]) -> None:
    history, explained = {IDS[1]: 1.0, IDS[4]: 2.0, IDS[9]: 0.5}, [IDS[2], IDS[3], IDS[30]]
    for found, expected in zip(*(one.explain(history, explained) for one in pair), strict=True):
        assert (found.id, found.title) == (expected.id, expected.title)
        reasons = ({key: value for key, _, value in one.reasons} for one in (found, expected))
        assert next(reasons) == pytest.approx(next(reasons), rel=1e-3, abs=2e-5)
    assert [one.reasons for one in pair[0].explain([5], explained)] == [[], [], []]


def test_similar_items_are_those_of_the_run(pair: tuple[Any, Any]) -> None:
    if pair[0].model_name == "popularity":
        with pytest.raises(UsageError, match="item similarities"):
            pair[0].similar_items(IDS[0])
        return
    for k in (1, 5, 50):
        found, expected = (one.similar_items(IDS[7], k) for one in pair)
        assert_alike(found, expected)
        assert len(found) == min(k, 31)


def test_more_similar_items_than_an_export_keeps_are_refused(exported: Folder) -> None:
    kept, whole = (OnnxRecommender.load(exported("ease"), threads=1) for _ in range(2))
    assert whole._neighbours is not None
    kept._neighbours = whole._neighbours[0][:, :7], whole._neighbours[1][:, :7]
    assert kept.similar_items(IDS[0], 7).ids == whole.similar_items(IDS[0], 7).ids
    for k in (8, 31, 1_000):
        assert len(whole.similar_items(IDS[0], k)) == min(k, 31)
        with pytest.raises(UsageError, match="got a k above 7, as many similar items as an exported model knows"):
            kept.similar_items(IDS[0], k)


def test_it_says_what_it_is(pair: tuple[Any, Any]) -> None:
    found, expected = pair
    assert (found.model_name, found.metrics) == (expected.model_name, expected.metrics)
    assert found.manifest == {key: expected.manifest[key] for key in ("name", "fingerprint")}
    assert found.item_ids.tolist() == expected.item_ids.tolist()


def test_a_list_is_not_diversified(ease: OnnxRecommender) -> None:
    with pytest.raises(UsageError, match="but an exported model has no similarities between all items"):
        ease.recommend(IDS[:2], diversify=0.5)


def test_the_best_items_are_those_of_the_model(pair: tuple[Any, Any], blocks: Dataset) -> None:
    rows = blocks.test.fold_in
    items, scores = pair[0].scorer.top_k(rows.indices, rows.indptr, rows.data, 50)
    expected, expected_scores = pair[1].model.recommend(rows, 32)
    assert items.shape == scores.shape == expected.shape
    np.testing.assert_array_equal(items >= 0, expected >= 0)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-5)


def test_with_8_bits_too_the_company_makes_no_difference(exported: Folder, blocks: Dataset) -> None:
    recommender = OnnxRecommender.load(exported("multvae", "onnx", "int8"), threads=1)
    together = recommender.recommend_batch(blocks.test.fold_in, 5)
    for row, found in zip(blocks.test.fold_in, together, strict=True):
        assert_alike(found, recommender.recommend_batch(row, 5)[0])


def test_threads_share_a_recommender(ease: OnnxRecommender) -> None:
    histories = [[IDS[n % 32], IDS[(3 * n + 1) % 32]] for n in range(200)]
    alone = [ease.recommend(history).ids for history in histories]
    with ThreadPoolExecutor(4) as pool:
        assert [found.ids for found in pool.map(ease.recommend, histories)] == alone


def test_nothing_heavy_is_imported_to_load_and_answer(exported: Folder) -> None:
    code = (
        "import sys\n"
        f"for name in {HEAVY}:\n    sys.modules[name] = None\n"
        "from recvae.serving.onnx import OnnxRecommender\n"
        "assert 'onnxruntime' not in sys.modules\n"
        f"found = OnnxRecommender.load({str(exported('multvae'))!r}).recommend([{IDS[0]}, {IDS[1]}], k=3)\n"
        "print(len(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("3", "")


@pytest.mark.parametrize("threads", [0, -1, True, "2"])
def test_a_number_of_threads_is_one_or_more(threads: Any, exported: Folder) -> None:
    with pytest.raises(UsageError, match=r"got threads=.*, expected a whole number, 1 or more"):
        OnnxScorer.load(exported("ease"), threads)


@pytest.mark.parametrize(
    ("items", "offsets", "weights", "message"),
    [
        (
            [0, 1],
            [0, 2],
            [1.0],
            r"got items, offsets and weights of shapes \(2,\), \(2,\) and \(1,\), expected as many",
        ),
        ([[0]], [0, 1], [[1.0]], "got items, offsets and weights of shapes"),
        ([], [], [], "got items, offsets and weights of shapes"),
        ([0, 1], [0, 1], [1.0, 1.0], "got offsets that are not integers ascending from 0 to 2"),
        ([0, 1], [1, 2], [1.0, 1.0], "got offsets that are not"),
        ([0, 1], [0, 2, 1, 2], [1.0, 1.0], "got offsets that are not"),
        ([0, 1], [0.0, 2.0], [1.0, 1.0], "got offsets that are not"),
        ([-1], [0, 1], [1.0], "got items that are not columns from 0 to 31"),
        ([32], [0, 1], [1.0], "got items that are not columns"),
        ([0.5], [0, 1], [1.0], "got items that are not columns"),
        (
            [0],
            [0, 1],
            [0.0],
            "got invalid weights, expected a number from 1e-06 to 1e\\+06; remove",
        ),
        ([0], [0, 1], [np.nan], "got invalid weights, expected a number"),
        ([0], [0, 1], ["1"], "got invalid weights, expected a number"),
    ],
)
def test_only_rows_of_interactions_are_scored(
    items: Any, offsets: Any, weights: Any, message: str, ease: OnnxRecommender
) -> None:
    with pytest.raises(DataError, match=message):
        ease.scorer.score(np.array(items), np.array(offsets), np.array(weights))


def test_nobody_is_scored_too(ease: OnnxRecommender) -> None:
    nobody = (np.array([]), np.array([0]), np.array([]))
    assert ease.scorer.score(*nobody).shape == (0, 32)
    assert ease.scorer.top_k(*nobody, 3)[0].shape == (0, 3)
    with pytest.raises(UsageError, match="got k=0, expected a whole number of items"):
        ease.scorer.top_k(*nobody, 0)


def test_scores_that_are_no_numbers_are_not_ranked() -> None:
    with pytest.raises(TrainingError, match="the model gives scores that are not numbers"):
        serving._best(np.array([[0.0, np.nan]], dtype=np.float32), 1)


@settings(max_examples=40)
@given(scores=st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 2.0]), min_size=1, max_size=12), k=st.integers(1, 12))
def test_equal_scores_are_ranked_by_column(scores: list[float], k: int) -> None:
    columns, values = serving._best(np.array([scores], dtype=np.float32), k)
    order = [column for column in np.argsort(-np.array(scores), kind="stable") if scores[column] > -np.inf][:k]
    assert columns[0].tolist() == [*order, *[-1] * (k - len(order))]
    assert values[0].tolist() == [*(scores[column] for column in order), *[-np.inf] * (k - len(order))]


@pytest.mark.parametrize("name", ["model.onnx", ITEMS, NEIGHBOURS])
def test_damage_is_noticed(name: str, copy: Path) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"is damaged: {name} was changed after it was written; copy it again"):
        OnnxRecommender.load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} should have .* bytes, found no file"):
        OnnxRecommender.load(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "export.json cannot be read"),
        ("[]", "export.json cannot be read"),
        ('{"version": 1, "format": "onnx"}', "export.json cannot be read: KeyError"),
        ('{"version": 2, "format": "onnx", "files": {}}', "has export format 2, this version reads up to 1; upgrade"),
        ('{"version": 1, "format": "onnx", "files": {}}', "export.json does not list"),
        ('{"version": 1, "format": "onnx", "files": [{}]}', "export.json cannot be read: TypeError"),
        ('{"version": 1, "format": "onnx", "files": [1, "a"]}', "lists '1', which is not a file of an export"),
        ('{"version": 1e999, "format": "onnx", "files": {}}', "export.json cannot be read: OverflowError"),
        ("[" * 100_000, "export.json cannot be read: RecursionError"),
        (
            '{"version": 1, "format": "onnx", "files": {"../../etc/passwd": {}}}',
            "lists '../../etc/passwd', which is no",
        ),
    ],
    ids=lambda text: text[:60],
)
def test_a_card_that_is_none_is_refused(content: str, message: str, copy: Path) -> None:
    (copy / EXPORT_CARD).write_text(content)
    with pytest.raises(BundleError, match=message):
        OnnxRecommender.load(copy)


def test_what_is_no_export_is_refused(exported: Folder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no export\.json, expected an exported model; make it with `recvae exp"):
        OnnxRecommender.load(tmp_path)
    with pytest.raises(UsageError, match="holds a model in format torch, expected onnx; make it with"):
        OnnxRecommender.load(exported("ease", "torch"))


@pytest.mark.parametrize(
    "content",
    [
        "nonsense",
        '{"ids": [1, 2], "titles": null}',
        '{"ids": [1, 2], "titles": null, "train_counts": [1]}',
        '{"ids": [1], "titles": [], "train_counts": [1]}',
        f'{{"ids": [{2**70}], "titles": null, "train_counts": [1]}}',
        f'{{"ids": [1], "titles": null, "train_counts": [{2**70}]}}',
        "[" * 100_000,
    ],
    ids=lambda content: content[:60],
)
def test_items_that_are_none_are_refused(content: str, copy: Path) -> None:
    (copy / ITEMS).write_text(content)
    put_down(copy)
    with pytest.raises(BundleError, match=r"items\.json cannot be read"):
        OnnxRecommender.load(copy)


def test_items_of_another_number_are_refused(copy: Path) -> None:
    (copy / ITEMS).write_text('{"ids": [1], "titles": null, "train_counts": [1]}')
    put_down(copy)
    with pytest.raises(BundleError, match="the graph has 32 items, the index 1"):
        OnnxRecommender.load(copy)


@pytest.mark.parametrize("ids", [np.arange(3) - 1, 2**60 + np.arange(3), np.array(["1", "ü 文", ""], dtype=object)])
@pytest.mark.parametrize("titles", [None, np.array(["x", None, "“z”"], dtype=object)])
def test_items_keep_ids_of_either_type_and_missing_titles(ids: Any, titles: Any, tmp_path: Path) -> None:
    write_items(tmp_path / ITEMS, ItemIndex(ids=ids, titles=titles, train_counts=np.array([3, 0, 2**40])))
    found = read_items(tmp_path)
    np.testing.assert_array_equal(found.ids, ids, strict=True)
    assert (found.titles is None) == (titles is None)
    assert titles is None or (found.titles is not None and found.titles.tolist() == titles.tolist())
    assert found.train_counts.tolist() == [3, 0, 2**40]


@pytest.mark.parametrize(
    "arrays",
    [
        {"columns": np.zeros((32, 2), dtype=np.int32)},
        {"columns": np.zeros((31, 2), dtype=np.int32), "similarities": np.zeros((31, 2))},
        {"columns": np.zeros((32, 2), dtype=np.int32), "similarities": np.zeros((32, 3))},
        {"columns": np.full((32, 2), 32, dtype=np.int32), "similarities": np.zeros((32, 2))},
    ],
)
def test_neighbours_that_are_none_are_refused(arrays: dict[str, np.ndarray], copy: Path) -> None:
    np.savez(copy / NEIGHBOURS, **arrays)  # type: ignore[arg-type]
    put_down(copy)
    with pytest.raises(BundleError, match=r"neighbours\.npz cannot be read"):
        OnnxRecommender.load(copy)


def test_a_graph_of_something_else_is_refused(copy: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), copy / "model.onnx")
    put_down(copy)
    with pytest.raises(BundleError, match=r"model\.onnx is not a graph of scores"):
        OnnxRecommender.load(copy)
    (copy / "model.onnx").write_bytes(b"nonsense")
    put_down(copy)
    with pytest.raises(BundleError, match=r"model\.onnx cannot be read"):
        OnnxRecommender.load(copy)


def test_a_model_fitted_in_this_process_is_the_one_exported(fitted: Callable[[str], Model], ease: Any) -> None:
    rows = (np.array([3], dtype=np.int64), np.array([0, 1]), np.array([1.0]))
    np.testing.assert_array_equal(ease.scorer.score(*rows)[0], fitted("ease").weights()["similarity"][3])
