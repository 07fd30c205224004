"""A part of the page, and the pieces that parts are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from llmctl.page import table

FOLDED = 12  # rows of a table from which it is folded away


@dataclass(frozen=True, slots=True)
class Section:
    how: str
    """How to read it, plain text."""
    parts: Sequence[str]
    """HTML."""

    def html(self, name: str, title: str) -> str:
        """With its id and its title."""
        body = "".join(self.parts) or "<p>Nothing of this is there yet.</p>"
        return f"<section id='{name}'><h2>{escape(title)}</h2><p class='how'>{escape(self.how)}</p>{body}</section>"


def folded(title: str, *parts: str, opened: bool = False, name: str = "") -> str:
    """What is shown when its title is clicked."""
    identity = f" id='{escape(name, quote=True)}'" if name else ""
    return f"<details{identity}{' open' if opened else ''}><summary>{escape(title)}</summary>{''.join(parts)}</details>"


def heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str, look: str = "") -> str:
    return f"<p class='{look}'>{escape(text)}</p>" if look else f"<p>{escape(text)}</p>"


def logged_table(line: dict[str, Any]) -> str:
    """A table that a stage has said."""
    return heading(str(line.get("title", ""))) + table(*cells_of(line))


def cells_of(line: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    columns, rows = line.get("columns"), line.get("rows")
    found = [list(map(str, row)) for row in rows if isinstance(row, list)] if isinstance(rows, list) else []
    return (list(map(str, columns)) if isinstance(columns, list) else []), found


def long_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a title, folded where it is long."""
    drawn = table(columns, rows)
    return folded(f"{title} ({len(rows):,} rows)", drawn) if len(rows) > FOLDED else heading(title) + drawn


def looking(look: str, drawn: str) -> str:
    """A table with a class for the style."""
    return drawn.replace("<table>", f"<table class='{look}'>", 1)
