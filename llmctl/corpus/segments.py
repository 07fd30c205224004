"""Many texts as arrays: the words, lines and paragraphs of a batch of documents, with their hashes, without a loop over them.

The documents of a batch are one array of code points. A segment [start, end) of it has the hash (C[end] - C[start]) / P^start mod
2^64, where C sums code point x P^place: a polynomial hash (Karp and Rabin 1987) of any segment for two look-ups.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar
from unicodedata import category

import numpy as np

Item = TypeVar("Item")
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
SPACE, ALPHABETIC, UPPER, DIGIT, WORDLY = 1, 2, 4, 8, 16
"""Bits of what a code point is; WORDLY is neither white space nor punctuation or symbol."""
NEWLINE = 10
GAP = "\n\n"  # between documents
BATCH_CHARACTERS = 2_000_000  # of the documents that are looked at together: some 150 MB of arrays
MIX = np.uint64(0xFF51AFD7ED558CCD)  # of MurmurHash3's finaliser


@cache
def character_kinds() -> np.ndarray:
    """What every code point is, uint8 [0x110000]."""
    kinds = np.zeros(0x110000, dtype=np.uint8)
    for code in range(0x110000):
        character = chr(code)
        kind = SPACE * character.isspace() | ALPHABETIC * character.isalpha() | UPPER * character.isupper()
        kind |= DIGIT * character.isdecimal()
        if kind or category(character)[0] not in "PSCZ":
            kind |= WORDLY * (not kind & SPACE)
        kinds[code] = kind
    return kinds


@cache
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """BASE^i and BASE^-i modulo 2^64 for i below `size`."""

    def powers_of(base: int) -> np.ndarray:
        factors = np.full(size, base, dtype=np.uint64)
        factors[0] = 1
        return np.cumprod(factors)

    return powers_of(BASE), powers_of(pow(BASE, -1, 2**64))


def mixed(hashes: np.ndarray) -> np.ndarray:
    hashes = hashes * MIX
    return hashes ^ (hashes >> np.uint64(29))


def batches(items: Iterable[Item], length: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Items in order, as many together as have `most` characters; a longer one by itself."""
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and size + length(item) > most:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length(item)
    if batch:
        yield batch


def places_of(text: str, phrases: list[str]) -> list[tuple[int, int]]:
    """Where each phrase begins and ends in a text, in order."""
    places = []
    for phrase in phrases:
        start = text.find(phrase)
        while start >= 0:
            places.append((start, start + len(phrase)))
            start = text.find(phrase, start + len(phrase))
    return sorted(places)


@dataclass(frozen=True)
class Segments:
    """Pieces of a batch, in order: `starts` and `ends` in its code points, `documents` the document of each."""

    starts: np.ndarray
    ends: np.ndarray
    documents: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts


class Batch:
    """A batch of D documents."""

    def __init__(self, texts: list[str]) -> None:
        self.count = len(texts)
        self.joined = GAP.join(texts) + GAP
        self.codes = np.frombuffer(self.joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        self.kinds = character_kinds()[self.codes]
        self.lengths = np.fromiter(map(len, texts), dtype=np.int64, count=self.count)
        """Code points of each document [D]."""
        self.firsts = np.concatenate([[0], np.cumsum(self.lengths + len(GAP))])
        """Where each document begins [D + 1]."""

    def document_of(self, places: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.firsts, places, side="right") - 1

    def per_document(self, documents: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """How often each document is in `documents` [D], or the sum of its weights."""
        return np.bincount(documents, weights, minlength=self.count)

    @cached_property
    def _sums(self) -> np.ndarray:
        powers, _ = _powers(1 << (len(self.codes) + 1).bit_length())
        sums = np.zeros(len(self.codes) + 1, dtype=np.uint64)
        np.cumsum((self.codes.astype(np.uint64) + np.uint64(1)) * powers[: len(self.codes)], out=sums[1:])
        return sums

    def hashes(self, pieces: Segments) -> np.ndarray:
        """uint64, equal for equal pieces."""
        _, inverses = _powers(1 << (len(self.codes) + 1).bit_length())
        return mixed((self._sums[pieces.ends] - self._sums[pieces.starts]) * inverses[pieces.starts])

    def _pieces(self, outside: np.ndarray) -> Segments:
        """Runs of code points that are not `outside`."""
        edges = np.flatnonzero(np.diff(outside, prepend=True))
        starts, ends = edges[0::2], edges[1::2]  # the gap after the last document ends the last run
        return Segments(starts, ends, self.document_of(starts))

    @cached_property
    def words(self) -> Segments:
        """Runs without white space."""
        return self._pieces((self.kinds & SPACE) > 0)

    @cached_property
    def lines(self) -> Segments:
        """Runs without a line break, empty ones left out."""
        return self._pieces(self.codes == NEWLINE)

    @cached_property
    def paragraphs(self) -> Segments:
        """Lines up to two line breaks in a row."""
        lines = self.lines
        first = np.ones(len(lines.starts), dtype=bool)
        first[1:] = lines.starts[1:] - lines.ends[:-1] >= len(GAP)
        last = np.concatenate([first[1:], [True]])[: len(first)]
        return Segments(lines.starts[first], lines.ends[last], lines.documents[first])

    def words_in(self, pieces: Segments) -> tuple[np.ndarray, np.ndarray]:
        """The first word of each piece, by its place among the words, and how many there are."""
        first = np.searchsorted(self.words.starts, pieces.starts)
        return first, np.searchsorted(self.words.starts, pieces.ends) - first

    def ellipsis_before(self, ends: np.ndarray) -> np.ndarray:
        """Whether three full stops, or the one character for them, stand before each place."""
        codes, stop = self.codes, ord(".")
        dots = (ends >= 3) & (codes[ends - 1] == stop) & (codes[ends - 2] == stop) & (codes[ends - 3] == stop)
        return dots | (codes[ends - 1] == ord("…"))

    def kinds_of(self, pieces: Segments) -> np.ndarray:
        """Bits of all code points of each piece together, uint8. Between pieces is white space."""
        if not len(pieces.starts):
            return np.empty(0, dtype=np.uint8)
        return np.bitwise_or.reduceat(self.kinds, pieces.starts)

    def counted(self, pieces: Segments, wanted: np.ndarray) -> np.ndarray:
        """How many code points of each piece are `wanted`."""
        sums = np.concatenate([[0], np.cumsum(wanted, dtype=np.int64)])
        return sums[pieces.ends] - sums[pieces.starts]
