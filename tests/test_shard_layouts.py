"""The order of streamed users depends on where shards end: the same users in other shards are not the same training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recvae.compute.process_group import joined
from recvae.datasets import shards
from recvae.datasets.dataset import Dataset
from recvae.datasets.shards import Shard, ShardedMatrix, shard_name, write_shard
from recvae.datasets.streams import StreamedMatrix
from recvae.errors import BundleError, UsageError
from recvae.models import ELSA
from recvae.runs.run import new_run, resumed_run, train
from recvae.training.records import NullMonitor

N_USERS, N_ITEMS, BUFFER = 60, 30, 2400


def users() -> sp.csr_matrix:
    rng = np.random.default_rng(0)
    columns = np.concatenate([np.sort(rng.choice(N_ITEMS, 5, replace=False)) for _ in range(N_USERS)])
    starts = np.arange(0, 5 * N_USERS + 1, 5)
    return sp.csr_matrix((np.ones(len(columns), np.float32), columns.astype(np.int32), starts), (N_USERS, N_ITEMS))


def stored(folder: Path, end: int, buffer: int = BUFFER) -> StreamedMatrix:
    """Write the users in two shards, of which the first one ends at a row."""
    rows, found = users(), []
    for number, (first, last) in enumerate(((0, end), (end, N_USERS))):
        part, name = rows[first:last], shard_name("train", number)
        facts: dict[str, Any] = write_shard(folder / name, part.indptr.astype(np.int64), part.indices, part.data)
        found.append(Shard(file=name, **facts))
    return StreamedMatrix(ShardedMatrix(folder, tuple(found), N_ITEMS), buffer)


def test_processes_whose_shards_end_elsewhere_are_refused(several: Any, tmp_path: Path) -> None:
    """Each would take its part of another order: some users would come twice, others not at all."""

    def fit(rank: int) -> str:
        rows: Any = stored(tmp_path / str(rank), 30 - 5 * rank)
        with joined(), pytest.raises(UsageError) as error:
            ELSA(latent_dim=4, epochs=1, batch_size=16).fit(rows)
        return str(error.value)

    ended = several(2, fit)
    assert all("got shards " in end.found and "copy the data set to all machines" in end.found for end in ended), ended


def test_where_all_rows_are_held_shards_may_end_anywhere(tmp_path: Path) -> None:
    assert stored(tmp_path / "one", 30, 10**6).layout is None
    assert stored(tmp_path / "one", 30).layout == stored(tmp_path / "other", 30).layout
    assert stored(tmp_path / "one", 30).layout != stored(tmp_path / "other", 25).layout


def test_a_buffer_of_nothing_is_refused_and_not_taken_as_another(random_log: Any, tmp_path: Path) -> None:
    made = Dataset.from_events(random_log(n_users=120, n_items=40, n_events=2000), name="toy", heldout_users=20)
    made.save(tmp_path / "toy", shards=True)
    with pytest.raises(UsageError, match="got buffer=0, expected a number of bytes, 1 or more"):
        Dataset.load(tmp_path / "toy", stream=True, buffer=0)


def test_a_run_is_not_continued_on_the_same_users_in_other_shards(
    random_log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(NullMonitor):
        def epoch(self, record: Any) -> None:  # noqa: ARG002
            raise RuntimeError("killed")

    made = Dataset.from_events(random_log(n_users=120, n_items=40, n_events=2000), name="toy", heldout_users=20)

    def written(events: int) -> Dataset:
        monkeypatch.setattr(shards, "EVENTS_PER_SHARD", events)
        made.save(tmp_path / "toy", shards=True)
        return Dataset.load(tmp_path / "toy", stream=True, buffer=BUFFER)

    before = written(150)
    run = new_run(ELSA(latent_dim=4, epochs=3, batch_size=16), tmp_path / "runs", "elsa")
    with pytest.raises(RuntimeError, match="killed"):
        train(run, before, monitor=Killed())
    after = written(90)
    assert after.fingerprint == before.fingerprint
    with pytest.raises(BundleError, match=r"belongs to another run: it has {'shards': '.+'}, this run has"):
        train(resumed_run(run.work, after), after, monitor=NullMonitor())
    again = written(150)
    bundle, _ = train(resumed_run(run.work, again), again, monitor=NullMonitor())
    assert bundle.training.epochs == 3
