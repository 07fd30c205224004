"""Scores as tables for people and as plain values."""

import math
from typing import Any, Literal

from llmctl import events
from llmctl.evals.compare import Paired, Score, aggregated, paired, paired_aggregate, score_of
from llmctl.evals.result import TaskResult
from llmctl.stages.scoring import Checkpoint, Line, Scores
from llmctl.suites.catalog import HARNESS
from llmctl.suites.task import Aggregate

FEWER, CUT = "*", "†"
AS_THEY_ARE = ("bits_per_byte", "score", "error")
NAMED = 3  # questions that a line of text names


def show(scores: Scores) -> None:
    """Two tables: scores beside chance, and the paired difference of each checkpoint to the one that it is compared with; then
    what was left out of prompts."""
    request, names = scores.request, [checkpoint.name for checkpoint in scores.checkpoints]
    rows = [
        (
            line.name,
            str(line.version),
            str(line.shots),
            f"{line.form}, {line.scored_by}",
            asked(line),
            in_units(line.chance, line.measure),
            *(cell(line, line.results[name]) for name in names),
        )
        for line in scores.lines
    ]
    for aggregate, values, _ in aggregates(scores):
        cells = (f"{with_error(one, measure_of(one))} " for one in values.values())
        rows.append((aggregate.name, "", "", aggregate.how, "", "", *cells))
    if rows:
        prompts = "through the chat template" if request.chat else "as plain text"
        title = f"scores ± standard error (accuracy, matches and F1 in %); prompts {prompts}; seed {request.seed}"
        columns = ("task", "version", "shots", "scored by", "questions", "chance", *names)
        events.emit(events.Table(title, columns, tuple(rows)))
    show_differences(scores)
    tell_harness(scores)
    for checkpoint in names:
        tell_left_out(scores, checkpoint)


def show_differences(scores: Scores) -> None:
    children = compared(scores)
    if not children or not scores.lines:
        return
    rows = []
    for line in scores.lines:
        found = (paired(line.results[str(child.parent)], line.results[child.name]) for child in children)
        cells = (difference_cell(one, line.measure) for one in found)
        rows.append((line.name, str(line.shots), *cells))
    for aggregate, _, differences in aggregates(scores):
        found = (differences[child.name] for child in children)
        rows.append((aggregate.name, "", *(interval_cell(one, measure_of(one.after)) for one in found)))
    columns = ("task", "shots", *(f"{child.name} - {child.parent}" for child in children))
    title = "difference on the same questions [95 % interval], p of the sign test"
    events.emit(events.Table(title, columns, tuple(rows)))


def compared(scores: Scores) -> list[Checkpoint]:
    """The checkpoints that are compared with another of them."""
    names = {checkpoint.name for checkpoint in scores.checkpoints}
    return [
        checkpoint for checkpoint in scores.checkpoints if checkpoint.parent in names and checkpoint.parent != checkpoint.name
    ]


def aggregates(scores: Scores) -> list[tuple[Aggregate, dict[str, Score], dict[str, Paired]]]:
    """Each aggregate with its score by checkpoint, and its difference by child."""
    values: dict[str, dict[str, Score]] = {
        checkpoint.name: {line.name: score_of(line.results[checkpoint.name]) for line in scores.lines}
        for checkpoint in scores.checkpoints
    }
    pairs: dict[str, dict[str, Paired]] = {child.name: {} for child in compared(scores)}
    for child in compared(scores):
        for line in scores.lines:
            pairs[child.name][line.name] = paired(line.results[str(child.parent)], line.results[child.name])
    found = []
    for aggregate in scores.aggregates:
        name = aggregate.name
        for of_checkpoint in values.values():
            of_checkpoint[name] = aggregated(aggregate, of_checkpoint)
        for of_child in pairs.values():
            of_child[name] = paired_aggregate(aggregate, of_child)
        found.append((aggregate, {c: one[name] for c, one in values.items()}, {c: one[name] for c, one in pairs.items()}))
    return found


def measure_of(one: Score) -> str:
    return "accuracy" if one.higher_is_better else "bits_per_byte"


def in_units(value: float, measure: str, sign: Literal["", "+"] = "") -> str:
    """Shares in per cent, bits per byte and what lm-evaluation-harness measures otherwise as they are."""
    if math.isnan(value):
        return "-"
    return f"{value:{sign}.3f}" if measure in AS_THEY_ARE else f"{100 * value:{sign}.1f}"


def with_error(one: Score | TaskResult, measure: str) -> str:
    return f"{in_units(one.value, measure)} ± {in_units(one.stderr, measure)}"


