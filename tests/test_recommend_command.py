"""`recvae recommend`, `similar` and `inspect`, as a user types them."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from recvae.datasets.dataset import Dataset
from recvae.models import Model
from recvae.recommenders import answer_files
from recvae.recommenders.recommender import Recommender
from recvae_cli.ids import ids_of, typed_id, typed_ids

Command = Callable[..., Any]
RUN = Path("runs/toy/ease")


@pytest.fixture
def run(toy: Path, command: Command) -> Recommender:
    """Return the recommender of a run of EASE in this folder."""
    said = command("train", "--model", "ease")
    assert said.code == 0, said.err
    return Recommender.load(RUN)


def histories(recommender: Recommender, n_users: int = 25) -> pd.DataFrame:
    """Return rows of users, each with two items and one that nobody knows."""
    ids = recommender.item_ids.tolist()
    rows = [(100 + user, item) for user in range(n_users) for item in (ids[user], ids[(3 * user + 7) % 100], -1)]
    return pd.DataFrame(rows, columns=["user", "item"])


def test_a_history_is_answered_with_a_table_and_reasons(run: Recommender, command: Command) -> None:
    first, second = run.item_ids[:2].tolist()
    said = command("recommend", "--items", f"{first},{second},-5", "-k", 4, "--explain")
    assert said.code == 0
    found = run.recommend([first, second], 4)
    for title in found.titles:
        assert str(title)[:12] in said.out
    assert "because of" in said.out and "unknown items: -5" in said.out
    assert f"recvae similar {RUN} {found.ids[0]}" in said.err


def test_json_has_items_reasons_and_what_was_not_known(run: Recommender, command: Command) -> None:
    first = run.item_ids[0].item()
    words = ("recommend", RUN, "--items", f"{first},zzz", "-k", 3, "--explain", "--json")
    content = json.loads(command(*words).out)
    found = run.recommend([first], 3)
    assert [item["id"] for item in content["items"]] == found.ids
    assert content["items"][0]["reasons"][0]["id"] == first
    assert (content["unknown"], content["fallback"]) == (["zzz"], False)
    excluded = json.loads(command(*words, "--exclude", found.ids[0]).out)
    assert found.ids[0] not in [item["id"] for item in excluded["items"]]
    allowed = json.loads(command(*words, "--allow", f"{found.ids[1]},{first}").out)
    assert [item["id"] for item in allowed["items"]] == [found.ids[1]]
    seen = json.loads(command(*words, "--allow", f"{found.ids[1]},{first}", "--seen").out)
    assert {item["id"] for item in seen["items"]} == {found.ids[1], first}
    cold = command("recommend", RUN, "--items", "zzz")
    assert "none of these items is in the model; showing the most popular instead" in cold.out
    assert "training users" in cold.out


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("to", answer_files.OUTPUTS)
def test_a_file_of_histories_is_answered_into_a_file(ending: str, to: str, run: Recommender, command: Command) -> None:
    frame = histories(run)
    path, output = Path(f"histories{ending}"), Path(f"recs{to}")
    if ending == ".parquet":
        frame.to_parquet(path)
    elif ending == ".jsonl":
        lists = frame.groupby("user")["item"].apply(list)
        path.write_text("".join(json.dumps({"user": u, "items": i}) + "\n" for u, i in lists.items()))
    else:
        frame.to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
    said = command("recommend", RUN, "--input", path, "--output", output, "-k", 5)
    assert said.code == 0 and "25 users" in said.err, said.err
    expected = run.recommend_batch(frame, 5).to_pandas()
    if to == ".jsonl":
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        assert [line["user"] for line in lines] == expected["user"].unique().tolist()
        assert [item["id"] for line in lines for item in line["items"]] == expected["id"].tolist()
        assert [line["unknown"] for line in lines] == [[-1 if ending == ".parquet" else "-1"]] * 25
        assert lines[0].keys() == {"user", "items", "fallback", "unknown"}
        return
    found = pd.read_parquet(output) if to == ".parquet" else pd.read_csv(output, dtype={"user": expected["user"].dtype})
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-5)
    assert not list(Path().glob(".recs*"))


def test_an_interrupted_job_goes_on_where_it_stopped_and_another_begins_anew(run: Recommender, workplace: Path) -> None:
    frame = histories(run)
    frame.to_parquet("histories.parquet")
    source, output = Path("histories.parquet"), Path("recs.parquet")
    asked: list[int] = []

    def answer(block: Any) -> Any:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(set(block.table["user"].to_pylist())))
        return run.recommend_batch(block, 5)

    with pytest.raises(KeyboardInterrupt):
        answer_files.recommend_file(source, output, answer, {"k": 5}, users=10)
    assert not output.exists() and asked == [10, 10]
    again: list[Any] = []
    done = answer_files.recommend_file(
        source, output, lambda block: again.append(block) or run.recommend_batch(block, 5), {"k": 5}, users=10
    )
    assert (done.users, done.before, done.unknown, len(again)) == (25, 20, 25, 1)
    pd.testing.assert_frame_equal(pq.read_table(output).to_pandas(), run.recommend_batch(frame, 5).to_pandas())
    with pytest.raises(KeyboardInterrupt):
        answer_files.recommend_file(source, output, answer, {"k": 6}, users=10)  # neither of the two is left
    done = answer_files.recommend_file(source, output, lambda block: run.recommend_batch(block, 7), {"k": 7}, users=10)
    assert (done.users, done.before) == (25, 0)


@pytest.mark.parametrize("option", ["--exclude", "--allow"])
@pytest.mark.parametrize("way", ["one history", "JSON", "a file"])
def test_ids_of_a_filter_that_the_model_does_not_know_are_named(
    option: str, way: str, run: Recommender, command: Command
) -> None:
    first, second = run.item_ids[:2].tolist()
    histories(run, 3).to_csv("histories.csv", index=False)
    how = {"one history": [], "JSON": ["--json"]}.get(way, ["--output", "recs.jsonl"])
    asked = ["recommend", *(["--input", "histories.csv"] if way == "a file" else ["--items", first]), *how]
    said = command(*asked, option, f"{second},zzz,-7")
    assert said.code == 0
    assert f"{option}: 2 ids are not in the model and without effect: zzz, -7; its ids look like {first}" in said.err
    assert f"{option}: 1 id is not in the model" in command(*asked, option, "zzz").err
    assert "without effect" not in command(*asked, option, second).err


def test_an_empty_file_is_refused(run: Recommender, command: Command) -> None:
    Path("none.jsonl").write_text("\n")
    said = command("recommend", RUN, "--input", "none.jsonl", "--output", "recs.parquet")
    assert said.code == 1 and "none.jsonl is empty; expected" in said.err
    assert not Path("recs.parquet").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "expected --items 318,296, or --input"),
        (("--items", "1", "--input", "a.csv", "--output", "b.csv"), "give one of the two"),
        (("--input", "a.csv"), "give one of the two"),
        (("--input", "a.csv", "--output", "b.xlsx"), "got b.xlsx, expected a name ending in .parquet, .csv, .jsonl"),
        (("--input", "a.csv", "--output", "a.csv"), "expected two files"),
        (("--items", "1", "-k", "0"), "expected a whole number of items, 1 or more"),
        (("--items", "1", "--diversify", "3"), r"expected a number in [0, 1]"),
        (("--items", "1", "--user-col", "who"), "got --user-col without --input"),
    ],
)
def test_wrong_use_is_named_in_one_line(words: tuple[str, ...], said: str, run: Recommender, command: Command) -> None:
    Path("a.csv").write_text("user,item\n1,2\n")
    answer = command("recommend", RUN, *words)
    assert answer.code == 2 and said in answer.err and "Traceback" not in answer.err
    assert not Path("b.csv").exists()


def test_similar_items_are_listed(run: Recommender, command: Command) -> None:
    item = run.item_ids[3].item()
    said = command("similar", RUN, item, "-k", 3)
    assert said.code == 0 and "similarity" in said.out and f"--items {item} --explain" in said.err
    content = json.loads(command("similar", RUN, item, "-k", 3, "--json").out)
    assert [entry["id"] for entry in content] == run.similar_items(item, 3).ids
    newest = command("similar", item, "-k", 3, "--device", "cpu")
    assert (newest.code, newest.out) == (0, said.out) and f"from {RUN}" in newest.err
    wrong = command("similar", RUN, "nobody")
    assert wrong.code == 2 and "unknown item 'nobody'; ids look like " in wrong.err


def test_large_ids_are_texts_in_json_as_in_recommendations(
    fitted: Callable[[str], Model], blocks: Dataset, workplace: Path, command: Command
) -> None:
    large = replace(blocks, item_ids=blocks.item_ids + 2**60)
    Recommender(fitted("ease"), large).save("large")
    item = str(large.item_ids[0])
    similar = json.loads(command("similar", "large", item, "--json").out)
    recommended = json.loads(command("recommend", "large", "--items", item, "--json").out)["items"]
    assert {type(entry["id"]) for entry in [*similar, *recommended]} == {str}
    assert {entry["id"] for entry in similar} <= set(map(str, large.item_ids.tolist()))


def test_similar_takes_one_item(run: Recommender, command: Command) -> None:
    said = command("similar", RUN, "1", "2")
    assert said.code == 2 and "got 3 arguments, expected ITEM, or RUN and ITEM" in said.err


def test_a_run_is_described_and_its_files_are_checked(run: Recommender, command: Command) -> None:
    said = command("inspect", RUN)
    assert said.code == 0
    for word in ("ease on toy", "l2", "validation", "ndcg@100", "weights.safetensors", " ok ", "fingerprint"):
        assert word in said.out, word
    content = json.loads(command("inspect", RUN, "--json").out)
    assert content["model"] == "ease" and content["files"]["items.parquet"]["problem"] is None
    weights = bytearray((RUN / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (RUN / "weights.safetensors").write_bytes(weights)
    (RUN / "items.parquet").unlink()
    damaged = command("inspect", RUN)
    assert damaged.code == 1
    assert "was changed after it was written" in damaged.out and "found no file" in damaged.out


ODD_IDS = ["Toy Story, The", '"quoted"', "-5", "#hash", 'say "yes", twice', "100%", "a b", "https://x.org/i?id=1&k=2"]


@pytest.fixture
def odd(fitted: Callable[[str], Model], blocks: Dataset, workplace: Path) -> Recommender:
    """Return the recommender of runs/toy/odd, some of whose ids are hard to type."""
    ids = np.array([*ODD_IDS, *map(str, range(len(blocks.item_ids) - len(ODD_IDS)))], dtype=object)
    Recommender(fitted("ease"), replace(blocks, item_ids=ids)).save("runs/toy/odd")
    return Recommender.load("runs/toy/odd")


@pytest.mark.parametrize("item", ODD_IDS)
def test_any_id_can_be_typed(odd: Recommender, item: str, command: Command) -> None:
    listed = typed_ids([item, "3"])
    assert ids_of(listed, "--items") == [item, "3"]
    found = json.loads(command("recommend", "toy/odd", "--items", listed, "-k", 4, "--json").out)
    expected = odd.recommend([item, "3"], 4)
    assert ([one["id"] for one in found["items"]], found["unknown"]) == (expected.ids, [])
    for option in ("--exclude", "--allow"):
        words = ["recommend", "toy/odd", "--items", "3", option, typed_ids([item]), "-k", "40", "--json"]
        ids = [one["id"] for one in json.loads(command(*words).out)["items"]]
        assert ids == [item] if option == "--allow" else item not in ids and len(ids) == 30
    said = command("similar", "toy/odd", *typed_id(item))
    assert said.code == 0 and f"similar to {odd.items.title_of(ODD_IDS.index(item)) or item}" in said.err
    follow = said.err.split("next: recvae ")[1].strip()  # can be run as it is printed
    assert command(*shlex.split(follow)).code == 0


def test_the_similar_items_that_are_proposed_can_be_asked_for(odd: Recommender, command: Command) -> None:
    said = command("recommend", "toy/odd", "--items", "3", "--allow", "-5")
    assert said.code == 0 and "recvae similar runs/toy/odd -- -5\n" in said.err
    assert command("similar", "runs/toy/odd", "--", "-5").code == 0


def test_an_id_that_begins_with_a_dash_is_explained(odd: Recommender, command: Command) -> None:
    said = command("similar", "toy/odd", "-5")
    words = " ".join(said.err.replace("\u2502", " ").split())
    assert said.code == 2
    assert "No such option: -5 (put -- before an id that begins with a dash: recvae similar -- -5)" in words
    said = command("similar", "toy/odd", "--devise", "cpu", "3")
    assert said.code == 2 and "No such option: --devise" in said.err and "begins with a dash" not in said.err


@pytest.mark.parametrize("text", ['"Toy Story, The', '318,"Toy" Story'])
@pytest.mark.parametrize("option", ["--items", "--exclude", "--allow"])
def test_quotes_that_cannot_be_read_are_refused(odd: Recommender, option: str, text: str, command: Command) -> None:
    said = command("recommend", *(() if option == "--items" else ("--items", "3")), option, text)
    assert said.code == 2
    assert f"error: got {option} {text}, whose quotes cannot be read (" in said.err
    assert """put an id that has a comma in double quotes: --items '"Toy Story, The",318', and write a d""" in said.err


def test_an_id_with_a_comma_without_quotes_is_explained(odd: Recommender, command: Command) -> None:
    said = command("recommend", "--items", "Toy Story, The")
    assert said.code == 0 and "unknown items: Toy Story, The" in said.out
    assert """and put an id that has a comma in double quotes: --items '"Toy Story, The",318'""" in said.err
