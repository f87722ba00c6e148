"""Bad input from the command line: what is said, the exit code, and nothing left behind."""

import gzip
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recvae.datasets.dataset import Dataset
from recvae.datasets.splits.protocols import PROTOCOLS
from recvae.errors import BundleError
from recvae.recommenders.recommender import Recommender

Command = Callable[..., Any]

HEADER = "user_id,item_id,rating,timestamp"
ROWS = [
    f"u{user},i{(user * 3 + step) % 10},5,{1000 + 97 * user + 10 * step}" for user in range(12) for step in range(6)
]
SMALL = ("--set", "hidden_dims=8", "--set", "latent_dim=4", "--set", "epochs=1")


def log(*changes: tuple[int, str], header: str = HEADER) -> bytes:
    """Return a log of 12 users with 6 events each; a change replaces the row of a line (the header is line 1)."""
    lines = [header, *ROWS]
    for line, row in changes:
        lines[line - 1] = row
    return ("\n".join(lines) + "\n").encode()


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.csv", content)
    return stream.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refused(workplace: Path, command: Command) -> Callable[..., str]:
    """Return a function that types a command, and checks that it is refused with this code and changes nothing."""

    def check(code: int, *arguments: object) -> str:
        before = tree(workplace)
        said = command(*arguments)
        assert (said.code, said.out) == (code, ""), said.err
        assert said.err.count("error: ") == 1 and "Traceback" not in said.err
        assert tree(workplace) == before
        return said.err.partition("error: ")[2]

    return check


BAD_LOGS: dict[str, tuple[bytes, list[str], int, str]] = {  # content, further words, exit code, what is said
    "empty": (b"", [], 1, "is empty"),
    "blank lines": (b"\n\n \n", [], 1, "is empty"),
    "header only": (HEADER.encode() + b"\n", [], 1, "has a header but no rows"),
    "wrong separator": (log(), ["--sep", ";"], 1, "give the right one with --sep"),
    "unusable separator": (log(), ["--sep", "ab"], 2, "expected '::' or one ASCII character"),
    "column not there": (log(), ["--item-col", "movie"], 2, "has no column 'movie'; it has: user_id, item_id"),
    "column misspelt": (log(), ["--user-col", "userid"], 2, "did you mean --user-col user_id?"),
    "one column twice": (log(), ["--item-col", "user_id", "--user-col", "user_id"], 2, "for both user and item"),
    "no item column": (log(header="user_id,a,b,c"), [], 1, "could not tell which column holds the item id"),
    "too few columns": (log((9, "u1,i3,5")), [], 1, "line 9: got 3 columns, expected 4"),
    "rating is a word": (log((9, "u1,i3,good,1000")), [], 1, "line 9: column 'rating' holds 'good', expected a number"),
    "rating is NaN": (log((9, "u1,i3,nan,1000")), [], 1, "line 9: column 'rating' holds 'nan', expected a number"),
    "rating is infinite": (log((9, "u1,i3,inf,1000")), [], 1, "line 9: column 'rating' holds 'inf', expected a number"),
    "rating is missing": (
        log((9, "u1,i3,,1000"), (11, "u1,i3,,1")),
        [],
        1,
        "with --no-rating, or such rows with --on-bad-row skip (1 more such rows nearby)",
    ),
    "time is negative": (log((9, "u1,i3,5,-7")), [], 1, "line 9: column 'timestamp' holds '-7', expected a time since"),
    "time is a word": (log((9, "u1,i3,5,noon")), [], 1, "line 9: column 'timestamp' holds 'noon'"),
    "no user at all": (b"user,item\n,1\nNULL,2\n", [], 1, "no row has both a user and an item (NULL, empty)"),
    "binary": (b"user_id,item_id\n\x00\x01\x00\x00\n", [], 1, "is a binary file"),
    "zero byte": (log() + b"u1,i\x00,5,1000\n", [], 1, "holds 1 zero bytes, expected text; repair the file"),
    "not UTF-8": (log().replace(b"u1,i3", b"u1,i\xe93", 1), [], 1, "line 8: not UTF-8 text: b'u1,i\\xe93,5,1097'; say"),
    "ratings are no stars": (
        log().replace(b",5,", b",90,"),
        [],
        2,
        "; 4 is the usual threshold for stars from 1 to 5 only",
    ),
    "truncated zip": (zipped(log())[:-30], [], 1, "is truncated or damaged"),
    "truncated gzip": (gzip.compress(log())[:-20], [], 1, "is truncated or damaged"),
    "truncated Parquet": (b"PAR1" + bytes(60), [], 1, "is damaged or not a Parquet file"),
    "no rating counts": (log(), ["--min-rating", "6"], 1, "the filter 'rating >= 6' left no event of 72"),
    "no user has enough": (log(), ["--min-user-items", "7"], 1, "the filter 'users with >= 7 items' left no event"),
    "no ratings to filter": (log(header="user_id,item_id,a,b"), ["--min-rating", "4"], 2, "has no rating column"),
    "too few users": (log(), ["--heldout-users", "6"], 1, "got 12 users, expected more than 2 x 6"),
    "no users held out": (log(), ["--heldout-users", "0"], 2, "got 0 held-out users, expected 1 or more"),
    "unknown split": (log(), ["--split", "random"], 2, "expected one of: strong, holdout, leave-last-out, time"),
    "target share": (log(), ["--target-share", "1"], 2, "expected a number between 0 and 1"),
    "seed": (log(), ["--seed", "-1"], 2, "got seed -1, expected 0 to 4294967295"),
    "time split without times": (log(header="user_id,item_id,rating,b"), ["--split", "time"], 2, "--time-col"),
    "name with slashes": (log(), ["--name", "a/b"], 2, "got name 'a/b', expected letters, digits, . _ - only"),
    "titles not there": (log(), ["--titles", "none.csv"], 2, "no file at none.csv"),
}


