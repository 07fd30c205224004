"""Few-shot accuracy by likelihood, with its standard error, and paired comparison of two models."""

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmctl.evals.score import token_log_probabilities
from llmctl.suites.suite import Question, Suite


@dataclass(frozen=True, slots=True)
class SuiteResult:
    suite: str
    shots: int
    correct: tuple[bool, ...]
    """Question by question, for paired comparison."""
    truncated: int
    """Questions whose examples had to be left out, in part, because the prompt was longer than the context."""

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


def evaluate(model: Any, tokenizer: Any, suite: Suite, shots: int, seed: int) -> SuiteResult:
    """The choice with the highest log-likelihood per byte is the model's answer.

    Examples that do not fit into the context are left out, and the questions where that happened counted.
    """
    limit = model.config.max_position_embeddings
    shown = examples(suite, shots, seed)
    sequences: list[list[int]] = []
    tails: list[tuple[int, int]] = []  # (tokens of the choice, its bytes)
    truncated = 0
    for question in suite.questions:
        choices = [tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in question.choices]
        longest = max(len(ids) for ids in choices)
        kept = len(shown)
        while True:
            prompt = "".join(example.solved + "\n" for example in shown[len(shown) - kept :]) + question.context
            context = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            if kept == 0 or len(context) + longest <= limit:
                break
            kept -= 1
        truncated += kept < len(shown)
        context = context[-(limit - longest) :]
        for choice, ids in zip(question.choices, choices, strict=True):
            sequences.append(context + ids)
            tails.append((len(ids), len(choice.encode())))
    scores = token_log_probabilities(model, sequences)
    correct, at = [], 0
    for question in suite.questions:
        part = range(at, at + len(question.choices))
        per_byte = [float(scores[i][-tails[i][0] :].sum()) / tails[i][1] for i in part]
        correct.append(int(np.argmax(per_byte)) == question.answer)
        at += len(question.choices)
    return SuiteResult(suite.name, shots, tuple(correct), truncated)


def compare(before: SuiteResult, after: SuiteResult) -> tuple[float, float]:
    """Difference of the accuracies on the same questions, and its standard error from the paired differences."""
    differences = np.array(after.correct, dtype=float) - np.array(before.correct, dtype=float)
    if len(differences) < 2:
        return float(differences.sum()), float("nan")
    return float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(len(differences)))
