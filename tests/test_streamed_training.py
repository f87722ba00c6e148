"""`recvae train --stream` and `Dataset.load(stream=True)`: what is trained, resumed and refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from recvae.compute import memory
from recvae.compute.process_group import joined
from recvae.datasets import folder as folders
from recvae.datasets import shards
from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events, Filters
from recvae.datasets.joining import join
from recvae.datasets.streams import BUFFER_BYTES, StreamedMatrix
from recvae.errors import DataError, MemoryLimitError, UsageError
from recvae.evaluation.evaluate import evaluate
from recvae.evaluation.fitting import fit
from recvae.metrics import Metric
from recvae.models import EASE, EDLAE, ELSA, MODELS, Blend, Model, MultVAE, Popularity, RecVAE
from recvae.models.common.streaming import as_held, buffer_of, check_fits
from recvae.runs.repeats import repeat
from recvae.training.batches import SparseRows
from recvae.training.records import NullMonitor

MakeLog = Callable[..., Events]
Command = Callable[..., Any]

SMALL = 2500  # bytes: of the training rows below, a fifth
NETWORK = {"epochs": 3, "hidden_dims": (8,), "latent_dim": 4, "batch_size": 16, "seed": 1}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "EVENTS_PER_SHARD", 150)


@pytest.fixture
def dataset(random_log: MakeLog) -> Dataset:
    log = random_log(n_users=120, n_items=40, n_events=2000)
    return Dataset.from_events(log, name="toy", filters=Filters(min_rating=2), heldout_users=20)


@pytest.fixture
def home(dataset: Dataset, tmp_path: Path) -> Path:
    dataset.save(tmp_path / "toy", shards=True)
    return tmp_path / "toy"


def streamed(home: Path, buffer: int = SMALL) -> Dataset:
    return Dataset.load(home, stream=True, buffer=buffer)


def log_of(model: Any) -> list[tuple[float, float | None]]:
    return [(record.loss, record.ndcg) for record in model.log_]


def weights_of(model: Model) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in model.weights().items()}


def test_a_streamed_data_set_is_the_same_but_for_where_its_training_rows_are(dataset: Dataset, home: Path) -> None:
    found = streamed(home)
    rows = found.train
    assert isinstance(rows, StreamedMatrix) and len(rows.shards.shards) > 5 and not rows.fits
    assert (rows.shape, rows.nnz, buffer_of(rows)) == (dataset.train.shape, dataset.train.nnz, SMALL)
    assert (found.fingerprint, repr(found)) == (dataset.fingerprint, repr(dataset))
    assert found.items.train_counts.tolist() == dataset.items.train_counts.tolist()
    assert abs(found.test.targets - dataset.test.targets).nnz == 0
    assert buffer_of(Dataset.load(home, stream=True).train) == BUFFER_BYTES
    whole = Dataset.load(home)
    assert whole.manifest == dataset.manifest and buffer_of(whole.train) is None


def test_where_the_buffer_holds_all_training_is_that_in_memory_to_the_bit(dataset: Dataset, home: Path) -> None:
    for model in (MultVAE(**NETWORK), RecVAE(epochs=2, hidden_dim=8, latent_dim=4, batch_size=16)):
        one = type(model)(**vars_of(model)).fit(dataset)
        other = type(model)(**vars_of(model)).fit(streamed(home, 10**6))
        assert log_of(one) == log_of(other) and weights_of(one) == weights_of(other)


def vars_of(model: Model) -> dict[str, Any]:
    from recvae.models.common.hyperparameters import values_of

    return values_of(model)


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.streams and name != "blend"])
def test_every_model_that_says_so_is_fitted_to_streamed_rows(name: str, home: Path) -> None:
    few = {"epochs": 2, "hidden_dim": 8, "hidden_dims": (8,), "latent_dim": 4, "batch_size": 16, "pseudo_inputs": 5}
    kind: Any = MODELS[name]
    settings = {key: value for key, value in few.items() if key in kind.__dataclass_fields__}
    one, other, whole = kind(**settings), kind(**settings), kind(**settings)
    for model, rows in ((one, streamed(home)), (other, streamed(home)), (whole, Dataset.load(home))):
        model.fit(rows)
    assert weights_of(one) == weights_of(other), "the order is that of the seed alone"
    if hasattr(one, "log_"):
        assert log_of(one) != log_of(whole), "users come in another order"
        assert len(one.log_) == 2 and all(np.isfinite(record.loss) for record in one.log_)
    else:
        for key, value in whole.weights().items():
            np.testing.assert_allclose(one.weights()[key], value, rtol=1e-4, atol=1e-6, err_msg=key)
    history = Dataset.load(home).test.fold_in
    assert one.recommend(history, k=3)[0].shape == (20, 3)


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if not model.streams])
def test_every_other_model_refuses_them_and_names_those_that_can(name: str, home: Path) -> None:
    message = (
        rf"^got {name} for training rows that stay on disk, but it works on the whole .* multvae, .*popularity; or"
    )
    with pytest.raises(UsageError, match=message):
        MODELS[name]().fit(streamed(home))
    with pytest.raises(UsageError, match=message):
        check_fits(MODELS[name](), streamed(home).train, CPU, None)


def test_a_network_of_your_own_that_looks_at_the_matrix_is_told_why_it_cannot(home: Path) -> None:
    class Curious(MultVAE):
        name = "curious"

        def _begin(self, train: Any) -> None:
            super()._begin(train)
            self.seen = train.indices

    with pytest.raises(UsageError, match=r"lie on disk \(stream=True\) have no 'indices'; load the data set without"):
        Curious(**NETWORK).fit(streamed(home))


def test_closed_forms_add_up_the_parts(dataset: Dataset, home: Path) -> None:
    for model in (EASE, EDLAE, Popularity):
        one, other = model().fit(dataset), model().fit(streamed(home))
        assert one.training_summary().from_data == other.training_summary().from_data
        assert weights_of(one) == weights_of(other), "counts are whole numbers, which float32 adds up exactly"
    settings: dict[str, Any] = {"user_power": 0.3, "item_power": 0.2, "relax": 0.1, "l2": 5.0}
    one, other = EDLAE(**settings).fit(dataset), EDLAE(**settings).fit(streamed(home))
    np.testing.assert_allclose(np.asarray(one.similarity_), np.asarray(other.similarity_), rtol=1e-4, atol=1e-6)


def test_a_blend_chooses_its_weight_without_the_rows(dataset: Dataset, home: Path) -> None:
    parts = {"first": EASE().fit(dataset), "second": Popularity().fit(dataset)}
    one, other = Blend(parts=dict(parts)).fit(dataset), Blend(parts=dict(parts)).fit(streamed(home))
    assert one.weight_ == other.weight_
    with pytest.raises(UsageError, match=r"^got sansa for training rows that stay on disk"):
        Blend(parts={"first": MODELS["sansa"](), "second": Popularity()}).fit(streamed(home))


def test_samplers_and_defaults_that_look_at_the_data_see_all_of_it(dataset: Dataset, home: Path) -> None:
    model = MultVAE(epochs=1, hidden_dims=(8,), latent_dim=4, sampling="popularity", sampled_items=5)
    again = MultVAE(epochs=1, hidden_dims=(8,), latent_dim=4, sampling="popularity", sampled_items=5)
    assert log_of(model.fit(dataset)) == log_of(again.fit(streamed(home, 10**6)))
    small = MultVAE(epochs=1, hidden_dims=(8,), latent_dim=4).fit(streamed(home))
    assert small.from_data_ == model.from_data_ == {"batch_size": 32}


def test_without_validation_users_the_codes_are_those_of_the_first_training_users(dataset: Dataset, home: Path) -> None:
    one = MultVAE(**NETWORK).fit(dataset.train)
    other = MultVAE(**NETWORK).fit(streamed(home, 10**6).train)
    assert one.log_[-1].kl_per_dimension == other.log_[-1].kl_per_dimension


def test_metrics_of_counts_work_and_others_say_what_they_need(dataset: Dataset, home: Path) -> None:
    found = streamed(home)
    model = MultVAE(**NETWORK).fit(found, select_by="tail_recall@5")
    expected = evaluate(model, dataset, "novelty@5,tail_recall@5,coverage@5")
    assert evaluate(model, found, "novelty@5,tail_recall@5,coverage@5").means == expected.means
    with pytest.raises(
        UsageError, match=r"^got diversity with training rows that lie on disk .* needs in memory; load"
    ):
        evaluate(model, found, [Metric("diversity", 5)])


def test_what_needs_all_rows_says_so(home: Path, tmp_path: Path) -> None:
    found = streamed(home)
    with pytest.raises(UsageError, match=r"^got a data set whose training rows are streamed to save, which needs all"):
        found.save(tmp_path / "other")
    with pytest.raises(UsageError, match=r"rows are streamed to train on held-out users too, which needs all of them"):
        join(found)


def test_a_card_says_how_much_was_in_memory(dataset: Dataset, home: Path) -> None:
    found = streamed(home)
    bundle = fit(MultVAE(**NETWORK), found).bundle()
    share = SMALL / SparseRows.bytes_of(dataset.train)
    assert bundle.training.stream == {"buffer": SMALL, "share": pytest.approx(share)}
    assert fit(MultVAE(**NETWORK), streamed(home, 10**6)).training.stream == {"buffer": 10**6, "share": 1.0}
    assert fit(MultVAE(**NETWORK), dataset).training.to_json().get("stream") is None


def test_memory_follows_from_the_buffer_and_not_from_the_data(home: Path) -> None:
    class Large(StreamedMatrix):
        @property
        def shape(self) -> tuple[int, int]:
            return 10**8, 40

        @property
        def nnz(self) -> int:
            return 10**10

    rows: Any = streamed(home).train
    small, large = (Large(rows.shards, buffer) for buffer in (10**8, 10**9))
    model = MultVAE(**NETWORK)
    needs = [held.needs(*size) for held, size in (as_held(model, rows, rows.buffer) for rows in (small, large))]
    assert 1.1e8 < needs[0].training < 1.6e8 and 1e9 < needs[1].training < 1.1e9
    assert as_held(MultVAE(), small, 10**8)[0].batch_size == 500, "the batches of all users"
    check_fits(model, small, CPU, 2 * 10**8)
    message = r"needs 1\.0 GB of memory, 200\.0 MB is allowed .*, or use --buffer 125MB$"
    with pytest.raises(MemoryLimitError, match=message):
        check_fits(model, large, CPU, 2 * 10**8)
    with pytest.raises(MemoryLimitError, match=r", or train from disk with --stream --buffer 125MB$"):
        check_fits(model, cast(Any, _OfSize((10**7, 40), 10**9)), CPU, 2 * 10**8)
    with pytest.raises(MemoryLimitError, match=r"rare items \(recvae preprocess --min-item-users\)$"):
        check_fits(model, large, CPU, 1000)
    with pytest.raises(MemoryLimitError, match="or use sansa, elsa"):
        check_fits(EASE(), large, CPU, 100)


class _OfSize:
    """A matrix in memory of which only the size is known."""

    def __init__(self, shape: tuple[int, int], nnz: int) -> None:
        self.shape, self.nnz = shape, nnz


def test_shards_that_do_not_fit_into_memory_are_refused_with_the_way_out(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = r"^reading .*toy needs .* of memory, 2.0 kB is allowed by --max-memory; `recvae train --stream` trains"
    with pytest.raises(MemoryLimitError, match=message):
        Dataset.load(home, max_memory=2000)
    with pytest.raises(MemoryLimitError, match=r"^reading the held-out users of .* hold out fewer users"):
        Dataset.load(home, stream=True, max_memory=2000)
    assert Dataset.load(home, stream=True, max_memory=9000).train.nnz > 1000
    monkeypatch.setattr(memory, "available_bytes", lambda: 2000)
    with pytest.raises(
        MemoryLimitError, match=r"2.0 kB this machine has free; `recvae train --stream` trains from disk"
    ):
        Dataset.load(home)


def test_held_out_users_who_are_the_training_users_are_in_memory(random_log: MakeLog, tmp_path: Path) -> None:
    log = random_log(n_users=120, n_items=40, n_events=2000)
    weak = Dataset.from_events(log, name="weak", filters=Filters(min_rating=2), split="holdout")
    weak.save(tmp_path / "weak", shards=True)
    found = streamed(tmp_path / "weak")
    assert abs(found.validation.fold_in - weak.train).nnz == 0
    assert log_of(MultVAE(**NETWORK).fit(streamed(tmp_path / "weak", 10**6))) == log_of(MultVAE(**NETWORK).fit(weak))
    listed = folders.read_manifest(tmp_path / "weak")["shards"]
    assert listed["validation/fold_in"] == listed["train"], "written once"
    with pytest.raises(MemoryLimitError, match=r"held-out users are the training users, all in memory; raise"):
        Dataset.load(tmp_path / "weak", stream=True, max_memory=9000)


def test_damage_is_found_before_training(home: Path, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not in shards, which training from disk reads; make it with `recvae pre"):
        dataset.save(tmp_path / "plain")
        Dataset.load(tmp_path / "plain", stream=True)
    path = home / "train" / "part-00003.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\1")
    with pytest.raises(DataError, match=r"is damaged: train/part-00003.safetensors was changed after it was written"):
        streamed(home)
    path.write_bytes(whole[:-4])
    with pytest.raises(DataError, match=r"part-00003.safetensors has .* bytes, expected .*: it is damaged"):
        streamed(home)
    path.unlink()
    with pytest.raises(DataError, match=r"part-00003.safetensors is missing, expected a shard of"):
        streamed(home)


def test_a_shard_that_was_replaced_after_loading_is_not_trained_on(home: Path) -> None:
    found = streamed(home)
    path = home / "train" / "part-00003.safetensors"
    path.write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"part-00003.safetensors was changed after it was checked; leave a data set"):
        MultVAE(**NETWORK).fit(found)


SETTINGS = ("--set", "epochs=4", "--set", "hidden_dims=8", "--set", "latent_dim=4", "--set", "batch_size=16")


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    home.rename(tmp_path / "data" / "toy")
    return tmp_path


def lines(name: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in Path(f"runs/toy/{name}/log.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in one.items() if "seconds" not in key and "per_sec" not in key} for one in found
    ]


def test_the_command_trains_the_same_run_from_disk(place: Path, command: Command) -> None:
    assert place.is_dir()
    assert command("train", *SETTINGS, "--name", "whole").code == 0
    said = command("train", *SETTINGS, "--name", "all", "--stream")
    assert said.code == 0, said.err
    assert "training rows stay on disk in 7 shards; 1.0 GB hold all of them, in the order of training" in said.err
    said = command("train", *SETTINGS, "--name", "some", "--stream", "--buffer", "10kB")
    assert said.code == 0 and "10.0 kB hold " in said.err and " of them at a time\n" in said.err
    weights = [Path(f"runs/toy/{name}/weights.safetensors").read_bytes() for name in ("whole", "all", "some")]
    assert weights[0] == weights[1] != weights[2]
    for one, other in zip(lines("whole"), lines("all"), strict=True):
        assert one["loss"] == other["loss"] and one["ndcg"] == other["ndcg"]
    card = json.loads(Path("runs/toy/some/recommender.json").read_text())
    assert card["training"]["stream"]["buffer"] == 10_000
    assert command("train", "--refit", "toy/some").code == 0, "in memory, on train and validation"
    assert command("evaluate", "toy/some", "--baselines", "popularity").code == 0


def test_a_run_that_was_stopped_goes_on_with_its_buffer(
    place: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recvae.training.monitors import LogFile

    words = ("train", *SETTINGS, "--stream", "--buffer", "10kB")
    assert command(*words, "--name", "whole").code == 0
    write = LogFile.epoch

    def stopped(self: LogFile, record: Any) -> Any:
        if record.epoch == 3:
            raise KeyboardInterrupt
        return write(self, record)

    monkeypatch.setattr(LogFile, "epoch", stopped)
    assert command(*words, "--name", "part").code in (0, 130)
    monkeypatch.undo()
    monkeypatch.chdir(place)
    state = json.loads(Path("runs/toy/part/run.json").read_text())
    assert state["stream"] == 10_000
    for buffer in ("1GB", "20kB"):
        said = command("train", "--resume", "--name", "part", "--stream", "--buffer", buffer)
        assert said.code == 2 and "but runs/toy/part was begun with those on disk with a buffer of 10,000" in said.err
    said = command("train", "--resume", "--name", "part")
    assert said.code == 0, said.err
    assert "training rows stay on disk" in said.err
    one, other = (Path(f"runs/toy/{name}/weights.safetensors").read_bytes() for name in ("whole", "part"))
    assert one == other


def test_a_run_in_memory_is_not_resumed_from_disk(
    place: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recvae.training.monitors import LogFile

    def stopped(self: LogFile, record: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LogFile, "epoch", stopped)
        command("train", *SETTINGS, "--name", "part")
    said = command("train", "--resume", "--name", "part", "--stream")
    assert said.code == 2 and "but runs/toy/part was begun with those in memory, which decides the order" in said.err
    state = place / "runs/toy/part/run.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"stream": "much"}))
    said = command("train", "--resume", "--name", "part")
    assert said.code != 0 and "run.json is damaged (TypeError(\"stream is 'much'\"))" in said.err


def test_beta_is_found_from_disk_as_in_memory(place: Path, command: Command) -> None:
    for name, words in (("one", ()), ("two", ("--stream",))):
        said = command("train", *SETTINGS, "--name", name, "--find-beta", *words)
        assert said.code == 0, said.err
    cards = [json.loads((place / f"runs/toy/{name}/recommender.json").read_text()) for name in ("one", "two")]
    assert cards[0]["hyperparameters"] == cards[1]["hyperparameters"]


def test_a_run_is_repeated_with_its_users_in_the_order_that_it_had(place: Path, command: Command) -> None:
    assert command("train", *SETTINGS, "--name", "some", "--stream", "--buffer", "10kB").code == 0
    compare = ("compare", "some", "--baselines", "none", "--metrics", "recall@5", "--seeds", "2", "--json")
    said = command(*compare)
    assert said.code == 0, said.err
    assert command("train", *SETTINGS, "--seed", "1", "--name", "by-hand", "--stream", "--buffer", "10kB").code == 0
    weights = {name: Path(f"runs/toy/{name}/weights.safetensors").read_bytes() for name in ("some-seed-1", "by-hand")}
    assert weights["some-seed-1"] == weights["by-hand"], "the seed alone differs"
    assert command(*compare).out == said.out and not (place / "runs/toy/some-seed-1-2").exists(), "used again"

    run, home = Path("runs/toy/some"), Path("data/toy")
    for data, here in ((Dataset.load(home), "in memory"), (streamed(home), "on disk with a buffer of 2,500")):
        with pytest.raises(UsageError, match=f"^got training rows {here}, but .* trained with those on disk with a bu"):
            repeat(run, 1, data, device="cpu", monitor=NullMonitor())
    assert command("train", *SETTINGS, "--name", "whole").code == 0
    shutil.copytree(run.with_name("some-seed-1"), run.with_name("whole-seed-1"))
    made = repeat(run.with_name("whole"), 1, streamed(home, BUFFER_BYTES), device="cpu", monitor=NullMonitor())
    assert made.name == "whole-seed-1-2", "the one of that name had another order"


def test_runs_are_measured_where_the_training_rows_do_not_fit(
    place: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("train", *SETTINGS, "--stream").code == 0
    measure = ("evaluate", "--metrics", "recall@5,novelty@5", "--baselines")
    expected = command(*measure, "popularity,ease")

    def tight(needed: int, limit: int | None, what: str, ways: str) -> None:
        if "held-out" not in what:
            raise MemoryLimitError(f"{what} needs more; {ways}")

    monkeypatch.setattr(folders, "check_memory", tight)
    assert (place / "runs").is_dir()
    found = command(*measure, "popularity,ease")
    assert (found.code, found.out) == (0, expected.out), found.err
    said = command("evaluate")
    assert said.code == 2 and "do not fit into memory, where the baselines als, ials need them; leave" in said.err
    said = command("train")
    assert said.code == 1 and "`recvae train --stream` trains from disk" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--buffer", "1MB"), "got --buffer 1MB without --stream, where it has no effect; add --stream"),
        (("--stream", "--buffer", "200"), "got --buffer 200, which is 200 bytes; write 200GB"),
        (("--stream", "--buffer", "much"), "got 'much' for an amount of memory, expected a number and a unit"),
        (("--stream", "--model", "als"), "got als for training rows that stay on disk, but it works on the whole"),
        (("--buffer", "1MB", "--refit", "toy/a"), "got --buffer 1MB without --stream, where it has no effect"),
        (("--stream", "--refit", "toy/a"), "got --stream with --refit, which puts train and held-out users together"),
        (("--stream", "--max-memory", "2kB"), "reading the held-out users of data/toy needs"),
        (("--max-memory", "2kB"), "`recvae train --stream` trains from disk"),
    ],
)
def test_the_command_refuses_plainly(words: tuple[str, ...], message: str, place: Path, command: Command) -> None:
    said = command("train", *words)
    assert said.code in (1, 2) and message in said.err and "Traceback" not in said.err
    assert not (place / "runs").exists()


def test_a_log_is_prepared_in_shards_with_the_same_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("preprocess", "synthetic", "--users", "120", "--items", "80", "--events", "2400")
    assert command(*words, "--name", "plain").code == command(*words, "--name", "parts", "--shards").code == 0
    plain, parts = (json.loads((tmp_path / f"data/{name}/manifest.json").read_text()) for name in ("plain", "parts"))
    assert plain["fingerprint"] == parts["fingerprint"] and (plain["format"], parts["format"]) == (1, 2)
    assert sorted(path.name for path in (tmp_path / "data/parts").iterdir()) == [
        *("items.parquet", "manifest.json", "test", "train", "train_users.parquet", "validation"),
    ]
    assert len(parts["shards"]["train"]) > 2
    assert command("train", "--data", "parts", "--stream", *SETTINGS).code == 0


def test_several_processes_share_streamed_batches(place: Path, command: Command, several: Any) -> None:
    words = ("train", *SETTINGS, "--stream", "--buffer", "10kB", "--name")
    assert command(*words, "one").code == 0
    ended = several(2, lambda rank: command(*words, "two"))  # noqa: ARG005
    assert [end.code for end in ended] == [0, 0], ended
    assert [end.found.code for end in ended] == [0, 0], ended
    assert place.is_dir()
    for one, other in zip(lines("one"), lines("two"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    elsa = ("--model", "elsa", "--set", "epochs=2", "--set", "latent_dim=4", "--set", "batch_size=16")
    sampled = ("--set", "sampling=uniform", "--set", "sampled_items=5", "--stream", "--buffer", "10kB")
    assert command("train", *elsa, *sampled, "--name", "elsa-one").code == 0
    ended = several(2, lambda rank: command("train", *elsa, *sampled, "--name", "elsa-two"))  # noqa: ARG005
    assert [end.found.code for end in ended] == [0, 0], ended
    for one, other in zip(lines("elsa-one"), lines("elsa-two"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_processes_with_other_buffers_are_refused(place: Path, several: Any) -> None:
    def train(rank: int) -> str:
        rows = Dataset.load(place / "data/toy", stream=True, buffer=SMALL + rank)
        with joined(), pytest.raises(UsageError) as error:
            ELSA(latent_dim=4, epochs=1, batch_size=16).fit(rows)
        return str(error.value)

    ended = several(2, train)
    assert ["got buffer 2501 in process 1 and 2500 in process 0" in end.found for end in ended] == [True, True], ended
