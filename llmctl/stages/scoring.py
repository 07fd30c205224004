"""Scores of checkpoints on tasks: every one is asked the same questions, behind the same examples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl import events
from llmctl.evals.prompts import require_template, shots_of
from llmctl.evals.result import Asking, TaskResult
from llmctl.recipe.schema import Recipe
from llmctl.stages.adapters import tokenizer_for_model
from llmctl.stages.measure import Precision, opened
from llmctl.stages.questions import suites_of, unique_aggregates
from llmctl.suites import catalog
from llmctl.suites.task import Aggregate, Measure, Suite, Task

if TYPE_CHECKING:
    from llmctl.evals.harness import HarnessScores


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model to score, under the name that tables show."""

    name: str
    model: str
    """Folder, hub name, .gguf file, or a folder with an adapter."""
    parent: str | None = None
    """Name of the checkpoint that it is compared with."""
    base: str | None = None
    """Of an adapter; None: as `stages.adapters` finds it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of every checkpoint."""

    names: tuple[str, ...]
    seed: int = 1
    questions: int | None = None
    """Of each task at most; None: all."""
    shots: int | None = None
    """Examples before the questions of tasks that come with their own; None: as many as these are."""
    drawn_shots: tuple[int, ...] = (0,)
    """Numbers of examples, one after the other, for tasks whose examples are drawn from a pool."""
    chat: bool = False
    allow_code: bool = False
    show: int = 0
    """Prompts of each task that are kept to be read."""
    precision: Precision = "auto"
    harness_tasks: Path | None = None
    """Folder of own YAML tasks of lm-evaluation-harness."""

    def asking(self, shots: int | None) -> Asking:
        return Asking(self.seed, shots, self.chat, allow_code=self.allow_code, show=self.show)


@dataclass(slots=True)
class Line:
    """A task behind a number of examples, and what each checkpoint made of it."""

    name: str
    version: int | str
    form: str
    """How a question is put, as the tables say it."""
    source: str
    measure: Measure
    scored_by: str
    chance: float
    shots: int
    of: int
    """Questions that the task has, of which not all may be asked."""
    results: dict[str, TaskResult] = field(default_factory=dict)
    """By the checkpoint's name."""

    @property
    def asked(self) -> int:
        return max((len(result.values) for result in self.results.values()), default=0)


@dataclass(frozen=True, slots=True)
class Scores:
    request: Request
    checkpoints: list[Checkpoint]
    lines: list[Line]
    aggregates: list[Aggregate]
    harness: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What lm-evaluation-harness makes of its own tasks, by the checkpoint's name."""


def score(checkpoints: Sequence[Checkpoint], request: Request, corpus: Path | None, recipe: Recipe | None) -> Scores:
    """Every checkpoint on every task. All get the same examples, as far as their context holds them.

    Raises:
        UserError: a name is not known, or its questions cannot be had.
        StageFailed: the logits of a checkpoint are no numbers.
    """
    from llmctl.evals.fewshot import check, evaluate
    from llmctl.evals.harness import evaluate_harness, load_tasks

    ours, theirs = catalog.split(request.names)
    suites = suites_of(ours, corpus, recipe, request.questions, request.seed, request.shots)
    asked = lines_of(suites, request)
    harness = load_tasks(theirs, request.harness_tasks) if theirs else None
    scores = Scores(request, list(checkpoints), [line for _, line in asked], unique_aggregates(suites))
    tokenizers = {one.name: tokenizer_for_model(one.model, one.base) for one in checkpoints}
    for name, tokenizer in tokenizers.items():  # before hours of work
        if request.chat:
            require_template(tokenizer, name)
    total = sum(len(task.questions) for task, _ in asked)
    for checkpoint in checkpoints:
        tokenizer, count = tokenizers[checkpoint.name], 0
        with opened(checkpoint.model, base=checkpoint.base, precision=request.precision) as model:
            for task, line in asked:
                check(model, task, request.asking(line.shots))
            for task, line in asked:
                told = partial(tell, checkpoint.name, count, total)
                line.results[checkpoint.name] = evaluate(model, tokenizer, task, request.asking(line.shots), told)
                count += len(task.questions)
                told(len(task.questions))
            if harness is not None:
                found = evaluate_harness(model, tokenizer, harness, request.asking(request.shots), request.questions)
                add_harness(scores, checkpoint.name, found)
    return scores


def lines_of(suites: Sequence[Suite], request: Request) -> list[tuple[Task, Line]]:
    """Every task once, behind each number of examples that is wanted of it."""
    found: dict[tuple[str, int], tuple[Task, Line]] = {}
    for task in (task for suite in suites for task in suite.tasks):
        for wanted in request.drawn_shots if task.pool else [request.shots]:
            shots = shots_of(task, request.asking(wanted))
            if shots < (wanted or 0):
                events.warn(f"{task.name}: {wanted} examples were asked for, and there are {shots} to draw from")
            line = Line(
                task.name, task.version, task.form, task.source, task.measure, measured_as(task), task.chance, shots,
                task.of or len(task.questions),
            )  # fmt: skip
            found.setdefault((task.name, shots), (task, line))
    return list(found.values())


def measured_as(task: Task) -> str:
    if task.measure == "accuracy":
        return f"accuracy/{task.normalisation}"
    return f"pass@{task.sampling.k}" if task.measure == "pass_at_k" else task.measure.replace("_", " ")


def add_harness(scores: Scores, checkpoint: str, found: "HarnessScores") -> None:
    """Put the results of lm-evaluation-harness's tasks with the others."""
    scores.harness[checkpoint] = found.aggregated
    known = {line.name: line for line in scores.lines}
    for result in found.results:
        name = result.task.removeprefix(catalog.HARNESS)
        if result.task not in known:
            choices = [len(of_question) for of_question in result.log_likelihoods]
            guessed = (
                sum(w / n for w, n in zip(result.weights, choices, strict=False)) if result.measure == "accuracy" else math.nan
            )
            line = Line(
                result.task, found.aggregated["versions"].get(name, ""), "lm-eval", "lm-evaluation-harness", result.measure,
                next(iter(result.also), result.measure), guessed or math.nan, result.shots,
                found.aggregated["n-samples"].get(name, {}).get("original", len(result.values)),
            )  # fmt: skip
            scores.lines.append(line)
            known[result.task] = line
        known[result.task].results[checkpoint] = result


def tell(checkpoint: str, before: int, total: int, done: int) -> None:
    events.progress(f"few-shot evaluation of {checkpoint}", before + done, total, "questions")
