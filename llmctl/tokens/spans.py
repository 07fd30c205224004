"""Where a rendered conversation holds what the assistant wrote.

A span begins where generation would: after the text of the turns before it with the beginning of an answer, where that is how
the whole text begins. Templates that write earlier turns differently once later ones follow (tools before the last question,
thinking of the last answer alone) are asked again with every answer replaced by a marker: what stands around the markers
must stand around the answers. A span ends before the special token that closes the turn.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmctl.errors import UserError
from llmctl.tokens.template import Messages, Refused, render, special_pattern

MARKER = "answer{:06d}of009421marked"
"""Stands for an answer: a word that no template takes apart."""


@dataclass(frozen=True, slots=True)
class Span:
    """Of one assistant turn, in characters of the rendered conversation."""

    message: int
    """Number of the turn among the messages."""
    start: int
    end: int
    """Of what the model writes: thinking, content, tool calls."""
    closing: tuple[int, int] | None
    """The special token that closes the turn; None: the template writes none."""


class Unmaskable(UserError):
    """A conversation of which cannot be told what is to be trained on; `reason` names why, alike for all that share it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this conversation cannot be masked: {reason}. Mend or leave out the row, or use another template.")
        self.reason = reason


def check_content(tokenizer: Any, messages: Messages, tools: list[dict[str, Any]]) -> None:
    """Raises:
    Unmaskable: a text would become a special token, such as one that ends a turn, or cannot be written in UTF-8.
    """
    special = special_pattern(tokenizer)
    for text in _texts([messages, tools]):
        if found := special.search(text):
            raise Unmaskable(f"holds a special token of the tokenizer as text, {found.group()}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unmaskable("holds half a surrogate pair, which is no text") from None


def find_spans(tokenizer: Any, messages: Messages, tools: list[dict[str, Any]], text: str) -> list[Span]:
    """Spans of every assistant turn of `text`, which is `messages` rendered.

    Raises:
        Unmaskable: a span cannot be told.
    """
    closing_token = re.compile(rf"\s*({special_pattern(tokenizer).pattern})")
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    around = _around_markers(tokenizer, messages, tools, text)
    spans: list[Span] = []
    for number, index in enumerate(answers):
        start = _after_prompt(tokenizer, messages[:index], tools, text)
        if start is None and around is None:
            raise Unmaskable("the template renders the beginning of a conversation differently once more turns follow")
        if start is None:
            assert around is not None
            start = around[number][0]
        end = around[number][1] if around else _end_of_content(messages[index], text, start)
        if start > end or (spans and start < spans[-1].end):
            raise Unmaskable("the template writes its turns in another order than they are given")
        _check_written(messages[index], text[start:end])
        closed = closing_token.match(text, end)
        spans.append(Span(index, start, end, closed.span(1) if closed else None))
    return spans


def _texts(value: Any) -> Iterator[str]:
    """Every string of messages or tools; of objects the names, too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _after_prompt(tokenizer: Any, before: Messages, tools: list[dict[str, Any]], text: str) -> int | None:
    """The length of the prompt that the turns `before` make, if `text` begins with it."""
    try:
        prompt = render(tokenizer, before, prompt=True, tools=tools)
    except Refused:  # no turn, or an end that the template does not know
        return None
    return len(prompt) if text.startswith(prompt) else None


def _around_markers(tokenizer: Any, messages: Messages, tools: list[dict[str, Any]], text: str) -> list[tuple[int, int]] | None:
    """(start, end) of every answer in `text`: what stands between the pieces that stand around the markers. None: the template
    does not write the conversation so, or writes something else around them.

    A piece begins with the token that closes a turn, which no content holds: the first place it is found at is the right one.
    """
    marked, count = [], 0
    for message in messages:
        if message["role"] == "assistant":
            message = {"role": "assistant", "content": MARKER.format(count)}
            count += 1
        marked.append(message)
    try:
        rest = render(tokenizer, marked, tools=tools)
    except Refused:
        return None
    starts, ends, end = list[int](), list[int](), 0
    for number in range(count + 1):
        piece, marker, after = rest.partition(MARKER.format(number))
        if (number < count) != bool(marker) or MARKER.format(number) in after:
            return None
        core, rest = piece.strip(), after
        place = text.find(core, end) if number < count else len(text.rstrip()) - len(core)
        if place < end or not text.startswith(core, place) or (number == 0 and text[:place].strip()):
            return None
        ends.append(place)
        end = place + len(core)
        header_space = piece[len(piece.rstrip()) :]
        starts.append(end + len(header_space) if text.startswith(header_space, end) else end)
    return list(zip(starts, ends[1:], strict=False))


def _end_of_content(message: dict[str, Any], text: str, start: int) -> int:
    """Where the content of a turn ends that begins at `start`."""
    content = message["content"].strip()
    if message.get("tool_calls"):
        raise Unmaskable("the template writes a turn with tool calls differently, and its end cannot be told")
    place = text.find(content, start) if content else -1
    if place < 0:
        raise Unmaskable("the template changes an answer's text, which cannot be found again")
    return place + len(content)


def _check_written(message: dict[str, Any], written: str) -> None:
    """Raises:
    Unmaskable: a span that does not hold the turn's content, nor what is left of it without the thinking at its beginning.
    """
    content, left = message["content"].strip(), written.strip()
    if content not in written and not (left and content.endswith(left)) and not message.get("tool_calls"):
        raise Unmaskable("the template changes an answer's text, which cannot be found again")
