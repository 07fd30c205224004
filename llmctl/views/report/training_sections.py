"""Curves of training, and what it took: time, speed, memory, beside what was predicted."""

from llmctl.page import bar, table
from llmctl.views.report.collect import RunRecord, StageRecord
from llmctl.views.report.reading import number
from llmctl.views.report.section import Section, heading, paragraph
from llmctl.views.report.wording import clock, several, short
from llmctl.wording import gib, lasted

CURVES = (
    "Loss is the model's surprise at the next token, in nats: down is good, a flat end means that more of the same would teach "
    "little, a jump upwards within a stage is trouble. Stages differ in their text, so that a step between two of them is no "
    "progress or loss of its own. Faint: single steps; bold: their running median; x: a step whose update was left out; "
    "◇: held-out text."
)
SPEED = (
    "What each stage took, and whether that is what was predicted before it began. The gradient norm should stay level or fall; "
    "speed and memory should be flat once a stage is under way. Without a GPU memory is the whole process's, which keeps some of "
    "what the stages before took."
)
UNPREDICTED = "Time and speed are not predicted where the steps take hardly longer than to try them, nor on an unknown GPU."
MEASURES = {
    "seconds": ("time of the steps", lasted),
    "tokens_per_second": ("tokens/s", lambda value: f"{value:,.0f}"),
    "memory_bytes": ("peak memory", lambda value: f"{gib(value)} GiB"),
}


def curves_section(run: RunRecord, drawn: dict[str, str]) -> Section:
    parts = [drawn["loss"]] if "loss" in drawn else []
    rows = [_curve_row(stage) for stage in run.trained]
    if rows:
        columns = ["stage", "steps", "tokens", "loss, first", "loss, last", "left out", "held-out loss"]
        shown = len(columns) if any(row[-1] for row in rows) else -1  # few stages measure on held-out text as they train
        parts.append(table(columns[:shown], [row[:shown] for row in rows]))
    return Section(CURVES, parts)


def _curve_row(stage: StageRecord) -> list[str]:
    losses = [step["loss"] for step in stage.steps if isinstance(step["loss"], float | int)]
    tail = losses[-max(1, len(losses) // 50) :]
    last = stage.steps[-1]
    heldout = [line["heldout_loss"] for line in stage.measured if isinstance(line.get("heldout_loss"), float)]
    return [
        stage.name,
        f"{last.get('step', 0):,} of {last.get('steps', 0):,}",
        short(stage.tokens),
        f"{losses[0]:.3f}" if losses else "",
        f"{sum(tail) / len(tail):.3f}" if tail else "",
        f"{sum(bool(step.get('left_out')) for step in stage.steps):,}",
        f"{heldout[-1]:.3f}" if heldout else "",
    ]


def speed_section(run: RunRecord, drawn: dict[str, str]) -> Section:
    timed = [(stage, stage.seconds) for stage in run.stages if stage.seconds is not None]
    total = sum(seconds for _, seconds in timed)
    parts = []
    if total:
        parts.append(paragraph(f"{lasted(total)} of work in {several(len(timed), 'stage')}:"))
        parts.append(bar([(stage.name, seconds / total) for stage, seconds in timed]))
    rows = [row for stage in run.stages for row in _measures(stage)]
    if rows:
        parts.append(table(["stage", "measure", "predicted", "measured", "measured / predicted"], rows))
        if not any(row[2] for row in rows):
            parts.append(paragraph("Nothing was predicted: the version that made this run kept no predictions."))
        elif not all(row[2] for row in rows):
            parts.append(paragraph(UNPREDICTED))
    parts.append(drawn.get("work", ""))
    if timed:
        parts += [heading("Start and end"), table(["stage", "began", "ended", "took"], [_times(*one) for one in timed])]
        parts.append(paragraph("Of a stage that was interrupted: since the last time that it was gone on with."))
    return Section(SPEED, [part for part in parts if part])


def measured(stage: StageRecord) -> dict[str, float]:
    """Time, speed and memory of the steps as the manifest has them; where it has none, from the metrics file, without time."""
    found: dict[str, float] = {}
    for name in ("tokens_per_second", "memory_bytes"):
        values = [value for step in stage.steps if isinstance(value := step.get(name), float | int) and value > 0]
        if values:
            found[name] = values[-1] if name == "tokens_per_second" else max(values)
    return found | {name: stage.metrics[f"measured/{name}"] for name in MEASURES if f"measured/{name}" in stage.metrics}


def _measures(stage: StageRecord) -> list[list[str]]:
    found, rows = measured(stage), []
    for name, (told, written) in MEASURES.items():
        value, before = found.get(name), stage.metrics.get(f"predicted/{name}")
        if value is not None or before is not None:
            ratio = f"{value / before:.2f}" if value is not None and before else ""
            shown = ["" if one is None else written(one) for one in (before, value)]
            rows.append(["" if rows else stage.name, told, *shown, ratio])
    return rows


def _times(stage: StageRecord, seconds: float) -> list[str]:
    first = stage.log[0].get("time") if stage.log else None
    began, ended = number(stage.manifest.get("started")) or number(first), number(stage.manifest.get("ended"))
    return [stage.name, clock(began), clock(ended), lasted(seconds)]
