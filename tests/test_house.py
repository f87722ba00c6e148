"""The house: imports point one way, public names are exported, the command comes last, nothing unsafe is used."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import recvae

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("recvae/**/*.py"), *ROOT.glob("cli/recvae_cli/*.py")])

# Each room may import the rooms before it, never one after it.
ORDER = [
    *("version", "errors", "items", "interactions", "user_code", "ranked_lists"),
    *("compute", "storage", "ranking", "metrics", "progress"),
    *("datasets", "training", "models", "bundles"),
    *("evaluation", "runs", "tuning"),  # the numbers wing
    *("recommenders", "exports", "serving"),  # the answers wing
]


def _room(path: Path) -> str:
    """Return the room a file belongs to: its own name, or that of its folder."""
    parts = path.relative_to(ROOT / "recvae").with_suffix("").parts
    return parts[0]


def _imports(path: Path) -> list[str]:
    """Return the modules of recvae that a file imports at its top level or in functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
        elif isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
    return [name for name in names if name.split(".")[0] in ("recvae", "recvae_cli")]


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {_room(path) for path in ROOT.glob("recvae/**/*.py")} - {"__init__", "__main__"}
    assert rooms == set(ORDER)


@pytest.mark.parametrize("path", sorted(ROOT.glob("recvae/**/*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    room = _room(path)
    if room in ("__init__", "__main__"):  # the latter is the command, started by `python -m recvae`
        return
    for name in _imports(path):
        assert name.split(".")[0] == "recvae", f"{path.name} imports the command"
        other = name.split(".")[1]
        assert ORDER.index(other) <= ORDER.index(room), f"{room} may not import {other}"


def test_the_public_names_are_exported_and_sorted() -> None:
    assert sorted(recvae.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name)) == recvae.__all__
    for name in recvae.__all__:
        assert getattr(recvae, name).__doc__, name


def test_names_and_modules_are_there_without_importing_them_first() -> None:
    code = (
        "import sys, recvae, recvae.datasets.preparation\n"
        "assert 'torch' not in sys.modules\n"  # reading and preparing data needs none of it
        "assert set(recvae.__all__) <= set(dir(recvae))\n"
        "print(recvae.metrics.ndcg_at_k.__name__, recvae.EASE.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ndcg_at_k EASE True\n"
    with pytest.raises(AttributeError, match=r"^module 'recvae' has no attribute 'MultVEA'$"):
        recvae.MultVEA  # type: ignore[attr-defined]  # noqa: B018


def test_answering_needs_numpy_alone() -> None:
    heavy = "{'torch', 'scipy', 'pandas', 'pyarrow'}"
    code = f"import sys, recvae.recommenders.base\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_help_imports_neither_torch_nor_the_library() -> None:
    code = (
        "import sys; sys.argv = ['recvae', '--help']\n"
        "from recvae_cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'pandas', 'recvae'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_file_uses_pickle_or_global_random_state(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for pattern in (
        r"import pickle",
        r"allow_pickle=True",
        r"torch\.load\(",
        r"torch\.manual_seed\(",
        r"np\.random\.(seed|rand|randn|choice|permutation|shuffle)\(",
    ):
        assert not re.search(pattern, text), f"{path.name} uses {pattern}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node) is not None
            first = node.body[min(int(documented), len(node.body) - 1)]
            assert (node.end_lineno or 0) - first.lineno + 1 <= 45, node.name
