"""Conversations as token shards with masks, and a report of what became of each row.

report.json   `ChatReport`: what was read and kept, what is trained on, and why rows were left out or cut, with their places
hashes.npy    uint64 [documents, 2]: of a conversation's tokens, and of its text before the first answer
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from llmctl import events
from llmctl.runs.files import read_json, staged_folder, write_json
from llmctl.tokens.masks import Encoded, LossOn, Part, Talk, encode_talks
from llmctl.tokens.shards import PartWriter, kind_of_ids, write_meta
from llmctl.tokens.spans import Unmaskable

TALKS, CHARACTERS = 512, 4_000_000  # of a batch: all cores are busy, and its tokens take less than 1 GB
PLACES = 10  # that are named for each reason

TOO_LONG = "longer than a row, and dropped"
CUT_TURNS = "longer than a row, and cut after a whole turn"
CUT_INSIDE = "longer than a row, and cut in the middle of a turn"
CUT_EMPTY = "longer than a row, and no trained token is left after the cut"
NO_ANSWER = "no answer to train on"
UNMASKABLE = "cannot be masked: "
REFUSED = "the template refuses it: "
KEPT_SHORTER = (CUT_TURNS, CUT_INSIDE)


class Row(Talk, Protocol):
    """A conversation with its place in the source."""

    @property
    def id(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ChatSettings:
    loss_on: LossOn
    max_tokens: int
    """Of a row: seq_len."""
    too_long: Literal["turns", "truncate", "drop"] = "turns"


@dataclass(slots=True)
class Reason:
    """Rows that share a fate."""

    count: int = 0
    places: list[str] = field(default_factory=list)
    """The first ten, as `file:line`."""


@dataclass(slots=True)
class ChatReport:
    """What became of a source's conversations."""

    conversations: int = 0
    """Read."""
    kept: int = 0
    tokens: int = 0
    trained: int = 0
    """Tokens, closing ones among them."""
    closing: int = 0
    """Closing tokens trained."""
    turns: int = 0
    """Trained."""
    unclosed: int = 0
    """Trained turns that the template closes with no special token."""
    joined: int = 0
    """Conversations where a token joins white space of the header with an answer."""
    thinking: int = 0
    """Conversations whose last answer has thinking."""
    thoughtless: int = 0
    """Those of them whose thinking the template leaves out."""
    closings: dict[str, int] = field(default_factory=dict)
    """How often each token closes a trained turn."""
    reasons: dict[str, Reason] = field(default_factory=dict)
    """Why rows were left out or cut."""

    @property
    def untrained(self) -> int:
        """Conversations left without a trained token."""
        return self.conversations - self.kept

    @property
    def left_out(self) -> dict[str, Reason]:
        """The reasons for it."""
        return {reason: rows for reason, rows in self.reasons.items() if reason not in KEPT_SHORTER}

    def note(self, reason: str, place: str) -> None:
        rows = self.reasons.setdefault(reason, Reason())
        rows.count += 1
        if len(rows.places) < PLACES:
            rows.places.append(place)

    def count(self, encoded: Encoded, tokenizer: Any) -> None:
        """A conversation that is kept."""
        self.kept += 1
        self.tokens += len(encoded.ids)
        self.trained += int(np.count_nonzero(encoded.mask))
        self.turns += len(encoded.turns)
        self.joined += encoded.joined
        self.thinking += encoded.thinking is not None
        self.thoughtless += encoded.thinking is False
        closing = encoded.closing_ids
        self.closing += len(closing)
        self.unclosed += len(encoded.turns) - len(closing)
        for token in tokenizer.convert_ids_to_tokens(closing):
            self.closings[token] = self.closings.get(token, 0) + 1


def write_chat_shards(
    conversations: Iterable[Row], tokenizer: Any, out: Path, settings: ChatSettings, name: str = "conversations"
) -> ChatReport:
    """Tokenise conversations with their masks. Rows without a trained token are left out, and what is longer than a row is
    cut or left out as the settings say; all of it is counted and told.

    Raises:
        UserError: the template is broken, or reaches out of its sandbox.
    """
    kind, report, hashes = kind_of_ids(tokenizer), ChatReport(), list[tuple[int, int]]()
    with staged_folder(out) as aside:
        writer = PartWriter(aside, 0, kind, masked=True)
        for batch in _batches(conversations):
            for talk, encoded in zip(batch, encode_talks(tokenizer, batch, settings.loss_on), strict=True):
                report.conversations += 1
                if isinstance(encoded, Exception):
                    report.note((UNMASKABLE if isinstance(encoded, Unmaskable) else REFUSED) + encoded.reason, talk.path)
                    continue
                if kept := _fitted(encoded, talk, tokenizer, settings, report):
                    writer.add(np.asarray(kept.ids), talk.id, talk.path, talk.size, kept.mask)
                    hashes.append(_hashes(kept))
                    report.count(kept, tokenizer)
            events.progress(f"tokenising {name}", report.conversations, None, "conversations")
        part = writer.close()
        np.save(aside / "hashes.npy", np.array(hashes, dtype=np.uint64).reshape(-1, 2))
        write_json(aside / "report.json", asdict(report))
        write_meta(aside, kind, [part], writer.lengths)
    _tell(report, settings, name)
    return report


