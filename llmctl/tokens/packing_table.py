"""What packing saves: rows, padding and cut documents of best-fit decreasing beside the ways that others pack."""

from dataclasses import dataclass

import numpy as np

from llmctl.tokens.packing import best_fit


@dataclass(frozen=True, slots=True)
class Packed:
    """What a way of packing makes of documents in rows of `capacity` tokens."""

    name: str
    rows: int
    padding: float
    """Share of the rows' tokens."""
    cut: int
    """Documents that do not stand in one row in whole, those longer than a row included."""


def compare(lengths: np.ndarray, capacity: int) -> list[Packed]:
    """Best-fit decreasing, first fit in the order that the documents have, and one stream that is cut into rows."""
    too_long, total = int((lengths > capacity).sum()), int(lengths.sum())
    ways = {"best fit, longest first": len(best_fit(lengths, capacity)), "first fit": first_fit(lengths, capacity)}
    found = [Packed(name, rows, 1 - total / max(1, rows * capacity), too_long) for name, rows in ways.items()]
    ends = np.cumsum(lengths)
    crossing = int(((ends - lengths) // capacity != (ends - 1) // capacity).sum())
    return [*found, Packed("one stream, cut", -(-total // capacity), 0.0, crossing)]


def first_fit(lengths: np.ndarray, capacity: int) -> int:
    """Rows when each document goes into the first row that has room for it; of one longer than a row, its rest.

    A tree over the rows holds the most room below each node, so that a document costs O(log rows).
    """
    full, rests = int((lengths // capacity).sum()), [rest for rest in (lengths % capacity).tolist() if rest]
    size = 1 << max(1, len(rests)).bit_length()
    most = [capacity] * (2 * size)
    rows = 0
    for rest in rests:
        node = 1
        while node < size:
            node *= 2
            if most[node] < rest:
                node += 1
        rows = max(rows, node - size + 1)
        most[node] -= rest
        while node > 1:
            node >>= 1
            most[node] = max(most[2 * node], most[2 * node + 1])
    return full + rows
