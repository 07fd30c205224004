"""Pictures of scores over the training of a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

COLUMNS = 3


@dataclass(frozen=True, slots=True)
class TaskCurve:
    """Scores of a task at the checkpoints of a run, in the order of training."""

    name: str
    values: tuple[float, ...]
    stderrs: tuple[float, ...]
    """nan where there is none."""
    chance: float = math.nan
    """nan: guessing says nothing about it."""
    percent: bool = True
    """Whether values are shares, shown in per cent; others, as bits per byte, are shown as they are."""
    higher_is_better: bool = True

    @property
    def unit(self) -> str:
        return "%" if self.percent else "bits per byte"


def plot_over_run(
    curves: Sequence[TaskCurve], tokens: Sequence[int], ends: Sequence[tuple[str, int]], files: Sequence[Path]
) -> None:
    """A panel for each task: the score over the tokens trained, in a band of one standard error, beside chance.

    tokens: of each checkpoint, cumulative; ends: each stage with the number of its last checkpoint; files: one for each format
    """
    from matplotlib.figure import Figure

    columns = 2 if len(curves) == 4 else min(COLUMNS, len(curves))
    rows = math.ceil(len(curves) / columns)
    size = (max(4.6, 3.6 * columns), 0.9 + 2.6 * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    unit, letter = next(((size, letter) for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if max(tokens) >= size), (1, ""))
    at = np.array(tokens) / unit
    for number, axes in enumerate(panels.flat):
        if number >= len(curves):
            axes.set_visible(False)
            continue
        curve = curves[number]
        scale = 100 if curve.percent else 1
        value, error = scale * np.array(curve.values), scale * np.nan_to_num(curve.stderrs)
        axes.plot(at, value, marker="o", markersize=3, linewidth=1.5, color="black")
        axes.fill_between(at, value - error, value + error, color="black", alpha=0.12, linewidth=0)
        if not math.isnan(curve.chance):
            axes.axhline(scale * curve.chance, color="grey", linestyle="--", linewidth=1, label="chance")
        for place, (stage, last) in enumerate(ends):
            axes.axvline(at[last], color=f"C{place}", linestyle=":", linewidth=1)
            axes.plot(at[last], value[last], marker="o", markersize=6, linestyle="", color=f"C{place}", label=f"end of {stage}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.set_title(curve.name if curve.higher_is_better else f"{curve.name} (lower is better)", fontsize=10)
        axes.set_ylabel(curve.unit, fontsize=9)
        axes.xaxis.set_tick_params(labelbottom=number + columns >= len(curves))
        if number + columns >= len(curves):
            axes.set_xlabel(f"tokens trained{f' ({letter})' if letter else ''}")
    found = {label: handle for axes in panels.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        found.values(), found.keys(), loc="outside lower center", ncols=max(1, min(6, len(found))), frameon=False, fontsize=9
    )
    for file in files:
        figure.savefig(file, dpi=150)
