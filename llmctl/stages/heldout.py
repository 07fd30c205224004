"""Held-out text and conversations of a run, the same for every stage that is measured on them."""

import random
from collections.abc import Iterator
from pathlib import Path

from llmctl.corpus.documents import Conversation, Document, read_conversations, read_documents


def sample_texts(corpus: Path, source: str, budget: int) -> list[str]:
    """The beginning of every held-out document of a source, `budget` bytes in all.

    Short documents are whole and the long ones cut to one length, so that no single file decides the measure: one
    generated table of the standard library is a third of its held-out bytes.
    """
    texts = [document.text for document in read_documents(corpus, source, "heldout")]
    left, cut = budget, 0
    for count, size in zip(range(len(texts), 0, -1), sorted(len(text.encode()) for text in texts), strict=True):
        cut = left // count
        if size > cut:
            break
        left, cut = left - size, size
    return [beginning(text, cut) for text in texts if cut]


def beginning(text: str, size: int) -> str:
    """At most the first `size` bytes of `text`, in whole characters."""
    return text.encode()[:size].decode(errors="ignore")


def long_documents(corpus: Path, sources: list[str], minimum_bytes: int) -> Iterator[Document]:
    """The held-out documents of at least `minimum_bytes`."""
    for source in sources:
        for document in read_documents(corpus, source, "heldout"):
            if len(document.text.encode()) >= minimum_bytes:
                yield document


def sample_conversations(corpus: Path, sources: list[str], count: int, seed: int) -> list[Conversation]:
    """`count` held-out conversations drawn by `seed`, an equal share from each source."""
    share = max(1, count // max(1, len(sources)))
    chosen: list[Conversation] = []
    for source in sources:
        found = list(read_conversations(corpus, source, "heldout"))
        chosen += random.Random(f"{seed}/{source}").sample(found, min(share, len(found)))
    random.Random(seed).shuffle(chosen)  # the first few are of every source, too
    return chosen
