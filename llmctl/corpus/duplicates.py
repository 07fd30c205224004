"""Documents that are copies of another, to the letter or nearly: MinHash over bands of signatures, verified.

Documents whose signatures share a band are compared by their n-grams, and what is similar enough is joined into clusters, of
which one document stays.
"""

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from llmctl.corpus.engine import load_daft, streamed
from llmctl.corpus.segments import mixed
from llmctl.corpus.signatures import SCREEN_BANDS, Signatures, normalised, screen_rows, shared_bands, sharing_a_band
from llmctl.recipe.corpus_schema import DedupTable, Engine

LARGEST_SKETCH = 4096  # n-grams of a document that are compared; of a longer one those of the smallest hashes
MOST_COMPARISONS = 20  # of a document with the clusters of its band: boilerplate fills bands with what is not alike


@dataclass(frozen=True, slots=True)
class Copy:
    """A document that goes, by its place in the pool."""

    rule: Literal["exact copy", "near copy"]
    kept: int
    """The place of the one that stays for it."""
    similarity: float
    """Jaccard similarity of the two, by their n-grams."""


def find_copies(
    pool: Path, table: DedupTable, engine: Engine = "native", ray_address: str | None = None
) -> tuple[dict[int, Copy], int]:
    """Which of the documents of a pool are to go, and how many there are."""
    daft = load_daft(engine, ray_address)
    full = (table.bands, table.rows) if table.fuzzy else (0, 0)
    rows = screen_rows(table) if table.fuzzy else 0
    signatures = Signatures(daft, pool, table, *((SCREEN_BANDS, rows) if rows else full))
    order = signatures.order
    copies = exact_copies(signatures.hashes, order)
    if table.fuzzy:
        here = np.array([place for place in order if int(place) not in copies], dtype=np.int64)
        if rows:
            wanted = sharing_a_band(signatures.bands, here)
            signatures = Signatures(daft, pool, table, *full, wanted)
            here = here[wanted[here]]
        near = near_copies(daft, pool, signatures.bands, here, table)
        for place, copy in copies.items():
            if (other := near.get(copy.kept)) is not None:  # what was kept of equal documents is a near copy of another
                copies[place] = replace(copy, kept=other.kept, similarity=other.similarity)
        copies |= near
    return copies, len(order)


def ranks(order: np.ndarray) -> np.ndarray:
    """Where each place stands in an order."""
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank


def exact_copies(hashes: np.ndarray, order: np.ndarray) -> dict[int, Copy]:
    """Copies among documents of these hashes, [2, D]."""
    first, second = hashes
    by_hash = np.lexsort((ranks(order), second, first))
    equal = (first[by_hash[1:]] == first[by_hash[:-1]]) & (second[by_hash[1:]] == second[by_hash[:-1]])
    copies, kept = {}, -1
    for place, again in zip(by_hash.tolist(), [False, *equal.tolist()], strict=False):
        if again:
            copies[place] = Copy("exact copy", kept, 1.0)
        else:
            kept = place
    return copies


class Sketches:
    """Sketches of documents in a file that lasts as long as the block: of many documents they are larger than memory."""

    def __init__(self, file: Path, documents: int) -> None:
        self.file = file
        self._starts, self._lengths = (np.zeros(documents, dtype=np.int64) for _ in range(2))

    def __enter__(self) -> Self:
        self._opened = self.file.open("w+b")
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()
        self.file.unlink(missing_ok=True)

    def write(self, batches: Iterable[Any]) -> None:
        """Of Arrow batches of `n` and `sketch`."""
        at = 0
        for batch in batches:
            column = batch["sketch"]
            offsets = column.offsets.to_numpy()
            column.values.slice(offsets[0], offsets[-1] - offsets[0]).to_numpy().tofile(self._opened)
            places = batch["n"].to_numpy()
            self._starts[places], self._lengths[places] = at + 8 * (offsets[:-1] - offsets[0]), np.diff(offsets)
            at += 8 * int(offsets[-1] - offsets[0])
        self._opened.flush()

    def __getitem__(self, place: int) -> np.ndarray:
        data = os.pread(self._opened.fileno(), 8 * int(self._lengths[place]), int(self._starts[place]))
        return np.frombuffer(data, dtype=np.uint64)


