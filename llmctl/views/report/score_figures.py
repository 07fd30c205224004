"""Figures of scores: bits per byte of every stage, differences to the parent, and what a longer context gives."""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from llmctl.stages.score_tables import AS_THEY_ARE
from llmctl.views.report.collect import RunRecord, StageRecord
from llmctl.views.report.curves import loss_figure, work_figure
from llmctl.views.report.figures import COLOURS, INK, drawing, panels
from llmctl.views.report.scores import (
    TaskScore,
    bits_of,
    checkpoints,
    compressors,
    differences_to_first,
    needle_maps,
    position_curves,
    task_scores,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASKS = 40  # of a figure of differences


def figure_makers(run: RunRecord) -> dict[str, Callable[[], "Figure | None"]]:
    """What makes each figure, by its name; a figure that there are no numbers for is None."""
    found: dict[str, Callable[[], Figure | None]] = {
        "loss": partial(loss_figure, run),
        "work": partial(work_figure, run),
        "bits-per-byte": partial(bits_figure, run),
    }
    for stage in run.stages:
        if stage.long:
            found[f"positions-{stage.name}"] = partial(positions_figure, stage)
            found[f"needles-{stage.name}"] = partial(map_figure, stage)
        if stage.scores:
            found[f"differences-{stage.name}"] = partial(differences_figure, stage)
    return found


def positions_figure(stage: StageRecord) -> "Figure | None":
    """Loss by position, as the stage itself draws it."""
    from llmctl.evals.plots import curves_figure

    curves = position_curves(stage.long)
    if not curves:
        return None
    with drawing():
        length, documents = int(stage.long["parent_length"]), int(stage.long["documents"])
        return curves_figure(curves, differences_to_first(curves), length, documents)


def map_figure(stage: StageRecord) -> "Figure | None":
    """The map of needles, as the stage itself draws it."""
    from llmctl.evals.plots import needles_figure

    maps = needle_maps(stage.long)
    if not maps:
        return None
    with drawing():
        return needles_figure(maps)


def bits_figure(run: RunRecord) -> "Figure | None":
    """A line from parent to model for each stage and source, beside what compressors make of the reference text."""
    rows = bits_of(run)
    if not rows:
        return None
    with drawing():
        figure, (axes,) = panels(1, 1.4 + 0.36 * len(rows))
        for place, row in enumerate(rows):
            colour = COLOURS[0 if row.reference else 1]
            if row.before is not None:
                axes.plot([row.before, row.after], [place, place], color=colour, linewidth=2)
                axes.plot(row.before, place, "o", markerfacecolor="none", color=colour, markersize=7)
            axes.plot(row.after, place, "o", color=colour, markersize=7)
            axes.annotate(f"{row.after:.3f}", (row.after, place), (0, 7), textcoords="offset points", ha="center", fontsize=8)
        for (told, value), line in zip(compressors(run).items(), ("--", ":"), strict=False):
            axes.axvline(value, color=INK, linestyle=line, linewidth=1, label=f"{told} on {run.reference_source}: {value:.3f}")
        axes.plot([], [], "o", markerfacecolor="none", color=INK, label="parent")
        axes.plot([], [], "o", color=INK, label="the stage's model")
        axes.set_yticks(range(len(rows)), [f"{row.stage} on {row.source}" for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.7)
        axes.set_xlabel("bits per byte of held-out text; lower is better")
        axes.grid(visible=False, axis="y")  # a row has its own line
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def differences_figure(stage: StageRecord) -> "Figure | None":
    """The paired difference of each checkpoint to its parent with its 95 % interval, task by task; a panel for each checkpoint.
    Of scores that are shares: others have units of their own."""
    scores = task_scores(stage)
    shown = [score for score in scores if not math.isnan(score.interval[0]) and score.measure not in AS_THEY_ARE]
    names, children = list(dict.fromkeys(score.name for score in shown))[:TASKS], checkpoints(shown)
    if not names:
        return None
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(max(5.0, 2.2 + 1.75 * len(children)), 1.2 + 0.28 * len(names)))
        for axes, child in zip(
            figure.subplots(1, len(children), sharex=True, sharey=True, squeeze=False)[0], children, strict=True
        ):
            for score in shown:
                if score.checkpoint != child or score.name not in names:
                    continue
                low, high = (100 * end for end in score.interval)
                colour = {"better": COLOURS[2], "worse": COLOURS[1]}.get(score.verdict, COLOURS[5])
                place = names.index(score.name)
                axes.plot([low, high], [place, place], color=colour, linewidth=2)
                axes.plot(100 * score.value("difference"), place, "o", color=colour, markersize=5)
            axes.axvline(0, color=INK, linewidth=1)
            axes.grid()
            axes.set_title(f"{child} - {_parent(shown, child)}", fontsize=9)
            axes.set_xlabel("points", fontsize=9)
            axes.set_ylim(len(names) - 0.5, -0.5)
        figure.axes[0].set_yticks(range(len(names)), [f"{task}, {shots}-shot" for task, shots in names], fontsize=9)
    return figure


def _parent(scores: list[TaskScore], child: str) -> str:
    return str(next(score.row.get("compared_with", "?") for score in scores if score.checkpoint == child))
