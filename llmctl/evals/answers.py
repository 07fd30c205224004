"""How well a model answers held-out conversations."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmctl import events
from llmctl.evals.score import token_log_probabilities
from llmctl.model.generate import Generation, generate
from llmctl.tokens.masks import CONTENT, Encoded, encode_talks
from llmctl.tokens.template import Messages, Refused, end_of_turn_ids, render

MESSAGES_AT_A_TIME = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversation whose first question with an answer is asked."""

    conversation: Any
    question: Messages
    """The turns before that answer."""
    prompt: str
    """They as the template writes them, with the beginning of an answer."""
    expected: str
    """The answer as the template writes it, with thinking and tool calls."""


def answer_loss(model: Any, tokenizer: Any, conversations: list[Any], longest: int) -> float:
    """Mean loss (nats per token) on the words of the answers: prompts, template and closing tokens are left out, and what
    comes after the first `longest` tokens of a conversation, and conversations that cannot be masked."""
    talks = [talk for talk in encode_talks(tokenizer, conversations) if isinstance(talk, Encoded)]
    encoded = [(talk.ids[:longest], talk.mask[:longest]) for talk in talks]
    nats, count = 0.0, 0
    for start in range(0, len(encoded), MESSAGES_AT_A_TIME):
        part = encoded[start : start + MESSAGES_AT_A_TIME]
        scores = token_log_probabilities(model, [ids for ids, _ in part])
        for (_, mask), score in zip(part, scores, strict=True):
            wanted = np.asarray(mask[1:]) == CONTENT
            nats -= float(score[wanted].sum())
            count += int(wanted.sum())
        events.progress("loss on answers", start + len(part), len(encoded), "conversations")
    return nats / max(1, count)


def answers(model: Any, tokenizer: Any, asked: list[Asked], max_new_tokens: int) -> list[Generation]:
    """Greedy answers to the question of each conversation."""
    return generate(model, tokenizer, [one.prompt for one in asked], max_new_tokens, end_of_turn_ids(tokenizer))


def to_ask(tokenizer: Any, conversations: list[Any], longest: int) -> list[Asked]:
    """The conversations with a user's question of at most `longest` tokens, that the template writes without its answer, and an
    answer that can be told: the first one with words."""
    found = []
    for conversation, talk in zip(conversations, encode_talks(tokenizer, conversations), strict=True):
        if not isinstance(talk, Encoded) or not talk.turns:
            continue
        question = conversation.messages[: talk.turns[0].message]
        if not any(message["role"] == "user" for message in question):
            continue
        try:
            prompt = render(tokenizer, question, prompt=True, tools=conversation.tools)
        except Refused:
            continue
        if len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) <= longest:
            found.append(Asked(conversation, question, prompt, talk.text[slice(*talk.turns[0].span)].strip()))
    return found


def exact_matches(generations: list[Generation], asked: list[Asked]) -> float:
    """Share of the generations that are the expected answer to the letter, white space at the ends aside."""
    right = sum(written.text.strip() == one.expected for written, one in zip(generations, asked, strict=True))
    return right / max(1, len(asked))


def share_ended(generations: list[Generation]) -> float:
    """Share of the generations that the model ended itself."""
    return sum(generation.ended for generation in generations) / max(1, len(generations))
