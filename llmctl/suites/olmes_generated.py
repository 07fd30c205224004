"""OLMES tasks that are answered by writing: how answers are made, and what they are held against."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmctl.suites.task import Measure, Question, Sampling, Task

NUMBER = r"-?\d[\d,]*(?:\.\d+)?"
FIRST_WORD = r"^\s*([\w'-]+)"
PROGRAM_ENDS = ("\ndef", "\nclass", "\nif", "\nprint", "\nassert", "\nfrom", "\nimport", "\n@", "\n#", "\n```")
MBPP_ENDS = ("\n```", "\nassert", "\nclass", '\n"""', "\nprint", "\nif", "\n#")


@dataclass(frozen=True, slots=True)
class Way:
    """How one task is answered."""

    measure: Measure
    sampling: Sampling
    """Where requests carry stop texts and lengths of their own, these are its."""
    fill: Callable[[Question, dict[str, Any]], Question]
    """Puts into a question what its document says of right answers."""
    only_shots: tuple[int, ...] = ()
    """Named numbers of examples of the folders that will do; empty: any."""


def accepting(answers: Callable[[dict[str, Any]], Sequence[str]]) -> Callable[[Question, dict[str, Any]], Question]:
    def fill(question: Question, document: dict[str, Any]) -> Question:
        return replace(question, accepted=tuple(dict.fromkeys(str(answer) for answer in answers(document))))

    return fill


def drop_answers(document: dict[str, Any]) -> list[str]:
    """Each answer is one or more spans."""
    return [", ".join(spans) for spans in document["answers"]]


def with_commas(document: dict[str, Any]) -> list[str]:
    """A number as a source writes it, without commas, and with them."""
    plain = document["short_answer"].replace(",", "")
    return [document["short_answer"], plain] + ([f"{int(plain):,}"] if re.fullmatch(r"-?\d+", plain) else [])


def humaneval(question: Question, document: dict[str, Any]) -> Question:
    """The answer goes on with the prompt's function.

    The package's examples have one space too many before the first line of an answer: a model that copies them writes programs
    that cannot be read, so it is taken out.
    """
    examples = tuple(re.sub(r"(\"{3}|'{3})\n {5}(?=\S)", r"\1\n    ", example) for example in question.examples)
    tests = f"\n{document['test']}\ncheck({document['entry_point']})\n"
    return replace(question, examples=examples, tests=tests, program_prefix=document["prompt"])


def mbpp(question: Question, document: dict[str, Any]) -> Question:
    lines = [document.get("test_setup_code") or "", *document["test_list"]]
    return replace(question, tests="\n" + "\n".join(line for line in lines if line) + "\n")


def short(*stop: str) -> Sampling:
    return Sampling(max_tokens=50, stop=stop)


GENERATED_TASKS: dict[str, Way] = {
    "coqa": Way("f1", short("\n\n"), accepting(lambda document: document["answers"])),
    "drop": Way("f1", short("Passage:", "Question:", "\n\n"), accepting(drop_answers)),
    "squad": Way("f1", short("Title:", "\n\n"), accepting(lambda document: document["answers_text"])),
    "jeopardy": Way("f1", short("\n\n", "Question:", "Category:"), accepting(lambda document: [document["answer"]])),
    "naturalqs_open": Way("f1", short("Question:", "Q:", "\n\n"), accepting(lambda document: document["answers"])),
    "lambada": Way(
        "exact_match", Sampling(max_tokens=10, stop=("\n",), answer_pattern=FIRST_WORD),
        accepting(lambda document: document["answers_text"]),
    ),
    "gsm8k": Way(
        "exact_match", Sampling(max_tokens=512, stop=("Question:", "\n\n"), answer_pattern=NUMBER), accepting(with_commas)
    ),
    "codex_humaneval": Way("pass_at_k", Sampling(max_tokens=512, stop=PROGRAM_ENDS), humaneval),
    # With examples the prompt does not say what the function is called that the tests call.
    "codex_mbpp": Way("pass_at_k", Sampling(max_tokens=512, stop=MBPP_ENDS), mbpp, only_shots=(0,)),
}  # fmt: skip


def generated(task: Task, name: str, rows: Sequence[dict[str, Any]]) -> Task:
    """The task with answers to be generated; `rows` is the first request of each question."""
    way = GENERATED_TASKS[name]
    questions = [way.fill(question, row["doc"]) for question, row in zip(task.questions, rows, strict=True)]
    return replace(task, measure=way.measure, sampling=way.sampling, questions=tuple(questions))
