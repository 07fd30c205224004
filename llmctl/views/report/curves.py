"""Curves of all stages that train on one axis of tokens: loss, learning rate, gradient norm, speed, memory."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from llmctl.views.report.collect import RunRecord, StageRecord
from llmctl.views.report.figures import COLOURS, INK, POINTS, drawing, logarithmic, panels
from llmctl.views.report.reading import number
from llmctl.views.report.wording import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHED = 50  # a curve's median is over this part of its points, and over at least `WINDOW`
WINDOW = 5
UNEVEN = 30  # ratio of two stages' values from which the axis is logarithmic


@dataclass(frozen=True, slots=True)
class Span:
    """A stage on the axis of all tokens of the run."""

    stage: StageRecord
    first: float
    """Tokens of the stages before it."""
    colour: str

    @property
    def last(self) -> float:
        return self.first + self.stage.tokens

    def curve(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, values) of the steps that have a finite value."""
        found = [(step["tokens"], number(step.get(key))) for step in self.stage.steps]
        kept = [(self.first + at, value) for at, value in found if value is not None]
        at, values = np.array(kept, dtype=float).reshape(-1, 2).T
        return at, values

    def tokens_at(self, step: Any) -> float | None:
        """Where a measurement after `step` steps stands; None: that step's line is not there."""
        return next((self.first + line["tokens"] for line in self.stage.steps if line.get("step") == step), None)


def spans(run: RunRecord) -> list[Span]:
    """The stages that train, one after another."""
    found: list[Span] = []
    for place, stage in enumerate(run.trained):
        found.append(Span(stage, found[-1].last if found else 0.0, COLOURS[place % len(COLOURS)]))
    return found


def thinned(at: np.ndarray, values: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `points` of a curve: the lowest and the highest of each stretch, so that no spike is lost."""
    if len(at) <= points:
        return at, values
    edges = np.linspace(0, len(at), points // 2 + 1).astype(int)
    kept = set()
    for low, high in pairwise(edges):
        kept |= {low + int(values[low:high].argmin()), low + int(values[low:high].argmax())}
    places = sorted(kept)
    return at[places], values[places]


def smoothed(at: np.ndarray, values: np.ndarray, points: int = POINTS // 2) -> tuple[np.ndarray, np.ndarray]:
    """The running median, at `points` places at most."""
    reach = max(WINDOW, len(values) // SMOOTHED) // 2
    places = np.unique(np.linspace(0, len(values) - 1, min(points, len(values))).astype(int))
    found = [np.median(values[max(0, place - reach) : place + reach + 1]) for place in places]
    return at[places], np.array(found)


def loss_figure(run: RunRecord) -> "Figure | None":
    """Loss above, learning rate below."""
    shown = [span for span in spans(run) if len(span.curve("loss")[0])]
    if not shown:
        return None
    with drawing():
        figure, (above, below) = panels(2, 6.0, (3, 1))
        left_out = "update left out"
        for span in shown:
            at, loss = span.curve("loss")
            above.plot(*thinned(at, loss), linewidth=0.7, alpha=0.35, color=span.colour)
            above.plot(*smoothed(at, loss), linewidth=1.8, color=span.colour, label=span.stage.name)
            at, loss = _left_out(span)
            if len(at):
                above.plot(*thinned(at, loss), "x", color=INK, markersize=5, label=left_out, zorder=3)
                left_out = "_"  # one entry in the legend
            below.plot(*thinned(*span.curve("learning_rate")), linewidth=1.5, color=span.colour)
        measured = [span for span in shown if _add_heldout(above, span)]
        if measured:
            above.plot([], [], "D", markersize=4, markerfacecolor="none", color=INK, label="held-out text")
        _lay_out((above, below), shown)
        above.set_ylabel("loss (nats per token)")
        below.set_ylabel("learning rate")
        peaks = [max(values) for span in shown if len(values := span.curve("learning_rate")[1])]
        if peaks and max(peaks) > UNEVEN * min(peaks) > 0:
            logarithmic(below)
            below.set_ylim(bottom=min(peaks) / UNEVEN)
    return figure


def _left_out(span: Span) -> tuple[np.ndarray, np.ndarray]:
    dropped = [step for step in span.stage.steps if step.get("left_out")]
    found = [(span.first + step["tokens"], number(step["loss"])) for step in dropped]
    kept = [(at, loss) for at, loss in found if loss is not None]
    at, losses = np.array(kept, dtype=float).reshape(-1, 2).T
    return at, losses


def _add_heldout(axes: Any, span: Span) -> bool:
    found = [(span.tokens_at(line.get("step")), number(line.get("heldout_loss"))) for line in span.stage.measured]
    kept = [(at, loss) for at, loss in found if at is not None and loss is not None]
    if kept:
        axes.plot(*zip(*kept, strict=True), "D", markersize=4, markerfacecolor="none", color=span.colour)
    return bool(kept)


def work_figure(run: RunRecord) -> "Figure | None":
    """Gradient norm, tokens per second and memory."""
    shown = spans(run)
    rows = [
        (key, label, scale)
        for key, label, scale in (
            ("gradient_norm", "gradient norm", 1.0),
            ("tokens_per_second", "tokens/s, mean so far", 1.0),
            ("memory_bytes", "memory (GiB)", 2.0**-30),
        )
        if any(len(span.curve(key)[0]) for span in shown)
    ]
    if not rows:
        return None
    with drawing():
        figure, axes = panels(len(rows), 1.0 + 1.6 * len(rows))
        for place, (key, label, scale) in zip(axes, rows, strict=True):
            for span in shown:
                at, values = span.curve(key)
                if key == "tokens_per_second":  # the first step is not counted
                    at, values = at[values > 0], values[values > 0]
                if len(at):
                    place.plot(*thinned(at, scale * values), linewidth=1.2, color=span.colour, label=span.stage.name)
            place.set_ylabel(label)
            place.set_ylim(bottom=0)
        norms = np.concatenate([span.curve("gradient_norm")[1] for span in shown])
        if rows[0][0] == "gradient_norm" and len(norms) and norms.max() > UNEVEN * np.median(norms) > 0:
            axes[0].set_ylim(bottom=None)
            logarithmic(axes[0])
        _lay_out(tuple(axes), shown)
    return figure


def _lay_out(axes: tuple[Any, ...], shown: list[Span]) -> None:
    """What all figures over the tokens share: stages shaded by turns, their names above, tokens below."""
    from matplotlib.ticker import FuncFormatter

    for place in axes:
        for number_of, span in enumerate(shown):
            if number_of % 2:
                place.axvspan(span.first, span.last, color=INK, alpha=0.06, linewidth=0)
        place.set_xlim(shown[0].first, max(shown[-1].last, 1.0))
    axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes[-1].set_xlabel("tokens trained, over all stages")
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(handles, labels, loc="outside upper center", ncols=min(7, len(labels)))
