"""Training in TensorBoard and MLflow: what is written is what the log has, read back with their own readers."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from recvae.datasets.dataset import Dataset
from recvae.errors import TrainingError, UsageError
from recvae.recommenders.recommender import Recommender
from recvae.tracking.figures import EVERY_EPOCH, chosen_items, figures_of
from recvae.tracking.mlflow import MLflowMonitor
from recvae.tracking.tensorboard import TensorBoardMonitor
from recvae.training.details import DetailedMonitor, EpochDetails
from recvae.training.monitors import MonitorList
from recvae.training.records import EpochRecord, NullMonitor, StopTraining, TrainingSummary

pytestmark = [
    # What MLflow says of its own type hints, and SQLAlchemy of MLflow.
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow.store.tracking.sqlalchemy_store"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of the databases that MLflow keeps open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
Command = Callable[..., Any]
Make = Callable[..., Any]
LATENT = ("latent/active_units", "latent/mutual_information")
SHORT = ("--set", "hidden_dims=16", "--set", "latent_dim=4", "--set", "batch_size=50", "--set", "patience=0")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database of MLflow without runs, which takes seconds to make."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_store: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return a place where MLflow tracks, in an empty folder to work in."""
    import mlflow

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, workplace / "mlflow.db")
    uri = f"sqlite:///{workplace}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri("")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def events(folder: Path | str) -> Any:
    """Return what TensorBoard shows of a folder, all of it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0}).Reload()


def scalars(folder: Path | str) -> dict[str, list[tuple[int, float]]]:
    shown = events(folder)
    found = {tag: [(one.step, one.value) for one in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}
    return {tag: curve for tag, curve in found.items() if curve}  # the name of what is hidden stays


def texts(folder: Path | str, tag: str) -> list[str]:
    return [one.tensor_proto.string_val[0].decode() for one in events(folder).Tensors(f"{tag}/text_summary")]


def histories(run_id: str, *tags: str) -> dict[str, list[tuple[int, float]]]:
    """Return the metrics of a run of MLflow by step."""
    import mlflow

    client = mlflow.MlflowClient()
    names = tags or client.get_run(run_id).data.metrics
    return {name: [(one.step, one.value) for one in client.get_metric_history(run_id, name)] for name in names}


def run_of(run_id: str) -> Any:
    import mlflow

    return mlflow.MlflowClient().get_run(run_id)


def only_run() -> Any:
    import mlflow

    client = mlflow.MlflowClient()
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return run


def as_curves(records: list[EpochRecord]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for name, value in figures_of(record).items():
            found.setdefault(name, []).append((record.epoch, value))
    return found


def close_to(expected: dict[str, list[tuple[int, float]]]) -> dict[str, Any]:
    """Return curves as TensorBoard keeps them, in float32; no step may be missing or come twice."""
    return {name: [(step, pytest.approx(value, rel=1e-6)) for step, value in curve] for name, curve in expected.items()}


def log_of(folder: Path) -> list[EpochRecord]:
    return [EpochRecord(**json.loads(line)) for line in (folder / "log.jsonl").read_text().splitlines()]


class Everything(DetailedMonitor):
    """Keeps every call."""

    def __init__(self, stop_at: int = 0, error: BaseException | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._stop_at, self._error = stop_at, error

    def start(self, epochs: int, done: list[EpochRecord]) -> None:
        self.calls.append(("start", (epochs, list(done))))

    def epoch(self, record: EpochRecord) -> StopTraining | None:
        self.calls.append(("epoch", record))
        if record.epoch == self._stop_at and self._error is not None:
            raise self._error
        return StopTraining("enough") if record.epoch == self._stop_at else None

    def fitting(self, model: Any) -> None:
        self.calls.append(("fitting", model))

    def details(self, details: EpochDetails) -> None:
        self.calls.append(("details", details))

    def ended(self, summary: TrainingSummary) -> None:
        self.calls.append(("ended", summary))

    def of(self, name: str) -> list[Any]:
        return [value for called, value in self.calls if called == name]


def test_a_detailed_monitor_is_told_the_model_each_epoch_its_codes_and_the_end(
    blocks: Dataset, make_model: Make
) -> None:
    monitor, model = Everything(), make_model("multvae", epochs=2, decay="linear", warmup=0.0)
    model.fit(blocks.train, blocks.validation, monitor=MonitorList(NullMonitor(), monitor))
    assert [name for name, _ in monitor.calls] == ["fitting", "start", *["details", "epoch"] * 2, "ended"]
    assert monitor.of("fitting") == [model] and monitor.of("ended") == [model.training_summary()]
    last = monitor.of("details")[-1]
    assert last.epoch == 2 and list(last.step_sizes) == ["all"]
    updates = 2 * -(-blocks.train.shape[0] // 10)
    assert last.step_sizes["all"] == pytest.approx(0.01 * (1 - (updates - 1) / updates))
    if model.history_.best_epoch == 2:  # then its weights are those that are kept
        codes = model.encode(blocks.validation.fold_in)
        assert np.array_equal(last.mean, codes.mean) and np.array_equal(last.logvar, codes.logvar)


def test_the_codes_handed_over_are_those_of_the_record(blocks: Dataset, make_model: Make) -> None:
    from recvae.training.latents import LatentRecord

    monitor, model = Everything(), make_model("multvae", epochs=3)
    model.fit(blocks.train, blocks.validation, monitor=monitor)
    for details, record in zip(monitor.of("details"), monitor.of("epoch"), strict=True):
        found = LatentRecord.of(details.mean, details.logvar)
        assert (found.active_units, found.mutual_information) == (record.active_units, record.mutual_information)
        assert found.kl_per_dimension == record.kl_per_dimension
        assert not details.mean.requires_grad


def test_watching_closely_changes_nothing_that_is_learned(blocks: Dataset, make_model: Make) -> None:
    plain = make_model("recvae", epochs=3).fit(blocks.train, blocks.validation)
    watched = make_model("recvae", epochs=3).fit(blocks.train, blocks.validation, monitor=Everything())
    weights = watched.weights()
    assert all(np.array_equal(value, weights[name]) for name, value in plain.weights().items())


def test_models_without_a_latent_distribution_or_epochs_are_told_of_too(blocks: Dataset, make_model: Make) -> None:
    monitor = Everything()
    make_model("multdae", epochs=1).fit(blocks.train, blocks.validation, monitor=monitor)
    (details,) = monitor.of("details")
    assert details.mean.shape == (blocks.validation.n_users, 8) and details.logvar is None
    monitor = Everything()
    make_model("ease").fit(blocks.train, blocks.validation, monitor=monitor)
    assert [name for name, _ in monitor.calls] == ["fitting", "start", "ended"]


def test_phases_have_a_step_size_each(blocks: Dataset, make_model: Make, tmp_path: Path) -> None:
    monitor = MonitorList(told := Everything(), TensorBoardMonitor(tmp_path / "tb"))
    make_model("recvae", epochs=1).fit(blocks.train, blocks.validation, monitor=monitor)
    (details,) = told.of("details")
    assert len(details.step_sizes) == 2
    found = scalars(tmp_path / "tb")
    assert {f"training/step_size_{name}" for name in details.step_sizes} < set(found)
    assert "training/step_size" not in found


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (KeyboardInterrupt(), TrainingSummary(interrupted=True)),
        (RuntimeError("the roof is on fire"), TrainingSummary(interrupted=True, failure="the roof is on fire")),
        (ZeroDivisionError(), TrainingSummary(interrupted=True, failure="ZeroDivisionError")),
    ],
    ids=["by hand", "with a word", "without"],
)
def test_a_fit_that_raises_says_how_it_ended(
    error: BaseException, summary: TrainingSummary, blocks: Dataset, make_model: Make
) -> None:
    class Broken(Everything):
        def start(self, epochs: int, done: list[EpochRecord]) -> None:
            super().start(epochs, done)
            raise error

    monitor = Broken()
    with pytest.raises(type(error)):
        make_model("multvae").fit(blocks.train, monitor=monitor)
    assert monitor.of("ended") == [summary]


def test_an_interrupted_fit_that_keeps_its_best_weights_says_so(blocks: Dataset, make_model: Make) -> None:
    monitor = Everything(stop_at=2, error=KeyboardInterrupt())
    make_model("multvae").fit(blocks.train, blocks.validation, monitor=monitor)
    (summary,) = monitor.of("ended")
    assert summary.interrupted and summary.failure is None and summary.epochs == 2


def test_tensorboard_has_the_figures_of_every_epoch_and_histograms_of_the_codes(
    blocks: Dataset, make_model: Make, tmp_path: Path
) -> None:
    told, model = Everything(), make_model("multvae", epochs=3)
    model.fit(blocks.train, blocks.validation, monitor=MonitorList(TensorBoardMonitor(tmp_path / "tb"), told))
    found = scalars(tmp_path / "tb")
    sizes = [(one.epoch, pytest.approx(one.step_sizes["all"])) for one in told.of("details")]
    assert found.pop("training/step_size") == sizes and len(sizes) == 3
    assert found == close_to(as_curves(model.log_))
    assert {*LATENT, "training/kl", "training/beta", "validation/ndcg_at_100", "speed/users_per_second"} < set(found)
    shown = events(tmp_path / "tb")
    assert set(shown.Tags()["histograms"]) == {"latent/mean", "latent/sigma", "latent/kl_per_unit"}
    for tag, of in {"mean": lambda one: one.mean, "sigma": lambda one: (0.5 * one.logvar).exp()}.items():
        for drawn, details in zip(shown.Histograms(f"latent/{tag}"), told.of("details"), strict=True):
            values = of(details)
            assert drawn.step == details.epoch and drawn.histogram_value.num == values.numel()
            assert drawn.histogram_value.sum == pytest.approx(float(values.double().sum()), rel=1e-5)
            assert drawn.histogram_value.min == pytest.approx(float(values.min()), rel=1e-5)
    assert texts(tmp_path / "tb", "outcome") == ["finished"]
    assert "| latent_dim | 8 |" in texts(tmp_path / "tb", "hyperparameters")[0]


def test_the_projector_has_the_item_vectors_with_their_titles(
    fitted: Callable[[str], Any], blocks: Dataset, tmp_path: Path
) -> None:
    monitor = TensorBoardMonitor(tmp_path / "tb")
    for _ in range(2):  # a run that is resumed writes them once more
        monitor.add_items(fitted("multvae"), blocks.items)
    config = (tmp_path / "tb" / "projector_config.pbtxt").read_text()
    assert config.count("tensor_path") == 1 and str(tmp_path) not in config
    vectors = np.loadtxt(tmp_path / "tb/00000/items/tensors.tsv", delimiter="\t", dtype=np.float32)
    assert np.allclose(vectors, fitted("multvae").item_embeddings(), rtol=1e-6)
    table = pd.read_csv(tmp_path / "tb/00000/items/metadata.tsv", sep="\t", dtype=str)
    assert list(table) == ["id", "title", "training users"] and len(table) == len(blocks.items)
    assert list(table["id"]) == [str(item) for item in blocks.item_ids]
    assert list(table["title"][:2]) == [str(blocks.item_ids[0]), "Title 1"], "an item without title shows its id"
    assert list(table["training users"]) == [str(count) for count in blocks.items.train_counts]


def test_titles_stay_in_one_cell_and_the_most_popular_items_are_taken(
    fitted: Callable[[str], Any], blocks: Dataset, tmp_path: Path
) -> None:
    from dataclasses import replace

    titles = np.empty(len(blocks.items), dtype=object)
    titles[:] = "A\ttitle\nof two\r\nlines"
    items = replace(blocks.items, titles=titles, train_counts=np.arange(len(blocks.items)))
    TensorBoardMonitor(tmp_path, max_items=3).add_items(fitted("als"), items)
    lines = (tmp_path / "00000/items/metadata.tsv").read_text().splitlines()
    assert lines[1:] == [f"{blocks.item_ids[column]}\tA title of two lines\t{column}" for column in (29, 30, 31)]
    vectors = np.loadtxt(tmp_path / "00000/items/tensors.tsv", delimiter="\t", dtype=np.float32)
    assert np.allclose(vectors, fitted("als").item_vectors()[0][29:])
    assert chosen_items(items, 99).tolist() == list(range(32))


def test_the_vectors_of_every_model_are_written_or_left_out(
    model_name: str, fitted: Callable[[str], Any], blocks: Dataset, tmp_path: Path
) -> None:
    TensorBoardMonitor(tmp_path).add_items(fitted(model_name), blocks.items)
    has_layer = model_name == "vasp" or fitted(model_name).has_item_vectors
    assert bool(list(tmp_path.rglob("tensors.tsv"))) == has_layer


def test_small_vectors_of_elsa_are_no_matrix_and_are_left_out(
    blocks: Dataset, make_model: Make, tmp_path: Path
) -> None:
    model = make_model("elsa", entries=2, epochs=1).fit(blocks.train, monitor=TensorBoardMonitor(tmp_path))
    TensorBoardMonitor(tmp_path).add_items(model, blocks.items)
    assert not list(tmp_path.rglob("*.tsv"))


def test_no_vectors_are_written_where_there_are_none_or_none_are_wanted(
    fitted: Callable[[str], Any], blocks: Dataset, tmp_path: Path
) -> None:
    TensorBoardMonitor(tmp_path / "a").add_items(fitted("ease"), blocks.items)
    TensorBoardMonitor(tmp_path / "b", max_items=0).add_items(fitted("multvae"), blocks.items)
    assert not list(tmp_path.rglob("*.tsv"))


@pytest.mark.parametrize("max_items", [-1, 1.5, True, "all"])
def test_a_bad_number_of_items_is_refused(max_items: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"got max_items=.*, expected a whole number, 0 or more; 0 writes no vectors"):
        TensorBoardMonitor(tmp_path, max_items=max_items)


def test_a_file_in_the_place_of_the_folder_and_other_items_are_refused(
    fitted: Callable[[str], Any], blocks: Dataset, tmp_path: Path
) -> None:
    from dataclasses import replace

    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"got .*file for TensorBoard, which is a file; name a folder"):
        TensorBoardMonitor(tmp_path / "file")
    fewer = replace(blocks.items, ids=blocks.items.ids[:5], titles=None, train_counts=blocks.items.train_counts[:5])
    with pytest.raises(UsageError, match=r"got a model of 32 items and an index of 5, expected as many of each"):
        TensorBoardMonitor(tmp_path / "tb").add_items(fitted("multvae"), fewer)


def _record(epoch: int) -> EpochRecord:
    return EpochRecord(epoch, 10.0 / epoch, 9.0 / epoch, 1.0, 0.1, 0.01 * epoch, True, 1.0, 100.0, 3, [0.5, 0.25], 1.5)


def test_a_resumed_fit_goes_on_in_the_same_curves_without_gaps_or_doubles(tmp_path: Path) -> None:
    """A kill leaves half an event, no end, and maybe an epoch that is in the checkpoint alone."""
    records = [_record(epoch) for epoch in range(1, 7)]
    first = TensorBoardMonitor(tmp_path)
    first.start(6, [])
    for record in records[:3]:
        first.epoch(record)
    (events_file,) = tmp_path.glob("events.*")
    with events_file.open("ab") as file:
        file.write(b"\x20\x00\x00\x00\x00\x00\x00\x00half")
    second = TensorBoardMonitor(tmp_path)
    second.start(6, records[:4])
    for record in records[4:]:
        second.epoch(record)
    third = TensorBoardMonitor(tmp_path)
    third.start(6, records)
    found = scalars(tmp_path)
    assert found == close_to(as_curves(records))
    assert [one.step for one in events(tmp_path).Histograms("latent/kl_per_unit")] == [1, 2, 3, 4, 5, 6]


def test_another_fit_in_the_same_folder_replaces_what_is_shown(
    blocks: Dataset, make_model: Make, tmp_path: Path
) -> None:
    monitor = TensorBoardMonitor(tmp_path)
    make_model("multvae", epochs=4, seed=1).fit(blocks.train, blocks.validation, monitor=monitor)
    model = make_model("multvae", epochs=2, seed=2).fit(blocks.train, blocks.validation, monitor=monitor)
    found = scalars(tmp_path)
    del found["training/step_size"]
    assert found == close_to(as_curves(model.log_))
    make_model("ease").fit(blocks.train, monitor=monitor)
    assert not scalars(tmp_path) and texts(tmp_path, "outcome")[-1] == "finished"
    # What was trained over does not count as done.
    records = [_record(1), _record(2)]
    TensorBoardMonitor(tmp_path).start(2, records)
    assert scalars(tmp_path) == close_to(as_curves(records))


def test_mlflow_has_hyperparameters_and_the_figures_of_every_epoch(
    blocks: Dataset, make_model: Make, store: str
) -> None:
    monitor, model = MLflowMonitor(store, experiment="films"), make_model("multvae", epochs=3)
    model.fit(blocks.train, blocks.validation, monitor=monitor)
    run = run_of(monitor.run_id or "")
    found = histories(run.info.run_id)
    assert [step for step, _ in found.pop("training/step_size")] == [1, 2, 3]
    assert found == as_curves(model.log_)
    assert run.info.status == "FINISHED" and run.data.tags["recvae.outcome"] == "finished"
    parameters = run.data.params
    assert parameters["model"] == "multvae" and parameters["epochs"] == "3" and parameters["anneal_steps"] == "none"
    assert parameters["hidden_dims"] == "[16]"


def test_every_fit_has_a_run_of_its_own_unless_a_key_says_which(blocks: Dataset, make_model: Make, store: str) -> None:
    monitor = MLflowMonitor(store)
    make_model("ease").fit(blocks.train, monitor=monitor)
    first = monitor.run_id
    make_model("ease").fit(blocks.train, monitor=monitor)
    assert monitor.run_id != first
    model = make_model("multvae", epochs=3)
    one = MLflowMonitor(store, key="mine")
    one.fitting(model)
    one.start(3, [])
    one.epoch(_record(1))
    one.ended(TrainingSummary(interrupted=True))
    assert run_of(one.run_id or "").info.status == "KILLED"
    other = MLflowMonitor(store, key="mine")
    other.fitting(make_model("multvae", epochs=4))
    assert other.run_id == one.run_id and run_of(one.run_id or "").info.status == "RUNNING"
    other.start(4, [_record(1), _record(2)])
    other.epoch(_record(3))
    other.ended(TrainingSummary())
    run = run_of(one.run_id or "")
    assert histories(run.info.run_id) == as_curves([_record(1), _record(2), _record(3)])
    assert run.data.params["epochs"] == "3" and run.data.tags["recvae.resumed.epochs"] == "4"


def test_what_a_server_did_not_take_is_sent_after_the_next_epoch(
    make_model: Make, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monitor = MLflowMonitor(store, tell=said.append)
    monitor.fitting(make_model("multvae"))
    monitor.start(4, [])
    send = monitor._client.log_batch
    monkeypatch.setattr(monitor._client, "log_batch", _away)
    monitor.epoch(_record(1))
    monitor.epoch(_record(2))
    assert len(said) == 1 and "cannot be used (nobody is at home); the figures of this epoch are sent again" in said[0]
    monkeypatch.setattr(monitor._client, "log_batch", send)
    monitor.epoch(_record(3))
    assert histories(monitor.run_id or "") == as_curves([_record(1), _record(2), _record(3)])
    monkeypatch.setattr(monitor._client, "set_terminated", _away)
    monitor.ended(TrainingSummary())
    assert len(said) == 2 and said[1].endswith("the run there lacks its status")
    other = MLflowMonitor(store)
    other.fitting(make_model("multvae"))
    monkeypatch.setattr(other._client, "log_batch", _away)
    with pytest.warns(RuntimeWarning, match=r"MLflow at sqlite.* cannot be used \(nobody is at home\)"):
        other.epoch(_record(1))


def _away(*arguments: Any, **named: Any) -> None:
    raise ConnectionError("nobody is at home\nand a second line")


def test_a_place_that_does_not_work_is_refused_before_training(store: str, blocks: Dataset, make_model: Make) -> None:
    with pytest.raises(UsageError, match=r"got nonsense://x for MLflow, which cannot be used .*; start its server"):
        MLflowMonitor("nonsense://me:secret@x")
    with pytest.raises(UsageError, match=r"got a bundle before any fit, expected a run to add it to"):
        MLflowMonitor(store).add_bundle(".")
    import mlflow

    client = mlflow.MlflowClient()
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(UsageError, match=r"got the experiment gone, which was deleted in MLflow; use another name"):
        MLflowMonitor(store, experiment="gone")
    monitor = MLflowMonitor(store)
    make_model("ease").fit(blocks.train, monitor=monitor)
    with pytest.raises(UsageError, match=r"which has no recommender.json; give the folder of a finished run"):
        monitor.add_bundle(".")


def test_mlflow_loads_a_recommender_that_takes_a_table(
    fitted: Callable[[str], Any], make_model: Make, blocks: Dataset, store: str, workplace: Path
) -> None:
    import mlflow

    monitor = MLflowMonitor(store)
    model = make_model("multdae", epochs=3).fit(blocks.train, blocks.validation, monitor=monitor)
    recommender = Recommender(model, blocks)
    recommender.save("bundle")
    Path("bundle/onnx").mkdir()  # an export is not part of it
    monitor.add_bundle("bundle")
    shutil.rmtree("bundle")
    loaded = mlflow.pyfunc.load_model(f"runs:/{monitor.run_id}/recommender")
    given, found = loaded.metadata.get_input_schema(), loaded.metadata.get_output_schema()
    assert given is not None and given.input_names() == ["user", "item", "weight"]
    rows = [("a", 1000), ("a", 990), ("b", 700)]
    for table in (
        pd.DataFrame(rows, columns=["user", "item"]),
        pd.DataFrame([(user, str(item)) for user, item in rows], columns=["user", "item"]),
        pd.DataFrame([(len(user), item, 2.0) for user, item in rows], columns=["user", "item", "weight"]),
    ):
        expected = recommender.recommend_batch(table, k=4).to_pandas()
        assert loaded.predict(table, params={"k": 4}).equals(expected)
        assert found is not None and found.input_names() == list(expected)
    assert len(loaded.predict(pd.DataFrame(rows, columns=["user", "item"]))) == 20
    with pytest.raises(Exception, match=r"missing inputs \['item'\]"):
        loaded.predict(pd.DataFrame({"user": [1], "film": [1000]}))
    Path("copy").mkdir()
    copied = mlflow.MlflowClient().download_artifacts(monitor.run_id or "", "recommender", "copy")
    files = [path for path in Path(copied).rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pickle") or "onnx" in path.parts]
    for path in files:  # nothing of this machine
        content = path.read_bytes()
        assert str(workplace).encode() not in content and b"/tmp" not in content, path


def test_the_bundle_of_a_model_of_your_own_is_kept_as_its_files(blocks: Dataset, store: str) -> None:
    import mlflow

    from recvae.models import Popularity

    class Mine(Popularity):
        name = "mine"

    monitor = MLflowMonitor(store)
    Recommender(Mine().fit(blocks.train, monitor=monitor), blocks).save("bundle")
    monitor.add_bundle("bundle")
    found = mlflow.MlflowClient().list_artifacts(monitor.run_id or "")
    assert [one.path for one in found] == ["bundle"]


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("tensorboard", lambda: TensorBoardMonitor("tb")),
        ("torch.utils.tensorboard", lambda: TensorBoardMonitor("tb")),
        ("mlflow", lambda: MLflowMonitor("sqlite:///x.db")),
        ("sqlalchemy", lambda: MLflowMonitor("sqlite:///x.db")),
    ],
)
def test_a_missing_library_is_named_with_what_installs_it(
    module: str, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, workplace: Path
) -> None:
    if module == "tensorboard":
        for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(torch.utils, "tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=r"Monitor needs a library that cannot be imported .*'recvae\[track\]'"):
        make()
    assert not list(workplace.iterdir())


def test_the_command_refuses_without_a_library_before_it_trains(
    toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for option, module in (("--tensorboard", "tensorboard"), ("--mlflow", "mlflow")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            said = command("train", "--model", "ease", option)
        assert said.code == 2 and said.err.count("\n") == 1
        assert said.err.startswith(f"error: {option} needs a library") and "pip install 'recvae[track]'" in said.err
    said = command("train", "--model", "ease", "--mlflow", "http://me:secret@localhost:1")
    assert said.code == 2 and "got a password in --mlflow" in said.err and "secret" not in said.err
    said = command("train", "--model", "ease", "--mlflow", "nonsense://x")
    assert said.code == 2 and "got nonsense://x for MLflow, which cannot be used" in said.err
    assert not Path("runs").exists()


def test_the_command_follows_a_run_in_both_and_leaves_its_bundle(toy: Path, command: Command, store: str) -> None:
    said = command("train", *SHORT, "--set", "epochs=3", "--mlflow", store, "--tensorboard")
    assert said.code == 0, said.err
    assert "tensorboard --logdir tensorboard/toy/multvae" in said.err
    run_folder, records = Path("runs/toy/multvae"), log_of(Path("runs/toy/multvae"))
    card = json.loads((run_folder / "recommender.json").read_text())
    final = {f"final/{name.replace('@', '_at_')}": value for name, value in card["metrics"]["validation"].items()}
    shown, run = scalars("tensorboard/toy/multvae"), only_run()
    sent = histories(run.info.run_id)
    curves = as_curves(records)
    assert {name: shown[name] for name in curves} == close_to(curves) and {n: sent[n] for n in curves} == curves
    for name, value in final.items():
        assert shown[name] == [(3, pytest.approx(value, rel=1e-6))] and sent[name] == [(3, value)]
    assert sent["final/best_epoch"] == [(3, card["training"]["best_epoch"])]
    assert run.info.run_name == "multvae" and run.info.status == "FINISHED"
    assert run.data.tags["recvae.data.name"] == "toy"
    table = pd.read_csv("tensorboard/toy/multvae/00000/items/metadata.tsv", sep="\t")
    assert (
        len(table) == len(pd.read_parquet(run_folder / "items.parquet"))
        and "" not in table["title"].fillna("").tolist()
    )

    import mlflow

    loaded = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/recommender")
    histories_ = pd.DataFrame({"user": [1, 1], "item": table["id"][:2]})
    expected = Recommender.load(run_folder).recommend_batch(histories_, k=10).to_pandas()
    assert loaded.predict(histories_).equals(expected)
    text = "".join(path.read_text() for path in run_folder.iterdir() if path.suffix in (".json", ".jsonl", ".md"))
    assert "tensorboard" not in text and "mlflow" not in text and str(Path.cwd()) not in text
    assert {path.name for path in run_folder.iterdir()} == {
        *("README.md", "items.parquet", "log.jsonl", "recommender.json", "weights.safetensors")
    }


def test_a_model_without_epochs_and_a_refit_are_followed_too(toy: Path, command: Command, store: str) -> None:
    assert command("train", "--model", "ease", "--tensorboard", "tb", "--mlflow", store).code == 0
    run = only_run()
    assert (
        run.info.status == "FINISHED" and run.data.params["model"] == "ease" and "final/ndcg_at_100" in run.data.metrics
    )
    assert "final/ndcg_at_100" in scalars("tb/toy/ease")
    assert command("train", *SHORT, "--set", "epochs=2").code == 0
    said = command("train", "--refit", "multvae", "--tensorboard", "tb")
    assert said.code == 0, said.err
    curves = scalars("tb/toy/multvae-refit")
    assert [step for step, _ in curves[EVERY_EPOCH]] == [one.epoch for one in log_of(Path("runs/toy/multvae-refit"))]


class _Interrupts(NullMonitor):
    """Ctrl-C after some epochs."""

    def __init__(self, at: int, error: BaseException | None = None) -> None:
        self._at, self._error = at, error or KeyboardInterrupt()

    def epoch(self, record: EpochRecord) -> None:
        if record.epoch == self._at:
            raise self._error


@pytest.mark.slow
@pytest.mark.parametrize("is_typed_again", [False, True])
def test_an_interrupted_run_is_marked_and_goes_on_where_it_was_without_saying_where(
    is_typed_again: bool, toy: Path, command: Command, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recvae.training import monitors

    places = ("--mlflow", store, "--tensorboard", "tb")
    with monkeypatch.context() as patch:
        patch.setattr(monitors, "TrainingProgress", lambda _: _Interrupts(at=2))
        said = command("train", *SHORT, "--set", "epochs=4", *places)
    assert said.code == 0 and "interrupted" in said.out, said.err
    run = only_run()
    assert run.info.status == "KILLED" and run.data.tags["recvae.outcome"] == "interrupted"
    assert texts("tb/toy/multvae", "outcome") == ["interrupted"]
    said = command("train", "--resume", *(places if is_typed_again else ()))
    assert said.code == 0, said.err
    curves = as_curves(log_of(Path("runs/toy/multvae")))
    assert [step for step, _ in curves[EVERY_EPOCH]] == [1, 2, 3, 4]
    shown, run = scalars("tb/toy/multvae"), only_run()
    sent = histories(run.info.run_id)
    assert {name: shown[name] for name in curves} == close_to(curves) and {n: sent[n] for n in curves} == curves
    assert run.info.status == "FINISHED" and run.data.tags["recvae.outcome"] == "finished"
    assert texts("tb/toy/multvae", "outcome")[-1] == "finished"
    assert [one.step for one in events("tb/toy/multvae").Histograms("latent/mean")] == [1, 2, 3, 4]


def test_a_run_that_diverges_or_fails_is_marked(
    toy: Path, command: Command, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recvae.training import monitors

    said = command("train", *SHORT, "--set", "learning_rate=1e30", "--mlflow", store, "--tensorboard", "tb")
    assert said.code == 1 and "the loss is no longer a number" in said.err
    run = only_run()
    assert run.info.status == "FAILED" and "the loss is no longer a number" in run.data.tags["recvae.outcome"]
    assert texts("tb/toy/multvae", "outcome")[-1].startswith("failed: the loss is no longer a number")
    assert "recvae.data.name" not in run.data.tags and not Path("runs/toy/multvae").exists()
    with monkeypatch.context() as patch:
        patch.setattr(monitors, "TrainingProgress", lambda _: _Interrupts(2, TrainingError("it broke")))
        said = command("train", *SHORT, "--set", "epochs=4", "--tensorboard", "tb", "--name", "other")
    assert said.code == 1 and texts("tb/toy/other", "outcome") == ["failed: it broke"]


def test_a_run_that_cannot_be_written_is_marked_as_failed(
    toy: Path, command: Command, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recvae.errors import StorageError
    from recvae.runs import run as module

    def full(*arguments: Any, **how: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(module, "write_bundle", full)
    said = command("train", "--model", "ease", "--mlflow", store, "--tensorboard", "tb")
    assert said.code == 1 and "the disk is full" in said.err
    assert only_run().info.status == "FAILED"
    assert texts("tb/toy/ease", "outcome") == ["finished", "failed: the disk is full"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--tensorboard"], ["--tensorboard=tensorboard"]),
        (["--tensorboard", "--mlflow", "-m", "ease"], ["--tensorboard=tensorboard", "--mlflow=", "-m", "ease"]),
        (["--tensorboard", "here", "--mlflow=there"], ["--tensorboard", "here", "--mlflow=there"]),
    ],
)
def test_the_options_may_stand_alone(words: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from recvae_cli.console import Verb
    from recvae_cli.tracking import Tracks

    monkeypatch.setattr(Verb, "parse_args", lambda *given: given[-1])
    assert Tracks("train").parse_args(None, words) == expected


def test_records_of_earlier_versions_have_the_figures_they_have() -> None:
    record = EpochRecord(1, 2.0, 2.0, None, None, None, True, 0.5, 10.0)
    assert set(figures_of(record)) == {
        *(EVERY_EPOCH, "training/reconstruction", "speed/seconds", "speed/users_per_second")
    }
    assert len(asdict(record)) >= 12


def test_each_trial_of_a_search_is_followed(toy: Path, command: Command, store: str) -> None:
    import mlflow

    words = ("tune", "--model", "multdae", "--trials", "2", "--set", "epochs=2", "--set", "latent_dim=4")
    said = command(*words, "--tensorboard", "--mlflow", store)
    assert said.code == 0, said.err
    client = mlflow.MlflowClient()
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = {str(run.info.run_name): run for run in client.search_runs(experiments)}
    assert sorted(runs) == ["multdae-tuned-1", "multdae-tuned-2"]
    best = json.loads(Path("runs/toy/multdae-tuned/recommender.json").read_text())
    reached = [runs[f"multdae-tuned-{number}"].data.metrics["final/ndcg_at_100"] for number in (1, 2)]
    assert best["metrics"]["validation"]["ndcg@100"] == max(reached)
    told = json.loads(command(*words, "--json").out)["top"]  # as the table has them
    assert {one["number"]: one["ndcg"] for one in told} == dict(enumerate(reached, 1))
    for number in (1, 2):
        curves = scalars(f"tensorboard/toy/multdae-tuned/trial-{number}")
        assert [step for step, _ in curves[EVERY_EPOCH]] == [1, 2]
        assert curves["final/ndcg_at_100"] == [(2, pytest.approx(reached[number - 1], rel=1e-6))]
        run = runs[f"multdae-tuned-{number}"]
        assert run.info.status == "FINISHED" and not client.list_artifacts(run.info.run_id)
    said = command(*words, "--fresh", "--mlflow", "nonsense://x")
    assert said.code == 2 and "got nonsense://x for MLflow, which cannot be used" in said.err
