"""`recvae runs`: the runs that there are, each with its model, validation figure, size and state."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from recvae_cli import completion
from recvae_cli.console import RUNS_DIR, Json, RunsDir, command, say, say_next, show, show_json

if TYPE_CHECKING:
    from recvae.runs.listing import ListedRun


def runs(
    data: Annotated[
        str | None,
        typer.Option(
            help="Only runs on this data set.", show_default="all", autocompletion=completion.datasets_of_runs
        ),
    ] = None,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """List the runs, oldest first: model, when, validation figure, size, state.

    A run that is unfinished or cannot be read is listed too, with the reason.

    \b
    Examples:
      recvae runs
      recvae runs --data ml-1m --json
    """
    from recvae.runs.listing import TRAINING, UNREADABLE, listed_runs

    found = listed_runs(runs_dir, data)
    if as_json:
        show_json({"folder": str(runs_dir), "runs": [run.to_json() for run in found]})
        return
    if not found:
        say(f"no run in {runs_dir}")
        say_next(command("train", "--model", "multvae"))
        return
    _show(found)
    for run in found:
        if run.state == UNREADABLE:
            show(f"{run.run}: {run.note}")
    whole = [run for run in found if run.state == "finished"]
    resumable = [run for run in found if run.state not in ("finished", UNREADABLE, TRAINING)]
    nexts = [command("inspect", whole[-1].run)] if whole else []
    say_next(*nexts, *([command("train", "--resume")] if resumable else []))


def _show(found: "list[ListedRun]") -> None:
    from rich.table import Table

    from recvae.compute.memory import human_bytes
    from recvae.display import one_line
    from recvae.runs.listing import OBJECTIVE, UNREADABLE

    table = Table()
    for heading in ("run", "model", "made", f"validation {OBJECTIVE}", "size", "state"):
        is_number = heading == "size" or heading.startswith("validation")
        table.add_column(heading, justify="right" if is_number else "left")
    for run in found:
        other = "" if run.metric in (OBJECTIVE, None) else f"{run.metric} "
        figure = "-" if run.validation is None else f"{other}{run.validation:.4f}"
        note = f", {run.note}" if run.note and run.state != UNREADABLE else ""
        made = datetime.fromisoformat(run.made).astimezone().strftime("%Y-%m-%d %H:%M")
        state = one_line(f"{run.state}{note}")
        table.add_row(one_line(run.run), one_line(run.model or "-"), made, figure, human_bytes(run.n_bytes), state)
    show(table)
