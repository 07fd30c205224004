"""What the models can do: bits per byte, the longer context, few-shot tasks."""

import math

from llmctl.page import table
from llmctl.stages.score_tables import in_units
from llmctl.views.lineage import score_line
from llmctl.views.report.collect import RunRecord, StageRecord
from llmctl.views.report.reading import inner, inner_mapping, inner_rows, number
from llmctl.views.report.scores import TaskScore, bits_of, checkpoints, compressors, task_scores
from llmctl.views.report.section import Section, folded, heading, long_table, paragraph
from llmctl.views.report.wording import change

BITS = (
    "How many bits the model needs for a byte of text that it has not seen: a compression rate, so lower is better, and models "
    "with other tokenizers can be compared. Open circle: the parent; full circle: the stage's model. Left of the xz lines the "
    "model compresses better than a program that knows no language."
)
LONG = (
    "Above, the loss at each position of long documents: a model that uses its context goes on falling to the right, and without "
    "training it rises beyond the parent's context. Below, the map of needles: a fact is hidden at a depth of a context of some "
    "length, and a cell says how often it is found (in brackets: written out). Guessing finds the share that is marked as chance."
)
FEW_SHOT = (
    "Scores with their standard error, each checkpoint beside chance and beside its parent on the same questions. An interval "
    "that holds 0 shows no difference: with few questions most of them do. ▲, green: clearly better than the parent; ▼, orange: "
    "clearly worse."
)


def bits_section(run: RunRecord, drawn: dict[str, str]) -> Section:
    rows = [
        [
            row.stage,
            row.source,
            "" if row.before is None else f"{row.before:.3f}",
            f"{row.after:.3f}",
            "" if row.before is None else change(row.before, row.after),
        ]
        for row in bits_of(run)
    ]
    rows += [[told, run.reference_source, "", f"{value:.3f}", ""] for told, value in compressors(run).items()]
    parts = [drawn.get("bits-per-byte", ""), table(["stage", "held-out text", "parent", "model", "change"], rows) if rows else ""]
    noted = [
        [stage.name, score_line(one)]
        for stage in run.stages
        for one in inner_rows(stage.manifest, "evaluations")
        if inner(one, "asked", "measure") == "bits_per_byte"
    ]
    if noted:
        parts.append(long_table("Measured later with llmctl eval", ["stage", "bits per byte"], noted))
    return Section(BITS, [part for part in parts if part])


def long_section(run: RunRecord, drawn: dict[str, str]) -> Section:
    parts: list[str] = []
    for stage in run.stages:
        if not stage.long:
            continue
        lengths = (f"{number(stage.long.get(key)) or 0:,.0f}" for key in ("parent_length", "length"))
        parts.append(heading(f"{stage.name}: context from {next(lengths)} to {next(lengths)} tokens"))
        parts += [drawn.get(f"{kind}-{stage.name}", "") for kind in ("positions", "needles")]
        parts += [_long_tasks(stage), _guard(stage)]
    return Section(LONG, [part for part in parts if part])


def _long_tasks(stage: StageRecord) -> str:
    """Choice accuracy of each model by task and length."""
    models = {name: inner_rows(found, "tasks") for name, found in inner_mapping(stage.long, "models").items()}
    models = {name: found for name, found in models.items() if found}
    lengths = sorted({row["length"] for rows in models.values() for row in rows})
    rows = []
    for task in dict.fromkeys(row["task"] for found in models.values() for row in found):
        for name, found in models.items():
            by_length = {row["length"]: row for row in found if row["task"] == task}
            cells = [_with_error(by_length.get(length)) for length in lengths]
            chance = next(iter(by_length.values()))["chance"] if by_length else math.nan
            rows.append([task, name, f"{100 * chance:.0f}", *cells])
    columns = ["task", "model", "chance", *(f"{length:,}" for length in lengths)]
    title = f"{stage.name}: choice accuracy by length of the context, % ± standard error"
    return long_table(title, columns, rows) if rows else ""


