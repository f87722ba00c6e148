"""The model card: what a bundle says of itself to people, as Markdown with the front matter of the Hugging Face Hub."""

import json
import math
from typing import Any

from recvae.training.records import TrainingSummary
from recvae.training.refits import Refit

_TAGS = ("recommender-systems", "collaborative-filtering", "implicit-feedback")


def model_card(card: dict[str, Any], paper: str, own: bool = False) -> str:
    """Write a page about a bundle.

    Parameters
    ----------
    card : dict
        What `recommender.json` says.
    paper : str
        Of the model.
    own : bool
        Whether its class must be given to load it.

    Returns
    -------
    str
        YAML between two lines of `---`, as the Hub reads it, then Markdown. It states no licence, which is the
        owner's to choose.
    """
    data = card["dataset"]
    name = _one_line(data.get("name", "unnamed data"))
    protocol = ", ".join(f"{key} {value}" for key, value in data.get("protocol", {}).items()) or "unknown"
    settings = "\n".join(f"| {key} | {value} |" for key, value in card["hyperparameters"].items())
    training = TrainingSummary.from_json(card["training"])
    metrics = "\n".join(
        f"| {part} | {metric} | {value:.4f} |"
        for part, values in card["metrics"].items()
        for metric, value in values.items()
    )
    refit, choice = training.refit, _describe_choice(training)
    if refit is not None:
        name_of = f"validation, of {_one_line(refit.run)}"
        metrics = "\n".join(f"| {name_of} | {metric} | {value:.4f} |" for metric, value in refit.metrics.items())
    why = training.failure or "Training was stopped by hand"
    note = f"\n{why}; these are the best weights so far.\n" if card["interrupted"] else ""
    return f"""{_front_matter(card)}
# {card["model"]} on {name}

{paper}.
{note}{_describe_refit(refit)}
| hyperparameter | value |
|---|---|
{settings}
{_list_parts(card, training.weight)}
| part | metric | mean |
|---|---|---|
{metrics}

Data: {name}, protocol: {protocol}, fingerprint `{data.get("fingerprint", "unknown")[:16]}`.
recall@k = hits / min(k, targets) and ndcg@k with binary gains, ranked over all items, seen items left out.
{choice}Made on {card["created"]} with recvae {card["versions"]["recvae"]} and torch {card["versions"]["torch"]}.

```python
from recvae import Recommender

recommender = Recommender.load("path/to/this/folder"{", models=[...]" if own else ""})
recommender.recommend(["318", "296"], k=10)
```
"""


def _describe_choice(training: TrainingSummary) -> str:
    """Return a line on the metric that validation users have chosen by; empty where nothing was chosen."""
    if training.select_by is None:
        return ""
    return f"Chosen by the highest {_one_line(training.select_by)} of the validation users.\n"


def _describe_refit(refit: Refit | None) -> str:
    """Return a paragraph on what a refit was chosen by; empty for any other run."""
    if refit is None:
        return ""
    says = _one_line(refit.describe())
    seen = "validation and test users were" if refit.has_seen("test") else "validation users were"
    return (
        f"\n{says[:1].upper()}{says[1:]}.\nThe {seen} trained on, so this model has no metrics of them. "
        f"The metrics below are those of {_one_line(refit.run)}.\n"
    )


def _front_matter(card: dict[str, Any]) -> str:
    """Return the metadata by which the Hub lists a model: library, tags, and `model-index` where there are metrics."""
    lines = ["---", "library_name: recvae", "tags:", *(f"- {_scalar(tag)}" for tag in (*_TAGS, card["model"]))]
    results = [line for part, values in card["metrics"].items() for line in _result(card, part, values)]
    if results:
        name = card["dataset"].get("name")
        title = card["model"] if name is None else f"{card['model']} on {name}"
        lines += ["model-index:", f"- name: {_scalar(title)}", "  results:", *results]
    return "\n".join([*lines, "---"]) + "\n"


def _result(card: dict[str, Any], part: str, values: dict[str, float]) -> list[str]:
    """Return the lines of one part's metrics in `model-index`; none where no metric is a number."""
    finite = {metric: value for metric, value in values.items() if math.isfinite(value)}
    if not finite:
        return []
    name = _scalar(card["dataset"].get("name", "unnamed data"))
    lines = ["  - task:", "      type: recommendation", "    dataset:"]
    lines += [f"      name: {name}", f"      type: {name}", f"      split: {_scalar(part)}", "    metrics:"]
    for metric, value in finite.items():
        lines += [f"    - type: {_scalar(metric)}", f"      value: {value:.6f}"]
    return lines


def _scalar(value: object) -> str:
    """Return a text as a quoted YAML scalar: JSON's quotes, and what YAML would not print as YAML's escapes.

    JSON's own escapes will not do: beyond U+FFFF they are pairs of surrogates, which YAML takes for two characters.
    """
    quoted = json.dumps(str(value), ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in quoted)


def _one_line(value: object) -> str:
    """Return a text without what would end a heading."""
    return " ".join(str(value).split())


def _list_parts(card: dict[str, Any], weight: float | None) -> str:
    """Return a Markdown list of the models that a model is made of; empty for most."""
    parts = [
        f"- {role}: {part['model']}, " + ", ".join(f"{name} {value}" for name, value in part["hyperparameters"].items())
        for role, part in card.get("parts", {}).items()
    ]
    share = "" if weight is None else f", {weight:g} of the first and {1 - weight:.3g} of the second"
    return f"\nMade of two runs{share}:\n\n" + "\n".join(parts) + "\n" if parts else ""
