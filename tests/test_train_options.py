"""What `recvae train` offers beside hyperparameters: --max-memory and --find-beta; and what the new models refuse."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scipy.sparse as sp

from recvae.datasets.dataset import Dataset
from recvae.errors import TrainingError, UsageError
from recvae.models import MODELS, HVamp, Model, MultVAE
from recvae.models.common.hyperparameters import hyperparameters_of
from recvae.models.common.variational import find_beta
from recvae.training import trainer
from recvae.training.records import EpochRecord, NullMonitor

Command = Callable[..., Any]
Refused = Callable[..., str]

NETWORK = ("hidden_dim=8", "latent_dim=4", "epochs=3", "batch_size=50")
SMALL = {
    "multvae": ("hidden_dims=8", *NETWORK[1:]),
    "hvamp": (*NETWORK, "pseudo_inputs=3"),
    "vasp": (*NETWORK, "depth=2"),
    "ease": ("l2=20",),
    "edlae": ("l2=20",),
}
WITH_BETA = ["multvae", "hvamp", "vasp"]
BYTES_PER_PAIR = {"ease": 8, "edlae": 8}


def words_for(model: str, *settings: str) -> list[str]:
    """Return the command that trains a small model."""
    words = ["train", "--model", model]
    for setting in (*SMALL.get(model, ()), *settings):
        words += ["--set", setting]
    return words


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refused(toy: Path, workplace: Path, command: Command) -> Refused:
    """Return a function that types a command, and checks that it is refused with this code and changes nothing."""

    def check(code: int, *arguments: object) -> str:
        before = tree(workplace)
        said = command(*arguments)
        assert (said.code, said.out) == (code, ""), said.err
        assert said.err.count("error: ") == 1 and "Traceback" not in said.err
        assert tree(workplace) == before
        return said.err.partition("error: ")[2]

    return check


def card_of(name: str) -> dict[str, Any]:
    return json.loads(Path("runs/toy", name, "recommender.json").read_text())


def weights_of(name: str) -> bytes:
    return Path("runs/toy", name, "weights.safetensors").read_bytes()


@pytest.mark.parametrize("model", BYTES_PER_PAIR)
def test_too_little_memory_is_refused_and_leaves_nothing_and_enough_is_not(
    model: str, refused: Refused, command: Command
) -> None:
    n_items = Dataset.load("data/toy").train.shape[1]
    needed = BYTES_PER_PAIR[model] * n_items**2
    said = refused(1, *words_for(model), "--max-memory", str(needed - 1))
    assert f"{model} on {n_items:,} items needs {needed / 1000:.1f} kB of memory" in said
    assert "is allowed by --max-memory; raise --max-memory, leave out rare items" in said
    assert not list(Path("runs").rglob("*.json")) and not Path("runs/toy", model).exists()
    assert refused(2, "train", "--resume").startswith("no unfinished run")
    ended = command(*words_for(model), "--max-memory", str(needed))
    assert ended.code == 0 and "max_memory" not in card_of(model)["hyperparameters"], ended.err
    before = tree(Path("runs"))
    refused(1, *words_for(model), "--max-memory", "1kB", "--overwrite")
    assert tree(Path("runs")) == before, "the finished run stays"


def test_a_refusal_for_memory_is_told_in_its_own_words(refused: Refused) -> None:
    assert refused(1, *words_for("ease"), "--max-memory", "1kB").startswith("ease on ")


def test_memory_does_not_change_what_is_learned(toy: Path, command: Command) -> None:
    for model in ("ease", "vasp"):
        assert command(*words_for(model)).code == 0
        assert command(*words_for(model), "--max-memory", "8GB", "--name", f"{model}-8").code == 0
        assert weights_of(model) == weights_of(f"{model}-8")
        assert card_of(model)["hyperparameters"] == card_of(f"{model}-8")["hyperparameters"]


@pytest.mark.parametrize("amount", ["lots", "0", "-8GB", "8XB", "1e9", ""])
@pytest.mark.parametrize("model", ["ease", "multvae"])
def test_a_bad_amount_of_memory_is_refused(amount: str, model: str, refused: Refused) -> None:
    said = refused(2, *words_for(model), f"--max-memory={amount}")
    assert f"got '{amount}' for an amount of memory, expected a number and a unit, such as 8GB or 500MiB" in said


@pytest.mark.parametrize("model", WITH_BETA)
def test_the_settings_found_for_beta_are_told_used_and_can_be_typed_again(
    model: str, toy: Path, command: Command
) -> None:
    said = command(*words_for(model), "--find-beta", "--seed", 4)
    assert said.code == 0, said.err
    line = next(line for line in said.err.splitlines() if line.startswith("the pilot was best on validation with beta"))
    settings = shlex.split(line.partition("training again with ")[2])
    found = dict(setting.split("=") for setting in settings[1::2])
    assert settings[::2] == ["--set"] * 3 and list(found) == ["beta", "anneal", "anneal_steps"]
    used = card_of(model)["hyperparameters"]
    assert {name: str(used[name]) for name in found} == found
    assert 0 <= used["beta"] <= 1 and used["anneal"] == "linear" and used["seed"] == 4
    highest = ", the highest it tries" if used["beta"] == 1 else ""
    assert f"beta {used['beta']:.4g}{highest};" in line
    again = command(*words_for(model), "--seed", 4, *settings, "--name", "again")
    assert again.code == 0 and weights_of("again") == weights_of(model)
    assert card_of("again")["hyperparameters"] == used and card_of("again")["metrics"] == card_of(model)["metrics"]
    assert sorted(path.name for path in Path("runs/toy").iterdir()) == sorted(["again", model])


@pytest.mark.parametrize(("anneal_steps", "slope"), [(None, 1 / round(0.85 * 8 * 3)), (16, 1 / 16)])
def test_beta_is_that_of_the_pilots_best_epoch_on_the_same_slope(
    anneal_steps: int | None, slope: float, blocks: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    ndcg = iter([0.1, 0.2, 0.5, 0.3, 0.5, 0.4, 0.1, 0.1])
    records: list[EpochRecord] = []

    class Watch(NullMonitor):
        def epoch(self, record: EpochRecord) -> None:
            records.append(record)

    settings = {"hidden_dims": (8,), "latent_dim": 4, "epochs": 8, "batch_size": 40, "learning_rate": 0.01}
    model = MultVAE(**settings, beta=0.1, anneal="cyclical", anneal_steps=anneal_steps)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "look_at", lambda *_: lambda *_: (next(ndcg),) * 2)
        found = find_beta(model, blocks.train, blocks.validation, "cpu", Watch())
    assert (model.beta, model.anneal, model.n_items_) == (0.1, "cyclical", 0), "a copy was trained"
    assert [record.beta for record in records] == pytest.approx([min(1, slope * (3 * e - 1)) for e in range(1, 9)])
    best = records[2]
    assert found == {"beta": best.beta, "anneal": "linear", "anneal_steps": 8}, "the last of 9 updates comes after 8"
    again = MultVAE(**settings | found).fit(blocks.train, blocks.validation, device="cpu")
    until_then = [record.beta for record in records[: best.epoch]]
    assert [record.beta for record in again.log_[: best.epoch]] == pytest.approx(until_then)
    assert again.log_[-1].beta == found["beta"]


@pytest.mark.parametrize("model", ["recvae", "multdae", "ae", "ease", "edlae", "als", "popularity"])
def test_beta_is_not_found_for_a_model_without(model: str, refused: Refused, command: Command) -> None:
    said = refused(2, "train", "--model", model, "--find-beta")
    assert f"got {model}, which has no beta to find; use a model that has: multvae, hvamp or vasp" in said
    assert not Path("runs").exists()


def test_models_with_a_beta_to_find_are_those_that_the_refusal_names(make_model: Any, blocks: Dataset) -> None:
    assert [name for name in MODELS if "beta" in hyperparameters_of(MODELS[name])] == WITH_BETA
    for name in set(MODELS) - set(WITH_BETA):
        model: Model = make_model(name)
        with pytest.raises(UsageError, match=f"got {name}, which has no beta to find; .* multvae, hvamp or vasp"):
            find_beta(model, blocks.train, blocks.validation)


@pytest.mark.parametrize("other", ["--find-beta", "--overwrite"])
def test_a_resumed_run_neither_looks_for_beta_nor_replaces_another(other: str, refused: Refused) -> None:
    said = refused(2, "train", "--resume", other)
    assert f"got --resume with {other}; a resumed run keeps its place and settings, leave one out" in said


@pytest.mark.parametrize("setting", ["beta=0.7", "anneal=cosine"])
def test_what_is_to_be_found_cannot_be_set_as_well(setting: str, refused: Refused) -> None:
    said = refused(2, "train", "--model", "multvae", "--find-beta", "--set", setting)
    assert f"got --find-beta with --set {setting}, which it would replace; leave one out" in said


def test_a_pilot_that_is_best_before_beta_grows_has_no_cap_to_offer(blocks: Dataset) -> None:
    """With one update per epoch beta is still 0 in the first; trained again there would be no KL term at all."""
    model = MultVAE(hidden_dims=(4,), latent_dim=2, epochs=3, batch_size=500, learning_rate=0.0)
    with pytest.raises(TrainingError, match=r"best before beta began to grow, .* train with --set beta=0, or set a"):
        find_beta(model, blocks.train, blocks.validation, "cpu")


def test_without_validation_targets_there_is_no_beta_to_find(
    workplace: Path, command: Command, blocks: Dataset
) -> None:
    lines = [(user, [(user * 7 + step) % 30 for step in range(9)]) for user in range(40)]
    Path("train.txt").write_text("".join(f"{u} {' '.join(map(str, items[:7]))}\n" for u, items in lines))
    Path("test.txt").write_text("".join(f"{u} {' '.join(map(str, items[7:]))}\n" for u, items in lines))
    assert command("preprocess", "--train", "train.txt", "--test", "test.txt", "--name", "pair").code == 0
    said = command(*words_for("multvae"), "--find-beta")
    assert (said.code, said.out) == (2, "") and not Path("runs").exists()
    assert "error: got no validation user with a target to choose beta by; hold out more users" in said.err
    model = HVamp(hidden_dim=4, latent_dim=2, pseudo_inputs=2, epochs=1)
    nobody = blocks.validation.fold_in, sp.csr_matrix(blocks.validation.targets.shape)
    with pytest.raises(UsageError, match="got no validation user with a target to choose beta by"):
        find_beta(model, blocks.train, nobody)


@pytest.mark.parametrize(("beta", "remark"), [(1.0, "with beta 1, the highest it tries;"), (0.5, "with beta 0.5;")])
def test_a_pilot_that_is_best_at_its_end_says_so(
    beta: float, remark: str, toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"beta": beta, "anneal": "linear", "anneal_steps": 3}
    monkeypatch.setattr("recvae.models.common.variational.find_beta", lambda *_: found)
    assert f"the pilot was best on validation {remark}" in command(*words_for("multvae"), "--find-beta").err


def test_ctrl_c_in_the_pilot_leaves_nothing(toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recvae.models.common.variational.find_beta", interrupted)
    said = command(*words_for("multvae"), "--find-beta")
    assert said.code == 130 and "interrupted in the pilot: nothing is kept" in said.err
    assert not Path("runs").exists()


def test_a_pilot_that_diverges_ends_the_search(toy: Path, command: Command) -> None:
    said = command(*words_for("multvae", "learning_rate=1e38"), "--find-beta")
    assert (said.code, said.out) == (1, "") and "the loss is no longer a number" in said.err
    assert not Path("runs").exists()


def test_a_pilot_is_refused_like_the_run_for_memory_and_bad_values(refused: Refused) -> None:
    assert "vasp on " in refused(1, *words_for("vasp"), "--find-beta", "--max-memory", "1kB")
    said = refused(2, *words_for("vasp", "anneal_fraction=2"), "--find-beta")
    assert "got anneal_fraction=2.0, expected a number, at least 0 and at most 1" in said


def test_ctrl_c_in_the_pilot_is_passed_on(blocks: Dataset) -> None:
    class Stop(NullMonitor):
        def epoch(self, record: EpochRecord) -> None:
            if record.epoch == 2:
                raise KeyboardInterrupt

    model = MultVAE(hidden_dims=(8,), latent_dim=4, epochs=6, batch_size=40)
    with pytest.raises(KeyboardInterrupt):
        find_beta(model, blocks.train, blocks.validation, "cpu", Stop())


OUT_OF_RANGE = [  # model, setting, what is said
    ("recvae", "likelihood=bernoulli", "got unknown hyperparameter 'likelihood'"),
    ("recvae", "beta=0.2", "got unknown hyperparameter 'beta'"),
    ("recvae", "gamma=-0.1", "got gamma=-0.1, expected a number, 0 or more"),
    ("recvae", "depth=0", "got depth=0, expected a whole number, 1 or more"),
    ("recvae", "encoder_passes=0", "got encoder_passes=0, expected a whole number, 1 or more"),
    ("recvae", "decoder_passes=0", "got decoder_passes=0, expected a whole number, 1 or more"),
    ("recvae", "dropout=1", "got dropout=1.0, expected a number, at least 0 and below 1"),
    ("recvae", "anneal=step", "got anneal='step', expected one of linear, constant, cosine, cyclical"),
    ("multvae", "likelihood=poisson", "got likelihood='poisson', expected one of multinomial, bernoulli, gaussian"),
    ("multvae", "confidence=0.5", "got confidence=0.5, expected a number, 1 or more"),
    ("multvae", "anneal=step", "got anneal='step', expected one of linear, constant, cosine, cyclical"),
    ("multvae", "anneal_cycles=0", "got anneal_cycles=0, expected a whole number, 1 or more"),
    ("multvae", "anneal_fraction=1.5", "got anneal_fraction=1.5, expected a number, at least 0 and at most 1"),
    ("multvae", "anneal_steps=-1", "got anneal_steps=-1, expected a whole number, 0 or more (or none)"),
    ("hvamp", "likelihood=gaussian", "got likelihood='gaussian', expected one of multinomial, bernoulli"),
    ("hvamp", "pseudo_inputs=0", "got pseudo_inputs=0, expected a whole number, 1 or more"),
    ("hvamp", "beta=nan", "got beta=nan, expected a number, 0 or more"),
    ("hvamp", "hidden_dims=8", "did you mean hidden_dim?"),
    ("vasp", "joint=both", "got joint='both', expected one of sum, product"),
    ("vasp", "shallow_decay=-1", "got shallow_decay=-1.0, expected a number, 0 or more"),
    ("vasp", "dropout=0.5", "got unknown hyperparameter 'dropout'"),
    ("ae", "likelihood=poisson", "got likelihood='poisson', expected one of multinomial, bernoulli, gaussian"),
    ("ae", "noise=masking", "got unknown hyperparameter 'noise'"),
    ("multdae", "noise=pink", "got noise='pink', expected one of masking, gaussian, salt-and-pepper"),
    ("multdae", "noise_level=2", "got noise_level=2.0, expected a number, at least 0 and at most 1"),
    ("ease", "l2=-1", "got l2=-1.0, expected a number, 0 or more"),
    ("ease", "top_k=0", "got top_k=0, expected a whole number, 1 or more (or none)"),
    ("ease", "seed=1", "got unknown hyperparameter 'seed'"),
    ("edlae", "dropout=1", "got dropout=1.0, expected a number, at least 0 and below 1"),
]


@pytest.mark.parametrize(("model", "setting", "said"), OUT_OF_RANGE, ids=lambda value: str(value)[:40])
def test_a_value_that_a_model_does_not_have_or_allow_is_refused(
    model: str, setting: str, said: str, refused: Refused
) -> None:
    assert said in refused(2, "train", "--model", model, "--set", setting)
    assert not Path("runs").exists()


def test_pruning_is_told_with_what_it_costs(toy: Path, command: Command) -> None:
    said = command(*words_for("ease", "top_k=3"))
    pruning = card_of("ease")["training"]["pruning"]
    before, after = (f"{pruning[f'ndcg@100 {when}']:.4f}" for when in ("before", "after"))
    assert said.code == 0 and f"pruned to {pruning['kept']:.2%} of the weights" in said.out
    assert f"validation ndcg@100 {before} -> {after}" in said.out
    assert after == f"{card_of('ease')['metrics']['validation']['ndcg@100']:.4f}"


def test_models_are_listed_by_name(command: Command) -> None:
    said = command("models", "ease", "als")
    assert said.code == 0 and "ease  " in said.out and "als  " in said.out and "multvae" not in said.out
    assert list(json.loads(command("models", "als", "--json").out)) == ["als"]
    assert "got model 'alsa', expected one of" in (refused := command("models", "alsa")).err and refused.code == 2


def test_all_models_are_listed_also_as_json(command: Command) -> None:
    listed = command("models", *MODELS)
    about = json.loads(command("models", "--json").out)
    assert listed.code == 0 and list(about) == list(MODELS)
    assert {"ae", "recvae", "hvamp", "vasp", "ease", "edlae", "blend"} < set(about)
    for name, model in MODELS.items():
        assert f"{name}  {model.paper}" in listed.out and about[name]["paper"] == model.paper
        for known in hyperparameters_of(model).values():
            default = list(known.default) if isinstance(known.default, tuple) else known.default
            entry = {"default": default, "expected": known.expected, "meaning": known.meaning}
            told = about[name]["hyperparameters"][known.name]
            assert {key: value for key, value in told.items() if key != "searched"} == entry
            assert bool(told["searched"]) == (known.name in model.space)
    assert about["multvae"]["hyperparameters"]["beta"]["searched"] == "0.1 to 1 (log)"
    assert about["als"]["hyperparameters"]["factors"]["searched"] == "64 200" and "64 200" in listed.out
