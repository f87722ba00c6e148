"""`recvae tune`: search for the best hyperparameters, stop and continue, and leave a bundle of the best."""

import re
import shlex
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli import completion
from recvae_cli.console import (
    DATA_DIR,
    DEVICE,
    RUNS_DIR,
    DataDir,
    DataSet,
    Device,
    Json,
    MaxMemory,
    RunsDir,
    SelectBy,
    command,
    model_words,
    say,
    say_next,
    say_removed,
    show,
    show_json,
)
from recvae_cli.streaming import Buffer, Stream, wanted
from recvae_cli.tracking import check_tracking, follower_of_trials

if TYPE_CHECKING:
    from rich.table import Table

    from recvae.metrics import Metric
    from recvae.training.monitors import ProgressBar
    from recvae.tuning import Trial, Tuning

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def tune(
    model: Annotated[
        str, typer.Option("--model", "-m", help="See `recvae models`.", autocompletion=completion.models)
    ] = "multvae",
    trials: Annotated[int, typer.Option(help="Total trials, including earlier calls.")] = 30,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop after this time, e.g. 90s, 10m or 2h.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Fix a hyperparameter instead of searching it (repeatable).",
            autocompletion=completion.settings,
        ),
    ] = None,
    data: DataSet = None,
    seed: Annotated[int, typer.Option(help="Seed of the search, and of the models that have one.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name for the best run.", show_default="MODEL-tuned")] = None,
    max_memory: MaxMemory = None,
    stream: Stream = False,
    buffer: Buffer = None,
    device: Device = DEVICE,
    select_by: SelectBy = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the earlier trials and start over.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the existing run when the search finishes.")] = False,
    tensorboard: Annotated[
        str | None,
        typer.Option(metavar="[FOLDER]", help="Write the curves of each trial for TensorBoard, in FOLDER/DATA/NAME."),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="[URI]", help="Log parameters and metrics of each trial to MLflow, as a run."),
    ] = None,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
    as_json: Json = False,
) -> None:
    """Search for the hyperparameters that are best on validation users, and save the best in RUNS_DIR/DATA/NAME.

    `recvae models NAME` shows the search space; --set fixes a hyperparameter. Hopeless trials are stopped early. The
    study is kept in DATA_DIR/DATA/studies/MODEL, with --select-by in MODEL-by-METRIC. After Ctrl-C, a kill or
    --timeout, run the same command again to continue; increase --trials to search longer. The best so far is always
    saved.

    \b
    Examples:
      recvae tune --model multvae --trials 50 --set epochs=100
      recvae tune --model als --data ml-1m --timeout 2h
      recvae tune --data plays --stream --buffer 500MB
    """
    from recvae.datasets.home import check_name
    from recvae.models import model_class
    from recvae.models.common.hyperparameters import build, hyperparameters_of, parse_settings
    from recvae.training.monitors import ProgressBar
    from recvae.training.validation import OBJECTIVE, objective
    from recvae.tuning import check_deliverable, deliver, place_of, settings_of, tune

    _check_libraries(tensorboard, mlflow)
    asked = wanted(data, data_dir, stream, buffer, max_memory)
    metric, chosen = objective(select_by or OBJECTIVE), model_class(model)
    seeded = [f"seed={seed}"] if "seed" in hyperparameters_of(chosen) else []
    fixed = parse_settings(chosen, seeded + (settings or []))
    built = build(chosen, fixed)
    asked.check(chosen)
    seconds, folder = None if timeout is None else _seconds(timeout), asked.folder()
    dataset = asked.load()
    place = runs_dir / dataset.name / check_name(name or f"{chosen.name}-tuned")
    check_deliverable(place, overwrite)
    study = _place_of_study(folder, chosen.name, metric)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's SIGTERM is like Ctrl-C
    try:
        with ProgressBar(chosen.name) as bar:
            found = tune(
                model,
                dataset,
                study,
                fixed={name: getattr(built, name) for name in fixed},
                trials=trials,
                timeout=seconds,
                seed=fixed.get("seed", seed),
                device=device,
                max_memory=asked.max_memory,
                fresh=fresh,
                monitor=_Progress(bar),
                select_by=metric,
                follow=follower_of_trials(dataset.name, place.name, tensorboard, mlflow),
            )
    except KeyboardInterrupt:
        say("interrupted; run the same command again to continue")
        raise
    say_removed(place_of(found, place.parent, place.name, overwrite))
    words = ["--model", model, "--data", data or folder.name]
    words += [word for setting in settings_of(found.model) for word in ("--set", setting)] + _chosen_by(metric)
    words += [*asked.words(), *(["--device", device] if device != DEVICE else [])]
    _report(found, deliver(found, place.parent, place.name, overwrite), command("train", *words), as_json)


