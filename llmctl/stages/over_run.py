"""Scores over a run: its checkpoints in the order of training, as a table, as curves, and what each task can tell apart."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.errors import UserError
from llmctl.evals.compare import signal_to_noise
from llmctl.evals.curve_plots import TaskCurve
from llmctl.runs.artifact import Artifact
from llmctl.runs.store import RunStore
from llmctl.stages.score_tables import AS_THEY_ARE, number
from llmctl.stages.scoring import Checkpoint, Scores
from llmctl.suites.task import LOWER_IS_BETTER

LAST = 5  # checkpoints that noise is measured on, as in arXiv 2508.13144; fewer where a stage keeps fewer than twice as many


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A checkpoint of a run."""

    stage: str
    step: int | None
    """Of a model that the stage kept on its way; None: its own, at its end."""
    model: Path | str
    """Folder, or hub name of a model that the run began with."""
    tokens: int
    """Trained since the run's beginning, all stages together."""

    @property
    def name(self) -> str:
        return self.stage if self.step is None else f"{self.stage}/{Path(self.model).name}"


def curve_points(store: RunStore, artifact: Artifact) -> list[CurvePoint]:
    """The checkpoints that led to a finished artifact, oldest first: what each stage kept, and what it ended with.

    Raises:
        UserError: a stage on the way is not there any more.
    """
    line = _line(store, artifact)
    outside = line[0].manifest["recipe"].get("stage", {}).get("from")
    found = [CurvePoint(str(outside), None, str(outside), 0)] if outside is not None else []
    before = 0
    for stage in line:
        trained = _tokens_by_step(stage)
        for step, folder in _kept(stage):
            if step in trained:
                found.append(CurvePoint(stage.stage, step, folder, before + trained[step]))
            else:
                events.warn(f"{folder}: {stage.metrics_path} does not tell how many tokens it has seen; it is left out")
        before += max(trained.values(), default=0)
        last = found[-1] if found else None
        if last is not None and last.stage == stage.stage and last.tokens == before:
            found.pop()  # kept at the last step: the stage's own model
        found.append(CurvePoint(stage.stage, None, stage.folder / "model", before))
    return found


def _line(store: RunStore, artifact: Artifact) -> list[Artifact]:
    """The artifacts that hold the models which one came from, oldest first."""
    found = [artifact]
    while True:
        if not found[0].done:
            raise UserError(
                f"{found[0].folder}: not there or not finished, so that the curve to {artifact.name} has no beginning"
            )
        parents = {
            name: one for name, one in store.parents(found[0]).items() if one.stage not in ("corpus", "tokenizer", "tokens")
        }
        begun = found[0].manifest["recipe"].get("stage", {}).get("from")
        parent = parents.get(begun) or next(reversed(parents.values()), None)
        if parent is None:
            return found
        found.insert(0, parent)


def _tokens_by_step(stage: Artifact) -> dict[int, int]:
    """Tokens that a stage had trained after each of its steps."""
    file, found = stage.metrics_path, {}
    for text in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            row = json.loads(text)
            found[int(row["step"])] = int(row["tokens"])
        except (ValueError, KeyError):
            continue  # of another kind, or written in part by a process that was killed
    return found


def _kept(stage: Artifact) -> list[tuple[int, Path]]:
    folders = [(path.name.removeprefix("step-"), path) for path in (stage.folder / "kept").glob("step-*")]
    return sorted((int(step), path) for step, path in folders if step.isdecimal())


def checkpoints_of(points: Sequence[CurvePoint]) -> list[Checkpoint]:
    """To be scored, each beside the one before it."""
    first = [Checkpoint(points[0].name, str(points[0].model))]
    return first + [Checkpoint(point.name, str(point.model), before.name) for before, point in pairwise(points)]


def curves_of(scores: Scores) -> list[TaskCurve]:
    """A curve for each task and number of examples."""
    names = [checkpoint.name for checkpoint in scores.checkpoints]
    asked = Counter(line.name for line in scores.lines)
    found = []
    for line in scores.lines:
        results = [line.results[name] for name in names]
        found.append(
            TaskCurve(
                f"{line.name}, {line.shots} shots" if asked[line.name] > 1 else line.name,
                tuple(result.value for result in results),
                tuple(result.stderr for result in results),
                line.chance,
                percent=line.measure not in AS_THEY_ARE,
                higher_is_better=line.measure not in LOWER_IS_BETTER,
            )
        )
    return found


