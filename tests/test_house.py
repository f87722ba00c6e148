"""The house: imports point one way, public names are exported, the command comes last, nothing unsafe is used."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import recvae
from recvae import models
from recvae.models import MODELS

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("recvae/**/*.py"), *ROOT.glob("cli/recvae_cli/*.py")])

PUBLIC: list[str] = getattr(recvae, "__all__")  # noqa: B009  (made when asked for, which a type checker cannot see)

# Each room may import the rooms before it, never one after it.
ORDER = [
    *("version", "errors", "display", "ids", "items", "interactions", "user_code", "ranked_lists"),
    *("compute", "storage", "ranking", "metrics", "progress"),
    *("datasets", "training", "models", "bundles"),
    *("evaluation", "latent", "runs", "tuning"),  # the numbers wing
    *("recommenders", "exports", "serving", "spark"),  # the answers wing
    *("reports", "plots"),  # what both wings made, for people
    "tracking",  # of the numbers wing, and hands the other one on to MLflow
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


def test_the_map_in_contributing_is_this_order() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("\n## Where things are\n")[1].split("\n## ")[0]
    rooms = re.findall(r"^    (\w+/?) ", section, flags=re.MULTILINE)
    assert rooms == [f"{room}/" if (ROOT / "recvae" / room).is_dir() else room for room in ORDER]


@pytest.mark.parametrize("path", sorted(ROOT.glob("recvae/**/*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    room = _room(path)
    if room in ("__init__", "__main__"):  # the latter is the command, started by `python -m recvae`
        return
    for name in _imports(path):
        assert name.split(".")[0] == "recvae", f"{path.name} imports the command"
        other = name.split(".")[1]
        assert ORDER.index(other) <= ORDER.index(room), f"{room} may not import {other}"


def test_the_public_names_are_these_and_every_model() -> None:
    names = {
        "AnomalyDetector",
        "BatchRecommendations",
        "Comparison",
        "Dataset",
        "Events",
        "Explanation",
        "Filters",
        "HeldOut",
        "MLflowMonitor",
        "Model",
        "MonitorList",
        "ProgressBar",
        "Recommendations",
        "Recommender",
        "TensorBoardMonitor",
        "TrainingProgress",
        "__version__",
        "compare",
        "create_app",
        "evaluate",
        "export",
        "find_segments",
        "generate",
        "latent_units",
        "likelihood",
        "plant",
        "probe",
        "read_bundle",
        "read_events",
        "realism",
        "synthetic_log",
        "tune",
    }
    assert sorted(names | {model.__name__ for model in MODELS.values()}) == PUBLIC
    assert dir(recvae) == sorted([*PUBLIC, "errors", "metrics", "models", "plots"])
    for name in PUBLIC:
        assert getattr(recvae, name).__doc__, name


def test_a_type_checker_knows_every_public_name() -> None:
    """Only what imports it when it is used and what tells a type checker name a public name; models are in neither."""
    tree = ast.parse((ROOT / "recvae" / "__init__.py").read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    imported = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    by_name = {alias.asname: node.module for node in imported for alias in node.names if alias.asname}
    modules = {name for name, home in by_name.items() if home == "recvae"}
    assert {name: home for name, home in by_name.items() if name not in modules} == recvae._HOMES
    assert modules == {"errors", "metrics", "models", "plots"}
    assert {*by_name, "__version__"} >= set(PUBLIC) - set(vars(models))


def test_a_new_model_is_public_without_another_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class MyKNN(models.Model):
        """Recommend what similar users like."""

    monkeypatch.setattr(models, "MyKNN", MyKNN, raising=False)
    assert getattr(recvae, "MyKNN") is MyKNN  # noqa: B009  (a type checker cannot know it)
    assert "MyKNN" in dir(recvae)
    assert "MyKNN" in getattr(recvae, "__all__")  # noqa: B009


def test_names_and_modules_are_there_without_importing_them_first() -> None:
    code = (
        "import sys, recvae, recvae.datasets.preparation\n"
        "recvae.metrics, recvae.errors, recvae.Dataset, recvae.read_events, recvae.synthetic_log\n"
        "assert 'torch' not in sys.modules\n"  # reading and preparing data needs none of it
        "print(recvae.metrics.ndcg_at_k.__name__, recvae.EASE.__name__, 'torch' in sys.modules)\n"
        "from recvae import *\n"
        "print(MultVAE.__name__, compare.__name__, create_app.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ndcg_at_k EASE True\nMultVAE compare create_app\n"
    with pytest.raises(AttributeError, match=r"^module 'recvae' has no attribute 'MultVEA'$"):
        recvae.MultVEA  # type: ignore[attr-defined]  # noqa: B018


def test_without_the_extra_for_serving_only_its_name_is_missing() -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from recvae import *\n"
        "print(Recommender.__name__, 'create_app' in globals())\n"
        "try:\n    from recvae import create_app\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "Recommender False"
    assert second.startswith("UsageError recvae.create_app needs a library that cannot be imported (")
    assert second.endswith("; install it with: pip install 'recvae[serve]'")


HEAVY = {"torch", "scipy", "pandas", "pyarrow", "numpy"}
NEEDING = {  # what a docstring says that importing a file takes: which of them
    "takes the standard library alone": set[str](),
    "needs only the standard library": set[str](),
    "needs only numpy": {"numpy"},
    "without torch": HEAVY - {"torch"},
}


def _light_modules() -> dict[str, set[str]]:
    """Return which of the heavy libraries a file may import, for those whose docstring, or their folder's, says it."""
    found = {}
    for path in SOURCES:
        says = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or ""
        said = {path: says}
        if path.stem == "__init__":  # which has a line on each file
            lines = re.findall(r"^    (\w+)  +(.*)", says, flags=re.MULTILINE)
            said = {path.parent / f"{name}.py": text for name, text in lines}
        for file, text in said.items():
            for phrase in (phrase for phrase in NEEDING if phrase in text):
                name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
                found[name] = found.get(name, HEAVY) & NEEDING[phrase]
    return found


LIGHT = _light_modules()


def test_files_say_that_they_are_light() -> None:
    assert {
        "recvae.runs.listing",
        "recvae.bundles.exported",
        "recvae.bundles.card",
        "recvae.exports.scorer",
        "recvae.datasets.columns",
    } <= set(LIGHT)


@pytest.mark.parametrize("module", LIGHT)
def test_a_file_that_says_it_is_light_imports_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}\nprint(*sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= LIGHT[module]


def test_the_help_imports_neither_torch_nor_the_library() -> None:
    code = (
        "import sys; sys.argv = ['recvae', '--help']\n"
        "from recvae_cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'pandas', 'recvae'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


FOLDERS = sorted({path.parent for path in ROOT.glob("recvae/**/*.py")} - {ROOT / "recvae"})
HANDING_ON = (
    ROOT / "recvae" / "metrics",
    ROOT / "recvae" / "models",
    ROOT / "recvae" / "tuning",
    ROOT / "recvae" / "spark",
)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_folder_says_what_each_of_its_files_is_and_imports_nothing(folder: Path) -> None:
    module = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    if folder == ROOT / "recvae" / "models":
        return  # the registry lists them itself
    assert len(module.body) == 1 or folder in HANDING_ON, "a docstring and nothing else"
    described = set(re.findall(r"^    ([\w/-]+)  ", ast.get_docstring(module, clean=False) or "", flags=re.MULTILINE))
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    folders = {f"{path.name}/" for path in folder.iterdir() if (path / "__init__.py").is_file()}
    assert described == files | folders


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
