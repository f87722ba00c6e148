"""Hyperparameters: what a model refuses at `fit`, and how settings are read from a command line or JSON."""

import json
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from recvae.errors import UsageError
from recvae.models import MODELS, MultVAE, Popularity
from recvae.models.common.hyperparameters import (
    Hyperparameter,
    build,
    check_hyperparameters,
    hyperparameters_of,
    parse_settings,
    values_of,
)

TRAIN = sp.csr_matrix(np.ones((2, 3), dtype=np.float32))
ALL = [(name, known) for name in MODELS for known in hyperparameters_of(MODELS[name]).values()]
IDS = [f"{name}-{known.name}" for name, known in ALL]

CLASSES: dict[str, Any] = dict(MODELS)
OF_WRONG_TYPE: dict[type, tuple[Any, ...]] = {
    int: (1.0, "1", True, float("nan"), [1], np.float32(1)),
    float: ("0.1", True, float("nan"), float("inf"), -float("inf"), 10**400, 1j, [0.1]),
    bool: (1, "true", 0.0),
    str: (3, "no such choice", ["linear"], b"linear"),
    tuple: (8, "8", (8.0,), (True,), (8, None), ("8",)),
}


@pytest.mark.parametrize(("name", "known"), ALL, ids=IDS)
def test_values_of_a_wrong_type_are_refused_at_fit_by_name_and_value(name: str, known: Hyperparameter) -> None:
    for value in OF_WRONG_TYPE[known.type] + (() if known.optional else (None,)):
        if known.type is str and not known.choices and isinstance(value, str):
            continue  # any word will do
        model = CLASSES[name](**{known.name: value})
        with pytest.raises(UsageError) as caught:
            model.fit(TRAIN)
        assert str(caught.value) == f"got {known.name}={value!r}, expected {known.expected}; {known.meaning}"


