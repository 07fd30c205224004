"""The corpus of a run: every source read once, split, cleared of near copies of what is held out, and written down."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from llmctl import events
from llmctl.corpus import builtin, chat
from llmctl.corpus.documents import Conversation, Document, conversations_file, documents_file, writing
from llmctl.corpus.heldout import HeldOutLines, is_heldout, parted, place_of
from llmctl.corpus.hub import PREFIX, read_hub
from llmctl.corpus.local import Faults, Place, read_rows
from llmctl.corpus.shapes import KNOWN, as_messages
from llmctl.errors import UserError

BUILTIN_TEXT: dict[str, Callable[[int | None], Iterator[Document]]] = {
    "builtin:python-stdlib": builtin.standard_library,
    "builtin:python-packages": builtin.installed_packages,
}
BUILTIN_CHAT = {
    "builtin:python-docstrings": chat.docstring_conversations,
    "builtin:python-errors": chat.error_conversations,
}
CHAT_BYTES = 20_000_000  # of package source that chat data are made from, beside the standard library


@dataclass(frozen=True, slots=True)
class SourceSpec:
    name: str
    path: str
    kind: Literal["text", "chat"] = "text"
    max_bytes: int | None = None
    text_field: str = "text"
    split: str = "train"
    subset: str | None = None
    on_error: Literal["stop", "skip"] = "stop"

    @property
    def is_chat(self) -> bool:
        return self.kind == "chat" or self.path in BUILTIN_CHAT


def snapshot(specs: list[SourceSpec], heldout_fraction: float, seed: int, out: Path) -> dict[str, Any]:
    """Write every source below `out` with its held-out split. Returns, per source and split, documents and bytes, and how
    many were dropped and why.

    Raises:
        UserError: a source that cannot be read, or that holds nothing.
    """
    heldout, seen = HeldOutLines(), set[int]()
    stats: dict[str, Counter[str]] = {spec.name: Counter() for spec in specs}
    texts = [spec for spec in specs if not spec.is_chat]
    # What is held out of all sources first: a training document may be a copy of one of any source.
    chosen = {spec.name: _write_heldout_documents(spec, heldout_fraction, heldout, seen, stats[spec.name], out) for spec in texts}
    for spec in specs:
        if spec.path in BUILTIN_CHAT:
            for document in _asked_about(spec):
                if is_heldout(document.id, heldout_fraction):
                    heldout.add(document)
    for spec in texts:
        _write_training_documents(spec, heldout_fraction, chosen[spec.name], heldout, seen, stats[spec.name], out)
    for spec in specs:
        if spec.is_chat:
            _write_conversations(spec, heldout_fraction, heldout, seed, stats[spec.name], out)
    return {name: dict(sorted(counts.items())) for name, counts in stats.items()}


def _write_heldout_documents(
    spec: SourceSpec, fraction: float, heldout: HeldOutLines, seen: set[int], counts: Counter[str], out: Path
) -> set[str]:
    """Write what is held out of a source, at least one document, and return its names."""
    names: set[str] = set()
    nearest: Document | None = None
    with writing(documents_file(out, spec.name, "heldout")) as write:

        def hold_out(document: Document) -> None:
            names.add(document.id)
            heldout.add(document)
            seen.add(hash(document.text))
            write(document)
            _count(counts, "heldout", document.text)

        for document in _documents(spec, fraction, Counter()):
            if is_heldout(document.id, fraction):
                hold_out(document)
            elif not names and (nearest is None or place_of(document.id) < place_of(nearest.id)):
                nearest = document
        if not names and nearest is not None:
            hold_out(nearest)
    return names


def _count(counts: Counter[str], split: str, text: str) -> None:
    counts[f"{split}_documents"] += 1
    counts[f"{split}_bytes"] += len(text.encode())


def _write_training_documents(
    spec: SourceSpec,
    fraction: float,
    chosen: set[str],
    heldout: HeldOutLines,
    seen: set[int],
    counts: Counter[str],
    out: Path,
) -> None:
    """Write the documents that are not `chosen` to be held out, without copies of each other or of what is held out."""
    with writing(documents_file(out, spec.name, "train")) as write:
        for document in _documents(spec, fraction, counts):
            if document.id in chosen:
                continue
            if hash(document.text) in seen:
                counts["dropped_duplicate"] += 1
            elif heldout.overlaps(document.text):
                counts["dropped_like_heldout"] += 1
            else:
                seen.add(hash(document.text))
                write(document)
                _count(counts, "train", document.text)
                if counts["train_documents"] % 200 == 0:
                    events.progress(f"reading {spec.name}", counts["train_bytes"], spec.max_bytes, "bytes")
    if not counts["train_documents"]:
        raise UserError(f"source {spec.name!r} ({spec.path}) holds no document to train on")


def _documents(spec: SourceSpec, fraction: float, counts: Counter[str]) -> Iterator[Document]:
    """The documents of a source; of a source with one alone, its beginning and its end."""
    documents = _read(spec, counts)
    first = list(islice(documents, 2))
    return chain(first if len(first) != 1 else parted(first[0], fraction), documents)


def _read(spec: SourceSpec, counts: Counter[str]) -> Iterator[Document]:
    if spec.path in BUILTIN_TEXT:
        yield from BUILTIN_TEXT[spec.path](spec.max_bytes)
        return
    used = 0
    faults = Faults(spec.on_error)
    for place, row in _rows(spec, faults):
        text = row.get(spec.text_field)
        if not isinstance(text, str):
            faults(place, f"no text in field {spec.text_field!r} (it has {', '.join(map(str, row)) or 'no field'})")
            continue
        if not text.strip():
            counts["dropped_empty"] += 1
            continue
        try:
            used += len(text.encode())
        except UnicodeEncodeError:
            faults(place, "half a surrogate pair, which is no character")
            continue
        if spec.max_bytes is not None and used > spec.max_bytes:
            break
        yield Document(text, f"{spec.name}/{row.get('id') or Path(place).name}", spec.name, place)
    counts["dropped_fault"] = faults.skipped


def _rows(spec: SourceSpec, faults: Faults) -> Iterator[tuple[Place, dict[str, Any]]]:
    if spec.path.startswith(PREFIX):
        return read_hub(spec.path, spec.split, spec.subset)
    return read_rows(Path(spec.path), faults)


def _write_conversations(
    spec: SourceSpec, fraction: float, heldout: HeldOutLines, seed: int, counts: Counter[str], out: Path
) -> None:
    """Write a source's conversations. Where none is held out by its name, the one nearest to it is."""
    train, held = (conversations_file(out, spec.name, split) for split in ("train", "heldout"))
    nearest: Conversation | None = None
    with writing(train) as write_train, writing(held) as write_held:

        def keep(conversation: Conversation, held_out: bool) -> None:
            (write_held if held_out else write_train)(conversation)
            _count(counts, "heldout" if held_out else "train", "".join(m["content"] for m in conversation.messages))
            counts[f"kind_{conversation.kind or 'chat'}"] += 1

        for conversation, held_out in _conversations(spec, fraction, heldout, seed, counts):
            if held_out or counts["heldout_documents"]:
                keep(conversation, held_out)
            elif nearest is None or place_of(conversation.id) < place_of(nearest.id):
                nearest, conversation = conversation, nearest
                if conversation is not None:
                    keep(conversation, held_out=False)
            else:
                keep(conversation, held_out=False)
            if counts["train_documents"] % 500 == 0:
                events.progress(f"reading {spec.name}", counts["train_documents"], None, "conversations")
        if nearest is not None:
            keep(nearest, held_out=not counts["heldout_documents"])
    if not counts["train_documents"]:
        raise UserError(f"source {spec.name!r} ({spec.path}) holds no conversation to train on")


