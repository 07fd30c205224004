"""What a longer context is measured on, made once, and what each model makes of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.recipe.long_schema import GuardTable, LongEvalTable
from llmctl.recipe.schema import Recipe
from llmctl.suites.long_tasks import LongQuestion
from llmctl.suites.task import Task


@dataclass(frozen=True, slots=True)
class Materials:
    """Held-out documents and questions, the same for all models that are compared."""

    short: int
    """Context length of the parent, in tokens."""
    length: int
    """Context length of the model."""
    seed: int
    guard: GuardTable
    source: str
    """Of the text that bits per byte are measured on."""
    sequences: list[list[int]]
    """Long documents, `length` + 1 tokens of each."""
    questions: list[LongQuestion]
    needles: list[LongQuestion]
    """Of the map of depth and length."""
    texts: list[str]
    tasks: list[Task]


@dataclass(slots=True)
class Measured:
    """A model's results; None and empty where they were not asked for."""

    losses: Any = None
    """[documents, positions] nats"""
    answers: list[Any] = field(default_factory=list)
    """`Answered` of the tasks' questions."""
    needles: list[Any] = field(default_factory=list)
    bits: Any = None
    """[texts] bits of each"""
    tasks: dict[str, Any] = field(default_factory=dict)
    """`TaskResult` by task."""


def materials(corpus: Path, recipe: Recipe, tokenizer: Any, short: int, length: int, guard: GuardTable) -> Materials:
    """Of the held-out text of a run's corpus, for a model of `length` tokens of context and its parent of `short`."""
    from llmctl.stages.heldout import sample_texts
    from llmctl.stages.questions import tasks_of
    from llmctl.suites.haystack import Haystack

    table, source = recipe.eval.long, str(recipe.reference_source)
    lengths = sorted(table.lengths) or lengths_between(short, length)
    haystack = Haystack(tokenizer, long_texts(corpus, recipe, lengths[-1]), 4 * lengths[-1])
    if haystack.generated:
        events.say("no long document is held out: the filler of the questions is generated sentences")
    return Materials(
        short,
        length,
        recipe.seed,
        guard,
        source,
        heldout_sequences(corpus, recipe, tokenizer, length),
        questions_of(table, lengths, recipe.seed, tokenizer, haystack),
        needles_of(table, lengths, recipe.seed, tokenizer, haystack),
        sample_texts(corpus, source, recipe.eval.bits_per_byte_bytes),
        tasks_of(guard.suites, corpus, recipe, guard.questions)[0] if guard.suites else [],
    )


def lengths_between(short: int, length: int) -> list[int]:
    """`short`, twice as much, and so on, and `length` at the end."""
    found = [min(short, length)]
    while 2 * found[-1] < length:
        found.append(2 * found[-1])
    return sorted({*found, length})


def long_texts(corpus: Path, recipe: Recipe, length: int) -> list[str]:
    """Held-out texts of at least `length` bytes, the first few."""
    from itertools import islice

    from llmctl.stages.heldout import long_documents

    found = long_documents(corpus, recipe.text_sources, length)
    return [document.text for document in islice(found, recipe.eval.long_documents)]


def heldout_sequences(corpus: Path, recipe: Recipe, tokenizer: Any, length: int) -> list[list[int]]:
    """Held-out documents that fill the context, cut to it; said aloud where there is none."""
    from llmctl.evals.positions import long_enough
    from llmctl.stages.heldout import long_documents

    texts = (document.text for document in long_documents(corpus, recipe.text_sources, length))
    found = long_enough(tokenizer, texts, length, recipe.eval.long_documents)
    if not found:
        events.warn(f"no held-out document has {length:,} tokens: the loss by position is not measured")
    return found


def questions_of(table: LongEvalTable, lengths: list[int], seed: int, tokenizer: Any, haystack: Any) -> list[LongQuestion]:
    """The questions of every task at every length that holds them; said aloud where one is too short."""
    from llmctl.suites.long_tasks import long_question

    found: list[LongQuestion] = []
    for length in lengths:
        made = {
            task: [long_question(task, length, number, seed, tokenizer, haystack) for number in range(table.questions)]
            for task in table.tasks
        }
        short = [task for task, questions in made.items() if None in questions]
        if short:
            events.say(f"{length:,} tokens are too few for questions of {', '.join(short)}: they are asked at greater lengths")
        found += [q for task, questions in made.items() if task not in short for q in questions if q is not None]
    return found


def needles_of(table: LongEvalTable, lengths: list[int], seed: int, tokenizer: Any, haystack: Any) -> list[LongQuestion]:
    """The needle at every depth and length of the map."""
    from llmctl.suites.long_tasks import long_question

    depths = [number / max(1, table.depths - 1) for number in range(table.depths)]
    found = [
        long_question("needle", length, table.needles * place + number, seed + 1, tokenizer, haystack, depth)
        for length in lengths
        for place, depth in enumerate(depths)
        for number in range(table.needles)
    ]
    return [question for question in found if question is not None]


def measure(model: Any, tokenizer: Any, found: Materials, curve_alone: bool = False) -> Measured:
    """An opened model's results; with `curve_alone` only its loss by position."""
    from llmctl.evals.bits import document_bits
    from llmctl.evals.fewshot import evaluate
    from llmctl.evals.long_context import answer
    from llmctl.evals.positions import position_losses
    from llmctl.evals.result import Asking

    measured = Measured()
    if found.sequences:
        measured.losses = position_losses(model, found.sequences)
    if curve_alone:
        return measured
    asked = [*found.questions, *found.needles]
    for done, question in enumerate(asked, start=1):
        (measured.answers if done <= len(found.questions) else measured.needles).append(answer(model, question))
        events.progress("long-context questions", done, len(asked), "questions")
    measured.bits, _ = document_bits(model, tokenizer, found.texts, found.short)
    for done, task in enumerate(found.tasks, start=1):
        shots, limit = found.guard.shots, found.short
        measured.tasks[task.name] = evaluate(
            model, tokenizer, task, Asking(found.seed, shots if task.pool else None, limit=limit)
        )
        events.progress("few-shot evaluation", done, len(found.tasks), "tasks")
    return measured
