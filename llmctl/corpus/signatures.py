"""MinHash signatures of a pool's documents: hashes of bands, of which two alike documents share one.

A document becomes the set of its word n-grams. Of `bands` x `rows` MinHash values, two documents of Jaccard similarity s
share a whole band with probability 1 - (1 - s^rows)^bands: with 26 x 11, 0.90 at s = 0.8 and 0.09 at 0.6 (Broder 1997;
Olmo 3, arXiv 2512.13961, appendix A.2.2).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.corpus.engine import streamed
from llmctl.corpus.pool import count_of
from llmctl.corpus.segments import mixed
from llmctl.recipe.corpus_schema import DedupTable

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # of SplitMix's finaliser
SCREEN_BANDS, SCREEN_LOSS = 16, 1e-4


def screen_rows(table: DedupTable) -> int:
    """Rows of a small signature of `SCREEN_BANDS` bands that all but `SCREEN_LOSS` of the pairs of the table's similarity share a
    band of. What shares none needs no large signature: most documents of most corpora. 0: a screen does not pay."""
    least = 1 - SCREEN_LOSS ** (1 / SCREEN_BANDS)  # s^rows at which 1 - s^rows to the power of the bands is the loss
    rows = table.rows if table.similarity == 1 else min(table.rows, int(math.log(least) / math.log(table.similarity)))
    return rows if 2 * SCREEN_BANDS * rows <= table.bands * table.rows else 0


class Signatures:
    """What tells the documents of a pool apart, by place: two hashes, hashes of bands, and what they are preferred by."""

    def __init__(self, daft: Any, pool: Path, table: DedupTable, bands: int, rows: int, wanted: np.ndarray | None = None) -> None:
        """Where `wanted` is given, of these places alone (bool); the others hold anything."""
        from daft.functions import hash as hashed
        from daft.functions import minhash

        count = count_of(pool)
        self.hashes = np.empty((2, count), dtype=np.uint64)
        self.bands = np.empty((count, bands), dtype=np.uint64)
        sizes, dates = np.empty(count, dtype=np.int64), np.empty(count, dtype=object)
        normal = daft.col("normal")
        columns = [daft.col("n"), daft.col("text").length_bytes().alias("bytes")]
        columns += [daft.col("date")] if table.keep == "newest" else []
        columns += [hashed(normal, seed=seed).alias(f"hash{seed}") for seed in (0, 1)]
        if bands:
            values = minhash(normal, num_hashes=bands * rows, ngram_size=table.ngram, hash_function="xxhash3_64")
            columns.append(values.alias("values"))
        for batch in streamed(daft, pool, lambda frame: normalised(daft, frame, wanted).select(*columns)):
            here = batch["n"].to_numpy()
            sizes[here] = batch["bytes"].to_numpy()
            if table.keep == "newest":
                dates[here] = batch["date"].to_numpy(zero_copy_only=False)
            for seed in (0, 1):
                self.hashes[seed, here] = batch[f"hash{seed}"].to_numpy()
            if bands:
                self.bands[here] = band_hashes(batch["values"].flatten().to_numpy().reshape(-1, bands, rows))
        self.order = np.arange(count)
        """Places in the order in which documents are preferred."""
        if table.keep == "longest":
            self.order = np.argsort(-sizes, kind="stable")
        elif table.keep == "newest":
            _, ages = np.unique(dates.astype(str), return_inverse=True)
            self.order = np.argsort(-ages, kind="stable")


def normalised(daft: Any, frame: Any, wanted: np.ndarray | None = None) -> Any:
    """The rows of a frame at the places that are `wanted` (all: None), with their text normalised in the column `normal`."""
    from daft.functions import normalize

    @daft.func.batch(return_dtype=daft.DataType.bool())
    def of_places(numbers: Any) -> Any:
        import pyarrow

        assert wanted is not None
        return pyarrow.array(wanted[numbers.to_arrow().to_numpy()])

    frame = frame if wanted is None else frame.where(of_places(daft.col("n")))
    # A column of its own: written into each expression, it would be made for each.
    return frame.with_column("normal", normalize(daft.col("text"), remove_punct=True, lowercase=True, white_space=True))


def band_hashes(values: np.ndarray) -> np.ndarray:
    """A hash of each band, uint64 [D, bands], of MinHash values [D, bands, rows]."""
    hashes = np.full(values.shape[:2], GOLDEN)
    for row in range(values.shape[2]):
        hashes = mixed(hashes ^ values[:, :, row].astype(np.uint64))
    return hashes


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
