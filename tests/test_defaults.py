"""Each default has one owner in the library; the copies that keep `recvae --help` instant are compared with it."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, cast

import pytest
import typer

from recvae.datasets import synthetic
from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Filters
from recvae.datasets.preparation import Protocol
from recvae.datasets.reading.ratings import STARS_MIN_RATING
from recvae.datasets.splits import base as splits
from recvae.datasets.splits.protocols import split_events
from recvae.evaluation.evaluate import DEFAULT_METRICS
from recvae.items import DEFAULT_K
from recvae.latent.anomalies import AnomalyDetector
from recvae.latent.generation import generate
from recvae.latent.likelihood import likelihood
from recvae.latent.probes import probe
from recvae.latent.segments import find_segments
from recvae.latent.units import latent_units
from recvae.models import Model
from recvae.recommenders.answers import Request
from recvae.recommenders.recommender import Recommender
from recvae.reports.page import Report
from recvae.reports.pictures import draw
from recvae.runs.planning import SECONDS
from recvae.serving.onnx import OnnxRecommender
from recvae.serving.schemas import Question
from recvae.serving.server import serve
from recvae.serving.settings import Settings
from recvae.tuning import tune
from recvae_cli import console
from recvae_cli.app import app


def _default(function: Any, name: str) -> Any:
    return inspect.signature(function).parameters[name].default


OWNERS: dict[tuple[str, str], Any] = {
    ("preprocess", "min_rating"): f"{STARS_MIN_RATING:g} for stars from 1 to 5",
    ("preprocess", "min_user_items"): str(Filters.min_user_items),
    ("preprocess", "min_item_users"): str(Filters.min_item_users),
    ("preprocess", "split"): splits.SPLIT,
    ("preprocess", "target_share"): str(splits.TARGET_SHARE),
    ("preprocess", "heldout_users"): f"{1 / splits.ONE_HELD_OUT_OF:.0%}".replace("%", " %")
    + f", at most {splits.MOST_HELD_OUT:,}",
    ("preprocess", "seed"): splits.LIANG_SEED,
    ("preprocess", "users"): str(synthetic.N_USERS),
    ("preprocess", "items"): str(synthetic.N_ITEMS),
    ("preprocess", "events"): str(synthetic.N_EVENTS),
    ("recommend", "k"): DEFAULT_K,
    ("similar", "k"): DEFAULT_K,
    ("recommend", "diversify"): Request.diversify,
    ("plan", "seconds"): SECONDS,
    ("evaluate", "metrics"): DEFAULT_METRICS,
    ("compare", "metrics"): DEFAULT_METRICS,
    ("tune", "trials"): _default(tune, "trials"),
    ("tune", "seed"): _default(tune, "seed"),
    ("serve", "host"): _default(serve, "host"),
    ("serve", "port"): _default(serve, "port"),
    ("serve", "workers"): Settings.workers,
    ("serve", "format_"): Settings.format,
    ("serve", "device"): Settings.device,
    ("plot", "k"): str(_default(draw, "k")),
    ("plot", "metric"): _default(draw, "metric"),
    ("report", "k"): Report.k,
    ("report", "examples"): Report.n_examples,
    ("likelihood", "samples"): str(_default(likelihood, "n_samples")),
    ("likelihood", "seed"): _default(likelihood, "seed"),
    ("anomalies", "k"): DEFAULT_K,
    ("anomalies", "contamination"): _default(AnomalyDetector, "contamination"),
    ("anomalies", "samples"): _default(AnomalyDetector, "n_samples"),
    ("anomalies", "seed"): _default(AnomalyDetector, "seed"),
    ("generate", "users"): _default(generate, "n"),
    ("generate", "seed"): _default(generate, "seed"),
    ("units", "k"): DEFAULT_K,
    ("units", "sigmas"): _default(latent_units, "sigmas"),
    ("probe", "folds"): _default(probe, "folds"),
    ("probe", "least"): _default(probe, "least"),
    ("probe", "seed"): _default(probe, "seed"),
    ("segments", "n"): _default(find_segments, "n"),
    ("segments", "named_by"): _default(find_segments, "named_by"),
    ("segments", "seeds"): _default(find_segments, "seeds"),
    ("segments", "seed"): _default(find_segments, "seed"),
}
COMMAND = {  # what the command alone has
    "data_dir": console.DATA_DIR,
    "runs_dir": console.RUNS_DIR,
    "device": console.DEVICE,
}


def _options() -> Iterator[tuple[str, Any]]:
    """Yield every option of every verb."""
    verbs = cast(Any, typer.main.get_command(app)).commands
    for verb, command in verbs.items():
        for parameter in command.params:
            yield verb, parameter


def _shown(parameter: Any) -> Any:
    """Return the default that the help shows, None where it shows none."""
    shown = getattr(parameter, "show_default", None)
    return shown if isinstance(shown, str) else parameter.default


@pytest.mark.parametrize(("verb", "name"), OWNERS)
def test_the_command_has_the_defaults_of_the_library(verb: str, name: str) -> None:
    (shown,) = (_shown(option) for of, option in _options() if (of, option.name) == (verb, name))
    assert shown == OWNERS[verb, name]


def test_options_of_several_verbs_have_one_default() -> None:
    for verb, option in _options():
        if option.name in COMMAND and (verb, option.name) not in OWNERS:
            assert option.default == COMMAND[option.name], (verb, option.name)


def test_no_number_stands_in_the_command_without_an_owner() -> None:
    for verb, option in _options():
        value = option.default
        if isinstance(value, int | float) and not isinstance(value, bool) and (verb, option.name) not in OWNERS:
            assert (option.name, value) == ("seeds", 1), (verb, option.name)  # each run once, as it is


def test_every_way_to_prepare_data_has_the_same_defaults() -> None:
    protocol = Protocol()
    assert (protocol.min_user_items, protocol.min_item_users) == (Filters().min_user_items, Filters().min_item_users)
    for function in (split_events, Dataset.from_events):
        for name in ("seed", "target_share", "heldout_users"):
            assert _default(function, name) == getattr(protocol, name), (function, name)
    assert _default(split_events, "protocol") == _default(Dataset.from_events, "split") == protocol.split


@pytest.mark.parametrize("kind", [Recommender, OnnxRecommender])
def test_every_way_to_ask_has_the_same_defaults(kind: type[Any]) -> None:
    for function in (kind.recommend, kind.recommend_batch):
        for field in fields(Request):
            if field.name != "items":
                assert _default(function, field.name) == field.default, (function, field.name)
    assert _default(kind.similar_items, "k") == _default(Model.recommend, "k") == DEFAULT_K
    for name in ("k", "filter_seen", "diversify"):
        assert Question.model_fields[name].default == getattr(Request, name)


def test_the_help_lists_every_limit_of_a_server_with_its_default(command: Callable[..., Any]) -> None:
    help_text = " ".join(command("serve", "--help").out.split())
    settings = Settings()
    assert len(settings.limits()) == 11
    for field in fields(Settings):
        if "meaning" in field.metadata:
            assert f" {field.name} {field.default:.10g} {field.metadata['meaning']} " in f"{help_text} ", field.name


def test_json_is_a_flag_of_one_name_in_every_verb() -> None:
    flags = {verb: option for verb, option in _options() if "--json" in option.opts}
    assert {"datasets", "models", "plan", "preprocess", "inspect", "similar", "recommend", "export"} <= set(flags)
    for verb in sorted(flags):
        option = flags[verb]
        assert option.is_flag and option.name == "as_json", verb
