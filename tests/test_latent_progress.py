"""What takes long in `recvae.latent` says how far it is: in Python by `progress`, by command on the standard error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recvae.datasets.dataset import Dataset
from recvae.datasets.preparation import Protocol, prepare_synthetic
from recvae.latent.anomalies import SCORES, AnomalyDetector
from recvae.latent.generation import SOURCES, generate
from recvae.latent.likelihood import likelihood
from recvae.latent.segments import find_segments
from recvae.models import AE, MultVAE
from recvae.progress import part_of
from recvae.training import monitors

Told = list[tuple[float, float | None, str]]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    protocol = Protocol(heldout_users=40)
    return prepare_synthetic(protocol, name="toy", n_users=300, n_items=120, n_events=8000).dataset


@pytest.fixture(scope="module")
def multvae(dataset: Dataset) -> MultVAE:
    return MultVAE(hidden_dims=(12,), latent_dim=4, epochs=2, batch_size=50).fit(dataset.train)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models take seven users at a time."""
    monkeypatch.setattr(MultVAE, "rows_at_a_time", lambda *_: 7)


def _shares(told: Told) -> list[float]:
    """Return how much was done in all, call by call."""
    return [0.0 if total is None else done / total for done, total, _ in told]


def _is_whole(told: Told, steps: int) -> None:
    shares = _shares(told)
    assert len(shares) >= steps
    assert shares == sorted(shares), "it went back"
    assert shares[-1] == pytest.approx(1)
    assert len(set(shares)) >= steps, "it stood still"


def test_a_step_is_told_as_a_part_of_the_whole() -> None:
    told: Told = []
    step = part_of(lambda *words: told.append(words), 0.25, 0.75, "second")
    assert step is not None
    step(0, 8, "ignored")
    step(4, 8, "")
    step(9, 8, "")
    step(3, None, "")
    assert told == [(25, 100, "second"), (50, 100, "second"), (75, 100, "second"), (25, 100, "second")]
    assert part_of(None, 0, 1, "nobody listens") is None


@pytest.mark.usefixtures("small_blocks")
def test_likelihood_tells_of_each_draw_and_gives_the_same_figures(multvae: MultVAE, dataset: Dataset) -> None:
    told: Told = []
    found = likelihood(multvae, dataset, n_samples=9, progress=lambda *words: told.append(words))
    assert found == likelihood(multvae, dataset, n_samples=9)
    _is_whole(told, 3 * 9 * -(-40 // 7))
    assert [note for place, (*_, note) in enumerate(told) if place == 0 or note != told[place - 1][2]] == [
        "targets given the fold-in",
        "whole rows",
        "whole rows, ELBO",
    ]


def test_likelihood_of_points_has_one_step(dataset: Dataset) -> None:
    told: Told = []
    model = AE(latent_dim=4, epochs=1).fit(dataset.train)
    likelihood(model, dataset, progress=lambda *words: told.append(words))
    _is_whole(told, 1)
    assert {note for *_, note in told} == {"targets given the fold-in"}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("score", SCORES)
def test_the_detector_tells_of_both_its_passes(multvae: MultVAE, dataset: Dataset, score: str) -> None:
    fitting: Told = []
    scoring: Told = []
    usual, users = dataset.validation.fold_in, dataset.test.fold_in
    detector = AnomalyDetector(multvae, score=score, n_samples=3)
    detector.fit(usual, progress=lambda *words: fitting.append(words))
    found = detector.scores_and_p_values(users, progress=lambda *words: scoring.append(words))
    for told in (fitting, scoring):
        _is_whole(told, 3 * -(-40 // 7))
    np.testing.assert_array_equal(found[0], detector.decision_function(users))
    np.testing.assert_array_equal(found[1], detector.p_values(users))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("source", SOURCES)
def test_making_up_users_tells_of_each(multvae: MultVAE, dataset: Dataset, source: str) -> None:
    told: Told = []
    made = generate(multvae, dataset.train, 30, source, progress=lambda *words: told.append(words))
    _is_whole(told, 30)
    assert told[-1][2] == "drawing items"
    np.testing.assert_array_equal(made.toarray(), generate(multvae, dataset.train, 30, source).toarray())


@pytest.mark.usefixtures("small_blocks")
def test_grouping_tells_of_codes_and_of_each_seed(multvae: MultVAE, dataset: Dataset) -> None:
    told: Told = []
    found = find_segments(multvae, dataset.train, 3, seeds=4, progress=lambda *words: told.append(words))
    _is_whole(told, -(-dataset.train.shape[0] // 7) + 5)
    assert [note for *_, note in told].count("k-means, seed by seed") == 5
    again = find_segments(multvae, dataset.train, 3, seeds=4)
    np.testing.assert_array_equal(found.labels, again.labels)
    assert found.stability == again.stability


@pytest.mark.parametrize(
    ("words", "title", "notes"),
    [
        (("likelihood", "--samples", "3"), "likelihood", ("targets given the fold-in", "whole rows, ELBO")),
        (("anomalies",), "looking for odd users", ("users to compare with", "users")),
        (("generate", "--users", "60"), "making up users", ("codes of users", "drawing items")),
        (
            ("generate", "--users", "60", "--compare"),
            "comparing with real users",
            ("real users", "mixture, training EASE", "interpolation"),
        ),
        (("segments", "--groups", "3"), "grouping users", ("codes of users", "k-means, seed by seed")),
    ],
)
def test_a_command_that_takes_long_writes_plain_lines_to_the_standard_error(
    workplace: Path,
    command: Callable[..., Any],
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    title: str,
    notes: tuple[str, ...],
) -> None:
    dataset.save(workplace / "data" / "toy")
    small = ("--set", "epochs=1", "--set", "hidden_dims=12", "--set", "latent_dim=4")
    assert command("train", "--model", "multvae", *small).code == 0
    quick = command(*words, "--json")
    monkeypatch.setattr(monitors, "_SECONDS_BETWEEN_LINES", 0.0)
    slow = command(*words, "--json")
    assert (quick.code, slow.code) == (0, 0)
    assert slow.out == quick.out
    assert f"{title}: " not in quick.err, "it took less than two seconds"
    lines = [line for line in slow.err.splitlines() if line.startswith(f"{title}: ")]
    for note in notes:
        assert any(line.endswith(f"%  {note}") for line in lines), (note, lines)
    assert "\x1b" not in slow.err
