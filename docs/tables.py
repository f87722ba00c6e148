"""Write the table of models into `training.md`, from the registry, so that a new model is in it without being told.

python docs/tables.py       # or `make docs`; a test fails where the page is out of date
"""

from pathlib import Path

from recvae.models import MODELS

PAGE = Path(__file__).parent / "training.md"
START, END = "<!-- models: written by docs/tables.py -->\n", "<!-- end of models -->\n"


def models_table() -> str:
    """Return one row per model: its name, the first line of its docstring, its paper."""
    rows = []
    for name, model in MODELS.items():
        idea = (model.__doc__ or "").splitlines()[0].split("; defaults are")[0].rstrip(".")
        rows.append(f"| `{name}` | {idea} | {model.paper} |\n")
    return "| model | | paper |\n|---|---|---|\n" + "".join(rows)


def with_table(page: str) -> str:
    """Return the text of the page with the table as it is now."""
    before, rest = page.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{models_table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
