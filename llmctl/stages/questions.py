"""The tasks that names stand for, for a run: the built-in ones are made from its held-out text."""

import sys
from collections.abc import Sequence
from pathlib import Path

from llmctl import events
from llmctl.corpus.documents import read_documents
from llmctl.errors import UserError
from llmctl.recipe.long_schema import LongContextTable
from llmctl.recipe.schema import Recipe, TrainTable
from llmctl.suites import catalog
from llmctl.suites.builtin import builtin_tasks
from llmctl.suites.task import Aggregate, Suite, Task


def suites_of(
    names: Sequence[str], corpus: Path | None, recipe: Recipe | None, questions: int | None, seed: int, shots: int | None = None
) -> list[Suite]:
    """The suites of these names, at most so many questions of each task (None: all). `shots`: as in `catalog.find`.

    Raises:
        UserError: a name is not known, or built-in tasks are wanted where there is no text to make them from.
    """

    def builtin() -> list[Task]:
        source = None if recipe is None else recipe.reference_source
        if corpus is None or source is None:
            raise UserError(
                "the built-in tasks are made from the held-out text of a run, and there is none: name others, as in "
                "--suite olmes or --task FILE.toml (llmctl eval --list has all names)"
            )
        documents = [(document.text, document.path) for document in read_documents(corpus, source, "heldout")]
        return builtin_tasks(documents, seed, questions or sys.maxsize, names)

    found = []
    for suite in catalog.find(names, questions, seed, shots, builtin):
        for task in suite.tasks:
            if not task.questions:
                events.warn(f"{task.name}: the held-out documents give no question; it is left out")
        found.append(Suite(suite.name, tuple(task for task in suite.tasks if task.questions), suite.aggregates, suite.version))
    return found


def tasks_of(names: Sequence[str], corpus: Path, recipe: Recipe, questions: int | None) -> tuple[list[Task], list[Aggregate]]:
    """The tasks of `suites_of`, by the recipe's seed, and what is made of their scores; each once."""
    suites = suites_of(names, corpus, recipe, questions, recipe.seed)
    tasks = {task.name: task for suite in suites for task in suite.tasks}
    return list(tasks.values()), unique_aggregates(suites)


def unique_aggregates(suites: Sequence[Suite]) -> list[Aggregate]:
    return list({aggregate.name: aggregate for suite in suites for aggregate in suite.aggregates}.values())


def asked_in(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """Those of the names whose questions a recipe has: the built-in ones need text."""
    ours, _ = catalog.split(names)
    return [name for name in ours if recipe.reference_source is not None or not catalog.is_builtin(name)]


def check_questions(recipe: Recipe) -> None:
    """Raises:
    UserError: a suite or a task that the recipe names is not known, or cannot be asked from a recipe.
    """
    check_names("eval.suites", recipe.eval.suites)
    for name, stage in recipe.stages.items():
        if isinstance(stage, TrainTable):
            check_names(f"{name}.eval.suites", stage.eval.suites)
            if asked_in(recipe, stage.eval.suites) != stage.eval.suites:
                raise UserError(
                    f"{name}.eval.suites: the built-in tasks are made from held-out text, and the recipe has no text source"
                )
        if isinstance(stage, LongContextTable):
            check_names(f"{name}.guard.suites", stage.guard.suites)


def check_names(key: str, names: Sequence[str]) -> None:
    """Raises:
    UserError: a name in the recipe's `key` is not known, or its tasks cannot be asked from a recipe.
    """
    ours, theirs = catalog.split(names)
    if theirs:
        raise UserError(f"{key}: {catalog.HARNESS}{theirs[0]}: tasks of lm-evaluation-harness are asked by `llmctl eval` alone")
    try:
        catalog.check(ours)
        if code := [name for name in ours if catalog.runs_code(name)]:
            raise UserError(f"{code[0]}: programs that a model writes are run by `llmctl eval --allow-code` alone")
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
