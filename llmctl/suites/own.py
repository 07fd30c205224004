"""A user's own tasks: a file of JSON lines, or a TOML file that says how the rows of one are asked."""

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from llmctl.errors import UserError
from llmctl.recipe.fields import NAME, Place, Table
from llmctl.recipe.load import Source, explain
from llmctl.recipe.positions import lines_of_keys
from llmctl.runs.files import sha256_file
from llmctl.suites.own_rows import Row, Templates, apart, questions_of, read_rows, read_text
from llmctl.suites.task import GENERATED, Normalisation, Sampling, Task


class OwnTask(Table):
    """The keys of an own task's TOML file."""

    name: str = Field(default="", pattern=NAME)
    """What the tables call it; left out: the file's name."""
    description: str = "a task of your own"
    measure: Literal["accuracy", "bits_per_byte", "exact_match", "f1", "pass_at_k"] | None = None
    """Left out: accuracy where the rows have choices, exact_match where they have none."""
    normalisation: Normalisation = "byte"
    prompt: str | None = None
    """A template: `{question}` stands for a row's field, `{choices}` for its choices as lines " A. ..."."""
    choice: str = " {choice}"
    """A template of what a prompt goes on with: `{choice}`, or `{label}`."""
    file: Place | None = None
    """JSON lines, a question each; relative to the TOML file."""
    questions: list[dict[str, Any]] | None = None
    """The rows themselves, in the place of `file`."""
    examples: int | str = 0
    """How many rows, from the first on, are kept apart as examples; or a file that holds them."""
    separator: str = "\n\n"
    """Between an example and what follows it."""
    unconditional: str = ""
    """The context that tells how likely a choice is without the question, for normalisation = "unconditional"."""
    tests: str = "{tests}"
    """A template of the code that fails if a program is wrong."""
    program_prefix: str = ""
    """A template of what stands before a program that an answer goes on with, as the prompt's own code."""
    stop: tuple[str, ...] = ("\n",)
    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    samples: int = Field(default=1, ge=1)
    k: int = Field(default=1, ge=1)
    answer_pattern: str = ""
    """Regular expression whose last match is the answer."""

    @field_validator("examples")
    @classmethod
    def _some(cls, examples: int | str) -> int | str:
        if isinstance(examples, int) and examples < 0:
            raise ValueError("expected a number of rows, or a file")
        return examples

    @field_validator("stop")
    @classmethod
    def _texts(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("an empty text would end every answer at once")
        return stop

    @field_validator("answer_pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _together(self) -> "OwnTask":
        if (self.file is None) == (self.questions is None):
            raise ValueError("expected either file or [[questions]]")
        if self.normalisation == "unconditional" and not self.unconditional:
            raise ValueError('normalisation = "unconditional" needs the key unconditional, as in unconditional = "Answer:"')
        if self.k > self.samples:
            raise ValueError(f"k = {self.k} of samples = {self.samples}: pass@k needs k samples or more")
        if self.samples > 1 and not self.temperature:
            raise ValueError(f"samples = {self.samples} with temperature = 0 are all the same: set temperature")
        return self


def load(file: Path) -> Task:
    """The task of a `.toml` or `.jsonl` file.

    Raises:
        UserError: with place, key, value and what was expected.
    """
    if file.suffix == ".toml":
        table, rows = read_table(file)
        pool = read_rows(file.parent / table.examples) if isinstance(table.examples, str) else []
    else:
        table, rows, pool = OwnTask(file=file.name), read_rows(file), []
    return build(file, table, rows, pool)


def build(file: Path, table: OwnTask, rows: list[Row], pool: list[Row]) -> Task:
    asked = []
    for example, row in apart(rows):
        (pool if example else asked).append(row)
    if isinstance(table.examples, int):
        pool, asked = [*pool, *asked[: table.examples]], asked[table.examples :]
    if not asked:
        raise UserError(f"{file}: no questions are left: all {len(rows)} rows are examples")
    measure = table.measure or ("accuracy" if any("choices" in row.values for row in rows) else "exact_match")
    templates = Templates(table.prompt, table.choice, table.tests, table.program_prefix, table.unconditional)
    sampling = Sampling(
        table.max_tokens, table.stop, table.temperature, table.top_p, table.samples, table.k, table.answer_pattern
    )
    questions = tuple(questions_of(asked, measure, templates))
    if measure in GENERATED and any("answer" not in row.values for row in pool):
        raise UserError(
            f"{next(row.place for row in pool if 'answer' not in row.values)}: answer is missing: an example shows one"
        )
    return Task(
        table.name or file.stem, fingerprint(file)[:8], table.description, questions,
        tuple(questions_of(pool, measure, templates)), measure, table.normalisation,
        form="generated" if measure in GENERATED else "continuation", source=str(file), separator=table.separator,
        sampling=sampling if measure in GENERATED else Sampling(),
    )  # fmt: skip


def read_table(file: Path) -> tuple[OwnTask, list[Row]]:
    """The table of a TOML file, and the rows that it holds or names."""
    text = read_text(file)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file}: not valid TOML: {error}") from None
    places = {key: f"{file}:{line}" for key, line in lines_of_keys(text).items()}
    try:
        table = OwnTask.model_validate(values)
    except ValidationError as error:
        problems = [one.replace(": : ", ": ", 1) for one in explain(error, OwnTask, Source(file, values, places), ())]
        raise UserError("\n  ".join(problems)) from None
    if table.questions is None:
        return table, read_rows(file.parent / str(table.file))
    if not table.questions:
        raise UserError(f"{file}: questions = []: an empty task file")
    return table, [Row(f"{file}: question {number}", number, values) for number, values in enumerate(table.questions, 1)]


def fingerprint(file: Path) -> str:
    """SHA-256 of the task's file and of the files that it names.

    Raises:
        UserError: a file is not there, or the task's file is wrong.
    """
    files = [file]
    if file.suffix == ".toml":
        table, _ = read_table(file)
        files += [file.parent / named for named in (table.file, table.examples) if isinstance(named, str)]
    elif not file.is_file():
        read_text(file)
    return hashlib.sha256("".join(map(sha256_file, files)).encode()).hexdigest()
