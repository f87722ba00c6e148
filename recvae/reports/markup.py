"""Pieces of a page: escaped texts, tables of texts, sections, and pictures that follow the page's colours."""

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recvae.reports.canvas import COLORS, INK, LINE, SOFT, as_svg
from recvae.reports.latent import LENGTHS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { --s1: #0072b2; --s2: #d55e00; --s3: #009e73; --s4: #cc79a7; --s5: #e69f00; --s6: #56b4e9; --s7: #1a1a1a;
  --l1: #00224e; --l2: #35456c; --l3: #7c7b78; --l4: #bcae6c; --l5: #fee838; }
@media screen and (prefers-color-scheme: dark) {
  :root { --s1: #3d9be0; --s2: #ff8a3d; --s3: #2fc79a; --s4: #e59ac6; --s5: #f0b93a; --s6: #9fd8ff; --s7: #e9ebed;
    --l1: #2f5fa8; --l2: #5f7fa8; --l3: #9a9a94; --l4: #cbbd7a; --l5: #fee838; }
}
h2 { font-size: 1.3rem; line-height: 1.3; letter-spacing: -.01em; margin: 2.8rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; overflow-wrap: anywhere; }
h4 { font-size: .875rem; color: var(--soft); margin: .8rem 0 .25rem; }
a { color: var(--tone); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: 1rem 0; font-size: .9375rem; }
.lead { font-size: 1.0625rem; max-width: 46rem; }
.lead li { margin: .3rem 0; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
td.text, th.text { text-align: left; white-space: normal; min-width: 13rem; overflow-wrap: anywhere; }
figure { margin: 1.6rem 0 2rem; }
.picture { overflow-x: auto; }
.picture svg { display: block; width: 100%; max-width: 46rem; min-width: 32rem; height: auto; }
.picture svg.wide { max-width: 60rem; }
.picture svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { color: var(--soft); font-size: .875rem; max-width: 46rem; margin-top: .3rem; }
pre { white-space: pre-wrap; overflow-x: auto; padding: .8rem 1rem;
  border: 1px solid var(--line); border-radius: 8px; background: var(--card);
  font: .8125rem/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
pre div { padding-left: 2rem; text-indent: -2rem; margin: .2rem 0; }
pre span { display: inline-block; text-indent: 0; }
.user { padding: .2rem 1.1rem 1rem; margin: 1rem 0; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 0 2rem; }
.user ul, .user ol { margin: 0; padding-left: 1.4rem; font-size: .9375rem; }
.user li { margin: .15rem 0; }
.why { display: block; color: var(--soft); font-size: .84375rem; }
.hit { color: var(--tone); font-size: .8125rem; font-weight: 600; white-space: nowrap; }
@media print {
  h2 { break-after: avoid; margin-top: 1.2rem; }
  h3, h4 { break-after: avoid; }
  nav { display: none; }
  figure, .user { break-inside: avoid; }
  .picture svg { min-width: 0; max-width: 15cm; }
  .picture svg.wide { max-width: 17cm; }
  .sides { grid-template-columns: 1fr 1fr; }
}
"""
"""What a report adds to the look of every page."""

_THEMED = {color: f"var(--s{place})" for place, color in enumerate(COLORS, 1)}
_THEMED |= {color: f"var(--l{place})" for place, color in enumerate(LENGTHS, 1)}
_THEMED |= {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)"}


def escaped(value: object) -> str:
    """Return any value as text that HTML takes for nothing else."""
    return html.escape(str(value))


def paragraph(text: str, kind: str = "") -> str:
    """Return a text as a paragraph."""
    return f"<p{_class(kind)}>{escaped(text)}</p>"


def listed(texts: Sequence[str], kind: str = "", ordered: bool = False) -> str:
    """Return texts as a list."""
    tag = "ol" if ordered else "ul"
    return f"<{tag}{_class(kind)}>" + "".join(f"<li>{escaped(text)}</li>" for text in texts) + f"</{tag}>"


def text_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], texts: Sequence[int] = (), note: str = ""
) -> str:
    """Return a table of any values.

    Parameters
    ----------
    headers : sequence of str
        One per column.
    rows : sequence of sequences
        Each as long as the headers.
    texts : sequence of int
        The columns that hold sentences: flush left, and broken into lines.
    note : str
        What the values are.
    """

    def line(values: Sequence[object], tag: str) -> str:
        cells = (
            f"<{tag}{_class('text' if place in texts else '')}>{escaped(value)}</{tag}>"
            for place, value in enumerate(values)
        )
        return "<tr>" + "".join(cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    whole = f'<div class="table"><table><thead>{line(headers, "th")}</thead><tbody>{body}</tbody></table></div>'
    return whole + (paragraph(note, "note") if note else "")


def commands(lines: Sequence[str]) -> str:
    """Return commands one below the other; a long one is broken between its words, and copied as one line."""
    shown = (" ".join(f"<span>{escaped(word)}</span>" for word in line.split(" ")) for line in lines)
    return "<pre>" + "".join(f"<div>{line}</div>" for line in shown) + "</pre>"


def section(name: str, title: str, *parts: str) -> str:
    """Return a section with its heading, which links lead to by name."""
    return f'<section id="{name}">\n<h2>{escaped(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def picture_of(figure: "Figure", name: str, caption: str) -> str:
    """Return a picture as SVG within the page, in the page's colours, with what it shows below it.

    Parameters
    ----------
    figure : Figure
        The picture.
    name : str
        Letters and dashes, different for each picture of a page: what its ids begin with.
    caption : str
        What it shows, also for who cannot see it.
    """
    svg = as_svg(figure)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style type=.*?</style>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _of_page(tag[0], name), svg)  # texts between tags stay as they are
    head, rest = svg.split(">", 1)
    head = re.sub(r' (width|height|version|xmlns:xlink|xmlns)="[^"]*"', "", head)
    is_wide = figure.get_figwidth() > 8
    head += f' role="img" aria-label="{escaped(figure.get_suptitle())}"' + _class("wide" if is_wide else "")
    drawn = f'<div class="picture">{head}>{rest.strip()}</div>'
    return f"<figure>\n{drawn}\n<figcaption>{escaped(caption)}</figcaption>\n</figure>"


def _of_page(tag: str, name: str) -> str:
    """Return a tag of SVG with ids that begin with a name, and the page's colours."""
    tag = re.sub(r'( id="|url\(#|href="#)', lambda found: f"{found[1]}{name}-", tag)
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: _THEMED.get(found[0], found[0]), tag)


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
