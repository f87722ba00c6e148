"""`recvae inspect`: a run's model, data and metrics, and whether its files are intact."""

from typing import TYPE_CHECKING, Any

import typer

from recvae_cli.console import RUNS_DIR, Json, OneRun, RunsDir, command, say_next, show, show_json

if TYPE_CHECKING:
    from rich.table import Table

    from recvae.training.refits import Refit


def inspect(
    run: OneRun = None,
    as_json: Json = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Describe a run and verify its files (exit code 1 if damaged or out of date).

    \b
    Example:
      recvae inspect ml-1m/multvae
    """
    from rich.table import Table

    from recvae.bundles.bundle import check_files, training_of
    from recvae.bundles.card import read_card
    from recvae.compute.memory import human_bytes
    from recvae.exports.format import checks_of_exports, problems_of_exports
    from recvae.runs.finding import find_run

    folder = find_run(runs_dir, run)
    card = read_card(folder)
    files, exports = check_files(folder, card), problems_of_exports(folder)
    refit = training_of(folder, card).refit
    checks = checks_of_exports(folder, exports)
    if as_json:
        states = {name: found.to_json() for name, found in files.items()}
        show_json({"folder": str(folder), **card, "files": states, "exports": exports, "checks": checks})
    else:
        show(f"{folder}: {card['model']} on {card['dataset'].get('name', 'unnamed data')}, made {card['created']}")
        states = Table("file", "size", "state")
        for name, found in files.items():
            states.add_row(name, human_bytes(found.n_bytes), found.problem or "ok")
        for name, problem in exports.items():
            states.add_row(f"{name}/", "", problem or "ok, up to date")
        facts = _facts(card) if refit is None else f"refit: {refit.describe()}\n{_facts(card)}"
        show(*_settings_and_numbers(card, refit), facts, states)
        if "index" in checks:
            shares = " and ".join(f"{share:.1%} of the top {k}" for k, share in checks["index"]["overlap"].items())
            show(f"index: finds {shares}, measured on {checks['index']['rows']:,} {checks['index']['on']}")
    if any([*(found.problem for found in files.values()), *exports.values()]):
        raise typer.Exit(1)
    if not as_json:
        from recvae.models import MODELS  # only now: it takes a second

        more = [] if card["model"] in MODELS else ["--model", "MODULE:CLASS"]
        verbs = [["recommend", folder, "--items", "ID,ID"], ["serve", folder], ["evaluate", folder]]
        verbs = verbs[:2] if refit is not None and refit.has_seen("test") else verbs
        say_next(*(command(*verb, *more) for verb in verbs))


def _settings_and_numbers(card: dict[str, Any], refit: "Refit | None") -> "tuple[Table, Table]":
    """Return what a run was set to, and what it reached."""
    from rich.table import Table

    settings = Table("hyperparameter", "value")
    for name, value in card["hyperparameters"].items():
        settings.add_row(name, _from_data(card, name) or str(value))
    numbers = Table("users", "metric", "mean")
    of_refit = {} if refit is None else {f"validation, of {refit.run}": refit.metrics}
    for part, values in (card["metrics"] | of_refit).items():
        for metric, mean in values.items():
            numbers.add_row(part, metric, f"{mean:.4f}")
    return settings, numbers


def _from_data(card: dict[str, Any], name: str) -> str:
    """Return what a hyperparameter became that was left to the data; empty for others."""
    values = card["training"].get("from_data")
    value = values.get(name) if isinstance(values, dict) else None
    return f"{value:g}, from the data" if isinstance(value, int | float) else ""


def _facts(card: dict[str, Any]) -> str:
    """Return a few lines about training, data and versions."""
    data = card["dataset"]
    protocol = data.get("protocol", {})
    lines = [
        f"training: {_listed(card['training']) or 'unknown'}",
        f"data: fingerprint {str(data.get('fingerprint', 'unknown'))[:16]}, {_listed(protocol) or 'unknown protocol'}",
        f"made with {_listed(card['versions'])}",
    ]
    if card.get("interrupted"):
        lines.insert(0, "interrupted: these are the best weights so far")
    return "\n".join(lines)


def _listed(values: Any) -> str:
    """List the plain values of a part of a card, e.g. "split strong, seed 98765"."""
    plain = values.items() if isinstance(values, dict) else ()
    return ", ".join(
        f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in plain
        if not isinstance(value, dict)
    )
