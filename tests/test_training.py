"""The training loop: resumed to the bit, stopped early or by hand, refused when it makes no sense."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recvae.bundles.bundle import read_bundle
from recvae.datasets.dataset import Dataset
from recvae.errors import BundleError, NotFittedError, OutOfMemoryError, StorageError, TrainingError
from recvae.models import MultDAE, MultVAE
from recvae.models.common import autoencoder
from recvae.models.common.autoencoder import Autoencoder
from recvae.models.common.networks import initialise
from recvae.runs.run import new_run, train
from recvae.training import trainer
from recvae.training.checkpoints import FILE_NAME, Checkpoint
from recvae.training.monitors import MonitorList
from recvae.training.records import EpochRecord, NullMonitor, StopTraining, TrainingSummary

IDENTITY = {"model": "any", "fingerprint": "abc", "hyperparameters": {"hidden_dims": (4,), "beta": 0.2}}
BOTH = [MultVAE, MultDAE]


class Killed(Exception):
    """Ends a run as a kill would: nothing after it is done."""


class Tells(NullMonitor):
    """Raises an error once an epoch is over, or before the first one is; keeps what it was told."""

    def __init__(self, error: type[BaseException] = Killed, after: float = np.inf) -> None:
        self.error, self.after = error, after
        self.started: tuple[int, int] | None = None
        self.records: list[EpochRecord] = []
        self.progress: list[float] = []

    def start(self, epochs: int, done: list[EpochRecord]) -> None:
        self.started = epochs, len(done)

    def advance(self, epochs_done: float, beta: float | None) -> None:  # noqa: ARG002
        self.progress.append(epochs_done)
        if self.after < epochs_done < self.after + 1:
            raise self.error

    def epoch(self, record: EpochRecord) -> None:
        self.records.append(record)
        if record.epoch == self.after:
            raise self.error


def small(model_class: type[Autoencoder], **changes: Any) -> Autoencoder:
    settings = {"latent_dim": 4, "epochs": 10, "batch_size": 30, "learning_rate": 0.02}
    return model_class(**settings | changes)


def fit(model: Autoencoder, data: Dataset, **arguments: Any) -> Autoencoder:
    return model.fit(data.train, data.validation, device="cpu", **arguments)


def without_times(model: Autoencoder) -> list[dict[str, Any]]:
    return [asdict(r) | {"seconds": 0, "users_per_second": 0} for r in model.history_.records]


def assert_same_run(one: Autoencoder, other: Autoencoder) -> None:
    """Check that two runs went the same way, to the bit."""
    assert without_times(one) == without_times(other)
    assert (one.history_.best_epoch, one.history_.best_ndcg) == (other.history_.best_epoch, other.history_.best_ndcg)
    for name, value in one.weights().items():
        np.testing.assert_array_equal(value, other.weights()[name], err_msg=name)


@pytest.fixture(params=["validation users", "no validation users"])
def data(request: pytest.FixtureRequest, blocks: Dataset) -> Any:
    """Return the blocks with and without validation users."""
    if request.param == "validation users":
        return blocks
    return Dataset(train=blocks.train, validation=None, test=blocks.test, item_ids=blocks.item_ids)  # type: ignore[arg-type]


@pytest.mark.parametrize("model_class", BOTH)
@pytest.mark.parametrize("after", [1, 5, 10])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    model_class: type[Autoencoder], after: int, data: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / FILE_NAME
    with pytest.raises(Killed):
        fit(small(model_class), data, monitor=Tells(after=after), checkpoint=Checkpoint(path, IDENTITY))
    resumed, straight, tells = small(model_class), small(model_class), Tells()
    fit(resumed, data, monitor=tells, checkpoint=Checkpoint(path, IDENTITY, resumes=True))
    assert_same_run(resumed, fit(straight, data))
    assert len(resumed.history_.records) == 10
    assert tells.started == (10, after)
    assert [record.epoch for record in tells.records] == list(range(after + 1, 11))


def test_a_run_killed_many_times_within_epochs_goes_on_too(blocks: Dataset, tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    for after in (1.1, 3.1, 3.2, 7.9):
        with pytest.raises(Killed):
            checkpoint = Checkpoint(path, IDENTITY, resumes=path.exists())
            fit(small(MultVAE), blocks, monitor=Tells(after=after), checkpoint=checkpoint)
    resumed = fit(small(MultVAE), blocks, checkpoint=Checkpoint(path, IDENTITY, resumes=True))
    assert_same_run(resumed, fit(small(MultVAE), blocks))


def test_keeping_checkpoints_does_not_change_a_run(blocks: Dataset, tmp_path: Path) -> None:
    kept = fit(small(MultVAE), blocks, checkpoint=Checkpoint(tmp_path / "new" / FILE_NAME, IDENTITY))
    assert_same_run(kept, fit(small(MultVAE), blocks))
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_ctrl_c_keeps_the_best_epoch_so_far_and_says_so(blocks: Dataset) -> None:
    steady: dict[str, Any] = {"decay": "none", "warmup": 0.0}
    for after in (4, 4.5):
        stopped = fit(small(MultVAE, **steady), blocks, monitor=Tells(KeyboardInterrupt, after))
        assert stopped.history_.interrupted
        assert len(stopped.history_.records) == 4
        straight = fit(small(MultVAE, epochs=4, anneal_steps=round(0.85 * 40), **steady), blocks)
        assert not straight.history_.interrupted
        assert_same_run(stopped, straight)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("step", ["LatentRecord.of", "Trainer._weights", "WeightAverage.add", "EpochRecord.__init__"])
def test_what_ends_a_run_in_the_middle_of_noting_an_epoch_leaves_that_epoch_out(
    step: str, error: type[BaseException], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = fit(small(MultVAE, epochs=9), blocks, monitor=Tells(KeyboardInterrupt, after=1))
    owner, method = step.split(".")
    changed = getattr(trainer, owner)
    real, calls = getattr(changed, method), list[object]()

    def ends(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == (3 if method == "_weights" else 2):  # the trainer keeps what it begins with, too
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(changed, method, ends)
    model = small(MultVAE, epochs=9)
    with suppress(OutOfMemoryError):
        fit(model, blocks)
    found, summary = model.history_, model.training_summary()
    assert len(found.records) == 1 and found.best_epoch == 1
    assert (summary.epochs, summary.best_epoch) == (1, 1) and without_times(model) == without_times(usual)
    for name, value in model.weights().items():
        np.testing.assert_array_equal(value, usual.weights()[name], err_msg=name)


def test_an_interrupted_run_can_go_on(blocks: Dataset, tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    fit(small(MultDAE), blocks, monitor=Tells(KeyboardInterrupt, 6.5), checkpoint=Checkpoint(path, IDENTITY))
    resumed = fit(small(MultDAE), blocks, checkpoint=Checkpoint(path, IDENTITY, resumes=True))
    assert not resumed.history_.interrupted
    assert_same_run(resumed, fit(small(MultDAE), blocks))


def test_ctrl_c_before_the_first_epoch_is_over_is_passed_on(blocks: Dataset) -> None:
    model = small(MultVAE)
    with pytest.raises(KeyboardInterrupt):
        fit(model, blocks, monitor=Tells(KeyboardInterrupt, 0.0))
    with pytest.raises(NotFittedError, match="not fitted yet"):
        model.weights()


@pytest.mark.parametrize("model_class", BOTH)
def test_the_seed_decides_on_initial_weights_and_also_on_order_and_noise(
    model_class: type[Autoencoder], blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (fit(small(model_class, seed=seed, epochs=1, learning_rate=0.0), blocks) for seed in (1, 2))
    assert any((value != other.weights()[name]).any() for name, value in one.weights().items())
    monkeypatch.setattr(autoencoder, "initialise", lambda network, _: initialise(network, torch.Generator()))
    one, other = (fit(small(model_class, seed=seed, epochs=1), blocks) for seed in (1, 2))
    assert without_times(one) != without_times(other)


@pytest.mark.parametrize("patience", [1, 3])
def test_a_run_ends_after_so_many_epochs_without_improvement(patience: int, blocks: Dataset) -> None:
    model = fit(small(MultDAE, epochs=60, patience=patience), blocks)
    history = model.history_
    assert history.stopped_early
    assert len(history.records) == history.best_epoch + patience < 60
    ndcg = [record.ndcg or 0.0 for record in history.records]
    best_so_far = [max(ndcg[: at + 1]) for at in range(len(ndcg))]
    assert [r.best for r in history.records] == [b > max([-1.0, *ndcg[:at]]) for at, b in enumerate(best_so_far)]
    waited, longest = 0, 0
    for record in history.records[:-1]:
        waited = 0 if record.best else waited + 1
        longest = max(longest, waited)
    assert longest < patience  # and not an epoch later than promised


def test_a_resumed_run_remembers_how_long_it_has_waited(blocks: Dataset, tmp_path: Path) -> None:
    straight = fit(small(MultDAE, epochs=60, patience=3), blocks)
    after, path = straight.history_.best_epoch + 2, tmp_path / FILE_NAME
    with pytest.raises(Killed):
        checkpoint = Checkpoint(path, IDENTITY)
        fit(small(MultDAE, epochs=60, patience=3), blocks, monitor=Tells(after=after), checkpoint=checkpoint)
    resumed = small(MultDAE, epochs=60, patience=3)
    assert_same_run(fit(resumed, blocks, checkpoint=Checkpoint(path, IDENTITY, resumes=True)), straight)
    assert resumed.history_.stopped_early


def test_patience_0_and_no_validation_users_mean_every_epoch(blocks: Dataset) -> None:
    patient = fit(small(MultDAE, epochs=30, patience=0), blocks)
    alone = small(MultDAE, epochs=30, patience=1).fit(blocks.train, device="cpu")
    for model in (patient, alone):
        assert len(model.history_.records) == 30
        assert not model.history_.stopped_early
    assert alone.history_.best_epoch == 30


def test_without_validation_users_or_targets_the_last_weights_are_kept(blocks: Dataset) -> None:
    last: dict[str, np.ndarray] = {}

    class Last(NullMonitor):
        def epoch(self, record: EpochRecord) -> None:  # noqa: ARG002
            last.update({name: value.numpy().copy() for name, value in model.network_.state_dict().items()})

    no_targets = (blocks.test.fold_in, 0 * blocks.test.targets)
    for validation in (None, no_targets):
        model = small(MultVAE, patience=2)
        model.fit(blocks.train, validation, monitor=Last(), device="cpu")
        assert (model.history_.best_epoch, model.history_.best_ndcg) == (10, None)
        assert [record.ndcg for record in model.log_] == [None] * 10
        for name, value in model.weights().items():
            np.testing.assert_array_equal(value, last[name])


def test_the_history_is_complete(blocks: Dataset) -> None:
    tells = Tells()
    model = fit(small(MultVAE), blocks, monitor=tells)
    assert model.log_ == model.history_.records == tells.records
    assert [record.epoch for record in model.log_] == list(range(1, 11))
    assert tells.started == (10, 0)
    np.testing.assert_allclose(tells.progress, [e + u / 4 for e in range(10) for u in (1, 2, 3, 4)])
    for record in model.log_:
        assert record.ndcg is not None
        assert 0 <= record.ndcg <= 1
        assert record.users_per_second == pytest.approx(100 / record.seconds)
        assert record.kl is not None
        assert record.loss == pytest.approx(record.reconstruction + (record.beta or 0) * record.kl, rel=0.1)
    best = model.log_[model.history_.best_epoch - 1]
    assert best.ndcg == model.history_.best_ndcg == max(record.ndcg or 0 for record in model.log_)
    assert model.log_[-1].loss < model.log_[0].loss


def test_a_loss_that_is_no_number_ends_the_run(blocks: Dataset) -> None:
    model = fit(small(MultVAE, epochs=1), blocks)
    model.learning_rate = 1e38
    with pytest.raises(TrainingError, match=r"no longer a number at update 2 \(epoch 1\); lower learning_rate"):
        fit(model, blocks)
    with pytest.raises(NotFittedError, match="this MultVAE is not fitted yet"):
        model.score(blocks.train)


def test_a_checkpoint_of_another_run_is_refused_with_the_difference(blocks: Dataset, tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    fit(small(MultDAE, epochs=1), blocks, checkpoint=Checkpoint(path, IDENTITY))
    other = Checkpoint(path, {**IDENTITY, "fingerprint": "xyz"}, resumes=True)
    with pytest.raises(BundleError, match=r"belongs to another run: it has .*'abc'.*, this run has .*'xyz'.*; resume"):
        fit(small(MultDAE), blocks, checkpoint=other)
    same = Checkpoint(path, IDENTITY, resumes=True)  # says it is the same, but the network is another
    with pytest.raises(BundleError, match="does not fit this run"):
        fit(small(MultDAE, latent_dim=3), blocks, checkpoint=same)


def test_a_checkpoint_of_another_kind_of_device_is_refused(blocks: Dataset, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / FILE_NAME, IDENTITY, resumes=True)
    fit(small(MultDAE, epochs=1), blocks, checkpoint=Checkpoint(checkpoint.path, IDENTITY))
    state = checkpoint.load()
    of_a_gpu = torch.zeros(16, dtype=torch.uint8)  # the state of a generator there has 16 bytes, here some 5,000
    checkpoint.save(replace(state, generators={**state.generators, "noise": of_a_gpu}))
    with pytest.raises(BundleError, match="resume on the kind of device it was started on, or train again"):
        fit(small(MultDAE), blocks, checkpoint=checkpoint)


def test_a_checkpoint_that_is_missing_is_refused(blocks: Dataset, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "nowhere" / FILE_NAME, IDENTITY, resumes=True)
    with pytest.raises(BundleError, match=r"no checkpoint at .*; train without --resume"):
        fit(small(MultDAE), blocks, checkpoint=checkpoint)


@pytest.fixture(scope="module")
def checkpoint_bytes(blocks: Dataset, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("run") / FILE_NAME
    fit(small(MultDAE, epochs=1), blocks, checkpoint=Checkpoint(path, IDENTITY))
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@given(st.data())
def test_a_damaged_checkpoint_is_refused_or_without_effect(
    checkpoint_bytes: bytes, scratch: Path, blocks: Dataset, data: st.DataObject
) -> None:
    path = scratch / FILE_NAME
    at = data.draw(st.integers(0, len(checkpoint_bytes) - 1) | st.integers(0, 2000))
    kind = data.draw(st.sampled_from(["cut", "flip", "more"]))
    content = bytearray(checkpoint_bytes)
    if kind == "cut":
        content = content[:at]
    elif kind == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        content += b"x" * (at + 1)
    path.write_bytes(content)
    try:
        Checkpoint(path, IDENTITY, resumes=True).load()
    except BundleError as error:
        assert str(path) in str(error)
    else:
        assert kind == "flip"


def test_a_checkpoint_that_cannot_be_written_ends_the_run(blocks: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"could not write .*: a file stands where a folder is needed"):
        fit(small(MultDAE), blocks, checkpoint=Checkpoint(tmp_path / "file" / FILE_NAME, IDENTITY))


@pytest.mark.parametrize("content", [b"", b"\x80\x04nonsense", b"{}", b"\xff" * 100])
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"is damaged \(.*\); train again without --resume"):
        Checkpoint(path, IDENTITY).load()


# ---------------------------------------------------------------- a monitor that stops training


class Stops(NullMonitor):
    """Stops training once some epochs are done, or within an epoch; counts what it is told afterwards."""

    def __init__(self, after: float) -> None:
        self.after = after
        self.calls_after = 0
        self._stopped = False

    def _stop(self, done: float) -> StopTraining | None:
        self.calls_after += self._stopped
        self._stopped = self._stopped or done >= self.after
        return StopTraining("good enough") if self._stopped else None

    def advance(self, epochs_done: float, beta: float | None) -> StopTraining | None:  # noqa: ARG002
        return self._stop(epochs_done) if self.after % 1 else None

    def epoch(self, record: EpochRecord) -> StopTraining | None:
        return self._stop(record.epoch)


@pytest.mark.parametrize("after", [3, 3.5])
def test_a_monitor_ends_training_with_the_best_weights_so_far(after: float, blocks: Dataset) -> None:
    stops = Stops(after)
    model = fit(small(MultVAE), blocks, monitor=MonitorList(NullMonitor(), stops, NullMonitor()))
    assert len(model.log_) == 3 and stops.calls_after == 0
    assert model.history_.stop == StopTraining("good enough")
    assert not model.history_.interrupted and not model.history_.stopped_early
    assert model.training_summary().stopped == "good enough"
    shorter = fit(small(MultVAE, epochs=10, patience=0), blocks, monitor=(tells := Tells(KeyboardInterrupt, after=3)))
    assert len(tells.records) == 3
    for name, value in shorter.weights().items():
        np.testing.assert_array_equal(model.weights()[name], value)


@pytest.mark.parametrize("name", ["multvae", "recvae", "als", "ials", "blend"])
def test_a_model_that_is_stopped_before_it_has_weights_stays_unfitted(
    name: str, make_model: Callable[..., Any], blocks: Dataset
) -> None:
    model = make_model(name, weight=None) if name == "blend" else make_model(name)
    model.fit(blocks.train, blocks.validation, device="cpu")
    assert model.n_items_
    model.fit(blocks.train, blocks.validation, device="cpu", monitor=Stops(after=0.001))
    with pytest.raises(NotFittedError):
        model.check_fitted()
    model.fit(blocks.train, blocks.validation, device="cpu", monitor=NullMonitor()).check_fitted()


def test_a_run_that_is_stopped_is_finished_and_says_why(toy: Path) -> None:
    dataset = Dataset.load(toy)
    run = new_run(small(MultDAE), Path("runs/toy"), "short")
    bundle, folder = train(run, dataset, device="cpu", monitor=Stops(after=2))
    assert not bundle.interrupted and bundle.training.stopped == "good enough" and bundle.training.epochs == 2
    assert read_bundle(folder).training == bundle.training
    assert not (folder / "checkpoint.safetensors").exists()
    run = new_run(small(MultDAE), Path("runs/toy"), "nothing")
    with pytest.raises(TrainingError, match=r"training of multdae was stopped \(good enough\) before there were any"):
        train(run, dataset, device="cpu", monitor=Stops(after=0.001))
    assert not Path("runs/toy/nothing").exists()


def test_what_is_known_of_training_is_written_under_the_same_names_and_nothing_is_lost() -> None:
    whole = TrainingSummary(seconds=1.5, epochs=3, best_epoch=2, stopped_early=False, interrupted=True, tried=[])
    assert whole.to_json() == {"seconds": 1.5, "epochs": 3, "best_epoch": 2, "stopped_early": False, "tried": []}
    assert TrainingSummary().to_json() == {}
    later = {"seconds": 2, "carbon": {"grams": 3}, "further": 1}
    read = TrainingSummary.from_json(later)
    assert read.further == {"carbon": {"grams": 3}, "further": 1} and read.to_json() == later
    for values, said in (
        ({"seconds": "long"}, "got seconds 'long' of training, expected a number"),
        ({"epochs": True}, "got epochs True of training, expected a whole number"),
        ({"stopped_early": 1}, "got stopped_early 1 of training, expected true or false"),
    ):
        with pytest.raises(TypeError, match=said):
            TrainingSummary.from_json(values)
