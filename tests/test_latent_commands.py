"""`recvae likelihood`, `anomalies`, `generate` and `segments`, as users type them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recvae.bundles.bundle import read_bundle
from recvae.datasets.dataset import Dataset
from recvae.datasets.preparation import Protocol, prepare_synthetic
from recvae.latent import generation
from recvae.latent.anomalies import AnomalyDetector
from recvae.latent.likelihood import likelihood

Command = Callable[..., Any]
VERBS = ("likelihood", "anomalies", "generate", "segments")


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a data set with 40 + 40 held-out users; do not change it."""
    folder = tmp_path_factory.mktemp("films") / "toy"
    protocol = Protocol(heldout_users=40)
    prepare_synthetic(protocol, name="toy", n_users=400, n_items=120, n_events=12000).dataset.save(folder)
    return folder


@pytest.fixture
def toy(workplace: Path, films: Path) -> Path:
    """Return a copy of that data set, `data/toy` of this folder."""
    return shutil.copytree(films, workplace / "data" / "toy")


@pytest.fixture
def run(toy: Path, command: Command) -> Path:
    """Return the folder of a small multvae run."""
    words = ("--set", "epochs=4", "--set", "hidden_dims=16", "--set", "latent_dim=6")
    assert command("train", "--model", "multvae", *words).code == 0
    return Path("runs/toy/multvae")


def test_likelihood_prints_what_the_library_measures(run: Path, command: Command) -> None:
    said = command("likelihood", "--samples", "7", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    expected = likelihood(read_bundle(run, "cpu").model, Dataset.load("data/toy"), n_samples=7)
    assert found["targets"]["model"] == pytest.approx(expected.targets["model"].to_json())
    assert found["rows"]["bound of 7 draws"]["value"] == pytest.approx(expected.rows["bound of 7 draws"].value)
    table = command("likelihood", "toy/multvae", "--samples", "7")
    assert f"{expected.targets['model'].value:,.1f}" in table.out
    assert f"active units: {expected.active_units} of 6" in table.out
    assert "next: recvae evaluate" in table.err


def test_anomalies_are_those_of_the_detector_and_all_users_are_written(run: Path, command: Command) -> None:
    said = command("anomalies", "--contamination", "0.2", "-k", "3", "--output", "odd.csv")
    assert said.code == 0, said.err
    table, dataset = pd.read_csv("odd.csv"), Dataset.load("data/toy")
    held_out = dataset.validation
    detector = AnomalyDetector(read_bundle(run, "cpu").model, contamination=0.2)
    detector.fit(held_out.fold_in + held_out.targets)
    rows = dataset.test.fold_in + dataset.test.targets
    np.testing.assert_allclose(table["score"], detector.decision_function(rows), atol=1e-6)
    assert table["user"].tolist() == dataset.test.user_ids.tolist()
    assert table["items"].tolist() == rows.getnnz(axis=1).tolist()
    assert table["is_odd"].tolist() == (detector.predict(rows) == 1).tolist()
    oddest = str(table.loc[table["score"].idxmax(), "user"])
    assert oddest in said.out
    assert f"{table['is_odd'].tolist().count(True)} of {len(table)} users" in said.err
    found = json.loads(command("anomalies", "--split", "train", "--json").out)
    assert len(found["users"]) == dataset.train.shape[0]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_made_up_users_can_be_preprocessed_like_any_log(run: Path, command: Command, ending: str) -> None:
    output = Path(f"made.{ending}")
    said = command("generate", "--users", "60", "--output", output, "--seed", "3")
    assert said.code == 0, said.err
    table = pd.read_csv(output) if ending == "csv" else pd.read_parquet(output)
    assert len(set(table["user"].tolist())) == 60
    assert set(table["item"].tolist()) <= set(Dataset.load("data/toy").item_ids.tolist())
    assert len(table.drop_duplicates()) == len(table)
    assert said.err.splitlines()[-1].startswith(f"next: recvae preprocess {output}")
    prepared = command("preprocess", output, "--name", "again", "--no-rating", "--heldout-users", "10")
    assert prepared.code == 0, prepared.err


def test_every_way_is_measured_beside_real_users(run: Path, command: Command) -> None:
    found = json.loads(command("generate", "--users", "80", "--compare", "--json").out)["figures"]
    assert list(found) == ["real users", "mixture", "prior", "interpolation"]
    assert all(0 <= figure["popularity"] <= 1 and figure["ndcg"] > 0 for figure in found.values())
    shown = command("generate", "--users", "80", "--compare").out.replace("\n", " ")
    assert "EASE trained on them" in shown
    for column in ("popularity off by", "lengths off by", "co-occurrence", "copies"):
        assert f"{column}: " in shown


def test_segments_are_shown_and_written(run: Path, command: Command) -> None:
    said = command("segments", "--groups", "3", "--output", "groups.parquet")
    assert said.code == 0, said.err
    table, dataset = pd.read_parquet("groups.parquet"), Dataset.load("data/toy")
    assert len(table) == dataset.train.shape[0]
    assert set(table["group"]) == {1, 2, 3}
    found = json.loads(command("segments", "--groups", "3", "--json").out)
    assert [one["users"] for one in found["groups"]] == table["group"].value_counts().tolist()
    assert "agreement with 5 other seeds" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("likelihood", "--split", "holdout"), "holdout"),
        (("likelihood", "--samples", "0"), "got n_samples=0, expected a whole number >= 1"),
        (("anomalies", "--contamination", "0.9"), "got contamination=0.9, expected a share above 0"),
        (("anomalies", "--output", "odd.txt"), "got --output odd.txt, expected a name that ends in .csv or .parquet"),
        (("anomalies", "--output", "."), "expected a name that ends in .csv"),
        (("anomalies", "-k", "-1"), "got k=-1"),
        (("anomalies", "--split", "typo"), "got --split typo, expected one of test, validation, train"),
        (("anomalies", "--user-col", "u"), "got --user-col without --input, expected it with a file; add --input"),
        (("anomalies", "--split", "test", "--input", "x.csv"), "got --split test with --input x.csv, expected one"),
        (("anomalies", "--input", "nothing.csv"), "nothing.csv"),
        (("generate", "--from", "prior", "--components", "3"), "got --components 3 with --from prior, expected them"),
        (("generate", "--from", "nothing"), "got --from nothing, expected one of mixture, prior, interpolation"),
        (("generate", "--users", "0"), "got 0 histories to make"),
        (("segments", "--groups", "1"), "got groups=1, expected a whole number >= 2"),
        (("segments", "--groups", "5000"), "ask for fewer groups"),
    ],
)
def test_what_is_wrong_is_one_line(run: Path, command: Command, words: tuple[str, ...], message: str) -> None:
    said = command(*words)
    assert said.code in (1, 2), said
    assert message in said.err
    assert said.err.strip().splitlines()[-1].startswith("error: ")
    assert not Path("odd.txt").exists()


