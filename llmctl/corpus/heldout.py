"""What is held out, and that nothing like it is trained on.

A document is held out by the hash of its name, the same on every machine. A training document, of any source, that shares
more than half of its lines with a held-out one, or of that one's lines, is dropped: `multiprocess` is a copy of
`multiprocessing`, `pip/_vendor/tomli` of `tomllib`.
"""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np

from llmctl.corpus.documents import Document

SHORTEST_LINE = 12  # characters: shorter ones ("else:", "return") are everywhere
FEWEST_LINES = 8  # documents with fewer tell nothing by their lines
OVERLAP = 0.5
BEGINNING, END = "#beginning", "#end"
COMMON, COMMON_SHARE = 20, 0.1
"""A line in more held-out documents, and in a larger share of them, is boilerplate (licence headers)."""


def place_of(name: str) -> float:
    """Where the document of this name stands in [0, 1), the same on every machine; what stands below the share held out is."""
    return int.from_bytes(hashlib.sha256(f"heldout/{name}".encode()).digest()[:8], "big") / 2**64


def is_heldout(name: str, fraction: float) -> bool:
    """Whether the document of this name is held out. Of a text that is a source by itself, the end is."""
    return name.endswith(END) or (place_of(name) < fraction and not name.endswith(BEGINNING))


def parted(document: Document, fraction: float) -> list[Document]:
    """Beginning and end of a document, cut at the line break before its last `fraction`, or there where it has none."""
    place = round(len(document.text) * (1 - fraction))
    cut = document.text.rfind("\n", 0, place) + 1 or place
    parts = {BEGINNING: document.text[:cut], END: document.text[cut:]}
    return [replace(document, text=text, id=document.id + part) for part, text in parts.items()]


def telling_lines(text: str) -> np.ndarray:
    """Hashes of the lines that tell a document from another, white space aside; sorted, each once."""
    lines = {hash(line) for line in map(str.strip, text.splitlines()) if len(line) >= SHORTEST_LINE}
    return np.sort(np.fromiter(lines, dtype=np.int64, count=len(lines)))


class HeldOutLines:
    """The lines of all held-out documents, to find training documents that are near copies: 16 bytes a line."""

    def __init__(self) -> None:
        self._added: list[np.ndarray] = []
        self._sizes: list[int] = []
        self._names: dict[str, None] = {}
        self._lines, self._owners = np.empty(0, np.int64), np.empty(0, np.int64)

    def add(self, document: Document) -> None:
        if document.id in self._names:  # text and conversations may be about the same file
            return
        self._names[document.id] = None
        self._added.append(telling_lines(document.text))
        self._sizes.append(len(self._added[-1]))

    def _take_in(self) -> None:
        """Sort in what was added."""
        first = len(self._sizes) - len(self._added)
        owners = np.repeat(np.arange(first, len(self._sizes)), list(map(len, self._added)))
        lines, owners = np.concatenate([self._lines, *self._added]), np.concatenate([self._owners, owners])
        order = np.argsort(lines, kind="stable")
        self._lines, self._owners = lines[order], owners[order]
        self._added.clear()

    def like(self, text: str) -> str | None:
        """The name of a held-out document with which `text` shares more than half of its own lines, or of that document's."""
        if self._added:
            self._take_in()
        lines = telling_lines(text)
        low, high = (np.searchsorted(self._lines, lines, side=side) for side in ("left", "right"))
        common = max(COMMON, COMMON_SHARE * len(self._sizes))
        shared: Counter[int] = Counter()
        for place in np.flatnonzero((high > low) & (high - low <= common)):
            shared.update(self._owners[low[place] : high[place]].tolist())
        for index, count in shared.items():
            if count >= FEWEST_LINES and count > OVERLAP * min(len(lines), self._sizes[index]):
                return list(self._names)[index]
        return None
