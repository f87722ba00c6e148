"""The pages of public names: what docstrings say, with each model's hyperparameters."""

from typing import Any

import recvae
import recvae.spark
from recvae import models
from recvae.models.common.hyperparameters import hyperparameters_of

_SERVING = ("bundles", "exports", "serving")
PAGES = {
    "data": ("Data", ("datasets", "interactions")),
    "training": ("Training", ("training", "tuning", "tracking")),
    "evaluation": ("Evaluation", ("evaluation",)),
    "latent": ("The inside of a model", ("latent",)),
    "recommending": ("Recommending", ("recommenders",)),
    "serving": ("Bundles, exports and serving", _SERVING),
}
"""A page, its title, and the folders of recvae whose public names it has."""

_MODULE = "    options:\n      show_root_heading: false\n      show_root_toc_entry: false\n      heading_level: 2\n"


def pages() -> dict[str, str]:
    """Return the pages, as Markdown, by their place in the site."""
    found = {f"reference/{name}.md": f"# {title}\n\n" for name, (title, _) in PAGES.items()}
    for name, home in recvae._HOMES.items():
        room = home.split(".")[1]
        page = next((page for page, (_, rooms) in PAGES.items() if room in rooms), None)
        if page is None:
            raise LookupError(f"recvae.{name} is in {home}, and no page of docs/site/reference.py has that folder")
        found[f"reference/{page}.md"] += _entry(name, f"recvae.{name}")
    found["reference/serving.md"] += "## Without PyTorch\n\n::: recvae.serving.onnx\n" + _MODULE
    found["reference/spark.md"] = "# Spark\n\n" + "".join(
        _entry(name, f"{home}.{name}") for name, home in recvae.spark._HOMES.items()
    )
    for module in ("metrics", "errors", "plots"):
        found[f"reference/{module}.md"] = f"# {module.title()}\n\n::: recvae.{module}\n{_MODULE}"
    found["reference/models.md"] = _models()
    return found


def _entry(title: str, name: str, *options: str) -> str:
    """Return the section of one public name."""
    options = (f"heading: {title}", f"toc_label: {title}", "inherited_members: true", *options)
    lines = "".join(f"      {option}\n" for option in options)
    return f"::: {name}\n    options:\n{lines}\n"


def _models() -> str:
    """Return the page of the models: what all have, and the hyperparameters of each."""
    parts = [
        "# Models\n\nEach can be imported from `recvae`, and has the methods of [`Model`](#recvae.models.Model).\n\n"
    ]
    for model in models.MODELS.values():
        parts.append(_entry(model.__name__, f"recvae.models.{model.__name__}", "members: []", "show_signature: false"))
        parts.append(f"{model.paper}.\n\n" + _hyperparameters(model))
    parts.append("## The class of all models, and what your own needs\n\n")
    parts.append(_entry("Model", "recvae.models.Model", "heading_level: 3"))
    public = [name for name, value in vars(models).items() if _is_tool(name, value)]
    parts += [_entry(name, f"recvae.models.{name}", "heading_level: 3") for name in public]
    return "".join(parts)


def _is_tool(name: str, value: Any) -> bool:
    """Whether a name of `recvae.models` is neither a model nor an import that is not for users."""
    if name.startswith("_") or name in ("Model", "UsageError", "import_object", "Sequence"):
        return False
    home = getattr(value, "__module__", "recvae.models") if callable(value) else "recvae.models"
    return (
        home.startswith("recvae.models") and value not in models.MODELS.values() and not isinstance(value, type(recvae))
    )


def _hyperparameters(model: type[models.Model]) -> str:
    """Return the table of a model's hyperparameters."""
    known = hyperparameters_of(model).values()
    if not known:
        return "It has no hyperparameters.\n\n"
    rows = "".join(
        f"| `{one.name}` | `{_default(one.default)}` | {_cell(one.meaning)} | {_cell(one.expected)} |\n"
        for one in known
    )
    return f"| hyperparameter | default | meaning | expected |\n|---|---|---|---|\n{rows}\n"


def _default(value: Any) -> str:
    """Return a default as it is typed after `--set`."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "()"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value) or '""'


def _cell(text: str) -> str:
    """Return a text as the cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")
