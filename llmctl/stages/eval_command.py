"""`llmctl eval`: which checkpoints are measured, by what, and where the numbers go."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from llmctl.errors import UserError
from llmctl.recipe.schema import EvalTable, Recipe
from llmctl.runs.files import write_json
from llmctl.stages.compared import resolve
from llmctl.stages.measure import Precision
from llmctl.stages.scoring import Request, score


@dataclass(frozen=True, slots=True)
class Measures:
    """What `llmctl eval` measures; None: as the recipe says, or else its defaults."""

    names: tuple[str, ...] = ()
    """Suites and tasks; empty: the recipe's."""
    tasks: bool = True
    few_shot: bool = False
    shots: int | None = None
    questions: int | None = None
    """0: all."""
    seed: int | None = None
    chat: bool = False
    allow_code: bool = False
    show: int = 0
    precision: Precision = "auto"
    harness_tasks: Path | None = None
    long: bool = False
    plots: Path | None = None

    def request(self, recipe: Recipe | None) -> Request:
        table = recipe.eval if recipe is not None else EvalTable()
        questions = table.questions if self.questions is None else self.questions or None
        seed = self.seed if self.seed is not None else recipe.seed if recipe is not None else 1
        drawn = tuple(sorted({0, table.shots})) if self.few_shot and self.shots is None else (0,)
        return Request(
            self.names or tuple(table.suites),
            seed,
            questions,
            self.shots,
            drawn,
            self.chat,
            self.allow_code,
            self.show,
            self.precision,
            self.harness_tasks,
        )


def questions_of(text: str | None) -> int | None:
    """The number that `--questions` means; 0: all.

    Raises:
        UserError: it is none.
    """
    if text is None or text == "all":
        return None if text is None else 0
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--questions {text}: expected a number from 1 on, or all")
    return int(text)


def precision_of(text: str) -> Precision:
    """Raises:
    UserError: it is no precision.
    """
    if text not in get_args(Precision):
        raise UserError(f"--precision {text}: expected {', '.join(get_args(Precision))}")
    return cast(Precision, text)


def evaluate_checkpoints(
    names: Sequence[str], wanted: Measures, against: str | None, base: str | None, json_file: Path | None, runs: Path | None
) -> None:
    """Score checkpoints beside a parent or another one: tables, JSON, a note in the manifests of those that belong to a run."""
    from llmctl.stages.score_tables import plain, show, show_prompts

    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UserError(f"--json {json_file}: there is no folder {json_file.parent}")
    compared = resolve(names, against, base, runs)
    values: dict[str, Any] = {"model": compared.subject.model}
    if wanted.tasks:
        scores = score(compared.checkpoints, wanted.request(compared.recipe), compared.corpus, compared.recipe)
        show_prompts(scores)
        show(scores)
        values |= plain(scores)
        for row in values["results"]:
            if row["checkpoint"] in compared.owners:
                compared.owners[row["checkpoint"]].note_evaluation(row)
    if wanted.long:
        from llmctl.stages.long_eval import evaluate_long

        if compared.corpus is None or compared.recipe is None:
            raise UserError("--long measures on the held-out text of a run, and there is none")
        values["long"] = evaluate_long(compared.checkpoints, compared.corpus, compared.recipe, wanted.plots)
    if json_file is not None:
        write_json(json_file, values)