def read_report(out: Path) -> ChatReport:
    """What `write_chat_shards` has left beside the shards."""
    values = read_json(out / "report.json")
    values["reasons"] = {reason: Reason(**rows) for reason, rows in values["reasons"].items()}
    return ChatReport(**values)


def read_hashes(out: Path) -> np.ndarray:
    """uint64 [documents, 2]: of a conversation's tokens, and of its text before the first answer."""
    return np.load(out / "hashes.npy")


def _batches(conversations: Iterable[Row]) -> Iterator[list[Row]]:
    batch, characters = list[Row](), 0
    for talk in conversations:
        batch.append(talk)
        characters += sum(len(message["content"]) for message in talk.messages)
        if len(batch) == TALKS or characters >= CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _fitted(encoded: Encoded, talk: Row, tokenizer: Any, settings: ChatSettings, report: ChatReport) -> Encoded | None:
    """The conversation as it fits a row; None: nothing of it is trained on, which is noted."""
    if not encoded.turns:
        report.note(NO_ANSWER, talk.path)
        return None
    if len(encoded.ids) <= settings.max_tokens:
        return encoded
    if settings.too_long == "drop":
        report.note(TOO_LONG, talk.path)
        return None
    if settings.too_long == "truncate":
        cut, reason = _first_tokens(encoded, settings.max_tokens), CUT_INSIDE
    else:
        cut, reason = _first_turns(encoded, talk, tokenizer, settings), CUT_TURNS
    report.note(reason if cut else CUT_EMPTY, talk.path)
    return cut


def _first_tokens(encoded: Encoded, count: int) -> Encoded | None:
    """The first `count` tokens; an answer that is cut is not closed. None: no trained token among them."""
    mask = encoded.mask[:count]
    if not mask.any():
        return None
    turns = [turn for turn in encoded.turns if turn.stop <= count]
    return replace(encoded, ids=encoded.ids[:count], mask=mask, offsets=encoded.offsets[:count], turns=turns)


def _first_turns(encoded: Encoded, talk: Talk, tokenizer: Any, settings: ChatSettings) -> Encoded | None:
    """As many whole turns as fit, the last of them an answer; rendered again, for a template may close the last one
    differently. None: not even the first answer fits."""
    whole = encoded
    if settings.loss_on == "last_turn":  # where the earlier answers end
        whole = encode_talks(tokenizer, [talk])[0]
        if isinstance(whole, Exception):
            return None
    for turn in reversed([turn for turn in whole.turns if turn.stop <= settings.max_tokens]):
        shorter = Part(talk.messages[: turn.message + 1], talk.tools)
        (cut,) = encode_talks(tokenizer, [shorter], settings.loss_on)
        if isinstance(cut, Encoded) and cut.turns and len(cut.ids) <= settings.max_tokens:
            return cut
    return None


def _hashes(encoded: Encoded) -> tuple[int, int]:
    whole, question = np.asarray(encoded.ids, dtype=np.uint32).tobytes(), encoded.text[: encoded.asked].encode()
    first, second = (hashlib.blake2b(data, digest_size=8).digest() for data in (whole, question))
    return int.from_bytes(first, "little"), int.from_bytes(second, "little")


def _tell(report: ChatReport, settings: ChatSettings, name: str) -> None:
    for reason, rows in report.reasons.items():
        where = ", ".join(rows.places[:3]) + (", ..." if rows.count > 3 else "")
        events.say(f"{name}: {rows.count:,} of {report.conversations:,} conversations: {_verb(reason, settings)} ({where})")
    if report.joined:
        events.say(
            f"{name}: in {report.joined:,} conversations this tokenizer joins white space at the end of the template's header "
            "with the answer's first word to one token, which is trained on"
        )
    if report.thoughtless:
        events.say(f"{name}: the template leaves out the thinking of {report.thoughtless:,} last answers")


def _verb(reason: str, settings: ChatSettings) -> str:
    return f"{reason} (seq_len = {settings.max_tokens:,} tokens)" if reason.startswith("longer") else reason
