"""A micro-batch of packed rows, flattened: attention sees documents, not rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from llmctl.tokens.rows import IGNORED, Row
from llmctl_kernels.runtime import power_of_two

FEWEST_SLOTS = 16
"""Documents that boundaries have room for at least."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of T tokens as one row of N = B x T."""

    tokens: Tensor
    """[1, N] int64"""
    labels: Tensor
    """[1, N] int64, -100 where nothing is to be learnt"""
    positions: Tensor
    """[1, N] int64, from 0 in every document"""
    cu_seqlens: Tensor
    """[S + 1] int32: where documents begin, then N. S is a power of two, so that compiled graphs serve many batches."""
    lengths: tuple[int, ...]
    """The documents' lengths, on the host: no kernel launch has to wait for them."""

    @property
    def max_length(self) -> int:
        """Tokens that the longest document has at most, a power of two or N, for the same reason."""
        return min(self.tokens.shape[1], power_of_two(max(self.lengths)))

    def to(self, device: torch.device) -> Self:
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin(self) -> Self:
        """In memory that a GPU copies from by itself."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Self:
        tokens, labels = change(self.tokens), change(self.labels)
        return type(self)(tokens, labels, change(self.positions), change(self.cu_seqlens), self.lengths)


def collate(rows: list[Row]) -> Batch:
    """Flatten rows; boundaries are counted once here, on the host."""
    return from_documents(
        np.concatenate([row.tokens for row in rows]),
        np.concatenate([row.labels for row in rows]),
        [length for row in rows for length in row.lengths],
    )


def from_documents(tokens: np.ndarray, labels: np.ndarray, lengths: list[int]) -> Batch:
    """A batch of documents of these lengths, one after the other in `tokens` [N] and `labels` [N]."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    slots = power_of_two(len(lengths), FEWEST_SLOTS)
    padded = np.pad(starts, (0, slots + 1 - len(starts)), mode="edge")
    positions = np.arange(len(tokens)) - np.repeat(starts[:-1], lengths)
    return Batch(
        torch.from_numpy(tokens)[None],
        torch.from_numpy(labels)[None],
        torch.from_numpy(positions)[None],
        torch.from_numpy(padded.astype(np.int32)),
        tuple(lengths),
    )


def of_sequences(sequences: list[list[int]]) -> Batch:
    """Every sequence a document of its own, each token labelled with the one after it; for scoring."""
    tokens = np.concatenate([np.asarray(sequence, dtype=np.int64) for sequence in sequences])
    labels = np.full(len(tokens), IGNORED, dtype=np.int64)
    at = 0
    for sequence in sequences:
        labels[at : at + len(sequence) - 1] = sequence[1:]
        at += len(sequence)
    return from_documents(tokens, labels, [len(sequence) for sequence in sequences])