def _with_error(row: dict | None) -> str:
    if row is None:
        return ""
    error = number(row.get("chosen_error"))
    return f"{100 * row['chosen']:.0f}{'' if error is None else f' ± {100 * error:.0f}'}"


def _guard(stage: StageRecord) -> str:
    rows = []
    for one in inner_rows(stage.long, "guard"):
        scale, digits, unit = (100, 1, " %") if one.get("higher_is_better") else (1, 3, "")
        values = [f"{scale * one[key]:.{digits}f}{unit}" for key in ("before", "after")]
        error = number(one.get("error"))
        told = f"{scale * one['difference']:+.{digits}f}{'' if error is None else f' ± {scale * error:.{digits}f}'}"
        rows.append([one["measure"], *values, told, one["verdict"]])
    columns = ["measure", "before", "after", "difference ± error", "verdict"]
    return heading("The short context, which should not suffer") + table(columns, rows) if rows else ""


def few_shot_section(run: RunRecord, drawn: dict[str, str]) -> Section:
    parts = []
    for stage in run.stages:
        scores = task_scores(stage)
        if not scores:
            continue
        by_name: dict[tuple[str, str], dict[str, TaskScore]] = {}
        for score in scores:
            by_name.setdefault(score.name, {})[score.checkpoint] = score
        names = checkpoints(scores)
        parts.append(long_table("Scores", ["task", "shots", "questions", "chance", *names], _scores(by_name, names)))
        children = [name for name in names if any(s.checkpoint == name and "compared_with" in s.row for s in scores)]
        columns = ["task", "shots", *(f"{name} - {_compared(scores, name)}" for name in children)]
        if children:
            parts.append(drawn.get(f"differences-{stage.name}", ""))
            title = "Differences on the same questions [95 % interval], p of the sign test"
            parts.append(long_table(title, columns, _differences(by_name, children)))
        if aggregates := inner_rows(stage.scores, "aggregates"):
            parts.append(folded("Averages of several tasks", *map(_aggregate, aggregates)))
    noted = [
        [stage.name, score_line(one)]
        for stage in run.stages
        for one in inner_rows(stage.manifest, "evaluations")
        if inner(one, "asked", "measure") != "bits_per_byte"
    ]
    if noted:
        parts.append(long_table("Measured later with llmctl eval", ["stage", "score"], noted))
    return Section(FEW_SHOT, [part for part in parts if part])


def _aggregate(row: dict) -> str:
    told = f"{row.get('checkpoint')}: {row.get('aggregate')} ({row.get('how')}) {number(row.get('value')) or 0:.4g}"
    return paragraph(told)


def _compared(scores: list[TaskScore], child: str) -> str:
    return next(str(s.row["compared_with"]) for s in scores if s.checkpoint == child and "compared_with" in s.row)


def _scores(by_name: dict[tuple[str, str], dict[str, TaskScore]], names: list[str]) -> list[list[str]]:
    rows = []
    for (task, shots), found in by_name.items():
        first = next(iter(found.values()))
        cells = [
            f"{in_units(s.value('value'), s.measure)} ± {in_units(s.value('stderr'), s.measure)}" if s is not None else ""
            for s in map(found.get, names)
        ]
        asked = f"{first.value('questions'):,.0f}"
        rows.append([task, shots, asked, in_units(first.value("chance"), first.measure), *cells])
    return rows


def _differences(by_name: dict[tuple[str, str], dict[str, TaskScore]], children: list[str]) -> list[list[str]]:
    rows = []
    for (task, shots), found in by_name.items():
        cells = []
        for score in map(found.get, children):
            if score is None or math.isnan(score.value("difference")):
                cells.append("")
                continue
            value, low, high = (in_units(one, score.measure, "+") for one in (score.value("difference"), *score.interval))
            mark = {"better": " ▲", "worse": " ▼"}.get(score.verdict, "")
            cells.append(f"{value} [{low}, {high}] p {score.value('sign_test_p'):.2g}{mark}")
        rows.append([task, shots, *cells])
    return rows
