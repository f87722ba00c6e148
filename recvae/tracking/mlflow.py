"""Training in MLflow: hyperparameters, metrics by epoch, and at the end the bundle as a model that recommends."""

import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae.bundles.bundle import ITEMS, README, WEIGHTS, Bundle, names_of
from recvae.bundles.card import CARD, RUN_LOG, read_card
from recvae.errors import UsageError, requires_extra
from recvae.models import MODELS
from recvae.models.common.hyperparameters import values_of
from recvae.storage.weight_files import is_of_weights
from recvae.tracking.figures import EVERY_EPOCH, figures_of, final_figures, outcome, outcome_text, step_sizes_of
from recvae.training.details import DetailedMonitor, EpochDetails
from recvae.training.records import EpochRecord, TrainingSummary
from recvae.version import __version__

if TYPE_CHECKING:
    from mlflow.entities import Run

KEY = "recvae.key"
"""The tag by which a run of MLflow is found again."""

MODEL = "recommender"
"""Name of the model among the artifacts of a run."""

BUNDLE = "bundle"
"""Name of the bundle in that model; of a model of your own, which MLflow cannot load, among the artifacts."""

_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_LONGEST = 500  # characters of a value, as MLflow takes it everywhere
_SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
_PARAMETERS = {"k": 10, "filter_seen": True, "diversify": 0.0}  # of `recommend_batch` that a caller may set


class MLflowMonitor(DetailedMonitor):
    """A monitor that makes a run in MLflow of each fit.

    It has the hyperparameters, and after each epoch loss, reconstruction, KL, beta, step size, validation NDCG@100,
    active units, mutual information and speed. Its status is FINISHED, KILLED (stopped by hand) or FAILED, with the
    reason as a tag. A run that `recvae.runs` saves also leaves its validation metrics and its bundle, as a pyfunc
    model; after `fit`, `add_bundle` does that. What a server does not take while training runs is sent again after
    the next epoch, and does not end training.

    Parameters
    ----------
    uri : str, optional
        Where MLflow tracks, such as "sqlite:///mlflow.db" or "http://localhost:5000"; by default what MLflow is set to.
    experiment : str
        Made if missing.
    name : str, optional
        Of the run; by default the model's.
    key : str, optional
        Of the run: a fit that is resumed goes on in the run with this key. By default every fit has its own run.
    tell : callable, optional
        Given a text when MLflow cannot be reached; by default it becomes a `RuntimeWarning`.

    Raises
    ------
    UsageError
        If MLflow is not installed, with the command that installs it, or cannot be reached.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        experiment: str = "recvae",
        name: str | None = None,
        key: str | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        with requires_extra("track", "MLflowMonitor"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow warns of its own type hints
            import mlflow.pyfunc  # before training, not after the last epoch
            import sqlalchemy  # noqa: F401  (of the default store)
        uri = uri or mlflow.get_tracking_uri()
        self.place = re.sub(r"//[^/@]*@", "//", uri)  # for messages: without a password
        self.run_id: str | None = None
        self._name, self._key, self._tell = name, key, tell or _warn
        self._unsent: list[tuple[int, dict[str, float]]] = []
        self._sizes: dict[str, float] = {}
        self._last, self._lost = 0, False
        with self._beginning():
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            if found is not None and found.lifecycle_stage != "active":
                raise UsageError(f"got the experiment {experiment}, which was deleted in MLflow; use another name")
            self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)

    def fitting(self, model: Any) -> None:
        """Make a run with the hyperparameters of a model, or find the one to go on in."""
        self._unsent, self._sizes, self._last, self._lost, self.run_id = [], {}, 0, False, None
        values = {"model": model.name, **{name: _text(value) for name, value in values_of(model).items()}}
        with self._beginning():
            existing = self._existing()
            if existing is None:
                tags = {"recvae.version": __version__} | ({KEY: self._key} if self._key else {})
                run = self._client.create_run(self._experiment, run_name=self._name or model.name, tags=tags)
            else:
                run = existing
                self._client.update_run(run.info.run_id, status="RUNNING")
            self.run_id = run.info.run_id
            self._log_parameters(run, values)

    def start(self, epochs: int, done: list[EpochRecord]) -> None:  # noqa: ARG002  (every monitor's signature)
        """Begin, or go on after the epochs done before; those that a kill kept from being sent are sent now."""
        self._last = len(done)
        with self._sending() as run_id:
            if done:
                known = {metric.step for metric in self._client.get_metric_history(run_id, EVERY_EPOCH)}
                self._unsent = [(record.epoch, figures_of(record)) for record in done if record.epoch not in known]
            self._send(run_id)

    def details(self, details: EpochDetails) -> None:
        """Keep the step size until the epoch is sent."""
        self._sizes = step_sizes_of(details)

    def epoch(self, record: EpochRecord) -> None:
        """Send the figures of an epoch, and of those that could not be sent before."""
        self._last = record.epoch
        self._unsent.append((record.epoch, figures_of(record) | self._sizes))
        with self._sending() as run_id:
            self._send(run_id)

    def ended(self, summary: TrainingSummary) -> None:
        """Give the run its status, and the reason as a tag."""
        if self.run_id is None:
            return
        with self._sending("the run there lacks its status") as run_id:
            self._send(run_id)
            self._client.set_tag(run_id, "recvae.outcome", outcome_text(summary)[:_LONGEST])
            self._client.set_terminated(run_id, _STATUS[outcome(summary)])

    def saved(self, bundle: Bundle, folder: Path | None) -> None:
        """Add the validation metrics of the model that is kept, the data it was trained on, and the bundle."""
        with self._sending(f"the run there lacks what it reached, and the bundle {folder or ''}".rstrip()) as run_id:
            self._send_one(run_id, self._last, final_figures(bundle))
            for name in ("name", "fingerprint"):
                if bundle.manifest.get(name):
                    self._client.set_tag(run_id, f"recvae.data.{name}", str(bundle.manifest[name])[:_LONGEST])
            if folder is not None:
                self.add_bundle(folder)

    def add_bundle(self, folder: Path | str) -> None:
        """Add a bundle to the run, as the model `recommender` that `mlflow.pyfunc.load_model` loads.

        Its input is a table with the columns user and item, and maybe weight; its output that of
        `recommend_batch(...).to_pandas()`. Of a model of your own, which MLflow could not load, the files of the
        bundle are added alone.

        Parameters
        ----------
        folder : Path or str
            What `recvae train` or `Recommender.save` has left.

        Raises
        ------
        UsageError
            If nothing was fitted with this monitor, or there is no bundle.
        """
        if self.run_id is None:
            raise UsageError("got a bundle before any fit, expected a run to add it to; pass the monitor to fit first")
        if not (Path(folder) / CARD).is_file():
            raise UsageError(f"got {folder}, which has no {CARD}; give the folder of a finished run")
        is_known = all(name in MODELS for name in names_of(read_card(Path(folder))))
        with tempfile.TemporaryDirectory() as place, _quick():
            if is_known:
                save_model(Path(folder), Path(place) / MODEL)
            else:
                _copy(Path(folder), Path(place) / BUNDLE)
            what = MODEL if is_known else BUNDLE
            self._client.log_artifacts(self.run_id, str(Path(place) / what), what)

    def _existing(self) -> "Run | None":
        """Return the run with this monitor's key, None without one."""
        if self._key is None:
            return None
        found = self._client.search_runs([self._experiment], f"tags.`{KEY}` = '{self._key}'", max_results=1)
        return found[0] if found else None

    def _log_parameters(self, run: "Run", values: Mapping[str, str]) -> None:
        """Log hyperparameters; MLflow never changes one, so what a resumption has changed becomes a tag."""
        for name, value in values.items():
            if name not in run.data.params:
                self._client.log_param(run.info.run_id, name, value)
            elif run.data.params[name] != value:
                self._client.set_tag(run.info.run_id, f"recvae.resumed.{name}", value)

    def _send(self, run_id: str) -> None:
        while self._unsent:
            self._send_one(run_id, *self._unsent[0])
            del self._unsent[0]

    def _send_one(self, run_id: str, step: int, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in figures.items()]
        self._client.log_batch(run_id, metrics=metrics)

    @contextmanager
    def _beginning(self) -> Iterator[None]:
        """Refuse what does not work before anything is trained."""
        try:
            with _quick():
                yield
        except UsageError:
            raise
        except Exception as error:  # of MLflow, its database or the network
            raise UsageError(
                f"got {self.place} for MLflow, which cannot be used ({_line(error)}); start its server, or give "
                "another place such as sqlite:///mlflow.db"
            ) from error

    @contextmanager
    def _sending(self, what: str = "") -> Iterator[str]:
        """Keep a server that is away from ending training: say so once, and of `what` always."""
        try:
            with _quick():
                yield self.run_id or ""
            self._lost = False
        except Exception as error:  # of MLflow, its database or the network
            if what or not self._lost:
                instead = what or "the figures of this epoch are sent again after the next one"
                self._tell(f"warning: MLflow at {self.place} cannot be used ({_line(error)}); {instead}")
            self._lost = True


