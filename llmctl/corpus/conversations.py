"""The conversations of a corpus: read or made, held out in part, written down."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llmctl import events
from llmctl.corpus import chat
from llmctl.corpus.attrition import Attrition
from llmctl.corpus.documents import Conversation, conversations_file, writing
from llmctl.corpus.heldout import HeldOutLines, is_heldout, place_of
from llmctl.corpus.personal import masked
from llmctl.corpus.rows import Faults
from llmctl.corpus.shapes import KNOWN, as_messages
from llmctl.corpus.sources import Source, asked_about, rows_of
from llmctl.errors import UserError
from llmctl.recipe.corpus_schema import CorpusTable

BUILTIN_CHAT = {
    "builtin:python-docstrings": chat.docstring_conversations,
    "builtin:python-errors": chat.error_conversations,
}


def hold_out_what_is_asked(sources: list[Source], fraction: float, heldout: HeldOutLines) -> None:
    """Files that held-out conversations of the built-in sources are about are held out as text, too."""
    for source in sources:
        if source.table.path in BUILTIN_CHAT:
            for document in asked_about(source):
                if is_heldout(document.id, fraction):
                    heldout.add(document)


def write_conversations(
    source: Source, table: CorpusTable, heldout: HeldOutLines, seed: int, out: Path, attrition: Attrition
) -> Counter[str]:
    """Write a source's conversations; returns what is there by split and kind. Where none is held out by its name, the one
    nearest to it is.

    Raises:
        UserError: there is none to train on.
    """
    counts: Counter[str] = Counter()
    train, held = (conversations_file(out, source.name, split) for split in ("train", "heldout"))
    nearest: Conversation | None = None
    with writing(train) as write_train, writing(held) as write_held:

        def keep(conversation: Conversation, held_out: bool) -> None:
            (write_held if held_out else write_train)(conversation)
            split = "heldout" if held_out else "train"
            counts[f"{split}_documents"] += 1
            counts[f"{split}_bytes"] += conversation.size
            counts[f"kind_{conversation.kind or 'chat'}"] += 1

        for conversation, held_out in _conversations(source, table.heldout_fraction, heldout, seed, attrition):
            if table.mask:
                conversation = _masked(conversation, table, counts)
            if held_out or counts["heldout_documents"]:
                keep(conversation, held_out)
            elif nearest is None or place_of(conversation.id) < place_of(nearest.id):
                nearest, conversation = conversation, nearest
                if conversation is not None:
                    keep(conversation, held_out=False)
            else:
                keep(conversation, held_out=False)
            if counts["train_documents"] % 500 == 0:
                events.progress(f"reading {source.name}", counts["train_documents"], None, "conversations")
        if nearest is not None:
            keep(nearest, held_out=not counts["heldout_documents"])
    if not counts["train_documents"]:
        raise UserError(f"source {source.name!r} ({source.table.path}) holds no conversation to train on")
    return counts


def _masked(conversation: Conversation, table: CorpusTable, counts: Counter[str]) -> Conversation:
    turns = [turn | {"content": masked(turn["content"], table.mask, counts)} for turn in conversation.messages]
    return replace(conversation, messages=turns)


def _conversations(
    source: Source, fraction: float, heldout: HeldOutLines, seed: int, attrition: Attrition
) -> Iterator[tuple[Conversation, bool]]:
    """Conversations, each with whether it is held out."""
    if source.table.path in BUILTIN_CHAT:
        return _about_python(source, fraction, heldout, seed, attrition)
    return _own_conversations(source, fraction, attrition)


def _own_conversations(source: Source, fraction: float, attrition: Attrition) -> Iterator[tuple[Conversation, bool]]:
    faults, used, most = Faults(source.table.on_error), 0, source.table.max_bytes
    for place, row in rows_of(source, faults):
        messages = as_messages(row)
        if messages is None:
            faults(place, f"no conversation with an answer; known shapes are {KNOWN}")
            continue
        identity = f"{source.name}/{row.get('id') or Path(place).name}"
        conversation = Conversation(messages, identity, source.name, place)
        used += conversation.size
        if most is not None and used > most:
            break
        yield conversation, is_heldout(identity, fraction)
    if faults.skipped:
        attrition.add(source.name, "read", "unreadable", 0, faults.skipped)


def _about_python(
    source: Source, fraction: float, heldout: HeldOutLines, seed: int, attrition: Attrition
) -> Iterator[tuple[Conversation, bool]]:
    """Built-in conversations, held out with the file that they are about. Held-out ones come first, and what asks the same
    of another file (an import line that many files have) is left out of training."""
    make, asked = BUILTIN_CHAT[source.table.path], set[int]()
    for held_out in (True, False):
        for document in asked_about(source):
            if is_heldout(document.id, fraction) != held_out or (not held_out and heldout.like(document.text) is not None):
                continue
            for conversation in make([document], source.name, seed):
                if held_out:
                    asked |= _questions(conversation)
                elif not asked.isdisjoint(_questions(conversation)):
                    attrition.add(source.name, "split", "asks what is held out", conversation.size, text=conversation.text)
                    continue
                yield conversation, held_out


def _questions(conversation: Conversation) -> set[int]:
    """What the turns ask, whatever the phrasing: each line of a question with the answer."""
    pairs = zip(conversation.messages[::2], conversation.messages[1::2], strict=True)
    return {
        hash((line.strip(), answer["content"]))
        for question, answer in pairs
        for line in question["content"].splitlines()
        if line.strip()
    }
