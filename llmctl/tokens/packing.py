"""Fitting documents into rows: optimised best-fit decreasing.

Documents go longest first into the row with the least room that still takes them (arXiv 2404.10830). Rows are kept by the
room they have left, and a tree over the capacities finds the smallest sufficient one, so that a document costs O(log capacity).
"""

import numpy as np

Piece = tuple[int, int, int]
"""(document, first token, tokens)."""


class _Rooms:
    """Which amounts of room (1 .. capacity) have a row; the smallest one of at least n."""

    def __init__(self, capacity: int) -> None:
        self.size = 1 << capacity.bit_length()
        self.counts = [0] * (2 * self.size)
        self.rows: list[list[int]] = [[] for _ in range(capacity + 1)]

    def put(self, room: int, row: int) -> None:
        if room > 0:
            self.rows[room].append(row)
            self._add(room, 1)

    def take_smallest_at_least(self, room: int) -> tuple[int, int] | None:
        """(room, row), taken out; None if no row has that much."""
        node = room + self.size
        if not self.counts[node]:
            while node > 1 and (node & 1 or not self.counts[node ^ 1]):
                node >>= 1
            if node <= 1:
                return None
            node ^= 1
            while node < self.size:
                node = 2 * node if self.counts[2 * node] else 2 * node + 1
        found = node - self.size
        self._add(found, -1)
        return found, self.rows[found].pop()

    def _add(self, room: int, amount: int) -> None:
        node = room + self.size
        while node:
            self.counts[node] += amount
            node >>= 1


def best_fit(lengths: np.ndarray, capacity: int) -> list[list[Piece]]:
    """Rows of pieces, each at most `capacity` tokens. A document longer than a row is cut into full rows and a rest;
    every token stands in exactly one row."""
    rows: list[list[Piece]] = []
    rests: list[Piece] = []
    for document, length in enumerate(lengths.tolist()):
        full = length // capacity * capacity
        rows += [[(document, start, capacity)] for start in range(0, full, capacity)]
        if length > full:
            rests.append((document, full, length - full))
    rests.sort(key=lambda piece: -piece[2])
    rooms = _Rooms(capacity)
    for piece in rests:
        fitting = rooms.take_smallest_at_least(piece[2])
        if fitting is None:
            rows.append([piece])
            rooms.put(capacity - piece[2], len(rows) - 1)
        else:
            room, row = fitting
            rows[row].append(piece)
            rooms.put(room - piece[2], row)
    return rows
