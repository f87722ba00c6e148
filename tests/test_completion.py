"""What a shell completes, asked as a shell asks: through the environment, as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recvae.datasets.catalog.known import CATALOG
from recvae.models import MODELS
from recvae.models.common.hyperparameters import hyperparameters_of
from recvae_cli.sources import hyperparameters

Shell = Callable[..., Any]


@pytest.fixture
def complete(shell: Shell, workplace: Path) -> Callable[[str], list[str]]:
    """Return a function from the words typed so far to what bash offers; a space at the end begins a new word."""

    def ask(line: str) -> list[str]:
        words = line.split(" ")
        said = shell(_RECVAE_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
        assert said.code == 0 and said.err == "", said
        return said.out.split()

    return ask


@pytest.fixture
def places(workplace: Path) -> Path:
    """Make empty data sets and runs, as far as a completion looks at them."""
    for name in ("films", "films-2", "shop", ".shop.tmp"):
        (Path("data") / name).mkdir(parents=True)
        (Path("data") / name / "manifest.json").write_text("{}")
    (Path("data") / "half").mkdir()
    for run in ("films/als", "films/vae", "shop/als", "films/.vae.new"):
        (Path("runs") / run).mkdir(parents=True)
        (Path("runs") / run / "recommender.json").write_text("{")
    return workplace


def test_names_read_from_the_sources_are_those_of_the_registry() -> None:
    assert list(hyperparameters()) == list(MODELS)
    for name, model in MODELS.items():
        assert set(hyperparameters()[name]) == set(hyperparameters_of(model)), name


def test_verbs_and_options(complete: Callable[[str], list[str]]) -> None:
    assert complete("recvae tr") == ["train"]
    assert {"--set", "--seed"} <= set(complete("recvae train --se"))


def test_models(complete: Callable[[str], list[str]]) -> None:
    assert complete("recvae train --model m") == ["multdae", "multvae"]
    assert complete("recvae tune -m ") == sorted(MODELS)
    assert complete("recvae models multvae e") == ["ease", "edlae", "elsa"]
    assert complete("recvae plan r") == ["recvae"]
    assert complete("recvae compare --baselines als,ed") == ["als,edlae"]


def test_hyperparameters_are_those_of_the_model(complete: Callable[[str], list[str]]) -> None:
    of = {name: sorted(f"{field}=" for field in hyperparameters_of(model)) for name, model in MODELS.items()}
    assert complete("recvae train --model ease --set ") == of["ease"]
    assert complete("recvae train --model EASE --set l") == ["l2="]
    assert complete("recvae train --set ") == of["multvae"]
    assert complete("recvae tune --model als --set factors=4 --set a") == ["alpha="]
    assert complete("recvae plan ease als --set ") == sorted({*of["ease"], *of["als"]})
    assert set(complete("recvae plan --set ")) == {name for names in of.values() for name in names}


def test_runs_and_data_sets(complete: Callable[[str], list[str]], places: Path) -> None:
    runs = ["films/als", "films/vae", "shop/als"]
    assert complete("recvae evaluate ") == [*runs, "vae"]  # als alone would be two runs
    assert complete("recvae evaluate films/als shop") == ["shop/als"]
    for line in ("inspect ", "recommend ", "export ", "serve ", "compare ", "similar ", "train --refit "):
        assert complete(f"recvae {line}") == [*runs, "vae"], line
    assert complete("recvae compare --to v") == ["vae", "vasp"]
    for line in ("train --data ", "tune --data ", "plan --data ", "evaluate --data "):
        assert complete(f"recvae {line}") == ["films", "films-2", "shop"], line
    assert complete("recvae runs --data ") == ["films", "shop"]
    Path("data").rename("shelf")
    Path("runs").rename("drawer")
    assert complete("recvae evaluate ") == complete("recvae train --data ") == []
    assert complete("recvae evaluate --runs-dir drawer s") == ["shop/als"]
    assert complete("recvae train --data-dir shelf --data s") == ["shop"]


def test_known_data_sets(complete: Callable[[str], list[str]]) -> None:
    assert set(complete("recvae preprocess ")) >= {*CATALOG, "synthetic"}
    assert complete("recvae preprocess citeu") == ["citeulike-a"]


def test_zsh_asks_in_its_own_way(shell: Shell, workplace: Path) -> None:
    said = shell(_RECVAE_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="recvae train --model mu")
    assert said.code == 0 and "multvae" in said.out and "multdae" in said.out and "ease" not in said.out
    said = shell(_RECVAE_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="recvae plan als --set f")
    assert "factors=" in said.out and "first=" not in said.out


def test_the_installation_writes_a_script_for_the_shell(shell: Shell, workplace: Path) -> None:
    said = shell("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert said.code == 0 and "_RECVAE_COMPLETE=complete_bash" in said.out
    home = workplace / "home"
    home.mkdir()
    said = shell("--install-completion", "bash", HOME=str(home), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert said.code == 0 and "completion installed" in said.out
    assert "complete -o default -F" in (home / ".bash_completions" / "recvae.sh").read_text()


@pytest.mark.parametrize("line", ["recvae train --model ease --set ", "recvae evaluate ", "recvae train --data "])
def test_completing_imports_no_torch(line: str, places: Path) -> None:
    code = (
        "import sys; sys.argv = ['recvae']\n"
        "from recvae_cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "import json; print(json.dumps(sorted({'torch', 'pandas', 'scipy', 'numpy'} & set(sys.modules))))"
    )
    asked = {"_RECVAE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | asked)
    *offered, heavy = done.stdout.splitlines()
    assert offered and json.loads(heavy) == [], done
