"""What `mkdocs build` does beyond reading docs/*.md: pages that are made, and links as they are on GitHub.

hooks.py           this file, which mkdocs calls
outside.py         pages of the repository that are not in docs/, and links between pages
reference.py       the pages of public names, from docstrings and from the models' hyperparameters
commands.py        the page of the command, from the command itself
notebook_pages.py  notebooks as pages, with what their cells print and draw; `make notebooks`, which runs them
"""

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "cli"), str(Path(__file__).parent)]

import commands  # noqa: E402
import notebook_pages  # noqa: E402
import outside  # noqa: E402
import reference  # noqa: E402

ONLY_HERE = {
    "`recvae VERB --help`": "[every command and option](reference/command.md)",
    "`help(recvae.Recommender)`": "[every name in Python](reference/recommending.md)",
}
"""What the front page names on GitHub, and links to here: these pages exist only in the site."""


def on_config(config: MkDocsConfig) -> None:
    """Give headings the anchors that they have on GitHub."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = lambda text, _: outside.anchor(text)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that are made."""
    made: dict[str, str | bytes] = {**reference.pages(), "reference/command.md": commands.page()}
    for source, place in outside.PAGES.items():
        made[place] = outside.with_links(outside.text_of(ROOT / source), source)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for place, content in notebook_pages.page(notebook).items():
            source = f"notebooks/{notebook.name}"
            made[place] = outside.with_links(content, source) if isinstance(content, str) else content
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links to files outside docs/ to their pages, and let lists begin where GitHub lets them."""
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation", "toc"]
        for text, link in ONLY_HERE.items():
            markdown = markdown.replace(text, link)
    if page.file.generated_by is None:
        markdown = outside.with_links(markdown, f"docs/{page.file.src_uri}")
    return outside.with_blank_lines(markdown)
