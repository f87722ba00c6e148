"""`recvae serve`: recommendations over HTTP, with a page to try them."""

import json
from typing import Annotated, Any

import typer

from recvae_cli import completion
from recvae_cli.console import RUNS_DIR, OwnModels, RunsDir, say, say_next

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Folders, DATA/NAME or NAME of runs; by default the newest.",
            autocompletion=completion.runs,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 chooses a free one.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="Number of processes.", min=1)] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads that score, per process.", min=1)] = None,
    format_: Annotated[
        str, typer.Option("--format", help="torch, or made by `recvae export`: onnx, onnx-int8, index.")
    ] = "torch",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "cpu",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="RECVAE_TOKEN", help="Token that clients must send: `Authorization: Bearer TOKEN`.", metavar="TEXT"
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Allow browser requests from this origin (repeatable).")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of a limit listed above, e.g. k=100 (repeatable).")
    ] = None,
    own: OwnModels = None,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Serve recommendations over HTTP, with a page to try them at / and the API at /docs.

    \b
    Examples:
      recvae serve
      recvae serve ml-1m/multvae ml-1m/ease --port 8080
      RECVAE_TOKEN=... recvae serve ml-1m/recvae --host 0.0.0.0 --workers 2

    \b
    New versions of the runs are loaded on SIGHUP or POST /reload.

    \b
    Limits and their defaults, also listed by GET /model:
      window_ms 3           milliseconds that a request waits for others
      batch_users 64        users scored together
      body_bytes 1048576    bytes of a request
      history_items 10000   items of a history, or ids to exclude or allow
      histories 256         histories in a request
      explained_items 500   items of all histories in a request with reasons
      k 1000                items recommended to a user
      answered_items 10000  items recommended in a request (with reasons, a tenth)
      seconds 10            seconds for a request, and for its bytes to arrive
      in_flight 512         requests at the same time
      waiting_users 2048    users waiting to be scored
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
        models=tuple(own or ()),
        **_limits(limit or []),
    )
    folders = [find_run(runs_dir, run) for run in runs or [None]]
    with requires_extra("serve", "`recvae serve`"):
        from recvae.serving.server import serve as listen

    def started(address: str, examples: list[Any]) -> None:
        say(f"serving {', '.join(str(folder) for folder in folders)} at {address} (stop with Ctrl-C)")
        if host not in _LOOPBACK and token is None:
            say("warning: without --token, everyone who can reach this machine can use it")
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
