"""How a recommender shows itself: one line at a prompt, a table in a notebook."""

from typing import Any

from recvae.display import html_facts, one_line, plural


class ShownRecommender:
    """The part of a recommender that people see."""

    def __repr__(self) -> str:
        """Return it in one line: its model, its data and how many items it has."""
        return f"<{_summary(self)}>"

    def _repr_html_(self: Any) -> str:
        means = {f"{part} {metric}": f"{v:.4f}" for part, one in self.metrics.items() for metric, v in one.items()}
        return html_facts(_summary(self), means)


def _summary(recommender: Any) -> str:
    data = one_line(recommender.manifest.get("name", "unnamed data"))
    model, n_items = one_line(recommender.model_name), plural(len(recommender.items), "item")
    return f"{type(recommender).__name__}: {model} on {data}, {n_items}"
