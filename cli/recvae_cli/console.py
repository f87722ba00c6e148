"""What the verbs share: printing, and the options that several of them have."""

import json
import shlex
import shutil
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from recvae_cli import completion
from recvae_cli.processes import one_of_several

if TYPE_CHECKING:
    from recvae.models import Model
    from recvae.progress import Progress

DATA_DIR, RUNS_DIR, DEVICE = Path("data"), Path("runs"), "auto"
"""Defaults of the options below."""

_NARROW = 80  # columns; below 76, boxes cut long words
_CARRIED = ("data_dir", "runs_dir")  # options that the next command needs too, where this one was given them
_RUNNING: ContextVar[Any] = ContextVar("running", default=None)

DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="RECVAE_DATA", help="Folder of data sets.", show_default=True)
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of trained runs.", show_default=True)]
DataSet = Annotated[
    str | None, typer.Option(help="Name of a data set; by default the newest.", autocompletion=completion.datasets)
]
ItsData = Annotated[
    str | None,
    typer.Option("--data", help="Data set, if it has another name now.", autocompletion=completion.datasets),
]
OneRun = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="Folder, DATA/NAME or NAME of a run; by default the newest.",
        autocompletion=completion.runs,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Memory limit for the model, not counting the data, e.g. 8GB.",
        show_default="all free memory",
    ),
]
SelectBy = Annotated[
    str | None,
    typer.Option(
        "--select-by",
        metavar="METRIC",
        help="What validation users choose by, e.g. recall@20, or MODULE:FUNCTION@K for your own.",
        show_default="ndcg@100",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]


OwnModels = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="MODULE:CLASS", help="Your own model class, if a run uses it (repeatable)."),
]


def imported_models(names: list[str] | None) -> "list[type[Model]]":
    """Import the models of --model, which bundles never import by themselves."""
    if not names:
        return []
    from recvae.errors import UsageError
    from recvae.models import is_own, model_class

    found = [model_class(name) for name in names]
    for name, model in zip(names, found, strict=True):
        if not is_own(model):
            raise UsageError(
                f"got --model {name}, which comes with recvae, expected a model of your own as MODULE:CLASS; leave it "
                "out (one command trains one model)"
            )
    return found


def check_blends_own(model: "type[Model]", own: "list[type[Model]]") -> None:
    """Refuse models of your own after one that is no blend, and so has no use for them."""
    from recvae.errors import UsageError
    from recvae.models import import_path

    if own and not model.roles:
        raise UsageError(
            f"got --model {import_path(own[0])} after --model {import_path(model)}, which is no blend, expected one "
            "model; train the other with a command of its own"
        )


def model_words(model: "type[Model]") -> list[str]:
    """Return `--model MODULE:CLASS` for a model of your own, which the next command needs too; else nothing."""
    from recvae.models import import_path, is_own

    return ["--model", import_path(model)] if is_own(model) else []


def memory_limit(text: str | None) -> int | None:
    """Read --max-memory."""
    from recvae.compute.memory import parse_limit

    return None if text is None else parse_limit(text)


def show(*things: Any) -> None:
    """Print texts and tables to the standard output."""
    from recvae_cli.tables import console, print_whole

    where = console()
    for thing in things:
        print_whole(thing, where)


def show_json(content: Any) -> None:
    """Print JSON to the standard output."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def say(text: str) -> None:
    """Print a remark for the user to the standard error; what is in it of a file commands no terminal."""
    from recvae.display import visible

    typer.echo(visible(text), err=True)


class Heading:
    """A line above the result, which is said when the work begins: what is refused before has none.

    Parameters
    ----------
    text : str
        The line.
    progress : Progress
        What the work reports to, once the line is there.
    """

    def __init__(self, text: str, progress: "Progress") -> None:
        self._text, self._progress = text, progress
        self._is_said = False

    def __call__(self, done: float, total: float | None, note: str = "") -> None:
        """Say the line if it was not said yet, and hand the progress on."""
        self.say()
        self._progress(done, total, note)

    def say(self) -> None:
        """Say the line, if it was not said yet."""
        if not self._is_said:
            self._is_said = True
            say(self._text)


def _narrow() -> bool:
    return shutil.get_terminal_size().columns < _NARROW


class Verbs(TyperGroup):
    """The command itself."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help: in a narrow terminal as plain text, where no word is cut."""
        if _narrow():
            self.rich_markup_mode = None
        super().format_help(ctx, formatter)


class Verb(TyperCommand):
    """A verb, which remembers how it was typed while it runs: `command` needs that."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; a wrong use is told with what should have been written."""
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            from recvae_cli.hints import add_hint

            add_hint(error, self, typed)
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help: in a narrow terminal as plain text, where no word is cut; lines end where there is no room.

        Of the paragraphs after the first, Typer would keep the ends of lines that they have in the source.
        """
        if _narrow():
            self.rich_markup_mode = None
        paragraphs = (self.help or "").split("\n\n")
        self.help = "\n\n".join(text if text.startswith("\b") else text.replace("\n", " ") for text in paragraphs)
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        before = _RUNNING.set(ctx)
        try:
            with one_of_several(str(self.name)):
                return super().invoke(ctx)
        finally:
            _RUNNING.reset(before)


def command(verb: str, *words: object) -> str:
    """Return a command to be typed next, with the folders that were typed for the one that runs.

    Parameters
    ----------
    verb : str
        E.g. "train".
    words : object
        What follows it, not quoted.
    """
    typed, running = [str(word) for word in words], _RUNNING.get()
    if running is not None:
        known = {param.name for param in running.find_root().command.commands[verb].params}
        end = typed.index("--") if "--" in typed else len(typed)  # what follows that is no option
        for param in running.command.params:
            source = running.get_parameter_source(param.name)
            if param.name in _CARRIED and param.name in known and source is not None and source.name == "COMMANDLINE":
                typed[end:end] = [param.opts[0], str(running.params[param.name])]
                end += 2
    return shlex.join(["recvae", verb, *typed])


def resuming(*words: object) -> str:
    """Return the command that continues a training: with several processes where one might not hold the network."""
    from recvae.compute.ranks import current

    return current().typed(command("train", "--resume", *words))


def python(code: str) -> str:
    """Return a command that runs a line of Python."""
    return shlex.join(["python", "-c", code]) if any(sign in code for sign in '"$`\\!') else f'python -c "{code}"'


def say_removed(folder: Path) -> None:
    """Say what is removed with a run that is replaced, such as its exports."""
    from recvae.runs.state import further_files

    if removed := further_files(folder):
        say(f"warning: replacing {folder} also removes {', '.join(removed)}; copy what you need, or export again")


def say_next(*commands: str) -> None:
    """Propose the next commands: what `command` or `python` return."""
    say("next: " + "\n      ".join(commands))
