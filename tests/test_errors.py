"""Errors that several modules raise in the same words."""

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recvae.errors import UsageError, requires_extra
from recvae.models import als
from recvae.recommenders.recommender import Recommender

Command = Callable[..., Any]

ROOT = Path(__file__).parent.parent


def test_a_missing_library_is_named_with_the_command_that_installs_it() -> None:
    message = (
        "tuning needs a library that cannot be imported (No module named 'not_there'); "
        "install it with: pip install 'recvae[tune]'"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"), requires_extra("tune", "tuning"):
        importlib.import_module("not_there")


def test_a_fault_of_ours_is_not_taken_for_a_missing_library() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"recvae\.not_there"), requires_extra("tune", "tuning"):
        importlib.import_module("recvae.not_there")


@pytest.fixture
def no_implicit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take `implicit` away, also where it was imported before."""
    als._import_implicit.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "implicit"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "implicit", None)


NO_IMPLICIT = "als needs a library that cannot be imported ("
INSTALL = "); install it with: pip install implicit"


@pytest.mark.parametrize("words", [("train",), ("tune",), ("train", "--overwrite")], ids=" ".join)
def test_als_without_its_library_is_refused_before_anything_is_written(
    words: tuple[str, ...], toy: Path, command: Command, no_implicit: None
) -> None:
    before = set(Path().rglob("*"))
    said = command(*words, "--model", "als")
    assert said.code == 2 and NO_IMPLICIT in said.err and f"{INSTALL}\n" in said.err and "Traceback" not in said.err
    assert set(Path().rglob("*")) == before


@pytest.fixture
def als_folder(bundle_folder: Callable[[str], Path]) -> Path:
    """Return a bundle of als, which is fitted while `implicit` is still there."""
    return bundle_folder("als")


def test_als_without_its_library_cannot_score(als_folder: Path, no_implicit: None) -> None:
    recommender = Recommender.load(als_folder)
    with pytest.raises(UsageError, match=re.escape(NO_IMPLICIT) + ".*" + re.escape(INSTALL)):
        recommender.recommend(recommender.item_ids[:2])


def test_a_plan_says_that_a_library_is_missing_and_plans_the_others(
    toy: Path, command: Command, no_implicit: None
) -> None:
    said = command("plan", "als", "ease", "--seconds", "0.01", "--json")
    als_plan, ease_plan = json.loads(said.out)["models"]
    assert als_plan["obstacle"].startswith(NO_IMPLICIT) and not als_plan["fits"] and als_plan["seconds"] is None
    assert ease_plan["fits"] and "--model ease" in said.err


@pytest.mark.parametrize("verb", ["evaluate", "compare"])
def test_a_default_baseline_without_its_library_is_refused_before_anything_is_measured(
    verb: str, toy: Path, command: Command, no_implicit: None
) -> None:
    command("train", "--model", "ease")
    said = command(verb, "ease")
    rest = "ials,popularity" if verb == "evaluate" else "ials"
    assert said.code == 2 and f"{INSTALL}; or use --baselines {rest}\n" in said.err and not said.out
    assert "evaluating" not in said.err and "comparing" not in said.err
    assert command(verb, "ease", "--baselines", "popularity").code == 0
    said = command(verb, "ease", "--baselines", "none", "--to", "als")
    assert said.code == 2 and f"{INSTALL}; or name another model with --to than als\n" in said.err


def test_any_other_library_that_is_missing_is_named_without_a_traceback(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'duckdb'", name="duckdb")

    monkeypatch.setattr("recvae_cli.preprocess.kind_of", missing)
    said = command("preprocess", "log.csv")
    named = "error: recvae needs a library that cannot be imported (No module named 'duckdb')"
    assert said.code == 2 and said.err == f"{named}; install it with: pip install recvae\n"
    monkeypatch.setattr("recvae_cli.preprocess.kind_of", lambda *_: importlib.import_module("recvae.not_there"))
    with pytest.raises(ModuleNotFoundError, match=r"recvae\.not_there"):  # a fault of ours
        command("preprocess", "log.csv")


def test_the_words_for_a_missing_library_stand_once() -> None:
    sources = [*ROOT.glob("recvae/**/*.py"), *ROOT.glob("cli/**/*.py")]
    named = [path.name for path in sources if "'recvae[" in path.read_text(encoding="utf-8")]
    assert named == ["errors.py"]
