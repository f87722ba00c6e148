"""`recvae serve`: recommendations over HTTP, with a page to try them."""

import json
from typing import Annotated, Any

import typer

from recvae_cli.console import RUNS_DIR, RunsDir, say, say_next

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Folders, DATA/NAME or NAME of runs; by default the newest."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any that is free.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads that score, in each process.", min=1)] = None,
    format_: Annotated[
        str, typer.Option("--format", help="torch, or what `recvae export` made: onnx, onnx-int8.")
    ] = "torch",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "cpu",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="RECVAE_TOKEN", help="What clients must send as `Authorization: Bearer ...`.", metavar="TEXT"
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A web origin whose pages may ask; may be given again.")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of a limit, as k=100; may be given again.")
    ] = None,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Recommend over HTTP, with a page to try it at / and the interface at /docs.

    \b
    Examples:
      recvae serve
      recvae serve ml-1m/multvae ml-1m/ease --port 8080
      RECVAE_TOKEN=... recvae serve ml-1m/recvae --host 0.0.0.0 --workers 2

    \b
    New versions of the runs are taken up on SIGHUP or POST /reload. Limits, which GET /model tells:
      window_ms batch_users body_bytes history_items histories explained_items k seconds in_flight waiting_users
    """
    from recvae.errors import requires_extra
    from recvae.runs.finding import find_run
    from recvae.serving.settings import Settings

    settings = Settings(
        format=format_,
        device=device,
        threads=threads,
        token=token,
        origins=tuple(allow_origin or ()),
        workers=workers,
        **_limits(limit or []),
    )
    folders = [find_run(runs_dir, run) for run in runs or [None]]
    with requires_extra("serve", "`recvae serve`"):
        from recvae.serving.server import serve as listen

    def started(address: str, examples: list[Any]) -> None:
        say(f"serving {', '.join(str(folder) for folder in folders)} at {address} (Ctrl-C ends it)")
        if host not in _LOOPBACK and token is None:
            say("without --token, whoever reaches this machine may ask")
        header = " -H 'Authorization: Bearer ...'" if token else ""
        say_next(
            f"open {address} in a browser, or {address}/docs",
            f"curl {address}/recommend{header} --json '{json.dumps({'items': examples, 'k': 5})}'",
        )

    listen(folders, settings, host, port, started)


def _limits(given: list[str]) -> dict[str, Any]:
    from recvae.errors import UsageError
    from recvae.serving.settings import Settings

    known = Settings().limits()
    limits: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in known:
            raise UsageError(f"got --limit {text!r}, expected NAME=VALUE with one of {', '.join(known)}")
        try:
            limits[name] = type(known[name])(value)
        except ValueError as error:
            raise UsageError(f"got --limit {text!r}, expected a number such as {name}={known[name]}") from error
    return limits
