"""Figures that stand in the page, in light and dark, and in files of their own.

Drawn by matplotlib without pyplot, so that no display is needed. Text and axes have a colour that nothing else has; in the page
it becomes `currentColor`, the colour of the text around the figure.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9c7a10", "#7f7f7f")
"""Four of Okabe and Ito's, whom the colour-blind can tell apart, an ochre and a grey: contrast 3 or more on white and on dark."""
FORMATS = ("png", "svg")
POINTS = 600  # of a curve


@contextmanager
def drawing(name: str = "report") -> Iterator[None]:
    """The look of all figures. Ids in the SVG of a figure follow from its `name`."""
    import matplotlib
    from cycler import cycler

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    look: dict[Any, Any] = dict.fromkeys(inked, INK) | {
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.alpha": 0.2,
        "grid.linewidth": 0.5,
        "font.size": 10,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,  # names of sources and tasks may have a $
    }
    with matplotlib.rc_context(look):
        yield


def panels(rows: int, height: float, ratios: tuple[float, ...] | None = None, width: float = 9.0) -> tuple["Figure", Any]:
    """A figure of `rows` plots above each other on one axis; sizes in inches. Inside `drawing`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    plots = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for axes in plots:
        axes.grid()
    return figure, plots


def logarithmic(axes: Any) -> None:
    """A logarithmic y axis whose numbers are plain text, as 1e-04: all others want mathematics to be set."""
    from matplotlib.ticker import LogFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter())


def inline(name: str, figure: "Figure", told: str) -> str:
    """The figure as a part of a page, in a box that scrolls sideways where the screen is narrow; `told` is what it shows, for
    those who cannot see it."""
    buffer = io.StringIO()
    with drawing(name):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None, "matplotlib gives every SVG a viewBox"
    text = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 system-ui, sans-serif", text.replace(INK, "currentColor"))
    text = re.sub(r"(\d\.\d\d)\d+(?=[ \"])", r"\1", text)
    for before in (' id="', 'href="#', "url(#"):
        text = text.replace(before, f"{before}{name}-")
    text = text.replace("xlink:href", "href")
    start = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(told, quote=True)}"'
    drawn = re.sub(r"<svg\b[^>]*", start, text, count=1)
    return f"<div class='wide plot' style='--width: {round(figure.get_figwidth() * 96)}px'>{drawn.strip()}</div>"


def write_figure(name: str, figure: "Figure", folder: Path, formats: tuple[str, ...]) -> list[Path]:
    """The figure as files `NAME.png`, `NAME.svg`, black on white; returns what was written."""
    files = [folder / f"{name}.{kind}" for kind in formats]
    with drawing(name):
        for file in files:
            figure.savefig(file, dpi=150, facecolor="white", metadata={"Date": None} if file.suffix == ".svg" else {})
    return files
