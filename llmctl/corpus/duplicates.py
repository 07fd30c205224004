"""Documents that are copies of another, to the letter or nearly: MinHash over bands of signatures, verified.

A document becomes the set of its word n-grams. Of `bands` x `rows` MinHash values, two documents of Jaccard similarity s
share a whole band with probability 1 - (1 - s^rows)^bands: with 26 x 11, 0.90 at s = 0.8 and 0.09 at 0.6 (Broder 1997;
Olmo 3, arXiv 2512.13961, appendix A.2.2). Those that share one are compared by their n-grams, and what is similar enough is
joined into clusters, of which one document stays.
"""

import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from llmctl.corpus.engine import load_daft, streamed
from llmctl.corpus.pool import count_of
from llmctl.corpus.segments import mixed
from llmctl.recipe.corpus_schema import DedupTable, Engine

LARGEST_SKETCH = 4096  # n-grams of a document that are compared; of a longer one those of the smallest hashes
MOST_COMPARISONS = 20  # of a document with the clusters of its band: boilerplate fills bands with what is not alike
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # of SplitMix's finaliser


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
    from daft.functions import normalize

    normal = normalize(daft.col("text"), remove_punct=True, lowercase=True, white_space=True)
    signatures = Signatures(daft, pool, normal, table)
    order = signatures.order
    copies = exact_copies(signatures.hashes, order)
    if table.fuzzy:
        here = np.array([place for place in order if int(place) not in copies], dtype=np.int64)
        wanted = sharing_a_band(signatures.bands, here)
        with Sketches(pool.with_suffix(".sketches"), len(wanted)) as sketch:
            if wanted.any():
                chosen, sketched = places(daft, wanted)(daft.col("n")), sketches(daft, table.ngram)(normal).alias("sketch")
                sketch.write(streamed(daft, pool, lambda frame: frame.where(chosen).select(daft.col("n"), sketched)))
            near = near_copies(shared_bands(signatures.bands, here), sketch, order, table.similarity)
        for place, copy in copies.items():
            if (other := near.get(copy.kept)) is not None:  # what was kept of equal documents is a near copy of another
                copies[place] = replace(copy, kept=other.kept, similarity=other.similarity)
        copies |= near
    return copies, len(order)


class Signatures:
    """What tells the documents of a pool apart, by place: two hashes, hashes of bands, and what they are preferred by."""

    def __init__(self, daft: Any, pool: Path, normal: Any, table: DedupTable) -> None:
        from daft.functions import hash as hashed
        from daft.functions import minhash

        count = count_of(pool)
        self.hashes = np.empty((2, count), dtype=np.uint64)
        self.bands = np.empty((count, table.bands if table.fuzzy else 0), dtype=np.uint64)
        sizes, dates = np.empty(count, dtype=np.int64), np.empty(count, dtype=object)
        columns = [daft.col("n"), daft.col("text").length_bytes().alias("bytes")]
        columns += [daft.col("date")] if table.keep == "newest" else []
        columns += [hashed(normal, seed=seed).alias(f"hash{seed}") for seed in (0, 1)]
        if table.fuzzy:
            values = minhash(normal, num_hashes=table.bands * table.rows, ngram_size=table.ngram, hash_function="xxhash3_64")
            columns.append(band_hashes(daft, table)(values).alias("bands"))
        for batch in streamed(daft, pool, lambda frame: frame.select(*columns)):
            here = batch["n"].to_numpy()
            sizes[here] = batch["bytes"].to_numpy()
            if table.keep == "newest":
                dates[here] = batch["date"].to_numpy(zero_copy_only=False)
            for seed in (0, 1):
                self.hashes[seed, here] = batch[f"hash{seed}"].to_numpy()
            if table.fuzzy:
                self.bands[here] = batch["bands"].flatten().to_numpy().reshape(len(here), -1)
        self.order = np.arange(count)
        """Places in the order in which documents are preferred."""
        if table.keep == "longest":
            self.order = np.argsort(-sizes, kind="stable")
        elif table.keep == "newest":
            _, ages = np.unique(dates.astype(str), return_inverse=True)
            self.order = np.argsort(-ages, kind="stable")


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


def shared_bands(bands: np.ndarray, here: np.ndarray) -> Iterator[np.ndarray]:
    """Of the places `here`, preferred ones first, those that share a band with another, band by band."""
    for band in range(bands.shape[1]):
        hashes = bands[here, band]
        by_hash = np.argsort(hashes, kind="stable")
        edges = np.concatenate([[0], np.flatnonzero(np.diff(hashes[by_hash])) + 1, [len(here)]])
        for run in np.flatnonzero(np.diff(edges) > 1):
            yield here[by_hash[edges[run] : edges[run + 1]]]


def sharing_a_band(bands: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Which places are in one of `shared_bands`, bool."""
    wanted = np.zeros(len(bands), dtype=bool)
    for bucket in shared_bands(bands, here):
        wanted[bucket] = True
    return wanted


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


def near_copies(buckets: Iterable[np.ndarray], sketch: Sketches, order: np.ndarray, similarity: float) -> dict[int, Copy]:
    """Join what shares a band and is similar; of each cluster all go but the preferred one."""
    rank = ranks(order)
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


def band_hashes(daft: Any, table: DedupTable) -> Any:
    """A 64-bit hash of each band of MinHash values [bands x rows]."""
    bands, rows = table.bands, table.rows

    @daft.func.batch(return_dtype=daft.DataType.list(daft.DataType.uint64()))
    def of_signatures(signatures: Any) -> Any:
        import pyarrow

        values = signatures.to_arrow().flatten().to_numpy().reshape(-1, bands, rows).astype(np.uint64)
        hashes = np.full(values.shape[:2], GOLDEN)
        for row in range(rows):
            hashes = mixed(hashes ^ values[:, :, row])
        offsets = np.arange(len(values) + 1, dtype=np.int32) * bands
        return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(hashes.reshape(-1)))

    return of_signatures


def places(daft: Any, wanted: np.ndarray) -> Any:
    """Whether each place is `wanted`."""

    @daft.func.batch(return_dtype=daft.DataType.bool())
    def of_places(numbers: Any) -> Any:
        import pyarrow

        return pyarrow.array(wanted[numbers.to_arrow().to_numpy()])

    return of_places


def sketches(daft: Any, ngram: int) -> Any:
    """The n-grams of normalised texts, as `ngram_hashes` has them."""

    @daft.func.batch(return_dtype=daft.DataType.list(daft.DataType.uint64()))
    def of_texts(texts: Any) -> Any:
        import pyarrow

        found = [ngram_hashes(text, ngram) for text in texts.to_pylist()]
        offsets = np.concatenate([[0], np.cumsum([len(hashes) for hashes in found])]).astype(np.int32)
        return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(np.concatenate(found) if found else np.empty(0, np.uint64)))

    return of_texts
