"""The site of the documentation: it is built without a warning, whole, and works from a disk without a network."""

import contextlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
import typer
import yaml
from markdown_it import MarkdownIt
from playwright.sync_api import Page, expect, sync_playwright

import recvae
from recvae import errors, metrics, models
from recvae.models import MODELS
from recvae.models.common.hyperparameters import hyperparameters_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PUBLIC: list[str] = getattr(recvae, "__all__")  # noqa: B009  (made when asked for)


class _Elements(HTMLParser):
    """Counts elements, and gathers ids and what a page loads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.ids: set[str] = set()
        self.loads: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1
        found = dict(attrs)
        self.ids.add(found.get("id") or "")
        if tag in ("script", "img", "iframe", "source") or (tag == "link" and found.get("rel") != "canonical"):
            self.loads.append(found.get("src") or found.get("href") or "")


@pytest.fixture(scope="module")
def site(once: Callable[..., Path]) -> Path:
    """Return the folder of the site, built in strict mode: a broken link or reference is an error."""
    return once("site", _build)


def _build(folder: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        [*command, "--config-file", str(ROOT / "mkdocs.yml")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr, done.stderr


@pytest.fixture(scope="module")
def machinery() -> Iterator[dict[str, ModuleType]]:
    """Return what the site is made with, by name."""
    folder = str(ROOT / "docs" / "site")
    sys.path.insert(0, folder)
    names = ("outside", "reference", "commands", "notebook_pages")
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(folder)
    for name in names:
        sys.modules.pop(name, None)


def _main(site: Path, page: str) -> str:
    """Return the text of a page, without menus and the like."""
    html = (site / page).read_text(encoding="utf-8")
    return html.split("<article")[1].split("</article>")[0]


def _places(nav: Any) -> list[str]:
    """Return the pages of a table of contents."""
    if isinstance(nav, str):
        return [nav]
    return [place for part in (nav.values() if isinstance(nav, dict) else nav) for place in _places(part)]


def test_every_page_of_docs_is_in_the_table_of_contents() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    places = _places(config["nav"])
    missing = [page.name for page in DOCS if page.name not in places]
    assert missing == [], "add these pages to the nav of mkdocs.yml"
    assert [place for place in places if "/" not in place and not (ROOT / "docs" / place).is_file()] == []
    assert len(places) == len(set(places))
    assert config["strict"]


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    ids = {name for page in (site / "reference").glob("*.html") for name in _Elements(page.read_text("utf-8")).ids}
    classes = {model.__name__ for model in (*MODELS.values(), models.Model)}
    expected = {f"recvae.models.{name}" if name in classes else f"recvae.{name}" for name in PUBLIC}
    expected |= {f"recvae.metrics.{name}" for name in _public(metrics)}
    expected |= {f"recvae.errors.{name}" for name in _public(errors)}
    expected |= {f"recvae.models.{name}" for name in _public(models)} | {"recvae.serving.onnx.OnnxRecommender"}
    assert sorted(expected - {"recvae.__version__"} - ids) == []


def _public(module: ModuleType) -> list[str]:
    """Return the functions and classes that a module defines for its users."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]


def test_the_reference_has_what_docstrings_say(site: Path) -> None:
    page = _main(site, "reference/evaluation.html").split('id="recvae.evaluate"')[1]
    for text in ("Rank all items for held-out users", "Parameters", "Bytes that scoring may take", "Returns"):
        assert text in page, text
    inherited = _Elements(_main(site, "reference/recommending.html")).ids
    assert {f"recvae.Recommender.{name}" for name in ("load", "recommend", "recommend_batch", "explain")} <= inherited


def test_every_hyperparameter_of_every_model_is_in_the_reference(site: Path) -> None:
    page = _main(site, "reference/models.html")
    for model in MODELS.values():
        section = page.split(f'id="recvae.models.{model.__name__}"')[1].split("<h2")[0]
        for known in hyperparameters_of(model):
            assert f"<code>{known}</code>" in section, f"{model.name}: {known}"


