"""Conversations as tokens, and which of them are trained on.

<|im_start|>user          0
What is SGD?<|im_end|>    0
<|im_start|>assistant     0
SGD is ...                2  what the assistant writes: trained, and scored
<|im_end|>                1  its closing token: trained

The text is tokenised once; tokens are told apart by the characters that they stand for, and the trained ones are decoded
again: they must give the text of their turn, and nothing else.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from llmctl.tokens.spans import Span, Unmaskable, check_content, find_spans
from llmctl.tokens.template import Messages, Refused, render, special_pattern

MASKED, CLOSING, CONTENT = 0, 1, 2

LossOn = Literal["assistant", "last_turn"]
Tools = list[dict[str, Any]]


class Talk(Protocol):
    """A conversation, as the corpus has it."""

    @property
    def messages(self) -> Messages: ...
    @property
    def tools(self) -> Tools: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A `Talk` of these turns alone, such as the first ones of another."""

    messages: Messages
    tools: Tools


@dataclass(frozen=True, slots=True)
class Turn:
    """A trained turn, in tokens."""

    message: int
    """Its number among the messages."""
    start: int
    end: int
    """Of what the assistant writes: thinking, content, tool calls."""
    closing: int | None
    """The closing token; None: the template closes the turn with no special token."""
    span: tuple[int, int]
    """The characters of the rendered text that the assistant writes."""

    @property
    def stop(self) -> int:
        """After its last trained token."""
        return self.end if self.closing is None else self.closing + 1


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation of T tokens."""

    ids: list[int]
    mask: np.ndarray
    """uint8 [T]: 0 masked, 1 closing token, 2 what an assistant writes."""
    text: str
    """What the template writes; the tokens are its tokens."""
    offsets: np.ndarray
    """int64 [T, 2]: the characters of `text` that each token stands for."""
    turns: list[Turn] = field(default_factory=list)
    """The trained ones. An empty answer is none."""
    asked: int = 0
    """Characters of `text` before the first answer."""
    joined: bool = False
    """Whether a token holds the white space at the end of a turn's header and the beginning of the answer."""
    thinking: bool | None = None
    """Whether the last answer's thinking is written; None: it has none."""

    @property
    def closing_ids(self) -> list[int]:
        return [self.ids[turn.closing] for turn in self.turns if turn.closing is not None]


def encode_talks(tokenizer: Any, talks: Sequence[Talk], loss_on: LossOn = "assistant") -> list[Encoded | Unmaskable | Refused]:
    """Each conversation with its mask, or why it has none. Tokenised together, which takes all cores.

    Raises:
        UserError: the template is broken, or reaches out of its sandbox.
    """
    special = special_pattern(tokenizer)
    found: list[Any] = [_spans_of(tokenizer, special, talk.messages, talk.tools) for talk in talks]
    places = [place for place, item in enumerate(found) if isinstance(item, tuple)]
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    with _untrimmed(backend):
        encodings = backend.encode_batch([found[place][0] for place in places], add_special_tokens=False)
    for place, encoding in zip(places, encodings, strict=True):
        text, spans = found[place]
        try:
            found[place] = _masked(encoding.ids, np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2), text, spans, loss_on)
        except Unmaskable as error:
            found[place] = error
    for place in _untrue(backend, found):
        found[place] = Unmaskable("the trained tokens of a turn do not decode to its text")
    return found


def encode_talk(tokenizer: Any, messages: Messages, loss_on: LossOn = "assistant", tools: Tools | None = None) -> Encoded:
    """One conversation with its mask.

    Raises:
        Unmaskable: what is to be trained on cannot be told.
        Refused: the template does not write it.
    """
    (encoded,) = encode_talks(tokenizer, [Part(messages, tools or [])], loss_on)
    if isinstance(encoded, Exception):
        raise encoded
    return encoded


def _spans_of(
    tokenizer: Any, special: re.Pattern[str], messages: Messages, tools: Tools
) -> tuple[str, list[Span]] | Unmaskable | Refused:
    try:
        check_content(special, messages, tools)
        text = render(tokenizer, messages, tools=tools)
        return text, find_spans(tokenizer, special, messages, tools, text)
    except (Unmaskable, Refused) as error:
        return error


@contextmanager
def _untrimmed(backend: Any) -> Iterator[None]:
    """Offsets of tokens with the white space that they begin with: GPT-2's post-processor leaves it out of them."""
    from tokenizers import processors

    own = backend.post_processor
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    try:
        yield
    finally:
        backend.post_processor = own


def _masked(ids: list[int], offsets: np.ndarray, text: str, spans: list[Span], loss_on: LossOn) -> Encoded:
    """Raises:
    Unmaskable: a token holds an end of an answer and words of what stands before or after it.
    """
    starts, ends = offsets.T
    mask, turns, joined = np.zeros(len(ids), dtype=np.uint8), list[Turn](), False
    for span in spans if loss_on == "assistant" else spans[-1:]:
        if not text[span.start : span.end].strip():
            continue
        first = int(np.searchsorted(ends, span.start, side="right"))
        stop = int(np.searchsorted(starts, span.closing[0] if span.closing else span.end, side="left"))
        header = text[starts[first] : span.start]
        if header.strip():
            raise Unmaskable(f"one token holds the end of an answer's header and its beginning ({header!r} and what follows)")
        joined |= bool(header)
        if span.closing is None and text[span.end : ends[stop - 1]].strip():
            raise Unmaskable("one token holds the end of an answer and what follows it, for no special token closes the turn")
        closing = None
        if span.closing:
            # A token may be set to take the white space before it with it.
            closing = int(np.searchsorted(ends, span.closing[0], side="right"))
            stop = min(stop, closing)
            mask[closing] = CLOSING
        mask[first:stop] = CONTENT
        written = (span.start, span.closing[0] if span.closing else span.end)
        turns.append(Turn(span.message, first, stop, closing, written))
    if not spans:
        return Encoded(ids, mask, text, offsets, asked=len(text))
    return Encoded(ids, mask, text, offsets, turns, spans[0].start, joined, spans[-1].thinking)


def _untrue(backend: Any, found: list[Any]) -> list[int]:
    """Places of the conversations with a turn whose tokens decode to something else than its text, white space at the ends
    aside. Of a tokenizer that changes text (NFC, lower case) the text of the turn is what it makes of it alone."""
    turns = [(place, turn) for place, item in enumerate(found) if isinstance(item, Encoded) for turn in item.turns]
    decoded = backend.decode_batch([found[place].ids[turn.start : turn.end] for place, turn in turns], skip_special_tokens=False)
    wrong = []
    for (place, turn), written in zip(turns, decoded, strict=True):
        text = found[place].text[slice(*turn.span)].strip()
        if written.strip() != text:
            alone = backend.encode(text, add_special_tokens=False).ids
            if written.strip() != backend.decode(alone, skip_special_tokens=False).strip():
                wrong.append(place)
    return wrong
