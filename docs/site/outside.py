"""Pages of the repository outside docs/, and the links between pages: on GitHub they lead to files, here to pages."""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

PAGES = {
    "benchmarks/leaderboard.md": "project/leaderboard.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "README.zh-CN.md": "project/readme.zh-CN.md",
    "data/README.md": "reference/datasets.md",
}
"""Files of the repository, and where the site has them."""

_FENCE = re.compile(r"(^(?P<fence>```+)[^\n]*\n.*?^(?P=fence)[ ]*$)", flags=re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
_ITEM = re.compile(r"(?:[-*+]|1[.)]) ")


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def text_of(path: Path) -> str:
    """Return the text of a page."""
    return path.read_text(encoding="utf-8")


def place_of(path: str) -> str | None:
    """Return where the site has a file of the repository, or nothing if it does not have it."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("notebooks/") and path.endswith(".ipynb"):
        return path.replace(".ipynb", ".md")
    if path.startswith("notebooks/") and path.endswith(".png"):
        return path  # what a cell draws, which notebook_pages.py writes there
    return PAGES.get(path)


def with_links(text: str, source: str) -> str:
    """Return the text of a page with its links as the site needs them.

    A link to a file that the site does not have, e.g. a module, becomes its text.

    Parameters
    ----------
    text : str
        Markdown, with links relative to its file.
    source : str
        That file, from the root of the repository.
    """
    here = posixpath.dirname(place_of(source) or "")

    def link(match: re.Match[str]) -> str:
        target, text = match["target"], match["text"]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, hash_, anchor = target.partition("#")
        place = place_of(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)))
        if place is None:
            return text
        return f"{match['image']}[{text}]({posixpath.relpath(place, here or '.')}{hash_}{anchor})"

    return _outside_fences(text, lambda prose: _LINK.sub(link, prose))


def with_blank_lines(text: str) -> str:
    """Return the text with a blank line before each list that begins right below a line of text.

    GitHub needs none there, Python's Markdown does.
    """

    def separate(prose: str) -> str:
        lines: list[str] = []
        in_list = False
        for line in prose.split("\n"):
            before = lines[-1] if lines else ""
            if _ITEM.match(line):
                if not in_list and before.strip() and not before.startswith("    "):
                    lines.append("")
                in_list = True
            elif line and not line.startswith(" ") and not before.strip():
                in_list = False
            lines.append(line)
        return "\n".join(lines)

    return _outside_fences(text, separate)


def _outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Apply a change to what is not a block of code."""
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])
