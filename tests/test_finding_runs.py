"""Which runs there are: finished, interrupted or unfinished, by name, the newest, and repeats with other seeds."""

import json
import os
from pathlib import Path

import pytest

from recvae.errors import BundleError, UsageError
from recvae.runs.finding import find_run, finished_runs, list_runs, repeats_of

RUNS = Path("runs")
CARD = {
    **{name: {} for name in ("hyperparameters", "metrics", "training", "dataset", "versions", "files")},
    "format": 1,
    "model": "als",
    "interrupted": False,
    "created": "today",
}


def make(place: str, age: int, *, interrupted: bool | None = None, resumable: bool = False) -> Path:
    """Make a run of an age in days; with a bundle, unless `interrupted` is None."""
    folder = RUNS / place
    folder.mkdir(parents=True)
    if interrupted is not None:
        (folder / "recommender.json").write_text(json.dumps(CARD | {"interrupted": interrupted}))
    if resumable:
        (folder / "run.json").write_text("{}")
    for file in folder.iterdir():
        os.utime(file, (1e9 - 86400 * age, 1e9 - 86400 * age))
    return folder


@pytest.fixture
def runs(workplace: Path) -> Path:
    make("films/als", 3, interrupted=False)
    make("films/als-seed-1", 2, interrupted=False)
    make("films/als-seed-2", 1, resumable=True)
    make("films/dae", 5, interrupted=True, resumable=True)
    make("films/.dae.new", 0, resumable=True)
    make("shop/als", 4, interrupted=False)
    make("shop/empty", 0)
    return workplace


def test_every_run_is_listed_with_its_state_oldest_first(runs: Path) -> None:
    found = [(run.path.as_posix(), run.state(), run.can_resume, run.is_hidden) for run in list_runs(RUNS)]
    assert found == [
        ("runs/films/dae", "interrupted", True, False),
        ("runs/shop/als", "finished", False, False),
        ("runs/films/als", "finished", False, False),
        ("runs/films/als-seed-1", "finished", False, False),
        ("runs/films/als-seed-2", "unfinished", True, False),
        ("runs/films/.dae.new", "unfinished", True, True),
    ]
    assert [run.path.name for run in list_runs(RUNS, "shop")] == ["als"]
    assert list_runs(RUNS / "films", ".") == list_runs(RUNS, "films")
    assert list_runs(Path("nowhere")) == []


def test_all_who_look_for_runs_agree(runs: Path) -> None:
    films = RUNS / "films"
    assert find_run(RUNS) == films / "als", "a repeat with another seed is nobody's newest run"
    assert find_run(RUNS, data="shop") == RUNS / "shop/als"
    assert finished_runs(films) == ([films / "als"], [films / "als-seed-1"])
    assert repeats_of(films / "als", 1) == [films / "als-seed-1"]
    assert repeats_of(films / "als", 2) == [films / "als-seed-2"] and repeats_of(films / "als", 3) == []
    with pytest.raises(
        UsageError, match=r"got run 'als', which exists on several data sets; name one of: shop/als, films"
    ):
        find_run(RUNS, "als")
    with pytest.raises(BundleError, match="als-seed-2 is a run that has not finished; continue it with"):
        find_run(RUNS, "als-seed-2")
    with pytest.raises(
        UsageError, match=r"no run 'svd' in runs; there are: films/dae, shop/als, films/als, films/als-"
    ):
        find_run(RUNS, "svd")


def test_runs_are_found_from_within_their_folder(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RUNS / "films")
    assert finished_runs(Path()) == ([Path("als")], [Path("als-seed-1")])
    assert repeats_of(Path("als"), 1) == [Path("als-seed-1")]


def test_the_state_of_a_damaged_bundle_is_not_guessed(runs: Path) -> None:
    (RUNS / "films/als/recommender.json").write_text("{")
    with pytest.raises(BundleError, match="is damaged"):
        finished_runs(RUNS / "films")
