"""Every notebook runs from top to bottom on this interpreter, and is committed without outputs."""

import json
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: str) -> Path:
    """Return an empty folder to run in; what Jupyter reads and writes lies beside it."""
    for name in ("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        (tmp_path / name.lower()).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
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


def test_the_notebook_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert _outputs(notebook) == []
    assert all(cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_the_notebook_runs_and_draws_its_figures(path: Path, workplace: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(workplace)}}
    client = NotebookClient(notebook, kernel_name="python3", timeout=300, resources=resources)
    client.execute()  # raises where a cell does
    figures = [cell for cell in notebook.cells if "plt.show()" in cell.source]
    assert figures
    for figure in figures:
        assert any("image/png" in output.get("data", {}) for output in figure.outputs), figure.id
    printed = [output.text for output in _outputs(notebook) if output.output_type == "stream"]
    assert not [text for text in printed if "Warning" in text]
    assert list(workplace.iterdir()) == []
