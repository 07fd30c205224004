"""How well a model answers held-out conversations."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmctl import events
from llmctl.evals.score import token_log_probabilities
from llmctl.model.generate import Generation, generate
from llmctl.tokens.masks import CONTENT, Encoded, encode_talks
from llmctl.tokens.template import Messages, end_of_turn_ids, render

MESSAGES_AT_A_TIME = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversation whose first question is asked."""

    conversation: Any
    expected: str
    """Its first answer as the template writes it, with thinking and tool calls."""


def answer_loss(model: Any, tokenizer: Any, conversations: list[Any]) -> float:
    """Mean loss (nats per token) on the words of the answers: prompts, template and closing tokens are left out, and
    conversations that cannot be masked or are longer than the model's context."""
    limit = model.config.max_position_embeddings
    talks = [talk for talk in encode_talks(tokenizer, conversations) if isinstance(talk, Encoded)]
    encoded = [(talk.ids, talk.mask) for talk in talks if len(talk.ids) <= limit]
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
    """Greedy answers to the first question of each conversation."""
    talks = [one.conversation for one in asked]
    prompts = [render(tokenizer, first_question(talk.messages), prompt=True, tools=talk.tools) for talk in talks]
    return generate(model, tokenizer, prompts, max_new_tokens, end_of_turn_ids(tokenizer))


def first_question(messages: Messages) -> Messages:
    """The turns before the first answer."""
    end = next(index for index, message in enumerate(messages) if message["role"] == "assistant")
    return messages[:end]


def to_ask(tokenizer: Any, conversations: list[Any], longest: int) -> list[Asked]:
    """The conversations whose first question has at most `longest` tokens, and an answer that can be told."""
    found = []
    for conversation, talk in zip(conversations, encode_talks(tokenizer, conversations), strict=True):
        if isinstance(talk, Encoded) and talk.turns and talk.turns[0].start <= longest:
            start, end = talk.turns[0].span
            found.append(Asked(conversation, talk.text[start:end].strip()))
    return found


def exact_matches(generations: list[Generation], asked: list[Asked]) -> float:
    """Share of the generations that are the expected answer to the letter, white space at the ends aside."""
    right = sum(written.text.strip() == one.expected for written, one in zip(generations, asked, strict=True))
    return right / max(1, len(asked))


def share_ended(generations: list[Generation]) -> float:
    """Share of the generations that the model ended itself."""
    return sum(generation.ended for generation in generations) / max(1, len(generations))
