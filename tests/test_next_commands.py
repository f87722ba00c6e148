"""The command that each verb proposes next: it works as it is printed, wherever data sets and runs are kept."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recvae.compute.ranks import Ranks, supposed
from recvae.models import ALS, IALS
from recvae_cli import console
from recvae_cli.app import app
from recvae_cli.console import resuming

Command = Callable[..., Any]
PLACES = ("--data-dir", "my data", "--runs-dir", "my runs")
DATA, RUNS = PLACES[:2], PLACES[2:]
SMALL = ("--set", "hidden_dims=16", "--set", "latent_dim=8", "--set", "epochs=2", "--set", "batch_size=50")


def proposed(said: Any) -> list[list[str]]:
    """Return the commands that are named as the next ones to type."""
    assert said.code == 0, said.err
    return [shlex.split(line, comments=True) for line in said.err.rpartition("next: ")[2].splitlines()]


def works(command: Command, words: list[str]) -> Any:
    assert words[0] == "recvae"
    said = command(*words[1:])
    assert said.code == 0, said.err
    return said


@pytest.fixture
def elsewhere(workplace: Path, command: Command) -> Any:
    """Return what `preprocess` said of a data set in a folder of another name; the usual folders stay empty."""
    return command("preprocess", "synthetic", "--users", 200, "--items", 120, "--events", 6000, "--name", "toy", *DATA)


def test_each_step_is_the_one_proposed_before(elsewhere: Any, command: Command) -> None:
    [train] = proposed(elsewhere)
    assert train == ["recvae", "train", "--model", "multvae", "--data", "toy", *DATA]
    [evaluate] = proposed(works(command, [*train, *SMALL, *RUNS]))
    assert evaluate == ["recvae", "evaluate", "my runs/toy/multvae", *PLACES]
    works(command, [*evaluate, "--baselines", "none"])
    [compare] = proposed(works(command, ["recvae", "compare", *PLACES, "--baselines", "none"]))
    assert compare[-6:] == ["--seeds", "3", *PLACES]
    [last] = proposed(works(command, compare))
    works(command, last)
    assert not Path("data").exists() and not Path("runs").exists()


def test_what_is_proposed_after_tuning_a_plan_or_an_export_works(elsewhere: Any, command: Command) -> None:
    [train] = proposed(command("plan", "als", "--seconds", 0, "--device", "cpu", *PLACES))
    assert train == ["recvae", "train", "--model", "als", "--data", "toy", "--device", "cpu", *PLACES]
    works(command, train)
    for words in (["tune", "--model", "als", "--trials", 1], ["train", "--refit", "als"]):
        [evaluate] = proposed(command(*words, *PLACES))
        works(command, [*evaluate, "--baselines", "none"])
    serve, _ = proposed(command("export", "als", "--format", "index", *PLACES))
    assert serve == ["recvae", "serve", "my runs/toy/als", "--format", "index", *RUNS]
    assert not Path("data").exists() and not Path("runs").exists()


def test_an_index_of_a_model_of_ones_own_is_loaded_with_its_class(
    elsewhere: Any, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("next_models.py").write_text(
        "from typing import ClassVar\n\nfrom recvae.models import ALS\n\n\n"
        'class Mine(ALS):\n    name: ClassVar[str] = "mine"\n',
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(Path.cwd())
    assert command("train", "--model", "next_models:Mine", *PLACES).code == 0
    words = ("--format", "index", "--model", "next_models:Mine", "--output", "ones own")
    [(program, option, code)] = proposed(command("export", "mine", *words, *PLACES))
    assert (program, option) == ("python", "-c")
    exec(code, {})
    assert len(json.loads(capsys.readouterr().out)) == 5


def test_pictures_lead_to_more_pictures_a_report_and_all_pictures(elsewhere: Any, command: Command) -> None:
    command("train", *SMALL, *PLACES)
    [more] = proposed(command("plot", *PLACES))
    assert more == ["recvae", "plot", "my runs/toy/multvae", "--picture", "by-k,by-history,bias", *PLACES]
    [report] = proposed(works(command, more))
    assert report == ["recvae", "report", "my runs/toy/multvae", "--output", "report.html", *PLACES]
    [pictures] = proposed(works(command, [*report, "--baselines", "none"]))
    works(command, pictures)
    assert Path("pictures-map.png").is_file() and not Path("data").exists() and not Path("runs").exists()


def test_folders_are_named_to_the_verbs_that_have_them(elsewhere: Any, command: Command) -> None:
    command("train", "--model", "ease", *PLACES)
    similar, serve, inspect = proposed(command("recommend", "--items", "1,2", *RUNS))
    assert serve == ["recvae", "serve", "my runs/toy/ease", *RUNS]
    [recommend] = proposed(works(command, similar))
    assert recommend == ["recvae", "recommend", "my runs/toy/ease", "--items", similar[3], "--explain", *RUNS]
    works(command, recommend)
    again, _, evaluate = proposed(works(command, inspect))
    assert again[-2:] == evaluate[-2:] == [*RUNS]
    assert all(words[-2:] == [*DATA] for words in proposed(command("datasets", *DATA)))


def test_an_interrupted_run_is_continued_where_it_is(
    elsewhere: Any, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recvae.training.trainer import Trainer

    epoch = Trainer._epoch

    def stops(self: Trainer, number: int, monitor: Any) -> Any:
        if number == 2:
            raise KeyboardInterrupt
        return epoch(self, number, monitor)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_epoch", stops)
        said = command("train", *SMALL, *PLACES)
    resume = shlex.split(said.out.split("run `")[1].split("`")[0])
    assert resume == ["recvae", "train", "--resume", *PLACES]
    works(command, resume)


def test_the_quickstart_takes_the_folders_with_it(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ALS, "grid", {"factors": (4,)})
    monkeypatch.setattr(IALS, "grid", {"factors": (4,)})
    monkeypatch.setattr("recvae_cli.quickstart._SMALL", " ".join(SMALL))
    said = command("quickstart", *PLACES)
    preprocess, train, evaluate = proposed(said)
    assert preprocess == ["recvae", "preprocess", "ml-1m", "--heldout-users", "500", *DATA]
    assert train == ["recvae", "train", "--model", "multvae", *PLACES] and evaluate == ["recvae", "evaluate", *PLACES]
    typed = [line for line in said.err.splitlines() if line.startswith("$ recvae ")]
    assert len(typed) == 3 and typed[0].endswith("--overwrite --data-dir 'my data'")
    assert Path("my runs/quickstart/multvae").is_dir() and not Path("data").exists() and not Path("runs").exists()


def test_what_was_not_typed_is_not_proposed(workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that the environment names is named by it for the next command too."""
    monkeypatch.setenv("RECVAE_DATA", "my data")
    said = command("preprocess", "synthetic", "--users", 200, "--items", 120, "--events", 6000, "--name", "toy")
    assert proposed(said) == [["recvae", "train", "--model", "multvae", "--data", "toy"]]
    assert console.command("train", "a b", "--", "-5") == "recvae train 'a b' -- -5"


