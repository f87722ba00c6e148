"""Names of models and hyperparameters, read from the sources of the library without importing it: that takes seconds.

Completion and messages about mistyped options need these names at once. A test compares them with the registry.
"""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
"""The file that makes a folder a data set, as `recvae.datasets.folder` has it."""


def letters_of(name: str) -> str:
    """Return what makes spellings of a model's name one: no case, no dashes, underscores and spaces."""
    return re.sub(r"[-_\s]", "", name).lower()


@cache
def hyperparameters() -> dict[str, list[str]]:
    """Return the names of the hyperparameters of each model, by its name; nothing where there are no sources."""
    spec = find_spec("recvae")
    folders = [Path(place) / "models" for place in (spec.submodule_search_locations if spec else None) or ()]
    files = sorted(path for folder in folders for path in (*folder.glob("*.py"), *folder.glob("common/*.py")))
    trees = {path: _tree(path) for path in files}
    classes = {node.name: node for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)}
    registry = next((tree for path, tree in trees.items() if path.name == "__init__.py"), ast.Module([], []))
    listed = [
        alias.name for node in registry.body if isinstance(node, ast.ImportFrom) for alias in node.names if alias.asname
    ]
    models = {_name_of(classes[name]): _fields(name, classes) for name in listed if name in classes}
    return {name: list(fields) for name, fields in models.items() if name}


def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def _declared(node: ast.ClassDef) -> dict[str, Any]:
    """Return what a class declares, name = value, with annotations."""
    found = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    return {one.target.id: one.value for one in found if isinstance(one.target, ast.Name)}


def _name_of(node: ast.ClassDef) -> str:
    """Return the name that a model is known by, empty for a class that is none."""
    value = _declared(node).get("name")
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def _fields(name: str, classes: dict[str, ast.ClassDef]) -> dict[str, None]:
    """Return the hyperparameters of a class and of those it derives from."""
    node, fields = classes.get(name), dict[str, None]()
    if node is None:
        return fields
    for base in reversed(node.bases):
        base = base.value if isinstance(base, ast.Subscript) else base
        fields |= _fields(base.id, classes) if isinstance(base, ast.Name) else {}
    for field, value in _declared(node).items():
        is_one = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "hyperparameter"
        fields |= {field: None} if is_one else {}
    return fields
