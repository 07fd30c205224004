"""How well a model answers held-out conversations."""

from typing import Any

import numpy as np

from llmctl import events
from llmctl.evals.score import token_log_probabilities
from llmctl.model.generate import Generation, generate
from llmctl.tokens.masks import CONTENT, Encoded, encode_talks
from llmctl.tokens.template import Messages, end_of_turn_ids, render

MESSAGES_AT_A_TIME = 50


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


def answers(model: Any, tokenizer: Any, conversations: list[Any], max_new_tokens: int) -> list[Generation]:
    """Greedy answers to the first question of each conversation."""
    prompts = [render(tokenizer, first_question(c.messages), prompt=True, tools=c.tools) for c in conversations]
    return generate(model, tokenizer, prompts, max_new_tokens, end_of_turn_ids(tokenizer))


def first_question(messages: Messages) -> Messages:
    """The turns before the first answer."""
    end = next(index for index, message in enumerate(messages) if message["role"] == "assistant")
    return messages[:end]


def expected_answer(messages: Messages) -> str:
    return next(message["content"] for message in messages if message["role"] == "assistant").strip()


def exact_matches(generations: list[Generation], conversations: list[Any]) -> float:
    """Share of the generations that are the expected answer to the letter, white space at the ends aside."""
    right = sum(g.text.strip() == expected_answer(c.messages) for g, c in zip(generations, conversations, strict=True))
    return right / max(1, len(conversations))


def share_ended(generations: list[Generation]) -> float:
    """Share of the generations that the model ended itself."""
    return sum(generation.ended for generation in generations) / max(1, len(generations))
