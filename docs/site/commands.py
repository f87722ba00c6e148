"""The page of the command: every verb, argument and option, from the Typer application itself."""

import html
import re
from typing import Any

import typer

from recvae_cli.app import app

HEAD = """# The command

`recvae VERB --help` prints the same. This page is made from the command itself.

"""


def page() -> str:
    """Return the page, as Markdown."""
    group: Any = typer.main.get_command(app)
    verbs = list(group.commands.items())
    contents = "".join(f"| [`recvae {name}`](#recvae-{name}) | {_sentence(verb)} |\n" for name, verb in verbs)
    sections = "".join(f"## recvae {name}\n\n{_verb(name, verb)}" for name, verb in verbs)
    return f"{HEAD}{group.help}\n\n| verb | |\n|---|---|\n{contents}\n{_table(group, 'recvae', 'option')}{sections}"


def _sentence(verb: Any) -> str:
    """Return the first paragraph of the help, on one line."""
    return _cell(verb.help.split("\n\n")[0])


def _verb(name: str, verb: Any) -> str:
    """Return usage, help, arguments and options of one verb."""
    called = f"recvae {name}"
    with typer.Context(verb, info_name=called) as context:
        usage = verb.get_usage(context).removeprefix("Usage: ")
    arguments, options = _table(verb, called, "argument"), _table(verb, called, "option")
    return f"```text\n{usage}\n```\n\n{_help(verb.help)}{arguments}{options}"


def _help(text: str) -> str:
    """Return the help as paragraphs; what it keeps line by line, behind a backspace, as a block of code."""
    found = []
    for paragraph in text.split("\n\n"):
        is_kept, paragraph = paragraph.startswith("\b\n"), paragraph.removeprefix("\b\n")
        head, colon, lines = paragraph.partition(":\n" if is_kept else "Example: ")
        if colon:
            head = "" if colon == "Example: " or head == "Examples" else f"{head}:"
        if head:
            found.append(re.sub(r"(?<![`\w])(--[a-z][\w-]*)", r"`\1`", " ".join(head.split())))
        if colon:
            block = "\n".join(line.strip() for line in lines.rstrip().splitlines())
            found.append(f"```{'text' if head else 'console'}\n{block}\n```")
    return "\n\n".join(found) + "\n\n"


def _table(verb: Any, called: str, kind: str) -> str:
    """Return a table of all arguments, or of all options."""
    rows = []
    with typer.Context(verb, info_name=called) as context:
        for param in verb.get_params(context):
            record = param.get_help_record(context)  # e.g. ("-k, --k <int>", "Number of items.  [default: 10]")
            if param.param_type_name != kind or record is None:
                continue
            written, text = record
            written = written.removesuffix(" <list[str]>") if kind == "argument" else written
            meaning, _, facts = text.removesuffix("]").partition("  [") if text.endswith("]") else (text, "", "")
            known = {name: value for name, _, value in (fact.partition(": ") for fact in facts.split("; "))}
            default = re.sub(r"^\((.*)\)$", r"\1", known.pop("default", ""))
            notes = "".join(f" ({name}: {value})".replace(": )", ")") for name, value in known.items() if name)
            # A line is broken between two ways to write an option, not inside one.
            ways = ", ".join(f'<code class="way">{way}</code>' for way in _cell(written).split(", "))
            shown = f"<code>{_cell(default)}</code>" if default else ""
            rows.append(f"| {ways} | {_cell(meaning + notes)} | {shown} |\n")
    return f"| {kind} | | default |\n|---|---|---|\n{''.join(rows)}\n" if rows else ""


def _cell(text: str) -> str:
    """Return a text as the cell of a table."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")
