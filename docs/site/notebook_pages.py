"""Notebooks as pages, with what their cells print and draw.

python docs/site/notebook_pages.py       # or `make docs`: runs those that changed, into build/notebooks, for the site

Notebooks are committed without outputs. Where one was run, the site shows its outputs; else its code alone.
"""

import base64
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "notebooks"
SOURCES = "recvae/**/*.py", "cli/recvae_cli/*.py"


def executed_or_plain(notebook: Path) -> Path:
    """Return the copy of a notebook that was run, if it was run as it is now; else the notebook."""
    copy = BUILD / notebook.name
    if copy.is_file() and json.loads(copy.read_text("utf-8"))["metadata"].get("recvae") == _state(notebook):
        return copy
    return notebook


def page(path: Path) -> dict[str, str | bytes]:
    """Return the page of a notebook and its pictures, by their places in the site."""
    found: dict[str, str | bytes] = {}
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        if cell["cell_type"] == "code":
            parts.append(_fence(text, "python"))
            for output in cell["outputs"]:
                name = f"{path.stem}-{len(found) + 1}.png"
                shown, picture = _output(output, name)
                parts.append(shown)
                if picture is not None:
                    found[f"notebooks/{name}"] = picture
    found[f"notebooks/{path.stem}.md"] = "\n\n".join(parts) + "\n"
    return found


def _output(output: Mapping[str, Any], name: str) -> tuple[str, bytes | None]:
    """Return an output of a cell as Markdown, and its picture if it is one, which is to be saved under that name."""
    if output["output_type"] == "stream":
        return _fence("".join(output["text"]), "text"), None
    data = output.get("data", {})
    if "image/png" in data:
        return f"![What the cell draws]({name})", base64.b64decode(data["image/png"])
    if "text/html" in data:
        lines = (line.strip() for line in "".join(data["text/html"]).splitlines())
        return f'<div class="output">{"".join(lines)}</div>', None
    return _fence("".join(data.get("text/plain", "")), "text"), None


def _fence(text: str, language: str) -> str:
    """Return a block of code, in a fence that is not in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _state(notebook: Path) -> str:
    """Return a hash of a notebook and of the code that it runs."""
    found = hashlib.sha256(notebook.read_bytes())
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            found.update(path.read_bytes())
    return found.hexdigest()


def _run(notebook: Path) -> None:
    """Run a notebook in an empty folder, and keep it with its outputs."""
    import nbformat
    from nbclient import NotebookClient

    content = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(content, kernel_name="python3", timeout=600, resources={"metadata": {"path": folder}})
        client.execute()
    content.metadata["recvae"] = _state(notebook)
    BUILD.mkdir(parents=True, exist_ok=True)
    nbformat.write(content, BUILD / notebook.name)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "cli"), os.environ.get("PYTHONPATH", "")])
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if executed_or_plain(path) == path:
            sys.stderr.write(f"running {path.name}\n")
            _run(path)
