"""Data, protocol and metrics in plain words, from what a data set says of itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from recvae.datasets.dataset import Dataset
from recvae.display import plural
from recvae.reports.markup import escaped, listed, paragraph, text_table

_METRICS = {
    "recall": "hits among the first {k}, divided by the number of hidden items, or by {k} where there are more",
    "recall_all": "hits among the first {k}, divided by the number of hidden items",
    "ndcg": "hits among the first {k}, each counted less the further down it is, divided by the best possible value",
    "precision": "hits among the first {k}, divided by {k}",
    "hit_rate": "1 if there is any hit among the first {k}, else 0",
    "map": "the precision at each hit among the first {k}, averaged over the hidden items that could be found",
    "mrr": "1 divided by the rank of the first hit, 0 without one among the first {k}",
    "coverage": "share of all items that are among anyone's first {k}",
    "gini": "how unequally the first {k} are spread over all items: 0 where all are shown as often, near 1 for a few",
    "novelty": "-log2 of the share of training users who know an item, averaged over the first {k}",
    "average_popularity": "training users who know an item, averaged over the first {k}",
    "relative_popularity": "share of the training users who know an item, averaged over the first {k}",
    "tail_share": "share of the first {k} that are not among the most popular fifth of all items",
    "tail_recall": "recall of the hidden items that are not among the most popular fifth of all items",
    "diversity": "1 - the cosine of what users two items have in common, averaged over pairs of the first {k}",
    "feature_diversity": "1 - the cosine of the features of two items, averaged over pairs of the first {k}",
    "popularity_miscalibration": "how far popular, medium and rare items have other shares than in the history, 0 to 1",
    "feature_miscalibration": "how far features have other shares than in the history (Steck's KL divergence)",
}


def data_words(dataset: Dataset) -> str:
    """Return what the data are: counts, density, how they were filtered, fingerprint."""
    manifest, items = dataset.manifest, dataset.train.shape[1]
    rows = [
        ["training", dataset.train.shape[0], dataset.train.nnz, "-", _share(dataset.train.nnz, dataset.train.shape)]
    ]
    for name in ("validation", "test"):
        part = dataset.part(name)
        seen = part.fold_in.nnz
        rows.append(
            [name, part.n_users, seen, f"{part.targets.nnz:,}", _share(seen + part.targets.nnz, part.fold_in.shape)]
        )
    shown = [[name, f"{users:,}", f"{seen:,}", hidden, density] for name, users, seen, hidden, density in rows]
    parts = [
        paragraph(f"{dataset.name} has {items:,} items. An interaction is one user who has one item."),
        text_table(
            ["users for", "users", "interactions that models see", "hidden interactions", "density"],
            shown,
            note="density: the share of all pairs of a user and an item that are interactions",
        ),
    ]
    steps = manifest.get("filters", {}).get("steps") or []
    if steps:
        lines = [[one["name"], *(f"{one[key]:,}" for key in ("events", "users", "items"))] for one in steps]
        parts += ["<h3>From the log to these data</h3>", text_table(["step", "events", "users", "items"], lines)]
    dropped = [f"{name}: {count:,}" for name, count in manifest.get("dropped", {}).items() if count]
    if dropped:
        parts.append(paragraph("Left out: " + "; ".join(dropped) + "."))
    made = (
        f"prepared with recvae {manifest['recvae']} on {manifest.get('created', 'an unknown day')}; "
        if "recvae" in manifest
        else ""
    )
    parts.append(
        f'<p class="note">{escaped(made)}fingerprint <code>{escaped(dataset.fingerprint or "unknown")}</code>. '
        "Numbers of other data or of another split have another fingerprint, and cannot be compared.</p>"
    )
    return "\n".join(parts)


def _share(n: int, shape: tuple[int, ...]) -> str:
    return f"{n / (shape[0] * shape[1]):.2%}"


def protocol_words(protocol: Mapping[str, Any], split: str, n_users: int, n_items: int) -> str:
    """Return how models are measured, sentence by sentence.

    Parameters
    ----------
    protocol : mapping
        Of the manifest.
    split : str
        The users who were asked: "validation" or "test".
    n_users, n_items : int
        Users with hidden items, and items in all.
    """
    other = "validation" if split == "test" else "test"
    sentences = [
        *_split_words(protocol),
        f"For {'the' if n_users == 1 else 'each of the'} {plural(n_users, f'{split} user')}, the model is given the "
        f"items that it may see, and ranks all others of the {n_items:,} items. Items that it was given are never "
        "recommended.",
        "A hidden item in the list is a hit. Users without a hidden item are left out.",
    ]
    if split == "test":
        sentences.append(f"Settings and epochs were chosen on {other} users. The test users have decided nothing.")
    else:
        sentences.append(
            "Settings and epochs were chosen on these very users, so that results look better than they are."
        )
    return listed(sentences)


def _split_words(protocol: Mapping[str, Any]) -> list[str]:
    """Say how the data were split."""
    kind, seed = protocol.get("split"), protocol.get("seed")
    drawn = "" if seed is None else f" (drawn at random with seed {seed})"
    share = protocol.get("target_share")
    hidden = "a part" if share is None else f"{share:.0%}"
    if kind == "strong":
        n_users = protocol.get("heldout_users")
        heldout = "Some users" if n_users is None else plural(n_users, "user")
        return [
            f"{heldout} for validation and as many for the test were kept out of "
            f"training altogether{drawn}. The models have never seen them.",
            f"Of the items of each of these users, {hidden} are hidden and have to be found. The others are given.",
        ]
    if kind == "holdout":
        return [
            f"All users are in training. Of each user's items, {hidden} are hidden for the test{drawn}, and the same "
            "share of the rest for validation."
        ]
    if kind == "leave-last-out":
        return [
            "All users are in training. The last item of each user is hidden for the test, and the one before it for "
            "validation."
        ]
    if kind == "time":
        return [
            "The log was cut at two moments: training before the first, validation up to the second, the test after "
            "it. Nothing that happened later was known in training."
        ]
    if kind == "ready-made":
        return [f"The split was made elsewhere and taken as it is{drawn}."]
    told = ", ".join(f"{name} {value}" for name, value in protocol.items()) or "it is not known how"
    return [f"How the data were split: {told}."]


def metric_words(metrics: Sequence[str]) -> str:
    """Return what each metric is."""
    rows = []
    for metric in metrics:
        name, _, k = metric.partition("@")
        rows.append([metric, _METRICS.get(name, "a metric of your own: see its function").format(k=k)])
    return text_table(["metric", "value for a user"], rows, texts=(1,))