def save_model(folder: Path, target: Path) -> None:
    """Write a bundle as a model of MLflow, without a path of this machine.

    Parameters
    ----------
    folder : Path
        A bundle; only its own files are copied, none of its exports.
    target : Path
        A folder that does not exist.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow asks for type hints and for an example
        copy = _copy(folder, Path(place) / BUNDLE)
        mlflow.pyfunc.save_model(
            str(target),
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={BUNDLE: str(copy)},
            signature=signature(),
            pip_requirements=["recvae"],
        )
    saved = Model.load(str(target))
    flavor = saved.flavors["python_function"]
    flavor["artifacts"][BUNDLE]["uri"] = folder.resolve().name
    flavor["model_code_path"] = "pyfunc.py"
    saved.save(str(target / "MLmodel"))


def _copy(folder: Path, target: Path) -> Path:
    target.mkdir()
    weights = [one.name for one in folder.iterdir() if is_of_weights(WEIGHTS, one.name)]
    for name in (*weights, ITEMS, README, RUN_LOG, CARD):
        if (folder / name).is_file():
            shutil.copy2(folder / name, target / name)
    return target


def signature() -> Any:
    """Return what a recommender takes and gives as MLflow has it: ids are numbers or words, as the data has them."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import AnyType

    kinds = {bool: "boolean", int: "long", float: "double"}
    columns: list[ColSpec | TensorSpec] = [ColSpec(AnyType(), name) for name in ("user", "item")]
    columns.append(ColSpec(AnyType(), "weight", required=False))
    answers = {
        "user": AnyType(),
        "rank": "long",
        "id": AnyType(),
        "title": AnyType(),
        "score": "float",
        "fallback": "boolean",
    }
    parameters = [ParamSpec(name, kinds[type(value)], value) for name, value in _PARAMETERS.items()]
    return ModelSignature(
        inputs=Schema(columns),
        outputs=Schema([ColSpec(kind, name) for name, kind in answers.items()]),
        params=ParamSchema(parameters),
    )


def _text(value: Any) -> str:
    return "none" if value is None else str(value)[:_LONGEST]


def _line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)


@contextmanager
def _quick() -> Iterator[None]:
    """Let MLflow give a server up in seconds instead of minutes, and draw no bars; what the user has set stays."""
    ours = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
