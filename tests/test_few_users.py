"""Few users: groups of one, one test user, few users to compare with, lists deeper than those that are measured.

No figure of a few users is told as one of many, none of a single user is on a page for others.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import spearmanr

from recvae.datasets.dataset import Dataset
from recvae.datasets.preparation import Protocol, prepare_synthetic
from recvae.errors import UsageError
from recvae.evaluation.comparison import compare
from recvae.items import ItemIndex
from recvae.latent.anomalies import AnomalyDetector
from recvae.latent.segments import LEAST_USERS, find_segments
from recvae.models import ALS, EASE, MultVAE
from recvae.reports.measuring import Measured, rank_users
from recvae.reports.page import Report, in_short
from recvae.reports.segments import named, segments_map

Command = Callable[..., Any]
SMALL = ("--set", "hidden_dims=8", "--set", "latent_dim=4", "--set", "epochs=2")


def histories() -> np.ndarray:
    """Return 60 users of two kinds, and one who has items that nobody else has."""
    rng = np.random.default_rng(5)
    dense = np.zeros((61, 48), np.float32)
    for user in range(60):
        dense[user, rng.choice(20, 8, replace=False) + 20 * (user % 2)] = 1
    dense[60, 40:] = 1
    return dense


# ---------------------------------------------------------------- groups


def test_groups_and_items_of_few_users_name_nothing() -> None:
    rows = sp.csr_matrix(histories())
    found = find_segments(ALS(factors=6, iterations=5).fit(rows), rows, 3, named_by=48)
    lone = found.segments[-1]
    assert lone.n_users == 1 and len(lone.items) == len(lone.lifts) == len(lone.shares) == 0
    users = rows.getnnz(axis=0)
    assert all((users[one.items] >= LEAST_USERS).all() and len(one.items) for one in found.segments[:-1])
    items = ItemIndex(ids=np.arange(48), titles=None, train_counts=users)
    assert named(lone, items, 3) == "not named: they are fewer than 10 users"
    legend = [text.get_text() for text in segments_map(found, items).legends[0].get_texts()]
    assert "3: too few to name" in legend


def test_a_page_of_groups_has_nothing_of_a_user_who_is_a_group(workplace: Path, command: Command) -> None:
    users, columns = np.nonzero(histories())
    frame = pd.DataFrame({"user": users, "item": [f"thing-{column}" for column in columns]})
    frame.to_csv("log.csv", index=False)
    said = command("preprocess", "log.csv", "--name", "loner", "--heldout-users", "1", "--seed", "3", "--no-rating")
    assert said.code == 0, said.err
    dataset = Dataset.load("data/loner")
    assert "thing-47" in dataset.item_ids.tolist(), "the loner is a training user"
    assert command("train", "--model", "als", "--set", "factors=6", "--set", "iterations=5").code == 0
    said = command("segments", "--groups", "3", "--seeds", "1", "--named-by", "40", "--output", "groups.html")
    assert said.code == 0, said.err
    assert re.search(r"│ 3 +│ 1 +│.*not named: fewer than 10 users", said.out)
    assert said.err.splitlines()[-1] == "next: recvae evaluate runs/loner/als", "als finds no odd users"
    text = Path("groups.html").read_text(encoding="utf-8")
    assert "thing-47" not in text and "thing-40" not in text
    assert "Group 3: 1 user<" in text and "Not named: they are fewer than 10 users." in text
    assert "with 1 other seed agrees" in text
    found = json.loads(command("segments", "--groups", "3", "--named-by", "40", "--json").out)
    assert found["groups"][2]["items"] == []


def test_too_many_groups_are_told_how_many_there_can_be() -> None:
    rows = sp.csr_matrix(histories())
    model = ALS(factors=4, iterations=1).fit(rows)
    with pytest.raises(
        Exception, match="got 61 users for 7 groups, expected 70 or more users; ask for fewer groups, at"
    ):
        find_segments(model, rows, 7)


# ---------------------------------------------------------------- odd users


def test_few_users_to_compare_with_are_still_of_similar_length() -> None:
    """All of them, whatever their length, would make odd users of the long ones."""
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, 201)
    popularity /= popularity.sum()

    def users(n: int) -> sp.csr_matrix:
        dense = np.zeros((n, 200), np.float32)
        for row, length in zip(dense, np.geomspace(5, 120, n).astype(int), strict=True):
            row[rng.choice(200, length, replace=False, p=popularity)] = 1
        return sp.csr_matrix(dense)

    model = MultVAE(hidden_dims=(16,), latent_dim=4, epochs=5, batch_size=50).fit(users(300))
    reference, asked = users(90), users(90)
    lengths, ways = asked.getnnz(axis=1), {}
    for neighbours in (30, 100):
        detector = AnomalyDetector(model, neighbours=neighbours).fit(reference)
        ways[neighbours] = detector.decision_function(asked)
        assert (detector.p_values(asked) >= 1 / 31 - 1e-12).all(), "30 are compared with"
    np.testing.assert_array_equal(ways[30], ways[100])
    assert abs(spearmanr(ways[100], lengths)[0]) < 0.4
    assert AnomalyDetector(model).fit(users(600)).p_values(asked).min() >= 1 / 101


# ---------------------------------------------------------------- one test user


@pytest.fixture
def lonely(workplace: Path, command: Command) -> Path:
    """Return the folder of a run on data with one test user."""
    shape = ("--users", 80, "--items", 120, "--events", 2200)
    assert command("preprocess", "synthetic", *shape, "--heldout-users", 1, "--name", "lonely").code == 0
    assert command("train", "--model", "multvae", *SMALL).code == 0
    return Path("runs/lonely/multvae")


def test_one_test_user_has_no_interval_and_is_told_in_the_singular(lonely: Path, command: Command) -> None:
    said = command("likelihood", lonely)
    assert said.code == 0 and "nan" not in said.out and "1 user;" in said.out
    assert re.search(r"ELBO +│ [\d.,]+ +│ - +│", said.out)
    said = command("evaluate", lonely, "--baselines", "none")
    assert "lonely: 1 test user;" in said.out and "1 test users" not in said.out
    said = command("report", lonely, "--baselines", "none")
    text = Path("report.html").read_text(encoding="utf-8")
    assert not re.search(r"\b1 (test users|users for|items\)|hidden items)\b", text.replace(",", ""))
    assert "1 user for validation and as many for the test" in text
    said = command("generate", lonely, "--users", 1, "--from", "prior", "--seed", 4)
    assert said.code == 0 and "nan" not in said.out, said.err


def test_all_pictures_are_those_that_one_user_can_have(lonely: Path, command: Command) -> None:
    said = command("plot", lonely, "--picture", "all", "--output", "x.png")
    assert said.code == 0, said.err
    assert Path("x-curves.png").is_file() and Path("x-coverage.png").is_file() and not Path("x-map.png").exists()
    assert "no map: got embeddings of shape (1, 4), expected 3 rows or more to draw a map" in said.err
    assert "no picture by-k: got 1 user" in said.err.replace("1 users", "1 user")
    said = command("plot", lonely, "--picture", "map", "--output", "y.png")
    assert said.code == 1 and "expected 3 rows or more to draw a map" in said.err


# ---------------------------------------------------------------- long lists


def test_a_report_of_long_lists_looks_at_all_of_them(workplace: Path, command: Command) -> None:
    """Not at the first 100, which its other pictures need, under the name of the first 300."""
    dataset = prepare_synthetic(
        Protocol(heldout_users=40), name="toy", n_users=300, n_items=400, n_events=16000
    ).dataset
    dataset.save("data/toy")
    assert command("train", "--model", "ease").code == 0
    n_items = len(Dataset.load("data/toy").item_ids)
    assert n_items > 310
    said = command("report", "--baselines", "none", "-k", n_items)
    assert said.code == 0, said.err
    text = Path("report.html").read_text(encoding="utf-8")
    first = re.search(rf"The first {n_items} recommendations of all these users have ([\d.]+)% of the catalogue", text)
    assert first is not None and float(first[1]) == 100
    worst = re.findall(r">(\d+) of (\d+)<", text.partition("Users with the worst results")[2])
    assert worst and all(found == hidden for found, hidden in worst), "every hidden item is in a list of all items"


def test_a_page_of_more_recommendations_than_were_ranked_is_refused(blocks: Dataset, fitted: Any) -> None:
    model = fitted("ease")
    assert isinstance(model, EASE)
    measured = Measured(
        ranked={"ease": rank_users(model, blocks.test, 5)},
        held_out=blocks.test,
        train_counts=blocks.items.train_counts,
        n_train_users=blocks.train.shape[0],
    )
    found = compare({"ease": model}, blocks, metrics="ndcg@5")
    given: dict[str, Any] = {
        "comparison": found,
        "dataset": blocks,
        "runs": {"ease": None},
        "cards": {},
        "pictures": [],
        "command": "",
    }
    assert "The first 5 recommendations" in in_short(Report(**given, measured=measured, k=5))[-1]
    with pytest.raises(UsageError, match="got k=6 for lists of 5 items, expected at most as many; rank more for each"):
        Report(**given, measured=measured, k=6)
