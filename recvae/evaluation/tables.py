"""Tables of results as Markdown, LaTeX and HTML, from one description; numbers as people read them."""

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

DAGGER = "†"
_PAPER = 100  # characters that fit the text width of LaTeX's article in its small print
_SPECIAL = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "''",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "–": "--",
    DAGGER: r"$^{\dagger}$",
}
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u0327": "c ", "\u030c": "v "}


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Parameters
    ----------
    text : str
        The value.
    rest : str
        What follows it and is never emphasised, such as "± 0.01".
    rank : int
        1 for the best of its column, 2 for the second best, 0 otherwise.
    marked : bool
        Whether it gets a dagger.
    """

    text: str
    rest: str = ""
    rank: int = 0
    marked: bool = False

    def plain(self) -> str:
        """Return it for a terminal, the best with a star; set flush left, numbers are aligned."""
        star = "*" if self.rank == 1 else " "
        return f"{self.text}{star}{self.rest}{DAGGER if self.marked else ''}".rstrip()

    def formatted(self, best: str, second: str, dagger: str) -> str:
        """Return it with its value put into one of two patterns such as "<b>{}</b>"."""
        pattern = {1: best, 2: second}.get(self.rank, "{}")
        value = pattern.format(self.text) if self.text else ""
        return " ".join(part for part in (value, self.rest) if part) + (dagger if self.marked else "")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under headers; the first column names the row.

    Parameters
    ----------
    headers : sequence of str
        One per column.
    rows : sequence of sequences of Cell
        Each as long as the headers.
    note : str
        What the numbers are.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    @property
    def has_best(self) -> bool:
        """Whether a cell is the best of its column."""
        return any(map(self.is_ranked, range(len(self.headers))))

    def is_ranked(self, column: int) -> bool:
        """Whether the best cell of a column is marked."""
        return any(row[column].rank == 1 for row in self.rows)

    @property
    def has_second(self) -> bool:
        """Whether a cell is the second best of its column."""
        return any(cell.rank == 2 for row in self.rows for cell in row)

    def narrow(self, width: int) -> list["Table"]:
        """Split it by columns into tables that fit a width, each with the first column; only the last has the note.

        Parameters
        ----------
        width : int
            Characters, borders included; a table of two columns may be wider.
        """
        widths = [
            3 + max(len(header), *(len(row[column].plain()) for row in self.rows), 0)
            for column, header in enumerate(self.headers)
        ]
        parts: list[list[int]] = [[0]]
        for column in range(1, len(widths)):
            taken = 1 + sum(widths[other] for other in parts[-1])
            if len(parts[-1]) > 1 and taken + widths[column] > width:
                parts.append([0])
            parts[-1].append(column)
        tables = [
            Table(headers=[self.headers[c] for c in part], rows=[[row[c] for c in part] for row in self.rows])
            for part in parts
        ]
        return [*tables[:-1], replace(tables[-1], note=self.note)]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Tables that belong together, with a title and remarks.

    Parameters
    ----------
    title : str
        What they are about.
    tables : sequence of Table
        In their order.
    remarks : sequence of str
        What else the reader has to know.
    """

    title: str
    tables: Sequence[Table]
    remarks: Sequence[str] = field(default=())

    def to_markdown(self) -> str:
        """Return it as GitHub's Markdown, the columns aligned for reading as plain text too."""
        parts = [f"**{_markdown(self.title)}**"]
        for table in self.tables:
            lines = [[_markdown(header) for header in table.headers]]
            lines += [[_in_markdown(cell) for cell in row] for row in table.rows]
            widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(table.headers))]
            ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
            aligned = [
                " | ".join(
                    text.rjust(width) if column else text.ljust(width)
                    for column, (text, width) in enumerate(zip(line, widths, strict=True))
                )
                for line in [lines[0], ruler, *lines[1:]]
            ]
            parts.append("\n".join(f"| {line} |" for line in aligned))
            parts += [_markdown(text) for text in _legend(table, "bold: the best")]
        if self.remarks:
            parts.append("\n".join(f"- {_markdown(remark)}" for remark in self.remarks))
        return "\n\n".join(parts) + "\n"

    def to_latex(self, label: str = "tab:comparison") -> str:
        """Return it as one LaTeX float of booktabs tables, in ASCII; the notes are its caption.

        Parameters
        ----------
        label : str
            For references to it; letters, digits, colons and dashes.
        """
        legends = [
            sentence
            for table in self.tables
            for sentence in _legend(table, "bold: the best" + (", underlined: the second" if table.has_second else ""))
        ]
        legends = [sentence[:1].upper() + sentence[1:] for sentence in legends]
        caption = " ".join(latex_escape(sentence) + "." for sentence in [self.title, *legends])
        lines = [r"% needs \usepackage{booktabs}", r"\begin{table}", r"  \centering"]
        lines += [f"  \\caption{{{caption}}}", f"  \\label{{{label}}}"]
        lines += [r"  \footnotesize", r"  \setlength{\tabcolsep}{4pt}"]
        narrow = [part for table in self.tables for part in table.narrow(_PAPER)]
        lines.append("\n\n  \\medskip\n".join("\n".join(_tabular(part)) for part in narrow))
        lines += [f"  % {latex_escape(remark)}" for remark in self.remarks]
        return "\n".join([*lines, r"\end{table}"]) + "\n"

    def to_html(self) -> str:
        """Return it as HTML, for notebooks."""
        parts = [f"<p><strong>{html.escape(self.title)}</strong></p>", *map(table_as_html, self.tables)]
        parts += [f"<p>{html.escape(remark)}</p>" for remark in self.remarks]
        return "\n".join(parts)


