"""`recvae evaluate`: how good a run is, next to baselines that were tuned on the same data."""

from typing import Annotated

import typer

from recvae_cli import comparison as shared
from recvae_cli import completion
from recvae_cli.console import (
    DATA_DIR,
    DEVICE,
    RUNS_DIR,
    DataDir,
    Device,
    Json,
    MaxMemory,
    OwnModels,
    RunsDir,
    command,
    python,
    say_next,
)
from recvae_cli.ids import typed_ids


def evaluate(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Folders, DATA/NAME or NAME of runs; by default the newest.",
            autocompletion=completion.runs,
        ),
    ] = None,
    baselines: Annotated[
        str, typer.Option(metavar="MODELS", help=shared.BASELINES_HELP, autocompletion=completion.model_lists)
    ] = shared.EVALUATED,
    to: shared.To = None,
    metrics: shared.Metrics = shared.DEFAULT_METRICS,
    split: shared.Split = "test",
    by: shared.By = None,
    seeds: shared.Seeds = 1,
    form: shared.Format = None,
    output: shared.Output = None,
    per_user: shared.PerUser = None,
    data: shared.Data = None,
    own: OwnModels = None,
    max_memory: MaxMemory = None,
    device: Device = DEVICE,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """Measure runs on held-out users, next to als and ials (each tuned on validation) and popularity.

    Differences are to the baseline with the best validation NDCG@100; the table says which one.
    This is `recvae compare` for the newest run, with popularity too.

    \b
    Examples:
      recvae evaluate
      recvae evaluate ml-1m/multvae --metrics recall@10,ndcg@10,coverage@10
      recvae evaluate --output report.json --per-user users.parquet
    """
    from recvae.bundles.bundle import ITEMS
    from recvae.items import ItemIndex
    from recvae.runs.finding import find_runs

    request = shared.Request(
        to=to,
        baselines=baselines,
        metrics=metrics,
        split=split,
        by=by,
        seeds=seeds,
        form=form,
        output=output,
        per_user=per_user,
        as_json=as_json,
        data=data,
        max_memory=max_memory,
        own=own,
        device=device,
        data_dir=data_dir,
        runs_dir=runs_dir,
    )
    shared.check_request(request, runs or [])
    folders = find_runs(runs_dir, runs, data)
    found, _ = shared.compare_runs(request, folders, "evaluating")
    shared.report(request, found)
    known = ItemIndex.read(folders[0] / ITEMS).ids[:2].tolist()
    if own:
        models = [word for name in own for word in ("--model", name)]
        say_next(command("recommend", folders[0], "--items", typed_ids(known), *models))
        return
    load = f"from recvae import Recommender; r = Recommender.load({str(folders[0])!r})"
    say_next(python(f"{load}; print(r.recommend({known}, k=5).to_pandas())"))
