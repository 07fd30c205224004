"""What people see of tokenizers: compression by language and domain, beside others, and the tokens of a text in colour."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from llmctl.errors import UserError
from llmctl.tokens.statistics import Statistics

COLOURS = ("#b5d4f4", "#f4d9a6", "#c6e8c0", "#e9c3ea", "#f2b8b5")  # of neighbouring tokens, one after the other
WIDEST = 32  # characters of a token that is named
PLOTS = (".png", ".svg", ".pdf")


def show_statistics(found: dict[str, Statistics], as_json: bool) -> None:
    """Tables of every tokenizer by name."""
    if as_json:
        print(json.dumps({name: asdict(statistics) for name, statistics in found.items()}, indent=2, ensure_ascii=False))
        return
    console = Console()
    console.print("bytes per token (characters per token)", highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("text")
    for name in found:
        table.add_column(name, justify="right")
    for kind in next(iter(found.values())).kinds:
        cells = (s.kinds[kind] for s in found.values())
        table.add_row(kind, *(f"{cell.bytes_per_token:.2f} ({cell.characters_per_token:.2f})" for cell in cells))
    console.print(table)
    console.print()
    for name, statistics in found.items():
        console.print(f"{name}: {statistics.vocabulary:,} tokens, {statistics.used:,} of them in these texts", highlight=False)
        longest = "  ".join(repr(token if len(token) <= WIDEST else f"{token[:WIDEST]}…") for token in statistics.longest)
        console.print(f"  longest: {longest}", highlight=False, markup=False)


def plot_statistics(found: dict[str, Statistics], file: Path) -> None:
    """Bars of bytes per token by text and tokenizer.

    Raises:
        UserError: `file` is of no kind that is written.
    """
    if file.suffix not in PLOTS:
        raise UserError(f"--plot {file}: expected a name that ends in {', '.join(PLOTS)}")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(next(iter(found.values())).kinds)
    height = 0.8 / len(found)
    figure, axes = pyplot.subplots(figsize=(7, 0.5 + len(kinds) * (0.25 + 0.22 * len(found))), layout="constrained")
    for place, (name, statistics) in enumerate(found.items()):
        values = [statistics.kinds[kind].bytes_per_token for kind in kinds]
        bars = axes.barh([row + place * height for row in range(len(kinds))], values, height * 0.9, label=name)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes.set_yticks([row + height * (len(found) - 1) / 2 for row in range(len(kinds))], kinds)
    axes.invert_yaxis()
    axes.set_xlabel("bytes per token")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.02)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def show_tokens(tokenizer: Any, text: str, with_ids: bool) -> None:
    """The text with every token in a colour of its own, or where there are no colours a bar between them, line breaks shown, then
    how many there are."""
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    console = Console()
    shown = Text()
    drawn = 0
    for place, (number, (start, end)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True)):
        # Tokens that are parts of one character have the same place: it is written with the first of them.
        piece = text[max(start, drawn) : end]
        drawn = max(drawn, end)
        if place and not console.is_terminal:
            shown.append("│")
        style = Style(color="black", bgcolor=COLOURS[place % len(COLOURS)])
        visible = piece.replace("\t", "→   ")
        shown.append(visible.replace("\n", "↵\n") if visible else "·", style)
        if with_ids:
            shown.append(f"{number} ", Style(dim=True))
    console.print(shown)
    size = len(text.encode())
    console.print(f"{len(encoding.ids):,} tokens, {size / max(1, len(encoding.ids)):.2f} bytes per token", highlight=False)