def near_copies(daft: Any, pool: Path, bands: np.ndarray, here: np.ndarray, table: DedupTable) -> dict[int, Copy]:
    """Near copies among the places `here`, preferred ones first, by the bands that they share."""
    wanted = sharing_a_band(bands, here)
    with Sketches(pool.with_suffix(".sketches"), len(wanted)) as sketch:
        if wanted.any():
            columns = daft.col("n"), sketches(daft, table.ngram)(daft.col("normal")).alias("sketch")
            sketch.write(streamed(daft, pool, lambda frame: normalised(daft, frame, wanted).select(*columns)))
        return clusters(shared_bands(bands, here), sketch, here, table.similarity)


def clusters(buckets: Iterable[np.ndarray], sketch: Sketches, here: np.ndarray, similarity: float) -> dict[int, Copy]:
    """Join what shares a band and is similar; of each cluster all go but the preferred one."""
    rank = {int(place): number for number, place in enumerate(here)}
    parent: dict[int, int] = {}
    different: set[tuple[int, int]] = set()

    def root(place: int) -> int:
        while (above := parent.get(place, place)) != place:
            parent[place] = place = parent.get(above, above)
        return place

    for bucket in buckets:
        leaders: list[int] = []
        for place in map(int, bucket):
            joined = False
            for leader in leaders[-MOST_COMPARISONS:]:
                mine, theirs = root(place), root(leader)
                if mine == theirs:
                    joined = True
                elif (place, leader) not in different:
                    if jaccard(sketch[place], sketch[leader]) >= similarity:
                        low, high = sorted((mine, theirs), key=lambda p: rank[p])
                        parent[high] = low
                        joined = True
                    else:
                        different.add((place, leader))
            if not joined:
                leaders.append(place)
    kept = {place: root(place) for place in list(parent)}
    return {place: Copy("near copy", to, jaccard(sketch[place], sketch[to])) for place, to in kept.items() if place != to}


def jaccard(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Jaccard similarity of two sets of hashes, each sorted and without repetition. Of sketches that were cut, over the
    smallest hashes of both, which is an even sample of their union."""
    both = np.intersect1d(mine, theirs, assume_unique=True)
    if len(mine) < LARGEST_SKETCH and len(theirs) < LARGEST_SKETCH:
        return len(both) / (len(mine) + len(theirs) - len(both))
    union = np.union1d(mine, theirs)[:LARGEST_SKETCH]
    return float(np.isin(union, both, assume_unique=True).mean())


def ngram_hashes(text: str, ngram: int) -> np.ndarray:
    """Sorted hashes of the word n-grams of a normalised text; a shorter one is a single n-gram."""
    words = np.fromiter((zlib.crc32(word.encode()) for word in text.split(" ")), dtype=np.uint64)
    width = min(ngram, len(words))
    hashes = np.zeros(len(words) - width + 1, dtype=np.uint64)
    for offset in range(width):
        hashes = mixed(hashes ^ words[offset : offset + len(hashes)])
    return np.unique(hashes)[:LARGEST_SKETCH]


def sketches(daft: Any, ngram: int) -> Any:
    """The n-grams of normalised texts, as `ngram_hashes` has them."""

    @daft.func.batch(return_dtype=daft.DataType.list(daft.DataType.uint64()))
    def of_texts(texts: Any) -> Any:
        import pyarrow

        found = [ngram_hashes(text, ngram) for text in texts.to_pylist()]
        offsets = np.concatenate([[0], np.cumsum([len(hashes) for hashes in found])]).astype(np.int32)
        return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(np.concatenate(found) if found else np.empty(0, np.uint64)))

    return of_texts
