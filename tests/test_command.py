"""The command as a user types it: the whole way, what it prints where, and how it finds and keeps things."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recvae.datasets.catalog.known import CATALOG
from recvae.datasets.synthetic import synthetic_log, write_ratings_csv
from recvae.evaluation import baselines
from recvae.models import ALS, IALS, MODELS
from recvae.models.common.hyperparameters import hyperparameters_of
from recvae.recommenders.recommender import Recommender
from recvae_cli.app import app

VERBS = tuple(command.name for command in app.registered_commands if command.name)
SMALL = ("--set", "hidden_dims=16", "--set", "latent_dim=8", "--set", "epochs=3", "--set", "batch_size=50")
QUICK = ("--model", "popularity")

Command = Callable[..., Any]


def next_command(said: Any) -> str:
    """Return the command that is named as the next one to type."""
    return said.err.rpartition("next: ")[2].splitlines()[0]


@pytest.fixture(scope="module")
def story(
    tmp_path_factory: pytest.TempPathFactory, shell: Command, command: Command, small_settings: Command
) -> dict[str, Any]:
    """Go the whole way once: what each step said, and "folder", where it all lies."""
    folder = tmp_path_factory.mktemp("story")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("RECVAE_DATA", raising=False)
        patch.setattr(ALS, "grid", {"factors": (4, 8), "alpha": (2.0,)})
        patch.setattr(IALS, "grid", {"factors": (2,), "regularization": (0.5,)})
        events, _ = synthetic_log(n_users=300, n_items=200, n_events=12_000, seed=4)
        write_ratings_csv(events, folder / "ratings.csv")
        said = {"preprocess": shell("preprocess", "ratings.csv", "--name", "films")}
        said["multvae"] = shell("train", *SMALL)
        for name in [name for name in MODELS if name not in said]:
            settings = dict(zip(MODELS[name].roles, ("multdae", "ease"), strict=False)) | small_settings(name)
            said[name] = command("train", "--model", name, *(f"--set={key}={value}" for key, value in settings.items()))
        runs = [f"films/{name}" for name in MODELS]
        said["evaluate"] = command("evaluate", *runs)
        said["report"] = command("evaluate", *runs, "--output", "report.json", "--per-user", "users.parquet")
    return {**said, "folder": folder}


def test_the_whole_way_from_a_log_to_a_comparison_ends_well(story: dict[str, Any]) -> None:
    for step in ("preprocess", *MODELS, "evaluate", "report"):
        assert story[step].code == 0, story[step].err
    for name in MODELS:
        recommender = Recommender.load(story["folder"] / "runs" / "films" / name)
        assert len(recommender.recommend(recommender.item_ids[:3], k=5)) == 5


def test_results_go_to_the_standard_output_and_everything_else_to_the_standard_error(story: dict[str, Any]) -> None:
    results = {
        "preprocess": ("events after each filter", "rating >= 4", "without target", "fingerprint"),
        "multvae": ("best epoch", "validation: recall@20", "saved to runs/films/multvae after"),
        "evaluate": ("ndcg@100", "│ multvae", "als (baseline)", "paired by user", "chosen on validation"),
    }
    remarks = {
        "preprocess": ("reading ratings.csv", "writing data/films", "next: recvae train"),
        "multvae": ("training multvae on data/films -> runs/films/multvae", "next: recvae evaluate"),
        "evaluate": ("evaluating runs/films/", "on the test users of data/films", "next: python"),
    }
    for step, words in results.items():
        for word in words:
            assert word in story[step].out and word not in story[step].err, (step, word)
    for step, words in remarks.items():
        for word in words:
            assert word in story[step].err and word not in story[step].out, (step, word)


def test_the_command_named_as_the_next_one_can_be_typed_as_it_stands(
    story: dict[str, Any], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(story["folder"])
    train, evaluate = shlex.split(next_command(story["preprocess"])), shlex.split(next_command(story["multvae"]))
    assert (train[0], evaluate[0]) == ("recvae", "recvae")
    said = command(*train[1:], *SMALL, "--runs-dir", "elsewhere")
    assert said.code == 0, said.err
    assert command(*evaluate[1:], "--baselines", "none").code == 0
    python, *words = shlex.split(next_command(story["evaluate"]))
    assert python == "python"
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0 and "title" in done.stdout, done.stderr


def test_the_report_as_json_has_the_promised_form(story: dict[str, Any]) -> None:
    report = json.loads((story["folder"] / "report.json").read_text())
    manifest = json.loads((story["folder"] / "data" / "films" / "manifest.json").read_text())
    runs = report.pop("runs")
    assert report == {
        "dataset": "films",
        "protocol": manifest["protocol"],
        "fingerprint": manifest["fingerprint"],
        "split": "test",
        "n_users": manifest["counts"]["test_users"] - manifest["counts"]["test_users_without_target"],
        "n_users_without_target": manifest["counts"]["test_users_without_target"],
        "confidence": 0.95,
        "test": "two-sided paired t-test over users, Holm over runs",
        "baseline": "als (baseline)",
    }
    by_name = {run["name"]: run for run in runs}
    assert set(by_name) == {*MODELS, "als (baseline)", "ials (baseline)", "popularity (baseline)"}
    assert [name for name, run in by_name.items() if run["baseline"]] == [
        name for name in by_name if name.endswith("(baseline)")
    ]
    means = [run["metrics"]["ndcg@100"]["mean"] for run in runs]
    assert means == sorted(means, reverse=True)
    for run in runs:
        known = hyperparameters_of(MODELS[run["model"]])
        assert list(run["hyperparameters"]) == list(known)
        assert list(run["metrics"]) == ["recall@20", "recall@50", "ndcg@100"]
        for value in run["metrics"].values():
            assert set(value) == {"mean", "low", "high", "se"}
            assert 0 <= value["low"] < value["mean"] < value["high"] <= 1 and value["se"] > 0
    multvae, baseline = by_name["multvae"], by_name["als (baseline)"]
    assert multvae["hyperparameters"]["hidden_dims"] == [16] and multvae["hyperparameters"]["latent_dim"] == 8
    assert {run["difference"]["to"] for run in runs if run is not baseline} == {"als (baseline)"}
    assert set(multvae["difference"]["metrics"]["ndcg@100"]) >= {"mean", "se", "low", "high", "p", "p_holm"}
    assert "difference" not in baseline
    assert "of 4/8" in by_name["als (baseline)"]["note"]
    assert "baseline: als (baseline) (highest validation ndcg@100: als (baseline) 0." in story["evaluate"].out


def test_the_per_user_file_has_a_row_per_run_and_user_whose_means_are_those_of_the_report(
    story: dict[str, Any],
) -> None:
    report = json.loads((story["folder"] / "report.json").read_text())
    table = pq.read_table(story["folder"] / "users.parquet").to_pandas()
    users = report["n_users"] + report["n_users_without_target"]
    assert table.groupby("run", sort=False).size().to_dict() == {run["name"]: users for run in report["runs"]}
    assert not table.duplicated(["run", "user"]).any()
    for run in report["runs"]:
        rows = table[table["run"] == run["name"]]
        for metric, value in run["metrics"].items():
            assert rows[metric].mean() == pytest.approx(value["mean"], abs=1e-12)
            assert rows[metric].sem() == pytest.approx(value["se"], abs=1e-12)


def test_json_of_every_verb_is_all_that_is_on_the_standard_output(toy: Path, command: Command) -> None:
    prepared = json.loads(
        command("preprocess", "synthetic", "--users", 100, "--items", 80, "--events", 2000, "--json").out
    )
    assert prepared["counts"]["train_users"] > 0 and prepared["folder"] == "data/synthetic"
    datasets = json.loads(command("datasets", "--json").out)
    assert {entry["name"] for entry in datasets["known"]} == {*CATALOG, "synthetic"}
    assert datasets["prepared"] == {"toy": "data/toy", "synthetic": "data/synthetic"}
    models = json.loads(command("models", "--json").out)
    assert {name: list(about["hyperparameters"]) for name, about in models.items()} == {
        name: list(hyperparameters_of(model)) for name, model in MODELS.items()
    }
    trained = json.loads(command("train", *QUICK, "--data", "toy", "--json").out)
    assert (trained["folder"], trained["model"], trained["interrupted"]) == ("runs/toy/popularity", "popularity", False)
    assert trained["metrics"]["validation"]["ndcg@100"] > 0
    report = json.loads(command("evaluate", "--baselines", "none", "--split", "validation", "--json").out)
    assert report["split"] == "validation"
    reached = {name: value["mean"] for name, value in report["runs"][0]["metrics"].items()}
    assert reached == pytest.approx(trained["metrics"]["validation"])


def test_baselines_are_kept_beside_the_data_set_and_fitted_once(
    toy: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ALS, "grid", {"factors": (4, 8)})
    monkeypatch.setattr(IALS, "grid", {"factors": (4,)})
    fitted = []
    fit = baselines.fit_baseline
    monkeypatch.setattr(
        baselines, "fit_baseline", lambda model, *rest, **more: fitted.append(model.name) or fit(model, *rest, **more)
    )
    command("train", *QUICK)
    first = command("evaluate", "--json")
    assert fitted == ["als", "ials", "popularity"]
    assert {path.name for path in (toy / "baselines").iterdir()} == {"als", "ials", "popularity"}
    assert command("evaluate", "--json").out == first.out and len(fitted) == 3
    (toy / "baselines" / "als" / "weights.safetensors").write_bytes(b"damaged")
    again = json.loads(command("evaluate", "--json").out)
    for run, before in zip(again["runs"], json.loads(first.out)["runs"], strict=True):
        assert run == before | {"training_seconds": run["training_seconds"]}
    assert fitted[3:] == ["als"]
    monkeypatch.setattr(ALS, "grid", {"factors": (4,)})
    assert command("evaluate", "--json").code == 0 and fitted[4:] == ["als"], "another grid is another baseline"


def test_without_baselines_the_runs_stand_alone(toy: Path, command: Command) -> None:
    command("train", *QUICK)
    report = json.loads(command("evaluate", "--baselines", "none", "--json").out)
    assert [run["name"] for run in report["runs"]] == ["popularity"] and "difference" not in report["runs"][0]
    assert not (toy / "baselines").exists()


def test_a_run_or_baseline_named_twice_is_measured_once(toy: Path, command: Command) -> None:
    command("train", *QUICK)
    words = ("evaluate", "popularity", "toy/popularity", "--baselines", "popularity,popularity", "--json")
    names = [run["name"] for run in json.loads(command(*words).out)["runs"]]
    assert names == ["popularity", "popularity (baseline)"]


def test_the_newest_data_set_and_run_are_taken_and_named_where_none_is_named(toy: Path, command: Command) -> None:
    command("preprocess", "synthetic", "--users", 100, "--items", 80, "--events", 2000, "--name", "other")
    for newest, older in (("toy", "other"), ("other", "toy")):
        os.utime(f"data/{older}/manifest.json", (1e9, 1e9))
        os.utime(f"data/{newest}/manifest.json")
        said = command("train", *QUICK)
        assert f"training popularity on data/{newest} -> runs/{newest}/popularity" in said.err
    for newest, older in (("toy", "other"), ("other", "toy")):
        os.utime(f"runs/{older}/popularity/recommender.json", (1e9, 1e9))
        os.utime(f"runs/{newest}/popularity/recommender.json")
        said = command("evaluate", "--baselines", "none")
        assert f"evaluating runs/{newest}/popularity on the test users of data/{newest}" in said.err
        assert said.out.startswith(f"{newest}: ")


def test_what_is_still_being_written_is_not_taken_for_the_newest(toy: Path, command: Command) -> None:
    command("train", *QUICK)
    shutil.copytree(toy, "data/.toy.1.tmp")
    shutil.copytree("runs/toy/popularity", "runs/toy/.popularity.new")
    for half in ("data/.toy.1.tmp/manifest.json", "runs/toy/.popularity.new/recommender.json"):
        os.utime(half, (2e9, 2e9))
    assert "on data/toy -> runs/toy/popularity-2" in command("train", *QUICK).err
    assert "evaluating runs/toy/popularity-2 on" in command("evaluate", "--baselines", "none").err
    assert json.loads(command("datasets", "--json").out)["prepared"] == {"toy": "data/toy"}


def test_a_second_run_gets_a_new_name_and_the_first_stays(toy: Path, command: Command) -> None:
    command("train", *QUICK)
    card = Path("runs/toy/popularity/recommender.json").read_bytes()
    assert "saved to runs/toy/popularity-2" in command("train", *QUICK).out
    assert "saved to runs/toy/popularity-3" in command("train", *QUICK).out
    assert "saved to runs/toy/mine after" in command("train", *QUICK, "--name", "mine").out
    assert Path("runs/toy/popularity/recommender.json").read_bytes() == card


def test_overwriting_keeps_the_old_run_until_the_new_one_is_whole(toy: Path, command: Command) -> None:
    assert command("train", *SMALL).code == 0
    before = {path.name: path.read_bytes() for path in Path("runs/toy/multvae").iterdir()}
    said = command("train", *SMALL, "--set", "learning_rate=1e30", "--overwrite")
    assert said.code == 1 and "lower learning_rate" in said.err and said.out == ""
    assert {path.name: path.read_bytes() for path in Path("runs/toy/multvae").iterdir()} == before
    Recommender.load("runs/toy/multvae")
    assert command("train", *SMALL, "--seed", 5, "--overwrite").code == 0
    assert Recommender.load("runs/toy/multvae").model.seed == 5  # type: ignore[attr-defined]
    assert [path.name for path in Path("runs/toy").iterdir()] == ["multvae"]


def test_a_run_is_not_measured_on_a_data_set_made_anew_and_differently(toy: Path, command: Command) -> None:
    shape = ("preprocess", "synthetic", "--users", 200, "--items", 120, "--events", 6000, "--name", "toy")
    command("train", *QUICK)
    assert command(*shape, "--overwrite").code == 0
    assert command("evaluate", "--baselines", "none").code == 0, "made anew, but the same"
    assert command(*shape, "--overwrite", "--seed", 1).code == 0
    said = command("evaluate", "--baselines", "none")
    assert said.code == 2 and "was not trained on toy as it is now" in said.err and said.out == ""


def test_the_environment_says_where_data_sets_are_kept_unless_the_command_does(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECVAE_DATA", str(workplace / "shelf"))
    small = ("synthetic", "--users", 100, "--items", 80, "--events", 2000)
    assert command("preprocess", *small).code == 0 and Path("shelf/synthetic/manifest.json").exists()
    assert command("preprocess", *small, "--data-dir", "drawer", "--name", "other").code == 0
    assert Path("drawer/other/manifest.json").exists() and not Path("data").exists()
    assert command("train", *QUICK).code == 0 and Path("runs/synthetic/popularity/recommender.json").exists()
    assert command("evaluate", "--baselines", "popularity").code == 0
    assert Path("shelf/synthetic/baselines/popularity").exists()
    assert command("train", *QUICK, "--data-dir", "drawer").code == 0 and Path("runs/other/popularity").exists()


def test_models_and_data_sets_are_listed_with_all_that_can_be_set(toy: Path, command: Command) -> None:
    listed, models, datasets = command("models").out, command("models", *MODELS).out, command("datasets").out
    assert [line.split()[0] for line in listed.splitlines()[1:]] == list(MODELS)  # one screen, a line on each
    for name, model in MODELS.items():
        assert name in models and model.paper in models
        assert all(parameter in models for parameter in hyperparameters_of(model))
    assert all(name in datasets for name in (*CATALOG, "synthetic")) and "Already prepared: toy" in datasets


def test_a_path_is_printed_as_it_is_however_long_or_odd(toy: Path, command: Command) -> None:
    place = "runs [old] :smile: " + "/".join(["a folder of a long name"] * 8)
    assert f"saved to {place}/toy/popularity after" in command("train", *QUICK, "--runs-dir", place).out


def test_the_version_is_that_of_the_installed_package(command: Command) -> None:
    assert command("--version") == (0, f"recvae {version('recvae')}\n", "")


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_shows_an_example(verb: str, command: Command) -> None:
    said = command(verb, "--help")
    assert said.code == 0 and "Example" in said.out.partition("Options")[0] and f"recvae {verb}" in said.out
    assert verb in command("--help").out


def test_no_help_waits_for_the_library_to_be_imported() -> None:
    code = (
        "import sys\nfrom recvae_cli.app import app\n"
        f"for words in [['--help'], ['--version'], *([verb, '-h'] for verb in {VERBS})]:\n"
        "    try:\n        app(words)\n    except SystemExit as end:\n        assert not end.code\n"
        "print(sorted({'torch', 'numpy', 'recvae'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["no-such-verb"]])
def test_python_m_recvae_is_the_command(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "recvae", *words], capture_output=True, text=True)
    verb = "train " if "train" in words else ""
    assert f"Usage: recvae {verb}[OPTIONS]" in done.stdout + done.stderr
    assert "__main__" not in done.stdout + done.stderr
    assert done.returncode == (2 if "no-such-verb" in words else 0)


def _quickstart_twice(command: Command) -> None:
    for _ in range(2):
        said = command("quickstart")
        assert said.code == 0, said.err
        assert said.out.count("A user never seen in training") == 3 and "ndcg@100 difference" in said.out
        assert said.err.count("$ recvae ") == 3 and "next: recvae preprocess ml-1m" in said.err
    assert [path.name for path in Path("runs/quickstart").iterdir()] == ["multvae"]


def test_the_quickstart_works_twice_with_a_smaller_network(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ALS, "grid", {"factors": (4,)})
    monkeypatch.setattr(IALS, "grid", {"factors": (4,)})
    monkeypatch.setattr("recvae_cli.quickstart._SMALL", " ".join(SMALL).replace("epochs=3", "epochs=1"))
    _quickstart_twice(command)


@pytest.mark.large
def test_the_quickstart_works_twice_as_it_is(workplace: Path, command: Command) -> None:
    _quickstart_twice(command)


def test_a_pair_without_validation_targets_is_evaluated_with_default_baselines(
    workplace: Path, command: Command
) -> None:
    lines = [(user, [(user * 7 + step) % 30 for step in range(9)]) for user in range(40)]
    Path("train.txt").write_text("".join(f"{u} {' '.join(map(str, items[:7]))}\n" for u, items in lines))
    Path("test.txt").write_text("".join(f"{u} {' '.join(map(str, items[7:]))}\n" for u, items in lines))
    assert command("preprocess", "--train", "train.txt", "--test", "test.txt", "--name", "pair").code == 0
    assert command("train", "--model", "popularity").code == 0
    said = command("evaluate")
    assert "baseline: als (first of als, ials, popularity (baseline); none has a validation ndcg@100)" in said.out
    assert said.code == 0 and "als has its default hyperparameters: no validation user has a target" in said.out


def test_a_data_set_that_was_renamed_is_named_to_evaluate(toy: Path, command: Command) -> None:
    toy.rename("data/films")
    assert command("train", "--model", "popularity", "--data", "films").code == 0
    said = command("evaluate", "--baselines", "none")
    assert said.code == 2 and "no data set 'toy'" in said.err
    assert command("evaluate", "--baselines", "popularity", "--data", "films").code == 0
    assert Path("data/films/baselines/popularity/recommender.json").is_file()


def test_per_user_values_are_only_written_as_parquet(toy: Path, command: Command) -> None:
    assert command("train", "--model", "popularity").code == 0
    said = command("evaluate", "--per-user", "users.csv")
    assert said.code == 2 and "expected a name ending in .parquet" in said.err
