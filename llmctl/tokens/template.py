"""Conversations as tokens: the chat template, and which tokens are trained on.

<|im_start|>user          0
What is SGD?<|im_end|>    0
<|im_start|>assistant     0
SGD is ...                2  content of an answer: trained, and scored
<|im_end|>                1  its closing token: trained
"""

from typing import Any, Literal

import numpy as np

from llmctl.errors import UserError

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# For vocabularies without ChatML's markers: roles as plain text, and the end-of-text token closes an answer (Tulu's form).
PLAIN = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

MASKED, CLOSING, CONTENT = 0, 1, 2

Messages = list[dict[str, str]]


def ensure_template(tokenizer: Any) -> bool:
    """Give a tokenizer without a chat template one that its vocabulary can close a turn with. False: it has its own."""
    if tokenizer.chat_template:
        return False
    vocabulary = tokenizer.get_vocab()
    tokenizer.chat_template = CHATML if {"<|im_start|>", "<|im_end|>"} <= vocabulary.keys() else PLAIN
    return True


def render(tokenizer: Any, messages: Messages, prompt: bool = False) -> str:
    """The conversation as text; `prompt`: with the beginning of an answer. Templates are programs of whoever made the
    tokenizer; `transformers` runs them in Jinja's `ImmutableSandboxedEnvironment`.

    Raises:
        UserError: the template reaches out of the sandbox, is broken, or refuses the conversation.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import SecurityError

    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except SecurityError as error:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} tries to reach Python itself and was stopped: {error} "
            "Trust nothing of this checkpoint; or give its tokenizer another template (chat_template.jinja)."
        ) from None
    except (TemplateError, ArithmeticError, TypeError, ValueError, MemoryError) as error:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} cannot write this conversation ({type(error).__name__}): {error}"
        ) from None


def answer_spans(tokenizer: Any, messages: Messages) -> list[tuple[int, int, int]]:
    """(start, end of content, end with the closing token), in characters of the rendered conversation, of every
    assistant turn.

    Raises:
        UserError: the template writes an earlier turn differently once a later one follows, so that spans cannot be told.
    """
    text = render(tokenizer, messages)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:index], prompt=True)
        until = render(tokenizer, messages[: index + 1])
        if not (text.startswith(before) and text.startswith(until)):
            raise UserError(
                "this chat template cannot be masked: it renders the beginning of a conversation differently once more "
                "turns follow. Use another one (a plain ChatML template has no such trait)."
            )
        content = message["content"].strip()
        start = until.find(content, len(before)) if content else len(before)
        if start < 0:
            raise UserError(f"the chat template changes an answer's text; it cannot be found again: {content[:60]!r}")
        spans.append((len(before), start + len(content), len(until.rstrip("\n"))))
    return spans


def encode_conversation(
    tokenizer: Any, messages: Messages, loss_on: Literal["assistant", "last_turn"] = "assistant"
) -> tuple[list[int], np.ndarray]:
    """Ids of the whole conversation, and a mask (uint8, as long): 0 masked, 1 closing token, 2 content of an answer.

    The text is tokenised once, and tokens are told apart by the characters they stand for.
    """
    text = render(tokenizer, messages)
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    spans = answer_spans(tokenizer, messages)
    if loss_on == "last_turn":
        spans = spans[-1:]
    starts = np.array([start for start, _ in encoding.offsets], dtype=np.int64)
    mask = np.zeros(len(encoding.ids), dtype=np.uint8)
    for start, content_end, end in spans:
        mask[(starts >= start) & (starts < content_end)] = CONTENT
        mask[(starts >= content_end) & (starts < end)] = CLOSING
    return list(encoding.ids), mask


def end_of_turn_ids(tokenizer: Any) -> list[int]:
    """Tokens that end a generated answer: what the template closes a turn with, and the end of text."""
    text = render(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    closing = tokenizer.backend_tokenizer.encode(text.rstrip("\n"), add_special_tokens=False).ids[-1]
    return sorted({closing, tokenizer.eos_token_id} - {None})
