"""`recvae train`: fit a model and leave a bundle."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli.console import DataDir, Device, Json, RunsDir, say, say_next, show, show_json

if TYPE_CHECKING:
    from recvae.bundles import Bundle


def train(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="See `recvae models`.", show_default="multvae")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A hyperparameter; repeat for several."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Name of a data set; by default the newest.")] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set seed=N.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; by default the model's.")] = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace the run of that name, once this one is whole.")] = False,
    resume: Annotated[
        bool,
        typer.Option(help="Go on with the newest run that was killed or interrupted (of --name)."),
    ] = False,
    data_dir: DataDir = Path("data"),
    runs_dir: RunsDir = Path("runs"),
    as_json: Json = False,
) -> None:
    """Train a model on a prepared data set, and write it to RUNS_DIR/DATA/NAME.

    Ctrl-C keeps the best weights so far as a finished bundle.

    \b
    Examples:
      recvae train --model multvae --set latent_dim=100 --set epochs=50
      recvae train --model als --data ml-1m
      recvae train --resume
    """
    from recvae.dataset import Dataset
    from recvae.errors import UsageError
    from recvae.home import check_name, find_dataset
    from recvae.hyperparameters import build, parse_settings
    from recvae.models import model_class
    from recvae.monitors import ProgressBar, TrainingProgress
    from recvae.runs import find_unfinished, new_run, resumed_run, train

    given = [*(settings or []), *([] if seed is None else [f"seed={seed}"])]
    if resume and overwrite:
        raise UsageError("got --resume with --overwrite; a resumed run keeps its place, leave one of them out")
    chosen = model_class(model or "multvae")
    fresh = build(chosen, parse_settings(chosen, [] if resume else given))
    if resume:
        work = find_unfinished(runs_dir, data and find_dataset(data_dir, data).name, model, name)
        folder = find_dataset(data_dir, data or work.parent.name)
    else:
        work, folder = None, find_dataset(data_dir, data)
    dataset = Dataset.load(folder)
    if work is not None:
        run = resumed_run(work, dataset, given)
    else:
        run = new_run(fresh, runs_dir / dataset.name, check_name(name or chosen.name), overwrite)
    say(f"{'resuming' if resume else 'training'} {run.model.name} on {folder} -> {run.folder}")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ProgressBar(run.model.name) as bar:
            bundle, place = train(run, dataset, device=device, monitor=TrainingProgress(bar))
    except KeyboardInterrupt:
        goes_on = "`recvae train --resume` goes on" if run.work.exists() else "nothing was finished, nothing is left"
        say(f"interrupted: {goes_on}")
        raise
    _report(bundle, place, as_json)


def _interrupt(number: int, frame: Any) -> None:  # noqa: ARG001  (a signal handler's signature)
    """Treat a scheduler's SIGTERM as Ctrl-C: keep the best so far."""
    raise KeyboardInterrupt


def _report(bundle: "Bundle", folder: Path, as_json: bool) -> None:
    training, metrics = bundle.training, bundle.metrics.get("validation", {})
    if as_json:
        content = {"folder": str(folder), "model": bundle.model.name, "interrupted": bundle.interrupted}
        show_json({**content, "training": training, "metrics": bundle.metrics})
    else:
        if bundle.interrupted:
            show("interrupted: the best weights so far are kept; `recvae train --resume` goes on")
        if "best_epoch" in training:
            end = ", ended early" if training["stopped_early"] else ""
            show(f"best epoch {training['best_epoch']} of {training['epochs']}{end}, on {training['device']}")
        reached = ", ".join(f"{metric} {value:.4f}" for metric, value in metrics.items())
        show(f"validation: {reached or 'no user has a target'}")
        show(f"written to {folder} in {training['seconds']:.1f} s")
        if 0 < training.get("epochs", 0) == training["best_epoch"] and not bundle.interrupted:
            say("the last epoch was the best one: more of them (--set epochs=...) may do better still")
    say_next(f"recvae evaluate {folder}")