def test_a_file_that_is_there_is_kept_unless_told(run: Path, command: Command) -> None:
    Path("odd.csv").write_text("mine")
    said = command("anomalies", "--output", "odd.csv")
    assert (said.code, Path("odd.csv").read_text()) == (2, "mine")
    assert "odd.csv exists already; give --overwrite to replace it" in said.err
    assert command("anomalies", "--output", "odd.csv", "--overwrite").code == 0


@pytest.mark.parametrize("verb", ["likelihood", "anomalies", "generate"])
def test_models_without_codes_say_which_have_them(toy: Path, command: Command, verb: str) -> None:
    assert command("train", "--model", "ease").code == 0
    said = command(verb)
    assert said.code == 2
    assert "got ease, which has no" in said.err
    assert "use multvae" in said.err


def test_a_file_of_histories_is_scored_in_its_order(run: Path, command: Command) -> None:
    dataset = Dataset.load("data/toy")
    rows, ids = dataset.test.fold_in[:3], dataset.item_ids
    lines = [f"user{number},{ids[item]}" for number in (2, 0, 1) for item in rows[number].indices]
    lines += ["stranger,no-such-item", "user1,other-item"]
    Path("histories.csv").write_text("\n".join(["user,item", *lines]) + "\n")
    said = command("anomalies", "--input", "histories.csv", "--output", "odd.csv")
    assert said.code == 0, said.err
    assert "2 unknown items do not count: other-item, no-such-item; the model's ids look like" in said.err
    assert "1 user has no item that the model knows, and so no score: stranger" in said.err
    table = pd.read_csv("odd.csv")
    assert table["user"].tolist() == ["user2", "user0", "user1", "stranger"]
    assert table["unknown"].tolist() == [0, 0, 1, 1]
    held_out = dataset.validation
    detector = AnomalyDetector(read_bundle(run, "cpu").model).fit(held_out.fold_in + held_out.targets)
    ordered = rows[[2, 0, 1]]
    ordered.data[:] = 1
    np.testing.assert_allclose(table["score"][:3], detector.decision_function(ordered), atol=1e-5)
    assert table.loc[3, ["score", "share_as_odd", "is_odd"]].isna().all()
    last = json.loads(command("anomalies", "--input", "histories.csv", "--json").out)["users"][-1]
    nothing = dict.fromkeys(("score", "share_as_odd", "is_odd"))
    assert last == {"user": "stranger", "items": 0, "unknown": 1, **nothing, "in_training": False}
    Path("others.csv").write_text("user,item\na,zzz\nb,yyy\n")
    refused = command("anomalies", "--input", "others.csv", "--output", "none.csv")
    assert refused.code != 0 and "none of its items is in the model" in refused.err and not Path("none.csv").exists()


