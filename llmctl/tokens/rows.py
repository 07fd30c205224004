"""Rows of `seq_len` tokens: cut from the stream of documents, or packed from whole documents."""

from dataclasses import dataclass

import numpy as np

from llmctl.tokens.packing import best_fit
from llmctl.tokens.shards import TokenShards

IGNORED = -100


Piece = tuple[int, int, int]
"""Of a document in a row: its number, the first of its tokens that is there, and how many are."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of T tokens.

    `labels[t]` is the token after `tokens[t]`, or -100 where nothing is to be learnt. `lengths` are the documents that
    attention may not cross, and sum to T.
    """

    tokens: np.ndarray
    labels: np.ndarray
    lengths: list[int]


def in_pieces(row: Row, reach: int) -> Row:
    """The row with attention and positions beginning anew after `reach` tokens at the latest."""
    lengths = [min(reach, length - start) for length in row.lengths for start in range(0, length, reach)]
    return Row(row.tokens, row.labels, lengths)


class ConcatRows:
    """Documents one after the other, cut into rows: no padding, documents are cut too.

    Without boundaries a row is one document to the model, and the label of its last token is the first of the next row.
    With them, attention and positions start anew at each document, and the last token of a document, which would
    predict the beginning of an unrelated one, has no label.
    """

    def __init__(self, shards: TokenShards, seq_len: int, document_boundaries: bool) -> None:
        self.shards, self.seq_len, self.boundaries = shards, seq_len, document_boundaries
        self.documents, self.tokens = shards.documents, shards.tokens

    def __len__(self) -> int:
        return max(0, (self.shards.tokens - 1) // self.seq_len)

    def _ends_inside(self, row: int) -> np.ndarray:
        """Positions in the row after which a document ends, 1 .. seq_len."""
        first = row * self.seq_len
        low, high = np.searchsorted(self.shards.offsets, [first, first + self.seq_len], side="right")
        return self.shards.offsets[low:high] - first

    def row(self, row: int) -> Row:
        first = row * self.seq_len
        stream = np.asarray(self.shards.stream[first : first + self.seq_len + 1], dtype=np.int64)
        tokens, labels = stream[:-1], stream[1:].copy()
        lengths = [self.seq_len]
        if self.boundaries:
            ends = self._ends_inside(row)
            labels[ends - 1] = IGNORED
            cuts = np.unique(np.concatenate([[0], ends, [self.seq_len]]))
            lengths = np.diff(cuts).tolist()
        return Row(tokens, labels, lengths)

    def pieces(self, row: int) -> list[Piece]:
        """The documents of a row, in order."""
        offsets, start = self.shards.offsets, row * self.seq_len
        end = start + self.seq_len
        first, last = np.searchsorted(offsets, [start, end - 1], side="right") - 1
        found = []
        for document in range(int(first), int(last) + 1):
            low, high = max(start, int(offsets[document])), min(end, int(offsets[document + 1]))
            if high > low:
                found.append((document, low - int(offsets[document]), high - low))
        return found

    def supervised(self, row: int) -> int:
        """Labels of the row that are not -100."""
        return self.seq_len - (len(self._ends_inside(row)) if self.boundaries else 0)


class PackedRows:
    """Whole documents fitted into rows, the rest padded. Attention, positions and labels stop at boundaries.

    `documents` are the numbers of those that are taken, as often as they are named; None: all. One that is longer than a row is
    cut into pieces, or with `truncate` ends with the row.
    """

    def __init__(
        self,
        shards: TokenShards,
        seq_len: int,
        documents: np.ndarray | None = None,
        truncate: bool = False,
        pad_id: int = 0,
    ) -> None:
        self.shards, self.seq_len, self.pad_id = shards, seq_len, pad_id
        chosen = np.arange(shards.documents) if documents is None else documents
        self._documents = chosen[shards.lengths[chosen] >= 2]
        lengths = shards.lengths[self._documents]
        if truncate:
            lengths = np.minimum(lengths, seq_len)
        self.documents, self.tokens = len(lengths), int(lengths.sum())
        self._rows = best_fit(lengths, seq_len)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, row: int) -> Row:
        tokens = np.full(self.seq_len, self.pad_id, dtype=np.int64)
        labels = np.full(self.seq_len, IGNORED, dtype=np.int64)
        lengths, at = [], 0
        for document, start, length in self._rows[row]:
            first = int(self.shards.offsets[self._documents[document]]) + start
            ids = np.asarray(self.shards.stream[first : first + length], dtype=np.int64)
            tokens[at : at + length] = ids
            following = ids[1:]
            if self.shards.mask is not None:
                following = np.where(self.shards.mask[first + 1 : first + length] > 0, following, IGNORED)
            labels[at : at + length - 1] = following
            lengths.append(length)
            at += length
        if at < self.seq_len:
            lengths.append(self.seq_len - at)
        return Row(tokens, labels, lengths)

    def pieces(self, row: int) -> list[Piece]:
        """The documents of a row, in order."""
        return [(int(self._documents[document]), start, length) for document, start, length in self._rows[row]]

    def supervised(self, row: int) -> int:
        """Labels of the row that are not -100."""
        count = 0
        for document, start, length in self._rows[row]:
            first = int(self.shards.offsets[self._documents[document]]) + start
            mask = self.shards.mask
            count += length - 1 if mask is None else int(np.count_nonzero(mask[first + 1 : first + length]))
        return count

    @property
    def padding(self) -> float:
        """Share of the tokens that are padding."""
        used = sum(length for pieces in self._rows for _, _, length in pieces)
        return 1.0 - used / max(1, len(self._rows) * self.seq_len)
