"""The bundle on disk: what was written comes back, nothing is executed, and damage is always noticed."""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from recvae.bundles import bundle
from recvae.bundles.bundle import ITEMS, WEIGHTS, Bundle, read_bundle, write_bundle
from recvae.bundles.card import CARD, read_card
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, NotFittedError, StorageError, UsageError
from recvae.items import ItemIndex
from recvae.models import MODELS, Model
from recvae.models.common.autoencoder import Autoencoder
from recvae.recommenders.recommender import Recommender
from recvae.storage.integrity import sha256_of
from recvae.training.records import TrainingSummary

FILES = ["README.md", ITEMS, CARD, WEIGHTS]
METRICS = {"validation": {"ndcg@100": 0.25, "recall@20": 1 / 3}}


@pytest.fixture(scope="session")
def bundle_of(fitted: Callable[[str], Model], blocks: Dataset) -> Callable[[str], Bundle]:
    def make(name: str) -> Bundle:
        training = TrainingSummary(epochs=3, best_epoch=2)
        return Bundle(
            model=fitted(name), items=blocks.items, manifest=blocks.manifest, metrics=METRICS, training=training
        )

    return make


@pytest.fixture(scope="module")
def sound(bundle_of: Callable[[str], Bundle], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a sound bundle; copy it before changing anything."""
    folder = tmp_path_factory.mktemp("bundles") / "sound"
    write_bundle(folder, bundle_of("multvae"))
    return folder


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def copy_of(sound: Path, parent: Path) -> Path:
    """Return a copy of a bundle to damage, in place of an earlier one."""
    shutil.rmtree(parent / "copy", ignore_errors=True)
    return Path(shutil.copytree(sound, parent / "copy"))


def change_card(folder: Path, **changes: Any) -> None:
    """Change the card, and put down the hashes of the files as they are now."""
    card = json.loads((folder / CARD).read_text())
    for name in (WEIGHTS, ITEMS):
        if (folder / name).is_file():
            card["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
    (folder / CARD).write_text(json.dumps(card | changes))


def assert_same_index(one: ItemIndex, other: ItemIndex) -> None:
    for name in ("ids", "titles", "train_counts"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None)
        if left is not None:
            np.testing.assert_array_equal(left, right, strict=True)


def test_a_bundle_comes_back_as_it_was_written(
    model_name: str, bundle_of: Callable[[str], Bundle], blocks: Dataset, tmp_path: Path
) -> None:
    bundle = bundle_of(model_name)
    write_bundle(tmp_path / "new" / "bundle", bundle)
    copy = read_bundle(tmp_path / "new" / "bundle")
    assert copy.model == bundle.model  # class and hyperparameters
    assert (copy.manifest, copy.metrics, copy.training) == (bundle.manifest, METRICS, bundle.training)
    assert not copy.interrupted
    assert_same_index(copy.items, bundle.items)
    for name, value in bundle.model.weights().items():
        np.testing.assert_array_equal(copy.model.weights()[name], value, strict=True)
    users = blocks.test.fold_in
    np.testing.assert_array_equal(copy.model.score(users), bundle.model.score(users))


@pytest.mark.parametrize("ids", [np.arange(3, dtype=np.int64) - 1, np.array(["a", "ü 文", ""], dtype=object)])
@pytest.mark.parametrize("titles", [None, np.array(["x", None, "“z”"], dtype=object)])
def test_an_item_index_keeps_ids_of_either_type_and_missing_titles(ids: Any, titles: Any, tmp_path: Path) -> None:
    index = ItemIndex(ids=ids, titles=titles, train_counts=np.array([3, 0, 2**40]))
    index.write(tmp_path / ITEMS)
    assert_same_index(ItemIndex.read(tmp_path / ITEMS), index)


def test_the_card_says_what_the_bundle_is(sound: Path) -> None:
    card = read_card(sound)
    assert (card["format"], card["model"], card["metrics"]) == (1, "multvae", METRICS)
    assert card["hyperparameters"]["hidden_dims"] == [16]
    assert card["dataset"]["name"] == "blocks"
    assert {"python", "recvae", "torch", "numpy", "scipy", "implicit", "safetensors"} == set(card["versions"])
    assert {name: facts["sha256"] for name, facts in card["files"].items()} == {
        name: sha256_of(sound / name) for name in (WEIGHTS, ITEMS)
    }
    page = (sound / "README.md").read_text(encoding="utf-8")
    for words in ("# multvae on blocks", "| validation | ndcg@100 | 0.2500 |", "| latent_dim | 8 |", "Liang et al."):
        assert words in page
    assert sorted(path.name for path in sound.iterdir()) == FILES


def test_an_interrupted_run_says_so(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> None:
    bundle = bundle_of("multdae")
    write_bundle(tmp_path, Bundle(model=bundle.model, items=bundle.items, training=TrainingSummary(interrupted=True)))
    assert read_bundle(tmp_path).interrupted
    assert "stopped by hand" in (tmp_path / "README.md").read_text()


def test_nothing_is_pickled_nor_executed_on_load(
    model_name: str, bundle_of: Callable[[str], Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path, bundle_of(model_name))
    for path in tmp_path.iterdir():
        start = path.read_bytes()[:2]
        assert start[:1] != pickle.PROTO
        assert start != b"PK"  # a zip archive, as torch.save and numpy.savez write

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("loading must not unpickle or execute anything")

    for module, names in (
        (pickle, ("load", "loads", "Unpickler", "_Unpickler")),
        (torch, ("load",)),
        (np, ("load",)),
        (io, ("open_code",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, refuse)
    assert read_bundle(tmp_path).model.n_items_ == 32


def test_loading_needs_no_random_numbers_and_leaves_no_gradients(sound: Path) -> None:
    before = torch.get_rng_state()
    model = read_bundle(sound).model
    assert isinstance(model, Autoencoder)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(parameter.requires_grad for parameter in model.network_.parameters())


def test_a_model_that_is_not_fitted_is_not_written(blocks: Dataset, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="call fit"):
        write_bundle(tmp_path, Bundle(model=MODELS["als"](), items=blocks.items))
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_cannot_be_written_is_reported(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"could not write .*file: a file stands where a folder is"):
        write_bundle(tmp_path / "file", bundle_of("popularity"))


def test_saving_replaces_a_bundle_as_a_whole_or_not_at_all(
    fitted: Callable[[str], Model], blocks: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recommender(fitted("popularity"), blocks).save(tmp_path / "bundle")
    (tmp_path / "bundle" / "left over").touch()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "write_json", fail)
        with pytest.raises(StorageError, match="the disk is full"):
            Recommender(fitted("als"), blocks).save(tmp_path / "bundle")
    assert Recommender.load(tmp_path / "bundle").model.name == "popularity"
    Recommender(fitted("als"), blocks).save(str(tmp_path / "bundle"))
    assert Recommender.load(str(tmp_path / "bundle")).model.name == "als"
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@given(st.data())
def test_a_damaged_file_is_noticed(sound: Path, scratch: Path, data: st.DataObject) -> None:
    folder = copy_of(sound, scratch)
    name = data.draw(st.sampled_from([WEIGHTS, ITEMS]))
    content = bytearray((folder / name).read_bytes())
    kind = data.draw(st.sampled_from(["cut", "flip", "more", "swap", "delete", "folder"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        content = content[:at]
    elif kind == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "more":
        content += bytes(at + 1)
    elif kind == "swap":
        content = bytearray((folder / CARD).read_bytes())
    (folder / name).write_bytes(content)
    if kind in ("delete", "folder"):
        (folder / name).unlink()
    if kind == "folder":
        (folder / name).mkdir()
    with pytest.raises(BundleError, match=rf"the bundle .*copy is damaged: .*{name}.*; copy it again, or train again"):
        read_bundle(folder)


@given(st.data())
def test_a_damaged_card_raises_nothing_but_a_bundle_error(sound: Path, scratch: Path, data: st.DataObject) -> None:
    """It is text for people, without a hash of its own: a change that still makes sense goes through."""
    folder = copy_of(sound, scratch)
    content = bytearray((folder / CARD).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:at]
    else:
        content[at] = data.draw(st.integers(0, 255))
    (folder / CARD).write_bytes(content)
    try:
        read_bundle(folder)
    except BundleError as error:
        assert str(folder) in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)


@given(data=st.data(), value=JSON)
def test_a_card_of_strange_values_raises_nothing_but_a_bundle_error(
    sound: Path, scratch: Path, data: st.DataObject, value: Any
) -> None:
    folder = copy_of(sound, scratch)
    card = json.loads((folder / CARD).read_text())
    places = [card, card["files"], card["files"][WEIGHTS], card["hyperparameters"]]
    place = data.draw(st.sampled_from(places))
    place[data.draw(st.sampled_from(sorted(place)))] = value
    (folder / CARD).write_text(json.dumps(data.draw(st.sampled_from([card, card, card, value]))))
    try:
        read_bundle(folder)
    except BundleError as error:
        assert str(folder) in str(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, r"has bundle format 2, this version reads up to 1; upgrade recvae"),
        ({"format": "new"}, r"is damaged: recommender.json cannot be read: ValueError"),
        ({"format": float("inf")}, r"is damaged: recommender.json cannot be read: OverflowError"),
        (
            {"model": "bert"},
            r"holds a model 'bert', which recvae does not have\. .* If it comes from a newer version, upgrade recvae\.",
        ),
        ({"model": ["als"]}, r"is damaged: recommender.json: got model \['als'\], expected a text"),
        ({"metrics": []}, r"is damaged: recommender.json: got metrics \[\], expected an object; copy it again"),
        ({"metrics": {"validation": 3}}, r"got metrics of validation 3, expected an object"),
        ({"metrics": {"validation": {"ndcg@100": "high"}}}, r"got ndcg@100 'high', expected a number"),
        ({"metrics": {"validation": {"ndcg@100": True}}}, r"got ndcg@100 True, expected a number"),
        ({"metrics": {"validation": {"ndcg@100": 10**400}}}, r"is damaged: recommender.json: int too large"),
        ({"metrics": {"validation": {"ndcg@100": float("nan")}}}, r"is damaged: .*not JSON compliant"),
        ({"dataset": {"name": "\ud800"}}, r"is damaged: .*surrogates not allowed"),
        ({"dataset": []}, r"got dataset \[\], expected an object"),
        ({"training": []}, r"got training \[\], expected an object"),
        ({"versions": None}, r"got versions None, expected an object"),
        ({"created": None}, r"got created None, expected a text"),
        ({"interrupted": 1}, r"got interrupted 1, expected true or false"),
        ({"files": {}}, r"is damaged: recommender.json does not list weights.safetensors"),
        ({"hyperparameters": {"latent_dim": 0}}, r"is damaged: got latent_dim=0, expected a whole number, 1 or more"),
        ({"hyperparameters": {"zzz": 1}}, r"is damaged: got unknown hyperparameter 'zzz'"),
        ({"hyperparameters": []}, r"got hyperparameters \[\], expected an object"),
        ({"hyperparameters": {"latent_dim": 10**400}}, r"is damaged: weights.safetensors does not fit the hyperparam"),
        ({"hyperparameters": {}}, r"is damaged: weights.safetensors does not fit the hyperparameters: .*size mismatch"),
        ({"model": "als", "hyperparameters": {}}, r"does not fit the hyperparameters: 'item_factors'"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_card_that_does_not_fit_is_refused(changes: dict[str, Any], message: str, sound: Path, scratch: Path) -> None:
    folder = copy_of(sound, scratch)
    change_card(folder, **changes)
    with pytest.raises(BundleError, match=f"(?s){message}"):
        read_bundle(folder)


@pytest.mark.slow
@given(data=st.data(), value=JSON)
def test_a_card_of_any_content_is_shown_or_refused(
    sound: Path, scratch: Path, command: Callable[..., Any], data: st.DataObject, value: Any
) -> None:
    folder = copy_of(sound, scratch)
    place = card = json.loads((folder / CARD).read_text())
    while True:  # down to somewhere
        name = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[name], dict) or not place[name] or data.draw(st.booleans()):
            break
        place = place[name]
    if data.draw(st.booleans()):
        place[name] = value
    else:
        del place[name]
    (folder / CARD).write_text(json.dumps(card))
    for words in ([], ["--json"]):
        said = command("inspect", folder, *words)
        assert said.code in (0, 1) and str(folder) in said.out + said.err


def test_a_card_that_says_next_to_nothing_is_damaged(sound: Path, scratch: Path, command: Callable[..., Any]) -> None:
    folder = copy_of(sound, scratch)
    (folder / CARD).write_text('{"format": 1}')
    for verb in ("inspect", "export"):
        said = command(verb, folder)
        assert said.code == 1 and "is damaged: recommender.json: got model None, expected a text" in said.err


def test_a_bundle_of_another_version_names_it(sound: Path, scratch: Path) -> None:
    folder = copy_of(sound, scratch)
    change_card(folder, hyperparameters={"free_nats": 2}, versions={"recvae": "9.9"})
    with pytest.raises(BundleError, match=r"unknown hyperparameter 'free_nats'.*written by recvae 9.9, this is"):
        read_bundle(folder)


def test_files_of_another_bundle_are_refused_even_with_the_right_hashes(
    sound: Path, scratch: Path, blocks: Dataset
) -> None:
    folder = copy_of(sound, scratch)
    items = blocks.items
    ItemIndex(ids=items.ids[1:], titles=None, train_counts=items.train_counts[1:]).write(folder / ITEMS)
    change_card(folder)
    with pytest.raises(BundleError, match=r"weights.safetensors has 32 items, items.parquet has 31"):
        read_bundle(folder)
    (folder / ITEMS).write_bytes(b"PAR1 not really")
    change_card(folder)
    with pytest.raises(BundleError, match="is damaged: "):
        read_bundle(folder)
    safetensors.numpy.save_file({"other": np.zeros(3)}, folder / WEIGHTS)
    shutil.copy(sound / ITEMS, folder / ITEMS)
    change_card(folder)
    with pytest.raises(BundleError, match=r"weights.safetensors does not fit the hyperparameters: 'decoder.1.weight'"):
        read_bundle(folder)


def test_what_is_no_bundle_is_told_from_one_that_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no bundle at .*nowhere; expected the folder of a run, see `recvae train`"):
        read_bundle(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"has no recommender.json: not a bundle; expected the folder of a run"):
        read_bundle(tmp_path)
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(BundleError, match=r"is a run that has not finished; continue it with `recvae train --resume`"):
        read_bundle(tmp_path)


def test_a_device_that_is_not_there_is_a_wrong_call_not_a_damaged_bundle(sound: Path) -> None:
    with pytest.raises(UsageError, match="got device 'abacus', expected auto, cpu, cuda"):
        read_bundle(sound, device="abacus")


def test_all_files_of_a_bundle_may_be_read_by_whoever_the_umask_allows(
    fitted: Callable[[str], Any], blocks: Dataset, tmp_path: Path
) -> None:
    """A serving process runs as another user; safetensors alone writes for the owner only."""
    (tmp_path / "plain").touch()
    write_bundle(tmp_path / "bundle", Bundle(model=fitted("ease"), items=blocks.items))
    modes = {path.stat().st_mode for path in (tmp_path / "bundle").iterdir()}
    assert modes == {(tmp_path / "plain").stat().st_mode}
