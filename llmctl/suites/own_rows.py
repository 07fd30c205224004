"""Rows of a user's own task, and the questions that they make."""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.suites.task import GENERATED, Measure, Question

ROW_KEYS = ("question", "context", "choices", "answer", "id", "group", "tests", "example")
"""What a row may hold where no template names fields of its own."""
PLACE = re.compile(r"\{\{|\}\}|\{(\w+)\}")
LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Row:
    place: str
    """`file:line`, or `file: question 3`."""
    number: int
    """Line or question, from 1: what a row without an id is called."""
    values: dict[str, Any]

    def wrong(self, key: str, expected: str) -> UserError:
        value = f" = {json.dumps(self.values[key], ensure_ascii=False)}" if key in self.values else ""
        return UserError(f"{self.place}: {key}{value if len(value) < 200 else value[:200] + ' ...'}: {expected}")


@dataclass(frozen=True, slots=True)
class Templates:
    """Texts with fields of a row in braces; `{{` stands for a brace."""

    prompt: str | None
    """None: made of the row's `context` and `question`, those of them that are there."""
    choice: str
    tests: str
    program_prefix: str
    unconditional: str


def read_text(file: Path) -> str:
    """
    Raises:
        UserError: the file is not there, empty, or no UTF-8.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{file}:{line}: not UTF-8 (byte {content[error.start]:#04x}): save the file as UTF-8") from None
    if not text.strip():
        raise UserError(f"{file}: an empty task file")
    return text


def read_rows(file: Path) -> list[Row]:
    """The objects of a file of JSON lines.

    Raises:
        UserError: a line is no JSON object.
    """
    rows = []
    # Not splitlines: JSON may hold other line ends (U+2028) in its strings.
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{file}:{number}: not JSON: {error.msg} at column {error.colno}") from None
        if not isinstance(values, dict):
            raise UserError(f'{file}:{number}: expected an object, as {{"question": ..., "choices": [...], "answer": ...}}')
        rows.append(Row(f"{file}:{number}", number, values))
    return rows


def questions_of(rows: Sequence[Row], measure: Measure, templates: Templates) -> list[Question]:
    """
    Raises:
        UserError: with the first five mistakes of the rows.
    """
    found: list[Question] = []
    problems: list[str] = []
    for row in rows:
        try:
            found.append(question_of(row, measure, templates))
        except UserError as error:
            problems.append(str(error))
    if problems:
        more = [f"and {len(problems) - 5} more"] if len(problems) > 5 else []
        raise UserError("\n  ".join(problems[:5] + more))
    return found


def question_of(row: Row, measure: Measure, templates: Templates) -> Question:
    if templates.prompt is None:
        check_keys(row)
    choices = choices_of(row, measure)
    listed = "".join(f" {label}. {text}\n" for label, text in zip(labels(choices), choices, strict=True))
    context = fill(templates.prompt or default_prompt(row), row, choices=listed)
    if not context:
        raise UserError(f"{row.place}: an empty prompt")
    question = Question(
        context, ("",), 0, str(row.values.get("id", row.number)), unconditional=fill(templates.unconditional, row),
        group=str(row.values.get("group", "")),
    )  # fmt: skip
    if measure in GENERATED:
        return answered(question, row, measure, templates)
    answer = index_of(row, choices) if choices else 0
    texts = written(choices or answers_of(row)[:1], row, templates)
    if measure == "bits_per_byte":
        texts, answer = (texts[answer],), 0
    if not all(texts):
        raise UserError(f"{row.place}: choice = {templates.choice!r}: leaves an empty choice")
    return replace(question, choices=texts, answer=answer)


def answered(question: Question, row: Row, measure: Measure, templates: Templates) -> Question:
    """The question with what a generated answer is held against."""
    program = measure == "pass_at_k"
    accepted = answers_of(row, needed=not program)
    return replace(
        question, choices=written(accepted[:1], row, templates) or ("",), accepted=accepted,
        tests=fill(templates.tests, row) if program else "",
        program_prefix=fill(templates.program_prefix, row) if program else "",
    )  # fmt: skip


def written(choices: Sequence[str], row: Row, templates: Templates) -> tuple[str, ...]:
    """Choices as they go on with a prompt."""
    pairs = zip(choices, labels(choices), strict=True)
    return tuple(fill(templates.choice, row, choice=text, label=label) for text, label in pairs)


def labels(choices: Sequence[str]) -> list[str]:
    """A, B, ...; numbers from 1 where there are more than letters."""
    return [LABELS[n] if len(choices) <= len(LABELS) else str(n + 1) for n in range(len(choices))]


def check_keys(row: Row) -> None:
    for key in row.values:
        if key not in ROW_KEYS:
            near = difflib.get_close_matches(key, ROW_KEYS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(ROW_KEYS)}"
            raise UserError(f"{row.place}: {key}: unknown key; {hint}")


def default_prompt(row: Row) -> str:
    parts = [text for key, text in (("context", "{context}"), ("question", "Question: {question}\nAnswer:")) if key in row.values]
    if not parts:
        raise UserError(f"{row.place}: neither question nor context; there are {', '.join(row.values) or 'no keys at all'}")
    return "\n".join(parts)


def fill(template: str, row: Row, **made: str) -> str:
    """
    Raises:
        UserError: the template names a field that is neither the row's nor `made` of it.
    """
    values = row.values | made

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return match[0][0]
        if name not in values:
            raise UserError(f"{row.place}: the template {template!r} names {{{name}}}, and there are {', '.join(row.values)}")
        return str(values[name])

    return PLACE.sub(value, template)


def choices_of(row: Row, measure: Measure) -> list[str]:
    """The texts to choose from; none for a measure that needs none."""
    values = row.values
    if "choices" not in values:
        if measure == "accuracy":
            raise UserError(f"{row.place}: choices is missing: accuracy is of the likeliest among two or more")
        return []
    choices = values["choices"]
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise row.wrong("choices", "expected a list of texts")
    if any(not choice for choice in choices):
        raise row.wrong("choices", f"choice {choices.index('') + 1} has no text")
    if len(choices) < 2:
        raise row.wrong("choices", "expected two or more")
    double = next((choice for choice in choices if choices.count(choice) > 1), None)
    if double is not None:
        raise row.wrong("choices", f"{double!r} is there twice")
    return choices


def index_of(row: Row, choices: Sequence[str]) -> int:
    answer = row.values.get("answer")
    if "answer" not in row.values:
        raise UserError(f"{row.place}: answer is missing: the number of the right choice, from 0, or its text")
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(choices):
            raise row.wrong("answer", f"expected a choice's number, 0 to {len(choices) - 1}")
        return answer
    if answer not in choices:
        raise row.wrong("answer", f"is none of the choices {', '.join(map(repr, choices))}")
    return choices.index(answer)


def answers_of(row: Row, needed: bool = True) -> tuple[str, ...]:
    """The texts that are right."""
    if "answer" not in row.values:
        if needed:
            raise UserError(f"{row.place}: answer is missing: a text, or a list of texts that are right")
        return ()
    answer = row.values["answer"]
    answers = answer if isinstance(answer, list) else [answer]
    if not answers or not all(isinstance(text, str) and text for text in answers):
        raise row.wrong("answer", "expected a text, or a list of texts that are right")
    return tuple(answers)


def apart(rows: Sequence[Row]) -> Iterator[tuple[bool, Row]]:
    """Whether each row is an example."""
    for row in rows:
        example = row.values.get("example", False)
        if not isinstance(example, bool):
            raise row.wrong("example", "expected true or false")
        yield example, row
