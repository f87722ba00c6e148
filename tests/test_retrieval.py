"""Lists by a search of vectors: those of all scores, never a seen item, never shorter, or refused in words."""

import builtins
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import scipy.sparse as sp

from recvae.bundles.bundle import Bundle, read_bundle, write_bundle
from recvae.bundles.exported import EXPORT_CARD
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, ExportError, StorageError, TrainingError, UsageError
from recvae.exports.writing import export
from recvae.items import ItemIndex
from recvae.models import ALS, Model
from recvae.recommenders import retrieval
from recvae.recommenders.answers import Request
from recvae.recommenders.recommender import Recommender
from recvae.recommenders.retrieval import Retriever, hash_of
from recvae.recommenders.vector_index import VectorIndex
from recvae.storage.integrity import described

WITH_VECTORS = ["multvae", "multdae", "recvae", "hvamp", "ae", "elsa", "als"]
N_ITEMS, FACTORS = 8_000, 12
Folder = Callable[..., Path]


def nothing_of(shape: tuple[int, int]) -> sp.csr_matrix:
    return sp.csr_matrix(np.zeros(shape, dtype=np.float32))


def als(factors: np.ndarray) -> ALS:
    return ALS(factors=factors.shape[1], regularization=0.1).load_weights({"item_factors": factors})


