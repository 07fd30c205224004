"""The corpus of a run: every source read once, split, cleared of near copies of what is held out, and written down."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from llmctl import events
from llmctl.corpus import builtin, chat
from llmctl.corpus.documents import Conversation, Document, conversations_file, documents_file, writing
from llmctl.corpus.heldout import HeldOutLines, is_heldout
from llmctl.corpus.hub import PREFIX, read_hub
from llmctl.corpus.local import Faults, Place, read_rows
from llmctl.corpus.shapes import KNOWN, as_messages
from llmctl.errors import UserError
from llmctl.runs.files import write_json

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
    heldout = HeldOutLines()
    stats: dict[str, Counter[str]] = {spec.name: Counter() for spec in specs}
    # Held-out documents of all sources first: a training document may be a copy of one of any source.
    texts = [spec for spec in specs if not spec.is_chat]
    for spec in texts:
        with writing(documents_file(out, spec.name, "heldout")) as write:
            for document in _documents(spec, Counter()):
                if is_heldout(document.id, heldout_fraction):
                    heldout.add(document)
                    write(document)
                    _count(stats[spec.name], "heldout", document.text)
    seen: set[int] = set()
    for spec in texts:
        _write_training_documents(spec, heldout_fraction, heldout, seen, stats[spec.name], out)
    for spec in specs:
        if spec.is_chat:
            _write_conversations(spec, heldout_fraction, heldout, seed, stats[spec.name], out)
    plain = {name: dict(sorted(counts.items())) for name, counts in stats.items()}
    write_json(out / "stats.json", plain)
    _show(plain)
    return plain


def _count(counts: Counter[str], split: str, text: str) -> None:
    counts[f"{split}_documents"] += 1
    counts[f"{split}_bytes"] += len(text.encode())


def _write_training_documents(
    spec: SourceSpec, fraction: float, heldout: HeldOutLines, seen: set[int], counts: Counter[str], out: Path
) -> None:
    with writing(documents_file(out, spec.name, "train")) as write:
        for document in _documents(spec, counts):
            if is_heldout(document.id, fraction):
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


def _documents(spec: SourceSpec, counts: Counter[str]) -> Iterator[Document]:
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
    train, held = (conversations_file(out, spec.name, split) for split in ("train", "heldout"))
    with writing(train) as write_train, writing(held) as write_held:
        for conversation, held_out in _conversations(spec, fraction, heldout, seed, counts):
            (write_held if held_out else write_train)(conversation)
            _count(counts, "heldout" if held_out else "train", "".join(m["content"] for m in conversation.messages))
            counts[f"kind_{conversation.kind or 'chat'}"] += 1
            if counts["train_documents"] % 500 == 0:
                events.progress(f"reading {spec.name}", counts["train_documents"], None, "conversations")
    if not counts["train_documents"]:
        raise UserError(f"source {spec.name!r} ({spec.path}) holds no conversation to train on")


def _conversations(
    spec: SourceSpec, fraction: float, heldout: HeldOutLines, seed: int, counts: Counter[str]
) -> Iterator[tuple[Conversation, bool]]:
    """Conversations, each with whether it is held out. Built-in ones are held out with the file they are about."""
    if spec.path not in BUILTIN_CHAT:
        faults = Faults(spec.on_error)
        for place, row in _rows(spec, faults):
            messages = as_messages(row)
            if messages is None:
                faults(place, f"no conversation with an answer; known shapes are {KNOWN}")
                continue
            identity = f"{spec.name}/{row.get('id') or Path(place).name}"
            yield Conversation(messages, identity, spec.name, place), is_heldout(identity, fraction)
        counts["dropped_fault"] = faults.skipped
        return
    make = BUILTIN_CHAT[spec.path]
    packages = builtin.installed_packages(spec.max_bytes or CHAT_BYTES)
    for document in chain(builtin.standard_library(spec.max_bytes), packages):
        held_out = is_heldout(document.id, fraction)
        if held_out or not heldout.overlaps(document.text):
            yield from ((conversation, held_out) for conversation in make([document], spec.name, seed))


def _show(stats: dict[str, dict[str, int]]) -> None:
    rows = [
        (
            name,
            f"{counts.get('train_documents', 0):,}",
            f"{counts.get('train_bytes', 0) / 1e6:.1f} MB",
            f"{counts.get('heldout_documents', 0):,}",
            f"{counts.get('heldout_bytes', 0) / 1e6:.2f} MB",
            f"{counts.get('dropped_like_heldout', 0):,}",
            f"{counts.get('dropped_duplicate', 0):,}",
        )
        for name, counts in stats.items()
    ]
    columns = ("source", "documents", "text", "held out", "its text", "dropped: like held-out", "dropped: copies")
    events.emit(events.Table("corpus", columns, tuple(rows)))
