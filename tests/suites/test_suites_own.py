"""A task of one's own: what its file says, and what a wrong file is told."""

import json
import re
from pathlib import Path

import pytest

from llmctl.errors import UserError
from llmctl.suites import own

ROWS = [
    {"question": "What is two and two?", "choices": ["three", "four"], "answer": 1},
    {"question": "What is two and three?", "choices": ["five", "four"], "answer": "five"},
    {"question": "What is one and one?", "choices": ["two", "one"], "answer": 0, "example": True},
]


def write(folder: Path, rows, name="sums.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def toml(folder: Path, text: str, rows=ROWS) -> Path:
    write(folder, rows)
    file = folder / "sums.toml"
    file.write_text(text)
    return file


def test_json_lines_alone_are_a_task(tmp_path):
    task = own.load(write(tmp_path, ROWS))
    assert (task.name, task.measure, len(task.questions)) == ("sums", "accuracy", 2)
    first, second = task.questions
    assert (first.id, second.id) == ("1", "2")
    assert (first.context, first.choices, first.answer) == ("Question: What is two and two?\nAnswer:", (" three", " four"), 1)
    assert second.answer == 0
    (example,) = task.pool
    assert example.solved + task.separator == "Question: What is one and one?\nAnswer: two\n\n"
    assert task.own_shots is None, "examples are drawn from the pool"


def test_rows_without_choices_are_answered_in_words(tmp_path):
    task = own.load(write(tmp_path, [{"context": "Two and two is", "answer": ["four", "4"]}, {"context": "One", "answer": "1"}]))
    assert task.measure == "exact_match"
    assert task.questions[0].context == "Two and two is"
    assert [question.accepted for question in task.questions] == [("four", "4"), ("1",)]
    assert "\n" in task.sampling.stop


def test_templates_put_rows(tmp_path):
    text = 'prompt = "Q: {question} {{sum}}\\n{choices}A:"\nchoice = " {label}"\nfile = "sums.jsonl"\nexamples = 1\n'
    task = own.load(toml(tmp_path, text + 'name = "letters"\nnormalisation = "none"'))
    (question,) = task.questions
    assert question.context == "Q: What is two and three? {sum}\n A. five\n B. four\nA:"
    assert (question.choices, question.answer, task.name) == ((" A", " B"), 0, "letters")
    assert len(task.pool) == 2, "the row that says so, and the first one"


def test_what_a_field_holds_is_no_template(tmp_path):
    rows = [{"question": "What is {answer}?", "choices": ["{question}", "{{}}"], "answer": 0}]
    (question,) = own.load(toml(tmp_path, 'file = "sums.jsonl"\nprompt = "{question}"', rows)).questions
    assert (question.context, question.choices) == ("What is {answer}?", (" {question}", " {{}}"))


def test_bits_per_byte_and_programs(tmp_path):
    (first, _) = own.load(toml(tmp_path, 'file = "sums.jsonl"\nmeasure = "bits_per_byte"\nchoice = " {label}"')).questions
    assert (first.choices, first.answer) == ((" B",), 0)
    rows = [{"question": "def two():\n", "tests": "assert two() == 2"}]
    text = 'file = "sums.jsonl"\nmeasure = "pass_at_k"\nprompt = "{question}"\nprogram_prefix = "{question}"\n'
    text += 'tests = "\\n{tests}\\n"'
    task = own.load(toml(tmp_path, text + "\nsamples = 4\nk = 2\ntemperature = 0.8", rows))
    (question,) = task.questions
    assert (question.program_prefix, question.tests) == ("def two():\n", "\nassert two() == 2\n")
    assert (task.sampling.samples, task.sampling.k) == (4, 2)


def test_questions_stand_in_the_file_itself_and_examples_in_another(tmp_path):
    write(tmp_path, ROWS[:1], "shown.jsonl")
    file = toml(tmp_path, 'examples = "shown.jsonl"\n[[questions]]\nquestion = "One?"\nchoices = ["yes", "no"]\nanswer = "no"')
    task = own.load(file)
    assert (task.questions[0].answer, len(task.pool)) == (1, 1)


def test_the_fingerprint_tells_when_a_named_file_has_changed(tmp_path):
    file = toml(tmp_path, 'file = "sums.jsonl"')
    before = own.fingerprint(file)
    assert own.fingerprint(file) == before
    assert own.load(file).version == before[:8]
    write(tmp_path, ROWS[:1])
    assert own.fingerprint(file) != before


OF_TWO = {"question": "One?", "choices": ["yes", "no"]}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (OF_TWO | {"choices": ["yes", ""], "answer": 0}, 'choices = ["yes", ""]: choice 2 has no text'),
        (OF_TWO | {"answer": "maybe"}, "answer = \"maybe\": is none of the choices 'yes', 'no'"),
        (OF_TWO | {"answer": 2}, "answer = 2: expected a choice's number, 0 to 1"),
        (OF_TWO | {"answer": True}, "answer = true: is none of the choices"),
        (OF_TWO, "answer is missing"),
        (OF_TWO | {"choices": ["yes"], "answer": 0}, "expected two or more"),
        (OF_TWO | {"choices": ["yes", "yes"], "answer": 0}, "'yes' is there twice"),
        (OF_TWO | {"choices": "yes", "answer": 0}, "expected a list of texts"),
        (OF_TWO | {"answer": 0, "choises": []}, "choises: unknown key; did you mean 'choices'?"),
        ({"choices": ["yes", "no"], "answer": 0}, "neither question nor context"),
        (OF_TWO | {"answer": 0, "example": "yes"}, "expected true or false"),
        (["yes"], "expected an object"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, said):
    file = write(tmp_path, [ROWS[0], row])
    with pytest.raises(UserError, match=re.escape(f"{file}:2: ")) as error:
        own.load(file)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('file = "sums.jsonl"\nprompts = "x"', "sums.toml:2: prompts = 'x': unknown key; did you mean 'prompt'?"),
        ('file = "sums.jsonl"\nmeasure = "acc"', "sums.toml:2: measure = 'acc': expected 'accuracy', 'bits_per_byte'"),
        ('file = "sums.jsonl"\nanswer_pattern = "("', "sums.toml:2: answer_pattern = '(': not a regular expression"),
        ('file = "sums.jsonl"\nprompt = "{query}"', "names {query}, and there are question, choices, answer"),
        ('file = "sums.jsonl"\nchoice = ""', "leaves an empty choice"),
        ('file = "sums.jsonl"\nk = 2', "pass@k needs k samples"),
        ('file = "sums.jsonl"\nsamples = 2', "are all the same"),
        ('file = "sums.jsonl"\nnormalisation = "unconditional"', 'as in unconditional = "Answer:"'),
        ('file = "sums.jsonl"\nexamples = 9', "all 3 rows are examples"),
        ('file = "other.jsonl"', "other.jsonl: cannot be read"),
        ('name = "sums"', "sums.toml: expected either file or [[questions]]"),
        ("questions = []", "an empty task file"),
        ("file = ", "not valid TOML"),
        ('[[questions]]\nquestion = "One?"\nchoices = ["a", "b"]', "sums.toml: question 1: answer is missing"),
        ("", "an empty task file"),
    ],
)
def test_a_wrong_table_is_told(tmp_path, text, said):
    with pytest.raises(UserError) as error:
        own.load(toml(tmp_path, text))
    assert said in str(error.value)


