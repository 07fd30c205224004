"""Few-shot accuracy by likelihood, with its standard error, and paired comparison of two models."""

import math
import random
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from llmctl.evals.continuations import Fork, continuation_log_probabilities
from llmctl.suites.task import Question


@dataclass(frozen=True, slots=True)
class TaskResult:
    suite: str
    shots: int
    correct: tuple[bool, ...]
    """Question by question, for paired comparison."""
    truncated: int
    """Questions that were longer than the context with all examples: some were left out, or the question's beginning."""

    @property
    def accuracy(self) -> float:
        return sum(self.correct) / max(1, len(self.correct))

    @property
    def stderr(self) -> float:
        """Standard error of the accuracy (binomial)."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / max(1, len(self.correct)))


def examples(suite: Suite, shots: int, seed: int) -> list[Question]:
    """The examples of a suite's prompts: the same for every question and every model."""
    return random.Random(f"{seed}/{suite.name}/{shots}").sample(suite.pool, min(shots, len(suite.pool)))


def evaluate(model: Any, tokenizer: Any, suite: Suite, shots: int, seed: int, limit: int | None = None) -> TaskResult:
    """The choice with the highest log-likelihood per byte is the model's answer.

    What does not fit into `limit` tokens (left out: the model's context) is left out, examples first, and the questions where
    that happened are counted.
    """
    limit = int(limit or model.config.max_position_embeddings)
    examples_first = [tokenize(tokenizer, example.solved + "\n") for example in examples(suite, shots, seed)]
    prefixes = [list(chain.from_iterable(examples_first[skipped:])) for skipped in range(len(examples_first) + 1)]
    asked: dict[int, list[int]] = {}
    """Questions by the number of examples that are left out."""
    encoded: list[Fork] = []
    cut = 0
    for number, question in enumerate(suite.questions):
        choices = [tokenize(tokenizer, choice)[: limit - 1] for choice in question.choices]
        longest = max(map(len, choices))
        whole = tokenize(tokenizer, question.context)
        context = whole[-(limit - longest) :]
        cut += len(context) < len(whole) or longest == limit - 1
        room = limit - longest - len(context)
        skipped = next(index for index, prefix in enumerate(prefixes) if len(prefix) <= room)
        asked.setdefault(skipped, []).append(number)
        encoded.append(Fork(context, choices))
    correct = [False] * len(suite.questions)
    for skipped, numbers in asked.items():
        scores = continuation_log_probabilities(model, prefixes[skipped], [encoded[number] for number in numbers])
        for number, of_choices in zip(numbers, scores, strict=True):
            question = suite.questions[number]
            per_byte = [float(s.sum()) / len(c.encode()) for s, c in zip(of_choices, question.choices, strict=True)]
            correct[number] = int(np.argmax(per_byte)) == question.answer
    truncated = max(cut, sum(len(numbers) for skipped, numbers in asked.items() if skipped))
    return TaskResult(suite.name, shots, tuple(correct), truncated)


def tokenize(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def compare(before: TaskResult, after: TaskResult) -> tuple[float, float]:
    """Difference of the accuracies on the same questions, and its standard error from the paired differences."""
    differences = np.array(after.correct, dtype=float) - np.array(before.correct, dtype=float)
    if len(differences) < 2:
        return float(differences.sum()), float("nan")
    return float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(len(differences)))
