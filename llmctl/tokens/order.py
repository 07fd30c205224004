"""Data order: which row stands at a position, as a function of a key (seed and stage) and the position alone.

A position of the whole stage is shuffled by a keyed permutation (a Feistel network over the next power of four, walked
until it falls into the range), which costs O(1) and keeps no table. The shuffled positions are dealt to the sources
by shares rounded so that they sum exactly (Hamilton's method); within a source, every pass over its rows is a permutation
of its own. Seeking is free, and neither ranks nor workers enter.
"""

import hashlib
from bisect import bisect_right
from itertools import accumulate

ROUNDS = 4


class Permutation:
    """A pseudo-random permutation of range(size), told by `key`."""

    def __init__(self, size: int, key: str) -> None:
        self.size = size
        self.half_bits = max(1, (max(1, size - 1).bit_length() + 1) // 2)
        self.mask = (1 << self.half_bits) - 1
        digest = hashlib.sha256(key.encode()).digest()
        self.keys = [int.from_bytes(digest[8 * i : 8 * i + 8], "big") | 1 for i in range(ROUNDS)]

    def _round(self, value: int, key: int) -> int:
        # Multiply and take high bits twice: a mixer of 64 bits (the constant is 2^64 over the golden ratio).
        mixed = ((value + 1) * key) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 29
        mixed = (mixed * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        return (mixed >> 32) & self.mask

    def __call__(self, index: int) -> int:
        while True:
            left, right = index >> self.half_bits, index & self.mask
            for key in self.keys:
                left, right = right, left ^ self._round(right, key)
            index = left << self.half_bits | right
            if index < self.size:
                return index


def deal(total: int, shares: list[float]) -> list[int]:
    """Whole numbers in proportion to `shares` that sum to `total`: the largest remainders get what is left."""
    exact = [total * share / sum(shares) for share in shares]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - exact[i], i))
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


class DataOrder:
    """`rows` positions over sources of `counts` rows each, in proportion to `shares`. Another `key` is another order."""

    def __init__(self, counts: list[int], shares: list[float], rows: int, key: str) -> None:
        self.counts, self.key, self.rows = counts, key, rows
        self.dealt = deal(rows, shares)
        self._starts = [0, *accumulate(self.dealt)]
        self._positions = Permutation(max(1, rows), f"{key}/positions")
        self._passes: dict[tuple[int, int], Permutation] = {}

    @property
    def repetitions(self) -> list[float]:
        """How often the rows of each source are passed over."""
        return [dealt / count for dealt, count in zip(self.dealt, self.counts, strict=True)]

    def at(self, position: int) -> tuple[int, int]:
        """(source, row) at a position of the stage."""
        place = self._positions(position)
        source = bisect_right(self._starts, place) - 1
        epoch, index = divmod(place - self._starts[source], self.counts[source])
        permutation = self._passes.get((source, epoch))
        if permutation is None:
            permutation = self._passes[source, epoch] = Permutation(self.counts[source], f"{self.key}/{source}/{epoch}")
        return source, permutation(index)