def test_options_come_before_an_id_that_begins_with_a_dash(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    found: list[str] = []
    monkeypatch.setattr("recvae_cli.models.say_next", lambda *_: found.append(console.command("similar", "--", "-5")))
    monkeypatch.setattr(console, "_CARRIED", ("names",))  # the only argument of `models`; it is no option of `similar`
    assert command("models", "ease").code == 0 and found == ["recvae similar -- -5"]
    monkeypatch.undo()
    monkeypatch.setattr("recvae_cli.datasets.say_next", lambda *_: found.append(console.command("train", "--", "-5")))
    assert command("datasets", *DATA).code == 0 and found[-1] == "recvae train --data-dir 'my data' -- -5"


def test_every_verb_remembers_how_it_was_typed() -> None:
    assert all(issubclass(verb.cls or object, console.Verb) for verb in app.registered_commands)


@pytest.mark.parametrize("name", ["runs/toy", "it's", 'a "b"', "$HOME", "!x"])
def test_a_line_of_python_is_quoted_for_the_shell(name: str) -> None:
    code = f"print({name!r})"
    line = console.python(code)
    assert shlex.split(line) == ["python", "-c", code]
    assert (line == f'python -c "{code}"') == (name == "runs/toy")


def test_a_training_that_shares_items_is_continued_by_several_processes() -> None:
    assert resuming("--model", "mine.py:Mine") == "recvae train --resume --model mine.py:Mine"
    with supposed(Ranks(size=4, share="users")):
        assert resuming() == "recvae train --resume"  # one process holds the network, too
    with supposed(Ranks(size=4, share="items")):
        assert resuming() == "torchrun --nproc-per-node 4 -m recvae train --resume --share items"
