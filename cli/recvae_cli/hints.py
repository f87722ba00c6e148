"""What to write instead of an option or argument that a verb does not have: hyperparameters, and what is mistyped."""

import os
import re
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any


def add_hint(error: Any, verb: Any, typed: list[str]) -> None:
    """Add to the message of a wrong use what should have been written, where that can be told.

    Parameters
    ----------
    error : UsageError of click
        Its message is changed.
    verb : Command of click
        What was called.
    typed : list of str
        The words after the verb.
    """
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and str(option).startswith("--"):
        if hint := _for_option(str(option), verb, typed):
            error.message, error.possibilities = f"{error.message}. {hint}", None
        return
    extra = type(error).__name__ == "UsageError" and "unexpected extra argument" in str(error.message)
    if extra:
        words = str(error.message).rpartition("(")[2].rstrip(")").split()  # those that belong to no option
        hints = [hint for word in words if (hint := _for_word(verb, word, typed))]
        error.message = ". ".join([str(error.message), *dict.fromkeys(hints)])


def _for_option(option: str, verb: Any, typed: list[str]) -> str:
    from recvae_cli.sources import hyperparameters

    every, name = hyperparameters(), option.lstrip("-").replace("-", "_")
    models = [model for model in _models_in(verb, typed) if model in every]
    known = {field for model in models or every for field in every[model]}
    value = _value_of(option, typed)
    having = [model for model, fields in every.items() if name in fields]
    if having and not _takes(verb, "settings"):
        return f"It is a hyperparameter, which is set in training: recvae train --set {name}={value}"
    if having and name not in known:
        return (
            f"It is a hyperparameter of {', '.join(having)}; {models[0]} has: {', '.join(every[models[0]]) or 'none'}"
        )
    if having:
        return f"It is a hyperparameter: write --set {name}={value}"
    options = [word.lstrip("-") for param in verb.params for word in param.opts if word.startswith("--")]
    fields = sorted(known) if _takes(verb, "settings") else []
    close = get_close_matches(name, [*(word.replace("-", "_") for word in options), *fields], n=1, cutoff=0.7)
    if not close:
        return ""
    if close[0] in fields:
        return f"Did you mean --set {close[0]}={value}?"
    return f"Did you mean --{next(word for word in options if word.replace('-', '_') == close[0])}?"


def _for_word(verb: Any, word: str, typed: list[str]) -> str:
    """Return what to write for a setting, a model, a data set, a run or a file that was typed without its option."""
    from recvae.bundles.card import CARD
    from recvae_cli.sources import hyperparameters, letters_of

    every = hyperparameters()
    name, equals, _ = word.partition("=")
    if equals and _takes(verb, "settings") and any(name in fields for fields in every.values()):
        return f"Write --set {word}"
    if letters_of(word) in every and (_takes(verb, "models") or _takes(verb, "model")):
        return f"Write --model {letters_of(word)}"
    if not _takes(verb, "data"):
        return ""
    if hint := data_set_hint(word, _folder("--data-dir", typed, os.environ.get("RECVAE_DATA") or "data")):
        return hint
    runs = _folder("--runs-dir", typed, "runs")
    if any((place / CARD).is_file() for place in (runs / word, Path(word), *runs.glob(f"*/{word}"))):
        again = f"; recvae train --refit {word} trains it again" if _takes(verb, "refit") else ""
        return f"{word} is a run: recvae evaluate {word} measures it{again}"
    return ""


def data_set_hint(word: str, data_dir: Path) -> str:
    """Return what to write for a data set, or a file, that was typed where none is expected; empty for another word."""
    from recvae.datasets.catalog.known import CATALOG
    from recvae_cli.sources import MANIFEST

    if any((place / word / MANIFEST).is_file() for place in (data_dir, Path())):
        return f"{word} is a data set: write --data {word}"
    if word == "synthetic" or word.partition(":")[0] in CATALOG:
        return f"{word} is a data set that is not prepared: first recvae preprocess {word}, then --data"
    if Path(word).is_file():
        return f"{word} is a file: recvae preprocess {word} makes a data set of it, for --data"
    return ""


def _folder(option: str, typed: list[str], default: str) -> Path:
    value = _value_of(option, typed)
    return Path(default if value == "VALUE" else value)


def _takes(verb: Any, name: str) -> bool:
    return any(param.name == name for param in verb.params)


def _value_of(option: str, typed: list[str]) -> str:
    """Return the value that follows an option, in one word with it or as the next."""
    for place, word in enumerate(typed):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option and place + 1 < len(typed) and not re.match(r"-[^\d.]", typed[place + 1]):
            return typed[place + 1]
    return "VALUE"


def _models_in(verb: Any, typed: list[str]) -> list[str]:
    """Return the models that were typed as --model or -m, by default the one that is trained, or as arguments."""
    from recvae_cli.sources import hyperparameters, letters_of

    if _takes(verb, "names"):
        return [word for word in typed if word in hyperparameters()]
    found = [after for word, after in pairwise(typed) if word in ("--model", "-m")]
    found += [word.partition("=")[2] for word in typed if word.startswith("--model=")]
    return [letters_of(name) for name in found] or ["multvae"]
