"""Tasks whose answers a model writes: words, numbers, programs."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmctl.errors import UserError
from llmctl.evals.answer_scores import exact_match, pass_at_k, token_f1
from llmctl.evals.code_runner import Outcome, run_programs
from llmctl.evals.prompts import encode, shots_of, texts
from llmctl.evals.result import Asking, TaskResult, not_finite
from llmctl.model.generate import Generation, generate_samples
from llmctl.suites.task import Question, Sampling, Task
from llmctl.tokens.template import end_of_turn_ids

FENCED = re.compile(r"```\w*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
"""Code as chat models write it among words; the last line of a fence may be missing."""


def score_generated(model: Any, tokenizer: Any, task: Task, asking: Asking) -> TaskResult:
    """A question's value is the mean of its answers' (exact match, F1), or its estimate of pass@k.

    Raises:
        StageFailed: the model's logits are no numbers at a question.
        UserError: programs are not to be run, or cannot be here; the context leaves no room for an answer; the task has not so
            many examples, or fewer samples than its k.
    """
    room = check_generated(model, task, asking)
    ids = tuple(question.id or str(number) for number, question in enumerate(task.questions))
    prompts = texts(task, tokenizer, asking, room)
    written = generate_samples(
        model, tokenizer, [encode(tokenizer, prompt.text, asking.chat)[-room:] for prompt in prompts], sampling_of(task, asking),
        end_of_turn_ids(tokenizer) if tokenizer.chat_template else [tokenizer.eos_token_id],
        seed=asking.seed, keys=[f"{task.name}/{name}" for name in ids], task=task.name,
    )  # fmt: skip
    for name, answers in zip(ids, written, strict=True):
        if not all(answer.finite for answer in answers):
            raise not_finite(f"{task.name}, question {name}")
    also = {"ended": [_mean([answer.ended for answer in answers]) for answers in written]}
    if task.measure == "pass_at_k":
        outcomes = run_answers(task.questions, written, asking.chat)
        values, more = program_values(outcomes, task.sampling.k)
        fates = [f"{of_question[0].status}: {of_question[0].error}".removesuffix(": ") for of_question in outcomes]
    else:
        values, more = text_values(task, written)
        fates = [""] * len(written)
    return TaskResult(
        task.name,
        task.measure,
        task.normalisation,
        shots_of(task, asking),
        tuple(values),
        tuple(task.weights),
        tuple(question.group for question in task.questions),
        ids,
        {name: tuple(found) for name, found in (also | more).items()},
        tuple(name for name, prompt in zip(ids, prompts, strict=True) if prompt.left_out),
        tuple(name for name, prompt in zip(ids, prompts, strict=True) if prompt.cut),
        tuple(
            f"{prompt.text}⟦{answers[0].text}⟧{fate}"
            for prompt, answers, fate in list(zip(prompts, written, fates, strict=True))[: asking.show]
        ),
        answers=tuple(tuple(answer.text for answer in answers) for answers in written),
    )


def check_generated(model: Any, task: Task, asking: Asking) -> int:
    """Tokens that a prompt may have.

    Raises:
        UserError: answers leave no room for one, or programs are not to be run, or cannot be here.
    """
    if task.measure == "pass_at_k":
        _check_programs(task, asking)
    limit, longest = int(asking.limit or model.config.get_text_config().max_position_embeddings), task.sampling.max_tokens
    if limit <= longest:
        raise UserError(
            f"{task.name}: answers of up to {longest:,} tokens leave no room for a question in a context of {limit:,}: leave "
            "this task out, or evaluate a model with a longer context"
        )
    return limit - longest


def _check_programs(task: Task, asking: Asking) -> None:
    """Before anything is generated: whether its programs may be run, and can be."""
    if not asking.allow_code:
        raise UserError(f"{task.name}: programs that the model writes are run only with --allow-code")
    if not 1 <= task.sampling.k <= task.sampling.samples:
        raise UserError(f"{task.name}: pass@{task.sampling.k} takes as many samples, and there are {task.sampling.samples}")
    run_programs(["pass"])


def sampling_of(task: Task, asking: Asking) -> Sampling:
    """The task's own, but for programs in a conversation: they come among words, and what stands behind a program that goes on
    with a prompt (`def`, `import`) begins them. Such an answer ends with its turn."""
    return replace(task.sampling, stop=()) if asking.chat and task.measure == "pass_at_k" else task.sampling


def text_values(task: Task, written: Sequence[Sequence[Generation]]) -> tuple[list[float], dict[str, list[float]]]:
    """Values of each question in the task's measure, and in others."""
    matches, overlaps = [], []
    for question, answers in zip(task.questions, written, strict=True):
        pattern = task.sampling.answer_pattern
        matches.append(_mean([exact_match(answer.text, question.accepted, pattern) for answer in answers]))
        overlaps.append(_mean([token_f1(answer.text, question.accepted) for answer in answers]))
    return (overlaps, {"exact_match": matches}) if task.measure == "f1" else (matches, {})


def run_answers(questions: Sequence[Question], written: Sequence[Sequence[Generation]], chat: bool) -> list[list[Outcome]]:
    """What becomes of each answer as a program with its question's tests; the same program is run once."""
    sources = [[program(q, a.text, chat) for a in answers] for q, answers in zip(questions, written, strict=True)]
    different = list(dict.fromkeys(source for of_question in sources for source in of_question))
    found = dict(zip(different, run_programs(different), strict=True))
    return [[found[source] for source in of_question] for of_question in sources]


def program(question: Question, answer: str, chat: bool) -> str:
    """The answer between what the prompt began and the tests; in a conversation the first code in it, if any is fenced. Where the
    prompt began nothing, spaces before the answer are those of its first token (" def")."""
    fenced = FENCED.search(answer) if chat else None
    if not question.program_prefix:
        answer = answer.lstrip()
    begun = f"{question.program_prefix}{answer}" if fenced is None else f"{question.program_prefix.rstrip()}\n{fenced[1]}"
    return f"{begun}\n{question.tests}"


def program_values(outcomes: Sequence[Sequence[Outcome]], k: int) -> tuple[list[float], dict[str, list[float]]]:
    """pass@k of each question, and other values."""
    passes = [sum(outcome.passed for outcome in of_question) for of_question in outcomes]
    values = [pass_at_k(len(of_question), count, k) for of_question, count in zip(outcomes, passes, strict=True)]
    more = {"timed_out": [_mean([one.status == "timed out" for one in of_question]) for of_question in outcomes]}
    if k > 1:
        more["pass@1"] = [_mean([outcome.passed for outcome in of_question]) for of_question in outcomes]
    return values, more


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