@pytest.mark.parametrize(("name", "known"), ALL, ids=IDS)
def test_values_out_of_range_are_refused_and_those_at_its_ends_are_not(name: str, known: Hyperparameter) -> None:
    others = hyperparameters_of(CLASSES[name])
    enabling = {known.only_with[0]: known.only_with[1]} if known.only_with and known.only_with[0] in others else {}
    if any(not others[other].allows(value) for other, value in enabling.items()):
        pytest.skip("this model never lets it have an effect")

    def allows(value: Any) -> bool:
        try:
            given = {known.name: (5, value) if known.type is tuple else value}
            check_hyperparameters(CLASSES[name](**given, **enabling))
        except UsageError:
            return False
        return True

    if known.low is not None:
        assert allows(known.low)
        assert not allows(known.low - 1)
    if known.high is not None:
        assert allows(known.high) != known.below_high
        assert not allows(known.high + 1)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("multvae", {"latent_dim": 0}, "got latent_dim=0, expected a whole number, 1 or more; number of latent variab"),
        ("multvae", {"dropout": 1.5}, r"got dropout=1\.5, expected a number, at least 0 and below 1; share of a user"),
        ("multvae", {"dropout": 1.0}, r"got dropout=1\.0, expected a number, at least 0 and below 1"),
        ("multvae", {"hidden_dims": (600, 0)}, r"got hidden_dims=\(600, 0\), expected whole numbers separated by com"),
        ("multvae", {"beta": -0.1}, r"got beta=-0\.1, expected a number, 0 or more"),
        (
            "multvae",
            {"anneal": "steps"},
            "got anneal='steps', expected one of linear, constant, cosine, cyclical; how",
        ),
        ("multvae", {"anneal_fraction": 1.1}, r"expected a number, at least 0 and at most 1"),
        ("multvae", {"anneal_steps": -1}, r"got anneal_steps=-1, expected a whole number, 0 or more \(or none\)"),
        ("multvae", {"learning_rate": float("nan")}, "got learning_rate=nan, expected a number, 0 or more"),
        ("multdae", {"latent_dim": 0}, "got latent_dim=0"),
        ("multdae", {"dropout": 1.5}, r"got dropout=1\.5"),
        ("multdae", {"weight_decay": -1e-9}, "got weight_decay=-1e-09"),
        ("multdae", {"epochs": 0}, "got epochs=0, expected a whole number, 1 or more; passes over the training users"),
        ("multdae", {"batch_size": 0}, "got batch_size=0"),
        ("multdae", {"seed": 2**32}, "got seed=4294967296"),
        ("als", {"factors": 0}, "got factors=0"),
        ("als", {"iterations": 0}, "got iterations=0"),
        ("als", {"regularization": -1.0}, r"got regularization=-1\.0"),
        ("als", {"alpha": "10"}, "got alpha='10', expected a number, 0 or more; confidence of an observed"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MODELS[name](**values).fit(TRAIN)
    with pytest.raises(UsageError, match=message):
        build(MODELS[name], values)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "multdae",
            {"dropout": 0.3, "noise": "gaussian"},
            r"got dropout=0\.3 with noise=gaussian, where it has no effect; leave it out, or set noise=masking",
        ),
        ("multdae", {"noise_level": 0.3}, "with noise=masking, .* or set noise=gaussian or salt-and-pepper"),
        ("multvae", {"confidence": 5.0}, "with likelihood=multinomial, .* or set likelihood=gaussian"),
        ("ae", {"confidence": 5.0, "likelihood": "bernoulli"}, "with likelihood=bernoulli"),
        ("recvae", {"anneal_cycles": 2}, "with anneal=constant, .* or set anneal=cyclical"),
    ],
)
def test_what_would_have_no_effect_is_refused(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MODELS[name](**values).fit(TRAIN)
    older = MODELS[name](**MODELS[name].earlier, **values)
    assert build(MODELS[name], values, effects=False) == older, "as an older bundle may have it"
    first = next(iter(values))
    default = hyperparameters_of(MODELS[name])[first].default
    check_hyperparameters(MODELS[name](**{**values, first: default}))  # the default is what any card says


def test_values_survive_json(model_name: str) -> None:
    model = MODELS[model_name]()
    copy = build(MODELS[model_name], json.loads(json.dumps(values_of(model))))
    assert copy == model
    assert values_of(copy) == values_of(model)


@pytest.mark.parametrize(("name", "known"), ALL, ids=IDS)
def test_defaults_can_be_written_on_the_command_line(name: str, known: Hyperparameter) -> None:
    text = ",".join(map(str, known.default)) if known.type is tuple else str(known.default)
    values = parse_settings(MODELS[name], [f" {known.name} = {text} "])
    assert values == {known.name: known.default}
    assert type(values[known.name]) is type(known.default)


def test_settings_are_read_as_declared_and_a_later_one_wins() -> None:
    settings = ["beta=1", "hidden_dims=600, 300", "anneal_steps=none", "dropout=0.1", "dropout=0.3", "anneal=constant"]
    values = parse_settings(MultVAE, settings)
    assert values == {
        "beta": 1.0,
        "hidden_dims": (600, 300),
        "anneal_steps": None,
        "dropout": 0.3,
        "anneal": "constant",
    }
    assert isinstance(values["beta"], float)
    assert build(MultVAE, values).hidden_dims == (600, 300)


@pytest.mark.parametrize("text", ["TRUE", "yes", "1", "False", "no", "0"])
def test_booleans_are_read_from_the_usual_words(text: str) -> None:
    known = Hyperparameter("flag", bool, False, True, "whether")
    assert known.parse(text) is (text in ("TRUE", "yes", "1"))
    assert not known.allows(known.parse("maybe"))
    assert known.expected == "true or false"


@given(st.text())
def test_no_text_breaks_the_reading_of_a_setting(text: str) -> None:
    for known in hyperparameters_of(MultVAE).values():
        known.allows(known.parse(text))


@pytest.mark.parametrize("setting", ["beta", "=3", " = 3", ""])
def test_a_setting_without_name_or_value_is_refused(setting: str) -> None:
    with pytest.raises(UsageError, match=r"got --set '.*', expected name=value, such as --set epochs=\.\.\."):
        parse_settings(MultVAE, [setting])
    with pytest.raises(UsageError, match=r"expected name=value, such as --set name=\.\.\."):
        parse_settings(Popularity, [setting])  # it has none to show


def test_a_setting_that_cannot_be_read_is_refused_as_it_was_written() -> None:
    with pytest.raises(UsageError, match="got epochs='ten', expected a whole number, 1 or more"):
        build(MultVAE, parse_settings(MultVAE, ["epochs=ten"]))


def test_an_unknown_hyperparameter_is_refused_with_the_nearest_and_the_list() -> None:
    values = parse_settings(MultVAE, ["latent_dims=3"])
    with pytest.raises(
        UsageError, match=r"unknown hyperparameter 'latent_dims'; did you mean latent_dim.* MultVAE has"
    ):
        build(MultVAE, values)
    with pytest.raises(UsageError, match="got unknown hyperparameter 'zzz'; MultVAE has: epochs, batch_size, learning"):
        build(MultVAE, {"zzz": 1})
    with pytest.raises(UsageError, match="got unknown hyperparameter 'k'; Popularity has: none"):
        build(Popularity, {"k": 1})
