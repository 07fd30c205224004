"""Few-shot evaluation: a task is asked, and scored by its own measure."""

from collections.abc import Callable
from typing import Any

from llmctl.evals.result import Asking, TaskResult
from llmctl.suites.task import GENERATED, Task


def evaluate(model: Any, tokenizer: Any, task: Task, asking: Asking, done: Callable[[int], None] | None = None) -> TaskResult:
    """`model` attends to packed documents (`use_packed_attention`). `done` is told how many questions are.

    Raises:
        StageFailed: the model's logits are no numbers at a question, which is named.
        UserError: the task does not come with so many examples.
    """
    if task.measure in GENERATED:
        from llmctl.evals.generated import score_generated

        return score_generated(model, tokenizer, task, asking)
    from llmctl.evals.choices import score_choices

    return score_choices(model, tokenizer, task, asking, done)


def check(model: Any, task: Task, asking: Asking) -> None:
    """Before a long evaluation begins: what would stop it at this task.

    Raises:
        UserError: answers leave no room for a question in the model's context, or programs are not to be run, or cannot be here.
    """
    if task.measure in GENERATED:
        from llmctl.evals.generated import check_generated

        check_generated(model, task, asking)
