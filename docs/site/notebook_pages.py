"""Notebooks as pages, with what their cells print and draw; and the run that makes these outputs anew.

python docs/site/notebook_pages.py [NAME ...]       # or `make notebooks`: runs all, or those, from top to bottom

Notebooks are committed with their outputs, which GitHub and the site show as they are. Some are of MovieLens-1M: these
are run only where `recvae preprocess ml-1m` was run, in data/ or where RECVAE_DATA says. Tests run all of them on
generated data, and look after what is kept.
"""

import base64
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
REAL = "ml-1m"
"""The data set of notebooks that look for real data, where the variable RECVAE_DATA says."""

_SECONDS = 600  # of one cell


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


def code_of(notebook: NotebookNode) -> str:
    """Return a hash of the code of a notebook: outputs that were made by other code are out of date."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(cells).encode()).hexdigest()


def is_on_real_data(notebook: NotebookNode) -> bool:
    """Whether a notebook looks for real data, so that its outputs are of these."""
    return any('environ.get("RECVAE_DATA"' in cell.source for cell in notebook.cells if cell.cell_type == "code")


def executed(notebook: NotebookNode) -> NotebookNode:
    """Run a notebook in an empty folder, and return it with its outputs and without anything else of this run.

    Parameters
    ----------
    notebook : NotebookNode
        It is changed.

    Returns
    -------
    NotebookNode
        The same notebook, with no times, no version of Python and no metadata of cells.
    """
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=_SECONDS,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
    notebook.metadata.language_info = NotebookNode(name="python")
    notebook.metadata.recvae = NotebookNode(code=code_of(notebook))
    return notebook


@contextmanager
def _variables(added: Mapping[str, str]) -> Iterator[None]:
    """Add environment variables for a while."""
    os.environ.update(added)
    yield
    for name in added:
        del os.environ[name]


def main(names: Sequence[str]) -> None:
    """Run notebooks and keep their outputs.

    Parameters
    ----------
    names : sequence of str
        Beginnings of file names, e.g. "05"; all where it is empty.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "cli"), os.environ.get("PYTHONPATH", "")])
    os.environ["OMP_NUM_THREADS"] = "1"  # models this small only wait for further threads
    home = Path(os.environ.pop("RECVAE_DATA", ROOT / "data")).resolve()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and not path.name.startswith(tuple(names)):
            continue
        notebook = nbformat.read(path, as_version=4)
        on_real_data = is_on_real_data(notebook)
        if on_real_data and not (home / REAL).is_dir():
            sys.stderr.write(f"{path.name} stays as it is: {home} has no {REAL}\n")
            continue
        sys.stderr.write(f"running {path.name}\n")
        with _variables({"RECVAE_DATA": str(home)} if on_real_data else {}):
            nbformat.write(executed(notebook), path)


if __name__ == "__main__":
    main(sys.argv[1:])
