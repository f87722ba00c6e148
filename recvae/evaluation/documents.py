"""A comparison as a file for others: one page of HTML that needs nothing else, and rows of CSV for a spreadsheet."""

import csv
import html
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recvae.evaluation.comparison import Comparison

STYLE = """
:root { --paper: #fafaf7; --card: #fff; --ink: #1b1f24; --soft: #59616b; --line: #d9dad4; --tone: #0f766e;
  color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #131619; --card: #1c2024; --ink: #e9ebed; --soft: #a5aeb7; --line: #363d44; --tone: #52c4b6; }
}
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%; }
body { font: 400 1rem/1.55 "Segoe UI", -apple-system, "Helvetica Neue", Roboto, "Noto Sans", Cantarell, Ubuntu,
  "DejaVu Sans Condensed", system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; letter-spacing: -.015em; margin: 0 0 .4rem; overflow-wrap: anywhere; }
p { overflow-wrap: anywhere; }
.table { overflow-x: auto; margin: 1rem 0 .4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9375rem; }
th, td { padding: .35rem .8rem .35rem 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
th:first-child, td:first-child { text-align: left; }
.note, .note p { color: var(--soft); font-size: .875rem; margin: .2rem 0; }
.table + p { color: var(--soft); font-size: .875rem; margin: .2rem 0 1.2rem; }
@media print {
  :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; --tone: #005c55; color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .table { overflow: visible; }
  table { font-size: 8.5pt; }
  th, td { padding-right: .5rem; white-space: normal; }
  tr { break-inside: avoid; }
}
"""
"""The look of a page, in light, in dark and on paper."""


def document(title: str, body: str, style: str = "") -> str:
    """Return a whole HTML page that asks nothing of any network.

    Parameters
    ----------
    title : str
        What a browser calls it, as plain text.
    body : str
        HTML; whatever comes from data must be escaped in it.
    style : str
        Rules of CSS that follow those of every page.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{html.escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def comparison_as_html(comparison: "Comparison") -> str:
    """Return the tables of a comparison as a whole page; see `document`."""
    page = comparison.page()
    title = f"Recommenders on {comparison.manifest.get('name', 'unnamed data')}"
    return document(title, f"<h1>{html.escape(title)}</h1>\n{page.to_html()}")


COLUMNS = (
    *("dataset", "fingerprint", "split", "n_users", "run", "model", "is_baseline", "trained_on", "seeds", "metric"),
    *("mean", "se", "low", "high", "sd_over_seeds"),
    *("difference_to", "difference", "difference_low", "difference_high", "p", "p_holm", "significant"),
    *("training_seconds", "weights_bytes", "parameters", "note"),
)
"""What the rows of a CSV file have."""


def comparison_as_csv(comparison: "Comparison") -> str:
    """Return a comparison as CSV, one row per run and metric, the best run first; what does not apply is empty.

    Numbers have all their digits. The columns are `COLUMNS`.
    """
    content = comparison.to_json()
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    of_all = {name: content[name] for name in ("dataset", "fingerprint", "split", "n_users")}
    for run in content["runs"]:
        for metric, summary in run["metrics"].items():
            n_users = content.get("n_users_of", {}).get(metric, content["n_users"])
            row = of_all | {"n_users": n_users, "metric": metric} | summary
            writer.writerow(row | _of_run(run) | _of_metric(run, metric))
    return stream.getvalue()


def _of_run(run: dict[str, Any]) -> dict[str, Any]:
    """Return what all rows of a run have in common."""
    return {
        "run": run["name"],
        "model": run["model"],
        "is_baseline": _word(run["baseline"]),
        "trained_on": run["trained_on"],
        "seeds": " ".join(map(str, run["seeds"])),
        "training_seconds": run["training_seconds"],
        "weights_bytes": run["weights_bytes"],
        "parameters": run["parameters"],
        "note": run.get("note"),
    }


def _of_metric(run: dict[str, Any], metric: str) -> dict[str, Any]:
    """Return the deviation over seeds of a metric, and its difference to the baseline."""
    row: dict[str, Any] = {"sd_over_seeds": run["over_seeds"][metric]["sd"]}
    difference = run.get("difference")
    test = difference["metrics"].get(metric) if difference else None
    if difference and test:
        row |= {
            "difference_to": difference["to"],
            "difference": test["mean"],
            "difference_low": test["low"],
            "difference_high": test["high"],
            "p": test["p"],
            "p_holm": test["p_holm"],
            "significant": _word(test["significant"]),
        }
    return row


def _word(value: bool) -> str:
    return "true" if value else "false"
