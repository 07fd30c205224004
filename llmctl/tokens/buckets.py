"""Long documents by length: which bucket each falls into, and which ones are drawn for a stage."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

BATCH = 64  # documents that are decoded and compressed together


@dataclass(frozen=True, slots=True)
class Bucket:
    """Documents of `low` tokens and more, up to the next bucket."""

    low: int
    high: int | None
    """None: without end."""
    documents: np.ndarray
    """[documents] int64: their numbers in the shards."""
    lengths: np.ndarray
    """[documents] int64: their tokens."""

    @property
    def name(self) -> str:
        return f"{short(self.low)} and more" if self.high is None else f"{short(self.low)}-{short(self.high)}"

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    def counted(self, capacity: int) -> int:
        """Tokens of all documents where one counts `capacity` at most."""
        return int(np.minimum(self.lengths, capacity).sum())

    def only(self, wanted: np.ndarray) -> "Bucket":
        """The documents at these places (indices, or a mask)."""
        return Bucket(self.low, self.high, self.documents[wanted], self.lengths[wanted])


def short(length: int) -> str:
    """8192 -> 8k."""
    return next((f"{length // size}{unit}" for size, unit in ((2**20, "M"), (2**10, "k")) if length % size == 0), f"{length}")


def buckets_of(lengths: np.ndarray, edges: Sequence[int]) -> list[Bucket]:
    """The documents of these lengths in buckets that begin at `edges`, ascending; shorter ones are in none."""
    found = []
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        numbers = np.flatnonzero((lengths >= low) & (lengths < (high or np.inf)))
        found.append(Bucket(low, high, numbers, lengths[numbers]))
    return found


def powers_of_two(lengths: np.ndarray, low: int = 1) -> list[Bucket]:
    """All documents of `low` tokens and more in buckets of powers of two, as far as there are any."""
    longest = int(lengths.max(initial=0))
    edges = [1 << power for power in range(low.bit_length() - 1, longest.bit_length())]
    return [bucket for bucket in buckets_of(lengths, edges) if len(bucket.documents)]


def compressed_sizes(texts: Iterator[str], workers: int, done: Callable[[int], None] = lambda count: None) -> np.ndarray:
    """Of each text, the bytes that gzip's method (level 6) makes of a byte, [texts] float64."""
    shares: list[float] = []
    with ThreadPoolExecutor(workers) as pool:  # zlib lets other threads run
        while batch := list(islice(texts, BATCH)):
            shares += pool.map(_compressed, batch)
            done(len(shares))
    return np.array(shares)


def _compressed(text: str) -> float:
    data = text.encode()
    return len(zlib.compress(data, 6)) / max(1, len(data))


def within(sizes: np.ndarray, smallest: float, largest: float) -> np.ndarray:
    """Mask without the share `smallest` of the values from below and `largest` from above; ties go by their place."""
    order = np.argsort(sizes, kind="stable")
    kept = np.zeros(len(sizes), dtype=bool)
    kept[order[int(smallest * len(sizes)) : len(sizes) - int(largest * len(sizes))]] = True
    return kept


def draw(bucket: Bucket, tokens: float, capacity: int, seed: np.random.SeedSequence | int) -> np.ndarray:
    """Documents of a bucket, drawn without repetition until they are all there, and then anew, until they hold about `tokens`.
    One that is longer than `capacity` counts so much."""
    counted = np.minimum(bucket.lengths, capacity)
    whole, rest = divmod(tokens, max(1, int(counted.sum())))
    order = np.random.default_rng(seed).permutation(len(bucket.documents))
    part = order[: int(np.searchsorted(np.cumsum(counted[order]), rest, side="left")) + (rest >= 1)]
    return np.concatenate([np.tile(bucket.documents, int(whole)), bucket.documents[part]])
