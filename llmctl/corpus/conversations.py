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
from llmctl.corpus.own_conversations import held_out_besides, pool_conversations
from llmctl.corpus.personal import masked_turn
from llmctl.corpus.sources import Source, asked_about
from llmctl.errors import UserError
from llmctl.recipe.corpus_schema import CorpusTable

Counts = dict[str, Counter[str]]
"""Of every source: documents and bytes by split."""

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


def write_chat(
    sources: list[Source], table: CorpusTable, heldout: HeldOutLines, seed: int, out: Path, attrition: Attrition
) -> Counts:
    """Write the conversations of all sources; returns what is there by source, split and kind.

    Raises:
        UserError: a source that cannot be read, or that holds none to train on.
    """
    fraction = table.heldout_fraction
    own = [source for source in sources if source.table.path not in BUILTIN_CHAT]
    pools = {source.name: pool_conversations(source, out, attrition) for source in own}
    besides = held_out_besides(pools.values(), fraction)
    counts: Counts = {}
    for source in sources:
        if source.name in pools:
            found = pools[source.name].parted(fraction, besides)
        else:
            found = _at_least_one(_about_python(source, fraction, heldout, seed, attrition))
        counts[source.name] = _write(source, found, table, out)
    return counts


def _write(source: Source, found: Iterator[tuple[Conversation, bool]], table: CorpusTable, out: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    train, held = (conversations_file(out, source.name, split) for split in ("train", "heldout"))
    with writing(train) as write_train, writing(held) as write_held:
        for conversation, held_out in found:
            if table.mask:
                turns = [masked_turn(turn, table.mask, counts) for turn in conversation.messages]
                conversation = replace(conversation, messages=turns)
            (write_held if held_out else write_train)(conversation)
            split = "heldout" if held_out else "train"
            counts[f"{split}_documents"] += 1
            counts[f"{split}_bytes"] += conversation.size
            counts[f"kind_{conversation.kind or 'chat'}"] += 1
            if counts["train_documents"] % 500 == 0:
                events.progress(f"writing {source.name}", counts["train_documents"], None, "conversations")
    missing = [what for what, split in (("train on", "train"), ("hold out", "heldout")) if not counts[f"{split}_documents"]]
    if missing:
        place = source.table.path if missing[0] == "train on" else source.table.heldout or source.table.path
        raise UserError(f"source {source.name!r} ({place}) holds no conversation to {missing[0]}")
    return counts


def _at_least_one(found: Iterator[tuple[Conversation, bool]]) -> Iterator[tuple[Conversation, bool]]:
    """The same, but where none is held out by its name, the one nearest to it is."""
    any_held, nearest = False, None
    for conversation, held_out in found:
        any_held |= held_out
        if any_held:
            yield conversation, held_out
        elif nearest is None or place_of(conversation.id) < place_of(nearest.id):
            nearest, conversation = conversation, nearest
            if conversation is not None:
                yield conversation, False
        else:
            yield conversation, False
    if nearest is not None:
        yield nearest, not any_held


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
