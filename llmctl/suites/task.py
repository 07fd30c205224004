"""A task: questions as data, without a model, and how they are scored."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from llmctl.runs.files import read_json, write_json

Measure = Literal["accuracy", "bits_per_byte", "exact_match", "f1", "pass_at_k", "score", "error"]
"""What a task's questions are scored by.

accuracy: whether the right choice is the likeliest; bits_per_byte: of the right choice, lower is better; exact_match, f1: of a
generated answer against those accepted; pass_at_k: whether generated programs pass their tests; score, error: another measure of
lm-evaluation-harness, an error is better when it is lower.
"""
LOWER_IS_BETTER = ("bits_per_byte", "error")
GENERATED = ("exact_match", "f1", "pass_at_k")

Normalisation = Literal["none", "character", "token", "byte", "unconditional"]
"""What a choice's log-likelihood is divided by, after OLMES (arXiv 2406.08446, section 3.2); unconditional: what it is without
the question is taken off (PMI)."""


@dataclass(frozen=True, slots=True)
class Question:
    """`context` goes on with one of `choices`. In a generated task the one choice is the answer that examples show."""

    context: str
    choices: tuple[str, ...]
    answer: int
    id: str = ""
    examples: tuple[str, ...] = ()
    """What its source puts before the context: solved examples, with what parts them."""
    contexts: tuple[str, ...] = ()
    """Of each choice, where they differ (WinoGrande fills a blank with them): used in the place of `context`."""
    unconditional: str = ""
    """The context that tells how likely a choice is without the question; empty: there is none."""
    group: str = ""
    """Groups of a task count alike in its mean, however many questions they have: MMLU's subjects."""
    accepted: tuple[str, ...] = ()
    """Answers that a generated one is held against."""
    tests: str = ""
    """Code that fails if a generated program, which stands before it, is wrong."""
    program_prefix: str = ""
    """What a generated program begins with: code of the prompt that the answer goes on with."""

    @property
    def solved(self) -> str:
        """The question with its answer: an example in a prompt."""
        return self.context_of(self.answer) + self.choices[self.answer]

    def context_of(self, choice: int) -> str:
        return self.contexts[choice] if self.contexts else self.context


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers of a generated task are made."""

    max_tokens: int = 256
    stop: tuple[str, ...] = ("\n\n",)
    """Text at which an answer ends, itself left out."""
    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    samples: int = 1
    """Answers to each question."""
    k: int = 1
    """Of pass@k: the chance that one of `k` answers passes."""
    answer_pattern: str = ""
    """Regular expression whose last match (its first group, if any) is the answer; empty: the whole text."""


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    version: int | str
    description: str
    questions: tuple[Question, ...]
    pool: tuple[Question, ...] = ()
    """Questions that are never asked: the examples of prompts are drawn from them."""
    measure: Measure = "accuracy"
    normalisation: Normalisation = "byte"
    form: str = "continuation"
    """How a question is put, as the tables say it: `rc`, `mc`, ..."""
    source: str = "built in"
    """Where the questions come from."""
    separator: str = "\n"
    """Between an example of the pool and what follows it."""
    sampling: Sampling = Sampling()
    of: int = 0
    """Questions that the task has, where not all are asked; 0: all are."""
    shots: int | None = None
    """Examples that the source puts before its questions, where `Question.examples` holds several in one text."""

    @property
    def own_shots(self) -> int | None:
        """How many examples the source puts before its questions; None: they are drawn from the pool."""
        if self.shots is not None:
            return self.shots
        return None if self.pool else max((len(question.examples) for question in self.questions), default=0)

    @property
    def chance(self) -> float:
        """Expected score of guessing, nan for measures that guessing says nothing about."""
        if self.measure != "accuracy":
            return float("nan") if self.measure == "bits_per_byte" else 0.0
        return sum(w / len(q.choices) for q, w in zip(self.questions, self.weights, strict=True))

    @property
    def weights(self) -> list[float]:
        """What each question counts in the task's mean: they sum to 1."""
        sizes: dict[str, int] = {}
        for question in self.questions:
            sizes[question.group] = sizes.get(question.group, 0) + 1
        return [1 / (len(sizes) * sizes[question.group]) for question in self.questions]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A number made of the scores of several tasks or aggregates."""

    name: str
    members: tuple[str, ...]
    how: Literal["mean", "best"] = "mean"
    """best: the highest, as for a task whose forms are alternatives."""


@dataclass(frozen=True, slots=True)
class Suite:
    """Tasks that are asked together, and what is made of their scores: members stand before what is made of them."""

    name: str
    tasks: tuple[Task, ...]
    aggregates: tuple[Aggregate, ...] = ()
    version: int | str = 1


def write_tasks(file: Path, tasks: Sequence[Task], aggregates: Sequence[Aggregate] = ()) -> None:
    write_json(file, {"tasks": [asdict(task) for task in tasks], "aggregates": [asdict(one) for one in aggregates]})


def read_tasks(file: Path) -> tuple[list[Task], list[Aggregate]]:
    """What `write_tasks` wrote."""
    values = read_json(file)
    return [_restored(Task, one) for one in values["tasks"]], [_restored(Aggregate, one) for one in values["aggregates"]]


def _restored(kind: Any, values: dict[str, Any]) -> Any:
    """A dataclass from the plain values that JSON leaves of it."""
    inner = {"questions": Question, "pool": Question, "sampling": Sampling}
    found: dict[str, Any] = {}
    for field in fields(kind):
        value = values[field.name]
        if field.name in inner and isinstance(value, dict):
            value = _restored(inner[field.name], value)
        elif field.name in inner:
            value = tuple(_restored(inner[field.name], one) for one in value)
        elif isinstance(value, list):
            value = tuple(value)
        found[field.name] = value
    return kind(**found)