def _place_of_study(folder: Path, model: str, metric: "Metric") -> Path:
    """Return the folder of a study, one for each model and metric, and say where it is."""
    from recvae.training.validation import OBJECTIVE

    usual = metric == OBJECTIVE
    place = folder / "studies" / (model if usual else f"{model}-by-{re.sub(r'[^a-zA-Z0-9_.]+', '-', metric.path)}")
    say(f"tuning {model} on {folder}{'' if usual else f' by {metric.path}'}, its study is in {place}")
    return place


def _chosen_by(metric: "Metric") -> list[str]:
    """Return the option that names a metric, nothing for the usual one."""
    from recvae.training.validation import OBJECTIVE

    return [] if metric == OBJECTIVE else ["--select-by", metric.path]


def _check_libraries(tensorboard: str | None, mlflow: str | None) -> None:
    """Refuse before anything else what needs a library that is not installed."""
    from recvae.tuning import check_optuna

    check_optuna()
    check_tracking(tensorboard, mlflow)


def _seconds(text: str) -> float:
    """Read a length of time."""
    from recvae.errors import UsageError

    written = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([smhd]?)", text.strip().lower())
    if written is None or not float(written[1]):
        raise UsageError(f"got --timeout '{text}', expected a time above 0 such as 90, 90s, 10m, 2h or 1d")
    return float(written[1]) * _UNITS[written[2]]


class _Progress:
    """Shows a search on a terminal as a bar, and elsewhere as a line per trial."""

    def __init__(self, bar: "ProgressBar") -> None:
        self._bar = bar
        self._live = sys.stderr.isatty()

    def advance(self, done: float, total: int, best: "Trial | None") -> None:
        """Show how far it is, and the best so far."""
        if self._live:
            number = f"trial {min(total, int(done) + 1)}/{total}"
            self._bar(done, total, number if best is None else f"{number}  best {_figures(best)}")

    def trial(self, trial: "Trial", total: int, best: "Trial | None") -> None:
        """Say how a trial ended."""
        if not self._live:
            so_far = f"; best so far {best.value:.4f}, trial {best.number}" if best and best.value is not None else ""
            end = f", failed: {trial.error}" if trial.error else ""
            self._bar.line(f"trial {trial.number}/{total}: {_figures(trial)} ({trial.seconds:.1f} s){end}{so_far}")


def _figures(trial: "Trial") -> str:
    from recvae.tuning import FAILED, PRUNED, settings_text

    reached = "nothing" if trial.state == FAILED else f"{trial.metric} {trial.value or 0.0:.4f}"
    pruned = f", pruned after epoch {trial.epochs}" if trial.state == PRUNED else ""
    return f"{reached}{pruned}  {settings_text(trial.settings)}"


def _report(found: "Tuning", run: Path, train: str, as_json: bool) -> None:
    from recvae.tuning import ALL_DONE, COMPLETE, EXHAUSTED, FAILED, PRUNED

    counts = {state: found.count(state) for state in (COMPLETE, PRUNED, FAILED)}
    if as_json:
        show_json(
            {
                "folder": str(run),
                "model": found.model.name,
                "ended": found.ended,
                "trials": counts,
                "top": [_for_json(trial) for trial in found.top()],
                "train": train,
            }
        )
    else:
        words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        show(f"trials: {words}; the best by validation {found.best.metric}:", _table(found))
        show(f"saved to {run}; reproduce with:\n  {train}")
    if found.ended == EXHAUSTED:
        say("every point of the search space was tried; nothing is left to search")
    elif found.ended == ALL_DONE:
        n, when = len(found.trials), "" if len(found.trials) > found.begun_with else " before"
        say(f"all {n} trials were done{when}; increase --trials to continue")
    else:
        again = shlex.join(["recvae", *(word for word in sys.argv[1:] if word != "--fresh")])
        say(f"{found.ended}: the current trial does not count; continue with: {again}")
    say_next(command("evaluate", run, *model_words(type(found.model))))


def _for_json(trial: "Trial") -> dict[str, Any]:
    return {key: value for key, value in asdict(trial).items() if key != "key"} | {"ndcg": trial.ndcg}


def _table(found: "Tuning") -> "Table":
    from rich.table import Table

    from recvae.tuning import setting_text

    top = found.top()
    table = Table()  # a column per trial: there are more hyperparameters than fit side by side
    for heading in ("trial", *(str(trial.number) for trial in top)):
        table.add_column(heading, justify="right" if heading != "trial" else "left")
    table.add_row(found.best.metric, *(f"{trial.value:.4f}" for trial in top))
    if found.best.epochs:
        table.add_row("epochs", *(str(trial.epochs) for trial in top))
    for name in found.best.settings:
        table.add_row(name, *(setting_text(trial.settings[name]) or "-" for trial in top))
    return table
