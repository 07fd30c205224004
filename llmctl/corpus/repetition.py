"""How much of a document repeats itself: Gopher's measures of lines, paragraphs and word n-grams.

Rae et al. 2021 (arXiv 2112.11446), table A1: shares of the code points that are in repeated lines and paragraphs, in the most
frequent 2-, 3- and 4-gram, and in repeated 5- to 10-grams that do not overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llmctl.corpus.segments import Batch, Segments, mixed

TOP_NGRAMS = (2, 3, 4)
REPEATED_NGRAMS = (5, 6, 7, 8, 9, 10)


@dataclass(frozen=True)
class Groups:
    """Equal ones among N keys, by place: where each group of two and more stands first, and how many it has."""

    members: np.ndarray
    """Places that are in a group, in order."""
    again: np.ndarray
    """Of these, whether an equal one stands before [members]."""
    firsts: np.ndarray
    counts: np.ndarray


def equal_ones(keys: np.ndarray) -> Groups:
    if not len(keys):
        return Groups(*(np.empty(0, kind) for kind in (np.int64, bool, np.int64, np.int64)))
    order = np.argsort(keys)
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(np.append(starts, len(keys)))
    firsts = np.minimum.reduceat(order, starts)[counts > 1]
    kinds = np.zeros(len(keys), dtype=np.int8)  # 1 in a group, 2 the first of one
    kinds[order[np.repeat(counts > 1, counts)]] = 1
    kinds[firsts] = 2
    members = np.flatnonzero(kinds)
    return Groups(members, kinds[members] == 1, firsts, counts[counts > 1])


def _within_documents(hashes: np.ndarray, documents: np.ndarray) -> np.ndarray:
    return mixed(hashes ^ (documents.astype(np.uint64) + np.uint64(1)))


def repeated_pieces(batch: Batch, pieces: Segments) -> tuple[np.ndarray, np.ndarray]:
    """Of each document [D]: the share of its pieces that stand in it before, and what these have of its code points."""
    groups = equal_ones(_within_documents(batch.hashes(pieces), pieces.documents))
    again = groups.members[groups.again]
    number = batch.per_document(pieces.documents[again])
    size = batch.per_document(pieces.documents[again], pieces.lengths[again])
    return number / np.maximum(1, batch.per_document(pieces.documents)), size / np.maximum(1, batch.lengths)


def repeated_ngrams(batch: Batch, limits: dict[int, float], passed: np.ndarray) -> dict[int, np.ndarray]:
    """By n, the share of each document's code points [D] in its most frequent n-gram (2 to 4) or in repeated n-grams (5 to 10).

    The latter is exact where it decides: for documents that have `passed` so far [D] and have more than `limits[n]`. For the
    others it is a bound from above, or zero.
    """
    words, passed = batch.words, passed.copy()
    before = np.concatenate([[0], np.cumsum(words.lengths)])  # code points of words
    shares = {}
    for n, places, keys, groups in _growing_ngrams(batch.hashes(words), words.documents, max(limits, default=1), passed):
        if n not in limits:
            continue
        if n in TOP_NGRAMS:
            firsts = places[groups.firsts]
            # An n-gram is written with one space between its words.
            written = before[firsts + n] - before[firsts] + n - 1
            shares[n] = _most_frequent(batch, words.documents[firsts], firsts, groups.counts, written)
        else:
            members = groups.members
            shares[n] = _repeated(batch, places[members], keys[members], groups.again, n, before, limits[n])
        passed &= shares[n] <= limits[n]
    return shares


def _growing_ngrams(
    hashes: np.ndarray, documents: np.ndarray, longest: int, passed: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray, Groups]]:
    """n, places and keys of n-grams, and which are equal. What an n-gram begins with occurs as often as it does, so that
    each n looks only at what was repeated before, in documents that have still `passed`."""
    places = np.flatnonzero(passed[documents])
    keys = _within_documents(hashes[places], documents[places])
    for n in range(2, longest + 1):
        last = np.minimum(places + n - 1, len(hashes) - 1)
        inside = (places + n - 1 == last) & (documents[places] == documents[last]) & passed[documents[places]]
        places, last = places[inside], last[inside]
        keys = mixed(keys[inside] ^ hashes[last])
        groups = equal_ones(keys)
        yield n, places, keys, groups
        places, keys = places[groups.members], keys[groups.members]


def _most_frequent(
    batch: Batch, documents: np.ndarray, firsts: np.ndarray, counts: np.ndarray, written: np.ndarray
) -> np.ndarray:
    """Share of each document in its most frequent n-gram; of equally frequent ones that which stands first."""
    shares = np.zeros(batch.count)
    order = np.lexsort((-firsts, counts))  # of several values for a document the last is kept
    shares[documents[order]] = (counts * written)[order]
    return shares / np.maximum(1, batch.lengths)


def _repeated(
    batch: Batch, places: np.ndarray, keys: np.ndarray, again: np.ndarray, n: int, before: np.ndarray, limit: float
) -> np.ndarray:
    """Share of each document in n-grams that stand in it before."""
    documents = batch.words.documents
    # At most every word of every repetition counts, each once.
    size = len(documents) + 1
    depth = np.bincount(places[again], minlength=size) - np.bincount(places[again] + n, minlength=size)
    inside = np.flatnonzero(np.cumsum(depth[:-1]) > 0)
    shares = batch.per_document(documents[inside], before[inside + 1] - before[inside]) / np.maximum(1, batch.lengths)
    close = np.flatnonzero(shares > limit)
    lows, highs = np.searchsorted(documents[places], [close, close + 1])
    for document, low, high in zip(close, lows, highs, strict=True):
        shares[document] = _without_overlap(places[low:high], keys[low:high], n, before) / batch.lengths[document]
    return shares


def _without_overlap(places: np.ndarray, keys: np.ndarray, n: int, before: np.ndarray) -> int:
    """Code points in repeated n-grams, from left to right; after one, the next begins behind it."""
    seen: set[int] = set()
    free, size = 0, 0
    for place, key in zip(places.tolist(), keys.tolist(), strict=True):
        if place < free:
            continue
        if key in seen:
            size += int(before[place + n] - before[place])
            free = place + n
        else:
            seen.add(key)
    return size
