"""Tasks of choices: the likeliest choice is the model's answer."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.evals.continuations import BranchScore, NotFinite
from llmctl.evals.prompts import Pair, examples_of, pairs_of, shots_of
from llmctl.evals.result import Asking, TaskResult, not_finite
from llmctl.evals.shared import scores_of
from llmctl.suites.task import Normalisation, Question, Task


def score_choices(
    model: Any, tokenizer: Any, task: Task, asking: Asking, done: Callable[[int], None] | None = None
) -> TaskResult:
    """Accuracy, or bits per byte of the right choice; every question's value in both, and under every normalisation.

    Raises:
        StageFailed: the model's logits are no numbers at a question.
        UserError: a choice gives no token of its own, or the task has not so many examples.
    """
    limit = int(asking.limit or model.config.get_text_config().max_position_embeddings)
    asked, fewer, cut = fitting(tokenizer, task, asking, limit)
    scores = _scored(model, task, asked, done)
    without = None
    if task.normalisation == "unconditional":
        bare = [replace(question, context=question.unconditional, contexts=()) for question in task.questions]
        pairs = [pairs_of(tokenizer, question, (), asking.chat) for question in bare]
        without = _scored(model, task, pairs)
    also: dict[str, list[float]] = {}
    for number, question in enumerate(task.questions):
        read = as_read(tokenizer, question, asked[number], limit)
        for measure, value in measures(read, scores[number], without[number] if without else None).items():
            also.setdefault(measure, []).append(value)
    primary = "bits_per_byte" if task.measure == "bits_per_byte" else f"accuracy/{task.normalisation}"
    return TaskResult(
        task.name,
        task.measure,
        task.normalisation,
        shots_of(task, asking),
        tuple(also.get(primary, ())),
        tuple(task.weights),
        tuple(question.group for question in task.questions),
        tuple(question.id or str(number) for number, question in enumerate(task.questions)),
        {measure: tuple(values) for measure, values in also.items()},
        fewer,
        cut,
        tuple(shown(tokenizer, pairs[q.answer]) for pairs, q in zip(asked[: asking.show], task.questions, strict=False)),
        tuple(tuple(choice.total for choice in of_question) for of_question in scores),
    )


def fitting(tokenizer: Any, task: Task, asking: Asking, limit: int) -> tuple[list[list[Pair]], tuple[str, ...], tuple[str, ...]]:
    """The prompt and each choice of every question, of at most `limit` tokens beside the last one, which is only predicted: the
    first examples are left out as need be, then the question's beginning. The questions (ids) where either happened follow.

    Raises:
        UserError: a choice gives no token of its own.
    """
    found, fewer, cut = [], [], []
    for number, (question, examples) in enumerate(zip(task.questions, examples_of(task, asking), strict=True)):
        name = question.id or str(number)
        for left_out in range(len(examples) + 1):
            pairs = pairs_of(tokenizer, question, examples[left_out:], asking.chat)
            if max(len(context) + len(choice) for context, choice in pairs) <= limit + 1:
                break
        else:
            left_out = len(examples)
            cut.append(name)
            pairs = [shortened(pair, limit) for pair in pairs]
        if left_out:
            fewer.append(name)
        empty = next((choice for (_, ids), choice in zip(pairs, question.choices, strict=True) if not ids), None)
        if empty is not None:
            raise UserError(f"{task.name}, question {name}: the choice {empty!r} gives no token of its own after its prompt")
        found.append(pairs)
    return found, tuple(fewer), tuple(cut)


def shortened(pair: Pair, limit: int) -> Pair:
    """A prompt and a choice without the tokens at the beginning that are too many; one of the prompt stays. Of a choice that is
    longer than the context its beginning."""
    context, choice = pair
    choice = choice[:limit]
    return context[-(limit + 1 - len(choice)) :], choice


def as_read(tokenizer: Any, question: Question, pairs: list[Pair], limit: int) -> Question:
    """The question with its choices as far as they were scored: their length is to be that of the same text."""
    if all(len(choice) < limit for _, choice in pairs):
        return question
    return replace(question, choices=tuple(tokenizer.decode(choice) for _, choice in pairs))


def _scored(
    model: Any, task: Task, asked: list[list[Pair]], done: Callable[[int], None] | None = None
) -> list[list[BranchScore]]:
    try:
        return scores_of(model, asked, done)
    except NotFinite as error:
        raise not_finite(f"{task.name}, question {task.questions[error.fork].id or error.fork}") from None


def measures(question: Question, scores: list[BranchScore], without: list[BranchScore] | None) -> dict[str, float]:
    """The value of a question under each normalisation, and the bits that each byte of the right choice takes."""
    totals = np.array([score.total for score in scores])
    divisors: dict[Normalisation, list[int]] = {
        "none": [1] * len(scores),
        "character": [len(choice) for choice in question.choices],
        "byte": [len(choice.encode()) for choice in question.choices],
        "token": [len(score.log_probabilities) for score in scores],
    }
    found = {f"accuracy/{name}": float(np.argmax(totals / sizes) == question.answer) for name, sizes in divisors.items()}
    if without is not None:
        surplus = totals - [score.total for score in without]
        found["accuracy/unconditional"] = float(np.argmax(surplus) == question.answer)
    size = divisors["byte"][question.answer]
    return found | {"bits_per_byte": -float(totals[question.answer]) / math.log(2) / size}


def shown(tokenizer: Any, pair: Pair) -> str:
    """A prompt as the model reads it, special tokens and all, with the choice after a mark."""
    return f"{tokenizer.decode(pair[0])}⟦{tokenizer.decode(pair[1])}⟧"
