"""Floating-point operations of training, from the numbers of a model's shape.

Of a token, a weight of a matrix costs a multiplication and an addition in the forward pass and twice that in the backward
pass, once for the gradient of the input and once for that of the weight: 6, and 4 where the weight is frozen (Kaplan et al.
2020, arXiv 2001.08361, section 2.1). A query and a key that it sees cost 2 x head_size in the scores and as much again in
the sum over values, in every head, and three times that with the backward pass: 12 x heads x head_size. Only keys that are
seen count: those before the query, inside its window and its document. Published figures often count the whole row, all
T x T of it; they come out higher. What is computed again (activation checkpointing) is not counted, nor are norms, softmax
and the optimizer.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass


def pairs_seen(length: int, window: int | None) -> int:
    """Pairs of a query and a key that it sees, itself included, in a document of `length` tokens: causal, and at most
    `window` keys a query."""
    if window is None or window >= length:
        return length * (length + 1) // 2
    return window * (window + 1) // 2 + (length - window) * window


@dataclass(frozen=True, slots=True)
class Work:
    """What decides how many operations a token costs."""

    trained: int
    """Weights of matrices that are trained; the output head counts, the input embedding does not."""
    frozen: int
    """Those that gradients only pass through, as below a LoRA adapter."""
    windows: tuple[int | None, ...]
    """Of each layer, the keys that a query sees at most; None: all before it."""
    heads: int
    head_size: int

    def flops_per_token(self, documents: Mapping[int, int]) -> float:
        """Of forward and backward passes, the mean over a batch that has so many documents of each length (tokens). A row of T
        tokens taken for one document, `{T: 1}`, is a bound from above."""
        tokens = sum(length * count for length, count in documents.items())
        pairs = sum(
            pairs_seen(length, window) * count * layers
            for length, count in documents.items()
            for window, layers in Counter(self.windows).items()
        )
        # Gradients end at the first layer's input: an adapter's frozen q, k and v cost 2 there and not 4. It is not taken off.
        return 6 * self.trained + 4 * self.frozen + 12 * self.heads * self.head_size * pairs / tokens
