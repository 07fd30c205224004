"""Scores of a run's stages, taken out of manifests and score files: bits per byte, tasks, long context."""

import math
from dataclasses import dataclass
from typing import Any

from llmctl.evals.guard import INTERVAL
from llmctl.views.report.collect import RunRecord, StageRecord
from llmctl.views.report.reading import inner_mapping, inner_rows, number


@dataclass(frozen=True, slots=True)
class Bits:
    """Bits per byte of a stage's model on the held-out text of a source."""

    stage: str
    source: str
    before: float | None
    """Of its parent; None: it began with new weights."""
    after: float
    reference: bool
    """Whether the source is the one that all stages are measured on."""

    @property
    def change(self) -> float | None:
        """Share of the parent's."""
        return None if not self.before else (self.after - self.before) / self.before


def bits_of(run: RunRecord) -> list[Bits]:
    """By stage and source."""
    found = []
    for stage in run.stages:
        metrics, reference = stage.metrics, run.reference_source
        by_source = {name.partition("/")[2]: value for name, value in metrics.items() if name.startswith("bits_per_byte/")}
        for source, after in by_source.items():
            found.append(Bits(stage.name, source, metrics.get(f"bits_per_byte_before/{source}"), after, source == reference))
        after = metrics.get("bits_per_byte_after", metrics.get("bits_per_byte"))
        if after is not None and reference not in by_source:
            found.append(Bits(stage.name, reference, metrics.get("bits_per_byte_before"), after, reference=True))
    return found


def compressors(run: RunRecord) -> dict[str, float]:
    """Bits per byte of what compresses the reference text."""
    names = {"xz_bits_per_byte": "xz -9e", "xz_primed_bits_per_byte": "xz -9e after the training text"}
    return {told: stage.metrics[key] for stage in run.stages for key, told in names.items() if key in stage.metrics}


@dataclass(frozen=True, slots=True)
class TaskScore:
    """A checkpoint on a task behind a number of examples, as `stages.score_tables.as_row` writes it."""

    row: dict[str, Any]

    @property
    def checkpoint(self) -> str:
        return str(self.row.get("checkpoint", "?"))

    @property
    def name(self) -> tuple[str, str]:
        """(task, examples in the prompt)"""
        return str(self.row.get("task", "?")), str(self.row.get("shots", ""))

    @property
    def measure(self) -> str:
        return str(self.row.get("measure", "accuracy"))

    @property
    def higher_is_better(self) -> bool:
        from llmctl.suites.task import LOWER_IS_BETTER

        return self.measure not in LOWER_IS_BETTER

    def value(self, key: str) -> float:
        """nan where it is not known."""
        found = number(self.row.get(key))
        return math.nan if found is None else found

    @property
    def interval(self) -> tuple[float, float]:
        """Of the difference to the parent; nan where it is not known."""
        ends = self.row.get("difference_interval")
        low, high = (number(end) for end in ends) if isinstance(ends, list) and len(ends) == 2 else (None, None)
        return (math.nan, math.nan) if low is None or high is None else (low, high)

    @property
    def above_chance(self) -> bool:
        """By more than its error allows."""
        return self.value("value") - INTERVAL * self.value("stderr") > self.value("chance")

    @property
    def verdict(self) -> str:
        """Beside its parent: "better", "worse", or "" where the interval of the difference holds 0."""
        low, high = self.interval
        if not (low > 0 or high < 0):
            return ""
        return "better" if (low > 0) == self.higher_is_better else "worse"


def task_scores(stage: StageRecord) -> list[TaskScore]:
    return [TaskScore(row) for row in inner_rows(stage.scores, "results")]


def checkpoints(scores: list[TaskScore]) -> list[str]:
    return list(dict.fromkeys(score.checkpoint for score in scores))


@dataclass(frozen=True, slots=True)
class Cell:
    """Of the map of needles: what `evals.long_context.Score` has of it."""

    questions: int
    chosen: float
    exact: float
    chance: float


def needle_maps(long: dict[str, Any]) -> dict[str, dict[tuple[float, int], Cell]]:
    """By model, depth and length, as `evals.plots.needles_figure` takes them."""
    maps = {}
    for model, found in inner_mapping(long, "models").items():
        cells = {
            (float(one["depth"] or 0.0), int(one["length"])): Cell(one["questions"], one["chosen"], one["exact"], one["chance"])
            for one in inner_rows(found, "needles")
        }
        if cells:
            maps[model] = cells
    return maps


def position_curves(long: dict[str, Any]) -> dict[str, list[tuple[int, int, float, float]]]:
    """By model, as `evals.plots.curves_figure` takes them."""
    curves = {}
    for model, found in inner_mapping(long, "models").items():
        rows = inner_rows(found, "loss_by_position")
        errors = [number(row.get("error")) for row in rows]
        if rows:
            curves[model] = [
                (row["from"], row["to"], row["loss"], math.nan if error is None else error)
                for row, error in zip(rows, errors, strict=True)
            ]
    return curves


def differences_to_first(
    curves: dict[str, list[tuple[int, int, float, float]]],
) -> dict[str, list[tuple[int, int, float, float]]]:
    """Of the means; the errors of the pairs are not written down."""
    first, *others = curves
    return {
        name: [
            (low, high, loss - before[2], math.nan)
            for (low, high, loss, _), before in zip(curves[name], curves[first], strict=False)
        ]
        for name in others
    }