@pytest.fixture(scope="module")
def large() -> ALS:
    """Return a model of 8,000 items in 200 groups, lengths as unlike as those of popular and rare items; two in a
    row are the same."""
    generator = np.random.default_rng(0)
    groups = generator.standard_normal((200, FACTORS))
    factors = groups[generator.integers(0, 200, N_ITEMS // 2)] + 0.3 * generator.standard_normal(
        (N_ITEMS // 2, FACTORS)
    )
    factors *= generator.lognormal(0, 1, (N_ITEMS // 2, 1)) / 10
    return als(np.repeat(factors, 2, axis=0).astype(np.float32))


@pytest.fixture(scope="module")
def index(large: ALS) -> VectorIndex:
    return VectorIndex.build(*large.item_vectors())


@pytest.fixture(scope="module")
def users() -> sp.csr_matrix:
    """Return 40 histories of 1 to 40 items."""
    generator = np.random.default_rng(1)
    lengths = np.arange(1, 41)
    columns = np.concatenate([np.sort(generator.choice(N_ITEMS, n, replace=False)) for n in lengths])
    offsets = np.append(0, np.cumsum(lengths))
    return sp.csr_matrix((np.ones(len(columns), dtype=np.float32), columns, offsets), shape=(40, N_ITEMS))


def share(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, expected, strict=True)]))


# The same lists.


@pytest.mark.parametrize("name", WITH_VECTORS)
@pytest.mark.parametrize("shown", ["unseen", "all"])
def test_where_all_items_are_candidates_lists_and_scores_are_the_exact_ones(
    name: str, shown: str, fitted: Callable[[str], Model], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fitted(name)
    rows = sp.csr_matrix(blocks.test.fold_in * np.float32(1.5))
    hidden = None if shown == "unseen" else nothing_of(rows.shape)
    retriever = Retriever(model, VectorIndex.build(*model.item_vectors()), 1)
    all_items = np.arange(32)
    monkeypatch.setattr(Retriever, "_candidates", lambda _, user, *__: retrieval._without(all_items, user.hidden))
    items, scores = retriever.recommend(rows, 10, hidden=hidden)
    expected = model.recommend(rows, 10, hidden=hidden)
    np.testing.assert_allclose(scores, expected[1], rtol=1e-5, atol=1e-6 * np.abs(expected[1]).max())
    near = np.isclose(np.diff(expected[1], axis=1), 0, atol=1e-5).any(axis=1)  # rounding may order these otherwise
    np.testing.assert_array_equal(items[~near], expected[0][~near])
    assert (~near).sum() >= 3


@pytest.mark.parametrize("k", [1, 10, 100])
def test_with_all_lists_the_index_finds_what_all_scores_find(
    k: int, large: ALS, index: VectorIndex, users: sp.csr_matrix
) -> None:
    items, scores = Retriever(large, index, index.n_lists).recommend(users, k)
    expected = large.recommend(users, k)
    np.testing.assert_allclose(scores, expected[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(items[:, : k - k % 2], expected[0][:, : k - k % 2])  # pairs of equal items


def test_equal_items_are_ordered_by_column(large: ALS, index: VectorIndex, users: sp.csr_matrix) -> None:
    items, scores = Retriever(large, index, 20).recommend(users, 50)
    tied = np.diff(scores, axis=1) == 0
    assert tied.sum() > 500 and (np.diff(items, axis=1)[tied] > 0).all()


def test_some_lists_are_enough(large: ALS, index: VectorIndex, users: sp.csr_matrix) -> None:
    some = Retriever(large, index, index.n_lists // 8)
    assert share(some.recommend(users, 10)[0], large.recommend(users, 10)[0]) > 0.95


def test_answers_do_not_depend_on_who_is_answered_together(
    large: ALS, index: VectorIndex, users: sp.csr_matrix
) -> None:
    retriever = Retriever(large, index, 8)
    together = retriever.recommend(users, 10)
    for number in range(40):
        items, scores = retriever.recommend(users[number], 10)
        np.testing.assert_array_equal(items[0], together[0][number])
        np.testing.assert_allclose(scores[0], together[1][number], rtol=1e-5)


@pytest.mark.parametrize("others", [{"k": 1_000}, {"k": 300, "diversify": 0.5}, {"k": 5, "filter_seen": False}])
def test_nor_on_what_the_others_ask_for(others: dict[str, Any], large: ALS, index: VectorIndex, run: Path) -> None:
    recommender = Recommender.load(run, retrieval=True)
    recommender._retriever = Retriever(recommender.model, index, 1)  # so few lists that a deeper search finds others
    histories = [[10 + 7 * user, 900 + 31 * user] for user in range(40)]
    alone = [recommender.recommend(history, k=10) for history in histories]
    requests = [Request(items=history, k=10) for history in histories]
    together = recommender.answer([*requests, *(Request(items=history, **others) for history in histories)])
    assert [one.ids for one in together[:40]] == [one.ids for one in alone]
    assert [one.ids for one in together[40:]] == [recommender.recommend(items, **others).ids for items in histories]


# Seen and excluded items.


@pytest.mark.parametrize("n_seen", [500, 2_000, 7_900])
def test_who_has_seen_the_whole_neighbourhood_is_never_shown_it_again(
    n_seen: int, large: ALS, index: VectorIndex
) -> None:
    """History: the items nearest to what the model makes of it, so that a search finds them first."""
    start = sp.csr_matrix(([np.float32(1)], ([0], [77])), shape=(1, N_ITEMS))
    seen = np.sort(large.recommend(start, n_seen, hidden=nothing_of((1, N_ITEMS)))[0][0])
    for weight in (1.0, 1e-3):
        row = sp.csr_matrix((np.full(n_seen, weight, dtype=np.float32), seen, [0, n_seen]), shape=(1, N_ITEMS))
        items, _ = Retriever(large, index, index.n_lists // 8).recommend(row, 20)
        assert not np.isin(items, seen).any() and (items >= 0).all()
        assert share(items, large.recommend(row, 20)[0]) > 0.75


def test_where_all_is_seen_the_list_is_empty(large: ALS, index: VectorIndex) -> None:
    row = sp.csr_matrix(np.ones((1, N_ITEMS), dtype=np.float32))
    items, scores = Retriever(large, index, 4).recommend(row, 5)
    assert items.tolist() == [[-1] * 5] and np.isneginf(scores).all()


@pytest.mark.parametrize("n_allowed", [0, 3, 200, 5_500, 7_990])
@pytest.mark.parametrize("each", [False, True])
def test_a_filter_never_makes_a_list_short(
    n_allowed: int, each: bool, large: ALS, index: VectorIndex, users: sp.csr_matrix
) -> None:
    allowed = np.zeros(N_ITEMS, dtype=bool)
    allowed[np.random.default_rng(2).choice(N_ITEMS, n_allowed, replace=False)] = True
    masks = np.stack([allowed if row % 2 else ~allowed for row in range(40)]) if each else allowed
    items, scores = Retriever(large, index, 30).recommend(users, 10, allowed=masks)
    expected = large.recommend(users, 10, allowed=masks)
    assert ((items >= 0) == (expected[0] >= 0)).all() and (np.isneginf(scores) == (items < 0)).all()
    for row, found in enumerate(items):
        mask = masks[row] if each else masks
        assert mask[found[found >= 0]].all() and not np.isin(found, users[row].indices).any()
    there = [(found[found >= 0], wanted[wanted >= 0]) for found, wanted in zip(items, expected[0], strict=True)]
    assert np.mean([np.isin(wanted, found).mean() for found, wanted in there if len(wanted)] or [1]) > 0.93


def test_where_allowed_items_lie_far_from_a_user_more_lists_are_searched(
    large: ALS, index: VectorIndex, users: sp.csr_matrix
) -> None:
    scores = large.score(users[:1])[0]
    allowed = scores < np.median(scores)  # 4,000 would all be scored
    allowed[np.argsort(scores)[: N_ITEMS * 3 // 4]] = True
    items, values = Retriever(large, index, 1).recommend(users[:1], 50, allowed=allowed)
    assert allowed[items].all() and np.isfinite(values).all()


def test_more_than_the_index_can_give_is_found_by_all_scores(large: ALS, index: VectorIndex, users: Any) -> None:
    items, _ = Retriever(large, index, 1).recommend(users[:2], N_ITEMS)
    np.testing.assert_array_equal(items, large.recommend(users[:2], N_ITEMS)[0])


# The index itself.


def test_an_index_is_the_same_each_time_and_from_its_file(
    large: ALS, index: VectorIndex, users: sp.csr_matrix, tmp_path: Path
) -> None:
    again = VectorIndex.build(*large.item_vectors())
    for name, one in (("one", index), ("two", again)):
        one.write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    query = large.query_vectors(users)[3]
    for mapped in (True, False):
        read = VectorIndex.read(tmp_path / "one", FACTORS, mapped)
        np.testing.assert_array_equal(read.search(query, 100, 8), index.search(query, 100, 8))
        lists = faiss.downcast_InvertedLists(read._index.invlists)
        assert isinstance(lists, faiss.OnDiskInvertedLists) == mapped


def test_a_bias_counts_and_is_searched_for() -> None:
    vectors = np.random.default_rng(0).standard_normal((3_000, 4)).astype(np.float32) / 10
    bias = np.zeros(3_000, dtype=np.float32)
    bias[[5, 1_000, 2_999]] = 10
    query = np.append(vectors[0], 1).astype(np.float32)
    assert set(VectorIndex.build(vectors, bias).search(query, 3, 8)) == {5, 1_000, 2_999}


@pytest.mark.parametrize("n_items", [1, 2, 9, 21])
def test_a_small_catalogue_is_one_list(n_items: int) -> None:
    model = als(np.random.default_rng(0).standard_normal((n_items, 3)).astype(np.float32))
    retriever = Retriever(model, VectorIndex.build(*model.item_vectors()), 1)
    row = sp.csr_matrix(([np.float32(1)], ([0], [0])), shape=(1, n_items))
    np.testing.assert_array_equal(retriever.recommend(row, 5)[0], model.recommend(row, 5)[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused(value: float) -> None:
    factors = np.ones((50, 3), dtype=np.float32)
    factors[7, 1] = value
    with pytest.raises(TrainingError, match="item vectors that are not numbers"):
        VectorIndex.build(factors)


def test_a_user_whose_vector_is_no_number_gets_an_error_and_no_list(
    large: ALS, index: VectorIndex, users: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = np.full((1, FACTORS), np.nan, dtype=np.float32)
    monkeypatch.setattr(ALS, "_embed_block", lambda *_: nan)
    with pytest.raises(TrainingError, match="scores that are not numbers"):
        Retriever(large, index, 8).recommend(users[:1], 5)


def test_an_index_of_another_shape_is_refused(large: ALS, index: VectorIndex) -> None:
    other = als(np.ones((N_ITEMS, 5), dtype=np.float32))
    with pytest.raises(UsageError, match=r"index of 8,000 items with 12 numbers each, expected 8,000 items with 5"):
        Retriever(other, index, 1)
    with pytest.raises(UsageError, match="got lists=0, expected a whole number from 1 to"):
        Retriever(large, index, 0)


def test_query_vectors_that_do_not_fit_the_items_are_refused(
    large: ALS, index: VectorIndex, users: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ALS, "_query_block", lambda self, rows: self._embed_block(rows)[:, :5])
    with pytest.raises(UsageError, match=r"got query vectors of shape \(40, 5\) from als, expected \(40, 12\)"):
        Retriever(large, index, 8).recommend(users, 5)


# On disk.


@pytest.fixture(scope="module")
def run(large: ALS, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with its index; copy it before changing anything."""
    folder = tmp_path_factory.mktemp("retrieval") / "run"
    items = ItemIndex(ids=np.arange(N_ITEMS) + 10, titles=None, train_counts=np.arange(N_ITEMS)[::-1].copy())
    write_bundle(folder, Bundle(model=large, items=items, manifest={"name": "large"}))
    export(folder, format="index")
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_a_recommender_answers_by_the_index_with_the_models_scores(run: Path) -> None:
    by_index, exact = Recommender.load(run, retrieval=True), Recommender.load(run)
    ids = exact.item_ids[[5, 900, 4_321]].tolist()
    found, expected = (one.recommend(ids, k=10, exclude=[12, 14]) for one in (by_index, exact))
    assert len(set(found.ids) & set(expected.ids)) >= 9
    both = {i: s for i, s in zip(expected.ids, expected.scores, strict=True) if i in found.ids}
    assert {i: s for i, s in zip(found.ids, found.scores, strict=True) if i in both} == pytest.approx(both, rel=1e-5)
    batch = by_index.recommend_batch([ids, []], k=10, exclude=[12, 14])
    assert batch[0].ids == found.ids and batch[1].fallback
    assert by_index.recommend(ids, k=5, diversify=0.5).ids and by_index.explain(ids, found.ids[:1])[0].reasons


def test_the_card_says_how_much_is_found_and_of_what_it_is(run: Path, large: ALS) -> None:
    card = json.loads((run / "index" / EXPORT_CARD).read_text())
    assert (card["format"], card["model"], card["n_items"], card["inputs"]) == ("index", "als", N_ITEMS, {})
    assert card["vectors"] == hash_of(*large.item_vectors()) and 1 <= card["lists"] <= card["n_lists"]
    check = card["check"]
    assert check["on"] == "generated histories" and check["rows"] == 200 and check["difference"] < 1e-4
    assert min(check["overlap"].values()) >= 0.95 and set(check["overlap"]) == {"10", "100"}
    assert set(card["files"]) == {"index.faiss"} and card["versions"]["faiss-cpu"]


def test_it_may_lie_elsewhere_and_serve_a_model_in_memory(
    run: Path, copy: Path, blocks: Dataset, tmp_path: Path
) -> None:
    (copy / "index").rename(tmp_path / "moved")
    assert Recommender.load(copy, retrieval=tmp_path / "moved").recommend([10]).ids
    folder = export(_saved(blocks, tmp_path / "small"), format="index").folder
    model = Recommender.load(tmp_path / "small").model
    in_memory = Recommender(model, blocks, retrieval=folder)
    assert in_memory.recommend([1000, 990], k=3).ids == Recommender(model, blocks).recommend([1000, 990], k=3).ids


def _saved(blocks: Dataset, folder: Path, seed: int = 0) -> Path:
    model = ALS(factors=4, regularization=0.1, iterations=3, seed=seed).fit(blocks.train)
    Recommender(model, blocks).save(folder)
    return folder


def test_an_index_of_other_weights_is_refused(blocks: Dataset, run: Path, tmp_path: Path) -> None:
    first, second = (_saved(blocks, tmp_path / str(seed), seed) for seed in (1, 2))
    folder = export(first, format="index").folder
    with pytest.raises(UsageError, match=r"is an index of other weights than those of .*/2, .*make a new one with"):
        Recommender.load(second, retrieval=folder)
    model = Recommender.load(second).model
    with pytest.raises(UsageError, match="is an index of other weights than those of als"):
        Recommender(model, blocks, retrieval=folder)
    Recommender.load(first).save(tmp_path / "again")  # another card, the same weights
    assert Recommender.load(tmp_path / "again", retrieval=folder).recommend([1000]).ids


def test_without_an_index_the_error_names_the_command(blocks: Dataset, tmp_path: Path) -> None:
    run = _saved(blocks, tmp_path / "run")
    with pytest.raises(UsageError, match="make it with `recvae export RUN --format index`"):
        Recommender.load(run, retrieval=True)


def _other(folder: Path, kind: str) -> None:
    """Put something else in the place of the index, with the right hash in the card."""
    path, card = folder / "index.faiss", json.loads((folder / EXPORT_CARD).read_text())
    vectors = np.random.default_rng(0).standard_normal((N_ITEMS, 16)).astype(np.float32)
    made: Any = None
    if kind == "flat":
        made = faiss.index_factory(16, "Flat")
        made.add(vectors)
    elif kind in ("euclidean", "twice"):
        metric = faiss.METRIC_L2 if kind == "euclidean" else faiss.METRIC_INNER_PRODUCT
        made = faiss.IndexIVFScalarQuantizer(
            (faiss.IndexFlatL2 if kind == "euclidean" else faiss.IndexFlatIP)(16),
            *(16, 4, faiss.ScalarQuantizer.QT_8bit, metric, False),
        )
        made.train(vectors)
        made.add_with_ids(vectors, np.zeros(N_ITEMS, dtype=np.int64))
    elif kind == "narrow":
        other = VectorIndex.build(vectors)
        other.write(path)
    elif kind == "fewer":
        VectorIndex.build(vectors[:-1, :FACTORS]).write(path)
    if kind in ("flat", "euclidean", "twice"):
        faiss.write_index(made, str(path))
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-5_000])
    elif kind == "text":
        path.write_text("no index")
    elif kind == "lists":
        card["lists"] = 10**6
    if kind != "changed":
        card["files"] = described(folder, ["index.faiss"])
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    (folder / EXPORT_CARD).write_text(json.dumps(card))


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("changed", "index.faiss was changed after it was written"),
        ("cut", "index.faiss cannot be used"),
        ("text", "index.faiss cannot be used"),
        ("flat", "it is an index of another kind"),
        ("euclidean", "it is an index of another kind"),
        ("twice", "it has not each item once"),
        ("narrow", "its vectors have 32 numbers, expected 16"),
        ("fewer", "index.faiss has 7,999 items, expected 8,000"),
        ("lists", "says lists 1000000, expected 1 to"),
    ],
)
def test_a_damaged_index_is_refused(kind: str, message: str, mapped: bool, copy: Path) -> None:
    _other(copy / "index", kind)
    with pytest.raises(BundleError, match=f"is damaged: .*{message}"):
        Recommender.load(copy, retrieval=True, mapped=mapped)


def test_a_newer_or_other_export_is_refused(copy: Path) -> None:
    card = json.loads((copy / "index" / EXPORT_CARD).read_text())
    (copy / "index" / EXPORT_CARD).write_text(json.dumps(card | {"version": 2}))
    with pytest.raises(BundleError, match="has export format 2, this version reads up to 1"):
        Recommender.load(copy, retrieval=True)
    (copy / "index" / EXPORT_CARD).write_text(json.dumps(card | {"format": "onnx"}))
    with pytest.raises(UsageError, match="holds a model in format onnx, expected index"):
        Recommender.load(copy, retrieval=True)


# What cannot be exported.


@pytest.mark.parametrize("name", ["ease", "popularity", "vasp", "blend"])
def test_a_model_without_item_vectors_gets_no_index(name: str, bundle_folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{name} has no item vectors to search by"):
        export(bundle_folder(name), format="index", output=tmp_path / "out")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=f"{name} has no item vectors to search by"):
        Recommender.load(bundle_folder(name), retrieval=True)


def test_an_index_that_finds_too_little_is_refused_and_leaves_the_old_one(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (copy / "index" / EXPORT_CARD).read_bytes()
    search = VectorIndex.search
    monkeypatch.setattr(VectorIndex, "search", lambda self, *args: search(self, *args)[::2])
    with pytest.raises(ExportError, match=r"the index finds \d+\.\d% of the top 100? of 200 generated histories"):
        export(copy, format="index", min_recall=0.9)
    assert (copy / "index" / EXPORT_CARD).read_bytes() == before
    assert sorted(path.name for path in copy.iterdir() if path.is_dir()) == ["index"]
    made = export(copy, format="index", min_recall=0.0)
    assert made.card["check"]["overlap"]["10"] < 0.9


def test_vectors_that_do_not_make_the_scores_are_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ALS, "_query_block", lambda self, rows: 2 * self._embed_block(rows))
    with pytest.raises(ExportError, match=r"scores that differ from the model's by .* do not make the model's"):
        export(copy, format="index")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "index", "min_recall": 1.5}, r"got --min-recall 1.5, expected a share from 0 to 1"),
        ({"format": "index", "min_recall": float("nan")}, r"got --min-recall nan, expected a share from 0 to 1"),
        ({"format": "onnx", "min_recall": 0.9}, "got --min-recall with format onnx, whose lists are exact"),
        ({"format": "index", "quantize": "int8"}, "got --quantize with format index, which has 8 bits always"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str, run: Path) -> None:
    with pytest.raises(UsageError, match=message):
        export(run, **options)


def test_a_full_disk_is_an_error_and_leaves_nothing(
    blocks: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _saved(blocks, tmp_path / "run")

    def fail(*_: object) -> None:
        raise RuntimeError("Error in write_index: No space left on device")

    monkeypatch.setattr(faiss, "write_index", fail)
    with pytest.raises(StorageError, match=r"could not write .*index: .*No space left"):
        export(run, format="index")
    assert not (run / "index").exists()


def test_without_faiss_the_message_says_what_to_install(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fail(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "faiss":
            raise ModuleNotFoundError("No module named 'faiss'", name="faiss")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    monkeypatch.setattr(builtins, "__import__", fail)
    install = r"an index of item vectors needs a library .* install it with: pip install 'recvae\[retrieval\]'"
    with pytest.raises(UsageError, match=install):
        export(run, format="index")
    with pytest.raises(UsageError, match=install):
        Recommender.load(run, retrieval=True)
    assert Recommender.load(run).recommend([10]).ids  # which needs none


# As a user does.


def test_serve_answers_by_the_index_and_refuses_one_of_an_earlier_training(
    blocks: Dataset, run: Path, copy: Path, tmp_path: Path
) -> None:
    from fastapi.testclient import TestClient

    from recvae.serving.app import create_app
    from recvae.serving.settings import Settings

    settings = Settings(format="index", token="secret")
    token = {"Authorization": "Bearer secret"}
    body = {"items": [15, 910, 4_331], "k": 10, "explain": True, "exclude": [12]}
    expected = Recommender.load(run, retrieval=True).recommend(body["items"], k=10, exclude=[12])
    with TestClient(create_app([copy], settings), headers=token) as client:
        answer = client.post("/recommend", json=body).json()
        assert [item["id"] for item in answer["items"]] == expected.ids and answer["items"][0]["reasons"]
        assert client.get("/model").json()["models"][0]["format"] == "index"
        assert client.get("/similar/15?k=3").status_code == 200
        version = answer["version"]
        _saved(blocks, tmp_path / "other")
        shutil.copytree(tmp_path / "other", copy, dirs_exist_ok=True)  # trained again; its index is the old one
        refused = client.post("/reload")
        assert refused.status_code == 409 and "is an index of other weights" in refused.json()["error"]
        assert client.post("/recommend", json=body).json()["version"] == version
        export(copy, format="index")
        assert client.post("/reload").status_code == 200
        answer = client.post("/recommend", json={"items": [1000, 990], "k": 3}).json()
        assert len(answer["items"]) == 3 and answer["version"] != version
    shutil.rmtree(copy / "index")
    with pytest.raises(UsageError, match="make it with `recvae export RUN --format index`"):
        create_app([copy], settings)


def test_a_run_that_has_changed_beside_its_index_is_a_new_version(copy: Path) -> None:
    """With the same weights, so that its index fits; a signal takes up new versions only."""
    from recvae.serving.settings import Settings
    from recvae.serving.store import ModelStore

    store = ModelStore([copy], Settings(format="index"))
    (before,) = store.models()
    assert store.is_current() and before.recommender.similar_items(10, 1).titles == [None]
    bundle = read_bundle(copy, mapped=False)
    titles = np.array([f"film {item}" for item in bundle.items.ids], dtype=object)
    write_bundle(copy, replace(bundle, items=replace(bundle.items, titles=titles)))
    assert not store.is_current()
    store.reload()
    (after,) = store.models()
    assert store.is_current() and after.version != before.version
    assert "film " in str(after.recommender.similar_items(10, 1).titles)


def test_the_command_makes_an_index_says_what_it_finds_and_inspects_it(toy: Path, command: Callable[..., Any]) -> None:
    assert command("train", "--model", "als", "--set", "factors=8").code == 0
    said = command("export", "--format", "index", "--min-recall", ".9")
    assert said.code == 0, said.err
    assert "runs/toy/als/index: index of" in said.out and "validation users; their scores are the model's" in said.out
    assert re.search(r"searching \d+ of \d+ lists, it finds 100.0% of the top 10 and [\d.]+% of the top 100", said.out)
    assert "next: recvae serve runs/toy/als --format index\n" in said.err
    load = said.err.rpartition("python -c ")[2].strip().strip('"')
    exec(compile(load, "next", "exec"), {})
    seen = command("inspect", "toy/als")
    assert seen.code == 0 and re.search(r"index: finds 100.0% of the top 10 and .* validation users", seen.out)
    checks = json.loads(command("inspect", "toy/als", "--json").out)["checks"]
    assert checks["index"]["overlap"]["10"] == 1.0
    card = Path("runs/toy/als/index/export.json")
    shutil.copytree(card.parent, "runs/toy/als/torch")
    whole = json.loads(card.read_text())
    for check in (None, {}, {**whole["check"], "rows": "many"}, {**whole["check"], "overlap": {"10": None}}):
        card.write_text(json.dumps({**whole, "check": check}))
        damaged = command("inspect", "toy/als")
        text = " ".join(damaged.out.replace("│", " ").split())
        assert damaged.code == 1 and "export.json has no check" in text and not damaged.err
        assert (
            "holds a model in format index, expected torch" in text
            and "weights.safetensors" in text
            and "factors" in text
        )
        found = command("inspect", "toy/als", "--json")
        assert found.code == 1 and json.loads(found.out)["checks"] == {}
        assert "export.json has no check" in json.loads(found.out)["exports"]["index"]


def test_the_command_recommends_by_the_index(
    toy: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("train", "--model", "als", "--set", "factors=8").code == 0
    ids = Dataset.load(toy).item_ids[:3].tolist()
    ask = ("recommend", "--items", ",".join(map(str, ids)), "-k", 5)
    none = command(*ask, "--format", "index")
    assert (none.code, none.out) == (2, "") and "make it with `recvae export RUN --format index`" in none.err
    assert command("export", "--format", "index").code == 0
    searched: list[int] = []
    exact = Retriever.recommend

    def counting(self: Retriever, histories: Any, *more: Any, **options: Any) -> Any:
        searched.append(histories.shape[0])
        return exact(self, histories, *more, **options)

    monkeypatch.setattr(Retriever, "recommend", counting)
    expected = json.loads(command(*ask, "--json").out)
    assert not searched
    assert json.loads(command(*ask, "--format", "index", "--json").out) == expected and searched == [1]
    shown = command(*ask, "--format", "index", "--explain")
    assert "als from runs/toy/als, by its index\n" in shown.err and "because of" in shown.out
    assert "recvae serve runs/toy/als --format index\n" in shown.err
    Path("users.csv").write_text("user,item\n" + "".join(f"{user},{ids[user]}\n" for user in range(3)))
    searched.clear()
    for name, more in (("exact.csv", ()), ("found.csv", ("--format", "index"))):
        assert command("recommend", "--input", "users.csv", "--output", name, "-k", 4, *more).code == 0
    assert Path("exact.csv").read_text() == Path("found.csv").read_text() and sum(searched) >= 3


@pytest.mark.parametrize(
    ("format_", "message"),
    [
        ("onnx", "got --format onnx, expected torch or index; an ONNX export is for services without torch"),
        ("onnx-int8", "use `recvae serve --format onnx-int8`, or recvae.serving.onnx.OnnxRecommender"),
        ("faiss", "got --format faiss, expected torch or index"),
    ],
)
def test_other_formats_are_not_for_recommending(
    format_: str, message: str, workplace: Path, command: Callable[..., Any]
) -> None:
    said = command("recommend", "--items", "1", "--format", format_)
    assert (said.code, said.out, message in said.err) == (2, "", True), said.err


def test_an_interrupted_file_is_not_continued_by_another_search(
    toy: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("train", "--model", "als", "--set", "factors=8").code == 0
    assert command("export", "--format", "index").code == 0
    identities: list[dict[str, Any]] = []

    def noted(_source: Path, _output: Path, _answer: Any, identity: dict[str, Any], *_: Any, **__: Any) -> None:
        identities.append(identity)
        raise KeyboardInterrupt

    monkeypatch.setattr("recvae.recommenders.answer_files.recommend_file", noted)
    Path("users.csv").write_text("user,item\n1,1\n")
    for more in ((), ("--format", "index")):
        assert command("recommend", "--input", "users.csv", "--output", "found.csv", *more).code == 130
    one, other = identities
    assert other.pop("index") and one == other


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "index", "--min-recall", "2"), "got --min-recall 2.0, expected a share from 0 to 1"),
        (("--min-recall", ".9"), "got --min-recall with format onnx"),
        (("--format", "index"), "ease has no item vectors to search by"),
    ],
)
def test_what_the_command_cannot_export_is_one_line(
    words: tuple[str, ...], message: str, toy: Path, command: Callable[..., Any]
) -> None:
    assert command("train", "--model", "ease").code == 0
    said = command("export", *words)
    assert (said.code, said.out, message in said.err) == (2, "", True), said.err
    assert not Path("runs/toy/ease/index").exists()
