"""eval: few-shot suites on the checkpoints of a run, each beside its parent and beside chance.

Takes: the model of every stage of the recipe, and the corpus for questions. Leaves: `scores.json`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.graph import stage_order
from llmctl.recipe.schema import AverageTable, EvalTable, Recipe
from llmctl.runs.files import write_json
from llmctl.stages.node import Context, Node, Outcome
from llmctl.suites.task import Task

Results = dict[tuple[str, str, int], Any]
"""`TaskResult` by (checkpoint, suite, shots)."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model to score, under the name that tables show."""

    name: str
    model: str
    """Folder or hub name."""
    parent: str | None = None
    """Name of the checkpoint that it is compared with."""


def node(recipe: Recipe) -> Node:
    stages = tuple(stage.name for stage in stage_order(recipe))
    identity = {"eval": recipe.eval.model_dump(mode="json"), "seed": recipe.seed}
    return Node("eval", "eval", 1, ("corpus", "tokenizer", *stages), identity, work)


def work(context: Context) -> Outcome:
    recipe, table = context.recipe, context.recipe.eval
    checkpoints = checkpoints_of(recipe, {name: str(a.folder / "model") for name, a in context.parents.items()})
    scores = score(checkpoints, context.parents["corpus"].folder, recipe, table, sorted({0, table.shots}))
    write_json(context.artifact.folder / "scores.json", scores)
    metrics = {f"{row['checkpoint']}/{row['suite']}/{row['shots']}-shot": row["accuracy"] for row in scores["results"]}
    return Outcome(["scores.json"], metrics=metrics)


def checkpoints_of(recipe: Recipe, models: dict[str, str]) -> list[Checkpoint]:
    """Every stage's model beside its parent; a model from outside that a stage starts from is scored too."""
    found: dict[str, Checkpoint] = {}
    for stage in stage_order(recipe):
        origin = stage.of[0] if isinstance(stage, AverageTable) else stage.from_
        if origin is not None and origin not in recipe.stages:
            found.setdefault(origin, Checkpoint(origin, origin))
        found[stage.name] = Checkpoint(stage.name, models[stage.name], origin)
    return list(found.values())


def score(
    checkpoints: list[Checkpoint], corpus: Path, recipe: Recipe, table: EvalTable, shot_counts: list[int]
) -> dict[str, Any]:
    """Accuracy of every checkpoint on every built-in suite, as tables and as plain values.

    The questions come from the held-out documents of `corpus`. All checkpoints get the same examples, as far as their
    context holds them; where it does not, the table says so.
    """
    from llmctl.evals.fewshot import evaluate
    from llmctl.stages.measure import opened
    from llmctl.tokens.tokenizer import load_tokenizer

    suites = suites_of(corpus, recipe, table)
    results: Results = {}
    done, total = 0, len(checkpoints) * len(suites) * len(shot_counts)
    for checkpoint in checkpoints:
        with opened(checkpoint.model) as model:
            tokenizer = load_tokenizer(checkpoint.model)
            for suite in suites:
                for shots in shot_counts:
                    results[checkpoint.name, suite.name, shots] = evaluate(model, tokenizer, suite, shots, recipe.seed)
                    done += 1
                    events.progress("few-shot evaluation", done, total, "suites")
    show(results, checkpoints, suites, shot_counts)
    plain = [as_row(results, c, suite, shots) for suite in suites for shots in shot_counts for c in checkpoints]
    return {"results": plain, "seed": recipe.seed}


def suites_of(corpus: Path, recipe: Recipe, table: EvalTable) -> list[Task]:
    """The suites that the held-out documents give questions for.

    Raises:
        UserError: there is no text to make them from.
    """
    from llmctl.corpus.documents import read_documents
    from llmctl.suites.builtin import builtin_tasks

    source = recipe.reference_source
    if source is None:
        raise UserError("few-shot questions are made from held-out text, and the recipe has no text source in [corpus.sources]")
    documents = [(d.text, d.path) for d in read_documents(corpus, source, "heldout")]
    suites = builtin_tasks(documents, recipe.seed, table.questions, table.suites)
    for suite in suites:
        if not suite.questions:
            events.warn(f"suite {suite.name}: the held-out documents give no question; it is left out")
    return [suite for suite in suites if suite.questions]


def show(results: Results, checkpoints: list[Checkpoint], suites: list[Task], shot_counts: list[int]) -> None:
    """Two tables: accuracy beside chance, and the paired difference of each checkpoint to its parent."""
    accuracies, differences, fewer = [], [], set()
    children = [c for c in checkpoints if (c.parent, suites[0].name, shot_counts[0]) in results] if suites else []
    for suite in suites:
        for shots in shot_counts:
            cells = []
            for checkpoint in checkpoints:
                result = results[checkpoint.name, suite.name, shots]
                cells.append(f"{100 * result.accuracy:.1f} ± {100 * result.stderr:.1f}{'*' if result.truncated else ' '}")
                if result.truncated:
                    fewer.add(checkpoint.name)
            accuracies.append((suite.name, str(shots), f"{100 * suite.chance:.1f}", *cells))
            rows = [as_row(results, checkpoint, suite, shots) for checkpoint in children]
            cells = [f"{100 * row['difference']:+.1f} ± {100 * row['difference_stderr']:.1f}" for row in rows]
            differences.append((suite.name, str(shots), *cells))
    columns = ("suite", "shots", "chance", *(checkpoint.name for checkpoint in checkpoints))
    events.emit(events.Table("few-shot accuracy, % ± standard error", columns, tuple(accuracies)))
    if fewer:
        events.say(f"* the prompt was longer than the context of {', '.join(sorted(fewer))}: examples were left out, in part")
    if children:
        columns = ("suite", "shots", *(f"{c.name} - {c.parent}" for c in children))
        events.emit(events.Table("difference to the parent on the same questions, points ± error", columns, tuple(differences)))


def as_row(results: Results, checkpoint: Checkpoint, suite: Suite, shots: int) -> dict[str, Any]:
    from llmctl.evals.fewshot import compare

    result = results[checkpoint.name, suite.name, shots]
    row = {
        "checkpoint": checkpoint.name,
        "suite": suite.name,
        "version": suite.version,
        "shots": shots,
        "accuracy": result.accuracy,
        "stderr": result.stderr,
        "chance": suite.chance,
        "questions": len(result.correct),
        "questions_with_fewer_shots": result.truncated,
    }
    before = results.get((checkpoint.parent or "", suite.name, shots))
    if before is not None:
        difference, error = compare(before, result)
        row |= {"difference_to": checkpoint.parent, "difference": difference, "difference_stderr": error}
    return row
