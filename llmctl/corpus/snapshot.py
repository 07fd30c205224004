"""The corpus of a run: every source read, filtered, split, cleared of near copies of what is held out, and written down."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from llmctl import events
from llmctl.corpus.attrition import Attrition
from llmctl.corpus.conversations import Counts, hold_out_what_is_asked, write_chat
from llmctl.corpus.documents import Document, documents_file, rejects_file, writing, writing_rows
from llmctl.corpus.engine import load_daft
from llmctl.corpus.filtering import gathered
from llmctl.corpus.heldout import HeldOutLines, is_heldout, parted, place_of
from llmctl.corpus.personal import MASKS
from llmctl.corpus.pool import read_pool
from llmctl.corpus.sources import Source
from llmctl.errors import UserError
from llmctl.recipe.corpus_schema import CorpusTable


def snapshot(table: CorpusTable, seed: int, out: Path, attrition: Attrition) -> Counts:
    """Write every source below `out` with its held-out split.

    Raises:
        UserError: a source that cannot be read, or of which nothing is left.
    """
    load_daft(table.engine, table.ray_address)  # for good, and before anything is read if it is not there
    sources = [Source(name, source) for name, source in table.sources.items()]
    split = Split(table.heldout_fraction, out, attrition, {s.name: Counter() for s in sources if s.kind != "tokens"})
    with ExitStack() as stack:
        for source in sources:
            if source.kind == "text":
                split.rejects[source.name] = stack.enter_context(writing_rows(rejects_file(out, source.name, "split")))
        texts = [
            (source, stack.enter_context(gathered(source, table, out, attrition, split.counts[source.name])))
            for source in sources
            if source.kind == "text"
        ]
        # What is held out of all sources first: a training document may be a copy of one of any source.
        chosen = [split.hold_out(source, file) for source, file in texts]
        hold_out_what_is_asked(sources, table.heldout_fraction, split.heldout)
        for (source, file), names in zip(texts, chosen, strict=True):
            split.keep_the_rest(source, file, names)
    chat = [source for source in sources if source.kind == "chat"]
    split.counts |= write_chat(chat, table, split.heldout, seed, out, attrition)
    return split.counts


@dataclass
class Split:
    """The parting of all sources of text into what is held out and what is trained on."""

    fraction: float
    out: Path
    attrition: Attrition
    counts: Counts
    heldout: HeldOutLines = field(default_factory=HeldOutLines)
    rejects: dict[str, Callable[[dict[str, Any]], None]] = field(default_factory=dict)
    """Of every source, what writes down a document that is left out."""
    seen: set[int] = field(default_factory=set)
    """Hashes of the texts that are written."""

    def hold_out(self, source: Source, file: Path) -> set[str]:
        """Write what is held out of a source, at least one document, and return its names."""
        names: set[str] = set()
        nearest: Document | None = None
        with writing(documents_file(self.out, source.name, "heldout")) as write:

            def keep(document: Document) -> None:
                copy = bool(names) and hash(document.text) in self.seen
                names.add(document.id)
                if copy:
                    self._drop(source, document, "same text")
                    return
                self.heldout.add(document)
                self.seen.add(hash(document.text))
                write(document)
                self._count(source, "heldout", document.size)

            for document in self._documents(file):
                if is_heldout(document.id, self.fraction):
                    keep(document)
                elif not names and (nearest is None or place_of(document.id) < place_of(nearest.id)):
                    nearest = document
            if not names and nearest is not None:
                keep(nearest)
        return names

    def keep_the_rest(self, source: Source, file: Path, chosen: set[str]) -> None:
        """Write the documents that are not `chosen` to be held out, without copies of each other or of what is held out."""
        name = source.name
        with writing(documents_file(self.out, name, "train")) as write:
            for document in self._documents(file):
                if document.id in chosen:
                    continue
                if hash(document.text) in self.seen:
                    self._drop(source, document, "same text")
                elif (like := self.heldout.like(document.text)) is not None:
                    self._drop(source, document, "like a held-out document", like=like)
                else:
                    self.seen.add(hash(document.text))
                    write(document)
                    self._count(source, "train", document.size)
                    if self.counts[name]["train_documents"] % 200 == 0:
                        events.progress(f"splitting {name}", self.counts[name]["train_documents"], None, "documents")
        if not self.counts[name]["train_documents"]:
            lost = sum(row["documents"] for row in self.attrition.rows() if row["source"] == name)
            dropped = f"; {lost:,} were left out ({self.attrition.main_reason(name)})" if lost else ""
            raise UserError(f"source {name!r} ({source.table.path}) holds no document to train on{dropped}")

    def _documents(self, file: Path) -> Iterator[Document]:
        """The documents of a source; of a source with one alone, its beginning and its end."""
        documents = read_pool(file)
        first = list(islice(documents, 2))
        return chain(first if len(first) != 1 else parted(first[0], self.fraction), documents)

    def _drop(self, source: Source, document: Document, rule: str, **why: str) -> None:
        self.attrition.add(source.name, "split", rule, document.size, text=document.text)
        self.rejects[source.name](asdict(document) | {"rule": rule} | why)

    def _count(self, source: Source, split: str, size: int) -> None:
        self.counts[source.name][f"{split}_documents"] += 1
        self.counts[source.name][f"{split}_bytes"] += size


def show(counts: Counts, attrition: Attrition) -> None:
    """Tables of what is there and of what was left out."""
    rows = [
        (
            name,
            f"{count['train_documents']:,}",
            f"{count['train_bytes'] / 1e6:.1f} MB",
            f"{count['heldout_documents']:,}",
            f"{count['heldout_bytes'] / 1e6:.2f} MB",
        )
        for name, count in counts.items()
    ]
    events.emit(events.Table("corpus", ("source", "documents", "text", "held out", "its text"), tuple(rows)))
    attrition.show(counts)
    found = [(name, kind, count[f"masked_{kind}"]) for name, count in counts.items() for kind in MASKS]
    if rows := tuple((name, kind, f"{number:,}") for name, kind, number in found if number):
        events.emit(events.Table("personal data masked", ("source", "kind", "places"), rows))
