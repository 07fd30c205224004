"""Pictures of what a longer context gives: loss by position, and the map of needles found."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from llmctl.tokens.buckets import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = list[tuple[int, int, float, float]]
"""(first position, position after the last, mean loss, its standard error) of each range."""


class Found(Protocol):
    """What a cell of the map shows: the means of `evals.long_context.Score`."""

    @property
    def questions(self) -> int: ...
    @property
    def chosen(self) -> float: ...
    @property
    def exact(self) -> float: ...
    @property
    def chance(self) -> float: ...


def plot_curves(curves: dict[str, Curve], differences: dict[str, Curve], parent_length: int, documents: int, file: Path) -> None:
    curves_figure(curves, differences, parent_length, documents).savefig(file, dpi=150)


def curves_figure(curves: dict[str, Curve], differences: dict[str, Curve], parent_length: int, documents: int) -> "Figure":
    """Loss (nats per token) over the position, one line a model, with a band of one standard error over the documents; below it
    the `differences` to the first model on the same documents, whose errors are paired."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    colours = {name: f"C{number}" for number, name in enumerate(curves)}
    for axes, lines in ((above, curves), (below, differences)):
        for name, curve in lines.items():
            low, high, loss, error = (np.array(column, dtype=float) for column in zip(*curve, strict=True))
            middle, error = np.sqrt(np.maximum(low, high / 4) * high), np.nan_to_num(error)
            axes.plot(middle, loss, marker="o", markersize=3, linewidth=1.5, label=name, color=colours[name])
            axes.fill_between(middle, loss - error, loss + error, color=colours[name], alpha=0.15, linewidth=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.5)
    last = next(iter(curves.values()))[-1][1]
    if parent_length < last:
        above.axvline(parent_length, color="grey", linestyle="--", linewidth=1, label=f"parent's context, {short(parent_length)}")
        below.axvline(parent_length, color="grey", linestyle="--", linewidth=1)
    first = next(iter(curves.values()))[0][1] // 2
    ticks = [2**n for n in range(last.bit_length()) if first <= 2**n <= last]
    below.set_xscale("log", base=2)
    below.set_xticks(ticks, [short(tick) for tick in ticks])
    below.set_xlabel("position (tokens)")
    above.set_ylabel("loss (nats per token)")
    below.set_ylabel(f"difference to {next(iter(curves))}\n(nats per token)")
    below.axhline(0, color=colours[next(iter(curves))], linewidth=1.5)
    above.set_title(f"Loss by position, {documents} held-out documents ± standard error", fontsize=10)
    above.legend(frameon=False, fontsize=9)
    return figure


def plot_needles(maps: Mapping[str, Mapping[tuple[float, int], Found]], file: Path) -> None:
    needles_figure(maps).savefig(file, dpi=150)


def needles_figure(maps: Mapping[str, Mapping[tuple[float, int], Found]]) -> "Figure":
    """A panel for each model: depth of the needle by length of the context, coloured by choice accuracy; a cell says the choice
    accuracy and the exact match below it."""
    from matplotlib.figure import Figure

    cells = next(iter(maps.values()))
    depths, lengths = sorted({depth for depth, _ in cells}), sorted({length for _, length in cells})
    chance, questions = next(iter(cells.values())).chance, next(iter(cells.values())).questions
    size = (1.4 + len(maps) * (0.9 + 0.75 * len(lengths)), 1.6 + 0.55 * len(depths))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(maps), sharey=True, squeeze=False)
    image: Any = None
    for axes, (name, scores) in zip(panels[0], maps.items(), strict=True):
        chosen = np.full((len(depths), len(lengths)), np.nan)
        for (depth, length), score in scores.items():
            row, column = depths.index(depth), lengths.index(length)
            chosen[row, column] = 100 * score.chosen
            # SVG leaves black out: the text would have the ink of the page that it stands in.
            colour = "white" if score.chosen < 0.55 else "#111111"
            text = f"{100 * score.chosen:.0f}\n({100 * score.exact:.0f})"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        image = axes.imshow(chosen, vmin=0, vmax=100, cmap="viridis", aspect="auto")
        axes.set_xticks(range(len(lengths)), [short(length) for length in lengths])
        axes.set_yticks(range(len(depths)), [f"{100 * depth:.0f}" for depth in depths])
        axes.set_xlabel("context (tokens)")
        axes.set_title(name, fontsize=10)
    panels[0][0].set_ylabel("depth of the needle (% of the context)")
    bar = figure.colorbar(image, ax=list(panels[0]))
    bar.set_label("choice accuracy (%)")
    bar.ax.axhline(100 * chance, color="red", linewidth=2)
    bar.ax.text(
        -0.15, 100 * chance, "chance", color="red", ha="right", va="center", fontsize=8, transform=bar.ax.get_yaxis_transform()
    )
    figure.suptitle(f"Needle found, % by choice (exactly written), {questions} questions a cell", fontsize=10)
    return figure
