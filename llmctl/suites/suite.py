"""A suite: questions as data, without a model."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """`context` goes on with one of `choices`; a choice is scored by its likelihood after the context."""

    context: str
    choices: tuple[str, ...]
    answer: int

    @property
    def solved(self) -> str:
        """The question with its answer: an example in a prompt."""
        return self.context + self.choices[self.answer]


@dataclass(frozen=True, slots=True)
class Suite:
    name: str
    version: int
    description: str
    questions: tuple[Question, ...]
    pool: tuple[Question, ...]
    """Questions that are never asked: the examples of prompts are drawn from them."""

    @property
    def chance(self) -> float:
        """Expected accuracy of guessing."""
        return sum(1 / len(question.choices) for question in self.questions) / max(1, len(self.questions))
