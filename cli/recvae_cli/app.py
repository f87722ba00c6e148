"""The command's entry: one module per verb, and the place where errors become exit codes."""

import sys

import typer

from recvae_cli import (
    anomalies,
    compare,
    datasets,
    evaluate,
    export,
    generate,
    inspect,
    likelihood,
    models,
    plan,
    plot,
    preprocess,
    probe,
    quickstart,
    recommend,
    report,
    runs,
    segments,
    serve,
    similar,
    train,
    tune,
    units,
)
from recvae_cli.console import Verb, Verbs
from recvae_cli.ids import TakesIds
from recvae_cli.processes import one_voice
from recvae_cli.tracking import Tracks

app = typer.Typer(
    name="recvae",
    cls=Verbs,
    help="Recommenders from autoencoders on sparse user-item data: preprocess, train, evaluate, recommend, serve.",
    epilog="First steps:  recvae quickstart   or   recvae preprocess ml-1m && recvae train && recvae evaluate",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("quickstart", cls=Verb)(quickstart.quickstart)
app.command("datasets", cls=Verb)(datasets.datasets)
app.command("preprocess", cls=Verb)(preprocess.preprocess)
app.command("models", cls=Verb)(models.models)
app.command("plan", cls=Verb)(plan.plan)
app.command("train", cls=Tracks)(train.train)
app.command("tune", cls=Tracks)(tune.tune)
app.command("evaluate", cls=Verb)(evaluate.evaluate)
app.command("compare", cls=Verb)(compare.compare)
app.command("runs", cls=Verb)(runs.runs)
app.command("plot", cls=Verb)(plot.plot)
app.command("report", cls=Verb)(report.report)
app.command("recommend", cls=Verb)(recommend.recommend)
app.command("similar", cls=TakesIds)(similar.similar)
app.command("inspect", cls=Verb)(inspect.inspect)
app.command("likelihood", cls=Verb)(likelihood.likelihood)
app.command("anomalies", cls=Verb)(anomalies.anomalies)
app.command("generate", cls=Verb)(generate.generate)
app.command("segments", cls=Verb)(segments.segments)
app.command("units", cls=Verb)(units.units)
app.command("probe", cls=Verb)(probe.probe)
app.command("export", cls=Verb)(export.export)
app.command("serve", cls=Verb)(serve.serve)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"recvae {installed('recvae')}")
        raise typer.Exit


def main() -> None:
    """Run the command; an error of the library becomes one line and an exit code."""
    try:
        with one_voice():
            app(prog_name="recvae")
    except Exception as error:
        # imports the library, which is there already if it raised
        from recvae.display import visible
        from recvae.errors import RecvaeError, is_out_of_memory

        if isinstance(error, RecvaeError):
            typer.echo(f"error: {visible(str(error))}", err=True)
            sys.exit(error.exit_code)
        if isinstance(error, ImportError) and (error.name or "recvae").split(".")[0] not in ("recvae", "recvae_cli"):
            typer.echo(
                f"error: recvae needs a library that cannot be imported ({error}); install it with: pip install recvae",
                err=True,
            )
            sys.exit(2)
        if is_out_of_memory(error):
            typer.echo(
                f"error: not enough memory ({error}); use smaller batches (--set batch_size=...), fewer items or "
                "smaller dimensions; `recvae plan` shows what each needs",
                err=True,
            )
            sys.exit(1)
        raise
