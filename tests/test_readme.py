"""The pages are true: their commands and programs run as they stand, in order, in an empty folder."""

import contextlib
import importlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import huggingface_hub
import pytest

from recvae.datasets.dataset import Dataset
from recvae.exports.writing import export
from recvae.models import MODELS
from recvae.recommenders.recommender import Recommender
from recvae.serving.settings import Settings

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
LEADERBOARD = ROOT / "benchmarks" / "leaderboard.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PROSE = [
    *(README, ROOT / "README.zh-CN.md", *DOCS, ROOT / "data" / "README.md"),
    *(ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", LEADERBOARD),
    *(ROOT / "benchmarks" / name for name in ("leaderboard.head.md", "leaderboard.published.md")),
]
PAGES = [
    page for page in (README, *DOCS) if re.search("^```(bash|python)$", page.read_text("utf-8"), flags=re.MULTILINE)
]
PUBLIC_MODULES = {"recvae", "recvae.errors", "recvae.metrics", "recvae.models", "recvae.plots", "recvae.serving.onnx"}
PUBLIC_MODULES |= {"recvae.spark"}
WARNINGS = (
    "error",
    # What MLflow says of its own type hints and of an example we do not give, and SQLAlchemy of MLflow.
    "ignore::UserWarning:mlflow.types.type_hints",
    "ignore::UserWarning:mlflow.pyfunc",
    "ignore::DeprecationWarning:mlflow.store.tracking.sqlalchemy_store",
)


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """Return language and text of the blocks of code."""
    return re.findall(
        r"^```(bash|python|js|text)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def file_of(code: str) -> str | None:
    """Return the name of the file that a block is to be saved as: its first line has it as a comment."""
    named = re.match(r"(?:#|//) (\w+\.(?:py|mjs))\n", code)
    return named[1] if named else None


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Return the exit code of a command and what it says; no server that it starts outlives it, also if it fails."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as running:
        out, err = running.communicate()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    return running.returncode, out + err


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[] if page == README else pytest.mark.slow, id=page.name) for page in PAGES]
)
def test_the_blocks_of_a_page_run_in_order(
    page: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, warm_python: str
) -> None:
    blocks = blocks_of(page)
    python = sys.executable if page == README else warm_python  # what starts in a moment; the README as users do
    scripts = tmp_path_factory.mktemp("scripts")
    (scripts / "recvae").write_text(f"#!{python}\nfrom recvae_cli.app import main\nmain()\n")
    (scripts / "recvae").chmod(0o755)
    path = os.pathsep.join([str(scripts), str(Path(sys.executable).parent), os.environ["PATH"]])
    # Small matrices gain nothing from more threads, and with other work on the cores they wait for each other.
    environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": ",".join(WARNINGS), "OMP_NUM_THREADS": "1"}
    environment.pop("RECVAE_DATA", None)
    said = ""
    for language, code in blocks:
        if language == "text":  # what the block above prints, among other lines
            assert [line for line in code.splitlines() if line not in said.splitlines()] == []
            continue
        if (name := file_of(code)) is not None:
            (tmp_path / name).write_text(code, encoding="utf-8")
            continue
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [python, "-c", code]
        code_of_exit, said = _run(command, tmp_path, environment)
        assert code_of_exit == 0, f"{code}\n{said}"
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".pickle")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_program_of_a_page_is_python(page: Path) -> None:
    for language, code in blocks_of(page):
        if language == "python":
            compile(code, page.name, "exec")


def test_the_pages_that_run_are_these() -> None:
    assert [page.name for page in PAGES] == [
        *("README.md", "coming-from.md", "data.md", "evaluation.md", "latent.md", "models.md", "recommending.md"),
        *("reports.md", "serving.md", "training.md", "tutorial.md"),
    ]


def test_every_verb_of_the_command_is_in_the_readme() -> None:
    from recvae_cli.app import app

    text = README.read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert f"recvae {command.name}" in text


def test_every_page_of_the_documentation_is_linked_from_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    for page in DOCS:
        assert f"(docs/{page.name})" in text
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        assert f"`notebooks/{notebook.name}`" in text


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked), target


def _modules_named(text: str) -> set[str]:
    """Return the modules of recvae that a text names, e.g. `recvae.metrics` for `recvae.metrics.ndcg_at_k`."""
    named = set()
    for dotted in re.findall(r"\brecvae(?:\.\w+)+", text):
        parts = dotted.split(".")
        for end in range(len(parts), 1, -1):
            path = ROOT.joinpath(*parts[:end])
            if path.is_dir() or path.with_suffix(".py").is_file():
                named.add(".".join(parts[:end]))
                break
    return named


def test_no_page_names_an_inner_module(fitted: Callable[[str], Any], blocks: Dataset, workplace: Path) -> None:
    assert _modules_named("recvae.training.trainer.train, recvae.metrics.ndcg_at_k and /etc/recvae.service") == {
        "recvae.training.trainer",
        "recvae.metrics",
    }
    Recommender(fitted("multdae"), blocks).save("bundle")
    pages = [
        README,
        *DOCS,
        ROOT / "data" / "README.md",
        *ROOT.glob("notebooks/*.ipynb"),
        workplace / "bundle/README.md",
    ]
    for page in pages:
        assert _modules_named(page.read_text(encoding="utf-8")) <= PUBLIC_MODULES, page.name


