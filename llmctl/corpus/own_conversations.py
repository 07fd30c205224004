"""Conversations of the user's own: read, cleared of copies, and parted by their first question.

A question is held out by the hash of its words, whatever source asks it, so that no question is on both sides. Which ones are
is known when all sources are read: of a source that would have none, the question nearest to it is held out everywhere.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.corpus.attrition import Attrition
from llmctl.corpus.documents import Conversation, read_rows_of, rejects_file, writing_rows
from llmctl.corpus.heldout import place_of
from llmctl.corpus.rows import Faults
from llmctl.corpus.shapes import Shapes
from llmctl.corpus.sources import Source, rows_of
from llmctl.corpus.tool_calls import RowFault
from llmctl.errors import UserError


@dataclass(frozen=True, slots=True)
class ChatPool:
    """The conversations of a source on disk, before they are parted."""

    file: Path
    nearest: float
    """Place of the question that comes first to be held out."""
    given: bool
    """Whether the source says itself what is held out."""

    def parted(self, fraction: float, besides: set[float]) -> Iterator[tuple[Conversation, bool]]:
        """Conversations, each with whether it is held out: by `fraction`, or for a question whose place is in `besides`."""
        for row in read_rows_of(self.file):
            held_out = row.pop("held_out")
            conversation = Conversation(**row)
            if not self.given:
                place = place_of_question(conversation)
                held_out = place < fraction or place in besides
            yield conversation, held_out


def place_of_question(conversation: Conversation) -> float:
    """Where the first question stands in [0, 1), case and white space aside; what stands below the share held out is."""
    first = next((m for m in conversation.messages if m["role"] == "user"), conversation.messages[0])
    return place_of("question/" + " ".join(first["content"].casefold().split()))


def held_out_besides(pools: Iterable[ChatPool], fraction: float) -> set[float]:
    """Places of the questions that are held out so that every source has one that is."""
    return {pool.nearest for pool in pools if not pool.given and pool.nearest >= fraction}


def pool_conversations(source: Source, out: Path, attrition: Attrition) -> ChatPool:
    """Read a source, and what it names as held out, into a file below `out`.

    Raises:
        UserError: a row that is no conversation, unless such are skipped; or all conversations ask the same.
    """
    file = out / ".pools" / "conversations" / f"{source.name}.jsonl.zst"
    nearest, farthest, given = 1.0, 0.0, source.table.heldout is not None
    with writing_rows(file) as write, writing_rows(rejects_file(out, source.name, "split")) as reject:
        for held_out in (False, True) if given else (False,):
            for conversation in _read(source, held_out, attrition, reject):
                write(asdict(conversation) | {"held_out": held_out})
                place = place_of_question(conversation)
                nearest, farthest = min(nearest, place), max(farthest, place)
    if nearest == farthest and not given:
        raise UserError(
            f"source {source.name!r} ({source.table.path}): all its conversations begin with the same question, by which it is "
            f"decided what is held out; name held-out conversations: [corpus.sources.{source.name}] heldout = PATH"
        )
    return ChatPool(file, nearest, given)


def _read(
    source: Source, heldout: bool, attrition: Attrition, reject: Callable[[dict[str, Any]], None]
) -> Iterator[Conversation]:
    """The conversations of a source, or of its file of held-out ones, each once."""
    table, name = source.table, f"{source.name} (held out)" if heldout else source.name
    faults, shapes, seen, used, cut = Faults(table.on_error), Shapes(table, name), set[int](), 0, 0
    most = None if heldout else table.max_bytes
    for place, row in rows_of(source, faults, heldout):
        try:
            messages, tools, after = shapes.read(place, row)
            identity = f"{source.name}/{row.get('id') or Path(place).name}"
            conversation = Conversation(messages, identity, source.name, place, tools=tools)
            told = json.dumps([messages, tools], ensure_ascii=False, sort_keys=True)
            (told + identity).encode()
        except RowFault as fault:
            faults(place, fault.what, fault.reason)
            continue
        except UnicodeEncodeError:
            faults(place, "half a surrogate pair, which is no character", "half a surrogate pair")
            continue
        if hash(told) in seen:
            attrition.add(source.name, "split", "same conversation", conversation.size, text=conversation.text)
            reject(asdict(conversation) | {"rule": "same conversation"})
            continue
        used += conversation.size
        if most is not None and used > most:
            break
        seen.add(hash(told))
        cut += after > 0
        if len(seen) % 1000 == 0:
            events.progress(f"reading {name}", len(seen), None, "conversations")
        yield conversation
    shapes.finish()
    faults.tell(source.name, attrition)
    if cut:
        ends = "conversation ends" if cut == 1 else "conversations end"
        events.say(f"{name}: {cut:,} {ends} with a question; what follows the last answer is left out")