@pytest.mark.parametrize("case", BAD_LOGS)
def test_a_bad_log_is_refused_and_leaves_nothing(case: str, refused: Callable[..., str]) -> None:
    content, words, code, said = BAD_LOGS[case]
    Path("log.csv").write_bytes(content)
    assert said in refused(code, "preprocess", "log.csv", *words)
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.csv"], "no file at none.csv"),
        (["ml-99"], "did you mean 'ml-1m'?"),
        ([], "got no log, expected NAME or PATH"),
        (["ml-1m", "--source", "none"], "no file or folder none, expected a folder or zip of ml-1m"),
        (["ml-1m", "--source", "log.csv"], "neither a folder nor a zip"),
        (["--train", "log.csv"], "got only part of a ready-made split"),
        (["log.csv", "--train", "log.csv", "--test", "log.csv"], "and no NAME"),
        (["--train", "log.csv", "--test", "log.csv", "--split", "time"], "got --split with a ready-made split"),
        (["synthetic", "--users", "0"], "got n_users 0"),
        (["synthetic", "--titles", "titles.csv"], "got --titles with the synthetic log, where it has no effect"),
        (["ml-1m", "--users", "5"], "got --users with a known data set, where it has no effect"),
        (["synthetic", "--name", "taken"], "holds files of another kind (no manifest.json), which would be lost"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_a_preprocess_that_names_the_wrong_thing_is_refused(
    words: list[str], said: str, refused: Callable[..., str]
) -> None:
    Path("folder").mkdir()
    Path("log.csv").write_bytes(log())
    Path("data/taken").mkdir(parents=True)
    Path("data/taken/thesis.tex").write_text("the only copy")
    assert said in refused(2, "preprocess", *words)


def test_a_folder_without_a_log_is_refused(refused: Callable[..., str]) -> None:
    Path("folder").mkdir()
    assert "folder holds no file, expected the files of a log" in refused(2, "preprocess", "folder/")


def test_rows_without_an_id_are_left_out_and_told(workplace: Path, command: Command) -> None:
    Path("log.csv").write_bytes(log((9, ",i3,5,1000"), (10, "NULL,i3,5,1000"), (11, "u1,,5,1000")))
    said = command("preprocess", "log.csv")
    assert said.code == 0, said.err
    assert "left out: 2 rows without a user id (empty: 1, NULL: 1)" in said.out
    assert "left out: 1 row without an item id (empty: 1)" in said.out


def test_a_data_set_is_replaced_only_where_this_is_said(workplace: Path, command: Command) -> None:
    Path("log.csv").write_bytes(log())
    assert command("preprocess", "log.csv").code == 0
    before = tree(workplace)
    said = command("preprocess", "log.csv", "--split", "time")
    assert (said.code, said.out, tree(workplace)) == (2, "", before)
    assert said.err == (
        "error: data/log is a data set already, expected a new name; give --overwrite to replace it, or --name NAME\n"
    )
    assert command("preprocess", "log.csv", "--split", "time", "--overwrite").code == 0
    assert Dataset.load("data/log").manifest["protocol"]["split"] == "time"


def test_a_threshold_of_zero_is_one(workplace: Path, command: Command) -> None:
    Path("log.csv").write_bytes(log((2, "u0,i0,1,1000"), (3, "u99,i0,5,1000")))
    filters = json.loads(command("preprocess", "log.csv", "--min-rating", "0", "--min-user-items", "0", "--json").out)[
        "filters"
    ]
    assert (filters["min_rating"], filters["min_user_items"], filters["steps"][-1]["events"]) == (0, 0, 72)


def test_duplicate_events_are_kept_once_and_counted(workplace: Path, command: Command) -> None:
    Path("log.csv").write_bytes(log() + log().partition(b"\n")[2])
    manifest = json.loads(command("preprocess", "log.csv", "--json").out)
    events = {step["name"]: step["events"] for step in manifest["filters"]["steps"]}
    assert (events["as read"], events["duplicates dropped"]) == (144, 72)
    said = command("preprocess", "log.csv", "--overwrite")
    assert "duplicates dropped" in said.out and " 144 " in said.out and " 72 " in said.out
    once = Dataset.load("data/log")
    Path("log.csv").write_bytes(log())
    command("preprocess", "log.csv", "--overwrite")
    assert Dataset.load("data/log").fingerprint == once.fingerprint


@pytest.mark.parametrize("split", PROTOCOLS)
def test_every_protocol_cuts_the_same_log(split: str, workplace: Path, command: Command) -> None:
    Path("log.csv").write_bytes(log())
    said = command("preprocess", "log.csv", "--split", split, "--json")
    assert said.code == 0, said.err
    manifest = json.loads(said.out)
    assert manifest["protocol"]["split"] == split and manifest["counts"]["test_targets"] > 0
    assert command("train", "--model", "popularity").code == 0
    report = json.loads(command("evaluate", "--baselines", "none", "--json").out)
    assert report["protocol"]["split"] == split and report["n_users"] > 0


PAIRS = {
    "lists": ("\n".join(f"{u} {u} {u + 1} {u + 2} 9" for u in range(8)), "\n".join(f"{u} {u + 3}" for u in range(6))),
    "columns": (
        "user,item\n" + "\n".join(f"{u},{i}" for u in range(8) for i in (u, u + 1, u + 2, 9)),
        "user,item\n" + "\n".join(f"{u},{u + 3}" for u in range(6)),
    ),
}


@pytest.mark.parametrize("form", PAIRS)
def test_a_ready_made_split_is_taken_as_it_is(form: str, workplace: Path, command: Command) -> None:
    Path("train.txt").write_text(PAIRS[form][0])
    Path("test.txt").write_text(PAIRS[form][1])
    said = command("preprocess", "--train", "train.txt", "--test", "test.txt", "--name", "pair", "--json")
    assert said.code == 0, said.err
    manifest = json.loads(said.out)
    assert manifest["protocol"]["split"] == "ready-made"
    assert (manifest["counts"]["test_users"], manifest["counts"]["test_targets"]) == (8, 6)
    assert manifest["counts"]["test_users_without_target"] == 2


def test_of_a_pair_test_events_already_in_training_are_dropped_and_counted(workplace: Path, command: Command) -> None:
    Path("train.txt").write_text(PAIRS["lists"][0])
    Path("test.txt").write_text(PAIRS["lists"][1] + " 3 9\n")
    said = command("preprocess", "--train", "train.txt", "--test", "test.txt", "--name", "pair")
    assert "dropped: 1 test events already in training" in said.out, said.err


@pytest.mark.parametrize(
    "words",
    [
        ["--sep", "space", "--header", "--user-col", "who", "--item-col", "what"],
        ["--user-col", "who", "--item-col", "what"],
        ["--no-header"],
        ["--sep", "space"],
    ],
    ids=" ".join,
)
def test_what_is_said_of_the_columns_of_a_pair_is_heeded(words: list[str], workplace: Path, command: Command) -> None:
    header = "who what\n" if "--user-col" in words else ""
    Path("train.txt").write_text(header + "".join(f"{u} {i}\n" for u in range(8) for i in (u, u + 1, u + 2, 9)))
    Path("test.txt").write_text(header + "".join(f"{u} {u + 3}\n" for u in range(6)))
    said = command("preprocess", "--train", "train.txt", "--test", "test.txt", "--name", "pair", "--json", *words)
    assert said.code == 0, said.err
    assert json.loads(said.out)["counts"]["test_targets"] == 6


@pytest.mark.parametrize(
    ("split", "unused"),
    [
        ("strong", []),
        ("holdout", ["--heldout-users"]),
        ("leave-last-out", ["--heldout-users", "--target-share"]),
        ("time", ["--heldout-users", "--target-share"]),
    ],
)
def test_options_that_the_split_has_no_use_for_are_told_and_not_in_the_manifest(
    split: str, unused: list[str], workplace: Path, command: Command
) -> None:
    Path("log.csv").write_bytes(log())
    words = ["--split", split, "--heldout-users", "2", "--target-share", "0.5"]
    said = command("preprocess", "log.csv", *words, "--json")
    warnings = [line for line in said.err.splitlines() if line.startswith("warning: ")]
    assert warnings == [f"warning: {key} has no effect with --split {split}" for key in unused]
    protocol = json.loads(said.out)["protocol"]
    assert ("target_share" in protocol, "heldout_users" in protocol) == (
        "--target-share" not in unused,
        "--heldout-users" not in unused,
    )
    assert ("seed" in protocol) == (split in ("strong", "holdout"))


@pytest.mark.parametrize(
    ("train", "test", "code", "said"),
    [
        ("1 2 3\n2 3 4\n", "7 2 3\n", 1, "no test event has a user and an item of the training file"),
        ("1 2 3\n2 3 4\n", "1 8 9\n", 1, "no test event has a user and an item of the training file"),
        ("1 2 3\n2 3 4\n", "1 film\n", 1, "have different types of ids"),
        ("", "1 2\n", 1, "is empty"),
        ("1 2 3\n", None, 2, "no file at test.txt"),
    ],
    ids=["no user shared", "no item shared", "numbers and words", "empty", "missing"],
)
def test_files_that_are_no_pair_are_refused(
    train: str, test: str | None, code: int, said: str, refused: Callable[..., str]
) -> None:
    Path("train.txt").write_text(train)
    if test is not None:
        Path("test.txt").write_text(test)
    assert said in refused(code, "preprocess", "--train", "train.txt", "--test", "test.txt", "--name", "pair")
    assert not Path("data").exists()


def test_without_a_network_a_known_data_set_asks_for_a_source(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    said = command("preprocess", "ml-20m")
    assert (said.code, said.out) == (1, "") and "Traceback" not in said.err
    assert "could not download ml-20m" in said.err and "no connection to the server" in said.err
    assert "recvae preprocess ml-20m --source PATH" in said.err
    assert tree(workplace) == {} and not Path("data/downloads").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "none"], "no data set 'none' in data; there are: toy"),
        (["--data-dir", "none"], "no data set in none; make one with `recvae preprocess ml-1m`"),
        (["--model", "svd"], "got model 'svd', expected one of: multvae"),
        (["--set", "latnt_dim=8"], "did you mean latent_dim?"),
        (["--set", "latent_dim"], "expected name=value"),
        (["--set", "latent_dim=0"], "got latent_dim=0, expected a whole number, 1 or more"),
        (["--set", "latent_dim=1.5"], "got latent_dim='1.5', expected a whole number"),
        (["--set", "dropout=1.5"], "got dropout=1.5, expected a number, at least 0 and below 1"),
        (["--set", "dropout=nan"], "got dropout=nan, expected a number"),
        (["--set", "epochs=abc"], "got epochs='abc', expected a whole number, 1 or more"),
        (["--set", "hidden_dims=8,0"], "expected whole numbers separated by commas, 1 or more"),
        (["--set", "anneal=sudden"], "expected one of "),
        (["--seed", "-1"], "got seed=-1"),
        (["--model", "popularity", "--seed", "1"], "has: none"),
        (["--name", "a/b"], "got name 'a/b'"),
        (["--device", "gpu"], "got device 'gpu', expected auto, cpu, cuda"),
        (
            ["--overwrite", "--name", "taken"],
            "of another kind (no recommender.json or run.json), which would",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_training_is_refused_and_leaves_no_run(
    words: list[str], said: str, toy: Path, refused: Callable[..., str]
) -> None:
    Path("runs/toy/taken").mkdir(parents=True)
    Path("runs/toy/taken/thesis.tex").write_text("the only copy")
    assert said in refused(2, "train", *words)
    assert [path.name for path in Path("runs/toy").iterdir()] == ["taken"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_cuda_is_refused_where_there_is_none(toy: Path, refused: Callable[..., str], command: Command) -> None:
    assert "got device 'cuda', but " in refused(2, "train", "--device", "cuda")
    assert command("train", *SMALL).code == 0
    assert "got device 'cuda', but " in refused(2, "evaluate", "--device", "cuda")


@pytest.fixture
def trained(toy: Path, command: Command) -> Path:
    """Return the folder of a finished run, `runs/toy/popularity` of this folder."""
    assert command("train", "--model", "popularity").code == 0
    return Path("runs/toy/popularity")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["none"], 2, "no run 'none' in runs; there are: toy/popularity"),
        (["--runs-dir", "none"], 2, "no run in none; make one with `recvae train"),
        (["elsewhere"], 2, "has no recommender.json: not a bundle"),
        (["--metrics", "recal@20"], 2, "expected NAME@K such as recall@20; did you mean recall@20?"),
        (["--metrics", "ndcg"], 2, "expected a whole number after the @"),
        (["--metrics", ""], 2, "expected NAME@K"),
        (["--split", "train"], 2, "got split 'train', expected one of: validation, test"),
        (["--baselines", "svd"], 2, "got model 'svd', expected one of: multvae"),
        (["--data-dir", "none"], 2, "no data set 'toy' in none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_evaluation_is_refused(
    words: list[str], code: int, said: str, trained: Path, refused: Callable[..., str]
) -> None:
    shutil.copytree("data", "elsewhere")
    assert said in refused(code, "evaluate", *words)


def _rewrite(card: Path, **changes: Any) -> None:
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights cut": (lambda run: (run / "weights.safetensors").write_bytes(b"12"), "should have"),
    "weights changed": (lambda run: _flip(run / "weights.safetensors"), "was changed after it was written"),
    "items gone": (lambda run: (run / "items.parquet").unlink(), "found no file"),
    "card cut": (lambda run: (run / "recommender.json").write_text('{"format": 1, '), "cannot be read"),
    "newer format": (lambda run: _rewrite(run / "recommender.json", format=99), "has bundle format 99, this version"),
    "newer model": (lambda run: _rewrite(run / "recommender.json", model="gpt"), "holds a model 'gpt'"),
    "hyperparameters": (lambda run: _rewrite(run / "recommender.json", hyperparameters={"a": 1}), "is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_newer_bundle_is_refused(damage: str, trained: Path, refused: Callable[..., str]) -> None:
    act, said = DAMAGES[damage]
    act(trained)
    message = refused(1, "evaluate")
    assert said in message and ("train again" in message or "upgrade recvae" in message)
    with pytest.raises(BundleError):
        Recommender.load(trained)


@pytest.mark.parametrize("name", ["train.npz", "test/targets.npz", "items.parquet", "manifest.json"])
def test_a_damaged_data_set_is_refused(name: str, toy: Path, refused: Callable[..., str]) -> None:
    (toy / name).write_bytes((toy / name).read_bytes()[:-40])
    message = refused(1, "train", "--model", "popularity")
    assert "is damaged" in message and "preprocess again" in message


@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
@pytest.mark.parametrize("limit", [300, 20_000])
@pytest.mark.parametrize("verb", ["preprocess", "train"])
def test_a_full_disk_is_told_and_leaves_nothing_that_looks_whole(
    verb: str, limit: int, toy: Path, warm_python: str
) -> None:
    before = tree(toy)
    words = {
        "preprocess": ["preprocess", "synthetic", "--users", "300", "--items", "200", "--events", "12000"],
        "train": ["train", *SMALL],
    }[verb]
    code = (
        f"import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        f"sys.argv = ['recvae', *{words!r}]\nfrom recvae_cli.app import main\nmain()"
    )
    done = subprocess.run([warm_python, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "error: could not write" in done.stderr and "Traceback" not in done.stderr
    assert tree(toy) == before and [path.name for path in Path("data").iterdir()] == ["toy"]
    assert not Path("runs").exists() or tree(Path("runs")) == {}
