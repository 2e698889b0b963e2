"""Pages of one file, which open from a disk without a network: tables that sort and search."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..runs.index import Value
from .grid import to_cell

SKELETON = Path(__file__).with_name("page.html")


def make_page(title: str, *parts: str) -> bytes:
    """A page of parts, which are HTML."""
    page = SKELETON.read_text(encoding="utf-8").replace("TITLE", escape(title), 1)
    return page.replace("BODY", f"<h1>{escape(title)}</h1>\n" + "\n".join(parts), 1).encode()


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it."""
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(parts)


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def code(text: str) -> str:
    """Lines as they are."""
    return f"<pre>{escape(text)}</pre>"


def details(title: str, *parts: str) -> str:
    """What is seen after a click on the title."""
    return f"<details><summary>{escape(title)}</summary>" + "\n".join(parts) + "</details>"


def inline_svg(content: bytes) -> str:
    """A figure, without what only a file needs."""
    text = content.decode()
    return text[text.index("<svg") :]


def figure(drawing: str, captions: Sequence[str]) -> str:
    """A drawing, which is HTML, and lines of text below it."""
    told = "<br>".join(map(escape, captions))
    return f"<figure>{drawing}<figcaption>{told}</figcaption></figure>"


def make_table(
    header: Sequence[str], rows: Sequence[Sequence[Value]], *, sortable: bool = False
) -> str:
    """A table of plain values; one that is sortable can be searched, too."""
    columns = [*zip(*rows, strict=True)] if rows else [()] * len(header)
    kinds = [
        "" if any(isinstance(value, str) for value in column) else ' class="number"'
        for column in columns
    ]
    titles = [
        f'<button type="button">{escape(name)}</button>' if sortable else escape(name)
        for name in header
    ]
    heads = "".join(f"<th{kind}>{title}</th>" for kind, title in zip(kinds, titles, strict=True))
    lines = ["".join(map(_cell, header, kinds, row)) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    kind = ' class="sortable"' if sortable else ""
    table = f"<table{kind}><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _cell(name: str, kind: str, value: Value) -> str:
    """A cell, with its plain value to sort by."""
    plain = "" if value is None else escape(str(value))
    return f'<td{kind} data-value="{plain}">{escape(to_cell(name, value))}</td>'