def _conversations(
    spec: SourceSpec, fraction: float, heldout: HeldOutLines, seed: int, counts: Counter[str]
) -> Iterator[tuple[Conversation, bool]]:
    """Conversations, each with whether it is held out."""
    if spec.path in BUILTIN_CHAT:
        return _about_python(spec, fraction, heldout, seed, counts)
    return _own_conversations(spec, fraction, counts)


def _own_conversations(spec: SourceSpec, fraction: float, counts: Counter[str]) -> Iterator[tuple[Conversation, bool]]:
    faults, used = Faults(spec.on_error), 0
    for place, row in _rows(spec, faults):
        messages = as_messages(row)
        if messages is None:
            faults(place, f"no conversation with an answer; known shapes are {KNOWN}")
            continue
        used += sum(len(message["content"].encode()) for message in messages)
        if spec.max_bytes is not None and used > spec.max_bytes:
            break
        identity = f"{spec.name}/{row.get('id') or Path(place).name}"
        yield Conversation(messages, identity, spec.name, place), is_heldout(identity, fraction)
    counts["dropped_fault"] = faults.skipped


def _asked_about(spec: SourceSpec) -> Iterator[Document]:
    """The files that built-in conversations are about."""
    return chain(builtin.standard_library(spec.max_bytes), builtin.installed_packages(spec.max_bytes or CHAT_BYTES))


def _about_python(
    spec: SourceSpec, fraction: float, heldout: HeldOutLines, seed: int, counts: Counter[str]
) -> Iterator[tuple[Conversation, bool]]:
    """Built-in conversations, held out with the file that they are about. Held-out ones come first, and what asks the same
    of another file (an import line that many files have) is left out of training."""
    make, asked = BUILTIN_CHAT[spec.path], set[int]()
    for held_out in (True, False):
        for document in _asked_about(spec):
            if is_heldout(document.id, fraction) != held_out or (not held_out and heldout.overlaps(document.text)):
                continue
            for conversation in make([document], spec.name, seed):
                if held_out:
                    asked |= _questions(conversation)
                elif not asked.isdisjoint(_questions(conversation)):
                    counts["dropped_like_heldout"] += 1
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


DROPPED = {
    "dropped_like_heldout": "like held-out",
    "dropped_duplicate": "copies",
    "dropped_near_copy": "near copies",
}
"""Why documents are dropped, as the table says it."""


def show(stats: dict[str, dict[str, int]]) -> None:
    """The table of documents and of what was dropped, with a column for each reason that there was."""
    reasons = [reason for reason in DROPPED if any(reason in counts for counts in stats.values())]
    rows = [
        (
            name,
            f"{counts.get('train_documents', 0):,}",
            f"{counts.get('train_bytes', 0) / 1e6:.1f} MB",
            f"{counts.get('heldout_documents', 0):,}",
            f"{counts.get('heldout_bytes', 0) / 1e6:.2f} MB",
            *(f"{counts.get(reason, 0):,}" for reason in reasons),
        )
        for name, counts in stats.items()
    ]
    columns = ("source", "documents", "text", "held out", "its text", *(f"dropped: {DROPPED[reason]}" for reason in reasons))
    events.emit(events.Table("corpus", columns, tuple(rows)))
