"""A suite: questions as data, without a model."""

from dataclasses import asdict, dataclass
from pathlib import Path

from llmctl.runs.files import read_json, write_json


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


def write_suites(file: Path, suites: list[Suite]) -> None:
    write_json(file, [asdict(suite) for suite in suites])


def read_suites(file: Path) -> list[Suite]:
    """The suites that `write_suites` wrote."""
    found = []
    for values in read_json(file):
        asked, pool = (
            tuple(Question(q["context"], tuple(q["choices"]), q["answer"]) for q in values[key]) for key in ("questions", "pool")
        )
        found.append(Suite(values["name"], values["version"], values["description"], asked, pool))
    return found