def test_a_file_that_is_no_text(tmp_path):
    file = tmp_path / "sums.jsonl"
    file.write_bytes(b'{"question": "One?"}\n{"question": "Caf\xe9?"}\n')
    with pytest.raises(UserError, match=re.escape(f"{file}:2: not UTF-8 (byte 0xe9)")):
        own.load(file)
    file.write_text("\n\n")
    with pytest.raises(UserError, match="an empty task file"):
        own.load(file)
    file.write_text('{"question": "One?"}\n{"question": \n')
    with pytest.raises(UserError, match=re.escape(f"{file}:2: not JSON")):
        own.load(file)


def test_many_wrong_rows_are_told_at_once(tmp_path):
    file = write(tmp_path, [OF_TWO] * 9)
    with pytest.raises(UserError, match="and 4 more"):
        own.load(file)


def test_the_manual_shows_tasks_that_work(tmp_path):
    """Every file that the page shows with its name."""
    page = (Path(__file__).parents[2] / "docs" / "evaluation-tasks.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    for name, body in files.items():
        (tmp_path / name).write_text(body, encoding="utf-8")
    alone = own.load(tmp_path / "capitals.jsonl")
    labelled = own.load(tmp_path / "capitals.toml")
    programs = own.load(tmp_path / "functions.toml")
    assert (alone.measure, labelled.measure, programs.measure) == ("accuracy", "accuracy", "pass_at_k")
    assert labelled.questions[0].choices == (" A", " B", " C")
    assert labelled.pool
    names: dict[str, object] = {}
    (question,) = programs.questions
    exec(question.program_prefix + question.choices[0] + question.tests, names)
    assert sum(len(body.splitlines()) for name, body in files.items() if name.startswith("capitals")) <= 10
