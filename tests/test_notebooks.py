"""Every notebook runs from top to bottom on this interpreter, and is committed with the outputs of such a run."""

import json
import re
import runpy
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = runpy.run_path(str(ROOT / "docs" / "site" / "notebook_pages.py"))
MOST_BYTES = 300_000
FEW_TITLES = 5  # of real films, in the outputs of one notebook
UNWANTED = {
    "a path of a machine": r"(?<![\w.:/])/(?:home|root|Users|tmp|work|usr|opt|var|mnt|nowhere)(?:/|\b)|[A-Z]:\\\\",
    "a warning": r"(?i)warning",
    "an error of the command": r"(?m)^error: ",
    "seconds, which look like a benchmark": r"\d ?(?:s|ms|seconds|minutes)\b|it/s",
    "a traceback": r"Traceback",
    "a code of a terminal": "\x1b",
}

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: str) -> Path:
    """Return an empty folder to run in; what Jupyter reads and writes lies beside it."""
    for name in ("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        (tmp_path / name.lower()).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    # Real data is in this checkout for some and not for others; here, notebooks run on data that they generate.
    monkeypatch.delenv("RECVAE_DATA", raising=False)
    # Small matrices gain nothing from more threads, and with other work on the cores they wait for each other.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # A kernel named python3 that is installed elsewhere may belong to another interpreter; this one is found first.
    spec = tmp_path / "jupyter_path" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [warm_python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}), encoding="utf-8")
    assert KernelSpecManager().get_kernel_spec("python3").argv == argv
    workplace = tmp_path / "workplace"
    workplace.mkdir()
    return workplace


def _outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def _texts(notebook: NotebookNode) -> str:
    """Return all that the cells show, without pictures."""
    shown = []
    for output in _outputs(notebook):
        shown.append(output.get("text", ""))
        shown += [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join(shown)


def _check_figures(notebook: NotebookNode) -> None:
    figures = [cell for cell in notebook.cells if "plt.show()" in cell.source]
    assert figures
    for figure in figures:
        assert any("image/png" in output.get("data", {}) for output in figure.outputs), figure.id


def test_outputs_are_kept_and_of_this_code(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    hint = f"run: make notebooks ARGS={path.name[:2]}"
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), hint
    assert notebook.metadata.get("recvae", {}).get("code") == PAGES["code_of"](notebook), f"code has changed; {hint}"
    _check_figures(notebook)
    kinds = Counter(output.output_type for output in _outputs(notebook))
    assert kinds["error"] == 0
    assert sum(kinds.values()) > 3


def test_kept_outputs_are_small_and_have_nothing_of_the_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert path.stat().st_size < MOST_BYTES
    assert all(not cell.metadata for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info", "recvae"}
    assert set(notebook.metadata.language_info) == {"name"}
    assert not [output for output in _outputs(notebook) if output.get("name") == "stderr"]
    texts = _texts(notebook)
    for what, pattern in UNWANTED.items():
        found = re.search(pattern, texts)
        assert found is None, f"{what}: {texts[max(found.start() - 40, 0) : found.end() + 40]!r}"


def test_kept_outputs_on_real_data_are_of_it_and_have_no_rows_of_it(path: Path, request: pytest.FixtureRequest) -> None:
    notebook = nbformat.read(path, as_version=4)
    texts = _texts(notebook)
    assert PAGES["is_on_real_data"](notebook) == (path.name >= "05")
    if path.name < "05":
        assert "ml-1m" not in texts
        return
    assert "ml-1m: 5,034 training users" in texts, "these outputs are of generated data; put ml-1m into data/"
    assert not re.search(r"(?i)\buser[_ ]?id", texts)
    folder: Path = request.getfixturevalue("real_data")
    lines = (folder / "ml-1m" / "movies.dat").read_text(encoding="latin-1").splitlines()
    titles = [title for title in (line.split("::")[1] for line in lines) if title in texts]
    assert len(titles) <= FEW_TITLES, titles


@pytest.mark.slow
def test_the_notebook_runs_and_draws_its_figures(path: Path, workplace: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    before = nbformat.from_dict(notebook)
    resources = {"metadata": {"path": str(workplace)}}
    client = NotebookClient(notebook, kernel_name="python3", timeout=300, resources=resources)
    client.execute()  # raises where a cell does
    _check_figures(notebook)
    printed = [output.text for output in _outputs(notebook) if output.output_type == "stream"]
    assert not [text for text in printed if "Warning" in text or text.startswith("error: ")]
    assert "ml-1m" not in _texts(notebook)
    assert list(workplace.iterdir()) == []
    if not PAGES["is_on_real_data"](before):
        assert [len(cell.get("outputs", [])) > 0 for cell in before.cells] == [
            len(cell.get("outputs", [])) > 0 for cell in notebook.cells
        ], "other cells show something than in the kept outputs"