def asked(line: Line) -> str:
    return f"{line.asked:,} of {line.of:,}" if line.of > line.asked else f"{line.asked:,}"


def cell(line: Line, result: TaskResult) -> str:
    mark = CUT if result.cut else FEWER if result.fewer else " "
    return f"{with_error(result, line.measure)}{mark}"


def difference_cell(one: Paired, measure: str) -> str:
    return f"{interval_cell(one, measure)} p {one.p_value:.2g}"


def interval_cell(one: Paired, measure: str) -> str:
    difference, low, high = (in_units(value, measure, "+") for value in (one.difference, *one.interval))
    return f"{difference} [{low}, {high}]"


def tell_harness(scores: Scores) -> None:
    """What lm-evaluation-harness makes of tasks whose numbers are no means over questions, and of groups of tasks."""
    known = {line.name.removeprefix(HARNESS) for line in scores.lines}
    for checkpoint, found in scores.harness.items():
        for name, numbers in found.get("results", {}).items():
            told = [f"{key} {value:.4g}" for key, value in numbers.items() if isinstance(value, float) and "_stderr" not in key]
            if name not in known and told:
                events.say(f"{HARNESS}{name}, {checkpoint}: {', '.join(told)} (no mean over questions: no difference)")


def tell_left_out(scores: Scores, checkpoint: str) -> None:
    """Say which questions a checkpoint's context had no room for."""
    for mark, what, ids_of in (
        (FEWER, "examples were left out", lambda result: [name for name in result.fewer if name not in result.cut]),
        (
            CUT,
            "all examples and the beginning of the question itself, or the end of a choice, were left out",
            lambda result: list(result.cut),
        ),
    ):
        told = []
        for line in scores.lines:
            ids = ids_of(line.results[checkpoint])
            more = f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
            if ids:
                told.append(f"{line.name} with {line.shots}: {', '.join(ids[:NAMED])}{more}")
        if told:
            events.say(f"{mark} {checkpoint}: {what}, for want of room in its context. Questions of {'; '.join(told)}")


def show_prompts(scores: Scores, checkpoint: str) -> None:
    """The first prompts of every task as a checkpoint read them, the scored part in ⟦⟧."""
    for line in scores.lines:
        for number, prompt in enumerate(line.results[checkpoint].prompts, start=1):
            events.say(f"--- {line.name}, {line.shots} shots, prompt {number} of {checkpoint}\n{prompt}")


def plain(scores: Scores) -> dict[str, Any]:
    """For JSON: a row for every checkpoint and line, and for every aggregate."""
    rows = [as_row(scores, line, checkpoint) for line in scores.lines for checkpoint in scores.checkpoints]
    return {
        "results": rows,
        "aggregates": [
            {"checkpoint": name, "aggregate": aggregate.name, "of": list(aggregate.members), "how": aggregate.how}
            | {"value": one.value, "stderr": number(one.stderr)}
            | (difference_values(differences[name]) if name in differences else {})
            for aggregate, values, differences in aggregates(scores)
            for name, one in values.items()
        ],
        "seed": scores.request.seed,
        "lm_eval": {name: found.get("results", {}) for name, found in scores.harness.items()},
    }


def as_row(scores: Scores, line: Line, checkpoint: Checkpoint) -> dict[str, Any]:
    result = line.results[checkpoint.name]
    row = {
        "checkpoint": checkpoint.name,
        "model": checkpoint.model,
        "task": line.name,
        "version": line.version,
        "form": line.form,
        "source": line.source,
        "template": "chat" if scores.request.chat else "plain",
        "shots": line.shots,
        "seed": scores.request.seed,
        "measure": line.measure,
        "normalisation": result.normalisation,
        "value": result.value,
        "stderr": number(result.stderr),
        "chance": number(line.chance),
        "questions": line.asked,
        "questions_of_the_task": line.of,
        "questions_with_fewer_shots": list(result.fewer),
        "questions_cut": list(result.cut),
        "measures": {name: result.mean_of(name) for name in result.also},
    }
    if checkpoint in compared(scores):
        before = line.results[str(checkpoint.parent)]
        row |= {"compared_with": checkpoint.parent} | difference_values(paired(before, result))
    return row


def difference_values(one: Paired) -> dict[str, Any]:
    return {
        "difference": one.difference,
        "difference_stderr": number(one.stderr),
        "difference_interval": [number(end) for end in one.interval],
        "better": one.wins,
        "worse": one.losses,
        "equal": one.ties,
        "sign_test_p": one.p_value,
    }


def number(value: float) -> float | None:
    """As JSON has it, which knows no nan."""
    return None if math.isnan(value) else value
