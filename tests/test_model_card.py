"""The model card: a page for people, with metadata that YAML and the Hub read, however the data is called."""

from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import example, given
from hypothesis import strategies as st

from recvae.bundles.readme import model_card

PAPER = "Liang et al. (WWW 2018)"
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


def described(**changes: Any) -> dict[str, Any]:
    """Return what recommender.json says of a small model."""
    return {
        "model": "multdae",
        "hyperparameters": {"latent_dim": 8},
        "interrupted": False,
        "metrics": {"validation": {"ndcg@100": 0.25, "recall@20": 1 / 3}, "test": {"ndcg@100": 0.125}},
        "training": {"epochs": 3},
        "dataset": {"name": "blocks", "fingerprint": "0" * 64, "protocol": {"split": "strong"}},
        "created": "2026-01-01T00:00:00+00:00",
        "versions": {"recvae": "1", "torch": "2"},
        **changes,
    }


def front_matter(page: str) -> Any:
    """Return what stands between the first two lines of ---, as PyYAML reads it."""
    before, matter, rest = page.split("---\n", maxsplit=2)
    assert before == "" and rest.startswith("\n# ")
    return yaml.safe_load(matter)


def hub_data(page: str) -> ModelCardData:
    """Return the metadata as the Hub's own package reads it."""
    data = ModelCard(page).data
    assert isinstance(data, ModelCardData)
    return data


def test_the_hub_finds_the_library_the_tags_and_the_metrics() -> None:
    data = hub_data(model_card(described(), PAPER))
    assert data.library_name == "recvae"
    assert data.tags == ["recommender-systems", "collaborative-filtering", "implicit-feedback", "multdae"]
    assert data.model_name == "multdae on blocks"
    found = [
        (result.dataset_name, result.dataset_split, result.metric_type, result.metric_value)
        for result in data.eval_results or []
    ]
    assert found == [
        ("blocks", "validation", "ndcg@100", 0.25),
        ("blocks", "validation", "recall@20", 0.333333),
        ("blocks", "test", "ndcg@100", 0.125),
    ]


def test_no_licence_and_no_data_set_of_the_hub_are_claimed() -> None:
    assert set(front_matter(model_card(described(), PAPER))) == {"library_name", "tags", "model-index"}


@pytest.mark.parametrize("metrics", [{}, {"validation": {}}, {"validation": {"ndcg@100": float("nan")}}])
def test_without_a_number_there_is_no_model_index(metrics: dict[str, Any]) -> None:
    assert set(front_matter(model_card(described(metrics=metrics), PAPER))) == {"library_name", "tags"}


def test_data_without_a_name_is_called_so() -> None:
    matter = front_matter(model_card(described(dataset={}), PAPER))
    assert matter["model-index"][0]["name"] == "multdae"
    assert matter["model-index"][0]["results"][0]["dataset"]["name"] == "unnamed data"


@given(name=NAMES)
@example('Kino: "die" besten # Filme - 100 %')
@example("a\n---\nlicense: mit")
@example("no")
@example("日本の映画 🎬")
@example("\x85\u2028\ufeff\x00\x7f\U000e0001")
def test_odd_names_of_data_come_back_as_they_were(name: str) -> None:
    page = model_card(described(dataset={"name": name}), PAPER)
    results = front_matter(page)["model-index"][0]["results"]
    assert {result["dataset"]["name"] for result in results} == {name}
    assert {result.dataset_name for result in hub_data(page).eval_results or []} == {name}
    headings = [line for line in page.splitlines() if line.startswith("# ")]
    assert headings == [f"# multdae on {' '.join(name.split())}"]