def test_the_table_of_models_is_made_from_the_registry() -> None:
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    page = tables["PAGE"].read_text(encoding="utf-8")
    assert page == tables["with_table"](page), "docs/training.md is out of date; run: make docs"
    assert all(f"| `{name}` |" in page for name in MODELS)


def test_the_figures_of_the_readme_and_its_picture_are_those_of_the_leaderboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    picture = importlib.import_module("picture")
    rows = picture.rows_of(LEADERBOARD.read_text(encoding="utf-8"), "ml-1m")
    assert [row.run for row in rows if row.difference is None] == ["ease"]
    assert [row.ndcg for row in rows] == sorted((row.ndcg for row in rows), reverse=True)
    picture.draw(rows, tmp_path / "results.svg")
    for path in (tmp_path / "results.svg", ROOT / "docs" / "results.svg"):
        assert picture.described(rows) in path.read_text(encoding="utf-8"), (
            f"{path.name} is out of date; run: make docs"
        )

    measured = {f"{row.ndcg:.4f}".lstrip("0") for row in rows}
    table = README.read_text(encoding="utf-8").split("## Which model?")[1].split("\n\n")[1]
    figures = set(re.findall(r"(?<!\d)\.\d{4}", table))
    assert figures
    assert figures <= measured


def test_a_run_is_uploaded_to_the_hub_and_comes_back(
    fitted: Callable[[str], Any], blocks: Dataset, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no network: stand-ins take the calls that the real package would, and no others."""
    Recommender(fitted("multdae"), blocks).save("runs/synthetic/multdae")
    for _, code in blocks_of(ROOT / "docs" / "serving.md"):
        if (name := file_of(code)) in ("upload.py", "download.py"):
            Path(name).write_text(code, encoding="utf-8")
    api = create_autospec(huggingface_hub.HfApi)
    monkeypatch.setattr(huggingface_hub, "HfApi", api)
    runpy.run_path("upload.py")
    created, uploaded = (getattr(api.return_value, name).call_args for name in ("create_repo", "upload_folder"))
    assert created.args[0] == uploaded.kwargs["repo_id"]
    folder = Path(uploaded.kwargs["folder_path"])
    assert huggingface_hub.ModelCard.load(folder / "README.md").data.to_dict()["library_name"] == "recvae"

    download = create_autospec(huggingface_hub.snapshot_download, return_value=str(folder))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    recommender = runpy.run_path("download.py")["recommender"]
    assert download.call_args.args[0] == uploaded.kwargs["repo_id"]
    assert recommender.recommend([1000], k=3).ids == Recommender(fitted("multdae"), blocks).recommend([1000], k=3).ids


def test_the_javascript_of_the_page_recommends_what_the_recommender_does(
    fitted: Callable[[str], Any], blocks: Dataset, workplace: Path
) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm, which comes with Node.js")
    asked = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, check=True)
    modules = Path(asked.stdout.strip())
    if not (modules / "onnxruntime-node").is_dir():
        pytest.skip(f"no onnxruntime-node in {modules}; npm install --global onnxruntime-node")
    Path("node_modules").symlink_to(modules)
    recommender = Recommender(fitted("multdae"), blocks)
    recommender.save("runs/synthetic/multdae")
    export("runs/synthetic/multdae")
    code = next(code for language, code in blocks_of(ROOT / "docs" / "serving.md") if language == "js")
    Path("recommend.mjs").write_text(code, encoding="utf-8")
    history = ["1000", "990", "990", "not an id"]
    done = subprocess.run(["node", "recommend.mjs", *history], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout), recommender.recommend(history, k=5)
    assert [(one["id"], one["title"]) for one in found] == list(zip(expected.ids, expected.titles, strict=True))
    assert [one["score"] for one in found] == pytest.approx(expected.scores, abs=1e-5)


def test_the_glossary_has_each_term_once_in_one_or_two_sentences() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    entries = re.findall(r"^\*\*(.+?)\.\*\* (.+(?:\n.+)*)", text, flags=re.MULTILINE)
    terms = [term.strip() for names, _ in entries for term in names.split(",")]
    assert len(terms) == len(set(terms))
    needed = ("User", "Item", "Interaction", "Fold-in", "Targets", "Strong generalisation", "ELBO", "KL divergence")
    needed += ("Beta", "Posterior collapse", "Active units", "NDCG@k", "Recall@k", "Popularity bias", "Novelty")
    assert {*needed, "Gini index", "Calibration", "EASE", "ALS", "MIPS", "index"} <= set(terms)
    for names, meaning in entries:
        sentences = re.findall(r"[.!?](?=\s|$)", re.sub(r"e\.g\.|et al\.", "", meaning))
        assert 1 <= len(sentences) <= 2, names


def test_the_limits_of_the_server_are_those_on_its_page() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    table = page.split("\n### Limits\n")[1].split("\n## ")[0]
    found = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+(?: MiB)?) \|", table, flags=re.MULTILINE))
    limits = {name: f"{value:,.0f}" for name, value in Settings().limits().items()}
    assert found == {**limits, "body_bytes": "1 MiB"}
    assert Settings().body_bytes == 1 << 20
