"""`recvae train --tensorboard` and `--mlflow`: a run followed in other programs."""

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae_cli.console import Verb, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from recvae.models import Model
    from recvae.runs.run import Run
    from recvae.training.records import Monitor

_PLACES = {"--tensorboard": "tensorboard", "--mlflow": ""}  # where, if the option stands alone


class Tracks(Verb):
    """A verb whose options for tracking may stand alone, without a place."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with the usual place where none is typed."""
        typed = list(args)
        end = typed.index("--") if "--" in typed else len(typed)
        for at in reversed(range(end)):
            if typed[at] in _PLACES and (at + 1 >= end or typed[at + 1].startswith("-")):
                typed[at] = f"{typed[at]}={_PLACES[typed[at]]}"
        return super().parse_args(ctx, typed)


def check_tracking(tensorboard: str | None, mlflow: str | None) -> None:
    """Refuse before anything else what needs a library that is not installed."""
    from urllib.parse import urlsplit

    from recvae.errors import UsageError, requires_extra

    if tensorboard is not None:
        with requires_extra("track", "--tensorboard"):
            import tensorboard as _
    if mlflow is not None:
        if urlsplit(mlflow).password:
            raise UsageError(
                "got a password in --mlflow, which the run would keep in its folder until it is finished; set "
                "MLFLOW_TRACKING_URI and give --mlflow alone"
            )
        with requires_extra("track", "--mlflow"):
            import mlflow as _  # noqa: F401


def tracked(run: "Run", data: str, tensorboard: str | None, mlflow: str | None) -> "Run":
    """Return a run that knows where it is followed: where it was before it was resumed, or another place typed now."""
    from uuid import uuid4

    places = dict(run.tracking)
    if tensorboard is not None:
        home = Path(tensorboard or _PLACES["--tensorboard"]) / data
        if Path(places.get("tensorboard", "")).parent != home:
            places["tensorboard"] = str(home / run.folder.name)
    if mlflow is not None and mlflow != places.get("mlflow"):
        places |= {"mlflow": mlflow, "experiment": os.environ.get("MLFLOW_EXPERIMENT_NAME") or data}
        places |= {"name": run.folder.name, "key": uuid4().hex}
    return replace(run, tracking=places)


def follower_of_trials(
    data: str, name: str, tensorboard: str | None, mlflow: str | None
) -> "Callable[[int, Model], Monitor] | None":
    """Return what gives a monitor for each trial of a search, by its number; None where none is asked for."""
    if tensorboard is None and mlflow is None:
        return None

    def follow(number: int, model: "Model") -> "Monitor":  # noqa: ARG001  (every follower's signature)
        found: list[Monitor] = []
        if tensorboard is not None:
            from recvae.tracking.tensorboard import TensorBoardMonitor

            home = Path(tensorboard or _PLACES["--tensorboard"]) / data / name
            found.append(TensorBoardMonitor(home / f"trial-{number}"))
        if mlflow is not None:
            from recvae.tracking.mlflow import MLflowMonitor

            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or data
            found.append(MLflowMonitor(mlflow or None, experiment=experiment, name=f"{name}-{number}", tell=say))
        return MonitorList(*found)

    from recvae.training.monitors import MonitorList

    follow(0, None)  # type: ignore[arg-type]  (a place that does not work is refused before the search)
    return follow


def monitors_of(run: "Run") -> "list[Monitor]":
    """Return what follows a run, and say how to look at it."""
    found: list[Monitor] = []
    if (folder := run.tracking.get("tensorboard")) is not None:
        from recvae.tracking.tensorboard import TensorBoardMonitor

        found.append(TensorBoardMonitor(folder))
        say(f"curves in {folder}: {shlex.join(['tensorboard', '--logdir', folder])}")
    if (uri := run.tracking.get("mlflow")) is not None:
        from recvae.tracking.mlflow import MLflowMonitor

        which = {name: run.tracking[name] for name in ("experiment", "name", "key") if name in run.tracking}
        monitor = MLflowMonitor(uri or None, **{"experiment": "recvae", **which}, tell=say)
        found.append(monitor)
        say(f"figures in {monitor.place}, experiment {which.get('experiment')}")
    return found
