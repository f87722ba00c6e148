"""No list is cut: in a narrow terminal texts are wrapped, or below one another; in a pipe a line has what it needs."""

import io
import itertools
import json
import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recvae.datasets.catalog.known import CATALOG
from recvae.models import MODELS
from recvae.models.common.hyperparameters import hyperparameters_of
from recvae_cli.app import app
from recvae_cli.tables import print_whole

Command = Callable[..., Any]
VERBS = sorted(command.name for command in app.registered_commands if command.name)
CUT = ("…", "...")


def printed(table: Table, width: int, *, is_terminal: bool = True) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=is_terminal, color_system=None, highlight=False)
    print_whole(table, console)
    return stream.getvalue()


@pytest.fixture(scope="session")
def terminal(warm_program: list[str]) -> Callable[..., str]:
    """Return a function that runs `recvae` in a terminal of some columns, and returns what it shows without colours."""

    def run(columns: int, *words: str) -> str:
        ours, theirs = pty.openpty()
        environment = os.environ | {"COLUMNS": str(columns), "OMP_NUM_THREADS": "1", "TERM": "xterm"}
        with subprocess.Popen([*warm_program, *words], stdout=theirs, stderr=theirs, env=environment) as process:
            os.close(theirs)
            shown = b""
            try:
                while part := os.read(ours, 1 << 16):
                    shown += part
            except OSError:  # the other end is closed
                pass
            os.close(ours)
        assert process.returncode == 0, shown.decode()
        return re.sub(r"\x1b\[[\d;]*m", "", shown.decode()).replace("\r", "")

    return run


def words_of(text: str) -> set[str]:
    return set(re.sub(r"[│┃┏┓┗┛━┳┡╇┩└┘─┴┌┐┬├┤┼╭╮╰╯]", " ", text).replace(";", " ").replace(":", " ").split())


@given(
    cells=st.lists(st.lists(st.text("ab -_.9日", max_size=30), min_size=3, max_size=3), min_size=1, max_size=4),
    width=st.integers(10, 120),
    boxed=st.booleans(),
    no_wrap=st.booleans(),
)
def test_no_word_of_any_table_is_lost_at_any_width(
    cells: list[list[str]], width: int, boxed: bool, no_wrap: bool
) -> None:
    table = Table() if boxed else Table(box=None, padding=(0, 2, 0, 0))
    for header in ("name", "a header of words", ""):
        table.add_column(header, no_wrap=no_wrap)
    for row in cells:
        table.add_row(*row)
    shown = printed(table, width)
    assert words_of(shown) >= {word for row in cells for cell in row for word in cell.split()}
    assert "…" not in shown


def test_a_table_that_fits_is_a_table_and_one_that_does_not_is_a_list() -> None:
    def table() -> Table:
        made = Table()
        for header in ("run", "state", "note"):
            made.add_column(header)
        made.add_row(Text("synthetic/a_long_name"), "finished", "some words to be wrapped")
        made.add_row("b", "", "x")
        return made

    assert "some words to be wrapped │" in printed(table(), 80)
    assert all(len(line) <= 60 for line in printed(table(), 60).splitlines()) and "┏" in printed(table(), 60)
    assert printed(table(), 40) == (
        "synthetic/a_long_name\n  state: finished\n  note: some words to be wrapped\nb\n  note: x\n"
    )
    assert "some words to be wrapped │" in printed(table(), 40, is_terminal=False)  # a pipe has room for all


def test_rows_of_groups_keep_their_indentation_in_a_list() -> None:
    table = Table("name", "events", "users", box=None)
    table.add_row("films")
    table.add_row("  ml-1m", "1,000,209", "6,040")
    assert printed(table, 12) == "films\n  ml-1m\n    events: 1,000,209\n    users: 6,040\n"
    assert printed(table, 16).splitlines()[0] != "films" or "…" not in printed(table, 16)


@pytest.mark.parametrize("columns", [40, 60])
def test_lists_in_a_narrow_terminal_are_whole(columns: int, terminal: Callable[..., str], workplace: Path) -> None:
    (Path("runs") / "a-data-set-of-a-long-name" / "a-run-with-a-name-that-is-longer").mkdir(parents=True)
    (Path("runs") / "a-data-set-of-a-long-name" / "a-run-with-a-name-that-is-longer" / "run.json").write_text(
        json.dumps({"model": "multvae"})
    )
    shown = {name: terminal(columns, name) for name in ("models", "datasets", "runs")}
    assert not any(mark in text for text in shown.values() for mark in CUT)
    assert words_of(shown["models"]) >= set(MODELS)
    assert words_of(shown["datasets"]) >= {*(name for name, one in CATALOG.items() if not one.parts), "synthetic"}
    assert "a-data-set-of-a-long-name/a-run-with-a-name-that-is-longer" in shown["runs"]
    details = terminal(columns, "models", "multvae", "als")
    assert not any(mark in details for mark in CUT[:1])
    assert words_of(details) >= {*hyperparameters_of(MODELS["multvae"]), *hyperparameters_of(MODELS["als"])}


def test_lists_in_a_pipe_have_a_line_for_each_item_in_full(
    command: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    models = command("models").out
    assert [line.split()[0] for line in models.splitlines()[1:]] == list(MODELS) and "…" not in models
    for name, model in MODELS.items():
        line = next(line for line in models.splitlines() if line.startswith(f"{name} "))
        assert (model.__doc__ or "").splitlines()[0].partition("; ")[0].rstrip(".") in line
    datasets = command("datasets").out
    for name, entry in CATALOG.items():
        line = next(line for line in datasets.splitlines() if line.strip().split("  ")[0].split(":")[0] == name)
        assert entry.description in line
    details = command("models", "multvae").out
    for known in hyperparameters_of(MODELS["multvae"]).values():
        line = next(line for line in details.splitlines() if line.startswith(f"  {known.name} "))
        assert known.meaning in line and known.expected in line
    assert not any("…" in text for text in (models, datasets, details))


@pytest.mark.parametrize("columns", [40, 60, 79, 80, 100, 120])
def test_no_help_cuts_a_word(columns: int, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for verb in ("", *VERBS):
        said = command(*verb.split(), "--help")
        assert said.code == 0 and "…" not in said.out, verb
        assert "--help" in said.out


@pytest.mark.parametrize("verb", VERBS)
def test_the_lines_of_a_help_end_where_there_is_no_room_and_those_of_its_examples_are_whole(
    verb: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = 80
    monkeypatch.setenv("COLUMNS", str(columns))
    before = command(verb, "--help").out.split("╭")[0]
    _, *paragraphs = [text.strip("\n") for text in re.split(r"\n *(?=\n)", before) if text.strip()]  # after the usage
    prose = [text.splitlines() for text in paragraphs if not re.match(r" *Examples?:|.*: *\n", text)]
    examples = [text for text in paragraphs if re.match(r" *Examples?:", text)]
    assert prose and len(examples) == 1
    for line, following in (pair for lines in prose for pair in itertools.pairwise(lines)):
        assert len(line.rstrip()) + 1 + len(following.split()[0]) > columns - 2, line
    typed = [line for line in re.sub(" *Examples?:", "", examples[0]).splitlines() if line.strip()]
    assert typed
    assert all(re.match(r" +([A-Z_]+=\S+ )?(recvae|torchrun) ", line) for line in typed), typed
