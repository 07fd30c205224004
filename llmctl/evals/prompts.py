"""What a model reads of a question: examples, the question, a choice; as text and as tokens.

Text becomes tokens as in lm-evaluation-harness, so that likelihoods are the same: a prompt is encoded together with the choice
behind it and parted where the prompt alone ends, white space at the prompt's end goes to the choice, and the tokenizer's own
beginning-of-text token stands before it where it has one.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.errors import UserError
from llmctl.evals.result import Asking
from llmctl.suites.task import Question, Task
from llmctl.tokens.template import render

Pair = tuple[list[int], list[int]]
"""Token ids of a prompt and of what is scored after it, neither empty."""


@dataclass(frozen=True, slots=True)
class PromptText:
    text: str
    left_out: int
    """Examples that there was no room for, the first ones."""
    cut: bool
    """Whether the question's own beginning did not fit, either."""


def shots_of(task: Task, asking: Asking) -> int:
    """How many examples stand before each question.

    Raises:
        UserError: the task has not so many.
    """
    if task.pool:
        return min(asking.shots or 0, len(task.pool))
    own = task.own_shots or 0
    if asking.shots is None:
        return own
    if asking.shots > own:
        raise UserError(f"{task.name}: {asking.shots} examples were asked for, and it comes with {own or 'none'}")
    return asking.shots


def examples_of(task: Task, asking: Asking) -> list[tuple[str, ...]]:
    """The examples before each question, with what parts them: its own, or some of the pool, the same for every question and
    every model."""
    shots = shots_of(task, asking)
    if not task.pool:
        return [question.examples[:shots] for question in task.questions]
    drawn = random.Random(f"{asking.seed}/{task.name}/{shots}").sample(task.pool, shots)
    return [tuple(example.solved + task.separator for example in drawn)] * len(task.questions)


def put(tokenizer: Any, examples: Sequence[str], context: str, chat: bool) -> str:
    """A prompt; with `chat` it is one message of a user, and the beginning of an answer follows.

    Raises:
        UserError: the tokenizer has no chat template.
    """
    text = "".join(examples) + context
    if not chat:
        return text
    require_template(tokenizer)
    return render(tokenizer, [{"role": "user", "content": text.strip()}], prompt=True)


def require_template(tokenizer: Any, whose: str = "the checkpoint") -> None:
    """Raises:
    UserError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise UserError(f"{whose}: its tokenizer has no chat template: leave --chat out, and plain prompts are asked")


def texts(task: Task, tokenizer: Any, asking: Asking, room: int) -> list[PromptText]:
    """The prompts of a task whose answers are generated, of at most `room` tokens."""
    found = []
    for question, examples in zip(task.questions, examples_of(task, asking), strict=True):
        for left_out in range(len(examples) + 1):
            text = put(tokenizer, examples[left_out:], question.context, asking.chat)
            if len(encode(tokenizer, text, asking.chat)) <= room:
                found.append(PromptText(text, left_out, cut=False))
                break
        else:
            ids = encode(tokenizer, put(tokenizer, (), question.context, asking.chat), asking.chat)
            found.append(PromptText(tokenizer.decode(ids[-room:]), len(examples), cut=True))
    return found


def encode(tokenizer: Any, text: str, chat: bool = False) -> list[int]:
    """Token ids, after the tokenizer's own beginning-of-text token; the chat template has written its own."""
    return encode_all(tokenizer, [text], chat)[0]


def encode_all(tokenizer: Any, found: list[str], chat: bool = False) -> list[list[int]]:
    begin = tokenizer.decode([begin_token(tokenizer)])
    if chat or any(text.startswith(begin) for text in found):
        return [tokenizer(t, add_special_tokens=not (chat or t.startswith(begin)))["input_ids"] for t in found]
    return tokenizer(found)["input_ids"] if found else []


def begin_token(tokenizer: Any) -> int:
    """What stands before a text that has nothing before it: the beginning-of-text token, or that of its end."""
    return tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id


def encode_pairs(tokenizer: Any, pairs: Sequence[tuple[str, str]], chat: bool = False) -> list[Pair]:
    """Tokens of prompts and of what is scored after each. The second of a pair is empty where the text gives no token of its
    own; the caller knows whose it is."""
    moved = [(first.rstrip(), first[len(first.rstrip()) :] + second) for first, second in pairs]
    contexts = dict.fromkeys(first for first, _ in moved if first)
    heads = dict(zip(contexts, encode_all(tokenizer, list(contexts), chat), strict=True))
    wholes = iter(encode_all(tokenizer, [first + second for first, second in moved if first], chat))
    found: list[Pair] = []
    for first, second in moved:
        if first:
            found.append((heads[first], next(wholes)[len(heads[first]) :]))
        else:
            found.append(([begin_token(tokenizer)], tokenizer(second, add_special_tokens=False)["input_ids"]))
    return found


def pairs_of(tokenizer: Any, question: Question, examples: Sequence[str], chat: bool) -> list[Pair]:
    """The prompt and each choice of a question."""
    prompts = [put(tokenizer, examples, question.context_of(n), chat) for n in range(len(question.choices))]
    choices = [choice.lstrip() for choice in question.choices] if chat else list(question.choices)
    return encode_pairs(tokenizer, list(zip(prompts, choices, strict=True)), chat)
