"""`recvae export`: a run's scores for other runtimes, checked against the run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recvae_cli.console import (
    DATA_DIR,
    RUNS_DIR,
    DataDir,
    Json,
    OneRun,
    OwnModels,
    RunsDir,
    command,
    imported_models,
    python,
    say,
    say_next,
    show,
    show_json,
)

if TYPE_CHECKING:
    from recvae.exports.writing import ModelExport
    from recvae.interactions import HeldOut


def export(
    run: OneRun = None,
    format_: Annotated[
        str,
        typer.Option("--format", help="onnx (ONNX Runtime), torch (torch.export.load) or index (of items)."),
    ] = "onnx",
    quantize: Annotated[
        str | None, typer.Option(help="int8 quantises dense layers: smaller and faster; onnx only.")
    ] = None,
    min_recall: Annotated[
        float | None,
        typer.Option(help="Share of the exact list that an index must find.", show_default=".95; index only"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Output folder.", show_default="RUN/onnx, onnx-int8, torch or index")
    ] = None,
    as_json: Json = False,
    own: OwnModels = None,
    data_dir: DataDir = DATA_DIR,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Export a run for other runtimes, or an index with which the run itself answers faster.

    The export takes item columns and returns top items or all scores. It is checked against the original model; on any
    mismatch nothing is written.

    An index finds the best items of a large catalogue without scoring all of them. How many of the exact list it finds
    is measured on validation users.

    \b
    Examples:
      recvae export ml-1m/multvae
      recvae export ml-1m/multvae --quantize int8
      recvae export ml-1m/ease --format torch --output ease-pt2
      recvae export yambda/elsa --format index --min-recall .98
    """
    from recvae.exports.writing import check_exportable
    from recvae.exports.writing import export as write
    from recvae.runs.finding import find_run
    from recvae.training.monitors import ProgressBar

    check_exportable(format_, quantize, min_recall)
    folder = find_run(runs_dir, run)
    held_out = _held_out(folder, data_dir)
    with ProgressBar("exporting") as bar:
        made = write(
            folder,
            format=format_,
            quantize=quantize,
            min_recall=min_recall,
            output=output,
            held_out=held_out,
            progress=bar,
            models=imported_models(own),
        )
    if as_json:
        show_json({"folder": str(made.folder), **made.card})
        return
    _print(folder, made)
    _say_next(folder, made, output, own or [])


def _held_out(folder: Path, data_dir: Path) -> "HeldOut | None":
    """Return the validation users of a run's data set, None if it is missing or has changed."""
    from recvae.bundles.card import read_card
    from recvae.datasets.dataset import Dataset
    from recvae.datasets.home import find_dataset
    from recvae.errors import DataError, UsageError

    manifest: dict[str, Any] = read_card(folder)["dataset"]
    name = str(manifest.get("name"))
    try:
        dataset = Dataset.load(find_dataset(data_dir, name))
    except (UsageError, DataError, OSError) as error:  # OSError: a name that no file can have
        say(f"checking on generated histories: {error}")
        return None
    if dataset.fingerprint != manifest.get("fingerprint"):
        say(f"checking on generated histories: {name} is not the data that the run was trained on")
        return None
    return dataset.validation if dataset.validation.n_users else None


def _print(folder: Path, made: "ModelExport") -> None:
    from recvae.compute.memory import human_bytes

    card, check = made.card, made.card["check"]
    if card["format"] == "index":
        shares = " and ".join(f"{share:.1%} of the top {k}" for k, share in check["overlap"].items())
        show(
            f"{made.folder}: index of {card['n_items']:,} items of {card['model']}, {human_bytes(made.n_bytes)}, "
            f"from {folder}"
        )
        show(
            f"searching {card['lists']:,} of {card['n_lists']:,} lists, it finds {shares} of {check['rows']:,} "
            f"{check['on']}; their scores are the model's"
        )
        return
    kind = f"{card['format']} {card['quantize'] or 'float32'}"
    show(f"{made.folder}: {card['model']} as {kind}, {human_bytes(made.n_bytes)}, from {folder}")
    shared = " and ".join(f"{share:.1%} of the top {k}" for k, share in check["overlap"].items())
    show(
        f"checked on {check['rows']:,} {check['on']}: scores differ by at most {check['difference']:.1e} of their "
        f"range; {shared} are the same"
    )
    if check["ndcg"] is not None:
        before, after = check["ndcg"]["float32"], check["ndcg"]["exported"]
        show(f"ndcg@100 of {check['ndcg']['users']:,} validation users: {before:.4f} before, {after:.4f} after")


def _say_next(folder: Path, made: "ModelExport", output: Path | None, own: list[str]) -> None:
    if made.card["format"] == "torch":
        say_next(python(f"import torch; print(torch.export.load({str(made.folder / 'model.pt2')!r}))"))
        return
    models: list[str] = []
    if made.card["format"] == "index":
        models = [word for name in own for word in ("--model", name)]  # the run itself is loaded
        where = "True" if output is None else repr(str(made.folder))
        classes = [name.partition(":")[::2] for name in own]
        imported = "".join(f"from {module} import {name}; " for module, name in classes)
        given = f", models=[{', '.join(name for _, name in classes)}]" if classes else ""
        load = (
            f"from recvae import Recommender; {imported}r = Recommender.load({str(folder)!r}{given}, retrieval={where})"
        )
    else:
        load = f"from recvae.serving.onnx import OnnxRecommender; r = OnnxRecommender.load({str(made.folder)!r})"
    serve = [command("serve", folder, "--format", made.folder.name, *models)] if output is None else []
    say_next(*serve, python(f"{load}; print(r.recommend(r.item_ids[:2], k=5).ids)"))