def test_every_option_of_the_command_is_on_its_page(site: Path) -> None:
    from recvae_cli.app import app

    page = _main(site, "reference/command.html")
    group: Any = typer.main.get_command(app)
    assert set(group.commands) == {command.name for command in app.registered_commands}
    for name, verb in group.commands.items():
        section = page.split(f'id="recvae-{name}"')[1].split("<h2")[0]
        for param in verb.params:
            for way in (*param.opts, *param.secondary_opts) if param.param_type_name == "option" else ():
                assert re.search(rf"{re.escape(way)}(?![\w-])", section), f"{name} {way}"


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_has_the_parts_that_github_shows(site: Path, page: Path) -> None:
    """Python's Markdown is not GitHub's: lists, tables and blocks that one of them does not see are counted here."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    counts = Counter(token.tag for token in tokens if token.nesting == 1)
    counts["pre"] = sum(token.type in ("fence", "code_block") for token in tokens)
    parts = ("h1", "h2", "h3", "ul", "ol", "li", "table", "tr", "td", "pre")
    shown = _Elements(_main(site, page.with_suffix(".html").name)).counts
    assert {part: shown[part] for part in parts} == {part: counts[part] for part in parts}


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        elsewhere = [url for url in _Elements(page.read_text("utf-8")).loads if re.match(r"(?:https?:)?//", url)]
        assert elsewhere == [], page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:", style.read_text("utf-8")), style.name


def test_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Here\n\n[there](nowhere.md) and [below](#nothing)\n", "utf-8")
    whole = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    config = {"site_name": "broken", "strict": whole["strict"], "validation": whole["validation"]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(tmp_path / "mkdocs.yml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr
    assert "#nothing" in done.stderr


def test_help_that_is_kept_line_by_line_is_a_block(machinery: dict[str, ModuleType]) -> None:
    help_of = machinery["commands"]._help
    kept = "\b\nLimits:\n  one 1\n  two 2\n\n\b\nExamples:\n  recvae a\n  recvae b\n"
    assert help_of("Do it, with\n--fast.\n\n" + kept) == (
        "Do it, with `--fast`.\n\nLimits:\n\n```text\none 1\ntwo 2\n```\n\n```console\nrecvae a\nrecvae b\n```\n\n"
    )
    assert help_of("Do it.\n\nExample: recvae a") == "Do it.\n\n```console\nrecvae a\n```\n\n"


def test_the_front_page_leads_to_the_reference(site: Path) -> None:
    page = _main(site, "index.html")
    assert 'href="reference/command.html"' in page
    assert 'href="reference/recommending.html"' in page


def test_links_lead_to_pages_of_the_site(machinery: dict[str, ModuleType]) -> None:
    with_links = machinery["outside"].with_links
    text = (
        "[a](../data/README.md#x) [b](models.md#y) [c](https://z.org) [`d`](../recvae/ids.py) ![e](results.svg)\n"
        "```python\n[f](../recvae/ids.py)\n```\n[g](../notebooks/02-serving.ipynb) [h](#here) [i](../README.md)"
    )
    assert with_links(text, "docs/data.md") == (
        "[a](reference/datasets.md#x) [b](models.md#y) [c](https://z.org) `d` ![e](results.svg)\n"
        "```python\n[f](../recvae/ids.py)\n```\n[g](notebooks/02-serving.md) [h](#here) [i](index.md)"
    )
    assert with_links("[a](docs/models.md#y)", "CHANGELOG.md") == "[a](../models.md#y)"
    assert with_links("[a](01-quickstart.ipynb)", "notebooks/02-serving.ipynb") == "[a](01-quickstart.md)"
    assert with_links("![a](02-serving-1.png)", "notebooks/02-serving.ipynb") == "![a](02-serving-1.png)"


def test_lists_begin_right_below_a_line_as_on_github(machinery: dict[str, ModuleType]) -> None:
    with_blank_lines = machinery["outside"].with_blank_lines
    assert with_blank_lines("text:\n- one\n- two\n  more\n- three\n") == "text:\n\n- one\n- two\n  more\n- three\n"
    assert with_blank_lines("text:\n1. one\n2. two\n\nend\n- a") == "text:\n\n1. one\n2. two\n\nend\n\n- a"
    assert with_blank_lines("- one\n\n- two\n\ntext\n2. no list\n") == "- one\n\n- two\n\ntext\n2. no list\n"
    assert with_blank_lines("```text\na\n- b\n```\n") == "```text\na\n- b\n```\n"


def test_a_notebook_shows_what_its_cells_print_and_draw(machinery: dict[str, ModuleType], tmp_path: Path) -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["one ", "line\n"]},
        {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo=", "text/plain": ["<Figure>"]}},
        {"output_type": "execute_result", "data": {"text/html": ["<table>\n", "</table>"], "text/plain": "t"}},
        {"output_type": "execute_result", "data": {"text/plain": ["(1, ", "2)"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "text"]},
        {"cell_type": "code", "source": ["print('''\n", "```\n", "''')"], "outputs": outputs},
    ]
    notebook = tmp_path / "small.ipynb"
    notebook.write_text(json.dumps({"cells": cells, "metadata": {}}), encoding="utf-8")
    found = machinery["notebook_pages"].page(notebook)
    assert found["notebooks/small-1.png"] == b"\x89PNG\r\n\x1a\n"
    assert found["notebooks/small.md"] == (
        "# Title\n\ntext\n\n````python\nprint('''\n```\n''')\n````\n\n```text\none line\n```\n\n"
        '![What the cell draws](small-1.png)\n\n<div class="output"><table></table></div>\n\n```text\n(1, 2)\n```\n'
    )


def test_pages_have_the_outputs_that_notebooks_keep(site: Path) -> None:
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert len(notebooks) >= 9
    for notebook in notebooks:
        page = _main(site, f"notebooks/{notebook.stem}.html")
        pictures = notebook.read_text(encoding="utf-8").count('"image/png"')
        assert page.count(f'src="{notebook.stem}-') == pictures > 0
        assert len(list((site / "notebooks").glob(f"{notebook.stem}-*.png"))) == pictures


def test_notebooks_are_run_without_a_trace_of_the_run(
    machinery: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pages = machinery["notebook_pages"]
    monkeypatch.setattr(pages, "NOTEBOOKS", tmp_path)
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1" if name == "OMP_NUM_THREADS" else ""))
    monkeypatch.setenv("RECVAE_DATA", str(tmp_path))
    sources = {
        "01-any": ["print('one')\nprint('two')", "import os\nprint('RECVAE' + '_DATA' in os.environ)"],
        "02-real": ['import os\nos.environ.get("RECVAE_DATA", "data")'],
    }
    for name, code in sources.items():
        cells = [nbformat.v4.new_code_cell(text, metadata={"tags": ["mine"]}) for text in code]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    untouched = (tmp_path / "02-real.ipynb").read_bytes()
    pages.main([])
    made = nbformat.read(tmp_path / "01-any.ipynb", as_version=4)
    assert [[output.text for output in cell.outputs] for cell in made.cells] == [["one\ntwo\n"], ["False\n"]]
    assert [cell.execution_count for cell in made.cells] == [1, 2]
    assert not any(cell.metadata for cell in made.cells)
    assert made.metadata.recvae.code == pages.code_of(made)
    assert (tmp_path / "02-real.ipynb").read_bytes() == untouched
    assert f"02-real.ipynb stays as it is: {tmp_path} has no ml-1m" in capsys.readouterr().err
    once = (tmp_path / "01-any.ipynb").read_bytes()
    pages.main(["01"])
    assert (tmp_path / "01-any.ipynb").read_bytes() == once


def test_a_public_name_without_a_page_stops_the_build(
    machinery: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recvae._HOMES, "new_name", "recvae.somewhere.new")
    with pytest.raises(LookupError, match=r"^recvae\.new_name is in recvae\.somewhere\.new, and no page of"):
        machinery["reference"].pages()


@pytest.fixture(scope="module")
def tab(site: Path) -> Iterator[Page]:
    """Return a tab of a browser of the machine; no script fails in it, and it asks nothing of others."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page, asked, wrong = browser.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        yield page
        with contextlib.suppress(Exception):
            browser.close()
        assert wrong == []
        assert asked
        assert [url for url in asked if not re.match(r"(?:file|data|blob|about):", url)] == []


def test_the_search_finds_from_the_disk(tab: Page, site: Path) -> None:
    tab.goto((site / "index.html").as_uri())
    tab.get_by_role("textbox", name="Search").click()
    tab.get_by_role("textbox", name="Search").press_sequentially("posterior collapse")
    first = tab.locator(".md-search-result__item").first
    expect(first).to_contain_text("Glossary", timeout=20_000)


@pytest.mark.parametrize("width", [390, 1400], ids=["phone", "wide"])
def test_no_page_is_wider_than_the_window(tab: Page, site: Path, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 900})
    for page in sorted(site.rglob("*.html")):
        tab.goto(page.as_uri())
        over = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{page.relative_to(site)} is {over} pixels wider than {width}"
