"""Where a rendered conversation holds what the assistant wrote.

A span begins where generation would: after the text of the turns before it with the beginning of an answer, where that is how
the whole text begins. Templates that write earlier turns differently once later ones follow (tools before the last question,
thinking of the last answer alone) are asked again with every answer replaced by a marker: what stands around the markers
must stand around the answers. A span ends before the special token that closes the turn, the first one after the content.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from llmctl.errors import UserError
from llmctl.tokens.template import Messages, Refused, render

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
    thinking: bool | None = None
    """Whether the turn's thinking stands in it; None: it has none."""


class Unmaskable(UserError):
    """A conversation of which cannot be told what is to be trained on; `reason` names why, alike for all that share it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this conversation cannot be masked: {reason}. Mend or leave out the row, or use another template.")
        self.reason = reason


def check_content(special: re.Pattern[str], messages: Messages, tools: list[dict[str, Any]]) -> None:
    """Raises:
    Unmaskable: a text would become a special token, such as one that ends a turn, or cannot be written in UTF-8.
    """
    for text in _texts([messages, tools]):
        if found := special.search(text):
            raise Unmaskable(f"holds a special token of the tokenizer as text, {found.group()}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unmaskable("holds half a surrogate pair, which is no text") from None


def find_spans(
    tokenizer: Any, special: re.Pattern[str], messages: Messages, tools: list[dict[str, Any]], text: str
) -> list[Span]:
    """Spans of every assistant turn of `text`, which is `messages` rendered; `special` matches any special token.

    Raises:
        Unmaskable: a span cannot be told, or the template has no place for tool calls or tools.
    """
    _check_tools(tokenizer, messages, tools, text)
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    around, spans = None, list[Span]()
    for number, index in enumerate(answers):
        start = _after_prompt(tokenizer, messages[:index], tools, text)
        span = _up_to_special(messages[index], index, text, start, special) if start is not None else None
        if span is None:
            around = _around_markers(tokenizer, messages, tools, text) if around is None else around
            if not around:
                raise Unmaskable("the template writes a conversation differently when another answer stands in it")
            span = _between(messages[index], index, text, start, around[number], special)
        before = spans[-1].end if spans else 0
        thought = (messages[index].get("reasoning_content") or "").strip()
        if span.start < before:
            raise Unmaskable("the template writes its turns in another order than they are given")
        if thought and thought in text[before : span.start] and thought not in text[span.start : span.end]:
            raise Unmaskable("it cannot be told where the thinking of a turn begins in this template")
        if not _holds_calls(messages[index], text[span.start : span.end]):
            raise Unmaskable("the template leaves out tool calls")
        spans.append(replace(span, thinking=thought in text[span.start : span.end] if thought else None))
    return spans


def _check_tools(tokenizer: Any, messages: Messages, tools: list[dict[str, Any]], text: str) -> None:
    """Raises:
    Unmaskable: a function that is offered is not named in `text`, or the text is the same without any.
    """
    names = [name for tool in tools if (name := (tool.get("function") or tool).get("name"))]
    if any(name not in text for name in names) or (tools and _written_without_tools(tokenizer, messages) == text):
        raise Unmaskable("the template leaves out the tools that are offered")


def _written_without_tools(tokenizer: Any, messages: Messages) -> str | None:
    try:
        return render(tokenizer, messages)
    except Refused:
        return None


def _holds_calls(message: dict[str, Any], written: str) -> bool:
    """Whether a turn as it is written names the function of each of its calls, beside what content and thinking say of it."""
    said = [text for key in ("content", "reasoning_content") if (text := (message.get(key) or "").strip()) and text in written]
    calls = Counter(call["function"]["name"] for call in message.get("tool_calls") or ())
    return all(written.count(name) >= count + sum(text.count(name) for text in said) for name, count in calls.items())


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


def _up_to_special(message: dict[str, Any], index: int, text: str, start: int, special: re.Pattern[str]) -> Span | None:
    """The span of a turn whose content alone stands between `start` and the next special token, which content never holds.
    None: something else stands there, or nothing; or tool calls belong there, too, and may begin with a special token."""
    content, closing = message["content"].strip(), special.search(text, start)
    if closing is None or not content or message.get("tool_calls"):
        return None
    written = text[start : closing.start()].rstrip()
    return Span(index, start, start + len(written), closing.span()) if written.lstrip() == content else None


def _between(
    message: dict[str, Any], index: int, text: str, start: int | None, around: tuple[int, int], special: re.Pattern[str]
) -> Span:
    """The span of what stands between the pieces around a marker; it begins at `start` if that is known.

    Raises:
        Unmaskable: it does not hold the turn's content, nor what is left of it without the thinking at its beginning.
    """
    start, end = around[0] if start is None else start, around[1]
    content, left = message["content"].strip(), text[slice(*around)].strip()
    if start > end or not (content in left or (left and content.endswith(left)) or message.get("tool_calls")):
        raise Unmaskable("the template changes an answer's text, which cannot be found again")
    after = re.compile(r"\s*").match(text, end)
    closing = special.match(text, after.end() if after else end)
    return Span(index, start, end, closing.span() if closing else None)


def _around_markers(tokenizer: Any, messages: Messages, tools: list[dict[str, Any]], text: str) -> list[tuple[int, int]]:
    """(start, end) of every answer in `text`: what stands between the pieces that stand around the markers. Empty: the template
    does not write the conversation so, or writes something else around them.

    Of a turn the marker replaces all that is written; or, for templates that write an empty place for thinking where there is
    none, all but the thinking.
    """
    for kept in (("role",), ("role", "reasoning_content")):
        marked, count = [], 0
        for message in messages:
            if message["role"] == "assistant":
                message = {key: message[key] for key in kept if key in message} | {"content": MARKER.format(count)}
                count += 1
            marked.append(message)
        try:
            found = _fitted(render(tokenizer, marked, tools=tools), count, text)
        except Refused:
            found = []
        if found:
            return found
    return []


def _fitted(rest: str, count: int, text: str) -> list[tuple[int, int]]:
    """The spans of `text` that stand between the same pieces as the `count` markers of `rest` do; empty: there are none.

    A piece begins with the token that closes a turn, which no content holds: the first place it is found at is the right one.
    """
    starts, ends, end = list[int](), list[int](), 0
    for number in range(count + 1):
        piece, marker, after = rest.partition(MARKER.format(number))
        if (number < count) != bool(marker) or MARKER.format(number) in after:
            return []
        core, rest = piece.strip(), after
        place = text.find(core, end) if number < count else len(text.rstrip()) - len(core)
        if place < end or not text.startswith(core, place) or (number == 0 and text[:place].strip()):
            return []
        ends.append(place)
        end = place + len(core)
        header_space = piece[len(piece.rstrip()) :]
        starts.append(end + len(header_space) if text.startswith(header_space, end) else end)
    return list(zip(starts, ends[1:], strict=False))
