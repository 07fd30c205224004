"""Scores of questions over a long context: the context goes through the model once, and then every choice."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from llmctl.evals.continuations import Fork, continuation_scores
from llmctl.suites.long_tasks import LongQuestion

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model made of a question."""

    task: str
    length: int
    depth: float | None
    chosen: float
    """Share of the blanks whose right choice has the highest log-likelihood per byte, the right ones before it given."""
    exact: float
    """Share of the blanks that greedy decoding fills rightly before its first mistake."""
    chance: float
    """Expected `chosen` of guessing."""


@dataclass(frozen=True, slots=True)
class Score:
    """Means over questions, with their standard errors (nan for a single question)."""

    questions: int
    chosen: float
    chosen_error: float
    exact: float
    exact_error: float
    chance: float


def answer(model: Any, question: LongQuestion) -> Answered:
    """`model` attends to packed documents (`use_packed_attention`)."""
    forks, trunk = [], []
    for blank in question.blanks:
        trunk = trunk + blank.lead
        forks.append(Fork(trunk, blank.choices))
        trunk = trunk + blank.choices[blank.text.answer]
    scores = continuation_scores(model, question.context, forks)
    chosen, written = 0, 0
    for number, (blank, of_choices) in enumerate(zip(question.blanks, scores, strict=True)):
        sizes = [len(choice.encode()) for choice in blank.text.choices]
        per_byte = [score.total / size for score, size in zip(of_choices, sizes, strict=True)]
        chosen += int(np.argmax(per_byte)) == blank.text.answer
        written += written == number and bool(of_choices[blank.text.answer].likeliest.all())
    count = len(question.blanks)
    return Answered(question.task, question.length, question.depth, chosen / count, written / count, question.chance)


def scores_by(answers: Iterable[Answered], key: Callable[[Answered], Key]) -> dict[Key, Score]:
    """The scores of the answers of each key."""
    groups: dict[Key, list[Answered]] = defaultdict(list)
    for one in answers:
        groups[key(one)].append(one)
    return {name: score(group) for name, group in groups.items()}


def score(answers: list[Answered]) -> Score:
    chosen, exact = [one.chosen for one in answers], [one.exact for one in answers]
    chance = float(np.mean([one.chance for one in answers]))
    return Score(len(answers), *mean_and_error(chosen), *mean_and_error(exact), chance)


def mean_and_error(values: Iterable[float]) -> tuple[float, float]:
    """Mean of independent values and its standard error, nan for a single one."""
    found = np.asarray(list(values), dtype=float)
    error = float(found.std(ddof=1)) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return float(found.mean()), error
