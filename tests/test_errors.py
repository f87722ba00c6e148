"""Errors that several modules raise in the same words."""

import importlib
import re
from pathlib import Path

import pytest

from recvae.errors import UsageError, requires_extra

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


def test_the_words_for_a_missing_library_stand_once() -> None:
    sources = [*ROOT.glob("recvae/**/*.py"), *ROOT.glob("cli/**/*.py")]
    named = [path.name for path in sources if "pip install 'recvae[" in path.read_text(encoding="utf-8")]
    assert named == ["errors.py"]
