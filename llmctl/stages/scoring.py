"""Scores of checkpoints on tasks: every one is asked the same questions, behind the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from llmctl import events
from llmctl.evals.result import Asking, TaskResult
from llmctl.recipe.schema import Recipe
from llmctl.stages.adapters import tokenizer_for_model
from llmctl.stages.measure import Precision, opened
from llmctl.stages.questions import suites_of
from llmctl.suites import catalog
from llmctl.suites.task import Aggregate, Task


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
    """Examples before the questions of every task; None: as many as a task comes with, or else `drawn_shots`."""
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

    task: Task
    shots: int
    results: dict[str, TaskResult] = field(default_factory=dict)
    """By the checkpoint's name."""


@dataclass(frozen=True, slots=True)
class Scores:
    request: Request
    checkpoints: list[Checkpoint]
    lines: list[Line]
    aggregates: list[Aggregate]


def score(checkpoints: Sequence[Checkpoint], request: Request, corpus: Path | None, recipe: Recipe | None) -> Scores:
    """Every checkpoint on every task. All get the same examples, as far as their context holds them.

    Raises:
        UserError: a name is not known, or its questions cannot be had.
        StageFailed: the logits of a checkpoint are no numbers.
    """
    from llmctl.evals.fewshot import evaluate
    from llmctl.evals.prompts import shots_of

    ours, theirs = catalog.split(request.names)
    suites = suites_of(ours, corpus, recipe, request.questions, request.seed, request.shots)
    lines: dict[tuple[str, int], Line] = {}
    for task in (task for suite in suites for task in suite.tasks):
        wanted = [request.shots] if request.shots is not None or not task.pool else request.drawn_shots
        for shots in wanted:
            shots = shots_of(task, request.asking(shots))
            lines.setdefault((task.name, shots), Line(task, shots))
    total = sum(len(line.task.questions) for line in lines.values())
    for checkpoint in checkpoints:
        tokenizer = tokenizer_for_model(checkpoint.model, checkpoint.base)
        with opened(checkpoint.model, base=checkpoint.base, precision=request.precision) as model:
            count = 0
            for line in lines.values():
                asking = request.asking(line.shots)
                told = partial(tell, checkpoint.name, count, total)
                line.results[checkpoint.name] = evaluate(model, tokenizer, line.task, asking, told)
                count += len(line.task.questions)
                told(len(line.task.questions))
    aggregates = [aggregate for suite in suites for aggregate in suite.aggregates]
    return Scores(request, list(checkpoints), list(lines.values()), aggregates)


def tell(checkpoint: str, before: int, total: int, done: int) -> None:
    events.progress(f"few-shot evaluation of {checkpoint}", before + done, total, "questions")
