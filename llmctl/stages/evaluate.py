"""eval: few-shot suites on the checkpoints of a run, each beside its parent and beside chance.

Takes: the model of every stage of the recipe, and the corpus for questions. Leaves: `scores.json`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.errors import UserError
from llmctl.recipe.graph import stage_order
from llmctl.recipe.schema import EvalTable, Recipe
from llmctl.runs.files import write_json
from llmctl.stages.node import Context, Node, Outcome


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model to score, under the name that tables show."""

    name: str
    folder: Path


def node(recipe: Recipe) -> Node:
    stages = tuple(stage.name for stage in stage_order(recipe))
    identity = {"eval": recipe.eval.model_dump(mode="json"), "seed": recipe.seed}
    return Node("eval", "eval", 1, ("corpus", "tokenizer", *stages), identity, work)


def work(context: Context) -> Outcome:
    recipe = context.recipe
    checkpoints = [Checkpoint(stage.name, context.parents[stage.name].folder / "model") for stage in stage_order(recipe)]
    table = recipe.eval
    scores = score(checkpoints, context.parents["corpus"].folder, recipe, table, sorted({0, table.shots}))
    write_json(context.artifact.folder / "scores.json", scores)
    metrics = {f"{row['checkpoint']}/{row['suite']}/{row['shots']}-shot": row["accuracy"] for row in scores["results"]}
    return Outcome(["scores.json"], metrics=metrics)


def score(
    checkpoints: list[Checkpoint], corpus: Path, recipe: Recipe, table: EvalTable, shot_counts: list[int]
) -> dict[str, Any]:
    """Accuracy of every checkpoint on every built-in suite, as a table and as plain values.

    The questions come from the held-out documents of `corpus`, and the shots are the same for every checkpoint.
    """
    from llmctl.corpus.documents import read_documents
    from llmctl.evals.fewshot import compare, evaluate
    from llmctl.stages.measure import opened
    from llmctl.suites.builtin import builtin_suites
    from llmctl.tokens.tokenizer import load_tokenizer

    source = recipe.reference_source
    if source is None:
        raise UserError("few-shot questions are made from held-out text, and the recipe has no text source in [corpus.sources]")
    documents = [(d.text, d.path) for d in read_documents(corpus, source, "heldout")]
    suites = builtin_suites(documents, recipe.seed, table.questions, table.suites)
    for suite in suites:
        if not suite.questions:
            events.warn(f"suite {suite.name}: the held-out documents give no question; it is left out")
    suites = [suite for suite in suites if suite.questions]
    results: dict[tuple[str, str, int], Any] = {}
    done, total = 0, len(checkpoints) * len(suites) * len(shot_counts)
    for checkpoint in checkpoints:
        with opened(checkpoint.folder) as model:
            tokenizer = load_tokenizer(str(checkpoint.folder))
            for suite in suites:
                for shots in shot_counts:
                    results[checkpoint.name, suite.name, shots] = evaluate(model, tokenizer, suite, shots, recipe.seed)
                    done += 1
                    events.progress("few-shot evaluation", done, total, "suites")
    rows, plain = [], []
    for suite in suites:
        for shots in shot_counts:
            cells = []
            for index, checkpoint in enumerate(checkpoints):
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
                }
                if index:
                    difference, error = compare(results[checkpoints[index - 1].name, suite.name, shots], result)
                    row |= {
                        "difference_to": checkpoints[index - 1].name,
                        "difference": difference,
                        "difference_stderr": error,
                    }
                plain.append(row)
                cells.append(f"{100 * result.accuracy:.1f} ± {100 * result.stderr:.1f}")
            rows.append((suite.name, str(shots), f"{100 * suite.chance:.1f}", *cells))
    events.emit(
        events.Table(
            "few-shot accuracy, % ± standard error",
            ("suite", "shots", "chance", *(c.name for c in checkpoints)),
            tuple(rows),
        )
    )
    return {"results": plain, "seed": recipe.seed}