def measure_over_run(
    store: RunStore, artifact: Artifact, score: Callable[[list[Checkpoint]], list[TaskCurve]], out: Path | None
) -> dict[str, Any]:
    """Score the checkpoints that led to an artifact: a table, pictures in the folder `out`, and plain values.

    Raises:
        UserError: as `curve_points`.
    """
    points = curve_points(store, artifact)
    curves = score(checkpoints_of(points))
    show_curves(points, curves)
    if out is not None:
        draw_curves(points, curves, out)
    return values_of(points, curves)


def draw_curves(points: Sequence[CurvePoint], curves: Sequence[TaskCurve], out: Path) -> list[Path]:
    """Write `over_run.png` and `over_run.svg` to the folder `out`."""
    from llmctl.evals.curve_plots import plot_over_run

    if not curves:
        return []
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"over_run.{kind}" for kind in ("png", "svg")]
    ends = [(point.stage, place) for place, point in enumerate(points) if point.step is None and point.tokens]
    plot_over_run(curves, [point.tokens for point in points], ends, files)
    events.say(f"curves over the run: {files[0]}, {files[1].name}")
    return files


def show_curves(points: Sequence[CurvePoint], curves: Sequence[TaskCurve]) -> None:
    rows = []
    for place, point in enumerate(points):
        cells = (told(curve, curve.values[place], curve.stderrs[place]) for curve in curves)
        rows.append((point.name, f"{point.tokens:,}", *cells))
    columns = ("checkpoint", "tokens trained", *(f"{curve.name} ({curve.unit})" for curve in curves))
    events.emit(events.Table("scores over the run ± standard error", columns, tuple(rows)))
    stage, places, last = part_for_noise(points)
    if not last:
        events.say("signal and noise are not measured: no stage kept three models (checkpoint.keep_every) beside its last one")
        return
    found = [(curve.name, *signal_to_noise([curve.values[place] for place in places], last)) for curve in curves]
    rows = [(name, f"{100 * signal:.1f}", f"{100 * noise:.1f}", f"{ratio:.1f}") for name, signal, noise, ratio in found]
    title = f"what each task tells apart over {len(places)} checkpoints of {stage}, noise of the last {last}"
    events.emit(events.Table(title, ("task", "signal (%)", "noise (%)", "signal / noise"), tuple(rows)))


def told(curve: TaskCurve, value: float, error: float) -> str:
    return f"{100 * value:.1f} ± {100 * error:.1f}" if curve.percent else f"{value:.3f} ± {error:.3f}"


def part_for_noise(points: Sequence[CurvePoint]) -> tuple[str, list[int], int]:
    """(stage, its checkpoints, how many of them noise is measured on): the stage with most checkpoints, as between stages scores
    move for other reasons than noise. 0: it has fewer than four."""
    counts = Counter(point.stage for point in points)
    stage, count = counts.most_common(1)[0]
    places = [place for place, point in enumerate(points) if point.stage == stage]
    return stage, places, min(LAST, count // 2) if count >= 4 else 0


def values_of(points: Sequence[CurvePoint], curves: Sequence[TaskCurve]) -> dict[str, Any]:
    stage, places, last = part_for_noise(points)
    return {
        "checkpoints": [
            {"name": point.name, "stage": point.stage, "step": point.step, "tokens": point.tokens, "model": str(point.model)}
            for point in points
        ],
        "tasks": [
            {
                "task": curve.name,
                "values": [number(value) for value in curve.values],
                "stderrs": [number(error) for error in curve.stderrs],
                "chance": number(curve.chance),
            }
            | dict(_noise_values(curve, stage, places, last))
            for curve in curves
        ],
    }


def _noise_values(curve: TaskCurve, stage: str, places: list[int], last: int) -> Iterator[tuple[str, Any]]:
    signal, noise, ratio = signal_to_noise([curve.values[place] for place in places], last)
    yield from (
        ("signal", number(signal)),
        ("noise", number(noise)),
        ("signal_to_noise", ratio if math.isfinite(ratio) else None),
    )
    yield "signal_to_noise_over", {"stage": stage, "checkpoints": len(places), "last": last}