def table_as_html(table: Table) -> str:
    """Return a table and its note as HTML; all texts are escaped."""
    head = "".join(f"<th>{html.escape(header)}</th>" for header in table.headers)
    rows = [
        "".join(f'<td style="text-align:{"right" if c else "left"}">{_in_html(v)}</td>' for c, v in enumerate(r))
        for r in table.rows
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    notes = [f"<p>{html.escape(text)}</p>" for text in _legend(table, "bold: the best")]
    whole = f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return "\n".join([whole, *notes])


def _legend(table: Table, best: str) -> Iterator[str]:
    words = [table.note, best if table.has_best else ""]
    if any(words):
        yield "; ".join(word for word in words if word)


def _markdown(text: str) -> str:
    """Keep Markdown from reading marks into a text; underscores within words mean nothing to it."""
    text = re.sub(r"([\\|*`~]|<(?=[A-Za-z/!])|(?<=\])\()", r"\\\1", text.replace("\n", " "))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _in_markdown(cell: Cell) -> str:
    escaped = replace(cell, text=_markdown(cell.text), rest=_markdown(cell.rest))
    return escaped.formatted("**{}**", "{}", DAGGER)


def _in_html(cell: Cell) -> str:
    escaped = replace(cell, text=html.escape(cell.text), rest=html.escape(cell.rest))
    return escaped.formatted("<strong>{}</strong>", "{}", f"<sup>{DAGGER}</sup>")


def latex_escape(text: str) -> str:
    r"""Return a text as LaTeX prints it, in ASCII: \, & and the like escaped, accents as commands, the unknown as "?".

    Parameters
    ----------
    text : str
        Any text.

    Examples
    --------
    >>> print(latex_escape("50 % of a_b & é"))
    50 \% of a\_b \& \'{e}
    """
    pieces: list[str] = []
    for character in unicodedata.normalize("NFC", text.replace("\n", " ")):
        base, *marks = unicodedata.normalize("NFD", character)
        if character in _SPECIAL:
            pieces.append(_SPECIAL[character])
        elif character.isascii():
            pieces.append(character if character.isprintable() else " ")
        elif base.isascii() and len(marks) == 1 and marks[0] in _ACCENTS:
            pieces.append(f"\\{_ACCENTS[marks[0]]}{{{base}}}")
        else:
            pieces.append("?")
    return re.sub(r"(?<![\w\-])-(?=\d)", "$-$", "".join(pieces))  # a sign and no hyphen


def _tabular(table: Table) -> Iterator[str]:
    yield f"  \\begin{{tabular}}{{l{'r' * (len(table.headers) - 1)}}}"
    yield r"    \toprule"
    yield "    " + " & ".join(map(latex_escape, table.headers)) + r" \\"
    yield r"    \midrule"
    for row in table.rows:
        cells = [
            replace(cell, text=latex_escape(cell.text), rest=latex_escape(cell.rest)).formatted(
                "\\textbf{{{}}}", "\\underline{{{}}}", r"$^{\dagger}$"
            )
            for cell in row
        ]
        first = "{}" if cells[0][:1] in ("[", "*") else ""  # which \\ would take for its own argument
        yield f"    {first}" + " & ".join(cells) + r" \\"
    yield r"    \bottomrule"
    yield r"  \end{tabular}"


def human_seconds(seconds: float | None) -> str:
    """Return a duration such as "12.3 s", "2 min 05 s" or "1 h 20 min"; "-" where it is not known."""
    if seconds is None:
        return "-"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def human_count(n: int) -> str:
    """Return a number such as "1,355", "12.3 k" or "2.9 M"."""
    if n < 10_000:
        return f"{n:,}"
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if n >= size * 0.99995:
            return f"{n / size:,.1f} {unit}"
    return f"{n / 1e3:.1f} k"