@pytest.mark.parametrize("on", ["train", "train+validation", "all"])
def test_copies_of_all_users_that_a_run_was_trained_on_are_counted(
    on: str, run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "multvae" if on == "train" else "again"
    assert on == "train" or command("train", "--refit", "toy/multvae", "--on", on, "--name", name).code == 0
    dataset = Dataset.load("data/toy")
    parts = {"train": dataset.train, "train+validation": dataset.validation, "all": dataset.test}
    whole = parts[on] if on == "train" else parts[on].fold_in + parts[on].targets
    monkeypatch.setattr(generation, "generate", lambda *_, **__: whole)  # as a model that has learned them by heart
    said = command("generate", f"toy/{name}", "--json")
    assert said.code == 0 and json.loads(said.out)["figures"]["mixture"]["copies"] == 1, said.err


def test_a_refit_that_has_seen_whom_others_are_compared_with_is_told_what_to_name(run: Path, command: Command) -> None:
    assert command("train", "--refit", "toy/multvae", "--name", "again").code == 0
    for words in (("anomalies",), ("generate", "--compare")):
        said = command(words[0], "toy/again", *words[1:])
        assert said.code == 2 and "--split test" not in said.err
        assert "validation users, whom others are compared with; name multvae, which" in said.err.replace("\n", " ")
    assert command("segments", "toy/again", "--groups", "3").code == 0


def test_training_warns_of_a_collapsed_space_and_only_then(toy: Path, command: Command) -> None:
    words = ("--model", "multvae", "--set", "hidden_dims=16", "--set", "latent_dim=6", "--set", "epochs=15")
    heavy = command("train", *words, "--set", "beta=50", "--set", "anneal=constant")
    assert "nats in all: the latent space has collapsed" in heavy.err
    usual = command("train", *words, "--set", "learning_rate=0.01", "--set", "beta=0.1", "--overwrite")
    assert "collapsed" not in usual.err


def test_one_user_is_told_in_the_singular_and_strange_ids_command_no_terminal(run: Path, command: Command) -> None:
    dataset = Dataset.load("data/toy")
    users = ["a\x1b[31mred", " wide  open ", "[red]x[/red]", "plain"]
    ids = dataset.item_ids[dataset.test.fold_in[0].indices]
    rows = [{"user": user, "items": [str(one) for one in ids]} for user in users] + [
        {"user": "b\x07", "items": ["x\ty"]}
    ]
    Path("odd.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = command("anomalies", "--input", "odd.jsonl")
    assert said.code == 0, said.err
    for shown in ("'a\\x1b[31mred'", "[red]x[/red]", "plain"):
        assert f" {shown} " in said.out
    assert "1 unknown item does not count: 'x\\ty'" in said.err
    assert "1 user has no item that the model knows, and so no score: 'b\\x07'" in said.err
    assert all(sign.isprintable() or sign in "\n\r" for sign in said.out + said.err)
    Path("one.jsonl").write_text(json.dumps(rows[0]))
    said = command("anomalies", "--input", "one.jsonl", "--output", "one.csv")
    assert "looking for odd ones among 1 user of one.jsonl" in said.err and "one.csv: 1 user\n" in said.err
    assert any(f" of 1 user {verb} a score above" in said.err for verb in ("has", "have"))


def test_users_of_training_are_said_to_be_known_to_the_model(run: Path, command: Command) -> None:
    dataset = Dataset.load("data/toy")
    assert dataset.train_user_ids is not None
    ids, train, other = dataset.item_ids, dataset.train_user_ids.tolist(), dataset.test.fold_in
    histories = [(train[0], other[0]), ("new", dataset.train[1]), ("newer", other[1])]
    lines = [f"{user},{ids[item]}" for user, row in histories for item in row.indices]
    Path("a.csv").write_text("\n".join(["user,item", *lines]) + "\n")
    said = command("anomalies", "--input", "a.csv", "--json", "--output", "odd.csv")
    assert "the model knows 2 of 3 users from training (1 by their id, 1 by the very same items): they look" in said.err
    found = json.loads(said.out)
    assert found["known_from_training"] == {"by_id": 1, "by_items": 1, "any": 2}
    assert [one["in_training"] for one in found["users"]] == [True, True, False]
    assert pd.read_csv("odd.csv")["in_training"].tolist() == [True, True, False]
    said, n = command("anomalies", "--split", "train", "--json"), dataset.train.shape[0]
    assert f"the model knows {n} of {n} users from training ({n} by their id): they look more usual" in said.err
    assert json.loads(said.out)["known_from_training"]["any"] == n
    said = command("anomalies", "--json")
    assert "from training" not in said.err and json.loads(said.out)["known_from_training"]["any"] == 0


def test_users_to_compare_with_who_are_in_training_are_told(toy: Path, command: Command) -> None:
    dataset = Dataset.load(toy)
    lines = [f"{user},{dataset.item_ids[item]}" for user, row in enumerate(dataset.train) for item in row.indices]
    Path("log.csv").write_text("\n".join(["user,item", *lines]) + "\n")
    assert command("preprocess", "log.csv", "--split", "holdout", "--name", "parts", "--no-rating").code == 0
    words = ("--set", "epochs=1", "--set", "hidden_dims=4", "--set", "latent_dim=2")
    assert command("train", "--data", "parts", "--model", "multvae", *words).code == 0
    said = command("anomalies", "parts/multvae")
    assert "validation users, whom others are compared with, are training users too: users whom the" in said.err


@pytest.mark.parametrize("typed", ["likelihood", "anomalies --score likelihood", "generate --from prior"])
def test_nothing_is_announced_that_is_refused(toy: Path, command: Command, typed: str) -> None:
    words, small = typed.split(), ("--set", "epochs=1", "--set", "hidden_dims=4", "--set", "latent_dim=2")
    for model, settings in (("ae", small), ("ease", ())):
        assert command("train", "--model", model, *settings).code == 0
        said = command(*words, f"toy/{model}", *(["--samples", "0"] if typed == "likelihood" else []))
        assert said.code == 2 and said.err.startswith("error: got ") and len(said.err.splitlines()) == 1, said.err


def test_odd_users_of_another_likelihood_are_shown_without_what_stands_out(toy: Path, command: Command) -> None:
    words = ("--set", "epochs=1", "--set", "hidden_dims=4", "--set", "latent_dim=2", "--set", "likelihood=bernoulli")
    assert command("train", "--model", "multvae", *words).code == 0
    said = command("anomalies")
    assert said.code == 0 and "share as odd" in said.out and "stands out" not in said.out


def test_all_unknown_items_are_told_with_ids_and_ways_out(run: Path, command: Command) -> None:
    Path("others.csv").write_text("user,item\na,zz z\n")
    said, first = command("anomalies", "--input", "others.csv"), Dataset.load("data/toy").item_ids[0]
    assert said.code == 1
    assert (
        f"nothing can be said of its 1 user; one of its items is zz z, while the model's ids look like {first}; name "
        "the column of items with --item-col, write ids as in the training data, or choose a run of this file's data "
        "set"
    ) in said.err
